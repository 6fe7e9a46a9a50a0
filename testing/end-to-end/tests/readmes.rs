//! What a function's developer types: the READMEs of examples and of `bield new`, `bield dev --function`, `bield deploy`.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bield_end_to_end::{Terminal, commands, has_target};
use serde_json::{Value, json};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Types what an example's README shows.
fn as_typed(example: &str) {
    let folder = examples().join(example);
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let typed = commands(&readme).unwrap();
    let shown = typed.iter().filter(|typed| typed.prints.is_some());
    assert!(shown.count() >= 2, "it shows what its calls print");
    let mut terminal = Terminal::in_copy_of(&folder).unwrap();
    if let Err(error) = terminal.follow(&typed) {
        panic!("{example}/README.md: {error:#}");
    }
}

#[test]
fn the_counters_readme_works_as_typed() {
    as_typed("counter");
}

#[test]
fn the_carts_readme_works_as_typed() {
    as_typed("cart");
}

#[test]
fn the_classifiers_readme_works_as_typed() {
    as_typed("classifier");
}

#[test]
fn the_path_searchs_readme_works_as_typed() {
    as_typed("path-search");
}

#[test]
fn the_guide_to_functions_works_as_typed() {
    let guide = fs::read_to_string(examples().join("../docs/functions.md")).unwrap();
    let typed = commands(&guide).unwrap();
    let mut terminal = Terminal::new().unwrap();
    if let Err(error) = terminal.follow(&typed) {
        panic!("docs/functions.md: {error:#}");
    }
}

/// What `bield new` writes in a language works as its README says.
fn begun_as_typed(language: &str) {
    let mut terminal = Terminal::new().unwrap();
    terminal
        .type_line(&format!("bield new guestbook --lang {language}"))
        .unwrap();
    terminal.enter("guestbook");
    let readme = fs::read_to_string(terminal.folder().join("README.md")).unwrap();
    let typed = commands(&readme).unwrap();
    if let Err(error) = terminal.follow(&typed) {
        panic!("guestbook/README.md: {error:#}");
    }
}

#[test]
fn what_new_writes_in_c_works_as_its_readme_says() {
    if std::env::var_os("BIELD_C_TOOLS").is_none() {
        eprintln!("NOT RUN: BIELD_C_TOOLS is no folder of programs with zig and wasm-tools");
        return;
    }
    begun_as_typed("c");
}

#[test]
fn what_new_writes_in_python_works_as_its_readme_says() {
    begun_as_typed("python");
}

#[test]
fn what_new_writes_in_rust_works_as_its_readme_says() {
    if !has_target("wasm32-wasip2").unwrap() {
        eprintln!(
            "NOT RUN: rustc has no target wasm32-wasip2; `rustup target add wasm32-wasip2` adds it"
        );
        return;
    }
    begun_as_typed("rust");
}

#[test]
fn what_new_writes_in_javascript_works_as_its_readme_says() {
    begun_as_typed("js");
}

#[test]
fn a_function_under_development_is_deployed_again_when_it_changes_and_keeps_its_state() {
    let mut terminal = Terminal::new().unwrap();
    terminal.type_line("bield new guestbook").unwrap();
    terminal.enter("guestbook");
    terminal.type_line("npm install").unwrap();
    terminal.type_line("bield dev --function .").unwrap();
    let visit = "bield call guestbook --path /visit";
    assert_eq!(terminal.type_line(visit).unwrap(), r#"{"visits":1}"#);
    terminal.hears("guestbook@0.1.0-dev.1 deployed").unwrap();

    let source = terminal.folder().join("src/function.js");
    let before = fs::read_to_string(&source).unwrap();
    let with_line = before.replace("import { serve } from", "import { logs, serve } from");
    let with_line = with_line.replace(
        "return { visits };",
        "logs.info(`visit ${visits}`);\n    return { visits, changed: true };",
    );
    assert_ne!(before, with_line);
    fs::write(&source, &with_line).unwrap();
    terminal.hears("guestbook@0.1.0-dev.2 deployed").unwrap();
    let answer = terminal.type_line(visit).unwrap();
    assert_eq!(answer, r#"{"visits":2,"changed":true}"#);
    terminal.hears("info   visit 2").unwrap();
    let log = terminal.type_line("bield logs guestbook").unwrap();
    assert!(log.trim_end().ends_with("info   visit 2"), "{log}");

    // What does not build changes nothing.
    fs::write(&source, "export const handler = {{{").unwrap();
    terminal.hears("the version before stays").unwrap();
    let answer = terminal.type_line(visit).unwrap();
    assert_eq!(answer, r#"{"visits":3,"changed":true}"#);
    fs::write(&source, &before).unwrap();
    terminal.hears("guestbook@0.1.0-dev.3 deployed").unwrap();
    assert_eq!(terminal.type_line(visit).unwrap(), r#"{"visits":4}"#);
    // Of versions that are gone nothing is left, sealed packages included.
    let sealed = fs::read_dir(terminal.folder().join(".bield-dev/packages")).unwrap();
    assert_eq!(sealed.count(), 2);
}

#[test]
fn deploying_does_what_is_to_be_done_and_refuses_a_version_with_other_contents() {
    let mut terminal = Terminal::in_copy_of(&examples().join("counter")).unwrap();
    let missing = terminal.type_line("bield deploy").unwrap_err();
    assert!(format!("{missing:#}").contains("bield init"), "{missing:#}");
    terminal.type_line("npm install").unwrap();
    terminal.type_line("bield dev").unwrap();
    terminal
        .type_line("bield init --trust .bield-dev/trust.toml")
        .unwrap();
    let unbuilt = terminal.type_line("bield deploy").unwrap_err();
    assert!(format!("{unbuilt:#}").contains("--build"), "{unbuilt:#}");

    let json = |terminal: &mut Terminal, line: &str| -> Value {
        serde_json::from_str(&terminal.type_line(line).unwrap()).unwrap()
    };
    let first = json(&mut terminal, "bield --json deploy --build");
    assert_eq!(first["packed"], true);
    assert_eq!(
        (&first["uploaded"], &first["registered"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(first["grants"].as_array().unwrap().len(), 1);
    assert_eq!(first["grants"][0]["package"], "counter@*");

    let again = json(&mut terminal, "bield --json deploy");
    assert_eq!(again["package"], first["package"]);
    assert_eq!(
        (&again["packed"], &again["registered"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(
        (&again["grants"], &again["granted_before"]),
        (&json!([]), &json!(1))
    );
    let other = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let shared = json(
        &mut terminal,
        &format!("bield --json deploy --user {other} --user me"),
    );
    assert_eq!(shared["grants"].as_array().unwrap().len(), 1);
    assert_eq!(shared["grants"][0]["user"], other);

    let settings = terminal.folder().join("bield.toml");
    let before = fs::read_to_string(&settings).unwrap();
    let limited = format!("{before}\n[limits]\ndeadline = \"3 s\"\n");
    fs::write(&settings, &limited).unwrap();
    let refused = terminal.type_line("bield deploy").unwrap_err();
    assert!(
        format!("{refused:#}").contains("other contents"),
        "{refused:#}"
    );
    fs::write(&settings, limited.replace("0.1.0", "0.2.0")).unwrap();
    terminal
        .type_line("bield call counter --owner me --path /add")
        .unwrap();
    let next = json(&mut terminal, "bield --json deploy");
    assert_eq!(
        (&next["version"], &next["packed"]),
        (&json!("0.2.0"), &json!(true))
    );
    assert_eq!(
        next["granted_before"], 1,
        "whoever was granted one version calls the next"
    );
    let begun = Instant::now();
    let counted = terminal
        .type_line("bield call counter --owner me --path /add")
        .unwrap();
    // The runtime lets go of the state for the next version: nobody waits half a minute for a hold to end.
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(counted, r#"{"name":"clicks","value":2}"#);
}
