//! The same component, the same requests, two hosts: bield's, and Node's with bindings that others wrote (`oracle/`). What
//! they answer and what they keep is the same.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_function::FailureKind;
use bield_guests::{Buckets, C, javascript};
use serde_json::{Value, json};

use crate::support::Guest;

#[test]
fn node_and_bield_say_the_same_of_javascript() {
    compare(
        &javascript("counter").unwrap(),
        &["counters"],
        &[
            ("/add", ""),
            ("/add", r#"{ "by": 41, "name": "é" }"#),
            ("/add", r#"{ "by": -9007199254740991 }"#),
            ("/add", r#"{ "by": 1.5 }"#),
            ("/add", "\u{0}"),
            ("/list", ""),
            ("/none", ""),
        ],
    );
    compare(
        &javascript("cart").unwrap(),
        &["shop", "stock"],
        &[
            ("/restock", r#"{ "item": "apples", "count": 3 }"#),
            ("/restock", r#"{ "item": "__proto__", "count": 3 }"#),
            ("/add", r#"{ "item": "apples", "count": 2 }"#),
            ("/add", r#"{ "item": "apples", "count": 2 }"#),
            ("/add", r#"{ "item": "__proto__", "cart": "toString" }"#),
            ("/show", r#"{ "cart": "toString" }"#),
            ("/checkout", "{}"),
            ("/stock", "{}"),
        ],
    );
    compare(
        &javascript("path-search").unwrap(),
        &["paths"],
        &[
            (
                "/search",
                r#"{ "map": 3, "worker": "a", "seed": 5, "steps": 500 }"#,
            ),
            (
                "/search",
                r#"{ "map": 3, "worker": "b", "seed": 6, "steps": 500 }"#,
            ),
            ("/best", r#"{ "map": 3 }"#),
        ],
    );
}

#[test]
fn node_and_bield_say_the_same_of_c() {
    compare(
        C,
        &["counters"],
        &[
            ("/echo", "here"),
            ("/caller", ""),
            ("/add", "n"),
            ("/add", "n"),
            ("/append", "one"),
            ("/append", ""),
            ("/get", "log"),
            ("/get", "nothing"),
            ("/keep", "this"),
            ("/run", "abcd"),
        ],
    );
}

fn compare(component: &[u8], names: &[&str], requests: &[(&str, &str)]) {
    const CALLER: &str = "4444444444444444444444444444444444444444444444444444444444444444";
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("component.wasm");
    std::fs::write(&path, component).unwrap();
    let asked = json!({
        "component": path,
        "place": place.path().join("bindings"),
        "buckets": names,
        "requests": requests.iter().map(|(path, body)| {
            json!({ "path": path, "caller": CALLER, "body": STANDARD.encode(body) })
        }).collect::<Vec<_>>(),
    });

    let guest = Guest::of(component);
    let buckets = Buckets::new(&names.iter().map(|name| (*name, true)).collect::<Vec<_>>());
    let answers: Vec<Value> = requests
        .iter()
        .map(
            |(path, body)| match guest.whole(&buckets, CALLER, path, body.as_bytes()) {
                Ok((content_type, body)) => {
                    json!({ "contentType": content_type, "body": STANDARD.encode(body) })
                }
                Err((refused, words)) => json!({ "kind": kind(refused), "words": words }),
            },
        )
        .collect();
    let said = oracle(&asked);
    assert_eq!(said["answers"], json!(answers));
    for name in names {
        let kept = buckets.contents(name);
        let kept = kept
            .iter()
            .map(|(key, value)| (key.clone(), json!(STANDARD.encode(value))));
        assert_eq!(
            said["values"][name],
            Value::Object(kept.collect()),
            "bucket {name}"
        );
    }
}

/// What Node says.
fn oracle(asked: &Value) -> Value {
    let script = std::env::var_os("BIELD_GUESTS_ORACLE")
        .expect("BIELD_GUESTS_ORACLE: `cargo xtask guests` says it");
    let mut node = Command::new("node");
    let mut node = node
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin
        .take()
        .unwrap()
        .write_all(asked.to_string().as_bytes())
        .unwrap();
    let done = node.wait_with_output().unwrap();
    assert!(
        done.status.success(),
        "the oracle ended with {}",
        done.status
    );
    serde_json::from_slice(&done.stdout).unwrap()
}

/// As the interfaces call it.
fn kind(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::BadRequest => "bad-request",
        FailureKind::NotFound => "not-found",
        FailureKind::Denied => "denied",
        FailureKind::Conflict => "conflict",
        FailureKind::Failed => "failed",
    }
}
