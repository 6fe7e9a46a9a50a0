//! Every test: programs first, because the end-to-end tests start them; then all tests; then examples
//! in the documentation. onnxruntime's tests run when its library was fetched; the clients of other people that tests
//! call are installed first.

use std::process::Stdio;

use anyhow::Result;

use crate::programs::{Engines, build, cargo, succeed};
use crate::{chromium, clients, guests, onnxruntime};

/// Runs all tests, with nextest where it is installed.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let programs = build(false, Engines::All)?;
    let mut tests = cargo();
    if has_nextest() {
        tests.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        tests.args([
            "test",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--no-fail-fast",
        ]);
    }
    tests.args(rest).env("BIELD_PROGRAMS", &programs);
    if let Some(library) = onnxruntime::library() {
        tests.env("BIELD_ONNXRUNTIME", library);
    }
    for (variable, path) in clients::prepare()?.into_iter().chain(guests::prepare()?) {
        tests.env(variable, path);
    }
    chromium::install()?;
    succeed(&mut tests)?;
    if rest.is_empty() {
        test_onnxruntime()?;
        succeed(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    Ok(())
}

/// Tests of the crate that the workspace's tests build without the feature.
fn test_onnxruntime() -> Result<()> {
    let Some(library) = onnxruntime::library() else {
        eprintln!("\nNOT RUN: tests of onnxruntime; cargo xtask fetch-onnxruntime fetches it\n");
        return Ok(());
    };
    let mut tests = cargo();
    tests.args([
        "test",
        "--package",
        "bield-engine",
        "--features",
        "engine-ort",
    ]);
    tests.args(["--test", "onnxruntime", "--test", "onnxruntime_memory"]);
    succeed(tests.env("BIELD_ONNXRUNTIME", library))
}

fn has_nextest() -> bool {
    let mut version = cargo();
    version
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}
