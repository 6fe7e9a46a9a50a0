//! What keeps one caller from using up what all callers share.
//!
//! ```text
//! an order, a lease ──▶ Allowances (a bucket a principal) ──▶ queue   told to come back when empty
//! a fresh quote ──▶ Bucket (one a role) ──▶ TEE                       refused when empty
//! cryptography of a handshake ──▶ Turns (a few at once)               waits, never while it waits for a peer
//! ```
//!
//! Always true: a bucket never holds more than its size; the table of buckets never holds more than
//! [`ALLOWANCES_MAX`], and forgetting one can only give a principal a full bucket, never take one away;
//! a turn is given back however its holder ends.
//!
//! Time comes as an argument (`Instant`, which no host can set back by the wall clock). Left to others:
//! fairness between those who are allowed (`queue`), bounds on lengths (`bield-session`, the protocol).
//!
//! On paper: a look-up in a hash table and a few additions an order; 4 MB for a full table.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most principals whose allowance is remembered: those who ordered within about a minute.
pub(crate) const ALLOWANCES_MAX: usize = 1 << 16;

/// A token bucket: fills by `per_second` up to `size`, and each use takes one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    level: f64,
    size: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(size: f64, per_second: f64, now: Instant) -> Self {
        Self {
            level: size,
            size,
            per_second,
            at: now,
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        self.fill(now);
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        let wait = (1.0 - self.level) / self.per_second.max(f64::MIN_POSITIVE);
        Err(Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX))
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * self.per_second).min(self.size);
        self.at = self.at.max(now);
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.level >= self.size
    }
}

/// A bucket for each principal that has used some of it.
pub(crate) struct Allowances<K> {
    at_once: f64,
    per_second: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

impl<K: Eq + Hash> Allowances<K> {
    /// Allows `per_minute` a minute; a tenth of that, or 60 if that is more, at once.
    pub(crate) fn new(per_minute: u32) -> Self {
        let minute = f64::from(per_minute);
        let at_once = (minute / 10.0).max(60.0_f64.min(minute)).max(1.0);
        Self::of(at_once, minute / 60.0)
    }

    /// Allows `at_once`, and `per_second` for long.
    pub(crate) fn of(at_once: f64, per_second: f64) -> Self {
        Self {
            at_once,
            per_second,
            buckets: Mutex::default(),
        }
    }

    /// Takes one of `key`'s.
    ///
    /// # Errors
    /// How long until there is one.
    pub(crate) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= ALLOWANCES_MAX && !buckets.contains_key(&key) {
            forget(&mut buckets, now);
        }
        buckets
            .entry(key)
            .or_insert_with(|| Bucket::new(self.at_once, self.per_second, now))
            .take(now)
    }
}

/// Makes room: full buckets say nothing, so they go first; when all principals are busy, everybody
/// starts anew.
fn forget<K: Eq + Hash>(buckets: &mut HashMap<K, Bucket>, now: Instant) {
    buckets.retain(|_, bucket| !bucket.is_full(now));
    // A quarter at least, so that the next to come need not look again.
    if buckets.len() > ALLOWANCES_MAX / 4 * 3 {
        buckets.clear();
    }
}

/// How many may compute at once.
pub(crate) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to compute; given back when dropped.
pub(crate) struct Turn<'a>(&'a Turns);

impl Turns {
    /// `count` at once.
    pub(crate) fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(count.max(1)),
            freed: Condvar::new(),
        }
    }

    /// Waits for a turn, until `deadline` at most.
    pub(crate) fn take(&self, deadline: Instant) -> Option<Turn<'_>> {
        let mut free = lock(&self.free);
        while *free == 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.freed.wait_timeout(free, left);
            free = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= 1;
        Some(Turn(self))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

/// A poisoned lock is taken all the same: what it guards here is whole after every statement.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_what_flows_in() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2.0, 0.5, start);
        assert_eq!(bucket.take(start), Ok(()));
        assert_eq!(bucket.take(start), Ok(()));
        assert_eq!(bucket.take(start), Err(2 * SECOND));
        assert_eq!(bucket.take(start + SECOND), Err(SECOND));
        assert_eq!(bucket.take(start + 2 * SECOND), Ok(()));
        let rested = start + 1000 * SECOND;
        assert!(bucket.take(rested).is_ok() && bucket.take(rested).is_ok());
        assert!(bucket.take(rested).is_err(), "never more than its size");
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_fills_nothing() {
        let start = Instant::now() + 10 * SECOND;
        let mut bucket = Bucket::new(1.0, 1.0, start);
        assert!(bucket.take(start).is_ok());
        assert!(bucket.take(start - 5 * SECOND).is_err());
        assert!(bucket.take(start).is_err());
        assert!(bucket.take(start + SECOND).is_ok());
    }

    #[test]
    fn one_who_used_everything_up_takes_nothing_from_another() {
        let allowances = Allowances::new(600);
        let now = Instant::now();
        let granted = (0..1000)
            .filter(|_| allowances.take("flood", now).is_ok())
            .count();
        assert_eq!(granted, 60);
        assert!(allowances.take("calm", now).is_ok());
        assert!(allowances.take("flood", now + SECOND).is_ok());
    }

    #[test]
    fn the_table_of_allowances_does_not_grow_without_end() {
        let allowances = Allowances::new(60);
        let now = Instant::now();
        for key in 0..3 * ALLOWANCES_MAX {
            assert!(allowances.take(key, now).is_ok());
        }
        assert!(lock(&allowances.buckets).len() <= ALLOWANCES_MAX);
    }

    #[test]
    fn turns_are_given_back_even_by_one_that_panics() {
        let turns = Turns::new(1);
        let soon = || Instant::now() + Duration::from_millis(20);
        let held = turns.take(soon()).unwrap();
        assert!(turns.take(soon()).is_none());
        drop(held);
        std::thread::scope(|scope| {
            let panicked = scope.spawn(|| {
                let _held = turns.take(soon());
                panic!("on purpose");
            });
            assert!(panicked.join().is_err());
        });
        assert!(turns.take(soon()).is_some());
    }
}
