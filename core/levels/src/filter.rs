//! Filters: whether a run may have a key, in 9 bits a key and one look of 8 ns.
//!
//! In: keyed hashes of keys ([`crate::key`]). Out: a section's plaintext; no, or perhaps (wrong for
//! 0.4 % of keys that are not there). Always true: a key that is there is never denied; bytes that
//! are no filter are refused, so a look reads nowhere else.
//!
//! Construction fails for a given set of hashes with a probability that is nothing to plan for, and
//! whoever chooses keys cannot look for such a set. A run then simply has no filter: empty plaintext,
//! and every look says perhaps.

use bield_envelope::Wiped;
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter as _, FilterRef};

use crate::block::Impossible;

/// A filter's plaintext for these hashes.
pub(crate) fn encode(mut hashes: Vec<u64>, room: usize) -> Vec<u8> {
    hashes.sort_unstable();
    hashes.dedup();
    let Ok(filter) = BinaryFuse8::try_from(&hashes) else {
        return Vec::with_capacity(room);
    };
    let fingerprints = filter.dma_fingerprints();
    let mut out = Vec::with_capacity(DESCRIPTOR_BYTES + fingerprints.len() + room);
    out.resize(DESCRIPTOR_BYTES, 0);
    filter.dma_copy_descriptor_to(&mut out);
    out.extend_from_slice(fingerprints);
    out
}

/// Which keys a run may have.
pub(crate) struct Filter(Wiped);

impl Filter {
    /// Takes a filter's plaintext.
    pub(crate) fn parse(plain: Wiped) -> Result<Self, Impossible> {
        if let Some((descriptor, fingerprints)) = plain.split_first_chunk() {
            check(descriptor, fingerprints.len())?;
        } else if !plain.is_empty() {
            return Err("a filter that is too short");
        }
        Ok(Self(plain))
    }

    /// Whether a key with this hash may be there.
    pub(crate) fn may_have(&self, hash: u64) -> bool {
        match self.0.split_at_checked(DESCRIPTOR_BYTES) {
            Some((descriptor, fingerprints)) => {
                BinaryFuse8Ref::from_dma(descriptor, fingerprints).contains(&hash)
            }
            None => true,
        }
    }

    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// `seed u64 ‖ segment length u32 ‖ mask u32 ‖ segments · length u32`, little-endian.
///
/// A look reads three fingerprints: one of the first `segments · length`, and one of each of the two
/// segments after it. So there are two segments more than that, or a look would read outside.
fn check(descriptor: &[u8; DESCRIPTOR_BYTES], fingerprints: usize) -> Result<(), Impossible> {
    let word = |at: usize| {
        let bytes = [0, 1, 2, 3].map(|byte| descriptor[at + byte]);
        u32::from_le_bytes(bytes)
    };
    let (length, mask, count) = (word(8), word(12), word(16));
    let whole = u64::from(count) + 2 * u64::from(length);
    let sound = length.is_power_of_two()
        && mask == length - 1
        && count > 0
        && count.is_multiple_of(length)
        && whole <= u64::from(u32::MAX)
        && whole == fingerprints as u64;
    sound.then_some(()).ok_or("a filter with wrong segments")
}

const DESCRIPTOR_BYTES: usize = 20;
const _: () = assert!(DESCRIPTOR_BYTES == <BinaryFuse8 as DmaSerializable>::DESCRIPTOR_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(n: u64) -> Vec<u64> {
        (0..n)
            .map(|i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect()
    }

    #[test]
    fn no_key_that_is_there_is_denied_and_few_others_pass() {
        for n in [1, 2, 3, 10, 1000, 20_000] {
            let hashes = hashes(n);
            let filter = Filter::parse(Wiped::from(encode(hashes.clone(), 0))).unwrap();
            assert!(hashes.iter().all(|hash| filter.may_have(*hash)));
        }
        let filter = Filter::parse(Wiped::from(encode(hashes(20_000), 0))).unwrap();
        let passed = (1..50_000u64)
            .filter(|i| filter.may_have(i.rotate_left(40)))
            .count();
        assert!(passed < 500, "{passed} of 50,000; 0.4 % are 200");
        assert!(filter.bytes() < 20_000 * 10 / 8);
    }

    #[test]
    fn a_hash_that_occurs_twice_is_one_key() {
        let mut twice = hashes(50);
        twice.extend(hashes(50));
        assert_eq!(encode(twice, 0), encode(hashes(50), 0));
    }

    #[test]
    fn no_bytes_make_a_look_read_outside() {
        let good = encode(hashes(40), 0);
        for at in 0..DESCRIPTOR_BYTES {
            for byte in 0..=255 {
                let mut bad = good.clone();
                bad[at] = byte;
                if let Ok(filter) = Filter::parse(Wiped::from(bad)) {
                    hashes(100).iter().for_each(|hash| {
                        filter.may_have(*hash);
                    });
                }
            }
        }
        for cut in 1..good.len() {
            assert!(Filter::parse(Wiped::from(good[..cut].to_vec())).is_err());
        }
        assert!(Filter::parse(Wiped::from(Vec::new())).unwrap().may_have(1));
    }
}
