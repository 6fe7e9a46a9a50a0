//! OpenAI's embeddings.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Running;
use crate::front::Reading;
use crate::{Pooling, Text};

#[test]
fn embeddings_are_means_over_the_mask_of_length_one_in_both_encodings() {
    let proxy = Running::start();
    // The played model gives (id, 1) for each token: (2, 1) and (4, 1) have the mean (3, 1).
    let request = json!({"model": "words", "input": [[2, 4], [7]], "encoding_format": "float"});
    let told = proxy.embed(&request);
    let value = told.json();
    assert_eq!(
        value["usage"],
        json!({"prompt_tokens": 3, "total_tokens": 3}),
        "{value}"
    );
    let numbers = |value: &Value| -> Vec<f32> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_f64().unwrap() as f32)
            .collect()
    };
    let first = numbers(&value["data"][0]["embedding"]);
    let length = 10f32.sqrt();
    assert!(
        (first[0] - 3.0 / length).abs() < 1e-6 && (first[1] - 1.0 / length).abs() < 1e-6,
        "{first:?}"
    );
    let second = numbers(&value["data"][1]["embedding"]);
    assert!(
        (second[0] - 7.0 / 50f32.sqrt()).abs() < 1e-6,
        "the padding counts: {second:?}"
    );

    let request =
        json!({"model": "words", "input": [2, 4], "encoding_format": "base64", "dimensions": 2});
    let value = proxy.embed(&request).json();
    let text = value["data"][0]["embedding"].as_str().unwrap();
    let bytes = STANDARD.decode(text).unwrap();
    assert_eq!(
        bytes,
        first
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<_>>()
    );
}

#[test]
fn many_inputs_take_several_calls_whose_receipts_are_all_named() {
    let proxy = Running::start();
    let rows: Vec<_> = (1..=70).map(|id| vec![id]).collect();
    let told = proxy.embed(&json!({"model": "words", "input": rows}));
    assert_eq!(told.json()["data"].as_array().unwrap().len(), 70);
    assert_eq!(told.header("bield-receipt").split(", ").count(), 3);
    assert_eq!(told.json()["bield_receipts"].as_array().unwrap().len(), 3);
    assert_eq!(proxy.played.calls.load(Ordering::SeqCst), 3);
}

#[test]
fn a_model_without_a_mask_gets_inputs_of_one_length_only() {
    let proxy = Running::start();
    let told =
        proxy.embed(&json!({"model": "unmasked", "input": [[2, 4], [7], [6, 8], [1, 1, 1]]}));
    let value = told.json();
    // One length, one call; in the order they came.
    assert_eq!(proxy.played.calls.load(Ordering::SeqCst), 3, "{value}");
    for (at, mean) in [3.0, 7.0, 7.0, 1.0f64].into_iter().enumerate() {
        let first = value["data"][at]["embedding"][0].as_f64().unwrap();
        let expected = mean / (mean * mean + 1.0).sqrt();
        assert!((first - expected).abs() < 1e-6, "{at}: {value}");
    }
}

#[test]
fn few_bytes_that_would_become_many_are_refused_before_they_do() {
    let proxy = Running::start();
    let long = vec![1; crate::text::ROW_TOKENS_MAX + 1];
    assert_eq!(
        proxy
            .embed(&json!({"model": "words", "input": [long]}))
            .status,
        400
    );
    // All rows padded to the longest would be twice what a call holds.
    let mut rows = vec![vec![1]; 31];
    rows.push(vec![1; crate::text::ROW_TOKENS_MAX]);
    let told = proxy.embed(&json!({"model": "words", "input": rows, "encoding_format": "base64"}));
    assert_eq!(told.status, 200);
    assert_eq!(proxy.played.calls.load(Ordering::SeqCst), 2);
}

#[test]
fn embeddings_that_cannot_be_are_refused_in_openais_form() {
    let proxy = Running::start();
    for (request, why) in [
        (
            json!({"model": "words", "input": "text"}),
            "--tokenizer words=",
        ),
        (json!({"model": "words", "input": []}), "empty"),
        (json!({"model": "words", "input": [[]]}), "empty"),
        (
            json!({"model": "words", "input": [2], "dimensions": 3}),
            "2 dimensions",
        ),
        (
            json!({"model": "echo", "input": [2]}),
            "gives no embeddings",
        ),
        (json!({"model": "words"}), "input"),
        (
            json!({"model": "words", "input": vec![vec![1]; 2049]}),
            "2048",
        ),
    ] {
        let told = proxy.embed(&request);
        let error = &told.json()["error"];
        assert_eq!(
            (told.status, &error["type"]),
            (400, &json!("invalid_request_error")),
            "{error}"
        );
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    }
    assert_eq!(
        proxy.embed(&json!({"model": "none", "input": [2]})).status,
        404
    );
}

#[test]
fn a_tokenizer_of_the_users_makes_tokens_of_text() {
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": {"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [], "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "two": 2, "four": 4}, "unk_token": "[UNK]"},
    });
    let text = Text::read(tokenizer.to_string().as_bytes()).unwrap();
    let reading = Reading {
        text: Some(text),
        pooling: Pooling::Cls,
    };
    let proxy = Running::with(None, HashMap::from([("words".to_owned(), reading)]));
    let value = proxy
        .embed(&json!({"model": "words", "input": ["Two four", "four"]}))
        .json();
    assert_eq!(value["usage"]["prompt_tokens"], 3, "{value}");
    // The first token's vector, (2, 1), not the mean.
    let first = value["data"][0]["embedding"][0].as_f64().unwrap();
    assert!((first - 2.0 / 5f64.sqrt()).abs() < 1e-6, "{value}");
    assert!(Text::read(b"{}").is_err());
}
