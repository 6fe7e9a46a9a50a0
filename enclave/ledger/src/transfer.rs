//! What a member that joins is given, in pieces of at most [`PIECE_BYTES_MAX`] bytes.
//!
//! ```text
//! piece 0      CBOR: epoch, capsule, snapshot's size and bytes, size of the log, root secret
//! pieces       the snapshot file, as it stands sealed on the giver's storage
//! pieces       frames of the records from the snapshot's size on (`bield_capsule::ledger_file`)
//!
//! giver: Ledger::transfer ──▶ Transfer ──Ledger::transfer_piece──▶ piece …       None: that was all
//! receiver: piece ──Receiver::put──▶ More │ Snapshot(state) │ Records(entries)    finish ──▶ Ledger
//! ```
//!
//! In: an attested session, which is why the root secret may be in it. Out: files of the receiver's own,
//! under its own seal key. Always true: a record is stored after it passed every rule, its own signature
//! included; the receiver's root file is written last, after everything, and only when the log contains
//! the checkpoint that was promised; so a transfer that breaks off leaves nothing that loads. The giver
//! goes on meanwhile: what it commits after the transfer began is given as records
//! ([`Ledger::records`], [`Ledger::catch_up`]).
//!
//! A receiver begins with removing what its files hold. A member whose own log loads asks for the
//! records since instead: that is less work, and loses nothing when the giver fails meanwhile.

use std::collections::{BTreeMap, VecDeque};

use bield_capsule::ledger_file::{FileReader, Item, encode_frame};
use bield_capsule::{CapsuleName, Received};
use bield_envelope::{Secret, wire};
use bield_tlog::TreeHead;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::keys::Keys;
use crate::layout::{Inventory, PREPARED, ROOT, STATE_BYTES_MAX, snapshot_name};
use crate::ledger::Parts;
use crate::prepared::PreparedFile;
use crate::replay::Tail;
use crate::{Committed, Files, FilesError, Ledger, LedgerError, NotNext, TransferError, snapshot};

/// Longest piece in bytes: the longest record of a log, which names no parents, in its frame.
pub const PIECE_BYTES_MAX: usize = (1 << 20) + (4 << 10);

#[derive(Encode, Decode)]
#[cbor(map)]
struct Manifest {
    #[n(0)]
    epoch: u32,
    #[n(1)]
    capsule: CapsuleName,
    #[n(2)]
    snapshot_size: u64,
    #[n(3)]
    snapshot_bytes: u64,
    #[n(4)]
    size: u64,
    #[cbor(n(5), with = "bield_envelope::transport")]
    root: Secret,
}

/// A transfer that is being given.
pub struct Transfer {
    snapshot: (u64, u64),
    size: u64,
    begun: bool,
    /// Of the snapshot file: given so far.
    offset: u64,
    /// The next record to read.
    next: u64,
    read: VecDeque<Received>,
}

impl Ledger {
    /// Begins to give the log to a member that joins, as it is now.
    ///
    /// # Errors
    /// There is no snapshot yet: take one first.
    pub fn transfer(&self) -> Result<Transfer, LedgerError> {
        let snapshot = self.newest_snapshot().ok_or(LedgerError::NoSnapshot)?;
        Ok(Transfer {
            snapshot,
            size: self.size(),
            begun: false,
            offset: 0,
            next: snapshot.0,
            read: VecDeque::new(),
        })
    }

    /// The next piece, for the attested session only; `None` after the last.
    ///
    /// # Errors
    /// The snapshot gave way to newer ones meanwhile, or stored records do not read.
    pub fn transfer_piece(
        &mut self,
        transfer: &mut Transfer,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, LedgerError> {
        let (size, bytes) = transfer.snapshot;
        if !transfer.begun {
            transfer.begun = true;
            return Ok(Some(wire::encode_secret(&Manifest {
                epoch: self.epoch(),
                capsule: self.capsule(),
                snapshot_size: size,
                snapshot_bytes: bytes,
                size: transfer.size,
                root: Secret::from_bytes(*self.root().expose()),
            })));
        }
        if transfer.offset < bytes {
            let length = PIECE_BYTES.min(bytes - transfer.offset);
            let name = snapshot_name(self.epoch(), size);
            let piece = self.files.read(&name, transfer.offset, length)?;
            if piece.len() as u64 != length {
                return Err(LedgerError::Gone);
            }
            transfer.offset += length;
            return Ok(Some(piece.into()));
        }
        if transfer.read.is_empty() && transfer.next < transfer.size {
            let records = self.records(transfer.next, PIECE_BYTES as usize)?;
            let wanted = usize::try_from(transfer.size - transfer.next).unwrap_or(usize::MAX);
            transfer.read.extend(records.into_iter().take(wanted));
            transfer.next += transfer.read.len() as u64;
        }
        let mut piece = Vec::new();
        let mut index = transfer.next - transfer.read.len() as u64;
        while let Some(record) = transfer.read.front() {
            let frame_bytes =
                bield_capsule::ledger_file::FRAME_HEAD_BYTES + record.as_bytes().len();
            if !piece.is_empty() && piece.len() + frame_bytes > PIECE_BYTES as usize {
                break;
            }
            encode_frame(index, record.as_bytes(), &mut piece);
            index += 1;
            transfer.read.pop_front();
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

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
    Begin(Box<dyn Files>, Secret),
    Snapshot {
        files: Box<dyn Files>,
        seal: Secret,
        keys: Keys,
        manifest: Plan,
        offset: u64,
    },
    Records(Box<Ledger>, Plan),
    /// After an error.
    Broken,
}

/// The manifest without its secret.
struct Plan {
    epoch: u32,
    capsule: CapsuleName,
    snapshot: (u64, u64),
    size: u64,
}

impl Receiver {
    /// Begins with removing whatever log these files hold. `promised` is the checkpoint that the giver
    /// showed, verified, inside of the attested session.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn new(
        mut files: Box<dyn Files>,
        seal: Secret,
        promised: TreeHead,
    ) -> Result<Self, FilesError> {
        let inventory = Inventory::take(&mut *files)?;
        files.remove(ROOT)?; // first: what is left of a log is none without it
        files.remove(PREPARED)?;
        for epoch in inventory.logs.keys().chain(inventory.snapshots.keys()) {
            inventory.remove_epoch(&mut *files, *epoch)?;
        }
        Ok(Self {
            promised,
            pieces: 0,
            stage: Stage::Begin(files, seal),
        })
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
            Stage::Begin(files, seal) => {
                let manifest: Manifest = wire::decode(piece, 256).map_err(|_| wrong)?;
                self.stage =
                    begin(files, seal, manifest).ok_or(TransferError::Piece { piece: number })?;
                Ok(Taken::More)
            }
            Stage::Snapshot {
                mut files,
                seal,
                keys,
                manifest,
                offset,
            } => {
                let (size, bytes) = manifest.snapshot;
                let next = offset + piece.len() as u64;
                if next > bytes || piece.is_empty() {
                    return Err(wrong);
                }
                files.append(&snapshot_name(manifest.epoch, size), offset, piece)?;
                if next < bytes {
                    self.stage = Stage::Snapshot {
                        files,
                        seal,
                        keys,
                        manifest,
                        offset: next,
                    };
                    return Ok(Taken::More);
                }
                let (ledger, state) = opened(files, seal, keys, &manifest)?;
                self.stage = Stage::Records(Box::new(ledger), manifest);
                Ok(Taken::Snapshot(state))
            }
            Stage::Records(mut ledger, plan) => {
                let records = frames(piece, ledger.size(), plan.size).ok_or(wrong)?;
                let index = ledger.size();
                let committed = ledger.catch_up(records).map_err(|error| match error {
                    LedgerError::NotDurable(error) => TransferError::Files(error),
                    LedgerError::Refused(why) => TransferError::Record { index, why },
                    _ => TransferError::Piece { piece: number },
                })?;
                self.stage = Stage::Records(ledger, plan);
                Ok(Taken::Records(committed))
            }
            Stage::Broken => Err(wrong),
        }
    }

    /// Ends the transfer: from here on the files are this member's.
    ///
    /// # Errors
    /// Pieces are missing, the log does not contain the checkpoint promised, or the host does not store.
    pub fn finish(self, entropy: &mut impl CryptoRng) -> Result<Ledger, TransferError> {
        let piece = self.pieces;
        let Stage::Records(mut ledger, plan) = self.stage else {
            return Err(TransferError::Piece { piece });
        };
        if ledger.size() != plan.size {
            return Err(TransferError::Piece { piece });
        }
        if !ledger.contains(self.promised) {
            let size = self.promised.size;
            return Err(TransferError::OtherTree { size });
        }
        ledger.write_root(entropy).map_err(|error| match error {
            LedgerError::Files(error) => TransferError::Files(error),
            _ => TransferError::Piece { piece },
        })?;
        Ok(*ledger)
    }
}

fn begin(files: Box<dyn Files>, seal: Secret, manifest: Manifest) -> Option<Stage> {
    let (size, bytes) = (manifest.snapshot_size, manifest.snapshot_bytes);
    let bounded = bytes <= STATE_BYTES_MAX && size >= 2 && size <= manifest.size;
    bounded.then(|| Stage::Snapshot {
        files,
        seal,
        keys: Keys::new(manifest.root),
        manifest: Plan {
            epoch: manifest.epoch,
            capsule: manifest.capsule,
            snapshot: (size, bytes),
            size: manifest.size,
        },
        offset: 0,
    })
}

/// Opens the snapshot that was received, as at every start.
fn opened(
    mut files: Box<dyn Files>,
    seal: Secret,
    keys: Keys,
    plan: &Plan,
) -> Result<(Ledger, Zeroizing<Vec<u8>>), TransferError> {
    let (size, bytes) = plan.snapshot;
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
        snapshots: vec![size],
        snapshot: plan.snapshot,
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

impl Ledger {
    /// Commits records that follow each other and come from another member: one durable write for all.
    /// Every rule holds for each, its own signature included, before any is stored.
    ///
    /// # Errors
    /// As [`Ledger::commit`]; after [`LedgerError::NotDurable`] call it again with the same records.
    pub fn catch_up(&mut self, records: Vec<Received>) -> Result<Vec<Committed>, LedgerError> {
        let first = self.size();
        for record in &records {
            self.chain.verify_own_signature(record)?;
        }
        let verified = self.chain.verify_run(records);
        let verified = verified.map_err(|(_, why)| LedgerError::Refused(why))?;
        let mut committed = Vec::with_capacity(verified.len());
        for (index, verified) in (first..).zip(&verified) {
            committed.push(Committed {
                index,
                at: verified.record().header().clock.time(),
                entries: self.chain.open(verified).map_err(NotNext::from)?,
            });
        }
        self.commit_verified(verified)?;
        Ok(committed)
    }
}

/// Bytes of a piece of the snapshot, and most of one of several records.
const PIECE_BYTES: u64 = 1 << 20;
