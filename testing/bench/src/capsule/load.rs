//! Load on an appender, and what becomes of it.
//!
//! [`offer`] is an open loop: put number i is due at i ÷ rate, whatever became of those before it,
//! and its latency runs from then until it is acknowledged, so a stall counts for every put that was
//! due during it. [`flood`] pushes as fast as the appender lets it. [`callers`] is what a program
//! with threads does: each has so many puts in flight and waits for them.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use bield_capsule::{Durability, QueueError};
use bield_sdk::capsule::Appender;
use hdrhistogram::Histogram;

use super::chain::Put;

/// How the generator passes the time until the next put is due.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Watches the clock: it has a core to itself.
    Spin,
    /// Sleeps 50 µs at a time: it shares its core with what is measured.
    Sleep,
}

/// What became of an offered load.
#[derive(Clone, Copy)]
pub(crate) struct Offered {
    /// Puts a second that were due.
    pub(crate) rate: f64,
    /// Puts a second from the first push to the last acknowledgement.
    pub(crate) achieved: f64,
    /// Puts in a record, on average.
    pub(crate) batch: f64,
    /// Records a second.
    pub(crate) records: f64,
    /// Half of the puts were acknowledged this soon, in milliseconds; endless when overloaded.
    pub(crate) p50: f64,
    /// 99 of 100 puts were.
    pub(crate) p99: f64,
}

impl Offered {
    /// Whether load and acknowledgements kept step within this latency.
    pub(crate) fn within(&self, p99_ms: f64) -> bool {
        self.p99 <= p99_ms && self.achieved >= 0.97 * self.rate
    }
}

/// Offers a load to a fresh appender.
pub(crate) fn offer(
    appender: &Appender,
    put: &mut Put,
    rate: f64,
    span: Duration,
    level: Durability,
    rest: Rest,
) -> Result<Offered> {
    let total = ((rate * span.as_secs_f64()) as u64).max(1);
    let period = 1e9 / rate;
    // Threads start and buffers grow during the first tenth.
    let warm = total / 10;
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 100_000_000_000, 3)?;
    let before = records(appender);
    let begin = Instant::now();
    let (mut pushed, mut acked, mut looked) = (0, 0, 0);
    while acked < total {
        let at = begin.elapsed().as_nanos() as u64;
        let due = total.min((at as f64 / period) as u64 + 1);
        // Alone on its core the generator looks often; else whoever it yields to would see scraps.
        let burst = match rest {
            Rest::Spin => due.min(pushed + BURST),
            Rest::Sleep => due,
        };
        while pushed < burst {
            match appender.push(put.next()) {
                Ok(_) => pushed += 1,
                Err(QueueError::Full) => break,
                Err(error) => bail!(error),
            }
        }
        if at - looked >= LOOK_NS || rest == Rest::Sleep {
            looked = at;
            let reached = appender.reached(level).position();
            let now = begin.elapsed().as_nanos() as u64;
            while acked < reached {
                // As late as the oldest of a few: never better than it was.
                let few = (reached - acked).div_ceil(16);
                let late = now.saturating_sub((acked as f64 * period) as u64);
                if acked >= warm {
                    latencies.saturating_record_n(late, few);
                }
                acked += few.min(reached - acked);
            }
            let oldest = now.saturating_sub((acked as f64 * period) as u64);
            if acked < total && oldest > OVERLOAD_NS {
                ensure!(oldest < STUCK_NS || acked > 0, stuck(appender));
                let batch = acked as f64 / (records(appender) - before).max(1) as f64;
                let achieved = acked as f64 / begin.elapsed().as_secs_f64();
                return Ok(Offered {
                    rate,
                    achieved,
                    batch,
                    records: achieved / batch.max(1.0),
                    p50: f64::INFINITY,
                    p99: f64::INFINITY,
                });
            }
        }
        match rest {
            Rest::Spin => std::hint::spin_loop(),
            Rest::Sleep if pushed >= due => thread::sleep(NAP),
            Rest::Sleep => thread::yield_now(),
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let made = (records(appender) - before).max(1) as f64;
    Ok(Offered {
        rate,
        achieved: total as f64 / seconds,
        batch: total as f64 / made,
        records: made / seconds,
        p50: latencies.value_at_quantile(0.5) as f64 / 1e6,
        p99: latencies.value_at_quantile(0.99) as f64 / 1e6,
    })
}

/// What became of a flood.
#[derive(Clone, Copy)]
pub(crate) struct Flood {
    /// Puts a second, all acknowledged.
    pub(crate) rate: f64,
    /// Puts in a record, on average.
    pub(crate) batch: f64,
}

/// Pushes for `span`, then waits for the last put; `spin` tries again at once instead of sleeping
/// while the queue is full.
pub(crate) fn flood(
    appender: &Appender,
    put: &mut Put,
    span: Duration,
    level: Durability,
    spin: bool,
) -> Result<Flood> {
    let before = records(appender);
    let begin = Instant::now();
    let mut last = appender.append(put.next())?;
    let mut puts = 1_u64;
    while !puts.is_multiple_of(32) || begin.elapsed() < span {
        last = if spin {
            loop {
                match appender.push(put.next()) {
                    Ok(ticket) => break ticket,
                    Err(QueueError::Full) => std::hint::spin_loop(),
                    Err(error) => bail!(error),
                }
            }
        } else {
            appender.append(put.next())?
        };
        puts += 1;
    }
    appender.wait(last, level)?;
    while appender.reached(level) < last {
        std::hint::spin_loop();
    }
    let rate = puts as f64 / begin.elapsed().as_secs_f64();
    Ok(Flood {
        rate,
        batch: puts as f64 / (records(appender) - before).max(1) as f64,
    })
}

/// Threads that each push `in_flight` puts, wait until the last of them has reached `level`, and
/// begin again; puts a second.
pub(crate) fn callers(
    appender: &Appender,
    value_bytes: usize,
    level: Durability,
    threads: usize,
    in_flight: usize,
    span: Duration,
) -> Result<Flood> {
    let before = records(appender);
    let begin = Instant::now();
    let puts = thread::scope(|scope| {
        let started: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<u64> {
                    let mut put = Put::of(value_bytes);
                    let mut puts = 0;
                    while begin.elapsed() < span {
                        let mut last = appender.append(put.next())?;
                        for _ in 1..in_flight {
                            last = appender.append(put.next())?;
                        }
                        appender.wait(last, level)?;
                        puts += in_flight as u64;
                    }
                    Ok(puts)
                })
            })
            .collect();
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(puts) => puts,
            Err(_) => bail!("a caller panicked"),
        });
        joined.sum::<Result<u64>>()
    })?;
    let rate = puts as f64 / begin.elapsed().as_secs_f64();
    let made = (records(appender) - before).max(1) as f64;
    Ok(Flood {
        rate,
        batch: puts as f64 / made,
    })
}

/// Records of the chain so far.
fn records(appender: &Appender) -> u64 {
    appender.head().map_or(0, |head| head.seq + 1)
}

fn stuck(appender: &Appender) -> String {
    format!(
        "nothing was acknowledged for seconds; sinks: {:?}",
        appender.sinks()
    )
}

/// Puts pushed before the generator looks for acknowledgements again.
const BURST: u64 = 64;
/// Looking takes a lock that the signer needs too.
const LOOK_NS: u64 = 2_000;
/// A put that old means that the load is too much.
const OVERLOAD_NS: u64 = 300_000_000;
/// And nothing at all for so long that something is broken.
const STUCK_NS: u64 = 5_000_000_000;
/// What the system makes of it is about 100 µs.
const NAP: Duration = Duration::from_micros(50);
