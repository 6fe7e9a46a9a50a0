//! Cold sides: an ordered map, and real levels in memory.

use core::time::Duration;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bield_capsule::{CapsuleName, Clock, GenerationKey, KeyRing};
use bield_envelope::{Secret, Seeded, Time};
use bield_levels::{
    Changes, Compaction, Flush, Levels, LevelsError, Manifest, Memory, OwnedCell, OwnedContent,
    Plan, Progress, RangeDelete, Settings,
};
use bield_table::{Cold, Most, Part};

/// What a member flushes to.
pub(crate) enum Store {
    Map(Arc<MapCold>),
    Levels(Arc<Levels>),
}

impl Store {
    pub(crate) fn new(levels: bool, capsule: CapsuleName) -> Self {
        if !levels {
            return Self::Map(Arc::default());
        }
        let mut keys = KeyRing::new();
        keys.insert(GenerationKey::from_secret(1, Secret::from_bytes([7; 32])))
            .unwrap();
        let manifest = Manifest::begin(capsule, Duration::ZERO);
        let levels = Levels::open(manifest, &keys, Arc::new(Memory::default()), 1 << 20).unwrap();
        Self::Levels(Arc::new(levels))
    }

    pub(crate) const fn is_levels(&self) -> bool {
        matches!(self, Self::Levels(_))
    }

    pub(crate) fn flush(
        &mut self,
        cells: Vec<OwnedCell>,
        ranges: Vec<RangeDelete>,
        seed: u64,
        now: Time,
    ) -> Arc<dyn Cold> {
        match self {
            Self::Map(map) => {
                let mut next = MapCold {
                    ranges: map.ranges.iter().cloned().chain(ranges).collect(),
                    ..MapCold::default()
                };
                let before = map.cells.values().map(|cell| cell.as_cell().to_owned());
                before.chain(cells).for_each(|cell| next.put(cell));
                *map = Arc::new(next);
                map.clone()
            }
            Self::Levels(levels) => {
                let mut entropy = Seeded::new(seed);
                let mut flush = Flush::begin(levels, ranges, Settings::default()).unwrap();
                for cell in &cells {
                    flush.push(&cell.as_cell(), &mut entropy).unwrap();
                }
                let changes = Changes {
                    flushed: Some(flush.finish(&mut entropy).unwrap()),
                    ..Changes::default()
                };
                self.change(changes, now)
            }
        }
    }

    /// Compacts all runs into one, where there are any.
    pub(crate) fn compact(
        &mut self,
        horizon: Clock,
        seed: u64,
        now: Time,
    ) -> Option<Arc<dyn Cold>> {
        let mut entropy = Seeded::new(seed);
        let Self::Levels(levels) = self else {
            return None;
        };
        let plan = Plan::all(levels.manifest())?;
        let settings = Settings::default();
        let mut compaction = Compaction::begin(levels, &plan, horizon, settings).unwrap();
        let compacted = loop {
            match compaction.step(1 << 20, &mut entropy).unwrap() {
                Progress::Done(compacted) => break compacted,
                Progress::More => {}
            }
        };
        let changes = Changes {
            compacted: Some(compacted),
            ..Changes::default()
        };
        Some(self.change(changes, now))
    }

    fn change(&mut self, changes: Changes, now: Time) -> Arc<dyn Cold> {
        let Self::Levels(levels) = self else {
            unreachable!("a map has no manifest")
        };
        let mut keys = KeyRing::new();
        keys.insert(GenerationKey::from_secret(1, Secret::from_bytes([7; 32])))
            .unwrap();
        let manifest = levels.manifest().after(changes, now).unwrap();
        *levels = Arc::new(levels.next(manifest, &keys).unwrap());
        levels.clone()
    }
}

/// A cold side in a map.
#[derive(Default)]
pub(crate) struct MapCold {
    cells: BTreeMap<Vec<u8>, OwnedCell>,
    ranges: Vec<RangeDelete>,
}

impl MapCold {
    fn put(&mut self, cell: OwnedCell) {
        let known = self.cells.get(&cell.key);
        if known.is_none_or(|known| cell.as_cell().replaces(&known.as_cell())) {
            self.cells.insert(cell.key.clone(), cell);
        }
    }
}

impl Cold for MapCold {
    fn newest(&self, key: &[u8]) -> Result<Option<OwnedCell>, LevelsError> {
        let over = self.ranges.iter().filter(|range| range.covers(key));
        let deleted = over.map(|range| range.version).max();
        let cell = self.cells.get(key);
        Ok(match (cell, deleted) {
            (Some(cell), deleted) if deleted.is_none_or(|deleted| deleted < cell.version) => {
                Some(cell.as_cell().to_owned())
            }
            (_, Some(version)) => Some(OwnedCell {
                key: key.to_vec(),
                version,
                content: OwnedContent::Deleted,
            }),
            (_, None) => None,
        })
    }

    fn page(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, most: Most) -> Result<Part, LevelsError> {
        let covered = |cell: &OwnedCell| {
            let mut ranges = self.ranges.iter();
            ranges.any(|range| range.covers(&cell.key) && cell.version < range.version)
        };
        let cells = self
            .cells
            .range::<[u8], _>((from, to))
            .map(|(_, cell)| cell);
        let shown = cells.filter(|cell| !covered(cell));
        most.of(shown.map(|cell| Ok(cell.as_cell().to_owned())))
    }

    fn clock(&self) -> Clock {
        let cells = self.cells.values().map(|cell| cell.version.clock);
        let ranges = self.ranges.iter().map(|range| range.version.clock);
        cells.chain(ranges).max().unwrap_or_default()
    }
}
