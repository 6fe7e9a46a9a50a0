//! Randomness that follows from a seed, the same on every machine.
//!
//! ChaCha with 8 rounds; the seed is the first 8 bytes of the key (little-endian), the rest is zero; each source of a workload
//! draws from a stream of its own, so that one more source leaves the others as they were. Logarithm and cosine are `libm`'s,
//! since those of systems differ in the last bit.

use chacha20::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// One stream of a seed.
pub struct Random(ChaCha8Rng);

impl Random {
    /// Stream `stream` of `seed`.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut random = ChaCha8Rng::from_seed(key);
        random.set_stream(stream);
        Self(random)
    }

    /// From 0 to 1, without 1: the upper 53 bits.
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are what a double holds"
    )]
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 to `n`, without `n`; 0 when `n` is. The bias is below `n` / 2⁶⁴.
    #[expect(clippy::cast_possible_truncation, reason = "it is below n")]
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.0.next_u64()) * n as u128) >> 64) as usize
    }

    /// Exponentially distributed with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }

    /// Poisson-distributed with this mean, by counting exponential gaps: time grows with the mean.
    pub fn poisson(&mut self, mean: f64) -> u32 {
        let (mut count, mut at) = (0, self.exponential(1.0));
        while at < mean {
            count += 1;
            at += self.exponential(1.0);
        }
        count
    }
}
