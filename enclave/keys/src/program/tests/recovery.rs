//! Holders of shares bring a service back, and rehearse it.

use super::*;

const HOLDERS: [u8; 3] = [21, 22, 23];

impl World {
    /// A service with a grant, and two of three shares needed.
    fn with_shares() -> (Self, Digest, Vec<Share>) {
        let (world, package) = Self::with_grant();
        let shares = world.share(&HOLDERS, 2);
        (world, package, shares)
    }

    fn share(&self, holders: &[u8], threshold: u8) -> Vec<Share> {
        let administrator = key(99);
        drop(self.order(&administrator, Operation::Register));
        for holder in holders {
            drop(self.order(&key(*holder), Operation::Register));
        }
        let order = Operation::MakeShares {
            holders: principals(holders),
            threshold,
        };
        self.order(&administrator, order).unwrap();
        let take = |holder: &u8| take_share(self.service(), &key(*holder)).unwrap();
        holders.iter().map(take).collect()
    }

    /// The same files on another machine, whose TEE opens nothing of the old one.
    fn move_to_another_machine(&mut self) {
        self.kill();
        self.options.seal = [6; 32];
        self.start().unwrap();
    }

    fn give(&self, holder: u8, share: &Share) -> Result<ShareProgress, String> {
        give_share(self.service(), &key(holder), share, false)
    }
}

#[test]
fn enough_shares_bring_the_service_back_on_another_machine() {
    let (mut world, package, shares) = World::with_shares();
    let kept = world.checkpoint();
    let before = inspect(world.service());
    world.move_to_another_machine();
    let waiting = inspect(world.service());
    assert_eq!(
        (&waiting.state[..], waiting.shares),
        ("recovering", Some((3, 2)))
    );
    assert_eq!(code_of(world.lease(5, package)), "recovering");
    assert_eq!(code_of(freshness(world.service(), None)), "recovering");
    let first = world.give(22, &shares[1]).unwrap();
    assert_eq!(
        (first.given, first.needed, first.opened),
        (principals(&[22]), 2, false)
    );
    let last = world.give(21, &shares[0]).unwrap();
    assert!(last.opened);
    assert_eq!(last.size, Some(before.size));
    let after = inspect(world.service());
    assert_eq!(
        (&after.state[..], after.service),
        ("serving", before.service)
    );
    assert_ne!(after.log, before.log, "another log begins");
    assert!(world.lease(5, package).is_ok());

    let continued = freshness(world.service(), Some(&kept)).unwrap();
    let [recovered] = &continued.recovered[..] else {
        panic!("one recovery");
    };
    assert_eq!(recovered.size, before.size);
    let mut holders = recovered.holders.clone();
    holders.sort();
    let mut named = principals(&[21, 22]);
    named.sort();
    assert_eq!(holders, named);
    assert_eq!(code_of(world.give(23, &shares[2])), "not-recovering");
    world.restart();
    assert!(world.lease(5, package).is_ok());
    assert_eq!(
        freshness(world.service(), Some(&kept))
            .unwrap()
            .recovered
            .len(),
        1
    );
}

#[test]
fn a_caller_that_saw_more_than_was_recovered_is_told_and_nobody_stops() {
    let (mut world, _package, shares) = World::with_shares();
    world.kill();
    let older = world.disk.contents();
    world.start().unwrap();
    world.order(&key(50), Operation::Register).unwrap();
    let kept = world.checkpoint();
    let size = world.size();
    world.kill();
    world.disk.restore(older);
    world.options.seal = [6; 32];
    world.start().unwrap();
    world.give(21, &shares[0]).unwrap();
    world.give(22, &shares[1]).unwrap();
    let told = freshness(world.service(), Some(&kept)).unwrap();
    assert!(told.recovered[0].size < size);
    assert!(told.consistency.is_empty());
    assert_eq!(inspect(world.service()).state, "serving");
}

#[test]
fn too_few_wrong_foreign_and_repeated_shares_open_nothing_and_spoil_nothing() {
    let (mut world, _package, shares) = World::with_shares();
    let (other, _, foreign) = World::with_shares();
    drop(other);
    world.move_to_another_machine();
    let mut altered = shares[0].clone();
    altered.bytes[7] ^= 1;
    let mut renumbered = shares[0].clone();
    renumbered.number = 2;
    let mut easier = shares[0].clone();
    easier.threshold = 1;
    for wrong in [&altered, &renumbered, &easier, &foreign[0]] {
        assert_eq!(code_of(world.give(21, wrong)), "other-share");
    }
    for _ in 0..3 {
        assert!(
            !world.give(21, &shares[0]).unwrap().opened,
            "the same share again"
        );
    }
    // A stolen share is given by somebody who does not hold it: it opens the box, and the log refuses.
    assert_eq!(code_of(world.give(77, &shares[1])), "not-holder");
    assert_eq!(inspect(world.service()).state, "recovering");
    world.give(21, &shares[0]).unwrap();
    assert!(world.give(23, &shares[2]).unwrap().opened);
}

#[test]
fn shares_of_an_earlier_generation_are_worth_nothing() {
    let (mut world, _package, earlier) = World::with_shares();
    let newest = world.share(&[21, 24], 2);
    world.move_to_another_machine();
    assert_eq!(code_of(world.give(21, &earlier[0])), "other-share");
    world.give(21, &newest[0]).unwrap();
    assert!(world.give(24, &newest[1]).unwrap().opened);
}

#[test]
fn a_host_that_keeps_the_files_of_an_earlier_generation_gains_nothing() {
    let (mut world, _package, earlier) = World::with_shares();
    let old_files: Vec<_> = world
        .disk
        .contents()
        .into_iter()
        .filter(|(name, _)| name.starts_with("recovery-") || name.starts_with("shares-"))
        .collect();
    assert_eq!(old_files.len(), 2);
    world.share(&[21, 24], 2);
    world.kill();
    for (name, bytes) in old_files {
        world.disk.alter(&name, |file| *file = bytes);
    }
    world.options.seal = [6; 32];
    world.start().unwrap();
    world.give(21, &earlier[0]).unwrap();
    assert_eq!(code_of(world.give(22, &earlier[1])), "other-share");
    assert_eq!(inspect(world.service()).state, "recovering");
}

#[test]
fn without_recovery_files_the_refusal_says_what_to_put_back() {
    let (mut world, _) = World::with_grant();
    world.kill();
    world.options.seal = [6; 32];
    let refusal = world.start().unwrap_err();
    assert!(
        refusal.contains("another machine") && refusal.contains("recovery files"),
        "{refusal}"
    );
}

#[test]
fn recovery_files_that_were_lost_are_written_again_at_the_next_start() {
    let (mut world, _package, shares) = World::with_shares();
    world.kill();
    let mut files = world.disk.contents();
    files.retain(|name, _| !name.starts_with("recovery-") && !name.starts_with("shares-"));
    world.disk.restore(files);
    world.start().unwrap();
    world.move_to_another_machine();
    world.give(21, &shares[0]).unwrap();
    assert!(world.give(23, &shares[2]).unwrap().opened);
}

#[test]
fn a_rehearsal_tries_the_shares_on_the_real_box_and_forgets_them() {
    let (world, _package, shares) = World::with_shares();
    let rehearse =
        |holder: u8, share: &Share| give_share(world.service(), &key(holder), share, true);
    let size = world.size();
    assert!(!rehearse(21, &shares[0]).unwrap().opened);
    assert_eq!(code_of(rehearse(22, &shares[2])), "other-share");
    assert_eq!(code_of(rehearse(77, &shares[1])), "not-holder");
    let rehearsed = rehearse(22, &shares[1]).unwrap();
    assert!(rehearsed.opened);
    assert_eq!(rehearsed.size, Some(size));
    assert!(
        !rehearse(23, &shares[2]).unwrap().opened,
        "the others were forgotten"
    );
    world
        .disk
        .alter("recovery-0000000001", |bytes| bytes[60] ^= 1);
    assert_eq!(code_of(rehearse(21, &shares[0])), "recovery-box");
    assert_eq!(world.size(), size, "a rehearsal changes nothing");
}

#[test]
fn a_single_holder_recovers_alone() {
    let mut world = World::new();
    world.options.recovery = Some(RecoveryLimits {
        holders: principals(&[21]),
        threshold_min: 1,
    });
    world.start().unwrap();
    let package = world.put_and_grant();
    let shares = world.share(&[21], 1);
    world.move_to_another_machine();
    assert!(world.give(21, &shares[0]).unwrap().opened);
    assert!(world.lease(5, package).is_ok());
}

#[test]
fn with_witnesses_the_machine_that_was_recovered_from_does_not_start_again() {
    let (mut world, village) = World::with_witnesses();
    let package = world.put_and_grant();
    let shares = world.share(&HOLDERS, 2);
    world.kill();
    let left_behind = MemoryFiles::with(world.disk.contents());
    let old_machine = world.options.clone();
    world.options.seal = [6; 32];
    world.start().unwrap();
    world.give(22, &shares[1]).unwrap();
    std::thread::scope(|scope| {
        let last = scope.spawn(|| world.give(21, &shares[0]));
        // The recovered log is a new one, which the witnesses must be told of.
        let log = loop {
            let trouble = inspect(world.service()).trouble.unwrap_or_default();
            if let Some((_, log)) = trouble.split_once("the log's key is ") {
                break log.to_owned();
            }
            assert!(!last.is_finished(), "{trouble}");
            std::thread::yield_now();
        };
        village.follow(&log.parse().unwrap());
        assert!(last.join().unwrap().unwrap().opened);
    });
    assert!(world.lease(5, package).is_ok());
    let refused = InProcess::start(left_behind, &old_machine).err().unwrap();
    assert!(refused.contains("1 record behind"), "{refused}");
}

#[test]
fn a_recovery_that_broke_off_after_the_log_was_ended_is_made_again_and_the_ended_log_serves_nobody()
{
    let (mut world, package, shares) = World::with_shares();
    let kept = world.checkpoint();
    let size = world.size();
    let old_root = world.disk.contents().remove("root").unwrap();
    let old_seal = world.options.seal;
    world.move_to_another_machine();
    world.give(22, &shares[1]).unwrap();
    // The first write ends the log; the second would begin the next epoch.
    world.disk.fail(bield_ledger::Fault::Refuse {
        write: world.disk.writes() + 1,
    });
    let broken = world.give(21, &shares[0]);
    assert!(broken.is_err(), "the disk refused");
    // The files as they are, on the machine that was thought to be lost.
    let ended = MemoryFiles::with(world.disk.contents());
    ended.alter("root", |file| *file = old_root.clone());
    let mut old_machine = world.options.clone();
    old_machine.seal = old_seal;
    let refused = InProcess::start(ended, &old_machine).err().unwrap();
    assert!(refused.contains("ended this log"), "{refused}");

    world.give(22, &shares[1]).unwrap();
    let recovered = world.give(21, &shares[0]).unwrap();
    assert_eq!((recovered.opened, recovered.size), (true, Some(size)));
    assert!(world.lease(5, package).is_ok());
    let continued = freshness(world.service(), Some(&kept)).unwrap();
    assert_eq!(continued.recovered[0].size, size);
}

#[test]
fn the_machine_that_was_recovered_from_stops_when_it_is_shown_a_checkpoint_of_the_new_epoch() {
    let (mut world, package, shares) = World::with_shares();
    let left_behind = MemoryFiles::with(world.disk.contents());
    let old_machine = world.options.clone();
    world.move_to_another_machine();
    world.give(22, &shares[1]).unwrap();
    world.give(21, &shares[0]).unwrap();
    let newest = world.checkpoint();
    let old = InProcess::start(left_behind, &old_machine).unwrap();
    order_of(&old, &key(30), Operation::Register).unwrap();
    let told = freshness(&old, Some(&newest)).map(drop).unwrap_err();
    assert!(
        told.starts_with("rolled-back")
            && told.contains("recovered elsewhere")
            && told.contains("epoch 1"),
        "{told}"
    );
    let order = order_of(&old, &key(31), Operation::Register);
    assert_eq!(code_of(order), "rolled-back", "everybody, from now on");
    assert!(world.lease(5, package).is_ok(), "the recovered one goes on");
    // What another service signed stops nobody.
    let foreign = World::new();
    let other = foreign.start_on(MemoryFiles::new()).unwrap();
    let signed = freshness(&other, None).unwrap().checkpoint;
    assert_eq!(
        code_of(freshness(world.service(), Some(&signed))),
        "foreign-checkpoint"
    );
    assert!(world.lease(5, package).is_ok());
}
