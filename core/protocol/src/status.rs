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
    /// What it is doing, in one word: see [`STATES`]. Empty when it has nothing to say.
    #[n(10)]
    pub state: String,
    /// Its counts since start, or now, each under a name of its choice: `[a-z0-9_]`, at most
    /// [`METRIC_NAME_BYTES_MAX`]. They name and count no principal, model, package or key.
    #[n(11)]
    pub metrics: Vec<Metric>,
}

/// One number that a program tells of itself.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Metric {
    /// What is counted, with its unit last; what only grows ends in `_total`.
    #[n(0)]
    pub name: String,
    /// How many.
    #[n(1)]
    pub value: u64,
}

impl Metric {
    /// Whether the name is one that a host shows: `[a-z0-9_]`, a letter first, not too long.
    #[must_use]
    pub fn is_well_named(&self) -> bool {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        self.name.len() <= METRIC_NAME_BYTES_MAX
            && self
                .name
                .starts_with(|first: char| first.is_ascii_lowercase())
            && self.name.bytes().all(allowed)
    }
}

/// The words of [`Status::state`]. A host takes any other word for none.
pub const STATES: [&str; 5] = ["serving", "following", "forming", "recovering", "stopped"];
/// The most bytes of a metric's name.
pub const METRIC_NAME_BYTES_MAX: usize = 64;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_are_shown() {
        let named = |name: &str| Metric {
            name: name.to_owned(),
            value: 1,
        };
        assert!(named("leases_total").is_well_named());
        let long = "a".repeat(METRIC_NAME_BYTES_MAX + 1);
        for bad in ["", "_x", "1x", "Leases", "a b", "a{b=\"c\"}", "a\nb", &long] {
            assert!(!named(bad).is_well_named(), "{bad:?}");
        }
    }
}
