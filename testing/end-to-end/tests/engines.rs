//! A runtime whose measured configuration names onnxruntime, confined as always. These tests need programs that have
//! the engine, and its library: `cargo xtask test` builds the one and names the other when it was fetched.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bield_end_to_end::{Stack, numbers, tiny_model, wait_until};
use bield_package::tensor::Tensor;

#[test]
fn models_run_on_the_library_that_the_measured_configuration_names() {
    let Some(library) = library() else { return };
    let stack = Stack::start_with_onnxruntime(&library).unwrap();
    let (owner, user) = (
        stack.person("owner").unwrap(),
        stack.person("user").unwrap(),
    );
    let package = owner.publish("fast", &tiny_model("fast")).unwrap();
    owner.grant(&package, &user).unwrap();
    for start in ["cold", "hot"] {
        let answered = user.call(&package, numbers(3)).unwrap().unwrap();
        assert_eq!(answered.tensors[0].shape(), [3, 3]);
        let sum: f32 = answered.tensors[0].to_f32().unwrap()[..3].iter().sum();
        assert!((sum - 1.0).abs() < 1e-5);
        assert_eq!(answered.feedback.unwrap()["start"], start);
    }

    // One that computes with 64 bits, which rten would refuse.
    let model = bield_fixtures::integer_model();
    let package = owner.publish("integers", &model).unwrap();
    owner.grant(&package, &user).unwrap();
    let inputs = vec![
        Tensor::from_i64("numbers", &[1], &[1 << 40]).unwrap(),
        Tensor::new(
            "mask",
            bield_package::tensor::ElementType::Bool,
            vec![1],
            vec![0],
        )
        .unwrap(),
    ];
    let answered = user.call(&package, inputs).unwrap().unwrap();
    let doubled = answered
        .tensors
        .iter()
        .find(|tensor| tensor.name() == "doubled");
    assert_eq!(doubled.unwrap().to_i64(), Some(vec![1 << 41]));
}

/// Published builds report to their maker what they loaded, ten seconds after start. A confined process that tries ends.
#[test]
fn the_library_tells_nobody_what_it_runs_and_so_the_runtime_lives_on() {
    let Some(library) = library() else { return };
    let started = Instant::now();
    let stack = Stack::start_with_onnxruntime(&library).unwrap();
    let (owner, user) = (
        stack.person("owner").unwrap(),
        stack.person("user").unwrap(),
    );
    let package = owner.publish("quiet", &tiny_model("quiet")).unwrap();
    owner.grant(&package, &user).unwrap();
    let start = || {
        let answered = user.call(&package, numbers(3)).unwrap().unwrap();
        answered.feedback.unwrap()["start"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(start(), "cold");
    thread::sleep(Duration::from_secs(15).saturating_sub(started.elapsed()));
    assert_eq!(start(), "hot", "the runtime was started anew");
}

#[test]
fn rten_answers_until_onnxruntime_has_opened_the_model_and_each_answer_says_which() {
    let Some(library) = library() else { return };
    let stack = Stack::start_runtime_with(Some(&library), |config| config.tiered = true).unwrap();
    let (owner, user) = (
        stack.person("owner").unwrap(),
        stack.person("user").unwrap(),
    );
    let package = owner.publish("tiered", &tiny_model("tiered")).unwrap();
    owner.grant(&package, &user).unwrap();
    let inputs = numbers(3);
    let call = || {
        let answered = user.call(&package, inputs.clone()).unwrap().unwrap();
        let engine = answered.feedback.unwrap()["engine"]
            .as_str()
            .unwrap()
            .to_owned();
        (engine, answered.tensors[0].to_f32().unwrap())
    };
    let (engine, first) = call();
    assert!(engine.starts_with("rten "), "{engine}");
    let mut last = first.clone();
    let swapped = wait_until(Duration::from_secs(60), || {
        let (engine, answer) = call();
        last = answer;
        engine.starts_with("onnxruntime ")
    });
    assert!(swapped, "it stayed on the first engine");
    assert!(first.iter().zip(&last).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn another_library_is_not_loaded() {
    let Some(library) = library() else { return };
    let mut stack = Stack::start_with_onnxruntime(&library).unwrap();
    let link = stack.host().join("libonnxruntime.so");
    stack.gateway.process.stop().unwrap();
    fs::remove_file(&link).unwrap();
    fs::write(&link, b"not the library that was agreed on").unwrap();
    let refused = stack.start_gateway_again().unwrap_err();
    assert!(
        format!("{refused:#}").contains("but the configuration names sha256:"),
        "{refused:#}"
    );
}

fn library() -> Option<PathBuf> {
    let library = std::env::var_os("BIELD_ONNXRUNTIME").map(PathBuf::from);
    if library.is_none() {
        eprintln!("NOT RUN: BIELD_ONNXRUNTIME names no library; see cargo xtask fetch-onnxruntime");
    }
    library
}
