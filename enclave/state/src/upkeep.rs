//! Keeps memory small and the levels in order.
//!
//! ```text
//! memory over its budget ─▶ new segment ─▶ freeze ─▶ runs ─▶ checkpoint ─▶ segments before it are removed
//! levels out of shape    ─▶ compaction, a step at a time ─▶ checkpoint
//! retention over         ─▶ runs removed
//! ```
//!
//! In: the table's frozen part, the levels. Out: checkpoints in the log. Always true: what leaves memory is
//! covered by a durable checkpoint; a log segment is removed only after a durable checkpoint covers all of
//! it; a flush goes before the next step of a compaction, so that commits wait for one step at most. When the
//! host fails here, the levels stay as they are, and commits are refused once memory is full.

use std::ops::Bound;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bield_capsule::Head;
use bield_levels::{
    Cell, Changes, Compaction, Content, Flush, Flushed, LevelsError, OwnedCell, OwnedContent, Plan,
    Progress, Version,
};
use bield_table::{Frozen, LEASE_RANGE, lease_holder};

use crate::StateError;
use crate::disk::lock;
use crate::state::Shared;

impl Shared {
    /// Works until the state ends.
    pub(crate) fn keep(&self) {
        let mut compaction = None;
        loop {
            let worked = self.work(&mut compaction);
            let mut upkeep = lock(&self.upkeep);
            self.changed.notify_all();
            if upkeep.ends {
                return;
            }
            let idle = match worked {
                Ok(worked) => {
                    upkeep.failed = None;
                    !worked
                }
                Err(error) => {
                    compaction = None;
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
            let _ = self.cold.remove_unknown();
        }
    }

    /// Does the most urgent piece of work; `false`: there is none.
    pub(crate) fn work(&self, compaction: &mut Option<Compaction>) -> Result<bool, StateError> {
        if self.is_over() {
            self.flush()?;
            return Ok(true);
        }
        if let Some(running) = compaction {
            let step = running.step(STEP_BYTES, &mut *lock(&self.entropy));
            if let Progress::Done(compacted) = step? {
                *compaction = None;
                let changes = Changes {
                    compacted: Some(compacted),
                    ..Changes::default()
                };
                self.cold.publish(&self.writing, changes, None)?;
                self.table.compacted(self.cold.levels());
            }
            return Ok(true);
        }
        let levels = self.cold.levels();
        if let Some(plan) = Plan::next(levels.manifest(), &self.settings.levels) {
            let horizon = *lock(&self.horizon);
            let begun = Compaction::begin(&levels, &plan, horizon, self.settings.levels);
            *compaction = Some(begun?);
            return Ok(true);
        }
        self.cold
            .remove_retired(&self.writing, self.writing.clocks.now())?;
        Ok(false)
    }

    /// Writes what is in memory as runs, and drops the log that they cover.
    pub(crate) fn flush(&self) -> Result<(), StateError> {
        let clock = self.table.clock();
        let covered = self.freeze()?;
        let mut changes = Changes::default();
        let frozen = self.table.freeze();
        if let Some(frozen) = &frozen {
            changes.flushed = Some(self.runs(frozen)?);
        }
        // What is in the runs stands in the log as well, before the checkpoint.
        self.writing.wait_signed(self.writing.last())?;
        self.cold.publish(&self.writing, changes, Some(covered))?;
        if let Some(frozen) = frozen {
            self.table.flushed(frozen, self.cold.levels());
        }
        *lock(&self.horizon) = clock;
        *lock(&self.freezing) = None;
        self.is_asked.store(false, Ordering::Release);
        self.drop_former();
        Ok(())
    }

    /// Begins a new segment before what is in memory is separated from what comes; says which heads that
    /// covers. What an earlier flush that failed has separated comes first.
    fn freeze(&self) -> Result<Vec<Head>, StateError> {
        let mut freezing = lock(&self.freezing);
        if let Some(covered) = &*freezing {
            return Ok(covered.clone());
        }
        // Whoever handed on an entry of these segments has the table's lock until it is in the table.
        let (covered, mut former) = self.writing.rotate()?;
        lock(&self.former).append(&mut former);
        *freezing = Some(covered.clone());
        Ok(covered)
    }

    /// Writes runs.
    fn runs(&self, frozen: &Frozen) -> Result<Flushed, LevelsError> {
        let (levels, settings) = (self.cold.levels(), self.settings.levels);
        let entropy = &mut *lock(&self.entropy);
        let mut flush = Flush::begin(&levels, frozen.range_deletes(), settings)?;
        let mut ended = self.ended_leases()?.into_iter().peekable();
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

    /// Removes segments that the newest checkpoint covers; what stays is removed after the next one.
    fn drop_former(&self) {
        let mut former = lock(&self.former);
        while let Some(segment) = former.first() {
            if self.disk.remove(&segment.name).is_err() {
                return;
            }
            former.remove(0);
        }
    }
}

/// How long the thread sleeps when nobody wakes it.
const PAUSE: core::time::Duration = core::time::Duration::from_secs(1);
/// Bytes of cells between two looks at the memory: some milliseconds.
const STEP_BYTES: usize = 1 << 20;
/// Cells that are copied out of the memory at a time.
const FLUSHED_CELLS: usize = 256;
