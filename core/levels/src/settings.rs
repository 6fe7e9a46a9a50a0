//! How levels are laid out. Any settings read what any others wrote.

/// Sizes and counts, each with its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    block_bytes: usize,
    run_bytes: usize,
    tier_runs: usize,
    bottom_ratio: u64,
}

impl Default for Settings {
    /// Blocks of 4 KiB, runs of 8 MiB, tiers of 8 sorted runs, the bottom at most 4 times as large as
    /// what is merged into it.
    fn default() -> Self {
        Self {
            block_bytes: 4 << 10,
            run_bytes: 8 << 20,
            tier_runs: 8,
            bottom_ratio: 4,
        }
    }
}

impl Settings {
    /// Longest `run_bytes`.
    pub const RUN_BYTES_MAX: usize = 64 << 20;

    /// Plaintext bytes after which a block takes no further cell: 4 to 16 KiB, and for tests from 64.
    ///
    /// Larger blocks make the index smaller and every cold get dearer: it reads and opens a whole one.
    #[must_use]
    pub fn with_block_bytes(self, bytes: usize) -> Self {
        let block_bytes = bytes.clamp(64, 16 << 10);
        Self {
            block_bytes,
            ..self
        }
    }

    /// Bytes after which a run takes no further cell: at most 64 MiB.
    ///
    /// Building a run takes about 1.3 times as much memory, and its end is the longest step of a compaction.
    #[must_use]
    pub fn with_run_bytes(self, bytes: usize) -> Self {
        let run_bytes = bytes.clamp(256, Self::RUN_BYTES_MAX);
        Self { run_bytes, ..self }
    }

    /// Sorted runs of an upper level that are merged into one of the next: 2 to 32.
    ///
    /// More of them write less and read more: a get looks at a filter of each.
    #[must_use]
    pub fn with_tier_runs(self, runs: usize) -> Self {
        let tier_runs = runs.clamp(2, 32);
        Self { tier_runs, ..self }
    }

    /// How much larger than the upper levels together the bottom may be when they are merged into it:
    /// 1 to 16.
    #[must_use]
    pub fn with_bottom_ratio(self, ratio: u64) -> Self {
        let bottom_ratio = ratio.clamp(1, 16);
        Self {
            bottom_ratio,
            ..self
        }
    }

    pub(crate) const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    pub(crate) const fn run_bytes(&self) -> usize {
        self.run_bytes
    }

    pub(crate) const fn tier_runs(&self) -> usize {
        self.tier_runs
    }

    pub(crate) const fn bottom_ratio(&self) -> u64 {
        self.bottom_ratio
    }
}
