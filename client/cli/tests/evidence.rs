//! `bield evidence`: bundled collateral, judged offline at a stated time, from the frozen vectors.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const VECTORS: &str = include_str!("../../../spec/vectors/02-evidence.json");
/// Within the collateral of the vectors' SGX evidence, and a year after its end.
const WITHIN: &str = "2026-11-18T12:00:00Z";
const AFTER: &str = "2027-11-18T12:00:00Z";

fn bield(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bield"))
        .args(arguments)
        .current_dir(directory)
        .env("BIELD_HOME", directory.join("home"))
        .output()
        .unwrap()
}

/// The SGX evidence of the vectors as `host.evidence`, and a policy with these lines after its first.
fn stage(policy: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let evidence = hex::decode(vectors["evidence"][0]["evidence"].as_str().unwrap()).unwrap();
    fs::write(directory.path().join("host.evidence"), evidence).unwrap();
    let root = vectors["simulated_root"].as_str().unwrap();
    let measurement = vectors["evidence"][0]["claims"]["measurement"]
        .as_str()
        .unwrap();
    let policy = policy
        .replace("ROOT", root)
        .replace("MEASUREMENT", measurement);
    fs::write(directory.path().join("policy.toml"), policy).unwrap();
    directory
}

const DEV: &str = "profile = \"dev\"\nallow_simulated = true\nsimulated_roots = [\"ROOT\"]\nmeasurements = [\"MEASUREMENT\"]\n";

fn verify(directory: &Path, at: &str) -> Output {
    let arguments = [
        "--json",
        "evidence",
        "verify",
        "host.evidence",
        "--policy",
        "policy.toml",
        "--at",
        at,
    ];
    bield(directory, &arguments)
}

#[test]
fn evidence_verifies_offline_as_of_a_time_in_which_its_collateral_held() {
    let stage = stage(DEV);
    let found = verify(stage.path(), WITHIN);
    let value: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found.status.code(), Some(0), "{value}");
    assert_eq!(value["passed"], true);
    assert_eq!(value["simulated"], true);
}

#[test]
fn expired_collateral_is_refused_by_name() {
    let stage = stage(DEV);
    let found = verify(stage.path(), AFTER);
    assert_eq!(found.status.code(), Some(1));
    let said = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        said.contains("endorsements do not hold at 2027-11-18"),
        "{said}"
    );
}

#[test]
fn a_policy_without_reference_values_accepts_nothing_and_simulated_needs_dev() {
    let stage_without = stage(&DEV.replace("MEASUREMENT", "").replace("[\"\"]", "[]"));
    let found = verify(stage_without.path(), WITHIN);
    assert_eq!(found.status.code(), Some(1));
    let value: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert!(value.to_string().contains("measurement"), "{value}");

    let strict = stage(&DEV.replace("\"dev\"", "\"strict\""));
    let refused = verify(strict.path(), WITHIN);
    assert_ne!(refused.status.code(), Some(0));
}

#[test]
fn bytes_that_are_no_evidence_and_missing_parts_are_named() {
    let stage = stage(DEV);
    fs::write(stage.path().join("host.evidence"), b"no").unwrap();
    assert_eq!(verify(stage.path(), WITHIN).status.code(), Some(1));
    fs::write(stage.path().join("quote"), b"q").unwrap();
    let bundle = [
        "evidence", "bundle", "--kind", "sgx", "--quote", "quote", "--out", "x",
    ];
    let found = bield(stage.path(), &bundle);
    assert_ne!(found.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&found.stderr).contains("--collateral"));
    assert!(!stage.path().join("x").exists());
}
