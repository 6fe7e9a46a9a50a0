//! The operating system's randomness.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};

/// Draws every byte from `getrandom(2)`; keeps no state, so a forked or restored process repeats
/// nothing.
///
/// # Panics
/// Drawing panics when the kernel has no randomness: there is no safe way on.
#[derive(Clone, Copy, Default)]
pub struct Randomness;

impl TryRng for Randomness {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        getrandom::fill(bytes).expect("the kernel provides randomness");
        Ok(())
    }
}

impl TryCryptoRng for Randomness {}

#[cfg(test)]
mod tests {
    use rand_core::Rng as _;

    use super::Randomness;

    #[test]
    fn two_draws_differ() {
        let (mut first, mut second) = ([0; 32], [0; 32]);
        Randomness.fill_bytes(&mut first);
        Randomness.fill_bytes(&mut second);
        assert_ne!(first, second);
    }
}
