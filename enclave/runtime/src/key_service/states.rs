//! Functions' states at the key service: holding them, anchoring their heads, letting go (`spec/09 §10`).
//!
//! ```text
//! StateRequest, … ──▶ one session ──▶ Held { token, ends, heads }, …     or why not, for each
//! ```
//!
//! Always true: a hold ends here a second before it does at the key service, since it is counted by the running clock from
//! before it was asked for, and clocks that run drift by less; a request may be said again, to another instance too, and means the same. Why the key service
//! refuses stays in the program, as with keys.
//!
//! Not here: when to hold and to anchor, and what the heads mean (who serves functions).

use std::sync::Arc;
use std::time::Duration;

use bield_capsule::Head;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{HeldState, Reply, Request, STATE_HOLD_SECS, StateAct, StateRequest};
use bield_session::Session;

use super::pipe::Pipe;
use super::{FETCH_WAIT, KeyService, exchange, no};
use crate::leases::KeysError;

/// Remembers who holds functions' states, and their newest heads.
pub(crate) trait StateKeeper: Send + Sync {
    /// Says all of `requests` in one session, in order; gives the answer to each.
    ///
    /// # Errors
    /// The key service cannot be asked, or answers nonsense. Some requests may have counted: say all again.
    fn ask_states(
        &self,
        requests: &[StateRequest],
    ) -> Result<Vec<Result<Held, StateError>>, KeysError>;

    /// Holds a state and has its writer certified, in one session; gives the signed certificate beside the hold.
    ///
    /// # Errors
    /// As [`ask_states`](Self::ask_states).
    fn begin_state(&self, hold: &StateRequest) -> Result<Result<Begun, StateError>, KeysError>;
}

/// A state that is held, and the certificate of its writer.
pub(crate) type Begun = (Held, Vec<u8>);

/// A state that is held, or, after a release, was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// Goes with the next anchors.
    pub(crate) token: u64,
    /// By the running clock: nothing may be answered from the state after this, unless it is held for longer by then.
    pub(crate) ends: Duration,
    /// All that is anchored: the state is whole only if it reaches each.
    pub(crate) heads: Vec<Head>,
}

/// Why a state is not held, or heads of it are not anchored. The sentences are public: they name nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    /// Another runtime has it, for so long if it dies now.
    #[error("another runtime holds the function's state; try again in {} ms, or there", .0.as_millis())]
    Held(Duration),
    /// Another runtime has, or had, it since; what this one has not anchored may never count.
    #[error("this runtime lost the function's state to another; try again, it is opened anew")]
    Taken,
    /// Other heads are anchored: what this runtime read is old, or another history.
    #[error(
        "the function's state was set back behind what its runtimes have anchored; its operator must look"
    )]
    Behind,
    /// The capsule is the state of another function of the owner.
    #[error(
        "the function's state belongs to another function; its owner must give this one a state of its own"
    )]
    OfAnother,
    /// The owner's limit, or the service's.
    #[error(
        "the key service takes no more states, or no more heads of this one; its owner or operator must look"
    )]
    Full,
    /// Its owner's runtimes have asked too often lately.
    #[error("runtimes of the function's owner ask the key service too often; try again in {} ms", .0.as_millis())]
    TooOften(Duration),
    /// The code is not granted, or not any more.
    #[error(transparent)]
    Keys(KeysError),
}

impl StateKeeper for Arc<KeyService> {
    fn ask_states(
        &self,
        requests: &[StateRequest],
    ) -> Result<Vec<Result<Held, StateError>>, KeysError> {
        self.ask_any(FETCH_WAIT, |session| {
            let answers = requests
                .iter()
                .map(|request| self.ask_state(session, request));
            answers.collect()
        })
    }

    fn begin_state(&self, hold: &StateRequest) -> Result<Result<Begun, StateError>, KeysError> {
        self.ask_any(FETCH_WAIT, |session| {
            let held = match self.ask_state(session, hold)? {
                Ok(held) => held,
                Err(error) => return Ok(Err(error)),
            };
            let question = Request::CertifyWriter(hold.capsule, hold.writer);
            match exchange(session, &question)? {
                Reply::WriterCertificate(certificate) => {
                    Ok(Ok((held, certificate.as_bytes().to_vec())))
                }
                Reply::Refused(refusal) => Ok(Err(StateError::Keys(no(&refusal)))),
                _ => Err(KeysError::Contradiction(
                    "something else than a writer's certificate",
                )),
            }
        })
    }
}

impl KeyService {
    fn ask_state(
        &self,
        session: &mut Session<Pipe>,
        request: &StateRequest,
    ) -> Result<Result<Held, StateError>, KeysError> {
        let asked = self.clock.running();
        let ends = match request.act {
            StateAct::Release(_) => asked,
            _ => asked + Duration::from_secs(STATE_HOLD_SECS).saturating_sub(DRIFT),
        };
        match exchange(session, &Request::State(request.clone()))? {
            Reply::State(state) => held(request, state, ends).map(Ok),
            Reply::Refused(refusal) => refused(&refusal).map(Err),
            _ => Err(KeysError::Contradiction("something else than a state")),
        }
    }
}

fn held(request: &StateRequest, state: HeldState, ends: Duration) -> Result<Held, KeysError> {
    let fits = match &request.act {
        StateAct::Anchor(anchors) | StateAct::Release(anchors) => {
            let kept = anchors.heads.iter().all(|head| state.heads.contains(head));
            kept && state.token == anchors.token
        }
        _ => true,
    };
    if !fits {
        return Err(KeysError::Contradiction("another state than it was told"));
    }
    Ok(Held {
        token: state.token,
        ends,
        heads: state.heads,
    })
}

/// How far two clocks may drift apart within a hold: what is answered before its end less this was so while nobody
/// else could hold the state.
const DRIFT: Duration = Duration::from_secs(1);

/// A no about this state, or else about the service.
fn refused(refusal: &Refusal) -> Result<StateError, KeysError> {
    let wait = match refusal.retry {
        Retry::After(ms) => Duration::from_millis(ms),
        _ => Duration::from_secs(STATE_HOLD_SECS),
    };
    Ok(match refusal.code.as_str() {
        "state-held" => StateError::Held(wait),
        "state-taken" => StateError::Taken,
        "state-behind" | "state-forked" => StateError::Behind,
        "state-of-another" => StateError::OfAnother,
        "full" => StateError::Full,
        "too-many-orders" => StateError::TooOften(wait),
        _ => match no(refusal) {
            error if error.is_outage() => return Err(error),
            error => StateError::Keys(error),
        },
    })
}
