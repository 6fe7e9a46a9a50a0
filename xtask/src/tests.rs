//! Every test: programs first, because the end-to-end tests start them; then all tests; then examples
//! in the documentation.

use std::process::Stdio;

use anyhow::Result;

use crate::programs::{build, cargo, succeed};

/// Runs all tests, with nextest where it is installed.
pub(crate) fn run(rest: &[String]) -> Result<()> {
    let programs = build(false)?;
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
    succeed(&mut tests)?;
    if rest.is_empty() {
        succeed(cargo().args(["test", "--workspace", "--doc", "--quiet"]))?;
    }
    Ok(())
}

fn has_nextest() -> bool {
    let mut version = cargo();
    version
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}
