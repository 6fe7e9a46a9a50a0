//! What was written since the last flush, in memory, in the order of keys.
//!
//! ```text
//! key ──hash──▶ shard 0 … 15: RwLock<BTreeMap<key, slot>>       slot: newest version, older ones in use
//! commit n: insert in every shard ─▶ visible = n                readers see commits up to `visible`
//! ```
//!
//! In: cells with their versions, from one committer at a time. Out: what a reader sees of a key or of
//! a range. Always true: the order in which cells come does not matter, only their versions do; all
//! cells of a commit become visible together; what a live snapshot sees is kept, everything else that
//! is hidden goes; keys and values are wiped when they go.
//!
//! A reader loads `visible` and the cut while it holds the shard's lock, and a committer prunes by an
//! earlier state of both: so a reader never misses what it should see.
//!
//! Cost: a get is one hash (8 bytes a step), one uncontended read lock (about 15 ns) and one search in
//! a sixteenth of the keys; a put is the same with a write lock, and allocates slot and value where there
//! were none, nothing over a value of the same length. Why a `BTreeMap`: reads 7 times as fast as a skip list on one thread, and it is ordered.

mod slot;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bield_capsule::Clock;
use bield_levels::{Cell, OwnedCell, RangeDelete};

pub(crate) use self::slot::{Floor, Sight};
use self::slot::{Key, Slot, Stored, key_bytes};
use crate::Version;
use crate::cut::Cut;

/// Shards: readers on other cores seldom meet.
const SHARDS: usize = 16;

/// Most range deletes before a flush is due: each is compared at every read.
pub(crate) const RANGES_MAX: usize = 256;

/// Slots lie apart, so that a search goes through few and small nodes.
type Shard = BTreeMap<Key, Box<Slot>>;

/// Cells in memory.
pub(crate) struct Memtable {
    shards: [RwLock<Shard>; SHARDS],
    ranges: RwLock<Vec<(RangeDelete, u64)>>,
    range_count: AtomicUsize,
    bytes: AtomicUsize,
    /// The newest clock in it.
    clock: AtomicU64,
}

/// What became of a cell.
pub(crate) enum Placed {
    /// It was there.
    Known,
    /// It is newer than all others of its key here.
    Newest,
    /// Another one of its key is newer.
    Outranked,
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self {
            shards: core::array::from_fn(|_| RwLock::default()),
            ranges: RwLock::default(),
            range_count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            clock: AtomicU64::new(0),
        }
    }

    /// Takes a cell in; `publish` runs while no reader of its key can look.
    pub(crate) fn insert(
        &self,
        cell: &Cell<'_>,
        number: u64,
        floor: &Floor<'_>,
        publish: impl FnOnce(),
    ) -> Placed {
        // One committer at a time: no other one changes clock and bytes in between.
        let clock = cell.version.clock.bits();
        if clock > self.clock.load(Ordering::Relaxed) {
            self.clock.store(clock, Ordering::Relaxed);
        }
        let mut shard = self
            .shard(cell.key)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let slot = match Key::short(cell.key) {
            Some(key) => shard.get_mut(&key),
            None => shard.get_mut(cell.key),
        };
        let (before, after, placed) = if let Some(slot) = slot {
            let before = slot.bytes();
            let placed = slot.insert(cell, number, floor);
            (before, slot.bytes(), placed)
        } else {
            let slot = Slot::new(Stored::new(cell, number));
            let bytes = slot.bytes() + key_bytes(cell.key);
            shard.insert(Key::new(cell.key), Box::new(slot));
            (0, bytes, Placed::Newest)
        };
        publish();
        drop(shard);
        let bytes = self.bytes.load(Ordering::Relaxed);
        self.bytes
            .store((bytes + after).saturating_sub(before), Ordering::Relaxed);
        placed
    }

    /// Takes a range delete in.
    pub(crate) fn insert_range(&self, delete: RangeDelete, number: u64) -> Placed {
        self.clock
            .fetch_max(delete.version.clock.bits(), Ordering::Relaxed);
        let mut ranges = self.ranges.write().unwrap_or_else(PoisonError::into_inner);
        if ranges.iter().any(|(known, _)| *known == delete) {
            return Placed::Known;
        }
        let bytes = delete.from.len() + delete.to.len() + size_of::<RangeDelete>();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        ranges.push((delete, number));
        self.range_count.store(ranges.len(), Ordering::Release);
        Placed::Newest
    }

    /// Gives what a reader sees of a key; `sight` is asked for while the key cannot change.
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        sight: impl FnOnce(&mut dyn FnMut(Sight<'_>)),
        give: impl FnOnce(Option<Cell<'_>>, &Sight<'_>) -> R,
    ) -> Option<R> {
        let shard = self
            .shard(key)
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let slot = match Key::short(key) {
            Some(key) => shard.get(&key),
            None => shard.get(key),
        };
        let (mut give, mut result) = (Some(give), None);
        sight(&mut |sight| {
            let seen = slot.and_then(|slot| slot.seen(&sight));
            if let Some(give) = give.take() {
                result = Some(give(seen.map(|stored| stored.cell(key)), &sight));
            }
        });
        result
    }

    /// The newest range delete over a key of which a reader knows.
    pub(crate) fn deleted(&self, key: &[u8], sight: &Sight<'_>) -> Option<Version> {
        if self.range_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let ranges = self.ranges.read().unwrap_or_else(PoisonError::into_inner);
        let over = ranges
            .iter()
            .filter(|(delete, number)| sight.sees(&delete.version, *number) && delete.covers(key));
        over.map(|(delete, _)| delete.version).max()
    }

    /// Holds all of it still for a scan.
    pub(crate) fn hold(&self) -> Held<'_> {
        Held(
            self.shards
                .each_ref()
                .map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner)),
        )
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::from_bits(self.clock.load(Ordering::Relaxed))
    }

    pub(crate) fn ranges(&self) -> usize {
        self.range_count.load(Ordering::Acquire)
    }

    /// Range deletes with their commits.
    pub(crate) fn all_ranges(&self) -> Vec<(RangeDelete, u64)> {
        self.ranges
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Copies of what is seen from `from` on, ascending: at most `count`.
    pub(crate) fn page<'s>(
        &self,
        from: Bound<&[u8]>,
        count: usize,
        sight: impl Fn(&[u8]) -> Sight<'s>,
    ) -> Vec<OwnedCell> {
        let held = self.hold();
        let cells = held.scan(from, Bound::Unbounded, sight);
        cells.take(count).map(|cell| cell.to_owned()).collect()
    }

    /// Copies of the cells that are not in a cut, of keys that are asked for.
    pub(crate) fn beyond(&self, cut: &Cut, wanted: impl Fn(&[u8]) -> bool) -> Vec<OwnedCell> {
        let mut cells = Vec::new();
        for shard in &self.hold().0 {
            for (key, slot) in shard.iter().filter(|(key, _)| wanted(key.bytes())) {
                let beyond = slot.beyond(cut);
                cells.extend(beyond.map(|stored| slot::owned(key.bytes(), stored)));
            }
        }
        cells
    }

    fn shard(&self, key: &[u8]) -> &RwLock<Shard> {
        &self.shards[shard_of(key)]
    }
}

/// A memtable that does not change.
pub(crate) struct Held<'a>([RwLockReadGuard<'a, Shard>; SHARDS]);

impl Held<'_> {
    /// What a reader sees between two bounds, ascending.
    pub(crate) fn scan<'a, 's>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        sight: impl Fn(&[u8]) -> Sight<'s>,
    ) -> impl Iterator<Item = Cell<'a>> {
        let all = if is_empty(from, to) {
            &[][..]
        } else {
            &self.0[..]
        };
        let ranges = all.iter().map(|shard| shard.range::<[u8], _>((from, to)));
        let mut shards: Vec<_> = ranges.map(Iterator::peekable).collect();
        let mut keys = core::iter::from_fn(move || {
            let heads = shards.iter_mut().enumerate();
            let heads = heads.filter_map(|(index, shard)| Some((shard.peek()?.0.bytes(), index)));
            let (_, index) = heads.min()?;
            shards[index].next()
        });
        core::iter::from_fn(move || {
            keys.find_map(|(key, slot)| {
                let seen = slot.seen(&sight(key.bytes()))?;
                Some(seen.cell(key.bytes()))
            })
        })
    }
}

/// Whether nothing is between two bounds; a map refuses to look there.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
        | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
        _ => false,
    }
}

/// A hash that spreads keys, 8 bytes a step. Whoever finds keys that meet in one shard makes that shard
/// one sixteenth less parallel, and nothing else.
fn shard_of(key: &[u8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = key.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut hash = key.len() as u64;
    for word in words.iter().chain([&last]) {
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(ODD);
    }
    (hash >> 60) as usize
}

const _: () = assert!(SHARDS == 16, "a shard is four bits of the hash");
