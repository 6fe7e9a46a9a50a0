//! Policy `bield`: where a request is predicted to be answered first.
//!
//! ```text
//! finish = waiting for a place + making the package resident + waiting for others inside + running it
//! ```
//!
//! Waiting for a place is none, or until those there are predicted to be answered, or the worker to serve. Making the
//! package resident is none where it is; what is left of it where another request opens it; its measured opening time
//! elsewhere, and where others must go for it, also what opening those again costs, by how likely they are asked for
//! while they would have stayed. Another worker is started when that is predicted to be earlier than all that waiting.
//!
//! The earliest finish of one request is not the best for all that come: where requests waited for places, together, as
//! long as opening another replica takes, the next one goes there and opens it; where they waited as long as starting
//! a worker takes, one is started. (The rule of ski rental: never more than twice what the better of both would have cost.)
//! Neither while every core that the workers share is busy (`cores.rs`).
//!
//! A function whose state a worker holds goes there, however long that takes: no other can answer it.
//!
//! Ties go to the worker that holds most, then to one in use before an empty spare, then by rendezvous hashing of
//! (package, slot), so that gateways that do not know of each other choose alike.

use std::time::Duration;

use bield_envelope::Digest;

use super::{Packer, Request};
use crate::event::{Decision, Group, RequestId, Slot, WorkerId};
use crate::explain::{Candidate, Holds, Outcome, micros};
use crate::settings::Policy;
use crate::worker::{Flight, Phase, Worker};

/// Finishes that differ by less than this, or by less than a twentieth, are alike.
const ALIKE_US: u64 = 1000;
/// A flight that is later than predicted is taken to need as long again as it is late, and at least this.
const LATE_MIN: Duration = Duration::from_millis(1);

impl Packer {
    /// Sends a request somewhere, or starts a worker, or lets it wait. It stands for `weight` requests.
    pub(super) fn choose(&mut self, id: RequestId, weight: u32, out: &mut Vec<Decision>) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let package = request.package;
        let run = micros(self.packages.run_time(package, &self.settings));
        let candidates = self.candidates(request);
        let best = self.best(package, &candidates);
        let starts = candidates
            .iter()
            .find(|candidate| candidate.worker.is_none());
        let wanted = starts.filter(|start| best.is_none_or(|best| self.is_worth(start, best)));
        let busy = self.cores_are_busy();
        if let Some(start) = wanted
            && (best.is_none() || !busy)
        {
            let worker = self.start_worker(Group::One, |slot| !score(package, slot), out);
            if let Some(worker) = worker.and_then(|id| self.workers.get_mut(&id)) {
                worker.planned.add(package, weight, run, start.switch_us);
            }
            self.upkeep.started_for_load(self.now, &self.settings);
            let reason = match best {
                Some(_) => {
                    "waits for a worker that is started: earlier than waiting for any there is"
                }
                None => "waits for a worker that is started: there is none it could go to",
            };
            self.waits(id, worker, reason, candidates);
            return;
        }
        let kept = wanted.is_some();
        let replica = |best| self.replica(package, best, &candidates).filter(|_| !busy);
        let best = best.map(|best| replica(best).unwrap_or(best));
        let Some((best, at)) = best.and_then(|best| Some((*best, best.worker?))) else {
            self.waits(id, None, "waits: no worker can be started now", candidates);
            return;
        };
        let now = self.now;
        let place = self
            .workers
            .get(&at)
            .is_some_and(|worker| worker.has_place(&self.settings, now));
        if !place {
            let wait = Duration::from_micros(best.queue_us.max(ALIKE_US));
            let again = now.saturating_add(wait);
            self.replan_at = Some(self.replan_at.map_or(again, |other| other.min(again)));
            if let Some(worker) = self.workers.get_mut(&at) {
                worker.planned.add(package, weight, run, best.switch_us);
            }
            let reason = match kept {
                true => "waits: all cores are busy; another worker would not be earlier",
                false => "waits for this worker: earlier than opening it elsewhere",
            };
            self.waits(id, Some(at), reason, candidates);
            return;
        }
        self.dispatch(id, at, Duration::from_micros(best.finish_us), out);
        if best.switch_us > 0
            && let Some(known) = self.packages.get_mut(package)
        {
            known.waited_us = 0;
        }
        let reason = match best.holds {
            Holds::Hot => "the package is resident and there is room",
            Holds::Opening => "another request opens the package there",
            Holds::Nothing => "nowhere earlier, and the package fits beside what is there",
            Holds::Full => "nowhere earlier, although others have to go for it",
        };
        if let Some(request) = self.requests.remove(&id) {
            self.explain(id, &request, Outcome::Dispatched(at), reason, candidates);
            self.requests.insert(id, request);
        }
    }

    /// Whether a worker that is started would do better than `best`.
    fn is_worth(&self, start: &Candidate, best: &Candidate) -> bool {
        // Starting costs the whole pool: a little earlier does not count.
        let worth = start.finish_us.saturating_add(start.queue_us / 8);
        let starts = |worker: &Worker| worker.phase == Phase::Starting;
        let waited = best.queue_us > 0
            && self.upkeep.waited_us > start.queue_us.saturating_add(start.switch_us)
            && !self.workers.values().any(starts);
        waited || best.finish_us > worth
    }

    /// Where `best` would have the request wait: a worker with a place where the package could be opened for less than
    /// its requests waited lately.
    fn replica<'a>(
        &self,
        package: Digest,
        best: &Candidate,
        candidates: &'a [Candidate],
    ) -> Option<&'a Candidate> {
        if best.queue_us == 0 {
            return None;
        }
        let waited = self.packages.get(package)?.waited_us;
        let free = candidates.iter().filter(|candidate| {
            candidate.worker.is_some() && candidate.queue_us == 0 && candidate.switch_us < waited
        });
        free.min_by_key(|candidate| candidate.finish_us)
    }

    /// Says that a request waits, unless that was said.
    pub(super) fn waits(
        &mut self,
        id: RequestId,
        for_worker: Option<WorkerId>,
        reason: &'static str,
        candidates: Vec<Candidate>,
    ) {
        let outcome = Outcome::Waits(for_worker);
        if self
            .why(id)
            .is_some_and(|said| said.outcome == outcome && said.reason == reason)
        {
            return;
        }
        if let Some(request) = self.requests.remove(&id) {
            self.explain(id, &request, outcome, reason, candidates);
            self.requests.insert(id, request);
        }
    }

    /// What a request can choose from; the last may be a worker that would be started.
    pub(super) fn candidates(&self, request: &Request) -> Vec<Candidate> {
        let package = request.package;
        let bield = self.settings.policy == Policy::Bield;
        let waits = self.settings.queue_max > 0;
        let times = Times {
            start: micros(self.start_time()),
            open: self.shared_us(micros(self.packages.open_time(package, &self.settings))),
            run: micros(self.packages.run_time(package, &self.settings)),
        };
        let state = self.state_at(request);
        let is_free = matches!(state, Whereabouts::Unknown);
        let predicted = |not: Option<WorkerId>, state: &Whereabouts| {
            let own = self.workers.iter().filter(|(id, worker)| {
                state.may_be(**id)
                    && worker.phase != Phase::Stopping
                    && (waits || worker.has_place(&self.settings, self.now))
                    && (bield || worker.group == request.group)
                    && not != Some(**id)
            });
            let predicted = own.map(|(id, worker)| self.predict(*id, worker, package, &times));
            predicted.collect::<Vec<_>>()
        };
        let mut candidates = predicted(request.not, &state);
        if waits && is_free && self.may_start() {
            candidates.push(Candidate {
                worker: None,
                slot: None,
                group: request.group,
                holds: Holds::Nothing,
                in_flight: 0,
                queue_us: times.start,
                switch_us: times.open,
                finish_us: times
                    .start
                    .saturating_add(times.open)
                    .saturating_add(times.run),
            });
        }
        if candidates.is_empty() {
            // Where it failed before is better than nowhere.
            candidates = predicted(None, &Whereabouts::Unknown);
        }
        candidates
    }

    /// Where the state of the request's function is.
    pub(super) fn state_at(&self, request: &Request) -> Whereabouts {
        let Some(known) = self.packages.get(request.package) else {
            return Whereabouts::Unknown;
        };
        let serves = |id: &WorkerId| {
            let worker = self.workers.get(id);
            worker.is_some_and(|worker| worker.phase == Phase::Serving)
        };
        if let Some(keeper) = known.state.keeper().filter(serves)
            && request.not != Some(keeper)
        {
            return Whereabouts::At(keeper);
        }
        let not: Vec<_> = known.state.not_there(self.now).filter(serves).collect();
        match not.is_empty() {
            true => Whereabouts::Unknown,
            false => Whereabouts::NotAt(not),
        }
    }

    fn predict(&self, id: WorkerId, worker: &Worker, package: Digest, times: &Times) -> Candidate {
        let concurrency = self.settings.concurrency.max(1);
        let late = |expected: Duration| match expected.checked_sub(self.now) {
            Some(left) if left >= LATE_MIN => left,
            _ => self.now.saturating_sub(expected).max(LATE_MIN),
        };
        let left = |flight: &Flight| micros(late(flight.expected));
        let mut queue = match worker.phase {
            Phase::Starting => {
                let serves = worker
                    .since
                    .saturating_add(Duration::from_micros(times.start));
                micros(late(serves)).saturating_add(worker.planned.rounds_us(concurrency))
            }
            _ if worker.in_flight() < concurrency => 0,
            _ => {
                let mut ends: Vec<_> = worker.flights.iter().map(left).collect();
                ends.sort_unstable();
                let next = ends[worker.planned.requests as usize % ends.len()];
                next.saturating_add(worker.planned.rounds_us(worker.in_flight()))
            }
        };
        queue = queue.max(micros(worker.avoid_until.saturating_sub(self.now)));
        if worker.retiring {
            queue = queue.saturating_add(times.start);
        }
        let (holds, switch) = if worker.holds(package) {
            (Holds::Hot, 0)
        } else if let Some(flight) = worker.opening(package) {
            let opened = left(flight).saturating_sub(times.run);
            (Holds::Opening, opened.saturating_sub(queue))
        } else if worker.planned.opens.contains(&package) {
            let behind = worker.planned.requests >= concurrency;
            (Holds::Opening, if behind { 0 } else { times.open })
        } else if self.packages.size(package) <= worker.free(&self.packages) {
            (Holds::Nothing, times.open)
        } else {
            let victims = worker.victims(package, &self.packages, &self.settings);
            let again = victims.iter().map(|victim| self.reopening_us(*victim, id));
            (Holds::Full, again.fold(times.open, u64::saturating_add))
        };
        let companions = u64::from(worker.in_flight().min(concurrency - 1));
        let inside = worker.crowd.get().unwrap_or(0).saturating_mul(companions);
        Candidate {
            worker: Some(id),
            slot: Some(worker.slot),
            group: worker.group,
            holds,
            in_flight: worker.in_flight(),
            queue_us: queue,
            switch_us: switch,
            finish_us: [switch, inside, times.run]
                .into_iter()
                .fold(queue, u64::saturating_add),
        }
    }

    /// What it costs that `package` is not resident at `worker` any more: opening it again, by how likely it is asked
    /// for while it would have stayed; nothing if another worker holds it, too.
    pub(super) fn reopening_us(&self, package: Digest, worker: WorkerId) -> u64 {
        let elsewhere = |(id, other): (&WorkerId, &Worker)| {
            *id != worker
                && other.phase == Phase::Serving
                && !other.retiring
                && other.holds(package)
        };
        if self.workers.iter().any(elsewhere) {
            return 0;
        }
        let Some(known) = self.packages.get(package) else {
            return 0;
        };
        let stays = known.expected.until.as_secs_f64();
        let likely = (known.rate(self.now) * stays).min(1.0);
        let open = self.packages.open_time(package, &self.settings);
        (micros(open) as f64 * likely) as u64
    }

    /// The worker that is predicted to answer first.
    fn best<'a>(&self, package: Digest, candidates: &'a [Candidate]) -> Option<&'a Candidate> {
        let workers = || {
            candidates
                .iter()
                .filter(|candidate| candidate.worker.is_some())
        };
        let first = workers().map(|candidate| candidate.finish_us).min()?;
        let alike = first.saturating_add(ALIKE_US.max(first / 20));
        let empty = |candidate: &Candidate| {
            let worker = candidate.worker.and_then(|id| self.workers.get(&id));
            worker.is_some_and(Worker::is_empty)
        };
        let alike = workers().filter(|candidate| candidate.finish_us <= alike);
        alike.min_by_key(|candidate| {
            let slot = candidate.slot.unwrap_or(Slot(0));
            (
                candidate.holds,
                candidate.queue_us > 0,
                empty(candidate),
                !score(package, slot),
            )
        })
    }
}

/// Which workers can answer, as far as the state of a function says.
pub(super) enum Whereabouts {
    /// All of them; also one that is started.
    Unknown,
    /// This one alone.
    At(WorkerId),
    /// All but these: one of the others may have it, and one that is started has not.
    NotAt(Vec<WorkerId>),
}

impl Whereabouts {
    pub(super) fn may_be(&self, at: WorkerId) -> bool {
        match self {
            Self::Unknown => true,
            Self::At(keeper) => *keeper == at,
            Self::NotAt(others) => !others.contains(&at),
        }
    }
}

/// What is predicted of a package, in microseconds.
struct Times {
    start: u64,
    open: u64,
    run: u64,
}

/// Rendezvous hashing: the slot with the highest score is a package's first choice (Thaler and Ravishankar, 1998). A
/// digest is hashed already, so its first eight bytes are mixed with the slot by the finaliser of SplitMix64.
pub(super) fn score(package: Digest, slot: Slot) -> u64 {
    let bytes = package.as_bytes();
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    let step = 0x9E37_79B9_7F4A_7C15_u64;
    let mut mixed = u64::from_be_bytes(word) ^ step.wrapping_mul(u64::from(slot.0) + 1);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
