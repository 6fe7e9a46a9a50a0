//! Sessions with key services whose state is not the newest, and members that do not serve.

use std::net::TcpListener;

use crate::support::{Lie, World};
use bield_envelope::SigningKey;
use bield_evidence::Outcome;
use bield_sdk::{
    Acceptance, KeyService, Kind, NotFresh, Randomness, ServiceError, Trust, accept, now, verify,
};

fn refused(world: &World) -> NotFresh {
    let trust = world.trust();
    match KeyService::connect(&world.home, &trust, now(), &mut Randomness).err() {
        Some(ServiceError::NotFresh { error, .. }) => *error,
        other => panic!("{other:?}"),
    }
}

/// A session that is ended at once: what was seen is kept.
fn visit(world: &World) -> Option<u64> {
    let trust = world.trust();
    let service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    service.fresh().seen
}

#[test]
fn a_service_is_asked_for_its_head_before_anything_else_and_every_time() {
    let world = World::with(Lie::None);
    assert_eq!(visit(&world), None);
    assert_eq!(visit(&world), Some(5));
    world.set_log(9);
    assert_eq!(visit(&world), Some(5));
    assert_eq!(visit(&world), Some(9));
}

#[test]
fn a_service_that_was_set_back_gets_no_session_and_is_not_accepted_by_hand() {
    let world = World::with(Lie::None);
    visit(&world);
    world.set_log(3);
    assert_eq!(refused(&world), NotFresh::RolledBack { seen: 5, shown: 3 });
    let trust = world.trust();
    let me = world.home.head().unwrap().unwrap().service();
    for acceptance in [Acceptance::Recovery, Acceptance::Service(me)] {
        let error = accept(&world.home, &trust, acceptance, now(), &mut Randomness)
            .err()
            .unwrap();
        assert_eq!(error.code(), Some("rolled-back"), "{error}");
        assert_eq!(error.kind(), Kind::Refused);
    }
    // It was not put in the place of what was seen.
    world.set_log(5);
    assert_eq!(visit(&world), Some(5));
}

#[test]
fn a_wiped_service_is_not_taken_for_a_fresh_one_until_a_person_says_so() {
    let world = World::with(Lie::None);
    visit(&world);
    world.wipe_log();
    let NotFresh::OtherService { found, .. } = refused(&world) else {
        panic!("not refused as another service")
    };
    let trust = world.trust();
    let other = SigningKey::generate(&mut Randomness).principal();
    for wrong in [Acceptance::Service(other), Acceptance::Recovery] {
        assert!(accept(&world.home, &trust, wrong, now(), &mut Randomness).is_err());
    }
    let accepted = Acceptance::Service(found);
    accept(&world.home, &trust, accepted, now(), &mut Randomness).unwrap();
    assert_eq!(visit(&world), Some(3));
    // The old log is not forgotten either.
    world.set_log(4);
    assert!(matches!(refused(&world), NotFresh::OtherService { .. }));
    let back = accept(&world.home, &trust, accepted, now(), &mut Randomness).err();
    assert!(back.unwrap().to_string().contains("ROLLED BACK by 1"));
}

#[test]
fn what_was_ordered_is_in_the_head_that_is_kept() {
    let world = World::with(Lie::None);
    let trust = world.trust();
    let owner = SigningKey::generate(&mut Randomness);
    let mut service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    assert_eq!(service.register(&owner).unwrap(), 6);
    service.close().unwrap();
    assert_eq!(world.home.head().unwrap().unwrap().size(), 6);
    // Also when nobody closes it.
    let mut service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    service.register(&owner).unwrap();
    drop(service);
    assert_eq!(world.home.head().unwrap().unwrap().size(), 7);
    world.set_log(6);
    assert_eq!(refused(&world), NotFresh::RolledBack { seen: 7, shown: 6 });
}

#[test]
fn a_change_that_is_acknowledged_and_not_logged_is_found_out() {
    let world = World::with(Lie::Forgets);
    let trust = world.trust();
    let owner = SigningKey::generate(&mut Randomness);
    let mut service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    service.register(&owner).unwrap();
    let error = service.close().err().unwrap();
    assert_eq!(error.code(), Some("not-acknowledged"), "{error}");
}

#[test]
fn members_are_tried_in_turn_and_all_their_errors_are_told() {
    let world = World::with(Lie::None);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let leader = world.trust().key_service().to_owned();
    let with = |addresses: &[&str]| {
        let list: Vec<_> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let one = format!("key_service = \"{leader}\"");
        let several = format!("key_service = [{}]", list.join(", "));
        Trust::parse(&world.trust_text.replace(&one, &several)).unwrap()
    };
    let trust = with(&[&closed, &world.follower(), &leader]);
    let service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    assert_eq!(service.address(), leader);
    drop(service);
    let found = verify(&world.home, &trust, now(), &mut Randomness).unwrap();
    assert!(found.passed() && found.address == leader);

    let other = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let nobody = with(&[&closed, &other]);
    let error = KeyService::connect(&world.home, &nobody, now(), &mut Randomness)
        .err()
        .unwrap();
    let sentence = error.to_string();
    assert!(
        sentence.contains(&closed) && sentence.contains(&other),
        "{sentence}"
    );
    assert_eq!(error.kind(), Kind::Unreachable);
    // What a state shows is final: no other member is asked for a nicer one.
    world.set_log(2);
    let error = KeyService::connect(&world.home, &trust, now(), &mut Randomness).err();
    assert_eq!(error.unwrap().code(), Some("rolled-back"));
}

#[test]
fn verify_lists_the_log_and_the_witnesses() {
    let world = World::with(Lie::None);
    let outcomes = || {
        let found = verify(&world.home, &world.trust(), now(), &mut Randomness).unwrap();
        let outcome = |name| {
            let mut checks = found.checks.iter();
            checks.find(|check| check.name == name).unwrap().outcome
        };
        (outcome("log"), outcome("witnesses"), found)
    };
    let (log, witnesses, first) = outcomes();
    assert_eq!((log, witnesses), (Outcome::NotChecked, Outcome::NotChecked));
    assert_eq!(first.inspection.unwrap().lease_secs, 600);
    assert_eq!(outcomes().0, Outcome::Passed);
    world.set_log(1);
    let (log, _, found) = outcomes();
    assert_eq!(log, Outcome::Failed);
    assert!(!found.passed());
    assert!(found.refused.unwrap().contains("ROLLED BACK by 4 records"));
}
