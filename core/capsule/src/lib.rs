//! DataCapsule: append-only, hash-chained, signed, encrypted records, verified before use.
//!
//! ```text
//!  entries ──▶ Batch ──▶ Writer ──▶ record ═══ host: stores, spreads, loses, lies ═══▶ bytes
//!                                                                                       │ decode
//!                                                                                   Received
//!   metadata ──▶ name                                                                   │ Verifier::verify
//!        │                                                                           Verified
//!      owner ──▶ config chain ──▶ Config: who may write, generations, revocations        │ Verifier::apply
//!                                                                                    Applied
//!                                                                                       │ open (key ring)
//!                                                                                    entries
//! ```
//!
//! In: bytes from a host that may read, drop, delay, replay, reorder, fork, roll back and lie; keys,
//! time and randomness as arguments. Out: verified records, and proofs that stand by themselves.
//!
//! Always true: a record names its predecessor by hash, and its signature covers everything in it;
//! two signed heads with one position and different hashes are an exportable proof of a fork;
//! nothing is opened or applied before it is verified; nothing here reads a clock, a file or a
//! socket. Written for second implementations in `spec/06-capsule.md`.
//!
//! Not here: replicas and their disks (`host/store`), their transparency logs (`core/tlog`), the
//! meaning of entries (`core/table`).

mod key;
mod metadata;
mod name;
mod record;
pub mod segment;
mod suite;

pub use key::{PublicKey, WriterKey};
pub use metadata::{LABEL_BYTES_MAX, METADATA_BYTES_MAX, Metadata, MetadataError};
pub use name::{CapsuleName, Clock, Head, WriterId};
pub use record::{
    BODY_BYTES_MAX, ENTRIES_MAX, HEADER_BYTES, HEADER_BYTES_MAX, Header, Kind, PARENTS_MAX,
    RECORD_BYTES_MAX, Received, RecordError, SignedHead, skips_at,
};
pub use suite::{PIECE_BYTES, Suite};
