//! What a data user asks and what it gets: the plaintext inside sealed requests and responses.

use bield_envelope::{Signed, wire};
use bield_package::tensor::Tensor;
use bield_receipt::{Receipt, WorkerCertificate};
use minicbor::{Decode, Encode};

use crate::refusal::Refusal;

/// Named input tensors and the outputs wanted.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    /// The model's inputs, in any order.
    #[cbor(n(0), decode_with = "wire::at_most::<TENSORS_MAX, _, _>")]
    pub inputs: Vec<Tensor>,
    /// Names of the outputs wanted; empty for all.
    #[cbor(n(1), decode_with = "wire::at_most::<TENSORS_MAX, _, _>")]
    pub outputs: Vec<String>,
}

impl Request {
    /// Encodes the request's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Decodes a request's body.
    ///
    /// # Errors
    /// Malformed or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, BODY_BYTES_MAX)
    }
}

/// The outputs of one run; what an output commitment in a receipt is made over, encoded.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Output {
    /// The model's outputs, in the order asked for.
    #[cbor(n(0), decode_with = "wire::at_most::<TENSORS_MAX, _, _>")]
    pub tensors: Vec<Tensor>,
}

impl Output {
    /// The bytes an output commitment covers.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }
}

/// An answer with the receipt for it.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Answer {
    /// [`Output`], encoded: exactly the bytes the receipt commits to.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub output: Vec<u8>,
    /// Random salt of the commitment, so that a published receipt does not let anyone test guesses
    /// of the output.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub salt: [u8; 32],
    /// Signed by the runtime.
    #[n(2)]
    pub receipt: Signed<Receipt>,
    /// Signed by the key service: whose key the runtime's is.
    #[n(3)]
    pub certificate: Signed<WorkerCertificate>,
}

impl Answer {
    /// Decodes the outputs.
    ///
    /// # Errors
    /// Malformed or too long.
    pub fn output(&self) -> Result<Output, wire::WireError> {
        wire::decode(&self.output, BODY_BYTES_MAX)
    }
}

/// What a sealed response holds.
#[derive(Debug, Clone, Encode, Decode)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to the wire"
)]
pub enum Reply {
    /// The run succeeded.
    #[n(0)]
    Answered(#[n(0)] Answer),
    /// The runtime says no.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

impl Reply {
    /// Encodes the response's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Decodes a response's body.
    ///
    /// # Errors
    /// Malformed or too long.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, BODY_BYTES_MAX)
    }
}

/// The most bytes of a request's or response's plaintext.
pub const BODY_BYTES_MAX: usize = bield_envelope::SEALED_REQUEST_BYTES_MAX;

/// The most tensors, or names of them, in one request or answer, as in `bield_package::onnx`: real
/// models have up to about 100.
pub const TENSORS_MAX: usize = bield_package::onnx::SIGNATURE_TENSORS_MAX;
