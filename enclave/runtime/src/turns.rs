//! Two bounds on concurrency: how many calls are inside, and how many of them compute.
//!
//! A call that finds the [`Gate`] full is told to come back; one that is inside waits for its [`Turns`] with
//! its request read and its keys at hand, so that waiting for the host or the key service takes no turn.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::flights::lock;

/// Counts the calls inside and refuses more than its limit.
pub(crate) struct Gate {
    limit: usize,
    inside: Mutex<usize>,
    emptied: Condvar,
}

impl Gate {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            inside: Mutex::new(0),
            emptied: Condvar::new(),
        })
    }

    /// Lets one call in until its entry is dropped; `None` when it is full.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Entry> {
        let mut inside = lock(&self.inside);
        if *inside >= self.limit {
            return None;
        }
        *inside += 1;
        Some(Entry(Arc::clone(self)))
    }

    /// Counts the calls inside.
    pub(crate) fn inside(&self) -> usize {
        *lock(&self.inside)
    }

    /// Waits until no call is inside, at most so long.
    pub(crate) fn wait_empty(&self, wait: Duration) {
        let waiting = lock(&self.inside);
        let _ = self
            .emptied
            .wait_timeout_while(waiting, wait, |inside| *inside > 0);
    }
}

/// A place inside the gate.
pub(crate) struct Entry(Arc<Gate>);

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inside = lock(&self.0.inside);
        *inside -= 1;
        if *inside == 0 {
            self.0.emptied.notify_all();
        }
    }
}

/// The right to compute, held by so many threads at once.
pub(crate) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Turns {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            free: Mutex::new(count),
            freed: Condvar::new(),
        }
    }

    /// Waits for a turn. Whoever holds one waits for nothing else, so that turns always come.
    pub(crate) fn take(&self) -> Turn<'_> {
        let mut free = self
            .freed
            .wait_while(lock(&self.free), |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(self)
    }
}

/// A turn, given back on drop.
pub(crate) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_full_gate_refuses_until_somebody_leaves() {
        let gate = Gate::new(2);
        let first = gate.enter().unwrap();
        let _second = gate.enter().unwrap();
        assert!(gate.enter().is_none());
        drop(first);
        assert!(gate.enter().is_some());
        assert_eq!(gate.inside(), 1);
    }

    #[test]
    fn no_more_threads_compute_than_there_are_turns() {
        let turns = Turns::new(2);
        let (computing, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let _turn = turns.take();
                    most.fetch_max(
                        computing.fetch_add(1, Ordering::SeqCst) + 1,
                        Ordering::SeqCst,
                    );
                    thread::yield_now();
                    computing.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
    }
}
