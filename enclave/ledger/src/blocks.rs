//! A long secret in blocks of one size, each wiped when it is given up.
//!
//! Always true: bytes that were pushed never move, so that growing leaves no copy of them behind, and the
//! length need not be known before; every block but the last is full.

use std::collections::VecDeque;

use zeroize::Zeroizing;

/// Bytes of a block: of a snapshot's chunk, so that each is sealed as it stands.
pub const BLOCK_BYTES: usize = 1 << 20;

/// The program's state as bytes, on its way into a snapshot.
#[derive(Default)]
pub struct Blocks(VecDeque<Zeroizing<Vec<u8>>>);

impl Blocks {
    /// No bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let block = match self.0.back_mut() {
                Some(block) if block.len() < BLOCK_BYTES => block,
                _ => self
                    .0
                    .push_back_mut(Zeroizing::new(Vec::with_capacity(BLOCK_BYTES))),
            };
            let (here, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - block.len()));
            block.extend_from_slice(here);
            bytes = rest;
        }
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.iter().map(|block| block.len() as u64).sum()
    }

    /// The blocks, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|block| block.as_slice())
    }

    pub(crate) fn into_inner(self) -> VecDeque<Zeroizing<Vec<u8>>> {
        self.0
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Blocks {
    fn from(bytes: &T) -> Self {
        let mut blocks = Self::new();
        blocks.push(bytes.as_ref());
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_where_they_were_put_and_in_order() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES).map(|at| (at % 251) as u8).collect();
        for length in [
            0,
            1,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            bytes.len(),
        ] {
            let mut blocks = Blocks::new();
            let mut first = None;
            for piece in bytes[..length].chunks(70_001) {
                blocks.push(piece);
                let start = blocks.iter().next().map(<[u8]>::as_ptr);
                assert_eq!(*first.get_or_insert(start), start);
            }
            assert_eq!(blocks.bytes(), length as u64);
            assert_eq!(blocks.iter().collect::<Vec<_>>().concat(), bytes[..length]);
            let full = blocks.iter().filter(|block| block.len() == BLOCK_BYTES);
            assert_eq!(full.count(), length / BLOCK_BYTES);
        }
    }
}
