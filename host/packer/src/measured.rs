//! The middle of the last few measurements: one outlier, or one liar among honest workers, does not move it.

use std::time::Duration;

use crate::explain::micros;

/// Measurements that count.
const SAMPLES: usize = 7;

/// The median of the last [`SAMPLES`] numbers, with one sort of seven per measurement.
#[derive(Default, Clone)]
pub(crate) struct Measured {
    samples: [u64; SAMPLES],
    seen: usize,
    median: u64,
}

impl Measured {
    pub(crate) fn put(&mut self, sample: u64) {
        self.samples[self.seen % SAMPLES] = sample;
        self.seen = self.seen.saturating_add(1);
        let known = self.seen.min(SAMPLES);
        let mut sorted = self.samples;
        sorted[..known].sort_unstable();
        self.median = sorted[known / 2];
    }

    pub(crate) fn put_time(&mut self, sample: Duration) {
        self.put(micros(sample));
    }

    pub(crate) fn get(&self) -> Option<u64> {
        (self.seen > 0).then_some(self.median)
    }

    pub(crate) fn time(&self) -> Option<Duration> {
        self.get().map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_absurd_measurement_does_not_count() {
        let mut measured = Measured::default();
        assert_eq!(measured.get(), None);
        for sample in [10, 11, 12, u64::MAX, 9] {
            measured.put(sample);
        }
        assert_eq!(measured.get(), Some(11));
        (0..SAMPLES).for_each(|_| measured.put(100));
        assert_eq!(measured.get(), Some(100));
    }
}
