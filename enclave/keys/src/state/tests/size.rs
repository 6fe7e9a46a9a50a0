//! How large the state is, by its snapshot; a process's memory is for the bench to measure.

use bield_envelope::Signed;
use bield_grant::{Grant, UserSelector};
use bield_protocol::service::Operation;

use crate::service::cast::{Scene, grant, key, limits, principal, root};
use crate::state::{Entry, State};

#[test]
fn a_grant_takes_under_400_bytes_of_a_snapshot() {
    let (scene, package) = Scene::with_package();
    let before = scene.desk.state().to_bytes();
    let mut state = State::decode(&before, root(), limits()).unwrap();
    let count = 1000;
    for number in 0..count {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&u64::to_be_bytes(number));
        let says = Grant {
            id,
            user: UserSelector::Principal(principal((number % 250) as u8)),
            ..grant(0, package)
        };
        let signed = Signed::sign(&key(1), says).into_signed();
        state
            .apply(&Entry::Granted(signed), 100 + number, scene.now)
            .unwrap();
    }
    let bytes = state.to_bytes();
    let each = (bytes.len() - before.len()) as u64 / count;
    assert!(each < 400, "{each} bytes a grant");
    let again = State::decode(&bytes, root(), limits()).unwrap();
    assert_eq!(again.counts().grants, count);
}

/// `cargo test -p bield-keys --release -- --ignored --nocapture a_million`
#[test]
#[ignore = "a minute and 1.5 GB; prints memory and times"]
fn a_million_grants_take_under_600_bytes_each() {
    let (scene, package) = Scene::with_package();
    let mut state = State::decode(&scene.desk.state().to_bytes(), root(), limits()).unwrap();
    let count = 1_000_000u64;
    let user = |number: u64| UserSelector::Principal(principal((number % 200) as u8));
    // Signed once for each user; the id is put in afterwards: nothing here depends on the signature.
    let marker = [0xab; 16];
    let templates: Vec<Vec<u8>> = (0..200)
        .map(|number| {
            let says = Grant {
                id: marker,
                user: user(number),
                ..grant(0, package)
            };
            Signed::sign(&key(1), says).as_bytes().to_vec()
        })
        .collect();
    let before = resident();
    let began = std::time::Instant::now();
    for number in 0..count {
        let mut bytes = templates[(number % 200) as usize].clone();
        let at = bytes
            .windows(16)
            .position(|window| window == marker)
            .unwrap();
        bytes[at..at + 8]
            .copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        let signed = Signed::decode(&bytes).unwrap();
        state
            .apply(&Entry::Granted(signed), 100 + number, scene.now)
            .unwrap();
    }
    let each = (resident() - before) / count;
    println!("applied in {:?}, {each} bytes a grant", began.elapsed());
    let began = std::time::Instant::now();
    let bytes = state.to_bytes();
    println!("{} bytes of snapshot in {:?}", bytes.len(), began.elapsed());
    drop(state);
    let began = std::time::Instant::now();
    let again = State::decode(&bytes, root(), limits()).unwrap();
    println!("decoded in {:?}", began.elapsed());
    assert_eq!(again.counts().grants, count);
    assert!(each < 600, "{each} bytes a grant");
}

/// Bytes of memory that this process has now.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn a_snapshot_survives_its_own_bytes_and_no_shorter_or_longer_ones() {
    let (mut scene, package) = Scene::with_package();
    scene.order(&key(2), Operation::Register).unwrap();
    scene.grant(&key(1), grant(1, package)).unwrap();
    scene.lease(5, package).unwrap();
    let bytes = scene.desk.state().to_bytes();
    for length in 0..bytes.len() {
        let cut = State::decode(&bytes[..length], root(), limits());
        assert!(cut.is_err(), "cut to {length}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(State::decode(&longer, root(), limits()).is_err());
}
