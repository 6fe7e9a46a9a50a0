//! The body of an `add-checkpoint` request (tlog-witness, "add-checkpoint").
//!
//! ```text
//! old 20852014
//! PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=        consistency proof, 0 to 63 lines
//! …
//!                                                     an empty line
//! example.com/behind-the-sofa                         the checkpoint, signed
//! …
//! ```
//!
//! Always true: a request prints as the bytes it was read from; it holds at most 63 hashes.

use core::fmt;

use crate::checkpoint::{CheckpointError, SignedCheckpoint, VerifiedCheckpoint};
use crate::note::NOTE_BYTES_MAX;
use crate::text::decimal;
use crate::tree::Hash;

/// Most lines of a proof (tlog-witness, "add-checkpoint"): trees of up to 2⁶² leaves need no more.
pub const CONSISTENCY_PROOF_LINES_MAX: usize = 63;

/// Bytes of the longest body: `old`, a number, 63 lines of 45 bytes and an empty one come to 2861;
/// then the note. A server reads no more than this.
pub const ADD_CHECKPOINT_BYTES_MAX: usize = 4096 + NOTE_BYTES_MAX;

/// A request to cosign, read and not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    old: u64,
    proof: Vec<Hash>,
    checkpoint: SignedCheckpoint,
}

impl AddCheckpoint {
    /// Asks to cosign a checkpoint, given that the witness last cosigned the tree of `old` leaves.
    ///
    /// # Errors
    /// [`RequestError::ProofTooLong`] with more than [`CONSISTENCY_PROOF_LINES_MAX`] hashes.
    pub fn new(
        old: u64,
        proof: Vec<Hash>,
        checkpoint: &VerifiedCheckpoint,
    ) -> Result<Self, RequestError> {
        if proof.len() > CONSISTENCY_PROOF_LINES_MAX {
            return Err(RequestError::ProofTooLong);
        }
        Ok(Self {
            old,
            proof,
            checkpoint: checkpoint.as_signed().clone(),
        })
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`RequestError`] naming the part that is wrong.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        if body.len() > ADD_CHECKPOINT_BYTES_MAX {
            return Err(RequestError::TooLong { bytes: body.len() });
        }
        let body = core::str::from_utf8(body).map_err(|_| RequestError::NoCheckpoint)?;
        let (head, note) = body.split_once("\n\n").ok_or(RequestError::NoCheckpoint)?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .and_then(decimal)
            .ok_or(RequestError::Old)?;
        let mut proof = Vec::new();
        for (index, line) in lines.enumerate() {
            if index == CONSISTENCY_PROOF_LINES_MAX {
                return Err(RequestError::ProofTooLong);
            }
            let hash = line.parse();
            proof.push(hash.map_err(|_| RequestError::Proof { line: index + 1 })?);
        }
        Ok(Self {
            old,
            proof,
            checkpoint: SignedCheckpoint::parse(note.as_bytes())?,
        })
    }

    /// The size the proof starts from.
    #[must_use]
    pub const fn old(&self) -> u64 {
        self.old
    }

    /// The hashes of the proof.
    #[must_use]
    pub fn proof(&self) -> &[Hash] {
        &self.proof
    }

    /// The checkpoint to cosign, its signatures unchecked.
    #[must_use]
    pub const fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }

    pub(super) fn into_parts(self) -> (u64, Vec<Hash>, SignedCheckpoint) {
        (self.old, self.proof, self.checkpoint)
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old)?;
        self.proof
            .iter()
            .try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Why a body is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Longer than any request may be.
    #[error("a body of {bytes} bytes; at most {ADD_CHECKPOINT_BYTES_MAX} are read")]
    TooLong {
        /// Bytes given.
        bytes: usize,
    },
    /// The first line is wrong.
    #[error("the first line is not `old` and a decimal size")]
    Old,
    /// A line of the proof is wrong.
    #[error("proof line {line} is not 32 bytes in base64")]
    Proof {
        /// Which line of the proof, from 1.
        line: usize,
    },
    /// More lines than any proof needs.
    #[error("a proof has at most {CONSISTENCY_PROOF_LINES_MAX} lines")]
    ProofTooLong,
    /// No empty line, and so no checkpoint after it.
    #[error("no checkpoint after an empty line")]
    NoCheckpoint,
    /// What follows the empty line is not a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The proof goes backwards.
    #[error("the old size {old} is above the checkpoint's {new}; a log only grows")]
    OldAboveNew {
        /// Size the proof starts from.
        old: u64,
        /// Size in the checkpoint.
        new: u64,
    },
}
