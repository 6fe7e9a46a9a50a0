//! Why a key service's state is refused, and whose move it is.

use bield_envelope::{Principal, Time};
use bield_protocol::service::{NotContinued, Recovered};
use bield_tlog::note::KeyError;
use bield_tlog::{CheckpointError, Origin, QuorumError};

use super::Head;
use crate::words::{counted, is_or_are};

/// The service proved its code; its state is not one this home goes on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFresh {
    /// Less of the log than this home has seen.
    #[error(
        "ROLLED BACK by {}: its log has {shown}, this home has seen {seen}. Grants revoked \
         since may hold there again. Do not use it; its operator must bring back the newest state",
        counted(.seen.saturating_sub(*.shown), "record")
    )]
    RolledBack {
        /// Size that this home has seen.
        seen: u64,
        /// Size that was shown.
        shown: u64,
    },
    /// Another history than the one this home has seen.
    #[error(
        "FORKED: its log of {} does not begin with the {seen} this home has seen. Two \
         histories exist; do not use it, and show its operator this line",
        counted(*.shown, "record")
    )]
    Forked {
        /// Size that this home has seen.
        seen: u64,
        /// Size that was shown.
        shown: u64,
    },
    /// The log's key changed and its name did not.
    #[error(
        "its log {origin} is signed by another key than the one pinned: not the service this home knows"
    )]
    OtherKey {
        /// The log.
        origin: Origin,
    },
    /// Another service than the one that this home knows under the same trust file.
    #[error(
        "a NEW service: it is {found}, with a log of its own; under this trust file this home knows \
         {known}, with {}. A wiped service looks like this. If its operator says that the \
         change is meant, go on with `bield doctor --accept-service {found}`",
        counted(*.seen, "record")
    )]
    OtherService {
        /// Whom this home knows.
        known: Principal,
        /// Who is there now.
        found: Principal,
        /// Size of the known one's log that this home has seen.
        seen: u64,
    },
    /// A log that the known service does not go on with: from before a recovery, or beside it.
    #[error(
        "ANOTHER LOG of a service this home knows: {found} with {origin}, which no recovery leads to from the \
         one this home goes on with. An instance from before a recovery looks like this; what was revoked \
         since holds there again. Do not use it, nothing accepts it; its operator must switch it off"
    )]
    Left {
        /// Who shows it.
        found: Principal,
        /// The log.
        origin: Origin,
    },
    /// Members of one service show different logs at first contact.
    #[error(
        "TWO LOGS under one trust file: {one} shows {first}, {other} shows {second}; which of them is meant \
         is not known here. Do not use either; their operator must switch one off, or take its address out \
         of `key_service`"
    )]
    TwoLogs {
        /// An address.
        one: String,
        /// The log it shows.
        first: Origin,
        /// Another address.
        other: String,
        /// The log shown there.
        second: Origin,
    },
    /// Holders of shares recovered the service from another history than this home saw.
    #[error(
        "RECOVERED at {at} from ANOTHER BRANCH: the {} it goes on with do not begin with the \
         {seen} this home has seen. Two copies of the service had existed; whatever was ordered in the one this \
         home saw may be lost, and grants revoked there may hold again. Given by {holders}. If its operator \
         says that this branch is meant, go on with `bield doctor --accept-recovery`, then look through \
         `bield grants` and order again what is missing",
        counted(*.found, "record"), holders = listed(.holders)
    )]
    RecoveredElsewhere {
        /// Size that this home has seen.
        seen: u64,
        /// Size that it was recovered from.
        found: u64,
        /// When, by the service's clock.
        at: Time,
        /// Whose shares did it.
        holders: Vec<Principal>,
    },
    /// Holders of shares recovered the service from less than this home has seen.
    #[error(
        "RECOVERED at {at} from {}, this home has seen {seen}: {} {} gone, and \
         what was ordered in them does not hold. Given by {holders}. Order again what is missing after \
         `bield doctor --accept-recovery`",
        counted(*.found, "record"),
        counted(.seen.saturating_sub(*.found), "record"),
        is_or_are(.seen.saturating_sub(*.found)),
        holders = listed(.holders)
    )]
    Recovered {
        /// Size that this home has seen.
        seen: u64,
        /// Size that it was recovered from.
        found: u64,
        /// When, by the service's clock.
        at: Time,
        /// Whose shares did it.
        holders: Vec<Principal>,
    },
    /// What is said of recoveries does not lead from the known log to the shown one.
    #[error(
        "the recoveries it tells of do not lead from the log this home knows to its own; do not use it"
    )]
    Recoveries,
    /// Too few of the trust file's witnesses cosigned.
    #[error(
        "NOT WITNESSED as the trust file's [witnesses] demand: {error}; its operator must look"
    )]
    Unwitnessed {
        /// What is missing.
        #[source]
        error: QuorumError,
    },
    /// It acknowledged a change and does not show it.
    #[error(
        "it acknowledged a change in record {said} and shows a log of {shown}: do not rely on that change; \
         its operator must look"
    )]
    Unacknowledged {
        /// Size that it acknowledged.
        said: u64,
        /// Size that it shows.
        shown: u64,
    },
    /// What it says its log's key is cannot be one.
    #[error("its log's key: {0}")]
    Key(#[source] KeyError),
    /// What it shows as a checkpoint is none, or not signed by the log.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[source] CheckpointError),
    /// Other programs of this user kept newer heads all the time.
    #[error(
        "other programs use this home at the same time and were faster {tries} times; try again"
    )]
    Overtaken {
        /// How often.
        tries: u32,
    },
}

impl NotFresh {
    /// What is said to people of what `found` answered, compared with what was kept.
    pub(super) fn of(refused: NotContinued, kept: Option<&Head>, found: Principal) -> Self {
        match refused {
            NotContinued::Key(error) => Self::Key(error),
            NotContinued::Malformed(error) | NotContinued::Unsigned(error) => {
                Self::Checkpoint(error)
            }
            NotContinued::OtherKey { origin } => Self::OtherKey { origin },
            NotContinued::SetBack { seen, shown, by } => match by.map(|by| *by) {
                None => Self::RolledBack { seen, shown },
                Some(Recovered { at, holders, .. }) => Self::Recovered {
                    seen,
                    found: shown,
                    at,
                    holders,
                },
            },
            NotContinued::Forked { seen, shown, by } => match by.map(|by| *by) {
                None => Self::Forked { seen, shown },
                Some(Recovered { at, holders, .. }) => Self::RecoveredElsewhere {
                    seen,
                    found: shown,
                    at,
                    holders,
                },
            },
            // A service's identity derives from the root and the state, so the same name under another log is an
            // instance from before a recovery, or from beside one.
            NotContinued::OtherLog { origin } => match kept {
                Some(kept) if kept.service != found => Self::OtherService {
                    known: kept.service,
                    found,
                    seen: kept.size(),
                },
                _ => Self::Left { found, origin },
            },
            NotContinued::Recoveries => Self::Recoveries,
        }
    }

    /// Whether it is about another log than the known one, so that another address may show the known one.
    pub(crate) const fn is_of_another_log(&self) -> bool {
        matches!(self, Self::OtherService { .. } | Self::Left { .. })
    }

    /// A short word, stable across versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::RolledBack { .. } => "rolled-back",
            Self::Forked { .. } => "forked",
            Self::OtherKey { .. } => "other-log-key",
            Self::OtherService { .. } => "other-service",
            Self::Recovered { .. } => "recovered-from-less",
            Self::Left { .. } => "left-log",
            Self::TwoLogs { .. } => "two-logs",
            Self::RecoveredElsewhere { .. } => "recovered-elsewhere",
            Self::Recoveries => "recoveries-unconnected",
            Self::Unwitnessed { .. } => "not-witnessed",
            Self::Unacknowledged { .. } => "not-acknowledged",
            Self::Key(_) | Self::Checkpoint(_) => "malformed-head",
            Self::Overtaken { .. } => "overtaken",
        }
    }
}

fn listed(holders: &[Principal]) -> String {
    let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
    names.join(", ")
}
