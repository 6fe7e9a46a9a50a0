//! Which workers exist beside what requests ask for: keep-alive, spares, pre-warming, packing into fewer.
//!
//! * A worker lives until none of the packages it holds is expected within its keep-alive (`idle.rs`), wherever it was
//!   used last, and at least the floor after its own last request; then it ends, while more than `workers_min` live.
//! * As many empty workers as `spares` are kept ready.
//! * Shortly before a package is expected and no worker lives, an empty one is started.
//! * When for two intervals the packages in use or expected fit into one worker less, by first-fit decreasing, and so do the
//!   requests at once (of those that compute as many as there are cores, `cores.rs`), the worker whose packages are
//!   cheapest to open again retires: it ends when it is idle. When
//!   packages were opened again for longer than a start takes, since they do not fit, one more is started.
//!
//! Always true: without requests it comes to rest; a worker that was started for load is not packed away within
//! [`PATIENCE`] intervals, and each time one is started soon after another was packed away, that time doubles.
//!
//! On paper: O(workers × packages held) when a worker becomes idle and when a keep-alive ends; O(packages known) besides
//! once per interval, and when a package is expected.

use std::time::Duration;

use bield_envelope::Digest;

use super::Packer;
use super::choice::score;
use super::cores::Demand;
use crate::event::{Decision, Group, WorkerId};
use crate::settings::{Policy, Settings};
use crate::worker::{Phase, Worker};

/// Intervals between starting a worker for load and ending one for lack of it.
const PATIENCE: u32 = 4;
/// At most so many, when the one that ended is missed again and again.
const PATIENCE_MAX: u32 = 64;
/// Intervals in a row that must fit into fewer workers.
const QUIET: u32 = 2;
/// Not more often than this.
const PERIOD_MIN: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Upkeep {
    /// When it is to be done next.
    pub(super) due: Option<Duration>,
    interval_ends: Duration,
    /// When a package may have to be expected.
    prewarm: Option<Duration>,
    /// Most places, and most cores, that were asked for at once in this interval.
    peak: Demand,
    /// Intervals in a row that fit into fewer workers.
    quiet: u32,
    /// No worker is packed away before.
    not_before: Duration,
    /// Intervals from a start for load until then.
    patience: u32,
    /// When a worker was last packed away.
    packed: Option<Duration>,
    /// Time spent on opening packages again in this interval.
    reopened: Duration,
    /// What all requests waited for places lately, in microseconds.
    pub(super) waited_us: u64,
}

impl Upkeep {
    pub(super) fn new(settings: &Settings) -> Self {
        let kept = settings.policy == Policy::Bield && settings.workers_min + settings.spares > 0;
        Self {
            due: kept.then_some(Duration::ZERO),
            ..Self::default()
        }
    }

    pub(super) fn soon(&mut self, now: Duration) {
        self.due = Some(now);
    }

    pub(super) fn prewarm_by(&mut self, at: Duration) {
        self.prewarm = Some(self.prewarm.map_or(at, |other| other.min(at)));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    pub(super) fn busy(&mut self, demand: Demand) {
        self.peak.places = self.peak.places.max(demand.places);
        self.peak.cores = self.peak.cores.max(demand.cores);
    }

    pub(super) fn opened_again(&mut self, time: Duration) {
        self.reopened = self.reopened.saturating_add(time);
    }

    pub(super) fn started_for_load(&mut self, now: Duration, settings: &Settings) {
        let soon = settings
            .interval
            .saturating_mul(self.patience.max(PATIENCE) * 2);
        self.patience = match self.packed.take() {
            Some(packed) if now.saturating_sub(packed) <= soon => self.patience.saturating_mul(2),
            Some(_) => self.patience / 2,
            None => self.patience,
        };
        self.patience = self.patience.clamp(PATIENCE, PATIENCE_MAX);
        let patience = settings.interval.saturating_mul(self.patience);
        self.not_before = now.saturating_add(patience);
        self.quiet = 0;
        self.waited_us = 0;
    }
}

impl Packer {
    pub(super) fn maintain(&mut self, out: &mut Vec<Decision>) {
        self.upkeep.due = None;
        match self.settings.policy {
            Policy::Bield => self.maintain_bield(out),
            Policy::FnPacker | Policy::OnePerModel | Policy::AllInOne => self.end_idle(out),
        }
        let soonest = self.now.saturating_add(PERIOD_MIN);
        self.upkeep.due = self.upkeep.due.map(|due| due.max(soonest));
    }

    fn due_by(&mut self, at: Duration) {
        self.upkeep.due = Some(self.upkeep.due.map_or(at, |due| due.min(at)));
    }

    /// Baselines: idle workers live for the fixed keep-alive.
    fn end_idle(&mut self, out: &mut Vec<Decision>) {
        let fixed = self.settings.keep_alive.fixed;
        let idle = self.workers.iter().filter(|(_, worker)| worker.is_idle());
        let ends = idle.map(|(id, worker)| (*id, worker.idle_since.saturating_add(fixed)));
        for (id, end) in ends.collect::<Vec<_>>() {
            if end <= self.now {
                self.stop_worker(id, out);
            } else {
                self.due_by(end);
            }
        }
    }

    fn maintain_bield(&mut self, out: &mut Vec<Decision>) {
        if self.upkeep.interval_ends <= self.now {
            self.pack(out);
            let (now, interval) = (self.now, self.settings.interval.max(PERIOD_MIN));
            self.upkeep.interval_ends = now.saturating_add(interval);
            self.upkeep.reopened = Duration::ZERO;
            self.upkeep.waited_us /= 2;
            self.upkeep.prewarm = Some(now);
            self.packages.age_waiting();
            self.upkeep.peak = self.demand();
        }
        self.end_unneeded(out);
        if !self.draining {
            match self.upkeep.prewarm {
                Some(at) if at <= self.now => {
                    self.upkeep.prewarm = None;
                    self.prewarm(out);
                }
                Some(at) => self.due_by(at),
                None => {}
            }
            self.keep_ready(out);
        }
        if self.living().count() > 0 {
            self.due_by(self.upkeep.interval_ends);
        }
    }

    fn living(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        let living = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.phase != Phase::Stopping);
        living.map(|(id, worker)| (*id, worker))
    }

    fn end_unneeded(&mut self, out: &mut Vec<Decision>) {
        let mut living = self.living().count();
        if living <= self.settings.workers_min as usize {
            // None may end, so none is kept from work.
            self.workers
                .values_mut()
                .for_each(|worker| worker.retiring = false);
        }
        let mut empty = self
            .living()
            .filter(|(_, worker)| worker.is_empty())
            .count();
        let idle = self.living().filter(|(_, worker)| worker.is_idle());
        let mut ends: Vec<_> = idle
            .map(|(id, worker)| (self.needed_until(worker), id))
            .collect();
        ends.sort_unstable();
        for (end, id) in ends {
            let spare = self.workers.get(&id).is_some_and(Worker::is_empty);
            if living <= self.settings.workers_min as usize
                || (spare && empty <= self.settings.spares as usize)
            {
                continue;
            }
            if end > self.now {
                self.due_by(end);
                continue;
            }
            self.stop_worker(id, out);
            living -= 1;
            empty -= usize::from(spare);
        }
    }

    /// When an idle worker is not needed any more.
    fn needed_until(&self, worker: &Worker) -> Duration {
        let keep = &self.settings.keep_alive;
        if worker.retiring {
            return worker.idle_since;
        }
        let floor = worker.idle_since.saturating_add(keep.floor);
        let mut needed = floor.max(worker.until);
        for held in &worker.resident {
            let Some(known) = self.packages.get(held.package) else {
                continue;
            };
            if known.is_busy() {
                // Whether it is needed here, too, is for `pack` to say.
                needed = needed.max(self.upkeep.interval_ends);
                continue;
            }
            let last = known.last_end.unwrap_or(worker.idle_since);
            let from = last.saturating_add(known.expected.from);
            let open = self.packages.open_time(held.package, &self.settings);
            let again = self.start_time().saturating_add(open).saturating_mul(2);
            // Not expected for longer than it is worth: another is started before it is.
            if known.expected.learned && from > floor.saturating_add(again) {
                continue;
            }
            needed = needed.max(last.saturating_add(known.expected.until));
        }
        needed.min(
            worker
                .idle_since
                .saturating_add(keep.ceiling.max(keep.floor)),
        )
    }

    /// Starts empty workers for packages that are expected soon.
    fn prewarm(&mut self, out: &mut Vec<Decision>) {
        let start = self.start_time();
        let mut soon: Vec<(Duration, Duration, Digest)> = Vec::new();
        for (package, known) in self.packages.iter() {
            let Some(end) = known.last_end else { continue };
            let busy = known.in_flight > 0 || known.waiting > 0;
            let expected = known.expected;
            if busy || !expected.learned || expected.from.is_zero() || known.prewarmed == Some(end)
            {
                continue;
            }
            let until = end.saturating_add(expected.until);
            if until > self.now {
                let from = end.saturating_add(expected.from).saturating_sub(start);
                soon.push((from, until, package));
            }
        }
        soon.sort_unstable();
        for (from, until, package) in soon {
            if from > self.now {
                self.upkeep.prewarm_by(from);
                break;
            }
            // A worker that lives and will live makes room for it.
            let living = || self.living().filter(|(_, worker)| !worker.retiring);
            let holder = living().find(|(_, worker)| worker.holds(package));
            let has = holder.or_else(|| living().next()).map(|(id, _)| id);
            let started = match has {
                Some(worker) => Some(worker),
                None if self.may_start() => {
                    self.start_worker(Group::One, |slot| !score(package, slot), out)
                }
                None => None,
            };
            if started.is_none() && self.start_after > self.now {
                self.upkeep.prewarm_by(self.start_after);
            }
            if let Some(worker) = started.and_then(|id| self.workers.get_mut(&id)) {
                worker.until = worker.until.max(until);
                if let Some(known) = self.packages.get_mut(package) {
                    known.prewarmed = known.last_end;
                }
            }
        }
    }

    /// Starts workers until there are `workers_min`, and `spares` empty ones.
    fn keep_ready(&mut self, out: &mut Vec<Decision>) {
        loop {
            let living = self.living().count();
            let empty = self
                .living()
                .filter(|(_, worker)| worker.is_empty())
                .count();
            let short = living < self.settings.workers_min as usize
                || empty < self.settings.spares as usize;
            if !short || self.workers.len() >= self.settings.workers_max.max(1) as usize {
                return;
            }
            if self.now < self.start_after {
                self.due_by(self.start_after);
                return;
            }
            if self.start_worker(Group::One, |_| 0, out).is_none() {
                return;
            }
        }
    }

    /// At the end of an interval: are there too many workers, or too few?
    fn pack(&mut self, out: &mut Vec<Decision>) {
        let used = self
            .living()
            .filter(|(_, worker)| !worker.is_empty() && !worker.retiring);
        let used: Vec<_> = used.map(|(id, worker)| (id, worker.budget)).collect();
        let start = self.start_time();
        if !self.fits(used.iter().map(|(_, budget)| *budget).collect())
            && self.upkeep.reopened > start
            && self.may_start()
            && !self.draining
        {
            self.start_worker(Group::One, |_| 0, out);
            self.upkeep.started_for_load(self.now, &self.settings);
            return;
        }
        let cheapest = used
            .iter()
            .min_by_key(|(id, _)| (self.worth_us(*id), *id))
            .copied();
        let Some((cheapest, _)) = cheapest.filter(|_| used.len() > 1) else {
            self.upkeep.quiet = 0;
            return;
        };
        let rest = used.iter().filter(|(id, _)| *id != cheapest);
        let rest: Vec<_> = rest.map(|(_, budget)| *budget).collect();
        let places = rest.len() * self.settings.concurrency.max(1) as usize;
        let cores = rest.len().saturating_mul(self.worker_cores() as usize);
        let peak = self.upkeep.peak;
        // A quarter of the places stays free for bursts.
        let fits = peak.places * 4 <= places * 3 && peak.cores <= cores && self.fits(rest);
        self.upkeep.quiet = if fits { self.upkeep.quiet + 1 } else { 0 };
        if self.upkeep.quiet < QUIET || self.now < self.upkeep.not_before {
            return;
        }
        self.upkeep.quiet = 0;
        let stay = self.living().filter(|(_, worker)| !worker.retiring).count();
        if stay <= self.settings.workers_min.max(1) as usize {
            return;
        }
        if let Some(worker) = self.workers.get_mut(&cheapest) {
            worker.retiring = true;
            self.upkeep.packed = Some(self.now);
        }
    }

    /// Whether the packages in use, and those expected within their keep-alive, fit into workers of these budgets, by first-fit decreasing.
    fn fits(&self, mut budgets: Vec<u64>) -> bool {
        let active = self
            .packages
            .iter()
            .filter(|(_, known)| known.is_expected(self.now));
        let mut sizes: Vec<_> = active.map(|(_, known)| known.size()).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.into_iter().all(|size| {
            let room = budgets.iter_mut().find(|left| **left >= size);
            room.map(|left| *left -= size).is_some()
        })
    }

    /// What doing without a worker costs: opening again what it holds.
    fn worth_us(&self, id: WorkerId) -> u64 {
        let Some(worker) = self.workers.get(&id) else {
            return 0;
        };
        let held = worker
            .resident
            .iter()
            .map(|held| self.reopening_us(held.package, id));
        let busy = u64::from(worker.in_flight());
        held.fold(busy, u64::saturating_add)
    }
}
