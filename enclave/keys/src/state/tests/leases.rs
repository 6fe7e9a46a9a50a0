//! Leases, quotas, what is returned.

use core::time::Duration;

use bield_envelope::{Digest, Verified};
use bield_grant::{Allotment, CodeIdentity, Grant};
use bield_protocol::service::{
    GrantRow, LeasedKeys, Listing, ListingPage, Operation, Request, Returned,
};

use crate::service::cast::{HOUR, MINUTE, NOON, Scene, code, grant, key, limits, root};
use crate::state::{Entry, RETURN_SECS, State};

fn metered(package: Digest, requests: u64) -> (Scene, Verified<Grant>) {
    let (mut scene, _) = Scene::with_package();
    let mut grant = grant(1, package);
    grant.requests = Some(requests);
    grant.not_after = NOON.plus(HOUR * 100);
    let grant = scene.grant(&key(1), grant).unwrap();
    (scene, grant)
}

fn package() -> Digest {
    let (_, package) = Scene::with_package();
    package
}

fn left(scene: &mut Scene) -> u64 {
    let listing = Listing::Grants {
        package: None,
        user: None,
        after: None,
    };
    let Ok(ListingPage::Grants(rows, _)) = scene.list(&key(1), listing) else {
        panic!("grants")
    };
    rows.iter().filter_map(|row: &GrantRow| row.left).sum()
}

fn allotted(leased: &LeasedKeys) -> u64 {
    leased
        .allotments
        .iter()
        .map(|allotment| allotment.requests)
        .sum()
}

fn returned(leased: &LeasedKeys, requests: u64) -> Option<Returned> {
    let unused = leased.allotments.iter().map(|allotment| Allotment {
        requests,
        ..*allotment
    });
    Some(Returned {
        lease: leased.lease.id,
        unused: unused.collect(),
    })
}

#[test]
fn a_lease_says_what_evidence_proved_and_ends_in_time() {
    let (mut scene, package) = Scene::with_package();
    scene.grant(&key(1), grant(1, package)).unwrap();
    let leased = scene.lease(5, package).unwrap();
    let lease = &leased.lease;
    assert_eq!((lease.package, lease.owner), (package, key(1).principal()));
    assert_eq!(lease.code.measurement, code(5));
    assert_eq!(lease.code.svn, Some(5));
    assert!(lease.simulated);
    assert_eq!(lease.not_after, NOON.plus(Duration::from_secs(600)));
    assert_eq!(leased.package_key.expose(), &[9; 32]);
    assert_eq!(scene.lease(5, package).unwrap().lease.id, lease.id + 1);
    scene.now = NOON.plus(HOUR - MINUTE);
    assert_eq!(
        scene.lease(5, package).unwrap().lease.not_after,
        NOON.plus(HOUR)
    );
}

#[test]
fn other_code_and_code_after_a_revocation_gets_nothing() {
    let (mut scene, package) = Scene::with_package();
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("code-not-granted".into())
    );
    scene.grant(&key(1), grant(1, package)).unwrap();
    assert_eq!(
        scene.lease(6, package).map(drop),
        Err("code-not-granted".into())
    );
    scene.lease(5, package).unwrap();
    let revoke = Operation::Revoke(vec![bield_protocol::service::GrantId([1; 16])]);
    scene.order(&key(1), revoke).unwrap();
    // At once on renewal; leases that run end within their time.
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("grant-revoked".into())
    );
}

#[test]
fn a_quota_is_never_given_twice() {
    let package = package();
    let (mut scene, grant) = metered(package, 10);
    let mut held = 0;
    for _ in 0..20 {
        let leased = scene.lease(5, package).unwrap();
        held += allotted(&leased);
        assert_eq!(held + left(&mut scene), 10);
    }
    assert_eq!(held, 10);
    assert_eq!(scene.lease(5, package).unwrap().allotments, []);
    assert_eq!(grant.requests, Some(10));
}

#[test]
fn what_was_not_used_comes_back_once() {
    let package = package();
    let (mut scene, _) = metered(package, 100);
    let first = scene.lease(5, package).unwrap();
    let reserved = allotted(&first);
    let back = returned(&first, reserved - 1);
    let second = scene.lease_returning(5, package, back.clone()).unwrap();
    assert_eq!(left(&mut scene) + allotted(&second), 99, "one was used");
    let third = scene.lease_returning(5, package, back).unwrap();
    assert_eq!(left(&mut scene) + allotted(&second) + allotted(&third), 99);
}

#[test]
fn nobody_returns_what_it_was_not_allotted() {
    let package = package();
    let (mut scene, _) = metered(package, 100);
    let first = scene.lease(5, package).unwrap();
    let before = left(&mut scene);
    let too_much = returned(&first, allotted(&first) + 1).unwrap();
    let mut twice = returned(&first, 1).unwrap();
    twice.unused.push(twice.unused[0]);
    let mut foreign = returned(&first, 1).unwrap();
    foreign.unused[0].grant = Digest::from_bytes([1; 32]);
    for wrong in [too_much, twice, foreign] {
        scene.as_runtime(5, Request::Return(wrong)).unwrap();
        assert_eq!(left(&mut scene), before);
    }
    // Other code cannot return for this one.
    let fine = returned(&first, 1).unwrap();
    scene.as_runtime(6, Request::Return(fine.clone())).unwrap();
    assert_eq!(left(&mut scene), before);
    scene.as_runtime(5, Request::Return(fine)).unwrap();
    assert_eq!(left(&mut scene), before + 1);
}

#[test]
fn a_refused_runtime_has_still_returned() {
    let package = package();
    let (mut scene, grant) = metered(package, 100);
    let first = scene.lease(5, package).unwrap();
    let before = left(&mut scene);
    let end = grant.not_after;
    scene.now = first.lease.not_after;
    let audit = scene.audit(&key(1), 0).unwrap().count;
    // The lease would be of a package that this code is not granted any more.
    let revoke = Operation::Revoke(vec![bield_protocol::service::GrantId([1; 16])]);
    scene.order(&key(1), revoke).unwrap();
    let refused = scene
        .lease_returning(5, package, returned(&first, 2))
        .map(drop);
    assert_eq!(refused, Err("grant-revoked".into()));
    assert_eq!(scene.audit(&key(1), 0).unwrap().count, audit + 2);
    assert!(before < 100 && end > scene.now);
}

#[test]
fn what_a_lost_runtime_held_counts_as_used() {
    let package = package();
    let (mut scene, _) = metered(package, 100);
    let first = scene.lease(5, package).unwrap();
    let before = left(&mut scene);
    scene.now = first.lease.not_after.plus(Duration::from_secs(RETURN_SECS));
    scene.lease(5, package).unwrap();
    let now = left(&mut scene);
    scene
        .as_runtime(5, Request::Return(returned(&first, 1).unwrap()))
        .unwrap();
    assert_eq!(left(&mut scene), now);
    assert!(now < before);
}

#[test]
fn leases_that_run_are_counted_and_forgotten() {
    let (mut scene, package) = Scene::with_package();
    scene.grant(&key(1), grant(1, package)).unwrap();
    for _ in 0..3 {
        scene.lease(5, package).unwrap();
    }
    let running = |scene: &mut Scene| match scene.list(&key(1), Listing::Packages { after: None }) {
        Ok(ListingPage::Packages(rows, false)) => (rows[0].leases, rows[0].codes.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(running(&mut scene), (3, vec![code(5)]));
    scene.now = NOON.plus(Duration::from_secs(600));
    assert_eq!(running(&mut scene), (0, vec![code(5)]));
}

#[test]
fn an_entry_that_does_not_fit_stops_the_replay() {
    let (scene, package) = Scene::with_package();
    let state = || {
        let bytes = scene.desk.state().to_bytes();
        State::decode(&bytes, root(), limits()).unwrap()
    };
    let leased = |lease, allotments| Entry::Leased {
        package,
        code: CodeIdentity::measured(code(5)),
        simulated: true,
        until: NOON,
        lease,
        allotments,
    };
    let overdrawn = Allotment {
        grant: Digest::from_bytes([1; 32]),
        requests: 1,
    };
    for entry in [
        Entry::Registered(key(1).principal()),
        leased(7, Vec::new()),
        leased(0, vec![overdrawn]),
        Entry::Returned {
            package,
            lease: 3,
            unused: Vec::new(),
        },
        Entry::PackageDeleted {
            by: key(1).principal(),
            package: Digest::from_bytes([1; 32]),
            grants: 0,
        },
        Entry::AudienceRotated {
            by: key(1).principal(),
            package,
            generation: 2,
            before_until: None,
        },
        Entry::Unregistered(key(1).principal()),
    ] {
        assert!(state().apply(&entry, 100, NOON).is_err());
    }
    assert!(
        state().apply(&leased(0, Vec::new()), 1, NOON).is_err(),
        "an older record"
    );
    assert!(state().apply(&leased(0, Vec::new()), 100, NOON).is_ok());
}
