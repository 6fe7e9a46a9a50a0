//! The baselines: requests go by group, and inside a group as OpenWhisk sends them, blind to what workers hold.
//!
//! A free place in a warm worker of the group; else a worker of the group that starts and still has a place; else
//! another worker, while there may be more; else one in place of another group's that has been idle longest; else it
//! waits. Idle workers live for the fixed keep-alive. Blind but for one thing: a function goes to the worker of its group that
//! holds its state, since no other can answer it.

use super::Packer;
use super::choice::Whereabouts;
use crate::event::{Decision, Group, RequestId, WorkerId};
use crate::explain::Outcome;
use crate::worker::{Phase, Worker};

impl Packer {
    pub(super) fn choose_blindly(&mut self, id: RequestId, out: &mut Vec<Decision>) {
        let Some(request) = self.requests.get(&id) else {
            return;
        };
        let (group, not, package) = (request.group, request.not, request.package);
        let candidates = self.candidates(request);
        let state = self.state_at(request);
        let own = |(_, worker): &(&WorkerId, &Worker)| worker.group == group;
        let place = |worker: &Worker| worker.has_place(&self.settings, self.now);
        let free = |except: Option<WorkerId>, state: &Whereabouts| {
            let free = self.workers.iter().filter(own);
            let free = free.filter(|(id, _)| except != Some(**id) && state.may_be(**id));
            free.filter(|(_, worker)| place(worker))
                .map(|(id, _)| *id)
                .next()
        };
        let waits_for = match &state {
            Whereabouts::At(keeper) => self
                .workers
                .get(keeper)
                .is_some_and(|worker| worker.group == group),
            _ => false,
        };
        let starting = self.workers.iter().filter(own).find(|(_, worker)| {
            worker.phase == Phase::Starting
                && worker.planned.requests < self.settings.concurrency.max(1)
        });
        let starting = starting.map(|(id, _)| *id);
        // Where it failed before is better than nowhere.
        let nowhere = starting.is_none() && !self.may_start();
        let anywhere = || free(None, &Whereabouts::Unknown).filter(|_| nowhere && !waits_for);
        if let Some(at) = free(not, &state).or_else(anywhere) {
            let finish = self.packages.run_time(request.package, &self.settings);
            self.dispatch(id, at, finish, out);
            if let Some(request) = self.requests.remove(&id) {
                let outcome = Outcome::Dispatched(at);
                self.explain(
                    id,
                    &request,
                    outcome,
                    "a free place in a warm worker",
                    candidates,
                );
                self.requests.insert(id, request);
            }
            return;
        }
        let (worker, reason) = if waits_for {
            self.wait_for_pauses();
            (None, "waits for a place where the function's state is")
        } else if let Some(worker) = starting {
            (Some(worker), "waits for a worker that starts")
        } else if self.may_start() {
            let worker = self.start_worker(group, |_| 0, out);
            (
                worker,
                "waits for a worker that is started: no place is free in a warm one",
            )
        } else {
            let full = self.workers.len() >= self.settings.workers_max.max(1) as usize;
            if full {
                self.replace(group, out);
            }
            let own = self.workers.values().filter(|worker| worker.group == group);
            let pauses = own.map(|worker| worker.avoid_until);
            let pauses = pauses.chain((!full).then_some(self.start_after));
            let pauses = pauses.chain(self.replan_at);
            self.replan_at = pauses.filter(|end| *end > self.now).min();
            let reason = match full {
                true => "waits: as many workers as may be",
                false => "waits: no worker can be started now",
            };
            (None, reason)
        };
        if let Some(worker) = worker.and_then(|id| self.workers.get_mut(&id)) {
            worker.planned.add(package, 1, 0, 0);
        }
        self.waits(id, worker, reason, candidates);
    }

    /// Ends the worker of another group that has been idle longest, unless one ends already: its slot is for the next
    /// that starts.
    fn replace(&mut self, group: Group, out: &mut Vec<Decision>) {
        let workers = self.workers.iter();
        let ends = workers
            .clone()
            .any(|(_, worker)| worker.phase == Phase::Stopping);
        let idle = workers.filter(|(_, worker)| worker.is_idle() && worker.group != group);
        let longest = idle.min_by_key(|(id, worker)| (worker.idle_since, **id));
        let longest = longest.map(|(id, _)| *id);
        if let Some(longest) = longest.filter(|_| !ends) {
            self.stop_worker(longest, out);
        }
    }
}
