//! What follows from an event: requests that are late are refused, others sent, and workers asked for.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Packer;
use crate::event::{Decision, Group, Refusal, RequestId, Slot, WorkerId};
use crate::explain::micros;
use crate::settings::Policy;
use crate::worker::{Flight, Phase, Worker};

/// Requests that wait and are looked at after an event.
const LOOK_AHEAD: usize = 64;
/// What a request costs its caller's share at least, in microseconds.
pub(super) const COST_MIN_US: u64 = 1000;

impl Packer {
    /// Decides all that follows from what is known now.
    pub(super) fn settle(&mut self, out: &mut Vec<Decision>) {
        while let Some((deadline, id)) = self.deadlines.first().copied()
            && deadline <= self.now
        {
            let served = self
                .workers
                .values()
                .any(|worker| worker.phase == Phase::Serving);
            let refusal = if served || self.start_failures == 0 {
                Refusal::TooLate
            } else {
                Refusal::NoWorker
            };
            self.refuse(id, refusal, out);
        }
        self.place(out);
        if self.upkeep.due.is_some_and(|due| due <= self.now) {
            self.maintain(out);
        }
    }

    /// Looks at requests that wait, in fair order.
    pub(super) fn place(&mut self, out: &mut Vec<Decision>) {
        self.replan_at = None;
        if self.queue.len() == 0 {
            return;
        }
        self.workers
            .values_mut()
            .for_each(|worker| worker.planned.clear());
        self.upkeep.busy(self.demand());
        if !self.has_free_place() && !self.may_start() {
            self.wait_for_pauses();
            return;
        }
        let order = {
            let (packages, settings) = (&self.packages, &self.settings);
            let cost = |package| micros(packages.run_time(package, settings)).max(COST_MIN_US);
            self.queue.order(LOOK_AHEAD, cost)
        };
        // Each stands for as many as are not looked at.
        let weight = self.queue.len().div_ceil(order.len().max(1));
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        for id in order {
            match self.settings.policy {
                Policy::Bield => self.choose(id, weight, out),
                Policy::FnPacker | Policy::OnePerModel | Policy::AllInOne => {
                    self.choose_blindly(id, out);
                }
            }
            if !self.has_free_place() && !self.may_start() {
                self.wait_for_pauses();
                return;
            }
        }
    }

    /// Nothing can be done before a place is free, which is an event, or before a pause is over.
    pub(super) fn wait_for_pauses(&mut self) {
        let pauses = self.workers.values().map(|worker| worker.avoid_until);
        let pauses = pauses.chain([self.start_after, self.replan_at.unwrap_or_default()]);
        self.replan_at = pauses.filter(|end| *end > self.now).min();
    }

    pub(super) fn dispatch(
        &mut self,
        id: RequestId,
        at: WorkerId,
        finish: Duration,
        out: &mut Vec<Decision>,
    ) {
        self.book(at);
        let charged = self.unwait_served(id, at);
        let (now, spares) = (self.now, self.settings.spares);
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        request.at = Some(at);
        request.dispatches += 1;
        self.totals.retried += u64::from(request.dispatches > 1);
        if request.arrived < worker.served && worker.answered == 0 {
            self.totals.cold_starts += 1;
        } else {
            // Waiting for it to start is not waiting for a place.
            let waited = micros(now.saturating_sub(request.arrived.max(worker.served)));
            self.upkeep.waited_us = self.upkeep.waited_us.saturating_add(waited);
            if let Some(package) = self.packages.get_mut(request.package) {
                package.waited_us = package.waited_us.saturating_add(waited);
            }
        }
        if spares > 0 && worker.is_empty() {
            self.upkeep.soon(now);
        }
        let opening = !worker.holds(request.package);
        let flight = Flight {
            request: id,
            package: request.package,
            caller: request.caller,
            sent: now,
            expected: now.saturating_add(finish),
            opening,
            companions: worker.in_flight(),
            charged,
            free_before: worker.told_free().filter(|_| opening),
        };
        worker.flights.push(flight);
        worker.count_again();
        worker.retiring = false;
        if opening {
            worker.forget_told();
        }
        if let Some(package) = self.packages.get_mut(request.package) {
            package.in_flight += 1;
        }
        out.push(Decision::Dispatch {
            request: id,
            worker: at,
        });
    }

    /// Takes a request out of the queue to be served; what it is charged, opening its package included.
    fn unwait_served(&mut self, id: RequestId, at: WorkerId) -> u64 {
        let Some(request) = self.requests.get(&id) else {
            return 0;
        };
        let package = request.package;
        let mut cost = self.packages.run_time(package, &self.settings);
        let there = |worker: &Worker| worker.holds(package) || worker.opening(package).is_some();
        if !self.workers.get(&at).is_some_and(there) {
            cost = cost.saturating_add(self.packages.open_time(package, &self.settings));
        }
        let cost = micros(cost).max(COST_MIN_US);
        self.queue.serve(id, cost);
        self.deadlines.remove(&(request.deadline, id));
        if let Some(package) = self.packages.get_mut(package) {
            package.waiting = package.waiting.saturating_sub(1);
        }
        cost
    }

    /// Whether another worker may be asked for.
    pub(super) fn may_start(&self) -> bool {
        self.workers.len() < self.settings.workers_max.max(1) as usize
            && self.now >= self.start_after
    }

    /// Asks for a worker in the free slot that `first` orders first, of those where fewest failed lately.
    pub(super) fn start_worker(
        &mut self,
        group: Group,
        first: impl Fn(Slot) -> u64,
        out: &mut Vec<Decision>,
    ) -> Option<WorkerId> {
        let taken: BTreeSet<_> = self.workers.values().map(|worker| worker.slot).collect();
        let free = (0..self.settings.workers_max.max(1)).map(Slot);
        let slot = free
            .filter(|slot| !taken.contains(slot))
            .min_by_key(|slot| {
                let failures = self.slot_failures.get(slot).copied();
                (failures.unwrap_or(0), first(*slot), *slot)
            })?;
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        self.totals.workers_started += 1;
        let new = Worker::new(slot, group, self.now, &self.settings);
        self.workers.insert(worker, new);
        out.push(Decision::Start {
            worker,
            slot,
            group,
        });
        Some(worker)
    }

    pub(super) fn stop_worker(&mut self, id: WorkerId, out: &mut Vec<Decision>) {
        if let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.is_idle()) {
            worker.phase = Phase::Stopping;
            self.totals.workers_stopped += 1;
            out.push(Decision::Stop { worker: id });
        }
    }
}
