//! The system's clock and randomness: the two things `core` takes as arguments.

use std::convert::Infallible;
use std::time::SystemTime;

use bield_envelope::Time;
use rand_core::{TryCryptoRng, TryRng};

/// The time of this machine's clock; the epoch when the clock stands before it, which makes every
/// certificate look not yet valid, so everything is refused.
#[must_use]
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    Time::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// The operating system's randomness; keeps no state, so a restored machine repeats nothing.
///
/// # Panics
/// Drawing panics when the system has no randomness: there is no safe way on.
#[derive(Debug, Clone, Copy, Default)]
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
        getrandom::fill(bytes).expect("the operating system provides randomness");
        Ok(())
    }
}

impl TryCryptoRng for Randomness {}
