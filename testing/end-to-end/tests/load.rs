//! `bield bench load` against a real deployment: the same requests for a seed, each answer verified, failures told.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use bield_end_to_end::{Person, Shared, Stack, gather};
use serde_json::Value;
use tempfile::TempDir;

static STACK: Shared<Stack> = Shared::new(Stack::start);

/// Runs `bield --json bench load` as `who`; returns its exit code and what it printed.
fn load(who: &Person, folder: &Path, arguments: &[&str]) -> (i32, Value) {
    let output = Command::new(folder.join("bield"))
        .args(["--json", "bench", "load", "--rate", "10", "--seconds", "2"])
        .args(arguments)
        .current_dir(folder)
        .env("BIELD_HOME", who.home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&said);
    let value = value.unwrap_or_else(|_| panic!("{arguments:?}: {said} {output:?}"));
    (output.status.code().unwrap(), value)
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    gather(&["bield"], folder.path()).unwrap();
    folder
}

#[test]
fn a_seed_is_replayed_and_every_answer_verified() {
    let (stack, folder) = (STACK.get(), folder());
    let (owner, user, first) = stack.cast("load-first").unwrap();
    let second = bield_end_to_end::tiny_model("load-second");
    let second = owner.publish("load-second", &second).unwrap();
    owner.grant(&second, &user).unwrap();
    let (first, second) = (first.digest.to_string(), second.digest.to_string());
    let models = ["--model", &first, "--model", &second];

    let out = ["--pattern", "mixed", "--out", "out"];
    let (code, report) = load(&user, folder.path(), &[&models[..], &out].concat());
    assert_eq!(code, 0, "{report:#}");
    let measured = &report["measured"];
    let requests = measured["requests"].as_u64().unwrap();
    assert!(requests > 0);
    assert_eq!(measured["answered"], requests, "{report:#}");
    let starts = measured["starts"].as_object().unwrap().values();
    assert_eq!(starts.filter_map(Value::as_u64).sum::<u64>(), requests);
    let models_of = measured["models"].as_object().unwrap();
    assert_eq!(models_of.len(), 2, "{report:#}");
    // Nobody had asked for them before.
    assert!(
        models_of
            .values()
            .all(|model| model["opened"].as_u64() >= Some(1))
    );
    assert_eq!(measured["latency"]["count"], requests);

    let at = |name: &str| fs::read_to_string(folder.path().join("out").join(name)).unwrap();
    let kept: Value = serde_json::from_str(&at("report.json")).unwrap();
    assert_eq!(&kept["measured"], measured);
    assert_eq!(at("trace.csv").lines().count() as u64, requests + 1);
    for plot in ["latency.svg", "load.svg"] {
        assert!(
            at(plot).starts_with("<svg ") && at(plot).ends_with("</svg>\n"),
            "{plot}"
        );
    }

    // The same seed asks the same; another asks something else.
    let trace = at("trace.csv");
    load(&user, folder.path(), &[&models[..], &out].concat());
    assert_eq!(at("trace.csv"), trace);
    load(
        &user,
        folder.path(),
        &[&models[..], &out, &["--seed", "2"]].concat(),
    );
    assert_ne!(at("trace.csv"), trace);
}

#[test]
fn requests_without_an_answer_make_the_exit_code_1() {
    let (stack, folder) = (STACK.get(), folder());
    let (_, user, package) = stack.cast("load-lost").unwrap();
    fs::remove_file(stack.stored(&package)).unwrap();
    let (code, report) = load(
        &user,
        folder.path(),
        &["--model", &package.digest.to_string()],
    );
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(report["error"]["kind"], "refused");
    let measured = &report["measured"];
    assert_eq!(measured["answered"], 0, "{report:#}");
    assert_eq!(measured["failed"], measured["requests"], "{report:#}");
    assert!(!measured["endings"].as_object().unwrap().is_empty());
}

#[test]
fn what_the_package_does_not_take_is_refused_before_anything_is_sent() {
    let (stack, folder) = (STACK.get(), folder());
    let (_, user, package) = stack.cast("load-inputs").unwrap();
    let inputs = r#"{"inputs": {"other": {"element": "u8", "shape": [1], "data": [1]}}}"#;
    fs::write(folder.path().join("inputs.json"), inputs).unwrap();
    let package = package.digest.to_string();
    let arguments = ["--model", &package, "--input", "inputs.json"];
    let (code, report) = load(&user, folder.path(), &arguments);
    assert_eq!((code, &report["measured"]), (2, &Value::Null), "{report:#}");
    assert!(
        report["error"]["message"]
            .as_str()
            .unwrap()
            .contains("input")
    );
}
