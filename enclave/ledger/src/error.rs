//! What goes wrong, each with how far, whose move it is, and whether to try again. Nothing here names
//! what the log is about: every one of these sentences may be shown to the host.

use bield_capsule::ledger_file::Flaw;
use bield_capsule::{BatchFull, CapsuleName, WriteError};
use bield_tlog::TreeError;

use crate::chain::NotNext;
use crate::{FilesError, SnapshotFlaw};

/// Why a log could not be loaded. Nothing is served from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The host's storage.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The root file opens and names a log that is not there.
    #[error(
        "the log of epoch {epoch} is missing: put its files back; do not start with an empty directory"
    )]
    NoLog {
        /// The epoch.
        epoch: u32,
    },
    /// The log goes on in a later epoch than the root file names.
    #[error(
        "the root file names epoch {root} and the log beside it goes on in epoch {log}: this service was recovered, \
         and the root file is from before; put the root file of epoch {log} back, or recover with shares"
    )]
    OldRoot {
        /// Epoch of the root file.
        root: u32,
        /// The newest epoch that somebody was told of.
        log: u32,
    },
    /// The log in the files is another one than the root file, or the root secret given, is for.
    #[error(
        "{name} belongs to another log than this root secret: files of two services, or of two epochs, \
         were mixed; put the right ones back"
    )]
    OtherLog {
        /// The file.
        name: String,
    },
    /// Records are missing between files, or in one that ends too early.
    #[error(
        "records from {expected} on are missing in the log of epoch {epoch}{}: a file was removed or cut; \
         put it back",
        next(*.found)
    )]
    Gap {
        /// The epoch.
        epoch: u32,
        /// The first missing record.
        expected: u64,
        /// The first record that follows; none: none is known to.
        found: Option<u64>,
    },
    /// A file's length is not the one that the file after it remembers.
    #[error("{name} has {found} bytes and had {expected}: cut or swapped; put it back")]
    Length {
        /// The file.
        name: String,
        /// Bytes that it had when the next file began.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// Bytes of the log are altered.
    #[error(
        "record {index} of epoch {epoch} is altered ({name} at byte {offset}: {flaw}); restore the file"
    )]
    Altered {
        /// The epoch.
        epoch: u32,
        /// Which record.
        index: u64,
        /// The file.
        name: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        flaw: Flaw,
    },
    /// A record does not follow the one before, or was not written by this service.
    #[error("the chain breaks at record {index} of epoch {epoch}: {why}; restore the file")]
    Broken {
        /// The epoch.
        epoch: u32,
        /// Which record.
        index: u64,
        /// What is wrong with it.
        why: NotNext,
    },
    /// A snapshot stands for more records than the log has.
    #[error(
        "the log has {log} records and a snapshot was taken at {snapshot}: {} records are gone; put the \
         newest log files back",
        snapshot - log
    )]
    Truncated {
        /// Records in the log.
        log: u64,
        /// Size of the snapshot.
        snapshot: u64,
    },
    /// The file that record `index` goes to is not there, although one was made.
    #[error("{name} is missing, records from {index} on with it; put it back")]
    Missing {
        /// The file.
        name: String,
        /// Its first record.
        index: u64,
    },
    /// A prepared record stands on records that the log does not have.
    #[error(
        "the log has {log} records, and record {prepared} was prepared after them: {} records are gone; put \
         the newest log files back",
        prepared - log
    )]
    BehindPrepared {
        /// Records in the log.
        log: u64,
        /// Index of the prepared record.
        prepared: u64,
    },
    /// A prepared record opens and does not continue the log.
    #[error(
        "the prepared record does not continue the log at record {index}: {why}; restore the files"
    )]
    Prepared {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        why: NotNext,
    },
    /// The records make another tree than what was kept of it.
    #[error(
        "the records of epoch {epoch} up to {size} make another tree than the one kept; restore the files"
    )]
    OtherTree {
        /// The epoch.
        epoch: u32,
        /// At that size.
        size: u64,
    },
    /// Nothing to begin with.
    #[error(
        "no snapshot opens, and the log here begins with record {first}: put a snapshot back, or let this \
         member join its group again with empty files"
    )]
    NoStart {
        /// The first record here.
        first: u64,
    },
    /// The program's state machine refused a verified entry.
    #[error(
        "record {index} of epoch {epoch} does not apply: {why}; the log was written by other code"
    )]
    NotApplied {
        /// The epoch.
        epoch: u32,
        /// Which record.
        index: u64,
        /// In the program's words.
        why: String,
    },
    /// The root secret that was put together is not the one of this log.
    #[error("this is not the root secret of the log here; use shares of its newest generation")]
    WrongRoot,
    /// A recovery file that does not open.
    #[error(
        "recovery file {generation} is missing, altered, or under another key: use the newest one, and \
         shares of its generation"
    )]
    RecoveryBox {
        /// Its generation.
        generation: u32,
    },
}

/// Why a running log did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The write may or may not have happened: only the same record may be tried again.
    #[error("not durable yet, it may still count: {0}")]
    NotDurable(#[source] FilesError),
    /// The host's storage, where nothing was written.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// There is a log already.
    #[error("there is a log in these files; a new one begins in empty ones")]
    NotEmpty,
    /// A record was sealed and is not committed.
    #[error("record {index} was sealed and is not committed yet; commit it first")]
    Uncommitted {
        /// Its index.
        index: u64,
    },
    /// Another record has this place: sealed here, or tried to be written.
    #[error("another record was made for place {index}; only that one may be committed")]
    Reserved {
        /// The place.
        index: u64,
    },
    /// The very record is committed.
    #[error("record {index} is committed already; nothing to do")]
    Known {
        /// Its index.
        index: u64,
    },
    /// The record does not continue the log.
    #[error("record is refused: {0}")]
    Refused(#[from] NotNext),
    /// A later term has begun here, or another record is prepared in this one.
    #[error(
        "term {term} is over, or another record was prepared in it: term {newest} has begun here"
    )]
    Term {
        /// Asked for.
        term: u64,
        /// Of the record prepared.
        newest: u64,
    },
    /// Entries that no record holds.
    #[error(transparent)]
    Full(#[from] BatchFull),
    /// The writer did not seal.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// One snapshot at a time.
    #[error("a snapshot is being written; take the next one when it is there")]
    SnapshotUnderWay,
    /// The state is larger than a snapshot holds.
    #[error("the state has {found} bytes, more than a snapshot takes")]
    TooLarge {
        /// Its bytes.
        found: u64,
    },
    /// More records than one durable write takes.
    #[error("records of {found} bytes are more than are stored at once; give fewer")]
    TooMany {
        /// Their bytes.
        found: usize,
    },
    /// The log was opened for recovery: it continues in a new epoch only.
    #[error("this log is being recovered: begin the next epoch first")]
    Recovering,
    /// As many epochs as there may be.
    #[error("the log has had as many epochs as there may be; begin a new service")]
    Epochs,
    /// No such epoch.
    #[error("there is no epoch {epoch}")]
    NoEpoch {
        /// Asked for.
        epoch: u32,
    },
    /// The records are not in this member's files.
    #[error("records before {first} are not here; ask another member")]
    NotHere {
        /// The first record here.
        first: u64,
    },
    /// A stored record is not the one that the tree has.
    #[error("record {index} of epoch {epoch} is altered on the host's storage; restore the file")]
    Altered {
        /// The epoch.
        epoch: u32,
        /// Which record.
        index: u64,
    },
    /// The tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// There is nothing that a joining member could begin with.
    #[error("there is no snapshot to transfer: take one, then begin")]
    NoSnapshot,
    /// What is to be transferred is gone: begin again.
    #[error("the snapshot being transferred was replaced by newer ones; begin the transfer again")]
    Gone,
}

/// Why a member did not take what another one gave it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// This member's storage.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Pieces that make no transfer.
    #[error("piece {piece} is not what belongs there; begin the transfer again")]
    Piece {
        /// Which, from 0.
        piece: u64,
    },
    /// The snapshot does not open, or does not hold what it should.
    #[error("the snapshot that was transferred is not whole ({0:?}); begin the transfer again")]
    Snapshot(SnapshotFlaw),
    /// A record does not follow.
    #[error("record {index} of the transfer is refused: {why}; begin again at another member")]
    Record {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        why: NotNext,
    },
    /// The log that was transferred is not the one whose checkpoint was promised.
    #[error("what was transferred does not contain the checkpoint promised, of {size} records")]
    OtherTree {
        /// Size promised.
        size: u64,
    },
    /// A later term has begun on this member's disk.
    #[error("term {term} is over: term {newest} has begun here; join again")]
    Term {
        /// Of the transfer.
        term: u64,
        /// Newest here.
        newest: u64,
    },
    /// Another service's capsule.
    #[error("the log of {found} was transferred where its root secret does not belong")]
    OtherLog {
        /// What was named.
        found: CapsuleName,
    },
}

fn next(found: Option<u64>) -> String {
    found.map_or_else(String::new, |found| format!(", the next is {found}"))
}
