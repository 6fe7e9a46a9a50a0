//! Why a request went where it went: the candidates as they looked when it was decided.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use serde::Serialize;

use crate::event::{Group, Refusal, RequestId, Slot, WorkerId};

/// Decisions that are remembered.
pub const EXPLANATIONS_MAX: usize = 4096;

/// The last decision on one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The request.
    pub request: RequestId,
    /// When, in microseconds since the driver's origin.
    pub at_us: u64,
    /// Name of the policy.
    pub policy: &'static str,
    /// The package, in hexadecimal.
    pub package: String,
    /// What was decided.
    pub outcome: Outcome,
    /// Why, in a sentence.
    pub reason: &'static str,
    /// Times it was dispatched so far.
    pub dispatches: u8,
    /// How long it waited so far, in microseconds.
    pub waited_us: u64,
    /// What it could choose from.
    pub candidates: Vec<Candidate>,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was sent to this worker.
    Dispatched(WorkerId),
    /// It waits, most likely for this worker.
    Waits(Option<WorkerId>),
    /// It was refused.
    Refused(Refusal),
}

/// One worker it could go to, or one that could be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The worker; none where one would be started.
    pub worker: Option<WorkerId>,
    /// Its place in the pool.
    pub slot: Option<Slot>,
    /// What it is for.
    pub group: Group,
    /// What it holds of the package.
    pub holds: Holds,
    /// Requests there.
    pub in_flight: u32,
    /// Predicted waiting, in microseconds: for a free place, and for its start if it does not serve yet.
    pub queue_us: u64,
    /// Predicted cost of making the package resident there, in microseconds: opening it, and what evicting others for
    /// it costs.
    pub switch_us: u64,
    /// Predicted finish from now, in microseconds.
    pub finish_us: u64,
}

/// What a worker holds of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// It is resident.
    Hot,
    /// Another request is opening it there.
    Opening,
    /// Nothing, but there is room.
    Nothing,
    /// Nothing, and others have to go for it.
    Full,
}

/// The last [`EXPLANATIONS_MAX`] of them.
#[derive(Default)]
pub(crate) struct Explanations {
    by_request: HashMap<RequestId, Explanation>,
    oldest_first: VecDeque<RequestId>,
}

impl Explanations {
    pub(crate) fn get(&self, request: RequestId) -> Option<&Explanation> {
        self.by_request.get(&request)
    }

    pub(crate) fn put(&mut self, explanation: Explanation) {
        let request = explanation.request;
        if self.by_request.insert(request, explanation).is_some() {
            return;
        }
        self.oldest_first.push_back(request);
        if self.oldest_first.len() > EXPLANATIONS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.by_request.remove(&oldest);
        }
    }
}

/// Whole microseconds, at most `u64::MAX`.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
