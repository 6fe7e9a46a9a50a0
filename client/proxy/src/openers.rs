//! What waits for answers that somebody else carries: bounded in number and in age.
//!
//! Always true: at most [`OPENERS_MAX`] wait, none longer than [`OPENER_AGE_MAX`]; each is handed out once;
//! those that go, however they go, are wiped by their own drop.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bield_envelope::Digest;

use crate::refused::Refused;

/// Most calls that wait for an answer. Each keeps a secret of 32 bytes and a name.
pub(crate) const OPENERS_MAX: usize = 4096;

/// Longest that a call waits for its answer: a runtime takes a sealed request for a few minutes.
pub(crate) const OPENER_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Openers by the digest of the request whose answer they open.
pub(crate) struct Openers<T> {
    waiting: Mutex<HashMap<Digest, (Instant, T)>>,
}

impl<T> Openers<T> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Mutex::new(HashMap::new()),
        }
    }

    /// Keeps `opener` from `now` on.
    ///
    /// # Errors
    /// As many wait as may.
    pub(crate) fn keep(&self, id: Digest, opener: T, now: Instant) -> Result<(), Refused> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= OPENERS_MAX {
            waiting.retain(|_, (since, _)| now.duration_since(*since) < OPENER_AGE_MAX);
        }
        if waiting.len() >= OPENERS_MAX {
            return Err(Refused::busy(format_args!(
                "{OPENERS_MAX} sealed calls wait for their answers; post answers to /v1/open/<id>, or \
                 retry when older ones have expired"
            )));
        }
        waiting.insert(id, (now, opener));
        Ok(())
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
                "no sealed call {id} waits here: answers are opened once, within {} minutes, by the \
                 proxy that sealed; seal the call again",
                OPENER_AGE_MAX.as_secs() / 60
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> Digest {
        Digest::of("openers", &[&number.to_be_bytes()])
    }

    #[test]
    fn an_opener_is_handed_out_once_and_only_while_it_is_young() {
        let (openers, start) = (Openers::new(), Instant::now());
        openers.keep(id(1), "one", start).unwrap();
        openers.keep(id(2), "two", start).unwrap();
        assert_eq!(openers.take(id(1), start), Ok("one"));
        assert_eq!(openers.take(id(1), start).unwrap_err().status, 404);
        let late = start + OPENER_AGE_MAX;
        assert_eq!(openers.take(id(2), late).unwrap_err().status, 404);
    }

    #[test]
    fn as_many_wait_as_may_and_old_ones_make_room() {
        let (openers, start) = (Openers::new(), Instant::now());
        for number in 0..OPENERS_MAX {
            openers.keep(id(number), number, start).unwrap();
        }
        let refused = openers.keep(id(OPENERS_MAX), OPENERS_MAX, start);
        assert_eq!(refused.unwrap_err().status, 503);
        let late = start + OPENER_AGE_MAX;
        openers.keep(id(OPENERS_MAX), OPENERS_MAX, late).unwrap();
        assert_eq!(openers.take(id(OPENERS_MAX), late), Ok(OPENERS_MAX));
    }
}
