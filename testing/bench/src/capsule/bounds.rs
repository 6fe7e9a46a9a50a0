//! The least that sealing and storing can cost, measured beside what they do cost.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, ML_DSA_44_SIGNING, PqdsaKeyPair,
};
use bield_capsule::Suite;
use bield_sdk::capsule::AppenderOptions;

use super::Effort;
use super::append::{saturate, short};
use super::chain::{KEY_BYTES, Put};
use super::load::{Rest, offer};
use super::place::Place;
use crate::bars::{Bar, median};

/// What the format asks for and nothing else, against the whole path: over the same bytes an
/// authentication pass (GMAC), an encryption, a hash pass; a signature a record.
pub(crate) fn crypto(effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    for suite in effort.suites() {
        let primitives = Primitives::of(suite)?;
        for value in effort.values() {
            eprintln!("  crypto bound, suite {}, {value} B", suite.number());
            let (mut ratios, mut batches, mut bounds, mut rates) = (vec![], vec![], vec![], vec![]);
            for _ in 0..effort.rounds() {
                let achieved = saturate(&Place::Memory, suite, value, effort)?;
                let batch = achieved.batch.round().max(1.0) as usize;
                let bound = primitives.rate(batch, value, effort.span(&Place::Memory) / 2)?;
                ratios.push(bound / achieved.rate);
                batches.push(achieved.batch);
                bounds.push(bound);
                rates.push(achieved.rate);
            }
            bars.push(Bar::at_most(
                format!("crypto bound ÷ achieved in memory, suite {}, {value} B", suite.number()),
                median(ratios),
                2.0,
                format!(
                    "bound {}/s on one core (GMAC, AES-256-GCM and {} once each over the same bytes, 1 {} \
                     signature a record), achieved {}/s closed loop with one producer, mean batch {:.0}",
                    short(median(bounds)),
                    if suite == Suite::P256 { "SHA-256" } else { "BLAKE3" },
                    ["Ed25519", "P-256", "ML-DSA-44"][usize::from(suite.number()) - 1],
                    short(median(rates)),
                    median(batches)
                ),
            ));
        }
    }
    Ok(())
}

/// `fdatasync` of the bare device, against commits of an appender's journal.
pub(crate) fn device(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let span = effort.span(&Place::Disk(folder.to_owned()));
    let bare = syncs(folder, 4096, span)?;
    bars.push(Bar::told(
        "bare device: write + fdatasync of 4 KiB, p99".to_owned(),
        bare.p99,
        "ms",
        format!(
            "p50 {:.3} ms, preallocated file: no synced put can be faster",
            bare.p50
        ),
    ));
    for value in effort.values() {
        let places = [
            Place::Disk(folder.to_owned()),
            Place::Segments(folder.to_owned()),
        ];
        for place in places {
            eprintln!("  device bound, {}, {value} B", place.name());
            committed(&place, folder, value, effort, bars)?;
        }
    }
    Ok(())
}

fn committed(
    place: &Place,
    folder: &Path,
    value: usize,
    effort: &Effort,
    bars: &mut Vec<Bar>,
) -> Result<()> {
    let span = effort.span(place);
    let (mut ratios, mut sizes, mut bare, mut ours) = (vec![], vec![], vec![], vec![]);
    let mut batches = vec![];
    for _ in 0..effort.rounds() {
        let started = place.start(Suite::Ed25519, AppenderOptions::default())?;
        let mut put = Put::of(value);
        let begin = Instant::now();
        let level = started.level;
        let step = offer(
            &started.appender,
            &mut put,
            DURABLE_RATE,
            span,
            level,
            Rest::Sleep,
        )?;
        let seconds = begin.elapsed().as_secs_f64();
        let commits = started.commits.count.load(Relaxed).max(1) as f64;
        let size = started.commits.bytes.load(Relaxed) as f64 / commits;
        drop(started);
        let limit = syncs(folder, size as usize, span)?;
        ratios.push(limit.rate / (commits / seconds));
        sizes.push(size);
        bare.push(limit.rate);
        ours.push(commits / seconds);
        batches.push(step.achieved / (commits / seconds));
    }
    let name = format!("device ÷ achieved commits, {}, {value} B", place.name());
    let note = format!(
        "{}/s offered; commits of {:.0} B and {:.0} puts on average: {:.0}/s, bare write + fdatasync of as \
         many bytes into a preallocated file {:.0}/s",
        short(DURABLE_RATE),
        median(sizes),
        median(batches),
        median(ours),
        median(bare)
    );
    bars.push(Bar::at_most(name, median(ratios), 1.3, note));
    Ok(())
}

/// What the bare device does.
pub(crate) struct Bare {
    /// Synced writes a second.
    pub(crate) rate: f64,
    /// Half of them took at most so many milliseconds.
    pub(crate) p50: f64,
    /// 99 of 100 did.
    pub(crate) p99: f64,
}

/// Writes and syncs `size` bytes, one after the other, into a file whose bytes are written already.
pub(crate) fn syncs(folder: &Path, size: usize, span: Duration) -> Result<Bare> {
    let file = tempfile::tempfile_in(folder)?;
    let bytes = vec![0x5a; size.max(1)];
    let zeros = vec![0; 1 << 20];
    for at in 0..PREALLOCATED >> 20 {
        file.write_all_at(&zeros, at << 20)?;
    }
    file.sync_all()?;
    let mut at = 0;
    let mut took = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < span {
        if at + size as u64 > PREALLOCATED {
            at = 0;
        }
        let start = Instant::now();
        commit(&file, &bytes, at)?;
        took.push(start.elapsed().as_secs_f64() * 1e3);
        at += size as u64;
    }
    let rate = took.len() as f64 / begin.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    Ok(Bare {
        rate,
        p50: took[took.len() / 2],
        p99: took[took.len() * 99 / 100],
    })
}

fn commit(file: &File, bytes: &[u8], at: u64) -> Result<()> {
    file.write_all_at(bytes, at)?;
    Ok(file.sync_data()?)
}

/// The bare algorithms of a suite.
struct Primitives {
    suite: Suite,
    aead: LessSafeKey,
    key: Key,
}

enum Key {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    MlDsa44(PqdsaKeyPair),
}

impl Primitives {
    fn of(suite: Suite) -> Result<Self> {
        let aead = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(no("an AEAD key"))?;
        let key = match suite {
            Suite::Ed25519 => Key::Ed25519(Ed25519KeyPair::generate().map_err(no("a key"))?),
            Suite::P256 => Key::P256(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(no("a key"))?,
            ),
            Suite::MlDsa44 => {
                Key::MlDsa44(PqdsaKeyPair::generate(&ML_DSA_44_SIGNING).map_err(no("a key"))?)
            }
        };
        Ok(Self {
            suite,
            aead: LessSafeKey::new(aead),
            key,
        })
    }

    /// Puts a second in records of `batch`, for bytes that are there already.
    fn rate(&self, batch: usize, value: usize, span: Duration) -> Result<f64> {
        // As in a body: form, key, value, end.
        let mut body = vec![0x5a; batch * (1 + KEY_BYTES + value + 4)];
        let mut records = 0_u64;
        let begin = Instant::now();
        while begin.elapsed() < span {
            let nonce = || Nonce::assume_unique_for_key([0; 12]);
            let hedged = self
                .aead
                .seal_in_place_separate_tag(nonce(), Aad::from(black_box(&body)), &mut [])
                .map_err(no("authenticating"))?;
            let _ = black_box(hedged);
            let tag = self
                .aead
                .seal_in_place_separate_tag(nonce(), Aad::empty(), &mut body)
                .map_err(no("sealing"))?;
            let _ = black_box(tag);
            let root = self.hash(black_box(&body));
            self.sign(&root)?;
            records += 1;
        }
        Ok((records * batch as u64) as f64 / begin.elapsed().as_secs_f64())
    }

    fn hash(&self, bytes: &[u8]) -> [u8; 32] {
        match self.suite {
            Suite::Ed25519 | Suite::MlDsa44 => *blake3::hash(bytes).as_bytes(),
            Suite::P256 => {
                let mut out = [0; 32];
                out.copy_from_slice(digest(&SHA256, bytes).as_ref());
                out
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Result<()> {
        match &self.key {
            Key::Ed25519(key) => {
                black_box(key.sign(message));
            }
            Key::P256(key) => {
                let signed = key.sign(&SystemRandom::new(), message);
                black_box(signed.map_err(no("signing"))?);
            }
            Key::MlDsa44(key) => {
                let mut signature = [0; 2420];
                key.sign(message, &mut signature).map_err(no("signing"))?;
                black_box(signature);
            }
        }
        Ok(())
    }
}

fn no<E>(what: &'static str) -> impl FnOnce(E) -> anyhow::Error {
    move |_| anyhow!("the cryptographic library refused {what}")
}

/// Enough that something always waits for the disk, little enough that a commit stays short.
const DURABLE_RATE: f64 = 50_000.0;
/// As long as a replica's segment.
const PREALLOCATED: u64 = 64 << 20;
