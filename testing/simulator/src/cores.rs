//! Cores that all workers share: everything that computes gets an equal part of them, at most one core.
//!
//! Always true: work is neither lost nor done twice, whole nanoseconds but for the last of each change; without cores
//! to share, everything takes the time it takes alone.

use std::time::Duration;

use bield_packer::WorkerId;

/// Work under way.
pub(crate) struct Cores<T> {
    /// How many; 0 where each has its own.
    cores: u32,
    jobs: Vec<Job<T>>,
    /// Up to when the work is done.
    done: Duration,
}

struct Job<T> {
    worker: WorkerId,
    /// Nanoseconds of one core that are left.
    left: u128,
    then: T,
}

impl<T> Cores<T> {
    pub(crate) fn new(cores: u32) -> Self {
        Self {
            cores,
            jobs: Vec::new(),
            done: Duration::ZERO,
        }
    }

    /// A worker begins work that takes one core `time`.
    pub(crate) fn begin(&mut self, now: Duration, worker: WorkerId, time: Duration, then: T) {
        self.work_until(now);
        self.jobs.push(Job {
            worker,
            left: time.as_nanos(),
            then,
        });
    }

    /// A worker is gone, and its work with it.
    pub(crate) fn end(&mut self, now: Duration, worker: WorkerId) {
        self.work_until(now);
        self.jobs.retain(|job| job.worker != worker);
    }

    /// When the next work is done.
    pub(crate) fn next(&self) -> Option<Duration> {
        let left = self.jobs.iter().map(|job| job.left).min()?;
        let (jobs, at_once) = self.sharing();
        let nanos = (left * jobs).div_ceil(at_once);
        Some(self.done + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// What was to follow the work that is done at `now`, if there is some; first begun, first done.
    pub(crate) fn finished(&mut self, now: Duration) -> Option<T> {
        self.work_until(now);
        let at = self.jobs.iter().position(|job| job.left == 0)?;
        Some(self.jobs.remove(at).then)
    }

    /// So many jobs have so many cores.
    fn sharing(&self) -> (u128, u128) {
        let jobs = self.jobs.len().max(1) as u128;
        match self.cores {
            0 => (1, 1),
            cores => (jobs, jobs.min(cores.into())),
        }
    }

    fn work_until(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.done).as_nanos();
        let (jobs, at_once) = self.sharing();
        let each = passed * at_once / jobs;
        for job in &mut self.jobs {
            job.left = job.left.saturating_sub(each);
        }
        self.done = self.done.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// When each of jobs of 10, 20 and 30 ms, begun together, is done.
    fn done(cores: u32) -> Vec<(u32, Duration)> {
        let mut shared = Cores::new(cores);
        for length in [30, 10, 20] {
            shared.begin(Duration::ZERO, WorkerId(0), MS * length, length);
        }
        let mut done = Vec::new();
        while let Some(now) = shared.next() {
            done.push((shared.finished(now).unwrap(), now));
        }
        done
    }

    #[test]
    fn what_computes_shares_the_cores() {
        assert_eq!(done(0), [(10, MS * 10), (20, MS * 20), (30, MS * 30)]);
        assert_eq!(done(3), done(0));
        // One core: three thirds until 30 ms, two halves until 50, and the rest alone.
        assert_eq!(done(1), [(10, MS * 30), (20, MS * 50), (30, MS * 60)]);
        // Two: each two thirds of one until 15 ms, then one each.
        assert_eq!(done(2), [(10, MS * 15), (20, MS * 25), (30, MS * 35)]);
    }

    #[test]
    fn a_worker_that_is_gone_leaves_the_cores_to_others() {
        let mut shared = Cores::new(1);
        shared.begin(Duration::ZERO, WorkerId(0), MS * 10, 'a');
        shared.begin(Duration::ZERO, WorkerId(1), MS * 10, 'b');
        shared.end(MS * 10, WorkerId(0));
        assert_eq!(shared.next(), Some(MS * 15));
        assert_eq!(shared.finished(MS * 15), Some('b'));
        assert_eq!(shared.next(), None);
    }
}
