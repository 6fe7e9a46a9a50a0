//! Which key service this is, and how far its log had come.
//!
//! ```text
//! Freshness (checkpoint, log, proof, recoveries) ──▶ checked against what is known ──▶ Known, newer or the same
//!                                                          └ NotFresh: set back, forked, another one
//! ```
//!
//! Always true: a [`Known`] only goes forward; each step is proved (RFC 9162, 2.1.4) under the log's key that an
//! attested session named first. Who has that key is the same service, though it may change the name that it
//! signs certificates with; another log counts only if its attested service says that it was recovered from the
//! one that is known, at a size not below what is known. Nothing is taken over from an answer that is refused.
//!
//! Not here: who witnessed a checkpoint (the key service itself cannot go on without its witnesses), and anything
//! that outlives the process: a runtime that starts anew believes the first service that its configuration
//! accepts. On paper: one Ed25519 verification and some thirty hashes.

use bield_protocol::service::{CHECKPOINT_BYTES_MAX, Freshness, Recovered};
use bield_tlog::{Hash, LogVerifier, Origin, SignedCheckpoint, TreeHead, verify_consistency};

/// A key service that proved itself, and the newest head of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    log: LogVerifier,
    head: TreeHead,
    note: String,
}

/// Why a key service gets no question. Says nothing of who or what: these sentences leave the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFresh {
    #[error("its checkpoint is malformed")]
    Malformed,
    #[error("its checkpoint is not signed by its log's key")]
    Unsigned,
    #[error("it is another key service than the one that this runtime began with")]
    OtherService,
    #[error("its log is {0} records behind what this runtime has seen: its state was set back")]
    SetBack(u64),
    #[error("its state was set back behind what this runtime has seen, as it says itself")]
    SetBackByItsWord,
    #[error("its log does not continue what this runtime has seen: its state was forked")]
    Forked,
}

impl Known {
    /// Gets to know the first key service.
    ///
    /// # Errors
    /// [`NotFresh::Malformed`] or [`NotFresh::Unsigned`].
    pub(crate) fn first(answer: &Freshness) -> Result<Self, NotFresh> {
        let log = log_of(answer)?;
        Self::read(log, &answer.checkpoint)
    }

    /// Follows the key service to the head that it answers with.
    ///
    /// # Errors
    /// See [`NotFresh`]; then this stays what is known.
    pub(crate) fn follow(&self, answer: &Freshness) -> Result<Self, NotFresh> {
        let log = log_of(answer)?;
        let next = Self::read(log, &answer.checkpoint)?;
        let proof: Vec<Hash> = answer
            .consistency
            .iter()
            .map(|hash| Hash::from_bytes(**hash))
            .collect();
        if next.log == self.log {
            self.precedes(next.head, &proof)?;
            return Ok(next);
        }
        let left = recovered_from(
            &answer.recovered,
            self.log.name().as_str(),
            next.log.name().as_str(),
        );
        self.precedes(left.ok_or(NotFresh::OtherService)?, &proof)?;
        Ok(next)
    }

    /// The checkpoint, as its service signed it.
    pub(crate) fn note(&self) -> &str {
        &self.note
    }

    fn read(log: LogVerifier, note: &str) -> Result<Self, NotFresh> {
        if note.len() > CHECKPOINT_BYTES_MAX {
            return Err(NotFresh::Malformed);
        }
        let signed = SignedCheckpoint::parse(note.as_bytes()).map_err(|_| NotFresh::Malformed)?;
        let origin = Origin::from(log.name());
        let verified = signed
            .verify(&origin, std::slice::from_ref(&log))
            .map_err(|_| NotFresh::Unsigned)?;
        Ok(Self {
            head: verified.checkpoint().head(),
            log,
            note: note.to_owned(),
        })
    }

    fn precedes(&self, later: TreeHead, proof: &[Hash]) -> Result<(), NotFresh> {
        let known = self.head;
        if later.size < known.size {
            return Err(NotFresh::SetBack(known.size - later.size));
        }
        verify_consistency(known.size, &known.root, later.size, &later.root, proof)
            .map_err(|_| NotFresh::Forked)
    }
}

fn log_of(answer: &Freshness) -> Result<LogVerifier, NotFresh> {
    answer.log.parse().map_err(|_| NotFresh::Malformed)
}

/// Where the log `known` was left, if `recovered` leads from it to the log `next`.
fn recovered_from(recovered: &[Recovered], known: &str, next: &str) -> Option<TreeHead> {
    let joined = recovered
        .windows(2)
        .all(|pair| pair[0].next == pair[1].origin);
    let (first, last) = (recovered.first()?, recovered.last()?);
    (joined && first.origin == known && last.next == next).then(|| TreeHead {
        size: first.size,
        root: Hash::from_bytes(first.root),
    })
}

#[cfg(test)]
pub(super) mod tests;
