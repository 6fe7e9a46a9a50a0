//! Isolation as granted, by real processes: hardened, confined, and started anew by their launcher.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::time::Duration;

use bield_end_to_end::{Package, Person, Stack, numbers, tiny_model, wait_until};
use bield_grant::Isolation;
use bield_sdk::{CallOptions, Randomness, now};

/// More than a pause of a dedicated user and a start, on a machine that also compiles.
const SOON: Duration = Duration::from_secs(60);

/// One attempt, no waiting. The refusal's short name, whoever gave it.
fn call(package: &Package, user: &Person) -> Result<(), String> {
    let target = user.target(package).unwrap();
    let options = CallOptions {
        attempts_max: 1,
        waiting: &mut |_| {},
        clock: now,
    };
    let called = target.call_with(&user.key, numbers(1), Vec::new(), options, &mut Randomness);
    match called {
        Ok(_) => Ok(()),
        Err(error) => Err(error.code().unwrap_or("?").to_owned()),
    }
}

fn allow(owner: &Person, package: &Package, user: &Person, isolation: Isolation) {
    let mut grant = owner.draft(package, user);
    grant.isolation = isolation;
    owner.allow(grant).unwrap();
}

#[test]
fn a_wiped_request_is_served_and_a_dedicated_one_has_a_process_that_ends_for_the_next() {
    let stack = Stack::start().unwrap();
    let owner = stack.person("owner").unwrap();
    let [wiped, dedicated] = ["wiped", "dedicated"].map(|name| stack.person(name).unwrap());
    let model = tiny_model("isolation");
    let package = owner.publish("isolation", &model).unwrap();
    allow(&owner, &package, &wiped, Isolation::Wiped);
    allow(&owner, &package, &dedicated, Isolation::Dedicated);
    let runtime = || stack.gateway.process.child("bield-runtime");

    for _ in 0..2 {
        assert_eq!(call(&package, &wiped), Ok(()));
    }
    let first = runtime().unwrap();
    for _ in 0..2 {
        assert_eq!(call(&package, &dedicated), Ok(()));
    }
    assert_eq!(runtime().unwrap(), first, "it serves its user to the end");
    assert_eq!(
        call(&package, &wiped),
        Err("instance-taken".to_owned()),
        "and nobody else"
    );
    let anew = || runtime().is_ok_and(|runtime| runtime != first);
    assert!(wait_until(SOON, anew), "{}", stack.gateway.process.said());
    assert!(wait_until(SOON, || call(&package, &wiped).is_ok()));
}
