//! Workers that say what a test wants them to, over a real socket.

use std::sync::Mutex;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response as Reply};
use axum::routing::{get, post};
use bield_envelope::Digest;
use bield_protocol::feedback::{Feedback, StartKind, StatePlace};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::said::parse_feedback;
use super::*;

const LONG: Duration = Duration::from_secs(60);

/// What a worker says to a request, and how many it had.
#[derive(Clone)]
struct Fake {
    says: Arc<dyn Fn() -> Reply + Send + Sync>,
    asked: Arc<Mutex<u32>>,
}

async fn answer(State(fake): State<Fake>, _sealed: Bytes) -> Reply {
    *fake.asked.lock().unwrap() += 1;
    (fake.says)()
}

/// An engine over one such worker, which is there.
async fn worker(says: impl Fn() -> Reply + Send + Sync + 'static) -> (Remote, Endpoint, Fake) {
    let fake = Fake {
        says: Arc::new(says),
        asked: Arc::default(),
    };
    let router = Router::new()
        .route("/", post(answer))
        .route("/readyz", get(async || "ready"))
        .with_state(fake.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(axum::serve(listener, router).into_future());
    let remote = Remote::new(&[address]).unwrap();
    let endpoint = comes(&remote).await;
    (remote, endpoint, fake)
}

/// Wants the only worker and waits until it is there.
async fn comes(remote: &Remote) -> Endpoint {
    remote.scale(Group(0), 1).await.unwrap();
    let mut seen = remote.endpoints(Group(0));
    let seen = seen.wait_for(|seen| !seen.endpoints.is_empty()).await;
    seen.unwrap().endpoints[0].clone()
}

async fn invoke(remote: &Remote, endpoint: &Endpoint) -> Result<Answer, EngineError> {
    let sealed = Bytes::from_static(b"question");
    remote.invoke(endpoint, sealed, LONG, Box::new(())).await
}

fn refuses(status: u16, code: &str) -> Reply {
    let error = json!({ "code": code, "message": "so it is", "retry": { "after_ms": 70 } });
    let status = StatusCode::from_u16(status).unwrap();
    (status, json!({ "error": error }).to_string()).into_response()
}

#[tokio::test]
async fn what_a_worker_refuses_with_is_what_the_caller_hears() {
    let says = Arc::new(Mutex::new((503, "")));
    let said = Arc::clone(&says);
    let (remote, mut endpoint, _) = worker(move || {
        let (status, code) = *said.lock().unwrap();
        match code {
            "" => StatusCode::from_u16(status).unwrap().into_response(),
            code => refuses(status, code),
        }
    })
    .await;
    for (code, error) in [
        ("draining", EngineError::Draining),
        ("stopping", EngineError::Draining),
        ("starting", EngineError::Cold),
        ("busy", EngineError::Full),
        ("memory", EngineError::Full),
        ("runtime-lost", EngineError::Lost),
        ("", EngineError::Full),
    ] {
        *says.lock().unwrap() = (503, code);
        let heard = invoke(&remote, &endpoint).await.err();
        assert_eq!(heard, Some(error.clone()), "{code}");
        if matches!(error, EngineError::Draining | EngineError::Lost) {
            endpoint = comes(&remote).await;
        }
    }
    for (status, code) in [(503, "no-lease"), (400, "not-opened"), (400, "draining")] {
        *says.lock().unwrap() = (status, code);
        let answer = invoke(&remote, &endpoint).await.unwrap();
        let Body::Refused(refusal) = answer.body else {
            panic!("{code} is a refusal");
        };
        assert_eq!((refusal.status().as_u16(), refusal.code()), (status, code));
        assert_eq!(refusal.retry(), Some(Duration::from_millis(70)));
    }
    *says.lock().unwrap() = (500, "");
    let broken = invoke(&remote, &endpoint).await.err();
    assert!(matches!(broken, Some(EngineError::Broken(_))));
}

#[tokio::test]
async fn an_instance_that_is_not_shown_any_more_is_sent_nothing() {
    let (remote, endpoint, fake) = worker(|| refuses(503, "draining")).await;
    assert_eq!(
        invoke(&remote, &endpoint).await.err(),
        Some(EngineError::Draining)
    );
    let later = comes(&remote).await;
    assert_ne!(later.id, endpoint.id, "a number is not given again");
    assert_eq!(
        invoke(&remote, &endpoint).await.err(),
        Some(EngineError::Lost)
    );
    remote.delete(Group(0)).await.unwrap();
    assert_eq!(remote.endpoints(Group(0)).borrow().clone(), Seen::default());
    assert_eq!(invoke(&remote, &later).await.err(), Some(EngineError::Lost));
    assert_eq!(*fake.asked.lock().unwrap(), 1);
}

/// Says so when it is dropped.
struct Goes(tokio::sync::mpsc::UnboundedSender<()>);

impl Drop for Goes {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_is_a_connection_that_ends() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (remote, endpoint, _) = worker(move || {
        let goes = Goes(tell.clone());
        // Never ends by itself; dropped with its connection.
        let parts = futures_util::stream::repeat_with(move || {
            let _ = &goes;
            Ok::<_, std::io::Error>(Bytes::from_static(&[7; 1 << 16]))
        });
        let body = axum::body::Body::from_stream(parts);
        ([(header::CONTENT_TYPE, SEALED)], body).into_response()
    })
    .await;
    let places = Arc::new(Semaphore::new(1));
    let place = Arc::clone(&places).try_acquire_owned().unwrap();
    let sealed = Bytes::from_static(b"question");
    let answer = remote.invoke(&endpoint, sealed, LONG, Box::new(place));
    let Body::InParts(mut parts) = answer.await.unwrap().body else {
        panic!("in parts");
    };
    assert!(parts.next().await.unwrap().is_ok());
    assert_eq!(places.available_permits(), 0);
    drop(parts);
    drop(places.acquire().await.unwrap());
    told.recv().await.unwrap();
}

#[tokio::test]
async fn one_late_report_does_not_end_a_worker_and_its_answers_speak_for_it() {
    let remote = Remote::new(&["127.0.0.1:1".to_owned()]).unwrap();
    let worker = &remote.workers[0];
    // Not by way of the engine, whose probe would find nobody.
    worker.want.send_replace(1);
    worker.is_there();
    let is_there = || !worker.seen.borrow().endpoints.is_empty();
    for misses in 1..=MISSES_MAX {
        assert!(is_there());
        worker.missed("does not answer");
        assert_eq!(is_there(), misses < MISSES_MAX);
    }
    let trouble = worker.seen.borrow().trouble.clone().unwrap();
    assert!(trouble.contains("127.0.0.1:1 does not answer"), "{trouble}");
    worker.is_there();
    assert!(is_there());
    worker.missed("does not answer");
    assert!(is_there(), "counted from the last word on");
    worker.scale(0);
    worker.is_there();
    worker.is_gone("is away");
    assert_eq!(*worker.seen.borrow(), Seen::default());
}

#[test]
fn feedback_comes_through_its_header_as_it_went_in() {
    let feedback = Feedback {
        start: StartKind::WarmKey,
        lease_us: 1,
        open_us: 2,
        load_us: 3,
        run_us: 4,
        total_us: 5,
        resident: vec![Digest::from_bytes([7; 32])],
        in_flight: 6,
        queue_us: 7,
        free_bytes: u64::MAX,
        engine: Some("rten 1".to_owned()),
        state: None,
    };
    for state in [None, Some(StatePlace::Here), Some(StatePlace::Elsewhere(9))] {
        let feedback = Feedback {
            state,
            ..feedback.clone()
        };
        let header = bield_face::feedback_header(&feedback);
        assert_eq!(parse_feedback(header.as_bytes()), Some(feedback));
    }
    assert_eq!(parse_feedback(b"{\"start\": \"hot\"}"), None);
    assert_eq!(parse_feedback(b"\xff"), None);
}

#[tokio::test]
async fn places_are_the_addresses_in_order_and_what_is_none_is_named() {
    let addresses = ["b:2", "a:1", "b:2"].map(str::to_owned);
    let remote = Remote::new(&addresses).unwrap();
    assert!(remote.addresses().eq(["a:1", "b:2"]));
    for wrong in ["no port", "name:word@a:1"] {
        let refused = Remote::new(&[wrong.to_owned()]);
        assert_eq!(refused.err().as_deref(), Some(wrong));
    }
}
