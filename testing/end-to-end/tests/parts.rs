//! Answers in parts, by real processes: the same as whole ones, and never more than what came.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

use bield_end_to_end::{Package, Person, Shared, Stack, noted, numbers};
use bield_envelope::EnvelopeError;
use bield_grant::Isolation;
use bield_package::tensor::ElementType;
use bield_sdk::{
    Answered, CallError, CallOptions, KeyService, Randomness, Target, Tensor, Trust, now,
};

static STACK: Shared<Stack> = Shared::new(Stack::start);

/// One attempt; the outputs that were handed out before their receipt came, and what came of it all.
fn call_in_parts(
    target: &Target,
    user: &Person,
    inputs: Vec<Tensor>,
) -> (Vec<Tensor>, Result<Answered, CallError>) {
    let options = CallOptions {
        attempts_max: 1,
        waiting: &mut |_| {},
        clock: now,
    };
    let mut early = Vec::new();
    let called = target.call_in_parts(
        &user.key,
        inputs,
        Vec::new(),
        options,
        &mut |output| {
            assert_eq!(output.index(), early.len());
            early.push(output.unproven().clone());
        },
        &mut Randomness,
    );
    (early, called)
}

/// A user of a package whose model gives `doubled`, then `inverse`.
fn cast(stack: &Stack, scene: &str) -> (Person, Package) {
    let owner = stack.person(&format!("owner-{scene}")).unwrap();
    let user = stack.person(&format!("user-{scene}")).unwrap();
    let model = noted(bield_fixtures::integer_model(), scene);
    let package = owner.publish(scene, &model).unwrap();
    owner.grant(&package, &user).unwrap();
    (user, package)
}

fn integers() -> Vec<Tensor> {
    let numbers = [3_i64, -4, 5].map(i64::to_le_bytes).concat();
    let mask = vec![1, 0, 1];
    vec![
        Tensor::new("numbers", ElementType::I64, vec![3], numbers).unwrap(),
        Tensor::new("mask", ElementType::Bool, vec![3], mask).unwrap(),
    ]
}

#[test]
fn outputs_come_before_their_receipt_and_are_those_of_a_whole_answer() {
    let stack = STACK.get();
    let (user, package) = cast(&stack, "in-parts");
    let whole = user.call(&package, integers()).unwrap().unwrap();
    assert_eq!(whole.tensors.len(), 2);
    let (early, called) = call_in_parts(&user.target(&package).unwrap(), &user, integers());
    assert_eq!(early, whole.tensors);
    assert_eq!(called.unwrap().tensors, whole.tensors);
}

#[test]
fn a_dedicated_user_gets_no_parts_and_may_ask_for_the_whole() {
    let stack = Stack::start().unwrap();
    let owner = stack.person("owner").unwrap();
    let user = stack.person("dedicated").unwrap();
    let model = bield_end_to_end::tiny_model("dedicated");
    let package = owner.publish("dedicated", &model).unwrap();
    let mut grant = owner.draft(&package, &user);
    grant.isolation = Isolation::Dedicated;
    owner.allow(grant).unwrap();
    let (early, called) = call_in_parts(&user.target(&package).unwrap(), &user, numbers(1));
    assert!(early.is_empty());
    assert_eq!(called.unwrap_err().code(), Some("no-parts"));
    user.call(&package, numbers(1)).unwrap().unwrap();
}

/// What a host does to the chunks of an answer.
type Attack = fn(&mut Vec<Vec<u8>>);

/// A gateway that passes one call on and changes what comes back.
fn altering(
    stack: &Stack,
    user: &Person,
    package: &Package,
    alter: Attack,
) -> (Vec<Tensor>, Result<Answered, CallError>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut trust = stack.trust();
    trust.gateway = format!("http://{}", listener.local_addr().unwrap());
    let trust: Trust = trust.into_trust().unwrap();
    let mut service = KeyService::connect(&user.home, &trust, now(), &mut Randomness).unwrap();
    let reference = bield_sdk::PackageReference::Digest(package.digest);
    let target = service
        .target(&reference, &stack.runtime_code, now())
        .unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut client, _) = listener.accept().unwrap();
            let answer = stack.post(&request(&mut client)).unwrap();
            assert_eq!(answer.status, 200);
            let mut chunks = chunks(&answer.body);
            // Two outputs and an end, each in a chunk of its own.
            assert_eq!(chunks.len(), 4);
            alter(&mut chunks);
            let body = chunks.concat();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            client.write_all(head.as_bytes()).unwrap();
            client.write_all(&body).unwrap();
        });
        call_in_parts(&target, user, integers())
    })
}

/// The body of the request that a client sends.
fn request(client: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let all = end + 4 + length.unwrap().parse::<usize>().unwrap();
            if bytes.len() >= all {
                return bytes[end + 4..all].to_vec();
            }
        }
        let mut buffer = [0; 4096];
        let count = client.read(&mut buffer).unwrap();
        assert!(count > 0, "the request broke off");
        bytes.extend(&buffer[..count]);
    }
}

/// The head of a sealed response and its chunks (spec/01 §7).
fn chunks(sealed: &[u8]) -> Vec<Vec<u8>> {
    let (head, mut rest) = sealed.split_at(37);
    let mut chunks = vec![head.to_vec()];
    while let Some((word, _)) = rest.split_first_chunk() {
        let length = 4 + (u32::from_be_bytes(*word) & !(1 << 31)) as usize;
        chunks.push(rest[..length].to_vec());
        rest = &rest[length..];
    }
    chunks
}

#[test]
fn an_answer_that_a_host_cuts_or_reorders_is_none_whatever_came_of_it() {
    let stack = STACK.get();
    let (user, package) = cast(&stack, "altered-parts");
    let (early, called) = altering(&stack, &user, &package, |_| {});
    assert_eq!((early.len(), called.is_ok()), (2, true), "unchanged");
    let attacks: [(&str, Attack, usize); 7] = [
        ("cut", |chunks| chunks.truncate(3), 2),
        ("cut earlier", |chunks| chunks.truncate(2), 1),
        ("first dropped", |chunks| drop(chunks.remove(1)), 0),
        ("second dropped", |chunks| drop(chunks.remove(2)), 1),
        ("outputs reordered", |chunks| chunks.swap(1, 2), 0),
        ("ended before the last", |chunks| chunks.swap(2, 3), 1),
        ("repeated", |chunks| chunks.insert(2, chunks[1].clone()), 1),
    ];
    for (name, attack, outputs) in attacks {
        let (early, called) = altering(&stack, &user, &package, attack);
        assert_eq!(early.len(), outputs, "{name}");
        match called.unwrap_err() {
            CallError::Open(EnvelopeError::Truncated | EnvelopeError::Altered) => {}
            other => panic!("{name}: {other}"),
        }
    }
}
