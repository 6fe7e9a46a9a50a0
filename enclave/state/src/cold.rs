//! The sorted levels, and the checkpoints in the log that say what they hold.
//!
//! ```text
//! flush, compaction ─▶ Changes ─▶ next manifest ─▶ checkpoint record, durable ─▶ next levels, for readers
//! ```
//!
//! In: changes from the one thread that maintains the levels. Out: snapshots for readers. Always true: levels
//! are read only once the record that names them is durable; a run is removed only when no manifest within
//! the retention names it and nobody reads it; a reader keeps the levels it began with.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bield_capsule::{Batch, CapsuleName, Head, KeyRing};
use bield_envelope::Time;
use bield_levels::{Blobs as _, Changes, Levels, LevelsError, Manifest};

use crate::control::Checkpoint;
use crate::disk::lock;
use crate::runs::RunFiles;
use crate::writing::Writing;
use crate::{Settings, StateError};

/// The levels of a state.
pub(crate) struct Cold {
    levels: RwLock<Arc<Levels>>,
    /// What the newest checkpoint covers.
    covered: Mutex<Vec<Head>>,
    runs: RunFiles,
}

impl Cold {
    /// Opens the levels of the newest checkpoint; nothing is read of them yet.
    pub(crate) fn open(
        checkpoint: Option<Checkpoint>,
        capsule: &CapsuleName,
        keys: &KeyRing,
        runs: RunFiles,
        settings: &Settings,
    ) -> Result<Self, StateError> {
        let (manifest, covered) = match checkpoint {
            Some(checkpoint) => {
                let manifest = Manifest::decode(&checkpoint.manifest, capsule);
                (manifest.map_err(LevelsError::from)?, checkpoint.covered)
            }
            None => (Manifest::begin(*capsule, settings.retention), Vec::new()),
        };
        let levels = Levels::open(manifest, keys, Arc::new(runs.clone()), settings.cache_bytes)?;
        Ok(Self {
            levels: RwLock::new(Arc::new(levels)),
            covered: Mutex::new(covered),
            runs,
        })
    }

    /// The newest levels.
    pub(crate) fn levels(&self) -> Arc<Levels> {
        let levels = self.levels.read();
        Arc::clone(&levels.unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the next manifest: durable first, then for readers. One thread does.
    pub(crate) fn publish(
        &self,
        writing: &Writing,
        changes: Changes,
        covered: Option<Vec<Head>>,
    ) -> Result<(), StateError> {
        let (levels, now) = (self.levels(), writing.clocks.now());
        let manifest = levels.manifest().after(changes, now);
        let manifest = manifest.map_err(LevelsError::from)?;
        let covered = covered.unwrap_or_else(|| lock(&self.covered).clone());
        let checkpoint = Checkpoint {
            covered: covered.clone(),
            manifest: manifest.encode(),
        };
        let mut batch = Batch::new();
        batch.push(&checkpoint.encode())?;
        let next = Arc::new(levels.next(manifest, &writing.keys)?);
        writing.append(&batch)?;
        *lock(&self.covered) = covered;
        *self.levels.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    /// Removes runs whose retention is over. One thread does.
    pub(crate) fn remove_retired(&self, writing: &Writing, now: Time) -> Result<(), StateError> {
        let removed = self.levels().removable(now);
        if removed.is_empty() {
            return Ok(());
        }
        for run in &removed {
            let gone = self.runs.remove(run);
            gone.map_err(|error| removal(*run, &error))?;
        }
        let changes = Changes {
            removed,
            ..Changes::default()
        };
        self.publish(writing, changes, None)
    }

    /// Removes runs that no manifest names: leftovers of work that did not end. Only while none is under way.
    pub(crate) fn remove_unknown(&self) -> Result<(), StateError> {
        let listed = self.runs.list().map_err(|error| LevelsError::NotListed {
            reason: format!("{error:?}"),
        })?;
        for run in self.levels().manifest().unknown(&listed) {
            let gone = self.runs.remove(&run);
            gone.map_err(|error| removal(run, &error))?;
        }
        Ok(())
    }
}

fn removal(run: bield_levels::RunId, error: &bield_levels::BlobError) -> StateError {
    let reason = format!("{error:?}");
    LevelsError::Store { run, reason }.into()
}
