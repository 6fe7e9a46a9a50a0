//! Calls of functions: what they give, and states that are set back.

use bield_envelope::{SigningKey, Wiped};
use bield_protocol::function::FailureKind;
use bield_receipt::StateHeads;
use bield_sdk::{
    CallError, FunctionAnswered, FunctionCall, KeyService, Kind, Randomness, SeenState, Target, now,
};

use crate::support::{CAPSULE, Deed, Lie, World, input, runtime_code, state};

fn user() -> SigningKey {
    SigningKey::generate(&mut Randomness)
}

fn target(world: &World) -> Target {
    let trust = world.trust();
    let mut service = KeyService::connect(&world.home, &trust, now(), &mut Randomness).unwrap();
    let target = service.target(&world.reference(), &runtime_code(), now());
    target.unwrap()
}

fn question(seen: Option<StateHeads>) -> FunctionCall {
    FunctionCall {
        path: "/add".to_owned(),
        content_type: "text/plain".to_owned(),
        body: Wiped::from(b"pen".to_vec()),
        seen,
    }
}

fn call(world: &World, seen: Option<StateHeads>) -> Result<FunctionAnswered, CallError> {
    target(world).call_function(&user(), question(seen), &mut Randomness)
}

fn failed(error: &CallError) -> Vec<&'static str> {
    match error {
        CallError::ReceiptInvalid(error) => error.failed().map(|check| check.name).collect(),
        error => panic!("{error}"),
    }
}

#[test]
fn a_function_gives_a_body_and_the_state_that_it_left() {
    let world = World::with(Lie::Function(Deed::Honest));
    let mut seen = None;
    for calls in 1..4 {
        let answered = call(&world, seen).unwrap_or_else(|error| panic!("{error}"));
        let response = answered.outcome.unwrap_or_else(|_| panic!("refused"));
        assert_eq!(
            (&*response.content_type, &response.body[..]),
            ("text/plain", &b"pen"[..])
        );
        let left = SeenState {
            capsule: CAPSULE,
            heads: state(calls),
        };
        assert_eq!(answered.state.as_ref(), Some(&left));
        assert_eq!(answered.bundle.state.as_ref(), Some(&left.heads));
        let span = answered.receipt.receipt().state.unwrap();
        assert_eq!(span.before, state(calls - 1).digest());
        seen = Some(left.heads);
    }
}

#[test]
fn a_state_that_was_set_back_is_withheld_although_the_runtime_signed_it() {
    let world = World::with(Lie::Function(Deed::SetBack));
    let first = call(&world, None).unwrap_or_else(|error| panic!("{error}"));
    let seen = first.state.unwrap().heads;
    assert_eq!(
        failed(&call(&world, Some(seen)).err().unwrap()),
        ["state-seen"]
    );
}

#[test]
fn a_function_without_state_has_none_and_one_that_had_some_has_it_again() {
    let world = World::with(Lie::Function(Deed::Stateless));
    let answered = call(&world, None).unwrap_or_else(|error| panic!("{error}"));
    assert!(answered.state.is_none());
    assert_eq!(
        failed(&call(&world, Some(state(1))).err().unwrap()),
        ["state-seen"]
    );
}

#[test]
fn an_answer_without_the_token_of_its_state_or_with_another_is_withheld() {
    let world = World::with(Lie::Function(Deed::NoToken));
    assert!(matches!(call(&world, None), Err(CallError::Malformed(_))));
    let world = World::with(Lie::Function(Deed::OtherToken));
    assert_eq!(failed(&call(&world, None).err().unwrap()), ["state"]);
}

#[test]
fn a_function_that_refuses_has_a_receipt_for_it() {
    let world = World::with(Lie::Function(Deed::Refuses));
    let answered = call(&world, None).unwrap_or_else(|error| panic!("{error}"));
    let failure = answered.outcome.err().unwrap();
    assert_eq!(
        (failure.kind, &*failure.message),
        (FailureKind::Conflict, "sold out")
    );
    assert_eq!(answered.receipt.receipt().package, world.package);
}

#[test]
fn a_function_is_not_called_as_a_model_nor_a_model_as_a_function() {
    let function = World::with(Lie::Function(Deed::Honest));
    let target = target(&function);
    assert!(target.is_function());
    let refused = target.call(&user(), vec![input(&[1.0])], vec![], &mut Randomness);
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), Kind::Local);
    assert!(refused.to_string().contains("is a function"), "{refused}");
    let model = World::with(Lie::None);
    let refused = call(&model, None).err().unwrap();
    assert!(refused.to_string().contains("is a model"), "{refused}");
    let bad = FunctionCall {
        path: "add".to_owned(),
        ..question(None)
    };
    let refused = target.call_function(&user(), bad, &mut Randomness);
    assert_eq!(refused.err().unwrap().kind(), Kind::Local);
    assert_eq!(function.bodies() + model.bodies(), 0, "nothing was sent");
}
