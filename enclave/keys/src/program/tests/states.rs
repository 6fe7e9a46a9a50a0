//! Functions' states across threads, crashes and restarts of the whole service.

use std::sync::Barrier;
use std::time::Duration;

use bield_capsule::{CapsuleName, Head, WriterId};
use bield_ledger::Fault;
use bield_protocol::service::{Anchors, HeldState, STATE_HOLD_SECS, StateAct, StateRequest};

use super::*;

const HOLD: Duration = Duration::from_secs(STATE_HOLD_SECS);

fn head(by: u8, seq: u64) -> Head {
    Head {
        writer: WriterId::from_bytes([by; 32]),
        seq,
        hash: Digest::of("test head", &[&[by], &seq.to_be_bytes()]),
    }
}

fn anchor(by: u8, token: u64, seq: u64) -> StateAct {
    StateAct::Anchor(Anchors {
        token,
        heads: vec![head(by, seq)],
        covered: Vec::new(),
    })
}

impl World {
    fn act(&self, package: Digest, by: u8, act: StateAct) -> Result<HeldState, String> {
        let mut session = session();
        session.runtime = Some(cast::appraised(5));
        let request = Request::State(StateRequest {
            package,
            capsule: CapsuleName::from_bytes([1; 32]),
            writer: head(by, 0).writer,
            act,
        });
        match done(self.service().answer(&mut session, request))? {
            Reply::State(held) => Ok(held),
            _ => panic!("no state"),
        }
    }

    fn wait(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }
}

#[test]
fn of_runtimes_that_race_for_a_state_one_holds_it() {
    let (world, package) = World::with_grant();
    let begins = Barrier::new(8);
    for token in 1..=5 {
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let race = |by| {
                let (world, begins) = (&world, &begins);
                // Writers of their own in each round: who held before would keep its token.
                let by = by + token as u8 * 8;
                scope.spawn(move || {
                    begins.wait();
                    world.act(package, by, StateAct::Hold)
                })
            };
            let all: Vec<_> = (1..=8).map(race).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        let tokens: Vec<_> = won.into_iter().map(|held| held.unwrap().token).collect();
        assert_eq!(tokens, [token]);
        assert!(lost.into_iter().all(|one| code_of(one) == "state-held"));
        world.wait(HOLD);
    }
}

#[test]
fn a_crash_at_every_write_loses_no_head_that_was_anchored() {
    for write in 0..16 {
        let (mut world, package) = World::with_grant();
        let begun = world.disk.writes();
        world.disk.fail(Fault::Crash {
            write: begun + write,
            bytes: write * 37 % 300,
        });
        let mut acknowledged = None;
        if world.act(package, 1, StateAct::Hold).is_ok() {
            for seq in 1..=8 {
                match world.act(package, 1, anchor(1, 1, seq)) {
                    Ok(_) => acknowledged = Some(seq),
                    Err(_) => break,
                }
            }
        }
        world.kill();
        world.start().unwrap();
        world.wait(HOLD);
        let held = world.act(package, 2, StateAct::Hold).unwrap();
        let kept = held.heads.first().map(|head| head.seq);
        assert!(kept >= acknowledged, "crash at write {write}: {kept:?}");
        let next = acknowledged.map_or(1, |seq| seq + 1);
        assert!(kept <= Some(next), "crash at write {write}: {kept:?}");
    }
}

#[test]
fn what_is_not_durable_is_not_held() {
    let (mut world, package) = World::with_grant();
    world.act(package, 1, StateAct::Hold).unwrap();
    world.disk.fail(Fault::Crash {
        write: world.disk.writes(),
        bytes: 0,
    });
    let told = world.act(package, 1, anchor(1, 1, 7));
    assert_eq!(code_of(told), "not-durable");
    world.restart();
    let held = world.act(package, 1, StateAct::Hold).unwrap();
    assert_eq!((held.token, held.heads), (1, vec![]));
}

#[test]
fn runtimes_that_anchor_without_end_use_up_their_owners_allowance_and_no_lease() {
    let mut world = World::new();
    world.options.orders_per_minute = 60;
    world.start().unwrap();
    let package = world.put_and_grant();
    let flooded = (0..100_000).find_map(|_| world.act(package, 1, StateAct::Hold).err());
    assert_eq!(code_of(Err::<(), _>(flooded.unwrap())), "too-many-orders");
    world.lease(5, package).unwrap();
}
