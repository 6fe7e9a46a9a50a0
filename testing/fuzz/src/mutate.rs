//! Changes honest bytes, deterministically: the same target and round give the same input.
//!
//! One to four changes out of: bit flips, interesting bytes, truncation, growth, removal,
//! repetition, exchange of two ranges, splices with other objects, inflated lengths; sometimes a
//! whole foreign object, or noise. What grammar-aware fuzzers know of CBOR is in the inflation: it
//! rewrites the argument of a head (RFC 8949 §3) to a huge or a longer-than-needed one.

use bield_envelope::Seeded;
use rand_core::Rng;

use crate::Target;

/// The input of one round of a target.
///
/// `foreign` are objects of other targets.
#[must_use]
pub fn input(target: &Target, seeds: &[Vec<u8>], foreign: &[Vec<u8>], round: u32) -> Vec<u8> {
    let name: u64 = target
        .name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let mut draw = Draw(Seeded::new(name ^ u64::from(round) << 1));
    match draw.below(24) {
        0 => return draw.noise(512),
        1 => return draw.one_of(foreign).to_vec(),
        _ => {}
    }
    let mut bytes = draw.one_of(seeds).to_vec();
    for _ in 0..=draw.below(4) {
        change(&mut bytes, seeds, foreign, &mut draw);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], foreign: &[Vec<u8>], draw: &mut Draw) {
    if bytes.is_empty() {
        *bytes = draw.noise(64);
        return;
    }
    let (from, to) = draw.range(bytes.len());
    match draw.below(13) {
        0 | 1 => bytes[from] ^= 1 << draw.below(8),
        2 => bytes[from] = INTERESTING[draw.below(INTERESTING.len())],
        3 => bytes.truncate(from),
        4 => {
            let noise = draw.noise(32);
            bytes.extend(noise);
        }
        5 => drop(bytes.drain(from..to)),
        6 => {
            let again = bytes[from..to].to_vec();
            bytes.splice(to..to, again);
        }
        7 => bytes[from..to].reverse(),
        8 => {
            let moved: Vec<u8> = bytes.drain(from..to).collect();
            let at = draw.below(bytes.len() + 1);
            bytes.splice(at..at, moved);
        }
        // The same stretch of another object of this kind: mixed versions, swapped chunks.
        9 => {
            let other = draw.one_of(seeds);
            let to = to.min(other.len());
            if from < to {
                bytes[from..to].copy_from_slice(&other[from..to]);
            }
        }
        10 => {
            let other = if draw.below(2) == 0 { seeds } else { foreign };
            let other = draw.one_of(other).to_vec();
            let (start, end) = draw.range(other.len().max(1));
            let piece = other.get(start..end).unwrap_or_default().to_vec();
            bytes.splice(from..to, piece);
        }
        11 => inflate(bytes, from, draw),
        _ => {
            let width = [2, 4, 8][draw.below(3)];
            let value = LENGTHS[draw.below(LENGTHS.len())].to_be_bytes();
            for (byte, new) in bytes[from..].iter_mut().zip(&value[8 - width..]) {
                *byte = *new;
            }
        }
    }
}

/// Rewrites the CBOR head at `at`: same major type, larger or longer argument.
fn inflate(bytes: &mut Vec<u8>, at: usize, draw: &mut Draw) {
    let (major, small) = (bytes[at] & 0xe0, bytes[at] & 0x1f);
    let value = if draw.below(2) == 0 {
        u64::from(small)
    } else {
        LENGTHS[draw.below(LENGTHS.len())]
    };
    let (more, width) = [(24, 1), (25, 2), (26, 4), (27, 8), (31, 0)][draw.below(5)];
    let mut head = vec![major | more];
    head.extend(&value.to_be_bytes()[8 - width..]);
    bytes.splice(at..=at, head);
}

struct Draw(Seeded);

impl Draw {
    /// A number below `limit`, which is not 0. The bias of the remainder does not matter here.
    fn below(&mut self, limit: usize) -> usize {
        (self.0.next_u64() % limit as u64) as usize
    }

    /// A non-empty range below `length`, which is not 0; mostly short.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = self.below(length);
        let longest = if self.below(4) == 0 { length } else { 40 };
        (from, length.min(from + 1 + self.below(longest)))
    }

    fn noise(&mut self, longest: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(longest + 1)];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    fn one_of<'a>(&mut self, objects: &'a [Vec<u8>]) -> &'a [u8] {
        match objects.len() {
            0 => &[],
            count => &objects[self.below(count)],
        }
    }
}

/// Bytes that stand at edges of encodings.
const INTERESTING: [u8; 12] = [
    0x00, 0x01, 0x1f, 0x40, 0x5f, 0x7f, 0x80, 0x9f, 0xbf, 0xf6, 0xfb, 0xff,
];

/// Lengths that overflow, or that would be a great deal of memory.
const LENGTHS: [u64; 8] = [
    0,
    1,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// The most bytes of one input: objects here have at most 25 KiB.
const INPUT_BYTES_MAX: usize = 64 << 10;
