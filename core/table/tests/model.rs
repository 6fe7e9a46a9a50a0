//! Tables of several writers against one ordered map: whatever the network, restarts, flushes and
//! compactions do, a table shows what its records say in the order of versions.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

#[expect(dead_code, reason = "each of the suites uses its part of it")]
mod cast;

use std::collections::BTreeMap;

use bield_capsule::{Kind, WriterId};
use bield_envelope::Time;
use bield_table::{
    Action, Change, Consistency, Op, Options, PageLimits, TableEntry, Version, bucket_range,
    full_key,
};
use cast::{World, at};

/// A bucket without epochs and one with.
const BUCKETS: [&str; 2] = ["b", "e"];
const KEYS: usize = 4;

/// What a set of records says: of each key the value and when it ends.
type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<Time>)>;

/// Applies entries in the order of their versions: the last writer wins.
fn model(world: &World, counts: impl Fn(usize, u64) -> bool, unsealed: Option<usize>) -> Model {
    let mut entries: Vec<(Version, Vec<u8>)> = Vec::new();
    let mut take = |writer: WriterId, payload: &[u8]| {
        let entry = TableEntry::decode(payload).unwrap().unwrap();
        let clock = entry.clock;
        entries.push((Version { clock, writer }, payload.to_vec()));
    };
    for (of, member) in world.members.iter().enumerate() {
        for (seq, payloads) in member.sealed.iter().enumerate() {
            if counts(of, seq as u64) {
                payloads.iter().for_each(|payload| take(member.id, payload));
            }
        }
        if unsealed == Some(of) {
            member
                .payloads
                .iter()
                .for_each(|payload| take(member.id, payload));
        }
    }
    entries.sort_by_key(|entry| entry.0);
    let mut model = Model::new();
    for (_, payload) in entries {
        match TableEntry::decode(&payload).unwrap().unwrap().action {
            Action::Change(Change::Put {
                key,
                value,
                expires,
            }) => {
                model.insert(key.to_vec(), (value.to_vec(), expires));
            }
            Action::Change(Change::Delete { key }) => {
                model.remove(key);
            }
            Action::DeleteRange { from, to } => {
                model.retain(|key, _| !(from <= &**key && &**key < to))
            }
            _ => panic!("the model knows changes only"),
        }
    }
    model
}

fn shows(model: &Model, key: &[u8], now: Time) -> Option<Vec<u8>> {
    let (value, expires) = model.get(key)?;
    expires
        .is_none_or(|expires| now < expires)
        .then(|| value.clone())
}

fn key(bucket: usize, n: usize) -> Vec<u8> {
    full_key(BUCKETS[bucket], &[n as u8]).unwrap()
}

struct Run {
    world: World,
    now: u64,
    epoch: u64,
    /// Of each member the positions of the joins it has applied, and what they name.
    cuts: Vec<BTreeMap<WriterId, u64>>,
    joins: Vec<Vec<Vec<(WriterId, u64)>>>,
}

impl Run {
    fn new(seed: u64, levels: bool) -> Self {
        let options = Options {
            epochs: vec![BUCKETS[1].to_owned()],
            ..Options::default()
        };
        let writers = 2 + (seed % 2) as usize;
        Self {
            world: World::new(seed, writers, levels, &options),
            now: 1000,
            epoch: 0,
            cuts: vec![BTreeMap::new(); writers],
            joins: vec![Vec::new(); writers],
        }
    }

    fn now(&self) -> Time {
        at(self.now)
    }

    fn write(&mut self, member: usize) {
        let (now, draw) = (self.now(), &mut self.world.draw);
        let mut ops = Vec::new();
        for _ in 0..1 + draw.below(3) {
            let (bucket, n) = (draw.below(2), draw.below(KEYS));
            let value = vec![draw.below(256) as u8; draw.below(4)];
            let expires = (draw.below(5) == 0).then(|| at(self.now + draw.below(30) as u64));
            ops.push((draw.below(8), bucket, n, value, expires, draw.below(KEYS)));
        }
        let keys: Vec<_> = ops.iter().map(|op| key(op.1, op.2)).collect();
        let ends: Vec<_> = ops.iter().map(|op| key(op.1, op.2 + 1 + op.5)).collect();
        let ops: Vec<Op<'_>> = ops
            .iter()
            .zip(keys.iter().zip(&ends))
            .map(|((what, _, _, value, expires, _), (key, end))| match what {
                0 | 1 => Op::Delete { key },
                2 => Op::DeleteRange { from: key, to: end },
                _ => Op::Put {
                    key,
                    value,
                    expires: *expires,
                },
            })
            .collect();
        self.world.write(member, &ops, now).unwrap();
    }

    /// Which cuts are whole at a member, as positions.
    fn settle(&mut self, member: usize) {
        let world = &self.world;
        let own = &world.members[member];
        let mut all = Vec::new();
        for (of, applied) in own.applied.iter().enumerate() {
            let records = world.members[of].chain[..*applied].iter();
            for record in records.filter(|record| record.header().kind == Kind::Join) {
                let header = record.header();
                let parents = header.parents.iter().map(|head| (head.writer, head.seq));
                all.push(
                    parents
                        .chain([(header.writer, header.seq)])
                        .collect::<Vec<_>>(),
                );
            }
        }
        self.joins[member] = all;
        let here = |writer: &WriterId, seq: u64| {
            let of = world
                .members
                .iter()
                .position(|other| other.id == *writer)
                .unwrap();
            own.applied[of] as u64 > seq
        };
        for join in &self.joins[member] {
            if join.iter().all(|(writer, seq)| here(writer, *seq)) {
                for (writer, seq) in join {
                    let known = self.cuts[member].entry(*writer).or_default();
                    *known = (*known).max(*seq);
                }
            }
        }
    }

    fn check(&mut self, member: usize, thorough: bool) {
        self.settle(member);
        let now = self.now();
        let own = &self.world.members[member];
        let here = |of: usize, seq: u64| own.applied[of] as u64 > seq;
        let now_model = model(&self.world, here, Some(member));
        let cut = |of: usize, seq: u64| {
            let through = self.cuts[member].get(&self.world.members[of].id);
            through.is_some_and(|through| seq <= *through)
        };
        let epoch_model = model(&self.world, cut, None);
        for (bucket, name) in BUCKETS.iter().enumerate() {
            for n in 0..KEYS {
                let key = key(bucket, n);
                let found = self.world.value(member, &key, Consistency::Eventual, now);
                assert_eq!(found, shows(&now_model, &key, now));
                if bucket == 1 {
                    let found = self.world.value(member, &key, Consistency::Epoch, now);
                    assert_eq!(found, shows(&epoch_model, &key, now), "epoch");
                }
            }
            if !thorough {
                continue;
            }
            let (from, to) = bucket_range(name).unwrap();
            let models = [
                (Consistency::Eventual, &now_model),
                (Consistency::Epoch, &epoch_model),
            ];
            for (how, model) in models.into_iter().take(1 + bucket) {
                let limits = PageLimits {
                    keys: 1 + self.now as usize % 3,
                    bytes: [1, 12, 1 << 20][self.now as usize / 3 % 3],
                };
                let (mut after, mut keys) = (None, Vec::new());
                loop {
                    let range = (&*from, &*to);
                    let page = own
                        .table
                        .keys(range, after.as_deref(), limits, how, now)
                        .unwrap();
                    keys.extend(page.keys);
                    after = page.after;
                    if after.is_none() {
                        break;
                    }
                }
                let (mut after, mut all) = (None, Vec::new());
                loop {
                    let range = (&*from, &*to);
                    let page = own
                        .table
                        .page(range, after.as_deref(), limits, how, now)
                        .unwrap();
                    all.extend(
                        page.entries
                            .into_iter()
                            .map(|(key, found)| (key, found.value.to_vec())),
                    );
                    after = page.after;
                    if after.is_none() {
                        break;
                    }
                }
                let expected = model.range(from.clone()..to.clone());
                let expected: Vec<_> = expected
                    .filter_map(|(key, _)| Some((key.clone(), shows(model, key, now)?)))
                    .collect();
                assert!(
                    keys.iter().eq(expected.iter().map(|(key, _)| key)),
                    "{how:?}"
                );
                assert_eq!(all, expected, "{how:?}");
            }
        }
    }

    fn step(&mut self) {
        let members = self.world.members.len();
        let member = self.world.draw.below(members);
        self.now += [0, 0, 1, 7][self.world.draw.below(4)];
        let now = self.now();
        match self.world.draw.below(24) {
            0..8 => self.write(member),
            8..10 => self.world.seal(member, now),
            10..18 => {
                let from = self.world.draw.below(members);
                if let Some(taken) = self.world.deliver(member, from, now) {
                    taken.unwrap();
                }
            }
            18 => {
                self.epoch += 1;
                self.world.join(member, self.epoch, now);
            }
            19 | 20 => self.world.flush(member, now),
            21 => {
                self.world
                    .compact_below(member, bield_capsule::Clock::default(), now);
            }
            22 => {
                self.world.restart(member, Default::default(), now);
            }
            // A record that comes again, and a gap, change nothing.
            _ => {
                let from = self.world.draw.below(members);
                self.world.deliver_twice(member, from, now);
            }
        }
        let thorough = self.world.draw.below(8) == 0;
        self.check(member, thorough);
    }

    fn end(&mut self) {
        let now = self.now();
        self.world.deliver_all(now);
        for member in 0..self.world.members.len() {
            self.check(member, true);
        }
    }
}

fn run(seeds: core::ops::Range<u64>, steps: usize, levels: bool) {
    for seed in seeds {
        let result = std::panic::catch_unwind(|| {
            let mut run = Run::new(seed, levels);
            (0..steps).for_each(|_| run.step());
            run.end();
        });
        if let Err(panic) = result {
            eprintln!("seed {seed}, {steps} steps, levels: {levels}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn tables_show_what_their_records_say_in_short_lives() {
    run(0..6000, 9, false);
}

#[test]
fn tables_show_what_their_records_say_in_longer_lives() {
    run(6000..10_000, 18, false);
}

#[test]
fn tables_show_what_their_records_say_over_real_levels() {
    run(10_000..10_300, 60, true);
}
