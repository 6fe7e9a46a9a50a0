//! What a runtime answers to a call visit.
//!
//! ```text
//! kind (1) ‖ u32 feedback length ‖ feedback (CBOR) ‖ body
//! ```
//!
//! Kind 0: the body is a sealed response. Kind 1: the request could not be opened, so nobody can be
//! answered under seal; the body is a short public [`Unsealed`] refusal that says nothing of contents. Kind 2: the body is
//! the first of a sealed response that comes while it is made; what comes after is the rest of it, bytes for bytes. The
//! feedback then says what was known at that moment.

use std::borrow::Cow;

use bield_envelope::wire;
use minicbor::{Decode, Encode};

use crate::feedback::Feedback;

/// One answer to a call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// Sealed for the sender of the request, an answer or a refusal. Neither is marked, and only what `dedicated` users
    /// get is padded: otherwise the size, and always the feedback's phase times, can tell the host which it is.
    Sealed(Feedback, Vec<u8>),
    /// No sealed answer is possible.
    Unsealed(Feedback, Unsealed),
    /// Sealed for the sender, of which this is the first; that it comes in parts the host can see.
    Streamed(Feedback, Vec<u8>),
}

/// Why no sealed answer is possible. Everything here is public.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Unsealed {
    /// Stable short name: `malformed`, `not-opened`, `no-lease`, `key-service-unreachable`, `busy`.
    #[n(0)]
    pub code: String,
    /// One sentence for the caller.
    #[n(1)]
    pub message: String,
    /// Milliseconds after which the same request may succeed; `None` when it will not.
    #[n(2)]
    pub retry_after_ms: Option<u64>,
}

impl Reply {
    /// Encodes the answer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, feedback, body) = match self {
            Self::Sealed(feedback, body) => (0, feedback, Cow::Borrowed(&body[..])),
            Self::Unsealed(feedback, unsealed) => (1, feedback, wire::encode(unsealed).into()),
            Self::Streamed(feedback, body) => (2, feedback, Cow::Borrowed(&body[..])),
        };
        let feedback = wire::encode(feedback);
        let length = u32::try_from(feedback.len()).expect("feedback is short");
        let mut bytes = Vec::with_capacity(5 + feedback.len() + body.len());
        bytes.push(kind);
        bytes.extend(length.to_be_bytes());
        bytes.extend(feedback);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Decodes an answer. The host uses this on bytes of its own enclave program.
    ///
    /// # Errors
    /// Malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        let refuse = || wire::WireError::Malformed { what: "call reply" };
        let (kind, rest) = bytes.split_first().ok_or_else(refuse)?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(refuse)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (feedback, body) = rest.split_at_checked(length).ok_or_else(refuse)?;
        let feedback = wire::decode(feedback, FEEDBACK_BYTES_MAX)?;
        match kind {
            0 => Ok(Self::Sealed(feedback, body.to_vec())),
            1 => Ok(Self::Unsealed(
                feedback,
                wire::decode(body, UNSEALED_BYTES_MAX)?,
            )),
            2 => Ok(Self::Streamed(feedback, body.to_vec())),
            _ => Err(refuse()),
        }
    }
}

/// Bytes of an answer in parts that may be on their way from a runtime without having been taken by who asked, before the
/// runtime waits. The largest sealed chunk comes on top, so that a runtime need not cut it.
pub const ANSWER_AHEAD_BYTES_MAX: usize = 1 << 20;
const FEEDBACK_BYTES_MAX: usize = 64 << 10;
const UNSEALED_BYTES_MAX: usize = 4 << 10;
