//! Sends the requests of a trace at their times.
//!
//! ```text
//! each of `in_flight` threads:  take the next arrival ─▶ prepare (up to `ahead` early) ─▶ wait for its time ─▶ send ─▶ Done
//! ```
//!
//! Always true: an open loop, so a request is sent at its time whatever became of those before it, unless all threads have
//! one under way; then it is sent late, and its latency counts from its time all the same. Requests are taken in the trace's
//! order. Preparing is not waited for where a thread is free that early.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Arrival, Done, Ending, Trace};

/// How a trace is replayed.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Requests under way at most, and threads.
    pub in_flight: usize,
    /// How long before its time a request is prepared at most: what is sealed must not be old when it arrives.
    pub ahead: Duration,
}

/// Replays `trace` and returns what became of each request, in the trace's order.
///
/// `prepare` makes a request, `send` sends it and waits for its end, `progress` is told how many have ended. One that cannot
/// be prepared ends with what `prepare` says.
pub fn replay<P>(
    trace: &Trace,
    pace: Pace,
    prepare: impl Fn(&Arrival) -> Result<P, Ending> + Sync,
    send: impl Fn(&Arrival, P) -> Ending + Sync,
    progress: impl Fn(usize) + Sync,
) -> Vec<Done> {
    let threads = pace.in_flight.clamp(1, trace.arrivals().len().max(1));
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // Everyone has prepared a first request before the clock starts, so that the beginning is not late.
    let (ready, begun) = (Barrier::new(threads), Mutex::new(None));
    let run = || {
        let mut done = Vec::new();
        let mut first = true;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let arrival = trace.arrivals().get(at);
            let mut prepared = None;
            if first {
                first = false;
                prepared = arrival
                    .filter(|arrival| arrival.at <= pace.ahead)
                    .map(&prepare);
                ready.wait();
            }
            let start = *begun
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(Instant::now);
            let Some(arrival) = arrival else {
                return done;
            };
            wait_until(start + arrival.at.saturating_sub(pace.ahead));
            let prepared = prepared.unwrap_or_else(|| prepare(arrival));
            wait_until(start + arrival.at);
            let late = start.elapsed().saturating_sub(arrival.at);
            let ending = match prepared {
                Ok(prepared) => send(arrival, prepared),
                Err(ending) => ending,
            };
            let one = Done {
                at: arrival.at,
                model: arrival.model,
                latency: start.elapsed().saturating_sub(arrival.at),
                late,
                ending,
            };
            done.push((at, one));
            progress(ended.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    let mut all: Vec<(usize, Done)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let joined = threads.into_iter().flat_map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    });
    all.sort_unstable_by_key(|(at, _)| *at);
    all.into_iter().map(|(_, done)| done).collect()
}

fn wait_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(arrivals_ms: &[u64]) -> Trace {
        let arrivals = arrivals_ms.iter().map(|at| Arrival {
            at: Duration::from_millis(*at),
            model: 0,
            caller: 0,
        });
        let span = Duration::from_secs(60);
        Trace::new(vec!["a".into()], span, arrivals.collect())
    }

    const PACE: Pace = Pace {
        in_flight: 4,
        ahead: Duration::from_secs(60),
    };

    #[test]
    fn each_request_is_sent_once_not_before_its_time() {
        let trace = trace(&[0, 5, 5, 9, 20]);
        let begin = Instant::now();
        let sent = Mutex::new(Vec::new());
        let done = replay(
            &trace,
            PACE,
            |arrival| Ok(arrival.at),
            |arrival, prepared| {
                assert_eq!(arrival.at, prepared);
                sent.lock().unwrap().push((arrival.at, begin.elapsed()));
                Ending::Answered { start: None }
            },
            |_| (),
        );
        let at: Vec<_> = done.iter().map(|done| done.at.as_millis()).collect();
        assert_eq!(at, [0, 5, 5, 9, 20]);
        let sent = sent.into_inner().unwrap();
        assert_eq!(sent.len(), 5);
        assert!(sent.iter().all(|(at, when)| when >= at), "{sent:?}");
    }

    #[test]
    fn who_is_made_to_wait_by_the_client_counts_the_wait() {
        let one = Pace {
            in_flight: 1,
            ..PACE
        };
        let pause = Duration::from_millis(30);
        let done = replay(
            &trace(&[0, 0, 0]),
            one,
            |_| Ok(()),
            |_, ()| {
                thread::sleep(pause);
                Ending::Answered { start: None }
            },
            |_| (),
        );
        // The server took one pause each; the third waited for two.
        assert!(done[2].late >= 2 * pause, "{done:?}");
        assert!(done[2].latency >= 3 * pause, "{done:?}");
    }

    #[test]
    fn what_cannot_be_prepared_ends_so_and_the_rest_goes_on() {
        let bad = || Ending::Failed { kind: "bad".into() };
        let told = AtomicUsize::new(0);
        let done = replay(
            &trace(&[0, 1, 2]),
            PACE,
            |arrival| match arrival.at.as_millis() {
                1 => Err(bad()),
                _ => Ok(()),
            },
            |_, ()| Ending::Answered { start: None },
            |_| {
                told.fetch_add(1, Ordering::Relaxed);
            },
        );
        assert_eq!(done[1].ending, bad());
        assert_eq!(done[2].ending, Ending::Answered { start: None });
        assert_eq!(told.into_inner(), 3);
    }

    #[test]
    fn an_empty_trace_is_done_at_once() {
        let done = replay(
            &trace(&[]),
            PACE,
            |_| Ok(()),
            |_, ()| Ending::Answered { start: None },
            |_| (),
        );
        assert_eq!(done, []);
    }
}
