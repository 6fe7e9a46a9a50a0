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
