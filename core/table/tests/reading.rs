//! What readers are promised: snapshots, epochs, watchers, time to live, whole batches, and deletions
//! that nothing brings back.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

#[expect(dead_code, reason = "each of the suites uses its part of it")]
mod cast;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bield_capsule::{Batch, WriterId};
use bield_table::{
    ApplyError, Consistency, Leases, NoCold, Op, Options, PageLimits, Table, TableError,
    WATCHED_KEYS_MAX, bucket_range, full_key,
};
use cast::{World, at};

fn key(name: &str) -> Vec<u8> {
    full_key("b", name.as_bytes()).unwrap()
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Op<'a> {
    Op::Put {
        key,
        value,
        expires: None,
    }
}

fn alone(options: Options) -> Table {
    let writer = WriterId::from_bytes([1; 32]);
    Table::open(writer, options, Arc::new(NoCold), &[], Leases::default()).unwrap()
}

fn took(_: &Batch) -> Result<(), &'static str> {
    Ok(())
}

const LIMITS: PageLimits = PageLimits {
    keys: 1000,
    bytes: 1 << 20,
};

#[test]
fn a_snapshot_stays_as_it_is_whatever_is_written_and_flushed() {
    let mut world = World::new(1, 1, true, &Options::default());
    let keys: Vec<_> = (0..300).map(|n| key(&format!("{n:03}"))).collect();
    for key in &keys {
        world.write(0, &[put(key, b"old")], at(1)).unwrap();
    }
    world.seal(0, at(1));
    let table = &world.members[0].table;
    let snapshot = table.snapshot(false).unwrap();
    let (from, to) = bucket_range("b").unwrap();
    for key in keys.iter().step_by(2) {
        table.write(&[put(key, b"new")], at(2), took).unwrap();
    }
    table
        .write(
            &[Op::DeleteRange {
                from: &keys[0],
                to: &keys[10],
            }],
            at(2),
            took,
        )
        .unwrap();
    let frozen = table.freeze().unwrap();
    assert!(!frozen.cells(None, 1000).is_empty());
    table
        .write(&[put(&keys[5], b"newest")], at(3), took)
        .unwrap();
    let range = (&*from, &*to);
    let page = snapshot.page(range, None, LIMITS, at(3)).unwrap();
    assert_eq!(page.entries.len(), 300);
    assert!(
        page.entries
            .iter()
            .all(|(_, found)| &*found.value == b"old")
    );
    assert!(
        keys.iter()
            .all(|key| &*snapshot.get(key, at(3)).unwrap().unwrap().value == b"old")
    );
    let page = table
        .page(range, None, LIMITS, Consistency::Eventual, at(3))
        .unwrap();
    assert_eq!(page.entries.len(), 291);
    drop(snapshot);
    let before = table.memory_bytes();
    for key in &keys {
        table.write(&[put(key, b"three")], at(4), took).unwrap();
        table.write(&[put(key, b"four!")], at(4), took).unwrap();
    }
    assert!(
        table.memory_bytes() < 3 * before,
        "versions that nobody sees are gone"
    );
}

#[test]
fn the_changes_of_a_batch_are_seen_together() {
    let table = alone(Options::default());
    let keys: Vec<_> = (0..8).map(|n| key(&n.to_string())).collect();
    let write = |round: u32| {
        let value = round.to_be_bytes();
        let ops: Vec<_> = keys.iter().map(|key| put(key, &value)).collect();
        table.write(&ops, at(1), took).unwrap();
    };
    write(0);
    let over = AtomicBool::new(false);
    let (from, to) = bucket_range("b").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (1..2000).for_each(write);
            over.store(true, Ordering::Release);
        });
        let mut last = 0;
        while !over.load(Ordering::Acquire) {
            let range = (&*from, &*to);
            let page = table
                .page(range, None, LIMITS, Consistency::Eventual, at(1))
                .unwrap();
            let values: Vec<_> = page
                .entries
                .iter()
                .map(|(_, found)| found.value.to_vec())
                .collect();
            assert!(values.len() == 8 && values.iter().all(|value| *value == values[0]));
            let round = u32::from_be_bytes(values[0].clone().try_into().unwrap());
            assert!(round >= last);
            last = round;
            let snapshot = table.snapshot(false).unwrap();
            let first = snapshot
                .get(&keys[0], at(1))
                .unwrap()
                .unwrap()
                .value
                .to_vec();
            let last = snapshot
                .get(&keys[7], at(1))
                .unwrap()
                .unwrap()
                .value
                .to_vec();
            assert_eq!(first, last);
        }
    });
}

#[test]
fn a_value_is_gone_from_the_moment_it_expires_and_hides_what_was_before() {
    let table = alone(Options::default());
    let key = key("k");
    table.write(&[put(&key, b"for ever")], at(1), took).unwrap();
    let soon = Op::Put {
        key: &key,
        value: b"soon over",
        expires: Some(at(10)),
    };
    table.write(&[soon], at(2), took).unwrap();
    let shows = |now| table.get(&key, Consistency::Eventual, at(now)).unwrap();
    assert_eq!(&*shows(9).unwrap().value, b"soon over");
    assert!(shows(10).is_none() && shows(1000).is_none());
    assert!(!table.exists(&key, Consistency::Eventual, at(10)).unwrap());
    let (from, to) = bucket_range("b").unwrap();
    let page = table
        .page((&from, &to), None, LIMITS, Consistency::Eventual, at(10))
        .unwrap();
    assert!(page.entries.is_empty() && page.after.is_none());
}

#[test]
fn a_watcher_learns_of_every_key_once_and_of_its_newest_version() {
    let table = alone(Options::default());
    let (from, to) = bucket_range("b").unwrap();
    let watcher = table.watch(&from, &to).unwrap();
    let other = full_key("other", b"k").unwrap();
    let (a, b) = (key("a"), key("b"));
    for value in [b"1", b"2", b"3"] {
        table
            .write(&[put(&a, value), put(&other, value)], at(1), took)
            .unwrap();
    }
    table
        .write(&[put(&b, b"1"), Op::Delete { key: &b }], at(1), took)
        .unwrap();
    let looked = table.look(watcher, at(1)).unwrap();
    assert!(!looked.missed && looked.changed.len() == 2);
    assert_eq!(&*looked.changed[0].found.as_ref().unwrap().value, b"3");
    assert!(looked.changed[1].found.is_none() && looked.changed[1].version.is_some());
    assert!(table.look(watcher, at(1)).unwrap().changed.is_empty());
    table
        .write(&[Op::DeleteRange { from: &a, to: &b }], at(1), took)
        .unwrap();
    assert!(table.look(watcher, at(1)).unwrap().missed);
    for n in 0..=WATCHED_KEYS_MAX {
        table
            .write(&[put(&key(&n.to_string()), b"")], at(1), took)
            .unwrap();
    }
    let looked = table.look(watcher, at(1)).unwrap();
    assert!(looked.missed && looked.changed.len() == WATCHED_KEYS_MAX);
    table.unwatch(watcher);
    assert!(matches!(
        table.look(watcher, at(1)),
        Err(TableError::NoWatcher)
    ));
}

#[test]
fn deletions_outlive_a_partition_and_are_forgotten_after_it() {
    let mut world = World::new(4, 3, true, &Options::default());
    let ids: Vec<WriterId> = world.members.iter().map(|member| member.id).collect();
    let key = key("k");
    // Writer 2 writes and is cut off before anybody hears of it.
    world
        .write(2, &[put(&key, b"from the past")], at(1))
        .unwrap();
    world.seal(2, at(1));
    // The others delete the key, flush, hold an epoch among themselves and compact.
    world.write(0, &[Op::Delete { key: &key }], at(5)).unwrap();
    world.seal(0, at(5));
    let exchange = |world: &mut World, members: &[usize], now| {
        for to in members {
            for from in members {
                while world
                    .deliver(*to, *from, at(now))
                    .is_some_and(|taken| taken.is_ok())
                {}
            }
        }
    };
    let acknowledge = |world: &mut World, member: usize, epoch, now| {
        let member_of = &mut world.members[member];
        let pending = &mut member_of.pending;
        member_of
            .table
            .acknowledge(epoch, at(now), |batch| pending.append(batch))
            .unwrap();
        world.seal(member, at(now));
    };
    let hold_epoch = |world: &mut World, members: &[usize], epoch, now| {
        exchange(world, members, now);
        world.join(0, epoch, at(now));
        exchange(world, members, now);
        for member in members {
            acknowledge(world, *member, epoch, now + 1);
        }
        exchange(world, members, now + 1);
    };
    hold_epoch(&mut world, &[0, 1], 1, 10);
    hold_epoch(&mut world, &[0, 1], 2, 20);
    assert_eq!(
        world.members[0].table.horizon(&ids),
        None,
        "one member is silent"
    );
    world.flush(0, at(30));
    let horizon = world.members[0].table.horizon(&ids).unwrap_or_default();
    world.compact_below(0, horizon, at(31));
    // It comes back with its old write: the deletion still hides it.
    hold_epoch(&mut world, &[0, 1, 2], 3, 40);
    for member in 0..3 {
        assert_eq!(
            world.value(member, &key, Consistency::Eventual, at(41)),
            None
        );
    }
    hold_epoch(&mut world, &[0, 1, 2], 4, 50);
    let horizon = world.members[0].table.horizon(&ids).unwrap();
    assert!(horizon.time() > at(30), "all have said so: {horizon}");
    world.flush(0, at(60));
    let newest = |world: &World| world.members[0].cold.newest(&key).unwrap();
    assert!(newest(&world).is_some());
    world.compact_below(0, horizon, at(61));
    assert!(newest(&world).is_none(), "the deletion is forgotten");
    assert_eq!(world.value(0, &key, Consistency::Eventual, at(61)), None);
}

#[test]
fn a_record_whose_clocks_do_not_increase_counts_for_nothing_everywhere() {
    use bield_capsule::Clock;
    use bield_table::{Action, Change, TableEntry};
    let mut world = World::new(5, 2, false, &Options::default());
    let (a, b) = (key("a"), key("b"));
    let entry = |clock, key| {
        let change = Change::Put {
            key,
            value: b"v",
            expires: None,
        };
        let mut payload = Vec::new();
        TableEntry {
            clock: Clock::from_bits(clock),
            action: Action::Change(change),
        }
        .encode_to(&mut payload);
        payload
    };
    let good = 7_u64;
    let records = [
        vec![entry(good, &a)],
        vec![entry(good + 1, &b), entry(good + 1, &a)],
        vec![entry(good, &b)],
        vec![entry(good + 9, &b), vec![1, 2, 3]],
        vec![entry(good + 2, &b), vec![0xf0, 1]],
    ];
    for payloads in &records {
        payloads
            .iter()
            .for_each(|payload| world.members[0].pending.push(payload).unwrap());
        world.seal(0, at(1));
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = world.deliver(1, 0, at(1)) {
        outcomes.push(outcome);
    }
    let faults: Vec<bool> = outcomes
        .iter()
        .map(|outcome| matches!(outcome, Err(ApplyError::Fault { .. })))
        .collect();
    assert_eq!(
        faults,
        [false, false, true, true, true, false],
        "the first opens the chain"
    );
    assert_eq!(outcomes[5].as_ref().unwrap().control, 1);
    for key in [&a, &b] {
        assert!(world.value(1, key, Consistency::Eventual, at(1)).is_some());
    }
}

#[test]
fn memory_is_bounded_and_says_so() {
    let options = Options {
        memtable_bytes: 50_000,
        ..Options::default()
    };
    let table = alone(options);
    let mut refused = None;
    for n in 0..10_000 {
        let key = key(&n.to_string());
        if let Err(error) = table.write(&[put(&key, &[0; 100])], at(1), took) {
            refused = Some((n, error));
            break;
        }
    }
    let (n, error) = refused.unwrap();
    assert_eq!(error, TableError::Busy);
    assert!(table.flush_due() && table.memory_bytes() < 2 * 50_000 + 500);
    assert!(
        (100_000 / 400..100_000 / 130).contains(&n),
        "{n} entries of about 110 bytes"
    );
    let frozen = table.freeze().unwrap();
    table.write(&[put(&key("x"), b"")], at(1), took).unwrap();
    table.flushed(frozen, Arc::new(NoCold));
    assert!(table.memory_bytes() < 1000);
}

#[test]
fn bounds_are_told_before_anything_changes() {
    let table = alone(Options::default());
    let long = vec![0; 1_000_001];
    let write = |op: Op<'_>| table.write(&[op], at(1), took).unwrap_err();
    assert_eq!(
        write(put(&key("k"), &long)),
        TableError::Value { found: 1_000_001 }
    );
    assert_eq!(write(put(b"\0lease", b"")), TableError::Bucket);
    assert_eq!(write(put(&[1; 1025], b"")), TableError::Key { found: 1025 });
    assert_eq!(
        write(Op::DeleteRange {
            from: &key("b"),
            to: &key("a")
        }),
        TableError::Range
    );
    let handed = table.write(&[put(&key("k"), b"")], at(1), |_| Err::<(), _>("no room"));
    assert_eq!(handed, Err(TableError::Handed("no room".to_owned())));
    assert!(
        !table
            .exists(&key("k"), Consistency::Eventual, at(1))
            .unwrap()
    );
    assert!(matches!(
        table.get(&key("k"), Consistency::Epoch, at(1)),
        Err(TableError::NoEpochs)
    ));
    assert!(matches!(
        table.get(&key("k"), Consistency::Linearizable, at(1)),
        Err(TableError::NotHeld)
    ));
}
