//! Random requests against a map over the whole state: memory, runs, log and files, with crashes at any write and byte,
//! what was not durable lost, refused writes, full disks, restarts from the files alone, flushes and compactions at random
//! moments, times to live, range deletes, atomics, marks, and heads that the key service keeps.
//!
//! ```text
//! base (durable) ─ commit ─ commit ─ commit ─ …     told, in order, of which a crash leaves any first part
//!    └────────── what is read: all of them ──┘
//! ```

use std::collections::BTreeMap;

use bield_capsule::Head;
use bield_envelope::Seeded;
use rand_core::Rng as _;

use super::cast::{Capsule, Machine, at, bucket, counters};
use super::torn::{Fault, TornFiles};
use crate::{
    Bucket, Change, Durability, Handle, PageLimits, Request, State, StateError, SwapOutcome,
};

/// Histories, each of its own seed.
const CASES: u64 = 10_000;
const STEPS: usize = 14;
/// Where marks go.
const MARKS: &str = "marks";

/// A bucket's number and a key of it.
type Key = (usize, Vec<u8>);
type Value = (Vec<u8>, Option<u64>);
type Model = BTreeMap<Key, Value>;
/// What one commit leaves under its keys.
type Commit = Vec<(Key, Option<Value>)>;

fn buckets() -> [Bucket; 3] {
    let marks = Bucket {
        name: MARKS.to_owned(),
        ..bucket()
    };
    [bucket(), counters(), marks]
}

struct World {
    seed: u64,
    machine: Machine,
    files: TornFiles,
    state: State,
    /// What outlives any crash.
    base: Model,
    /// What came after, in order; the last one may be in doubt.
    commits: Vec<Commit>,
    anchored: Vec<Head>,
    millis: u64,
    marked: u64,
    entropy: Seeded,
    crashes: usize,
}

/// Says which history it was that failed.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the history of seed {}", self.seed);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let files = TornFiles::default();
        let machine = Machine::new(Capsule::new(1), seed);
        let state = machine.open(&files, &[]).unwrap();
        Self {
            seed,
            machine,
            files,
            state,
            base: Model::new(),
            commits: Vec::new(),
            anchored: Vec::new(),
            millis: 0,
            marked: 0,
            entropy: Seeded::new(seed),
            crashes: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.entropy.next_u64() % below
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key {:02}", self.draw(24)).into_bytes()
    }

    fn value(&mut self) -> Value {
        let length = if self.draw(12) == 0 { 900 } else { 120 };
        let bytes = vec![self.draw(256) as u8; self.draw(length) as usize];
        let expires = (self.draw(4) == 0).then(|| self.millis + 1 + self.draw(80));
        (bytes, expires)
    }

    fn durability(&mut self) -> Durability {
        match self.draw(4) {
            0 => Durability::Memory,
            1 => Durability::Local,
            _ => Durability::LocalSync,
        }
    }

    /// What reads show.
    fn model(&self) -> Model {
        self.after(self.commits.len())
    }

    /// What is there after the first `count` commits that may be lost.
    fn after(&self, count: usize) -> Model {
        let mut model = self.base.clone();
        for (key, value) in self.commits[..count].iter().flatten() {
            match value {
                Some(value) => drop(model.insert(key.clone(), value.clone())),
                None => drop(model.remove(key)),
            }
        }
        model.retain(|_, (_, expires)| expires.is_none_or(|end| self.millis < end));
        model
    }

    /// All that was told is durable.
    fn settle(&mut self) {
        self.base = self.model();
        self.commits.clear();
    }

    fn step(&mut self) {
        let outcome = match self.draw(26) {
            0..7 => {
                let (key, value) = (self.key(), self.value());
                self.write(vec![((0, key), Some(value))])
            }
            7..9 => {
                let key = self.key();
                self.write(vec![((0, key), None)])
            }
            9 => {
                let value = self.value();
                let many = (0..5).map(|_| ((0, self.key()), Some(value.clone())));
                let many: BTreeMap<_, _> = many.collect();
                self.write(many.into_iter().collect())
            }
            10 => self.delete_range(),
            11..13 => self.swap(),
            13..15 => self.increment(),
            15 => {
                let key = self.key();
                self.read((0, key))
            }
            16 => self.check(),
            17 => {
                self.plan_fault();
                Ok(())
            }
            18..20 => self.state.flush().map(|()| self.settle()),
            20 => self.restart(),
            21 => {
                self.files.crash();
                Err(StateError::Full)
            }
            22 => self.anchor(),
            23 => {
                let room = self.draw(3000) as usize + self.files.bytes();
                self.files.limit(Some(room));
                Ok(())
            }
            _ => {
                let millis = self.draw(60);
                self.millis += millis;
                self.machine.clocks.pass(millis);
                Ok(())
            }
        };
        if outcome.is_err() {
            self.recover();
        }
    }

    /// Runs a request that leaves `commit`, and sometimes a mark beside it.
    fn commit(
        &mut self,
        mut commit: Commit,
        durability: Durability,
        act: impl FnOnce(&mut Request) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let mut request = self.state.request(&[])?;
        if self.draw(3) == 0 {
            self.marked += 1;
            let key = self.marked.to_be_bytes();
            let expires = self.millis + 50;
            request.mark(MARKS, &key, at(expires))?;
            commit.push(((2, key.to_vec()), Some((Vec::new(), Some(expires)))));
        }
        self.commits.push(commit);
        act(&mut request)?;
        let cut = request.finish()?;
        assert!(cut.before.len() <= cut.after.len());
        if durability == Durability::LocalSync {
            self.settle();
        }
        Ok(())
    }

    /// Writes pairs in one commit.
    fn write(&mut self, pairs: Commit) -> Result<(), StateError> {
        let durability = self.durability();
        let bucket = Bucket {
            durability,
            ..bucket()
        };
        self.commit(pairs.clone(), durability, |request| {
            let changes: Vec<_> = pairs
                .iter()
                .map(|((_, key), value)| match value {
                    Some((value, expires)) => Change::Set {
                        key,
                        value,
                        expires: expires.map(at),
                    },
                    None => Change::Delete { key },
                })
                .collect();
            request.write(&bucket, &changes)
        })
    }

    fn delete_range(&mut self) -> Result<(), StateError> {
        let (mut from, mut to) = (self.key(), self.key());
        if from > to {
            core::mem::swap(&mut from, &mut to);
        }
        to.push(0);
        let durability = self.durability();
        let bucket = Bucket {
            durability,
            ..bucket()
        };
        let model = self.model();
        let gone = model.range((0, from.clone())..(0, to.clone()));
        let gone = gone.map(|(key, _)| (key.clone(), None)).collect();
        self.commit(gone, durability, |request| {
            request.delete_range(&bucket, &from, &to)
        })
    }

    /// Swaps what is there, or what is not there any more.
    fn swap(&mut self) -> Result<(), StateError> {
        let key = format!("stock {}", self.draw(3)).into_bytes();
        let (wanted, stale) = (self.value(), self.draw(3) == 0);
        let mut request = self.state.request(&[])?;
        let found = request.get(&counters(), &key)?;
        request.finish()?;
        let place = (1, key.clone());
        let there = self.model().get(&place).cloned();
        assert_eq!(
            found.as_ref().map(|found| found.value.to_vec()),
            there.map(|there| there.0)
        );
        let seen = match stale {
            true => Handle::of(None),
            false => Handle::of(found.as_ref()),
        };
        let wins = !stale || found.is_none();
        let commit = match wins {
            true => vec![(place, Some(wanted.clone()))],
            false => Vec::new(),
        };
        if !wins {
            let mut request = self.state.request(&[])?;
            request.mark(MARKS, b"never", at(u64::MAX / 2))?;
            let change = Change::Delete { key: &key };
            let outcome = request.swap(&counters(), change, seen)?;
            assert!(matches!(outcome, SwapOutcome::Changed(Some(_))));
            return request.finish().map(|_| ());
        }
        self.commit(commit, Durability::LocalSync, |request| {
            let change = Change::Set {
                key: &key,
                value: &wanted.0,
                expires: wanted.1.map(at),
            };
            let outcome = request.swap(&counters(), change, seen)?;
            assert!(matches!(outcome, SwapOutcome::Done));
            Ok(())
        })
    }

    fn increment(&mut self) -> Result<(), StateError> {
        let key = format!("sum {}", self.draw(3)).into_bytes();
        let delta = self.draw(7) as i64 - 3;
        let place = (1, key.clone());
        let before = self.model().get(&place).map_or(0, |(text, _)| {
            String::from_utf8_lossy(text).parse::<i64>().unwrap()
        });
        let sum = (before + delta).to_string().into_bytes();
        let commit = vec![(place, Some((sum, None)))];
        self.commit(commit, Durability::LocalSync, |request| {
            let sum = request.increment(&counters(), &key, delta)?;
            assert_eq!(sum, before + delta);
            Ok(())
        })
    }

    fn read(&mut self, place: Key) -> Result<(), StateError> {
        let mut request = self.state.request(&[])?;
        let found = request.get(&buckets()[place.0], &place.1)?;
        request.finish()?;
        let found = found.map(|found| found.value.to_vec());
        assert_eq!(found, self.model().get(&place).map(|there| there.0.clone()));
        Ok(())
    }

    fn plan_fault(&mut self) {
        let write = self.draw(10) + self.files.writes();
        let bytes = self.draw(600) as usize;
        let fault = match self.draw(4) {
            0 => Fault::LoseAnswer(write),
            1 => Fault::Refuse(write),
            _ => Fault::Crash(write, bytes),
        };
        self.files.fail(fault);
    }

    /// As the key service is told.
    fn anchor(&mut self) -> Result<(), StateError> {
        let anchoring = self.state.anchoring()?;
        let kept = |head: &Head| !anchoring.covered.contains(&head.writer);
        let own: Vec<_> = anchoring.heads.iter().map(|head| head.writer).collect();
        self.anchored
            .retain(|head| kept(head) && !own.contains(&head.writer));
        self.anchored.extend(anchoring.heads);
        self.settle();
        Ok(())
    }

    /// A planned end of the process: nothing is lost.
    fn restart(&mut self) -> Result<(), StateError> {
        if !self.files.calm() {
            return Err(StateError::Full);
        }
        self.state.end();
        // What was planned may have come to pass a moment ago.
        self.state.anchoring()?;
        let heads = self.state.heads();
        self.state = self.machine.open(&self.files, &heads)?;
        // What was in memory alone is in the log now, and the machine did not lose power.
        self.check()
    }

    /// Power comes back after a crash, or somebody looks at the disk.
    fn recover(&mut self) {
        self.crashes += 1;
        self.state.end();
        let entropy = &mut self.entropy;
        self.files
            .restart(|below| (entropy.next_u64() % below as u64) as usize);
        let opened = self.machine.open(&self.files, &self.anchored);
        self.state = opened.unwrap_or_else(|error| panic!("{error}"));
        let found = all(&self.state).unwrap_or_else(|error| panic!("{error}"));
        let is_there = |count: &usize| self.after(*count) == found;
        let kept = (0..=self.commits.len()).rev().find(is_there);
        let kept = kept.unwrap_or_else(|| {
            panic!(
                "found {found:?}, of {:?} and then {:?}",
                self.base, self.commits
            )
        });
        self.base = self.after(kept);
        self.commits.clear();
    }

    fn check(&mut self) -> Result<(), StateError> {
        assert_eq!(all(&self.state)?, self.model());
        Ok(())
    }
}

/// Everything in the buckets, by pages.
fn all(state: &State) -> Result<Model, StateError> {
    let mut request = state.request(&[])?;
    let limits = PageLimits {
        keys: 7,
        bytes: 1 << 20,
    };
    let mut found = Model::new();
    for (number, bucket) in buckets().iter().enumerate() {
        let mut after = None;
        loop {
            let page = request.list(bucket, after.as_deref(), limits)?;
            for (key, listed) in page.entries {
                let value = request.get(bucket, &key)?;
                assert!(value.is_some_and(|value| *value.value == *listed.value));
                let expires = listed
                    .expires
                    .map(|end| end.as_millis() - at(0).as_millis());
                let value = (listed.value.to_vec(), expires);
                assert!(found.insert((number, key), value).is_none());
            }
            match page.after {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(found)
}

#[test]
fn a_state_is_a_map_whatever_happens_to_its_machine() {
    let mut crashes = 0;
    for seed in 0..CASES {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.recover();
        world.check().unwrap();
        crashes += world.crashes;
    }
    assert!(crashes > CASES as usize, "{crashes}");
}
