//! Keeps memory small and the levels in order.
//!
//! ```text
//! memory or log over its budget ─▶ new segment ─▶ freeze ─▶ runs ─▶ checkpoint
//! levels out of shape           ─▶ compaction, a step at a time ─▶ checkpoint
//! retention over                ─▶ runs removed
//! checkpoint anchored           ─▶ segments before it are removed
//! ```
//!
//! In: the table's frozen part, the levels. Out: checkpoints in the log. Always true: what leaves memory is
//! covered by a durable checkpoint; files go only as [`crate::removal`] has it; a flush goes before the next step
//! of a compaction, so that commits wait for one step at most, until compaction is so far behind
//! ([`PRESSURE_MAX`]) that commits and flushes wait for it, or the levels take no more without it. When the
//! host fails here, the levels stay as they are, and commits are refused once memory is full.

use std::ops::Bound;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bield_capsule::Head;
use bield_levels::{
    Cell, Changes, Compaction, Content, Flush, Flushed, Levels, LevelsError, ManifestError,
    OwnedCell, OwnedContent, Plan, Progress, RANGE_DELETES_MAX, RETIRED_KEPT, Version,
};
use bield_table::{Frozen, LEASE_RANGE, lease_holder};

use crate::StateError;
use crate::disk::lock;
use crate::state::{Freezing, Shared};

/// What the levels' thread is at.
#[derive(Default)]
pub(crate) struct Task {
    compaction: Option<Compaction>,
    room: Room,
}

/// Whether a manifest takes another flush.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Room {
    #[default]
    Enough,
    /// The last flush did not fit: all runs are to be merged.
    Wanted,
    /// They were, or are being, merged since; what does not fit now is too much.
    Made,
}

impl Shared {
    /// Works until the state ends.
    pub(crate) fn keep(&self) {
        let mut task = Task::default();
        loop {
            let worked = self.work(&mut task);
            let mut upkeep = lock(&self.upkeep);
            self.changed.notify_all();
            if upkeep.ends {
                drop(upkeep);
                self.clear();
                return;
            }
            let idle = match worked {
                Ok(worked) => {
                    upkeep.failed = None;
                    !worked
                }
                Err(error) => {
                    task.compaction = None;
                    upkeep.failed = Some(error);
                    drop(upkeep);
                    self.tidy();
                    upkeep = lock(&self.upkeep);
                    true
                }
            };
            if idle {
                self.is_idle.store(true, Ordering::Release);
                let waited = self.changed.wait_timeout(upkeep, PAUSE);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                self.is_idle.store(false, Ordering::Release);
            }
        }
    }

    /// Removes the runs of work that failed: it is done anew under other names. Not once the log has failed, when the
    /// checkpoint that names them may stand there.
    fn tidy(&self) {
        if !self.writing.with_log(|log| log.has_stopped()) {
            // Else the next start does it.
            let _ = self.cold.remove_made();
        }
    }

    /// Does the most urgent piece of work; `false`: there is none.
    pub(crate) fn work(&self, task: &mut Task) -> Result<bool, StateError> {
        self.clear();
        let is_over = self.is_over();
        if is_over && !self.compacts_first(task) {
            return self.flush_or_make_room(task);
        }
        if let Some(running) = &mut task.compaction {
            let step = running.step(STEP_BYTES, &mut *lock(&self.entropy));
            if let Progress::Done(compacted) = step? {
                task.compaction = None;
                let changes = Changes {
                    compacted: Some(compacted),
                    ..Changes::default()
                };
                self.publish(changes, None)?;
                self.table.compacted(self.cold.levels());
            }
            return Ok(true);
        }
        // Before the next plan: a compaction needs room among the retired.
        if self
            .cold
            .remove_retired(&self.writing, self.writing.clocks.now())?
        {
            return Ok(true);
        }
        let levels = self.cold.levels();
        if let Some(plan) = self.plan(&levels, task) {
            let horizon = *lock(&self.horizon);
            let begun = Compaction::begin(&levels, &plan, horizon, self.settings.levels);
            task.compaction = Some(begun?);
            return Ok(true);
        }
        match is_over {
            true => self.flush_or_make_room(task),
            false => Ok(false),
        }
    }

    /// What is to be merged now.
    fn plan(&self, levels: &Levels, task: &mut Task) -> Option<Plan> {
        let manifest = levels.manifest();
        // What was retired is not removed yet: the key service did not take a head for long.
        if manifest.retired().len() > RETIRED_KEPT {
            return None;
        }
        if task.room == Room::Wanted {
            task.room = Room::Made;
            return Plan::all(manifest);
        }
        let due = Plan::next(manifest, &self.settings.levels);
        due.or_else(|| Plan::older(manifest, levels.generation()?))
    }

    /// Whether a flush would make things worse than they are: the levels are far behind, or take no more.
    fn compacts_first(&self, task: &Task) -> bool {
        let levels = self.cold.levels();
        let ranges = levels.manifest().range_deletes().count();
        task.room == Room::Wanted
            || task.room == Room::Made && task.compaction.is_some()
            || ranges > RANGE_DELETES_MAX / 2
            || self.is_pressed.load(Ordering::Acquire)
    }

    /// Flushes; where the levels take no more, everything is merged before it is tried again.
    fn flush_or_make_room(&self, task: &mut Task) -> Result<bool, StateError> {
        match self.flush() {
            Ok(()) => task.room = Room::Enough,
            Err(StateError::Levels(LevelsError::Manifest(ManifestError::Limits(_))))
                if task.room == Room::Enough =>
            {
                // Its runs are made anew, so that those of this time are not left.
                task.compaction = None;
                self.tidy();
                task.room = Room::Wanted;
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn publish(&self, changes: Changes, covered: Option<Vec<Head>>) -> Result<Head, StateError> {
        let published = self.cold.publish(&self.writing, changes, covered);
        let levels = self.cold.levels();
        let pressure = Plan::pressure(levels.manifest(), &self.settings.levels);
        self.is_pressed
            .store(pressure >= PRESSURE_MAX, Ordering::Release);
        published
    }

    /// Writes what is in memory as runs; the log that they cover goes once that is anchored.
    pub(crate) fn flush(&self) -> Result<(), StateError> {
        let clock = self.table.clock();
        let Freezing { covered, logged } = self.freeze()?;
        let mut changes = Changes::default();
        let frozen = self.table.freeze();
        let has_runs = frozen.is_some();
        if let Some(frozen) = &frozen {
            changes.flushed = Some(self.runs(frozen)?);
        }
        // What is in the runs stands in the log as well, before the checkpoint.
        self.writing.wait_signed(self.writing.last())?;
        let checkpoint = self.publish(changes, Some(covered))?;
        if let Some(frozen) = frozen {
            self.table.flushed(frozen, self.cold.levels());
        }
        *lock(&self.horizon) = clock;
        if has_runs {
            lock(&self.ended).clear();
        }
        *lock(&self.freezing) = None;
        self.writing.covers(logged);
        self.is_asked.store(false, Ordering::Release);
        let former = core::mem::take(&mut *lock(&self.former));
        self.cold.removal.covers(checkpoint, former);
        self.clear();
        Ok(())
    }

    /// Begins a new segment before what is in memory is separated from what comes; says what that
    /// covers. What an earlier flush that failed has separated comes first.
    fn freeze(&self) -> Result<Freezing, StateError> {
        let mut freezing = lock(&self.freezing);
        if let Some(before) = &*freezing {
            return Ok(before.clone());
        }
        // Whoever handed on an entry of these segments has the table's lock until it is in the table.
        let mut before = self.writing.rotate()?;
        lock(&self.former).append(&mut before.segments);
        let now = Freezing {
            covered: before.heads,
            logged: before.logged,
        };
        *freezing = Some(now.clone());
        Ok(now)
    }

    /// Writes runs.
    fn runs(&self, frozen: &Frozen) -> Result<Flushed, LevelsError> {
        let (levels, settings) = (self.cold.levels(), self.settings.levels);
        let entropy = &mut *lock(&self.entropy);
        let mut flush = Flush::begin(&levels, frozen.range_deletes(), settings)?;
        let mut ended = self.ended_leases()?;
        let version = Version {
            clock: self.table.clock(),
            writer: self.table.writer(),
        };
        ended.extend(self.ended_cells(&lock(&self.ended), version));
        ended.sort_by(|a, b| a.key.cmp(&b.key));
        let mut ended = ended.into_iter().peekable();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let cells = frozen.cells(after.as_deref(), FLUSHED_CELLS);
            for cell in &cells {
                while let Some(lease) = ended.next_if(|lease| lease.key <= cell.key) {
                    flush.push(&lease.as_cell(), entropy)?;
                }
                if !self.has_ended(&cell.key) {
                    flush.push(&cell.as_cell(), entropy)?;
                }
            }
            match cells.last() {
                Some(last) => after = Some(last.key.clone()),
                None => break,
            }
        }
        for lease in ended {
            flush.push(&lease.as_cell(), entropy)?;
        }
        flush.finish(entropy)
    }

    /// Whether a key is that of a lease of an earlier holder. What that one wrote is covered by the checkpoint that is being
    /// made, all of it, so that nobody judges it by its lease again.
    fn has_ended(&self, key: &[u8]) -> bool {
        let own = self.table.writer();
        lease_holder(key).is_some_and(|holder| holder != own)
    }

    /// Deletions of the leases in the levels that have ended.
    fn ended_leases(&self) -> Result<Vec<OwnedCell>, LevelsError> {
        let (levels, version) = (self.cold.levels(), self.table.clock());
        let version = Version {
            clock: version,
            writer: self.table.writer(),
        };
        let (from, to) = LEASE_RANGE;
        let mut ended = Vec::new();
        for cell in levels.scan(Bound::Included(from), Bound::Excluded(to))? {
            let cell = cell?;
            if matches!(cell.content, OwnedContent::Value { .. }) && self.has_ended(&cell.key) {
                let (key, content) = (&cell.key[..], Content::Deleted);
                ended.push(
                    Cell {
                        key,
                        version,
                        content,
                    }
                    .to_owned(),
                );
            }
        }
        Ok(ended)
    }

    /// Removes files whose time has come.
    fn clear(&self) {
        self.cold.removal.clear(&self.disk, &self.cold.runs);
    }
}

/// How long the thread sleeps when nobody wakes it.
const PAUSE: core::time::Duration = core::time::Duration::from_secs(1);
/// At this [`Plan::pressure`] commits and flushes wait for compactions: four times the sorted runs that make one due.
const PRESSURE_MAX: usize = 300;
/// Bytes of cells between two looks at the memory: some milliseconds.
const STEP_BYTES: usize = 1 << 20;
/// Cells that are copied out of the memory at a time.
const FLUSHED_CELLS: usize = 256;
