//! Principals and their successions.

use bield_envelope::SigningKey;
use bield_grant::{PackageSelector, UserSelector};
use bield_protocol::service::{
    GrantId, Listing, ListingPage, Operation, PackageReference, PrincipalRow,
};

use crate::service::cast::{
    HOUR, MINUTE, NOON, Scene, code, grant, group, key, principal, succession,
};
use bield_grant::CodeSelector;

fn me(scene: &mut Scene, by: &SigningKey) -> PrincipalRow {
    match scene.list(by, Listing::Me) {
        Ok(ListingPage::Me(row)) => row,
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_registers_twice_is_registered_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.changes(&key(1), Operation::Register), Ok(true));
    assert_eq!(scene.changes(&key(1), Operation::Register), Ok(false));
    assert_eq!(scene.desk.state().counts().principals, 1);
}

#[test]
fn every_order_but_the_first_wants_a_registered_principal() {
    let (mut scene, package) = Scene::with_package();
    let stranger = key(9);
    let orders = [
        Operation::Revoke(vec![GrantId([1; 16])]),
        Operation::PutGroup(group(&stranger, "readers", 1, &[2])),
        Operation::DeleteGroup("readers".into()),
        Operation::DeletePackage(package),
        Operation::RotateAudience {
            package,
            at_once: false,
        },
        Operation::Succeed(succession(&stranger, &key(10), NOON)),
        Operation::List(Listing::Me),
        Operation::Audit { from: 0 },
        Operation::RotateIdentity,
        Operation::AdmitCode(code(1)),
        Operation::TakeShare,
    ];
    for order in orders {
        let name = format!("{order:?}");
        let refused = scene.order(&stranger, order).map(drop);
        assert_eq!(refused, Err("not-registered".into()), "{name}");
    }
}

#[test]
fn who_owns_something_cannot_unregister() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    assert_eq!(
        scene.changes(&owner, Operation::Unregister),
        Err("still-owns".into())
    );
    scene
        .order(
            &owner,
            Operation::PutGroup(group(&owner, "readers", 1, &[2])),
        )
        .unwrap();
    scene
        .order(&owner, Operation::DeletePackage(package))
        .unwrap();
    assert_eq!(
        scene.changes(&owner, Operation::Unregister),
        Err("still-owns".into())
    );
    scene
        .order(&owner, Operation::DeleteGroup("readers".into()))
        .unwrap();
    assert_eq!(scene.changes(&owner, Operation::Unregister), Ok(true));
    assert_eq!(scene.changes(&owner, Operation::Unregister), Ok(false));
    assert_eq!(scene.desk.state().counts().principals, 0);
}

#[test]
fn who_granted_unregisters_when_the_last_grant_would_have_ended() {
    let mut scene = Scene::new();
    let owner = key(1);
    scene.order(&owner, Operation::Register).unwrap();
    let mut named = grant(1, bield_envelope::Digest::from_bytes([0; 32]));
    named.package = PackageSelector::Named("shelter".parse().unwrap(), "*".parse().unwrap());
    scene.grant(&owner, named).unwrap();
    assert_eq!(scene.desk.state().counts().grants, 1);
    let leave = |scene: &mut Scene| scene.changes(&key(1), Operation::Unregister);
    assert_eq!(leave(&mut scene), Err("still-owns".into()));
    let revoke = Operation::Revoke(vec![GrantId([1; 16])]);
    scene.order(&owner, revoke).unwrap();
    // Coming back would bring back the revoked grant.
    assert_eq!(leave(&mut scene), Err("still-owns".into()));
    scene.now = NOON.plus(HOUR);
    assert_eq!(leave(&mut scene), Ok(true));
    assert_eq!(scene.desk.state().counts().grants, 0);
}

#[test]
fn a_successor_has_everything_and_the_old_key_orders_nothing() {
    let (mut scene, package) = Scene::with_package();
    let (old, new) = (key(1), key(11));
    scene.grant(&old, grant(1, package)).unwrap();
    scene
        .order(&old, Operation::PutGroup(group(&old, "readers", 1, &[2])))
        .unwrap();
    let kept = scene.audit(&old, 0).unwrap();
    let succeed = Operation::Succeed(succession(&old, &new, NOON));
    assert_eq!(scene.changes(&old, succeed.clone()), Ok(true));
    assert_eq!(
        scene.changes(&old, succeed),
        Ok(false),
        "said twice, done once"
    );

    for order in [
        Operation::Register,
        Operation::List(Listing::Me),
        Operation::Audit { from: 0 },
        Operation::Revoke(vec![GrantId([1; 16])]),
        Operation::DeletePackage(package),
    ] {
        assert_eq!(scene.order(&old, order).map(drop), Err("succeeded".into()));
    }
    assert_eq!(scene.put(&old, "late", "1.0.0"), Err("succeeded".into()));
    let late = scene.grant(&old, grant(2, package)).map(drop);
    assert_eq!(late, Err("succeeded".into()));

    let row = me(&mut scene, &new);
    assert_eq!(
        (row.registered, row.succeeds),
        (true, vec![old.principal()])
    );
    let page = scene.audit(&new, 0).unwrap();
    assert_eq!(page.entries[..kept.entries.len()], kept.entries);
    assert_eq!(page.count, kept.count + 1);

    // The old grant still opens the package, and the new key grants and revokes.
    let leased = scene.lease(5, package).unwrap();
    assert_eq!((leased.grants.len(), leased.successions.len()), (1, 1));
    scene.grant(&new, grant(2, package)).unwrap();
    assert_eq!(scene.lease(5, package).unwrap().grants.len(), 2);
    scene
        .order(
            &new,
            Operation::Revoke(vec![GrantId([1; 16]), GrantId([2; 16])]),
        )
        .unwrap();
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("grant-revoked".into())
    );
    for owner in [old.principal(), new.principal()] {
        let named = PackageReference::Named(owner, "shelter".into(), None);
        let found = scene
            .find(named, CodeSelector::Measurement(code(5)))
            .map(drop);
        assert_eq!(found, Err("code-not-granted".into()), "found by either key");
    }
    scene
        .order(&new, Operation::DeletePackage(package))
        .unwrap();
}

#[test]
fn a_succeeded_users_grants_and_groups_come_with_the_succession() {
    let (mut scene, package) = Scene::with_package();
    let (owner, user, heir) = (key(1), key(2), key(12));
    let mut to_group = grant(1, package);
    to_group.user = UserSelector::Group("readers".parse().unwrap());
    scene
        .order(
            &owner,
            Operation::PutGroup(group(&owner, "readers", 1, &[2])),
        )
        .unwrap();
    scene.grant(&owner, to_group).unwrap();
    scene.order(&user, Operation::Register).unwrap();
    scene
        .order(&user, Operation::Succeed(succession(&user, &heir, NOON)))
        .unwrap();
    let leased = scene.lease(5, package).unwrap();
    assert_eq!((leased.groups.len(), leased.successions.len()), (1, 1));
    let ListingPage::Grants(rows, false) =
        scene.list(&heir, Listing::ToMe { after: None }).unwrap()
    else {
        panic!("grants")
    };
    assert_eq!(rows.len(), 1);
}

#[test]
fn who_comes_back_still_stands_for_those_it_succeeded() {
    let mut scene = Scene::new();
    scene.order(&key(1), Operation::Register).unwrap();
    for (from, to) in [(1, 11), (11, 12)] {
        let order = Operation::Succeed(succession(&key(from), &key(to), NOON));
        scene.order(&key(from), order).unwrap();
    }
    scene.order(&key(12), Operation::Unregister).unwrap();
    scene.order(&key(12), Operation::Register).unwrap();
    let row = me(&mut scene, &key(12));
    assert_eq!(row.succeeds, [principal(1), principal(11)]);
    let again = scene.order(&key(11), Operation::Register).map(drop);
    assert_eq!(again, Err("succeeded".into()));
}

#[test]
fn a_succession_that_would_give_two_people_one_key_is_refused() {
    let mut scene = Scene::new();
    for number in [1, 2, 3] {
        scene.order(&key(number), Operation::Register).unwrap();
    }
    scene.put(&key(3), "own", "1.0.0").unwrap();
    let mut succeed = |by: u8, from: u8, to: u8, at| {
        let order = Operation::Succeed(succession(&key(from), &key(to), at));
        scene.changes(&key(by), order)
    };
    assert_eq!(succeed(2, 1, 2, NOON), Err("other-principal".into()));
    assert_eq!(succeed(1, 1, 3, NOON), Err("successor-owns".into()));
    assert_eq!(
        succeed(1, 1, 4, NOON.plus(MINUTE)),
        Err("succession-early".into())
    );
    assert_eq!(succeed(1, 1, 4, NOON), Ok(true));
    assert_eq!(
        succeed(2, 2, 4, NOON),
        Err("succession-refused".into()),
        "two into one"
    );
    assert_eq!(
        succeed(4, 4, 1, NOON),
        Err("succession-refused".into()),
        "a circle"
    );
    assert_eq!(
        succeed(1, 1, 5, NOON),
        Err("succeeded".into()),
        "another heir"
    );
    assert_eq!(
        succeed(2, 2, 1, NOON),
        Err("succession-refused".into()),
        "an heir that was replaced itself: two persons would share a line"
    );
    let mut half = succession(&key(2), &key(6), NOON);
    half.by_new = half.by_old.clone();
    let refused = scene.order(&key(2), Operation::Succeed(half)).map(drop);
    assert_eq!(refused, Err("invalid-signature".into()));
}

#[test]
fn a_line_is_followed_to_its_end_and_no_longer_than_allowed() {
    let (mut scene, package) = Scene::with_package();
    scene.grant(&key(1), grant(1, package)).unwrap();
    let mut last = 1;
    for next in 101..=116 {
        let order = Operation::Succeed(succession(&key(last), &key(next), NOON));
        assert_eq!(scene.changes(&key(last), order), Ok(true), "{next}");
        last = next;
    }
    let order = Operation::Succeed(succession(&key(last), &key(117), NOON));
    assert_eq!(
        scene.changes(&key(last), order),
        Err("succession-refused".into())
    );
    assert_eq!(scene.lease(5, package).unwrap().successions.len(), 16);
    let row = me(&mut scene, &key(last));
    assert_eq!(row.succeeds.first(), Some(&principal(1)));
    scene.now = NOON.plus(HOUR * 2);
}
