//! K12, K13, K18 to K20: how grants, states, owners and keys live and end.

use super::*;

/// "No revoke, rotate, expire": each of them takes effect at the next lease, and a lease ends.
#[test]
fn k12_grants_are_revoked_and_end_and_every_kind_of_key_is_rotated() {
    let (world, package) = World::with_grant();
    let (owner, heir) = (key(1), key(10));
    let before = world.lease(5, package).unwrap();
    assert!(
        before.lease.not_after <= world.now().plus(MINUTE * 10),
        "a lease is short"
    );
    let told = world.find(package, exactly(5)).unwrap();
    world
        .order(
            &owner,
            Operation::RotateAudience {
                package,
                at_once: true,
            },
        )
        .unwrap();
    assert_ne!(
        world.find(package, exactly(5)).unwrap().key.id(),
        told.key.id()
    );
    let old = seal(&told.key, told.audience, package, &key(2), world.now());
    let after = Material::new(world.lease(5, package).unwrap());
    assert_eq!(after.serve(&old, world.now()), Err("other-key".into()));
    let service = world.inspect().service;
    world
        .order(&key(ADMINISTRATOR), Operation::Register)
        .unwrap();
    world
        .order(&key(ADMINISTRATOR), Operation::RotateIdentity)
        .unwrap();
    assert_ne!(world.inspect().service, service);
    let order = Operation::Succeed(succession(&owner, &heir, NOON));
    world.order(&owner, order).unwrap();
    assert_eq!(world.revoke(&owner, 1).map(drop), Err("succeeded".into()));
    assert!(
        world.lease(5, package).is_ok(),
        "the old key's word counts on"
    );
    world.revoke(&heir, 1).unwrap();
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("grant-revoked".into())
    );
    let ends = world.grant(&heir, grant(2, package)).unwrap().not_after;
    assert!(world.lease(5, package).is_ok());
    world.set_clock(ends);
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("grant-expired".into())
    );
    world
        .order(&heir, Operation::DeletePackage(package))
        .unwrap();
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("unknown-package".into())
    );
}

/// "No rollback protection for the store": who saw more stops a state that was set back, for all.
#[test]
fn k13_a_store_that_was_set_back_is_not_served_from() {
    let (mut world, package) = World::with_grant();
    world.kill();
    let older = world.disk.contents();
    world.start().unwrap();
    for number in 11..16 {
        world.order(&key(number), Operation::Register).unwrap();
    }
    world.revoke(&key(1), 1).unwrap();
    let kept = world.freshness(None).unwrap().checkpoint;
    world.kill();
    world.disk.restore(older);
    world.start().unwrap();
    let refused = world.freshness(Some(&kept)).map(drop);
    assert_eq!(refused, Err("rolled-back".into()));
    assert_eq!(
        world.lease(5, package).map(drop),
        Err("rolled-back".into()),
        "nor anybody else"
    );
    assert!(
        world
            .service()
            .ended()
            .unwrap()
            .contains("records are missing")
    );
}

/// "No audit, no metrics, no admin": what happened to an owner's things is the owner's to read, chained; only
/// administrators order what concerns all.
#[test]
fn k18_owners_read_what_happened_and_administrators_are_named() {
    let (mut world, package) = World::with_grant();
    world.lease(5, package).unwrap();
    assert!(world.lease(6, package).is_err());
    world.revoke(&key(1), 1).unwrap();
    let page = world.audit(&key(1), 0).unwrap();
    let events: Vec<&AuditEvent> = page.entries.iter().map(|entry| &entry.event).collect();
    assert!(matches!(
        events[..],
        [
            AuditEvent::Registered,
            AuditEvent::PackagePut(..),
            AuditEvent::Granted(..),
            AuditEvent::Leased { .. },
            AuditEvent::Revoked(..)
        ]
    ));
    let chain = page
        .entries
        .iter()
        .fold(page.before, |before, entry| chained(&before, entry));
    assert_eq!((chain, page.count), (page.digest, 5));
    assert_eq!((page.refused.len(), &page.refused[0].code), (1, &code(6)));
    world.kill();
    world.start().unwrap();
    let after = world.audit(&key(1), 3).unwrap();
    assert_eq!(
        (after.digest, &after.entries[..]),
        (page.digest, &page.entries[3..])
    );
    for number in [1, ADMINISTRATOR] {
        world.order(&key(number), Operation::Register).unwrap();
        let allowed = world
            .order(&key(number), Operation::RotateIdentity)
            .map(drop);
        let expected = if number == 1 {
            Err("not-administrator".into())
        } else {
            Ok(())
        };
        assert_eq!(allowed, expected);
    }
}

/// "No tenant separation": one owner sees, names, fills and spends nothing of another's.
#[test]
fn k19_owners_are_strangers_to_each_other() {
    let (mut world, package) = World::with_grant();
    let other = key(3);
    world.order(&other, Operation::Register).unwrap();
    assert_eq!(
        world.audit(&other, 0).unwrap().count,
        1,
        "its own registration"
    );
    for listing in [
        Listing::Grants {
            package: None,
            user: None,
            after: None,
        },
        Listing::ToMe { after: None },
    ] {
        let page = world.list(&other, listing).unwrap();
        assert!(matches!(page, ListingPage::Grants(rows, false) if rows.is_empty()));
    }
    let of_package = Listing::Grants {
        package: Some(package),
        user: None,
        after: None,
    };
    assert_eq!(
        world.list(&other, of_package).map(drop),
        Err("not-owner".into())
    );
    // The same id, name and group of another are others.
    let mine = world.put(&other, "shelter", "1.0.0").unwrap();
    let says = Grant {
        user: UserSelector::Principal(principal(9)),
        ..grant(1, mine)
    };
    world.grant(&other, says).unwrap();
    world.revoke(&other, 1).unwrap();
    assert!(world.lease(5, package).is_ok());
    // One that floods waits for its own allowance.
    world.kill();
    world.options.orders_per_minute = 20;
    world.start().unwrap();
    let refused = (0..60)
        .filter(|_| world.order(&other, Operation::Register).is_err())
        .count();
    assert!(refused >= 30, "{refused}");
    assert!(world.order(&key(1), Operation::Register).is_ok());
    assert!(world.lease(5, package).is_ok());
}

/// "Keys are never zeroized or evicted": what was deleted is nowhere to be had, and comes back under new keys;
/// secrets are silent types.
#[test]
fn k20_what_was_deleted_is_forgotten_with_its_keys() {
    let (mut world, package) = World::with_grant();
    let owner = key(1);
    let before = world.lease(5, package).unwrap();
    world
        .order(&owner, Operation::DeletePackage(package))
        .unwrap();
    let gone = |world: &World| world.lease(5, package).map(drop) == Err("unknown-package".into());
    assert!(gone(&world));
    assert_eq!(world.inspect().packages, 0);
    assert!(world.service().snapshot());
    world.end();
    world.start().unwrap();
    assert!(gone(&world), "nor after a start from a snapshot");
    world.put(&owner, "shelter", "1.0.0").unwrap();
    assert!(world.lease(5, package).is_err(), "its grants went with it");
    world.grant(&owner, grant(2, package)).unwrap();
    let after = world.lease(5, package).unwrap();
    let seed =
        |leased: &bield_protocol::service::LeasedKeys| *leased.audience_keys[0].seed.expose();
    assert_ne!(seed(&before), seed(&after));
    // A secret that would print or be copied does not compile; that it is wiped is tested with its type.
    const fn is_wiped<T: zeroize::ZeroizeOnDrop>() {}
    is_wiped::<Secret>();
}
