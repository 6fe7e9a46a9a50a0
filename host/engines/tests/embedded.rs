//! The engine of this machine, with the launcher's stand-in for an enclave program.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bield_engines::{Answer, Body, Bytes, Embedded, Endpoint, Engine, EngineError, Group, Pool};
use bield_launcher::Launch;
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;

const LONG: Duration = Duration::from_secs(60);
const ONLY: Group = Group(0);

fn engine(configuration: &str) -> Embedded {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap();
    Embedded::new(&Pool {
        launch: Launch {
            program: built.join("examples/echo-engine"),
            configuration: configuration.into(),
            ..Launch::default()
        },
        places: 1,
        concurrency: 2,
        finish_wait: Duration::from_secs(5),
        memory_bytes_max: None,
    })
}

/// Waits for an instance, other than one that was there.
async fn comes(engine: &Embedded, other_than: Option<&Endpoint>) -> Endpoint {
    engine.scale(ONLY, 1).await.unwrap();
    let mut seen = engine.endpoints(ONLY);
    let is_new = |endpoint: &Endpoint| other_than.is_none_or(|other| endpoint.id != other.id);
    let seen = seen.wait_for(|seen| seen.endpoints.iter().any(is_new));
    let seen = tokio::time::timeout(LONG, seen).await.unwrap().unwrap();
    seen.endpoints[0].clone()
}

async fn ask(
    engine: &Embedded,
    endpoint: &Endpoint,
    words: &'static str,
    within: Duration,
) -> Result<Answer, EngineError> {
    let sealed = Bytes::from_static(words.as_bytes());
    engine.invoke(endpoint, sealed, within, Box::new(())).await
}

async fn whole(engine: &Embedded, endpoint: &Endpoint, words: &'static str) -> Bytes {
    match ask(engine, endpoint, words, LONG).await.unwrap().body {
        Body::Whole(bytes) => bytes,
        _ => panic!("{words} is answered whole"),
    }
}

fn process(endpoint: &Endpoint) -> String {
    let pid = endpoint.name.strip_prefix("process ").unwrap();
    format!("/proc/{pid}")
}

fn until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "waited {LONG:?} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_is_told_to_the_program_whose_place_is_held_until_it_is_done() {
    let engine = engine("");
    let endpoint = comes(&engine, None).await;
    let places = Arc::new(Semaphore::new(1));
    let place = Arc::clone(&places).try_acquire_owned().unwrap();
    let sealed = Bytes::from_static(b"hang:");
    let asked = engine.invoke(&endpoint, sealed, LONG, Box::new(place));
    let soon = tokio::time::timeout(Duration::from_millis(100), asked);
    assert!(soon.await.is_err(), "it never answers");
    let began = Instant::now();
    while &whole(&engine, &endpoint, "cancels:").await[..] != b"1" {
        assert!(began.elapsed() < LONG / 2, "it is not told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // This program never says that it is done.
    assert_eq!(places.available_permits(), 0);
    engine.delete(ONLY).await.unwrap();
    drop(tokio::time::timeout(LONG, places.acquire()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_in_time_is_said_and_the_instance_serves_on() {
    let engine = engine("");
    let endpoint = comes(&engine, None).await;
    let within = Duration::from_millis(100);
    let late = ask(&engine, &endpoint, "hang:", within).await.err();
    assert_eq!(late, Some(EngineError::Timeout(within)));
    assert_eq!(
        &whole(&engine, &endpoint, "question").await[..],
        b"question"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_is_lost_and_another_one_comes_under_a_number_of_its_own() {
    let engine = engine("");
    let first = comes(&engine, None).await;
    let lost = ask(&engine, &first, "die:", LONG).await.err();
    assert_eq!(lost, Some(EngineError::Lost));
    let second = comes(&engine, Some(&first)).await;
    let gone = ask(&engine, &first, "question", LONG).await.err();
    assert_eq!(gone, Some(EngineError::Lost), "what is gone gets nothing");
    assert_eq!(&whole(&engine, &second, "question").await[..], b"question");

    let places = Arc::new(Semaphore::new(1));
    let place = Arc::clone(&places).try_acquire_owned().unwrap();
    let sealed = Bytes::from_static(b"cut:");
    let answer = engine.invoke(&second, sealed, LONG, Box::new(place));
    let Body::InParts(mut parts) = answer.await.unwrap().body else {
        panic!("in parts");
    };
    assert_eq!(&parts.next().await.unwrap().unwrap()[..], b"first ");
    assert!(
        parts.next().await.unwrap().is_err(),
        "not the end of a whole one"
    );
    assert!(parts.next().await.is_none());
    drop(tokio::time::timeout(LONG, places.acquire()).await.unwrap());
    let third = comes(&engine, Some(&second)).await;
    assert_eq!(&whole(&engine, &third, "question").await[..], b"question");
    assert_eq!(engine.starts(ONLY), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_wanted_any_more_is_gone_and_so_is_what_a_dropped_engine_ran() {
    let engine = engine("");
    let first = comes(&engine, None).await;
    assert!(Path::new(&process(&first)).exists());
    engine.delete(ONLY).await.unwrap();
    assert!(!Path::new(&process(&first)).exists());
    assert!(engine.endpoints(ONLY).borrow().endpoints.is_empty());
    let after = ask(&engine, &first, "question", LONG).await.err();
    assert_eq!(after, Some(EngineError::Draining));

    let second = comes(&engine, Some(&first)).await;
    drop(engine);
    until(|| !Path::new(&process(&second)).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_start_is_given_up_with_its_own_words() {
    let engine = engine("refuse:the key is for another machine");
    engine.scale(ONLY, 1).await.unwrap();
    let mut seen = engine.endpoints(ONLY);
    let seen = seen.wait_for(|seen| seen.given_up > 0);
    let seen = tokio::time::timeout(LONG, seen).await.unwrap().unwrap();
    let trouble = seen.trouble.clone().unwrap();
    assert!(
        trouble.contains("the key is for another machine"),
        "{trouble}"
    );
    assert!(seen.endpoints.is_empty());
    let other = engine.scale(Group(1), 1).await;
    assert!(matches!(other, Err(EngineError::Denied(_))));
}
