//! Why a request of a function is refused for its state, as its sender reads it.
//!
//! Always true: what says "as it is, after …" is forgotten by the runtime ([`crate::call`]): the same bytes may come again.

use bield_protocol::refusal::{Refusal, Retry};

use super::AGAIN_MS;
use crate::key_service::states::StateError;
use crate::leases::KeysError;
use crate::refusals;

/// What a user reads when a state does not open or serve.
pub(crate) fn of_files(error: &bield_state::StateError) -> Refusal {
    use bield_state::StateError as E;
    let (code, retry) = match error {
        E::RolledBack { .. } => ("state-rolled-back", Retry::AfterChange),
        E::Behind { .. } => ("state-behind", Retry::AfterChange),
        E::Forked { .. } => ("state-forked", Retry::AfterChange),
        E::Files(_) | E::Stopped { .. } => ("state-unreachable", Retry::After(AGAIN_MS)),
        E::Full => ("state-busy", Retry::After(AGAIN_MS)),
        E::HoldEnded | E::CertificateEnded { .. } => ("state-held", Retry::After(AGAIN_MS)),
        E::TooLarge(_) => ("state-too-large", Retry::Never),
        _ => ("state-damaged", Retry::AfterChange),
    };
    Refusal::new(code, error, retry)
}

pub(super) fn damaged(error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(
        "state-damaged",
        format_args!(
            "what the package says of its state is not usable ({error}); its owner must pack the function again"
        ),
        Retry::AfterChange,
    )
}

pub(super) fn not_held(error: &StateError) -> Refusal {
    let retry = match error {
        StateError::Held(wait) | StateError::TooOften(wait) => {
            Retry::After(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
        }
        StateError::Taken => Retry::After(AGAIN_MS),
        _ => Retry::AfterChange,
    };
    match error {
        StateError::Keys(error) => refusals::no_keys(error),
        error => Refusal::new("state-held", error, retry),
    }
}

pub(super) fn no_keeper(error: &KeysError) -> Refusal {
    Refusal::new(
        "state-unreachable",
        format_args!(
            "nobody says who holds the function's state: {error}; send the request again in a moment"
        ),
        Retry::After(AGAIN_MS),
    )
}

pub(super) fn closing() -> Refusal {
    Refusal::new(
        "state-held",
        "this runtime lost the function's state and still ends what it began; send the request again in a moment",
        Retry::After(AGAIN_MS),
    )
}

pub(super) fn full() -> Refusal {
    Refusal::new(
        "states-full",
        "this runtime holds as many states of functions as it can; send the request again in a moment",
        Retry::After(AGAIN_MS),
    )
}
