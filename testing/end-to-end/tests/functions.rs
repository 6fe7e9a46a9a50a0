//! Functions over real processes: what they count, where it lies, and what a host that puts old files back gets.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use bield_end_to_end::{Canary, Package, Person, Stack, scan, wait_until};
use bield_grant::Isolation;
use bield_protocol::configuration::FunctionsConfiguration;
use bield_receipt::StateHeads;
use bield_sdk::{CallError, FunctionAnswered, Randomness};
use rand_core::Rng as _;

const COUNTER: &str = r#"
[function]
name = "counter"
version = "1"
source = "function.wasm"

[[bucket]]
name = "counters"
consistency = "linearizable"
durability = "local-sync"
"#;

fn stack() -> Stack {
    Stack::start_runtime_with(None, |configuration| {
        configuration.functions = Some(FunctionsConfiguration {
            instances_max: 8,
            instance_mib_max: 256,
            several_owners: false,
        });
    })
    .unwrap()
}

/// The owner of a function that counts, somebody who may call it, and the function.
fn cast(stack: &Stack) -> (Person, Person, Package) {
    let owner = stack.person("owner").unwrap();
    let user = stack.person("user").unwrap();
    let counter = owner
        .publish_function(COUNTER, bield_guests::C, &[])
        .unwrap();
    owner.grant(&counter, &user).unwrap();
    (owner, user, counter)
}

fn body(answered: &FunctionAnswered) -> String {
    let response = answered
        .outcome
        .as_ref()
        .unwrap_or_else(|failure| panic!("{}", failure.message));
    String::from_utf8(response.body.to_vec()).unwrap()
}

/// Adds 1 to the counter `key`; the sum, and the heads after it.
fn add(
    user: &Person,
    counter: &Package,
    key: &str,
    seen: Option<&StateHeads>,
) -> (String, StateHeads) {
    let answered = user
        .call_function(counter, "/add", key.as_bytes(), seen)
        .unwrap()
        .unwrap_or_else(|error| panic!("{error}"));
    (body(&answered), answered.state.unwrap().heads)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_function_counts_across_starts_and_yesterdays_files_serve_nobody() {
    let mut stack = stack();
    let (_owner, user, counter) = cast(&stack);
    let key = format!(
        "key-{:016x}{:016x}",
        Randomness.next_u64(),
        Randomness.next_u64()
    );
    let canary = Canary::new("key", key.as_bytes());
    let key = &*key;

    let (sum, _) = add(&user, &counter, key, None);
    assert_eq!(sum, "1");
    let (sum, seen) = add(&user, &counter, key, None);
    assert_eq!(sum, "2");
    let echoed = user
        .call_function(&counter, "/echo", key.as_bytes(), Some(&seen))
        .unwrap();
    let echoed = echoed.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(body(&echoed), key);
    let span = echoed.receipt.receipt().state.unwrap();
    assert_eq!(span.before, span.after, "it wrote nothing");

    // The gateway stops, and with it the runtime, which lets the state go.
    stack.gateway.process.stop().unwrap();
    let (state, yesterday) = (stack.host().join("state"), stack.host().join("yesterday"));
    copy(&state, &yesterday);
    stack.start_gateway_again().unwrap();
    let (sum, seen) = add(&user, &counter, key, Some(&seen));
    assert_eq!(sum, "3");
    let found = scan(stack.host(), &[canary]).unwrap();
    assert!(found.is_empty(), "{found:?}");

    // Yesterday's files: also for somebody who never saw more.
    stack.gateway.process.stop().unwrap();
    fs::remove_dir_all(&state).unwrap();
    copy(&yesterday, &state);
    stack.start_gateway_again().unwrap();
    for seen in [Some(&seen), None] {
        let refused = user
            .call_function(&counter, "/get", key.as_bytes(), seen)
            .unwrap();
        let Err(CallError::Refused(refusal)) = refused else {
            panic!("served from old files");
        };
        assert_eq!(refusal.code, "state-rolled-back");
        assert!(
            refusal
                .message
                .contains("records that the key service knows of are missing"),
            "{refusal:?}"
        );
    }
}

#[test]
fn a_killed_runtime_loses_nothing_that_was_told_and_another_holds_its_state_after_a_while() {
    let stack = stack();
    let (_owner, user, counter) = cast(&stack);
    let (_, seen) = add(&user, &counter, "k", None);
    stack.gateway.process.kill_child("bield-runtime").unwrap();
    let mut sum = None;
    // The hold of a runtime that said nothing when it ended runs on for half a minute.
    let served = wait_until(Duration::from_secs(90), || {
        let answered = user
            .call_function(&counter, "/add", b"k", Some(&seen))
            .unwrap();
        match answered {
            Ok(answered) => sum = Some(body(&answered)),
            Err(CallError::Refused(refusal)) => {
                assert_eq!(refusal.code, "state-held", "{refusal:?}")
            }
            // The runtime starts.
            Err(_) => {}
        }
        sum.is_some()
    });
    assert!(served);
    assert_eq!(sum.unwrap(), "2");
}

#[test]
fn only_who_is_granted_calls_and_isolation_that_a_function_cannot_give_is_refused() {
    let stack = stack();
    let (owner, user, counter) = cast(&stack);
    let stranger = stack.person("stranger").unwrap();
    let refused = stranger
        .call_function(&counter, "/add", b"k", None)
        .unwrap();
    assert!(refused.is_err());
    let mut grant = owner.draft(&counter, &stranger);
    grant.isolation = Isolation::Dedicated;
    owner.allow(grant).unwrap();
    let refused = stranger
        .call_function(&counter, "/add", b"k", None)
        .unwrap();
    let Err(CallError::Refused(refusal)) = refused else {
        panic!("less isolation than was granted");
    };
    assert_eq!(refusal.code, "isolation-unsupported");
    assert_eq!(add(&user, &counter, "k", None).0, "1");
}
