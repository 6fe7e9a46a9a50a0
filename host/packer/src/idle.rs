//! How long a package is usually idle between two requests, and so when a worker is worth keeping for it.
//!
//! The histogram of "Serverless in the Wild" (Shahrad and others, ATC 2020, §4.2): idle times fall into
//! [`crate::IDLE_BINS`] bins; the head (5 %) of their distribution says when the package is not expected yet, the tail
//! (99 %) when it is not expected any more, each with a margin of 10 %. It counts only if there are enough idle times,
//! most of them fall into the bins, and these differ enough (coefficient of variation of the counts of at least 2);
//! else the fixed time is kept, where the paper goes on to a time series model.
//!
//! On paper: half a kilobyte a package that was ever idle; one pass over the bins per idle time.

use std::time::Duration;

use crate::IDLE_BINS;
use crate::settings::KeepAlive;

/// Idle times before the histogram counts.
const SAMPLES_MIN: u32 = 8;
/// Idle times after which old ones lose half their weight, so that a habit can change.
const SAMPLES_MAX: u32 = 1024;
/// Coefficient of variation of the bins' counts from which on they say something (the paper's).
const VARIATION_MIN: f64 = 2.0;
const HEAD: f64 = 0.05;
const TAIL: f64 = 0.99;
const MARGIN: f64 = 0.10;

/// When a package is expected, from its last use on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Not before.
    pub(crate) from: Duration,
    /// Not after.
    pub(crate) until: Duration,
    /// By the histogram, not the fixed time.
    pub(crate) learned: bool,
}

/// Idle times of one package.
#[derive(Default)]
pub(crate) struct IdleTimes {
    /// Empty until the first.
    bins: Vec<u16>,
    within: u32,
    beyond: u32,
}

impl IdleTimes {
    /// Counts one idle time.
    pub(crate) fn record(&mut self, idle: Duration, keep: &KeepAlive) {
        if self.bins.is_empty() {
            self.bins = vec![0; IDLE_BINS];
        }
        let width = keep.bin.as_micros().max(1);
        let bin = usize::try_from(idle.as_micros() / width).unwrap_or(usize::MAX);
        match self.bins.get_mut(bin) {
            Some(count) => {
                *count += 1;
                self.within += 1;
            }
            None => self.beyond += 1,
        }
        if self.within + self.beyond >= SAMPLES_MAX {
            self.bins.iter_mut().for_each(|count| *count /= 2);
            self.within = self.bins.iter().map(|count| u32::from(*count)).sum();
            self.beyond /= 2;
        }
    }

    /// When the package is expected.
    pub(crate) fn expected(&self, keep: &KeepAlive) -> Expected {
        let fixed = Expected {
            from: Duration::ZERO,
            until: clamp(keep.fixed, keep),
            learned: false,
        };
        if self.within < SAMPLES_MIN || self.beyond > self.within || !self.varied() {
            return fixed;
        }
        let head = self.bin_of(HEAD) as f64;
        let tail = self.bin_of(TAIL) as f64 + 1.0;
        let from = times(keep.bin, head * (1.0 - MARGIN));
        let until = clamp(times(keep.bin, tail * (1.0 + MARGIN)), keep);
        Expected {
            from: from.min(until),
            until,
            learned: true,
        }
    }

    /// The bin in which `part` of all idle times are reached.
    fn bin_of(&self, part: f64) -> usize {
        let wanted = part * f64::from(self.within);
        let mut reached = 0.0;
        let found = self.bins.iter().position(|count| {
            reached += f64::from(*count);
            reached > 0.0 && reached >= wanted
        });
        found.unwrap_or(IDLE_BINS - 1)
    }

    fn varied(&self) -> bool {
        let mean = f64::from(self.within) / IDLE_BINS as f64;
        let squares: f64 = self
            .bins
            .iter()
            .map(|n| (f64::from(*n) - mean).powi(2))
            .sum();
        (squares / IDLE_BINS as f64).sqrt() >= VARIATION_MIN * mean
    }
}

fn times(width: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(width.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

fn clamp(time: Duration, keep: &KeepAlive) -> Duration {
    time.max(keep.floor).min(keep.ceiling.max(keep.floor))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn after(idle: impl IntoIterator<Item = u32>) -> Expected {
        let keep = KeepAlive::default();
        let mut times = IdleTimes::default();
        for minutes in idle {
            times.record(MINUTE * minutes + MINUTE / 2, &keep);
        }
        times.expected(&keep)
    }

    #[test]
    fn a_habit_is_expected_within_its_margins() {
        let habit = after([30; 20]);
        assert!(habit.learned);
        assert_eq!(habit.from, MINUTE * 27, "30 less a tenth");
        assert_eq!(habit.until, Duration::from_secs_f64(60.0 * 31.0 * 1.1));
        assert_eq!(after([0; 20]).from, Duration::ZERO);
    }

    #[test]
    fn too_few_or_scattered_or_distant_idle_times_leave_the_fixed_one() {
        let fixed = KeepAlive::default().fixed;
        for idle in [vec![30; 7], (0..240).collect(), vec![500; 20]] {
            let expected = after(idle);
            assert!(!expected.learned);
            assert_eq!((expected.from, expected.until), (Duration::ZERO, fixed));
        }
    }

    #[test]
    fn a_habit_that_changed_is_learnt_again() {
        let changed = after([30; 600].into_iter().chain([3; 40_000]));
        assert!(changed.until < MINUTE * 5, "{changed:?}");
    }
}
