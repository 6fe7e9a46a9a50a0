//! Threads for several runs at once, of which each has its own.
//!
//! Always true: a run takes the threads that fewest others are on, the first of those, so that few runs keep few threads
//! and their buffers warm. More runs than pools share, and wait for each other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rten::ThreadPool;

/// As many pools of threads as runs at once.
pub(crate) struct Pools {
    pools: Vec<Arc<ThreadPool>>,
    /// Runs on each.
    runs: Mutex<Vec<usize>>,
}

impl Pools {
    /// Starts `pools` pools of `threads` threads.
    pub(crate) fn start(threads: usize, pools: usize) -> Arc<Self> {
        let pool = |_| Arc::new(ThreadPool::with_num_threads(threads));
        Arc::new(Self {
            pools: (0..pools).map(pool).collect(),
            runs: Mutex::new(vec![0; pools]),
        })
    }

    /// A place for one run.
    pub(crate) fn take(&self) -> Place<'_> {
        let mut runs = self.runs();
        let fewest = (0..runs.len()).min_by_key(|at| runs[*at]).unwrap_or(0);
        runs[fewest] += 1;
        Place {
            pools: self,
            at: fewest,
        }
    }

    fn runs(&self) -> MutexGuard<'_, Vec<usize>> {
        // Counts are whole after every statement.
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run's place on one of the pools, until it is dropped.
pub(crate) struct Place<'a> {
    pools: &'a Pools,
    at: usize,
}

impl Place<'_> {
    /// Its threads.
    pub(crate) fn pool(&self) -> Arc<ThreadPool> {
        Arc::clone(&self.pools.pools[self.at])
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pools.runs()[self.at] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_threads_of_its_own_while_there_are_some() {
        let pools = Pools::start(1, 2);
        let (first, second) = (pools.take(), pools.take());
        assert!(!Arc::ptr_eq(&first.pool(), &second.pool()));
        let third = pools.take();
        drop((second, third));
        assert!(
            Arc::ptr_eq(&pools.take().pool(), &pools.pools[1]),
            "one run is left, on the first"
        );
        drop(first);
        assert!(Arc::ptr_eq(&pools.take().pool(), &pools.pools[0]));
    }
}
