//! Apache OpenWhisk's own client against the gateway's part of its interface; and that interface as an engine.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_end_to_end::{
    Answer, Canary, Invoker, Letter, Package, Person, Shared, Stack, Tap, node, numbers, post,
    scan, wait_until,
};
use bield_sdk::{Tensor, now};
use serde_json::{Value, json};

static STACK: Shared<Stack> = Shared::new(Stack::start);

const KEY: &str = "23bc46b1-71f6-4ed5-8c54-816aa4f8c502:123zO3xZCLrMN6v2BKK1dXYFpXlPkccOFqm12CdAsMgRU4VrNZ9lyGVCGuMDGIwP";

/// Opens what a client got as the sealed answer to `letter`.
fn answered(letter: Letter, result: &Value) -> Tensor {
    let sealed = result["sealed"].as_str().unwrap();
    let answer = Answer {
        status: 200,
        retry_after: None,
        feedback: result["feedback"].clone(),
        body: STANDARD.decode(sealed).unwrap(),
    };
    let answer = letter.open(&answer).unwrap().unwrap();
    answer.output().unwrap().tensors.remove(0)
}

/// As [`answered`]; says how many rows it has.
fn opened(letter: Letter, result: &Value) -> u64 {
    answered(letter, result).shape()[0]
}

fn is_error(said: &Value, status: u64, words: &str) {
    assert_eq!(said["status"], status, "{said}");
    let sentence = said["body"]["error"].as_str().unwrap();
    assert!(sentence.contains(words), "{said}");
    assert_eq!(said["body"]["code"].as_str().unwrap().len(), 32, "{said}");
}

#[test]
fn the_client_from_npm_manages_invokes_and_is_refused_as_by_openwhisk() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("whisk").unwrap();
    let account = format!("guest:{KEY}");
    let more = ["--openwhisk-auth", &account];
    let gateway = stack.gateway_with("gateway-whisk", &more).unwrap();
    let to = user.key_configuration(&package).unwrap();
    let seal = |rows| Letter::seal(&to, &user.key, numbers(rows), now()).unwrap();
    let letters = [seal(1), seal(2), seal(3)];
    let mut altered = seal(1).bytes;
    *altered.last_mut().unwrap() ^= 1;
    let bytes = letters.iter().map(|letter| &letter.bytes).chain([&altered]);
    let sealed: Vec<String> = bytes.map(|bytes| STANDARD.encode(bytes)).collect();

    let input = json!({ "host": gateway.url, "key": KEY, "sealed": sealed });
    let said = node("openwhisk", "scenario.mjs", &input).unwrap();

    assert_eq!(said["namespaces"], json!(["guest"]));
    assert_eq!(said["created"]["version"], "0.0.1");
    assert_eq!(said["created"]["exec"]["image"], "bield/worker:1");
    is_error(&said["again"], 409, "already exists");
    assert_eq!(said["updated"]["version"], "0.0.2");
    assert_eq!(said["got"], said["updated"]);
    assert_eq!(said["got"]["limits"]["memory"], 512);
    assert_eq!(said["listed"][0]["name"], "classify");

    let [first, second, third] = letters;
    let record = &said["blocking"];
    assert_eq!(record["response"]["success"], true, "{record}");
    assert_eq!(record["response"]["result"]["kind"], "cold");
    assert_eq!(opened(first, &record["response"]["result"]), 1);
    assert_eq!(said["result"]["kind"], "hot");
    assert_eq!(opened(second, &said["result"]), 2);
    assert_eq!(
        said["polled"]["activationId"],
        said["begun"]["activationId"]
    );
    assert_eq!(opened(third, &said["polled"]["response"]["result"]), 3);
    assert_eq!(said["activations"].as_array().unwrap().len(), 3);
    assert_eq!(said["activations"][0]["statusCode"], 0);
    assert_eq!(said["activation_result"], record["response"]);

    is_error(&said["unsealed"], 400, "base64 of a sealed request");
    let not_opened = &said["not_opened"];
    assert_eq!(not_opened["status"], 502, "{not_opened}");
    let response = &not_opened["body"]["response"];
    assert_eq!(response["status"], "application error");
    assert_eq!(response["result"]["error"]["code"], "not-opened");
    is_error(&said["too_long"], 413, "longer than");
    is_error(&said["too_much"], 400, "exceeds allowed threshold");
    is_error(&said["code"], 400, "not in Set(blackbox)");
    is_error(&said["unknown"], 404, "does not exist");
    is_error(&said["stranger"], 401, "authentication is invalid");
    is_error(&said["trespasser"], 403, "not authorized");
    assert_eq!(said["deleted"]["name"], "classify");
    is_error(&said["gone"], 404, "does not exist");

    let log = gateway.process.said();
    let key = KEY.split_once(':').unwrap().1;
    assert!(!log.contains(key), "the account's key is in the log");
}

#[test]
fn a_gateway_whose_workers_a_platform_runs_answers_as_any() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("platform").unwrap();
    let to = user.key_configuration(&package).unwrap();
    let account = format!("lab:{KEY}");
    // One that answers at once, and one whose answers are asked for.
    for (name, blocking_ms) in [("platform-waits", "60000"), ("platform-polled", "1")] {
        let more = [
            "--openwhisk-auth",
            &account,
            "--openwhisk-blocking-ms",
            blocking_ms,
        ];
        let platform = stack.gateway_with(name, &more).unwrap();
        let front = format!("{name}-front");
        let front = stack.gateway_on_platform(&front, &platform.url, KEY);
        let front = front.unwrap();
        for (rows, start) in [(1, "cold"), (2, "hot")] {
            let letter = Letter::seal(&to, &user.key, numbers(rows), now()).unwrap();
            let answer = post(&front.url, &letter.bytes).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.message());
            assert_eq!(answer.feedback["start"], start);
            let output = letter.open(&answer).unwrap().unwrap().output().unwrap();
            assert_eq!(output.tensors[0].shape(), [rows, 3]);
        }
        let mut altered = Letter::seal(&to, &user.key, numbers(1), now())
            .unwrap()
            .bytes;
        *altered.last_mut().unwrap() ^= 1;
        let refused = post(&front.url, &altered).unwrap();
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (400, "not-opened")
        );
    }
}

#[test]
fn a_gateway_calls_a_worker_through_its_action_face() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("action").unwrap();
    let to = user.key_configuration(&package).unwrap();
    let worker = stack.worker_with("worker-action", &[]).unwrap();
    let platform = Invoker::start(&worker.url).unwrap();
    let front = stack.gateway_on_platform("action-front", &platform.host(), KEY);
    let front = front.unwrap();
    for (rows, start) in [(1, "cold"), (2, "hot")] {
        let letter = Letter::seal(&to, &user.key, numbers(rows), now()).unwrap();
        let answer = post(&front.url, &letter.bytes).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.message());
        assert_eq!(answer.feedback["start"], start);
        let output = letter.open(&answer).unwrap().unwrap().output().unwrap();
        assert_eq!(output.tensors[0].shape(), [rows, 3]);
    }
    let mut altered = Letter::seal(&to, &user.key, numbers(1), now())
        .unwrap()
        .bytes;
    *altered.last_mut().unwrap() ^= 1;
    let refused = post(&front.url, &altered).unwrap();
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (400, "not-opened")
    );
}

#[test]
fn a_platform_that_is_too_small_is_named_before_anything_is_sent() {
    let stack = STACK.get();
    let account = format!("lab:{KEY}");
    let more = ["--openwhisk-auth", &account, "--concurrency", "1"];
    let platform = stack.gateway_with("platform-small", &more).unwrap();
    let front = stack.gateway_on_platform("platform-small-front", &platform.url, KEY);
    let front = front.unwrap();
    let said = |front: &bield_end_to_end::Gateway| front.process.said();
    let is_said = wait_until(Duration::from_secs(30), || {
        said(&front).contains("it allows 1 requests at once in one instance")
    });
    assert!(is_said, "{}", said(&front));
}

/// Packs and grants a model that `cargo xtask test` fetched.
fn published(owner: &Person, user: &Person, name: &str, variable: &str) -> Package {
    let file = std::env::var_os(variable).unwrap_or_else(|| {
        panic!("{variable} is not set: run `cargo xtask test`, which fetches the models of these tests and says where")
    });
    let model = std::fs::read(file).unwrap();
    let package = owner.publish_large(name, &model).unwrap();
    owner.grant(&package, user).unwrap();
    package
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// The mean of a sentence's vectors, one a token.
fn embedding(states: &Tensor) -> Vec<f32> {
    let (tokens, width) = (states.shape()[1], states.shape()[2]);
    let values = states.to_f32().unwrap();
    let width = usize::try_from(width).unwrap();
    let mean = (0..width).map(|at| values[at..].iter().step_by(width).sum::<f32>() / tokens as f32);
    mean.collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn real_models_answer_through_the_client_from_npm_and_the_wire_shows_only_sealed_bodies() {
    let stack = Stack::start_runtime_with(None, |config| config.models_mib_max = 1024).unwrap();
    let (owner, user) = (
        stack.person("owner").unwrap(),
        stack.person("user").unwrap(),
    );
    let magika = published(&owner, &user, "magika", "BIELD_MODEL_MAGIKA");
    let minilm = published(&owner, &user, "minilm", "BIELD_MODEL_MINILM");

    // The file that the example's package carries with the scores its owner expects.
    let golden = include_str!("../../../examples/file-type/golden.json");
    let golden: Value = serde_json::from_str(golden).unwrap();
    let bytes = golden["inputs"]["bytes"]["data"].as_array().unwrap().iter();
    let bytes: Vec<i32> = bytes.map(|byte| byte.as_i64().unwrap() as i32).collect();
    let file = vec![Tensor::from_i32("bytes", &[1, 2048], &bytes).unwrap()];
    // Words of bert-base-uncased: [CLS] a cat sits [SEP], … a kitten sits …, … the market fell ….
    let sentence = |words: [i64; 3]| {
        let ids = [101, words[0], words[1], words[2], 102];
        let of = |name: &str, values: [i64; 5]| Tensor::from_i64(name, &[1, 5], &values).unwrap();
        vec![
            of("input_ids", ids),
            of("attention_mask", [1; 5]),
            of("token_type_ids", [0; 5]),
        ]
    };
    let seal = |package: &Package, inputs| {
        let to = user.key_configuration(package).unwrap();
        Letter::seal(&to, &user.key, inputs, now()).unwrap()
    };
    let letters = [
        seal(&magika, file),
        seal(&minilm, sentence([1037, 4937, 7719])),
        seal(&minilm, sentence([1037, 18_401, 7719])),
        seal(&minilm, sentence([1996, 3006, 3062])),
    ];
    let sealed: Vec<String> = letters
        .iter()
        .map(|one| STANDARD.encode(&one.bytes))
        .collect();
    let account = format!("guest:{KEY}");
    let more = ["--openwhisk-auth", &account];
    let gateway = stack.gateway_with("gateway-whisk", &more).unwrap();
    let captured = stack.host().join("captured");
    let tap = Tap::open(&captured, "whisk").unwrap();
    let address = gateway.url.strip_prefix("http://").unwrap();
    tap.lead_to(address.parse().unwrap());
    let host = format!("http://{}", tap.address());
    let input = json!({ "host": host, "key": KEY, "sealed": sealed });
    let said = node("openwhisk", "invoke.mjs", &input).unwrap();

    let results = said["results"].as_array().unwrap();
    let [file, cat, kitten, market] = letters;
    let sealed = Canary::new("a sealed request", &file.bytes);
    let scores = answered(file, &results[0]).to_f32().unwrap();
    let expected = golden["expected"]["target_label"]["data"]
        .as_array()
        .unwrap();
    assert_eq!(scores.len(), expected.len());
    for (score, expected) in scores.iter().zip(expected) {
        let apart = (f64::from(*score) - expected.as_f64().unwrap()).abs();
        assert!(apart < 1e-3, "{score} instead of {expected}");
    }
    let [cat, kitten, market] =
        [(cat, 1), (kitten, 2), (market, 3)].map(|(letter, at)| answered(letter, &results[at]));
    let secrets = [
        Canary::new("the scores", &le_bytes(&scores)),
        Canary::new("an embedding", &le_bytes(&cat.to_f32().unwrap())),
    ];
    assert_eq!(scan(stack.host(), &secrets).unwrap(), []);
    // What was sealed did pass there, so the capture is one.
    assert_ne!(scan(&captured, &[sealed]).unwrap(), []);

    let [cat, kitten, market] = [cat, kitten, market].map(|states| embedding(&states));
    assert_eq!(cat.len(), 384);
    let (near, far) = (cosine(&cat, &kitten), cosine(&cat, &market));
    assert!(near > 0.5 && far < 0.4, "{near} {far}");
}
