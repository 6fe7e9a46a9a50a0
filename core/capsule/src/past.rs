//! A chain's past in a few hundred bytes: enough to verify the records behind it without those before it.
//!
//! ```text
//! segment header │ frame 0: start │ frame 1: record first │ frame 2: record first + 1 │ …
//! start = CBOR { capsule, writer, first, past?: { open record, signed head of first − 1, hashes } }
//! ```
//!
//! In: bytes from anyone: the first frame of a function's segment file, or a piece of an export. Out: fields, of which none
//! is believed: the open record is verified like any other, the signed head's signature is checked
//! ([`Verifier::skip_to`](crate::Verifier::skip_to)), and hashes that are not the chain's make its next record refused.

use bield_envelope::{Digest, wire};
use minicbor::{Decode, Encode};

use crate::{CapsuleName, SkipLevels, WriterId};

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SegmentStart {
    /// Which capsule.
    #[n(0)]
    pub capsule: CapsuleName,
    /// Whose chain.
    #[n(1)]
    pub writer: WriterId,
    /// Position of the first record.
    #[n(2)]
    pub first: u64,
    /// How to begin in the middle of the chain; none in a chain's first segment.
    #[n(3)]
    pub past: Option<Past>,
}

/// A chain's past, as far as its next record needs it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Past {
    /// The chain's open record.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub open: Vec<u8>,
    /// Header and signature of the record before the first.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub tip: Vec<u8>,
    /// Header hashes at [`positions`].
    #[cbor(n(2), decode_with = "wire::at_most::<HASHES_MAX, _, _>")]
    hashes: Vec<Digest>,
}

impl Past {
    /// Takes the hashes out of the levels of a chain; `None` for an empty one.
    #[must_use]
    pub fn new(open: Vec<u8>, tip: Vec<u8>, levels: &SkipLevels) -> Option<Self> {
        let hashes = positions(levels.next())
            .into_iter()
            .map(|seq| levels.hash_at(seq))
            .collect::<Option<_>>()?;
        Some(Self { open, tip, hashes })
    }

    /// The levels of a chain whose next record is `next`.
    #[must_use]
    pub fn levels(&self, next: u64) -> Option<SkipLevels> {
        let positions = positions(next);
        if positions.len() != self.hashes.len() {
            return None;
        }
        SkipLevels::restore(next, |seq| {
            let at = positions.iter().position(|position| *position == seq)?;
            self.hashes.get(at).copied()
        })
    }

    /// Its bytes, as an export has them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads what [`encode`](Self::encode) made; `None` when it did not.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        wire::decode(bytes, PAST_BYTES_MAX).ok()
    }
}

impl SegmentStart {
    /// The payload of frame 0.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads the payload of frame 0.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        wire::decode(bytes, START_BYTES_MAX).ok()
    }
}

/// The positions whose hashes [`SkipLevels::restore`] asks for: the first, then for every power of two up to
/// the newest the last of its multiples. Positions repeat in short chains.
fn positions(next: u64) -> Vec<u64> {
    let Some(newest) = next.checked_sub(1) else {
        return Vec::new();
    };
    let levels = newest.checked_ilog2().map_or(1, |log| log + 1);
    let multiples = (0..levels).map(|level| newest >> level << level);
    core::iter::once(0).chain(multiples).collect()
}

/// One for each bit of a position, and the first.
const HASHES_MAX: usize = 65;
/// Longest encoded past, in bytes: a record that names as many parents as it may has 80 KiB of header; the open record 11 KiB.
pub const PAST_BYTES_MAX: usize = 128 << 10;
const START_BYTES_MAX: usize = PAST_BYTES_MAX + 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(seq: u64) -> Digest {
        Digest::of("test", &[&seq.to_be_bytes()])
    }

    #[test]
    fn a_head_gives_back_the_levels_it_was_made_of() {
        let mut levels = SkipLevels::new();
        for seq in 0..200 {
            levels.push(seq, hash(seq));
            let past = Past::new(vec![1], vec![2], &levels).unwrap();
            let head = SegmentStart {
                capsule: CapsuleName::from_bytes([1; 32]),
                writer: WriterId::from_bytes([2; 32]),
                first: seq + 1,
                past: Some(past),
            };
            let bytes = head.encode();
            let read = SegmentStart::decode(&bytes).unwrap();
            assert_eq!(read, head);
            assert_eq!(read.past.unwrap().levels(seq + 1).as_ref(), Some(&levels));
            assert!(head.past.unwrap().levels(4 * seq + 4).is_none());
        }
    }
}
