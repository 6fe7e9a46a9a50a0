//! Who of many threads reads next: one at a time, and of those that wait the one that came last.
//!
//! Goes in: threads that want to read. Comes out: [`Reading`], which one of them holds at a time.
//!
//! Always true: whoever waits while nobody reads gets to read; a thread that read a moment ago goes before one that has
//! waited for long. So a runtime that serves one call at a time does it with two threads by turns, whose stacks and
//! heaps are in the caches and in memory, however many threads there are for a rush. No fairness is owed: threads that
//! wait here have nothing to do. On paper: passing it on is one lock, and one wake-up when somebody waits.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use crate::flights::lock;

/// The right to read.
#[derive(Default)]
pub(crate) struct Readers(Mutex<State>);

#[derive(Default)]
struct State {
    /// Somebody reads, or has been told to.
    taken: bool,
    /// The last comes first.
    waiting: Vec<Sender<()>>,
}

/// One thread reads until this is dropped.
#[must_use = "somebody else reads when this is dropped"]
pub(crate) struct Reading<'a>(&'a Readers);

impl Readers {
    /// Waits until the calling thread may read.
    pub(crate) fn wait(&self) -> Reading<'_> {
        let mut state = lock(&self.0);
        if state.taken {
            let (tell, told) = channel();
            state.waiting.push(tell);
            drop(state);
            // It comes from `pass_on` only, which takes it off the list to send: its end is not dropped unsent.
            let _ = told.recv();
        } else {
            state.taken = true;
        }
        Reading(self)
    }

    /// How many wait.
    #[cfg(test)]
    fn waiting(&self) -> usize {
        lock(&self.0).waiting.len()
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        let next = state.waiting.pop();
        state.taken = next.is_some();
        drop(state);
        if let Some(next) = next {
            // Who waits is a thread inside `wait`, which ends with this message only.
            let _ = next.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::Readers;
    use crate::flights::lock;

    #[test]
    fn who_came_last_reads_next_and_everybody_reads() {
        let (readers, order) = (Readers::default(), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            let first = readers.wait();
            for name in 0..4 {
                let (readers, order) = (&readers, &order);
                scope.spawn(move || {
                    let reading = readers.wait();
                    lock(order).push(name);
                    drop(reading);
                });
                while readers.waiting() <= name {
                    thread::yield_now();
                }
            }
            drop(first);
        });
        assert_eq!(*lock(&order), [3, 2, 1, 0]);
        // Free again.
        drop(readers.wait());
    }

    #[test]
    fn a_thread_that_panics_while_it_reads_passes_it_on() {
        let readers = Readers::default();
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let _reading = readers.wait();
                while readers.waiting() == 0 {
                    thread::yield_now();
                }
                panic!("as it must");
            });
            while !lock(&readers.0).taken {
                thread::yield_now();
            }
            drop(readers.wait());
            assert!(reader.join().is_err());
        });
    }
}
