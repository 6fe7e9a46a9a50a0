//! The records of an export, verified: where a receipt's states are looked up.
//!
//! In: an export (`spec/06 §12`) from anyone. Out: which record stands in which place of which capsule. Always true:
//! every record was verified from the capsule's name up; one that does not hold ends the reading. Bodies stay closed:
//! no key is needed. Where a chain's first records are left out (the export of a function's state, whose log is dropped once
//! its levels hold it), the record before those that are here is known by its signed head. Records that verified ones name
//! as what they follow are known by their hash.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bield_capsule::{
    CapsuleName, ExportError, ExportReader, History, Kind, Past, Piece, Received, Refused,
    SignedHead, Verifier, VerifierPolicy, WriterId,
};
use bield_envelope::Digest;
use bield_receipt::CheckedLog;

/// The verified records of one capsule.
pub struct CapsuleRecords {
    capsule: CapsuleName,
    hashes: BTreeMap<(WriterId, u64), Digest>,
    begins: BTreeMap<WriterId, u64>,
    records: u64,
    /// Whose chain is the configuration.
    owner: Option<WriterId>,
}

/// The records of an export cannot be used. Whoever made it exports the capsule again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordsError {
    /// The file cannot be read.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// It is no export, or not whole.
    #[error("{path}: {error}", path = .path.display())]
    Export {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        error: ExportError,
    },
    /// A record does not hold.
    #[error("{path}: record {number} at byte {offset}: {error}", path = .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Its number, from 0.
        number: u64,
        /// Where it begins.
        offset: u64,
        /// Why not.
        #[source]
        error: Box<Refused>,
    },
    /// What stands for records that are left out does not hold.
    #[error("{path}: what stands for the records before record {number} does not hold; export it again", path = .path.display())]
    Past {
        /// The file.
        path: PathBuf,
        /// The number of the record after it.
        number: u64,
    },
}

impl CapsuleRecords {
    /// Reads and verifies the export at `path`; with `allow_simulated` also records of writers in software TEEs.
    ///
    /// # Errors
    /// It cannot be read, or something in it does not hold.
    pub fn read(path: &Path, allow_simulated: bool) -> Result<Self, RecordsError> {
        let bytes = std::fs::read(path).map_err(|error| RecordsError::Io {
            path: path.to_owned(),
            error,
        })?;
        Self::of(&bytes, path, allow_simulated)
    }

    /// Verifies the bytes of an export; `path` is what errors call it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn of(bytes: &[u8], path: &Path, allow_simulated: bool) -> Result<Self, RecordsError> {
        let broken = |error| RecordsError::Export {
            path: path.to_owned(),
            error,
        };
        let mut export = ExportReader::new(bytes).map_err(broken)?;
        let policy = VerifierPolicy {
            allow_simulated,
            ..VerifierPolicy::default()
        };
        let mut verifier = Verifier::new(export.metadata().clone(), policy);
        let mut known = Self {
            capsule: export.metadata().name(),
            hashes: BTreeMap::new(),
            begins: BTreeMap::new(),
            records: 0,
            owner: None,
        };
        while let Some(piece) = export.next_piece() {
            match piece.map_err(broken)? {
                Piece::Record(exported) => {
                    let (number, offset) = (exported.number, exported.offset);
                    let taken = known.record(&mut verifier, exported.record);
                    taken.map_err(|error| RecordsError::Record {
                        path: path.to_owned(),
                        number,
                        offset,
                        error,
                    })?;
                }
                Piece::Past(past) => {
                    let number = known.records;
                    let taken = known.past(&mut verifier, &past);
                    taken.ok_or_else(|| RecordsError::Past {
                        path: path.to_owned(),
                        number,
                    })?;
                }
                Piece::Length | Piece::Metadata(_) => {}
            }
        }
        Ok(known)
    }

    fn record(&mut self, verifier: &mut Verifier, record: Received) -> Result<(), Box<Refused>> {
        let (kind, head) = (record.header().kind, record.head());
        let parents = record.header().parents.clone();
        let applied = verifier
            .verify(record)
            .and_then(|verified| verifier.apply(verified));
        applied?;
        self.records += 1;
        if kind == Kind::Config {
            self.owner = Some(head.writer);
            return Ok(());
        }
        self.hashes.insert((head.writer, head.seq), head.hash);
        let others = parents.into_iter();
        let others = others.filter(|parent| Some(parent.writer) != self.owner);
        others.for_each(|parent| {
            let place = self.hashes.entry((parent.writer, parent.seq));
            place.or_insert(parent.hash);
        });
        Ok(())
    }

    /// Takes a chain up that goes on after `past`.
    fn past(&mut self, verifier: &mut Verifier, past: &Past) -> Option<()> {
        let tip = SignedHead::decode(&past.tip).ok()?;
        let next = tip.head().seq.checked_add(1)?;
        let open = Received::decode(past.open.clone()).ok()?;
        if open.header().kind != Kind::Open || open.header().writer != tip.head().writer {
            return None;
        }
        let first = open.head();
        match self.hashes.get(&(first.writer, first.seq)) {
            Some(hash) if *hash != first.hash => return None,
            Some(_) => {}
            None => {
                let verified = verifier.verify(open).ok()?;
                verifier.apply(verified).ok()?;
                self.hashes.insert((first.writer, first.seq), first.hash);
            }
        }
        verifier.skip_to(&tip, past.levels(next)?).ok()?;
        let tip = tip.head();
        self.hashes.insert((tip.writer, tip.seq), tip.hash);
        self.begins.insert(tip.writer, tip.seq);
        Some(())
    }

    /// How many records there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.records
    }

    /// The capsule they are of.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.capsule
    }

    /// For the checks of a receipt.
    #[must_use]
    pub fn log(&self) -> CheckedLog<'_> {
        CheckedLog {
            capsule: self.capsule,
            records: self,
        }
    }
}

impl History for CapsuleRecords {
    fn hash_at(&self, writer: &WriterId, seq: u64) -> Option<Digest> {
        self.hashes.get(&(*writer, seq)).copied()
    }

    fn begins(&self, writer: &WriterId) -> Option<u64> {
        self.begins.get(writer).copied()
    }
}

#[cfg(test)]
mod tests {
    use bield_capsule::{
        Batch, Change, GenerationKey, Metadata, Received, Suite, Writer, WriterKey, export_header,
        export_record,
    };
    use bield_envelope::{Seeded, Time};

    use super::*;

    /// An export with a writer's chain of an open record and some of data.
    fn export(data: usize) -> (Metadata, Vec<Received>, Vec<u8>) {
        let (now, mut entropy) = (Time::from_millis(1), Seeded::new(1));
        let owner = WriterKey::generate(Suite::Ed25519, &mut entropy);
        let metadata = Metadata::new(owner.public(), None, now, &mut entropy).unwrap();
        let generation = GenerationKey::generate(1, &mut entropy);
        let key = WriterKey::generate(Suite::Ed25519, &mut entropy);
        let commitment = generation.commitment(&metadata);
        let changes = [
            Change::admit(key.public()),
            Change::Generation {
                number: 1,
                commitment,
            },
        ];
        let (_, config) = Writer::owner(owner, &metadata, &changes, now).unwrap();
        let (mut writer, open) = Writer::open(key, &metadata, config.head(), None, now).unwrap();
        let mut records = vec![config, open];
        for _ in 0..data {
            let mut batch = Batch::new();
            batch.push(b"entry").unwrap();
            let record = writer.seal(&batch, &generation, &[], now, &mut entropy);
            records.push(record.unwrap());
        }
        let mut bytes = export_header(&metadata);
        for record in &records {
            export_record(record, &mut bytes);
        }
        (metadata, records, bytes)
    }

    #[test]
    fn every_record_of_an_export_is_found_where_it_stands_and_no_altered_one_is() {
        let (metadata, records, bytes) = export(3);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.export");
        std::fs::write(&path, &bytes).unwrap();
        let read = CapsuleRecords::read(&path, false).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(read.capsule(), metadata.name());
        for record in &records[1..] {
            let head = record.head();
            assert_eq!(read.hash_at(&head.writer, head.seq), Some(head.hash));
            assert_eq!(read.hash_at(&head.writer, head.seq + 10), None);
        }
        let config = records[0].head();
        assert_eq!(
            read.hash_at(&config.writer, config.seq),
            None,
            "configuration is no state"
        );
        let mut bad = bytes.clone();
        *bad.last_mut().unwrap() ^= 1;
        for bad in [&bad[..], &bytes[..bytes.len() - 1], b"nothing"] {
            std::fs::write(&path, bad).unwrap();
            assert!(CapsuleRecords::read(&path, false).is_err());
        }
    }
}
