//! A function's state log out of a host's files, as an export that anybody can check a receipt with.
//!
//! ```text
//! DIR: <capsule>-head      metadata and configuration ─┐
//!      <capsule>-log-…     segments: head │ start │ record │ … ─┴▶ verified ─▶ export: past? ‖ records of each chain
//! ```
//!
//! In: the directory of a gateway or worker (`--state`), also while it is written to. Out: ciphertext, verified from the
//! capsule's name up. Always true: what is not of the asked capsule is left out, judged by what stands in a file and not by its
//! name; a torn end, which nobody was told of, is left out; anything else that does not hold is an error, and nothing is
//! written. What the levels hold and the log does not any more is not here: a *past* stands for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bield_capsule::segment::{End, SegmentHeader};
use bield_capsule::{
    CapsuleName, ExportReader, Past, Received, SegmentStart, WriterId, export_header, export_past,
    export_record,
};

use super::records::{CapsuleRecords, RecordsError};

/// A state's log as one file.
pub struct StateExport {
    /// Whose.
    pub capsule: CapsuleName,
    /// The export.
    pub bytes: Vec<u8>,
    /// Records in it, the configuration's included.
    pub records: u64,
    /// Holders whose first records were dropped.
    pub cut: u64,
}

/// There is no state to export, or its files do not hold.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFilesError {
    /// The directory, or a file of it.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// No state, or none of this name.
    #[error(
        "{path} holds no state of that name; it holds: {there}. Name one by its first digits, or give the directory that the gateway got as --state",
        path = .path.display()
    )]
    None {
        /// The directory.
        path: PathBuf,
        /// The states that are there.
        there: String,
    },
    /// Several could be meant.
    #[error("several states are meant: {there}; give more digits")]
    Several {
        /// Which.
        there: String,
    },
    /// A file is altered.
    #[error("{file} does not hold ({why}); it was altered on the host: put the right one back")]
    File {
        /// Which.
        file: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The records together do not hold.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// The segments of one writer, by their first record.
type Segments = BTreeMap<u64, Segment>;

struct Segment {
    past: Option<Past>,
    records: Vec<Received>,
}

impl StateExport {
    /// Reads the state whose capsule's name begins with `wanted`; without it, the only one that is there.
    ///
    /// # Errors
    /// None or several are meant, or its files do not hold.
    pub fn read(directory: &Path, wanted: Option<&str>) -> Result<Self, StateFilesError> {
        let files = files(directory)?;
        let (capsule, mut bytes) = head(directory, &files, wanted)?;
        let mut chains: BTreeMap<WriterId, Segments> = BTreeMap::new();
        for file in files.iter().filter(|file| file.contains(LOG)) {
            // Removed meanwhile: the runtime dropped what its levels hold.
            let Some(content) = content(&directory.join(file))? else {
                continue;
            };
            if let Some((start, segment)) = segment(file, &content, &capsule)? {
                let chain = chains.entry(start.writer).or_default();
                chain.insert(start.first, segment);
            }
        }
        let mut cut = 0;
        for segments in chains.values() {
            let (mut next, mut is_cut) = (0, false);
            for (first, segment) in segments {
                if *first != next
                    && let Some(past) = &segment.past
                {
                    export_past(past, &mut bytes);
                    is_cut = true;
                }
                for record in &segment.records {
                    export_record(record, &mut bytes);
                    next = record.header().seq + 1;
                }
            }
            cut += u64::from(is_cut);
        }
        // Whom to believe is the reader's to say: a software TEE's records are exported too.
        let records = CapsuleRecords::of(&bytes, directory, true)?.count();
        Ok(Self {
            capsule,
            bytes,
            records,
            cut,
        })
    }
}

fn files(directory: &Path) -> Result<Vec<String>, StateFilesError> {
    let io = |error| StateFilesError::Io {
        path: directory.to_owned(),
        error,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(io)? {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// A file's bytes; `None` when it is gone.
fn content(path: &Path) -> Result<Option<Vec<u8>>, StateFilesError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateFilesError::Io {
            path: path.to_owned(),
            error,
        }),
    }
}

/// The beginning of the one export that is meant: metadata and configuration.
fn head(
    directory: &Path,
    files: &[String],
    wanted: Option<&str>,
) -> Result<(CapsuleName, Vec<u8>), StateFilesError> {
    let mut found: BTreeMap<CapsuleName, Vec<u8>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.ends_with(HEAD)) {
        let Some(content) = content(&directory.join(file))? else {
            continue;
        };
        let wrong = |_| StateFilesError::File {
            file: file.clone(),
            why: "it is no beginning of an export",
        };
        let reader = ExportReader::new(&content).map_err(wrong)?;
        let (metadata, mut bytes) = (reader.metadata().clone(), Vec::new());
        bytes.extend(export_header(&metadata));
        for record in reader {
            export_record(&record.map_err(wrong)?.record, &mut bytes);
        }
        found.insert(metadata.name(), bytes);
    }
    let listed = |names: &mut dyn Iterator<Item = &CapsuleName>| -> String {
        let names: Vec<_> = names.map(ToString::to_string).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    };
    let there = listed(&mut found.keys());
    let is_meant =
        |name: &CapsuleName| wanted.is_none_or(|text| name.to_string().starts_with(text));
    let mut meant: Vec<_> = found
        .into_iter()
        .filter(|(name, _)| is_meant(name))
        .collect();
    match meant.len() {
        0 => Err(StateFilesError::None {
            path: directory.to_owned(),
            there,
        }),
        1 => Ok(meant.remove(0)),
        _ => Err(StateFilesError::Several {
            there: listed(&mut meant.iter().map(|(name, _)| name)),
        }),
    }
}

/// A segment of this capsule; `None` for another's, or one whose first record did not arrive.
fn segment(
    file: &str,
    bytes: &[u8],
    capsule: &CapsuleName,
) -> Result<Option<(SegmentStart, Segment)>, StateFilesError> {
    let wrong = |why| StateFilesError::File {
        file: file.to_owned(),
        why,
    };
    let Ok(header) = SegmentHeader::parse(bytes) else {
        return Ok(None);
    };
    if header.capsule != *capsule.as_bytes() {
        return Ok(None);
    }
    let mut frames = header.frames(bytes);
    let Some(first) = frames.next() else {
        return Ok(None);
    };
    let start = SegmentStart::decode(first.payload);
    let start = start.ok_or_else(|| wrong("its first frame is none of a state's log"))?;
    let mut records = Vec::new();
    for frame in &mut frames {
        let record = Received::decode(frame.payload.to_vec());
        records.push(record.map_err(|_| wrong("a frame holds no record"))?);
    }
    if let Some(End::Damaged { .. }) = frames.end() {
        return Err(wrong("bytes that were durable are altered"));
    }
    let past = start.past.clone();
    Ok((!records.is_empty()).then_some((start, Segment { past, records })))
}

/// How the names of files end and what is in them, as `enclave/state` gives them.
const HEAD: &str = "-head";
const LOG: &str = "-log-";
