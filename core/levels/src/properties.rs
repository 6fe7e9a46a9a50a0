//! Levels against a plain map, over seeds: random writes, late ones too, range deletes, expiry,
//! flushes, merges of anything into anywhere, restarts and horizons.
//!
//! A failing seed is in the panic's message; `case(seed)` replays it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bield_capsule::{CapsuleName, Clock, GenerationKey, KeyRing, WriterId};
use bield_envelope::{Seeded, Time};
use rand_core::Rng;

use crate::compaction::Target;
use crate::{
    Blobs, Cell, Changes, Compaction, Content, Flush, Levels, Manifest, Memory, OwnedCell,
    PageLimits, Plan, Progress, RangeDelete, Settings, Version,
};

/// Seeds of each test: ten thousand together.
const SEEDS: u64 = 2_500;

macro_rules! levels_answer_as_a_map_does {
    ($($name:ident from $first:expr;)*) => {
        mod levels_answer_as_a_map_does {
            $(#[test] fn $name() { super::run($first); })*
        }
    };
}

levels_answer_as_a_map_does! {
    in_the_first_quarter from 0;
    in_the_second_quarter from super::SEEDS;
    in_the_third_quarter from 2 * super::SEEDS;
    in_the_last_quarter from 3 * super::SEEDS;
}

fn run(first: u64) {
    for seed in first..first + SEEDS {
        if let Err(panic) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn case(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..world.below(30) + 8 {
        match world.below(16) {
            0..8 => world.write(),
            8 => world.delete_range(),
            9 | 10 => world.flush(),
            11 => world.compact_as_planned(),
            12 => world.compact_anything(),
            13 => world.restart(),
            14 => world.advance(),
            _ => world.compare(),
        }
    }
    world.flush();
    world.compare();
    world.check_runs();
    if let Some(plan) = Plan::all(world.levels.manifest()) {
        world.compact(&plan);
    }
    world.compare();
    world.remove();
    world.compare();
}

struct World {
    draw: Seeded,
    blobs: Arc<Memory>,
    keys: KeyRing,
    settings: Settings,
    cache: u64,
    levels: Arc<Levels>,
    /// Not flushed yet.
    memtable: BTreeMap<Vec<u8>, OwnedCell>,
    ranges: Vec<RangeDelete>,
    /// Everything that was ever flushed, and what wins of it.
    told: BTreeMap<Vec<u8>, OwnedCell>,
    told_ranges: Vec<RangeDelete>,
    clock: u64,
    horizon: Clock,
    now: Time,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut draw = Seeded::new(seed);
        let blobs = Arc::new(Memory::default());
        let mut keys = KeyRing::new();
        keys.insert(GenerationKey::generate(1, &mut draw)).unwrap();
        let capsule = CapsuleName::from_bytes([3; 32]);
        let manifest = Manifest::begin(capsule, Duration::from_millis(5));
        // Mostly enough for everything, sometimes for next to nothing.
        let cache = match draw.next_u64() % 8 {
            0 => 8 << 10,
            _ => 1 << 20,
        };
        let levels = Levels::open(manifest, &keys, blobs.clone(), cache).unwrap();
        let settings = Settings::default()
            .with_block_bytes(64 << (draw.next_u64() % 4))
            .with_run_bytes(256 << (draw.next_u64() % 6))
            .with_tier_runs(2 + (draw.next_u64() % 3) as usize)
            .with_bottom_ratio(1 + draw.next_u64() % 4);
        Self {
            draw,
            blobs,
            keys,
            settings,
            cache,
            levels: Arc::new(levels),
            memtable: BTreeMap::new(),
            ranges: Vec::new(),
            told: BTreeMap::new(),
            told_ranges: Vec::new(),
            clock: 100,
            horizon: Clock::default(),
            now: Time::from_millis(100),
        }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.draw.next_u64() % limit
    }

    fn key(&mut self) -> Vec<u8> {
        let prefix = b'a' + self.below(3) as u8;
        let length = 1 + self.below(3) as usize;
        let mut key = vec![prefix; length];
        key.push(self.below(12) as u8);
        key
    }

    /// A new version; sometimes one of another writer that arrives late, but never below the horizon.
    fn version(&mut self) -> Version {
        self.clock += 1;
        let late = self.below(4) == 0;
        let back = if late { self.below(60) } else { 0 };
        let clock = (self.clock - back).max(self.horizon.time().as_millis());
        let writer = match late {
            // One clock of one writer is used once: late ones have writers of their own.
            true => [(self.clock % 251) as u8 + 2; 32],
            false => [1; 32],
        };
        let mut writer_id = writer;
        writer_id[1..9].copy_from_slice(&self.clock.to_be_bytes());
        Version {
            clock: Clock::at(Time::from_millis(clock)),
            writer: WriterId::from_bytes(if late { writer_id } else { writer }),
        }
    }

    fn write(&mut self) {
        for _ in 0..self.below(6) + 1 {
            let (key, version) = (self.key(), self.version());
            let length = match self.below(20) {
                0 => 700,
                n => n as usize,
            };
            let bytes = vec![self.below(256) as u8; length];
            let expires = match self.below(4) {
                0 => Some(Time::from_millis(self.clock - 20 + self.below(60))),
                _ => None,
            };
            let content = match self.below(4) {
                0 => Content::Deleted,
                _ => Content::Value {
                    bytes: &bytes,
                    expires,
                },
            };
            let cell = Cell {
                key: &key,
                version,
                content,
            };
            win(&mut self.memtable, &cell);
        }
    }

    fn delete_range(&mut self) {
        let (mut from, mut to) = (self.key(), self.key());
        if from > to {
            std::mem::swap(&mut from, &mut to);
        }
        to.push(0);
        let version = self.version();
        self.ranges.push(RangeDelete { from, to, version });
    }

    fn flush(&mut self) {
        let ranges = std::mem::take(&mut self.ranges);
        let mut flush = Flush::begin(&self.levels, ranges.clone(), self.settings).unwrap();
        for cell in self.memtable.values() {
            flush.push(&cell.as_cell(), &mut self.draw).unwrap();
        }
        let flushed = Some(flush.finish(&mut self.draw).unwrap());
        for cell in std::mem::take(&mut self.memtable).values() {
            win(&mut self.told, &cell.as_cell());
        }
        self.told_ranges.extend(ranges);
        self.change(Changes {
            flushed,
            ..Changes::default()
        });
    }

    fn change(&mut self, changes: Changes) {
        let next = self.levels.manifest().after(changes, self.now).unwrap();
        self.levels = Arc::new(self.levels.next(next, &self.keys).unwrap());
    }

    fn compact_as_planned(&mut self) {
        if let Some(plan) = Plan::next(self.levels.manifest(), &self.settings) {
            self.compact(&plan);
        }
    }

    /// Any runs into any upper level, or any upper runs with the whole bottom into the bottom.
    fn compact_anything(&mut self) {
        let bottom = self.below(2) == 0;
        let manifest = self.levels.manifest().clone();
        let target = match bottom {
            true => Target::Bottom,
            false => Target::Upper(self.below(3) as usize),
        };
        let mut inputs = Vec::new();
        for run in manifest.upper().iter().flatten().flatten() {
            if self.below(2) == 0 {
                inputs.push(run.id);
            }
        }
        for run in manifest.bottom() {
            if bottom || self.below(3) == 0 {
                inputs.push(run.id);
            }
        }
        let bytes = 0;
        self.compact(&Plan {
            inputs,
            target,
            bytes,
        });
    }

    fn compact(&mut self, plan: &Plan) {
        let before = self.levels.clone();
        let (held, ranges) = (self.told.clone_cells(), self.told_ranges.clone());
        let begun = Compaction::begin(&self.levels, plan, self.horizon, self.settings);
        let mut compaction = begun.unwrap();
        let mut flushes = self.below(3);
        let compacted = loop {
            let bytes = 50 + self.below(2000) as usize;
            match compaction.step(bytes, &mut self.draw).unwrap() {
                Progress::Done(compacted) => break compacted,
                Progress::More if flushes > 0 => {
                    flushes -= 1;
                    self.write();
                    self.delete_range();
                    self.flush();
                }
                Progress::More => {}
            }
        };
        let counts = compacted.counts();
        assert_eq!(
            counts.read,
            counts.written + counts.replaced + counts.swept + counts.forgotten
        );
        self.change(Changes {
            compacted: Some(compacted),
            ..Changes::default()
        });
        // The snapshot from before still says what it said.
        for (key, cell) in &held {
            let now = self.now;
            let newer = |d: &RangeDelete| d.covers(key) && cell.version < d.version;
            let covered = ranges.iter().any(newer);
            let then = cell.as_cell().value_at(now).filter(|_| !covered);
            let found = before.get(key, now).unwrap();
            let found = found.as_ref().and_then(|cell| cell.as_cell().value_at(now));
            assert_eq!(found.is_some(), then.is_some());
        }
    }

    /// From what was stored and nothing else.
    fn restart(&mut self) {
        let manifest = self.levels.manifest();
        let (bytes, capsule) = (manifest.encode(), manifest.capsule());
        let again = Manifest::decode(&bytes, &capsule).unwrap();
        assert!(again == *manifest);
        let unknown = again.unknown(&self.blobs.list().unwrap());
        for run in unknown {
            self.blobs.remove(&run).unwrap();
        }
        let levels = Levels::open(again, &self.keys, self.blobs.clone(), self.cache).unwrap();
        self.levels = Arc::new(levels);
    }

    /// Time goes on, sometimes with a new key; the horizon follows, but never past what is unflushed.
    fn advance(&mut self) {
        self.clock += self.below(30);
        self.now = Time::from_millis(self.clock);
        if self.below(3) == 0 {
            let number = self.keys.newest().unwrap().number() + 1;
            let key = GenerationKey::generate(number, &mut self.draw);
            self.keys.insert(key).unwrap();
            self.change(Changes::default());
        }
        if self.memtable.is_empty() && self.ranges.is_empty() {
            let back = self.below(30);
            let horizon = Clock::at(Time::from_millis(self.clock - back));
            self.horizon = self.horizon.max(horizon);
        }
    }

    fn remove(&mut self) {
        self.now = self.now.plus(Duration::from_millis(6));
        let removed = self.levels.removable(self.now);
        for run in &removed {
            self.blobs.remove(run).unwrap();
        }
        let retired = self.levels.manifest().retired().len();
        assert_eq!(removed.len(), retired, "nobody reads them any more");
        self.change(Changes {
            removed,
            ..Changes::default()
        });
        self.restart();
        let kept = self.blobs.list().unwrap().len();
        assert_eq!(kept, self.levels.manifest().runs().count());
    }

    fn check_runs(&self) {
        for run in self.levels.manifest().runs() {
            self.levels.check(&run.id).unwrap();
        }
        assert!(self.levels.cached_bytes() <= self.cache);
    }

    fn compare(&mut self) {
        let now = self.now;
        let truth: BTreeMap<&[u8], (Version, &[u8])> = self
            .told
            .values()
            .map(OwnedCell::as_cell)
            .filter(|cell| {
                let newer = |d: &RangeDelete| d.covers(cell.key) && cell.version < d.version;
                !self.told_ranges.iter().any(newer)
            })
            .filter_map(|cell| Some((cell.key, (cell.version, cell.value_at(now)?))))
            .collect();
        for key in self.told.keys() {
            let found = self.levels.get(key, now).unwrap();
            let found = found.as_ref().map(|cell| value(cell, now));
            assert_eq!(found, truth.get(&key[..]).copied(), "key {key:?}");
        }
        let absent = [255, 1];
        assert!(self.levels.get(&absent, now).unwrap().is_none());
        let cells = 1 + self.draw.next_u64() as usize % 7;
        let limits = PageLimits { cells, bytes: 400 };
        let mut from: Bound<Vec<u8>> = Bound::Unbounded;
        let mut truth = truth.into_iter();
        loop {
            let bound = from.as_ref().map(|key| &key[..]);
            let page = self
                .levels
                .page(bound, Bound::Unbounded, limits, now)
                .unwrap();
            for cell in &page.cells {
                assert_eq!(Some((&cell.key[..], value(cell, now))), truth.next());
            }
            match page.after {
                Some(after) => from = Bound::Excluded(after),
                None => break,
            }
        }
        assert_eq!(truth.next(), None, "the scan ended too early");
    }
}

fn value(cell: &OwnedCell, now: Time) -> (Version, &[u8]) {
    (cell.version, cell.as_cell().value_at(now).unwrap())
}

fn win(cells: &mut BTreeMap<Vec<u8>, OwnedCell>, cell: &Cell<'_>) {
    let there = cells.get(cell.key);
    if there.is_none_or(|there| cell.replaces(&there.as_cell())) {
        cells.insert(cell.key.to_vec(), cell.to_owned());
    }
}

trait CloneCells {
    fn clone_cells(&self) -> BTreeMap<Vec<u8>, OwnedCell>;
}

impl CloneCells for BTreeMap<Vec<u8>, OwnedCell> {
    fn clone_cells(&self) -> Self {
        let cells = self.iter();
        cells
            .map(|(key, cell)| (key.clone(), cell.as_cell().to_owned()))
            .collect()
    }
}
