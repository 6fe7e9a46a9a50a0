//! Bounded queues between the threads of a member.
//!
//! Letters are dropped when a queue is full: Raft sends again what matters. Nothing else is dropped:
//! questions are as many as sessions, proposals as many as sequencers.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A queue with a limit in bytes on what may be dropped.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    bytes_max: usize,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

/// What came out of a queue.
pub(super) enum Taken<T> {
    Item(T),
    /// Nothing came in time.
    Nothing,
    /// Nothing will come any more.
    Closed,
}

impl<T> Queue<T> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                bytes: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
            bytes_max,
        }
    }

    /// Adds what must not be dropped.
    pub(super) fn push(&self, item: T) {
        self.add(item, 0);
    }

    /// Adds a letter of `bytes`, or drops it when there are too many.
    pub(super) fn offer(&self, item: T, bytes: usize) {
        // Even an empty letter takes room here.
        self.add(item, bytes + ITEM_BYTES);
    }

    pub(super) fn take(&self, until: Instant) -> Taken<T> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Taken::Closed;
            }
            if let Some((item, bytes)) = state.items.pop_front() {
                state.bytes -= bytes;
                return Taken::Item(item);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Nothing;
            }
            let waited = self.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Drops everything that waits.
    pub(super) fn clear(&self) {
        let mut state = self.lock();
        state.items.clear();
        state.bytes = 0;
    }

    /// Ends the queue: what waits is dropped, and so is all that comes.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.clear();
        self.arrived.notify_all();
    }

    fn add(&self, item: T, bytes: usize) {
        let mut state = self.lock();
        if state.closed || (bytes > 0 && state.bytes + bytes > self.bytes_max) {
            return;
        }
        state.bytes += bytes;
        state.items.push_back((item, bytes));
        self.arrived.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a queued letter costs beside its bytes.
const ITEM_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn item(queue: &Queue<u8>) -> Option<u8> {
        match queue.take(Instant::now()) {
            Taken::Item(item) => Some(item),
            Taken::Nothing | Taken::Closed => None,
        }
    }

    #[test]
    fn letters_beyond_the_limit_are_dropped_and_nothing_else_is() {
        let queue = Queue::new(3 * ITEM_BYTES);
        queue.offer(1, 100);
        queue.offer(2, 100);
        queue.push(3);
        queue.offer(4, 0);
        let taken: Vec<u8> = std::iter::from_fn(|| item(&queue)).collect();
        assert_eq!(taken, [1, 3]);
        queue.offer(5, 128);
        assert_eq!(item(&queue), Some(5), "room comes back");
    }

    #[test]
    fn a_closed_queue_takes_and_gives_nothing() {
        let queue = Queue::new(1000);
        queue.push(1);
        queue.close();
        queue.push(2);
        assert!(matches!(queue.take(Instant::now()), Taken::Closed));
    }
}
