//! A state that was set back, cut, forked or copied is noticed.

use bield_tlog::{LogVerifier, SignedCheckpoint, verify_consistency};

use super::*;
use crate::witnesses::tests::{Village, key as witness_key};

impl World {
    pub(super) fn with_witnesses() -> (Self, Arc<Village>) {
        // A first start without them: they must be told which log to follow.
        let mut world = Self::started();
        let village = Village::of(3, &inspect(world.service()).log.parse().unwrap());
        world.kill();
        let keys = (0..3)
            .map(|number| witness_key(number).verifier().clone())
            .collect();
        world.options.witnesses = (keys, 2, Arc::clone(&village) as _);
        world.start().unwrap();
        (world, village)
    }

    /// A service on older files than those on which it had this size and showed this checkpoint.
    fn set_back() -> (Self, u64, String) {
        let mut world = Self::started();
        world.kill();
        let older = world.disk.contents();
        world.start().unwrap();
        world.register(1..11);
        let (size, kept) = (world.size(), world.checkpoint());
        world.kill();
        world.disk.restore(older);
        world.start().unwrap();
        (world, size, kept)
    }

    fn register(&self, numbers: std::ops::Range<u8>) {
        for number in numbers {
            self.order(&key(number), Operation::Register).unwrap();
        }
    }
}

fn log_key(freshness: &Freshness) -> LogVerifier {
    freshness.log.parse().unwrap()
}

#[test]
fn a_kept_checkpoint_is_continued_with_a_proof_that_verifies() {
    let mut world = World::started();
    let kept = freshness(world.service(), None).unwrap();
    world.register(1..8);
    world.restart();
    let now = freshness(world.service(), Some(&kept.checkpoint)).unwrap();
    assert_eq!((&now.log, now.recovered.len()), (&kept.log, 0));
    let verified = |text: &str| {
        let signed = SignedCheckpoint::parse(text.as_bytes()).unwrap();
        let origin = signed.claimed().origin().clone();
        signed
            .verify(&origin, &[log_key(&kept)])
            .unwrap()
            .checkpoint()
            .head()
    };
    let (old, new) = (verified(&kept.checkpoint), verified(&now.checkpoint));
    assert!(new.size > old.size);
    let proof: Vec<_> = now
        .consistency
        .iter()
        .map(|hash| bield_tlog::Hash::from_bytes(**hash))
        .collect();
    verify_consistency(old.size, &old.root, new.size, &new.root, &proof).unwrap();
}

#[test]
fn a_rolled_back_state_stops_at_the_first_caller_that_saw_more() {
    let (mut world, package) = World::with_grant();
    world.kill();
    let older = world.disk.contents();
    world.start().unwrap();
    world.revoke().unwrap();
    world.register(10..14);
    let kept = world.checkpoint();
    world.kill();
    world.disk.restore(older);
    world.start().unwrap();
    assert!(
        world.lease(5, package).is_ok(),
        "nobody who saw more has asked yet"
    );
    let refusal = freshness(world.service(), Some(&kept)).unwrap_err();
    assert_eq!(code_of::<()>(Err(refusal)), "rolled-back");
    assert_eq!(code_of(world.lease(5, package)), "rolled-back");
    assert!(world.service().ended().is_some());
    assert_eq!(inspect(world.service()).state, "stopped");
    assert!(inspect(world.service()).trouble.is_some());
}

/// Another member may have gone on without this one: only a leader that a majority follows knows better.
#[test]
fn an_instance_of_a_group_that_is_behind_a_caller_stops_for_good_when_its_records_still_count() {
    let (world, _, kept) = World::set_back();
    let running = world.service().service().running().unwrap();
    running.share_log(0, 3);
    let refusal = freshness(world.service(), Some(&kept)).unwrap_err();
    assert_eq!(code_of::<()>(Err(refusal)), "rolled-back");
    assert!(!running.trouble().unwrap().passing);
}

#[test]
fn an_instance_of_a_group_whose_records_do_not_count_starts_again_and_joins_the_others() {
    let (world, _, kept) = World::set_back();
    let running = world.service().service().running().unwrap();
    running.share_log(0, 3);
    running.close();
    let refusal = freshness(world.service(), Some(&kept)).unwrap_err();
    assert_eq!(code_of::<()>(Err(refusal)), "not-leader");
    assert!(running.trouble().unwrap().passing);
}

#[test]
fn the_refusal_says_how_many_records_are_missing() {
    let (world, size, kept) = World::set_back();
    let missing = size - world.size();
    let refusal = freshness(world.service(), Some(&kept)).unwrap_err();
    assert!(
        refusal.contains(&format!("so {missing} records are missing")),
        "{refusal}"
    );
}

#[test]
fn a_checkpoint_of_another_service_or_of_nobody_changes_nothing() {
    let world = World::started();
    let other = World::started();
    let mut altered = world.checkpoint();
    let size = altered.lines().nth(1).unwrap().to_owned();
    altered = altered.replacen(&size, "999999", 1);
    for kept in [
        &other.checkpoint(),
        &altered,
        "",
        "not a note",
        &"x".repeat(100_000),
    ] {
        assert!(freshness(world.service(), Some(kept)).is_err());
        assert_eq!(inspect(world.service()).state, "serving");
    }
    assert!(world.order(&key(1), Operation::Register).is_ok());
}

#[test]
fn a_truncated_or_altered_log_is_refused_at_start() {
    let mut world = World::started();
    world.register(1..11);
    world.end();
    let whole = world.disk.contents();
    let log = whole
        .keys()
        .find(|name| name.starts_with("log-"))
        .unwrap()
        .clone();
    let half = whole[&log].len() / 2;
    world.disk.alter(&log, |bytes| bytes[half] ^= 1);
    assert!(world.start().is_err());
    for name in whole.keys().filter(|name| name.starts_with("log-")) {
        world.disk.restore(whole.clone());
        let mut fewer = whole.clone();
        fewer.remove(name);
        world.disk.restore(fewer);
        let outcome = world.start();
        if outcome.is_ok() {
            panic!("{name} is missing and nobody noticed");
        }
    }
    world.disk.restore(whole);
    world.start().unwrap();
}

#[test]
fn with_witnesses_a_state_that_was_set_back_never_serves() {
    let (mut world, _village) = World::with_witnesses();
    world.register(1..4);
    world.kill();
    let older = world.disk.contents();
    world.start().unwrap();
    world.register(4..8);
    world.kill();
    let newest = world.disk.contents();
    world.disk.restore(older);
    let refusal = world.start().unwrap_err();
    assert!(refusal.contains("records behind what witness"), "{refusal}");
    world.disk.restore(newest);
    world.start().unwrap();
}

#[test]
fn with_witnesses_of_two_copies_only_one_goes_on() {
    let (mut world, _village) = World::with_witnesses();
    world.register(1..4);
    world.kill();
    let copy = MemoryFiles::with(world.disk.contents());
    world.start().unwrap();
    let refusal = world
        .start_on(copy.clone())
        .err()
        .expect("the copy must not serve");
    assert!(refusal.contains("witness"), "{refusal}");
    world.register(4..6);
    // The copy stands by itself now; the original goes on.
    assert!(world.start_on(copy).is_err());
}

#[test]
fn a_copy_that_started_first_stops_the_original_at_its_next_order() {
    let (mut world, _village) = World::with_witnesses();
    world.register(1..4);
    let copy = MemoryFiles::with(world.disk.contents());
    let second = world.start_on(copy).unwrap();
    assert!(order_of(&second, &key(9), Operation::Register).is_ok());
    let outcome = world.order(&key(8), Operation::Register);
    assert!(outcome.is_err());
    assert_eq!(inspect(world.service()).state, "stopped");
    assert!(world.order(&key(7), Operation::Register).is_err());
    assert!(order_of(&second, &key(7), Operation::Register).is_ok());
    world.kill();
}

#[test]
fn without_its_witnesses_nothing_counts_and_with_them_again_it_does() {
    let (world, village) = World::with_witnesses();
    village.silence(&[0, 1]);
    assert_eq!(
        code_of(world.order(&key(1), Operation::Register)),
        "not-durable"
    );
    assert!(
        inspect(world.service())
            .trouble
            .unwrap()
            .contains("w0.example")
    );
    village.silence(&[2]);
    let mut tries = 0;
    while world.order(&key(1), Operation::Register).is_err() {
        tries += 1;
        assert!(tries < 10_000);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let note = world.checkpoint();
    assert!(
        note.contains("w0.example") && note.contains("w1.example"),
        "{note}"
    );
}
