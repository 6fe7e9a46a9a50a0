//! What a member that joins is given, in pieces of at most [`PIECE_BYTES_MAX`] bytes.
//!
//! ```text
//! piece 0      CBOR: epoch, capsule, snapshot (size, bytes) or none, first record, size, root secret
//! pieces       the snapshot file, as it stands sealed on the giver's storage
//! pieces       frames of the records from the first on (`bield_capsule::ledger_file`)
//!
//! giver: Ledger::transfer ──▶ Transfer ──Ledger::transfer_piece──▶ piece …       None: that was all
//! receiver: piece ──Receiver::put──▶ More │ Snapshot(state) │ Records(entries)    finish ──▶ Ledger
//! ```
//!
//! In: an attested session, which is why the root secret may be in it. Out: files of the receiver's own,
//! under its own seal key. A member whose log loads and is the beginning of the giver's is given the
//! records since, without a snapshot, and goes on from what it has. Any other begins with removing what
//! its files hold.
//!
//! Always true: a record is stored after it passed every rule, its own signature included; the
//! receiver's root file is written last, after everything, and only when the log contains the checkpoint
//! that was promised; so a transfer that breaks off leaves nothing that loads, or a beginning of the log
//! that was loaded before. The giver goes on meanwhile: what it commits after the transfer began is
//! given as records ([`Ledger::records`], [`Ledger::catch_up`]).

mod receiver;

use std::collections::VecDeque;

use bield_capsule::ledger_file::encode_frame;
use bield_capsule::{CapsuleName, Received};
use bield_envelope::{Secret, wire};
use bield_tlog::TreeHead;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

pub use self::receiver::{Receiver, Taken};
use crate::layout::snapshot_name;
use crate::{Committed, Ledger, LedgerError, NotNext};

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
    snapshot: Option<SnapshotFile>,
    #[n(3)]
    first: u64,
    #[n(4)]
    size: u64,
    #[cbor(n(5), with = "bield_envelope::transport")]
    root: Secret,
}

#[derive(Clone, Copy, Encode, Decode)]
struct SnapshotFile {
    #[n(0)]
    size: u64,
    #[n(1)]
    bytes: u64,
}

/// A transfer that is being given.
pub struct Transfer {
    snapshot: Option<SnapshotFile>,
    size: u64,
    begun: bool,
    /// Of the snapshot file: given so far.
    offset: u64,
    /// The next record to read.
    next: u64,
    read: VecDeque<Received>,
}

impl Ledger {
    /// Begins to give the log, as it is now, to a member that joins. `have` is the head that its own files
    /// show, a prepared record counted: when this log had it too, only the records since are given.
    ///
    /// # Errors
    /// There is no snapshot yet, and a member without a log needs one: take one first.
    pub fn transfer(&mut self, have: Option<TreeHead>) -> Result<Transfer, LedgerError> {
        let known = have.filter(|have| have.size > 2 && self.contains(*have));
        // One before: the record that was prepared there may not be committed there yet.
        let since = known
            .map(|have| have.size - 1)
            .filter(|from| self.holds(*from));
        let (snapshot, next) = match since {
            Some(from) => (None, from),
            None => {
                let (size, bytes) = self.newest_snapshot().ok_or(LedgerError::NoSnapshot)?;
                (Some(SnapshotFile { size, bytes }), size)
            }
        };
        Ok(Transfer {
            snapshot,
            size: self.size(),
            begun: false,
            offset: 0,
            next,
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
        if !transfer.begun {
            transfer.begun = true;
            return Ok(Some(wire::encode_secret(&Manifest {
                epoch: self.epoch(),
                capsule: self.capsule(),
                snapshot: transfer.snapshot,
                first: transfer.next,
                size: transfer.size,
                root: Secret::from_bytes(*self.root().expose()),
            })));
        }
        if let Some(SnapshotFile { size, bytes }) = transfer.snapshot
            && transfer.offset < bytes
        {
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

impl Ledger {
    /// Whether the record at `index` is in this member's files.
    fn holds(&self, index: u64) -> bool {
        self.segments.range(..=index).next().is_some()
    }

    /// Whether the log has this record there.
    fn has(&self, record: &Received, index: u64) -> bool {
        let leaf = bield_tlog::leaf_hash(record.hash().as_bytes());
        self.chain.tree().leaf(index) == Some(leaf)
    }

    /// Commits records that follow each other and come from another member, of at most
    /// [`CATCH_UP_BYTES_MAX`] bytes: one durable write for all.
    /// Every rule holds for each, its own signature included, before any is stored.
    ///
    /// # Errors
    /// As [`Ledger::commit`]; after [`LedgerError::NotDurable`] call it again with the same records.
    pub fn catch_up(&mut self, records: Vec<Received>) -> Result<Vec<Committed>, LedgerError> {
        let first = self.size();
        let found = records.iter().map(|record| record.as_bytes().len()).sum();
        if found > CATCH_UP_BYTES_MAX {
            return Err(LedgerError::TooMany { found });
        }
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

/// Most bytes of the records of one [`Ledger::catch_up`]; their frames and a file's head fit one write.
pub const CATCH_UP_BYTES_MAX: usize = 3 << 20;

/// Bytes of a piece of the snapshot, and most of one of several records.
const PIECE_BYTES: u64 = 1 << 20;
