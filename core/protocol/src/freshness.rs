//! The head of the key service's log: what is answered about it, and whether that goes on from what was kept.
//!
//! ```text
//! kept by the caller: head of size N ─┐
//!                                     ├─ Freshness::head_after ─▶ LogHead, kept from now on
//! answered: checkpoint, proof, key ───┘                        └▶ NotContinued: set back, forked, another log, …
//! ```
//!
//! Always true: a [`LogHead`] is signed by its log's key, which was pinned when the log was first met inside an
//! attested session; it continues the kept one, shown by hashes (RFC 6962 §2.1.2), or begins a log that, by the
//! word of the attested service, holders of shares recovered from at least as much as was kept. Clients and
//! runtimes judge by this code alone, each with sentences of its own for what it refuses.
//!
//! Not here: keeping heads, asking again, who witnessed a checkpoint, and what a person may accept (the SDK);
//! answering (`bield-keys`). Cost: one Ed25519 verification and about 2·log2(records) hashes.

use bield_envelope::{Principal, Time, wire};
use bield_tlog::note::KeyError;
use bield_tlog::{
    CheckpointError, Hash, LogVerifier, Origin, SignedCheckpoint, VerifiedCheckpoint,
    verify_consistency,
};
use minicbor::{Decode, Encode};

use crate::service::{CHECKPOINT_BYTES_MAX, HOLDERS_MAX};

#[cfg(feature = "played")]
mod played;
#[cfg(test)]
mod tests;

#[cfg(feature = "played")]
pub use played::PlayedLog;

/// The newest checkpoint, and what connects it with the one the caller kept.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Freshness {
    /// C2SP signed note of at most [`CHECKPOINT_BYTES_MAX`]: origin, size, root; signed by the log's key, with
    /// witnesses' cosignatures if any.
    #[cbor(n(0), decode_with = "note")]
    pub checkpoint: String,
    /// RFC 6962 consistency proof from the size the caller kept; empty when it kept none or the same. When
    /// the caller's checkpoint is of an earlier log, it leads to the size at which that log was recovered.
    #[cbor(n(1), decode_with = "wire::at_most::<PROOF_HASHES_MAX, _, _>")]
    pub consistency: Vec<minicbor::bytes::ByteArray<32>>,
    /// Verifier key of the log: `<origin>+<hash>+<key>`. The attested session vouches for it; a caller that
    /// kept a checkpoint of the same origin compares.
    #[n(2)]
    pub log: String,
    /// Recoveries from the log the caller knows to the present one, oldest first.
    #[cbor(n(3), decode_with = "wire::at_most::<RECOVERIES_MAX, _, _>")]
    pub recovered: Vec<Recovered>,
}

/// Holders of shares began a new log from an old one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recovered {
    /// Origin of the log before.
    #[n(0)]
    pub origin: String,
    /// How many records of it were found; what came after them is void.
    #[n(1)]
    pub size: u64,
    /// Root of its tree at that size.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub root: [u8; 32],
    /// Who gave shares.
    #[cbor(n(3), decode_with = "wire::at_most::<HOLDERS_MAX, _, _>")]
    pub holders: Vec<Principal>,
    /// When, by the service's clock.
    #[n(4)]
    pub at: Time,
    /// Origin of the log that goes on.
    #[n(5)]
    pub next: String,
}

impl Freshness {
    /// Judges this answer by what its caller kept of the service; at first contact, `None`, there is nothing to
    /// compare with.
    ///
    /// # Errors
    /// [`NotContinued`]; nothing may be asked of such a service, and what was kept stays.
    pub fn head_after(&self, kept: Option<&LogHead>) -> Result<LogHead, NotContinued> {
        let head = LogHead::read(&self.log, &self.checkpoint)?;
        let Some(kept) = kept else { return Ok(head) };
        let origin = head.origin().clone();
        if origin != *kept.origin() {
            let by = self.recovery(kept.origin(), origin)?;
            self.precedes(kept, by.size, Hash::from_bytes(by.root), Some(by))?;
        } else if kept.log == head.log {
            self.precedes(kept, head.size(), head.root(), None)?;
        } else {
            return Err(NotContinued::OtherKey { origin });
        }
        Ok(head)
    }

    /// The recovery of the log `kept`, if what is told leads from that to the log `shown`.
    fn recovery(&self, kept: &Origin, shown: Origin) -> Result<&Recovered, NotContinued> {
        let Some(first) = self.recovered.first() else {
            return Err(NotContinued::OtherLog { origin: shown });
        };
        let mut origin = kept.as_str();
        for step in &self.recovered {
            if step.origin != origin {
                return Err(NotContinued::Recoveries);
            }
            origin = &step.next;
        }
        match origin == shown.as_str() {
            true => Ok(first),
            false => Err(NotContinued::Recoveries),
        }
    }

    /// Nothing of `kept` is missing in its log's first `shown` records, by whose recovery they may be.
    fn precedes(
        &self,
        kept: &LogHead,
        shown: u64,
        root: Hash,
        by: Option<&Recovered>,
    ) -> Result<(), NotContinued> {
        let seen = kept.size();
        let by = by.cloned().map(Box::new);
        if shown < seen {
            return Err(NotContinued::SetBack { seen, shown, by });
        }
        let hashes = self.consistency.iter();
        let proof: Vec<_> = hashes.map(|hash| Hash::from_bytes(**hash)).collect();
        verify_consistency(seen, &kept.root(), shown, &root, &proof)
            .map_err(|_| NotContinued::Forked { seen, shown, by })
    }
}

/// A log's head that its key signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogHead {
    log: LogVerifier,
    checkpoint: VerifiedCheckpoint,
}

impl LogHead {
    /// Reads a log's verifier key and its signed checkpoint.
    ///
    /// # Errors
    /// [`NotContinued::Key`], [`NotContinued::Malformed`] or [`NotContinued::Unsigned`].
    pub fn read(log: &str, checkpoint: &str) -> Result<Self, NotContinued> {
        let log: LogVerifier = log.parse()?;
        let signed =
            SignedCheckpoint::parse(checkpoint.as_bytes()).map_err(NotContinued::Malformed)?;
        let checkpoint = signed
            .verify(&Origin::from(log.name()), std::slice::from_ref(&log))
            .map_err(NotContinued::Unsigned)?;
        Ok(Self { log, checkpoint })
    }

    /// The log's key as witnesses and auditors take it: `<origin>+<hash>+<key>`.
    #[must_use]
    pub const fn log(&self) -> &LogVerifier {
        &self.log
    }

    /// The signed checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        &self.checkpoint
    }

    /// Which log.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        self.checkpoint.checkpoint().origin()
    }

    /// Records of the log.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.checkpoint.checkpoint().size()
    }

    /// Root of the tree over them.
    #[must_use]
    pub const fn root(&self) -> Hash {
        self.checkpoint.checkpoint().root()
    }
}

/// Why an answer does not go on from what was kept. Whoever judges has a sentence of its own for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotContinued {
    /// What is said to be the log's key cannot be one.
    #[error("the log's key: {0}")]
    Key(#[from] KeyError),
    /// What is shown as a checkpoint is none.
    #[error("the checkpoint: {0}")]
    Malformed(#[source] CheckpointError),
    /// The named key did not sign the checkpoint.
    #[error("the checkpoint's signature: {0}")]
    Unsigned(#[source] CheckpointError),
    /// The log's key is not the pinned one, and the log's name is.
    #[error("log {origin} under another key than the pinned one")]
    OtherKey {
        /// The log.
        origin: Origin,
    },
    /// Less of the kept log than was seen.
    #[error("{shown} records of the log, {seen} were seen")]
    SetBack {
        /// Size that was kept.
        seen: u64,
        /// Size that is shown, or was found by who recovered the log.
        shown: u64,
        /// The recovery, if it is one.
        by: Option<Box<Recovered>>,
    },
    /// Another history of the kept log than was seen.
    #[error("{shown} records of the log that do not begin with the {seen} that were seen")]
    Forked {
        /// Size that was kept.
        seen: u64,
        /// Size that is shown, or was found by who recovered the log.
        shown: u64,
        /// The recovery, if it is one.
        by: Option<Box<Recovered>>,
    },
    /// Another log, and nothing said of a recovery.
    #[error("another log: {origin}")]
    OtherLog {
        /// The log that is shown.
        origin: Origin,
    },
    /// The recoveries told of do not lead from the kept log to the shown one.
    #[error("recoveries that do not connect the kept log with the shown one")]
    Recoveries,
}

/// Decodes a text of at most [`CHECKPOINT_BYTES_MAX`].
fn note<C>(d: &mut minicbor::Decoder<'_>, _: &mut C) -> Result<String, minicbor::decode::Error> {
    match d.str()? {
        note if note.len() <= CHECKPOINT_BYTES_MAX => Ok(note.to_owned()),
        _ => Err(minicbor::decode::Error::message(
            "a checkpoint that is too long",
        )),
    }
}

/// The most hashes of a consistency proof.
pub const PROOF_HASHES_MAX: usize = 128;
/// The most recoveries told at once.
pub const RECOVERIES_MAX: usize = 64;
