//! Leases: several writers, of which one counts for a key at a time, whatever is delivered when.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

#[expect(dead_code, reason = "each of the suites uses its part of it")]
mod cast;

use std::collections::BTreeMap;

use bield_table::{
    ApplyError, Consistency, Handle, Op, Options, Swapped, TableError, bucket_range, full_key,
};
use cast::{World, at};

fn counter() -> Vec<u8> {
    full_key("n", b"counter").unwrap()
}

fn world(seed: u64, writers: usize) -> World {
    World::new(seed, writers, false, &Options::default())
}

impl World {
    fn lease(&mut self, member: usize, token: u64, millis: u64) -> Result<(), TableError> {
        let (from, to) = bucket_range("n").unwrap();
        let member = &mut self.members[member];
        let pending = &mut member.pending;
        let hand = |batch: &_| pending.append(batch);
        member
            .table
            .take_lease(token, (&from, &to), at(millis), hand)
            .map(drop)
    }

    fn increment(&mut self, member: usize, delta: i64, millis: u64) -> Result<i64, TableError> {
        let member = &mut self.members[member];
        let pending = &mut member.pending;
        let hand = |batch: &_| pending.append(batch);
        let sum = member.table.increment(&counter(), delta, at(millis), hand);
        sum.map(|(sum, _)| sum)
    }

    fn swap(
        &mut self,
        member: usize,
        seen: Handle,
        value: &[u8],
        millis: u64,
    ) -> Result<bool, TableError> {
        let member = &mut self.members[member];
        let pending = &mut member.pending;
        let hand = |batch: &_| pending.append(batch);
        let op = Op::Put {
            key: &counter(),
            value,
            expires: None,
        };
        let swapped = member.table.swap(op, seen, at(millis), hand)?;
        Ok(matches!(swapped, Swapped::Done(_)))
    }

    fn number(&self, member: usize, how: Consistency) -> i64 {
        let value = self.value(member, &counter(), how, at(u64::MAX / 2));
        value.map_or(0, |value| {
            String::from_utf8(value).unwrap().parse().unwrap()
        })
    }
}

#[test]
fn atomic_operations_need_a_lease_and_the_holders_alone_succeed() {
    let mut world = world(1, 2);
    assert!(matches!(world.increment(0, 1, 1), Err(TableError::NotHeld)));
    world.lease(0, 1, 1).unwrap();
    assert_eq!(world.increment(0, 5, 2), Ok(5));
    assert_eq!(world.increment(0, -7, 2), Ok(-2));
    assert_eq!(world.number(0, Consistency::Linearizable), -2);
    world.deliver_all(at(3));
    assert!(matches!(
        world.increment(1, 1, 4),
        Err(TableError::HeldBy { token: 1, .. })
    ));
    let put = Op::Put {
        key: &counter(),
        value: b"9",
        expires: None,
    };
    let put = world.write(1, &[put], at(4));
    assert!(matches!(put, Err(TableError::HeldBy { token: 1, .. })));
    assert!(matches!(
        world.lease(1, 1, 4),
        Err(TableError::Token { known: 1, found: 1 })
    ));
    world.lease(1, 2, 4).unwrap();
    assert_eq!(world.increment(1, 1, 4), Ok(-1));
    let refused = world.members[0]
        .table
        .get(&counter(), Consistency::Linearizable, at(5));
    assert!(refused.is_ok(), "the one before does not know yet");
    while world.members[1].applied[1] > world.members[0].applied[1] {
        let _ = world.deliver(0, 1, at(6));
    }
}

#[test]
fn numbers_have_one_text_and_an_end() {
    let mut world = world(2, 1);
    world.lease(0, 1, 1).unwrap();
    assert_eq!(world.increment(0, i64::MAX, 1), Ok(i64::MAX));
    assert_eq!(world.increment(0, 1, 1), Err(TableError::Overflow));
    assert_eq!(world.increment(0, -1, 1), Ok(i64::MAX - 1));
    for text in [
        "+1",
        "01",
        "-0",
        "",
        " 1",
        "1.0",
        "9223372036854775808",
        "\u{ff}",
    ] {
        let put = Op::Put {
            key: &counter(),
            value: text.as_bytes(),
            expires: None,
        };
        world.write(0, &[put], at(2)).unwrap();
        assert_eq!(
            world.increment(0, 1, 2),
            Err(TableError::NotANumber),
            "{text}"
        );
    }
    for (text, sum) in [("-9223372036854775808", i64::MIN + 1), ("0", 1), ("10", 11)] {
        let put = Op::Put {
            key: &counter(),
            value: text.as_bytes(),
            expires: None,
        };
        world.write(0, &[put], at(2)).unwrap();
        assert_eq!(world.increment(0, 1, 2), Ok(sum));
    }
}

#[test]
fn a_swap_succeeds_once_for_what_was_seen() {
    let mut world = world(3, 1);
    world.lease(0, 1, 1).unwrap();
    let absent = Handle::of(None);
    assert_eq!(world.swap(0, absent, b"a", 2), Ok(true));
    assert_eq!(world.swap(0, absent, b"b", 2), Ok(false));
    let found = world.members[0]
        .table
        .get(&counter(), Consistency::Linearizable, at(2))
        .unwrap();
    let seen = Handle::of(found.as_ref());
    assert_eq!(Handle::decode(&seen.encode()), Some(seen));
    assert_eq!(Handle::decode(&absent.encode()), Some(absent));
    assert_eq!(Handle::decode(&seen.encode()[1..]), None);
    // The same value again is another write.
    let put = Op::Put {
        key: &counter(),
        value: b"a",
        expires: None,
    };
    world.write(0, &[put], at(2)).unwrap();
    assert_eq!(world.swap(0, seen, b"c", 2), Ok(false));
    world
        .write(0, &[Op::Delete { key: &counter() }], at(2))
        .unwrap();
    assert_eq!(world.swap(0, seen, b"c", 2), Ok(false));
    assert_eq!(world.swap(0, absent, b"d", 2), Ok(true));
    // What has expired is absent.
    let put = Op::Put {
        key: &counter(),
        value: b"e",
        expires: Some(at(10)),
    };
    world.write(0, &[put], at(3)).unwrap();
    assert_eq!(world.swap(0, absent, b"f", 9), Ok(false));
    assert_eq!(world.swap(0, absent, b"f", 10), Ok(true));
}

/// An arbiter gives out tokens and keeps how far the holder's records are safe; a holder answers when the
/// arbiter kept its record. The next holder has everything that is safe. What was answered is never lost
/// and never doubled, although old holders go on, unaware, and records arrive in any order.
#[test]
fn what_was_answered_is_counted_once_under_holders_that_change() {
    for seed in 0..400 {
        let mut world = world(seed, 3);
        let (mut token, mut holder, mut safe) = (1, 0, BTreeMap::new());
        let (mut answered, mut millis) = (0, 10);
        world.lease(0, 1, millis).unwrap();
        for _ in 0..40 {
            millis += world.draw.below(3) as u64;
            let member = world.draw.below(3);
            match world.draw.below(12) {
                // Anybody tries, old holders too; only what the arbiter keeps is answered.
                0..6 => {
                    let delta = 1 + world.draw.below(9) as i64;
                    let sum = world.increment(member, delta, millis);
                    world.seal(member, at(millis));
                    if let Ok(sum) = sum
                        && member == holder
                    {
                        answered += delta;
                        assert_eq!(sum, answered, "seed {seed}");
                        safe.insert(member, world.members[member].chain.len());
                    }
                }
                6 => {
                    // A new holder reads what is safe, then takes the lease.
                    let next = world.draw.below(3);
                    for (of, records) in &safe {
                        while world.members[next].applied[*of] < *records {
                            settle(&mut world, next, *of, millis);
                        }
                    }
                    // The holder before wrote on, unanswered: some of it may be here as well.
                    token += 1;
                    holder = next;
                    world.lease(next, token, millis).unwrap();
                    world.seal(next, at(millis));
                    safe.insert(next, world.members[next].chain.len());
                    answered = world.number(next, Consistency::Linearizable);
                }
                _ => {
                    let from = world.draw.below(3);
                    settle(&mut world, member, from, millis);
                }
            }
        }
        world.deliver_all(at(millis));
        for member in 0..3 {
            assert_eq!(
                world.number(member, Consistency::Eventual),
                answered,
                "seed {seed}"
            );
        }
    }
}

/// Delivers one record, and rebuilds the table when it asks for it.
fn settle(world: &mut World, to: usize, from: usize, millis: u64) {
    match world.deliver(to, from, at(millis)) {
        Some(Err(ApplyError::Rebuild { .. })) => world.rebuild(to, at(millis)),
        Some(Err(error)) => panic!("{error}"),
        _ => {}
    }
}

#[test]
fn changes_of_a_holder_count_as_far_as_the_next_one_says_in_every_order_of_delivery() {
    for order in 0..64_u32 {
        let mut world = world(u64::from(order), 3);
        world.lease(0, 5, 1).unwrap();
        world.increment(0, 1, 1).unwrap();
        world.seal(0, at(1));
        // Writer 1 sees this much and takes over; writer 0 goes on.
        while world.members[1].applied[0] < 2 {
            world.deliver(1, 0, at(2)).unwrap().unwrap();
        }
        world.increment(0, 100, 2).unwrap();
        world.seal(0, at(2));
        world.lease(1, 6, 3).unwrap();
        world.increment(1, 10, 3).unwrap();
        world.seal(1, at(3));
        world.increment(0, 1000, 4).unwrap();
        world.seal(0, at(4));
        // Writer 2 gets the two chains mixed as `order` says.
        for bit in 0..6 {
            settle(&mut world, 2, (order >> bit & 1) as usize, 5);
        }
        world.deliver_all(at(6));
        for member in 0..3 {
            assert_eq!(
                world.number(member, Consistency::Eventual),
                11,
                "order {order}"
            );
        }
    }
}

#[test]
fn a_lease_outlives_the_flush_of_its_record() {
    let mut world = world(9, 2);
    world.lease(0, 3, 1).unwrap();
    world.increment(0, 4, 1).unwrap();
    world.flush(0, at(2));
    assert!(world.restart(0, Default::default(), at(2)));
    assert_eq!(world.increment(0, 4, 3), Ok(8));
    world.seal(0, at(3));
    world.deliver_all(at(4));
    assert_eq!(world.number(1, Consistency::Eventual), 8);
}

#[test]
fn two_threads_of_one_holder_do_not_both_win() {
    let mut world = world(10, 1);
    world.lease(0, 1, 1).unwrap();
    let table = &world.members[0].table;
    let wins: usize = std::thread::scope(|scope| {
        let swap = || {
            let op = Op::Put {
                key: &counter(),
                value: b"1",
                expires: None,
            };
            let swapped = table.swap(op, Handle::of(None), at(2), |_| Ok::<(), &str>(()));
            usize::from(matches!(swapped, Ok(Swapped::Done(_))))
        };
        let add = || {
            (0..100).for_each(|_| {
                let key = full_key("n", b"sum").unwrap();
                table
                    .increment(&key, 1, at(2), |_| Ok::<(), &str>(()))
                    .unwrap();
            });
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(swap)).collect();
        let adders: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
        adders.into_iter().for_each(|thread| thread.join().unwrap());
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(wins, 1);
    let sum = table
        .get(
            &full_key("n", b"sum").unwrap(),
            Consistency::Linearizable,
            at(2),
        )
        .unwrap();
    assert_eq!(&*sum.unwrap().value, b"400");
}

#[test]
fn a_number_that_was_flushed_is_counted_on_at_once_after_a_restart() {
    let mut world = world(12, 1);
    world.lease(0, 1, 500).unwrap();
    assert_eq!(world.increment(0, 1, 500), Ok(1));
    world.flush(0, at(500));
    assert!(world.restart(0, Default::default(), at(500)));
    assert_eq!(world.increment(0, 1, 500), Ok(2));
    // A host that sets the time back by an hour is told so, instead of losing the change.
    world.flush(0, at(500));
    assert!(world.restart(0, Default::default(), at(500)));
    let past = bield_envelope::Time::from_millis(at(500).as_millis() - 3_600_000);
    let member = &world.members[0];
    let key = counter();
    let sum = member
        .table
        .increment(&key, 1, past, |_| Ok::<(), &str>(()));
    assert!(matches!(sum, Err(TableError::Outranked)));
}

#[test]
fn levels_that_hold_what_a_late_lease_cuts_off_are_given_up() {
    let mut world = world(11, 3);
    world.lease(0, 1, 1).unwrap();
    world.increment(0, 1, 1).unwrap();
    world.seal(0, at(1));
    while world.members[1].applied[0] < 2 {
        world.deliver(1, 0, at(2)).unwrap().unwrap();
    }
    world.increment(0, 100, 2).unwrap();
    world.seal(0, at(2));
    // Writer 2 hears all of writer 0, flushes it, and starts again from there.
    while world
        .deliver(2, 0, at(3))
        .is_some_and(|taken| taken.is_ok())
    {}
    world.flush(2, at(3));
    assert!(world.restart(2, Default::default(), at(3)));
    assert_eq!(world.number(2, Consistency::Eventual), 101);
    // Then it hears that writer 1 took over before.
    world.lease(1, 2, 4).unwrap();
    world.seal(1, at(4));
    let mut last = None;
    while let Some(taken) = world.deliver(2, 1, at(5)) {
        last = Some(taken);
    }
    assert_eq!(last, Some(Err(ApplyError::Rebuild { token: 2 })));
    world.rebuild(2, at(6));
    assert_eq!(world.number(2, Consistency::Eventual), 1);
}
