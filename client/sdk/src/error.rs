//! What can go wrong with services and calls, whose move it is, and whether to try again.

use bield_envelope::{Digest, EnvelopeError, Principal, Time, wire::WireError};
use bield_evidence::Measurement;
use bield_grant::CodeSelector;
use bield_protocol::refusal::{Refusal, Retry};
use bield_receipt::ReceiptError;
use bield_session::SessionError;

use crate::audit::AuditError;
use crate::{HomeError, NotFresh};

/// What sort of failure it is: what a program does next depends on this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Somebody said no, or something did not verify. Trying again does not help.
    Refused,
    /// Something on this machine has to be put right first.
    Local,
    /// Nobody answered, or everybody is busy. Trying again later may help.
    Unreachable,
}

/// The key service could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Nobody listens there.
    #[error("key service {address} is unreachable: {error}; check the address, then retry")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// Somebody listens there who did not pass.
    #[error("key service {address}: {error}")]
    Session {
        /// `host:port`.
        address: String,
        /// What did not pass, or broke.
        #[source]
        error: Box<SessionError>,
    },
    /// The connection broke between an order and its answer.
    #[error(
        "key service {address}: {error}. The order was on its way and may count: look with `bield list` or \
         `bield audit`, then repeat it if it is not there (an order that counts already changes nothing)"
    )]
    Unanswered {
        /// `host:port`.
        address: String,
        /// What broke.
        #[source]
        error: Box<SessionError>,
    },
    /// It proved its code but not which key service it is.
    #[error(
        "key service {address} is attested and {}", nameless(.state.as_deref())
    )]
    Nameless {
        /// `host:port`.
        address: String,
        /// What it says of itself, when it could be asked.
        state: Option<String>,
    },
    /// It proved its code, but its state is not one to go on with.
    #[error("key service {address}: {error}")]
    NotFresh {
        /// `host:port`.
        address: String,
        /// What is wrong with it.
        #[source]
        error: Box<NotFresh>,
    },
    /// None of several addresses serves.
    #[error("no member of the key service serves: {}", listed(.0))]
    NoneServes(Vec<ServiceError>),
    /// A share may only be given to a service that waits for shares.
    #[error(
        "key service {address} is {state:?} and does not wait for shares, so none was sent: {}",
        instead_of_a_share(.state)
    )]
    NotRecovering {
        /// `host:port`.
        address: String,
        /// What it says of itself.
        state: String,
    },
    /// The key service said no.
    #[error("the key service {0}")]
    Refused(Refusal),
    /// The audit it shows is not the one that was seen.
    #[error("the key service's audit: {0}")]
    Audit(#[from] AuditError),
    /// What this home remembers cannot be used, so nothing was asked.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// What came back is no answer to what was asked.
    #[error("the key service answered something else than was asked; is it of this version?")]
    OtherAnswer,
    /// What came back does not decode.
    #[error("the key service's answer: {0}")]
    Malformed(#[from] WireError),
    /// What it names is not what was asked for.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// The key service named a key that must not be used. The service's operator must look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The code is not on this client's list.
    #[error(
        "code {code} is not trusted to open my requests: it is not on the `code` list of the trust \
         file"
    )]
    CodeNotTrusted {
        /// The code asked for.
        code: CodeSelector,
    },
    /// Another code than the one asked for.
    #[error("asked for a key of code {expected}, got one of {found}: not used")]
    OtherCode {
        /// Code asked for.
        expected: CodeSelector,
        /// Code named.
        found: Measurement,
    },
    /// Another package than the one asked for.
    #[error("asked for package {expected}, got {found}: not used")]
    OtherPackage {
        /// Package asked for.
        expected: String,
        /// Package named.
        found: String,
    },
    /// The audience does not follow from package and code.
    #[error("the key's audience {found} does not belong to its package and code: not used")]
    OtherAudience {
        /// Audience named.
        found: Digest,
    },
    /// The anchor of receipts is not the service that proved itself.
    #[error("attested key service {expected} names {found} as the anchor of receipts: not used")]
    OtherService {
        /// Who proved itself.
        expected: Principal,
        /// Who is named.
        found: Principal,
    },
    /// The key is said to last longer than any key may.
    #[error(
        "the key is said to last until {not_after}, now is {now}: more than {hours} h are not \
         believed; check the clock", hours = crate::target::KEY_TIME_MAX.as_secs() / 3600
    )]
    EndsTooLate {
        /// Its end.
        not_after: Time,
        /// Now.
        now: Time,
    },
    /// The key has ended.
    #[error("the key ended at {not_after}, now is {now}: ask for it again, and check the clock")]
    Ended {
        /// Its end.
        not_after: Time,
        /// Now.
        now: Time,
    },
}

/// The gateway could not be used, or said no. It is untrusted: what it says is only its word.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// Nobody listens there, or the connection broke.
    #[error("gateway {gateway} is unreachable: {error}; check the address, then retry")]
    Unreachable {
        /// Its URL.
        gateway: String,
        /// What happened.
        #[source]
        error: Box<ureq::Error>,
    },
    /// It answered with a refusal.
    #[error("the gateway says {status} ({code}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable short name, as sent.
        code: String,
        /// One sentence, as sent, made safe to print.
        message: String,
        /// Milliseconds after which to try again, when it said so.
        retry_after_ms: Option<u64>,
    },
    /// A file to send could not be read.
    #[error("reading what is to be sent: {0}")]
    Read(#[source] std::io::Error),
}

/// A call did not give an answer that can be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The runtime said no, under seal.
    #[error("the runtime {0}")]
    Refused(Refusal),
    /// The answer's receipt does not hold; the answer is withheld.
    #[error("the answer is withheld: {0}")]
    ReceiptInvalid(#[from] ReceiptError),
    /// The gateway could not be used, or said no.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The target's key has ended. Ask the key service for it again.
    #[error(transparent)]
    Ended(#[from] TargetError),
    /// The request could not be sealed.
    #[error("the request cannot be sealed: {0}")]
    Seal(#[source] EnvelopeError),
    /// What came back does not open as the answer to this request.
    #[error("what came back is not the answer to this request: {0}")]
    Open(#[source] EnvelopeError),
    /// The answer opens but does not decode.
    #[error("the answer does not decode: {0}")]
    Malformed(#[source] WireError),
    /// An input is not what the package takes.
    #[error("{0}")]
    Input(String),
}

impl ServiceError {
    /// The stable short name of the refusal, when there is one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            Self::NotFresh { error, .. } => Some(error.code()),
            Self::Audit(error) => Some(error.code()),
            _ => None,
        }
    }

    /// Whether another member of the same service may serve where this one does not: nothing was asked of
    /// this one. What its state shows is final, whoever else may show another.
    pub(crate) fn is_of_member(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Session { .. } | Self::Nameless { .. } => true,
            Self::Refused(refusal) => refusal.code == NOT_LEADER,
            _ => false,
        }
    }

    /// Whether another log than the known one was shown there, or one that its own instance says was left:
    /// another address may show the known one.
    pub(crate) fn is_of_another_log(&self) -> bool {
        match self {
            Self::NotFresh { error, .. } => error.is_of_another_log(),
            Self::Refused(refusal) => LEFT.contains(&refusal.code.as_str()),
            _ => false,
        }
    }

    /// Whether it is a member that follows another one.
    pub(crate) fn is_not_leader(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == NOT_LEADER)
    }

    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } => Kind::Unreachable,
            Self::Nameless { state, .. } if state.as_deref().is_some_and(passes) => {
                Kind::Unreachable
            }
            Self::NotRecovering { state, .. } if passes(state) => Kind::Unreachable,
            Self::NotFresh { error, .. } if matches!(**error, NotFresh::Overtaken { .. }) => {
                Kind::Unreachable
            }
            Self::Home(_) => Kind::Local,
            // One that may serve later is worth another try, whatever the others are.
            Self::NoneServes(errors) => {
                let later = errors.iter().any(|error| error.kind() == Kind::Unreachable);
                if later {
                    Kind::Unreachable
                } else {
                    Kind::Refused
                }
            }
            Self::Session { error, .. } | Self::Unanswered { error, .. } => match &**error {
                SessionError::Stream(_) | SessionError::Truncated | SessionError::Closed => {
                    Kind::Unreachable
                }
                SessionError::TooLong { .. } => Kind::Local,
                _ => Kind::Refused,
            },
            Self::Refused(refusal) => of_refusal(refusal),
            _ => Kind::Refused,
        }
    }
}

impl GatewayError {
    /// The stable short name of the refusal, when there is one; only the gateway's word.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// What to do next.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Refused {
                status: 429 | 502..=504,
                ..
            }
            | Self::Unreachable { .. } => Kind::Unreachable,
            Self::Refused { .. } => Kind::Refused,
            Self::Read(_) => Kind::Local,
        }
    }
}

impl CallError {
    /// The stable short name of the refusal, when there is one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            Self::Gateway(error) => error.code(),
            _ => None,
        }
    }

    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(refusal) => of_refusal(refusal),
            Self::Gateway(error) => error.kind(),
            Self::Seal(_) | Self::Input(_) => Kind::Local,
            _ => Kind::Refused,
        }
    }

    /// Whether the same call, with the key configuration fetched again, may succeed at once.
    #[must_use]
    pub const fn wants_fresh_target(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.retry, Retry::Anew),
            Self::Ended(_) => true,
            _ => false,
        }
    }
}

const fn of_refusal(refusal: &Refusal) -> Kind {
    match refusal.retry {
        Retry::After(_) | Retry::Anew => Kind::Unreachable,
        _ => Kind::Refused,
    }
}

/// Whether a state ends without anybody's doing.
fn passes(state: &str) -> bool {
    matches!(state, "forming" | "following")
}

fn nameless(state: Option<&str>) -> String {
    match state {
        Some("forming") => {
            "forming: it waits for its other members or its witnesses and does not serve yet; retry, and \
             if it stays so its operator must see that they are there"
                .to_owned()
        }
        Some("recovering") => {
            "recovering: it waits for shares (`bield recover status` tells) and does \
             not serve before holders have given them"
                .to_owned()
        }
        Some(state) => format!("{state:?}, and names no identity; its operator must look"),
        None => "names no identity; its operator must look".to_owned(),
    }
}

fn instead_of_a_share(state: &str) -> &'static str {
    match state {
        "serving" | "following" => {
            "it has its state, nothing is to be recovered; `bield recover give --rehearse` tries a share"
        }
        "forming" => "it waits for its other members; retry, or have its operator start them",
        _ => "its operator must look at why it does not serve",
    }
}

fn listed(errors: &[ServiceError]) -> String {
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

/// What an instance says that has found out that it was set back, copied or recovered elsewhere.
const LEFT: [&str; 2] = ["rolled-back", "forked"];
/// What a member that follows another one answers to everything.
const NOT_LEADER: &str = "not-leader";
