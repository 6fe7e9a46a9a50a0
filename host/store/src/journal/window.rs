//! A file read from front to back through a window that stays in the processor's cache.
//!
//! In: places in ascending order. Out: their bytes, fewer only at the end of the file.
//!
//! Why: a system copies a file into memory that is in the cache six times as fast as into memory that
//! is not (measured, 1 MiB against 64 MiB: 10 GB/s, 1.5 GB/s), and a checksum then finds it there.

use std::io;

use crate::disk::{DiskFile, read_exact};

/// Read at once: a fraction of a second-level cache or two, and enough for a device.
const WINDOW_BYTES: usize = 512 << 10;

/// A part of a file in memory.
pub(super) struct Window<'f, F> {
    file: &'f F,
    size: usize,
    /// Where `bytes` begin in the file.
    start: usize,
    /// How many of `bytes` are the file's.
    filled: usize,
    bytes: &'f mut Vec<u8>,
}

impl<'f, F: DiskFile> Window<'f, F> {
    /// Begins at the front of a file of `size` bytes, in the memory of `bytes`.
    pub(super) fn over(file: &'f F, size: usize, bytes: &'f mut Vec<u8>) -> Self {
        Self {
            file,
            size,
            start: 0,
            filled: 0,
            bytes,
        }
    }

    /// The `len` bytes from `at` on, or as many as the file has. What is before `at` is given up.
    pub(super) fn at(&mut self, at: usize, len: usize) -> io::Result<&[u8]> {
        let len = len.min(self.size.saturating_sub(at));
        if at < self.start || at + len > self.start + self.filled {
            self.slide(at, len)?;
        }
        let from = at.saturating_sub(self.start);
        Ok(self.bytes.get(from..from + len).unwrap_or_default())
    }

    /// Are all bytes from `at` on zeros? So it is where there are none.
    pub(super) fn are_zeros(&mut self, mut at: usize) -> io::Result<bool> {
        while at < self.size {
            let some = self.at(at, WINDOW_BYTES)?;
            // No early end inside a block, so that the compiler uses vectors.
            let zero = |block: &[u8]| block.iter().fold(0, |all, byte| all | byte) == 0;
            if !some.chunks(4096).all(zero) {
                return Ok(false);
            }
            at += some.len();
        }
        Ok(true)
    }

    fn slide(&mut self, at: usize, len: usize) -> io::Result<()> {
        let end = self.start + self.filled;
        let kept = if (self.start..end).contains(&at) {
            self.bytes.copy_within(at - self.start..self.filled, 0);
            end - at
        } else {
            0
        };
        let fill = (self.size - at).min(len.max(WINDOW_BYTES));
        if self.bytes.len() < fill {
            self.bytes.resize(fill, 0);
        }
        (self.start, self.filled) = (at, 0);
        read_exact(self.file, &mut self.bytes[kept..fill], (at + kept) as u64)?;
        self.filled = fill;
        Ok(())
    }
}
