//! The messages between a program and the software TEE: u32 big-endian length ‖ CBOR.
//!
//! A connection starts with one [`Question::Hello`]; then any number of questions follow, each
//! answered in order. Anything else is answered by a [`Refusal`] and the connection closes.

use bield_envelope::{Digest, Secret};
use bield_evidence::{Evidence, Measurement};
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

/// What a program asks.
#[derive(Encode, Decode)]
#[non_exhaustive]
pub enum Question {
    /// Opens the connection.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// Asks for evidence over 64 bytes of report data.
    #[n(1)]
    Quote(#[n(0)] ByteArray<64>),
    /// Asks for the seal key of this measurement and the given context.
    #[n(2)]
    SealKey(#[n(0)] String),
}

/// How a program introduces itself.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Digest of the configuration the program runs with; part of its measurement.
    #[n(0)]
    pub configuration: Digest,
    /// Ticket of an earlier connection of the same process.
    #[n(1)]
    pub ticket: Option<Ticket>,
}

/// Proves to the software TEE that it measured this process before.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ticket {
    /// Digest of the program as measured then.
    #[n(0)]
    pub program: Digest,
    /// Authenticates the program digest together with the process; made and checked by the TEE.
    #[n(1)]
    pub proof: ByteArray<32>,
}

/// What the software TEE answers.
#[derive(Encode, Decode)]
#[non_exhaustive]
pub enum Answer {
    /// To `Hello`.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// To `Quote`: evidence with its collateral and an empty claims buffer.
    #[n(1)]
    Quoted(#[n(0)] Evidence),
    /// To `SealKey`.
    #[n(2)]
    Key(#[cbor(n(0), with = "bield_envelope::transport")] Secret),
    /// To anything that is not served.
    #[n(3)]
    Refused(#[n(0)] Refusal),
}

/// What the software TEE found a program to be.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Welcome {
    /// Measurement of program and configuration.
    #[n(0)]
    pub measurement: Measurement,
    /// To present when connecting again.
    #[n(1)]
    pub ticket: Ticket,
}

/// Why the software TEE does not serve a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are not a question of this protocol.
    #[n(0)]
    #[error("it does not understand the question; use programs of one version")]
    Malformed,
    /// `Hello` must come first, and once.
    #[n(1)]
    #[error("a connection starts with one hello")]
    OutOfOrder,
    /// The program's file could not be read through `/proc`.
    #[n(2)]
    #[error(
        "it cannot measure this process; connect before hardening, as the same user, in the same \
         process namespace"
    )]
    NotMeasurable,
    /// The ticket is of another process or another machine.
    #[n(3)]
    #[error("the ticket is not this process's; restart the program")]
    ForeignTicket,
    /// All connections are taken.
    #[n(4)]
    #[error("it serves as many programs as it can; retry later")]
    Busy,
    /// The context of a seal key is too long.
    #[n(5)]
    #[error("the seal key context is too long")]
    ContextTooLong,
    /// The software TEE could not produce the answer.
    #[n(6)]
    #[error("it failed to answer; its own output says why")]
    Failed,
}

/// Bytes of a question: the longest is a seal key context.
pub const QUESTION_BYTES_MAX: usize = 1024;

/// Bytes of an answer: evidence is at most 128 KiB, the rest is small.
pub const ANSWER_BYTES_MAX: usize = 129 * 1024;

/// Bytes of a seal key context: a label, not data.
pub const CONTEXT_BYTES_MAX: usize = 256;
