//! Stored records: bytes on disk, verified reads, recovery, and proofs over a million of them.

use std::cell::RefCell;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use bield_capsule::{
    CapsuleName, Header, Proof, Received, Suite, Verifier, VerifierPolicy, path, record_secret,
};
use bield_envelope::SigningKey;
use bield_sdk::Randomness;
use bield_store::journal::{Journal, Options};
use bield_store::replica::Replica;
use bield_store::storage::{Directory, METADATA, Storage};
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use super::Effort;
use super::append::short;
use super::chain::{Chain, KEY_BYTES, Put, batch};
use super::receive::entries;
use crate::bars::{Bar, median};

/// Bytes of journal a put takes, by batch.
pub(crate) fn bytes_on_disk(folder: &Path, bars: &mut Vec<Bar>) -> Result<()> {
    for suite in Suite::ALL {
        for puts in [1, 16, 128, 1024] {
            let mut stored = Stored::new(suite, folder)?;
            let before = stored.journal.bytes();
            let records = 4096_usize.div_ceil(puts);
            stored.fill(records, puts, 16)?;
            let bytes = stored.journal.bytes() - before;
            bars.push(Bar::told(
                format!(
                    "bytes on disk a put of 16 B + 16 B, suite {}, batch {puts}",
                    suite.number()
                ),
                bytes as f64 / (records * puts) as f64,
                "B",
                format!(
                    "journal of a replica, framing included; {:.0} B a record",
                    bytes as f64 / records as f64
                ),
            ));
        }
    }
    Ok(())
}

/// Reads of records from a replica's journal, verified and opened.
pub(crate) fn reads(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    for puts in [1, 128] {
        eprintln!("  verified reads, batch {puts}");
        let mut stored = Stored::new(Suite::Ed25519, folder)?;
        let count = effort.records(2_000);
        // A reader that stands just before a record can check it against all that came before.
        let mut readers = Vec::new();
        let mut verifier = stored.chain.verifier()?;
        let mut put = Put::of(100);
        for at in 0..count {
            let record = stored.chain.seal(&batch(puts, &mut put)?)?;
            let index = stored.journal.append(&[record.as_bytes()])?;
            if at.is_multiple_of(count.div_ceil(READERS)) {
                readers.push((index, verifier.clone()));
            }
            verifier.restore_own(record)?;
        }
        stored.journal.sync()?;
        let (mut points, mut scans) = (vec![], vec![]);
        for _ in 0..effort.rounds() {
            points.push(stored.points(&readers, puts)?);
            scans.push(stored.scan(count * puts)?);
        }
        let point = median(points);
        bars.push(Bar::told(
            format!("verified reads by position, batch {puts}, 100 B"),
            point,
            "entries/s",
            format!(
                "journal read (checksum), decode, signature, rules, open, all of the record's entries: {} \
                 records/s; page cache, one core",
                short(point / puts as f64)
            ),
        ));
        bars.push(Bar::told(
            format!("verified scan, batch {puts}, 100 B"),
            median(scans),
            "entries/s",
            "journal read, decode, verify_run of 100 (newest signature), open; page cache, one core"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Proofs of one entry in a long chain.
pub(crate) fn proofs(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let count = effort.records(1_000_000);
    eprintln!("  proofs in a chain of {count} records");
    let mut stored = Stored::new(Suite::Ed25519, folder)?;
    let begin = Instant::now();
    stored.fill(count, 1, 100)?;
    let built = begin.elapsed();
    // The chain's first record stands behind the config record.
    let record =
        |seq: u64| -> Result<Received> { Ok(Received::decode(stored.journal.record(seq + 1)?)?) };
    let head = record(count as u64)?.signed_head();
    let name = stored.chain.metadata.name();
    let (mut made, mut verified, mut sizes, mut lengths) = (vec![], vec![], vec![], vec![]);
    for number in 0..PROOFS {
        // Spread, and not on round positions, which are cheaper to reach.
        let seq = 1 + (number * 0x9e37_79b9 + 12_345) % (count as u64 - 1);
        let begin = Instant::now();
        let failed = RefCell::new(None);
        let headers = |seq: u64| -> Option<Header> {
            let found = record(seq);
            found
                .map(|record| record.header().clone())
                .map_err(|error| failed.replace(Some(error)))
                .ok()
        };
        let path = path(head.header(), seq, &headers);
        let path = path.ok_or_else(|| failed.take().unwrap_or_else(|| anyhow!("no path")))?;
        let length = path.len();
        let target = record(seq)?;
        let secret = record_secret(&target, &stored.chain.ring)?;
        let [config, open] = stored.chain.before.clone();
        let metadata = stored.chain.metadata.clone();
        let proof = Proof::new(metadata, vec![config], Some(open), head.clone(), path);
        let bytes = proof.show(&target, secret, 0)?.encode();
        made.push(begin.elapsed().as_secs_f64() * 1e6);
        sizes.push(bytes.len() as f64);
        lengths.push(length as f64);
        let begin = Instant::now();
        let proven = Proof::decode(&bytes)?.verify(&name, VerifierPolicy::default())?;
        verified.push(begin.elapsed().as_secs_f64() * 1e6);
        ensure!(
            proven.target.seq == seq && proven.entry.is_some(),
            "another proof"
        );
    }
    let what = format!("of one entry among {} records", short(count as f64));
    let longest = sizes.iter().copied().fold(0.0, f64::max);
    let hops = median(lengths);
    bars.push(Bar::told(
        format!("proof {what}: size"),
        median(sizes),
        "B",
        format!(
            "suite 1, 100 B, metadata, config and open record, signed head, path of {hops:.0} headers and \
             entry; longest {longest:.0} B; chain of one-entry records really signed in {:.1} s",
            built.as_secs_f64()
        ),
    ));
    bars.push(Bar::told(
        format!("proof {what}: making"),
        median(made),
        "µs",
        "records of the path read from the journal and decoded, body sliced; page cache".to_owned(),
    ));
    bars.push(Bar::told(
        format!("proof {what}: verifying"),
        median(verified),
        "µs",
        "from the file's bytes and the capsule's name alone".to_owned(),
    ));
    stored.recovery("1 put", effort, bars)
}

/// Opening a replica again, against reading its files.
pub(crate) fn recovery(folder: &Path, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let mut stored = Stored::new(Suite::Ed25519, folder)?;
    let bytes = effort.records(600 << 20);
    // 128 puts of 16 B + 100 B are 15.8 KB of record.
    stored.fill(bytes / 15_800, 128, 100)?;
    stored.recovery("128 puts", effort, bars)
}

/// A capsule whose records stand in a replica's journal.
struct Stored {
    chain: Chain,
    storage: Arc<dyn Storage>,
    journal: Box<dyn Journal>,
    directory: TempDir,
}

impl Stored {
    fn new(suite: Suite, folder: &Path) -> Result<Self> {
        let directory = TempDir::new_in(folder)?;
        let chain = Chain::new(suite)?;
        let storage: Arc<dyn Storage> = Arc::new(Directory::at(directory.path())?);
        let name = chain.metadata.name();
        storage.put(&name, METADATA, chain.metadata.as_bytes())?;
        let mut journal = open(&*storage, &name)?;
        let before = chain.before.each_ref().map(Received::as_bytes);
        journal.append(&before)?;
        Ok(Self {
            chain,
            storage,
            journal,
            directory,
        })
    }

    /// Appends records of so many puts, and syncs.
    fn fill(&mut self, records: usize, puts: usize, value: usize) -> Result<()> {
        let mut put = Put::of(value);
        let mut left = records;
        while left > 0 {
            let group: Vec<_> = (0..left.min(256))
                .map(|_| self.chain.seal(&batch(puts, &mut put)?))
                .collect::<Result<_>>()?;
            left -= group.len();
            let group: Vec<_> = group.iter().map(Received::as_bytes).collect();
            self.journal.append(&group)?;
        }
        Ok(self.journal.sync()?)
    }

    /// Entries a second, one record of `puts` after the other, anywhere in the journal.
    fn points(&self, readers: &[(u64, Verifier)], puts: usize) -> Result<f64> {
        let mut clones: Vec<_> = readers.to_vec();
        let begin = Instant::now();
        let mut seen = 0;
        for (index, verifier) in &mut clones {
            let record = Received::decode(self.journal.record(*index)?)?;
            let verified = verifier.verify(record)?;
            seen += entries(&verifier.apply(verified)?, &self.chain.ring)?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(seen == readers.len() * puts, "entries are missing");
        Ok(seen as f64 / seconds)
    }

    /// Entries a second, from the first data record to the last.
    fn scan(&self, expected: usize) -> Result<f64> {
        let mut verifier = self.chain.verifier()?;
        let (mut at, mut seen) = (2, 0);
        let begin = Instant::now();
        while at < self.journal.len() {
            let end = self.journal.len().min(at + 100);
            let mut run = Vec::with_capacity(100);
            let mut failed = None;
            self.journal.read(at..end, &mut |_, bytes| {
                match Received::decode(bytes.to_vec()) {
                    Ok(record) => run.push(record),
                    Err(error) => failed = Some(error),
                }
                ControlFlow::Continue(())
            })?;
            if let Some(error) = failed {
                return Err(error.into());
            }
            let verified = verifier.verify_run(run).map_err(|(_, refused)| refused)?;
            for record in verified {
                seen += entries(&verifier.apply(record)?, &self.chain.ring)?;
            }
            at = end;
        }
        let seconds = begin.elapsed().as_secs_f64();
        ensure!(seen == expected, "entries are missing");
        Ok(seen as f64 / seconds)
    }

    /// Closes the journal, then reads its files and opens the replica again, in turn.
    fn recovery(self, what: &str, effort: &Effort, bars: &mut Vec<Bar>) -> Result<()> {
        let name = self.chain.metadata.name();
        let (bytes, records) = (self.journal.bytes(), self.journal.len());
        let Self {
            storage,
            journal,
            directory,
            ..
        } = self;
        drop(journal);
        let files = directory.path().join("capsules").join(name.to_string());
        let key = Arc::new(SigningKey::generate(&mut Randomness));
        eprintln!("  recovery of {} MB in records of {what}", bytes >> 20);
        let (mut ratios, mut reads, mut opens, mut cached) = (vec![], vec![], vec![], vec![]);
        for _ in 0..effort.rounds() {
            forget(&files)?;
            let read = read_all(&files)?;
            forget(&files)?;
            let opened = reopen(&storage, &key, name, records)?;
            ratios.push(opened.as_secs_f64() / read.as_secs_f64());
            reads.push(read.as_secs_f64());
            opens.push(opened.as_secs_f64());
            cached.push(reopen(&storage, &key, name, records)?.as_secs_f64());
        }
        let gigabytes = bytes as f64 / 1e9;
        bars.push(Bar::told(
            format!("recovery a GB, records of {what} of 100 B"),
            median(opens) / gigabytes,
            "s",
            format!(
                "replica opened on {} MB, {} records, files not in memory; {:.2} s with files in memory; no \
                 signature is checked again, every checksum, hash and rule is",
                bytes >> 20,
                short(records as f64),
                median(cached) / gigabytes
            ),
        ));
        bars.push(Bar::told(
            format!("recovery ÷ plain sequential read, records of {what}"),
            median(ratios),
            "ratio",
            format!(
                "the same files in pieces of 1 MiB: {:.2} s a GB",
                median(reads) / gigabytes
            ),
        ));
        Ok(())
    }
}

/// Opens a replica and closes it again; how long the opening took.
fn reopen(
    storage: &Arc<dyn Storage>,
    key: &Arc<SigningKey>,
    name: CapsuleName,
    records: u64,
) -> Result<Duration> {
    let (storage, key) = (Arc::clone(storage), Arc::clone(key));
    let begin = Instant::now();
    let replica = Replica::open(storage, key, name, VerifierPolicy::default())?;
    let took = begin.elapsed();
    ensure!(replica.standing().records == records, "records are missing");
    Ok(took)
}

fn open(storage: &dyn Storage, name: &CapsuleName) -> Result<Box<dyn Journal>> {
    let opened = storage.journal(name, Options::default(), &mut |_, _| {
        ControlFlow::Continue(())
    });
    opened.context("opening a journal")
}

/// Lets the system forget the contents of the files, which are synced.
fn forget(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads every file from end to end.
fn read_all(folder: &Path) -> Result<Duration> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    names.sort();
    let mut buffer = vec![0; 1 << 20];
    let begin = Instant::now();
    for name in names {
        let mut file = File::open(name)?;
        while black_box(file.read(&mut buffer)?) > 0 {}
    }
    Ok(begin.elapsed())
}

/// Positions that are read.
const READERS: usize = 200;
/// Proofs that are made and verified.
const PROOFS: u64 = 101;

const _: () = assert!(KEY_BYTES == 16, "rows say 16 B + value");
