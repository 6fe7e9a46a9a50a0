//! Something verified that ends, and is verified anew before.
//!
//! Always true: what ended is never handed out, and it ends when either the clock on the wall or the steady one
//! says so, whatever happens to the first; only silence of who is asked leaves what is at hand in use: a refusal,
//! or a proof that fails, drops it. One asks at a time, at most every [`ASK_PAUSE`] in vain.
//!
//! Left to others: whom to ask, the clocks.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bield_envelope::Time;
use bield_sdk::now;

use crate::refused::Refused;

/// How long before its end something is asked for anew.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// Shortest time between two attempts in vain.
const ASK_PAUSE: Duration = Duration::from_secs(5);

/// Younger than this, another one would be the same.
const YOUNG: Duration = Duration::from_secs(10);

/// A moment by two clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At {
    pub(crate) wall: Time,
    pub(crate) steady: Instant,
}

impl At {
    pub(crate) fn now() -> Self {
        Self {
            wall: now(),
            steady: Instant::now(),
        }
    }
}

/// Why there is nothing new.
pub(crate) enum Failure {
    /// Nobody answered, or asked to come later: what is at hand holds until it ends.
    Silence(Refused),
    /// Who is asked said no, or did not prove itself: what is at hand is dropped.
    No(Refused),
}

/// See the module.
pub(crate) struct Renewal<T> {
    held: RwLock<Option<Held<T>>>,
    /// Held while somebody asks. Since when it was in vain, and what was wrong.
    asking: Mutex<Option<(Instant, Refused)>>,
}

struct Held<T> {
    value: Arc<T>,
    since: Instant,
    until: At,
}

impl<T> Held<T> {
    fn new(value: Arc<T>, not_after: Time, at: At) -> Self {
        let left = not_after.since(at.wall);
        Self {
            value,
            since: at.steady,
            until: At {
                wall: not_after,
                steady: at.steady + left,
            },
        }
    }

    fn lasts(&self, wait: Duration, at: At) -> bool {
        at.wall.plus(wait) < self.until.wall && at.steady + wait < self.until.steady
    }
}

/// What can be used now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Now<T> {
    Good(Arc<T>),
    /// Good, and it is time to ask.
    Due(Arc<T>),
    Nothing,
}

impl<T> Renewal<T> {
    pub(crate) fn new(value: T, not_after: Time, at: At) -> Self {
        Self {
            held: RwLock::new(Some(Held::new(Arc::new(value), not_after, at))),
            asking: Mutex::new(None),
        }
    }

    pub(crate) fn get(&self, at: At) -> Now<T> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some(held) if held.lasts(RENEW_BEFORE, at) => Now::Good(held.value.clone()),
            Some(held) if held.lasts(Duration::ZERO, at) => Now::Due(held.value.clone()),
            _ => Now::Nothing,
        }
    }

    /// Whether `seen` was got a moment ago.
    pub(crate) fn is_young(&self, seen: &Arc<T>, at: At) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.as_ref().is_some_and(|held| {
            Arc::ptr_eq(&held.value, seen)
                && at.steady.saturating_duration_since(held.since) < YOUNG
        })
    }

    /// Whether asking makes sense: nobody does, and it was not in vain just now.
    pub(crate) fn may_ask(&self, at: At) -> bool {
        self.asking
            .try_lock()
            .is_ok_and(|asking| in_vain(asking.as_ref(), at).is_none())
    }

    /// Another than `seen`, from whoever `ask` asks; waits while somebody else does.
    ///
    /// # Errors
    /// What was wrong, now or a moment ago.
    pub(crate) fn renew(
        &self,
        seen: Option<&Arc<T>>,
        clock: impl Fn() -> At,
        ask: impl FnOnce() -> Result<(T, Time), Failure>,
    ) -> Result<Arc<T>, Refused> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let at = clock();
        if let Now::Good(value) | Now::Due(value) = self.get(at)
            && !seen.is_some_and(|seen| Arc::ptr_eq(seen, &value))
        {
            return Ok(value); // somebody else asked meanwhile
        }
        if let Some(refused) = in_vain(asking.as_ref(), at) {
            return Err(refused.clone());
        }
        let (refused, drops) = match ask() {
            Ok((value, not_after)) => {
                let value = Arc::new(value);
                self.hold(Some(Held::new(value.clone(), not_after, at)));
                *asking = None;
                return Ok(value);
            }
            Err(Failure::Silence(refused)) => (refused, false),
            Err(Failure::No(refused)) => (refused, true),
        };
        if drops {
            self.hold(None);
        }
        *asking = Some((clock().steady, refused.clone()));
        Err(refused)
    }

    fn hold(&self, held: Option<Held<T>>) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

fn in_vain(asking: Option<&(Instant, Refused)>, at: At) -> Option<&Refused> {
    asking
        .filter(|(since, _)| at.steady.saturating_duration_since(*since) < ASK_PAUSE)
        .map(|(_, refused)| refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn renewal() -> (Renewal<u8>, At) {
        let at = At::now();
        (Renewal::new(1, at.wall.plus(HOUR), at), at)
    }

    fn after(at: At, wait: Duration) -> At {
        At {
            wall: at.wall.plus(wait),
            steady: at.steady + wait,
        }
    }

    #[test]
    fn it_ends_when_either_clock_says_so() {
        let (renewal, at) = renewal();
        assert_eq!(renewal.get(at), Now::Good(Arc::new(1)));
        let soon = after(at, HOUR.saturating_sub(Duration::from_secs(30)));
        assert_eq!(renewal.get(soon), Now::Due(Arc::new(1)));
        let end = after(at, HOUR);
        assert_eq!(renewal.get(end), Now::Nothing);
        let wall_went_back = At {
            wall: at.wall,
            ..end
        };
        assert_eq!(renewal.get(wall_went_back), Now::Nothing);
        let wall_went_on = At {
            wall: end.wall,
            ..at
        };
        assert_eq!(renewal.get(wall_went_on), Now::Nothing);
    }

    #[test]
    fn silence_leaves_it_and_a_refusal_drops_it() {
        let (renewal, at) = renewal();
        let Now::Good(seen) = renewal.get(at) else {
            panic!("it is new")
        };
        let silent = || Err(Failure::Silence(Refused::busy("nobody there")));
        assert!(renewal.renew(Some(&seen), || at, silent).is_err());
        assert_eq!(renewal.get(at), Now::Good(Arc::new(1)));
        // Not asked again at once.
        assert!(!renewal.may_ask(at));
        let never = || panic!("asked again at once");
        assert!(renewal.renew(Some(&seen), || at, never).is_err());
        let later = after(at, ASK_PAUSE);
        assert!(renewal.may_ask(later));
        let no = || Err(Failure::No(Refused::bad("not this code")));
        assert!(renewal.renew(Some(&seen), || later, no).is_err());
        assert_eq!(renewal.get(later), Now::Nothing);
        let again = after(later, ASK_PAUSE);
        let yes = || Ok((2, again.wall.plus(HOUR)));
        assert_eq!(renewal.renew(None, || again, yes), Ok(Arc::new(2)));
        assert_eq!(renewal.get(again), Now::Good(Arc::new(2)));
    }
}
