//! Functions go where their states are.

use super::*;

const HERE: Option<StatePlace> = Some(StatePlace::Here);
const AWAY: Option<StatePlace> = Some(StatePlace::Elsewhere(30_000));

fn pool() -> (Stage, Vec<WorkerId>) {
    let mut stage = Stage::new(Settings {
        workers_min: 3,
        ..settings()
    });
    let workers = started(&stage.pass(MS));
    for worker in &workers {
        stage.serve(*worker, SECOND);
    }
    (stage, workers)
}

impl Stage {
    fn say(&mut self, request: RequestId, state: Option<StatePlace>) {
        self.answer_of(request, StartKind::Hot, &[], 100 * MB, state);
    }

    /// Where a request for `name` goes at once.
    fn goes(&mut self, name: &str) -> (RequestId, WorkerId) {
        let (request, out) = self.ask(name);
        let [(sent, worker)] = dispatched(&out)[..] else {
            panic!("{out:?}");
        };
        assert_eq!(sent, request);
        (request, worker)
    }
}

#[test]
fn a_function_goes_to_the_worker_that_holds_its_state_and_waits_for_a_place_there() {
    let (mut stage, workers) = pool();
    let (request, first) = stage.goes("f");
    stage.say(request, AWAY);
    let (request, second) = stage.goes("f");
    assert_ne!(first, second);
    stage.say(request, HERE);
    // As many as there is room for, and one more, which waits though others are idle.
    for _ in 0..2 {
        assert_eq!(stage.goes("f").1, second);
    }
    let (waits, out) = stage.ask("f");
    assert_eq!(out, []);
    assert_eq!(stage.packer.workers.len(), workers.len());
    let there = stage.packer.workers[&second].flights[0].request;
    let out = stage.answer_of(there, StartKind::Hot, &[], 100 * MB, HERE);
    assert_eq!(dispatched(&out), [(waits, second)]);
    // Others go where they want.
    assert_ne!(stage.goes("g").1, second);
}

#[test]
fn a_worker_that_lost_the_state_or_is_gone_holds_nobody_back() {
    let (mut stage, _) = pool();
    let (request, keeper) = stage.goes("f");
    stage.say(request, HERE);
    assert_eq!(stage.goes("f").1, keeper);
    stage.tell(Event::Ended { worker: keeper });
    let (request, other) = stage.goes("f");
    assert_ne!(other, keeper);
    stage.say(request, HERE);
    let (request, _) = stage.goes("f");
    stage.say(request, AWAY);
    let (_, third) = stage.goes("f");
    assert!(third != other && third != keeper);
}

#[test]
fn when_all_say_that_it_is_elsewhere_one_of_them_is_asked_and_no_other_is_started() {
    let (mut stage, workers) = pool();
    stage.packer.settings.workers_max = 5;
    let mut asked = Vec::new();
    for _ in &workers {
        let (request, worker) = stage.goes("f");
        stage.say(request, AWAY);
        asked.push(worker);
    }
    asked.sort_unstable();
    assert_eq!(asked, workers);
    assert!(workers.contains(&stage.goes("f").1));
    assert_eq!(stage.packer.workers.len(), workers.len());
}
