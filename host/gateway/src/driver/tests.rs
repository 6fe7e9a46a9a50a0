//! The driver and the packer over an engine that does as it is told.

use std::collections::VecDeque;
use std::io;

use bield_engines::{Answer, Body, Bytes, EngineError, Place, Seen};
use bield_envelope::Digest;
use bield_packer::{Caller, Settings};
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
}

/// Makes an instance where it is asked for one and none is there.
struct Scripted {
    groups: Vec<watch::Sender<Seen>>,
    script: Mutex<VecDeque<Does>>,
    next: AtomicU64,
}

impl Scripted {
    fn new(places: u32) -> Arc<Scripted> {
        Arc::new(Scripted {
            groups: (0..places).map(|_| watch::Sender::default()).collect(),
            script: Mutex::default(),
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
