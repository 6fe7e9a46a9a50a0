//! Files that nobody needs any more, and when they may go.
//!
//! ```text
//! segments behind a checkpoint ─┐
//! runs that a manifest replaced ├─▶ wait ── the key service took an own head at or after that record ──▶ removed
//! runs unknown at the start ────┘
//! ```
//!
//! In: names of files, each with the own record that makes it needless; own heads that the key service took. Out: what may
//! be removed. Always true: nothing is removed before such a head was taken. The key service takes heads from its newest
//! holder alone, so at that moment nobody had followed this one; whoever follows later begins from files that reach the
//! head, so its line has the record too, and it never reads what went. A holder that was followed without knowing it
//! removes nothing but what an anchored record made needless.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bield_capsule::Head;
use bield_levels::RunId;

use crate::disk::{Disk, lock};
use crate::log::chain::Segment;
use crate::runs::RunFiles;

/// What waits to be removed.
#[derive(Default)]
pub(crate) struct Removal {
    /// The newest own record that the key service took; 0: none, for record 0 is never anchored alone.
    anchored: AtomicU64,
    /// With the own record that covers them, oldest first.
    segments: Mutex<Vec<(u64, Segment)>>,
    /// With the own record that retired them; what an earlier holder retired is not here.
    retired: Mutex<BTreeMap<RunId, u64>>,
    /// That no manifest named when this holder began, and not its own.
    unknown: Mutex<Vec<RunId>>,
}

impl Removal {
    pub(crate) fn new(unknown: Vec<RunId>) -> Self {
        Self {
            unknown: Mutex::new(unknown),
            ..Self::default()
        }
    }

    /// The key service took the own record of this position.
    pub(crate) fn anchored(&self, seq: u64) {
        self.anchored.fetch_max(seq, Ordering::AcqRel);
    }

    /// A checkpoint covers these segments.
    pub(crate) fn covers(&self, by: Head, segments: Vec<Segment>) {
        let segments = segments.into_iter().map(|segment| (by.seq, segment));
        lock(&self.segments).extend(segments);
    }

    /// A checkpoint of an earlier holder covers these segments, and is anchored.
    pub(crate) fn anchored_before(&self, segments: Vec<Segment>) {
        lock(&self.segments).extend(segments.into_iter().map(|segment| (0, segment)));
    }

    /// A manifest retires these runs.
    pub(crate) fn retires(&self, by: Head, runs: impl Iterator<Item = RunId>) {
        lock(&self.retired).extend(runs.map(|run| (run, by.seq)));
    }

    /// These runs are gone.
    pub(crate) fn removed(&self, runs: &[RunId]) {
        lock(&self.retired).retain(|run, _| !runs.contains(run));
    }

    /// Whether a run that is retired may go, as far as this is asked here.
    pub(crate) fn may_go(&self, run: &RunId) -> bool {
        let anchored = self.anchored.load(Ordering::Acquire);
        let by = lock(&self.retired).get(run).copied();
        // What an earlier holder retired stands before the own first records.
        anchored > 0 && by.is_none_or(|by| by <= anchored)
    }

    /// Removes segments and unknown runs whose time has come; what the host refuses is tried again.
    pub(crate) fn clear(&self, disk: &Disk, runs: &RunFiles) {
        let anchored = self.anchored.load(Ordering::Acquire);
        let gone = |name: &str| disk.remove(name).is_ok();
        let mut segments = lock(&self.segments);
        segments.retain(|(by, segment)| *by > anchored || !gone(&segment.name));
        drop(segments);
        if anchored == 0 {
            return;
        }
        let mut unknown = lock(&self.unknown);
        unknown.retain(|run| !gone(&runs.name(run)));
    }
}
