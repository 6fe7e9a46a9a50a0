//! At most once: a bounded memory of the requests already admitted.
//!
//! ```text
//!   created ──────────────┬───────────────────────────────▶ time
//!        refused (stale)  │  remembered, each id once
//!                      horizon = the latest `now` seen − REQUEST_AGE_MAX; it only moves forward
//! ```
//!
//! Always true: a request is forgotten only when its creation lies before the horizon, and
//! everything before the horizon is refused, so nothing is ever admitted twice by one guard, even
//! when the host sets the clock back. A full guard refuses; it never forgets early. No sender's requests take
//! more room than they leave: one alone fills half of the guard, two together three quarters: a newcomer finds room
//! unless about as many senders flood as the guard's size has binary digits.
//!
//! Left to others: one guard protects one runtime process. A request replayed to a second
//! runtime, or to the same one after a restart, runs again; its answer is sealed to the same
//! caller, and both receipts name the same request (`spec/04 §8`, `SECURITY.md`); what a function changed, its
//! state knows by the request's id.
//!
//! Cost: three tree searches per request; about 100 bytes per remembered request and as much per sender.

use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{Principal, Time};

use crate::Refused;
use crate::request::REQUEST_AGE_MAX;

/// Most requests one guard remembers: twice 873 admitted requests per second kept up for the whole
/// window of 5 minutes, half of them one sender's; about 60 MB, or 110 MB when each has another sender. A runtime with
/// less memory chooses less.
pub const REPLAY_ENTRIES_MAX: usize = 524_288;

/// Remembers admitted requests until their creation is too old to be admitted anyway.
pub struct ReplayGuard {
    maximum: usize,
    horizon: Time,
    seen: BTreeMap<Caller, Time>,
    by_age: BTreeSet<(Time, Caller)>,
    senders: Senders,
}

/// Two callers may choose the same id; only a caller's own ids are used up.
type Caller = (Number, [u8; 16]);

/// A sender's place in [`Senders`], because its principal is long and in two trees.
type Number = u32;

impl ReplayGuard {
    /// Makes a guard for at most `maximum` requests per window, bounded by
    /// [`REPLAY_ENTRIES_MAX`].
    pub fn new(maximum: usize) -> Self {
        Self {
            maximum: maximum.min(REPLAY_ENTRIES_MAX),
            horizon: Time::from_millis(0),
            seen: BTreeMap::new(),
            by_age: BTreeSet::new(),
            senders: Senders::default(),
        }
    }

    /// Counts the requests remembered now.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Tells whether no request is remembered.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Takes note of a request, once.
    ///
    /// Called last of all checks, so that refused requests cannot fill the guard.
    pub(crate) fn note(
        &mut self,
        sender: Principal,
        id: [u8; 16],
        created: Time,
        now: Time,
    ) -> Result<(), Refused> {
        self.forget(now);
        if created < self.horizon {
            // The clock went back since: this may have been admitted and forgotten.
            return Err(Refused::Stale {
                created,
                now: self.horizon.plus(REQUEST_AGE_MAX),
            });
        }
        let known = self.senders.number(&sender);
        if known.is_some_and(|number| self.seen.contains_key(&(number, id))) {
            return Err(Refused::Replayed { id });
        }
        let held = known.map_or(0, |number| self.senders.held(number));
        if held >= self.maximum - self.seen.len() {
            return Err(Refused::Busy {
                maximum: self.maximum,
            });
        }
        let caller = (self.senders.add(sender), id);
        self.seen.insert(caller, created);
        self.by_age.insert((created, caller));
        debug_assert_eq!(self.seen.len(), self.by_age.len());
        Ok(())
    }

    /// Forgets a request that was not begun, or that does nothing when it is done again: it may come again as it is.
    pub fn withdraw(&mut self, sender: Principal, id: [u8; 16]) {
        let Some(number) = self.senders.number(&sender) else {
            return;
        };
        let caller = (number, id);
        if let Some(created) = self.seen.remove(&caller) {
            self.by_age.remove(&(created, caller));
            self.senders.remove(number);
        }
    }

    /// Moves the horizon forward and forgets what lies before it.
    fn forget(&mut self, now: Time) {
        self.horizon = self.horizon.max(now.minus(REQUEST_AGE_MAX));
        while let Some((created, caller)) = self.by_age.first().copied()
            && created < self.horizon
        {
            self.by_age.pop_first();
            self.seen.remove(&caller);
            self.senders.remove(caller.0);
        }
    }
}

/// How many requests of each sender are remembered. A number is given anew only when nothing of its sender is left.
#[derive(Default)]
struct Senders {
    numbers: BTreeMap<Principal, Number>,
    held: Vec<(Principal, u32)>,
    free: Vec<Number>,
}

impl Senders {
    fn number(&self, sender: &Principal) -> Option<Number> {
        self.numbers.get(sender).copied()
    }

    fn held(&self, number: Number) -> usize {
        self.held[number as usize].1 as usize
    }

    /// Counts one more; its number.
    fn add(&mut self, sender: Principal) -> Number {
        if let Some(number) = self.number(&sender) {
            self.held[number as usize].1 += 1;
            return number;
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.held[number as usize] = (sender, 1);
                number
            }
            None => {
                self.held.push((sender, 1));
                // No more senders than entries.
                (self.held.len() - 1) as Number
            }
        };
        self.numbers.insert(sender, number);
        number
    }

    fn remove(&mut self, number: Number) {
        let (sender, held) = &mut self.held[number as usize];
        *held -= 1;
        if *held == 0 {
            self.numbers.remove(sender);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::cast::{NOON, user};

    const ID: [u8; 16] = [1; 16];

    fn other_id(number: usize) -> [u8; 16] {
        (number as u128).to_be_bytes()
    }

    #[test]
    fn what_was_withdrawn_is_admitted_again_and_takes_no_room() {
        let mut guard = ReplayGuard::new(4);
        guard.withdraw(user(1), ID);
        for _ in 0..10 {
            guard.note(user(1), ID, NOON, NOON).unwrap();
            let again = guard.note(user(1), ID, NOON, NOON);
            assert_eq!(again, Err(Refused::Replayed { id: ID }));
            guard.withdraw(user(2), ID);
            assert_eq!(guard.len(), 1);
            guard.withdraw(user(1), ID);
            assert!(guard.is_empty() && guard.by_age.is_empty());
        }
    }

    #[test]
    fn the_same_request_is_noted_once() {
        let mut guard = ReplayGuard::new(10);
        guard.note(user(1), ID, NOON, NOON).unwrap();
        let again = guard.note(user(1), ID, NOON, NOON.plus(REQUEST_AGE_MAX));
        assert_eq!(again, Err(Refused::Replayed { id: ID }));
    }

    #[test]
    fn one_callers_ids_do_not_use_up_anothers() {
        let mut guard = ReplayGuard::new(10);
        guard.note(user(1), ID, NOON, NOON).unwrap();
        guard.note(user(2), ID, NOON, NOON).unwrap();
        assert_eq!(guard.len(), 2);
    }

    #[test]
    fn a_full_guard_refuses_and_forgets_nothing() {
        let mut guard = ReplayGuard::new(3);
        for number in 0..3 {
            guard.note(user(number), ID, NOON, NOON).unwrap();
        }
        let fourth = guard.note(user(3), ID, NOON, NOON);
        assert_eq!(fourth, Err(Refused::Busy { maximum: 3 }));
        for number in 0..3 {
            let again = guard.note(user(number), ID, NOON, NOON);
            assert!(matches!(again, Err(Refused::Replayed { .. })));
        }
    }

    #[test]
    fn a_sender_who_floods_takes_half_and_others_find_room() {
        let mut guard = ReplayGuard::new(100);
        let mut flood = |sender| {
            let noted = |id| guard.note(user(sender), other_id(id), NOON, NOON);
            let outcomes: Vec<_> = (0..200).map(noted).collect();
            let busy = Err(Refused::Busy { maximum: 100 });
            let taken = outcomes
                .iter()
                .position(|outcome| *outcome == busy)
                .unwrap();
            assert!(outcomes[..taken].iter().all(Result::is_ok));
            assert!(outcomes[taken..].iter().all(|outcome| *outcome == busy));
            taken
        };
        assert_eq!([flood(1), flood(2), flood(3)], [50, 25, 13]);
        guard.note(user(4), ID, NOON, NOON).unwrap();
    }

    #[test]
    fn a_senders_share_comes_back_when_the_window_has_moved_on_and_its_number_serves_another() {
        let mut guard = ReplayGuard::new(4);
        let mut now = NOON;
        for round in 0..3 {
            for sender in [round, round + 1] {
                guard.note(user(sender), ID, now, now).unwrap();
                let again = guard.note(user(sender), ID, now, now);
                assert_eq!(again, Err(Refused::Replayed { id: ID }));
            }
            guard.note(user(round), other_id(7), now, now).unwrap();
            assert!(guard.note(user(round), other_id(8), now, now).is_err());
            now = now.plus(REQUEST_AGE_MAX + Duration::from_millis(1));
        }
        assert_eq!(guard.senders.held.len(), 2);
    }

    #[test]
    fn room_appears_when_the_window_has_moved_on() {
        let mut guard = ReplayGuard::new(1);
        guard.note(user(1), ID, NOON, NOON).unwrap();
        let later = NOON.plus(REQUEST_AGE_MAX);
        assert!(guard.note(user(1), other_id(7), later, later).is_err());
        let later = later.plus(Duration::from_millis(1));
        guard.note(user(1), other_id(7), later, later).unwrap();
        assert_eq!(guard.len(), 1);
    }

    #[test]
    fn a_clock_set_back_does_not_reopen_the_window() {
        let mut guard = ReplayGuard::new(10);
        guard.note(user(1), ID, NOON, NOON).unwrap();
        let later = NOON.plus(REQUEST_AGE_MAX * 2);
        guard.note(user(1), other_id(7), later, later).unwrap();
        assert_eq!(guard.len(), 1, "the first is forgotten");
        let replayed = guard.note(user(1), ID, NOON, NOON);
        assert!(matches!(replayed, Err(Refused::Stale { .. })));
    }

    #[test]
    fn a_guard_never_holds_more_than_the_limit_of_the_crate() {
        assert_eq!(ReplayGuard::new(usize::MAX).maximum, REPLAY_ENTRIES_MAX);
        assert!(ReplayGuard::new(0).is_empty());
        let refused = ReplayGuard::new(0).note(user(1), ID, NOON, NOON);
        assert_eq!(refused, Err(Refused::Busy { maximum: 0 }));
    }
}
