//! A manifest's runs, to be read: the cold side of a table.
//!
//! ```text
//! get(key): covering range delete? ─▶ for each sorted run, newest first:
//!             the one run whose range has the key ─▶ filter ─▶ index ─▶ block (cache, else 1 read + 1 open)
//!           until no run that is left can hold a newer cell
//! ```
//!
//! In: a manifest, the capsule's keys, a store. Out: cells. Always true: an answer is the winner of all
//! cells in all runs, wherever they lie ([`Cell::replaces`]), or an error: a run that cannot be read
//! or does not open never makes a key look absent.
//!
//! **Snapshots.** Levels never change: an `Arc<Levels>` is a snapshot of its manifest. The next manifest
//! makes new levels ([`Levels::next`]) that share cache and keys. A run is removable when its retention
//! in the newest manifest is over and no levels of the family that name it are alive; so a snapshot
//! reads on for as long as somebody holds it, and a compaction holds what it reads.
//!
//! Cost of a cold get in 4 KiB blocks: a filter look of about 0.1 µs for each sorted run, one read, about
//! 1 µs to open, 6 comparisons. Memory: the cache's budget; the manifest; 300 bytes a run; a block for
//! each get and each sorted run of a scan under way.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bield_capsule::{GenerationKey, KeyRing};
use bield_envelope::Time;

use crate::block::Block;
use crate::cache::Cache;
use crate::key::GenerationSecrets;
use crate::merge::Source;
use crate::run::{Opened, Run};
use crate::scan::Scan;
use crate::{
    Blobs, Cell, LevelsError, Manifest, OwnedCell, OwnedContent, Part, Ranges, RunId, RunMeta,
    Version,
};

/// Readable levels of one manifest.
pub struct Levels {
    manifest: Manifest,
    family: Arc<Family>,
    secrets: BTreeMap<u32, Arc<GenerationSecrets>>,
    /// Those with the newest cells first.
    sorted: Vec<Vec<Arc<Run>>>,
    ranges: Ranges,
}

/// What all levels of one capsule in one process share.
struct Family {
    blobs: Arc<dyn Blobs>,
    cache: Cache,
    serials: AtomicU64,
    /// Runs that some levels may still read.
    alive: Mutex<BTreeMap<RunId, Weak<Run>>>,
    #[cfg(feature = "measured")]
    plain: bool,
}

impl Levels {
    /// Makes the levels of a manifest readable; nothing is read yet.
    ///
    /// `cache_bytes` bounds the memory of opened blocks, indexes and filters.
    ///
    /// # Errors
    /// The ring has no key of a run's generation.
    pub fn open(
        manifest: Manifest,
        keys: &KeyRing,
        blobs: Arc<dyn Blobs>,
        cache_bytes: u64,
    ) -> Result<Self, LevelsError> {
        let family = Family::new(blobs, cache_bytes);
        Self::assemble(manifest, keys, Arc::new(family))
    }

    /// As [`Levels::open`], but runs are neither sealed nor opened, in this family and in nothing else:
    /// for a bench that asks what sealing costs.
    ///
    /// # Errors
    /// As [`Levels::open`].
    #[cfg(feature = "measured")]
    pub fn open_plain(
        manifest: Manifest,
        keys: &KeyRing,
        blobs: Arc<dyn Blobs>,
        cache_bytes: u64,
    ) -> Result<Self, LevelsError> {
        let mut family = Family::new(blobs, cache_bytes);
        family.plain = true;
        Self::assemble(manifest, keys, Arc::new(family))
    }

    /// Makes the next manifest readable beside this one.
    ///
    /// # Errors
    /// It does not follow this one, or as [`Levels::open`].
    pub fn next(&self, manifest: Manifest, keys: &KeyRing) -> Result<Self, LevelsError> {
        manifest.follows(&self.manifest)?;
        Self::assemble(manifest, keys, self.family.clone())
    }

    fn assemble(
        manifest: Manifest,
        keys: &KeyRing,
        family: Arc<Family>,
    ) -> Result<Self, LevelsError> {
        let capsule = manifest.capsule();
        let derive = |key: &GenerationKey| {
            let secrets = GenerationSecrets::derive(capsule, key);
            #[cfg(feature = "measured")]
            let secrets = if family.plain {
                secrets.into_plain()
            } else {
                secrets
            };
            Arc::new(secrets)
        };
        let mut secrets: BTreeMap<u32, Arc<GenerationSecrets>> = BTreeMap::new();
        if let Some(newest) = keys.newest() {
            secrets.insert(newest.number(), derive(newest));
        }
        for RunMeta { id, generation, .. } in manifest.runs() {
            if !secrets.contains_key(generation) {
                let (run, generation) = (*id, *generation);
                let key = keys.generation(generation);
                let key = key.ok_or(LevelsError::NoKey { run, generation })?;
                secrets.insert(generation, derive(key));
            }
        }
        let mut sorted: Vec<Vec<Arc<Run>>> = manifest
            .sorted_runs()
            .map(|sorted| {
                let run = |meta: &RunMeta| family.run(meta, &secrets[&meta.generation]);
                sorted.iter().map(run).collect()
            })
            .collect();
        sorted.sort_by_key(|runs| std::cmp::Reverse(newest(runs)));
        Ok(Self {
            ranges: Ranges::new(manifest.range_deletes()),
            manifest,
            family,
            secrets,
            sorted,
        })
    }

    /// What these are the levels of.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The winner of all cells of a key, deletions and expired values as they are.
    ///
    /// Where a range delete is newer than the winner, or there is no cell, the answer is a deletion
    /// with the range delete's version: what a table holds of the key competes with that.
    ///
    /// # Errors
    /// A run that may have the key cannot be read, or does not open.
    pub fn newest(&self, key: &[u8]) -> Result<Option<OwnedCell>, LevelsError> {
        let deleted = self.ranges.covering(key);
        let mut oldest_that_counts = deleted.map(|version| version.clock);
        let mut winner: Option<Found> = None;
        let mut hashed: Option<(u32, u64)> = None;
        for runs in &self.sorted {
            let after = runs.partition_point(|run| *run.meta().summary.first <= *key);
            let Some(run) = after.checked_sub(1).map(|at| &runs[at]) else {
                continue;
            };
            let summary = &run.meta().summary;
            // Of one clock both may be: two writers may have the same.
            if *key > *summary.last || oldest_that_counts.is_some_and(|c| summary.newest < c) {
                continue;
            }
            let generation = run.meta().generation;
            let hash = match hashed {
                Some((of, hash)) if of == generation => hash,
                _ => run.secrets().filter_hash(key),
            };
            hashed = Some((generation, hash));
            let Some(found) = self.find(run, key, hash)? else {
                continue;
            };
            let cell = found.cell(run)?;
            let wins = match &winner {
                Some(so_far) => cell.replaces(&so_far.cell(&so_far.run)?),
                None => true,
            };
            if wins {
                oldest_that_counts = oldest_that_counts.max(Some(cell.version.clock));
                winner = Some(found);
            }
        }
        let cell = winner.as_ref().map(|found| found.cell(&found.run));
        Ok(match (cell.transpose()?, deleted) {
            (Some(cell), Some(version)) if cell.version < version => Some(deletion(key, version)),
            (Some(cell), _) => Some(cell.to_owned()),
            (None, Some(version)) => Some(deletion(key, version)),
            (None, None) => None,
        })
    }

    /// The value of a key at a moment; `None` when there is none, it was deleted or has expired.
    ///
    /// # Errors
    /// As [`Levels::newest`].
    pub fn get(&self, key: &[u8], now: Time) -> Result<Option<OwnedCell>, LevelsError> {
        let newest = self.newest(key)?;
        Ok(newest.filter(|cell| cell.as_cell().value_at(now).is_some()))
    }

    /// The winners of all keys between two bounds, ascending; deletions and expired values as they are,
    /// cells that a range delete of these levels covers not at all.
    ///
    /// # Errors
    /// A run cannot be read, or does not open.
    pub fn scan(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Scan<'_>, LevelsError> {
        Scan::begin(self, from, to)
    }

    /// Range deletes of these levels: they hide older cells of the memtable as well.
    #[must_use]
    pub const fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Retired runs that may be removed from the store now: their retention is over, and no levels of
    /// this family read them. Remove them, then say so in [`crate::Changes::removed`].
    #[must_use]
    pub fn removable(&self, now: Time) -> Vec<RunId> {
        let mut alive = self.family.alive();
        alive.retain(|_, run| run.strong_count() > 0);
        let due = self.manifest.due(now).map(|retired| retired.run);
        due.filter(|run| !alive.contains_key(run)).collect()
    }

    /// Reads all of a run and checks everything about it: its name, every section, the order of its
    /// keys, what its filter says of them, and its counts.
    ///
    /// # Errors
    /// The first thing that is wrong; [`LevelsError::Missing`] when the manifest has no such run.
    pub fn check(&self, run: &RunId) -> Result<(), LevelsError> {
        let missing = LevelsError::Missing { run: *run };
        let mut runs = self.sorted.iter().flatten();
        let run = runs.find(|known| known.meta().id == *run).ok_or(missing)?;
        crate::check::check(run, &*self.family.blobs)
    }

    /// The generation under which new runs are sealed; `None` when the ring had no key.
    #[must_use]
    pub fn generation(&self) -> Option<u32> {
        self.sealing().map(|secrets| secrets.generation())
    }

    /// Bytes that opened blocks, indexes and filters take now.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.family.cache.bytes()
    }

    pub(crate) fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.family.blobs
    }

    /// What new runs are sealed with; `None` when the ring had no key.
    pub(crate) fn sealing(&self) -> Option<&Arc<GenerationSecrets>> {
        self.secrets.last_key_value().map(|(_, secrets)| secrets)
    }

    /// Its runs, sorted run by sorted run.
    pub(crate) fn sorted(&self) -> &[Vec<Arc<Run>>] {
        &self.sorted
    }

    fn find(&self, run: &Arc<Run>, key: &[u8], hash: u64) -> Result<Option<Found>, LevelsError> {
        let opened = self.opened(run)?;
        if !opened.filter.may_have(hash) {
            return Ok(None);
        }
        let number = opened.index.find(key);
        let block = self.block(run, &opened, number)?;
        let at = block.search(key);
        let at = at.map_err(|what| run.broken(Part::Block(number), what))?;
        Ok(at.ok().map(|at| Found {
            run: run.clone(),
            opened,
            block,
            number,
            at,
        }))
    }

    fn block(&self, run: &Run, opened: &Opened, number: u32) -> Result<Arc<Block>, LevelsError> {
        let cache = &self.family.cache;
        if let Some(block) = cache.block(run.serial(), number) {
            return Ok(block);
        }
        let block = Arc::new(run.block(&*self.family.blobs, opened, number)?);
        cache.keep_block(run.serial(), number, &block);
        Ok(block)
    }
}

/// Through the cache, block by block.
impl Source for Levels {
    fn opened(&self, run: &Run) -> Result<Arc<Opened>, LevelsError> {
        let cache = &self.family.cache;
        if let Some(opened) = cache.opened(run.serial()) {
            return Ok(opened);
        }
        let opened = Arc::new(run.open(&*self.family.blobs)?);
        cache.keep_opened(run.serial(), &opened);
        Ok(opened)
    }

    fn blocks(
        &self,
        run: &Run,
        opened: &Opened,
        from: u32,
    ) -> Result<Vec<Arc<Block>>, LevelsError> {
        Ok(vec![self.block(run, opened, from)?])
    }
}

impl Family {
    fn new(blobs: Arc<dyn Blobs>, cache_bytes: u64) -> Self {
        Self {
            blobs,
            cache: Cache::new(cache_bytes),
            serials: AtomicU64::new(0),
            alive: Mutex::default(),
            #[cfg(feature = "measured")]
            plain: false,
        }
    }

    /// The run with this meta, the same one for all levels that name it.
    fn run(&self, meta: &RunMeta, secrets: &Arc<GenerationSecrets>) -> Arc<Run> {
        let mut alive = self.alive();
        if let Some(run) = alive.get(&meta.id).and_then(Weak::upgrade)
            && run.meta() == meta
        {
            return run;
        }
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let run = Arc::new(Run::new(meta.clone(), secrets.clone(), serial));
        alive.insert(meta.id, Arc::downgrade(&run));
        run
    }

    fn alive(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, Weak<Run>>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a key was found.
struct Found {
    run: Arc<Run>,
    opened: Arc<Opened>,
    block: Arc<Block>,
    number: u32,
    at: usize,
}

impl Found {
    fn cell(&self, run: &Run) -> Result<Cell<'_>, LevelsError> {
        let cell = self.block.cell(self.at, &self.opened.writers);
        cell.map_err(|what| run.broken(Part::Block(self.number), what))
    }
}

fn deletion(key: &[u8], version: Version) -> OwnedCell {
    OwnedCell {
        key: key.to_vec(),
        version,
        content: OwnedContent::Deleted,
    }
}

fn newest(runs: &[Arc<Run>]) -> bield_capsule::Clock {
    let clocks = runs.iter().map(|run| run.meta().summary.newest);
    clocks.max().unwrap_or_default()
}
