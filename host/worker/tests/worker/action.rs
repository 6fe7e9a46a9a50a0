//! OpenWhisk's action contract: the cases of its `BasicActionRunnerTests`, as far as there is code of a user in them turned
//! into an image that brings its own, and what its invoker relies on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{Answer, Worker, sealed_request, signal_process, until};

const SENTINEL: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";

fn init(worker: &Worker) {
    let answer = worker.post_json("/init", &json!({}));
    assert_eq!((answer.status, answer.json()), (200, json!({ "OK": true })));
}

fn initialised(configuration: &str, more: &[&str]) -> Worker {
    let worker = Worker::start(configuration, more);
    init(&worker);
    worker
}

fn run_of(sealed: &[u8]) -> Value {
    json!({ "value": { "sealed": STANDARD.encode(sealed) } })
}

fn run(worker: &Worker, sealed: &[u8]) -> Answer {
    worker.post_json("/run", &run_of(sealed))
}

/// Checks that it is the stand-in's answer to `sealed`, which is the request's own bytes.
fn is_answer_to(answer: &Answer, sealed: &[u8]) {
    assert_eq!(answer.status, 200);
    let body = answer.json();
    let text = body["sealed"].as_str().unwrap();
    assert!(STANDARD.decode(text).unwrap() == sealed);
    assert_eq!(
        (&body["kind"], &body["feedback"]["start"]),
        (&json!("hot"), &json!("hot"))
    );
    let length = answer.headers["content-length"].to_str().unwrap();
    assert_eq!(length, answer.body.len().to_string());
}

#[test]
fn code_is_not_needed_and_not_looked_at() {
    for body in [
        "",
        "{}",
        r#"{"value":{"name":"a","main":"other","code":"process.exit(1)","binary":false,"env":{"A":"☃"}}}"#,
        "not json",
    ] {
        let worker = Worker::start("", &[]);
        let answer = worker.post("/init", body.as_bytes());
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({ "OK": true })),
            "{body}"
        );
        let request = sealed_request(1, b"question");
        is_answer_to(&run(&worker, &request), &request);
    }
}

#[test]
fn a_second_init_is_refused_and_the_first_still_counts() {
    let worker = initialised("", &[]);
    let again = worker.post_json("/init", &json!({}));
    let words = json!({ "error": "Cannot initialize the action more than once." });
    assert_eq!((again.status, again.json()), (403, words));
    let request = sealed_request(1, b"question");
    is_answer_to(&run(&worker, &request), &request);
}

#[test]
fn a_run_before_init_is_refused() {
    let worker = Worker::start("", &[]);
    let early = run(&worker, &sealed_request(1, b"question"));
    let words = json!({ "error": "System not initialized." });
    assert_eq!((early.status, early.json()), (403, words));
}

#[test]
fn other_paths_and_methods_are_an_actions_once_it_is_one() {
    let worker = Worker::start("", &[]);
    assert_eq!(worker.get("/other").status, 404);
    init(&worker);
    let words = json!({ "error": "Bad request." });
    for path in ["/other", "/run", "/init"] {
        let answer = worker.get(path);
        assert_eq!(
            (answer.status, answer.json()),
            (500, words.clone()),
            "{path}"
        );
    }
    // The other faces serve on.
    assert_eq!(worker.get("/readyz").status, 200);
}

#[test]
fn the_log_of_each_run_ends_on_both_outputs_however_it_went() {
    let worker = initialised("", &[]);
    assert_eq!(worker.said(SENTINEL), [0, 0]);
    let request = sealed_request(1, b"question");
    is_answer_to(&run(&worker, &request), &request);
    until(|| worker.said(SENTINEL) == [1, 1]);
    assert_eq!(run(&worker, b"not sealed").status, 200);
    until(|| worker.said(SENTINEL) == [2, 2]);
}

#[test]
fn the_rest_of_an_activation_is_taken_and_not_passed_on() {
    let worker = initialised("", &["--record", "record"]);
    let request = sealed_request(1, b"question");
    let later = SystemTime::now() + Duration::from_secs(60);
    let later = later.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let body = json!({
        "value": { "sealed": STANDARD.encode(&request), "winter": "❄ ☃ ❄" },
        "namespace": "namespace-canary", "action_name": "action-canary", "action_version": "1",
        "activation_id": "activation-canary", "transaction_id": "transaction-canary",
        "deadline": later.to_string(), "api_key": "key-canary", "api_host": "host-canary",
    });
    is_answer_to(&worker.post_json("/run", &body), &request);
    until(|| worker.said(SENTINEL) == [1, 1]);
    let files = std::fs::read_dir(worker.directory.path().join("record")).unwrap();
    let recorded: Vec<Vec<u8>> = files
        .map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect();
    let has = |wanted: &[u8]| {
        let in_one = |bytes: &Vec<u8>| bytes.windows(wanted.len()).any(|some| some == wanted);
        recorded.iter().any(in_one)
    };
    assert!(has(&request), "what crosses to the runtime is recorded");
    assert!(!has(b"canary") && !has("❄".as_bytes()));
    assert_eq!(worker.said_with("canary"), [0, 0]);
    assert!(!worker.metrics().contains("canary"));
}

#[test]
fn a_refusal_of_a_large_request_is_heard() {
    let large = sealed_request(1, &vec![7; 3 << 20]);
    let worker = Worker::start("in-parts", &[]);
    let early = run(&worker, &large);
    assert_eq!(early.status, 403);
    init(&worker);
    assert_eq!(worker.post("/init", &large).status, 403);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| run(&worker, &sealed_request(1, b"question")));
        worker.has_in_flight(1);
        let busy = run(&worker, &large);
        assert_eq!((busy.status, busy.error_code().as_str()), (503, "busy"));
        worker.signal(Signal::TERM);
        until(|| worker.get("/readyz").status == 503);
        for path in ["/run", "/"] {
            let draining = worker.post_json(path, &run_of(&large));
            assert_eq!(
                (draining.status, draining.error_code().as_str()),
                (503, "draining"),
                "{path}"
            );
        }
        worker.lets_go();
        assert_eq!(first.join().unwrap().status, 200);
    });
}

#[test]
fn a_megabyte_goes_in_and_comes_out() {
    let worker = initialised("", &[]);
    let request = sealed_request(1, &vec![7; 1 << 20]);
    is_answer_to(&run(&worker, &request), &request);
}

#[test]
fn nothing_sealed_is_the_callers_error_and_longer_than_the_limit_too() {
    let worker = initialised("", &["--body-mib", "1"]);
    for body in [
        json!({}),
        json!({ "value": {} }),
        json!({ "value": { "sealed": "not base64 !" } }),
        json!({ "value": { "sealed": "AAAA" } }),
        json!({ "value": { "question": "in clear" } }),
    ] {
        let answer = worker.post_json("/run", &body);
        assert_eq!(
            (answer.status, answer.error_code().as_str()),
            (200, "unsealed"),
            "{body}"
        );
    }
    // The second fits in base64, and is longer than the limit all the same.
    for bytes in [2 << 20, (1 << 20) + 1] {
        let long = run(&worker, &vec![7; bytes]);
        assert_eq!((long.status, long.error_code().as_str()), (413, "too-long"));
    }
    let request = sealed_request(1, b"question");
    is_answer_to(&run(&worker, &request), &request);
}

#[test]
fn what_is_past_its_deadline_is_not_begun() {
    let worker = initialised("", &[]);
    let mut body = run_of(&sealed_request(1, b"question"));
    body["deadline"] = json!("1000");
    let answer = worker.post_json("/run", &body);
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (200, "too-late")
    );
    let metrics = worker.metrics();
    assert!(
        metrics.contains("bield_worker_requests_total{start=\"hot\"} 0\n"),
        "{metrics}"
    );
}

#[test]
fn a_runtime_lost_on_the_way_has_the_platform_go_elsewhere() {
    let worker = initialised("cut", &[]);
    // What the stand-in waits for before it dies in the middle of its answer.
    worker.lets_go();
    let answer = run(&worker, &sealed_request(1, b"question"));
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (503, "runtime-lost")
    );
}

#[test]
fn one_activation_at_a_time_unless_the_platform_says_otherwise() {
    for (allowed, second) in [("false", 503), ("true", 200)] {
        let environment = [
            ("BIELD_LISTEN", "127.0.0.1:0"),
            ("__OW_ALLOW_CONCURRENT", allowed),
        ];
        let worker = Worker::start_in("in-parts", &[], &environment);
        init(&worker);
        std::thread::scope(|scope| {
            let first = scope.spawn(|| run(&worker, &sealed_request(1, b"question")));
            worker.has_in_flight(1);
            let other = scope.spawn(|| run(&worker, &sealed_request(2, b"question")));
            match second {
                503 => assert_eq!(other.join().unwrap().status, 503),
                _ => {
                    worker.has_in_flight(2);
                    worker.lets_go();
                    assert_eq!(other.join().unwrap().status, 200);
                }
            }
            worker.lets_go();
            assert_eq!(first.join().unwrap().status, 200);
        });
    }
}

#[test]
fn a_pause_between_two_runs_is_not_noticed() {
    let worker = initialised("", &[]);
    let request = sealed_request(1, b"question");
    is_answer_to(&run(&worker, &request), &request);
    let both = [worker.process.id(), worker.runtime().unwrap()];
    for pid in both {
        signal_process(pid, Signal::STOP);
    }
    // Longer than anything waits for silence on the way.
    std::thread::sleep(Duration::from_secs(3));
    for pid in both {
        signal_process(pid, Signal::CONT);
    }
    let request = sealed_request(2, b"question");
    is_answer_to(&run(&worker, &request), &request);
    assert_eq!(worker.runtime(), Some(both[1]), "the same runtime");
}
