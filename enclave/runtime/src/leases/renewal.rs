//! When a lease is renewed, and when it is tried again.
//!
//! ```text
//! received ───────────────── 60 % ── 80 % ──── 90 % ──── end
//!    used:     renewed somewhere here ▲           │
//!              fails: again after 1, 2, 4, 8, 8, … s, each time a little less
//!    not used:                      its allotments are returned; forgotten at the end
//! ```
//!
//! Always true: pure; the points are drawn, so that runtimes that started together do not come together.

use std::time::Duration;

use rand_core::Rng;

/// First share of a lease's length, in permille, at which it may be renewed.
pub(crate) const DUE_FIRST: u32 = 600;
/// Last share of a lease's length, in permille, at which its first renewal is tried.
pub(crate) const DUE_LAST: u32 = 800;
/// Share of its length, in permille, at which a lease that is not used returns its allotments.
pub(crate) const IDLE: u32 = 900;
/// Longest wait between two tries.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// When a lease that still holds for `left` is due, from now.
pub(crate) fn due_in(left: Duration, random: &mut impl Rng) -> Duration {
    left * (DUE_FIRST + random.next_u32() % (DUE_LAST - DUE_FIRST + 1)) / 1000
}

/// Failures in a row, and the moment before which nothing is tried again.
#[derive(Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
    until: Duration,
}

impl Backoff {
    /// Notes a failure at `now`.
    pub(crate) fn note(&mut self, now: Duration, random: &mut impl Rng) {
        let longest = Duration::from_secs(1 << self.failures.min(3)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        // Three quarters to all of it.
        self.until = now + longest * (750 + random.next_u32() % 251) / 1000;
    }

    /// Tells whether it is time to try at `now`.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        now >= self.until
    }
}

const _: () = assert!(DUE_FIRST < DUE_LAST && DUE_LAST < IDLE && IDLE < 1000);

#[cfg(test)]
mod tests {
    use bield_envelope::Seeded;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(600);

    #[test]
    fn leases_that_begin_together_are_due_at_different_points_between_60_and_80_percent() {
        let mut random = Seeded::new(1);
        let mut due: Vec<_> = (0..200).map(|_| due_in(LENGTH, &mut random)).collect();
        due.sort_unstable();
        assert!(due[0] >= LENGTH * 6 / 10 && due[199] <= LENGTH * 8 / 10);
        // All over the span: its first and its last quarter are hit.
        assert!(due[0] < LENGTH * 65 / 100 && due[199] > LENGTH * 75 / 100);
    }

    #[test]
    fn failures_wait_longer_and_longer_up_to_a_limit() {
        let mut random = Seeded::new(1);
        let mut backoff = Backoff::default();
        assert!(backoff.is_over(Duration::ZERO));
        let mut now = Duration::ZERO;
        let mut before = Duration::ZERO;
        for _ in 0..4 {
            backoff.note(now, &mut random);
            let waits = backoff.until - now;
            assert!(waits > before && waits <= BACKOFF_MAX, "{waits:?}");
            assert!(!backoff.is_over(now) && backoff.is_over(backoff.until));
            (now, before) = (backoff.until, waits);
        }
        for _ in 0..100 {
            backoff.note(now, &mut random);
        }
        assert!(backoff.until - now <= BACKOFF_MAX);
    }
}
