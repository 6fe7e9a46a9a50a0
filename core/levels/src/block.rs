//! Blocks: as many cells as fit some kilobytes, laid out so that one binary search finds a key.
//!
//! ```text
//! cell ‖ cell ‖ … ‖ u16 begin of each cell ‖ u16 count          big-endian; a cell ends where the next begins
//! cell = u16 key length ‖ key ‖ u8 kind ‖ u16 writer ‖ u64 clock ‖ [u64 expires] ‖ value
//! kind: 0 value, 1 value that expires, 2 deleted (no value)     writer: place in the run's table
//! ```
//!
//! In: cells in ascending order; a block's plaintext after it was opened. Out: bytes; cells by
//! position and by key, borrowed from the block. Always true: nothing here panics or reads outside,
//! whatever the bytes; a layout that cannot be is an error and never a wrong cell.
//!
//! A cell has 13 bytes beside key and value (21 when it expires) and 2 for its begin. Begins are
//! `u16`: a block takes no further cell once it is longer than its setting (16 KiB at most), so only
//! the last cell can be long; a value longer than a block has a block of its own.

use bield_capsule::{Clock, WriterId};
use bield_envelope::{Time, Wiped};

use crate::{Cell, Content, KEY_BYTES_MAX, Version};

/// What makes a block's bytes impossible.
pub(crate) type Impossible = &'static str;

/// Appends a cell; returns its length.
pub(crate) fn push(cell: &Cell<'_>, writer: u16, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    out.extend_from_slice(&(cell.key.len() as u16).to_be_bytes());
    out.extend_from_slice(cell.key);
    let (kind, expires, value) = match cell.content {
        Content::Value {
            bytes,
            expires: None,
        } => (VALUE, None, bytes),
        Content::Value { bytes, expires } => (EXPIRING, expires, bytes),
        Content::Deleted => (DELETED, None, &[][..]),
    };
    out.push(kind);
    out.extend_from_slice(&writer.to_be_bytes());
    out.extend_from_slice(&cell.version.clock.bits().to_be_bytes());
    if let Some(at) = expires {
        out.extend_from_slice(&at.as_millis().to_be_bytes());
    }
    out.extend_from_slice(value);
    out.len() - begin
}

/// Appends what ends a block whose cells begin at these places.
pub(crate) fn end(begins: &[u16], out: &mut Vec<u8>) {
    for begin in begins {
        out.extend_from_slice(&begin.to_be_bytes());
    }
    out.extend_from_slice(&(begins.len() as u16).to_be_bytes());
}

/// Bytes of a cell in a block, with its begin.
pub(crate) const fn cell_bytes(cell: &Cell<'_>) -> usize {
    let content = match cell.content {
        Content::Value {
            bytes,
            expires: None,
        } => bytes.len(),
        Content::Value { bytes, .. } => bytes.len() + 8,
        Content::Deleted => 0,
    };
    cell.key.len() + content + CELL_BYTES
}

/// An opened block; wiped on drop.
pub(crate) struct Block {
    plain: Wiped,
    /// Where the cells end and their begins begin.
    cells_end: usize,
    count: usize,
}

impl Block {
    /// Takes the plaintext of a block.
    pub(crate) fn parse(plain: Wiped) -> Result<Self, Impossible> {
        let (rest, count) = plain.split_last_chunk().ok_or("a block without its end")?;
        let count = u16::from_be_bytes(*count) as usize;
        let cells_end = rest
            .len()
            .checked_sub(count * 2)
            .ok_or("more cells than bytes")?;
        if count == 0 {
            return Err("a block without cells");
        }
        Ok(Self {
            plain,
            cells_end,
            count,
        })
    }

    /// Cells in it, at least one.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.plain.len()
    }

    /// The key at a position.
    pub(crate) fn key(&self, at: usize) -> Result<&[u8], Impossible> {
        Ok(self.split(at)?.0)
    }

    /// The cell at a position.
    pub(crate) fn cell(&self, at: usize, writers: &[WriterId]) -> Result<Cell<'_>, Impossible> {
        let (key, rest) = self.split(at)?;
        let short = "a cell that is too short";
        let (&[kind], rest) = rest.split_first_chunk().ok_or(short)?;
        let (writer, rest) = rest.split_first_chunk().ok_or(short)?;
        let (clock, rest) = rest.split_first_chunk().ok_or(short)?;
        let writer = u16::from_be_bytes(*writer) as usize;
        let version = Version {
            clock: Clock::from_bits(u64::from_be_bytes(*clock)),
            writer: *writers.get(writer).ok_or("a writer that is not listed")?,
        };
        let content = match kind {
            VALUE => Content::Value {
                bytes: rest,
                expires: None,
            },
            EXPIRING => {
                let (expires, bytes) = rest.split_first_chunk().ok_or(short)?;
                let expires = Some(Time::from_millis(u64::from_be_bytes(*expires)));
                Content::Value { bytes, expires }
            }
            DELETED if rest.is_empty() => Content::Deleted,
            _ => return Err("a cell of no known kind"),
        };
        Ok(Cell {
            key,
            version,
            content,
        })
    }

    /// Where a key is, or where it would be.
    pub(crate) fn search(&self, key: &[u8]) -> Result<Result<usize, usize>, Impossible> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle)?.cmp(key) {
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Equal => return Ok(Ok(middle)),
                core::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(Err(low))
    }

    /// A cell's key, and its bytes behind the key.
    fn split(&self, at: usize) -> Result<(&[u8], &[u8]), Impossible> {
        let begin = self.begin(at).ok_or("a cell that is not there")?;
        let end = self.begin(at + 1).unwrap_or(self.cells_end);
        let cell = self.plain[..self.cells_end]
            .get(begin..end)
            .ok_or("a cell outside of its block")?;
        let (length, rest) = cell.split_first_chunk().ok_or("a cell without a key")?;
        let length = u16::from_be_bytes(*length) as usize;
        if length == 0 || length > KEY_BYTES_MAX {
            return Err("a key of a length that no key has");
        }
        rest.split_at_checked(length)
            .ok_or("a key outside of its cell")
    }

    fn begin(&self, at: usize) -> Option<usize> {
        let begins = self.plain.get(self.cells_end..self.plain.len() - 2)?;
        let begin = begins.as_chunks::<2>().0.get(at)?;
        Some(u16::from_be_bytes(*begin) as usize)
    }
}

const VALUE: u8 = 0;
const EXPIRING: u8 = 1;
const DELETED: u8 = 2;
/// Bytes of a cell beside key and value, and of its begin.
const CELL_BYTES: usize = 2 + 1 + 2 + 8 + 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Vec<Cell<'static>> {
        let version = |clock| Version {
            clock: Clock::from_bits(clock),
            writer: WriterId::from_bytes([clock as u8 % 2; 32]),
        };
        let contents = [
            Content::Value {
                bytes: b"",
                expires: None,
            },
            Content::Deleted,
            Content::Value {
                bytes: b"value",
                expires: Some(Time::from_millis(7)),
            },
        ];
        let keys: [&[u8]; 3] = [b"a", b"ab", b"b"];
        let all = keys.into_iter().zip(contents).zip(1..);
        all.map(|((key, content), clock)| Cell {
            key,
            version: version(clock),
            content,
        })
        .collect()
    }

    fn bytes() -> Vec<u8> {
        let (mut out, mut begins) = (Vec::new(), Vec::new());
        for cell in cells() {
            begins.push(out.len() as u16);
            let writer = (cell.version.clock.bits() % 2) as u16;
            assert_eq!(push(&cell, writer, &mut out) + 2, cell_bytes(&cell));
        }
        end(&begins, &mut out);
        out
    }

    fn writers() -> [WriterId; 2] {
        [0, 1].map(|byte| WriterId::from_bytes([byte; 32]))
    }

    #[test]
    fn a_block_holds_what_was_put_in_it() {
        let block = Block::parse(Wiped::from(bytes())).unwrap();
        assert_eq!(block.len(), 3);
        for (at, cell) in cells().iter().enumerate() {
            assert_eq!(block.cell(at, &writers()), Ok(*cell));
            assert_eq!(block.search(cell.key), Ok(Ok(at)));
        }
        for (key, at) in [(&b"A"[..], 0), (b"aa", 1), (b"ac", 2), (b"c", 3)] {
            assert_eq!(block.search(key), Ok(Err(at)));
        }
        assert!(block.cell(3, &writers()).is_err());
        assert!(block.cell(0, &[]).is_err());
    }

    #[test]
    fn no_bytes_make_a_block_panic_or_read_outside() {
        let good = bytes();
        for at in 0..good.len() {
            for byte in 0..=255 {
                let mut bad = good.clone();
                bad[at] = byte;
                walk(bad);
            }
            walk(good[..at].to_vec());
        }
    }

    fn walk(bytes: Vec<u8>) {
        let Ok(block) = Block::parse(Wiped::from(bytes)) else {
            return;
        };
        for at in 0..block.len() {
            if let Ok(cell) = block.cell(at, &writers()) {
                assert!(!cell.key.is_empty() && cell.key.len() <= KEY_BYTES_MAX);
            }
        }
        let _ = block.search(b"ab");
    }
}
