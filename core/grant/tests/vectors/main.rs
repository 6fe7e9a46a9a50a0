//! Frozen bytes of `spec/04-grant.md`: what a second implementation must produce and refuse.
//!
//! `BIELD_FREEZE_VECTORS=1` writes the file instead of comparing with it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod by_hand;
mod decisions;
mod making;

use std::path::Path;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use bield_envelope::{Principal, Signed, Statement, Verified};
use bield_grant::{Grant, Group, Succeeded, VersionRange};
use serde_json::{Value, json};

use crate::by_hand::cose_sign1;
use crate::making::Cast;

#[test]
fn the_vectors_are_what_this_crate_makes() {
    let cast = Cast::new();
    let made = json!({
        "about": "spec/04-grant.md, version 2. Byte strings are hex, times are milliseconds since 1970.",
        "keys": making::keys(&cast),
        "grant": making::grant(&cast, &cast.grant()),
        "grant_by_selectors": making::grant(&cast, &cast.grant_by_selectors()),
        "group": making::group(&cast),
        "succession": making::succession(&cast),
        "audiences": making::audiences(),
        "ranges": making::ranges(),
        "ranges_refused": making::RANGES_REFUSED,
        "refused": making::refused(&cast),
        "leases": decisions::leases(&cast),
        "decisions": decisions::requests(&cast),
    });
    compare_or_freeze("04-grant.json", &made);
}

#[test]
fn the_frozen_statements_verify_and_say_what_the_vectors_say() {
    let vectors = frozen("04-grant.json");
    let cast = Cast::new();
    let owner = cast.owner.principal();
    let grant: Verified<Grant> = verified(&bytes(&vectors["grant"]["signed"]), &owner).unwrap();
    assert_eq!(*grant, cast.grant());
    let other: Verified<Grant> =
        verified(&bytes(&vectors["grant_by_selectors"]["signed"]), &owner).unwrap();
    assert_eq!(*other, cast.grant_by_selectors());
    let group: Verified<Group> = verified(&bytes(&vectors["group"]["signed"]), &owner).unwrap();
    assert_eq!(*group, cast.group());
    let half = |key: &str| Signed::decode(&bytes(&vectors["succession"][key])).unwrap();
    let succeeded = Succeeded {
        by_old: half("by_old"),
        by_new: half("by_new"),
    };
    let succeeded = succeeded.verify().unwrap();
    assert_eq!(succeeded.from(), cast.user.principal());
    assert_eq!(succeeded.to(), cast.heir.principal());
}

#[test]
fn the_frozen_grant_is_signed_as_rfc_9052_says() {
    let vectors = frozen("04-grant.json");
    // RFC 9052 §4.4, built here by hand: what the 64 bytes at the end sign.
    let message = bytes(&vectors["grant"]["sig_structure"]);
    let signed = bytes(&vectors["grant"]["signed"]);
    let (_, signature) = signed.split_at(signed.len() - 64);
    let key = bytes(&vectors["keys"]["owner"]);
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&message, signature)
        .unwrap();
    let payload = bytes(&vectors["grant"]["payload"]);
    assert_eq!(
        signed,
        cose_sign1(&Cast::new().owner, Grant::DOMAIN, &payload)
    );
}

#[test]
fn every_flipped_bit_of_a_statement_is_refused() {
    let owner = Cast::new().owner.principal();
    let vectors = frozen("04-grant.json");
    every_flipped_bit_is_refused::<Grant>(&vectors["grant"]["signed"], &owner);
    every_flipped_bit_is_refused::<Grant>(&vectors["grant_by_selectors"]["signed"], &owner);
    every_flipped_bit_is_refused::<Group>(&vectors["group"]["signed"], &owner);
}

fn every_flipped_bit_is_refused<T: Statement>(good: &Value, owner: &Principal) {
    let good = bytes(good);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let accepted = verified::<T>(&bad, owner);
            assert!(accepted.is_none(), "byte {at}, bit {bit}");
        }
        let cut = verified::<T>(&good[..at], owner);
        assert!(cut.is_none(), "cut to {at} bytes");
    }
    assert!(verified::<T>(&good, owner).is_some());
}

#[test]
fn every_refused_vector_is_refused() {
    let owner = Cast::new().owner.principal();
    let vectors = frozen("04-grant.json");
    for case in vectors["refused"]["grants"].as_array().unwrap() {
        let accepted = verified::<Grant>(&bytes(&case["signed"]), &owner);
        assert!(accepted.is_none(), "{}", case["why"]);
    }
    for case in vectors["refused"]["groups"].as_array().unwrap() {
        let accepted = verified::<Group>(&bytes(&case["signed"]), &owner);
        assert!(accepted.is_none(), "{}", case["why"]);
    }
    for case in vectors["refused"]["successions"].as_array().unwrap() {
        let succeeded = Succeeded {
            by_old: Signed::decode(&bytes(&case["by_old"])).unwrap(),
            by_new: Signed::decode(&bytes(&case["by_new"])).unwrap(),
        };
        assert!(succeeded.verify().is_err(), "{}", case["why"]);
    }
    for text in vectors["ranges_refused"].as_array().unwrap() {
        assert!(
            text.as_str().unwrap().parse::<VersionRange>().is_err(),
            "{text}"
        );
    }
}

fn verified<T: Statement>(bytes: &[u8], owner: &Principal) -> Option<Verified<T>> {
    Signed::<T>::decode(bytes).ok()?.verify(owner).ok()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads and writes its vectors"
)]
fn frozen(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads and writes its vectors"
)]
fn compare_or_freeze(name: &str, made: &Value) {
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(made).unwrap() + "\n";
        std::fs::write(path(name), text).unwrap();
    }
    assert_eq!(
        &frozen(name),
        made,
        "{name} is frozen: a change here is a new version"
    );
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../spec/vectors")
        .join(name)
}
