//! What OpenWhisk's own client does not show: waits, limits, and that paths are there for accounts alone.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_envelope::Digest;
use serde_json::{Value, json};

use crate::support::{Answer, Gateway, sealed_request, until};

/// `guest:u:k` as basic authentication has `u:k`.
const ACCOUNT: &str = "guest:u:k";
const BASIC: (&str, &str) = ("authorization", "Basic dTpr");
const ACTIONS: &str = "/api/v1/namespaces/_/actions/a";

fn started(configuration: &str, more: &[&str]) -> Gateway {
    let more = [&["--openwhisk-auth", ACCOUNT], more].concat();
    Gateway::start(configuration, &more)
}

fn make(gateway: &Gateway, limits: &Value) {
    let action = json!({ "exec": { "kind": "blackbox", "image": "i:1" }, "limits": limits });
    let made = gateway.put_with(ACTIONS, BASIC, action.to_string().as_bytes());
    assert_eq!(made.status, 200, "{}", made.json());
}

fn invoke(gateway: &Gateway, query: &str) -> Answer {
    let sealed = base64(&sealed_request(1, b"question"));
    let body = json!({ "sealed": sealed }).to_string();
    gateway.post_with(&format!("{ACTIONS}{query}"), BASIC, body.as_bytes())
}

fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn lets_go(gateway: &Gateway) {
    let package = Digest::from_bytes([7; 32]);
    std::fs::write(gateway.packages().join(format!("{package}.bield")), b"here").unwrap();
}

#[test]
fn without_an_account_the_paths_are_not_there() {
    let gateway = Gateway::start("", &[]);
    let answer = gateway.get("/api/v1/namespaces");
    assert_eq!(
        (answer.status, answer.error_code().as_str()),
        (404, "no-such-path")
    );
    let gateway = started("", &[]);
    let answer = gateway.get("/api/v1/namespaces");
    assert_eq!(answer.status, 401);
    assert_eq!(answer.headers["www-authenticate"], "Basic");
    // Also when there is more to send than fits on the way.
    let stranger = ("authorization", "Basic eDp5");
    let long = gateway.post_with(ACTIONS, stranger, &vec![b' '; 8 << 20]);
    assert_eq!(long.status, 401);
    assert_eq!(
        gateway
            .put_with(ACTIONS, stranger, &vec![b' '; 8 << 20])
            .status,
        401
    );
    let unknown = gateway.post_with(ACTIONS, BASIC, &vec![b' '; 8 << 20]);
    assert_eq!(unknown.status, 404);
}

#[test]
fn what_outlasts_a_blocking_wait_goes_on_and_its_record_comes() {
    let gateway = started("in-parts", &["--openwhisk-blocking-ms", "1"]);
    make(&gateway, &json!({}));
    let begun = invoke(&gateway, "?blocking=true");
    assert_eq!(begun.status, 202);
    let id = begun.json()["activationId"].as_str().unwrap().to_owned();
    assert_eq!(begun.headers["x-openwhisk-activation-id"], id);
    let path = format!("/api/v1/namespaces/guest/activations/{id}");
    assert_eq!(gateway.get_with(&path, BASIC).status, 404, "not ended yet");
    lets_go(&gateway);
    until(|| gateway.get_with(&path, BASIC).status == 200);
    let record = gateway.get_with(&path, BASIC).json();
    assert_eq!(
        record["response"]["result"]["sealed"],
        base64(b"first last")
    );
}

#[test]
fn an_activation_ends_at_its_actions_limit() {
    let gateway = started("in-parts", &[]);
    make(&gateway, &json!({ "timeout": 100 }));
    let late = invoke(&gateway, "?blocking=true");
    assert_eq!(late.status, 502);
    let response = &late.json()["response"];
    assert_eq!(response["status"], "action developer error");
    let why = "The action exceeded its time limits of 100 milliseconds.";
    assert_eq!(response["result"]["error"], why);
}

#[test]
fn a_result_longer_than_the_limit_is_an_error_and_not_kept() {
    // The stand-in answers 1.5 MB.
    let gateway = started("ahead", &[]);
    make(&gateway, &json!({}));
    let long = invoke(&gateway, "?blocking=true&result=true");
    assert_eq!(long.status, 502);
    let why = long.json()["error"].as_str().unwrap().to_owned();
    assert!(why.contains("exceeded the allowed length"), "{why}");
}

#[test]
fn what_nobody_can_take_is_told_so_and_leaves_no_record() {
    let more = ["--concurrency", "1", "--queue", "0"];
    let gateway = started("in-parts", &more);
    make(&gateway, &json!({}));
    let mut held = gateway.post_and_read("/v1/call", &sealed_request(2, b"question"));
    held.read_exact(&mut [0; 6]).unwrap();
    let full = invoke(&gateway, "?blocking=true");
    assert_eq!(full.status, 429, "{}", full.json());
    assert!(full.headers.contains_key("retry-after"));
    assert!(full.json()["error"].is_string() && full.json()["code"].is_string());
    let list = gateway.get_with("/api/v1/namespaces/_/activations", BASIC);
    assert_eq!(list.json(), json!([]));
    lets_go(&gateway);
    held.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(invoke(&gateway, "?blocking=true").status, 200);
}
