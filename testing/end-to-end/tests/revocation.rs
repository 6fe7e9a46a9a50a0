//! What owners take back: from the order to the first refused call, and what goes on meanwhile.
//!
//! Bounds are asserted as logic: what a runtime may still answer after an order ends with the last lease that was given
//! before it, and the owner's audit says when that is. No test asserts how long anything took.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::time::{Duration, Instant};

use bield_end_to_end::{Letter, Package, Person, Stack, children, numbers, tiny_model, wait_until};
use bield_envelope::{Signed, SigningKey, Time};
use bield_evidence::TeeKind;
use bield_grant::{CodeSelector, CodeSigner, Group, PackageSelector, UserSelector};
use bield_protocol::service::AuditEvent;
use bield_sdk::{AuditFrom, CallOptions, Randomness, ServiceError, Target, now};

/// The shortest lease there is.
const LEASE_SECS: u32 = 10;
/// More than a lease, on a machine that also compiles.
const SOON: Duration = Duration::from_secs(40);

fn stack() -> Stack {
    Stack::start_with(|config| config.lease_secs = LEASE_SECS).unwrap()
}

/// One attempt, no waiting. The refusal's short name, whoever gave it.
fn call(target: &Target, key: &SigningKey) -> Result<(), String> {
    let options = CallOptions {
        attempts_max: 1,
        waiting: &mut |_| {},
        clock: now,
    };
    let called = target.call_with(key, numbers(1), Vec::new(), options, &mut Randomness);
    match called {
        Ok(_) => Ok(()),
        Err(error) => Err(error.code().unwrap_or("?").to_owned()),
    }
}

/// When the last lease of the package ends that was given before the newest order of its owner.
fn last_lease(owner: &Person, package: &Package) -> Time {
    let mut service = owner.service().unwrap();
    let all = AuditFrom::Entry(0);
    let audit = service.audit(&owner.key, all, &mut |_, _| {}).unwrap();
    let ordered = audit.entries.iter().rposition(|entry| {
        !matches!(
            entry.event,
            AuditEvent::Leased { .. } | AuditEvent::Returned { .. }
        )
    });
    let before = &audit.entries[..ordered.unwrap()];
    let ends = before.iter().filter_map(|entry| match &entry.event {
        AuditEvent::Leased {
            package: of, until, ..
        } if *of == package.digest => Some(*until),
        _ => None,
    });
    let last = ends.max().expect("a lease was given before");
    // The bound itself: no lease is longer than was configured.
    let at = audit.entries[ordered.unwrap()].at;
    assert!(
        last <= at.plus(Duration::from_secs(LEASE_SECS.into())),
        "{last} {at}"
    );
    last
}

/// Calls until it is refused with `code`: every call that began later than `bound` must be.
fn refused_by(bound: Time, code: &str, mut call: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + SOON;
    loop {
        let began = now();
        match call() {
            Ok(()) => assert!(began < bound, "answered, begun {began}, after {bound}"),
            Err(found) => {
                assert_eq!(found, code);
                return;
            }
        }
        assert!(
            Instant::now() < deadline,
            "never refused; bound {bound}, now {}",
            now()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn code(refused: ServiceError) -> String {
    refused.code().unwrap_or("?").to_owned()
}

#[test]
fn a_revoked_user_is_refused_when_the_lease_ends_at_the_latest_and_nobody_else_is() {
    let stack = stack();
    let (owner, user, package) = stack.cast("revoked").unwrap();
    let stays = stack.person("stays").unwrap();
    owner.grant(&package, &stays).unwrap();
    let (target, other) = (
        user.target(&package).unwrap(),
        stays.target(&package).unwrap(),
    );
    call(&target, &user.key).unwrap();
    call(&other, &stays.key).unwrap();

    let id = {
        let mut service = owner.service().unwrap();
        let named = Some(user.principal());
        let granted = service.grants(&owner.key, None, named).unwrap();
        hex::encode(granted[0].id().0)
    };
    let revoked = owner.does(&["revoke", &id]).unwrap();
    assert_eq!(revoked["revoked"][0], id);
    assert_eq!(revoked["lease_secs"], LEASE_SECS);
    // What an owner reads is what holds.
    let listed = owner.does(&["grants"]).unwrap();
    assert_eq!(listed["grants"].as_array().unwrap().len(), 1, "{listed:#}");

    let bound = last_lease(&owner, &package);
    refused_by(bound, "user-not-granted", || {
        call(&other, &stays.key).unwrap();
        call(&target, &user.key)
    });
    // For good, and for nobody else.
    for _ in 0..3 {
        call(&other, &stays.key).unwrap();
        assert_eq!(call(&target, &user.key), Err("user-not-granted".into()));
    }
    // The same order again changes nothing; a new grant brings the user back.
    let again = owner.bield(&["revoke", &id]).unwrap();
    assert!(
        again.code == 0 || again.message().contains("unknown-grant"),
        "{again:?}"
    );
    owner.grant(&package, &user).unwrap();
    // Runtimes ask before their lease is due, once a second for each package: refusals have used that up.
    assert!(wait_until(SOON, || call(&target, &user.key).is_ok()));
}

#[test]
fn a_key_service_that_is_gone_stops_calls_only_when_the_lease_ends() {
    let stack = stack();
    let (owner, user, package) = stack.cast("gone").unwrap();
    let target = user.target(&package).unwrap();
    call(&target, &user.key).unwrap();
    // Dead, and dead again whenever it is started: its program is away.
    let (program, away) = (
        stack.programs().join("bield-keys"),
        stack.programs().join("away"),
    );
    fs::rename(&program, &away).unwrap();
    stack.gateway.process.kill_child("bield-keys").unwrap();
    let gateway = stack.gateway.process.pid();
    assert!(wait_until(SOON, || children(gateway, "bield-keys").is_empty()));
    assert!(owner.service().is_err());

    let killed = now();

    // It goes on without asking anybody, and then stops by itself.
    let (mut last_answered, mut answered) = (killed, 0);
    let refused = loop {
        let began = now();
        match call(&target, &user.key) {
            Ok(()) => (last_answered, answered) = (began, answered + 1),
            Err(code) => {
                // Nobody said no.
                assert_ne!(code, "user-not-granted");
                break now();
            }
        }
        let bound = killed.plus(SOON);
        assert!(began < bound, "answered for ever");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(
        answered > 0,
        "a lease that runs serves without the key service"
    );

    fs::rename(&away, &program).unwrap();
    let back = wait_until(SOON, || user.service().is_ok());
    assert!(back, "{}", stack.gateway.process.said());
    let serves = wait_until(SOON, || call(&target, &user.key).is_ok());
    assert!(serves, "{}", stack.gateway.process.said());
    // The audit knows which lease it held then: it answered none after its end, and refused none before.
    let mut service = owner.service().unwrap();
    let all = AuditFrom::Entry(0);
    let audit = service.audit(&owner.key, all, &mut |_, _| {}).unwrap();
    let given = audit.entries.iter().filter(|entry| entry.at <= killed);
    let held = given.filter_map(|entry| match &entry.event {
        AuditEvent::Leased { until, .. } => Some(*until),
        _ => None,
    });
    let held = held.max().unwrap();
    assert!(last_answered < held, "{last_answered} {held}");
    assert!(refused >= held, "{refused} {held}");
}

#[test]
fn a_quota_admits_so_many_requests_and_no_more() {
    let stack = stack();
    let (owner, _, package) = stack.cast("metered").unwrap();
    let user = stack.person("metered-user").unwrap();
    let mut grant = owner.draft(&package, &user);
    grant.requests = Some(5);
    owner.allow(grant).unwrap();
    let target = user.target(&package).unwrap();
    for request in 0..5 {
        let called = call(&target, &user.key);
        assert_eq!(called, Ok(()), "request {request}");
    }
    for _ in 0..3 {
        assert_eq!(call(&target, &user.key), Err("quota-used".into()));
    }
    // The count outlives the runtime that counted.
    stack.gateway.process.kill_child("bield-runtime").unwrap();
    stack.ready().unwrap();
    let refused = user.call(&package, numbers(1)).unwrap().unwrap_err();
    assert_eq!(refused.code(), Some("quota-used"), "{refused}");
    let mut service = owner.service().unwrap();
    let named = Some(user.principal());
    let listed = service.grants(&owner.key, None, named).unwrap();
    assert_eq!(listed[0].left, Some(0));
    drop(service);
    // Another grant serves beside the one that is used up.
    owner.grant(&package, &user).unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
}

#[test]
fn groups_and_ranges_of_versions_follow_what_their_owner_says_last() {
    let stack = stack();
    let (owner, _, package) = stack.cast("grouped").unwrap();
    let (member, later) = (
        stack.person("member").unwrap(),
        stack.person("later").unwrap(),
    );
    let put = |revision: u64, members: &[&Person]| {
        let members = members.iter().map(|member| member.principal()).collect();
        let group = Group::new("lab".parse().unwrap(), revision, members).unwrap();
        let group = Signed::sign(&owner.key, group);
        let mut service = owner.service().unwrap();
        let put = service.put_group(&owner.key, &group);
        service.close().unwrap();
        put.map(drop).map_err(code)
    };
    put(1, &[&member]).unwrap();
    let mut grant = owner.draft(&package, &member);
    grant.user = UserSelector::Group("lab".parse().unwrap());
    owner.allow(grant).unwrap();
    let target = member.target(&package).unwrap();
    call(&target, &member.key).unwrap();
    assert_eq!(call(&target, &later.key), Err("user-not-granted".into()));

    // Who comes is in at once; who goes is out when the lease ends; what was before does not come back.
    put(2, &[&later]).unwrap();
    later.call(&package, numbers(1)).unwrap().unwrap();
    let bound = last_lease(&owner, &package);
    refused_by(bound, "user-not-granted", || call(&target, &member.key));
    assert_eq!(put(1, &[&member]), Err("old-revision".into()));
    assert_eq!(put(2, &[&member]), Err("old-revision".into()));
    call(&target, &later.key).unwrap();

    // A grant for a range covers what is released later; one for a version does not.
    let (ranged, exact) = (
        stack.person("ranged").unwrap(),
        stack.person("exact").unwrap(),
    );
    let release = |version: &str| {
        let model = tiny_model(version);
        let package = owner.pack_as("series", version, &model).unwrap();
        owner.register(&package, &model).unwrap();
        package
    };
    let first = release("1.2.0");
    for (user, range) in [(&ranged, "^1.2"), (&exact, "=1.2.0")] {
        let mut grant = owner.draft(&first, user);
        let (name, range) = ("series".parse().unwrap(), range.parse().unwrap());
        grant.package = PackageSelector::Named(name, range);
        owner.allow(grant).unwrap();
    }
    ranged.call(&first, numbers(1)).unwrap().unwrap();
    exact.call(&first, numbers(1)).unwrap().unwrap();
    let second = release("1.3.0");
    ranged.call(&second, numbers(1)).unwrap().unwrap();
    let refused = exact.call(&second, numbers(1)).unwrap().unwrap_err();
    assert_eq!(refused.code(), Some("user-not-granted"), "{refused}");
    let breaking = release("2.0.0");
    assert_eq!(
        code(ranged.target(&breaking).map(drop).unwrap_err()),
        "code-not-granted"
    );

    // Code by its signer from a version on: a software TEE has no signer, so this admits none.
    let signer = CodeSigner::new(TeeKind::Sgx, &[7; 32], None, 3).unwrap();
    let signed = stack.person("signed").unwrap();
    let mut grant = owner.draft(&breaking, &signed);
    grant.code = CodeSelector::Signed(signer);
    owner.allow(grant).unwrap();
    assert_eq!(
        code(signed.target(&breaking).map(drop).unwrap_err()),
        "code-not-granted"
    );
    let listed = owner
        .does(&["grants", "--package", "series@2.0.0"])
        .unwrap();
    let text = listed["grants"][0]["code"].as_str().unwrap();
    assert!(text.contains("svn>=3"), "{listed:#}");
}

#[test]
fn rotated_keys_and_deleted_packages_open_nothing_after_the_lease() {
    let stack = stack();
    let (owner, user, package) = stack.cast("rotated").unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
    let before = user.key_configuration(&package).unwrap();
    let post = |to: &bield_protocol::service::KeyConfiguration| {
        let letter = Letter::seal(to, &user.key, numbers(1), now()).unwrap();
        let answer = stack.post(&letter.bytes).unwrap();
        match answer.status {
            200 => letter.open(&answer).unwrap().map(drop).map_err(|r| r.code),
            _ => Err(answer.code()),
        }
    };
    let rotate = |at_once: bool| {
        let mut service = owner.service().unwrap();
        let digest = package.digest;
        service
            .rotate_audience(&owner.key, digest, at_once)
            .unwrap();
        service.close().unwrap();
    };
    // Gently: the new key at once, and the old one still.
    rotate(false);
    let after = user.key_configuration(&package).unwrap();
    assert_eq!((before.generation, after.generation), (0, 1));
    assert_ne!(before.key.id(), after.key.id());
    assert_eq!(post(&after), Ok(()));
    assert_eq!(post(&before), Ok(()));
    // At once: neither of them once the runtime renews, at the latest when its lease ends.
    rotate(true);
    let bound = last_lease(&owner, &package);
    let newest = user.key_configuration(&package).unwrap();
    assert_eq!(newest.generation, 2);
    for old in [&before, &after] {
        let mut refused = String::new();
        let found = wait_until(SOON, || {
            let began = now();
            match post(old) {
                Ok(()) => assert!(began < bound, "answered after {bound}"),
                Err(code) => refused = code,
            }
            !refused.is_empty()
        });
        assert!(found && refused != "user-not-granted", "{refused}");
    }
    assert_eq!(post(&newest), Ok(()));

    // A package that is deleted has no key to seal to at once, and none to open with when its lease ends.
    let target = user.target(&package).unwrap();
    let deleted = owner
        .does(&["delete", "package", "rotated", "--yes"])
        .unwrap();
    assert_eq!(deleted["lease_secs"], LEASE_SECS);
    assert_eq!(
        code(user.target(&package).map(drop).unwrap_err()),
        "unknown-package"
    );
    let bound = last_lease(&owner, &package);
    let mut gone = false;
    let found = wait_until(SOON, || {
        let began = now();
        match call(&target, &user.key) {
            Ok(()) => assert!(began < bound, "answered after {bound}"),
            Err(_) => gone = true,
        }
        gone
    });
    assert!(found, "a deleted package is served for ever");
    // Its grants went with it.
    assert_eq!(
        owner.does(&["grants"]).unwrap()["grants"],
        serde_json::json!([])
    );
}

#[test]
fn who_is_succeeded_orders_and_calls_nothing_and_the_successor_has_it_all() {
    let stack = stack();
    let (owner, user, package) = stack.cast("succeeded").unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
    let successor = |of: &Person| {
        let new = SigningKey::generate(&mut Randomness);
        let mut service = of.service().unwrap();
        service.register(&of.key).unwrap();
        service.succeed(&of.key, &new, now()).unwrap();
        service.close().unwrap();
        new
    };
    let (new_owner, new_user) = (successor(&owner), successor(&user));

    // The owner's: packages and grants are the new key's; the old one orders nothing.
    let other = stack.person("succeeded-other").unwrap();
    let refused = owner.grant(&package, &other).map(drop).unwrap_err();
    assert_eq!(code(refused), "succeeded");
    let grant = Signed::sign(&new_owner, owner.draft(&package, &other));
    let mut service = owner.service().unwrap();
    assert_eq!(service.packages(&new_owner).unwrap().len(), 1);
    assert_eq!(service.grants(&new_owner, None, None).unwrap().len(), 1);
    service.grant(&new_owner, &grant).unwrap();
    service.close().unwrap();
    other.call(&package, numbers(1)).unwrap().unwrap();

    // The user's: the old grant serves the new key; the old key is refused when the lease ends.
    let target = user.target(&package).unwrap();
    target
        .call(&new_user, numbers(1), Vec::new(), &mut Randomness)
        .unwrap();
    refused_by(now().plus(SOON), "sender-succeeded", || {
        call(&target, &user.key)
    });
    call(&target, &new_user).unwrap();
}

#[test]
fn what_is_ordered_is_in_the_owners_audit_with_the_leases_between() {
    let stack = stack();
    let (owner, user, package) = stack.cast("told").unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
    let mut service = owner.service().unwrap();
    let all = AuditFrom::Entry(0);
    let audit = service.audit(&owner.key, all, &mut |_, _| {}).unwrap();
    let words: Vec<_> = audit
        .entries
        .iter()
        .map(|entry| match &entry.event {
            AuditEvent::Registered => "registered",
            AuditEvent::PackagePut(..) => "put",
            AuditEvent::Granted(..) => "granted",
            AuditEvent::Leased { code, .. } => {
                assert_eq!(*code, stack.runtime_code);
                "leased"
            }
            _ => "other",
        })
        .collect();
    assert_eq!(words, ["registered", "put", "granted", "leased"]);
}
