//! One worker as the packer sees it: who is there, what it holds, and what it would evict.
//!
//! What it holds is its own word after each answer, and between answers what the runtime is expected to do: keep what
//! it opened, and evict by GreedyDual-Size-Frequency (`enclave/runtime/src/models.rs`) when that does not fit.
//!
//! Always true: at most [`RESIDENTS_MAX`] packages are taken to be there, none that this gateway neither sent there
//! nor knows the size of; what a worker says of its memory is bounded by [`BUDGET_MAX`].

use std::cell::Cell;
use std::time::Duration;

use bield_envelope::Digest;

use crate::accounts::{Accounts, ByteMicros};
use crate::event::{Caller, Group, RequestId, Slot};
use crate::measured::Measured;
use crate::packages::{Package, Packages};
use crate::settings::Settings;
use crate::view::WorkerState;

mod booked;

/// Resident packages that are believed of a worker (as many as feedback carries).
pub(crate) const RESIDENTS_MAX: usize = 64;
/// Bytes for models that are believed of a worker: a tebibyte.
const BUDGET_MAX: u64 = 1 << 40;
/// Failures in a row from which on a worker is left alone for a while.
const FAILURES_MIN: u32 = 2;
/// How long, after so many; doubled with each more.
const AVOID: Duration = Duration::from_millis(500);
/// How long at most.
const AVOID_MAX: Duration = Duration::from_secs(60);
/// How long after it refused a request unread; doubled with each more in a row.
const BUSY: Duration = Duration::from_millis(20);
/// That pause at most: others who share it may be done with it at any time.
const BUSY_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Serving,
    Stopping,
}

/// A request at a worker.
#[derive(Clone)]
pub(crate) struct Flight {
    pub(crate) request: RequestId,
    pub(crate) package: Digest,
    pub(crate) caller: Caller,
    pub(crate) sent: Duration,
    /// When it is predicted to be answered.
    pub(crate) expected: Duration,
    /// The package was not resident when it was sent.
    pub(crate) opening: bool,
    /// Others that were there when it was sent.
    pub(crate) companions: u32,
    /// What it was charged in the queue, in microseconds.
    pub(crate) charged: u64,
    /// Bytes the worker had free when it was sent, if it told and nothing else was being opened.
    pub(crate) free_before: Option<u64>,
}

/// Requests that are to wait for a worker, and the work they are.
#[derive(Default)]
pub(crate) struct Planned {
    pub(crate) requests: u32,
    pub(crate) work_us: u64,
    /// Packages that they will open there.
    pub(crate) opens: Vec<Digest>,
}

impl Planned {
    pub(crate) fn clear(&mut self) {
        self.requests = 0;
        self.work_us = 0;
        self.opens.clear();
    }

    /// Adds `weight` requests of `package`, each of `run_us`, the first of which opens it within `open_us`.
    pub(crate) fn add(&mut self, package: Digest, weight: u32, run_us: u64, open_us: u64) {
        self.requests = self.requests.saturating_add(weight);
        let runs = run_us.saturating_mul(u64::from(weight));
        self.work_us = self.work_us.saturating_add(runs);
        if open_us > 0 && !self.opens.contains(&package) {
            self.work_us = self.work_us.saturating_add(open_us);
            self.opens.push(package);
        }
    }

    /// How long what is planned takes beyond the first of `places`, in microseconds.
    pub(crate) fn rounds_us(&self, places: u32) -> u64 {
        if self.requests < places {
            0
        } else {
            self.work_us / u64::from(places)
        }
    }
}

#[derive(Clone)]
pub(crate) struct Resident {
    pub(crate) package: Digest,
    uses: u32,
    /// Age of the worker's cache at its last use.
    age: f64,
}

pub(crate) struct Worker {
    pub(crate) slot: Slot,
    pub(crate) group: Group,
    pub(crate) phase: Phase,
    /// Ends when idle; nothing is sent to it while another will do.
    pub(crate) retiring: bool,
    pub(crate) since: Duration,
    /// When it served first.
    pub(crate) served: Duration,
    pub(crate) idle_since: Duration,
    /// Kept until then, since a package is expected.
    pub(crate) until: Duration,
    pub(crate) flights: Vec<Flight>,
    pub(crate) resident: Vec<Resident>,
    /// Bytes it said are free, at its last answer.
    told_free: Option<u64>,
    /// Bytes it has for models.
    pub(crate) budget: u64,
    /// [`Worker::used`], until something changes: choices ask for it far more often.
    used: Cell<Option<u64>>,
    /// Age of its cache: what the last evicted was worth.
    age: f64,
    /// Bytes of its process, once measured.
    pub(crate) memory: Option<u64>,
    /// Its time until it was measured, as of a byte.
    unmeasured: Accounts,
    pub(crate) failures: u32,
    last_failed: Option<Digest>,
    busy: u32,
    pub(crate) avoid_until: Duration,
    /// What a request there waited for each other one, in microseconds.
    pub(crate) crowd: Measured,
    pub(crate) answered: u64,
    /// What was decided to wait for it, in the present look at the queue.
    pub(crate) planned: Planned,
    /// Until when its memory is booked, and how much it was so far.
    pub(crate) booked: Duration,
    pub(crate) taken: ByteMicros,
}

impl Worker {
    pub(crate) fn new(slot: Slot, group: Group, now: Duration, settings: &Settings) -> Self {
        Self {
            slot,
            group,
            phase: Phase::Starting,
            retiring: false,
            since: now,
            served: now,
            idle_since: now,
            until: Duration::ZERO,
            flights: Vec::new(),
            resident: Vec::new(),
            told_free: None,
            budget: settings.worker_bytes,
            used: Cell::new(None),
            age: 0.0,
            memory: None,
            unmeasured: Accounts::default(),
            failures: 0,
            last_failed: None,
            busy: 0,
            avoid_until: Duration::ZERO,
            crowd: Measured::default(),
            answered: 0,
            planned: Planned::default(),
            booked: now,
            taken: 0,
        }
    }

    pub(crate) fn state(&self, now: Duration) -> WorkerState {
        match self.phase {
            Phase::Starting => WorkerState::Starting,
            Phase::Stopping => WorkerState::Stopping,
            Phase::Serving if self.retiring => WorkerState::Retiring,
            Phase::Serving if now < self.avoid_until => WorkerState::Avoided,
            Phase::Serving if self.is_empty() => WorkerState::Empty,
            Phase::Serving => WorkerState::Serving,
        }
    }

    /// It serves and nobody is there.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Serving && self.flights.is_empty()
    }

    /// It holds nothing, and nobody is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty() && self.resident.is_empty()
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.flights.len() as u32
    }

    pub(crate) fn has_place(&self, settings: &Settings, now: Duration) -> bool {
        self.phase == Phase::Serving
            && now >= self.avoid_until
            && self.in_flight() < settings.concurrency.max(1)
    }

    pub(crate) fn holds(&self, package: Digest) -> bool {
        self.resident.iter().any(|held| held.package == package)
    }

    pub(crate) fn opening(&self, package: Digest) -> Option<&Flight> {
        self.flights.iter().find(|flight| flight.package == package)
    }

    /// Bytes of what is resident or being opened.
    pub(crate) fn used(&self, packages: &Packages) -> u64 {
        if let Some(used) = self.used.get() {
            return used;
        }
        let resident = self.resident.iter().map(|held| packages.size(held.package));
        let opening = self.flights.iter().enumerate().filter(|(at, flight)| {
            !self.holds(flight.package)
                && self.flights[..*at]
                    .iter()
                    .all(|other| other.package != flight.package)
        });
        let opening = opening.map(|(_, flight)| packages.size(flight.package));
        let used = resident.chain(opening).fold(0, u64::saturating_add);
        self.used.set(Some(used));
        used
    }

    /// To be called when what is there changes, or the size of a package.
    pub(crate) fn count_again(&self) {
        self.used.set(None);
    }

    pub(crate) fn free(&self, packages: &Packages) -> u64 {
        self.budget.saturating_sub(self.used(packages))
    }

    /// What has to go for `package`, least worth first; empty when it fits.
    pub(crate) fn victims(
        &self,
        package: Digest,
        packages: &Packages,
        settings: &Settings,
    ) -> Vec<Digest> {
        let need = packages.size(package);
        let mut free = self.free(packages);
        if need <= free {
            return Vec::new();
        }
        let idle = self
            .resident
            .iter()
            .filter(|held| self.opening(held.package).is_none());
        let mut idle: Vec<_> = idle.collect();
        idle.sort_by(|a, b| {
            let worth = |held| self.worth(held, packages, settings);
            worth(a)
                .total_cmp(&worth(b))
                .then(a.package.cmp(&b.package))
        });
        let goes = idle.into_iter().take_while(|held| {
            let more = need > free;
            free = free.saturating_add(packages.size(held.package));
            more
        });
        goes.map(|held| held.package).collect()
    }

    fn worth(&self, held: &Resident, packages: &Packages, settings: &Settings) -> f64 {
        let open = packages.open_time(held.package, settings).as_secs_f64();
        let bytes = packages.size(held.package).max(1) as f64;
        held.age + f64::from(held.uses) * open / bytes
    }

    /// It was used: it is resident from now on, and what does not fit beside it is not.
    pub(crate) fn used_now(&mut self, package: Digest, packages: &Packages, settings: &Settings) {
        let age = self.age;
        if let Some(held) = self
            .resident
            .iter_mut()
            .find(|held| held.package == package)
        {
            held.uses = held.uses.saturating_add(1);
            held.age = age;
            return;
        }
        let mut victims = self.victims(package, packages, settings);
        if victims.is_empty() && self.resident.len() >= RESIDENTS_MAX {
            victims.extend(self.resident.first().map(|held| held.package));
        }
        for victim in victims {
            if let Some(at) = self.resident.iter().position(|held| held.package == victim) {
                let gone = self.resident.remove(at);
                self.age = self.age.max(self.worth(&gone, packages, settings));
            }
        }
        self.add(package);
    }

    fn add(&mut self, package: Digest) {
        self.count_again();
        self.resident.push(Resident {
            package,
            uses: 1,
            age: self.age,
        });
    }

    /// Takes its word for what it holds and what it has free, as far as that can be known.
    pub(crate) fn told(&mut self, resident: &[Digest], free: u64, packages: &Packages) {
        let mut told = resident[..resident.len().min(RESIDENTS_MAX)].to_vec();
        told.sort_unstable();
        told.dedup();
        self.resident
            .retain(|held| told.binary_search(&held.package).is_ok());
        if self.resident.len() < told.len() {
            for package in told {
                let known = packages.get(package).is_some_and(Package::is_sized);
                if known && !self.holds(package) {
                    self.add(package);
                }
            }
        }
        self.count_again();
        let free = free.min(BUDGET_MAX);
        self.told_free = Some(free);
        // While another is being opened, its bytes may be taken already or not.
        if self.nothing_opens() {
            self.budget = self.used(packages).saturating_add(free).min(BUDGET_MAX);
        }
    }

    pub(crate) fn nothing_opens(&self) -> bool {
        !self.flights.iter().any(|flight| flight.opening)
    }

    pub(crate) fn told_free(&self) -> Option<u64> {
        self.told_free.filter(|_| self.nothing_opens())
    }

    pub(crate) fn forget_told(&mut self) {
        self.told_free = None;
    }

    /// It answered.
    pub(crate) fn did_well(&mut self) {
        self.failures = 0;
        self.busy = 0;
        self.last_failed = None;
        self.avoid_until = Duration::ZERO;
    }

    /// It was lost, or it failed with `package`; one package that fails again and again counts once, so that it keeps
    /// nobody else from the worker.
    pub(crate) fn did_badly(&mut self, package: Digest, lost: bool, now: Duration) {
        if lost || self.last_failed != Some(package) {
            self.failures = self.failures.saturating_add(1);
        }
        self.last_failed = Some(package);
        if self.failures >= FAILURES_MIN {
            let pause = doubled(AVOID, self.failures - FAILURES_MIN, AVOID_MAX);
            self.avoid_until = self.avoid_until.max(now.saturating_add(pause));
        }
    }

    /// It refused a request unread.
    pub(crate) fn was_busy(&mut self, now: Duration) {
        let pause = doubled(BUSY, self.busy, BUSY_MAX);
        self.busy = self.busy.saturating_add(1);
        self.avoid_until = self.avoid_until.max(now.saturating_add(pause));
    }
}

/// `pause` doubled `times` times, at most `most`.
pub(crate) fn doubled(pause: Duration, times: u32, most: Duration) -> Duration {
    pause.saturating_mul(1 << times.min(20)).min(most)
}
