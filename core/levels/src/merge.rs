//! Merges sorted runs into one ascending sequence of cells.
//!
//! ```text
//! sorted run ─▶ Cursor ─┐
//! sorted run ─▶ Cursor ─┼─▶ heap by (key, winner first) ─▶ cells, those of one key next to each other
//! sorted run ─▶ Cursor ─┘
//! ```
//!
//! In: sorted runs, a first and a last key. Out: cells, ascending by key; of one key the winner comes
//! first. Always true: a block is opened before a cell of it is seen; keys of a run that do not ascend
//! are an error. Memory: one block for each sorted run, or one window of blocks where a caller reads
//! ahead. Cost: `log2(sorted runs)` comparisons a cell.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque, binary_heap::PeekMut};
use std::ops::Bound;
use std::sync::Arc;

use crate::block::{Block, Impossible};
use crate::run::{Opened, Run};
use crate::{Cell, LevelsError, Part};

/// How cursors reach blocks.
pub(crate) trait Source {
    /// Index, filter and writers of a run.
    fn opened(&self, run: &Run) -> Result<Arc<Opened>, LevelsError>;

    /// A block of it and perhaps some that follow.
    fn blocks(&self, run: &Run, opened: &Opened, from: u32)
    -> Result<Vec<Arc<Block>>, LevelsError>;
}

/// Cells of several sorted runs in one order.
pub(crate) struct Merge {
    heap: BinaryHeap<Cursor>,
    /// The cell that was handed out last is still on top of the heap.
    taken: bool,
    to: Bound<Vec<u8>>,
}

impl Merge {
    /// Begins at `from`, which only the first block of each sorted run is searched for.
    pub(crate) fn begin(
        sorted: impl IntoIterator<Item = Vec<Arc<Run>>>,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        source: &impl Source,
    ) -> Result<Self, LevelsError> {
        let mut heap = BinaryHeap::new();
        for runs in sorted {
            heap.extend(Cursor::begin(runs, from, source)?);
        }
        Ok(Self {
            heap,
            taken: false,
            to: to.map(<[u8]>::to_vec),
        })
    }

    /// The next cell; `None` at the end.
    ///
    /// # Errors
    /// A run cannot be read, or is wrong; the merge is then over.
    pub(crate) fn next(&mut self, source: &impl Source) -> Result<Option<Cell<'_>>, LevelsError> {
        if std::mem::take(&mut self.taken)
            && let Err(error) = self.advance(source)
        {
            self.heap.clear();
            return Err(error);
        }
        let Some(top) = self.heap.peek() else {
            return Ok(None);
        };
        let cell = top.cell();
        let beyond = match &self.to {
            Bound::Included(to) => *cell.key > **to,
            Bound::Excluded(to) => *cell.key >= **to,
            Bound::Unbounded => false,
        };
        if beyond {
            return Ok(None);
        }
        self.taken = true;
        Ok(Some(self.current()))
    }

    fn advance(&mut self, source: &impl Source) -> Result<(), LevelsError> {
        let Some(mut top) = self.heap.peek_mut() else {
            return Ok(());
        };
        let advanced = top.advance(source);
        if !matches!(advanced, Ok(true)) {
            // Never dropped in place: the heap would compare a cursor that stands nowhere.
            PeekMut::pop(top);
        }
        advanced.map(drop)
    }

    /// The cell that [`Merge::next`] gave last.
    ///
    /// # Panics
    /// It gave none.
    pub(crate) fn current(&self) -> Cell<'_> {
        self.heap.peek().expect("a cell was given").cell()
    }
}

/// A place in a sorted run.
struct Cursor {
    runs: std::vec::IntoIter<Arc<Run>>,
    run: Arc<Run>,
    opened: Arc<Opened>,
    /// Number of the first of `blocks`.
    number: u32,
    /// Blocks from the current one on; never empty.
    blocks: VecDeque<Arc<Block>>,
    at: usize,
}

impl Cursor {
    /// The first cell at or after `from`; `None` when there is none.
    fn begin(
        mut runs: Vec<Arc<Run>>,
        from: Bound<&[u8]>,
        source: &impl Source,
    ) -> Result<Option<Self>, LevelsError> {
        let before = |last: &[u8]| match from {
            Bound::Included(from) => last < from,
            Bound::Excluded(from) => last <= from,
            Bound::Unbounded => false,
        };
        runs.retain(|run| !before(&run.meta().summary.last));
        let mut runs = runs.into_iter();
        let Some(run) = runs.next() else {
            return Ok(None);
        };
        let opened = source.opened(&run)?;
        let number = match from {
            Bound::Included(key) | Bound::Excluded(key) => opened.index.find(key),
            Bound::Unbounded => 0,
        };
        let blocks = load(source, &run, &opened, number)?;
        let mut cursor = Self {
            runs,
            run,
            opened,
            number,
            blocks,
            at: 0,
        };
        let at = match from {
            Bound::Included(key) => cursor.search(key)?.unwrap_or_else(|at| at),
            Bound::Excluded(key) => cursor.search(key)?.map_or_else(|at| at, |at| at + 1),
            Bound::Unbounded => 0,
        };
        let there = cursor.go_to(at, source)?;
        Ok(there.then_some(cursor))
    }

    fn search(&self, key: &[u8]) -> Result<Result<usize, usize>, LevelsError> {
        self.blocks[0].search(key).map_err(|what| self.broken(what))
    }

    /// To the next cell; says whether there is one.
    fn advance(&mut self, source: &impl Source) -> Result<bool, LevelsError> {
        let block = self.blocks[0].clone();
        let (before, last) = (self.at, self.key_of(&block, self.at)?);
        if !self.go_to(before + 1, source)? {
            return Ok(false);
        }
        if last >= self.cell().key {
            return Err(self.broken("keys that do not ascend"));
        }
        Ok(true)
    }

    /// To a place in the current block, or to what follows its end.
    fn go_to(&mut self, at: usize, source: &impl Source) -> Result<bool, LevelsError> {
        self.at = at;
        while self.at >= self.blocks[0].len() {
            self.at = 0;
            if self.number + 1 < self.opened.index.len() {
                self.number += 1;
                self.blocks.pop_front();
                if self.blocks.is_empty() {
                    self.blocks = load(source, &self.run, &self.opened, self.number)?;
                }
            } else {
                let Some(run) = self.runs.next() else {
                    return Ok(false);
                };
                let opened = source.opened(&run)?;
                self.blocks = load(source, &run, &opened, 0)?;
                (self.run, self.opened, self.number) = (run, opened, 0);
            }
        }
        // Every other look at the cell relies on this one.
        let block = &self.blocks[0];
        block
            .cell(self.at, &self.opened.writers)
            .map_err(|what| self.broken(what))?;
        Ok(true)
    }

    fn key_of<'b>(&self, block: &'b Block, at: usize) -> Result<&'b [u8], LevelsError> {
        block.key(at).map_err(|what| self.broken(what))
    }

    fn cell(&self) -> Cell<'_> {
        let cell = self.blocks[0].cell(self.at, &self.opened.writers);
        cell.expect("a cursor stands on a cell that was looked at")
    }

    fn broken(&self, what: Impossible) -> LevelsError {
        self.run.broken(Part::Block(self.number), what)
    }
}

fn load(
    source: &impl Source,
    run: &Run,
    opened: &Opened,
    from: u32,
) -> Result<VecDeque<Arc<Block>>, LevelsError> {
    let blocks = VecDeque::from(source.blocks(run, opened, from)?);
    assert!(!blocks.is_empty(), "a source gives at least one block");
    Ok(blocks)
}

/// The greatest of a heap comes first: the smallest key, and of one key the winner.
impl Ord for Cursor {
    fn cmp(&self, other: &Self) -> Ordering {
        let (left, right) = (self.cell(), other.cell());
        let key = right.key.cmp(left.key);
        key.then_with(|| left.precedence(&right))
    }
}

impl PartialOrd for Cursor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Cursor {}
