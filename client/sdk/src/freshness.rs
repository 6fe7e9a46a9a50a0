//! Whether the key service's state is the newest this home knows of.
//!
//! ```text
//! kept by the home: head of size N ─┐
//!                                   ├─ judge ─▶ Head (kept from now on)  or  NotFresh: how far back, forked,
//! answered: checkpoint, proof, key ─┘                                       another log, recovered, unwitnessed
//! ```
//!
//! In: what the home keeps and what the attested service answers. Out: the head to keep, or why the
//! service is refused. Always true: an accepted head is signed by the log's key, which was pinned when
//! the log was first met inside an attested session; it continues the kept one, shown by hashes (RFC
//! 6962 §2.1.2), or begins a log that holders of shares recovered from at least as much as was kept; it
//! carries the cosignatures that the trust file asks for.
//!
//! Why evidence is not enough: it proves the code and not the state. A host that restores yesterday's
//! disk runs the right code on a state in which a revocation never happened.
//!
//! Left to others: keeping heads (`home`), asking (`service`). Cost: two signature checks, one more for
//! each witness, and about 2·log2(records) hashes.

use std::fmt;
use std::time::Duration;

use bield_envelope::{Principal, Time};
use bield_protocol::service::Freshness;
use bield_tlog::note::KeyError;
use bield_tlog::{
    CheckpointError, Hash, LogVerifier, Origin, Quorum, QuorumError, SignedCheckpoint,
    VerifiedCheckpoint, verify_consistency,
};

mod error;
#[cfg(test)]
mod tests;

pub use error::NotFresh;

/// A service's newest head that this home has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub(crate) service: Principal,
    pub(crate) log: LogVerifier,
    pub(crate) checkpoint: VerifiedCheckpoint,
}

impl Head {
    /// Whose log it is: the anchor of receipts.
    #[must_use]
    pub const fn service(&self) -> Principal {
        self.service
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
}

/// How a service's state was found to be, when the session was opened.
#[derive(Debug, Clone)]
pub struct Fresh {
    /// What it showed, now kept by the home.
    pub head: Head,
    /// Size of the head this home kept before; `None` at first contact, when nothing could be compared.
    pub seen: Option<u64>,
    /// Origin of the log before, when holders of shares recovered this one from it since.
    pub recovered_from: Option<Origin>,
    /// Names of the trust file's witnesses that cosigned the checkpoint.
    pub witnesses: Vec<String>,
}

impl fmt::Display for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.head.size();
        match (&self.recovered_from, self.seen) {
            (Some(_), Some(seen)) => write!(
                f,
                "{size} records of a log recovered with all {seen} this home has seen"
            ),
            (_, Some(seen)) if seen == size => write!(f, "{size} records, as last time"),
            (_, Some(seen)) => {
                write!(
                    f,
                    "{size} records, {} more than last time",
                    size.saturating_sub(seen)
                )
            }
            (_, None) => write!(f, "{size} records, met for the first time"),
        }
    }
}

/// Compares what `service` answered with what was kept.
///
/// # Errors
/// [`NotFresh`]; nothing may be asked of such a service.
pub(crate) fn judge(
    kept: Option<&Head>,
    answer: &Freshness,
    service: Principal,
    witnesses: Option<&Quorum>,
    now: Time,
) -> Result<Fresh, NotFresh> {
    let head = read(answer, service)?;
    let recovered_from = match kept {
        None => None,
        Some(kept) if kept.origin() == head.origin() => {
            continues(kept, &head, answer)?;
            None
        }
        Some(kept) => {
            recovered(kept, &head, answer)?;
            Some(kept.origin().clone())
        }
    };
    let witnesses = match witnesses {
        None => Vec::new(),
        // Of any age: what an idle service said last stays true. That nobody was shown another history
        // is what cosignatures are for; that this is the newest, what the home keeps is for.
        Some(quorum) => quorum
            .check(&head.checkpoint, now, Duration::MAX)
            .map_err(|error| NotFresh::Unwitnessed { error })?
            .into_iter()
            .map(|seen| seen.witness.to_string())
            .collect(),
    };
    Ok(Fresh {
        seen: kept.map(Head::size),
        head,
        recovered_from,
        witnesses,
    })
}

/// The head that the answer claims, signed by the key that the answer names.
fn read(answer: &Freshness, service: Principal) -> Result<Head, NotFresh> {
    let log: LogVerifier = answer.log.parse()?;
    let origin = Origin::from(log.name());
    let checkpoint = SignedCheckpoint::parse(answer.checkpoint.as_bytes())?;
    let checkpoint = checkpoint.verify(&origin, std::slice::from_ref(&log))?;
    Ok(Head {
        service,
        log,
        checkpoint,
    })
}

/// The same log: grown, by the same key.
fn continues(kept: &Head, head: &Head, answer: &Freshness) -> Result<(), NotFresh> {
    if kept.log != head.log {
        return Err(NotFresh::OtherKey {
            origin: head.origin().clone(),
        });
    }
    let (seen, shown) = (kept.size(), head.size());
    if shown < seen {
        return Err(NotFresh::RolledBack { seen, shown });
    }
    leads(kept, shown, &head.root(), answer).map_err(|()| NotFresh::Forked { seen, shown })
}

/// Another log: only one that goes on from the kept one, by the word of the attested service.
fn recovered(kept: &Head, head: &Head, answer: &Freshness) -> Result<(), NotFresh> {
    let mut origin = kept.origin().as_str();
    for step in &answer.recovered {
        if step.origin != origin {
            return Err(NotFresh::Recoveries);
        }
        origin = &step.next;
    }
    let Some(first) = answer.recovered.first() else {
        // Its identity derives from the root and the state, so the same name under another log is an instance
        // from before a recovery, or from beside one.
        if kept.service == head.service {
            return Err(NotFresh::left(head));
        }
        return Err(NotFresh::OtherService {
            known: kept.service,
            found: head.service,
            seen: kept.size(),
        });
    };
    if origin != head.origin().as_str() {
        return Err(NotFresh::Recoveries);
    }
    let (seen, found) = (kept.size(), first.size);
    if found < seen {
        return Err(NotFresh::Recovered {
            seen,
            found,
            at: first.at,
            holders: first.holders.clone(),
        });
    }
    leads(kept, found, &Hash::from_bytes(first.root), answer).map_err(|()| {
        NotFresh::RecoveredElsewhere {
            seen,
            found,
            at: first.at,
            holders: first.holders.clone(),
        }
    })
}

/// Whether the answer's hashes lead from what was kept to a tree of `size` with `root`.
fn leads(kept: &Head, size: u64, root: &Hash, answer: &Freshness) -> Result<(), ()> {
    let proof: Vec<_> = answer
        .consistency
        .iter()
        .map(|hash| Hash::from_bytes(**hash))
        .collect();
    verify_consistency(kept.size(), &kept.root(), size, root, &proof).map_err(|_| ())
}
