//! The sorted levels, and the checkpoints in the log that say what they hold.
//!
//! ```text
//! flush, compaction ─▶ Changes ─▶ next manifest ─▶ checkpoint record, durable ─▶ next levels, for readers
//! ```
//!
//! In: changes from the one thread that maintains the levels. Out: snapshots for readers. Always true: levels
//! are read only once the record that names them is durable; a run is removed only when no manifest within
//! the retention names it, nobody reads it and [`Removal`] lets it go; a reader keeps the levels it began with.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bield_capsule::{Batch, CapsuleName, Head, KeyRing};
use bield_envelope::Time;
use bield_levels::{Blobs as _, Changes, Levels, LevelsError, Manifest, RunId};

use crate::control::Checkpoint;
use crate::disk::lock;
use crate::removal::Removal;
use crate::runs::RunFiles;
use crate::writing::Writing;
use crate::{Settings, StateError};

/// The levels of a state.
pub(crate) struct Cold {
    levels: RwLock<Arc<Levels>>,
    /// What the newest checkpoint covers.
    covered: Mutex<Vec<Head>>,
    pub(crate) runs: RunFiles,
    pub(crate) removal: Removal,
    retention: Duration,
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
        let listed = runs.list().map_err(|error| LevelsError::NotListed {
            reason: format!("{error:?}"),
        })?;
        // Leftovers of work that did not end, or, where this holder was followed already, its follower's.
        let removal = Removal::new(manifest.unknown(&listed));
        let levels = Levels::open(manifest, keys, Arc::new(runs.clone()), settings.cache_bytes)?;
        Ok(Self {
            levels: RwLock::new(Arc::new(levels)),
            covered: Mutex::new(covered),
            runs,
            removal,
            retention: settings.retention,
        })
    }

    /// The newest levels.
    pub(crate) fn levels(&self) -> Arc<Levels> {
        let levels = self.levels.read();
        Arc::clone(&levels.unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the next manifest: durable first, then for readers. One thread does. Says the checkpoint's place.
    pub(crate) fn publish(
        &self,
        writing: &Writing,
        mut changes: Changes,
        covered: Option<Vec<Head>>,
    ) -> Result<Head, StateError> {
        changes.retention = Some(self.retention);
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
        let head = writing.append(&batch)?;
        let manifest = next.manifest();
        let before: BTreeSet<_> = names(levels.manifest()).collect();
        let retired = names(manifest).filter(|run| !before.contains(run));
        self.removal.retires(head, retired);
        let named: BTreeSet<_> = manifest.runs().map(|run| run.id).collect();
        self.runs.settled(|run| named.contains(run));
        *lock(&self.covered) = covered;
        *self.levels.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(head)
    }

    /// Removes runs whose retention is over, and says whether there were any. One thread does.
    pub(crate) fn remove_retired(&self, writing: &Writing, now: Time) -> Result<bool, StateError> {
        let mut removed = self.levels().removable(now);
        removed.retain(|run| self.removal.may_go(run));
        if removed.is_empty() {
            return Ok(false);
        }
        self.remove(&removed)?;
        let changes = Changes {
            removed: removed.clone(),
            ..Changes::default()
        };
        self.publish(writing, changes, None)?;
        self.removal.removed(&removed);
        Ok(true)
    }

    /// Removes runs of this process that no manifest names: leftovers of work that failed. Only while none is under way.
    pub(crate) fn remove_made(&self) -> Result<(), StateError> {
        self.remove(&self.runs.made())?;
        self.runs.settled(|_| true);
        Ok(())
    }

    fn remove(&self, runs: &[RunId]) -> Result<(), StateError> {
        for run in runs {
            let gone = self.runs.remove(run);
            gone.map_err(|error| removal(*run, &error))?;
        }
        Ok(())
    }
}

fn names(manifest: &Manifest) -> impl Iterator<Item = RunId> {
    manifest.retired().iter().map(|retired| retired.run)
}

fn removal(run: RunId, error: &bield_levels::BlobError) -> StateError {
    let reason = format!("{error:?}");
    LevelsError::Store { run, reason }.into()
}
