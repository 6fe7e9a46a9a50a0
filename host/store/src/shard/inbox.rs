//! What waits for a shard: bounded, and fair between capsules.
//!
//! ```text
//! push ──▶ lane of capsule A ▮▮▮   ┐
//! push ──▶ lane of capsule B ▮     ├── take: a round, in turns, up to a bound in weight
//! push ──▶ lane of capsule C ▮▮    ┘
//! ```
//!
//! Always true: a full lane or inbox refuses at once; a capsule with much queued does not delay
//! another one by more than a round; jobs of one capsule stay in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bield_capsule::CapsuleName;

use super::Job;
use crate::Refusal;

/// Most jobs of one capsule: what its writers and readers may have in flight at once.
const LANE_JOBS_MAX: usize = 512;

/// Most jobs of a shard.
const INBOX_JOBS_MAX: usize = 4096;

/// Most weight (see [`Job::weight`]) that waits for a shard.
const INBOX_WEIGHT_MAX: usize = 256 << 20;

/// A round takes no further job at this weight, or about 2000 small records: the longest a sync
/// waits for verification is 80 ms and one request.
const ROUND_WEIGHT_MAX: usize = 32 << 20;

#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    lanes: BTreeMap<CapsuleName, VecDeque<Job>>,
    jobs: usize,
    weight: usize,
    /// Whose turn was last: the next round begins behind.
    last: Option<CapsuleName>,
    closed: bool,
}

/// What a shard is to do next.
pub(crate) enum Round {
    /// These, in this order.
    Jobs(Vec<(CapsuleName, Job)>),
    /// Nothing came in time.
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl Inbox {
    /// Queues a job.
    ///
    /// # Errors
    /// Too much is queued, or the store is ending; the job is given back dropped.
    pub(crate) fn push(&self, capsule: CapsuleName, job: Job) -> Result<(), Refusal> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refusal::draining());
        }
        let weight = job.weight();
        let queued = state.lanes.get(&capsule).map_or(0, VecDeque::len);
        if queued >= LANE_JOBS_MAX
            || state.jobs >= INBOX_JOBS_MAX
            || (state.jobs > 0 && state.weight + weight > INBOX_WEIGHT_MAX)
        {
            return Err(Refusal::busy());
        }
        state.lanes.entry(capsule).or_default().push_back(job);
        state.jobs += 1;
        state.weight += weight;
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for jobs and takes a round of them.
    pub(crate) fn take(&self, wait: Duration) -> Round {
        let state = self.lock();
        let (mut state, _) = self
            .filled
            .wait_timeout_while(state, wait, |state| state.jobs == 0 && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if state.jobs == 0 {
            return if state.closed {
                Round::Closed
            } else {
                Round::Idle
            };
        }
        let mut round = Vec::with_capacity(state.jobs);
        let mut weight = 0;
        while state.jobs > 0 && weight < ROUND_WEIGHT_MAX {
            let (capsule, job) = state.next();
            weight += job.weight();
            round.push((capsule, job));
        }
        state.weight -= weight;
        Round::Jobs(round)
    }

    /// Refuses further jobs; those that wait are still done.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The first job of the lane whose turn it is; there is one.
    fn next(&mut self) -> (CapsuleName, Job) {
        let behind = self.last.and_then(|last| {
            let range = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
            self.lanes.range(range).next().map(|(name, _)| *name)
        });
        let capsule = behind.or_else(|| self.lanes.keys().next().copied());
        let capsule = capsule.expect("jobs are counted");
        let lane = self.lanes.get_mut(&capsule).expect("its key was found");
        let job = lane.pop_front().expect("no lane is empty");
        if lane.is_empty() {
            self.lanes.remove(&capsule);
        }
        self.last = Some(capsule);
        self.jobs -= 1;
        (capsule, job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(byte: u8) -> CapsuleName {
        CapsuleName::from_bytes([byte; 32])
    }

    fn job() -> Job {
        Job::Ask(Box::new(|_| {}), 0)
    }

    #[test]
    fn a_busy_capsule_shares_its_round_with_the_others() {
        let inbox = Inbox::default();
        for _ in 0..5 {
            inbox.push(name(1), job()).unwrap();
        }
        inbox.push(name(2), job()).unwrap();
        inbox.push(name(3), job()).unwrap();
        let Round::Jobs(round) = inbox.take(Duration::ZERO) else {
            panic!("jobs wait");
        };
        let order: Vec<_> = round.iter().map(|(name, _)| name.as_bytes()[0]).collect();
        assert_eq!(order, [1, 2, 3, 1, 1, 1, 1]);
    }

    #[test]
    fn a_full_lane_refuses_and_leaves_room_for_others() {
        let inbox = Inbox::default();
        for _ in 0..LANE_JOBS_MAX {
            inbox.push(name(1), job()).unwrap();
        }
        assert_eq!(inbox.push(name(1), job()).unwrap_err().slug, "busy");
        inbox.push(name(2), job()).unwrap();
    }

    #[test]
    fn a_round_reads_a_few_pages_and_the_next_one_begins_with_somebody_else() {
        let inbox = Inbox::default();
        let read = || Job::Ask(Box::new(|_| {}), super::super::READ_WEIGHT);
        for _ in 0..50 {
            inbox.push(name(1), read()).unwrap();
        }
        let names = || match inbox.take(Duration::ZERO) {
            Round::Jobs(round) => round.into_iter().map(|(name, _)| name).collect::<Vec<_>>(),
            _ => panic!("jobs wait"),
        };
        assert_eq!(names(), [name(1); 8]);
        inbox.push(name(2), job()).unwrap();
        assert_eq!(names()[0], name(2));
    }

    #[test]
    fn what_waits_at_the_end_is_still_done() {
        let inbox = Inbox::default();
        inbox.push(name(1), job()).unwrap();
        inbox.close();
        assert_eq!(inbox.push(name(1), job()).unwrap_err().slug, "draining");
        assert!(matches!(inbox.take(Duration::ZERO), Round::Jobs(jobs) if jobs.len() == 1));
        assert!(matches!(inbox.take(Duration::ZERO), Round::Closed));
    }
}
