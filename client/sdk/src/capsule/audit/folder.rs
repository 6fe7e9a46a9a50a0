//! What stands in a replica's folder: segments, a checkpoint, fork proofs.
//!
//! Always true: checksums only say where an accident happened; what counts is that every record
//! verifies, and that the replica's own signed checkpoint still fits.

use std::fs;
use std::path::{Path, PathBuf};

use bield_capsule::segment::{End, FRAME_HEAD_BYTES, Flaw, SegmentHeader};
use bield_capsule::{CapsuleName, FORK_PROOF_BYTES_MAX, ForkProof, Metadata, Received};
use bield_envelope::Principal;
use bield_evidence::{Mover, Outcome};
use bield_tlog::{Hash, LogVerifier, SignedCheckpoint};

use super::walk::Walk;
use super::{Audit, AuditError, AuditOptions, Bad, claimed, name_bad};
use crate::capsule::frames;

/// A store's directory, or one capsule's in it.
pub(super) fn folder(
    path: &Path,
    options: &AuditOptions<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Audit>, AuditError> {
    let mut found = Vec::new();
    if path.join(METADATA).is_file() {
        found.push(path.to_owned());
    } else {
        let inner = path.join(CAPSULES);
        let place = if inner.is_dir() {
            inner
        } else {
            path.to_owned()
        };
        let at = |error| AuditError::Io {
            path: place.clone(),
            error,
        };
        for entry in fs::read_dir(&place).map_err(at)? {
            let entry = entry.map_err(at)?.path();
            if entry.join(METADATA).is_file() {
                found.push(entry);
            }
        }
        found.sort();
    }
    if let Some(name) = options.name {
        // Of a store with many capsules only the one that is meant.
        let named = |path: &PathBuf| {
            path.file_name()
                .is_some_and(|file| *file == *name.to_string())
        };
        if found.len() > 1 && found.iter().any(named) {
            found.retain(named);
        }
    }
    if found.is_empty() {
        return Err(AuditError::Unknown {
            path: path.to_owned(),
        });
    }
    found
        .iter()
        .map(|path| capsule_folder(path, options, progress))
        .collect()
}

fn capsule_folder(
    path: &Path,
    options: &AuditOptions<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Audit, AuditError> {
    let mut audit = Audit::new("replica's folder", path);
    let read = |path: &Path| {
        fs::read(path).map_err(|error| AuditError::Io {
            path: path.to_owned(),
            error,
        })
    };
    let metadata = match Metadata::decode(&read(&path.join(METADATA))?) {
        Ok(metadata) => metadata,
        Err(error) => {
            audit.fail("metadata", &error.to_string(), "a capsule's metadata");
            return Ok(audit);
        }
    };
    let name = metadata.name();
    if !audit.name(name, options) {
        return Ok(audit);
    }
    let mut walk = Walk::new(metadata, options);
    let mut segments: Vec<_> = fs::read_dir(path)
        .map_err(|error| AuditError::Io {
            path: path.to_owned(),
            error,
        })?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == SEGMENT)
        })
        .collect();
    segments.sort();
    let mut torn = None;
    for (number, segment) in segments.iter().enumerate() {
        let bytes = read(segment)?;
        let last = number + 1 == segments.len();
        match one_segment(
            segment,
            &bytes,
            &name,
            number as u64,
            last,
            &mut walk,
            progress,
        ) {
            Ok(None) => {}
            Ok(Some(end)) => torn = Some(end),
            Err(bad) => {
                audit.bad = Some(bad);
                break;
            }
        }
    }
    let checkpoint = read(&path.join(CHECKPOINT)).ok();
    compare_checkpoint(
        &mut audit,
        &walk,
        checkpoint.as_deref(),
        &name,
        torn.as_ref(),
    );
    if audit.bad.is_none() {
        audit.pass(
            "checksums",
            &format!("{} segments, every frame", segments.len()),
        );
        if let Some(torn) = &torn {
            audit.open(
                "tail",
                &torn.why,
                "nothing: it was never synced, and is cut off at the next start",
            );
        }
    }
    name_bad(&mut audit, &walk);
    walk.conclude(&mut audit);
    if let Ok(bytes) = read(&path.join(FORKS)) {
        known_forks(&mut audit, &bytes, &name);
    }
    Ok(audit)
}

/// Takes a segment's records; `Some`: the file ends in a torn frame.
fn one_segment(
    file: &Path,
    bytes: &[u8],
    name: &CapsuleName,
    number: u64,
    last: bool,
    walk: &mut Walk<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<Bad>, Bad> {
    let bad = |offset: u32, index, (writer, seq), why| Bad {
        file: file.to_owned(),
        offset: offset.into(),
        number: index,
        writer,
        seq,
        why,
    };
    let nowhere = (None, None);
    let first = walk.records;
    // A file that the next start would use, and that was made just before a power cut.
    if last && bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let header = SegmentHeader::parse(bytes).map_err(|error| {
        bad(
            0,
            first,
            nowhere,
            format!("{error}: altered, or not this store's"),
        )
    })?;
    if header.capsule != *name.as_bytes() || header.segment != number || header.first != first {
        let why = format!(
            "is segment {} from record {}, where segment {number} from record {first} belongs: a file is \
             missing or of another store",
            header.segment, header.first
        );
        return Err(bad(0, first, nowhere, why));
    }
    let mut frames = header.frames(bytes);
    for frame in frames.by_ref() {
        let record = Received::decode(frame.payload.to_vec()).map_err(|error| {
            let place = walk.expected(claimed(frame.payload, 0));
            bad(frame.offset, frame.index, place, error.to_string())
        })?;
        let head = record.head();
        let place = (Some(head.writer), Some(head.seq));
        walk.take(record)
            .map_err(|why| bad(frame.offset, frame.index, place, why))?;
        progress(walk.records);
    }
    let place = |offset: u32| {
        let claim = claimed(bytes, offset as usize + FRAME_HEAD_BYTES);
        walk.expected(claim)
    };
    match frames.end() {
        Some(End::Damaged { offset, index, why }) => {
            let why = format!("{}: bytes that had been synced have changed", flaw(why));
            Err(bad(offset, index, place(offset), why))
        }
        Some(End::Torn { offset, why }) => {
            let why = format!("{} at offset {offset}", flaw(why));
            let found = bad(offset, walk.records, place(offset), why);
            if last { Ok(Some(found)) } else { Err(found) }
        }
        Some(End::Clean { .. } | End::Preallocated { .. }) if !last => {
            let why = "the segment ends without a seal, and another one follows".to_owned();
            Err(bad(
                u32::try_from(bytes.len()).unwrap_or(u32::MAX),
                walk.records,
                nowhere,
                why,
            ))
        }
        _ => Ok(None),
    }
}

const fn flaw(why: Flaw) -> &'static str {
    match why {
        Flaw::Short => "the frame is cut short",
        Flaw::Head => "the frame's head is not what was written",
        Flaw::Payload => "the record's checksum does not hold",
        Flaw::BehindSeal => "something follows the seal",
    }
}

/// What the replica signed of its log must still be there.
fn compare_checkpoint(
    audit: &mut Audit,
    walk: &Walk<'_>,
    checkpoint: Option<&[u8]>,
    name: &CapsuleName,
    torn: Option<&Bad>,
) {
    let Some(bytes) = checkpoint else {
        let have = "there is none here";
        return audit.open(
            "checkpoint",
            have,
            "its signed word on how many records there are",
        );
    };
    let signed = match own_checkpoint(bytes, name) {
        Ok(signed) => signed,
        Err(why) => return audit.fail("checkpoint", &why, "a checkpoint that this replica signed"),
    };
    let (size, root, key) = signed;
    let counts = walk.verifier.config().is_replica(&key);
    match walk.tree.root_at(size) {
        Ok(found) if found == root && !counts => {
            let have = format!(
                "it fits, and is signed by {key}, which is no replica of the configuration here"
            );
            audit.open("checkpoint", &have, "one by a replica of the configuration");
        }
        Ok(found) if found == root => {
            audit.pass(
                "checkpoint",
                &format!("the first {size} records are those that {key} signed for"),
            );
        }
        Ok(_) => audit.fail(
            "checkpoint",
            &format!("the first {size} records are others than it signed for"),
            "the same records in the same order",
        ),
        Err(_) if audit.bad.is_some() => {
            let have = format!("it signed for {size} records, {} were read", walk.records);
            audit.open("checkpoint", &have, "records that verify");
        }
        Err(_) => {
            if audit.bad.is_none() {
                audit.bad = torn.cloned();
            }
            audit.fail(
                "checkpoint",
                &format!("it signed for {size} records, {} are here", walk.records),
                "all of them: the newest were cut off or altered",
            );
        }
    }
}

/// Size and root of a checkpoint that is signed by the key its own origin names.
fn own_checkpoint(bytes: &[u8], name: &CapsuleName) -> Result<(u64, Hash, Principal), String> {
    let signed = SignedCheckpoint::parse(bytes).map_err(|error| error.to_string())?;
    let origin = signed.claimed().origin().clone();
    let key = origin
        .as_str()
        .strip_prefix(&format!("bield/capsule/{name}/"))
        .and_then(|digits| hex::decode(digits).ok())
        .and_then(|key| <[u8; 32]>::try_from(key).ok())
        .ok_or_else(|| format!("it is about the log {}", origin.as_str()))?;
    let log = origin
        .as_str()
        .parse()
        .map_err(|error| format!("{error}"))?;
    let verifier = LogVerifier::new(log, key);
    let verified = signed
        .verify(&origin, &[verifier])
        .map_err(|error| error.to_string())?;
    let checkpoint = verified.checkpoint();
    let key = Principal::from_bytes(key);
    Ok((checkpoint.size(), checkpoint.root(), key))
}

fn known_forks(audit: &mut Audit, bytes: &[u8], name: &CapsuleName) {
    let Some(proofs) = frames::split(bytes, FORK_PROOF_BYTES_MAX) else {
        return audit.fail("forks", "the file is damaged", "fork proofs");
    };
    for proof in proofs {
        let found = ForkProof::decode(proof).and_then(|proof| proof.verify(name));
        match found {
            Ok(fork) => {
                let have = format!(
                    "writer {} told two stories at {}: proven",
                    fork.writer.short(),
                    fork.seq
                );
                audit.add("forks", Outcome::Passed, &have, "the same", Mover::Owner);
            }
            Err(error) => audit.fail("forks", &error.to_string(), "fork proofs that hold"),
        }
    }
}

const METADATA: &str = "metadata";
const CAPSULES: &str = "capsules";
const CHECKPOINT: &str = "checkpoint";
const FORKS: &str = "forks";
const SEGMENT: &str = "segment";
