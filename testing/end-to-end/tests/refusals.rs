//! Bad requests by people and bad bytes by anyone: a typed refusal, and the next good request works.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bield_end_to_end::{Letter, Package, Person, Shared, Stack, numbers, tiny_model};
use bield_protocol::refusal::Retry;
use bield_sdk::{CallError, ServiceError, Tensor, now};

static STACK: Shared<Stack> = Shared::new(Stack::start);

const HOUR: Duration = Duration::from_secs(3600);

fn answers(user: &Person, package: &Package) {
    user.call(package, numbers(1)).unwrap().unwrap();
}

/// The short name of the refusal that a call met under seal.
fn refused(user: &Person, package: &Package) -> String {
    match user.call(package, numbers(1)).unwrap().unwrap_err() {
        CallError::Refused(refusal) => refusal.code,
        other => panic!("{other}"),
    }
}

fn service_refuses<T>(outcome: Result<T, ServiceError>) -> String {
    match outcome.err() {
        Some(ServiceError::Refused(refusal)) => refusal.code,
        Some(other) => panic!("{other}"),
        None => panic!("not refused"),
    }
}

#[test]
fn a_user_without_a_grant_is_refused_under_seal() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("without-grant").unwrap();
    let stranger = stack.person("stranger").unwrap();
    let error = stranger.call(&package, numbers(1)).unwrap().unwrap_err();
    let CallError::Refused(refusal) = error else {
        panic!("{error}");
    };
    assert_eq!(refusal.code, "user-not-granted");
    assert_eq!(refusal.retry, Retry::AfterChange);
    assert!(
        refusal.message.contains(&stranger.principal().to_string()),
        "{refusal}"
    );
    answers(&user, &package);
}

#[test]
fn an_unknown_package_has_no_key_configuration() {
    let stack = STACK.get();
    let (owner, user, known) = stack.cast("known").unwrap();
    let unknown = owner.pack("unknown", &tiny_model("unknown")).unwrap();
    let code = service_refuses(user.target(&unknown));
    assert!(
        code.contains("unknown") || code.contains("package"),
        "{code}"
    );
    answers(&user, &known);
}

#[test]
fn a_grant_by_somebody_else_than_the_owner_changes_nothing() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("not-owner").unwrap();
    let thief = stack.person("thief").unwrap();
    thief.service().unwrap().register(&thief.key).unwrap();
    let code = service_refuses(thief.grant(&package, &thief));
    assert!(code.contains("owner"), "{code}");
    assert_eq!(refused(&thief, &package), "user-not-granted");
    answers(&user, &package);
}

#[test]
fn an_expired_grant_and_one_that_has_not_begun_are_refused() {
    let stack = STACK.get();
    let (owner, user, package) = stack.cast("windows").unwrap();
    let (early, late) = (
        stack.person("early").unwrap(),
        stack.person("late").unwrap(),
    );
    let soon = now().plus(Duration::from_secs(2));
    let (shortly, later) = (now().plus(Duration::from_secs(300)), now().plus(HOUR));
    owner
        .grant_for(&package, &late, now().minus(HOUR), soon)
        .unwrap();
    owner.grant_for(&package, &early, shortly, later).unwrap();
    answers(&late, &package);
    assert_eq!(refused(&early, &package), "grant-not-yet-valid");
    std::thread::sleep(soon.since(now()) + Duration::from_millis(50));
    assert_eq!(refused(&late, &package), "grant-expired");
    answers(&user, &package);
}

#[test]
fn inputs_that_the_model_does_not_take_are_refused_before_and_after_sealing() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("inputs").unwrap();
    let values = [0.5; 5];
    let inputs: [(&str, Vec<Tensor>); 4] = [
        (
            "name",
            vec![Tensor::from_f32("inptu", &[1, 4], &values[..4]).unwrap()],
        ),
        (
            "shape",
            vec![Tensor::from_f32("input", &[1, 5], &values).unwrap()],
        ),
        (
            "type",
            vec![Tensor::from_i32("input", &[1, 4], &[1; 4]).unwrap()],
        ),
        ("number", Vec::new()),
    ];
    for (wrong, inputs) in inputs {
        // The SDK does not send it.
        let error = user.call(&package, inputs.clone()).unwrap().unwrap_err();
        let told = matches!(&error, CallError::Input(why) if why.contains("input"));
        assert!(told, "wrong {wrong}: {error}");
        // Somebody without the SDK does.
        let to = user.key_configuration(&package).unwrap();
        let letter = Letter::seal(&to, &user.key, inputs, now()).unwrap();
        let answer = stack.post(&letter.bytes).unwrap();
        let refusal = letter.open(&answer).unwrap().unwrap_err();
        assert_eq!(refusal.code, "input-mismatch", "wrong {wrong}: {refusal}");
    }
    answers(&user, &package);
}

#[test]
fn the_same_bytes_are_answered_once() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("replays").unwrap();
    let to = user.key_configuration(&package).unwrap();
    let letter = Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
    let first = stack.post(&letter.bytes).unwrap();
    let again = stack.post(&letter.bytes).unwrap();
    // Both come back sealed, so a host cannot tell; only one of them ran the model.
    assert!(first.feedback["run_us"].as_u64().unwrap() > 0);
    assert_eq!(again.feedback["run_us"], 0);
    let refusal = letter.open(&again).unwrap().unwrap_err();
    assert_eq!(refusal.code, "replayed");
    answers(&user, &package);
}

#[test]
fn a_request_from_another_time_is_refused() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("times").unwrap();
    let to = user.key_configuration(&package).unwrap();
    for (created, code) in [(now().minus(HOUR), "stale"), (now().plus(HOUR), "early")] {
        let letter = Letter::seal(&to, &user.key, numbers(1), created).unwrap();
        let answer = stack.post(&letter.bytes).unwrap();
        assert_eq!(letter.open(&answer).unwrap().unwrap_err().code, code);
    }
    answers(&user, &package);
}

#[test]
fn a_request_with_a_flipped_byte_is_never_answered() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("flips").unwrap();
    answers(&user, &package);
    let to = user.key_configuration(&package).unwrap();
    let letter = Letter::seal(&to, &user.key, numbers(1), now()).unwrap();
    let length = letter.bytes.len();
    let sampled = (0..16).chain((16..length).step_by(31)).chain([length - 1]);
    for at in sampled {
        let mut flipped = letter.bytes.clone();
        flipped[at] ^= 0x10;
        let answer = stack.post(&flipped).unwrap();
        assert_ne!(answer.status, 200, "byte {at}: {answer:?}");
        assert!(!answer.message().is_empty(), "byte {at}: {answer:?}");
    }
    for cut in [0, 1, length / 2, length - 1] {
        let answer = stack.post(&letter.bytes[..cut]).unwrap();
        assert_eq!(answer.status, 400, "{cut} bytes: {answer:?}");
    }
    // None of this used the request up: as it was sealed it is good.
    let answer = stack.post(&letter.bytes).unwrap();
    letter.open(&answer).unwrap().unwrap();
}

#[test]
fn a_request_sealed_by_another_sender_in_the_users_name_is_refused() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("senders").unwrap();
    let stranger = stack.person("pretender").unwrap();
    let to = user.key_configuration(&package).unwrap();
    let letter = Letter::seal(&to, &stranger.key, numbers(1), now()).unwrap();
    let answer = stack.post(&letter.bytes).unwrap();
    assert_eq!(
        letter.open(&answer).unwrap().unwrap_err().code,
        "user-not-granted"
    );
    answers(&user, &package);
}

#[test]
fn what_is_not_sealed_or_too_long_is_refused_with_a_sentence() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("unsealed").unwrap();
    let unsealed = stack.post(br#"{"input": [[1, 2, 3, 4]]}"#).unwrap();
    assert_eq!(
        (unsealed.status, unsealed.code().as_str()),
        (400, "unsealed")
    );
    assert!(unsealed.message().contains("bield call"), "{unsealed:?}");

    let long = stack.post(&vec![0x62; (64 << 20) + 1]).unwrap();
    assert_eq!((long.status, long.code().as_str()), (413, "too-long"));
    assert!(long.message().contains("64 MiB"), "{long:?}");
    answers(&user, &package);
}

#[test]
fn garbage_and_silence_at_the_key_services_port_keep_nobody_out() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("garbage").unwrap();
    let port = || {
        let stream = TcpStream::connect(user.trust.key_service()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
    };
    let silent: Vec<_> = (0..50).map(|_| port()).collect();
    let random_bytes = numbers(64)[0].data().to_vec();
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 512],
        &[0x16; 512],
        &random_bytes,
    ];
    for garbage in garbage {
        let mut stream = port();
        stream.write_all(garbage).unwrap();
        // It is closed, perhaps after a TLS alert; never left waiting, never an answer.
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.len() < 64, "{said:?}");
    }
    let mut service = user.service().unwrap();
    assert!(service.inspect().unwrap().packages > 0);
    answers(&user, &package);
    drop(silent);
}
