//! What travels inside TLS: framed messages of the gate, then framed messages of the session.
//!
//! A frame is kind u8, length u32 big endian, payload. Gate payloads are strict CBOR (spec/03 §3);
//! data payloads belong to the caller. The kinds differ so that data can never pass for a proof, nor
//! a proof for data.

use bield_envelope::wire;
use bield_evidence::{Endorsements, Evidence};
use minicbor::{Decode, Encode};

use crate::{RefusalNotice, Role};

/// A message of the gate.
#[derive(Debug, Clone, Encode, Decode)]
pub enum GateMessage {
    /// Opens the exchange.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Proves the sender.
    #[n(1)]
    Bind(#[n(0)] Bind),
    /// The sender has verified its peer and is ready for messages.
    #[n(2)]
    Accept,
    /// The sender refuses and closes.
    #[n(3)]
    Refusal(#[n(0)] RefusalNotice),
}

impl GateMessage {
    /// The payload of a gate frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads the payload of a gate frame.
    ///
    /// # Errors
    /// Malformed, not canonical, of an unknown kind, or longer than [`GATE_MESSAGE_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, GATE_MESSAGE_BYTES_MAX)
    }

    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Bind(_) => "bind",
            Self::Accept => "accept",
            Self::Refusal(_) => "refusal",
        }
    }
}

/// Who is there and what proof it wants.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Drawn for this session.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// The sender's role.
    #[n(1)]
    pub role: Role,
    /// The proof the sender wants; `None` from an acceptor that serves this peer anonymously.
    #[n(2)]
    pub want: Option<Proof>,
}

/// How an end proves its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Proof {
    /// By the key that the certificate's evidence attests.
    #[n(0)]
    Cached,
    /// By a quote made for this session.
    #[n(1)]
    Fresh,
}

/// The proof: a signature over H in both modes, and in mode fresh a quote whose report data is H.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Bind {
    /// By the certificate's key over [`signed_bytes`](crate::signed_bytes), ASN.1.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// The fresh quote; `None` lets the certificate's quote speak.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub quote: Option<Vec<u8>>,
    /// The vendor's statements about the platform, for whichever quote speaks.
    #[n(2)]
    pub endorsements: Endorsements,
}

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A [`GateMessage`].
    Gate = 1,
    /// A message of the caller.
    Data = 2,
}

impl FrameKind {
    pub(crate) const fn bytes_max(self) -> usize {
        match self {
            Self::Gate => GATE_MESSAGE_BYTES_MAX,
            Self::Data => MESSAGE_BYTES_MAX,
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Gate),
            2 => Some(Self::Data),
            _ => None,
        }
    }
}

/// Bytes before a frame's payload: kind and length.
pub const FRAME_HEADER_BYTES: usize = 5;
/// Bytes of a gate message: quote and endorsements (evidence has at most 128 KiB) and a kilobyte
/// around them.
pub const GATE_MESSAGE_BYTES_MAX: usize = Evidence::BYTES_MAX + 1024;
/// Bytes of a session message: a batch of leases or a certificate is far below; models never travel
/// this way.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
