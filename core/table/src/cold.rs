//! What is older than the memtable.

use std::ops::Bound;

use bield_capsule::Clock;
use bield_levels::{Levels, LevelsError, OwnedCell};

/// Cells that were flushed. A table asks; whoever keeps it writes and compacts.
pub trait Cold: Send + Sync {
    /// The winner of all cells of a key, deletions and expired values as they are; where a range delete
    /// is newer than the winner, or there is none, a deletion with the range delete's version.
    ///
    /// # Errors
    /// It cannot be read, or does not open.
    fn newest(&self, key: &[u8]) -> Result<Option<OwnedCell>, LevelsError>;

    /// Winners of the first keys between two bounds, ascending, deletions and expired values as they
    /// are: `count` of them, or all when there are fewer.
    ///
    /// # Errors
    /// As [`Cold::newest`].
    fn page(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        count: usize,
    ) -> Result<Vec<OwnedCell>, LevelsError>;

    /// No cell and no range delete is newer. Asked once for each cold side.
    fn clock(&self) -> Clock;
}

impl Cold for Levels {
    fn newest(&self, key: &[u8]) -> Result<Option<OwnedCell>, LevelsError> {
        Self::newest(self, key)
    }

    fn page(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        count: usize,
    ) -> Result<Vec<OwnedCell>, LevelsError> {
        self.scan(from, to)?.take(count).collect()
    }

    fn clock(&self) -> Clock {
        let runs = self.manifest().runs().map(|run| run.summary.newest);
        let deletes = self.manifest().range_deletes();
        let deletes = deletes.map(|delete| delete.version.clock);
        runs.chain(deletes).max().unwrap_or_default()
    }
}

/// Nothing was ever flushed.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCold;

impl Cold for NoCold {
    fn newest(&self, _: &[u8]) -> Result<Option<OwnedCell>, LevelsError> {
        Ok(None)
    }

    fn page(
        &self,
        _: Bound<&[u8]>,
        _: Bound<&[u8]>,
        _: usize,
    ) -> Result<Vec<OwnedCell>, LevelsError> {
        Ok(Vec::new())
    }

    fn clock(&self) -> Clock {
        Clock::default()
    }
}
