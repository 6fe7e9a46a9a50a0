//! A capsule, its keys, a store and a few cells, for the tests of this folder.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test uses a part of it"
)]

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bield_capsule::{CapsuleName, Clock, GenerationKey, Head, KeyRing, WriterId};
use bield_envelope::{Digest, Secret, Seeded, Time};
use bield_levels::{
    Cell, Changes, Compaction, Content, Flush, Levels, LevelsError, Manifest, Memory, OwnedCell,
    Plan, Progress, RangeDelete, RunMeta, Settings, Version,
};

pub(crate) const CACHE_BYTES: u64 = 1 << 20;

pub(crate) fn capsule(byte: u8) -> CapsuleName {
    CapsuleName::from_bytes([byte; 32])
}

pub(crate) fn keys(numbers: &[u32]) -> KeyRing {
    let mut ring = KeyRing::new();
    for number in numbers {
        let secret = Secret::from_bytes([*number as u8; 32]);
        let key = GenerationKey::from_secret(*number, secret);
        ring.insert(key).expect("a number once");
    }
    ring
}

/// Small blocks and runs, so that few cells make several of both.
pub(crate) fn small() -> Settings {
    Settings::default()
        .with_block_bytes(128)
        .with_run_bytes(1 << 20)
}

pub(crate) fn version(clock: u64) -> Version {
    Version {
        clock: Clock::at(Time::from_millis(clock)),
        writer: WriterId::from_bytes([7; 32]),
    }
}

pub(crate) fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

pub(crate) fn head(seq: u64) -> Head {
    Head {
        writer: WriterId::from_bytes([7; 32]),
        seq,
        hash: Digest::of("head", &[&seq.to_be_bytes()]),
    }
}

/// A cell with a value.
pub(crate) fn put(key: &str, clock: u64, value: &str) -> OwnedCell {
    let content = Content::Value {
        bytes: value.as_bytes(),
        expires: None,
    };
    cell(key, clock, content)
}

pub(crate) fn deleted(key: &str, clock: u64) -> OwnedCell {
    cell(key, clock, Content::Deleted)
}

pub(crate) fn cell(key: &str, clock: u64, content: Content<'_>) -> OwnedCell {
    let (key, version) = (key.as_bytes(), version(clock));
    Cell {
        key,
        version,
        content,
    }
    .to_owned()
}

pub(crate) fn range(from: &str, to: &str, clock: u64) -> RangeDelete {
    RangeDelete {
        from: from.into(),
        to: to.into(),
        version: version(clock),
    }
}

/// One process over one store.
pub(crate) struct Cast {
    pub(crate) blobs: Arc<Memory>,
    pub(crate) keys: KeyRing,
    pub(crate) settings: Settings,
    pub(crate) levels: Arc<Levels>,
    pub(crate) entropy: Seeded,
    pub(crate) now: Time,
}

impl Cast {
    pub(crate) fn new() -> Self {
        Self::of(capsule(1), keys(&[1]))
    }

    pub(crate) fn of(capsule: CapsuleName, keys: KeyRing) -> Self {
        let blobs = Arc::new(Memory::default());
        let manifest = Manifest::begin(capsule, Duration::from_secs(60));
        let levels = Levels::open(manifest, &keys, blobs.clone(), CACHE_BYTES);
        Self {
            blobs,
            keys,
            settings: small(),
            levels: Arc::new(levels.expect("no run, no key")),
            entropy: Seeded::new(1),
            now: at(1000),
        }
    }

    /// Flushes cells, which it sorts; the manifest covers one head more.
    pub(crate) fn flush(
        &mut self,
        cells: &mut [OwnedCell],
        ranges: &[RangeDelete],
    ) -> Vec<RunMeta> {
        cells.sort_by(|a, b| a.key.cmp(&b.key));
        let begun = Flush::begin(&self.levels, ranges.to_vec(), self.settings);
        let mut flush = begun.expect("a key");
        for cell in cells {
            let pushed = flush.push(&cell.as_cell(), &mut self.entropy);
            pushed.expect("sorted cells");
        }
        let flushed = flush.finish(&mut self.entropy).expect("a store that keeps");
        let runs = flushed.runs().to_vec();
        let number = self.levels.manifest().number();
        self.change(Changes {
            flushed: Some(flushed),
            covered: vec![head(number)],
            ..Changes::default()
        });
        runs
    }

    pub(crate) fn change(&mut self, changes: Changes) {
        let next = self.levels.manifest().after(changes, self.now);
        let levels = self
            .levels
            .next(next.expect("changes that fit"), &self.keys);
        self.levels = Arc::new(levels.expect("keys of all runs"));
    }

    /// Merges everything into the bottom.
    pub(crate) fn compact(&mut self, horizon: u64) {
        let plan = Plan::all(self.levels.manifest()).expect("something to merge");
        let horizon = Clock::at(at(horizon));
        let begun = Compaction::begin(&self.levels, &plan, horizon, self.settings);
        let mut compaction = begun.expect("runs that open");
        loop {
            match compaction
                .step(500, &mut self.entropy)
                .expect("a good store")
            {
                Progress::More => {}
                Progress::Done(compacted) => {
                    let compacted = Some(compacted);
                    return self.change(Changes {
                        compacted,
                        ..Changes::default()
                    });
                }
            }
        }
    }

    /// The levels as another process finds them: nothing cached.
    pub(crate) fn fresh(&self) -> Result<Levels, LevelsError> {
        let manifest = self.levels.manifest().clone();
        Levels::open(manifest, &self.keys, self.blobs.clone(), CACHE_BYTES)
    }

    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let found = self
            .fresh()
            .and_then(|levels| levels.get(key.as_bytes(), self.now));
        found.expect("a good store").map(|cell| text(&cell))
    }
}

pub(crate) fn text(cell: &OwnedCell) -> String {
    let value = cell.as_cell().value_at(at(0)).expect("a value");
    String::from_utf8(value.to_vec()).expect("tests write text")
}

/// Everything there is, key and content.
pub(crate) fn all(levels: &Levels) -> Result<Vec<OwnedCell>, LevelsError> {
    levels.scan(Bound::Unbounded, Bound::Unbounded)?.collect()
}

/// Forty cells of about three blocks a dozen.
pub(crate) fn forty(clock: u64) -> Vec<OwnedCell> {
    let cell = |n: u64| {
        put(
            &format!("key {n:02}"),
            clock + n,
            &format!("value {n} of {clock}"),
        )
    };
    (0..40).map(cell).collect()
}
