//! The driver and the packer over an engine that does as it is told.

use std::collections::VecDeque;
use std::io;

use bield_engines::{Answer, Body, Bytes, EngineError, Place, Seen};
use bield_envelope::Digest;
use bield_packer::{Caller, Settings};
use bield_protocol::feedback::{Feedback, StartKind, StatePlace};
use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::{self, StreamExt as _};

use super::*;

const WAIT: Duration = Duration::from_secs(30);

/// What becomes of a call; without a word it is answered.
enum Does {
    Fail(EngineError),
    /// The instance is gone, and is made when the place is asked for.
    BeGone,
    Parts(Vec<io::Result<Bytes>>),
    /// Answered, with where the function's state is said to be.
    Say(StatePlace),
}

/// Makes an instance where it is asked for one and none is there.
struct Scripted {
    groups: Vec<watch::Sender<Seen>>,
    script: Mutex<VecDeque<Does>>,
    /// Who said something, in order.
    asked: Mutex<Vec<u64>>,
    next: AtomicU64,
}

impl Scripted {
    fn new(places: u32) -> Arc<Scripted> {
        Arc::new(Scripted {
            groups: (0..places).map(|_| watch::Sender::default()).collect(),
            script: Mutex::default(),
            asked: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    fn then(&self, does: Does) {
        self.script.lock().unwrap().push_back(does);
    }

    fn group(&self, group: Group) -> &watch::Sender<Seen> {
        &self.groups[usize::try_from(group.0).unwrap()]
    }

    fn show_another(&self, group: Group) {
        let endpoint = Endpoint {
            group,
            id: self.next.fetch_add(1, Ordering::Relaxed),
            name: String::new(),
        };
        self.group(group)
            .send_modify(|seen| seen.endpoints = vec![endpoint]);
    }
}

impl Engine for Scripted {
    fn ensure(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        if self.group(group).borrow().endpoints.is_empty() {
            self.show_another(group);
        }
        future::ready(Ok(())).boxed()
    }

    fn scale(&self, _: Group, _: u32) -> BoxFuture<'_, Result<(), EngineError>> {
        future::ready(Ok(())).boxed()
    }

    fn endpoints(&self, group: Group) -> watch::Receiver<Seen> {
        self.group(group).subscribe()
    }

    fn invoke<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        sealed: Bytes,
        _: Duration,
        place: Place,
    ) -> BoxFuture<'a, Result<Answer, EngineError>> {
        let does = self.script.lock().unwrap().pop_front();
        let body = match does {
            None => Ok(Body::Whole(sealed)),
            Some(Does::Fail(error)) => Err(error),
            Some(Does::Say(place_of_state)) => {
                drop(place);
                self.asked.lock().unwrap().push(endpoint.id);
                let feedback = Some(said(place_of_state));
                let body = Body::Whole(Bytes::from_static(b"said"));
                return future::ready(Ok(Answer { feedback, body })).boxed();
            }
            Some(Does::BeGone) => {
                self.group(endpoint.group)
                    .send_modify(|seen| seen.endpoints.clear());
                Err(EngineError::Cold)
            }
            Some(Does::Parts(parts)) => {
                // Held until the stream is dropped.
                let parts =
                    stream::unfold((parts.into_iter(), place), async |(mut parts, place)| {
                        Some((parts.next()?, (parts, place)))
                    });
                let feedback = None;
                let body = Body::InParts(parts.boxed());
                return future::ready(Ok(Answer { feedback, body })).boxed();
            }
        };
        drop(place);
        future::ready(body.map(|body| Answer {
            feedback: None,
            body,
        }))
        .boxed()
    }

    fn delete(&self, _: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        future::ready(Ok(())).boxed()
    }
}

/// How long a call goes on behind the end of a hold.
const HOLD_SLACK_SAID: Duration = Duration::from_secs(2);

fn said(place: StatePlace) -> Feedback {
    Feedback {
        start: StartKind::Hot,
        lease_us: 0,
        open_us: 0,
        load_us: 0,
        run_us: 1,
        total_us: 2,
        resident: Vec::new(),
        in_flight: 0,
        queue_us: 0,
        free_bytes: 0,
        engine: None,
        state: Some(place),
    }
}

fn driver(engine: &Arc<Scripted>) -> Arc<Driver> {
    let places = u32::try_from(engine.groups.len()).unwrap();
    let settings = Settings {
        workers_min: places,
        workers_max: places,
        ..Settings::default()
    };
    let waits = Waits {
        queue: WAIT,
        call: WAIT,
    };
    Driver::start(
        Packer::new(settings),
        places,
        Arc::clone(engine) as _,
        None,
        waits,
    )
}

async fn call(driver: &Arc<Driver>) -> Result<Body, String> {
    let package = Digest::from_bytes([1; 32]);
    let answer = driver
        .call(
            driver.number(),
            package,
            Caller(1),
            Bytes::from_static(b"x"),
        )
        .await;
    match answer {
        Ok(answer) => Ok(answer.body),
        Err(refusal) => Err(refusal.code().to_owned()),
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < WAIT, "waited {WAIT:?} in vain");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_somebody_else_removed_is_made_again_for_the_call_that_met_it() {
    let engine = Scripted::new(1);
    let driver = driver(&engine);
    assert!(call(&driver).await.is_ok());
    engine.then(Does::BeGone);
    assert!(call(&driver).await.is_ok());
    assert_eq!(engine.next.load(Ordering::Relaxed), 2, "made twice");
}

#[tokio::test]
async fn a_request_that_may_have_run_is_never_said_not_to_have() {
    let (lost, full) = (
        || Does::Fail(EngineError::Lost),
        || Does::Fail(EngineError::Full),
    );
    for (first, second, said) in [
        (full(), full(), "workers-full"),
        (lost(), full(), "runtime-lost"),
        (full(), lost(), "runtime-lost"),
        (lost(), lost(), "runtime-lost"),
    ] {
        let engine = Scripted::new(2);
        let driver = driver(&engine);
        until(|| driver.workers_up() == 2).await;
        engine.then(first);
        engine.then(second);
        assert_eq!(call(&driver).await.err().as_deref(), Some(said));
    }
}

#[tokio::test]
async fn an_answer_in_parts_is_told_by_its_end() {
    let part = || Ok(Bytes::from_static(b"part"));
    let engine = Scripted::new(1);
    let driver = driver(&engine);
    let sums = || {
        let totals = driver.view().totals;
        let broken = totals.failures.get(&Failure::Broken).copied();
        (totals.answered, totals.returned, broken.unwrap_or(0))
    };
    let begin = async |parts| {
        engine.then(Does::Parts(parts));
        match call(&driver).await {
            Ok(Body::InParts(parts)) => parts,
            _ => panic!("not in parts"),
        }
    };
    let all = begin(vec![part(), part()]).await;
    assert_eq!(sums(), (0, 0, 0), "not over yet");
    assert_eq!(all.count().await, 2);
    assert_eq!(sums(), (1, 0, 0));

    let broken = begin(vec![part(), Err(io::Error::other("gone"))]).await;
    assert!(broken.collect::<Vec<_>>().await[1].is_err());
    assert_eq!(sums(), (1, 0, 1));

    let mut unheard = begin(vec![part(), part()]).await;
    assert!(unheard.next().await.is_some());
    drop(unheard);
    assert_eq!(sums(), (1, 1, 1));
}

#[tokio::test]
async fn an_instance_that_was_let_go_of_is_no_later_workers_start() {
    let engine = Scripted::new(1);
    let driver = driver(&engine);
    assert!(call(&driver).await.is_ok());
    {
        // As when it does not end in time though it was told to.
        let mut inner = driver.lock();
        let worker = inner.places[0].worker.unwrap();
        inner.lets_go(0, worker);
        driver.handle(&mut inner, Event::Ended { worker });
        let next = inner.places[0].worker.unwrap();
        assert_ne!(next, worker, "wanted again at once");
    }
    driver.look_at(0);
    assert_eq!(driver.workers_up(), 0);
    engine.show_another(Group(0));
    until(|| driver.workers_up() == 1).await;
}

#[tokio::test]
async fn a_driver_that_drains_says_so_to_who_comes() {
    let engine = Scripted::new(1);
    let driver = driver(&engine);
    assert!(call(&driver).await.is_ok());
    driver.drain();
    assert_eq!(call(&driver).await.err().as_deref(), Some("stopping"));
    assert!(driver.view().draining);
}

fn say(engine: &Scripted, words: impl IntoIterator<Item = StatePlace>) {
    words
        .into_iter()
        .for_each(|place| engine.then(Does::Say(place)));
}

#[tokio::test]
async fn a_function_is_sent_on_to_who_holds_its_state_and_then_goes_there_at_once() {
    let engine = Scripted::new(2);
    let driver = driver(&engine);
    driver.all_started().await.unwrap();
    say(&engine, [StatePlace::Elsewhere(30_000), StatePlace::Here]);
    assert!(matches!(call(&driver).await, Ok(Body::Whole(_))));
    let asked = std::mem::take(&mut *engine.asked.lock().unwrap());
    let [away, here] = asked[..] else {
        panic!("{asked:?}");
    };
    assert_ne!(away, here);
    for _ in 0..5 {
        say(&engine, [StatePlace::Here]);
        call(&driver).await.unwrap();
    }
    assert_eq!(*engine.asked.lock().unwrap(), [here; 5]);
    driver.finish().await;
}

#[tokio::test]
async fn a_hold_of_one_that_died_is_waited_for_and_one_that_is_prolonged_is_not() {
    let engine = Scripted::new(2);
    let driver = driver(&engine);
    driver.all_started().await.unwrap();
    // Both, a pause, and then one has it.
    let away = StatePlace::Elsewhere;
    say(&engine, [away(300), away(300), StatePlace::Here]);
    assert!(matches!(call(&driver).await, Ok(Body::Whole(_))));
    assert_eq!(engine.asked.lock().unwrap().len(), 3);
    // Somebody holds on: after two rounds that say so, the sealed refusal is passed on.
    engine.asked.lock().unwrap().clear();
    let words = [300, 300, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000];
    say(&engine, words.map(away));
    let began = Instant::now();
    assert!(matches!(call(&driver).await, Ok(Body::Whole(bytes)) if bytes == "said"));
    assert!(began.elapsed() < Duration::from_secs(5));
    let asked = engine.asked.lock().unwrap().len();
    assert!((4..=6).contains(&asked), "{asked}");
    engine.script.lock().unwrap().clear();
    driver.finish().await;
}

#[tokio::test]
async fn a_worker_that_says_nonsense_of_a_hold_costs_seconds_and_some_rounds() {
    for (millis, rounds) in [(u64::MAX, 4), (0, 60)] {
        let engine = Scripted::new(2);
        let driver = driver(&engine);
        driver.all_started().await.unwrap();
        say(&engine, [StatePlace::Elsewhere(millis); 200]);
        let began = Instant::now();
        assert!(matches!(call(&driver).await, Ok(Body::Whole(bytes)) if bytes == "said"));
        assert!(began.elapsed() < HOLD_SLACK_SAID + Duration::from_secs(3));
        let asked = engine.asked.lock().unwrap().len();
        assert!(asked <= 2 * rounds, "{asked}");
        engine.script.lock().unwrap().clear();
        driver.finish().await;
    }
}

#[tokio::test]
async fn what_was_lost_and_is_refused_by_the_others_is_not_called_undone() {
    let engine = Scripted::new(2);
    let driver = driver(&engine);
    driver.all_started().await.unwrap();
    engine.then(Does::Fail(EngineError::Lost));
    say(
        &engine,
        [300, 30_000, 30_000, 30_000].map(StatePlace::Elsewhere),
    );
    assert_eq!(call(&driver).await.err().unwrap(), "runtime-lost");
    engine.script.lock().unwrap().clear();
    driver.finish().await;
}
