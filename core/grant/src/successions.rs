//! Lines of succession: who stands for whom, now.
//!
//! ```text
//!   A ──▶ B ──▶ C        C stands for A and B; A and B are succeeded and stand for nobody
//!   D ──▶ E, D ──▶ F     a fork: neither E nor F stands for D, and D stands for nobody
//!   G ──▶ I, H ──▶ I     two lines into one: I stands for itself only
//! ```
//!
//! Always true: a principal stands for itself or for those before it in one unbroken line of at most
//! [`SUCCESSIONS_MAX`] successions that have begun. A line that forks, joins another, closes to a
//! circle or is longer hands nothing on: it fails closed. The order in which successions are
//! learned does not matter.
//!
//! Cost: one tree search per step, at most [`SUCCESSIONS_MAX`] steps; two entries of about 100 bytes
//! per succession.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bield_envelope::{Principal, Time};

use crate::VerifiedSuccession;

/// Most successions in one line: a principal that changes its key yearly is served for 16 years.
pub const SUCCESSIONS_MAX: usize = 16;

/// All successions that somebody knows of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Successions {
    next: Links,
    previous: Links,
}

type Links = BTreeMap<Principal, Link>;

/// What is said of one neighbour in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// This one, from then on.
    One(Principal, Time),
    /// Two different ones: nobody can tell which.
    Conflict,
}

impl Successions {
    /// Knows of none.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: BTreeMap::new(),
            previous: BTreeMap::new(),
        }
    }

    /// Counts the principals that were, or will be, succeeded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.next.len()
    }

    /// Tells whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next.is_empty()
    }

    /// Learns of a succession, whatever it does to the lines. Whoever can still refuse it asks
    /// [`Successions::check`] first. The same one said twice begins at the earlier time.
    pub fn add(&mut self, succession: &VerifiedSuccession) {
        let (from, to, at) = (succession.from(), succession.to(), succession.at());
        link(&mut self.next, from, to, at);
        link(&mut self.previous, to, from, at);
    }

    /// Tells whether this succession would leave all lines whole, whenever they begin.
    ///
    /// # Errors
    /// [`SuccessionRefused`] says which rule it would break.
    pub fn check(&self, succession: &VerifiedSuccession) -> Result<(), SuccessionRefused> {
        let (from, to) = (succession.from(), succession.to());
        let is = |links: &Links, of, expected| match links.get(&of) {
            None => true,
            Some(Link::One(known, _)) => *known == expected,
            Some(Link::Conflict) => false,
        };
        if !is(&self.next, from, to) {
            return Err(SuccessionRefused::Fork);
        }
        if !is(&self.previous, to, from) {
            return Err(SuccessionRefused::Join);
        }
        let before = walk(from, |at| linked(&self.previous, at, FOREVER));
        let after = walk(to, |at| linked(&self.next, at, FOREVER));
        if before.contains(&to) || after.contains(&from) {
            return Err(SuccessionRefused::Circle);
        }
        if before.len() + 1 + after.len() > SUCCESSIONS_MAX {
            return Err(SuccessionRefused::TooLong);
        }
        Ok(())
    }

    /// Tells whether a succession of `principal` has begun, or two contradict each other: it must
    /// not be served in its own name any more.
    #[must_use]
    pub fn is_succeeded(&self, principal: &Principal, now: Time) -> bool {
        match self.next.get(principal) {
            None => false,
            Some(Link::One(_, at)) => *at <= now,
            Some(Link::Conflict) => true,
        }
    }

    /// Lists whom `principal` stands for: itself first, then those before it, the nearest first.
    /// Says nothing about whether it was succeeded itself.
    #[must_use]
    pub fn stands_for(&self, principal: Principal, now: Time) -> Vec<Principal> {
        let Some(after) = self.after(principal, now) else {
            return vec![principal];
        };
        let before = walk(principal, |at| self.step_back(at, now));
        let room = SUCCESSIONS_MAX - after.len();
        core::iter::once(principal)
            .chain(before.into_iter().take(room))
            .collect()
    }

    /// Lists all whose word counts as `owner`'s: itself, those it stands for, and those that stand
    /// for it.
    #[must_use]
    pub fn line_of(&self, owner: Principal, now: Time) -> Vec<Principal> {
        let mut line = self.stands_for(owner, now);
        line.extend(self.after(owner, now).unwrap_or_default());
        line
    }

    /// Tells whether `signer`'s word counts as `owner`'s.
    #[must_use]
    pub fn speaks_for(&self, signer: Principal, owner: Principal, now: Time) -> bool {
        signer == owner || self.line_of(owner, now).contains(&signer)
    }

    /// Lists who came after `principal`, the nearest first; `None` when that line is not whole.
    fn after(&self, principal: Principal, now: Time) -> Option<Vec<Principal>> {
        let after = walk(principal, |at| self.step(at, now));
        let last = after.last().copied().unwrap_or(principal);
        // At the end of a whole line nothing follows that has begun; a circle never ends.
        (after.len() <= SUCCESSIONS_MAX && !self.is_succeeded(&last, now)).then_some(after)
    }

    /// Goes from a principal to its only successor, if it is that one's only predecessor.
    fn step(&self, from: Principal, now: Time) -> Option<Principal> {
        linked(&self.next, from, now).filter(|to| linked(&self.previous, *to, now) == Some(from))
    }

    fn step_back(&self, to: Principal, now: Time) -> Option<Principal> {
        linked(&self.previous, to, now).filter(|from| linked(&self.next, *from, now) == Some(to))
    }
}

impl<'a> FromIterator<&'a VerifiedSuccession> for Successions {
    fn from_iter<I: IntoIterator<Item = &'a VerifiedSuccession>>(successions: I) -> Self {
        let mut all = Self::new();
        for succession in successions {
            all.add(succession);
        }
        all
    }
}

fn link(links: &mut Links, of: Principal, other: Principal, at: Time) {
    match links.entry(of) {
        Entry::Vacant(entry) => {
            entry.insert(Link::One(other, at));
        }
        Entry::Occupied(mut entry) => {
            let link = match *entry.get() {
                Link::One(known, since) if known == other => Link::One(known, since.min(at)),
                _ => Link::Conflict,
            };
            entry.insert(link);
        }
    }
}

fn linked(links: &Links, of: Principal, now: Time) -> Option<Principal> {
    match links.get(&of) {
        Some(Link::One(other, at)) if *at <= now => Some(*other),
        _ => None,
    }
}

/// Follows a line to its end; stops one step after the longest that is allowed.
fn walk(from: Principal, step: impl Fn(Principal) -> Option<Principal>) -> Vec<Principal> {
    core::iter::successors(step(from), |at| step(*at))
        .take(SUCCESSIONS_MAX + 1)
        .collect()
}

/// A time at which every succession has begun.
const FOREVER: Time = Time::from_millis(u64::MAX);

/// Why a succession cannot be accepted beside those that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuccessionRefused {
    /// The old principal has another successor already.
    #[error("the old principal has another successor already; nobody can undo that")]
    Fork,
    /// The new principal succeeded somebody else already.
    #[error("the new principal stands for another one already; make a fresh key for this one")]
    Join,
    /// The new principal came before the old one.
    #[error("the new principal came before the old one; make a fresh key")]
    Circle,
    /// The line would be too long to follow.
    #[error(
        "a line of more than {SUCCESSIONS_MAX} successions is not followed; begin with a new \
         principal and new grants"
    )]
    TooLong,
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::cast::{NOON, succeeded, successions, user, user_key};

    /// These users succeed each other, one after the other.
    fn line(users: core::ops::Range<u8>) -> Successions {
        let keys: Vec<_> = users.map(user_key).collect();
        let pairs: Vec<_> = keys.windows(2).map(|pair| (&pair[0], &pair[1])).collect();
        successions(&pairs)
    }

    fn of(from: u8, to: u8) -> VerifiedSuccession {
        succeeded(&user_key(from), &user_key(to), NOON)
    }

    fn learned(edges: &[(u8, u8)]) -> Successions {
        let all: Vec<_> = edges.iter().map(|(from, to)| of(*from, *to)).collect();
        all.iter().collect()
    }

    #[test]
    fn a_principal_stands_for_all_before_it_nearest_first() {
        let line = line(0..4);
        let stands_for = |number| line.stands_for(user(number), NOON);
        assert_eq!(stands_for(3), [user(3), user(2), user(1), user(0)]);
        assert_eq!(stands_for(1), [user(1), user(0)]);
        assert_eq!(stands_for(9), [user(9)]);
        assert!(line.is_succeeded(&user(1), NOON) && !line.is_succeeded(&user(3), NOON));
    }

    #[test]
    fn a_line_is_followed_for_sixteen_steps_and_no_more() {
        let longest = line(0..17);
        assert_eq!(longest.stands_for(user(16), NOON).len(), 17);
        assert!(longest.speaks_for(user(16), user(0), NOON));
        assert!(longest.speaks_for(user(0), user(16), NOON));
        assert_eq!(longest.check(&of(16, 17)), Err(SuccessionRefused::TooLong));
        assert_eq!(longest.check(&of(30, 0)), Err(SuccessionRefused::TooLong));

        let longer = line(0..18);
        assert!(!longer.speaks_for(user(17), user(0), NOON));
        assert!(
            !longer.speaks_for(user(1), user(0), NOON),
            "not even the next"
        );
        assert!(longer.speaks_for(user(17), user(1), NOON));
    }

    #[test]
    fn a_circle_ends_and_hands_nothing_on() {
        let circle = learned(&[(1, 2), (2, 3), (3, 1)]);
        for number in 1..4 {
            assert_eq!(circle.stands_for(user(number), NOON), [user(number)]);
            assert!(circle.is_succeeded(&user(number), NOON));
        }
        let open = learned(&[(1, 2), (2, 3)]);
        assert_eq!(open.check(&of(3, 1)), Err(SuccessionRefused::Circle));
        assert_eq!(open.check(&of(2, 1)), Err(SuccessionRefused::Fork));
        assert_eq!(
            learned(&[(1, 2)]).check(&of(2, 1)),
            Err(SuccessionRefused::Circle)
        );
    }

    #[test]
    fn a_fork_is_refused_and_if_there_is_one_neither_branch_counts() {
        let line = learned(&[(1, 2), (2, 3)]);
        assert_eq!(line.check(&of(2, 4)), Err(SuccessionRefused::Fork));
        assert_eq!(line.check(&of(2, 3)), Ok(()), "the same again");
        let forked = learned(&[(1, 2), (2, 3), (2, 4)]);
        for number in 1..5 {
            assert_eq!(forked.stands_for(user(number), NOON), [user(number)]);
        }
        assert!(forked.is_succeeded(&user(2), NOON));
    }

    #[test]
    fn a_fork_counts_before_it_begins() {
        let later = succeeded(
            &user_key(1),
            &user_key(3),
            NOON.plus(Duration::from_secs(9)),
        );
        let forked = Successions::from_iter([&of(1, 2), &later]);
        assert!(!forked.speaks_for(user(2), user(1), NOON));
        assert!(forked.is_succeeded(&user(1), NOON.minus(Duration::from_secs(9))));
    }

    #[test]
    fn two_lines_into_one_are_refused_and_hand_nothing_on() {
        let line = learned(&[(1, 3)]);
        assert_eq!(line.check(&of(2, 3)), Err(SuccessionRefused::Join));
        let joined = learned(&[(1, 3), (2, 3), (3, 4)]);
        assert_eq!(joined.stands_for(user(4), NOON), [user(4), user(3)]);
        assert!(joined.is_succeeded(&user(1), NOON));
    }

    #[test]
    fn a_succession_said_twice_begins_at_the_earlier_time() {
        let later = succeeded(
            &user_key(1),
            &user_key(2),
            NOON.plus(Duration::from_secs(9)),
        );
        let both = [
            Successions::from_iter([&of(1, 2), &later]),
            Successions::from_iter([&later, &of(1, 2)]),
        ];
        assert_eq!(both[0], both[1]);
        assert!(both[0].speaks_for(user(2), user(1), NOON));
        let alone = Successions::from_iter([&later]);
        assert!(!alone.speaks_for(user(2), user(1), NOON));
        assert_eq!(alone.len(), 1);
    }

    proptest! {
        #[test]
        fn what_was_checked_leaves_all_lines_whole(
            edges in prop::collection::vec((0..24u8, 0..24u8), 0..40),
        ) {
            let mut all = Successions::new();
            let mut kept: Vec<(u8, u8)> = Vec::new();
            for (from, to) in edges {
                if from != to && all.check(&of(from, to)).is_ok() {
                    all.add(&of(from, to));
                    kept.push((from, to));
                }
            }
            for &(from, to) in &kept {
                prop_assert!(all.speaks_for(user(to), user(from), NOON));
            }
            for number in 0..24 {
                // Every line ends in exactly one who stands for all of it.
                let mut last = number;
                while let Some(next) = kept.iter().find(|edge| edge.0 == last) {
                    last = next.1;
                }
                prop_assert!(all.stands_for(user(last), NOON).contains(&user(number)));
                prop_assert!(!all.is_succeeded(&user(last), NOON));
            }
        }

        #[test]
        fn any_lines_resolve_and_in_any_order_to_the_same(
            edges in prop::collection::vec((0..20u8, 0..20u8, 0..3u64), 0..40),
            by in 0..40usize,
        ) {
            let mut said: Vec<_> = edges.into_iter().filter(|edge| edge.0 != edge.1).map(|(from, to, at)| {
                succeeded(&user_key(from), &user_key(to), NOON.plus(Duration::from_secs(at)))
            }).collect();
            let first: Successions = said.iter().collect();
            let places = by % said.len().max(1);
            said.rotate_left(places);
            let second: Successions = said.iter().rev().collect();
            prop_assert_eq!(&first, &second);
            for number in 0..20 {
                let stands_for = first.stands_for(user(number), NOON);
                prop_assert!(stands_for.len() <= SUCCESSIONS_MAX + 1);
                // Whom one stands for is succeeded, and nobody else who is not succeeded does too.
                for other in &stands_for[1..] {
                    prop_assert!(first.is_succeeded(other, NOON));
                    prop_assert!(first.line_of(*other, NOON).contains(&user(number)));
                }
            }
        }
    }
}
