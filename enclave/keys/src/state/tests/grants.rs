//! Grants and groups: register, revoke, forget.

use core::time::Duration;

use bield_envelope::{Digest, Signed, SigningKey};
use bield_grant::{CodeSelector, ENDED_TOLD, Grant, PackageSelector, UserSelector};
use bield_protocol::service::{
    GRANTS_PER_LEASE_MAX, GROUPS_PER_LEASE_MAX, GrantId, GrantRow, Listing, ListingPage, Operation,
};

use crate::service::cast::{
    HOUR, MINUTE, NOON, Scene, code, grant, group, key, principal, signed_code,
};
use crate::state::{KINDS_MAX, RANGES_MAX, RENEWALS_MAX};

fn rows(scene: &mut Scene, by: &SigningKey, listing: Listing) -> Vec<GrantRow> {
    match scene.list(by, listing) {
        Ok(ListingPage::Grants(rows, false)) => rows,
        other => panic!("{other:?}"),
    }
}

const ALL: Listing = Listing::Grants {
    package: None,
    user: None,
    after: None,
};

#[test]
fn every_grantee_of_a_package_is_found() {
    // F1 of the authors' release: a second grantee made every lookup run for ever.
    let (mut scene, package) = Scene::with_package();
    for id in 0..20 {
        let mut grant = grant(id, package);
        grant.user = UserSelector::Principal(principal(100 + id));
        scene.grant(&key(1), grant).unwrap();
    }
    assert_eq!(scene.lease(5, package).unwrap().grants.len(), 20);
    assert_eq!(rows(&mut scene, &key(1), ALL).len(), 20);
}

#[test]
fn the_same_grant_twice_is_one_and_a_renewal_shares_its_id() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    let put = |scene: &mut Scene, grant: &Grant| {
        let signed = Signed::sign(&owner, grant.clone()).into_signed();
        scene.changes(&owner, Operation::Grant(signed))
    };
    let first = grant(1, package);
    assert_eq!(put(&mut scene, &first), Ok(true));
    assert_eq!(put(&mut scene, &first), Ok(false));
    let renewal = Grant {
        not_after: NOON.plus(HOUR * 2),
        ..first.clone()
    };
    assert_eq!(put(&mut scene, &renewal), Ok(true));
    let other = Grant {
        user: UserSelector::Principal(principal(3)),
        ..first.clone()
    };
    assert_eq!(put(&mut scene, &other), Err("grant-id-taken".into()));
    for days in 0..RENEWALS_MAX as u64 - 2 {
        let end = NOON.plus(HOUR * 3 + Duration::from_secs(86_400 * days));
        let renewal = Grant {
            not_after: end,
            ..first.clone()
        };
        assert_eq!(put(&mut scene, &renewal), Ok(true));
    }
    let one_more = Grant {
        not_after: NOON.plus(HOUR * 9999),
        ..first.clone()
    };
    assert_eq!(put(&mut scene, &one_more), Err("full".into()));
    scene
        .order(&owner, Operation::Revoke(vec![GrantId([1; 16])]))
        .unwrap();
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("grant-revoked".into())
    );
    for revoked in [&first, &renewal, &one_more] {
        assert_eq!(put(&mut scene, revoked), Err("grant-revoked".into()));
    }
}

#[test]
fn a_grant_that_cannot_hold_any_more_is_refused() {
    let (mut scene, package) = Scene::with_package();
    let mut put = |change: fn(&mut Grant)| {
        let mut grant = grant(1, package);
        change(&mut grant);
        scene.grant(&key(1), grant).map(drop)
    };
    assert_eq!(
        put(|grant| grant.not_after = NOON),
        Err("grant-expired".into())
    );
    let never = put(|grant| grant.not_before = grant.not_after);
    assert_eq!(never, Err("grant-expired".into()));
    let unknown = put(|grant| grant.package = PackageSelector::Digest(Digest::from_bytes([1; 32])));
    assert_eq!(unknown, Err("unknown-package".into()));
    assert_eq!(put(|_| ()), Ok(()));
}

#[test]
fn revoking_is_all_or_nothing() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    scene.grant(&owner, grant(1, package)).unwrap();
    let revoke = |scene: &mut Scene, by: &SigningKey, ids: &[u8]| {
        let ids = ids.iter().map(|id| GrantId([*id; 16])).collect();
        scene.changes(by, Operation::Revoke(ids))
    };
    assert_eq!(
        revoke(&mut scene, &owner, &[1, 2]),
        Err("unknown-grant".into())
    );
    scene.lease(5, package).unwrap();
    scene.order(&key(3), Operation::Register).unwrap();
    assert_eq!(
        revoke(&mut scene, &key(3), &[1]),
        Err("unknown-grant".into())
    );
    assert_eq!(revoke(&mut scene, &owner, &[1, 1]), Ok(true));
    assert_eq!(revoke(&mut scene, &owner, &[1]), Ok(false));
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("grant-revoked".into())
    );
    assert!(rows(&mut scene, &owner, ALL).is_empty());
}

#[test]
fn what_ended_long_ago_is_forgotten_whatever_else_happens() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    for id in 0..200 {
        scene.grant(&owner, grant(id, package)).unwrap();
    }
    scene
        .order(&owner, Operation::Revoke(vec![GrantId([7; 16])]))
        .unwrap();
    scene.now = NOON.plus(HOUR);
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("grant-expired".into())
    );
    let touch = |scene: &mut Scene, revision| {
        let group = group(&key(1), "readers", revision, &[]);
        scene.order(&key(1), Operation::PutGroup(group)).unwrap();
    };
    (1..=4).for_each(|revision| touch(&mut scene, revision));
    assert_eq!(
        scene.desk.state().counts().grants,
        199,
        "the revoked one is gone"
    );
    scene.now = NOON.plus(HOUR).plus(ENDED_TOLD);
    (5..=8).for_each(|revision| touch(&mut scene, revision));
    assert_eq!(scene.desk.state().counts().grants, 0);
}

#[test]
fn a_grant_by_name_covers_the_versions_it_says_now_and_later() {
    let mut scene = Scene::new();
    let owner = key(1);
    scene.order(&owner, Operation::Register).unwrap();
    let mut named = grant(1, Digest::from_bytes([0; 32]));
    named.package = PackageSelector::Named("shelter".parse().unwrap(), "^1.1".parse().unwrap());
    scene.grant(&owner, named.clone()).unwrap();
    let old = scene.put(&owner, "shelter", "1.0.0").unwrap();
    let new = scene.put(&owner, "shelter", "1.2.0").unwrap();
    let other = scene.put(&owner, "kennel", "1.2.0").unwrap();
    assert_eq!(
        scene.lease(5, old).map(drop),
        Err("code-not-granted".into())
    );
    assert_eq!(
        scene.lease(5, other).map(drop),
        Err("code-not-granted".into())
    );
    assert_eq!(scene.lease(5, new).unwrap().grants.len(), 1);
    let counts = |scene: &mut Scene, package| {
        let of = Listing::Grants {
            package: Some(package),
            user: None,
            after: None,
        };
        rows(scene, &key(1), of).len()
    };
    assert_eq!((counts(&mut scene, old), counts(&mut scene, new)), (0, 1));
    // Another owner's grant for the same name covers nothing of this owner's.
    scene.order(&key(3), Operation::Register).unwrap();
    scene
        .grant(
            &key(3),
            Grant {
                id: [2; 16],
                ..named
            },
        )
        .unwrap();
    assert_eq!(scene.lease(5, new).unwrap().grants.len(), 1);
}

#[test]
fn no_more_grants_cover_a_package_and_code_than_a_lease_carries() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    let numbered = |number: usize, code: CodeSelector| {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Grant {
            id,
            code,
            ..grant(0, package)
        }
    };
    let five = || CodeSelector::Measurement(code(5));
    for number in 0..GRANTS_PER_LEASE_MAX - 1 {
        scene.grant(&owner, numbered(number, five())).unwrap();
    }
    // One for any code of a signer counts beside those for each measurement.
    scene.grant(&owner, numbered(8001, signed_code(1))).unwrap();
    let full = |scene: &mut Scene, grant| scene.grant(&key(1), grant).map(drop);
    assert_eq!(full(&mut scene, numbered(8002, five())), Err("full".into()));
    assert_eq!(
        full(&mut scene, numbered(8003, signed_code(1))),
        Err("full".into())
    );
    let mut named = numbered(8004, five());
    named.package = PackageSelector::Named("shelter".parse().unwrap(), "^9".parse().unwrap());
    assert_eq!(full(&mut scene, named), Err("full".into()));
    assert_eq!(
        full(
            &mut scene,
            numbered(8005, CodeSelector::Measurement(code(6)))
        ),
        Ok(())
    );
    assert_eq!(
        scene.lease(5, package).unwrap().grants.len(),
        GRANTS_PER_LEASE_MAX
    );
    scene
        .order(&owner, Operation::Revoke(vec![GrantId([0; 16])]))
        .unwrap();
    assert_eq!(full(&mut scene, numbered(8002, five())), Ok(()));
}

#[test]
fn kinds_of_code_and_ranges_of_versions_are_bounded() {
    let (mut scene, package) = Scene::with_package();
    let of = |number: usize| Grant {
        id: [u8::try_from(number).unwrap(); 16],
        code: CodeSelector::Measurement(code(u8::try_from(number).unwrap())),
        ..grant(0, package)
    };
    for number in 0..KINDS_MAX {
        scene.grant(&key(1), of(number)).unwrap();
    }
    let one_more = scene.grant(&key(1), of(KINDS_MAX)).map(drop);
    assert_eq!(one_more, Err("full".into()));
    let known = Grant {
        id: [200; 16],
        ..of(3)
    };
    assert!(scene.grant(&key(1), known).is_ok());
    let ranged = |number: usize| {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        let range = format!("=1.0.{number}").parse().unwrap();
        Grant {
            id,
            package: PackageSelector::Named("kennel".parse().unwrap(), range),
            ..grant(0, package)
        }
    };
    for number in 0..RANGES_MAX {
        scene.grant(&key(1), ranged(number)).unwrap();
    }
    let one_more = scene.grant(&key(1), ranged(RANGES_MAX)).map(drop);
    assert_eq!(one_more, Err("full".into()));
    let known = Grant {
        id: [201; 16],
        ..ranged(3)
    };
    assert!(scene.grant(&key(1), known).is_ok());
}

#[test]
fn no_more_groups_are_named_than_a_lease_carries() {
    let (mut scene, package) = Scene::with_package();
    let to = |id: u8, name: &str| Grant {
        user: UserSelector::Group(name.parse().unwrap()),
        ..grant(id, package)
    };
    for id in 0..GROUPS_PER_LEASE_MAX as u8 {
        scene
            .grant(&key(1), to(id, &format!("group-{id}")))
            .unwrap();
    }
    assert_eq!(
        scene.grant(&key(1), to(50, "group-x")).map(drop),
        Err("full".into())
    );
    assert!(scene.grant(&key(1), to(51, "group-0")).is_ok());
}

#[test]
fn a_group_counts_by_its_newest_revision() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    let mut to_group = grant(1, package);
    to_group.user = UserSelector::Group("readers".parse().unwrap());
    scene.grant(&owner, to_group).unwrap();
    assert!(scene.lease(5, package).unwrap().groups.is_empty());
    let put = |scene: &mut Scene, revision, members: &[u8]| {
        let group = group(&key(1), "readers", revision, members);
        scene.changes(&key(1), Operation::PutGroup(group))
    };
    assert_eq!(put(&mut scene, 3, &[2]), Ok(true));
    assert_eq!(put(&mut scene, 3, &[2]), Ok(false));
    assert_eq!(put(&mut scene, 3, &[2, 4]), Err("old-revision".into()));
    assert_eq!(put(&mut scene, 2, &[2]), Err("old-revision".into()));
    assert_eq!(put(&mut scene, 4, &[4]), Ok(true));
    let groups = scene.lease(5, package).unwrap().groups;
    let newest = groups[0].clone().verify(&principal(1)).unwrap();
    assert_eq!(newest.members(), [principal(4)]);
    let to_me = |scene: &mut Scene, by: u8| {
        scene.order(&key(by), Operation::Register).unwrap();
        rows(scene, &key(by), Listing::ToMe { after: None }).len()
    };
    assert_eq!((to_me(&mut scene, 2), to_me(&mut scene, 4)), (0, 1));
    let delete = Operation::DeleteGroup("readers".into());
    scene.order(&owner, delete.clone()).unwrap();
    assert_eq!(
        scene.order(&owner, delete).map(drop),
        Err("unknown-group".into())
    );
    assert_eq!(to_me(&mut scene, 4), 0);
    let Ok(ListingPage::Groups(none, false)) = scene.list(&owner, Listing::Groups { after: None })
    else {
        panic!("groups")
    };
    assert!(none.is_empty());
}

#[test]
fn grants_are_listed_in_pages_that_never_divide_an_id() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    for id in 0..=250u8 {
        for renewal in 0..3 {
            let mut grant = grant(id, package);
            grant.not_after = NOON.plus(HOUR + MINUTE * renewal);
            if id % 2 == 0 {
                grant.user = UserSelector::Principal(principal(3));
            }
            scene.grant(&owner, grant).unwrap();
        }
    }
    for (user, expected) in [(None, 753), (Some(principal(2)), 375)] {
        for package in [None, Some(package)] {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let listing = Listing::Grants {
                    package,
                    user,
                    after,
                };
                let Ok(ListingPage::Grants(rows, more)) = scene.list(&owner, listing) else {
                    panic!("grants")
                };
                let granted = |row: &GrantRow| row.grant.clone().verify(&principal(1)).unwrap().id;
                after = rows.last().map(|row| GrantId(granted(row)));
                seen.extend(rows.iter().map(granted));
                if !more {
                    break;
                }
            }
            assert_eq!(seen.len(), expected);
            assert!(seen.is_sorted());
        }
    }
}
