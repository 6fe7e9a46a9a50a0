//! The hybrid logical clock of one writer (`spec/07 §2`).
//!
//! In: the present as the host has it, clocks of others' entries. Out: clocks for own entries. Always
//! true: what it gives out strictly increases and lies above every clock it adopted; a physical part
//! beyond the bound is never adopted, so that a host that sets a clock to the year 2099 does not win
//! every last-writer-wins race until then.

use core::time::Duration;

use bield_capsule::Clock;
use bield_envelope::Time;

/// How far ahead of the present a clock may be to be adopted, unless options say otherwise.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(1);

/// Gives a writer's entries their clocks.
#[derive(Clone, Debug)]
pub struct HybridClock {
    last: Clock,
    /// The newest clock that was flushed: adopted as soon as it is not too far ahead.
    flushed: Clock,
    ahead: Duration,
    /// End of the current epoch, as whoever begins epochs signed it.
    end: Option<Time>,
}

impl HybridClock {
    /// A clock that has given out nothing.
    #[must_use]
    pub const fn new(ahead: Duration) -> Self {
        Self {
            last: Clock::from_bits(0),
            flushed: Clock::from_bits(0),
            ahead,
            end: None,
        }
    }

    /// The newest clock given out or adopted.
    #[must_use]
    pub const fn last(&self) -> Clock {
        self.last
    }

    /// Bounds the physical part by the end of an epoch that was signed: not the host's word any more.
    pub const fn epoch_ends(&mut self, end: Time) {
        self.end = Some(end);
    }

    /// Goes on from what was flushed, where that is not too far ahead.
    pub const fn resume(&mut self, flushed: Clock) {
        self.flushed = flushed;
    }

    /// The next clock at `now`; none when there is none left.
    pub fn next(&mut self, now: Time) -> Option<Clock> {
        self.observe(self.flushed, now);
        let next = if self.within(now, now) {
            self.last.next(now)
        } else {
            // spec/07 §2: not adopted; the counter goes on.
            Clock::from_bits(self.last.bits().saturating_add(1))
        };
        if next <= self.last {
            return None;
        }
        self.last = next;
        Some(next)
    }

    /// Adopts another's clock, unless it is too far ahead.
    pub fn observe(&mut self, clock: Clock, now: Time) {
        if clock > self.last && self.within(clock.time(), now) {
            self.last = clock;
        }
    }

    /// Takes back what this writer gave out before a restart, whatever it is.
    pub fn restore(&mut self, own: Clock) {
        self.last = self.last.max(own);
    }

    fn within(&self, physical: Time, now: Time) -> bool {
        physical <= now.plus(self.ahead)
            && self.end.is_none_or(|end| physical <= end.plus(self.ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn clocks_increase_whatever_the_host_does_to_its_own() {
        let mut clock = HybridClock::new(CLOCK_AHEAD);
        let mut last = Clock::from_bits(0);
        for now in [5000, 5000, 4000, 0, 9000, 8999] {
            let next = clock.next(at(now)).unwrap();
            assert!(next > last);
            last = next;
        }
        assert_eq!(last, Clock::from_bits(Clock::at(at(9000)).bits() + 1));
    }

    #[test]
    fn a_clock_in_2099_is_not_adopted_from_others_nor_from_the_own_host() {
        let far = at(4_000_000_000_000);
        let mut clock = HybridClock::new(CLOCK_AHEAD);
        clock.observe(Clock::at(far), at(1000));
        assert_eq!(clock.next(at(1000)).unwrap().time(), at(1000));
        clock.observe(Clock::at(at(2000)), at(1000));
        assert_eq!(clock.next(at(1000)).unwrap().time(), at(2000));
        clock.epoch_ends(at(10_000));
        let before = clock.last().bits();
        assert_eq!(clock.next(far).unwrap().bits(), before + 1);
        assert_eq!(clock.next(at(10_500)).unwrap().time(), at(10_500));
    }

    #[test]
    fn a_clock_goes_on_from_what_was_flushed_unless_that_is_far_ahead() {
        let mut clock = HybridClock::new(CLOCK_AHEAD);
        clock.resume(Clock::at(at(5000)));
        assert_eq!(clock.next(at(1000)).unwrap().time(), at(1000));
        assert!(clock.next(at(4500)).unwrap() > Clock::at(at(5000)));
    }

    #[test]
    fn the_last_clock_is_not_given_out_twice() {
        let mut clock = HybridClock::new(CLOCK_AHEAD);
        clock.restore(Clock::from_bits(u64::MAX - 1));
        assert_eq!(clock.next(at(1)), Some(Clock::from_bits(u64::MAX)));
        assert_eq!(clock.next(at(1)), None);
    }
}
