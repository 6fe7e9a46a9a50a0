//! The evidence envelope: everything a verifier needs, in one strict CBOR map.
//!
//! ```text
//! { 1: kind, 2: quote, 3: claims buffer, 4: endorsements }      at most 128 KiB
//!                 └ report data = SHA-256(claims buffer) ‖ 32 zero bytes
//! ```
//!
//! Always true: one byte string per value (spec/01 §1); lengths are bounded before anything is parsed.
//! Not here: whether any of it is genuine ([`crate::verify`]) or welcome ([`crate::appraise`]).
//! Real evidence is 5 to 30 KB; decoding copies it once.

use bield_envelope::wire::{self, WireError};
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::measurement::TeeKind;

/// Unverified evidence of one kind of TEE.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Evidence {
    /// The hardware family whose format `quote` has.
    #[n(1)]
    pub kind: TeeKind,
    /// DCAP quote or SNP attestation report: exactly its bytes, no padding.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub quote: Vec<u8>,
    /// What the report data commits to (CCC interoperable RA-TLS claims buffer); empty when the
    /// caller compares the report data itself.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub claims_buffer: Vec<u8>,
    /// The vendor's statements about the platform, needed to verify offline.
    #[n(4)]
    pub endorsements: Endorsements,
}

/// Vendor-signed material that travels with a quote.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Endorsements {
    /// Nothing: the evidence parses but cannot be verified.
    #[n(0)]
    None,
    /// Intel DCAP collateral: `dcap-qvl`'s `QuoteCollateralV3` in canonical JSON (spec/02 §3.2).
    #[n(1)]
    Dcap(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// AMD certificates, DER.
    #[n(2)]
    Snp {
        /// ASK, or ASVK for a VLEK.
        #[cbor(n(0), with = "minicbor::bytes")]
        ask: Vec<u8>,
        /// VCEK or VLEK: the key that signed the report.
        #[cbor(n(1), with = "minicbor::bytes")]
        vek: Vec<u8>,
    },
}

impl Evidence {
    /// Largest encoded evidence, in bytes: the largest collateral seen (Platform CA revocation list
    /// included) is under 100 KiB.
    pub const BYTES_MAX: usize = 128 * 1024;

    /// Decodes evidence; accepts exactly one encoding.
    ///
    /// # Errors
    /// Too long, malformed, not canonical, or of an unknown kind.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        wire::decode(bytes, Self::BYTES_MAX)
    }

    /// Encodes evidence.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }
}

/// The 64 bytes a TEE is asked to sign for a claims buffer: SHA-256 ‖ zeros.
///
/// Source: CCC interoperable RA-TLS, "report data".
#[must_use]
pub fn claims_report_data(claims_buffer: &[u8]) -> [u8; 64] {
    let mut report_data = [0; 64];
    report_data[..32].copy_from_slice(&Sha256::digest(claims_buffer));
    report_data
}
