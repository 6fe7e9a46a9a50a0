//! Who is next: one of each, in turn.
//!
//! ```text
//! a: ■ ■ ■ ■ ■ ■ ┐
//! b: ■           ├──▶ a b c a c a a a …
//! c: ■ ■         ┘
//! ```
//!
//! Always true: what one caller queued is taken in order; of several callers each has one taken before
//! any has a second; the queue holds at most [`QUEUE_MAX`], of one caller at most [`QUEUE_EACH_MAX`];
//! what is queued is taken, also after the queue was closed.
//!
//! On paper: a hash look-up in, one out.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::limits::lock;

/// The most that may wait: each session waits for one, and there are at most that many sessions.
pub(crate) const QUEUE_MAX: usize = 1 << 14;
/// The most that one caller may have waiting.
pub(crate) const QUEUE_EACH_MAX: usize = 1 << 12;

/// Items by caller.
pub(crate) struct Queue<K, T> {
    waiting: Mutex<Waiting<K, T>>,
    arrived: Condvar,
}

struct Waiting<K, T> {
    by: HashMap<K, VecDeque<T>>,
    turns: VecDeque<K>,
    count: usize,
    closed: bool,
}

/// Why an item was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// Too many wait.
    Full,
    /// Nothing is taken any more.
    Closed,
}

impl<K: Eq + Hash + Clone, T> Queue<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                by: HashMap::new(),
                turns: VecDeque::new(),
                count: 0,
                closed: false,
            }),
            arrived: Condvar::new(),
        }
    }

    /// Queues an item of `by`.
    ///
    /// # Errors
    /// [`NotQueued`]; the item is dropped.
    pub(crate) fn push(&self, by: K, item: T) -> Result<(), NotQueued> {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return Err(NotQueued::Closed);
        }
        let each = waiting.by.get(&by).map_or(0, VecDeque::len);
        if waiting.count >= QUEUE_MAX || each >= QUEUE_EACH_MAX {
            return Err(NotQueued::Full);
        }
        if each == 0 {
            waiting.turns.push_back(by.clone());
        }
        waiting.by.entry(by).or_default().push_back(item);
        waiting.count += 1;
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// The next item, if one waits.
    pub(crate) fn pop(&self) -> Option<T> {
        lock(&self.waiting).pop()
    }

    /// Waits for the next item; `None` after the queue was closed and is empty.
    pub(crate) fn wait(&self) -> Option<T> {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(item) = waiting.pop() {
                return Some(item);
            }
            if waiting.closed {
                return None;
            }
            let woken = self.arrived.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until something is queued, the queue is closed, or `wait` is over.
    pub(crate) fn pause(&self, wait: Duration) {
        let waiting = lock(&self.waiting);
        if waiting.count == 0 && !waiting.closed {
            drop(self.arrived.wait_timeout(waiting, wait));
        }
    }

    /// Takes nothing any more.
    pub(crate) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.arrived.notify_all();
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.waiting).closed
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).count
    }
}

impl<K: Eq + Hash + Clone, T> Waiting<K, T> {
    fn pop(&mut self) -> Option<T> {
        let by = self.turns.pop_front()?;
        let items = self.by.get_mut(&by)?;
        let item = items.pop_front()?;
        if items.is_empty() {
            self.by.remove(&by);
        } else {
            self.turns.push_back(by);
        }
        self.count -= 1;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &Queue<char, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn one_that_floods_waits_for_the_others_turns() {
        let queue = Queue::new();
        for number in 0..100 {
            queue.push('f', number).unwrap();
        }
        queue.push('a', 1000).unwrap();
        queue.push('b', 2000).unwrap();
        queue.push('b', 2001).unwrap();
        let order = drain(&queue);
        assert_eq!(order[..6], [0, 1000, 2000, 1, 2001, 2]);
        assert_eq!(order.len(), 103);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_is_too_much_of_one_leaves_room_for_another() {
        let queue = Queue::new();
        for number in 0..u32::try_from(QUEUE_EACH_MAX).unwrap() {
            queue.push('f', number).unwrap();
        }
        assert_eq!(queue.push('f', 0), Err(NotQueued::Full));
        assert_eq!(queue.push('a', 0), Ok(()));
        for caller in 'b'..='d' {
            while queue.push(caller, 0).is_ok() {}
        }
        assert_eq!(queue.len(), QUEUE_MAX);
        assert_eq!(queue.push('z', 0), Err(NotQueued::Full));
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_ends() {
        let queue = Queue::new();
        queue.push('a', 1).unwrap();
        queue.close();
        assert_eq!(queue.push('a', 2), Err(NotQueued::Closed));
        assert_eq!(queue.wait(), Some(1));
        assert_eq!(queue.wait(), None);
    }

    #[test]
    fn who_waits_is_woken() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| queue.wait());
            queue.push('a', 7).unwrap();
            assert_eq!(taken.join().unwrap(), Some(7));
            let ended = scope.spawn(|| queue.wait());
            queue.close();
            assert_eq!(ended.join().unwrap(), None);
        });
    }
}
