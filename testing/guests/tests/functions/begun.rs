//! What `bield new` writes builds by the commands that it prints, and works.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bield_function::FailureKind;
use bield_guests::Buckets;
use serde_json::Value;

use crate::support::Guest;

const CALLER: &str = "5555555555555555555555555555555555555555555555555555555555555555";

#[test]
fn a_function_in_javascript_is_begun_built_and_called() {
    let place = tempfile::tempdir().unwrap();
    let folder = begun(place.path(), "js");
    // What `npm install` would bring is at hand.
    let tools = std::env::var_os("BIELD_GUESTS_TOOLS")
        .expect("BIELD_GUESTS_TOOLS: `cargo xtask guests` says it");
    let mut npm = Command::new("npm");
    build(
        npm.args(["run", "--silent", "build"]).current_dir(&folder),
        &[tools.into()],
    );

    let guest = Guest::once(&std::fs::read(folder.join("function.wasm")).unwrap());
    let buckets = Buckets::new(&[("visits", true)]);
    for visits in 1..=3 {
        let answer = guest.call(&buckets, CALLER, "/visit", b"").unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["visits"], visits);
    }
    let all: Value =
        serde_json::from_slice(&guest.call(&buckets, CALLER, "/visitors", b"").unwrap()).unwrap();
    assert_eq!(all[CALLER], 3);
}

#[test]
fn a_function_in_c_is_begun_built_and_called() {
    let place = tempfile::tempdir().unwrap();
    let folder = begun(place.path(), "c");
    // A virtual environment's programs, in which the README's `pip install` ran.
    let Some(tools) = std::env::var_os("BIELD_C_TOOLS") else {
        eprintln!(
            "NOT RUN: BIELD_C_TOOLS is no folder of programs in which README.md's pip installed the C toolchain"
        );
        return;
    };
    build(
        Command::new("sh").arg("build.sh").current_dir(&folder),
        &[tools.into()],
    );

    let guest = Guest::once(&std::fs::read(folder.join("function.wasm")).unwrap());
    let buckets = Buckets::new(&[("visits", true)]);
    assert_eq!(guest.call(&buckets, CALLER, "/visit", b"").unwrap(), b"1");
    assert_eq!(guest.call(&buckets, CALLER, "/visit", b"").unwrap(), b"2");
    assert_eq!(
        guest.call(&buckets, CALLER, "/none", b"").unwrap_err().0,
        FailureKind::NotFound
    );
}

#[test]
fn a_function_in_python_is_begun_built_and_called() {
    let place = tempfile::tempdir().unwrap();
    let folder = begun(place.path(), "python");
    // A virtual environment's programs, in which what README.md's `pip install` brings is at hand.
    let tools = std::env::var_os("BIELD_GUESTS_PYTHON")
        .expect("BIELD_GUESTS_PYTHON: `cargo xtask guests` says it");
    build(
        Command::new("sh").arg("build.sh").current_dir(&folder),
        &[tools.into()],
    );

    let guest = Guest::once(&std::fs::read(folder.join("function.wasm")).unwrap());
    let buckets = Buckets::new(&[("visits", true)]);
    for visits in 1..=2 {
        let answer = guest.call(&buckets, CALLER, "/visit", b"").unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["visits"], visits);
    }
    let all = guest.call(&buckets, CALLER, "/visitors", b"").unwrap();
    let all: Value = serde_json::from_slice(&all).unwrap();
    assert_eq!(all[CALLER], 2);
}

#[test]
fn a_function_in_rust_counts_and_says_what_it_does_not_have() {
    let component = match bield_guests::rust() {
        Ok(component) => component,
        Err(error) => {
            eprintln!("NOT RUN: {error:#}, where a Rust for WebAssembly can be had");
            return;
        }
    };
    let guest = Guest::of(&component);
    let buckets = Buckets::new(&[("visits", true)]);
    for visits in 1..=3 {
        let answer = guest.call(&buckets, CALLER, "/visit", b"").unwrap();
        assert_eq!(answer, visits.to_string().as_bytes());
    }
    let all = guest.call(&buckets, CALLER, "/visitors", b"").unwrap();
    assert_eq!(all, format!("{CALLER} 3\n").as_bytes());
    let (kind, words) = guest.call(&buckets, CALLER, "/none", b"").unwrap_err();
    assert_eq!(kind, FailureKind::NotFound);
    assert!(words.contains("/visit, /visitors"), "{words}");
    // A bucket that its owner did not give it is an answer in words, not the end of the instance.
    let without = guest.call(&Buckets::new(&[]), CALLER, "/visit", b"");
    assert!(without.is_err());
}

/// For this machine: a target that makes components of it is not everywhere.
#[test]
fn a_function_in_rust_is_begun_and_compiles() {
    let place = tempfile::tempdir().unwrap();
    let folder = begun(place.path(), "rust");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut check = Command::new(cargo);
    check
        .args(["check", "--quiet"])
        .env("CARGO_TARGET_DIR", bield_guests::place().join("rust"))
        .env("RUSTFLAGS", "-D warnings");
    build(check.current_dir(&folder), &[]);
}

/// The folder that `bield new` made.
fn begun(place: &Path, language: &str) -> PathBuf {
    let programs =
        std::env::var_os("BIELD_PROGRAMS").expect("BIELD_PROGRAMS: `cargo xtask test` says it");
    let mut bield = Command::new(Path::new(&programs).join("bield"));
    bield
        .args(["new", "guestbook", "--lang", language])
        .current_dir(place);
    assert!(bield.stdout(Stdio::null()).status().unwrap().success());
    place.join("guestbook")
}

fn build(command: &mut Command, tools: &[PathBuf]) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(tools.iter().cloned().chain(std::env::split_paths(&path))).unwrap();
    assert!(
        command
            .env("PATH", path)
            .stdout(Stdio::null())
            .status()
            .unwrap()
            .success()
    );
}
