//! Which runs to merge next.
//!
//! In: a manifest and settings. Out: at most one plan. Always true: the same manifest gives the same
//! plan; a plan for the bottom takes all upper levels with it, so that deletions can be forgotten there.
//!
//! **On paper.** With tiers of `t` sorted runs, a bottom of `B` bytes and a ratio of `r`, a byte is
//! written once by its flush, once for each upper level that it goes through (`log_t(B / (r · flush))`
//! of them, none while `B ≤ r · t · flush`), and `1 + r` times when the upper levels, `B / r` bytes
//! together, are merged into the bottom. With the defaults (t = 8, r = 4) and flushes of 32 MiB: 6 times
//! up to 1 GiB, 7 times up to 8 GiB. A get looks at `t` sorted runs of each upper level and the bottom at
//! most; dead bytes are at most `1 / r` of the live ones, and while a merge is under way its inputs.

use crate::compaction::Target;
use crate::{Manifest, RANGE_DELETES_MAX, RunId, RunMeta, Settings, UPPER_MAX};

/// What a compaction merges, and where its result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub(crate) inputs: Vec<RunId>,
    pub(crate) target: Target,
    pub(crate) bytes: u64,
}

impl Plan {
    /// What should be merged now, if anything.
    #[must_use]
    pub fn next(manifest: &Manifest, settings: &Settings) -> Option<Self> {
        let upper = manifest.upper();
        let sorted: usize = upper.iter().map(Vec::len).sum();
        if sorted >= settings.tier_runs() {
            let above: u64 = upper.iter().flatten().flatten().map(|run| run.bytes).sum();
            let below: u64 = manifest.bottom().iter().map(|run| run.bytes).sum();
            if above.saturating_mul(settings.bottom_ratio()) >= below {
                return Some(Self::into_bottom(manifest, false));
            }
        }
        let full = upper
            .iter()
            .position(|level| level.len() >= settings.tier_runs());
        if let Some(level) = full {
            return Some(match level + 1 {
                UPPER_MAX => Self::into_bottom(manifest, false),
                next => Self::new(upper[level].iter().flatten(), Target::Upper(next)),
            });
        }
        let range_deletes = manifest.range_deletes().count();
        (range_deletes > RANGE_DELETES_MAX / 2 && manifest.runs().next().is_some())
            .then(|| Self::into_bottom(manifest, true))
    }

    /// All runs into the bottom: what is deleted goes, and every run is sealed under the newest
    /// generation. `None` when there is no run.
    #[must_use]
    pub fn all(manifest: &Manifest) -> Option<Self> {
        manifest.runs().next()?;
        Some(Self::into_bottom(manifest, true))
    }

    /// [`Plan::all`] when a run is sealed under an older generation than this one: once it is done, nothing needs
    /// the key of an older one any more.
    #[must_use]
    pub fn older(manifest: &Manifest, generation: u32) -> Option<Self> {
        let mut runs = manifest.runs();
        let is_older = runs.any(|run| run.generation < generation);
        is_older.then(|| Self::into_bottom(manifest, true))
    }

    /// Bytes that it reads.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many sorted runs the first level has beyond what a compaction waits for, in percent of it:
    /// 0 while compaction keeps up. At 300 a caller should let puts wait until it is lower; flushes
    /// are refused by nothing but the bounds of a manifest.
    #[must_use]
    pub fn pressure(manifest: &Manifest, settings: &Settings) -> usize {
        let first = manifest.upper().first().map_or(0, Vec::len);
        first.saturating_sub(settings.tier_runs()) * 100 / settings.tier_runs()
    }

    /// All upper levels and, of the bottom, what overlaps them or all.
    fn into_bottom(manifest: &Manifest, all: bool) -> Self {
        let above = || manifest.upper().iter().flatten().flatten();
        let first = above().map(|run| &run.summary.first).min();
        let last = above().map(|run| &run.summary.last).max();
        let overlaps = |run: &&RunMeta| {
            let below = last.is_some_and(|last| run.summary.first <= *last);
            let from = first.is_some_and(|first| run.summary.last >= *first);
            all || (below && from)
        };
        let bottom = manifest.bottom().iter().filter(overlaps);
        Self::new(above().chain(bottom), Target::Bottom)
    }

    fn new<'a>(inputs: impl Iterator<Item = &'a RunMeta>, target: Target) -> Self {
        let (mut ids, mut bytes) = (Vec::new(), 0);
        for run in inputs {
            ids.push(run.id);
            bytes += run.bytes;
        }
        Self {
            inputs: ids,
            target,
            bytes,
        }
    }
}
