//! One worker with the real runtime: the same sealed request through each of its faces.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_end_to_end::{Answer, Gateway, Letter, Shared, Stack, numbers};
use bield_protocol::service::KeyConfiguration;
use bield_sdk::now;
use serde_json::{Value, json};

static STACK: Shared<Stack> = Shared::new(Stack::start);

/// Posts and reads: status, feedback and body.
fn post(worker: &Gateway, path: &str, body: &[u8]) -> Answer {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    let agent = config.proxy(None).build().new_agent();
    let answer = agent.post(format!("{}{path}", worker.url)).send(body);
    let (head, mut body) = answer.unwrap().into_parts();
    let feedback = head.headers.get("bield-feedback");
    Answer {
        status: head.status.as_u16(),
        retry_after: None,
        feedback: feedback.map_or(Value::Null, |text| {
            serde_json::from_slice(text.as_bytes()).unwrap()
        }),
        body: body.with_config().limit(1 << 30).read_to_vec().unwrap(),
    }
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

/// The sealed bytes that stand in JSON as base64.
fn sealed(text: &Value) -> Answer {
    Answer {
        status: 200,
        retry_after: None,
        feedback: Value::Null,
        body: STANDARD.decode(text.as_str().unwrap()).unwrap(),
    }
}

fn run_of(letter: &[u8]) -> Vec<u8> {
    let value = json!({ "value": { "sealed": STANDARD.encode(letter) } });
    value.to_string().into_bytes()
}

#[test]
fn every_face_carries_the_same_sealed_call() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("faces").unwrap();
    let stranger = stack.person("stranger-faces").unwrap();
    let worker = stack.worker_with("worker-faces", &[]).unwrap();
    let to: KeyConfiguration = user.key_configuration(&package).unwrap();
    let seal = |rows| Letter::seal(&to, &user.key, numbers(rows), now()).unwrap();
    let rows = |letter: Letter, answer: &Answer| {
        let output = letter.open(answer).unwrap().unwrap().output().unwrap();
        output.tensors[0].shape()[0]
    };

    let letter = seal(1);
    let plain = post(&worker, "/", &letter.bytes);
    assert_eq!(plain.feedback["start"], "cold");
    assert_eq!(rows(letter, &plain), 1);

    assert_eq!(post(&worker, "/init", b"{}").status, 200);
    let letter = seal(2);
    let run = json_of(&post(&worker, "/run", &run_of(&letter.bytes)));
    assert_eq!(run["kind"], "hot");
    assert_eq!(rows(letter, &sealed(&run["sealed"])), 2);

    let letter = seal(3);
    let infer = format!("/v2/models/{}/infer", package.digest);
    let input = json!({ "name": "sealed", "datatype": "BYTES", "shape": [1], "data": [STANDARD.encode(&letter.bytes)] });
    let inferred = post(
        &worker,
        &infer,
        json!({ "inputs": [input] }).to_string().as_bytes(),
    );
    assert_eq!(inferred.feedback["start"], "hot");
    let inferred = json_of(&inferred);
    assert_eq!(rows(letter, &sealed(&inferred["outputs"][0]["data"][0])), 3);

    // A refusal under seal looks like an answer to the platform.
    let letter = Letter::seal(&to, &stranger.key, numbers(1), now()).unwrap();
    let refused = post(&worker, "/run", &run_of(&letter.bytes));
    assert_eq!(refused.status, 200);
    let refused = sealed(&json_of(&refused)["sealed"]);
    assert!(letter.open(&refused).unwrap().is_err());

    // What does not open is refused in public, on each face in its own way.
    let mut altered = seal(1).bytes;
    *altered.last_mut().unwrap() ^= 1;
    let plain = post(&worker, "/", &altered);
    assert_eq!((plain.status, plain.code().as_str()), (400, "not-opened"));
    let run = post(&worker, "/run", &run_of(&altered));
    assert_eq!((run.status, run.code().as_str()), (200, "not-opened"));
}
