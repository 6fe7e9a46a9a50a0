//! From one manifest to the next: what was flushed, merged and removed.
//!
//! In: a manifest, what a flush or a compaction came out with, a moment. Out: the successor, checked.
//! Always true: it names its predecessor; runs that were replaced are retired, and a retired run is
//! forgotten only when its time is over; what is covered, the horizon and the newest clock never go
//! back; a change that builds on runs that are gone is refused.
//!
//! A range delete leaves the manifest when nothing needs it any more: it is below the horizon, so no
//! cell that it covers can still arrive, and it was applied to every run that overlaps its range.

use bield_capsule::{Clock, Head};
use bield_envelope::Time;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::compaction::{Compacted, Target};
use crate::flush::Flushed;
use crate::manifest::{Numbered, ascends, millis};
use crate::{Limit, Limits, MANIFEST_BYTES_MAX, Manifest, ManifestError, Retired, RunId, RunMeta};

/// What is to be different in the next manifest.
#[derive(Default)]
pub struct Changes {
    /// Runs of a flush become a sorted run of the first level.
    pub flushed: Option<Flushed>,
    /// Runs of a compaction take the place of those that went in.
    pub compacted: Option<Compacted>,
    /// Heads that are covered from now on; others stay as they are.
    pub covered: Vec<Head>,
    /// Retired runs that the store has removed.
    pub removed: Vec<RunId>,
    /// For how long runs are kept after they were replaced, from now on; none: as before.
    pub retention: Option<Duration>,
}

impl Manifest {
    /// The manifest after these changes, made at `now`.
    ///
    /// # Errors
    /// [`ManifestError::Stale`] when the changes build on another manifest; a bound; a retired run that
    /// was removed too early.
    pub fn after(&self, changes: Changes, now: Time) -> Result<Self, ManifestError> {
        let mut next = self.clone();
        next.number += 1;
        next.previous = Some(self.digest());
        if let Some(retention) = changes.retention {
            next.retention_ms = millis(retention);
        }
        if let Some(compacted) = changes.compacted {
            next.compact(compacted, now)?;
        }
        if let Some(flushed) = changes.flushed {
            next.flush(flushed)?;
        }
        next.cover(&changes.covered);
        next.forget(&changes.removed, now)?;
        next.drop_range_deletes();
        next.check()?;
        let bytes = next.encode().len();
        if bytes > MANIFEST_BYTES_MAX {
            return Err(Limits::new(Limit::Manifest, bytes).into());
        }
        next.follows(self)?;
        Ok(next)
    }

    fn flush(&mut self, flushed: Flushed) -> Result<(), ManifestError> {
        // Another flush in between may have deleted ranges that this one did not apply.
        if flushed.serial != self.serial {
            return Err(ManifestError::Stale);
        }
        for delete in flushed.range_deletes {
            self.serial += 1;
            self.newest = self.newest.max(delete.version.clock);
            let serial = self.serial;
            self.range_deletes.push(Numbered { serial, delete });
        }
        self.newest = newest(&flushed.runs).max(self.newest);
        if !flushed.runs.is_empty() {
            self.add(0, flushed.runs);
        }
        Ok(())
    }

    fn compact(&mut self, compacted: Compacted, now: Time) -> Result<(), ManifestError> {
        let inputs: BTreeSet<RunId> = compacted.inputs.iter().copied().collect();
        let mut gone: Vec<RunMeta> = Vec::new();
        for sorted in self.upper.iter_mut().flatten().chain([&mut self.bottom]) {
            gone.extend(sorted.extract_if(.., |run| inputs.contains(&run.id)));
        }
        if gone.len() != inputs.len() {
            return Err(ManifestError::Stale);
        }
        for level in &mut self.upper {
            level.retain(|sorted| !sorted.is_empty());
        }
        self.retired.extend(gone.iter().map(|run| Retired {
            run: run.id,
            bytes: run.bytes,
            at: now,
        }));
        match compacted.target {
            Target::Upper(level) if !compacted.outputs.is_empty() => {
                self.add(level, compacted.outputs);
            }
            Target::Upper(_) => {}
            Target::Bottom => {
                self.bottom.extend(compacted.outputs);
                self.bottom
                    .sort_by(|a, b| a.summary.first.cmp(&b.summary.first));
                if !ascends(&self.bottom) {
                    return Err(ManifestError::Stale);
                }
            }
        }
        while self.upper.pop_if(|level| level.is_empty()).is_some() {}
        self.horizon = self.horizon.max(compacted.horizon);
        Ok(())
    }

    fn add(&mut self, level: usize, sorted: Vec<RunMeta>) {
        if self.upper.len() <= level {
            self.upper.resize(level + 1, Vec::new());
        }
        self.upper[level].push(sorted);
    }

    fn cover(&mut self, heads: &[Head]) {
        for head in heads {
            match self
                .covered
                .binary_search_by(|known| known.writer.cmp(&head.writer))
            {
                Ok(at) => self.covered[at] = *head,
                Err(at) => self.covered.insert(at, *head),
            }
        }
    }

    fn forget(&mut self, removed: &[RunId], now: Time) -> Result<(), ManifestError> {
        let removed: BTreeSet<RunId> = removed.iter().copied().collect();
        let due: BTreeSet<RunId> = self.due(now).map(|retired| retired.run).collect();
        if !removed.is_subset(&due) {
            return Err(ManifestError::Broken {
                what: "a run was removed that is in use, or within its retention",
            });
        }
        self.retired
            .retain(|retired| !removed.contains(&retired.run));
        Ok(())
    }

    fn drop_range_deletes(&mut self) {
        let needed = |numbered: &Numbered| {
            let delete = &numbered.delete;
            delete.version.clock >= self.horizon
                || self.runs().any(|run| {
                    let overlaps = run.summary.last >= delete.from && run.summary.first < delete.to;
                    overlaps && run.swept < numbered.serial
                })
        };
        let kept: Vec<_> = self
            .range_deletes
            .iter()
            .filter(|one| needed(one))
            .cloned()
            .collect();
        self.range_deletes = kept;
    }
}

/// The newest clock of any cell in these runs.
fn newest(runs: &[RunMeta]) -> Clock {
    let clocks = runs.iter().map(|run| run.summary.newest);
    clocks.max().unwrap_or_default()
}
