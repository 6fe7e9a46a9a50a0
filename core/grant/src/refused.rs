//! Why not, whose move it is, and whether to try again.
//!
//! ```text
//!   Refused ── Display ─▶ long form: names code, package, users, what IS granted
//!      │                  → the owner's audit, the caller inside the sealed answer
//!      └──── outside() ─▶ short form: one word and a retry advice
//!                         → the host, metrics, logs that leave the enclave
//! ```
//!
//! The short form says nothing that the host does not know already: every reason that depends on
//! the owner's grants is the same word, so the host cannot learn who is granted what, or whether a
//! grant ran out, was revoked or never was.

use core::fmt;
use core::time::Duration;

use bield_envelope::{Digest, Principal, Time};
use bield_evidence::{Measurement, Mover};

use crate::{CodeIdentity, CodeSelector, UserSelector};

/// Most names one listing writes out; the rest is counted.
pub const LISTED_MAX: usize = 8;

/// Why a lease or a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The evidence is genuine, but the owner granted this package to other code or to none.
    #[error(
        "code {code} is not granted for package {package}; granted: {granted}. \
         The package's owner can grant this code"
    )]
    CodeNotGranted {
        /// The code that asked.
        code: Box<CodeIdentity>,
        /// The package it asked for.
        package: Digest,
        /// The code that the owner's grants for this package select.
        granted: Listing<CodeSelector>,
    },
    /// The owner granted this package and code to other users.
    #[error(
        "user {user} has no grant for package {package} in code {code}; granted: {granted}. \
         The package's owner can grant this user"
    )]
    UserNotGranted {
        /// Who asked.
        user: Principal,
        /// The package asked for.
        package: Digest,
        /// The code that serves.
        code: Measurement,
        /// The users that the owner's grants for this package and code select.
        granted: Listing<UserSelector>,
    },
    /// The owner took the grant back.
    #[error("grant {grant} was revoked by its owner; only the owner can grant again")]
    Revoked {
        /// The grant that would have allowed it.
        grant: Digest,
    },
    /// Every grant that names this user, package and code has ended.
    #[error("the grant ended at {until}, and it is {now}; the package's owner can renew it")]
    Expired {
        /// Latest end among those grants.
        until: Time,
        /// The time of the decision.
        now: Time,
    },
    /// No grant that names this user, package and code has begun.
    #[error("the grant begins at {from}, and it is {now}; try again then")]
    NotYetValid {
        /// Earliest beginning among those grants.
        from: Time,
        /// The time of the decision.
        now: Time,
    },
    /// The sender's key was succeeded by another one.
    #[error("{sender} was succeeded by another key; sign with the newest one")]
    Succeeded {
        /// Who sent the request.
        sender: Principal,
    },
    /// As many requests as the grant allows were served or are set aside for other runtimes.
    #[error(
        "the requests of grant {grant} are used up or set aside for other runtimes; \
         the package's owner can grant more"
    )]
    QuotaUsed {
        /// The grant that would have allowed it.
        grant: Digest,
    },
    /// The runtime's lease has run out.
    #[error(
        "this runtime's lease ended at {until}, and it is {now}; try again: it asks for a new one"
    )]
    LeaseEnded {
        /// End of the lease.
        until: Time,
        /// The time of the decision.
        now: Time,
    },
    /// The request is for a package this lease does not cover.
    #[error(
        "the request is for package {found}, but this lease is for package {leased}; \
         the gateway sent it to the wrong runtime"
    )]
    OtherPackage {
        /// Package in the request.
        found: Digest,
        /// Package of the lease.
        leased: Digest,
    },
    /// The request was sealed for the package inside other code.
    #[error(
        "the request is sealed for audience {found}, but this runtime serves audience {leased}; \
         fetch the key configuration again and seal the request anew"
    )]
    OtherAudience {
        /// Audience in the request.
        found: Digest,
        /// Audience of the lease.
        leased: Digest,
    },
    /// The request was sealed to another key of the audience, for example one since rotated.
    #[error(
        "the request is sealed to key {found}, but this runtime was leased: {leased}; \
         fetch the key configuration again and seal the request anew"
    )]
    OtherKey {
        /// Key in the request.
        found: Digest,
        /// Keys of the lease.
        leased: Listing<Digest>,
    },
    /// The request is too old.
    #[error(
        "the request was created at {created}, and at {now} that is more than 5 minutes ago; \
         seal it anew"
    )]
    Stale {
        /// Creation of the request, by the caller's clock.
        created: Time,
        /// The time of the decision.
        now: Time,
    },
    /// The request claims to come from the future.
    #[error(
        "the request was created at {created}, and at {now} that is more than a minute ahead; \
         set the clock of the caller's machine right and seal it anew"
    )]
    Early {
        /// Creation of the request, by the caller's clock.
        created: Time,
        /// The time of the decision.
        now: Time,
    },
    /// This caller's request with this id was admitted before.
    #[error("request {} was admitted before; to ask again, seal it anew under a new id", Id(.id))]
    Replayed {
        /// The id in the request.
        id: [u8; 16],
    },
    /// The replay guard has no room for another request of the sender; forgetting early would admit replays.
    #[error(
        "of the {maximum} requests that are admitted within 5 minutes, the sender's share is used up; try again shortly"
    )]
    Busy {
        /// Size of the guard, in requests.
        maximum: usize,
    },
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not before somebody changes something.
    No,
    /// Yes: the same bytes, after this long.
    After(Duration),
    /// Yes: seal the request anew (with the current key configuration, clock and a new id).
    Anew,
}

impl Refused {
    /// A short word for the reason, stable across versions; for audit logs that the owner reads.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CodeNotGranted { .. } => "code-not-granted",
            Self::UserNotGranted { .. } => "user-not-granted",
            Self::Revoked { .. } => "grant-revoked",
            Self::Expired { .. } => "grant-expired",
            Self::NotYetValid { .. } => "grant-not-yet-valid",
            Self::Succeeded { .. } => "sender-succeeded",
            Self::QuotaUsed { .. } => "quota-used",
            Self::LeaseEnded { .. } => "lease-ended",
            Self::OtherPackage { .. } => "other-package",
            Self::OtherAudience { .. } => "other-audience",
            Self::OtherKey { .. } => "other-key",
            Self::Stale { .. } => "stale",
            Self::Early { .. } => "early",
            Self::Replayed { .. } => "replayed",
            Self::Busy { .. } => "busy",
        }
    }

    /// Whose move it is.
    pub fn mover(&self) -> Mover {
        match self {
            Self::CodeNotGranted { .. }
            | Self::UserNotGranted { .. }
            | Self::Revoked { .. }
            | Self::Expired { .. }
            | Self::QuotaUsed { .. } => Mover::Owner,
            Self::LeaseEnded { .. } | Self::OtherPackage { .. } | Self::Busy { .. } => {
                Mover::Operator
            }
            Self::NotYetValid { .. }
            | Self::Succeeded { .. }
            | Self::OtherAudience { .. }
            | Self::OtherKey { .. }
            | Self::Stale { .. }
            | Self::Early { .. }
            | Self::Replayed { .. } => Mover::User,
        }
    }

    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::CodeNotGranted { .. }
            | Self::UserNotGranted { .. }
            | Self::Revoked { .. }
            | Self::Expired { .. }
            | Self::Succeeded { .. }
            | Self::QuotaUsed { .. } => Retry::No,
            Self::NotYetValid { from, now } => Retry::After(from.since(*now)),
            Self::LeaseEnded { .. } | Self::OtherPackage { .. } => Retry::After(SHORTLY),
            Self::Busy { .. } => Retry::After(WHEN_BUSY),
            Self::OtherAudience { .. }
            | Self::OtherKey { .. }
            | Self::Stale { .. }
            | Self::Early { .. }
            | Self::Replayed { .. } => Retry::Anew,
        }
    }

    /// The short form, for everyone outside the enclave.
    pub fn outside(&self) -> Outside {
        match self {
            Self::CodeNotGranted { .. }
            | Self::UserNotGranted { .. }
            | Self::Revoked { .. }
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::Succeeded { .. }
            | Self::QuotaUsed { .. } => Outside {
                code: NOT_GRANTED,
                // When a grant begins is the owner's business too.
                retry: Retry::No,
            },
            _ => Outside {
                code: self.code(),
                retry: self.retry(),
            },
        }
    }
}

/// What the outside may know of a refusal: one word and an advice, no names, no times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// `not-granted` for every reason that lies in the owner's grants, else [`Refused::code`].
    pub code: &'static str,
    /// Whether trying again can help.
    pub retry: Retry,
}

impl fmt::Display for Outside {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry {
            Retry::No => write!(out, "refused: {}", self.code),
            Retry::After(wait) => {
                write!(
                    out,
                    "refused: {}; try again in {} s",
                    self.code,
                    wait.as_secs()
                )
            }
            Retry::Anew => write!(out, "refused: {}; seal the request anew", self.code),
        }
    }
}

/// Names without repetition, in order; shows [`LISTED_MAX`] of them and counts the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    shown: Box<[T]>,
    more: usize,
}

impl<T> Listing<T> {
    /// The names written out.
    pub fn shown(&self) -> &[T] {
        &self.shown
    }

    /// How many further names there are.
    pub fn more(&self) -> usize {
        self.more
    }
}

impl<T: Ord> FromIterator<T> for Listing<T> {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        let mut shown: Vec<T> = names.into_iter().collect();
        shown.sort();
        shown.dedup();
        let more = shown.len().saturating_sub(LISTED_MAX);
        shown.truncate(LISTED_MAX);
        Self {
            shown: shown.into(),
            more,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Listing<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shown.is_empty() {
            return out.write_str("nothing");
        }
        for (index, name) in self.shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(out, "{separator}{name}")?;
        }
        if self.more > 0 {
            write!(out, " and {} more", self.more)?;
        }
        Ok(())
    }
}

struct Id<'a>(&'a [u8; 16]);

impl fmt::Display for Id<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

const NOT_GRANTED: &str = "not-granted";
/// A new lease takes one attested round trip.
const SHORTLY: Duration = Duration::from_secs(1);
/// Room appears in the guard as the window moves on; a burst passes within seconds.
const WHEN_BUSY: Duration = Duration::from_secs(5);
