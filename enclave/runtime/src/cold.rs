//! Who may wait for keys, and the ration of first fetches: what strangers can make this runtime ask.
//!
//! ```text
//! no keys of the package here ─▶ a place? ─▶ refused moments ago? ─▶ a token? ─▶ fetch ─ refused ─▶ noted
//!                       come back ◀─┴───────────────┴──────────────────┘
//! ```
//!
//! A header is public and unproven, so anybody can name any package, and each fetch costs both ends a quote.
//! Always true: at most `places` threads wait for keys, so some are left for calls whose keys are here however long
//! the key service takes; one place is never a stranger's; at most [`TOKENS`] first fetches at once and one per
//! [`TOKEN_EVERY`] on average; none for a package that was refused within [`REFUSED_FOR`]; at most [`REFUSED_MAX`]
//! refusals are noted. All who are turned away here are told when to come back: a grant made after a refusal works a
//! second later. Not here: the ration of renewals of one package (`leases`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bield_envelope::Digest;

use crate::clock::Clock;
use crate::flights::lock;
use crate::leases::KeysError;
use crate::tokens::Tokens;

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
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    inside: usize,
    tokens: Tokens,
    /// When each package was refused, by the running clock.
    refused: HashMap<Digest, Duration>,
}

impl Cold {
    /// Lets `places` threads wait for keys at once, all but one of them for first fetches.
    pub(crate) fn new(places: usize, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State {
            inside: 0,
            tokens: Tokens::new(TOKEN_EVERY, TOKENS, clock.running()),
            refused: HashMap::new(),
        });
        Self {
            places,
            clock,
            state,
        }
    }

    /// Takes a place to wait for keys, be it by another thread's fetch; `known` when there were keys before.
    ///
    /// # Errors
    /// [`KeysError::Busy`] when none is left.
    pub(crate) fn enter(&self, known: bool) -> Result<Place<'_>, KeysError> {
        let mut state = lock(&self.state);
        let places = if known { self.places } else { self.places - 1 };
        if state.inside >= places {
            return Err(KeysError::Busy);
        }
        state.inside += 1;
        Ok(Place(self))
    }

    /// Spends a token on a first fetch for `package`.
    ///
    /// # Errors
    /// [`KeysError::NotGrantedYet`] for what was refused moments ago, [`KeysError::Busy`] without a token.
    pub(crate) fn spend(&self, package: Digest) -> Result<(), KeysError> {
        let mut state = lock(&self.state);
        let now = self.clock.running();
        let refused = state.refused.get(&package);
        if refused.is_some_and(|at| is_recent(*at, now)) {
            return Err(KeysError::NotGrantedYet);
        }
        state.tokens.take(now).then_some(()).ok_or(KeysError::Busy)
    }

    /// Notes that the key service refused `package` just now.
    pub(crate) fn note(&self, package: Digest) {
        let refused = &mut lock(&self.state).refused;
        let now = self.clock.running();
        refused.retain(|_, at| is_recent(*at, now));
        if refused.len() < REFUSED_MAX {
            refused.insert(package, now);
        }
    }
}

/// Whether what was refused at `at` still stands. The clock is read under the lock and does not go back; if it did, the
/// refusal would be as recent as can be, and not a panic.
fn is_recent(at: Duration, now: Duration) -> bool {
    now.saturating_sub(at) < REFUSED_FOR
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
    use crate::testing::PlayedClock;

    fn package(number: u32) -> Digest {
        Digest::of("test", &[&number.to_be_bytes()])
    }

    fn cold(places: usize) -> (Arc<PlayedClock>, Cold) {
        let clock = Arc::new(PlayedClock::new());
        (Arc::clone(&clock), Cold::new(places, clock))
    }

    #[test]
    fn places_are_bounded_and_come_back_and_strangers_leave_one() {
        let (_, cold) = cold(3);
        let held = [cold.enter(false).unwrap(), cold.enter(false).unwrap()];
        assert_eq!(cold.enter(false).err(), Some(KeysError::Busy));
        let known = cold.enter(true).unwrap();
        assert_eq!(cold.enter(true).err(), Some(KeysError::Busy));
        drop((held, known));
        assert!(cold.enter(false).is_ok());
    }

    #[test]
    fn tokens_run_out_and_are_earned_again() {
        let (clock, cold) = cold(2);
        let spend = || {
            (0..100)
                .filter(|number| cold.spend(package(*number)).is_ok())
                .count()
        };
        assert_eq!(spend(), TOKENS as usize);
        clock.pass(TOKEN_EVERY);
        assert_eq!(spend(), 1);
    }

    #[test]
    fn a_refusal_stands_for_a_moment_and_for_its_package_only() {
        let (clock, cold) = cold(2);
        cold.note(package(1));
        assert_eq!(cold.spend(package(1)), Err(KeysError::NotGrantedYet));
        assert_eq!(cold.spend(package(2)), Ok(()));
        clock.pass(REFUSED_FOR);
        assert_eq!(cold.spend(package(1)), Ok(()));
    }

    /// A clock as a thread sees it that looked before another one noted a refusal.
    struct Stale(Mutex<Duration>);

    impl Clock for Stale {
        fn running(&self) -> Duration {
            *lock(&self.0)
        }

        fn host(&self) -> bield_envelope::Time {
            bield_envelope::Time::from_secs(0)
        }
    }

    #[test]
    fn a_refusal_noted_a_moment_after_now_is_recent_and_no_panic() {
        let clock = Arc::new(Stale(Mutex::new(TOKEN_EVERY)));
        let cold = Cold::new(2, Arc::<Stale>::clone(&clock));
        cold.note(package(1));
        *lock(&clock.0) -= Duration::from_millis(1);
        assert_eq!(cold.spend(package(1)), Err(KeysError::NotGrantedYet));
        cold.note(package(2));
        assert_eq!(cold.spend(package(1)), Err(KeysError::NotGrantedYet));
        assert_eq!(cold.spend(package(2)), Err(KeysError::NotGrantedYet));
    }

    #[test]
    fn noted_refusals_are_bounded_and_forgotten() {
        let (clock, cold) = cold(2);
        let noted = || lock(&cold.state).refused.len();
        for number in 0..REFUSED_MAX as u32 + 10 {
            cold.note(package(number));
            assert!(noted() <= REFUSED_MAX);
        }
        clock.pass(REFUSED_FOR);
        cold.note(package(0));
        assert_eq!(noted(), 1);
    }
}
