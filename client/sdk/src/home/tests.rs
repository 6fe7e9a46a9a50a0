//! A home that is made, loosened, damaged and used again.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;
use crate::Randomness;

fn home() -> (tempfile::TempDir, Home) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    (directory, home)
}

const TRUST_TEXT: &str =
    "gateway = \"http://h\"\nkey_service = \"h:1\"\n[service]\nprofile = \"cloud\"\n";

#[test]
fn an_identity_is_made_once_and_read_back() {
    let (_directory, home) = home();
    assert!(matches!(home.identity(), Err(HomeError::NoIdentity { .. })));
    let made = home.create_identity(&mut Randomness).unwrap().principal();
    assert_eq!(home.identity().unwrap().principal(), made);
    let again = home.create_identity(&mut Randomness);
    assert!(matches!(again, Err(HomeError::IdentityExists { .. })));
    assert_eq!(home.identity().unwrap().principal(), made);
}

#[test]
fn home_and_identity_are_private_and_loosened_ones_are_refused() {
    let (_directory, home) = home();
    home.create_identity(&mut Randomness).unwrap();
    assert_eq!(home.path().metadata().unwrap().mode() & 0o777, 0o700);
    let path = home.path().join(IDENTITY);
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
    let refused = home.identity().err().unwrap();
    assert!(matches!(
        refused,
        HomeError::File(FileError::ReadableByOthers { .. })
    ));
}

#[test]
fn a_damaged_key_is_refused_without_quoting_it() {
    let (_directory, home) = home();
    home.create_identity(&mut Randomness).unwrap();
    let path = home.path().join(IDENTITY);
    files::write(&path, b"not a key", Write::Secret).unwrap();
    let refused = home.identity().err().unwrap();
    assert!(matches!(refused, HomeError::NotAKey { .. }));
    assert!(!refused.to_string().contains("not a key"), "{refused}");
}

#[test]
fn a_package_key_is_kept_once() {
    let (_directory, home) = home();
    let package = Digest::of("test", &[]);
    let missing = home.package_key(package).err().unwrap();
    assert!(missing.to_string().contains(&package.to_string()));
    let key = PackageKey::generate(&mut Randomness);
    home.keep_package_key(package, &key).unwrap();
    let other = PackageKey::generate(&mut Randomness);
    assert!(home.keep_package_key(package, &other).is_err());
    assert_eq!(
        home.package_key(package).unwrap().seed().expose(),
        key.seed().expose()
    );
}

#[test]
fn another_trust_file_is_not_replaced() {
    let (_directory, home) = home();
    let text = TRUST_TEXT;
    assert!(matches!(home.trust(), Err(HomeError::NoTrust { .. })));
    home.create_trust(text).unwrap();
    home.create_trust(text).unwrap();
    let other = text.replace("h:1", "h:2");
    assert!(matches!(
        home.create_trust(&other),
        Err(HomeError::TrustExists { .. })
    ));
    assert_eq!(home.trust().unwrap().key_service(), "h:1");
}

#[test]
fn services_are_remembered_in_order_without_repeats() {
    let (_directory, home) = home();
    let service = |number| KnownService {
        principal: Principal::from_bytes([number; 32]),
        measurement: "sgx:00".to_owned(),
        simulated: number == 1,
    };
    for number in [1, 2, 1] {
        home.remember_service(&service(number)).unwrap();
    }
    assert_eq!(home.known_services().unwrap(), vec![service(2), service(1)]);
}

fn a_service() -> KnownService {
    KnownService {
        principal: Principal::from_bytes([1; 32]),
        measurement: "sgx:00".to_owned(),
        simulated: true,
    }
}

#[test]
fn other_trust_forgets_the_services_and_the_same_trust_does_not() {
    let (_directory, home) = home();
    home.create_trust(TRUST_TEXT).unwrap();
    home.remember_service(&a_service()).unwrap();
    home.create_trust(TRUST_TEXT).unwrap();
    assert_eq!(home.known_services().unwrap().len(), 1);
    home.replace_trust(TRUST_TEXT).unwrap();
    assert!(home.known_services().unwrap().is_empty());

    home.remember_service(&a_service()).unwrap();
    fs::remove_file(home.path().join(TRUST)).unwrap();
    home.create_trust(TRUST_TEXT).unwrap();
    assert!(home.known_services().unwrap().is_empty());
}

#[test]
fn services_of_unknown_protection_are_left_out() {
    let (_directory, home) = home();
    home.remember_service(&a_service()).unwrap();
    let path = home.path().join(SERVICES);
    let principal = a_service().principal;
    for line in ["", " ", " hardware ", " other"] {
        let text = format!("{principal} sgx:00{line}\n");
        files::write(&path, text.as_bytes(), Write::Secret).unwrap();
        assert!(home.known_services().unwrap().is_empty(), "{line:?}");
    }
    home.remember_service(&a_service()).unwrap();
    assert_eq!(home.known_services().unwrap(), vec![a_service()]);
}

#[test]
fn a_home_that_others_can_change_is_refused_whatever_is_asked_of_it() {
    let (_directory, home) = home();
    home.create_identity(&mut Randomness).unwrap();
    home.create_trust(TRUST_TEXT).unwrap();
    for mode in [0o770, 0o702, 0o777] {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(mode)).unwrap();
        let refused = [
            home.identity().err(),
            home.create_identity(&mut Randomness).err(),
            home.trust().err(),
            home.create_trust(TRUST_TEXT).err(),
            home.replace_trust(TRUST_TEXT).err(),
            home.known_services().err(),
            home.remember_service(&a_service()).err(),
            home.package_key(Digest::of("test", &[])).err(),
        ];
        for refused in refused {
            assert!(
                matches!(
                    refused,
                    Some(HomeError::File(FileError::WritableByOthers { .. }))
                ),
                "{mode:o}: {refused:?}"
            );
        }
    }
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(home.trust().is_ok());
}

#[test]
fn a_trust_file_that_others_can_change_is_refused() {
    let (_directory, home) = home();
    home.create_trust(TRUST_TEXT).unwrap();
    let path = home.path().join(TRUST);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    for refused in [home.trust().err(), home.create_trust(TRUST_TEXT).err()] {
        let refused = refused.unwrap().to_string();
        assert!(refused.contains("trust.toml is believed"), "{refused}");
    }
}

#[test]
fn a_share_is_kept_once_and_privately() {
    let (_directory, home) = home();
    let origin: bield_tlog::Origin = "keys.example/log".parse().unwrap();
    let share = |byte| bield_protocol::service::Share {
        generation: 1,
        number: 2,
        threshold: 2,
        bytes: Zeroizing::new(vec![byte; 33]),
    };
    let path = home.keep_share(&origin, &share(1)).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(home.keep_share(&origin, &share(1)).unwrap(), path);
    let refused = home.keep_share(&origin, &share(2)).err().unwrap();
    assert!(matches!(refused, HomeError::ShareExists { .. }));
    let kept = home.shares().unwrap();
    assert_eq!(*kept[0].share.bytes, vec![1; 33]);
    assert!(!kept[0].current);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(home.shares().is_err());
}

#[test]
fn a_successor_takes_the_place_and_the_old_key_stays_aside() {
    let (_directory, home) = home();
    let old = home.create_identity(&mut Randomness).unwrap().principal();
    let next = home.next_identity(&mut Randomness).unwrap().principal();
    // Begun and not ended: the same key again, also after a crash.
    assert_eq!(
        home.next_identity(&mut Randomness).unwrap().principal(),
        next
    );
    assert_eq!(home.identity().unwrap().principal(), old);
    let aside = home.succeed_identity().unwrap();
    assert_eq!(home.identity().unwrap().principal(), next);
    assert_eq!(
        SigningKey::from_seed(read_key(&aside).unwrap()).principal(),
        old
    );
    assert!(home.begun_identity().unwrap().is_none());
}
