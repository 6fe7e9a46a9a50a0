//! Whether the key service's state is the newest this home knows of.
//!
//! ```text
//! kept by the home: head of size N ─┐
//!                                   ├─ judge ─▶ Head (kept from now on)  or  NotFresh: how far back, forked,
//! answered: checkpoint, proof, key ─┘                                       another log, recovered, unwitnessed
//! ```
//!
//! In: what the home keeps and what the attested service answers. Out: the head to keep, or why the
//! service is refused. Always true: an accepted head goes on from the kept one by the rules that runtimes judge
//! by, too ([`Freshness::head_after`]), and carries the cosignatures that the trust file asks for.
//!
//! Why evidence is not enough: it proves the code and not the state. A host that restores yesterday's
//! disk runs the right code on a state in which a revocation never happened.
//!
//! Left to others: keeping heads (`home`), asking (`service`). Cost: two signature checks, one more for
//! each witness, and about 2·log2(records) hashes.

use std::fmt;
use std::time::Duration;

use bield_envelope::{Principal, Time};
use bield_protocol::service::{Freshness, LogHead};
use bield_tlog::{Hash, LogVerifier, Origin, Quorum, VerifiedCheckpoint};

use crate::words::counted;

mod error;
#[cfg(test)]
mod tests;

pub use error::NotFresh;

/// A service's newest head that this home has verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub(crate) service: Principal,
    pub(crate) log: LogHead,
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
        self.log.origin()
    }

    /// Records of the log.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.log.size()
    }

    /// Root of the tree over them.
    #[must_use]
    pub const fn root(&self) -> Hash {
        self.log.root()
    }

    /// The log's key as witnesses and auditors take it: `<origin>+<hash>+<key>`.
    #[must_use]
    pub const fn log(&self) -> &LogVerifier {
        self.log.log()
    }

    /// The signed checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> &VerifiedCheckpoint {
        self.log.checkpoint()
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
                "{} of a log recovered with all {seen} this home has seen",
                counted(size, "record")
            ),
            (_, Some(seen)) if seen == size => {
                write!(f, "{}, as last time", counted(size, "record"))
            }
            (_, Some(seen)) => {
                write!(
                    f,
                    "{}, {} more than last time",
                    counted(size, "record"),
                    size.saturating_sub(seen)
                )
            }
            (_, None) => write!(f, "{}, met for the first time", counted(size, "record")),
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
    let log = answer
        .head_after(kept.map(|kept| &kept.log))
        .map_err(|refused| NotFresh::of(refused, kept, service))?;
    let recovered_from = kept
        .map(Head::origin)
        .filter(|origin| *origin != log.origin())
        .cloned();
    let witnesses = match witnesses {
        None => Vec::new(),
        // Of any age: what an idle service said last stays true. That nobody was shown another history
        // is what cosignatures are for; that this is the newest, what the home keeps is for.
        Some(quorum) => quorum
            .check(log.checkpoint(), now, Duration::MAX)
            .map_err(|error| NotFresh::Unwitnessed { error })?
            .into_iter()
            .map(|seen| seen.witness.to_string())
            .collect(),
    };
    Ok(Fresh {
        seen: kept.map(Head::size),
        head: Head { service, log },
        recovered_from,
        witnesses,
    })
}
