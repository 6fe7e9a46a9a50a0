//! What a data user asks and what it gets: the plaintext inside sealed requests and responses.
//!
//! ```text
//! reply          CBOR, its first byte is not 0
//! padded reply   0 ‖ u32 length ‖ CBOR ‖ zeros, up to one of a few sizes (spec/04 §8)
//! ```

use bield_envelope::{Signed, Wiped, wire};
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
    pub fn encode(&self) -> Wiped {
        wire::encode_wiped(self)
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

    /// Encodes the response's body so that its size tells [`padded_bytes`] and no more.
    ///
    /// # Panics
    /// When the reply is longer than 4 GiB; no answer is.
    #[must_use]
    pub fn encode_padded(&self) -> Vec<u8> {
        let reply = wire::encode_secret(self);
        let length = u32::try_from(reply.len()).expect("an answer is shorter");
        let size = padded_bytes(PAD_PREFIX_BYTES + reply.len());
        let mut bytes = Vec::with_capacity(size);
        bytes.push(PADDED);
        bytes.extend(length.to_be_bytes());
        bytes.extend_from_slice(&reply);
        bytes.resize(size, 0);
        bytes
    }

    /// Decodes a response's body, padded or not.
    ///
    /// # Errors
    /// Malformed or too long; padding of another size or with anything in it.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        match bytes.split_first() {
            Some((&PADDED, rest)) => wire::decode(unpadded(rest)?, BODY_BYTES_MAX),
            _ => wire::decode(bytes, BODY_BYTES_MAX),
        }
    }
}

/// The size that a padded reply of `bytes` has: a power of two from 8 KiB on, from 8 MiB on a multiple of that.
#[must_use]
pub const fn padded_bytes(bytes: usize) -> usize {
    if bytes <= PAD_BYTES_MIN {
        PAD_BYTES_MIN
    } else if bytes <= PAD_STEP_BYTES {
        bytes.next_power_of_two()
    } else {
        bytes.next_multiple_of(PAD_STEP_BYTES)
    }
}

/// The reply in what follows the first byte of a padded one.
fn unpadded(rest: &[u8]) -> Result<&[u8], wire::WireError> {
    let refuse = wire::WireError::Malformed {
        what: "padded reply",
    };
    let Some((length, rest)) = rest.split_first_chunk() else {
        return Err(refuse);
    };
    let length = u32::from_be_bytes(*length) as usize;
    let Some((reply, padding)) = rest.split_at_checked(length) else {
        return Err(refuse);
    };
    let is_whole = padded_bytes(PAD_PREFIX_BYTES + length) == PAD_PREFIX_BYTES + rest.len();
    let is_empty = padding.iter().all(|byte| *byte == 0);
    (is_whole && is_empty).then_some(reply).ok_or(refuse)
}

/// First byte of a padded reply; a CBOR reply begins with an array.
const PADDED: u8 = 0;
/// The first byte and the length.
const PAD_PREFIX_BYTES: usize = 1 + 4;
/// Every refusal and every answer of a few numbers fits.
const PAD_BYTES_MIN: usize = 8 << 10;
/// From here on, doubling would cost too much.
const PAD_STEP_BYTES: usize = 8 << 20;

const _: () = assert!(crate::refusal::REFUSAL_TEXT_BYTES_MAX + 1024 < PAD_BYTES_MIN);

/// The most bytes of a request's or response's plaintext.
pub const BODY_BYTES_MAX: usize = bield_envelope::SEALED_REQUEST_BYTES_MAX;

/// The most tensors, or names of them, in one request or answer, as in `bield_package::onnx`: real
/// models have up to about 100.
pub const TENSORS_MAX: usize = bield_package::onnx::SIGNATURE_TENSORS_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Retry;

    fn refused(length: usize) -> Reply {
        Reply::Refused(Refusal::new("test", "x".repeat(length), Retry::Never))
    }

    fn message(reply: &Reply) -> &str {
        match reply {
            Reply::Refused(refusal) => &refusal.message,
            Reply::Answered(_) => panic!("answered"),
        }
    }

    #[test]
    fn padded_replies_have_few_sizes_and_say_the_same() {
        for length in [0, 1, 1000, 4096] {
            let padded = refused(length).encode_padded();
            assert_eq!(padded.len(), PAD_BYTES_MIN);
            assert_eq!(message(&Reply::decode(&padded).unwrap()).len(), length);
            let plain = refused(length).encode();
            assert_ne!(plain[0], PADDED);
            assert_eq!(message(&Reply::decode(&plain).unwrap()).len(), length);
        }
    }

    #[test]
    fn sizes_double_up_to_8_mib_and_grow_by_8_mib_from_there() {
        let sizes = [
            (0, 8 << 10),
            (8 << 10, 8 << 10),
            ((8 << 10) + 1, 16 << 10),
            (5 << 20, 8 << 20),
            ((8 << 20) + 1, 16 << 20),
            ((64 << 20) + 1, 72 << 20),
        ];
        for (bytes, padded) in sizes {
            assert_eq!(padded_bytes(bytes), padded, "{bytes}");
        }
    }

    #[test]
    fn padding_with_anything_in_it_or_of_another_size_is_refused() {
        let good = refused(3).encode_padded();
        let mut filled = good.clone();
        *filled.last_mut().unwrap() = 1;
        let mut longer = good.clone();
        longer.push(0);
        let doubled = [good.clone(), vec![0; good.len()]].concat();
        let shorter = good[..good.len() - 1].to_vec();
        let mut overlong = good.clone();
        overlong[1] = 0xff;
        for bad in [
            filled,
            longer,
            doubled,
            shorter,
            overlong,
            vec![0],
            vec![0; 5],
        ] {
            assert!(Reply::decode(&bad).is_err());
        }
    }
}
