//! Why a proof file proves nothing: the part that does not hold, and whose move it is.

use bield_envelope::{StatementError, wire::WireError};

use crate::{MetadataError, OpenError, PathError, RecordError, Refused, SliceError};

/// Why a proof file proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Not the CBOR of a proof file.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The metadata is none, or of another capsule.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A part is no record, head or header.
    #[error("{what} of the proof: {why}")]
    Record {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        why: RecordError,
    },
    /// A config record does not hold.
    #[error("config record {number} of the proof is refused: {why}")]
    Config {
        /// Its place in the proof, from 0.
        number: usize,
        /// Why.
        why: Refused,
    },
    /// The writer's open record does not hold.
    #[error("the writer's open record is refused: {0}")]
    Opening(Refused),
    /// A part does not fit the others.
    #[error("the proof does not fit together: {0}; do not retry, ask for another proof")]
    Rule(&'static str),
    /// The head's signature is not the writer's.
    #[error("the head is not signed by its writer; do not retry")]
    Signature,
    /// The writer's right ends before the head.
    #[error(
        "the owner does not count the head: its writer is revoked or no longer certified; ask for a \
         proof from an earlier head"
    )]
    Revoked,
    /// The head or the record lies outside of the certificate's window.
    #[error(
        "a record's clock lies outside of the window of its writer's certificate; do not retry"
    )]
    Window,
    /// The path does not lead from the head to the record.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The slice is not one of this record's body.
    #[error(transparent)]
    Slice(#[from] SliceError),
    /// The secret is not the record's, or the entry is none.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An acknowledgement that says nothing about the head.
    #[error("acknowledgement {number} of the proof is refused: {why}")]
    Acknowledgement {
        /// Its place in the proof, from 0.
        number: usize,
        /// Why.
        why: AcknowledgementError,
    },
}

/// Why an acknowledgement in a proof counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgementError {
    /// Not signed by whom it names, or not an acknowledgement.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It is about another head.
    #[error("it is about another head")]
    OtherHead,
    /// The configuration does not have this replica.
    #[error("its signer is not a replica of the configuration")]
    NotReplica,
    /// The replica spoke already.
    #[error("its signer spoke already: replicas ascend, each once")]
    Repeated,
}
