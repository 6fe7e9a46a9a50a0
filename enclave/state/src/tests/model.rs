//! Random requests against a map, with crashes, refused writes, restarts, flushes and compactions at random
//! moments, on a disk that keeps what it said it kept.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bield_envelope::Seeded;
use bield_ledger::{Fault, MemoryFiles};
use rand_core::Rng as _;

use super::cast::{Capsule, Machine, bucket};
use crate::{Bucket, Change, PageLimits, State, StateError};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a run knows.
struct World {
    machine: Machine,
    files: MemoryFiles,
    state: State,
    model: Model,
    /// Of a write whose outcome is not known: the key, and the value it would leave.
    doubt: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    entropy: Seeded,
    crashes: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let files = MemoryFiles::new();
        let machine = Machine::new(Capsule::new(1), seed);
        let state = machine.open(&files, &[]).unwrap();
        Self {
            machine,
            files,
            state,
            model: Model::new(),
            doubt: Vec::new(),
            entropy: Seeded::new(seed),
            crashes: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.entropy.next_u64() % below
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key {:02}", self.draw(40)).into_bytes()
    }

    fn step(&mut self) {
        let value = vec![self.draw(256) as u8; self.draw(200) as usize];
        let key = self.key();
        let outcome = match self.draw(20) {
            0..10 => self.write(vec![(key, Some(value))]),
            10..13 => self.write(vec![(key, None)]),
            13 => {
                let pairs = (0..5).map(|_| (self.key(), Some(value.clone())));
                let pairs: BTreeMap<_, _> = pairs.collect();
                self.write(pairs.into_iter().collect())
            }
            14 => self.check(),
            15 => self.plan_fault(),
            16 | 17 => self.state.flush(),
            18 => self.restart(),
            _ => self.read(&key),
        };
        if outcome.is_err() {
            self.recover();
        }
    }

    /// Writes pairs in one commit.
    fn write(&mut self, pairs: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StateError> {
        self.doubt.clone_from(&pairs);
        let bucket = bucket();
        let mut request = self.state.request(&[])?;
        let changes: Vec<_> = pairs
            .iter()
            .map(|(key, value)| match value {
                Some(value) => Change::Set {
                    key,
                    value,
                    expires: None,
                },
                None => Change::Delete { key },
            })
            .collect();
        request.write(&bucket, &changes)?;
        request.finish()?;
        self.doubt.clear();
        for (key, value) in pairs {
            match value {
                Some(value) => drop(self.model.insert(key, value)),
                None => drop(self.model.remove(&key)),
            }
        }
        Ok(())
    }

    fn read(&mut self, key: &[u8]) -> Result<(), StateError> {
        let mut request = self.state.request(&[])?;
        let found = request.get(&bucket(), key)?;
        request.finish()?;
        let found = found.map(|found| found.value.to_vec());
        assert_eq!(found.as_ref(), self.model.get(key));
        Ok(())
    }

    fn plan_fault(&mut self) -> Result<(), StateError> {
        let write = self.files.writes() + self.draw(12);
        let bytes = self.draw(600);
        let fault = match self.draw(4) {
            0 => Fault::LoseAnswer { write },
            1 => Fault::Refuse { write },
            _ => Fault::Crash { write, bytes },
        };
        self.files.fail(fault);
        Ok(())
    }

    /// A planned end of the process.
    fn restart(&mut self) -> Result<(), StateError> {
        let heads = self.state.heads();
        self.reopen(&heads)
    }

    /// Power comes back after a crash, or somebody looks at the disk.
    fn recover(&mut self) {
        self.crashes += 1;
        self.files.restart();
        self.reopen(&[]).unwrap_or_else(|error| panic!("{error}"));
        let found = all(&self.state).unwrap_or_else(|error| panic!("{error}"));
        // What nobody was told of is there whole, or not at all.
        let mut with = self.model.clone();
        for (key, value) in self.doubt.drain(..) {
            match value {
                Some(value) => drop(with.insert(key, value)),
                None => drop(with.remove(&key)),
            }
        }
        assert!(found == self.model || found == with, "after a crash");
        self.model = found;
    }

    fn reopen(&mut self, anchored: &[bield_capsule::Head]) -> Result<(), StateError> {
        // The one before ends first: it holds the files.
        self.state.end();
        self.state = self.machine.open(&self.files, anchored)?;
        Ok(())
    }

    fn check(&mut self) -> Result<(), StateError> {
        assert_eq!(all(&self.state)?, self.model);
        Ok(())
    }
}

/// Everything in the bucket, by pages.
fn all(state: &State) -> Result<Model, StateError> {
    let bucket: Bucket = bucket();
    let mut request = state.request(&[])?;
    let limits = PageLimits {
        keys: 7,
        bytes: 1 << 20,
    };
    let (mut found, mut after) = (Model::new(), None);
    loop {
        let page = request.list(&bucket, after.as_deref(), limits)?;
        for (key, listed) in page.entries {
            let value = request.get(&bucket, &key)?;
            assert!(value.is_some_and(|value| *value.value == *listed.value));
            assert!(found.insert(key, listed.value.to_vec()).is_none());
        }
        match page.after {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

#[test]
fn a_state_is_a_map_whatever_happens_to_its_machine() {
    let begun = Instant::now();
    let (mut seeds, mut crashes) = (0, 0);
    // Time decides how many seeds there are, and nothing else.
    while seeds < 6 || (begun.elapsed() < Duration::from_secs(20) && seeds < 400) {
        let mut world = World::new(1000 + seeds);
        for _ in 0..120 {
            world.step();
        }
        world.recover();
        world.check().unwrap();
        seeds += 1;
        crashes += world.crashes;
    }
    assert!(crashes > 0);
    println!("{seeds} seeds, {crashes} crashes");
}
