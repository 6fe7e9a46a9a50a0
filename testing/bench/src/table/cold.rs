//! A get that reads a block: sealed, next to the same block in plaintext.
//!
//! ```text
//! Levels::newest ─▶ filter, index (in memory) ─▶ read of one block ─▶ [open] ─▶ search in it ─▶ a copy of the value
//! ```
//!
//! Both sides run the same code on the same cells in blocks of 4 KiB, with a cache that has room for indexes and
//! filters and hardly any block; one of them neither seals nor opens (feature `measured` of `bield-levels`). Once from
//! a store in memory, where nothing hides what opening costs, once from files in the page cache.
//!
//! A block is opened once and never hashed: key, nonce and associated data of its AEAD already bind it to its place, and
//! the run's name is compared by `check` alone. So what sealing adds is AES-256-GCM over a block, as fast as the machine
//! has it: that is measured beside, by itself. Where it takes more than 0.6 of a get in plaintext, the bar cannot hold.

use std::collections::HashMap;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bield_capsule::{CapsuleName, Clock, GenerationKey, KeyRing, WriterId};
use bield_levels::{
    BlobError, Blobs, Cell, Changes, Content, Flush, Levels, Manifest, RunId, Settings, Version,
};
use bield_sdk::{Randomness, now};
use tempfile::TempDir;

use super::Effort;
use super::draw::{Draw, key};
use super::timed::{nothing, short, slice};
use crate::bars::{Bar, median, ratio};

/// Sealed against plain.
pub(super) fn against_plain(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    for value in [16, 100] {
        for kind in [Kind::Memory, Kind::Files] {
            eprintln!("  cold gets, {value} B, {}", kind.name());
            let mut sealed = Cold::new(kind, folder, value, false)?;
            let mut plain = Cold::new(kind, folder, value, true)?;
            let mut block = Alone::new()?;
            let (mut ours, mut theirs, mut alone) = (vec![], vec![], vec![]);
            for _ in 0..effort.turns() {
                let span = effort.slice();
                ours.push(1.0 / slice(&mut sealed, span, 100, Cold::get, nothing)?);
                theirs.push(1.0 / slice(&mut plain, span, 100, Cold::get, nothing)?);
                alone.push(1.0 / slice(&mut block, span / 10, 100, Alone::seal, nothing)?);
            }
            let name = format!(
                "cold sealed get ÷ the same block in plaintext, {value} B, {}",
                kind.name()
            );
            let note = format!(
                "{:.2} and {:.2} µs a get, AES-256-GCM over 4 KiB alone {:.2} µs; {}/s; {} keys in runs of 8 MiB; {:.2} \
                 blocks read a get",
                median(ours.clone()) * 1e6,
                median(theirs.clone()) * 1e6,
                median(alone) * 1e6,
                short(1.0 / median(ours.clone())),
                short(KEYS as f64),
                sealed.blobs.reads.load(Relaxed) as f64 / sealed.gets as f64
            );
            bars.push(Bar::at_most(name, ratio(&ours, &theirs), 1.6, note));
        }
    }
    Ok(())
}

/// Where runs lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Files,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "store in memory",
            Self::Files => "file in the page cache",
        }
    }
}

/// What sealing or opening a block takes by itself: the same cipher over as many bytes.
struct Alone {
    key: LessSafeKey,
    block: [u8; BLOCK_BYTES],
}

impl Alone {
    fn new() -> Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).context("AES-256 takes 32 bytes")?;
        Ok(Self {
            key: LessSafeKey::new(key),
            block: [7; BLOCK_BYTES],
        })
    }

    fn seal(&mut self) -> Result<()> {
        // Nothing of it is kept: one nonce serves.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let sealed =
            self.key
                .seal_in_place_separate_tag(nonce, Aad::from([0; 78]), &mut self.block);
        let _ = black_box(sealed.context("a block is sealed")?);
        Ok(())
    }
}

/// Levels over one flush.
struct Cold {
    levels: Levels,
    blobs: Arc<Store>,
    draw: Draw,
    value: usize,
    gets: u64,
}

impl Cold {
    fn new(kind: Kind, folder: &Path, value: usize, plain: bool) -> Result<Self> {
        let blobs = Arc::new(Store {
            folder: (kind == Kind::Files)
                .then(|| TempDir::new_in(folder))
                .transpose()?,
            kept: RwLock::default(),
            reads: AtomicU64::new(0),
        });
        let mut keys = KeyRing::new();
        keys.insert(GenerationKey::generate(1, &mut Randomness))?;
        let manifest = Manifest::begin(CapsuleName::from_bytes([7; 32]), Duration::ZERO);
        let store = Arc::clone(&blobs) as Arc<dyn Blobs>;
        let levels = if plain {
            Levels::open_plain(manifest, &keys, store, CACHE_BYTES)?
        } else {
            Levels::open(manifest, &keys, store, CACHE_BYTES)?
        };
        let bytes = vec![b'v'; value];
        let mut flush = Flush::begin(&levels, Vec::new(), Settings::default())?;
        for number in 0..KEYS {
            let cell = Cell {
                key: &key(number),
                version: Version {
                    clock: Clock::from_bits(number + 1),
                    writer: WriterId::from_bytes([7; 32]),
                },
                content: Content::Value {
                    bytes: &bytes,
                    expires: None,
                },
            };
            flush.push(&cell, &mut Randomness)?;
        }
        let changes = Changes {
            flushed: Some(flush.finish(&mut Randomness)?),
            ..Changes::default()
        };
        let manifest = levels.manifest().after(changes, now())?;
        let levels = levels.next(manifest, &keys)?;
        let mut cold = Self {
            levels,
            blobs,
            draw: Draw::new(11),
            value,
            gets: 0,
        };
        // Indexes and filters come in once.
        (0..5_000).try_for_each(|_| cold.get())?;
        cold.gets = 0;
        cold.blobs.reads.store(0, Relaxed);
        Ok(cold)
    }

    fn get(&mut self) -> Result<()> {
        let found = self.levels.newest(&key(self.draw.below(KEYS)))?;
        let found = found.context("a key is missing")?;
        let value = found.as_cell().value_at(now_is());
        ensure!(value.map(<[u8]>::len) == Some(self.value), "another value");
        black_box(value);
        self.gets += 1;
        Ok(())
    }
}

/// No value of this bench ends.
const fn now_is() -> bield_envelope::Time {
    bield_envelope::Time::from_millis(0)
}

/// Runs in memory or in files, counted.
struct Store {
    folder: Option<TempDir>,
    kept: RwLock<HashMap<RunId, Kept>>,
    reads: AtomicU64,
}

enum Kept {
    Memory(Vec<u8>),
    File(File),
}

impl Blobs for Store {
    fn put(&self, name: &RunId, bytes: &[u8]) -> Result<(), BlobError> {
        let kept = match &self.folder {
            None => Kept::Memory(bytes.to_vec()),
            Some(folder) => {
                let path = folder.path().join(name.to_string());
                std::fs::write(&path, bytes).map_err(|error| failed(&error))?;
                Kept::File(File::open(path).map_err(|error| failed(&error))?)
            }
        };
        let mut all = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(*name, kept);
        Ok(())
    }

    fn read(&self, name: &RunId, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        self.reads.fetch_add(1, Relaxed);
        let all = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        match all.get(name).ok_or(BlobError::Missing)? {
            Kept::Memory(bytes) => {
                let from = bytes.len().min(offset as usize);
                let to = bytes.len().min(from + length);
                Ok(bytes[from..to].to_vec())
            }
            Kept::File(file) => {
                let mut bytes = vec![0; length];
                let read = file.read_at(&mut bytes, offset);
                bytes.truncate(read.map_err(|error| failed(&error))?);
                Ok(bytes)
            }
        }
    }

    fn remove(&self, name: &RunId) -> Result<(), BlobError> {
        let mut all = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(name);
        Ok(())
    }

    fn list(&self) -> Result<Vec<RunId>, BlobError> {
        let all = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        Ok(all.keys().copied().collect())
    }
}

fn failed(error: &std::io::Error) -> BlobError {
    BlobError::Failed(error.to_string())
}

/// Bytes of a block.
const BLOCK_BYTES: usize = 4096;
/// So many that blocks are hardly ever cached.
const KEYS: u64 = 400_000;
/// Room for the indexes and filters of all runs, and for one block in fifty.
const CACHE_BYTES: u64 = 2 << 20;
