//! The index of a run: where its blocks lie and what their keys begin with.
//!
//! ```text
//! for each block: u32 sealed length ‖ u16 length ‖ separator
//! ```
//!
//! A separator is the shortest key that is above every key of the block before and not above any of
//! its own; the first is empty. So a run of long keys has an index of short ones.
//!
//! In: last and first keys of neighbouring blocks; the section's plaintext. Out: that plaintext; the
//! one block that may have a key. Always true: separators ascend and blocks lie without a gap from
//! the run's begin to its index, or the index is refused.

use bield_envelope::Wiped;

use crate::KEY_BYTES_MAX;
use crate::block::Impossible;
use crate::key::TAG_BYTES;

/// The separator of a block that begins with `first` behind one that ends with `last`.
pub(crate) fn separator<'a>(last: &[u8], first: &'a [u8]) -> &'a [u8] {
    let same = last.iter().zip(first).take_while(|(a, b)| a == b).count();
    &first[..first.len().min(same + 1)]
}

/// Appends a block to an index.
pub(crate) fn push(sealed_bytes: u32, separator: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&sealed_bytes.to_be_bytes());
    out.extend_from_slice(&(separator.len() as u16).to_be_bytes());
    out.extend_from_slice(separator);
}

/// Which block has which keys.
pub(crate) struct Index {
    plain: Wiped,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    /// Where the block ends in the run.
    end: u64,
    /// Where its separator lies in the plaintext.
    at: u32,
    bytes: u16,
}

impl Index {
    /// Takes the plaintext of an index over `blocks` blocks of `data_bytes` sealed bytes.
    pub(crate) fn parse(plain: Wiped, blocks: u32, data_bytes: u64) -> Result<Self, Impossible> {
        let mut entries: Vec<Entry> = Vec::new();
        let (mut rest, mut end) = (&plain[..], 0u64);
        let mut before: Option<&[u8]> = None;
        let short = "an index that ends too early";
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk().ok_or(short)?;
            let (bytes, after) = after.split_first_chunk().ok_or(short)?;
            let (length, bytes) = (u32::from_be_bytes(*length), u16::from_be_bytes(*bytes));
            let at = plain.len() - after.len();
            let (separator, after) = after.split_at_checked(bytes.into()).ok_or(short)?;
            if (length as usize) <= TAG_BYTES || separator.len() > KEY_BYTES_MAX {
                return Err("an index entry that no block has");
            }
            let ascends = before.map_or(separator.is_empty(), |before| before < separator);
            if !ascends {
                return Err("separators that do not ascend");
            }
            end += u64::from(length);
            let at = u32::try_from(at).map_err(|_| "an index that is too long")?;
            entries.push(Entry { end, at, bytes });
            (before, rest) = (Some(separator), after);
        }
        if entries.len() != blocks as usize || end != data_bytes || blocks == 0 {
            return Err("an index over other blocks");
        }
        Ok(Self { plain, entries })
    }

    /// Blocks, at least one.
    pub(crate) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The only block that may have this key.
    pub(crate) fn find(&self, key: &[u8]) -> u32 {
        let after = self.entries.partition_point(|e| self.separator(e) <= key);
        // The first separator is empty, so at least one is not above the key.
        after.saturating_sub(1) as u32
    }

    /// Where a block lies in the run: begin and sealed length.
    pub(crate) fn range(&self, block: u32) -> Option<(u64, usize)> {
        let end = self.entries.get(block as usize)?.end;
        let before = block.checked_sub(1);
        let begin = before.map_or(0, |before| self.entries[before as usize].end);
        Some((begin, (end - begin) as usize))
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.plain.len() + self.entries.len() * size_of::<Entry>()
    }

    fn separator(&self, entry: &Entry) -> &[u8] {
        let at = entry.at as usize;
        &self.plain[at..at + usize::from(entry.bytes)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_separator_is_short_and_stands_between() {
        for (last, first, expected) in [
            (&b"abc"[..], &b"abd"[..], &b"abd"[..]),
            (b"abc", b"bzzzzz", b"b"),
            (b"ab", b"abcdef", b"abc"),
            (b"", b"x", b"x"),
        ] {
            let separator = separator(last, first);
            assert_eq!(separator, expected);
            assert!(last < separator && separator <= first);
        }
    }

    fn plain() -> Vec<u8> {
        let mut out = Vec::new();
        for (bytes, separator) in [(20, &b""[..]), (30, b"c"), (40, b"ca")] {
            push(bytes, separator, &mut out);
        }
        out
    }

    #[test]
    fn a_key_is_in_the_block_whose_separator_is_the_last_not_above_it() {
        let index = Index::parse(Wiped::from(plain()), 3, 90).unwrap();
        for (key, block) in [
            (&b"a"[..], 0),
            (b"bzz", 0),
            (b"c", 1),
            (b"c\0", 1),
            (b"ca", 2),
        ] {
            assert_eq!(index.find(key), block);
        }
        assert_eq!(index.range(0), Some((0, 20)));
        assert_eq!(index.range(2), Some((50, 40)));
        assert_eq!((index.range(3), index.len()), (None, 3));
    }

    #[test]
    fn an_index_over_other_blocks_is_refused() {
        for (blocks, bytes) in [(2, 90), (4, 90), (3, 89), (0, 0)] {
            assert!(Index::parse(Wiped::from(plain()), blocks, bytes).is_err());
        }
        let good = plain();
        for at in 0..good.len() {
            assert!(Index::parse(Wiped::from(good[..at].to_vec()), 3, 90).is_err());
            for byte in 0..=255 {
                let mut bad = good.clone();
                bad[at] = byte;
                if let Ok(index) = Index::parse(Wiped::from(bad), 3, 90) {
                    assert!(index.find(b"c") < 3);
                }
            }
        }
    }
}
