//! The ration of first fetches: what strangers can make this runtime ask of its key service.
//!
//! ```text
//! no keys of the package here ─▶ refused moments ago? ─▶ a place? ─▶ a token? ─▶ fetch ─ refused ─▶ noted
//!                                     └ come back ◀────────┴───────────┘
//! ```
//!
//! A header is public and unproven, so anybody can name any package, and each fetch costs both ends a quote.
//! Always true: at most `places` threads wait for first fetches, so one is left for calls whose keys are here;
//! at most [`TOKENS`] first fetches at once and one per [`TOKEN_EVERY`] on average; none for a package that was
//! refused within [`REFUSED_FOR`]; at most [`REFUSED_MAX`] refusals are noted. All who are turned away here are
//! told when to come back: a grant made after a refusal works a second later. Not here: packages that this
//! runtime has or had keys of, which need no place and no token (`leases`).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bield_envelope::Digest;

use crate::flights::lock;
use crate::leases::KeysError;

/// First fetches that may follow each other at once.
pub(crate) const TOKENS: u32 = 16;
/// One first fetch per this long, on average.
pub(crate) const TOKEN_EVERY: Duration = Duration::from_millis(125);
/// How long a refusal stands without asking again: no longer, because a new grant changes it.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Most refusals that are noted, 64 KiB; those beyond cost tokens only.
pub(crate) const REFUSED_MAX: usize = 1024;

/// The ration, shared by all threads.
pub(crate) struct Cold {
    places: usize,
    state: Mutex<State>,
}

struct State {
    inside: usize,
    /// Time not spent on fetches when it was last `counted`; one costs [`TOKEN_EVERY`].
    saved: Duration,
    counted: Instant,
    refused: HashMap<Digest, Instant>,
}

impl Cold {
    /// Lets `places` threads wait for first fetches at once.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places,
            state: Mutex::new(State {
                inside: 0,
                saved: TOKEN_EVERY * TOKENS,
                counted: Instant::now(),
                refused: HashMap::new(),
            }),
        }
    }

    /// Takes a place to wait for a first fetch, be it another thread's.
    ///
    /// # Errors
    /// [`KeysError::Busy`] when none is left.
    pub(crate) fn enter(&self) -> Result<Place<'_>, KeysError> {
        let mut state = lock(&self.state);
        if state.inside >= self.places {
            return Err(KeysError::Busy);
        }
        state.inside += 1;
        Ok(Place(self))
    }

    /// Spends a token on a fetch for `package`.
    ///
    /// # Errors
    /// [`KeysError::NotGrantedYet`] for what was refused moments ago, [`KeysError::Busy`] without a token.
    pub(crate) fn spend(&self, package: Digest) -> Result<(), KeysError> {
        let mut state = lock(&self.state);
        let refused = state.refused.get(&package);
        if refused.is_some_and(|at| at.elapsed() < REFUSED_FOR) {
            return Err(KeysError::NotGrantedYet);
        }
        let now = Instant::now();
        let earned = now.duration_since(state.counted);
        state.saved = (state.saved + earned).min(TOKEN_EVERY * TOKENS);
        state.counted = now;
        state.saved = state
            .saved
            .checked_sub(TOKEN_EVERY)
            .ok_or(KeysError::Busy)?;
        Ok(())
    }

    /// Notes that the key service refused `package` just now.
    pub(crate) fn note(&self, package: Digest) {
        let refused = &mut lock(&self.state).refused;
        refused.retain(|_, at| at.elapsed() < REFUSED_FOR);
        if refused.len() < REFUSED_MAX {
            refused.insert(package, Instant::now());
        }
    }
}

/// A place; given back when dropped.
pub(crate) struct Place<'a>(&'a Cold);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).inside -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(number: u32) -> Digest {
        Digest::of("test", &[&number.to_be_bytes()])
    }

    #[test]
    fn places_are_bounded_and_come_back() {
        let cold = Cold::new(2);
        let held = [cold.enter().unwrap(), cold.enter().unwrap()];
        assert_eq!(cold.enter().err(), Some(KeysError::Busy));
        drop(held);
        assert!(cold.enter().is_ok());
    }

    #[test]
    fn tokens_run_out_and_are_earned_again() {
        let cold = Cold::new(1);
        let spent = (0..10 * TOKENS).filter(|number| cold.spend(package(*number)).is_ok());
        let spent = spent.count() as u32;
        // A slow machine may earn a few while it counts.
        assert!((TOKENS..2 * TOKENS).contains(&spent), "{spent}");
        std::thread::sleep(TOKEN_EVERY);
        assert_eq!(cold.spend(package(0)), Ok(()));
    }

    #[test]
    fn a_refusal_stands_for_a_moment_and_for_its_package_only() {
        let cold = Cold::new(1);
        cold.note(package(1));
        assert_eq!(cold.spend(package(1)), Err(KeysError::NotGrantedYet));
        assert_eq!(cold.spend(package(2)), Ok(()));
        std::thread::sleep(REFUSED_FOR);
        assert_eq!(cold.spend(package(1)), Ok(()));
    }

    #[test]
    fn noted_refusals_are_bounded_and_forgotten() {
        let cold = Cold::new(1);
        let noted = || lock(&cold.state).refused.len();
        for number in 0..REFUSED_MAX as u32 + 10 {
            cold.note(package(number));
            assert!(noted() <= REFUSED_MAX);
        }
        std::thread::sleep(REFUSED_FOR);
        cold.note(package(0));
        assert_eq!(noted(), 1);
    }
}
