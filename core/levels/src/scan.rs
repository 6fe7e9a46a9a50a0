//! Ordered reading: winners between two bounds, one by one or in pages.

use std::ops::Bound;

use bield_envelope::Time;

use crate::merge::Merge;
use crate::{Cell, Levels, LevelsError, OwnedCell};

/// The winners of all keys between two bounds; see [`Levels::scan`].
pub struct Scan<'l> {
    levels: &'l Levels,
    merge: Merge,
    /// The key whose winner was seen last.
    seen: Vec<u8>,
}

/// How much a page has at most.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// Cells; at least one is given.
    pub cells: usize,
    /// Bytes of keys and values; the cell that crosses it is the last.
    pub bytes: usize,
}

/// A part of a scan.
#[derive(Debug)]
pub struct Page {
    /// Values, ascending by key.
    pub cells: Vec<OwnedCell>,
    /// Scan on from here, exclusive; `None` when this was the last page.
    pub after: Option<Vec<u8>>,
}

impl<'l> Scan<'l> {
    pub(crate) fn begin(
        levels: &'l Levels,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Self, LevelsError> {
        let merge = Merge::begin(levels.sorted().iter().cloned(), from, to, levels)?;
        Ok(Self {
            levels,
            merge,
            seen: Vec::new(),
        })
    }

    /// The next winner, without a copy.
    ///
    /// # Errors
    /// A run cannot be read, or does not open; the scan is then over.
    pub fn next_cell(&mut self) -> Result<Option<Cell<'_>>, LevelsError> {
        // Two loops, because a borrow that is returned from a loop would last through it.
        while let Some(cell) = self.merge.next(self.levels)? {
            // Keys are never empty, so the first is no repetition.
            if *self.seen == *cell.key {
                continue;
            }
            self.seen.clear();
            self.seen.extend_from_slice(cell.key);
            if !self.levels.ranges().delete(cell.key, cell.version) {
                return Ok(Some(self.merge.current()));
            }
        }
        Ok(None)
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<OwnedCell, LevelsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_cell().transpose()?;
        Some(next.map(|cell| cell.to_owned()))
    }
}

impl Levels {
    /// One page of values at a moment: neither deletions nor what has expired.
    ///
    /// # Errors
    /// A run cannot be read, or does not open.
    pub fn page(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limits: PageLimits,
        now: Time,
    ) -> Result<Page, LevelsError> {
        let mut scan = self.scan(from, to)?;
        let (mut cells, mut bytes) = (Vec::new(), 0);
        while let Some(cell) = scan.next_cell()? {
            let Some(value) = cell.value_at(now) else {
                continue;
            };
            bytes += cell.key.len() + value.len();
            cells.push(cell.to_owned());
            if cells.len() >= limits.cells || bytes >= limits.bytes {
                let after = Some(scan.seen);
                return Ok(Page { cells, after });
            }
        }
        Ok(Page { cells, after: None })
    }
}
