//! A host that swaps code or packages gets no keys and no answers.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;

use bield_end_to_end::{Letter, Package, Person, Shared, Stack, numbers, post, tiny_model};
use bield_envelope::AudienceKey;
use bield_protocol::refusal::Refusal;
use bield_sdk::{CallError, Randomness, ServiceError, now};

static STACK: Shared<Stack> = Shared::new(Stack::start);

fn refused(user: &Person, package: &Package) -> Refusal {
    match user.call(package, numbers(1)).unwrap().unwrap_err() {
        CallError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

/// Refused while the stored file is `altered`, answered once the owner's file is back.
fn refused_while(
    stack: &Stack,
    scene: &str,
    altered: impl FnOnce(&Package, &mut Vec<u8>),
) -> Refusal {
    let (_, user, package) = stack.cast(scene).unwrap();
    let mut bytes = fs::read(&package.file).unwrap();
    altered(&package, &mut bytes);
    fs::write(stack.stored(&package), bytes).unwrap();
    let refusal = refused(&user, &package);
    fs::copy(&package.file, stack.stored(&package)).unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
    refusal
}

#[test]
fn a_package_with_a_flipped_byte_is_refused_naming_the_chunk() {
    let stack = STACK.get();
    let refusal = refused_while(&stack, "flipped", |package, bytes| {
        // Into the second chunk: 256 bytes, a tag and a frame are less than 400.
        bytes[package.head_bytes as usize + 400] ^= 1;
    });
    assert_eq!(refusal.code, "package-damaged");
    assert!(refusal.message.contains("chunk 1 of "), "{refusal}");
}

#[test]
fn a_package_cut_short_is_refused_naming_the_chunk() {
    let stack = STACK.get();
    let mut last = 0;
    let refusal = refused_while(&stack, "cut", |_, bytes| {
        last = bield_package::PackageHead::read(&mut bytes.as_slice())
            .unwrap()
            .header()
            .chunk_count
            - 1;
        bytes.pop();
    });
    assert_eq!(refusal.code, "package-damaged");
    assert!(
        refusal
            .message
            .contains(&format!("inside chunk {last} of ")),
        "{refusal}"
    );
}

#[test]
fn a_package_with_more_at_its_end_is_refused() {
    let stack = STACK.get();
    let refusal = refused_while(&stack, "longer", |_, bytes| bytes.push(0));
    assert_eq!(refusal.code, "package-damaged");
}

#[test]
fn a_missing_package_is_refused_naming_whose_move_it_is() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("missing").unwrap();
    fs::remove_file(stack.stored(&package)).unwrap();
    let refusal = refused(&user, &package);
    assert_eq!(refusal.code, "package-missing");
    assert!(refusal.message.contains("operator"), "{refusal}");
    fs::copy(&package.file, stack.stored(&package)).unwrap();
    user.call(&package, numbers(1)).unwrap().unwrap();
}

#[test]
fn another_package_under_the_digest_is_refused() {
    let stack = STACK.get();
    let (owner, user, package) = stack.cast("swapped").unwrap();
    // Of the same owner, with the same model, and as genuine as the one asked for.
    let other = owner.publish("swapped-in", &tiny_model("swapped")).unwrap();
    owner.grant(&other, &user).unwrap();
    fs::copy(&other.file, stack.stored(&package)).unwrap();
    assert_eq!(refused(&user, &package).code, "package-foreign");
    user.call(&other, numbers(1)).unwrap().unwrap();
}

#[test]
fn a_runtime_with_another_configuration_gets_no_keys() {
    let stack = STACK.get();
    let (_, user, package) = stack.cast("other-code").unwrap();
    let (other, code) = stack.gateway_with_other_runtime().unwrap();
    assert_ne!(code, stack.runtime_code);

    // A user who trusts it all the same gets no key to seal with: the owner did not grant it.
    let mut trust = stack.trust();
    trust.code.push(code.clone());
    let trust = trust.into_trust().unwrap();
    let mut service =
        bield_sdk::KeyService::connect(&user.home, &trust, now(), &mut Randomness).unwrap();
    let reference = bield_sdk::PackageReference::Digest(package.digest);
    match service.target(&reference, &code, now()).err() {
        Some(ServiceError::Refused(refusal)) => {
            assert_eq!(refusal.code, "code-not-granted");
            assert!(refusal.message.contains(&code.to_string()), "{refusal}");
        }
        other => panic!("{:?}", other.map(|error| error.to_string())),
    }

    // A request for the granted code, and one made up for the other code: either makes the other runtime ask for
    // keys. Outside, every reason is `not-granted`.
    let granted = user.key_configuration(&package).unwrap();
    let mut made_up = granted.clone();
    made_up.key = AudienceKey::generate(&mut Randomness).public().clone();
    made_up.audience = bield_grant::audience(package.digest, &code);
    made_up.code.measurement = code;
    for to in [&granted, &made_up] {
        let letter = Letter::seal(to, &user.key, numbers(1), now()).unwrap();
        let mut answer = post(&other.url, &letter.bytes).unwrap();
        if let Some(secs) = answer.retry_after {
            // It asked moments ago, and does not ask again at once.
            std::thread::sleep(std::time::Duration::from_secs(secs));
            answer = post(&other.url, &letter.bytes).unwrap();
        }
        let (status, reason) = (answer.status, answer.code());
        assert_eq!((status, reason.as_str()), (400, "no-lease"), "{answer:?}");
        assert!(answer.message().contains(": not-granted;"), "{answer:?}");
    }
    // The granted runtime does not open what is sealed for the other, and says which code it is.
    let letter = Letter::seal(&made_up, &user.key, numbers(1), now()).unwrap();
    let answer = stack.post(&letter.bytes).unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (400, "not-opened"));
    let own = stack.runtime_code.to_string();
    assert!(answer.message().contains(&own), "{answer:?}");

    user.call(&package, numbers(1)).unwrap().unwrap();
}
