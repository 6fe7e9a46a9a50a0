//! Workers that somebody else runs, shared by two gateways: a stand-in for the worker's plain face.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bield_envelope::SealedRequest;
use futures_util::{StreamExt as _, stream};

use crate::support::{Gateway, sealed_request, until};

const SEALED: &str = "application/vnd.bield.sealed";
const FEEDBACK: &str = r#"{"start":"hot","lease_us":0,"open_us":0,"load_us":0,"run_us":1,"total_us":2,"resident":[],"in_flight":1,"queue_us":0,"free_bytes":0}"#;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    /// Answers with the request.
    Answer,
    /// Says that it is full.
    Full,
    /// Says that it is ending.
    Drain,
    /// Refuses for good.
    Refuse,
    /// Says nothing ever.
    Hang,
    /// Sends a part and breaks off.
    Break,
}

/// A worker: what it does, and the packages it was asked for.
struct Worker {
    address: SocketAddr,
    does: Arc<Mutex<Does>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Dropped, it is gone with all its connections.
    runtime: Option<tokio::runtime::Runtime>,
}

impl Worker {
    fn start() -> Worker {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (does, asked) = (
            Arc::new(Mutex::new(Does::Answer)),
            Arc::<Mutex<Vec<String>>>::default(),
        );
        let (acts, notes) = (Arc::clone(&does), Arc::clone(&asked));
        let answer = move |body: Bytes| {
            let package = SealedRequest::parse(&body).unwrap().header().package;
            notes.lock().unwrap().push(package.to_string());
            let does = *acts.lock().unwrap();
            answer(does, body)
        };
        let router = Router::new()
            .route("/", post(answer))
            .route("/readyz", get(async || "ready"));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async { axum::serve(listener, router).await });
        Worker {
            address,
            does,
            asked,
            runtime: Some(runtime),
        }
    }

    fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn answer(does: Does, request: Bytes) -> Response {
    let refuse = |status: StatusCode, code: &str, retry: &str| {
        let body =
            format!(r#"{{"error":{{"code":"{code}","message":"so it is","retry":{retry}}}}}"#);
        (status, body).into_response()
    };
    let sealed = [("content-type", SEALED), ("bield-feedback", FEEDBACK)];
    match does {
        Does::Answer => (sealed, request).into_response(),
        Does::Full => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            r#"{"after_ms":1000}"#,
        ),
        Does::Drain => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "draining",
            r#"{"after_ms":1000}"#,
        ),
        Does::Refuse => refuse(StatusCode::BAD_REQUEST, "sealed-for-another", "\"never\""),
        Does::Hang => std::future::pending().await,
        Does::Break => {
            let parts = stream::iter([0, 1]).then(async |part| match part {
                0 => Ok(Bytes::from_static(b"first ")),
                // Whoever waits here lets the first part go.
                _ => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Err(std::io::Error::other("gone"))
                }
            });
            let body = axum::body::Body::from_stream(parts);
            (sealed, body).into_response()
        }
    }
}

/// A gateway over these workers, once it sees all of them.
fn gateway(workers: &[&Worker], more: &[&str]) -> Gateway {
    let flags: Vec<String> = workers
        .iter()
        .map(|worker| format!("--worker-address={}", worker.address))
        .collect();
    let flags: Vec<&str> = flags
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    let gateway = Gateway::start("", &flags);
    until(|| seen(&gateway) == workers.len());
    gateway
}

/// How many workers serve, as a gateway sees it.
fn seen(gateway: &Gateway) -> usize {
    let pool = gateway.status()["pool"].clone();
    let workers = pool["workers"].as_array().unwrap().iter();
    workers
        .filter(|worker| worker["state"] != "starting")
        .count()
}

#[test]
fn two_gateways_send_a_package_to_the_same_worker_whatever_the_order_of_their_addresses() {
    let mut first_choices = BTreeSet::new();
    for package in 1..=6 {
        let (one, other) = (Worker::start(), Worker::start());
        let gateways = [gateway(&[&one, &other], &[]), gateway(&[&other, &one], &[])];
        let request = sealed_request(package, b"x");
        for gateway in &gateways {
            let answer = gateway.post("/v1/call", &request);
            assert_eq!((answer.status, &answer.body), (200, &request));
            assert_eq!(answer.headers["content-type"], SEALED);
            assert!(answer.headers.contains_key("bield-feedback"));
        }
        assert_eq!(
            (one.asked() + other.asked(), one.asked() % 2),
            (2, 0),
            "package {package}"
        );
        first_choices
            .insert((one.asked() == 2) == (one.address.to_string() < other.address.to_string()));
    }
    assert_eq!(first_choices.len(), 2, "not all packages go to one worker");
}

#[test]
fn gateways_with_different_views_answer_all_requests() {
    let (stays, mut goes) = (Worker::start(), Worker::start());
    let gateways = [
        gateway(&[&stays, &goes], &[]),
        gateway(&[&stays, &goes], &[]),
    ];
    let ask_both = || {
        std::thread::scope(|scope| {
            let ask = |number: u8| {
                let gateway = &gateways[usize::from(number % 2)];
                scope.spawn(move || {
                    gateway
                        .post("/v1/call", &sealed_request(number, b"x"))
                        .status
                })
            };
            let calls: Vec<_> = (0..16).map(ask).collect();
            calls.into_iter().all(|call| call.join().unwrap() == 200)
        })
    };
    assert!(ask_both());
    goes.stop();
    // The one learns it from a call or its next question, the other by itself; neither tells the other.
    for _ in 0..4 {
        assert!(ask_both());
    }
    until(|| gateways.iter().all(|gateway| seen(gateway) == 1));
    assert!(ask_both());
}

#[test]
fn a_worker_that_is_full_or_ends_lets_another_one_answer() {
    for does in [Does::Full, Does::Drain] {
        let workers = [Worker::start(), Worker::start()];
        let gateway = gateway(&[&workers[0], &workers[1]], &[]);
        let request = sealed_request(1, b"x");
        assert_eq!(gateway.post("/v1/call", &request).status, 200);
        let first = workers.iter().find(|worker| worker.asked() == 1).unwrap();
        first.does(does);
        assert_eq!(gateway.post("/v1/call", &request).status, 200, "{does:?}");
        assert_eq!(
            workers.iter().map(Worker::asked).sum::<usize>(),
            3,
            "{does:?}"
        );
    }
}

#[test]
fn where_all_are_full_the_caller_hears_when_to_come_back() {
    let workers = [Worker::start(), Worker::start()];
    let gateway = gateway(&[&workers[0], &workers[1]], &[]);
    workers.iter().for_each(|worker| worker.does(Does::Full));
    let refused = gateway.post("/v1/call", &sealed_request(1, b"x"));
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (503, "workers-full")
    );
    assert!(refused.retry_after().is_some());
    assert_eq!(
        workers.iter().map(Worker::asked).sum::<usize>(),
        2,
        "once at each, no more"
    );
}

#[test]
fn a_refusal_for_good_is_passed_on_and_a_silent_worker_costs_one_deadline() {
    let worker = Worker::start();
    let gateway = gateway(&[&worker], &["--call-ms=300"]);
    worker.does(Does::Refuse);
    let refused = gateway.post("/v1/call", &sealed_request(1, b"x"));
    assert_eq!(
        (refused.status, refused.error_code().as_str()),
        (400, "sealed-for-another")
    );
    assert_eq!(refused.retry_after(), None);
    worker.does(Does::Hang);
    let late = gateway.post("/v1/call", &sealed_request(1, b"x"));
    assert_eq!(
        (late.status, late.error_code().as_str()),
        (504, "timed-out")
    );
    worker.does(Does::Answer);
    until(|| gateway.post("/v1/call", &sealed_request(1, b"x")).status == 200);
}

#[test]
fn an_answer_that_breaks_off_on_the_way_is_no_whole_one() {
    use std::io::Read as _;
    let worker = Worker::start();
    let gateway = gateway(&[&worker], &[]);
    worker.does(Does::Break);
    let mut answer = gateway.post_and_read("/v1/call", &sealed_request(1, b"x"));
    answer.read_to_end(&mut Vec::new()).unwrap_err();
    until(|| gateway.status()["workers"][0]["in_flight"] == 0);
}

#[test]
fn an_address_that_is_none_is_named_and_runtimes_of_ones_own_do_not_go_with_it() {
    let failed = |more: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let output = crate::support::command(directory.path(), "", more)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = failed(&["--worker-address=nowhere"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("--worker-address nowhere is not HOST:PORT"),
        "{said}"
    );
    let (code, said) = failed(&["--worker-address=127.0.0.1:1", "--workers=2"]);
    assert_eq!(code, Some(2), "{said}");
}
