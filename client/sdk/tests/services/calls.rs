//! Calls, against a key service and a gateway that lie in one place at a time.

use std::time::Duration;

use crate::support::{Lie, World, input, measurement, runtime_code};
use bield_envelope::{Digest, Signed, SigningKey};
use bield_evidence::Outcome;
use bield_grant::{CodeSelector, Grant, Isolation, PackageSelector, UserSelector};
use bield_sdk::{
    Answered, CallError, CallOptions, GatewayError, KeyService, Kind, Randomness, ServiceError,
    Target, TargetError, Trust, Waiting, now, verify,
};

fn user() -> SigningKey {
    SigningKey::generate(&mut Randomness)
}

fn target(world: &World) -> Result<Target, ServiceError> {
    target_under(world, &world.trust())
}

fn target_under(world: &World, trust: &Trust) -> Result<Target, ServiceError> {
    let mut service = KeyService::connect(&world.home, trust, now(), &mut Randomness)?;
    service.target(&world.reference(), &runtime_code(), now())
}

fn call(world: &World) -> Result<Answered, CallError> {
    let target = target(world).unwrap();
    target.call(&user(), vec![input(&[1.0, 2.5])], vec![], &mut Randomness)
}

#[test]
fn an_answer_comes_with_a_verified_receipt() {
    let world = World::with(Lie::None);
    let answered = call(&world).unwrap();
    assert_eq!(answered.tensors[0].to_f32(), Some(vec![2.0, 5.0]));
    assert_eq!(answered.receipt.receipt().package, world.package);
    assert!(
        answered
            .receipt
            .to_string()
            .contains("no hardware protection")
    );
    assert_eq!(answered.feedback.unwrap()["start"], "hot");
    assert_eq!(answered.attempts, 1);
}

#[test]
fn what_reaches_the_gateway_is_sealed() {
    let world = World::with(Lie::None);
    let canary: Vec<f32> = vec![1234.5; 16];
    let sent = target(&world).unwrap();
    sent.call(&user(), vec![input(&canary)], vec![], &mut Randomness)
        .unwrap();
    let seen = world.seen.lock().unwrap();
    let needle = [1234.5_f32.to_le_bytes(), 1234.5_f32.to_le_bytes()].concat();
    assert!(!seen.bodies[0].windows(8).any(|window| window == needle));
}

#[test]
fn every_untruth_of_the_key_service_is_refused_before_anything_is_sealed() {
    type Expected = fn(&TargetError) -> bool;
    let cases: [(Lie, Expected); 6] = [
        (Lie::OtherCode, |e| {
            matches!(e, TargetError::OtherCode { .. })
        }),
        (Lie::OtherPackage, |e| {
            matches!(e, TargetError::OtherPackage { .. })
        }),
        (Lie::OtherAudience, |e| {
            matches!(e, TargetError::OtherAudience { .. })
        }),
        (Lie::OtherService, |e| {
            matches!(e, TargetError::OtherService { .. })
        }),
        (Lie::EndsTooLate, |e| {
            matches!(e, TargetError::EndsTooLate { .. })
        }),
        (Lie::Ended, |e| matches!(e, TargetError::Ended { .. })),
    ];
    for (lie, expected) in cases {
        let world = World::with(lie);
        match target(&world).err() {
            Some(ServiceError::Target(error)) => assert!(expected(&error), "{lie:?}: {error}"),
            other => panic!("{lie:?}: {other:?}"),
        }
        assert_eq!(world.bodies(), 0);
    }
}

#[test]
fn a_service_that_proved_itself_is_remembered_with_its_protection() {
    let world = World::with(Lie::None);
    let home = &world.home;
    let trust = home.create_trust(&world.trust_text).unwrap();
    let service = KeyService::connect(home, &trust, now(), &mut Randomness).unwrap();
    let known = home.known_services().unwrap();
    assert_eq!(known, vec![service.known()]);
    assert_eq!(known[0].principal, service.principal());
    assert!(known[0].simulated && trust.accepts(&known[0]));
}

#[test]
fn code_that_is_not_trusted_is_not_even_asked_for() {
    let world = World::with(Lie::None);
    let trust = world.trust();
    let mut service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    let refused = service
        .target(&world.reference(), &measurement([9; 32]), now())
        .err()
        .unwrap();
    assert!(matches!(
        refused,
        ServiceError::Target(TargetError::CodeNotTrusted { .. })
    ));
}

#[test]
fn a_refusal_of_the_key_service_keeps_its_code_and_sentence() {
    let refused = target(&World::with(Lie::RefusesKey)).err().unwrap();
    assert_eq!(refused.kind(), Kind::Refused);
    let text = refused.to_string();
    assert!(
        text.contains("code-not-granted") && text.contains("ask the owner"),
        "{text}"
    );
}

#[test]
fn a_refusal_under_seal_is_typed() {
    let refused = call(&World::with(Lie::RefusesCall)).unwrap_err();
    let CallError::Refused(refusal) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(refusal.code, "user-not-granted");
    assert_eq!(refused.kind(), Kind::Refused);
}

#[test]
fn an_answer_whose_receipt_does_not_hold_is_withheld() {
    for (lie, check) in [
        (Lie::OtherOutput, "output"),
        (Lie::UncertifiedWorker, "receipt-signature"),
    ] {
        let refused = call(&World::with(lie)).unwrap_err();
        let CallError::ReceiptInvalid(error) = refused else {
            panic!("{lie:?}: {refused}")
        };
        assert!(
            error.failed().any(|failed| failed.name == check),
            "{lie:?}: {error}"
        );
    }
}

/// Both programs of this cast state listed system calls to be in force, and nothing else.
#[test]
fn runtimes_are_asked_for_their_own_hardening_and_the_key_service_for_its() {
    let world = World::with(Lie::None);
    let under = |service: &str, runtimes: &str| {
        let text = &world.trust_text;
        let text = format!("{text}hardening = [{service}]\n[runtimes]\nhardening = [{runtimes}]\n");
        target_under(&world, &Trust::parse(&text).unwrap())
    };
    let (listed, regions) = ("\"listed-system-calls\"", "\"locked-regions\"");
    let called =
        |target: Target| target.call(&user(), vec![input(&[1.0, 2.5])], vec![], &mut Randomness);
    called(under(listed, listed).unwrap()).unwrap();
    let refused = called(under("", regions).unwrap()).unwrap_err();
    let CallError::ReceiptInvalid(error) = refused else {
        panic!("{refused}")
    };
    let failed: Vec<_> = error.failed().map(|failed| failed.name).collect();
    assert_eq!(failed, ["hardening"]);
    assert!(under("\"locked-memory\"", listed).is_err());
}

#[test]
fn altered_and_swapped_answers_do_not_open() {
    assert!(matches!(
        call(&World::with(Lie::AlteredAnswer)),
        Err(CallError::Open(_))
    ));
    let world = World::with(Lie::OtherAnswer);
    call(&world).unwrap();
    assert!(matches!(call(&world), Err(CallError::Open(_))));
}

#[test]
fn a_busy_gateway_is_asked_again_with_a_request_sealed_anew() {
    let world = World::with(Lie::BusyTwice);
    let mut pauses: Vec<Waiting> = Vec::new();
    let options = CallOptions {
        attempts_max: 4,
        waiting: &mut |waiting| pauses.push(waiting.clone()),
        clock: now,
    };
    let target = target(&world).unwrap();
    let answered = target.call_with(
        &user(),
        vec![input(&[3.0])],
        vec![],
        options,
        &mut Randomness,
    );
    assert_eq!(answered.unwrap().attempts, 3);
    assert_eq!(pauses.len(), 2);
    assert_eq!(pauses[0].wait, Duration::from_millis(5));
    let bodies = &world.seen.lock().unwrap().bodies;
    assert_eq!(bodies.len(), 3);
    assert_ne!(bodies[0], bodies[1]);
}

#[test]
fn patience_is_bounded() {
    let world = World::with(Lie::AlwaysBusy);
    let refused = call(&world).unwrap_err();
    assert!(matches!(
        refused,
        CallError::Gateway(GatewayError::Refused {
            status: 503,
            retry_after_ms: Some(5),
            ..
        })
    ));
    assert_eq!(refused.kind(), Kind::Unreachable);
    assert_eq!(world.bodies(), 4);
}

#[test]
fn inputs_that_do_not_fit_never_leave() {
    let world = World::with(Lie::None);
    let target = target(&world).unwrap();
    let call = |inputs, outputs| target.call(&user(), inputs, outputs, &mut Randomness);
    let wrong = input(&[1.0]).renamed("z").unwrap();
    for refused in [
        call(vec![], vec![]),
        call(vec![wrong.clone()], vec![]),
        call(vec![input(&[1.0]), wrong], vec![]),
        call(vec![input(&[1.0]), input(&[1.0])], vec![]),
        call(vec![input(&[1.0])], vec!["nothing".to_owned()]),
    ] {
        assert!(matches!(refused, Err(CallError::Input(_))), "{refused:?}");
    }
    assert_eq!(world.bodies(), 0);
}

#[test]
fn commands_are_signed_for_this_session_and_counted() {
    let world = World::with(Lie::None);
    let trust = world.trust();
    let owner = user();
    let mut service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    assert_eq!(service.inspect().unwrap().grants, 3);
    let grant = Grant {
        id: [1; 16],
        package: PackageSelector::Digest(Digest::of("test package", &[])),
        user: UserSelector::Principal(user().principal()),
        code: CodeSelector::Measurement(runtime_code()),
        requests: None,
        isolation: Isolation::Shared,
        not_before: now(),
        not_after: now().plus(Duration::from_secs(60)),
    };
    service.register(&owner).unwrap();
    service.grant(&owner, &Signed::sign(&owner, grant)).unwrap();
    let seen = world.seen.lock().unwrap();
    let expected = [(owner.principal(), true, 0), (owner.principal(), true, 1)];
    assert_eq!(seen.commands, expected);
}

#[test]
fn a_key_service_that_does_not_meet_the_trust_gives_no_session() {
    let world = World::with(Lie::None);
    let cases = [
        // Other code than trusted.
        world.trust_text.replace(
            &measurement(crate::support::KEYS_CODE).to_string(),
            &runtime_code().to_string(),
        ),
        // A default policy: no software TEE.
        world
            .trust_text
            .replace(
                "profile = \"dev\"\nallow_simulated = true\n",
                "profile = \"cloud\"\n",
            )
            .lines()
            .filter(|line| !line.starts_with("simulated_roots"))
            .map(|line| format!("{line}\n"))
            .collect(),
        // Another key service.
        world.trust_text.replace(
            "[service]",
            &format!("principal = \"{}\"\n[service]", user().principal()),
        ),
    ];
    for text in cases {
        let trust = Trust::parse(&text).unwrap();
        let refused = KeyService::connect(&world.home, &trust, now(), &mut Randomness)
            .err()
            .unwrap();
        assert_eq!(refused.kind(), Kind::Refused, "{refused}");
        let found = verify(&world.home, &trust, now(), &mut Randomness).unwrap();
        assert!(!found.passed());
        assert!(found.with(Outcome::NotChecked).next().is_some());
    }
}

#[test]
fn verify_lists_what_passed_beside_what_failed_and_what_nobody_checked() {
    let world = World::with(Lie::None);
    let found = verify(&world.home, &world.trust(), now(), &mut Randomness).unwrap();
    assert!(found.passed() && found.simulated);
    let outcome = |name: &str| {
        found
            .checks
            .iter()
            .find(|c| c.name == name)
            .unwrap()
            .outcome
    };
    assert_eq!(outcome("measurement"), Outcome::Passed);
    assert_eq!(outcome("report data"), Outcome::Passed);
    assert_eq!(outcome("service identity"), Outcome::NotChecked);

    let other = world.trust_text.replace(
        &measurement(crate::support::KEYS_CODE).to_string(),
        &measurement([9; 32]).to_string(),
    );
    let found = verify(
        &world.home,
        &Trust::parse(&other).unwrap(),
        now(),
        &mut Randomness,
    )
    .unwrap();
    let failed: Vec<_> = found
        .with(Outcome::Failed)
        .map(|check| check.name)
        .collect();
    assert_eq!(failed, ["measurement"]);
    assert!(found.with(Outcome::Passed).count() > 5);
}
