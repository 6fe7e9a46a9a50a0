//! Merges runs into fewer, in steps.
//!
//! ```text
//! Plan ─▶ Compaction::begin ─▶ step, step, … ─▶ Compacted ─▶ Manifest::after ─▶ a record ─▶ Levels::next
//! ```
//!
//! In: levels, a plan, a horizon. Out: runs in the store that give the same answers as those that went
//! in. Always true: of each key the winner stays, or nothing where nothing is the same answer; cells
//! read and cells written, replaced and dropped add up to what the manifest says went in, or nothing
//! comes out; runs in use stay where they are.
//!
//! **Deletions survive partitions.** The caller promises by the *horizon* that no write with an older
//! clock is unflushed or can still arrive (a table refuses one). A deletion is dropped only at the
//! bottom, only below the horizon, and only if no run outside of the compaction may have an older cell
//! of its key. A value that expired before the horizon becomes a deletion first. The horizon is kept in
//! the manifest and never goes back.
//!
//! Memory: a window of blocks for each sorted run that goes in ([`READ_AHEAD_BYTES`]) and one run that
//! comes out. A step reads as many bytes as asked for, and may seal and store one run.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use bield_capsule::Clock;
use rand_core::CryptoRng;

use crate::block::{Block, cell_bytes};
use crate::flush::SortedWriter;
use crate::merge::{Merge, Source};
use crate::plan::Plan;
use crate::run::{Opened, Run};
use crate::{
    Blobs, Cell, Content, Levels, LevelsError, ManifestError, Ranges, RunId, RunMeta, Settings,
};

/// Sealed bytes of each sorted run that one read of a compaction brings.
pub const READ_AHEAD_BYTES: usize = 256 << 10;

/// Where the result of a compaction goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// A further sorted run of an upper level.
    Upper(usize),
    /// Into the one sorted run of the bottom.
    Bottom,
}

/// What a compaction came out with, for [`crate::Changes::compacted`].
#[derive(Debug)]
pub struct Compacted {
    pub(crate) inputs: Vec<RunId>,
    pub(crate) outputs: Vec<RunMeta>,
    pub(crate) target: Target,
    pub(crate) horizon: Clock,
    counts: Counts,
}

impl Compacted {
    /// What became of the cells.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Runs that were written.
    #[must_use]
    pub fn outputs(&self) -> &[RunMeta] {
        &self.outputs
    }
}

/// What became of cells that went into a compaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Cells of all runs that went in.
    pub read: u64,
    /// Winners that were written.
    pub written: u64,
    /// Cells that another one of their key replaced.
    pub replaced: u64,
    /// Winners that a range delete covers.
    pub swept: u64,
    /// Deletions that nothing needs any more.
    pub forgotten: u64,
}

/// A compaction under way; dropping it leaves nothing but runs that no manifest names.
pub struct Compaction {
    inputs: Vec<RunId>,
    target: Target,
    horizon: Clock,
    /// Cells that must be read.
    expected: u64,
    counts: Counts,
    merge: Merge,
    source: Ahead,
    writer: SortedWriter,
    ranges: Ranges,
    /// Runs that stay and may have older cells.
    outside: Vec<RunMeta>,
    /// The key whose winner was seen last.
    seen: Vec<u8>,
}

/// How far a compaction is.
#[derive(Debug)]
pub enum Progress {
    /// Not done: call again.
    More,
    /// Done.
    Done(Compacted),
}

impl Compaction {
    /// Begins what a plan says; see the module for what `horizon` promises.
    ///
    /// # Errors
    /// [`ManifestError::Stale`] when the plan was made for another manifest; no key to seal with; a run
    /// that cannot be read.
    pub fn begin(
        levels: &Levels,
        plan: &Plan,
        horizon: Clock,
        settings: Settings,
    ) -> Result<Self, LevelsError> {
        let manifest = levels.manifest();
        let named: BTreeSet<RunId> = plan.inputs.iter().copied().collect();
        let of_plan = |run: &Arc<Run>| named.contains(&run.meta().id);
        let chosen = |runs: &Vec<Arc<Run>>| -> Vec<Arc<Run>> {
            runs.iter().filter(|run| of_plan(run)).cloned().collect()
        };
        let inputs: Vec<Vec<Arc<Run>>> = levels.sorted().iter().map(chosen).collect();
        let metas = || inputs.iter().flatten().map(|run| run.meta());
        if metas().count() != plan.inputs.len() {
            return Err(ManifestError::Stale.into());
        }
        let expected = metas().map(|run| u64::from(run.summary.cells)).sum();
        let first = metas().map(|run| &run.summary.first).min().cloned();
        let last = metas().map(|run| &run.summary.last).max().cloned();
        let outside = manifest.runs().filter(|run| {
            let below = last.as_ref().is_some_and(|last| run.summary.first <= *last);
            let from = first
                .as_ref()
                .is_some_and(|first| run.summary.last >= *first);
            !named.contains(&run.id) && below && from
        });
        let source = Ahead(levels.blobs().clone());
        Ok(Self {
            inputs: plan.inputs.clone(),
            target: plan.target,
            horizon: horizon.max(manifest.horizon()),
            expected,
            counts: Counts::default(),
            outside: outside.cloned().collect(),
            merge: Merge::begin(inputs, Bound::Unbounded, Bound::Unbounded, &source)?,
            source,
            writer: SortedWriter::new(levels, manifest.serial, settings)?,
            ranges: levels.ranges().clone(),
            seen: Vec::new(),
        })
    }

    /// Goes on for about so many bytes of cells.
    ///
    /// # Errors
    /// A run cannot be read, does not open or is wrong; the store does not keep one; or the counts do
    /// not add up. The compaction is then over, and nothing was changed.
    pub fn step(
        &mut self,
        bytes: usize,
        entropy: &mut impl CryptoRng,
    ) -> Result<Progress, LevelsError> {
        let mut done = 0;
        while done < bytes {
            let Some(cell) = self.merge.next(&self.source)? else {
                self.writer.end_run(entropy)?;
                return self.finish().map(Progress::Done);
            };
            done += cell_bytes(&cell);
            self.counts.read += 1;
            if *self.seen == *cell.key {
                self.counts.replaced += 1;
                continue;
            }
            self.seen.clear();
            self.seen.extend_from_slice(cell.key);
            if self.ranges.delete(cell.key, cell.version) {
                self.counts.swept += 1;
                continue;
            }
            let cell = expired(cell, self.horizon);
            let bottom = self.target == Target::Bottom;
            if bottom && forgettable(&cell, self.horizon, &self.outside) {
                self.counts.forgotten += 1;
                continue;
            }
            self.writer.push(&cell, entropy)?;
            self.counts.written += 1;
        }
        Ok(Progress::More)
    }

    fn finish(&mut self) -> Result<Compacted, LevelsError> {
        let counts = self.counts;
        let gone = counts.replaced + counts.swept + counts.forgotten;
        let outputs = std::mem::take(&mut self.writer.runs);
        let kept: u64 = outputs.iter().map(|run| u64::from(run.summary.cells)).sum();
        for (expected, found) in [
            (self.expected, counts.read),
            (counts.read, gone + counts.written),
            (counts.written, kept),
        ] {
            if expected != found {
                return Err(LevelsError::Miscounted { expected, found });
            }
        }
        Ok(Compacted {
            inputs: std::mem::take(&mut self.inputs),
            outputs,
            target: self.target,
            horizon: self.horizon,
            counts,
        })
    }
}

/// The cell, or a deletion where its value expired before the horizon.
fn expired<'a>(cell: Cell<'a>, horizon: Clock) -> Cell<'a> {
    match cell.value_at(horizon.time()) {
        Some(_) => cell,
        None => Cell {
            content: Content::Deleted,
            ..cell
        },
    }
}

/// Whether a cell is a deletion that hides nothing any more.
fn forgettable(cell: &Cell<'_>, horizon: Clock, outside: &[RunMeta]) -> bool {
    let hides = |run: &RunMeta| run.may_have(cell.key) && run.summary.oldest <= cell.version.clock;
    cell.content == Content::Deleted && cell.version.clock < horizon && !outside.iter().any(hides)
}

/// Reads windows of blocks past the cache: each is needed once.
struct Ahead(Arc<dyn Blobs>);

impl Source for Ahead {
    fn opened(&self, run: &Run) -> Result<Arc<Opened>, LevelsError> {
        run.open(&*self.0).map(Arc::new)
    }

    fn blocks(
        &self,
        run: &Run,
        opened: &Opened,
        from: u32,
    ) -> Result<Vec<Arc<Block>>, LevelsError> {
        let blocks = run.blocks(&*self.0, opened, from, READ_AHEAD_BYTES)?;
        Ok(blocks.into_iter().map(Arc::new).collect())
    }
}
