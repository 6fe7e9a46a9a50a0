//! What is older than the memtable.

use std::ops::Bound;

use bield_capsule::Clock;
use bield_envelope::Wiped;
use bield_levels::{Cell, Content, Levels, LevelsError, OwnedCell, OwnedContent};

/// Cells that were flushed. A table asks; whoever keeps it writes and compacts.
pub trait Cold: Send + Sync {
    /// The winner of all cells of a key, deletions and expired values as they are; where a range delete
    /// is newer than the winner, or there is none, a deletion with the range delete's version.
    ///
    /// # Errors
    /// It cannot be read, or does not open.
    fn newest(&self, key: &[u8]) -> Result<Option<OwnedCell>, LevelsError>;

    /// Winners of the first keys between two bounds, ascending, deletions and expired values as they are.
    ///
    /// # Errors
    /// As [`Cold::newest`].
    fn page(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, most: Most) -> Result<Part, LevelsError>;

    /// No cell and no range delete is newer. Asked once for each cold side.
    fn clock(&self) -> Clock;
}

/// How much is read at once. One cell is, however large; after the one that reaches a bound there may be more.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Cells.
    pub cells: usize,
    /// Bytes of keys, and of values where they are kept.
    pub bytes: usize,
    /// Whether values are kept; without, they are empty, and one at a time is in memory.
    pub values: bool,
}

/// The first cells between two bounds.
#[derive(Default)]
pub struct Part {
    /// Ascending.
    pub cells: Vec<OwnedCell>,
    /// Whether there may be more behind the last of them; never when there is none.
    pub more: bool,
}

impl Most {
    /// The cell without what is not kept of it.
    pub(crate) fn kept(self, cell: Cell<'_>) -> Cell<'_> {
        match cell.content {
            Content::Value { expires, .. } if !self.values => Cell {
                content: Content::Value {
                    bytes: &[],
                    expires,
                },
                ..cell
            },
            _ => cell,
        }
    }

    /// As many of the cells as these bounds allow.
    ///
    /// # Errors
    /// The first that a cell is instead of itself.
    pub fn of<E>(self, cells: impl IntoIterator<Item = Result<OwnedCell, E>>) -> Result<Part, E> {
        let (mut part, mut bytes) = (Part::default(), 0);
        for cell in cells {
            let mut cell = cell?;
            bytes += cell.key.len();
            if let OwnedContent::Value { bytes: value, .. } = &mut cell.content {
                if self.values {
                    bytes += value.len();
                } else {
                    *value = Wiped::from(Vec::new());
                }
            }
            part.cells.push(cell);
            if part.cells.len() >= self.cells || bytes >= self.bytes {
                part.more = true;
                break;
            }
        }
        Ok(part)
    }
}

impl Part {
    /// The last key up to which nothing is left out; `None` when that is all of them.
    pub(crate) fn end(&self) -> Option<&[u8]> {
        let last = self.cells.last().filter(|_| self.more)?;
        Some(&last.key)
    }
}

impl Cold for Levels {
    fn newest(&self, key: &[u8]) -> Result<Option<OwnedCell>, LevelsError> {
        Self::newest(self, key)
    }

    fn page(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, most: Most) -> Result<Part, LevelsError> {
        most.of(self.scan(from, to)?)
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

    fn page(&self, _: Bound<&[u8]>, _: Bound<&[u8]>, _: Most) -> Result<Part, LevelsError> {
        Ok(Part::default())
    }

    fn clock(&self) -> Clock {
        Clock::default()
    }
}
