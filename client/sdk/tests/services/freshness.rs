//! Sessions with key services whose state is not the newest, and members that do not serve.

use std::net::TcpListener;

use crate::support::{Lie, World};
use bield_envelope::SigningKey;
use bield_evidence::Outcome;
use bield_sdk::{
    Acceptance, KeyService, Kind, NotFresh, Randomness, RecoverySession, ServiceError, Trust,
    accept, now, verify,
};

fn refused(world: &World) -> NotFresh {
    refused_at(world, &world.trust())
}

fn refused_at(world: &World, trust: &Trust) -> NotFresh {
    match KeyService::connect(&world.home, trust, now(), &mut Randomness).err() {
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
    let wiped = world.trust_at(&[&world.beside("keys.example/new", 3, false)]);
    let NotFresh::OtherService { found, .. } = refused_at(&world, &wiped) else {
        panic!("not refused as another service")
    };
    let other = SigningKey::generate(&mut Randomness).principal();
    for wrong in [Acceptance::Service(other), Acceptance::Recovery] {
        assert!(accept(&world.home, &wiped, wrong, now(), &mut Randomness).is_err());
    }
    let accepted = Acceptance::Service(found);
    let done = accept(&world.home, &wiped, accepted, now(), &mut Randomness).unwrap();
    assert!(done.needed);
    let service = KeyService::connect(&world.home, &wiped, now(), &mut Randomness).unwrap();
    assert_eq!(service.fresh().seen, Some(3));
    drop(service);
    // With nothing to accept it says so.
    let done = accept(&world.home, &wiped, accepted, now(), &mut Randomness).unwrap();
    assert!(!done.needed);
    // The old log is not forgotten either.
    world.set_log(4);
    let NotFresh::OtherService { found, .. } = refused(&world) else {
        panic!("not refused as another service")
    };
    let back = Acceptance::Service(found);
    let back = accept(&world.home, &world.trust(), back, now(), &mut Randomness).err();
    assert!(back.unwrap().to_string().contains("ROLLED BACK by 1"));
}

#[test]
fn an_instance_from_before_a_recovery_is_accepted_by_nothing() {
    let world = World::with(Lie::None);
    visit(&world);
    let me = world.home.head().unwrap().unwrap().service();
    world.recover_log(5, false);
    assert_eq!(visit(&world), Some(5));
    for same in [true, false] {
        // Also when it bears a name that was rotated since, and goes on from what was seen.
        let old = world.beside("keys.example/log", 7, same);
        let trust = world.trust_at(&[&old]);
        let error = refused_at(&world, &trust);
        assert!(matches!(error, NotFresh::Left { .. }), "{error}");
        let NotFresh::Left { found, .. } = error else {
            unreachable!()
        };
        for acceptance in [
            Acceptance::Recovery,
            Acceptance::Service(me),
            Acceptance::Service(found),
        ] {
            let error = accept(&world.home, &trust, acceptance, now(), &mut Randomness);
            assert_eq!(error.err().unwrap().code(), Some("left-log"));
        }
    }
    // Nor under trust in another service, which forgets which log is current.
    world.home.create_trust(&world.trust_text).unwrap();
    let forgets = world.trust_text.replace("11111111", "22222222");
    world.home.replace_trust(&forgets).unwrap();
    assert!(world.home.head().unwrap().is_none());
    let old = world.trust_at(&[&world.beside("keys.example/log", 7, true)]);
    assert!(matches!(refused_at(&world, &old), NotFresh::Left { .. }));
    assert!(world.home.head().unwrap().is_none());
    // The true one is there still, and is taken for it.
    assert_eq!(visit(&world), Some(3));
}

#[test]
fn a_recovery_is_compared_after_the_trust_has_forgotten_which_log_is_current() {
    let world = World::with(Lie::None);
    visit(&world);
    world.home.create_trust(&world.trust_text).unwrap();
    let forgets = world.trust_text.replace("11111111", "22222222");
    world.home.replace_trust(&forgets).unwrap();
    world.recover_log(4, false);
    assert!(matches!(
        refused(&world),
        NotFresh::Recovered {
            seen: 5,
            found: 4,
            ..
        }
    ));
    // An unrecovered log under the same name is no new service either.
    let other = world.trust_at(&[&world.beside("keys.example/other", 9, true)]);
    assert!(matches!(refused_at(&world, &other), NotFresh::Left { .. }));
}

#[test]
fn a_recovery_from_another_branch_is_accepted_by_hand_only() {
    let world = World::with(Lie::None);
    visit(&world);
    world.recover_log(9, true);
    let error = refused(&world);
    assert!(
        matches!(error, NotFresh::RecoveredElsewhere { .. }),
        "{error}"
    );
    let trust = world.trust();
    let me = world.home.head().unwrap().unwrap().service();
    let wrong = Acceptance::Service(me);
    assert!(accept(&world.home, &trust, wrong, now(), &mut Randomness).is_err());
    let right = Acceptance::Recovery;
    let done = accept(&world.home, &trust, right, now(), &mut Randomness).unwrap();
    assert!(done.needed);
    assert_eq!(visit(&world), Some(3));
    let old = world.trust_at(&[&world.beside("keys.example/log", 9, true)]);
    assert!(matches!(refused_at(&world, &old), NotFresh::Left { .. }));
}

#[test]
fn a_recovered_log_that_was_met_before_must_continue_what_was_met() {
    let world = World::with(Lie::None);
    visit(&world);
    world.recover_log(5, false);
    let recovered = world.beside("keys.example/next", 5, false);
    // Met by hand as another service would be; then the log before is the current one again.
    let next = world.trust_at(&[&recovered]);
    let found = match refused_at(&world, &next) {
        NotFresh::OtherService { found, .. } => found,
        other => panic!("{other}"),
    };
    let there = Acceptance::Service(found);
    accept(&world.home, &next, there, now(), &mut Randomness).unwrap();
    world.set_log(5);
    let NotFresh::OtherService { found, .. } = refused(&world) else {
        panic!("not refused as another service")
    };
    let back = Acceptance::Service(found);
    accept(&world.home, &world.trust(), back, now(), &mut Randomness).unwrap();
    world.recover_log(5, false);
    assert_eq!(refused(&world), NotFresh::RolledBack { seen: 5, shown: 3 });
}

#[test]
fn another_log_at_one_address_does_not_hide_the_known_one_at_the_next() {
    let world = World::with(Lie::None);
    visit(&world);
    let wiped = world.beside("keys.example/new", 3, false);
    let old = world.beside("keys.example/old", 9, true);
    let leader = world.trust().key_service().to_owned();
    let stopped = world.beside_that(Lie::SetBack, "keys.example/log", 5, true);
    let trust = world.trust_at(&[&wiped, &old, &stopped, &leader]);
    let service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    assert_eq!(service.address(), leader);
    drop(service);
    let found = verify(&world.home, &trust, now(), &mut Randomness).unwrap();
    assert!(found.passed() && found.address == leader);
    let nowhere = world.trust_at(&[&wiped, &old]);
    assert!(matches!(
        refused_at(&world, &nowhere),
        NotFresh::OtherService { .. }
    ));
}

#[test]
fn addresses_that_show_two_logs_at_first_contact_are_both_refused() {
    let world = World::with(Lie::None);
    let leader = world.trust().key_service().to_owned();
    let old = world.beside("keys.example/old", 9, true);
    let trust = world.trust_at(&[&world.follower(), &leader, &old]);
    let error = refused_at(&world, &trust);
    assert!(matches!(error, NotFresh::TwoLogs { .. }), "{error}");
    assert!(verify(&world.home, &trust, now(), &mut Randomness).is_err());
    assert!(world.home.head().unwrap().is_none());
    let same = world.beside("keys.example/log", 5, true);
    let trust = world.trust_at(&[&leader, &same]);
    assert!(KeyService::connect(&world.home, &trust, now(), &mut Randomness).is_ok());
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
    let with = |addresses: &[&str]| world.trust_at(addresses);
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

#[test]
fn an_instance_without_a_name_says_why_and_whether_to_come_back() {
    for (lie, kind, part) in [
        (
            Lie::Forming,
            Kind::Unreachable,
            "waits for its other members",
        ),
        (Lie::Recovering, Kind::Refused, "bield recover status"),
    ] {
        let world = World::with(lie);
        let trust = world.trust();
        let connected = KeyService::connect(&world.home, &trust, now(), &mut Randomness);
        let verified = verify(&world.home, &trust, now(), &mut Randomness);
        for error in [connected.err().unwrap(), verified.err().unwrap()] {
            assert!(matches!(error, ServiceError::Nameless { .. }), "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}

#[test]
fn no_share_goes_to_an_instance_that_serves_and_nobody_is_told_to_remove_its_root() {
    let world = World::with(Lie::None);
    let trust = world.trust();
    let mut session = RecoverySession::connect(&trust, None, now(), &mut Randomness).unwrap();
    let share = bield_protocol::service::Share {
        generation: 1,
        number: 1,
        threshold: 2,
        bytes: vec![1; 33].into(),
    };
    let holder = SigningKey::generate(&mut Randomness);
    let error = session
        .give_share(&holder, share)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("nothing is to be recovered"), "{error}");
    assert!(!error.contains("root"), "{error}");
}

#[test]
fn an_order_whose_answer_broke_off_is_said_to_count_perhaps() {
    let world = World::with(Lie::HangsUp);
    let trust = world.trust();
    let owner = SigningKey::generate(&mut Randomness);
    let mut service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    let error = service.register(&owner).err().unwrap();
    assert!(matches!(error, ServiceError::Unanswered { .. }), "{error}");
    assert!(error.to_string().contains("may count"), "{error}");
    assert_eq!(error.kind(), Kind::Unreachable);
}
