//! From a memtable to runs: sorted cells in, a sorted run of the first level out.
//!
//! ```text
//! Flush::begin ─▶ push(cell) … ─▶ finish ─▶ Flushed ─▶ Manifest::after ─▶ a record ─▶ Levels::next
//! ```
//!
//! In: cells in ascending order, the range deletes that came with them. Out: runs in the store, and
//! what the next manifest says of them. Always true: a cell that a known range delete covers is not
//! written; a run is named by the manifest only after the store read back what it was given.
//!
//! A push writes nothing until a run is full; then it seals and stores one run (`Settings`, 8 MiB by
//! default: about 10 ms and the store's time), which is the longest step there is.

use rand_core::CryptoRng;
use std::sync::Arc;

use crate::builder::RunBuilder;
use crate::key::GenerationSecrets;
use crate::run::Run;
use crate::{Blobs, Cell, Levels, LevelsError, RangeDelete, Ranges, RunMeta, Settings};

/// Runs of one flush, for [`crate::Changes::flushed`].
#[derive(Debug)]
pub struct Flushed {
    pub(crate) runs: Vec<RunMeta>,
    pub(crate) range_deletes: Vec<RangeDelete>,
    /// Serial of the newest range delete of the manifest it began with.
    pub(crate) serial: u64,
}

impl Flushed {
    /// Runs that were written.
    #[must_use]
    pub fn runs(&self) -> &[RunMeta] {
        &self.runs
    }
}

/// Writes a memtable.
pub struct Flush {
    writer: SortedWriter,
    ranges: Ranges,
    range_deletes: Vec<RangeDelete>,
    serial: u64,
}

impl Flush {
    /// Begins; `range_deletes` are those that came with the cells.
    ///
    /// # Errors
    /// A range delete beyond a bound; or no key to seal with.
    pub fn begin(
        levels: &Levels,
        range_deletes: Vec<RangeDelete>,
        settings: Settings,
    ) -> Result<Self, LevelsError> {
        for delete in &range_deletes {
            delete.check()?;
        }
        let manifest = levels.manifest();
        let serial = manifest.serial;
        let swept = serial + range_deletes.len() as u64;
        Ok(Self {
            writer: SortedWriter::new(levels, swept, settings)?,
            ranges: Ranges::new(manifest.range_deletes().chain(&range_deletes)),
            range_deletes,
            serial,
        })
    }

    /// Takes the next cell; writes a run when one is full.
    ///
    /// # Errors
    /// A cell out of order or beyond a bound; the store does not keep a run.
    pub fn push(
        &mut self,
        cell: &Cell<'_>,
        entropy: &mut impl CryptoRng,
    ) -> Result<(), LevelsError> {
        if self.ranges.delete(cell.key, cell.version) {
            return Ok(());
        }
        self.writer.push(cell, entropy)
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// The store does not keep a run.
    pub fn finish(mut self, entropy: &mut impl CryptoRng) -> Result<Flushed, LevelsError> {
        self.writer.end_run(entropy)?;
        Ok(Flushed {
            runs: self.writer.runs,
            range_deletes: self.range_deletes,
            serial: self.serial,
        })
    }
}

/// Writes one sorted run as runs of a certain length.
pub(crate) struct SortedWriter {
    builder: RunBuilder,
    settings: Settings,
    blobs: Arc<dyn Blobs>,
    secrets: Arc<GenerationSecrets>,
    swept: u64,
    pub(crate) runs: Vec<RunMeta>,
}

impl SortedWriter {
    pub(crate) fn new(
        levels: &Levels,
        swept: u64,
        settings: Settings,
    ) -> Result<Self, LevelsError> {
        let secrets = levels.sealing().ok_or(LevelsError::NoKeyToSeal)?;
        Ok(Self {
            builder: RunBuilder::new(settings),
            settings,
            blobs: levels.blobs().clone(),
            secrets: secrets.clone(),
            swept,
            runs: Vec::new(),
        })
    }

    pub(crate) fn push(
        &mut self,
        cell: &Cell<'_>,
        entropy: &mut impl CryptoRng,
    ) -> Result<(), LevelsError> {
        let before = self.runs.last().map(|run| &run.summary.last);
        if self.builder.is_empty() && before.is_some_and(|last| **last >= *cell.key) {
            return Err(LevelsError::Unsorted);
        }
        self.builder.push(cell, &self.secrets)?;
        if self.builder.is_full() {
            self.end_run(entropy)?;
        }
        Ok(())
    }

    /// Seals and stores what was taken since the last run, reads it back and checks its name.
    pub(crate) fn end_run(&mut self, entropy: &mut impl CryptoRng) -> Result<(), LevelsError> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let builder = std::mem::replace(&mut self.builder, RunBuilder::new(self.settings));
        let Some(built) = builder.finish(&self.secrets, self.swept, entropy) else {
            return Ok(());
        };
        let id = built.meta.id;
        self.blobs
            .put(&id, &built.sealed)
            .map_err(|error| LevelsError::blob(id, error))?;
        drop(built.sealed);
        // What goes in is retired once a manifest names this: a store that keeps something else is
        // caught while that is still there.
        Run::new(built.meta.clone(), self.secrets.clone(), 0).check(&*self.blobs)?;
        self.runs.push(built.meta);
        Ok(())
    }
}
