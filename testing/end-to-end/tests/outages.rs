//! Programs that die, and a host that alters what they stored.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bield_end_to_end::{Letter, Stack, children, numbers, wait_until};
use bield_protocol::service::Inspection;
use bield_sdk::now;

const RESTART_WAIT: Duration = Duration::from_secs(20);

/// Kills a program of the gateway's and waits until another one runs in its place.
fn replace(stack: &Stack, name: &str) {
    let process = &stack.gateway.process;
    let killed = process.child(name).unwrap();
    process.kill_child(name).unwrap();
    let replaced = wait_until(
        RESTART_WAIT,
        || matches!(children(process.pid(), name)[..], [pid] if pid != killed),
    );
    assert!(replaced, "{}", process.said());
    stack.ready().unwrap();
}

#[test]
fn a_request_that_meets_a_killed_runtime_is_answered_by_the_next_one() {
    let stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("killed").unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();

    let killed = stack.gateway.process.child("bield-runtime").unwrap();
    let to = user.key_configuration(&package).unwrap();
    let letter = Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
    stack.gateway.process.kill_child("bield-runtime").unwrap();
    let answer = stack.post(&letter.bytes).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.message());
    // The new runtime fetches keys and package anew.
    assert_eq!(answer.feedback["start"], "cold");
    letter.open(&answer).unwrap().unwrap().output().unwrap();
    assert_ne!(
        stack.gateway.process.child("bield-runtime").unwrap(),
        killed
    );
}

#[test]
fn a_killed_key_service_keeps_its_name_its_packages_and_its_grants() {
    let stack = Stack::start().unwrap();
    let stranger = stack.person("stranger").unwrap();
    let (owner, user, package) = stack.cast("kept").unwrap();
    let newest = stack.person("newest").unwrap();
    let grant = owner.grant(&package, &newest).unwrap();
    let before = user.service().unwrap().inspect().unwrap();

    replace(&stack, "bield-keys");
    let after = user.service().unwrap().inspect().unwrap();
    // The log grew by the start.
    assert!(after.size > before.size, "{after:?}");
    assert_eq!(
        Inspection {
            size: before.size,
            ..after
        },
        before
    );
    // A runtime that never saw the first key service.
    replace(&stack, "bield-runtime");
    user.call(&package, numbers(1)).unwrap().unwrap();
    let answered = newest.call(&package, numbers(1)).unwrap().unwrap();
    assert_eq!(answered.receipt.receipt().grant, grant.digest());
    stranger.call(&package, numbers(1)).unwrap().unwrap_err();
}

fn newest_log(storage: &Path) -> PathBuf {
    let files = fs::read_dir(storage).unwrap();
    let logs = files.map(|file| file.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with("log-")
    });
    logs.max().unwrap()
}

#[test]
fn altered_state_of_the_key_service_is_refused_at_start_with_a_sentence() {
    let mut stack = Stack::start().unwrap();
    let (_, user, package) = stack.cast("altered").unwrap();
    let ended = stack.gateway.process.stop().unwrap();
    assert_eq!(ended.code(), Some(0), "{}", stack.gateway.process.said());

    let state = newest_log(&stack.host().join("storage"));
    let good = fs::read(&state).unwrap();
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    fs::write(&state, &altered).unwrap();
    let refused = stack.start_gateway_again().unwrap_err().to_string();
    assert!(refused.contains("restore the file"), "{refused}");
    assert!(refused.contains("exit status: 3"), "{refused}");
    // It is not overwritten with a new beginning.
    assert_eq!(fs::read(&state).unwrap(), altered);

    fs::write(&state, good).unwrap();
    stack.start_gateway_again().unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
}

#[test]
fn a_missing_software_tee_is_named_at_start() {
    let mut stack = Stack::start().unwrap();
    stack.gateway.process.stop().unwrap();
    fs::remove_file(stack.host().join("machine.sock")).unwrap();
    let refused = stack.start_gateway_again().unwrap_err().to_string();
    assert!(refused.contains("machine.sock"), "{refused}");
    assert!(refused.contains("exit status: 3"), "{refused}");
}
