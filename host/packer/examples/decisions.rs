//! Decisions a second: a hundred packages on sixteen workers, hot, and the same when all places are taken.
//!
//! `cargo run --release -p bield-packer --example decisions`

use std::time::{Duration, Instant};

use bield_envelope::Digest;
use bield_packer::{Caller, Decision, Event, Packer, RequestId, Settings, WorkerId};
use bield_protocol::feedback::{Feedback, StartKind};

const PACKAGES: u64 = 100;
const WORKERS: u32 = 16;
const CONCURRENCY: u32 = 4;
const REQUESTS: u64 = 200_000;

fn main() {
    // A quarter of the places, and one and a half times all of them.
    for at_once in [16, 96] {
        let took = run(at_once);
        let each = took / u32::try_from(REQUESTS).unwrap_or(u32::MAX);
        let rate = REQUESTS as f64 / took.as_secs_f64();
        println!(
            "{at_once:>3} at once: {rate:>8.0} requests a second, {each:?} each (arrival, dispatch, answer)"
        );
    }
}

/// Time in the packer for all requests, `at_once` of them open at any moment.
fn run(at_once: usize) -> Duration {
    let package = |n: u64| Digest::of("decisions", &[&(n % PACKAGES).to_be_bytes()]);
    let all: Vec<_> = (0..PACKAGES).map(package).collect();
    let mut packer = Packer::new(Settings {
        workers_min: WORKERS,
        workers_max: WORKERS,
        concurrency: CONCURRENCY,
        queue_max: 1000,
        share: 1000,
        ..Settings::default()
    });
    let mut out = Vec::new();
    let mut now = Duration::ZERO;
    packer.handle(now, Event::Tick, &mut out);
    for worker in 0..u64::from(WORKERS) {
        let worker = WorkerId(worker);
        let took = Duration::from_secs(1);
        packer.handle(now, Event::Started { worker, took }, &mut out);
    }
    for package in &all {
        let (package, bytes) = (*package, 1 << 20);
        packer.handle(now, Event::Sized { package, bytes }, &mut out);
    }
    out.clear();
    let mut running = std::collections::VecDeque::new();
    let mut spent = Duration::ZERO;
    let (mut asked, mut answered, mut open) = (0, 0, 0);
    while answered < REQUESTS {
        now += Duration::from_micros(20);
        let event = if open < at_once && asked < REQUESTS {
            asked += 1;
            open += 1;
            Event::Arrived {
                request: RequestId(asked),
                package: package(asked * 7919),
                caller: Caller(asked % 8),
                deadline: now + Duration::from_secs(60),
            }
        } else {
            let Some((request, worker)) = running.pop_front() else {
                return spent;
            };
            answered += 1;
            open -= 1;
            // What is resident is what a worker of this size would say.
            let first = (answered % 2) as usize * 50;
            Event::Answered {
                request,
                worker,
                took: Duration::from_millis(2),
                feedback: Some(Feedback {
                    start: StartKind::Hot,
                    lease_us: 0,
                    open_us: 0,
                    load_us: 0,
                    run_us: 1000,
                    total_us: 1500,
                    resident: all[first..first + 50].to_vec(),
                    in_flight: 1,
                    queue_us: 100,
                    free_bytes: 100 << 20,
                    engine: None,
                    state: None,
                }),
            }
        };
        let before = Instant::now();
        packer.handle(now, event, &mut out);
        spent += before.elapsed();
        for decision in out.drain(..) {
            if let Decision::Dispatch { request, worker } = decision {
                running.push_back((request, worker));
            }
        }
    }
    spent
}
