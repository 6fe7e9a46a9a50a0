//! A function in Python, with CPython inside: what it can do on buckets in memory, and what it cannot.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bield_function::{FailureKind, NnError, NnErrorKind, Stopped};
use bield_guests::{Buckets, python};
use bield_package::tensor::Tensor;
use serde_json::{Value, json};

use crate::support::Guest;

const CALLER: &str = "6666666666666666666666666666666666666666666666666666666666666666";

#[test]
fn python_reads_writes_and_swaps_however_many_do_so_at_once() {
    let guest = guest();
    let buckets = Buckets::new(&[("counters", true)]);
    let ask = |path: &str, body: &[u8]| guest.call(&buckets, CALLER, path, body);
    assert_eq!(ask("/caller", b"").unwrap(), CALLER.as_bytes());
    let body: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(ask("/echo", &body).unwrap(), body);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    ask("/add", b"n").unwrap();
                    ask("/append", b"xyz").unwrap();
                }
            });
        }
    });
    assert_eq!(ask("/get", b"n").unwrap(), b"20");
    assert_eq!(ask("/get", b"log").unwrap(), b"xyz".repeat(20));
    assert_eq!(ask("/take", b"below").unwrap(), b"-1");
    assert_eq!(ask("/never", b"").unwrap(), b"False");
    assert_eq!(ask("/get", b"none").unwrap_err().0, FailureKind::Conflict);
}

#[test]
fn python_lists_and_batches() {
    let buckets = Buckets::new(&[("counters", true)]);
    let answer = guest().call(&buckets, CALLER, "/fill", b"gfedcba").unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(
        answer,
        json!({
            "keys": ["a", "d", "e", "f", "g"],
            "a": { "key": "a" },
            "many": [["d", { "key": "d" }], ["a", { "key": "a" }]],
            "exists": [true, false],
        })
    );
}

#[test]
fn what_python_raises_goes_to_whom_it_concerns() {
    let guest = guest();
    let buckets = Buckets::new(&[("counters", false)]);
    let refused = |path: &str, body: &[u8]| guest.call(&buckets, CALLER, path, body).unwrap_err();
    assert_eq!(
        refused("/refuse", b""),
        (FailureKind::Denied, "not for 6666".to_owned())
    );
    assert_eq!(refused("/append/none", b"").0, FailureKind::NotFound);
    assert_eq!(refused("/run", b"[").0, FailureKind::BadRequest);
    assert_eq!(refused("/add", b"\xff").0, FailureKind::BadRequest);
    assert!(buckets.lines().is_empty());

    let (kind, words) = refused("/fail", b"a secret");
    assert_eq!(kind, FailureKind::Failed);
    assert!(!words.contains("secret"), "{words}");
    let lines = buckets.lines().join("\n");
    assert!(lines.starts_with("Info about to fail\nWarn careful\nError Traceback"));
    assert!(lines.contains("KeyError: 'a secret'") && lines.contains("app.py"));

    // An eventual bucket is never bent into an atomic one.
    for path in ["/add", "/append"] {
        assert_eq!(refused(path, b"n").0, FailureKind::Failed);
    }
    let lines = buckets.lines().join("\n");
    assert_eq!(
        lines.matches("bucket counters: unsupported").count(),
        2,
        "{lines}"
    );
    let none = Buckets::new(&[]);
    guest.call(&none, CALLER, "/add", b"n").unwrap_err();
    assert!(none.lines()[0].contains("bield.toml declares none of that name"));
}

#[test]
fn python_runs_a_model_on_the_numbers_it_is_given() {
    let run: Arc<bield_guests::Models> = Arc::new(|_, inputs| {
        let numbers = inputs[0].to_i32().unwrap();
        let halves: Vec<f32> = numbers.iter().map(|number| *number as f32 / 2.0).collect();
        Tensor::from_f32("scores", inputs[0].shape(), &halves)
            .map(|tensor| vec![tensor])
            .map_err(|error| NnError::new(NnErrorKind::Runtime, error.to_string()))
    });
    let guest = guest();
    let buckets = Buckets::new(&[]).with_model("model", run);
    let answer = guest.json(&buckets, CALLER, "/run", &json!([1, -7, 1000]));
    assert_eq!(
        answer.unwrap(),
        json!({ "type": "FP32", "shape": [1, 3], "numbers": [0.5, -3.5, 500.0] })
    );
    let none = Buckets::new(&[]);
    guest.json(&none, CALLER, "/run", &json!([1])).unwrap_err();
    let lines = none.lines().join("\n");
    assert!(
        lines.contains("model model: NOT_FOUND: no such model"),
        "{lines}"
    );
}

#[test]
fn time_and_randomness_are_the_requests() {
    let guest = guest();
    let buckets = Buckets::new(&[]);
    let ask = |path| guest.json(&buckets, CALLER, path, &json!(null)).unwrap();
    assert_eq!(
        ask("/now"),
        json!({ "time": 1_800_000_000.0, "again": 0.0, "passed": 0.0, "day": "2027-01-15" })
    );
    let drawn = ask("/draw");
    assert_eq!(
        (&drawn["urandom"], &drawn["token"]),
        (&json!("07070707"), &json!("07070707"))
    );
    assert_ne!(drawn["random"], drawn["born"]);
    // The world gives each request the same bytes: so the same numbers come.
    assert_eq!(ask("/draw"), drawn);
}

#[test]
fn python_finds_no_files_network_threads_or_environment() {
    let guest = guest();
    let buckets = Buckets::new(&[]);
    let ask = |path, body: &[u8]| guest.ask(&buckets, CALLER, path, body);
    assert_eq!(
        guest.call(&buckets, CALLER, "/environment", b"").unwrap(),
        b"{}"
    );
    for (path, body) in [
        ("/file", &b"/etc/passwd"[..]),
        ("/network", b""),
        ("/thread", b""),
    ] {
        match ask(path, body) {
            // Python's own refusal, or the host's.
            Ok(Err(failure)) => assert_eq!(failure.kind, FailureKind::Failed, "{path}"),
            Err(Stopped::Denied(what)) => assert!(what.starts_with("wasi:"), "{path}: {what}"),
            Err(stopped) => panic!("{path}: {stopped}"),
            Ok(Ok(_)) => panic!("{path} was answered"),
        }
        assert_eq!(guest.call(&buckets, CALLER, "/echo", b"on").unwrap(), b"on");
    }
}

#[test]
fn python_that_takes_too_much_is_ended_and_the_next_request_is_not() {
    let guest = guest().limited(|limits| limits.deadline = Duration::from_secs(5));
    let buckets = Buckets::new(&[]);
    let ended = guest.ask(&buckets, CALLER, "/endless", b"").err();
    assert_eq!(ended, Some(Stopped::Deadline(Duration::from_secs(5))));
    for (path, words) in [("/deep", "RecursionError"), ("/large", "MemoryError")] {
        match guest.ask(&buckets, CALLER, path, b"") {
            Ok(Err(failure)) => {
                assert_eq!(failure.kind, FailureKind::Failed);
                assert!(buckets.lines().join("\n").contains(words), "{path}");
            }
            Err(stopped) => panic!("{path}: {stopped}"),
            Ok(Ok(_)) => panic!("{path} was answered"),
        }
        assert_eq!(guest.call(&buckets, CALLER, "/echo", b"on").unwrap(), b"on");
    }
}

fn guest() -> Guest {
    // As the template's bield.toml has it.
    Guest::of(&python().unwrap()).limited(|limits| limits.memory_bytes = 128 << 20)
}
