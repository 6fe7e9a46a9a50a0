//! The key service's log on the host's untrusted files: one sealed, signed chain, its tree, snapshots.
//!
//! ```text
//!                     inside the TEE                               │  the host's files
//! entries ──seal──▶ record ──commit──▶ chain, tree ──▶ checkpoint  │  log-…        frames, one a record
//!                                        │                         │  snapshot-…   sealed state
//! state  ──────────snapshot──────────────┘                         │  root         sealed root secret
//!                                                                  │  prepared     sealed records of a group
//! load ──▶ Found ──replay──▶ state, entries ──▶ Ledger             │  recovery-…   root secret under shares
//! ```
//!
//! In: entries (bytes), a root secret, the TEE's seal key; time and randomness as arguments. Out:
//! records that are durable before anybody is told of them, and after any crash exactly the entries
//! that were committed, in order. The host is the adversary: it may read, drop, cut, reorder, alter,
//! mix and give back older files.
//!
//! Always true: the log is a capsule (`spec/06`) with one writer; record *i* is leaf *i* of an RFC 6962
//! tree whose checkpoints this crate signs; a place in the log gets one record whatever fails; nothing is
//! given to the caller before it was verified; every way in which files can be wrong, but for being an
//! older whole copy, is told with its own sentence and how far. An older copy is told from the newest
//! by whoever kept a checkpoint: [`Ledger::contains`], [`Ledger::consistency`].
//!
//! Left to others: what entries mean (`enclave/keys`), who decides on records in a group
//! (`enclave/group`), freshness, clocks, threads. Layout of the files: [`layout`].
//!
//! Cost: a commit is one signature, its verification, three hash passes, one AES pass and one durable
//! append; a snapshot is written apart from them. A start opens the state at AES speed, rebuilds the tree (two SHA-256 blocks a leaf, 64 bytes
//! of memory), and replays at most 64 MiB of log, or half a snapshot, at one signature per 256 records.
//!
//! # Features
//! * `host`: adds [`HostFiles`], over the visits that the host offers.
//! * `testing`: adds [`MemoryFiles`], a disk that crashes, refuses and rolls back on demand.

mod blocks;
mod boxes;
mod chain;
mod error;
mod files;
#[cfg(feature = "host")]
mod host;
mod keys;
pub mod layout;
mod ledger;
mod load;
#[cfg(feature = "testing")]
mod memory;
mod past;
mod prepared;
mod read;
mod replay;
mod snapshot;
mod transfer;

#[cfg(test)]
mod tests;

pub use blocks::{BLOCK_BYTES, Blocks};
pub use chain::{Committed, NotNext};
pub use error::{LedgerError, LoadError, TransferError};
pub use files::{Files, FilesError, TRANSFER_BYTES_MAX};
#[cfg(feature = "host")]
pub use host::HostFiles;
pub use keys::signed_in;
pub use ledger::Ledger;
pub use load::{Found, LoadReport, Loaded, Opened, Sealed, Unavailable};
#[cfg(feature = "testing")]
pub use memory::{Contents, Fault, MemoryFiles};
pub use past::PastLog;
pub use prepared::Prepared;
pub use snapshot::{SnapshotFlaw, SnapshotJob, WrittenSnapshot};
pub use transfer::{CATCH_UP_BYTES_MAX, PIECE_BYTES_MAX, Receiver, Taken, Transfer};
