//! What the packer decides, told as short stories.

use bield_protocol::feedback::{Feedback, StartKind};

use super::*;
use crate::event::Failure;
use crate::explain::{Holds, Outcome};
use crate::settings::KeepAlive;

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
        };
        let took = MS * if opened { 110 } else { 10 };
        self.now += took;
        self.tell(Event::Answered {
            request,
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
fn a_spare_is_kept_and_taken_before_another_is_started() {
    let mut stage = Stage::new(Settings {
        spares: 1,
        concurrency: 1,
        ..settings()
    });
    let first = started(&stage.pass(MS))[0];
    stage.serve(first, SECOND);
    let (request, out) = stage.ask("a");
    assert_eq!(dispatched(&out), [(request, first)]);
    let second = started(&out);
    assert_eq!(second.len(), 1, "the next spare");
    stage.serve(second[0], SECOND);
    stage.now += SECOND * 5;
    let (other, out) = stage.ask("b");
    assert_eq!(dispatched(&out), [(other, second[0])]);
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
            // Each learns of the workers in another order.
            workers.rotate_left(gateway % 3);
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
fn a_lost_request_goes_to_another_worker_once() {
    let mut stage = Stage::new(Settings {
        workers_min: 2,
        ..settings()
    });
    let workers = started(&stage.pass(MS));
    workers
        .iter()
        .for_each(|worker| drop(stage.serve(*worker, SECOND)));
    let (request, out) = stage.ask("a");
    let first = dispatched(&out)[0].1;
    let lost = Event::Failed {
        request,
        failure: Failure::Lost,
    };
    let out = stage.tell(lost.clone());
    let second = dispatched(&out)[0].1;
    assert_ne!(first, second);
    assert_eq!(refused(&stage.tell(lost.clone())), [Refusal::Lost]);
    assert_eq!(stage.tell(lost), []);
    assert!(stage.packer.requests.is_empty());
}

#[test]
fn requests_of_a_worker_that_is_gone_count_as_lost_after_a_grace() {
    let mut stage = Stage::new(settings());
    let worker = warm(&mut stage, "a");
    let (request, _) = stage.ask("a");
    let out = stage.tell(Event::Ended { worker });
    assert_eq!(dispatched(&out), []);
    let due = stage.now + ORPHAN_GRACE;
    let out = stage.pass(due);
    let other = started(&out)[0];
    stage.now += SECOND;
    assert_eq!(dispatched(&stage.serve(other, SECOND)), [(request, other)]);
}

#[test]
fn a_worker_that_fails_again_and_again_is_left_alone_for_a_while() {
    let mut stage = Stage::new(Settings {
        workers_min: 2,
        ..settings()
    });
    let workers = started(&stage.pass(MS));
    workers
        .iter()
        .for_each(|worker| drop(stage.serve(*worker, SECOND)));
    let bad = dispatched(&stage.ask("a").1)[0].1;
    let again = |stage: &mut Stage| {
        let (request, out) = stage.ask("a");
        stage.tell(Event::Failed {
            request,
            failure: Failure::TimedOut,
        });
        dispatched(&out)[0].1
    };
    assert_eq!(again(&mut stage), bad);
    assert_eq!(
        again(&mut stage),
        bad,
        "one package alone does not make a worker bad"
    );
    let worker = stage.packer.workers.get_mut(&bad).unwrap();
    worker.did_badly(package("b"), false, stage.now);
    assert_ne!(again(&mut stage), bad);
    let later = stage.now + SECOND * 120;
    stage.pass(later);
    assert_eq!(
        stage.packer.workers[&bad].state(stage.now),
        crate::WorkerState::Serving
    );
}

#[test]
fn starts_that_fail_are_repeated_ever_more_slowly() {
    let mut stage = Stage::new(settings());
    let (_, out) = stage.ask("a");
    let mut worker = started(&out)[0];
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let failed = stage.now;
        assert_eq!(started(&stage.tell(Event::StartFailed { worker })), []);
        while let Some(due) = stage.packer.wakes_at() {
            stage.now = due;
            let out = stage.tell(Event::Tick);
            if let [next] = started(&out)[..] {
                worker = next;
                break;
            }
        }
        pauses.push(stage.now - failed);
    }
    assert!(
        pauses.windows(2).all(|pair| pair[1] == pair[0] * 2),
        "{pauses:?}"
    );
}

#[test]
fn when_no_worker_comes_the_deadline_says_so() {
    let mut stage = Stage::new(settings());
    let (_, out) = stage.ask("a");
    stage.tell(Event::StartFailed {
        worker: started(&out)[0],
    });
    stage.now += SECOND * 60;
    assert_eq!(refused(&stage.tell(Event::Tick)), [Refusal::NoWorker]);
}

#[test]
fn queue_and_share_are_bounded() {
    let mut stage = Stage::new(Settings {
        queue_max: 5,
        share: 3,
        ..settings()
    });
    let mut all = Vec::new();
    (0..4).for_each(|_| all.extend(refused(&stage.ask_as("a", 1).1)));
    (0..4).for_each(|caller| all.extend(refused(&stage.ask_as("a", 10 + caller).1)));
    assert_eq!(
        all,
        [Refusal::ShareFull, Refusal::QueueFull, Refusal::QueueFull]
    );
    stage.packer.drain();
    assert_eq!(refused(&stage.ask("a").1), [Refusal::NoWorker]);
}

/// F9 of the original: of eight models at once on a pool of two, six failed.
#[test]
fn eight_models_at_once_on_a_pool_of_two_are_all_answered() {
    let mut stage = Stage::new(Settings {
        workers_max: 2,
        concurrency: 1,
        ..settings()
    });
    let mut out = Vec::new();
    for model in 0..8 {
        out.extend(stage.ask(&model.to_string()).1);
    }
    assert_eq!(started(&out).len(), 2);
    for worker in started(&out) {
        let more = stage.serve(worker, SECOND);
        out.extend(more);
    }
    let mut answered = 0;
    while let Some((request, _)) = dispatched(&out).get(answered).copied() {
        let more = stage.answer(request, StartKind::Cold, &[], 0);
        out.extend(more);
        answered += 1;
    }
    assert_eq!((answered, refused(&out).len()), (8, 0));
}

/// The same with the published rules: six are refused, nothing panics, and afterwards the pool works.
#[test]
fn the_published_rules_refuse_but_recover() {
    let policy = Policy::FnPacker;
    let mut stage = Stage::new(Settings {
        policy,
        fnpacker_pool: 2,
        ..settings()
    });
    let mut out = Vec::new();
    for model in 0..8 {
        out.extend(stage.ask(&model.to_string()).1);
    }
    assert_eq!(refused(&out), [Refusal::AllBusy; 6]);
    for worker in started(&out) {
        let sent = dispatched(&stage.serve(worker, SECOND));
        let failure = Failure::Broken;
        stage.tell(Event::Failed {
            request: sent[0].0,
            failure,
        });
    }
    assert_eq!(dispatched(&stage.ask("9").1).len(), 1);
}

#[test]
fn a_liar_is_bounded_by_what_was_measured() {
    let mut stage = Stage::new(settings());
    let worker = warm(&mut stage, "a");
    let (request, _) = stage.ask("a");
    let foreign: Vec<_> = (0..200)
        .map(|n: u64| Digest::of("foreign", &[&n.to_be_bytes()]))
        .collect();
    let feedback = Feedback {
        start: StartKind::Cold,
        lease_us: u64::MAX,
        open_us: u64::MAX,
        load_us: u64::MAX,
        run_us: u64::MAX,
        total_us: u64::MAX,
        resident: foreign,
        in_flight: u32::MAX,
        queue_us: u64::MAX,
        free_bytes: u64::MAX,
        engine: None,
    };
    stage.tell(Event::Answered {
        request,
        took: MS * 200,
        feedback: Some(feedback),
    });
    let view = stage.packer.view();
    assert_eq!(view.workers[0].resident, [] as [String; 0]);
    assert!(view.packages[0].open_us <= 200_000 && view.packages[0].run_us <= 200_000);
    assert!(view.workers[0].free_bytes <= 1 << 40);
    let (next, out) = stage.ask("b");
    assert_eq!(dispatched(&out), [(next, worker)]);
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
fn idle_workers_end_and_nothing_is_due_any_more() {
    for policy in Policy::ALL {
        let mut stage = Stage::new(Settings {
            policy,
            ..settings()
        });
        let worker = warm(&mut stage, "a");
        let out = stage.pass(SECOND * 10_000);
        assert_eq!(stopped(&out), [worker], "{policy}");
        stage.tell(Event::Ended { worker });
        stage.pass(SECOND * 20_000);
        assert_eq!(stage.packer.wakes_at(), None, "{policy}");
        assert!(stage.packer.view().workers.is_empty());
    }
}

#[test]
fn a_package_with_a_habit_has_a_worker_started_before_it_is_due() {
    let keep_alive = KeepAlive {
        floor: SECOND,
        fixed: SECOND * 30,
        bin: SECOND,
        ..KeepAlive::default()
    };
    let mut stage = Stage::new(Settings {
        keep_alive,
        ..settings()
    });
    let mut workers = Vec::new();
    for round in 1..20 {
        let mut out = stage.pass(SECOND * 60 * round);
        for worker in stopped(&out) {
            out.extend(stage.tell(Event::Ended { worker }));
        }
        workers.extend(started(&out));
        let (request, more) = stage.ask("a");
        out.extend(more);
        let mut sent = dispatched(&out);
        for worker in started(&out) {
            stage.now += SECOND;
            sent.extend(dispatched(&stage.serve(worker, SECOND)));
        }
        assert_eq!(sent.len(), 1, "round {round}");
        stage.answer(request, StartKind::Cold, &["a"], 90 * MB);
    }
    assert!(workers.len() >= 8, "started ahead: {}", workers.len());
}

#[test]
fn a_quiet_pool_is_packed_into_fewer_workers() {
    let mut stage = Stage::new(Settings {
        workers_max: 2,
        ..settings()
    });
    let first = warm(&mut stage, "a");
    for caller in 0..250 {
        let (_, out) = stage.ask_as("a", caller);
        if let [second] = started(&out)[..] {
            stage.now += SECOND;
            stage.serve(second, SECOND);
        }
    }
    let mut at_work: Vec<_> = stage
        .packer
        .workers
        .values()
        .flat_map(|w| w.flights.clone())
        .collect();
    while let Some(flight) = at_work.pop() {
        let more = stage.answer(flight.request, StartKind::Hot, &["a"], 90 * MB);
        for (request, worker) in dispatched(&more) {
            let flights = &stage.packer.workers[&worker].flights;
            at_work.extend(
                flights
                    .iter()
                    .find(|flight| flight.request == request)
                    .cloned(),
            );
        }
    }
    assert_eq!(stage.packer.workers.len(), 2);
    let mut ended = Vec::new();
    for _ in 0..1000 {
        let next = stage.now + MS * 200;
        ended.extend(stopped(&stage.pass(next)));
        let (request, out) = stage.ask("a");
        assert_eq!(dispatched(&out).len(), 1);
        ended.extend(stopped(&out));
        let out = stage.answer(request, StartKind::Hot, &["a"], 90 * MB);
        ended.extend(stopped(&out));
    }
    assert_eq!(ended.len(), 1, "of {first} and the one started for load");
}

#[test]
fn what_is_shown_is_json_with_names() {
    let mut stage = Stage::new(settings());
    warm(&mut stage, "a");
    let (request, _) = stage.ask("a");
    stage.tell(Event::Failed {
        request,
        failure: Failure::TimedOut,
    });
    let view = serde_json::to_value(stage.packer.view()).unwrap();
    assert_eq!(view["totals"]["starts"]["cold"], 1);
    assert_eq!(view["totals"]["failures"]["timed-out"], 1);
    assert_eq!(view["workers"][0]["state"], "serving");
    assert_eq!(view["workers"][0]["resident"][0], package("a").to_string());
    let why = serde_json::to_value(stage.packer.why(request).unwrap()).unwrap();
    assert_eq!(why["outcome"]["dispatched"], 0);
    assert_eq!(why["candidates"][0]["holds"], "hot");
}
