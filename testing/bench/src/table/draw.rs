//! Seeded keys: evenly drawn, by Zipf's law, or the newest.
//!
//! In: a seed and how many keys there are. Out: key numbers, the same for every store. Always true: a draw costs
//! some nanoseconds, so that what is measured is the store.
//!
//! Zipf's law with 0.99 as YCSB has it (Gray et al., "Quickly generating billion-record synthetic databases", 1994),
//! its ranks scattered over the keys by a hash.

/// A stream of numbers (SplitMix64).
#[derive(Clone)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `end`.
    pub(super) const fn below(&mut self, end: u64) -> u64 {
        ((self.next() as u128 * end as u128) >> 64) as u64
    }

    /// From 0 to 1, exclusive.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Ranks by Zipf's law.
#[derive(Clone)]
pub(super) struct Zipf {
    keys: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    /// Shares of the first two ranks, as in `zeta`.
    first_two: f64,
}

impl Zipf {
    /// Over so many keys.
    pub(super) fn new(keys: u64) -> Self {
        let zeta: f64 = (1..=keys).map(|rank| (rank as f64).powf(-THETA)).sum();
        let two = 1.0 + 0.5_f64.powf(THETA);
        let eta = (1.0 - (2.0 / keys as f64).powf(1.0 - THETA)) / (1.0 - two / zeta);
        Self {
            keys,
            zeta,
            alpha: 1.0 / (1.0 - THETA),
            eta,
            first_two: two,
        }
    }

    /// A rank, 0 the most frequent.
    pub(super) fn rank(&self, draw: &mut Draw) -> u64 {
        let unit = draw.unit();
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < self.first_two {
            return 1;
        }
        let rank = self.keys as f64 * (self.eta * unit - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.keys - 1)
    }

    /// A key: ranks are scattered, so that neighbours are not alike in how often they are asked for.
    pub(super) fn key(&self, draw: &mut Draw) -> u64 {
        mix(self.rank(draw).wrapping_add(1)) % self.keys
    }
}

/// A key by its number: 16 bytes, as text.
pub(super) fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"user000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes of a key.
pub(super) const KEY_BYTES: usize = 16;
/// YCSB's.
const THETA: f64 = 0.99;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_the_law() {
        let (zipf, mut draw) = (Zipf::new(1000), Draw::new(7));
        let mut counts = vec![0_u32; 1000];
        for _ in 0..200_000 {
            counts[zipf.rank(&mut draw) as usize] += 1;
        }
        let harmonic: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-THETA)).sum();
        for rank in [1, 2, 10, 100] {
            let expected = 200_000.0 * f64::from(rank as u32).powf(-THETA) / harmonic;
            let found = f64::from(counts[rank - 1]);
            assert!(
                (found / expected - 1.0).abs() < 0.3,
                "rank {rank}: {found} of {expected}"
            );
        }
    }

    #[test]
    fn keys_are_numbers_of_twelve_digits() {
        assert_eq!(&key(42), b"user000000000042");
        assert_eq!(&key(999_999_999_999), b"user999999999999");
    }
}
