//! What is left undone while every core that the workers share is busy.

use super::*;

const BUSY: &str = "waits: all cores are busy; another worker would not be earlier";

/// A hot worker with two places that are taken.
fn full(cores: u32, worker_cores: u32) -> (Stage, WorkerId) {
    let mut stage = Stage::new(Settings {
        cores,
        worker_cores,
        queue_max: 1000,
        ..settings()
    });
    let worker = warm(&mut stage, "a");
    for _ in 0..2 {
        let (request, out) = stage.ask("a");
        assert_eq!(dispatched(&out), [(request, worker)]);
    }
    (stage, worker)
}

/// How many workers were started for so many requests at once.
fn starts(stage: &mut Stage, requests: u64) -> usize {
    let starts = (0..requests).map(|caller| started(&stage.ask_as("a", caller).1).len());
    starts.sum()
}

#[test]
fn no_worker_is_started_for_load_while_all_cores_are_busy() {
    let (mut stage, worker) = full(2, 0);
    assert_eq!(starts(&mut stage, 400), 0);
    // Those that come when the others there are predicted to take longer than starting.
    let said = (0..stage.next).filter_map(|id| stage.packer.why(RequestId(id)));
    let mut kept = said.filter(|why| why.reason == BUSY).peekable();
    assert!(kept.peek().is_some());
    assert!(kept.all(|why| why.outcome == Outcome::Waits(Some(worker))));
    // A third core would have nothing to do; where cores are not known, nobody can tell.
    for cores in [3, 0] {
        let (mut stage, _) = full(cores, 0);
        assert!(starts(&mut stage, 256) > 0, "{cores}");
    }
}

#[test]
fn workers_that_cannot_use_all_cores_are_started_until_they_do() {
    let (mut stage, _) = full(2, 1);
    assert_eq!(starts(&mut stage, 256), 1, "one for each core, not three");
}

#[test]
fn from_nothing_one_worker_is_started_for_many() {
    let mut stage = Stage::new(Settings {
        cores: 2,
        ..settings()
    });
    assert_eq!(starts(&mut stage, 256), 1);
}

#[test]
fn requests_that_wait_for_something_else_keep_no_core_busy() {
    let (mut stage, _) = full(2, 0);
    let (soon, out) = stage.ask("b");
    assert_eq!(started(&out), []);
    assert_eq!(
        stage.packer.why(soon).unwrap().outcome,
        Outcome::Waits(Some(WorkerId(0)))
    );
    // Both of `a` were predicted to take 10 ms; starting takes a second.
    stage.now += SECOND * 3;
    assert_eq!(started(&stage.ask("b").1).len(), 1);
}

#[test]
fn a_worker_that_is_left_alone_keeps_no_core_busy() {
    let (mut stage, worker) = full(2, 0);
    stage.packer.workers.get_mut(&worker).unwrap().avoid_until = stage.now + SECOND * 30;
    assert_eq!(started(&stage.ask("a").1).len(), 1);
}

#[test]
fn no_replica_is_opened_while_all_cores_are_busy() {
    for (cores, opens) in [(2, false), (3, true)] {
        let mut stage = Stage::new(Settings {
            cores,
            workers_min: 2,
            ..settings()
        });
        let workers = started(&stage.pass(MS));
        for worker in &workers {
            stage.serve(*worker, SECOND);
        }
        let (request, _) = stage.ask("a");
        let hot = stage.at(request);
        stage.answer(request, StartKind::Cold, &["a"], 90 * MB);
        for _ in 0..2 {
            let (request, out) = stage.ask("a");
            assert_eq!(dispatched(&out), [(request, hot)]);
        }
        let known = stage.packer.packages.get_mut(package("a")).unwrap();
        known.waited_us = 10_000_000;
        let (request, out) = stage.ask("a");
        let at: Vec<_> = dispatched(&out).into_iter().map(|(_, at)| at).collect();
        match opens {
            true => assert_eq!(
                at,
                [if hot == workers[0] {
                    workers[1]
                } else {
                    workers[0]
                }]
            ),
            false => assert_eq!(at, [], "{:?}", stage.packer.why(request)),
        }
    }
}

#[test]
fn openings_are_predicted_to_share_the_cores() {
    let (mut stage, _) = full(2, 0);
    let (request, _) = stage.ask("b");
    let why = stage.packer.why(request).unwrap();
    // Three on two cores: 100 ms take 150.
    assert_eq!(why.candidates[0].switch_us, 150_000);
}

#[test]
fn as_many_places_as_cores_are_asked_for_what_computes() {
    let (mut stage, _) = full(2, 0);
    starts(&mut stage, 20);
    let demand = stage.packer.demand();
    assert_eq!((demand.places, demand.cores), (2, 2));
    // Those that do not compute keep their places all the same.
    stage.now += SECOND * 3;
    stage.tell(Event::Tick);
    let demand = stage.packer.demand();
    assert_eq!((demand.places, demand.cores), (4, 2));
    let (stage, _) = full(0, 0);
    let demand = stage.packer.demand();
    assert_eq!((demand.places, demand.cores), (2, 0));
}
