//! Whole capsules as files, out of replicas and into others (`spec/06 §12`).
//!
//! Always true: an export holds only records whose own signatures were checked, config records first,
//! in an order in which a reader can verify each as it comes; what is imported is verified here first, so that a file's fault is named here and
//! not by every replica in turn.

use std::io::{self, Write};

use bield_capsule::{
    ExportReader, Kept, Metadata, Verifier, VerifierPolicy, export_header, export_record,
};

use super::error::{LogError, ReplicaError};
use super::frames;
use super::log::{Log, introduce_all};
use super::reader::{Completeness, ReadOptions, Skipped};
use super::window::RUN_BYTES_MAX;

/// What was written to an export.
#[derive(Debug)]
pub struct ExportSummary {
    /// Records, config records included.
    pub records: u64,
    /// Length of the file.
    pub bytes: u64,
    /// How complete it is.
    pub completeness: Completeness,
    /// What is not in it, and why.
    pub skipped: Vec<Skipped>,
}

/// What one replica took of an import.
#[derive(Debug)]
pub struct Imported {
    /// Its URL.
    pub replica: String,
    /// How many records it keeps now.
    pub records: u64,
    /// Why it did not take all.
    pub refused: Option<ReplicaError>,
}

impl Log {
    /// Writes everything that counts to `out`; `progress` receives records and bytes so far.
    ///
    /// # Errors
    /// A record that no replica gives out, or `out` fails.
    pub fn export(
        &self,
        out: &mut impl Write,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<ExportSummary, LogError> {
        self.need_whole()?;
        let wrong = |error: io::Error| LogError::Argument(format!("the file to write: {error}"));
        let mut buffer = export_header(self.metadata());
        let (mut records, mut bytes) = (0, 0);
        for record in self.config_records() {
            export_record(record, &mut buffer);
            records += 1;
        }
        let mut reader = self.read(ReadOptions {
            every_signature: true,
            ..ReadOptions::default()
        });
        for applied in reader.by_ref() {
            out.write_all(&buffer).map_err(wrong)?;
            bytes += buffer.len() as u64;
            buffer.clear();
            let applied = applied?;
            let record = applied.storable().ok_or_else(|| {
                LogError::Argument(
                    "a record whose signature was not checked is not exported".into(),
                )
            })?;
            export_record(record, &mut buffer);
            records += 1;
            progress(records, bytes);
        }
        out.write_all(&buffer)
            .and_then(|()| out.flush())
            .map_err(wrong)?;
        bytes += buffer.len() as u64;
        reader.remember()?;
        Ok(ExportSummary {
            records,
            bytes,
            completeness: reader.completeness(),
            skipped: reader.skipped().to_vec(),
        })
    }
}

/// Gives the records of an export to replicas, after verifying all of them.
///
/// # Errors
/// The file does not verify (which record, and why), or a replica does not introduce itself. What a
/// replica refuses is in its [`Imported`].
pub fn import(
    file: &[u8],
    urls: &[String],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(Metadata, Vec<Imported>), LogError> {
    let export = ExportReader::new(file).map_err(|error| LogError::Argument(error.to_string()))?;
    let metadata = export.metadata().clone();
    let policy = VerifierPolicy {
        allow_simulated: true,
        ..VerifierPolicy::default()
    };
    let mut verifier = Verifier::new(metadata.clone(), policy);
    let mut runs: Vec<(Vec<u8>, usize)> = Vec::new();
    for exported in export {
        let exported = exported.map_err(|error| LogError::Argument(error.to_string()))?;
        let record = exported.record;
        let full = |run: &(Vec<u8>, usize)| run.0.len() + record.as_bytes().len() > RUN_BYTES_MAX;
        if runs.last().is_none_or(full) {
            runs.push((Vec::new(), 0));
        }
        if let Some((run, count)) = runs.last_mut() {
            frames::push(run, record.as_bytes());
            *count += 1;
        }
        let head = record.head();
        let verified = verifier.verify(record);
        verified
            .and_then(|verified| verifier.apply(verified))
            .map_err(|error| LogError::Refused {
                writer: head.writer,
                seq: head.seq,
                error: Box::new(error),
            })?;
        progress(exported.number, exported.offset);
    }
    let name = metadata.name();
    let mut imported = Vec::new();
    for replica in introduce_all(urls)? {
        let mut taken = Imported {
            replica: replica.url().to_owned(),
            records: 0,
            refused: replica.put_capsule(&metadata).err(),
        };
        for (run, count) in &runs {
            if taken.refused.is_some() {
                break;
            }
            match replica.append_frames(&name, run, *count, Kept::Synced) {
                Ok(kept) => {
                    taken.records += kept.accepted as u64;
                    taken.refused = kept.refused;
                }
                Err(error) => taken.refused = Some(error),
            }
        }
        imported.push(taken);
    }
    Ok((metadata, imported))
}
