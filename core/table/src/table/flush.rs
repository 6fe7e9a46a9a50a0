//! From memory to the cold side, while reads and writes go on.
//!
//! ```text
//! freeze ─▶ Frozen: cells, range deletes, covered ─▶ runs, a manifest, a record: the caller's ─▶ flushed
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError};

use bield_capsule::WriterId;
use bield_levels::{OwnedCell, RangeDelete};

use super::{Table, View, Writing};
use crate::Cold;
use crate::cut::Cut;
use crate::key::in_bucket;
use crate::memtable::{Floor, Memtable, RANGES_MAX, Sight};

/// A memtable that takes nothing any more, to be written to runs.
pub struct Frozen {
    memtable: Arc<Memtable>,
    covered: Vec<(WriterId, u64)>,
    cut: Arc<Cut>,
    epochs: Vec<String>,
}

impl Frozen {
    /// The next cells for runs, ascending by key, after `after`: at most `count`; none: that was all.
    #[must_use]
    pub fn cells(&self, after: Option<&[u8]>, count: usize) -> Vec<OwnedCell> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.memtable.page(from, count, |key| Sight {
            number: u64::MAX,
            // spec/07 §5: the cold side has nothing that epochs do not show yet.
            cut: self.keeps_epochs(key).then_some(&self.cut),
        })
    }

    /// The range deletes that go with them.
    #[must_use]
    pub fn range_deletes(&self) -> Vec<RangeDelete> {
        let ranges = self
            .memtable
            .all_ranges()
            .into_iter()
            .map(|(range, _)| range);
        ranges.filter(|range| !self.stays(range)).collect()
    }

    /// Through where each writer's entries are in these cells and in what was flushed before: what the
    /// manifest may say is covered.
    #[must_use]
    pub fn covered(&self) -> &[(WriterId, u64)] {
        &self.covered
    }

    fn keeps_epochs(&self, key: &[u8]) -> bool {
        self.epochs.iter().any(|bucket| in_bucket(key, bucket))
    }

    fn stays(&self, range: &RangeDelete) -> bool {
        self.keeps_epochs(&range.from) && !self.cut.includes(&range.version)
    }
}

impl Table {
    /// Whether the memtable has its size: flush it soon.
    #[must_use]
    pub fn flush_due(&self) -> bool {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        view.active.bytes() >= self.options.memtable_bytes || view.active.ranges() >= RANGES_MAX
    }

    /// Bytes of entries in memory, those that are being flushed included.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let frozen = view.frozen.as_ref().map_or(0, |frozen| frozen.bytes());
        view.active.bytes() + frozen
    }

    /// Range deletes in memory, those that are being flushed included.
    #[must_use]
    pub fn range_deletes(&self) -> usize {
        let view = self.view.read().unwrap_or_else(PoisonError::into_inner);
        let frozen = view.frozen.as_ref().map_or(0, |frozen| frozen.ranges());
        view.active.ranges() + frozen
    }

    /// Lets new entries go to a fresh memtable, and gives the one before; the same one again while it is
    /// not flushed. None: there is nothing to flush. Entries that were handed on must be sealed before
    /// the record of the manifest is.
    #[must_use]
    pub fn freeze(&self) -> Option<Frozen> {
        let mut writing = self.writing();
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.frozen.is_none() {
            if view.active.bytes() == 0 {
                return None;
            }
            writing.active = Arc::new(Memtable::new());
            let active = core::mem::replace(&mut view.active, Arc::clone(&writing.active));
            view.frozen = Some(active);
            writing.frozen = (self.coverable(&writing), self.current_cut());
        }
        let (covered, cut) = writing.frozen.clone();
        Some(Frozen {
            memtable: view.frozen.clone()?,
            covered,
            cut,
            epochs: self.options.epochs.clone(),
        })
    }

    /// Through where every entry is in memory or on the cold side and may be flushed.
    fn coverable(&self, writing: &Writing) -> Vec<(WriterId, u64)> {
        let through = |(writer, seq): (WriterId, u64)| {
            if self.options.epochs.is_empty() {
                return Some((writer, seq));
            }
            let before = writing.covered.get(&writer);
            let through = writing.cut_seqs.get(&writer).max(before)?;
            Some((writer, seq.min(*through)))
        };
        writing.chains.all().filter_map(through).collect()
    }

    /// Takes the cold side that has what was frozen, and lets go of it.
    pub fn flushed(&self, frozen: Frozen, cold: Arc<dyn Cold>) {
        let mut writing = self.writing();
        // What epochs do not show yet was not flushed: it goes on in the fresh memtable.
        let kept = if frozen.epochs.is_empty() {
            Vec::new()
        } else {
            let epochs = |key: &[u8]| frozen.keeps_epochs(key);
            frozen.memtable.beyond(&frozen.cut, epochs)
        };
        let ranges = frozen.memtable.all_ranges();
        let number = self.visible.load(std::sync::atomic::Ordering::Relaxed);
        let none = Cut::default();
        let floor = Floor {
            number: 0,
            cut: Some(&none),
        };
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        for cell in &kept {
            view.active.insert(&cell.as_cell(), number, &floor, || ());
        }
        for (range, _) in ranges.into_iter().filter(|(range, _)| frozen.stays(range)) {
            view.active.insert_range(range, number);
        }
        *view = View {
            active: view.active.clone(),
            frozen: None,
            cold_clock: cold.clock(),
            cold,
        };
        let covered: BTreeMap<WriterId, u64> = frozen.covered.into_iter().collect();
        writing.covered.extend(covered);
    }

    /// Takes a cold side that has the same cells in other runs, after a compaction.
    pub fn compacted(&self, cold: Arc<dyn Cold>) {
        let _writing = self.writing();
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        view.cold_clock = cold.clock();
        view.cold = cold;
    }
}
