//! Capsules: append-only logs whose replicas cannot read, change or invent anything.
//!
//! ```text
//!  CapsuleHome ── keys, names, what was seen
//!      │
//!     Log ── create, open, configure ──▶ ReplicaClient × n ── every answer verified
//!      ├── Appender ──▶ durability, receipts
//!      ├── Reader, Follower ◀── verified records, entries opened with the key ring
//!      └── proofs, exports ──▶ anybody, offline (see `audit`)
//! ```
//!
//! In: a home directory, replicas that may lose, withhold and lie. Out: entries of admitted writers,
//! in order, whose completeness is stated; durability that somebody signed for.
//!
//! Not here: the format and its rules (`core/capsule`), what replicas do (`host/store`).

mod appender;
mod audit;
mod error;
mod follow;
mod frames;
mod home;
mod log;
mod pending;
mod prove;
mod reader;
mod records;
mod replica;
mod sink;
mod state_files;
mod transfer;
mod window;
mod witnessed;

pub use appender::{AppendError, Appender, AppenderOptions, Finished, Older};
pub use audit::{Audit, AuditError, AuditOptions, Bad, audit};
pub use error::{Lie, LogError, ReplicaError};
pub use follow::{Followed, Follower};
pub use home::{CapsuleHome, CapsuleHomeError, KnownReplica, Seen};
pub use log::{Answer, CreateOptions, Log, Loss};
pub use pending::Writing;
pub use prove::Kepts;
pub use reader::{Completeness, ReadOptions, Reader, Skipped};
pub use records::{CapsuleRecords, RecordsError};
pub use replica::{Appended, Page, ReplicaClient, Subscription};
pub use sink::{JournalSink, ReplicaSink, Sink, SinkError, Stored};
pub use state_files::{StateExport, StateFilesError};
pub use transfer::{ExportSummary, Imported, import};
pub use window::{Health, NotReached, SinkState};
pub use witnessed::WitnessedBy;

#[cfg(test)]
mod tests;
