//! How a request ends: what is learnt from an answer, what a failure costs, what a client is told.

use std::time::Duration;

use bield_envelope::Digest;
use bield_protocol::feedback::{Feedback, StartKind};

use super::settle::COST_MIN_US;
use super::{Packer, Request};
use crate::event::{Decision, Failure, Group, Refusal, RequestId, WorkerId};
use crate::explain::{Candidate, Explanation, Outcome, micros};
use crate::worker::{Flight, Phase, Resident, Worker};

/// Bounds of `Retry-After`.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_secs(60 * 60);
/// Refusals after one event of which it is told what there was to choose from.
const LOOKED_MAX: usize = 16;

impl Packer {
    /// Frees the place of a request at a worker; the flight, if there is one, and whether the request is there as far as
    /// the packer decided: a word on anything else changes no more than this.
    fn free_place(&mut self, id: RequestId, at: WorkerId) -> (Option<Flight>, bool) {
        self.book(at);
        let mut flight = None;
        if let Some(worker) = self.workers.get_mut(&at)
            && let Some(place) = worker.flights.iter().position(|there| there.request == id)
        {
            flight = Some(worker.flights.remove(place));
            worker.count_again();
            if worker.flights.is_empty() {
                worker.idle_since = self.now;
                self.upkeep.soon(self.now);
            }
        }
        let request = self.requests.get(&id);
        (
            flight,
            request.is_some_and(|request| request.at == Some(at)),
        )
    }

    pub(super) fn answered(
        &mut self,
        id: RequestId,
        at: WorkerId,
        took: Duration,
        feedback: Option<Feedback>,
    ) {
        let (flight, true) = self.free_place(id, at) else {
            return;
        };
        self.totals.answered += 1;
        if let Some(feedback) = &feedback {
            *self.totals.starts.entry(feedback.start).or_default() += 1;
        }
        if let Some(worker) = self.workers.get_mut(&at)
            && let Some(flight) = flight
        {
            if worker.answered == 0 {
                self.start_failures = 0;
                self.slot_failures.remove(&worker.slot);
            }
            worker.did_well();
            worker.answered += 1;
            self.learn(at, &flight, took, feedback.as_ref());
        }
        self.forget(id, Some(took));
    }

    /// The place is free, and nothing is learnt.
    pub(super) fn returned(&mut self, id: RequestId, at: WorkerId) {
        if let (_, true) = self.free_place(id, at) {
            self.totals.returned += 1;
            self.forget(id, None);
        }
    }

    /// Learns from an answer. Nothing that is claimed exceeds what the driver measured.
    pub(super) fn learn(
        &mut self,
        at: WorkerId,
        flight: &Flight,
        took: Duration,
        feedback: Option<&Feedback>,
    ) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        let package = flight.package;
        let Some(feedback) = feedback else {
            if !flight.opening {
                self.packages.ran(package, took);
            }
            worker.used_now(package, &self.packages, &self.settings);
            worker.forget_told();
            return;
        };
        if let Some(place) = feedback.state {
            self.packages.state_told(package, at, place, self.now);
        }
        let bounded = |claimed: u64| Duration::from_micros(claimed).min(took);
        let opened = matches!(feedback.start, StartKind::WarmKey | StartKind::Cold);
        let phases = [feedback.lease_us, feedback.open_us, feedback.load_us];
        let open = phases.into_iter().fold(0, u64::saturating_add);
        let all = if opened { open } else { 0 }.saturating_add(feedback.run_us);
        let cost = micros(bounded(all)).max(COST_MIN_US);
        self.queue
            .correct(flight.caller, package, flight.charged, cost);
        // An answer that no run was made for, such as a refusal, says nothing of runs.
        let ran = feedback.run_us > 0;
        if opened && ran && self.packages.opened(package, bounded(open)) {
            self.upkeep.opened_again(bounded(open));
        }
        if ran {
            self.packages.ran(package, bounded(feedback.run_us));
        }
        if ran && flight.companions > 0 {
            let waited = bounded(feedback.queue_us) / flight.companions;
            worker.crowd.put_time(waited);
        }
        let mut resized = false;
        let kept = |held: &Resident| feedback.resident.contains(&held.package);
        if let Some(before) = flight.free_before.filter(|_| opened)
            && worker.nothing_opens()
            && worker.resident.iter().all(kept)
            && let Some(bytes) = before.checked_sub(feedback.free_bytes).filter(|n| *n > 0)
        {
            self.packages.took(package, bytes);
            resized = true;
        }
        worker.used_now(package, &self.packages, &self.settings);
        worker.told(&feedback.resident, feedback.free_bytes, &self.packages);
        if resized {
            self.workers.values().for_each(Worker::count_again);
        }
    }

    pub(super) fn failed(
        &mut self,
        id: RequestId,
        at: WorkerId,
        failure: Failure,
        out: &mut Vec<Decision>,
    ) {
        let now = self.now;
        let (_, true) = self.free_place(id, at) else {
            return;
        };
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        request.at = None;
        let package = request.package;
        let again = matches!(failure, Failure::Lost | Failure::Busy) && !request.left;
        let second = request.dispatches >= 2;
        request.not = Some(at);
        *self.totals.failures.entry(failure).or_default() += 1;
        if let Some(worker) = self.workers.get_mut(&at) {
            match failure {
                Failure::Busy => worker.was_busy(now),
                Failure::Lost => worker.did_badly(package, true, now),
                Failure::TimedOut | Failure::Broken => worker.did_badly(package, false, now),
            }
        }
        if !again {
            if let Some(request) = self.requests.get_mut(&id) {
                request.at = Some(at);
            }
            self.forget(id, None);
            return;
        }
        if let Some(package) = self.packages.get_mut(package) {
            package.in_flight = package.in_flight.saturating_sub(1);
        }
        if second {
            self.refuse(id, Refusal::Lost, out);
        } else {
            self.wait(id, true);
        }
    }

    /// A request is done with; `took` if it was answered.
    pub(super) fn forget(&mut self, id: RequestId, took: Option<Duration>) {
        self.unwait(id);
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        if let Some(package) = self.packages.get_mut(request.package)
            && request.at.is_some()
        {
            package.in_flight = package.in_flight.saturating_sub(1);
            package.last_end = Some(self.now);
            let expected = package.expected;
            if expected.learned {
                let from = self.now.saturating_add(expected.from);
                self.upkeep
                    .prewarm_by(from.saturating_sub(self.start.time().unwrap_or_default()));
            }
        }
        if matches!(request.group, Group::Endpoint(_)) {
            self.pool.give_back(request.package, self.now, took);
        }
    }

    /// Refuses a request that was taken.
    pub(super) fn refuse(&mut self, id: RequestId, refusal: Refusal, out: &mut Vec<Decision>) {
        self.unwait(id);
        if let Some(request) = self.requests.remove(&id) {
            if matches!(request.group, Group::Endpoint(_)) {
                self.pool.give_back(request.package, self.now, None);
            }
            self.say_no(id, &request, refusal, out);
        }
    }

    pub(super) fn say_no(
        &mut self,
        id: RequestId,
        request: &Request,
        refusal: Refusal,
        out: &mut Vec<Decision>,
    ) {
        *self.totals.refusals.entry(refusal).or_default() += 1;
        // Of who is turned away at the door, or with many others, nothing more is said, so that a flood is cheap.
        let at_door = matches!(refusal, Refusal::QueueFull | Refusal::ShareFull);
        let candidates = match at_door || out.len() >= LOOKED_MAX {
            true => Vec::new(),
            false => self.candidates(request),
        };
        let retry_after = self.retry_after(request.package, &candidates);
        let reason = match refusal {
            Refusal::QueueFull => "as many requests wait as may",
            Refusal::ShareFull => "as many requests of this caller wait as may",
            Refusal::AllBusy => "all endpoints are busy",
            Refusal::TooLate => "its deadline came while it waited",
            Refusal::NoWorker if self.draining => "no more requests are taken",
            Refusal::NoWorker => "no worker could be started",
            Refusal::Lost => "it failed at two workers",
        };
        self.explain(id, request, Outcome::Refused(refusal), reason, candidates);
        out.push(Decision::Refuse {
            request: id,
            refusal,
            retry_after,
        });
    }

    /// The predicted finish of one more request, behind those that wait.
    pub(super) fn retry_after(&self, package: Digest, candidates: &[Candidate]) -> Duration {
        let best = candidates.iter().map(|candidate| candidate.finish_us).min();
        let run = self.packages.run_time(package, &self.settings);
        let serving = self
            .workers
            .values()
            .filter(|w| w.phase == Phase::Serving)
            .count();
        let known = if serving > 0 { run } else { self.start_time() };
        let best = best.map_or(known, Duration::from_micros);
        let places = serving.max(1) * self.settings.concurrency.max(1) as usize;
        let ahead = u32::try_from(self.queue.len() / places).unwrap_or(u32::MAX);
        best.saturating_add(run.saturating_mul(ahead))
            .max(self.start_after.saturating_sub(self.now))
            .clamp(RETRY_MIN, RETRY_MAX)
    }

    pub(super) fn explain(
        &mut self,
        id: RequestId,
        request: &Request,
        outcome: Outcome,
        reason: &'static str,
        candidates: Vec<Candidate>,
    ) {
        self.explanations.put(Explanation {
            request: id,
            at_us: micros(self.now),
            policy: self.settings.policy.name(),
            package: request.package.to_string(),
            outcome,
            reason,
            dispatches: request.dispatches,
            waited_us: micros(self.now.saturating_sub(request.arrived)),
            candidates,
        });
    }
}
