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
    let text = "gateway = \"http://h\"\nkey_service = \"h:1\"\n[service]\nprofile = \"cloud\"\n";
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
    };
    for number in [1, 2, 1] {
        home.remember_service(&service(number)).unwrap();
    }
    assert_eq!(home.known_services().unwrap(), vec![service(2), service(1)]);
}
