//! The head of the key service's log, as its callers keep it.

use bield_envelope::{Principal, Time, wire};
use minicbor::{Decode, Encode};

/// The newest checkpoint, and what connects it with the one the caller kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Freshness {
    /// C2SP signed note: origin, size, root; signed by the log's key, with witnesses' cosignatures if any.
    #[n(0)]
    pub checkpoint: String,
    /// RFC 6962 consistency proof from the size the caller kept; empty when it kept none or the same. When
    /// the caller's checkpoint is of an earlier log, it leads to the size at which that log was recovered.
    #[cbor(n(1), decode_with = "wire::at_most::<PROOF_HASHES_MAX, _, _>")]
    pub consistency: Vec<minicbor::bytes::ByteArray<32>>,
    /// Verifier key of the log: `<origin>+<hash>+<key>`. The attested session vouches for it; a caller that
    /// kept a checkpoint of the same origin compares.
    #[n(2)]
    pub log: String,
    /// Recoveries from the log the caller knows to the present one, oldest first.
    #[cbor(n(3), decode_with = "wire::at_most::<RECOVERIES_MAX, _, _>")]
    pub recovered: Vec<Recovered>,
}

/// Holders of shares began a new log from an old one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recovered {
    /// Origin of the log before.
    #[n(0)]
    pub origin: String,
    /// How many records of it were found; what came after them is void.
    #[n(1)]
    pub size: u64,
    /// Root of its tree at that size.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub root: [u8; 32],
    /// Who gave shares.
    #[cbor(
        n(3),
        decode_with = "wire::at_most::<{ crate::service::HOLDERS_MAX }, _, _>"
    )]
    pub holders: Vec<Principal>,
    /// When, by the service's clock.
    #[n(4)]
    pub at: Time,
    /// Origin of the log that goes on.
    #[n(5)]
    pub next: String,
}

/// The most hashes of a consistency proof.
pub const PROOF_HASHES_MAX: usize = 128;
/// The most recoveries told at once.
pub const RECOVERIES_MAX: usize = 64;
