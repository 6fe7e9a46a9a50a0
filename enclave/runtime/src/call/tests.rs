//! One call at a time, with the real engine and a tiny real model; key service and host are played.

use std::sync::atomic::{AtomicBool, Ordering};

use bield_engine::{Engine, EngineError, Model, Rten};
use bield_envelope::{ResponseOpener, Seeded, Signed};
use bield_grant::Isolation;
use bield_package::ModelFormat;
use bield_package::tensor::Tensor;
use bield_protocol::feedback::{Feedback, StartKind};
use bield_protocol::inference::Output;
use bield_protocol::refusal::Retry;
use bield_receipt::{Anchor, Expected, ExpectedOutput, ReceiptBundle};
use rand_core::Rng as _;

use super::*;
use crate::leases::KeysError;
use crate::testing::{Shelf, Stage, package, unreachable};

mod findings;
mod held;
mod isolation;
mod leases;
mod parts;
mod together;
mod traces;
mod waiting;

const MIB: u64 = 1 << 20;

fn stage() -> (Stage, Runtime) {
    let stage = Stage::new(Shelf::stocked());
    let runtime = stage.runtime(Rten::new(1), 64 * MIB);
    (stage, runtime)
}

/// The opened answer, and how warm the start was.
fn answered(runtime: &Runtime, call: (Vec<u8>, ResponseOpener)) -> (inference::Reply, StartKind) {
    let (sealed, opener) = call;
    match runtime.answer(&sealed, &|| false) {
        Reply::Sealed(feedback, answer) => {
            let plain = opener.open(&answer).unwrap();
            (inference::Reply::decode(&plain).unwrap(), feedback.start)
        }
        other => panic!("not sealed: {other:?}"),
    }
}

fn refused(runtime: &Runtime, call: (Vec<u8>, ResponseOpener)) -> Refusal {
    match answered(runtime, call).0 {
        inference::Reply::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn start_of(runtime: &Runtime, call: (Vec<u8>, ResponseOpener)) -> StartKind {
    match answered(runtime, call) {
        (inference::Reply::Answered(_), start) => start,
        (other, _) => panic!("not answered: {other:?}"),
    }
}

fn turned_down(runtime: &Runtime, sealed: &[u8]) -> Unsealed {
    match runtime.answer(sealed, &|| false) {
        Reply::Unsealed(_, unsealed) => unsealed,
        other => panic!("not unsealed: {other:?}"),
    }
}

#[test]
fn a_granted_request_is_answered_with_a_receipt_that_verifies() {
    let (stage, runtime) = stage();
    let (sealed, opener) = stage.cast.request(stage.package, 1);
    let request = opener.request();
    let (inference::Reply::Answered(answer), _) = answered(&runtime, (sealed, opener)) else {
        panic!("refused");
    };
    let output = answer.output().unwrap();
    assert_eq!(output.tensors[0].name(), "probs");
    assert_eq!(output.tensors[0].shape(), [1, 3]);

    let bundle = ReceiptBundle::new(answer.receipt.clone(), answer.certificate.clone(), None);
    let mut anchor = Anchor::new(stage.cast.service.principal());
    anchor.allow_simulated = true;
    let expected = Expected {
        request: Some(request),
        package: Some(stage.package),
        output: Some(ExpectedOutput {
            salt: &answer.salt,
            output: &answer.output,
        }),
        ..Expected::default()
    };
    bield_receipt::verify(&bundle, &anchor, expected, bield_platform::now()).unwrap();
}

#[test]
fn the_feedback_says_what_was_there_already() {
    let (mut stage, runtime) = stage();
    let lasts = stage.service.mind().lasts;
    let call = |stage: &Stage, id| stage.cast.request(stage.package, id);
    assert_eq!(start_of(&runtime, call(&stage, 1)), StartKind::Cold);
    stage.pass(lasts);
    assert_eq!(start_of(&runtime, call(&stage, 2)), StartKind::WarmModel);
    assert_eq!(start_of(&runtime, call(&stage, 3)), StartKind::Hot);
    // Everything that is idle makes room for the largest model that fits.
    drop(
        runtime
            .models
            .reserve(32 * MIB, 64 * MIB, Duration::ZERO)
            .unwrap(),
    );
    assert_eq!(start_of(&runtime, call(&stage, 4)), StartKind::WarmKey);
    assert_eq!(stage.service.mind().fetches, 2);
}

#[test]
fn what_is_no_request_is_turned_down_before_any_key_is_fetched() {
    let (stage, runtime) = stage();
    let (sealed, _) = stage.cast.request(stage.package, 1);
    for bytes in [&b""[..], b"bldq", &sealed[..sealed.len() / 2], &[0; 4096]] {
        assert_eq!(turned_down(&runtime, bytes).code, "malformed");
    }
    assert_eq!(stage.service.mind().fetches, 0);
}

#[test]
fn a_request_for_other_code_is_turned_down_with_this_code_named() {
    let (stage, mut runtime) = stage();
    let (sealed, _) = stage.cast.request(stage.package, 1);
    start_of(&runtime, stage.cast.request(stage.package, 2));
    runtime.code = crate::testing::code(2);
    let refusal = turned_down(&runtime, &sealed);
    assert_eq!(refusal.code, "not-opened");
    assert!(refusal.message.contains(&runtime.code.to_string()));
}

#[test]
fn altered_bytes_do_not_open_and_the_next_request_works() {
    let (stage, runtime) = stage();
    let (mut sealed, _) = stage.cast.request(stage.package, 1);
    *sealed.last_mut().unwrap() ^= 1;
    assert_eq!(turned_down(&runtime, &sealed).code, "not-opened");
    start_of(&runtime, stage.cast.request(stage.package, 2));
}

#[test]
fn a_user_without_a_grant_is_refused_under_seal_and_a_new_grant_works_at_once() {
    let (stage, runtime) = stage();
    stage.service.mind().grants = Some(Vec::new());
    let refusal = refused(&runtime, stage.cast.request(stage.package, 1));
    assert_eq!(refusal.code, "code-not-granted");
    assert_eq!(
        runtime.models.counts().resident,
        0,
        "nothing was loaded for it"
    );

    stage.service.mind().grants = None;
    let start = start_of(&runtime, stage.cast.request(stage.package, 2));
    assert_eq!(start, StartKind::Cold);
    let stranger = SigningKey::generate(&mut Seeded::new(99));
    let call = stage.cast.seal(&stranger, stage.package, 3, b"");
    assert_eq!(refused(&runtime, call).code, "user-not-granted");
    assert_eq!(
        start_of(&runtime, stage.cast.request(stage.package, 4)),
        StartKind::Hot
    );
}

#[test]
fn the_same_bytes_are_not_answered_twice() {
    let (stage, runtime) = stage();
    let request = || stage.cast.request(stage.package, 1);
    assert_eq!(request().0, request().0);
    start_of(&runtime, request());
    assert_eq!(refused(&runtime, request()).code, "replayed");
}

#[test]
fn keys_that_are_refused_or_out_of_reach_are_told_apart() {
    let (stage, runtime) = stage();
    let (sealed, _) = stage.cast.request(stage.package, 1);
    stage.service.mind().fails = Some(KeysError::NotGranted);
    let refusal = turned_down(&runtime, &sealed);
    assert_eq!(
        (refusal.code.as_str(), refusal.retry_after_ms),
        ("no-lease", None)
    );
    assert!(refusal.message.contains(": not-granted;"));
    let (sealed, _) = stage.cast.request(package(9), 1);
    stage.service.mind().fails = Some(unreachable());
    let refusal = turned_down(&runtime, &sealed);
    assert_eq!(refusal.code, "key-service-unreachable");
    assert!(refusal.retry_after_ms.is_some());
}

#[test]
fn a_bad_package_is_refused_under_seal_and_a_good_one_works_afterwards() {
    let (stage, runtime) = stage();
    let good = lock(&stage.shelf).bytes.clone();
    let chunk = lock(&stage.shelf).offset_of_chunk(1);
    let mut call = 0;
    let mut with = |bytes: Vec<u8>| {
        call += 1;
        lock(&stage.shelf).bytes = bytes;
        refused(&runtime, stage.cast.request(stage.package, call))
    };
    assert_eq!(with(Vec::new()).code, "package-missing");
    let mut tampered = good.clone();
    tampered[chunk + 20] ^= 1;
    let refusal = with(tampered);
    assert_eq!(refusal.code, "package-damaged");
    assert!(refusal.message.contains("chunk 1 of"), "{refusal}");
    assert_eq!(
        with(good[..good.len() - 1].to_vec()).code,
        "package-damaged"
    );
    assert_eq!(with(Shelf::misrecorded().bytes).code, "package-foreign");
    lock(&stage.shelf).bytes = good;
    assert_eq!(
        start_of(&runtime, stage.cast.request(stage.package, 9)),
        StartKind::WarmKey
    );
}

#[test]
fn a_model_whose_golden_pairs_differ_never_serves() {
    let stage = Stage::new(Shelf::misrecorded());
    let runtime = stage.runtime(Rten::new(1), 64 * MIB);
    for id in 1..3 {
        let refusal = refused(&runtime, stage.cast.request(stage.package, id));
        assert_eq!(refusal.code, "golden-mismatch");
    }
    assert_eq!(runtime.models.counts().resident, 0);
}

#[test]
fn a_model_that_does_not_fit_is_refused_before_memory_is_spent() {
    let stage = Stage::new(Shelf::stocked());
    let runtime = stage.runtime(Rten::new(1), 100);
    let refusal = refused(&runtime, stage.cast.request(stage.package, 1));
    assert_eq!(refusal.code, "model-too-large");
}

#[test]
fn wrong_inputs_are_refused_by_name_and_shape_and_never_by_value() {
    let (stage, runtime) = stage();
    let wrong = inference::Request {
        inputs: vec![Tensor::from_f32("input", &[1, 2], &[1234.5, 6789.5]).unwrap()],
        outputs: Vec::new(),
    };
    let call = stage
        .cast
        .seal(&stage.cast.user, stage.package, 1, &wrong.encode());
    let refusal = refused(&runtime, call);
    assert_eq!(refusal.code, "input-mismatch");
    assert!(refusal.message.contains("input"), "{refusal}");
    assert!(!refusal.message.contains("1234") && !refusal.message.contains("6789"));
    let call = stage
        .cast
        .seal(&stage.cast.user, stage.package, 2, b"not cbor at all");
    assert_eq!(refused(&runtime, call).code, "malformed-body");
    start_of(&runtime, stage.cast.request(stage.package, 3));
}

/// Panics at its first load.
struct Stumbling(AtomicBool, Rten);

impl Engine for Stumbling {
    fn name(&self) -> &'static str {
        "stumbling"
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        assert!(self.0.swap(true, Ordering::SeqCst), "on purpose");
        self.1.load(bytes, format)
    }
}

#[test]
fn a_panic_is_a_refusal_of_one_request_under_seal() {
    let stage = Stage::new(Shelf::stocked());
    let engine = Stumbling(AtomicBool::new(false), Rten::new(1));
    let runtime = stage.runtime(engine, 64 * MIB);
    assert_eq!(
        refused(&runtime, stage.cast.request(stage.package, 1)).code,
        "internal"
    );
    assert_eq!(
        start_of(&runtime, stage.cast.request(stage.package, 2)),
        StartKind::WarmKey
    );
    assert_eq!(runtime.models.names(9), [stage.package]);
}

#[test]
fn another_package_than_the_lease_names_is_not_served() {
    let (stage, runtime) = stage();
    // The shelf serves its one package under any name.
    let refusal = refused(&runtime, stage.cast.request(package(9), 1));
    assert_eq!(refusal.code, "package-foreign");
}
