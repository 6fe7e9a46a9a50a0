//! The side that takes a transfer's pieces.

use std::collections::BTreeMap;

use bield_capsule::ledger_file::{FileReader, Item};
use bield_capsule::{CapsuleName, Received};
use bield_envelope::{Secret, wire};
use bield_tlog::TreeHead;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Manifest, PIECE_BYTES_MAX, SnapshotFile};
use crate::keys::Keys;
use crate::layout::{Inventory, PREPARED, ROOT, STATE_BYTES_MAX, snapshot_name};
use crate::ledger::Parts;
use crate::prepared::PreparedFile;
use crate::replay::Tail;
use crate::{Committed, Files, FilesError, Ledger, LedgerError, TransferError, snapshot};

/// What a piece gave.
pub enum Taken {
    /// Nothing yet.
    More,
    /// The snapshot is whole: the program's state there.
    Snapshot(Zeroizing<Vec<u8>>),
    /// Records after it: apply them in order.
    Records(Vec<Committed>),
}

/// A transfer that is being received. What it gives counts for nothing until [`Receiver::finish`].
pub struct Receiver {
    promised: TreeHead,
    pieces: u64,
    stage: Stage,
}

enum Stage {
    /// Nothing taken; a log that was loaded from these files, or none.
    Begin(Own),
    Snapshot {
        files: Box<dyn Files>,
        seal: Secret,
        keys: Keys,
        plan: Plan,
        file: SnapshotFile,
        offset: u64,
    },
    Records {
        ledger: Box<Ledger>,
        plan: Plan,
        next: u64,
    },
    /// After an error.
    Broken,
}

enum Own {
    Files(Box<dyn Files>, Secret),
    Ledger(Box<Ledger>),
}

/// The manifest without secret and snapshot.
#[derive(Clone, Copy)]
struct Plan {
    epoch: u32,
    capsule: CapsuleName,
    size: u64,
}

impl Receiver {
    /// Begins for a member without a log: whatever these files hold is removed with the first piece.
    /// `promised` is the checkpoint that the giver showed, verified, inside of the attested session.
    #[must_use]
    pub const fn new(files: Box<dyn Files>, seal: Secret, promised: TreeHead) -> Self {
        Self::begin(Own::Files(files, seal), promised)
    }

    /// Begins for a member whose log loaded: it goes on from there when it is given the records since, and
    /// is removed with the first piece when it is given all.
    #[must_use]
    pub fn with(ledger: Ledger, promised: TreeHead) -> Self {
        Self::begin(Own::Ledger(Box::new(ledger)), promised)
    }

    const fn begin(own: Own, promised: TreeHead) -> Self {
        Self {
            promised,
            pieces: 0,
            stage: Stage::Begin(own),
        }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// A piece that does not belong there or does not verify; then this transfer is over.
    pub fn put(&mut self, piece: &[u8]) -> Result<Taken, TransferError> {
        let number = self.pieces;
        self.pieces += 1;
        let wrong = TransferError::Piece { piece: number };
        if piece.len() > PIECE_BYTES_MAX {
            return Err(wrong);
        }
        match core::mem::replace(&mut self.stage, Stage::Broken) {
            Stage::Begin(own) => {
                let manifest = wire::decode(piece, MANIFEST_BYTES_MAX).map_err(|_| wrong)?;
                self.stage = begin(own, manifest, number)?;
                Ok(Taken::More)
            }
            Stage::Snapshot {
                mut files,
                seal,
                keys,
                plan,
                file,
                offset,
            } => {
                let next = offset + piece.len() as u64;
                if next > file.bytes || piece.is_empty() {
                    return Err(wrong);
                }
                files.append(&snapshot_name(plan.epoch, file.size), offset, piece)?;
                if next < file.bytes {
                    self.stage = Stage::Snapshot {
                        files,
                        seal,
                        keys,
                        plan,
                        file,
                        offset: next,
                    };
                    return Ok(Taken::More);
                }
                let (ledger, state) = opened(files, seal, keys, &plan, file)?;
                let next = ledger.size();
                self.stage = Stage::Records {
                    ledger: Box::new(ledger),
                    plan,
                    next,
                };
                Ok(Taken::Snapshot(state))
            }
            Stage::Records {
                mut ledger,
                plan,
                next,
            } => {
                let mut records = frames(piece, next, plan.size).ok_or(wrong)?;
                let after = next + records.len() as u64;
                // What this member has already is the same, or this is not its log.
                let have = (ledger.size() - next).min(records.len() as u64) as usize;
                let known = records.drain(..have).zip(next..);
                if !known
                    .into_iter()
                    .all(|(record, index)| ledger.has(&record, index))
                {
                    return Err(TransferError::OtherTree { size: next });
                }
                let index = ledger.size();
                let committed = ledger.catch_up(records).map_err(|error| match error {
                    LedgerError::NotDurable(error) => TransferError::Files(error),
                    LedgerError::Refused(why) => TransferError::Record { index, why },
                    _ => TransferError::Piece { piece: number },
                })?;
                self.stage = Stage::Records {
                    ledger,
                    plan,
                    next: after,
                };
                Ok(Taken::Records(committed))
            }
            Stage::Broken => Err(wrong),
        }
    }

    /// Ends the transfer: from here on the files are this member's, in `term` (0 where there is no
    /// group), with nothing prepared.
    ///
    /// # Errors
    /// Pieces are missing, the log does not contain the checkpoint promised, the term is over, or the
    /// host does not store.
    pub fn finish(self, term: u64, entropy: &mut impl CryptoRng) -> Result<Ledger, TransferError> {
        let piece = self.pieces;
        let Stage::Records {
            mut ledger, plan, ..
        } = self.stage
        else {
            return Err(TransferError::Piece { piece });
        };
        if ledger.size() < plan.size {
            return Err(TransferError::Piece { piece });
        }
        if !ledger.contains(self.promised) {
            let size = self.promised.size;
            return Err(TransferError::OtherTree { size });
        }
        let failed = |error| match error {
            LedgerError::Files(error) => TransferError::Files(error),
            LedgerError::Term { newest, .. } => TransferError::Term { term, newest },
            _ => TransferError::Piece { piece },
        };
        if term != 0 {
            ledger.prepare(term, None).map_err(failed)?;
        }
        ledger.write_root(entropy).map_err(failed)?;
        Ok(*ledger)
    }
}

fn begin(own: Own, manifest: Manifest, piece: u64) -> Result<Stage, TransferError> {
    let wrong = TransferError::Piece { piece };
    let plan = Plan {
        epoch: manifest.epoch,
        capsule: manifest.capsule,
        size: manifest.size,
    };
    let bounded = (2..=manifest.size).contains(&manifest.first);
    match (manifest.snapshot, own) {
        _ if !bounded => Err(wrong),
        (Some(file), own) => {
            if file.bytes > STATE_BYTES_MAX || file.size != manifest.first {
                return Err(wrong);
            }
            let (mut files, seal) = match own {
                Own::Files(files, seal) => (files, seal),
                Own::Ledger(ledger) => ledger.into_parts(),
            };
            remove_all(&mut *files)?;
            Ok(Stage::Snapshot {
                files,
                seal,
                keys: Keys::new(manifest.root),
                plan,
                file,
                offset: 0,
            })
        }
        (None, Own::Ledger(ledger)) => {
            let same = (ledger.epoch(), ledger.capsule()) == (plan.epoch, plan.capsule);
            if !same || !bool::from(ledger.root().ct_eq(&manifest.root)) {
                let found = plan.capsule;
                return Err(TransferError::OtherLog { found });
            }
            if manifest.first > ledger.size() {
                return Err(wrong);
            }
            Ok(Stage::Records {
                ledger,
                plan,
                next: manifest.first,
            })
        }
        (None, Own::Files(..)) => Err(wrong),
    }
}

/// Removes a log, the root file first: what is left of it is none without.
fn remove_all(files: &mut dyn Files) -> Result<(), FilesError> {
    let inventory = Inventory::take(files)?;
    files.remove(ROOT)?;
    files.remove(PREPARED)?;
    for epoch in inventory.logs.keys().chain(inventory.snapshots.keys()) {
        inventory.remove_epoch(files, *epoch)?;
    }
    Ok(())
}

/// Opens the snapshot that was received, as at every start.
fn opened(
    mut files: Box<dyn Files>,
    seal: Secret,
    keys: Keys,
    plan: &Plan,
    SnapshotFile { size, bytes }: SnapshotFile,
) -> Result<(Ledger, Zeroizing<Vec<u8>>), TransferError> {
    let snapshot = snapshot::read(&mut *files, &keys, (plan.epoch, size), bytes)?
        .map_err(TransferError::Snapshot)?;
    let found = snapshot.chain.metadata().name();
    if found != plan.capsule {
        return Err(TransferError::OtherLog { found });
    }
    let ledger = Ledger::assemble(Parts {
        files,
        seal,
        keys,
        chain: snapshot.chain,
        past: snapshot.past,
        segments: BTreeMap::new(),
        tail: Tail {
            first: size,
            bytes: 0,
            torn: 0,
        },
        prepared: PreparedFile::default(),
        term: 0,
        newest_prepared: None,
        snapshots: vec![size],
        snapshot: (size, bytes),
        recovering: false,
    })?;
    Ok((ledger, snapshot.state))
}

/// The records in a piece of frames, from index `next` on; `None` when it is anything else.
fn frames(piece: &[u8], next: u64, size: u64) -> Option<Vec<Received>> {
    let mut reader = FileReader::resume(0, next);
    reader.push(piece);
    let mut records = Vec::new();
    while let Item::Record { record, .. } = reader.next_item() {
        records.push(Received::decode(record).ok()?);
    }
    let whole = reader.offset() == piece.len() as u64 && !records.is_empty();
    (whole && next + records.len() as u64 <= size).then_some(records)
}

/// Longest manifest in bytes: a few numbers, a name and a secret.
const MANIFEST_BYTES_MAX: usize = 256;
