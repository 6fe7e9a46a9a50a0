//! Capsule replicas: store records they cannot read, verify before acknowledging.
//!
//! ```text
//! writers, readers ──HTTP──▶ http ──▶ Store ──▶ shard threads ──▶ Replica ──▶ Journal ──▶ disk, objects
//! other replicas ◀──HTTP─── peers ──────┘                            │
//! witnesses      ◀──HTTP─── witnesses ◀── checkpoints ───────────────┘
//! ```
//!
//! In: metadata, records, fork proofs from anyone. Out: the same, and signed acknowledgements, heads
//! and checkpoints.
//!
//! Always true: what is stored was verified in full; what is acknowledged is held as safely as the
//! acknowledgement says; no other replica is trusted with anything; queues, bodies, pages and
//! subscriptions are bounded, and beyond a bound the caller hears when to come back.
//!
//! Two programs: `bield-store`, a replica server, and `bield-witness`, which cosigns the checkpoints
//! of replicas' logs ([`witness`]). Features: `s3` (journals in S3), `faulty` (a disk that fails on
//! demand, for tests).
//!
//! Not here: who may read (records are sealed), what entries mean (`core/table`), TLS.

pub mod admission;
mod arguments;
mod connections;
pub mod disk;
pub mod frames;
pub mod fsck;
mod http;
pub mod identity;
pub mod journal;
pub mod metrics;
pub mod peers;
mod refusal;
pub mod replica;
mod server;
mod shard;
pub mod storage;
mod store;
pub mod system;
pub mod witness;
pub mod witnesses;

pub use arguments::{Arguments, Command, FsckArguments, ServeArguments};
pub use http::APPEND_BYTES_MAX;
pub use refusal::Refusal;
pub use server::{Server, ServerError, ServerSettings, run};
pub use shard::Appended;
pub use store::{Settings, Store};
