//! Open Inference Protocol v2, with sealed bytes as its one tensor.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_envelope::Digest;
use serde_json::{Value, json};

use crate::support::{Worker, sealed_request};

fn model(package: u8) -> String {
    format!("/v2/models/{}", Digest::from_bytes([package; 32]))
}

fn request(parameters: Value, data: Value) -> Value {
    let mut input = json!({ "name": "sealed", "datatype": "BYTES", "shape": [1] });
    input["parameters"] = parameters;
    input["data"] = data;
    json!({ "id": "mine", "inputs": [input] })
}

#[test]
fn server_and_models_are_described_as_the_protocol_says() {
    let worker = Worker::start("", &[]);
    let server = worker.get("/v2").json();
    assert_eq!(server["extensions"], json!(["binary_tensor_data"]));
    assert_eq!(
        worker.get("/v2/health/live").json(),
        json!({ "live": true })
    );
    assert_eq!(
        worker.get("/v2/health/ready").json(),
        json!({ "ready": true })
    );

    let absent = worker.get(&model(5));
    assert_eq!(absent.status, 404);
    assert!(absent.json()["error"].is_string());
    assert_eq!(worker.get("/v2/models/resnet").status, 404);
    let other = worker.get("/v2/repository/index");
    assert_eq!(other.status, 404);
    assert!(other.json()["error"].is_string());
    let method = worker.post("/v2/health/live", b"");
    assert_eq!(method.status, 405);
    assert!(method.json()["error"].is_string());
    worker.put_package(&Digest::from_bytes([5; 32]));
    let described = worker.get(&model(5)).json();
    assert_eq!(described["inputs"], described["outputs"]);
    let sealed = json!([{ "name": "sealed", "datatype": "BYTES", "shape": [1] }]);
    assert_eq!(described["inputs"], sealed);
    let ready = worker.get(&format!("{}/ready", model(5))).json();
    assert_eq!(ready["ready"], true);
}

#[test]
fn a_sealed_tensor_is_answered_as_json_and_as_bytes() {
    let worker = Worker::start("", &[]);
    let sealed = sealed_request(5, b"question");
    let infer = format!("{}/infer", model(5));

    let text = json!([STANDARD.encode(&sealed)]);
    let answer = worker.post_json(&infer, &request(json!({}), text));
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(
        (&body["id"], &body["outputs"][0]["name"]),
        (&json!("mine"), &json!("sealed"))
    );
    let data = body["outputs"][0]["data"][0].as_str().unwrap();
    assert!(STANDARD.decode(data).unwrap() == sealed);
    assert!(answer.headers.contains_key("bield-feedback"));

    let size = json!({ "binary_data_size": 4 + sealed.len() });
    let mut head = request(size, json!([]));
    head["parameters"] = json!({ "binary_data_output": true });
    let head = head.to_string();
    let length = u32::try_from(sealed.len()).unwrap().to_le_bytes();
    let body = [head.as_bytes(), &length, &sealed].concat();
    let header = ("Inference-Header-Content-Length", head.len().to_string());
    let answer = worker.post_with(&infer, (header.0, &header.1), &body);
    assert_eq!(answer.status, 200);
    let at = &answer.headers["inference-header-content-length"];
    let (head, tensor) = answer.body.split_at(at.to_str().unwrap().parse().unwrap());
    let head: Value = serde_json::from_slice(head).unwrap();
    assert_eq!(
        head["outputs"][0]["parameters"]["binary_data_size"],
        tensor.len()
    );
    assert!(tensor[4..] == sealed);
}

#[test]
fn the_model_named_is_the_one_it_was_sealed_for() {
    let worker = Worker::start("", &[]);
    let text = json!([STANDARD.encode(sealed_request(5, b"question"))]);
    let other = worker.post_json(&format!("{}/infer", model(6)), &request(json!({}), text));
    assert_eq!(other.status, 400);
    let why = other.json()["error"].as_str().unwrap().to_owned();
    assert!(why.contains("another package"), "{why}");
    let clear = json!([STANDARD.encode("in clear")]);
    let clear = worker.post_json(&format!("{}/infer", model(6)), &request(json!({}), clear));
    assert_eq!(clear.status, 400);
}
