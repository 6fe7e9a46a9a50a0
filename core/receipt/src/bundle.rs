//! The bundle: a receipt with what is needed to check it, in one file.

use bield_envelope::{Signed, wire};
use bield_evidence::Evidence;
use minicbor::{Decode, Encode};

use crate::{Receipt, STATE_HEADS_BYTES_MAX, StateHeads, WorkerCertificate};

/// Longest evidence of the key service in bytes: what `bield-evidence` accepts.
pub const SERVICE_EVIDENCE_BYTES_MAX: usize = Evidence::BYTES_MAX;

/// Longest encoded bundle in bytes: the evidence, heads of 8192 writers, and 2 KiB for the two signed statements
/// (about 800 bytes) and framing.
pub const BUNDLE_BYTES_MAX: usize = SERVICE_EVIDENCE_BYTES_MAX + STATE_HEADS_BYTES_MAX + 2 * 1024;

/// A receipt and what leads from it to the key service (`spec/08 §5`). Nothing in it is verified.
#[derive(Clone, Debug, Encode, Decode)]
#[cbor(map)]
pub struct ReceiptBundle {
    /// Signed by the runtime.
    #[n(0)]
    pub receipt: Signed<Receipt>,
    /// Signed by the key service.
    #[n(1)]
    pub certificate: Signed<WorkerCertificate>,
    /// The key service's own evidence, for readers who have no other way to it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub service_evidence: Option<Vec<u8>>,
    /// The heads that the receipt's state after the answer is the digest of, to be looked up in a log.
    #[n(3)]
    pub state: Option<StateHeads>,
}

impl ReceiptBundle {
    /// Puts together what came with an answer.
    pub const fn new(
        receipt: Signed<Receipt>,
        certificate: Signed<WorkerCertificate>,
        state: Option<StateHeads>,
    ) -> Self {
        Self {
            receipt,
            certificate,
            service_evidence: None,
            state,
        }
    }

    /// Encodes the bundle; the bytes are what `bield call --receipt` writes.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Decodes a bundle of at most [`BUNDLE_BYTES_MAX`] bytes; says nothing about signatures.
    ///
    /// # Errors
    /// Too long, malformed, or not the one accepted encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, BUNDLE_BYTES_MAX)
    }
}
