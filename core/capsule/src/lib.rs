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

mod acknowledgement;
mod batch;
mod body;
mod certificate;
mod config;
mod durability;
mod export;
mod fork;
mod freshness;
mod heads;
mod key;
mod keyring;
pub mod ledger_file;
mod metadata;
mod name;
mod past;
mod path;
mod proof;
mod queue;
mod record;
pub mod segment;
mod skip;
mod slice;
mod suite;
mod verifier;
mod writer;

pub use acknowledgement::{Acknowledgement, Kept};
pub use batch::{Batch, BatchFull, PAYLOAD_BYTES_MAX};
pub use body::{Entries, Entry, Erasable, OpenError, RecordSecret, record_secret};
pub use certificate::{
    CODE_BYTES_MAX, CertificateError, OPENING_BYTES_MAX, Opening, OpeningError, WriterCertificate,
};
pub use config::{
    ADMITTED_MAX, CERTIFIERS_MAX, CHANGES_BYTES_MAX, CHANGES_MAX, CODES_MAX,
    CONFIG_GENERATIONS_MAX, CONFIG_RECORDS_MAX, Change, Config, ConfigError, FORMER_CERTIFIERS_MAX,
    KEEP_MAX, KEPT_WRITERS_MAX, Last, Quorum, REPLICAS_MAX, REVOKED_MAX, TEXT_BYTES_MAX, Through,
    WITNESSES_MAX, decode_changes, encode_changes,
};
pub use durability::{Durability, NotCounted, ParseDurabilityError, Reached, judge};
pub use export::{
    Export, ExportError, ExportReader, Exported, Piece, export_header, export_past, export_record,
};
pub use fork::{FORK_PROOF_BYTES_MAX, Fork, ForkError, ForkProof};
pub use freshness::{
    AT_GRACE, Fetched, Freshness, NotFresh, NotResumed, Question, Remembered, Uncounted, fresh,
    resume_head,
};
pub use heads::{ConfigHead, HEADS_MAX, HeadsStatement, Nonce};
pub use key::{PublicKey, WriterKey};
pub use keyring::{
    ENTRY_KEYS_MAX, EntryPlace, GENERATIONS_MAX, GenerationKey, KEYRING_BYTES_MAX, KeyRing,
    KeyRingError,
};
pub use metadata::{LABEL_BYTES_MAX, METADATA_BYTES_MAX, Metadata, MetadataError};
pub use name::{CapsuleName, Clock, Head, WriterId};
pub use past::{PAST_BYTES_MAX, Past, SegmentStart};
pub use path::{Headers, PATH_HEADERS_MAX, PathError, path, verify_consistency, verify_path};
pub use proof::{
    Acknowledged, AcknowledgementError, Authority, NotChecked, PROOF_BYTES_MAX, Proof, ProofError,
    Proven, ProvenEntry,
};
pub use queue::{LEVELS, Queue, QueueError, QueueGuard, QueueLimits, Ticket, Tickets};
pub use record::{
    BODY_BYTES_MAX, ENTRIES_MAX, HEADER_BYTES, HEADER_BYTES_MAX, Header, Kind, PARENTS_MAX,
    RECORD_BYTES_MAX, Received, RecordError, SignedHead, skips_at,
};
pub use skip::SkipLevels;
pub use slice::{SliceError, open_slice, slice};
pub use suite::{PIECE_BYTES, Suite};
pub use verifier::{
    ARRIVAL_GRACE, Applied, CLOCK_AHEAD_MAX, Chain, Context, Contradiction, FORKS_MAX, Gap,
    History, NoHistory, Refused, Verified, Verifier, VerifierPolicy, WRITERS_MAX,
};
pub use writer::{WriteError, Writer};
