//! Frozen bytes of `spec/10-call.md`: what a second implementation must produce and refuse.
//!
//! `BIELD_FREEZE_VECTORS=1` writes the file instead of comparing with it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::path::Path;

use bield_protocol::inference::{Output, Reply, Request};
use bield_protocol::parts::{Arriving, Item, decode_request, encode_request};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::tensor::Tensor;
use serde_json::{Value, json};

const FILE: &str = "10-call.json";

fn tensors() -> Vec<Tensor> {
    vec![
        Tensor::from_f32("probs", &[1, 2], &[0.25, 0.75]).unwrap(),
        Tensor::from_i32("class", &[1], &[1]).unwrap(),
    ]
}

fn request() -> Request {
    Request {
        inputs: vec![Tensor::from_f32("input", &[1, 2], &[1.0, -0.5]).unwrap()],
        outputs: vec!["probs".into(), "class".into()],
    }
}

fn refusal() -> Refusal {
    Refusal::new("run-failed", "the model failed", Retry::Never)
}

fn in_parts(last: Item) -> Vec<u8> {
    let items = tensors().into_iter().map(Item::Output).chain([last]);
    items
        .enumerate()
        .flat_map(|(index, item)| item.encode(index == 0).to_vec())
        .collect()
}

#[test]
fn the_vectors_are_what_this_crate_makes() {
    let made = json!({
        "about": "spec/10-call.md. Byte strings are hex.",
        "request": hex::encode(&request().encode()[..]),
        "request_for_parts": hex::encode(&encode_request(&request())[..]),
        "output": hex::encode(Output { tensors: tensors() }.encode()),
        "refused": hex::encode(Reply::Refused(refusal()).encode()),
        "refused_and_padded_bytes": Reply::Refused(refusal()).encode_padded().len(),
        "in_parts_refused": hex::encode(in_parts(Item::Refused(refusal()))),
    });
    compare_or_freeze(&made);
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads and writes its vectors"
)]
fn compare_or_freeze(made: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../spec/vectors")
        .join(FILE);
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(made).unwrap();
        std::fs::write(path, text + "\n").unwrap();
        return;
    }
    let frozen: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(*made, frozen);
}

/// The items and whether there was an end, or nothing when they are refused.
fn read(bytes: &[u8]) -> Option<(Vec<Tensor>, bool)> {
    let mut arriving = Arriving::default();
    arriving.push(bytes).ok()?;
    let (mut tensors, mut ended) = (Vec::new(), false);
    while let Some(item) = arriving.next_item().ok()? {
        match item {
            Item::Output(tensor) => tensors.push(tensor),
            Item::End(_) | Item::Refused(_) => ended = true,
            _ => return None,
        }
    }
    Some((tensors, ended))
}

#[test]
fn what_is_cut_has_no_end_and_what_is_longer_is_refused() {
    let bytes = in_parts(Item::Refused(refusal()));
    assert_eq!(read(&bytes), Some((tensors(), true)));
    for length in 0..bytes.len() {
        let cut = read(&bytes[..length]).unwrap();
        assert!(!cut.1, "{length} bytes");
    }
    for more in 0..=u8::MAX {
        assert_eq!(read(&[&bytes[..], &[more]].concat()), None);
    }
    let asked = decode_request(&encode_request(&request())).unwrap();
    assert_eq!(asked, (request(), true));
}
