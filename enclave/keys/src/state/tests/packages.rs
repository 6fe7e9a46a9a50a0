//! Packages, and the keys that requests are sealed to.

use core::time::Duration;

use bield_envelope::{AudienceKey, Secret};
use bield_grant::{CodeSelector, Grant};
use bield_protocol::service::{
    AUDIENCE_KEYS_MAX, LeasedKeys, Listing, ListingPage, Operation, PackageReference,
};

use crate::service::cast::{HOUR, NOON, Scene, code, grant, header, key, principal, signed_code};
use crate::state::{KEY_CONFIGURATION_SECS, PACKAGES_EACH_MAX};

fn ids(leased: &LeasedKeys) -> Vec<bield_envelope::Digest> {
    let public = |seed: &Secret| {
        let key = AudienceKey::from_seed(Secret::from_bytes(*seed.expose()));
        key.public().id()
    };
    leased
        .audience_keys
        .iter()
        .map(|key| public(&key.seed))
        .collect()
}

const fn exactly(package: bield_envelope::Digest) -> PackageReference {
    PackageReference::Digest(package)
}

#[test]
fn the_newest_version_of_a_name_is_found_and_names_are_per_owner() {
    let (mut scene, first) = Scene::with_package();
    let (owner, other) = (key(1), key(3));
    scene.order(&other, Operation::Register).unwrap();
    let second = scene.put(&owner, "shelter", "0.9.0").unwrap();
    scene.put(&other, "shelter", "7.0.0").unwrap();
    for package in [first, second] {
        scene
            .grant(&owner, grant(package.as_bytes()[0], package))
            .unwrap();
    }
    let named = |version: Option<&str>| {
        PackageReference::Named(principal(1), "shelter".into(), version.map(str::to_owned))
    };
    let choice = || CodeSelector::Measurement(code(5));
    assert_eq!(scene.find(named(None), choice()).unwrap().package, second);
    assert_eq!(
        scene.find(named(Some("1.0.0")), choice()).unwrap().package,
        first
    );
    let missing = scene.find(named(Some("3.0.0")), choice()).map(drop);
    assert_eq!(missing, Err("unknown-package".into()));
    let odd = PackageReference::Named(principal(1), "../keys".into(), None);
    assert_eq!(
        scene.find(odd, choice()).map(drop),
        Err("unknown-package".into())
    );
}

#[test]
fn a_package_has_one_key() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    let same = header(&owner, "shelter", "1.0.0");
    assert_eq!(scene.put_header(&owner, &same, 9), Ok(package));
    assert_eq!(
        scene.put_header(&owner, &same, 8),
        Err("package-key-differs".into())
    );
    assert_eq!(scene.desk.state().counts().packages, 1);
}

#[test]
fn a_deleted_package_ends_its_grants_and_may_come_back_with_other_audience_keys() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    let metered = Grant {
        requests: Some(1),
        ..grant(1, package)
    };
    let granted = scene.grant(&owner, metered).unwrap();
    let before = ids(&scene.lease(5, package).unwrap());
    scene
        .order(&owner, Operation::DeletePackage(package))
        .unwrap();
    assert_eq!(
        scene.desk.state().counts().grants,
        1,
        "remembered until it would have ended"
    );
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("unknown-package".into())
    );
    let again = scene
        .order(&owner, Operation::DeletePackage(package))
        .map(drop);
    assert_eq!(again, Err("unknown-package".into()));
    scene.put(&owner, "shelter", "1.0.0").unwrap();
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("grant-revoked".into())
    );
    // Neither the grant nor what was used of its quota begins anew.
    let again = scene.order(&owner, Operation::Grant(granted.into_signed()));
    assert_eq!(again.map(drop), Err("grant-revoked".into()));
    scene.grant(&owner, grant(2, package)).unwrap();
    assert_ne!(ids(&scene.lease(5, package).unwrap()), before);
    scene.now = NOON.plus(HOUR);
    scene.put(&owner, "kennel", "1.0.0").unwrap();
    assert_eq!(scene.desk.state().counts().grants, 1, "forgotten in time");
}

#[test]
fn a_rotated_key_opens_for_an_hour_or_not_at_all() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    let mut long = grant(1, package);
    long.not_after = NOON.plus(HOUR * 100);
    scene.grant(&owner, long).unwrap();
    let first = ids(&scene.lease(5, package).unwrap());
    let rotate = |at_once| Operation::RotateAudience { package, at_once };
    scene.order(&owner, rotate(false)).unwrap();
    let found = scene
        .find(exactly(package), CodeSelector::Measurement(code(5)))
        .unwrap();
    assert_eq!(found.generation, 1);
    let leased = scene.lease(5, package).unwrap();
    assert_eq!(ids(&leased), [found.key.id(), first[0]]);
    let holds = Duration::from_secs(KEY_CONFIGURATION_SECS);
    assert_eq!(leased.audience_keys[0].not_after, None);
    assert_eq!(leased.audience_keys[1].not_after, Some(NOON.plus(holds)));
    scene.now = NOON.plus(holds);
    assert_eq!(ids(&scene.lease(5, package).unwrap()), [found.key.id()]);

    for _ in 0..AUDIENCE_KEYS_MAX + 3 {
        scene.order(&owner, rotate(false)).unwrap();
    }
    assert_eq!(
        scene.lease(5, package).unwrap().audience_keys.len(),
        AUDIENCE_KEYS_MAX
    );
    scene.order(&owner, rotate(true)).unwrap();
    assert_eq!(scene.lease(5, package).unwrap().audience_keys.len(), 1);
}

#[test]
fn a_user_who_trusts_a_signer_gets_the_newest_granted_code_that_runs() {
    let (mut scene, package) = Scene::with_package();
    let owner = key(1);
    let find = |scene: &mut Scene, svn| scene.find(exactly(package), signed_code(svn));
    assert_eq!(
        find(&mut scene, 1).map(drop),
        Err("code-not-running".into())
    );
    for number in [5, 7, 6] {
        let mut granted = grant(number, package);
        granted.code = CodeSelector::Measurement(code(number));
        if number == 7 {
            granted.not_after = NOON.plus(HOUR / 2);
        }
        scene.grant(&owner, granted).unwrap();
        scene.lease(number, package).unwrap();
    }
    let found = find(&mut scene, 1).unwrap();
    assert_eq!(
        (found.code.measurement.clone(), found.code.svn),
        (code(7), Some(7))
    );
    assert_eq!(
        find(&mut scene, 8).map(drop),
        Err("code-not-running".into())
    );
    scene.now = NOON.plus(HOUR / 2);
    assert_eq!(find(&mut scene, 1).unwrap().code.measurement, code(6));
    assert_eq!(
        find(&mut scene, 7).map(drop),
        Err("code-not-granted".into())
    );
}

#[test]
fn a_measurement_needs_no_lease_before_it_and_an_owner_may_trust_a_signer() {
    let (mut scene, package) = Scene::with_package();
    let mut granted = grant(1, package);
    granted.code = signed_code(6);
    scene.grant(&key(1), granted).unwrap();
    let choice = |number| CodeSelector::Measurement(code(number));
    let find = |scene: &mut Scene, number| scene.find(exactly(package), choice(number)).map(drop);
    assert_eq!(
        find(&mut scene, 6),
        Err("code-not-granted".into()),
        "its signer is not known yet"
    );
    assert_eq!(
        scene.lease(5, package).map(drop),
        Err("code-not-granted".into())
    );
    scene.lease(6, package).unwrap();
    assert_eq!(find(&mut scene, 6), Ok(()));
    assert_eq!(find(&mut scene, 5), Err("code-not-granted".into()));
}

#[test]
fn packages_are_listed_in_pages() {
    let (mut scene, _) = Scene::with_package();
    let owner = key(1);
    for number in 1..PACKAGES_EACH_MAX {
        scene
            .put(&owner, "shelter", &format!("2.0.{number}"))
            .unwrap();
    }
    assert_eq!(scene.put(&owner, "one-more", "1"), Err("full".into()));
    let (mut after, mut seen) = (None, 0);
    loop {
        let Ok(ListingPage::Packages(rows, more)) = scene.list(&owner, Listing::Packages { after })
        else {
            panic!("packages")
        };
        seen += rows.len();
        after = rows.last().map(|row| row.package);
        if !more {
            break;
        }
    }
    assert_eq!(seen, PACKAGES_EACH_MAX);
}
