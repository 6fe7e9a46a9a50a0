//! The state machine.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bield_envelope::Digest;

use crate::event::{Caller, Decision, Event, Failure, Group, Refusal, RequestId, Slot, WorkerId};
use crate::explain::{Explanation, Explanations, Outcome, micros};
use crate::settings::Settings;
use crate::view::{Totals, View, WorkerState, WorkerView};

/// Decides which worker runs which request.
pub struct Packer {
    settings: Settings,
    now: Duration,
    workers: BTreeMap<WorkerId, Worker>,
    requests: HashMap<RequestId, Request>,
    waiting: VecDeque<RequestId>,
    explanations: Explanations,
    totals: Totals,
    next_worker: u64,
    draining: bool,
}

struct Worker {
    slot: Slot,
    state: WorkerState,
    in_flight: u32,
    since: Duration,
    idle_since: Duration,
    memory: u64,
}

struct Request {
    package: Digest,
    caller: Caller,
    arrived: Duration,
    deadline: Duration,
    at: Option<WorkerId>,
    dispatches: u8,
    left: bool,
}

impl Packer {
    /// An empty pool.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            now: Duration::ZERO,
            workers: BTreeMap::new(),
            requests: HashMap::new(),
            waiting: VecDeque::new(),
            explanations: Explanations::default(),
            totals: Totals::default(),
            next_worker: 0,
            draining: false,
        }
    }

    /// Takes in what happened at `now`, and appends what is to be done to `out`, in order.
    pub fn handle(&mut self, now: Duration, event: Event, out: &mut Vec<Decision>) {
        self.now = self.now.max(now);
        match event {
            Event::Arrived {
                request,
                package,
                caller,
                deadline,
            } => {
                self.totals.arrived += 1;
                self.requests.insert(
                    request,
                    Request {
                        package,
                        caller,
                        arrived: self.now,
                        deadline,
                        at: None,
                        dispatches: 0,
                        left: false,
                    },
                );
                let of_caller = self
                    .waiting
                    .iter()
                    .filter(|id| self.requests[*id].caller == caller)
                    .count();
                if self.draining {
                    self.refuse(request, Refusal::NoWorker, out);
                } else if self.waiting.len() >= self.settings.queue_max {
                    self.refuse(request, Refusal::QueueFull, out);
                } else if of_caller >= self.settings.share {
                    self.refuse(request, Refusal::ShareFull, out);
                } else {
                    self.waiting.push_back(request);
                }
            }
            Event::Left { request } => {
                self.totals.left += 1;
                self.waiting.retain(|id| *id != request);
                match self.requests.get_mut(&request) {
                    Some(found) if found.at.is_some() => found.left = true,
                    _ => drop(self.requests.remove(&request)),
                }
            }
            Event::Started { worker, .. } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.state = WorkerState::Serving;
                    found.idle_since = self.now;
                }
            }
            Event::StartFailed { worker } | Event::Ended { worker } => {
                self.workers.remove(&worker);
            }
            Event::Answered { request, .. } => {
                self.totals.answered += 1;
                self.free(request);
                self.requests.remove(&request);
            }
            Event::Failed { request, failure } => {
                *self.totals.failures.entry(failure).or_default() += 1;
                self.free(request);
                let again = matches!(failure, Failure::Lost | Failure::Busy);
                match self.requests.get(&request) {
                    Some(found) if again && !found.left && found.dispatches < 2 => {
                        self.waiting.push_front(request);
                    }
                    Some(found) if again && !found.left => self.refuse(request, Refusal::Lost, out),
                    _ => drop(self.requests.remove(&request)),
                }
            }
            Event::Measured { worker, bytes } => {
                if let Some(found) = self.workers.get_mut(&worker) {
                    found.memory = bytes;
                }
            }
            Event::Sized { .. } | Event::Tick => {}
        }
        self.settle(out);
    }

    /// When a [`Event::Tick`] is due.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Duration> {
        let deadlines = self.waiting.iter().map(|id| self.requests[id].deadline);
        let idle = self.workers.values().filter(|worker| worker.idle());
        let ends = idle.map(|worker| worker.idle_since + self.settings.keep_alive.fixed);
        deadlines.chain(ends).min()
    }

    /// Takes no more requests; those that arrive from now on are refused. Those that wait and run go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Why a request went where it went, of the last [`crate::EXPLANATIONS_MAX`] decisions.
    #[must_use]
    pub fn why(&self, request: RequestId) -> Option<&Explanation> {
        self.explanations.get(request)
    }

    /// Everything an operator may see.
    #[must_use]
    pub fn view(&self) -> View {
        let workers = self.workers.iter().map(|(id, worker)| WorkerView {
            worker: *id,
            slot: worker.slot,
            group: Group::One,
            state: worker.state,
            in_flight: worker.in_flight,
            resident: Vec::new(),
            free_bytes: self.settings.worker_bytes,
            memory_bytes: worker.memory,
            since_us: micros(worker.since),
            answered: 0,
            failures: 0,
            gb_s: 0.0,
        });
        View {
            policy: self.settings.policy.name(),
            at_us: micros(self.now),
            draining: self.draining,
            workers_max: self.settings.workers_max,
            workers: workers.collect(),
            waiting: self.waiting.len(),
            queue_max: self.settings.queue_max,
            packages: Vec::new(),
            callers: Vec::new(),
            start_us: micros(self.settings.start_guess),
            totals: self.totals.clone(),
        }
    }

    fn settle(&mut self, out: &mut Vec<Decision>) {
        for id in std::mem::take(&mut self.waiting) {
            if self.requests[&id].deadline <= self.now {
                self.refuse(id, Refusal::TooLate, out);
                continue;
            }
            let places = self.settings.concurrency;
            let free = self.workers.iter_mut().find(|(_, worker)| {
                worker.state == WorkerState::Serving && worker.in_flight < places
            });
            let Some((worker, found)) = free else {
                self.waiting.push_back(id);
                continue;
            };
            found.in_flight += 1;
            let worker = *worker;
            if let Some(request) = self.requests.get_mut(&id) {
                request.at = Some(worker);
                request.dispatches += 1;
            }
            out.push(Decision::Dispatch {
                request: id,
                worker,
            });
            self.explain(id, Outcome::Dispatched(worker), "a free place");
        }
        let starting = self
            .workers
            .values()
            .filter(|w| w.state == WorkerState::Starting)
            .count();
        let places = starting * self.settings.concurrency as usize;
        if self.waiting.len() > places && self.workers.len() < self.settings.workers_max as usize {
            self.start(out);
        }
        for (worker, found) in &mut self.workers {
            if found.idle() && self.now >= found.idle_since + self.settings.keep_alive.fixed {
                found.state = WorkerState::Stopping;
                self.totals.workers_stopped += 1;
                out.push(Decision::Stop { worker: *worker });
            }
        }
    }

    fn start(&mut self, out: &mut Vec<Decision>) {
        let slot = (0..self.settings.workers_max)
            .map(Slot)
            .find(|slot| self.workers.values().all(|worker| worker.slot != *slot));
        let Some(slot) = slot else { return };
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        self.totals.workers_started += 1;
        let state = Worker {
            slot,
            state: WorkerState::Starting,
            in_flight: 0,
            since: self.now,
            idle_since: self.now,
            memory: self.settings.worker_bytes,
        };
        self.workers.insert(worker, state);
        out.push(Decision::Start {
            worker,
            slot,
            group: Group::One,
        });
    }

    fn free(&mut self, request: RequestId) {
        let Some(found) = self.requests.get_mut(&request) else {
            return;
        };
        if let Some(worker) = found.at.take().and_then(|id| self.workers.get_mut(&id)) {
            worker.in_flight = worker.in_flight.saturating_sub(1);
            worker.idle_since = self.now;
        }
    }

    fn refuse(&mut self, request: RequestId, refusal: Refusal, out: &mut Vec<Decision>) {
        *self.totals.refusals.entry(refusal).or_default() += 1;
        self.explain(request, Outcome::Refused(refusal), "no place");
        self.requests.remove(&request);
        let retry_after = self.settings.start_guess;
        out.push(Decision::Refuse {
            request,
            refusal,
            retry_after,
        });
    }

    fn explain(&mut self, id: RequestId, outcome: Outcome, reason: &'static str) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        self.explanations.put(Explanation {
            request: id,
            at_us: micros(self.now),
            policy: self.settings.policy.name(),
            package: request.package.to_string(),
            outcome,
            reason,
            dispatches: request.dispatches,
            waited_us: micros(self.now.saturating_sub(request.arrived)),
            candidates: Vec::new(),
        });
    }
}

impl Worker {
    fn idle(&self) -> bool {
        self.state == WorkerState::Serving && self.in_flight == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_request_waits_for_a_worker_that_is_started_for_it() {
        let mut packer = Packer::new(Settings::default());
        let mut out = Vec::new();
        let request = RequestId(1);
        let package = Digest::of("test", &[b"m"]);
        let arrived = Event::Arrived {
            request,
            package,
            caller: Caller(0),
            deadline: SECOND * 9,
        };
        packer.handle(Duration::ZERO, arrived, &mut out);
        let worker = WorkerId(0);
        assert_eq!(
            out,
            [Decision::Start {
                worker,
                slot: Slot(0),
                group: Group::One
            }]
        );
        out.clear();
        packer.handle(
            SECOND,
            Event::Started {
                worker,
                took: SECOND,
            },
            &mut out,
        );
        assert_eq!(out, [Decision::Dispatch { request, worker }]);
    }
}
