//! `bield-store fsck`: reads everything again and verifies it in full, with the store stopped.
//!
//! ```text
//! segment files ──checksums──▶ records ──Verifier::verify──▶ chains ──▶ checkpoint, fork proofs
//!       │ damaged, gone          │ not a record     │ forged, out of order     │ set back
//!       └────────────────────────┴──────────────────┴──────────────────────────┴──▶ first bad record
//! ```
//!
//! In: a store's directory, which nobody else has open. Out: for each capsule, what is intact and the
//! first bad record: segment, offset, log index, writer and seq. Always true: nothing is written; a
//! signature is checked for every record, because an intruder with the disk can mend checksums.
//!
//! Cost: one read of all files; 40 µs a record for its signature.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bield_capsule::segment::{FRAME_HEAD_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use bield_capsule::{
    CapsuleName, Context, ForkProof, Header, History, Received, Refused, Verifier, VerifierPolicy,
    WriterId,
};
use bield_envelope::Digest;
use bield_tlog::{SignedCheckpoint, Tree};

use crate::FsckArguments;
use crate::disk::Files;
use crate::frames;
use crate::journal::{Journal as _, Mode, Options, SegmentJournal};
use crate::replica::read_metadata;
use crate::storage::{CHECKPOINT, Directory, FORKS, Storage as _};

/// What was found in one capsule.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Which.
    pub capsule: CapsuleName,
    /// Records that are intact and verified.
    pub verified: u64,
    /// Bytes of an append that never finished, which the next start cuts off: no damage.
    pub torn_bytes: u64,
    /// The first thing that is wrong.
    pub first_bad: Option<Bad>,
}

/// The first bad record of a capsule, or what else is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bad {
    /// Number of the segment file.
    pub segment: Option<u64>,
    /// Where in it, in bytes.
    pub offset: Option<u64>,
    /// The record's place in the log.
    pub index: Option<u64>,
    /// Whose record is there, or should be.
    pub writer: Option<WriterId>,
    /// Its position in the writer's chain.
    pub seq: Option<u64>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(segment) = self.segment {
            write!(f, "segment {segment}, ")?;
        }
        if let Some(offset) = self.offset {
            write!(f, "offset {offset}, ")?;
        }
        if let Some(index) = self.index {
            write!(f, "record {index}, ")?;
        }
        if let Some(writer) = self.writer {
            write!(f, "writer {writer}, ")?;
        }
        if let Some(seq) = self.seq {
            write!(f, "seq {seq}, ")?;
        }
        f.write_str(&self.what)
    }
}

/// Checks a store's directory and prints what it finds.
#[must_use]
pub fn run(arguments: &FsckArguments) -> ExitCode {
    let policy = VerifierPolicy {
        allow_simulated: arguments.allow_simulated,
        ..VerifierPolicy::default()
    };
    let checked = match check(&arguments.data, policy) {
        Ok(checked) => checked,
        Err(error) => {
            eprintln!(
                "bield-store: {}: {error}; name a store's directory that can be read",
                arguments.data.display()
            );
            return ExitCode::from(2);
        }
    };
    let mut bad = 0;
    for capsule in &checked {
        println!("{}: {} records verified", capsule.capsule, capsule.verified);
        if capsule.torn_bytes > 0 {
            println!(
                "  {} bytes of an unfinished append: the next start cuts them off",
                capsule.torn_bytes
            );
        }
        if let Some(first) = &capsule.first_bad {
            bad += 1;
            println!("  BAD: {first}");
            println!(
                "  set the capsule's directory aside and let the store copy it from another replica (--follow)"
            );
        }
    }
    println!("{} capsules, {bad} damaged", checked.len());
    if bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Checks a store's directory.
///
/// # Errors
/// When the directory cannot be listed.
pub fn check(data: &Path, policy: VerifierPolicy) -> io::Result<Vec<Checked>> {
    let capsules = data.join("capsules");
    if !capsules.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "there is no directory `capsules` in it",
        ));
    }
    let storage = Directory::at(data)?;
    // Held to the end: a store that runs would move what is read.
    let _own = Files::own(data).map_err(io::Error::other)?;
    let names = storage.capsules()?;
    let check =
        |name: &CapsuleName| capsule(&storage, &capsules.join(name.to_string()), *name, policy);
    Ok(names.iter().map(check).collect())
}

/// Everything read so far of one capsule.
struct Reading {
    verifier: Verifier,
    held: BTreeMap<WriterId, Vec<Digest>>,
    tree: Tree,
    verified: u64,
    first_bad: Option<Bad>,
}

impl History for Reading {
    fn hash_at(&self, writer: &WriterId, seq: u64) -> Option<Digest> {
        self.held
            .get(writer)?
            .get(usize::try_from(seq).ok()?)
            .copied()
    }
}

fn capsule(storage: &Directory, path: &Path, name: CapsuleName, policy: VerifierPolicy) -> Checked {
    let mut checked = Checked {
        capsule: name,
        verified: 0,
        torn_bytes: 0,
        first_bad: None,
    };
    let wrong = |what: String| {
        Some(Bad {
            what,
            ..Bad::default()
        })
    };
    let metadata = match read_metadata(storage, name) {
        Ok(metadata) => metadata,
        Err(error) => {
            checked.first_bad = wrong(error.to_string());
            return checked;
        }
    };
    let mut reading = Reading {
        verifier: Verifier::new(metadata, policy),
        held: BTreeMap::new(),
        tree: Tree::new(),
        verified: 0,
        first_bad: None,
    };
    let options = Options {
        mode: Mode::Salvage,
        ..Options::default()
    };
    let files = match Files::own(path) {
        Ok(files) => files,
        Err(error) => {
            checked.first_bad = wrong(error.to_string());
            return checked;
        }
    };
    let journal = SegmentJournal::open(files, *name.as_bytes(), options, &mut |index, bytes| {
        reading.take(index, bytes);
        ControlFlow::Continue(())
    });
    let journal = match journal {
        Ok(journal) => journal,
        Err(error) => {
            checked.first_bad = wrong(error.to_string());
            return checked;
        }
    };
    let recovered = journal.recovered();
    let signed = reading.checkpoint(storage, name);
    // What is not intact comes before what therefore does not follow.
    if let Some(damage) = recovered.damage.iter().min_by_key(|damage| damage.index) {
        let gap = reading
            .first_bad
            .take()
            .filter(|bad| bad.index >= Some(damage.index));
        let mut bad = Bad {
            segment: Some(damage.segment),
            offset: Some(damage.offset),
            index: Some(damage.index),
            writer: gap.as_ref().and_then(|gap| gap.writer),
            // The first record that does not follow names the one before it.
            seq: gap.as_ref().and_then(|gap| gap.seq?.checked_sub(1)),
            what: format!("the bytes are not what was written ({:?})", damage.what),
        };
        reading.claim(path, &mut bad);
        reading.first_bad = Some(bad);
    } else if let Some(bad) = &mut reading.first_bad
        && let Some((segment, offset)) = bad.index.and_then(|index| locate(path, index))
    {
        (bad.segment, bad.offset) = (Some(segment), Some(offset));
    } else if let Ok(Some(size)) = signed
        && size > journal.len()
    {
        // Nothing behind it proves that it had been synced; the checkpoint does.
        let end = end(path);
        let mut bad = Bad {
            segment: end.map(|end| end.0),
            offset: end.map(|end| end.1),
            index: Some(journal.len()),
            what: format!(
                "the checkpoint covers {size} records, here and later are not what was written, or were removed"
            ),
            ..Bad::default()
        };
        reading.claim(path, &mut bad);
        reading.first_bad = Some(bad);
    }
    checked.torn_bytes = recovered.cut_bytes;
    checked.verified = reading.verified;
    let forks = reading.forks(storage, name);
    checked.first_bad = reading
        .first_bad
        .or_else(|| signed.err().or(forks).and_then(wrong));
    checked
}

impl Reading {
    /// Verifies one record; only the first bad one is remembered.
    fn take(&mut self, index: u64, bytes: &[u8]) {
        let bad = |what: String, head: Option<(WriterId, u64)>| Bad {
            index: Some(index),
            writer: head.map(|head| head.0),
            seq: head.map(|head| head.1),
            what,
            ..Bad::default()
        };
        let record = match Received::decode(bytes.to_vec()) {
            Ok(record) => record,
            Err(error) => {
                self.first_bad
                    .get_or_insert_with(|| bad(error.to_string(), None));
                return;
            }
        };
        let head = record.head();
        let applied = self.verify(record);
        match applied {
            Ok(()) => {
                self.held.entry(head.writer).or_default().push(head.hash);
                self.tree.append(head.hash.as_bytes());
                self.verified += 1;
            }
            Err(refused) => {
                let place = Some((head.writer, head.seq));
                self.first_bad
                    .get_or_insert_with(|| bad(refused.to_string(), place));
            }
        }
    }

    fn verify(&mut self, record: Received) -> Result<(), Refused> {
        let context = Context {
            arrived: None,
            history: self,
        };
        let verified = self.verifier.verify_in(record, &context)?;
        self.verifier.apply(verified)?;
        Ok(())
    }

    /// How many records the newest checkpoint covers, or what is wrong with it.
    fn checkpoint(&self, storage: &Directory, name: CapsuleName) -> Result<Option<u64>, String> {
        let bytes = storage.get(&name, CHECKPOINT);
        let Some(bytes) =
            bytes.map_err(|error| format!("the checkpoint cannot be read: {error}"))?
        else {
            return Ok(None);
        };
        let signed =
            SignedCheckpoint::parse(&bytes).map_err(|_| "the checkpoint is not one".to_owned())?;
        let (size, root) = (signed.claimed().size(), signed.claimed().root());
        match self.tree.root_at(size) {
            Ok(found) if found != root => Err(format!(
                "the records are not the {size} that the last checkpoint covers: some were exchanged"
            )),
            _ => Ok(Some(size)),
        }
    }

    /// Reads at a bad place whose record was there, when that fits what is known of the chain.
    fn claim(&self, path: &Path, bad: &mut Bad) {
        let found = || {
            let bytes = fs::read(path.join(format!("{:020}.segment", bad.segment?))).ok()?;
            let start = usize::try_from(bad.offset?).ok()? + FRAME_HEAD_BYTES;
            let (header, _) = Header::decode_prefix(bytes.get(start..)?).ok()?;
            let next = self.held.get(&header.writer).map_or(0, Vec::len) as u64;
            // Records behind the bad place may have been taken since.
            (header.seq <= next).then_some((header.writer, header.seq))
        };
        if let Some((writer, seq)) = found() {
            (bad.writer, bad.seq) = (Some(writer), Some(seq));
        }
    }

    /// What is wrong with the fork proofs.
    fn forks(&self, storage: &Directory, name: CapsuleName) -> Option<String> {
        let bytes = match storage.get(&name, FORKS) {
            Ok(bytes) => bytes?,
            Err(error) => return Some(format!("the fork proofs cannot be read: {error}")),
        };
        let good = frames::items(&bytes).all(|item| {
            let proof = item.ok().and_then(|item| ForkProof::decode(item).ok());
            proof.is_some_and(|proof| proof.verify(&name).is_ok())
        });
        (!good).then(|| "a fork proof proves nothing".to_owned())
    }
}

/// The segment files of a capsule, in order.
fn segments(path: &Path) -> Option<Vec<PathBuf>> {
    let mut segments: Vec<_> = fs::read_dir(path)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    segments.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "segment")
    });
    segments.sort_unstable();
    Some(segments)
}

/// Where the intact records of the last segment end.
fn end(path: &Path) -> Option<(u64, u64)> {
    let bytes = fs::read(segments(path)?.last()?).ok()?;
    let header = SegmentHeader::parse(&bytes).ok()?;
    let last = header.frames(&bytes).last();
    let offset = last.map_or(SEGMENT_HEADER_BYTES, |frame| {
        frame.offset as usize + FRAME_HEAD_BYTES + frame.payload.len()
    });
    Some((header.segment, offset as u64))
}

/// Finds the segment and the offset of a record.
fn locate(path: &Path, index: u64) -> Option<(u64, u64)> {
    for segment in segments(path)? {
        let bytes = fs::read(segment).ok()?;
        let Ok(header) = SegmentHeader::parse(&bytes) else {
            continue;
        };
        if let Some(frame) = header.frames(&bytes).find(|frame| frame.index == index) {
            return Some((header.segment, u64::from(frame.offset)));
        }
    }
    None
}
