//! Why there are no keys.

use bield_protocol::call::Unsealed;

use crate::key_service::NotFresh;

/// Why there are no keys. The sentences are public: they reach callers that proved nothing, so they name nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeysError {
    /// No exchange with the key service took place, or it broke off.
    #[error(
        "this runtime does not reach its key service: {why}; try again, and tell the operator if it lasts"
    )]
    Unreachable { why: String },
    /// It answered that it does not decide now: it starts, follows another, or is overloaded.
    #[error(
        "the key service does not serve now: {0}; try again, and tell the operator if it lasts"
    )]
    NotServing(&'static str),
    /// One end does not accept the other's evidence, or cannot show its own.
    #[error(
        "this runtime and its key service do not accept each other: {why}; the operator must look"
    )]
    NotAccepted { why: String },
    /// Its code is the right one, and its state is not the newest.
    #[error("this runtime does not use its key service: {0}; the operator must look")]
    NotFresh(#[from] NotFresh),
    /// The key service said no, until somebody changes something.
    #[error(
        "the key service gives this runtime no keys for the package: not-granted; the package's owner must have registered it and granted this code"
    )]
    NotGranted,
    /// It said so moments ago, and was not asked again.
    #[error(
        "the key service gave this runtime no keys for the package moments ago: not-granted; try again in a second if the package's owner has registered it and granted this code since"
    )]
    NotGrantedYet,
    /// Too many fetches at once or lately, whoever caused them.
    #[error("this runtime fetches keys for as many packages as it may; come back shortly")]
    Busy,
    /// The key service's answer contradicts the question.
    #[error("the key service answered with {0}; the operator must look")]
    Contradiction(&'static str),
    /// A renewal ahead of time was asked for too soon after the last.
    #[error("the lease was renewed moments ago; try again in a second")]
    TooSoon,
    /// The keys were here, their lease has ended, and there is no other.
    #[error("the lease of the package's keys has ended. {0}")]
    LeaseEnded(Box<Self>),
}

impl KeysError {
    /// Whether this says nothing of the package: the key service as a whole cannot be asked now.
    pub(crate) const fn is_outage(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NotServing(_)
                | Self::NotAccepted { .. }
                | Self::NotFresh(_)
        )
    }

    /// The refusal that the host and the caller see.
    pub(crate) fn unsealed(&self) -> Unsealed {
        let (code, retry_after_ms) = match self {
            Self::Unreachable { .. } | Self::NotServing(_) => {
                ("key-service-unreachable", Some(RETRY_MS))
            }
            Self::TooSoon | Self::NotGrantedYet => ("no-lease", Some(RETRY_MS)),
            Self::LeaseEnded(why) => ("no-lease", why.unsealed().retry_after_ms),
            Self::Busy => ("busy", Some(BUSY_RETRY_MS)),
            _ => ("no-lease", None),
        };
        crate::refusals::unsealed(code, self, retry_after_ms)
    }
}

/// A key service restarts, or another takes over, within a second or two.
const RETRY_MS: u64 = 1000;
/// A first fetch takes some tens of milliseconds.
const BUSY_RETRY_MS: u64 = 250;
