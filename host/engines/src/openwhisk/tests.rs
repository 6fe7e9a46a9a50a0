//! A platform that says what a test wants it to, over a real socket.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

use super::*;

const LONG: Duration = Duration::from_secs(60);
const FEEDBACK: &str = r#"{"start":"hot","lease_us":0,"open_us":0,"load_us":0,"run_us":1,"total_us":2,"resident":[],"in_flight":1,"queue_us":0,"free_bytes":9}"#;

/// No status: the answer breaks off.
const CUT: u16 = 0;

/// What the platform was asked, and when.
type Asked = Arc<Mutex<Vec<(String, Instant)>>>;
type Says = fn(method: &str, path: &str, before: usize) -> (u16, Value);

#[derive(Clone)]
struct Fake {
    says: Says,
    asked: Asked,
}

async fn fake(State(fake): State<Fake>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    assert_eq!(headers[header::AUTHORIZATION], "Basic dTpr");
    let asked = format!("{method} {uri}");
    let before = {
        let mut all = fake.asked.lock().unwrap();
        let before = all.iter().filter(|(one, _)| *one == asked).count();
        all.push((asked, Instant::now()));
        before
    };
    let (status, body) = (fake.says)(method.as_str(), uri.path(), before);
    if status == CUT {
        let broken = futures_util::stream::iter([Err::<Bytes, _>("broken")]);
        return axum::body::Body::from_stream(broken).into_response();
    }
    let status = StatusCode::from_u16(status).unwrap();
    (status, body.to_string()).into_response()
}

async fn platform(says: Says) -> (Openwhisk, Asked) {
    let asked = Asked::default();
    let state = Fake {
        says,
        asked: Arc::clone(&asked),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(fake).with_state(state);
    tokio::spawn(axum::serve(listener, router).into_future());
    let openwhisk = Openwhisk::new(Platform {
        host,
        auth: PlatformAuth::parse("u:k").unwrap(),
        name: "bield".to_owned(),
        image: "bield/worker:1".to_owned(),
        places: 2,
        concurrency: 4,
        memory_mib: 512,
        timeout: LONG,
    });
    (openwhisk, asked)
}

fn record(status: &str, result: &Value) -> Value {
    let success = status == "success";
    json!({ "response": { "status": status, "success": success, "result": result } })
}

fn answered() -> Value {
    let feedback: Value = serde_json::from_str(FEEDBACK).unwrap();
    let result = json!({ "sealed": STANDARD.encode("answer"), "feedback": feedback });
    record("success", &result)
}

/// As the platform tells of an action, with more than was written.
fn action(image: &str) -> Value {
    json!({
        "name": "bield-1", "version": "0.0.1",
        "exec": { "kind": "blackbox", "image": image, "binary": false },
        "limits": { "concurrency": 4, "memory": 512, "timeout": 60_000, "logs": 10 },
    })
}

fn endpoint() -> Endpoint {
    Endpoint {
        group: Group(0),
        id: 0,
        name: "bield-0".to_owned(),
    }
}

async fn invoke(openwhisk: &Openwhisk) -> Result<Answer, EngineError> {
    let sealed = Bytes::from_static(b"question");
    openwhisk
        .invoke(&endpoint(), sealed, LONG, Box::new(()))
        .await
}

/// What an invocation fails with.
async fn fails(says: Says) -> EngineError {
    let (openwhisk, _) = platform(says).await;
    match invoke(&openwhisk).await {
        Ok(_) => panic!("an answer"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_place_is_an_action_and_its_answer_a_result() {
    let (openwhisk, asked) = platform(|method, path, _| match (method, path) {
        ("GET", "/api/v1/namespaces/_/limits") => (200, json!({ "maxActionConcurrency": 4 })),
        ("GET", "/api/v1/namespaces/_/actions/bield-1") => (200, action("bield/worker:0")),
        ("PUT" | "DELETE", "/api/v1/namespaces/_/actions/bield-1") => (200, json!({})),
        ("POST", "/api/v1/namespaces/_/actions/bield-1") => (200, answered()),
        _ => (404, json!({})),
    })
    .await;
    let group = Group(1);
    let seen = openwhisk.endpoints(group);
    assert!(seen.borrow().endpoints.is_empty());
    openwhisk.ensure(group).await.unwrap();
    openwhisk.ensure(group).await.unwrap();
    openwhisk.scale(group, 1).await.unwrap();
    let [endpoint] = &seen.borrow().endpoints.clone()[..] else {
        panic!("one endpoint");
    };
    let sealed = Bytes::from_static(b"question");
    let answer = openwhisk.invoke(endpoint, sealed, LONG, Box::new(()));
    let answer = answer.await.unwrap();
    assert!(matches!(answer.body, Body::Whole(bytes) if &bytes[..] == b"answer"));
    assert_eq!(answer.feedback.unwrap().free_bytes, 9);
    openwhisk.delete(group).await.unwrap();
    assert!(seen.borrow().endpoints.is_empty());
    let beyond = openwhisk.ensure(Group(2)).await;
    assert!(matches!(beyond, Err(EngineError::Denied(_))));

    let asked = asked.lock().unwrap();
    let limits = asked.iter().filter(|(one, _)| one.ends_with("/limits"));
    assert_eq!(limits.count(), 1, "asked once");
    let written = asked
        .iter()
        .filter(|(one, _)| one.ends_with("?overwrite=true"));
    assert_eq!(written.count(), 1, "the image was another, and then known");
}

#[tokio::test]
async fn an_action_that_is_as_it_should_be_is_not_written_again() {
    let (openwhisk, asked) = platform(|method, path, _| match (method, path) {
        ("GET", "/api/v1/namespaces/_/actions/bield-1") => (200, action("bield/worker:1")),
        _ => (404, json!({})),
    })
    .await;
    openwhisk.ensure(Group(1)).await.unwrap();
    assert_eq!(openwhisk.endpoints(Group(1)).borrow().endpoints.len(), 1);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|(one, _)| one.starts_with("GET ")));
}

#[tokio::test]
async fn the_limit_that_is_too_small_is_named() {
    for (limits, word) in [
        (
            json!({ "maxActionConcurrency": 1, "maxActionMemory": 512, "maxActionTimeout": 60_000 }),
            "concurrency-limit.max",
        ),
        (
            json!({ "maxActionConcurrency": 4, "maxActionMemory": 256, "maxActionTimeout": 60_000 }),
            "memory.max",
        ),
        (
            json!({ "maxActionConcurrency": 4, "maxActionMemory": 512, "maxActionTimeout": 1000 }),
            "time-limit.max",
        ),
    ] {
        static LIMITS: Mutex<Value> = Mutex::new(Value::Null);
        *LIMITS.lock().unwrap() = limits;
        let (openwhisk, asked) = platform(|_, _, _| (200, LIMITS.lock().unwrap().clone())).await;
        let Err(EngineError::Denied(why)) = openwhisk.ensure(Group(0)).await else {
            panic!("not refused: {word}");
        };
        assert!(why.contains(word), "{why}");
        assert_eq!(asked.lock().unwrap().len(), 1, "nothing was made");
    }
}

#[tokio::test]
async fn what_outlasts_the_wait_is_polled_at_one_pace() {
    let (openwhisk, asked) = platform(|method, path, before| match (method, path) {
        ("POST", _) => (202, json!({ "activationId": "4f1c" })),
        ("GET", "/api/v1/namespaces/_/activations/4f1c") if before == 12 => (200, answered()),
        _ => (404, json!({})),
    })
    .await;
    invoke(&openwhisk).await.unwrap();
    let asked = asked.lock().unwrap();
    let polls: Vec<Instant> = asked.iter().skip(1).map(|(_, at)| *at).collect();
    assert_eq!(polls.len(), 13, "not one after the record was there");
    let gaps: Vec<Duration> = polls.windows(2).map(|two| two[1] - two[0]).collect();
    // The middle of five: a machine that stalls once does not matter. Doubling would make it 128 times as long.
    let middle = |gaps: &[Duration]| {
        let mut gaps = gaps.to_vec();
        gaps.sort();
        gaps[gaps.len() / 2]
    };
    let (first, last) = (middle(&gaps[..5]), middle(&gaps[7..]));
    assert!(last < first * 8, "{gaps:?}");
}

#[tokio::test]
async fn what_was_accepted_is_asked_after_whatever_becomes_of_a_question() {
    let (openwhisk, asked) = platform(|method, _, before| match (method, before) {
        ("POST", _) => (202, json!({ "activationId": "4f1c" })),
        (_, 0) => (503, json!({ "error": "e" })),
        (_, 1) => (500, json!({ "error": "e" })),
        // Below this, the connection breaks.
        (_, 2) => (CUT, json!({})),
        (_, 3) => (429, json!({ "error": "e" })),
        _ => (200, answered()),
    })
    .await;
    let answer = invoke(&openwhisk).await.unwrap();
    assert!(matches!(answer.body, Body::Whole(bytes) if &bytes[..] == b"answer"));
    assert_eq!(asked.lock().unwrap().len(), 6);

    let denied = fails(|method, _, _| match method {
        "POST" => (202, json!({ "activationId": "4f1c" })),
        _ => (401, json!({ "error": "e" })),
    });
    assert!(matches!(denied.await, EngineError::Denied(_)));
}

#[tokio::test]
async fn a_place_is_held_until_the_activation_has_ended_though_nobody_waits() {
    let (openwhisk, _) = platform(|method, _, before| match (method, before) {
        ("POST", _) => (202, json!({ "activationId": "4f1c" })),
        (_, 20) => (200, answered()),
        _ => (404, json!({})),
    })
    .await;
    let places = Arc::new(tokio::sync::Semaphore::new(1));
    let place = Arc::clone(&places).try_acquire_owned().unwrap();
    let one = endpoint();
    let sealed = Bytes::from_static(b"question");
    let invoked = openwhisk.invoke(&one, sealed, LONG, Box::new(place));
    let soon = tokio::time::timeout(Duration::from_millis(50), invoked);
    assert!(soon.await.is_err(), "the caller goes");
    assert_eq!(places.available_permits(), 0);
    drop(places.acquire().await.unwrap());
}

#[tokio::test]
async fn a_late_404_says_nothing_of_a_later_action() {
    let (openwhisk, _) = platform(|method, _, _| match method {
        "PUT" => (200, json!({})),
        _ => (404, json!({})),
    })
    .await;
    openwhisk.ensure(Group(0)).await.unwrap();
    let seen = openwhisk.endpoints(Group(0));
    let old = Endpoint {
        id: 99,
        ..endpoint()
    };
    for (asked, left) in [(old, 1), (endpoint(), 0)] {
        let sealed = Bytes::from_static(b"question");
        let cold = openwhisk.invoke(&asked, sealed, LONG, Box::new(()));
        assert_eq!(cold.await.err(), Some(EngineError::Cold));
        assert_eq!(seen.borrow().endpoints.len(), left);
    }
}

#[tokio::test]
async fn errors_of_the_platform_are_the_traits() {
    assert_eq!(
        fails(|_, _, _| (429, json!({ "error": "e" }))).await,
        EngineError::Full
    );
    assert_eq!(
        fails(|_, _, _| (503, json!({ "error": "e" }))).await,
        EngineError::Cold
    );
    assert_eq!(
        fails(|_, _, _| (404, json!({ "error": "e" }))).await,
        EngineError::Cold
    );
    assert_eq!(
        fails(|_, _, _| (500, json!({ "error": "e" }))).await,
        EngineError::Lost
    );
    for denied in [
        fails(|_, _, _| (400, json!({ "error": "its sentence" }))).await,
        fails(|_, _, _| (401, json!({ "error": "its sentence" }))).await,
        fails(|_, _, _| (403, json!({ "error": "its sentence" }))).await,
    ] {
        assert!(matches!(&denied, EngineError::Denied(why) if why.contains("its sentence")));
    }
    let late = fails(|_, _, _| {
        let why = "The action exceeded its time limits of 1 milliseconds.";
        (
            502,
            record("action developer error", &json!({ "error": why })),
        )
    });
    assert_eq!(late.await, EngineError::Timeout(LONG));
    let broken = fails(|_, _, _| {
        (
            502,
            record("action developer error", &json!({ "error": "x" })),
        )
    });
    assert!(matches!(broken.await, EngineError::Broken(_)));
    let between = fails(|_, _, _| (502, json!({})));
    assert_eq!(between.await, EngineError::Lost);
    let slow = fails(|_, _, _| {
        let error = json!({ "code": "timed-out", "message": "not within 1 ms" });
        (
            502,
            record("action developer error", &json!({ "error": error })),
        )
    });
    assert_eq!(slow.await, EngineError::Timeout(LONG));
    let own = fails(|_, _, _| (502, record("whisk internal error", &json!({}))));
    assert_eq!(own.await, EngineError::Lost);
    let other = fails(|_, _, _| (200, record("success", &json!({ "answer": 42 }))));
    assert!(matches!(other.await, EngineError::Broken(_)));
    let path = fails(|_, _, _| (202, json!({ "activationId": "../actions/x" })));
    assert!(matches!(path.await, EngineError::Broken(_)));
}

/// The refusal that an invocation comes to.
async fn refused(says: Says) -> Refusal {
    let (openwhisk, _) = platform(says).await;
    match invoke(&openwhisk).await.unwrap().body {
        Body::Refused(refusal) => refusal,
        _ => panic!("an answer"),
    }
}

#[tokio::test]
async fn public_refusals_are_passed_on() {
    let of_worker = refused(|_, _, _| {
        let error = json!({ "code": "not-opened", "message": "seal it anew", "retry": "never" });
        (502, record("application error", &json!({ "error": error })))
    });
    let of_worker = of_worker.await;
    assert_eq!(
        (of_worker.status().as_u16(), of_worker.code()),
        (400, "not-opened")
    );
    assert_eq!(of_worker.message(), "seal it anew");

    let later = refused(|_, _, _| {
        let retry = json!({ "after_ms": 700 });
        let error = json!({ "code": "no-lease", "message": "x".repeat(9000), "retry": retry });
        (502, record("application error", &json!({ "error": error })))
    });
    let later = later.await;
    assert_eq!(later.status().as_u16(), 503);
    assert_eq!(later.retry(), Some(Duration::from_millis(700)));
    assert!(later.message().len() < 1024);

    let long = refused(|_, _, _| (413, json!({ "error": "more than 1 MB" })));
    let long = long.await;
    assert_eq!((long.status().as_u16(), long.code()), (413, "too-long"));
    assert!(long.message().contains("more than 1 MB"));
}

#[test]
fn an_account_is_two_parts() {
    for text in ["", "u", ":k", "u:"] {
        assert!(PlatformAuth::parse(text).is_none(), "{text}");
    }
    assert!(PlatformAuth::parse("u:k\n").is_some());
}
