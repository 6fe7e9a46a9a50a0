//! What is known of each package: how often it is asked for, how large it is, what opening and running it takes.
//!
//! Always true: at most [`PACKAGES_MAX`] are known, so a stream of made-up digests takes no memory; one of which a
//! request waits or runs is not forgotten.

use std::collections::HashMap;
use std::time::Duration;

use bield_envelope::Digest;
use bield_protocol::feedback::StatePlace;

use crate::event::WorkerId;
use crate::idle::{Expected, IdleTimes};
use crate::measured::Measured;
use crate::settings::{KeepAlive, Settings};

/// Packages that are remembered.
pub(crate) const PACKAGES_MAX: usize = 4096;
/// As many are forgotten at once, so that the search is paid once for all of them.
const FORGOTTEN: usize = PACKAGES_MAX / 8;

/// How long a worker is believed that it has not a function's state: it may get it at any time.
const NOT_THERE: Duration = Duration::from_secs(1);
/// Of so many workers that is remembered.
const NOT_THERE_MAX: usize = 64;

/// A resident package may be measured to take so many times its file, and so much more ...
const SIZE_FACTOR_MAX: u64 = 16;
/// ... in bytes.
const SIZE_MORE_MAX: u64 = 256 << 20;

/// One package.
pub(crate) struct Package {
    /// Length of its file.
    sized: Option<u64>,
    /// Bytes it took when it became resident.
    took: Measured,
    open: Measured,
    run: Measured,
    /// Time between arrivals.
    between: Measured,
    idle: IdleTimes,
    pub(crate) expected: Expected,
    pub(crate) arrived: u64,
    last_arrival: Option<Duration>,
    /// When the last of its requests ended.
    pub(crate) last_end: Option<Duration>,
    /// The `last_end` up to which its idle times are recorded.
    recorded: Option<Duration>,
    pub(crate) waiting: usize,
    /// What its requests waited for places lately, in microseconds.
    pub(crate) waited_us: u64,
    pub(crate) in_flight: u32,
    /// The `last_end` after which a worker was started for it in advance.
    pub(crate) prewarmed: Option<Duration>,
    pub(crate) state: StateAt,
}

/// Which worker holds the state of a package that is a function, as workers say.
#[derive(Default)]
pub(crate) struct StateAt {
    keeper: Option<WorkerId>,
    /// Workers that said that they do not, and until when that is believed.
    not: Vec<(WorkerId, Duration)>,
}

impl StateAt {
    fn told(&mut self, worker: WorkerId, place: StatePlace, now: Duration) {
        match place {
            StatePlace::Here => {
                self.keeper = Some(worker);
                self.not.clear();
            }
            StatePlace::Elsewhere(millis) => {
                self.keeper.take_if(|keeper| *keeper == worker);
                self.not
                    .retain(|(other, until)| *other != worker && now < *until);
                let wait = Duration::from_millis(millis).min(NOT_THERE);
                if self.not.len() < NOT_THERE_MAX {
                    self.not.push((worker, now.saturating_add(wait)));
                }
            }
            _ => {}
        }
    }

    pub(crate) const fn keeper(&self) -> Option<WorkerId> {
        self.keeper
    }

    /// Workers that do not have it.
    pub(crate) fn not_there(&self, now: Duration) -> impl Iterator<Item = WorkerId> {
        let not = self.not.iter().filter(move |(_, until)| now < *until);
        not.map(|(worker, _)| *worker)
    }
}

impl Package {
    fn new(keep: &KeepAlive) -> Self {
        Self {
            sized: None,
            took: Measured::default(),
            open: Measured::default(),
            run: Measured::default(),
            between: Measured::default(),
            idle: IdleTimes::default(),
            expected: IdleTimes::default().expected(keep),
            arrived: 0,
            last_arrival: None,
            last_end: None,
            recorded: None,
            waiting: 0,
            waited_us: 0,
            in_flight: 0,
            prewarmed: None,
            state: StateAt::default(),
        }
    }

    /// Bytes it takes when resident: measured, else its file's, else 0.
    pub(crate) fn size(&self) -> u64 {
        self.took.get().or(self.sized).unwrap_or(0)
    }

    pub(crate) fn is_sized(&self) -> bool {
        self.sized.is_some() || self.took.get().is_some()
    }

    pub(crate) fn run(&self, settings: &Settings) -> Duration {
        self.run.time().unwrap_or(settings.run_guess)
    }

    /// Requests a second, by the usual time between them, and by the time since the last when that is longer.
    pub(crate) fn rate(&self, now: Duration) -> f64 {
        let (Some(last), Some(between)) = (self.last_arrival, self.between.time()) else {
            return 0.0;
        };
        let between = between.max(now.saturating_sub(last));
        1.0 / between.as_secs_f64().max(1e-6)
    }

    /// Whether it is in use, or expected again within its keep-alive.
    pub(crate) fn is_expected(&self, now: Duration) -> bool {
        let expected = |end: Duration| now < end.saturating_add(self.expected.until);
        self.is_busy() || self.last_end.is_some_and(expected)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.waiting > 0
    }
}

/// All that are known.
#[derive(Default)]
pub(crate) struct Packages {
    known: HashMap<Digest, Package>,
    /// Bytes opened in a second, of all packages: what opening one that was never opened is guessed by.
    opened_per_s: Measured,
}

impl Packages {
    pub(crate) fn get(&self, package: Digest) -> Option<&Package> {
        self.known.get(&package)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Digest, &Package)> {
        self.known.iter().map(|(package, known)| (*package, known))
    }

    /// The package, known from now on.
    pub(crate) fn entry(&mut self, package: Digest, keep: &KeepAlive) -> &mut Package {
        if !self.known.contains_key(&package) && self.known.len() >= PACKAGES_MAX {
            let unused = self.known.iter().filter(|(_, known)| !known.is_busy());
            let mut unused: Vec<_> = unused
                .map(|(digest, known)| (known.run.get().is_some(), known.last_arrival, *digest))
                .collect();
            // First those of which none was ever answered: they may be made up.
            unused.sort_unstable();
            for (.., digest) in unused.into_iter().take(FORGOTTEN) {
                self.known.remove(&digest);
            }
        }
        self.known
            .entry(package)
            .or_insert_with(|| Package::new(keep))
    }

    pub(crate) fn get_mut(&mut self, package: Digest) -> Option<&mut Package> {
        self.known.get_mut(&package)
    }

    /// A request for it was taken; it was idle before if `was_idle`.
    pub(crate) fn arrived(
        &mut self,
        package: Digest,
        was_idle: bool,
        now: Duration,
        keep: &KeepAlive,
    ) {
        let known = self.entry(package, keep);
        if let Some(end) = known.last_end
            && was_idle
            && known.recorded != Some(end)
        {
            known.recorded = Some(end);
            known.idle.record(now.saturating_sub(end), keep);
            known.expected = known.idle.expected(keep);
        }
        if let Some(last) = known.last_arrival {
            known.between.put_time(now.saturating_sub(last));
        }
        known.last_arrival = Some(now);
        known.arrived += 1;
    }

    /// It was opened within `time`; true if it had been before.
    pub(crate) fn opened(&mut self, package: Digest, time: Duration) -> bool {
        let Some(known) = self.known.get_mut(&package) else {
            return false;
        };
        let before = known.open.get().is_some();
        known.open.put_time(time);
        let size = known.sized.unwrap_or(0);
        if size > 0 && !time.is_zero() {
            self.opened_per_s
                .put((size as f64 / time.as_secs_f64()) as u64);
        }
        before
    }

    /// What was waited counts half from now on.
    pub(crate) fn age_waiting(&mut self) {
        self.known
            .values_mut()
            .for_each(|known| known.waited_us /= 2);
    }

    pub(crate) fn ran(&mut self, package: Digest, time: Duration) {
        if let Some(known) = self.known.get_mut(&package) {
            known.run.put_time(time);
        }
    }

    /// A worker said where the state of a function is.
    pub(crate) fn state_told(
        &mut self,
        package: Digest,
        worker: WorkerId,
        place: StatePlace,
        now: Duration,
    ) {
        if let Some(known) = self.known.get_mut(&package) {
            known.state.told(worker, place, now);
        }
    }

    pub(crate) fn sized(&mut self, package: Digest, bytes: u64, keep: &KeepAlive) {
        self.entry(package, keep).sized = Some(bytes);
    }

    /// It took `bytes` when it became resident, says a worker; bounded by its file.
    pub(crate) fn took(&mut self, package: Digest, bytes: u64) {
        let Some(known) = self.known.get_mut(&package) else {
            return;
        };
        let file = known.sized.unwrap_or(0);
        let most = file.saturating_mul(SIZE_FACTOR_MAX);
        known
            .took
            .put(bytes.min(most.saturating_add(SIZE_MORE_MAX)));
    }

    /// What making it resident takes: measured, else by its size, else guessed.
    pub(crate) fn open_time(&self, package: Digest, settings: &Settings) -> Duration {
        let known = self.known.get(&package);
        if let Some(measured) = known.and_then(|known| known.open.time()) {
            return measured;
        }
        match (known.and_then(|known| known.sized), self.opened_per_s.get()) {
            (Some(bytes), Some(per_s)) if bytes > 0 && per_s > 0 => {
                Duration::try_from_secs_f64(bytes as f64 / per_s as f64).unwrap_or(Duration::MAX)
            }
            _ => settings.open_guess,
        }
    }

    pub(crate) fn run_time(&self, package: Digest, settings: &Settings) -> Duration {
        let known = self.known.get(&package);
        known.map_or(settings.run_guess, |known| known.run(settings))
    }

    pub(crate) fn size(&self, package: Digest) -> u64 {
        self.known.get(&package).map_or(0, Package::size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: u64) -> Digest {
        Digest::of("test", &[&name.to_be_bytes()])
    }

    #[test]
    fn made_up_packages_are_forgotten_and_busy_ones_are_not() {
        let keep = KeepAlive::default();
        let mut packages = Packages::default();
        packages.arrived(package(0), true, Duration::ZERO, &keep);
        packages.sized(package(1), 10, &keep);
        packages.ran(package(1), Duration::from_secs(1));
        packages.entry(package(0), &keep).in_flight = 1;
        for name in 2..PACKAGES_MAX as u64 * 2 {
            packages.arrived(package(name), true, Duration::from_secs(name), &keep);
        }
        assert!(packages.iter().count() <= PACKAGES_MAX);
        assert_eq!(
            packages.size(package(1)),
            10,
            "one that ran outlives those that never did"
        );
        assert!(packages.get(package(0)).is_some());
    }

    #[test]
    fn a_package_that_was_never_opened_is_guessed_by_its_size() {
        let settings = Settings::default();
        let mut packages = Packages::default();
        packages.sized(package(1), 1000, &settings.keep_alive);
        packages.sized(package(2), 3000, &settings.keep_alive);
        assert_eq!(
            packages.open_time(package(2), &settings),
            settings.open_guess
        );
        packages.opened(package(1), Duration::from_secs(1));
        assert_eq!(
            packages.open_time(package(2), &settings),
            Duration::from_secs(3)
        );
    }

    #[test]
    fn a_claimed_size_is_bounded_by_the_file() {
        let keep = KeepAlive::default();
        let mut packages = Packages::default();
        packages.sized(package(1), 1000, &keep);
        packages.took(package(1), u64::MAX);
        assert_eq!(packages.size(package(1)), 16_000 + SIZE_MORE_MAX);
    }

    #[test]
    fn a_rate_falls_while_nothing_comes() {
        let keep = KeepAlive::default();
        let mut packages = Packages::default();
        for at in 0..10 {
            packages.arrived(package(1), true, Duration::from_secs(at), &keep);
        }
        let known = &packages.known[&package(1)];
        assert_eq!(known.rate(Duration::from_secs(9)), 1.0);
        assert_eq!(known.rate(Duration::from_secs(109)), 0.01);
    }
}
