//! `bield proxy` in front of a real deployment: what it refuses, what it serves, and (`clients.rs`) people's tools.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod clients;
mod running;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_end_to_end::{Canary, Package, Person, Shared, Stack, post, scan, tiny_model};
use bield_sdk::Randomness;
use rand_core::Rng as _;
use serde_json::{Value, json};

use running::Running;

static STACK: Shared<Stack> = Shared::new(Stack::start);

/// Four numbers that occur nowhere else, as the model takes them, and how to find them.
fn secret() -> (Value, Canary) {
    let numbers: Vec<f32> = (0..16)
        .map(|_| f32::from_bits(0x3f00_0000 | Randomness.next_u32() >> 9))
        .collect();
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let request = json!({"inputs": [
        {"name": "input", "datatype": "FP32", "shape": [4, 4], "data": numbers},
    ]});
    (request, Canary::new("the request", &bytes))
}

fn serves(user: &Person, name: &str, package: &Package) -> Running {
    Running::start(user, &[&format!("--model={name}={}", package.digest)]).unwrap()
}

#[test]
fn it_does_not_start_for_a_key_service_that_does_not_pass_nor_where_others_reach_it() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("proxy-refuses").unwrap();
    let model = format!("--model=m={}", package.digest);
    let message = |arguments: &[&str]| {
        let ran = user
            .bield(&[&["proxy", &model], arguments].concat())
            .unwrap();
        assert_ne!(ran.code, 0, "{:?}", ran.value);
        (ran.code, ran.message().to_owned())
    };
    let (code, why) = message(&["--listen=0.0.0.0:0"]);
    assert!(code == 2 && why.contains("loopback"), "{why}");
    let (code, why) = message(&["--listen=127.0.0.1:0", "--grpc-listen=[::]:0"]);
    assert!(code == 2 && why.contains("loopback"), "{why}");
    let (code, why) = message(&["--token-file=nowhere"]);
    assert!(code == 2 && why.contains("nowhere"), "{why}");

    // The same service, and a trust that wants another code of it.
    let mut trust = stack.trust();
    trust.service.measurements = vec![stack.runtime_code.to_string()];
    user.home
        .replace_trust(&toml::to_string(&trust).unwrap())
        .unwrap();
    let (code, why) = message(&[]);
    assert!(code == 1 && why.contains("key service"), "{why}");
}

#[test]
fn what_an_owner_granted_is_served_by_its_names_without_being_listed() {
    let stack = STACK.get();
    let (owner, user, package) = stack.cast("proxy-granted").unwrap();
    let other = owner
        .publish("proxy-not-granted", &tiny_model("proxy-other"))
        .unwrap();
    // Without an owner nobody says whose models.
    let ran = user
        .bield(&["proxy", "--listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0"])
        .unwrap();
    assert!(
        ran.code == 2 && ran.message().contains("--model"),
        "{ran:?}"
    );
    let mut trust = stack.trust();
    trust.owner = Some(owner.principal().to_string());
    user.home
        .replace_trust(&toml::to_string(&trust).unwrap())
        .unwrap();
    user.does(&["register"]).unwrap();
    let proxy = Running::start(&user, &[]).unwrap();
    let models = proxy.get("/v1/models").1;
    let served: Vec<_> = models["data"].as_array().unwrap().iter().collect();
    assert_eq!(served.len(), 1, "{models} {}", other.digest);
    assert_eq!(served[0]["id"], "proxy-granted");
    assert_eq!(served[0]["bield_package"], package.digest.to_string());
    assert_eq!(served[0]["owned_by"], owner.principal().to_string());
}

#[test]
fn a_sealed_call_is_carried_by_somebody_else_and_opened_here() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("proxy-carried").unwrap();
    let proxy = serves(&user, "tiny", &package);
    let (request, canary) = secret();
    let (status, sealed) = proxy.post("/v1/seal/tiny", &request);
    assert_eq!(status, 200, "{sealed}");
    let body = STANDARD.decode(sealed["sealed"].as_str().unwrap()).unwrap();
    let path = format!("/v1/open/{}", sealed["id"].as_str().unwrap());

    let answer = post(stack.url().as_str(), &body).unwrap();
    assert_eq!(answer.status, 200);
    let answer = json!({"sealed": STANDARD.encode(&answer.body)});
    let (status, opened) = proxy.post(&path, &answer);
    assert_eq!(
        (status, &opened["outputs"][0]["shape"]),
        (200, &json!([4, 3])),
        "{opened}"
    );
    assert_eq!(opened["parameters"]["bield_receipt"], sealed["receipt"]);
    // Once.
    assert_eq!(proxy.post(&path, &answer).0, 404);

    // One altered byte: nothing is answered.
    let (_, sealed) = proxy.post("/v1/seal/tiny", &request);
    let body = STANDARD.decode(sealed["sealed"].as_str().unwrap()).unwrap();
    let path = format!("/v1/open/{}", sealed["id"].as_str().unwrap());
    let mut bytes = post(stack.url().as_str(), &body).unwrap().body;
    *bytes.last_mut().unwrap() ^= 1;
    let (status, refused) = proxy.post(&path, &json!({"sealed": STANDARD.encode(bytes)}));
    assert_eq!(status, 502, "{refused}");
    assert_eq!(scan(stack.host(), &[canary]).unwrap(), []);
}

#[test]
fn calls_go_on_when_the_owner_replaces_the_key_at_once() {
    let stack = STACK.get();
    let owner = stack.person("owner-proxy-rotates").unwrap();
    let user = stack.person("user-proxy-rotates").unwrap();
    let package = owner
        .publish("proxy-rotates", &tiny_model("proxy-rotates"))
        .unwrap();
    owner.grant(&package, &user).unwrap();
    let proxy = serves(&user, "tiny", &package);
    let (request, _) = secret();
    let calls = || proxy.post("/v2/models/tiny/infer", &request);
    assert_eq!(calls().0, 200);
    owner
        .does(&["rotate", "audience", "proxy-rotates", "--at-once"])
        .unwrap();
    let (status, answer) = calls();
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn the_gateway_being_away_is_said_as_such_and_passes() {
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("proxy-away").unwrap();
    let proxy = serves(&user, "tiny", &package);
    let (request, _) = secret();
    let mut stack = stack;
    stack.gateway.process.stop().unwrap();
    let (status, refused) = proxy.post("/v2/models/tiny/infer", &request);
    assert!([502, 503].contains(&status), "{status} {refused}");
    stack.start_gateway_again().unwrap();
    let (status, answer) = proxy.post("/v2/models/tiny/infer", &request);
    assert_eq!(status, 200, "{answer}");
}
