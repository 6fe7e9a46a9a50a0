//! The state machine: what each event changes. What follows from it is decided in the files below.
//!
//! On paper: an event changes one request and one worker; then requests that wait are looked at in fair order, at most
//! 64 of them, each against every worker, and none while no place is free and no worker may be started. A
//! choice reads a few numbers per worker and what it holds; no body is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bield_envelope::Digest;

use crate::accounts::Accounts;
use crate::event::{Caller, Decision, Event, Group, Refusal, RequestId, Slot, WorkerId};
use crate::explain::{Explanation, Explanations};
use crate::measured::Measured;
use crate::packages::Packages;
use crate::pool::Pool;
use crate::queue::Queue;
use crate::settings::{Policy, Settings};
use crate::view::Totals;
use crate::worker::{Phase, Worker, doubled};

mod blind;
mod choice;
mod cores;
mod outcome;
#[cfg(test)]
mod properties;
mod settle;
mod show;
#[cfg(test)]
mod tests;
mod upkeep;

/// Pause after a worker could not be started; doubled with each more in a row.
const START_PAUSE: Duration = Duration::from_millis(250);
/// That pause at most.
const START_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A worker that lived so long, or for ten starts, did not fail to start.
const LIVED_MIN: Duration = Duration::from_secs(10);
/// Memory of a worker that is believed, in bytes: a pebibyte.
const MEMORY_MAX: u64 = 1 << 50;

/// Decides which worker runs which request, and which workers exist.
pub struct Packer {
    settings: Settings,
    now: Duration,
    workers: BTreeMap<WorkerId, Worker>,
    requests: HashMap<RequestId, Request>,
    queue: Queue,
    /// Of requests that wait.
    deadlines: BTreeSet<(Duration, RequestId)>,
    packages: Packages,
    pool: Pool,
    accounts: Accounts,
    explanations: Explanations,
    totals: Totals,
    start: Measured,
    start_failures: u32,
    /// Workers in a row that failed to start, or ended at once, by slot.
    slot_failures: BTreeMap<Slot, u32>,
    /// Bytes of the worker that was measured last; 0 before the first.
    measured: u64,
    /// No worker is started before.
    start_after: Duration,
    next_worker: u64,
    draining: bool,
    /// When a request that waits is to be looked at again.
    replan_at: Option<Duration>,
    upkeep: upkeep::Upkeep,
}

struct Request {
    package: Digest,
    caller: Caller,
    group: Group,
    arrived: Duration,
    deadline: Duration,
    at: Option<WorkerId>,
    dispatches: u8,
    /// Where it failed.
    not: Option<WorkerId>,
    left: bool,
}

impl Packer {
    /// An empty pool.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            upkeep: upkeep::Upkeep::new(&settings),
            pool: Pool::new(settings.fnpacker_pool),
            settings,
            now: Duration::ZERO,
            workers: BTreeMap::new(),
            requests: HashMap::new(),
            queue: Queue::default(),
            deadlines: BTreeSet::new(),
            packages: Packages::default(),
            accounts: Accounts::default(),
            explanations: Explanations::default(),
            totals: Totals::default(),
            start: Measured::default(),
            start_failures: 0,
            slot_failures: BTreeMap::new(),
            measured: 0,
            start_after: Duration::ZERO,
            next_worker: 0,
            draining: false,
            replan_at: None,
        }
    }

    /// Takes in what happened at `now`, and appends what is to be done to `out`, in order. A `now` before the last one
    /// counts as the last one; what cannot be (an unknown worker, an answer nobody waits for) changes nothing.
    pub fn handle(&mut self, now: Duration, event: Event, out: &mut Vec<Decision>) {
        self.now = self.now.max(now);
        let arrived = match &event {
            Event::Arrived {
                request, package, ..
            } if !self.requests.contains_key(request) => {
                let known = self.packages.get(*package);
                Some((
                    *request,
                    *package,
                    known.is_none_or(|known| !known.is_busy()),
                ))
            }
            _ => None,
        };
        match event {
            Event::Arrived {
                request,
                package,
                caller,
                deadline,
            } => {
                self.arrived(request, package, caller, deadline, out);
            }
            Event::Left { request } => self.left(request),
            Event::Started { worker, took } => self.started(worker, took),
            Event::StartFailed { worker } => self.gone(worker),
            Event::Ended { worker } => self.gone(worker),
            Event::Answered {
                request,
                worker,
                took,
                feedback,
            } => self.answered(request, worker, took, feedback),
            Event::Failed {
                request,
                worker,
                failure,
            } => self.failed(request, worker, failure, out),
            Event::Returned { request, worker } => self.returned(request, worker),
            Event::Sized { package, bytes } => {
                self.packages
                    .sized(package, bytes, &self.settings.keep_alive);
                self.workers.values().for_each(Worker::count_again);
            }
            Event::Measured { worker, bytes } => {
                self.book(worker);
                let bytes = bytes.min(MEMORY_MAX);
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.measured(bytes, &mut self.accounts);
                    self.measured = bytes;
                }
            }
            Event::Tick => {}
        }
        self.settle(out);
        let Some((request, package, was_idle)) = arrived else {
            return;
        };
        self.bound_queue(request, out);
        if self.requests.contains_key(&request) {
            self.packages
                .arrived(package, was_idle, self.now, &self.settings.keep_alive);
        }
        if self.why(request).is_none() {
            let reason = "waits: every place is taken, and no worker may be started";
            self.waits(request, None, reason, Vec::new());
        }
    }

    /// When an [`Event::Tick`] is due; none while nothing will happen by itself.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Duration> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        [deadline, self.replan_at, self.upkeep.due]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes no more requests; those that arrive from now on are refused. Those that wait and run go on; no worker is
    /// started but for them.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Why a request went where it went, of the last [`crate::EXPLANATIONS_MAX`] requests.
    #[must_use]
    pub fn why(&self, request: RequestId) -> Option<&Explanation> {
        self.explanations.get(request)
    }

    fn arrived(
        &mut self,
        id: RequestId,
        package: Digest,
        caller: Caller,
        deadline: Duration,
        out: &mut Vec<Decision>,
    ) {
        if self.requests.contains_key(&id) {
            return;
        }
        self.totals.arrived += 1;
        let mut request = Request {
            package,
            caller,
            group: Group::One,
            arrived: self.now,
            deadline,
            at: None,
            dispatches: 0,
            not: None,
            left: false,
        };
        let refusal = if self.draining {
            Some(Refusal::NoWorker)
        } else if self.settings.queue_max == 0 && !self.has_free_place() {
            Some(Refusal::QueueFull)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.say_no(id, &request, refusal, out);
            return;
        }
        request.group = match self.settings.policy {
            Policy::Bield | Policy::AllInOne => Group::One,
            Policy::OnePerModel => Group::Package(package),
            Policy::FnPacker => match self.pool.take(package, self.now) {
                Some(endpoint) => Group::Endpoint(endpoint),
                None => return self.say_no(id, &request, Refusal::AllBusy, out),
            },
        };
        self.packages.entry(package, &self.settings.keep_alive);
        self.requests.insert(id, request);
        self.wait(id, false);
    }

    /// Refuses a request that found no place, if more wait than may: it, or the last one of who has most that wait.
    fn bound_queue(&mut self, id: RequestId, out: &mut Vec<Decision>) {
        let Some(request) = self.requests.get(&id).filter(|r| r.at.is_none()) else {
            return;
        };
        let own = self.queue.of_caller(request.caller);
        let has_share = own <= self.settings.share.max(1);
        if self.queue.len() > self.settings.queue_max {
            let fullest = self.queue.fullest();
            let fullest = fullest.filter(|(waiting, _)| has_share && *waiting > own);
            let last = fullest.and_then(|(_, last)| {
                let last = last.filter_map(|id| Some((id, self.requests.get(&id)?)));
                let fresh = last.filter(|(_, request)| request.dispatches == 0);
                fresh.max_by_key(|(id, request)| (request.arrived, *id))
            });
            match last.map(|(last, _)| last) {
                Some(last) => self.refuse(last, Refusal::ShareFull, out),
                None => self.refuse(id, Refusal::QueueFull, out),
            }
        } else if !has_share {
            self.refuse(id, Refusal::ShareFull, out);
        }
    }

    /// Puts a request into the queue.
    fn wait(&mut self, id: RequestId, front: bool) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        self.queue.push(id, request.caller, request.package, front);
        self.deadlines.insert((request.deadline, id));
        if let Some(package) = self.packages.get_mut(request.package) {
            package.waiting += 1;
        }
    }

    /// Takes a request out of the queue, if it waits.
    fn unwait(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        if self.queue.remove(id) {
            self.deadlines.remove(&(request.deadline, id));
            if let Some(package) = self.packages.get_mut(request.package) {
                package.waiting = package.waiting.saturating_sub(1);
            }
        }
    }

    fn left(&mut self, id: RequestId) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if request.left {
            return;
        }
        request.left = true;
        self.totals.left += 1;
        if request.at.is_none() {
            self.forget(id, None);
        }
    }

    fn started(&mut self, id: WorkerId, took: Duration) {
        let now = self.now;
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if worker.phase != Phase::Starting {
            return;
        }
        worker.phase = Phase::Serving;
        worker.idle_since = now;
        worker.served = now;
        self.start.put_time(took);
        self.upkeep.soon(now);
    }

    /// A worker is gone, or never came.
    fn gone(&mut self, id: WorkerId) {
        self.book(id);
        let Some(mut worker) = self.workers.remove(&id) else {
            return;
        };
        worker.count_unmeasured(self.measured, &mut self.accounts);
        // One that ends before it did anything would be started over and over.
        let lived = match worker.phase {
            Phase::Starting => Duration::ZERO,
            Phase::Serving | Phase::Stopping => self.now.saturating_sub(worker.served),
        };
        let soon = self.start_time().saturating_mul(10).max(LIVED_MIN);
        if worker.phase != Phase::Stopping && worker.answered == 0 && lived < soon {
            let slot = self.slot_failures.entry(worker.slot).or_default();
            *slot = slot.saturating_add(1);
            self.totals.start_failures += u64::from(worker.phase == Phase::Starting);
            let pause = doubled(START_PAUSE, self.start_failures, START_PAUSE_MAX);
            self.start_failures = self.start_failures.saturating_add(1);
            self.start_after = self.now.saturating_add(pause);
        }
        self.upkeep.soon(self.now);
    }

    /// What starting a worker takes: measured, else guessed.
    fn start_time(&self) -> Duration {
        self.start.time().unwrap_or(self.settings.start_guess)
    }

    fn has_free_place(&self) -> bool {
        let has = |worker: &Worker| worker.has_place(&self.settings, self.now);
        self.workers.values().any(has)
    }

    /// Books a worker's memory up to now, before something changes who it is booked to.
    fn book(&mut self, id: WorkerId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.book(self.now, &self.packages, &mut self.accounts);
            if worker.is_unmeasured_for_long() {
                worker.count_unmeasured(self.measured, &mut self.accounts);
            }
        }
    }
}
