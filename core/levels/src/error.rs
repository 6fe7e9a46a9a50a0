//! What can go wrong with levels, whose move it is, and whether to try again.
//!
//! Names of runs and numbers of blocks appear; keys and values never do.

use core::fmt;

use crate::{BlobError, RunId};

/// Why an operation on levels did not succeed. Nothing was returned that had not been verified, and
/// nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LevelsError {
    /// The store has lost or withholds a run that the manifest names.
    #[error(
        "the store does not have run {}: whoever operates it must bring it back from a replica or a backup; do not retry before",
        run.short()
    )]
    Missing {
        /// The run.
        run: RunId,
    },
    /// The store did not answer.
    #[error("the store failed on run {}: {reason}; retry later", run.short())]
    Store {
        /// The run.
        run: RunId,
        /// The store's words.
        reason: String,
    },
    /// The store could not say what it has.
    #[error("the store does not list its runs: {reason}; retry later")]
    NotListed {
        /// The store's words.
        reason: String,
    },
    /// A run ends before it should.
    #[error(
        "run {} was cut: {part} ends {missing} bytes early; whoever operates the store must bring the run back from a replica or a backup",
        run.short()
    )]
    Cut {
        /// The run.
        run: RunId,
        /// Which part of it.
        part: Part,
        /// Bytes that are not there.
        missing: u64,
    },
    /// Bytes do not open: altered, or of another place, run, generation or capsule.
    #[error(
        "{part} of run {} does not open: altered, or from another place, run, generation or capsule; whoever operates the store must bring the run back from a replica or a backup",
        run.short()
    )]
    Altered {
        /// The run.
        run: RunId,
        /// Which part of it.
        part: Part,
    },
    /// A run as a whole is not what its name says.
    #[error(
        "what the store has as run {} has another name: altered, exchanged, or with more behind its end; whoever operates the store must bring the run back from a replica or a backup",
        run.short()
    )]
    NotTheRun {
        /// The run.
        run: RunId,
    },
    /// A part opens and says something that cannot be: whoever wrote it broke the format.
    #[error(
        "{part} of run {} is authentic and wrong: {what}; tell the owner of the code that wrote it, do not retry",
        run.short()
    )]
    Broken {
        /// The run.
        run: RunId,
        /// Which part of it.
        part: Part,
        /// The rule that it breaks.
        what: &'static str,
    },
    /// The key ring has no key of this generation.
    #[error(
        "no key of generation {generation}, which sealed run {}: ask the key service or the owner for it; gone for good if it was erased",
        run.short()
    )]
    NoKey {
        /// The run.
        run: RunId,
        /// The generation.
        generation: u32,
    },
    /// The key ring has no key at all.
    #[error("there is no key to seal a run with; ask the key service or the owner for one")]
    NoKeyToSeal,
    /// A compaction did not come out with what went in; its result was thrown away.
    #[error(
        "a compaction came out with {found} cells where {expected} were due; nothing was changed; tell the developers"
    )]
    Miscounted {
        /// Cells that should have been seen.
        expected: u64,
        /// Cells that were seen.
        found: u64,
    },
    /// A caller gave cells out of order.
    #[error("cells are not in ascending order of keys, each once; a mistake of the caller")]
    Unsorted,
    /// Something is longer, or more, than levels hold.
    #[error(transparent)]
    Limits(#[from] Limits),
    /// The manifest is not what it should be.
    #[error(transparent)]
    Manifest(#[from] crate::ManifestError),
}

impl LevelsError {
    /// What a store's answer means for a run.
    pub(crate) fn blob(run: RunId, error: BlobError) -> Self {
        match error {
            BlobError::Missing => Self::Missing { run },
            BlobError::Failed(reason) => Self::Store { run, reason },
        }
    }
}

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// A block of cells, by number from 0.
    Block(u32),
    /// Where blocks lie and which keys they begin with.
    Index,
    /// Which keys the run may have.
    Filter,
    /// Who wrote, from where to where, and how many.
    Properties,
    /// All of it.
    Whole,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(number) => write!(f, "block {number}"),
            Self::Index => f.write_str("the index"),
            Self::Filter => f.write_str("the filter"),
            Self::Properties => f.write_str("the properties"),
            Self::Whole => f.write_str("the whole"),
        }
    }
}

/// Something is beyond what levels hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit}; found {found}")]
pub struct Limits {
    /// Which bound.
    pub limit: Limit,
    /// How long or how many it is.
    pub found: usize,
}

impl Limits {
    pub(crate) const fn new(limit: Limit, found: usize) -> Self {
        Self { limit, found }
    }
}

/// A bound of levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Limit {
    /// A key's bytes.
    #[error("a key has 1 to {} bytes; use a shorter one", crate::KEY_BYTES_MAX)]
    Key,
    /// A value's bytes.
    #[error("a value has at most {} bytes; split it", crate::VALUE_BYTES_MAX)]
    Value,
    /// A range that has no key.
    #[error("a range ends above its begin; exchange its bounds")]
    Range,
    /// Runs of a manifest.
    #[error(
        "a manifest names at most {} runs; compact, or make runs longer",
        crate::RUNS_MAX
    )]
    Runs,
    /// Range deletes of a manifest.
    #[error(
        "a manifest keeps at most {} range deletes; compact, and advance the horizon",
        crate::RANGE_DELETES_MAX
    )]
    RangeDeletes,
    /// Runs that are no longer used and not yet removed.
    #[error(
        "a manifest remembers at most {} retired runs; remove those whose time is over, or shorten the retention",
        crate::RETIRED_MAX
    )]
    Retired,
    /// Bytes of a manifest.
    #[error(
        "a manifest has at most {} bytes; compact, make runs longer, or use shorter keys",
        crate::MANIFEST_BYTES_MAX
    )]
    Manifest,
    /// Writers of a run.
    #[error(
        "a run has cells of at most {} writers; flush more often",
        crate::WRITERS_MAX
    )]
    Writers,
    /// Writers that a manifest covers.
    #[error(
        "a manifest covers at most {} writers; the capsule's policy must retire some",
        crate::COVERED_MAX
    )]
    Covered,
}
