//! Single flight: of many threads that want the same thing at once, one fetches it and all get it.
//!
//! ```text
//! thread 1 ─ join ─▶ make ───────┐
//! thread 2 ─ join ─▶ wait ───────┼─▶ the same outcome, success or failure
//! thread 3 ─ join ─▶ wait ───────┘
//! thread 4           (later) join ─▶ make
//! ```
//!
//! Always true: at most one `make` per key runs at a time; a failure is shared by those who waited for it and
//! by nobody who comes later; when `make` panics, one of those who waited takes over; who waits for another thread's
//! may say how long. At most as many flights as threads exist. Not here: keeping outcomes (the caches do).

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_envelope::Digest;

/// Flights to outcomes of type `T`, by package.
pub(crate) struct Flights<T> {
    flying: Mutex<HashMap<Digest, Arc<Flight<T>>>>,
}

struct Flight<T> {
    state: Mutex<State<T>>,
    landed: Condvar,
}

enum State<T> {
    Flying,
    Landed(T),
    Lost,
}

impl<T: Clone> Flights<T> {
    pub(crate) fn new() -> Self {
        Self {
            flying: Mutex::default(),
        }
    }

    /// Returns the outcome of the flight for `key`: that of `make`, or of another thread's that is under way.
    pub(crate) fn join(&self, key: Digest, make: impl FnOnce() -> T) -> T {
        let joined = self.join_until(key, None, make);
        joined.expect("who waits without an end is never late")
    }

    /// Like [`join`](Self::join), waiting at most `wait` for another thread's flight; `None` when that takes longer.
    pub(crate) fn join_within(
        &self,
        key: Digest,
        wait: Duration,
        make: impl FnOnce() -> T,
    ) -> Option<T> {
        self.join_until(key, Instant::now().checked_add(wait), make)
    }

    fn join_until(
        &self,
        key: Digest,
        until: Option<Instant>,
        make: impl FnOnce() -> T,
    ) -> Option<T> {
        loop {
            let (flight, leads) = self.board(key);
            if leads {
                let landing = Landing {
                    flights: self,
                    key,
                    flight: &flight,
                };
                return Some(landing.land(make()));
            }
            match flight.wait(until) {
                Ended::Landed(outcome) => return Some(outcome),
                Ended::Lost => {}
                Ended::Late => return None,
            }
        }
    }

    fn board(&self, key: Digest) -> (Arc<Flight<T>>, bool) {
        let mut flying = lock(&self.flying);
        if let Some(flight) = flying.get(&key) {
            return (Arc::clone(flight), false);
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(State::Flying),
            landed: Condvar::new(),
        });
        flying.insert(key, Arc::clone(&flight));
        (flight, true)
    }
}

/// How another thread's flight ended for one who waited.
enum Ended<T> {
    Landed(T),
    /// To a panic.
    Lost,
    /// It has not.
    Late,
}

impl<T: Clone> Flight<T> {
    /// Waits for the outcome, for ever without an end.
    fn wait(&self, until: Option<Instant>) -> Ended<T> {
        let mut state = lock(&self.state);
        loop {
            match &*state {
                State::Landed(outcome) => return Ended::Landed(outcome.clone()),
                State::Lost => return Ended::Lost,
                State::Flying => {}
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return Ended::Late,
                Some(left) => {
                    let waited = self.landed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.landed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }
}

/// Ends a flight however its leader ends.
struct Landing<'a, T> {
    flights: &'a Flights<T>,
    key: Digest,
    flight: &'a Flight<T>,
}

impl<T: Clone> Landing<'_, T> {
    fn land(self, outcome: T) -> T {
        *lock(&self.flight.state) = State::Landed(outcome.clone());
        outcome
    }
}

impl<T> Drop for Landing<'_, T> {
    fn drop(&mut self) {
        lock(&self.flights.flying).remove(&self.key);
        let mut state = lock(&self.flight.state);
        if matches!(*state, State::Flying) {
            *state = State::Lost;
        }
        self.flight.landed.notify_all();
    }
}

/// Locks; a panic elsewhere leaves none of this crate's tables half-changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const KEY: Digest = Digest::from_bytes([1; 32]);

    #[test]
    fn all_who_ask_at_once_share_one_flight_and_its_failure() {
        let flights = Flights::<Result<u32, &str>>::new();
        let made = AtomicU32::new(0);
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let outcome = flights.join(KEY, || {
                        thread::sleep(Duration::from_millis(200));
                        made.fetch_add(1, Ordering::Relaxed);
                        Err("refused")
                    });
                    assert_eq!(outcome, Err("refused"));
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(flights.join(KEY, || Ok(7)), Ok(7), "a later one flies anew");
    }

    #[test]
    fn who_waits_for_another_waits_no_longer_than_it_may() {
        let flights = Flights::<u32>::new();
        let (boarded, land) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                flights.join_within(KEY, Duration::ZERO, || {
                    boarded.wait();
                    land.wait();
                    7
                })
            });
            boarded.wait();
            let late = flights.join_within(KEY, Duration::from_millis(1), || 8);
            assert_eq!(late, None, "neither an outcome nor a second flight");
            land.wait();
            assert_eq!(leader.join().unwrap(), Some(7), "a leader is not late");
        });
    }

    #[test]
    fn other_keys_fly_meanwhile() {
        let flights = Flights::<u32>::new();
        let other = Digest::from_bytes([2; 32]);
        assert_eq!(flights.join(KEY, || flights.join(other, || 2) + 1), 3);
    }

    #[test]
    fn a_panic_loses_one_flight_and_another_thread_takes_over() {
        let flights = Flights::<u32>::new();
        let boarded = Barrier::new(2);
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                catch_unwind(AssertUnwindSafe(|| {
                    flights.join(KEY, || {
                        boarded.wait();
                        thread::sleep(Duration::from_millis(100));
                        panic!("on purpose")
                    })
                }))
            });
            boarded.wait();
            assert_eq!(flights.join(KEY, || 5), 5);
            assert!(leader.join().unwrap().is_err());
        });
    }
}
