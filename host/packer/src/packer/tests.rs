//! What the packer decides, told as short stories.

use bield_protocol::feedback::{Feedback, StartKind, StatePlace};

use super::*;
use crate::event::Failure;
use crate::explain::{Holds, Outcome};
use crate::settings::KeepAlive;

mod cores;
mod lives;
mod states;
mod trouble;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MB: u64 = 1 << 20;

fn package(name: &str) -> Digest {
    Digest::of("test", &[name.as_bytes()])
}

/// A packer with a clock and a counter of requests.
struct Stage {
    packer: Packer,
    now: Duration,
    next: u64,
}

impl Stage {
    fn new(settings: Settings) -> Self {
        Self {
            packer: Packer::new(settings),
            now: Duration::ZERO,
            next: 0,
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Decision> {
        let mut out = Vec::new();
        self.packer.handle(self.now, event, &mut out);
        out
    }

    fn ask(&mut self, name: &str) -> (RequestId, Vec<Decision>) {
        self.ask_as(name, 0)
    }

    fn ask_as(&mut self, name: &str, caller: u64) -> (RequestId, Vec<Decision>) {
        let request = RequestId(self.next);
        self.next += 1;
        let out = self.tell(Event::Arrived {
            request,
            package: package(name),
            caller: Caller(caller),
            deadline: self.now + SECOND * 60,
        });
        (request, out)
    }

    /// Where it is.
    fn at(&self, request: RequestId) -> WorkerId {
        self.packer.requests[&request].at.unwrap()
    }

    fn fail(&mut self, request: RequestId, failure: Failure) -> Vec<Decision> {
        let worker = self.at(request);
        self.tell(Event::Failed {
            request,
            worker,
            failure,
        })
    }

    fn serve(&mut self, worker: WorkerId, took: Duration) -> Vec<Decision> {
        self.tell(Event::Started { worker, took })
    }

    /// An answer that took `took`, of a worker that opened what `start` says within 100 ms and ran for 10 ms.
    fn answer(
        &mut self,
        request: RequestId,
        start: StartKind,
        resident: &[&str],
        free: u64,
    ) -> Vec<Decision> {
        self.answer_of(request, start, resident, free, None)
    }

    fn answer_of(
        &mut self,
        request: RequestId,
        start: StartKind,
        resident: &[&str],
        free: u64,
        state: Option<StatePlace>,
    ) -> Vec<Decision> {
        let opened = matches!(start, StartKind::WarmKey | StartKind::Cold);
        let feedback = Feedback {
            start,
            lease_us: 0,
            open_us: if opened { 100_000 } else { 0 },
            load_us: 0,
            run_us: 10_000,
            total_us: 10_000,
            resident: resident.iter().map(|name| package(name)).collect(),
            in_flight: 0,
            queue_us: 0,
            free_bytes: free,
            engine: None,
            state,
        };
        let took = MS * if opened { 110 } else { 10 };
        self.now += took;
        self.tell(Event::Answered {
            request,
            worker: self.at(request),
            took,
            feedback: Some(feedback),
        })
    }

    /// Lets time pass until `until`, with the ticks that are due.
    fn pass(&mut self, until: Duration) -> Vec<Decision> {
        let mut all = Vec::new();
        for _ in 0..100_000 {
            match self.packer.wakes_at() {
                Some(due) if due <= until => self.now = self.now.max(due),
                _ => break,
            }
            all.extend(self.tell(Event::Tick));
        }
        self.now = until;
        all
    }
}

fn settings() -> Settings {
    Settings {
        workers_max: 3,
        concurrency: 2,
        start_guess: SECOND,
        open_guess: MS * 100,
        run_guess: MS * 10,
        worker_bytes: 100 * MB,
        ..Settings::default()
    }
}

fn started(out: &[Decision]) -> Vec<WorkerId> {
    let starts = out.iter().filter_map(|decision| match decision {
        Decision::Start { worker, .. } => Some(*worker),
        _ => None,
    });
    starts.collect()
}

fn dispatched(out: &[Decision]) -> Vec<(RequestId, WorkerId)> {
    let sent = out.iter().filter_map(|decision| match decision {
        Decision::Dispatch { request, worker } => Some((*request, *worker)),
        _ => None,
    });
    sent.collect()
}

fn stopped(out: &[Decision]) -> Vec<WorkerId> {
    let stops = out.iter().filter_map(|decision| match decision {
        Decision::Stop { worker } => Some(*worker),
        _ => None,
    });
    stops.collect()
}

fn refused(out: &[Decision]) -> Vec<Refusal> {
    let refusals = out.iter().filter_map(|decision| match decision {
        Decision::Refuse {
            refusal,
            retry_after,
            ..
        } => {
            assert!(*retry_after > Duration::ZERO);
            Some(*refusal)
        }
        _ => None,
    });
    refusals.collect()
}

/// One worker that serves, having answered for `name`.
fn warm(stage: &mut Stage, name: &str) -> WorkerId {
    let (request, out) = stage.ask(name);
    let worker = started(&out)[0];
    stage.now += SECOND;
    assert_eq!(
        dispatched(&stage.serve(worker, SECOND)),
        [(request, worker)]
    );
    stage.answer(request, StartKind::Cold, &[name], 90 * MB);
    worker
}

#[test]
fn a_request_from_zero_starts_one_worker_and_goes_there() {
    let mut stage = Stage::new(settings());
    let worker = warm(&mut stage, "a");
    let (request, out) = stage.ask("a");
    assert_eq!(dispatched(&out), [(request, worker)]);
    let why = stage.packer.why(request).unwrap();
    assert_eq!(why.outcome, Outcome::Dispatched(worker));
    assert_eq!(why.candidates[0].holds, Holds::Hot);
    assert_eq!(why.candidates[0].finish_us, 10_000);
    let start = why.candidates.last().unwrap();
    assert_eq!(
        (start.worker, start.finish_us),
        (None, 1_000_000 + 100_000 + 10_000)
    );
    assert_eq!(stage.packer.view().totals.cold_starts, 1);
}

#[test]
fn another_package_is_opened_beside_it_rather_than_in_a_new_worker() {
    let mut stage = Stage::new(settings());
    let worker = warm(&mut stage, "a");
    let (request, out) = stage.ask("b");
    assert_eq!(dispatched(&out), [(request, worker)]);
    assert_eq!(started(&out), []);
}

#[test]
fn who_asks_for_a_package_that_is_being_opened_waits_for_that_worker() {
    let mut stage = Stage::new(Settings {
        concurrency: 1,
        ..settings()
    });
    let first = warm(&mut stage, "a");
    // A second worker, hot with b: the first is busy for long.
    let (long, _) = stage.ask("a");
    stage.now += SECOND * 3;
    let (other, out) = stage.ask("b");
    let second = started(&out)[0];
    stage.now += SECOND;
    assert_eq!(dispatched(&stage.serve(second, SECOND)), [(other, second)]);
    stage.answer(other, StartKind::Cold, &["b"], 90 * MB);
    stage.answer(long, StartKind::Hot, &["a"], 90 * MB);
    let (opens, out) = stage.ask("c");
    let at = dispatched(&out)[0].1;
    stage.now += MS * 50;
    let (waits, out) = stage.ask("c");
    assert_eq!(out, [], "though {first} or {second} has a place");
    let freed = stage.answer(opens, StartKind::Cold, &["c"], 80 * MB);
    assert_eq!(dispatched(&freed), [(waits, at)]);
}

#[test]
fn another_worker_is_started_when_waiting_is_predicted_to_be_later() {
    let mut stage = Stage::new(settings());
    warm(&mut stage, "a");
    let mut started_for = None;
    for request in 0..1000 {
        let (_, out) = stage.ask_as("a", request);
        if !started(&out).is_empty() {
            started_for = Some(request);
            break;
        }
    }
    // Two places of 10 ms each: a second of work is about 200 requests, and starting takes a second and an opening.
    let started_for = started_for.unwrap();
    assert!((150..=260).contains(&started_for), "{started_for}");
}

#[test]
fn gateways_that_do_not_know_of_each_other_choose_alike() {
    for name in ["a", "b", "c", "d", "e", "f"] {
        let slots = (0..4).map(|gateway| {
            let mut stage = Stage::new(Settings {
                workers_min: 3,
                ..settings()
            });
            let mut workers = started(&stage.pass(MS));
            // Each gave its slots to other workers.
            for worker in workers.clone().into_iter().take(gateway) {
                stage.serve(worker, SECOND);
                stage.now += SECOND * 100;
                let again = started(&stage.tell(Event::Ended { worker }));
                workers.retain(|other| *other != worker);
                workers.extend(again);
            }
            assert_eq!(workers.len(), 3);
            workers
                .into_iter()
                .for_each(|worker| drop(stage.serve(worker, SECOND)));
            let (_, out) = stage.ask(name);
            let at = dispatched(&out)[0].1;
            stage.packer.workers[&at].slot
        });
        let slots: BTreeSet<_> = slots.collect();
        assert_eq!(slots.len(), 1, "{name}");
    }
}

#[test]
fn sizes_are_learnt_from_what_is_free_before_and_after() {
    let mut stage = Stage::new(settings());
    let bytes = 5 * MB;
    stage.tell(Event::Sized {
        package: package("b"),
        bytes,
    });
    warm(&mut stage, "a");
    let (request, _) = stage.ask("b");
    stage.answer(request, StartKind::Cold, &["a", "b"], 70 * MB);
    assert_eq!(stage.packer.packages.size(package("b")), 20 * MB);
    assert_eq!(stage.packer.view().workers[0].free_bytes, 70 * MB);
}

#[test]
fn what_is_shown_is_json_with_names() {
    let mut stage = Stage::new(settings());
    warm(&mut stage, "a");
    let (request, _) = stage.ask("a");
    stage.fail(request, Failure::TimedOut);
    let view = serde_json::to_value(stage.packer.view()).unwrap();
    assert_eq!(view["totals"]["starts"]["cold"], 1);
    assert_eq!(view["totals"]["failures"]["timed-out"], 1);
    assert_eq!(view["workers"][0]["state"], "serving");
    assert_eq!(view["workers"][0]["resident"][0], package("a").to_string());
    let why = serde_json::to_value(stage.packer.why(request).unwrap()).unwrap();
    assert_eq!(why["outcome"]["dispatched"], 0);
    assert_eq!(why["candidates"][0]["holds"], "hot");
}
