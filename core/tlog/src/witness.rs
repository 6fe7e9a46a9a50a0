//! A witness's decision: may this checkpoint be cosigned? (c2sp.org/tlog-witness@v1.0.0, and where
//! that says 409 to another root at an equal size the text of July 2026, which says 422: a 409 always
//! carries a size to prove from, and there is none that would help)
//!
//! ```text
//!              body, now                                refused: 400 403 404 409 422 500
//! add-checkpoint ──▶ Witness::decide ──┬───────────────────────────────────▶ Refusal
//!                    memory: origin →  │
//!                    keys, size, root  └─▶ Cosign ── keep head() or note() on disk ──▶
//!                          ▲                  │
//!                          └── .persisted() ◀─┘──▶ signature line, status 200
//! ```
//!
//! Always true: for each log, every cosigned tree begins with all trees cosigned before it; a
//! cosignature leaves only through [`Cosign::persisted`], and while a [`Cosign`] lives the witness
//! is borrowed, so that no second decision can come between check and memory (the race of
//! "add-checkpoint"); dropping one changes nothing.
//!
//! Left to others: HTTP and disk (`bield-witness` in `host/store`). A witness whose disk is set
//! back can be made to cosign a fork: readers ask for more than one witness.
//!
//! Cost: one Ed25519 verification and one signature, at most two hashes per proof line (63 lines):
//! 0.1 ms for a log of a million entries. A log is remembered in about 200 bytes.

use std::collections::BTreeMap;

use bield_envelope::Time;

use crate::checkpoint::{CheckpointError, Origin, TreeHead, VerifiedCheckpoint};
use crate::note::{LogVerifier, NoteError, SignatureLine, WitnessKey, WitnessVerifier};
use crate::tree::{Hash, verify_consistency};

mod request;

pub use request::{
    ADD_CHECKPOINT_BYTES_MAX, AddCheckpoint, CONSISTENCY_PROOF_LINES_MAX, RequestError,
};

/// Most logs one witness follows: about 13 MB of memory.
pub const LOGS_MAX: usize = 65_536;

/// Media type of a size in a conflict's answer (tlog-witness, "add-checkpoint").
pub const SIZE_MEDIA_TYPE: &str = "text/x.tlog.size";

/// A cosigner with its memory of each log it follows.
///
/// ```
/// use bield_envelope::{Secret, Time};
/// use bield_tlog::{AddCheckpoint, Checkpoint, LogKey, Tree, Witness, WitnessKey};
///
/// let log = LogKey::new("example.com/log".parse()?, &Secret::from_bytes([1; 32]));
/// let key = WitnessKey::new("example.net/w".parse()?, &Secret::from_bytes([2; 32]));
/// let mut witness = Witness::new(key);
/// witness.follow(log.verifier().name().into(), vec![log.verifier().clone()], None)?;
///
/// let mut tree = Tree::new();
/// tree.append(b"entry");
/// let checkpoint = Checkpoint::new(log.verifier().name().into(), 1, tree.root()).sign(&log);
/// let body = AddCheckpoint::new(0, tree.consistency_proof(0, 1)?, &checkpoint)?.to_string();
///
/// let cosign = witness.decide(body.as_bytes(), Time::from_secs(1_800_000_000))?;
/// // … cosign.note() is written to disk and synced here …
/// assert!(cosign.persisted().to_string().starts_with("— example.net/w "));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Witness {
    key: WitnessKey,
    logs: BTreeMap<Origin, Log>,
}

struct Log {
    keys: Vec<LogVerifier>,
    latest: Option<TreeHead>,
}

impl Witness {
    /// Makes a witness that follows no log yet.
    #[must_use]
    pub const fn new(key: WitnessKey) -> Self {
        Self {
            key,
            logs: BTreeMap::new(),
        }
    }

    /// What readers check this witness's cosignatures with.
    #[must_use]
    pub const fn verifier(&self) -> &WitnessVerifier {
        self.key.verifier()
    }

    /// Follows a log from now on: its trusted keys, and what was kept of it, if anything.
    ///
    /// # Errors
    /// [`FollowError`] when it is followed already, since its memory must not be replaced, when
    /// there is no key, or when [`LOGS_MAX`] logs are followed.
    pub fn follow(
        &mut self,
        origin: Origin,
        keys: Vec<LogVerifier>,
        latest: Option<TreeHead>,
    ) -> Result<(), FollowError> {
        if keys.is_empty() {
            return Err(FollowError::NoKey { origin });
        }
        if self.logs.contains_key(&origin) {
            return Err(FollowError::Followed { origin });
        }
        if self.logs.len() >= LOGS_MAX {
            return Err(FollowError::Full);
        }
        self.logs.insert(origin, Log { keys, latest });
        Ok(())
    }

    /// Whether a log is followed.
    #[must_use]
    pub fn follows(&self, origin: &Origin) -> bool {
        self.logs.contains_key(origin)
    }

    /// The latest tree cosigned for a log; `None` when it is not followed or none was cosigned.
    #[must_use]
    pub fn latest(&self, origin: &Origin) -> Option<TreeHead> {
        self.logs.get(origin)?.latest
    }

    /// Decides on the body of an `add-checkpoint` request.
    ///
    /// The checks come in the order of the specification, so the first one that fails gives the
    /// answer.
    ///
    /// # Errors
    /// [`Refusal`], with its HTTP status and body; the memory is unchanged.
    pub fn decide(&mut self, body: &[u8], now: Time) -> Result<Cosign<'_>, Refusal> {
        let (old, proof, signed) = AddCheckpoint::parse(body)?.into_parts();
        let origin = signed.claimed().origin().clone();
        let Some(log) = self.logs.get_mut(&origin) else {
            return Err(Refusal::UnknownOrigin { origin });
        };
        let checkpoint = signed
            .verify(&origin, &log.keys)
            .map_err(Refusal::signature)?;
        let head = checkpoint.checkpoint().head();
        if old > head.size {
            return Err(Refusal::BadRequest(RequestError::OldAboveNew {
                old,
                new: head.size,
            }));
        }
        let latest = log.latest.unwrap_or(EMPTY);
        if old != latest.size {
            return Err(Refusal::Conflict { size: latest.size });
        }
        // Covers the empty tree's root, an empty proof from size zero, and equal roots at equal sizes:
        // 422 for all of them.
        verify_consistency(old, &latest.root, head.size, &head.root, &proof)
            .map_err(|_| Refusal::BadProof)?;
        if now.as_secs() == 0 {
            // "the timestamp MUST NOT be zero"
            return Err(Refusal::ClockUnset);
        }
        let line = self.key.cosign(&checkpoint, now);
        let mut note = checkpoint.only_by(&log.keys);
        note.add(line.clone()).map_err(Refusal::full)?;
        Ok(Cosign {
            log,
            head,
            note,
            line,
        })
    }
}

/// A checkpoint that may be cosigned, as soon as it is kept.
///
/// Write [`Self::note`] (or [`Self::head`] and the origin) where it survives a crash, then take the
/// line out with [`Self::persisted`]. When writing fails, drop this: nothing was given away.
#[must_use = "nothing is cosigned until `persisted` is called"]
pub struct Cosign<'w> {
    log: &'w mut Log,
    head: TreeHead,
    note: VerifiedCheckpoint,
    line: SignatureLine,
}

impl Cosign<'_> {
    /// Which log.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        self.note.checkpoint().origin()
    }

    /// The tree to remember.
    #[must_use]
    pub const fn head(&self) -> TreeHead {
        self.head
    }

    /// The checkpoint with the log's signatures and this witness's cosignature: what to keep, and
    /// what to serve to monitors once it is kept (tlog-witness, "Monitor Retrieval Mechanism").
    #[must_use]
    pub const fn note(&self) -> &VerifiedCheckpoint {
        &self.note
    }

    /// Remembers the tree and gives the cosignature away: the body of the answer, status 200.
    #[must_use]
    pub fn persisted(self) -> SignatureLine {
        self.log.latest = Some(self.head);
        self.line
    }
}

/// Why a checkpoint is not cosigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The body is not a request (400).
    #[error(transparent)]
    BadRequest(#[from] RequestError),
    /// No log of that name is followed (404).
    #[error("this witness does not follow {origin}; ask its operator")]
    UnknownOrigin {
        /// The origin in the checkpoint.
        origin: Origin,
    },
    /// No trusted key of the log signed, or a line in the name of one does not verify (403).
    #[error(transparent)]
    BadSignature(NoteError),
    /// The proof starts from another tree than the latest cosigned (409).
    #[error("the latest cosigned tree has {size} leaves; prove from there and ask again")]
    Conflict {
        /// Leaves of the latest tree cosigned; zero when there is none.
        size: u64,
    },
    /// The new tree does not begin with the old one, as far as the proof shows (422).
    #[error("the proof does not show that the new tree begins with the old one; the log may fork")]
    BadProof,
    /// The witness does not know the time (500).
    #[error("this witness's clock is not set; ask again later")]
    ClockUnset,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::BadSignature(_) => 403,
            Self::UnknownOrigin { .. } => 404,
            Self::Conflict { .. } => 409,
            Self::BadProof => 422,
            Self::ClockUnset => 500,
        }
    }

    /// The media type of [`Self::body`].
    #[must_use]
    pub const fn media_type(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => SIZE_MEDIA_TYPE,
            _ => "text/plain; charset=utf-8",
        }
    }

    /// The body: the size and a newline for a conflict, one line of explanation otherwise.
    #[must_use]
    pub fn body(&self) -> String {
        match self {
            Self::Conflict { size } => format!("{size}\n"),
            other => format!("{other}\n"),
        }
    }

    fn signature(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Note(error) => Self::BadSignature(error),
            // The origin was taken from the checkpoint and its text parsed before.
            other => Self::BadRequest(RequestError::Checkpoint(other)),
        }
    }

    /// No room for one more line: the log sent too many.
    fn full(error: NoteError) -> Self {
        Self::BadRequest(RequestError::Checkpoint(CheckpointError::Note(error)))
    }
}

/// Why a log cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// Without a key nothing of this log can be verified.
    #[error("no key is given for {origin}; name at least one")]
    NoKey {
        /// The log.
        origin: Origin,
    },
    /// Twice in the configuration.
    #[error("{origin} is followed already; name each log once")]
    Followed {
        /// The log.
        origin: Origin,
    },
    /// No room for another log.
    #[error("{LOGS_MAX} logs are followed and no more fit; run another witness")]
    Full,
}

/// What is remembered of a log before anything is cosigned.
const EMPTY: TreeHead = TreeHead {
    size: 0,
    root: Hash::EMPTY_ROOT,
};

#[cfg(test)]
mod tests;
