//! A ration over time: so many at once, so many on average.
//!
//! Always true: of takes within any span, at most `most + span / every` succeed. Pure: the time is an argument.

use std::time::Duration;

/// Time that was not spent yet; each take costs a fixed span of it.
pub(crate) struct Tokens {
    every: Duration,
    saved_max: Duration,
    saved: Duration,
    counted: Duration,
}

impl Tokens {
    /// One take per `every` on average, `most` of them at once, all of these at `now`.
    pub(crate) fn new(every: Duration, most: u32, now: Duration) -> Self {
        Self {
            every,
            saved_max: every * most,
            saved: every * most,
            counted: now,
        }
    }

    /// Takes one; `false` when nothing is saved.
    pub(crate) fn take(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.counted);
        self.saved = (self.saved + earned).min(self.saved_max);
        self.counted = self.counted.max(now);
        match self.saved.checked_sub(self.every) {
            Some(left) => {
                self.saved = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let every = Duration::from_secs(1);
        let mut now = every;
        let mut tokens = Tokens::new(every, 3, now);
        let mut takes = |now| (0..10).filter(|_| tokens.take(now)).count();
        assert_eq!(takes(now), 3);
        now += every * 3 / 2;
        assert_eq!(takes(now), 1);
        now += every / 2;
        assert_eq!(takes(now), 1, "halves add up");
        assert_eq!(
            takes(now - every),
            0,
            "a clock that goes back earns nothing"
        );
        assert_eq!(
            takes(now + every * 100),
            3,
            "no more than the most is saved"
        );
    }
}
