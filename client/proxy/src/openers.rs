//! What waits for answers that somebody else carries: bounded in number and in age.
//!
//! Always true: at most [`OPENERS_MAX`] wait, and none is handed out after [`OPENER_AGE_MAX`]; each is handed out
//! once, to whoever shows the 32 random bytes it was kept under, which no carrier can compute; those that go, however
//! they go, are wiped by their own drop. Old ones go when the next comes or goes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bield_envelope::Digest;
use rand_core::CryptoRng;

use crate::refused::Refused;

/// Most calls that wait for an answer. Each keeps a secret of 32 bytes and a name.
pub(crate) const OPENERS_MAX: usize = 4096;

/// Longest that a call waits for its answer: a runtime takes a sealed request for a few minutes.
pub(crate) const OPENER_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Openers by random names.
pub(crate) struct Openers<T> {
    waiting: Mutex<HashMap<Digest, (Instant, T)>>,
}

impl<T> Openers<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::new(HashMap::new()),
        }
    }

    /// Keeps `opener` from `now` on; returns the name to take it out by.
    ///
    /// # Errors
    /// As many wait as may.
    pub(crate) fn keep(
        &self,
        opener: T,
        now: Instant,
        entropy: &mut impl CryptoRng,
    ) -> Result<Digest, Refused> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (since, _)| now.duration_since(*since) < OPENER_AGE_MAX);
        if waiting.len() >= OPENERS_MAX {
            return Err(Refused::busy(format_args!(
                "{OPENERS_MAX} sealed calls wait for their answers; post answers to /v1/open/<id>, or \
                 retry when older ones have expired"
            )));
        }
        let mut name = [0; 32];
        entropy.fill_bytes(&mut name);
        let name = Digest::from_bytes(name);
        waiting.insert(name, (now, opener));
        Ok(name)
    }

    /// Takes the opener of `id` out, and forgets all that are too old.
    ///
    /// # Errors
    /// None waits under that name.
    pub(crate) fn take(&self, id: Digest, now: Instant) -> Result<T, Refused> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, (since, _)| now.duration_since(*since) < OPENER_AGE_MAX);
        let found = waiting.remove(&id).map(|(_, opener)| opener);
        found.ok_or_else(|| {
            Refused::unknown(format_args!(
                "no sealed call of that id waits here: answers are opened once, within {} minutes, by the \
                 proxy that sealed; seal the call again",
                OPENER_AGE_MAX.as_secs() / 60
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use bield_sdk::Randomness;

    #[test]
    fn an_opener_is_handed_out_once_and_only_while_it_is_young() {
        let (openers, start) = (Openers::new(), Instant::now());
        let one = openers.keep("same", start, &mut Randomness).unwrap();
        let two = openers.keep("same", start, &mut Randomness).unwrap();
        assert_ne!(one, two, "a name follows from what it names");
        assert_eq!(openers.take(one, start), Ok("same"));
        assert_eq!(openers.take(one, start).unwrap_err().status, 404);
        let late = start + OPENER_AGE_MAX;
        assert_eq!(openers.take(two, late).unwrap_err().status, 404);
    }

    #[test]
    fn as_many_wait_as_may_and_old_ones_make_room() {
        let (openers, start) = (Openers::new(), Instant::now());
        for number in 0..OPENERS_MAX {
            openers.keep(number, start, &mut Randomness).unwrap();
        }
        let refused = openers.keep(OPENERS_MAX, start, &mut Randomness);
        assert_eq!(refused.unwrap_err().status, 503);
        let late = start + OPENER_AGE_MAX;
        let last = openers.keep(OPENERS_MAX, late, &mut Randomness).unwrap();
        assert_eq!(openers.take(last, late), Ok(OPENERS_MAX));
    }
}
