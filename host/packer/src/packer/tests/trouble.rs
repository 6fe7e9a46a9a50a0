//! Workers that fail, lie or never come, and pools that are full.

use super::*;

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
    let lost = |worker| Event::Failed {
        request,
        worker,
        failure: Failure::Lost,
    };
    let out = stage.tell(lost(first));
    let second = dispatched(&out)[0].1;
    assert_ne!(first, second);
    assert_eq!(stage.tell(lost(first)), [], "said already");
    assert_eq!(refused(&stage.tell(lost(second))), [Refusal::Lost]);
    assert_eq!(stage.tell(lost(second)), []);
    assert!(stage.packer.requests.is_empty());
}

#[test]
fn a_request_of_a_worker_that_is_gone_is_sent_elsewhere_when_it_is_said_to_be_lost_and_not_before()
{
    let mut stage = Stage::new(settings());
    let worker = warm(&mut stage, "a");
    let (request, _) = stage.ask("a");
    let (answered, _) = stage.ask("a");
    let out = stage.tell(Event::Ended { worker });
    assert_eq!(dispatched(&out), []);
    let later = stage.now + SECOND * 30;
    assert_eq!(dispatched(&stage.pass(later)), []);
    stage.answer(answered, StartKind::Hot, &["a"], 0);
    assert_eq!(stage.packer.view().totals.answered, 2);
    let out = stage.fail(request, Failure::Lost);
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
        stage.fail(request, Failure::TimedOut);
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
    // Who has most that wait makes room for who has less.
    assert_eq!(all, [Refusal::ShareFull; 3]);
    assert_eq!(stage.packer.queue.of_caller(Caller(1)), 1);
    assert_eq!(refused(&stage.ask_as("a", 20).1), [Refusal::QueueFull]);
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
        stage.fail(sent[0].0, Failure::Broken);
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
        state: None,
    };
    stage.tell(Event::Answered {
        request,
        worker,
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
fn a_request_with_a_place_of_its_own_is_taken_though_the_queue_is_full() {
    let mut stage = Stage::new(Settings {
        workers_max: 1,
        workers_min: 1,
        queue_max: 3,
        share: 3,
        ..settings()
    });
    warm(&mut stage, "a");
    stage.ask_as("a", 1);
    let (ends, _) = stage.ask_as("a", 1);
    (0..3).for_each(|_| assert_eq!(stage.ask_as("a", 1).1, []));
    stage.packer.settings.concurrency += 1;
    // The one that waited longest takes it; then the next arrival finds room.
    assert_eq!(dispatched(&stage.ask_as("a", 2).1).len(), 1);
    assert_eq!(stage.packer.queue.len(), 3);
    assert_eq!(refused(&stage.ask_as("a", 3).1), [Refusal::ShareFull]);
    assert_eq!(
        dispatched(&stage.answer(ends, StartKind::Hot, &["a"], 0)).len(),
        1
    );
}

#[test]
fn what_comes_back_without_a_word_teaches_nothing() {
    let mut stage = Stage::new(settings());
    let worker = warm(&mut stage, "a");
    let before = stage.packer.view();
    for _ in 0..10 {
        let (request, _) = stage.ask("a");
        stage.tell(Event::Returned { request, worker });
        let (made_up, _) = stage.ask("made up");
        stage.tell(Event::Returned {
            request: made_up,
            worker,
        });
    }
    let view = stage.packer.view();
    assert_eq!(view.totals.returned, 20);
    assert_eq!(view.totals.answered, before.totals.answered);
    assert_eq!(view.totals.starts, before.totals.starts);
    assert_eq!(view.workers[0].resident, before.workers[0].resident);
    let known = |view: &crate::View| {
        let a = package("a").to_string();
        let found = view.packages.iter().find(|known| known.package == a);
        found.map(|known| (known.run_us, known.open_us)).unwrap()
    };
    assert_eq!(known(&view), known(&before));
}

#[test]
fn a_worker_that_dies_at_once_is_started_ever_more_slowly() {
    let mut stage = Stage::new(Settings {
        workers_min: 1,
        ..settings()
    });
    let mut worker = started(&stage.pass(MS))[0];
    let mut slots = BTreeSet::new();
    let mut pauses = Vec::new();
    for _ in 0..5 {
        slots.insert(stage.packer.workers[&worker].slot);
        stage.serve(worker, MS);
        let ended = stage.now;
        stage.tell(Event::Ended { worker });
        while stage.packer.workers.is_empty() {
            stage.now = stage.packer.wakes_at().unwrap();
            worker = started(&stage.tell(Event::Tick))
                .first()
                .copied()
                .unwrap_or(worker);
        }
        pauses.push(stage.now - ended);
    }
    assert!(
        pauses.windows(2).all(|pair| pair[1] >= pair[0] * 19 / 10),
        "{pauses:?}"
    );
    assert_eq!(slots.len(), 3, "each place of the pool is tried");
}

#[test]
fn a_baseline_ends_nobody_while_another_place_of_the_pool_is_free() {
    for policy in [Policy::OnePerModel, Policy::FnPacker] {
        let mut stage = Stage::new(Settings {
            policy,
            fnpacker_pool: 3,
            concurrency: 1,
            ..settings()
        });
        warm(&mut stage, "a");
        let (held, _) = stage.ask("a");
        let (_, out) = stage.ask("b");
        let worker = started(&out)[0];
        stage.answer(held, StartKind::Hot, &["a"], 0);
        let out = stage.tell(Event::StartFailed { worker });
        assert_eq!(stopped(&out), [], "{policy:?}");
        let due = stage.packer.wakes_at().unwrap();
        let out = stage.pass(due);
        assert_eq!(started(&out).len(), 1, "{policy:?}: when the pause is over");
    }
}
