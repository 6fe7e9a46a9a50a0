//! Manifests: which runs make up the levels, what they cover, and what came before.
//!
//! ```text
//!  manifest 1 ◀── manifest 2 ◀── manifest 3          each names the digest of its predecessor
//!                                 │
//!    upper 0: │run│ │run│run│     sorted runs, newest flush last; they overlap      tiers
//!    upper 1: │run│run│run│                                                          of merges
//!    bottom:  │run│run│run│run│run│run│run│     one sorted run                       one level
//! ```
//!
//! In: strict CBOR out of a verified data record; changes ([`crate::Changes`]). Out: the same. Always
//! true of a manifest that was decoded: its counts and lengths are within bounds, runs of a sorted run
//! ascend without overlap, no run occurs twice, what it covers ascends by writer.
//!
//! A manifest is believed because the record that carries it is signed and chained, and because it
//! [`follows`](Manifest::follows) the one before; nothing in a manifest proves it by itself. It holds
//! keys in clear (the ends of runs), so it is stored only where records are: sealed.

use bield_capsule::{CapsuleName, Clock, Head};
use bield_envelope::{Digest, Time, wire};
use minicbor::{Decode, Encode};
use std::collections::BTreeSet;
use std::time::Duration;

use crate::{Limit, Limits, RangeDelete, RunId, RunMeta};

/// Most runs of a manifest.
pub const RUNS_MAX: usize = 4096;
/// Most upper levels.
pub const UPPER_MAX: usize = 6;
/// Most range deletes of a manifest.
pub const RANGE_DELETES_MAX: usize = 1024;
/// Most runs that are retired and not yet removed.
pub const RETIRED_MAX: usize = 8192;
/// Most retired runs that are kept for their retention: a compaction retires at most [`RUNS_MAX`] more, so there is always
/// room for one.
pub const RETIRED_KEPT: usize = RETIRED_MAX - RUNS_MAX;
/// Most writers whose heads a manifest covers.
pub const COVERED_MAX: usize = 1024;
/// Bytes of the longest manifest: it fits a capsule's record with room for its entry.
pub const MANIFEST_BYTES_MAX: usize = 1_000_000;

/// Runs without overlap, in ascending order of keys: searched as if they were one.
pub type SortedRun = Vec<RunMeta>;

/// What there is.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    #[n(0)]
    version: u8,
    #[n(1)]
    pub(crate) capsule: CapsuleName,
    #[n(2)]
    pub(crate) number: u64,
    #[n(3)]
    pub(crate) previous: Option<Digest>,
    #[cbor(n(4), decode_with = "wire::at_most::<UPPER_MAX, _, _>")]
    pub(crate) upper: Vec<Vec<SortedRun>>,
    #[cbor(n(5), decode_with = "wire::at_most::<RUNS_MAX, _, _>")]
    pub(crate) bottom: SortedRun,
    #[cbor(n(6), decode_with = "wire::at_most::<COVERED_MAX, _, _>")]
    pub(crate) covered: Vec<Head>,
    #[cbor(n(7), decode_with = "wire::at_most::<RANGE_DELETES_MAX, _, _>")]
    pub(crate) range_deletes: Vec<Numbered>,
    /// Serial of the newest range delete ever, from 1.
    #[n(8)]
    pub(crate) serial: u64,
    #[cbor(n(9), decode_with = "wire::at_most::<RETIRED_MAX, _, _>")]
    pub(crate) retired: Vec<Retired>,
    #[n(10)]
    pub(crate) retention_ms: u64,
    #[cbor(n(11), with = "crate::cell::clock")]
    pub(crate) horizon: Clock,
    #[cbor(n(12), with = "crate::cell::clock")]
    pub(crate) newest: Clock,
}

/// A range delete and its place among all there ever were.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Numbered {
    #[n(0)]
    pub(crate) serial: u64,
    #[n(1)]
    pub(crate) delete: RangeDelete,
}

/// A run that no manifest names any more and that is kept for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Retired {
    /// Which.
    #[n(0)]
    pub run: RunId,
    /// Its length in bytes.
    #[n(1)]
    pub bytes: u64,
    /// When it was replaced, by the clock of whoever replaced it.
    #[n(2)]
    pub at: Time,
}

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not the one encoding of a manifest.
    #[error(transparent)]
    Wire(#[from] wire::WireError),
    /// Beyond a bound.
    #[error(transparent)]
    Limits(#[from] Limits),
    /// Another capsule's.
    #[error("the manifest is of another capsule; fetch this one's")]
    Capsule,
    /// It does not follow the manifest that is known.
    #[error(
        "manifest {found} does not follow manifest {known}: {what}; whoever gave it rolled back, forked or lost manifests; fetch the newest from the capsule"
    )]
    NotNext {
        /// Number of the manifest that is known.
        known: u64,
        /// Number of the one refused.
        found: u64,
        /// The rule that it breaks.
        what: &'static str,
    },
    /// It says something that cannot be.
    #[error("a manifest is wrong: {what}; tell the owner of the code that made it, do not retry")]
    Broken {
        /// The rule that it breaks.
        what: &'static str,
    },
    /// What a change builds on is not there any more.
    #[error("the manifest changed meanwhile; plan again")]
    Stale,
}

impl Manifest {
    /// The manifest before the first flush, number 0; `retention` is for how long runs are kept after
    /// they were replaced.
    #[must_use]
    pub fn begin(capsule: CapsuleName, retention: Duration) -> Self {
        Self {
            version: VERSION,
            capsule,
            number: 0,
            previous: None,
            upper: Vec::new(),
            bottom: Vec::new(),
            covered: Vec::new(),
            range_deletes: Vec::new(),
            serial: 0,
            retired: Vec::new(),
            retention_ms: millis(retention),
            horizon: Clock::default(),
            newest: Clock::default(),
        }
    }

    /// Its bytes, at most [`MANIFEST_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads what [`Manifest::encode`] wrote, out of a record that was verified.
    ///
    /// # Errors
    /// Not the one encoding of a manifest, one that breaks a bound or contradicts itself, or another
    /// capsule's.
    pub fn decode(bytes: &[u8], capsule: &CapsuleName) -> Result<Self, ManifestError> {
        let manifest: Self = wire::decode(bytes, MANIFEST_BYTES_MAX)?;
        manifest.check()?;
        if manifest.capsule != *capsule {
            return Err(ManifestError::Capsule);
        }
        Ok(manifest)
    }

    /// What its successor names it by.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(DIGEST_DOMAIN, &[&self.encode()])
    }

    /// Checks that this manifest is the successor of `known`.
    ///
    /// # Errors
    /// Another capsule, number or predecessor, or something that never goes back did.
    pub fn follows(&self, known: &Self) -> Result<(), ManifestError> {
        if self.capsule != known.capsule {
            return Err(ManifestError::Capsule);
        }
        let not_next = |what| {
            Err(ManifestError::NotNext {
                known: known.number,
                found: self.number,
                what,
            })
        };
        if known.number.checked_add(1) != Some(self.number) {
            return not_next("its number is not the next one");
        }
        if self.previous != Some(known.digest()) {
            return not_next("it names another predecessor");
        }
        if !covers(&self.covered, &known.covered) {
            return not_next("it covers less of a writer's chain, or another one");
        }
        let clocks = self.horizon >= known.horizon && self.newest >= known.newest;
        if !clocks || self.serial < known.serial {
            return not_next("a clock or a serial in it goes back");
        }
        Ok(())
    }

    /// Whose levels these are.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.capsule
    }

    /// How many manifests there were before it.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Heads whose cells, and those of everything before them, are in its runs; ascending by writer.
    #[must_use]
    pub fn covered(&self) -> &[Head] {
        &self.covered
    }

    /// Deletions older than this may be forgotten already: a write with an older clock must be refused.
    #[must_use]
    pub const fn horizon(&self) -> Clock {
        self.horizon
    }

    /// The newest clock of anything that is or was in its levels.
    #[must_use]
    pub const fn newest(&self) -> Clock {
        self.newest
    }

    /// Range deletes that still hide something, oldest first.
    pub fn range_deletes(&self) -> impl Iterator<Item = &RangeDelete> {
        self.range_deletes.iter().map(|numbered| &numbered.delete)
    }

    /// Upper levels, each with its sorted runs in the order in which they came.
    #[must_use]
    pub fn upper(&self) -> &[Vec<SortedRun>] {
        &self.upper
    }

    /// The bottom level: one sorted run.
    #[must_use]
    pub fn bottom(&self) -> &SortedRun {
        &self.bottom
    }

    /// All sorted runs, upper levels first.
    pub fn sorted_runs(&self) -> impl Iterator<Item = &SortedRun> {
        let bottom = Some(&self.bottom).filter(|bottom| !bottom.is_empty());
        self.upper.iter().flatten().chain(bottom)
    }

    /// Every run.
    pub fn runs(&self) -> impl Iterator<Item = &RunMeta> {
        self.sorted_runs().flatten()
    }

    /// Bytes of every run.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs().map(|run| run.bytes).sum()
    }

    /// Runs that were replaced and not yet removed.
    #[must_use]
    pub fn retired(&self) -> &[Retired] {
        &self.retired
    }

    /// How long they are kept.
    #[must_use]
    pub const fn retention(&self) -> Duration {
        Duration::from_millis(self.retention_ms)
    }

    /// Those of them whose time is over, and the oldest of more than [`RETIRED_KEPT`]. Whoever removes them
    /// asks [`crate::Levels::removable`] which of them a snapshot still reads.
    pub fn due(&self, now: Time) -> impl Iterator<Item = &Retired> {
        let beyond = self.retired.len().saturating_sub(RETIRED_KEPT);
        let retention = self.retention();
        let is_due = move |at: usize, run: &Retired| at < beyond || run.at.plus(retention) <= now;
        let runs = self.retired.iter().enumerate();
        runs.filter_map(move |(at, run)| is_due(at, run).then_some(run))
    }

    /// Of the names that a store lists, those that this manifest neither uses nor retires: leftovers
    /// of a flush or compaction that ended before its manifest. To be asked when none is under way.
    #[must_use]
    pub fn unknown(&self, listed: &[RunId]) -> Vec<RunId> {
        let known: BTreeSet<RunId> = self.names().collect();
        let unknown = listed.iter().filter(|run| !known.contains(run));
        unknown.copied().collect()
    }

    fn names(&self) -> impl Iterator<Item = RunId> {
        let used = self.runs().map(|run| run.id);
        used.chain(self.retired.iter().map(|retired| retired.run))
    }

    /// Checks bounds and what must not contradict itself.
    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        let broken = |what| Err(ManifestError::Broken { what });
        if self.version != VERSION {
            return broken("its version is not known");
        }
        if self.number.max(self.serial) > COUNT_MAX {
            return broken("it counts further than there can be");
        }
        if (self.number == 0) != self.previous.is_none() {
            return broken("only the first has no predecessor");
        }
        let names: Vec<RunId> = self.names().collect();
        for (limit, max, found) in [
            (Limit::Runs, RUNS_MAX, names.len() - self.retired.len()),
            (
                Limit::RangeDeletes,
                RANGE_DELETES_MAX,
                self.range_deletes.len(),
            ),
            (Limit::Retired, RETIRED_MAX, self.retired.len()),
            (Limit::Covered, COVERED_MAX, self.covered.len()),
        ] {
            if found > max {
                return Err(Limits::new(limit, found).into());
            }
        }
        if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
            return broken("a run occurs twice");
        }
        if self.upper.len() > UPPER_MAX || self.upper.iter().flatten().any(Vec::is_empty) {
            return broken("too many levels, or a sorted run without runs");
        }
        for run in self.runs() {
            run.check().map_err(|what| ManifestError::Broken { what })?;
            if run.summary.newest > self.newest || run.swept > self.serial {
                return broken("a run is newer than the manifest says");
            }
        }
        if !self.sorted_runs().all(|sorted| ascends(sorted)) {
            return broken("runs of a sorted run overlap");
        }
        if !self.covered.is_sorted_by(|a, b| a.writer < b.writer) {
            return broken("what it covers is not in order");
        }
        let serials = self.range_deletes.iter().map(|numbered| numbered.serial);
        if !serials.clone().is_sorted_by(|a, b| a < b) || serials.clone().any(|s| s > self.serial) {
            return broken("serials of range deletes are not in order");
        }
        for numbered in &self.range_deletes {
            numbered.delete.check()?;
            if numbered.serial == 0 || numbered.delete.version.clock > self.newest {
                return broken("a range delete is newer than the manifest says");
            }
        }
        Ok(())
    }
}

impl core::fmt::Debug for Manifest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (number, runs, bytes) = (self.number, self.runs().count(), self.bytes());
        write!(f, "Manifest({number}, {runs} runs of {bytes} bytes)")
    }
}

pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Whether runs ascend without overlap.
pub(crate) fn ascends(sorted: &[RunMeta]) -> bool {
    sorted.is_sorted_by(|a, b| a.summary.last < b.summary.first)
}

/// Whether heads reach at least as far as others did, in the same chains.
fn covers(heads: &[Head], others: &[Head]) -> bool {
    others.iter().all(|other| {
        let at = heads.binary_search_by(|head| head.writer.cmp(&other.writer));
        at.is_ok_and(|at| {
            let head = &heads[at];
            head.seq > other.seq || (head.seq == other.seq && head.hash == other.hash)
        })
    })
}

const VERSION: u8 = 1;
/// Largest number and serial: one more, and as many more as a flush adds, still are numbers.
const COUNT_MAX: u64 = u64::MAX / 2;
const DIGEST_DOMAIN: &str = "bield levels manifest v1";
