//! The transparency log forms of C2SP: what replicas publish and witnesses cosign.
//!
//! ```text
//! entry ──▶ Tree ──▶ root ──▶ Checkpoint ──LogKey──▶ SignedCheckpoint ──▶ add-checkpoint
//!            │                                             ▲                   │
//!            ├──▶ tiles, entry bundles (static files)      │                   ▼
//!            └──▶ inclusion and consistency proofs         └── cosignature ── Witness
//!
//! reader:  SignedCheckpoint ──log's verifier──▶ VerifiedCheckpoint ──Quorum──▶ who saw it, when
//! ```
//!
//! | module | specification |
//! |---|---|
//! | [`tree`] | RFC 6962 §2.1, RFC 9162 §2.1 (SHA-256) |
//! | [`tile`] | c2sp.org/tlog-tiles |
//! | [`note`] | c2sp.org/signed-note@v1.0.0 |
//! | [`checkpoint`] | c2sp.org/tlog-checkpoint@v1.0.0 |
//! | [`cosignature`] | c2sp.org/tlog-cosignature@v1.0.1, Ed25519 form |
//! | [`witness`] | c2sp.org/tlog-witness@v1.0.0, `add-checkpoint` |
//! | [`quorum`] | who must have seen a checkpoint; ours |
//!
//! Always true: a parser accepts exactly one text per value and answers every other with an error,
//! never a panic; what a signature was checked on has another type than what it was not; a
//! signing key has no `Debug`, `Clone` or serialisation; a witness gives a cosignature away only
//! after it was told that its new memory is kept.
//!
//! Not here: files, sockets, clocks (`host/store` has them); what an entry means (the capsule's
//! business); the ML-DSA-44 cosignatures of tlog-cosignature v1.1.

pub mod checkpoint;
pub mod cosignature;
pub mod note;
pub mod quorum;
mod text;
pub mod tile;
pub mod tree;
pub mod witness;

pub use checkpoint::{
    Checkpoint, CheckpointError, Origin, SignedCheckpoint, TreeHead, VerifiedCheckpoint,
};
pub use note::{KeyName, LogKey, LogVerifier, Note, NoteError, WitnessKey, WitnessVerifier};
pub use quorum::{Quorum, QuorumError, Witnessed};
pub use tile::{TileKind, TilePath};
pub use tree::{
    Hash, ProofInvalid, Tree, TreeError, leaf_hash, verify_consistency, verify_inclusion,
};
pub use witness::{AddCheckpoint, Cosign, Refusal, Witness};
