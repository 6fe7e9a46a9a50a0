//! What an enclave program says of itself to its host: nothing a host should not know.

use bield_envelope::wire;
use minicbor::{Decode, Encode};
use serde::Serialize;

/// Status of one enclave program.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Status {
    /// `bield-keys` or `bield-runtime`.
    #[n(0)]
    pub program: String,
    /// Its version.
    #[n(1)]
    pub version: String,
    /// Its measurement, as its own evidence states it.
    #[n(2)]
    pub measurement: String,
    /// Whether its TEE is a simulation without hardware protection.
    #[n(3)]
    pub simulated: bool,
    /// Hardening that is in force, in words.
    #[n(4)]
    pub hardening: Vec<String>,
    /// Hardening that could not be applied, in words.
    #[n(5)]
    pub missing: Vec<String>,
    /// Requests or sessions being served now.
    #[n(6)]
    pub in_flight: u64,
    /// Requests or sessions served since start.
    #[n(7)]
    pub served: u64,
    /// Requests or sessions refused since start.
    #[n(8)]
    pub refused: u64,
    /// Packages resident now.
    #[n(9)]
    pub resident: u64,
}

impl Status {
    /// Encodes the status.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Decodes a status.
    ///
    /// # Errors
    /// Malformed or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, STATUS_BYTES_MAX)
    }
}

/// The most bytes of a status.
pub const STATUS_BYTES_MAX: usize = 64 << 10;
