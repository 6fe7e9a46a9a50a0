//! How long workers live, and which are kept ready.

use super::*;

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
fn workers_that_may_not_end_are_not_kept_from_work() {
    let mut stage = Stage::new(Settings {
        workers_min: 3,
        ..settings()
    });
    for worker in started(&stage.pass(MS)) {
        stage.serve(worker, MS);
    }
    let mut burst = Vec::new();
    (0..6).for_each(|name: u32| burst.push(stage.ask(&name.to_string()).0));
    for request in burst {
        stage.answer(request, StartKind::Cold, &[], 90 * MB);
    }
    let quiet = stage.now + SECOND * 600;
    stage.pass(quiet);
    let view = stage.packer.view();
    let retiring = view
        .workers
        .iter()
        .filter(|w| w.state == crate::WorkerState::Retiring);
    assert_eq!((view.workers.len(), retiring.count()), (3, 0));
}

#[test]
fn time_before_a_worker_was_measured_is_booked_at_what_was_measured() {
    let mut stage = Stage::new(settings());
    let worker = warm(&mut stage, "a");
    stage.now += SECOND;
    stage.tell(Event::Tick);
    assert_eq!(stage.packer.view().totals.gb_s, 0.0);
    assert!(stage.packer.view().totals.worker_s > 2.0);
    let bytes = 20_000_000;
    stage.tell(Event::Measured { worker, bytes });
    let lived = stage.packer.view().totals.worker_s;
    let totals = stage.packer.view().totals;
    assert!((totals.gb_s - lived * 0.02).abs() < 1e-9, "{totals:?}");
    assert!(totals.unused_gb_s > 0.0 && totals.idle_gb_s < totals.gb_s);
    // Another that ends before it is measured.
    stage.tell(Event::Ended { worker });
    let (_, out) = stage.ask("a");
    stage.now += SECOND;
    stage.tell(Event::Ended {
        worker: started(&out)[0],
    });
    let totals = stage.packer.view().totals;
    assert!(
        (totals.gb_s - (lived + 1.0) * 0.02).abs() < 1e-9,
        "{totals:?}"
    );
}
