//! The main path: somebody owns, somebody else asks, and the answer can be checked by a third.

use bield_end_to_end::{Shared, Stack, numbers, tiny_model};
use bield_evidence::{HardeningDemand, Reference};
use bield_receipt::{Anchor, Expected, ReceiptBundle};
use bield_sdk::{Randomness, now};

static STACK: Shared<Stack> = Shared::new(Stack::start);

#[test]
fn a_sealed_call_is_answered_with_a_receipt_that_checks() {
    let stack = STACK.get();
    let (owner, user) = (
        stack.person("owner").unwrap(),
        stack.person("user").unwrap(),
    );
    let package = owner.publish("answers", &tiny_model("answers")).unwrap();
    let grant = owner.grant(&package, &user).unwrap();

    let target = user.target(&package).unwrap();
    assert_eq!(target.owner(), owner.principal());
    assert_eq!(target.name(), "answers");
    let call = || target.call(&user.key, numbers(3), Vec::new(), &mut Randomness);
    let first = call().unwrap();

    assert_eq!(first.tensors.len(), 1);
    assert_eq!(first.tensors[0].name(), "probs");
    assert_eq!(first.tensors[0].shape(), [3, 3]);
    for row in first.tensors[0].to_f32().unwrap().chunks(3) {
        let sum: f32 = row.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{row:?}");
    }
    let receipt = first.receipt.receipt();
    assert_eq!(receipt.package, package.digest);
    assert_eq!(receipt.code, stack.runtime_code);
    assert_eq!(receipt.grant, grant.digest());
    assert!(receipt.simulated && first.receipt.simulated());
    assert_eq!(first.feedback.as_ref().unwrap()["start"], "cold");

    let second = call().unwrap();
    assert_eq!(second.feedback.as_ref().unwrap()["start"], "hot");
    assert_ne!(second.receipt.receipt().request, receipt.request);
}

#[test]
fn a_receipt_is_verified_again_from_its_bytes_without_the_deployment() {
    let stack = STACK.get();
    let (owner, user) = (
        stack.person("owner-2").unwrap(),
        stack.person("user-2").unwrap(),
    );
    let package = owner.publish("kept", &tiny_model("kept")).unwrap();
    owner.grant(&package, &user).unwrap();
    let answered = user.call(&package, numbers(1)).unwrap().unwrap();
    let request = answered.receipt.receipt().request;
    let kept = user.home.keep_receipt(request, &answered.bundle).unwrap();
    let service = user.service().unwrap().principal();
    let code = Reference::Listed(vec![stack.runtime_code.clone()]);
    drop(stack);

    let bytes = std::fs::read(&kept).unwrap_or_else(|_| answered.bundle.encode());
    let bundle = ReceiptBundle::decode(&bytes).unwrap();
    let anchor = Anchor {
        service,
        code,
        allow_simulated: true,
        hardening: HardeningDemand::exactly(HardeningDemand::GUEST),
    };
    let expected = Expected {
        request: Some(request),
        package: Some(package.digest),
        output: None,
        ..Expected::default()
    };
    bield_receipt::verify(&bundle, &anchor, expected, now()).unwrap();

    let strict = Anchor {
        allow_simulated: false,
        ..anchor
    };
    let refused = bield_receipt::verify(&bundle, &strict, expected, now()).unwrap_err();
    let failed: Vec<_> = refused.failed().map(|check| check.name).collect();
    assert_eq!(failed, ["hardware"]);
}

#[test]
fn a_grant_made_after_a_refusal_is_seen_by_the_running_runtime() {
    let stack = STACK.get();
    let (owner, user) = (
        stack.person("owner-3").unwrap(),
        stack.person("user-3").unwrap(),
    );
    let late = stack.person("late").unwrap();
    let package = owner.publish("later", &tiny_model("later")).unwrap();
    owner.grant(&package, &user).unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
    late.call(&package, numbers(1)).unwrap().unwrap_err();

    owner.grant(&package, &late).unwrap();
    late.call(&package, numbers(1)).unwrap().unwrap();
}

#[test]
fn many_callers_of_two_packages_at_once_all_get_their_own_answers() {
    let stack = STACK.get();
    let casts = ["one", "two"].map(|scene| stack.cast(scene).unwrap());
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (_, user, package) = &casts[caller % 2];
            scope.spawn(move || {
                let batch = caller as u64 + 1;
                let answered = user.call(package, numbers(batch)).unwrap().unwrap();
                assert_eq!(answered.tensors[0].shape(), [batch, 3]);
                assert_eq!(answered.receipt.receipt().package, package.digest);
            });
        }
    });
}

#[test]
fn status_and_evidence_name_the_measured_programs() {
    let stack = STACK.get();
    let user = stack.person("curious").unwrap();
    let status = bield_sdk::Gateway::new(&stack.url()).status().unwrap();
    let measurement = |program: &serde_json::Value| program["report"]["measurement"].clone();
    assert_eq!(
        measurement(&status["key_service"]),
        stack.keys_code.to_string()
    );
    assert_eq!(
        measurement(&status["workers"][0]),
        stack.runtime_code.to_string()
    );
    assert_eq!(status["workers"][0]["report"]["simulated"], true);

    let service = user.service().unwrap();
    assert_eq!(*service.appraised().measurement(), stack.keys_code);
    let verified = bield_sdk::verify(&user.home, &user.trust, now(), &mut Randomness).unwrap();
    assert!(
        verified.passed() && verified.simulated,
        "{:#?}",
        verified.checks
    );
}
