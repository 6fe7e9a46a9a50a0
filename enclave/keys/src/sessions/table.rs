//! Which sessions are open, and which one gives way when there is no room.
//!
//! ```text
//! new session ──▶ room? ──yes──▶ a place
//!                   └─no──▶ the longest silent one that has ordered nothing is cut ──▶ its place
//!                           none such ──▶ refused
//! ```
//!
//! Always true: at most `max` sessions are open and not told to end; those that were told number at most
//! [`ENDING_MAX`]; a session that has ordered something, or is being answered, is never cut for another;
//! a place is given back however its session ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::limits::lock;

/// Ends a session from outside.
pub(super) trait Cut: Send {
    /// Makes its reads and writes fail from now on.
    fn cut(&self);
}

/// All open sessions.
pub(super) struct Table<C> {
    open: Mutex<Open<C>>,
    max: usize,
}

struct Open<C> {
    next: u64,
    sessions: BTreeMap<u64, Session<C>>,
}

struct Session<C> {
    heard: Instant,
    ordered: bool,
    answering: bool,
    ending: bool,
    cut: C,
}

/// A session's place; given back on drop.
pub(super) struct Place<C: Cut> {
    table: Arc<Table<C>>,
    number: u64,
}

/// What became of a request for a place.
pub(super) enum Seat<C: Cut> {
    /// There was room.
    Free(Place<C>),
    /// Another session was cut for it.
    Instead(Place<C>),
    /// There is none.
    Refused,
}

impl<C: Cut> Table<C> {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            open: Mutex::new(Open {
                next: 0,
                sessions: BTreeMap::new(),
            }),
            max,
        })
    }

    /// Takes a place for a session that `cut` ends.
    pub(super) fn seat(self: &Arc<Self>, cut: C, now: Instant) -> Seat<C> {
        let mut open = lock(&self.open);
        let ending = open
            .sessions
            .values()
            .filter(|session| session.ending)
            .count();
        if ending >= ENDING_MAX {
            return Seat::Refused;
        }
        let full = open.sessions.len() - ending >= self.max;
        if full {
            let idle = |session: &&mut Session<C>| {
                !(session.ordered || session.answering || session.ending)
            };
            let silent = open.sessions.values_mut().filter(idle);
            let Some(longest) = silent.min_by_key(|session| session.heard) else {
                return Seat::Refused;
            };
            longest.ending = true;
            longest.cut.cut();
        }
        let number = open.next;
        open.next += 1;
        let session = Session {
            heard: now,
            ordered: false,
            answering: false,
            ending: false,
            cut,
        };
        open.sessions.insert(number, session);
        let place = Place {
            table: Arc::clone(self),
            number,
        };
        if full {
            Seat::Instead(place)
        } else {
            Seat::Free(place)
        }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        lock(&self.open).sessions.len()
    }

    /// Ends all that are not being answered.
    pub(super) fn cut_idle(&self) {
        for session in lock(&self.open).sessions.values_mut() {
            if !session.answering && !session.ending {
                session.ending = true;
                session.cut.cut();
            }
        }
    }
}

impl<C: Cut> Place<C> {
    /// A message came.
    pub(super) fn heard(&self, now: Instant) {
        self.change(|session| (session.heard, session.answering) = (now, true));
    }

    /// It was answered; whether that was something ordered.
    pub(super) fn answered(&self, now: Instant, ordered: bool) {
        self.change(|session| {
            (session.heard, session.answering) = (now, false);
            session.ordered |= ordered;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Session<C>)) {
        if let Some(session) = lock(&self.table.open).sessions.get_mut(&self.number) {
            change(session);
        }
    }
}

impl<C: Cut> Drop for Place<C> {
    fn drop(&mut self) {
        lock(&self.table.open).sessions.remove(&self.number);
    }
}

/// The most sessions that were told to end and have not yet: their threads wake at once, so there are
/// more only when the machine cannot keep up.
const ENDING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[derive(Clone, Default)]
    struct Wire(Arc<AtomicBool>);

    impl Cut for Wire {
        fn cut(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl Wire {
        fn is_cut(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn at(millis: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(millis)
    }

    fn seat(table: &Arc<Table<Wire>>, now: Instant) -> Option<(Place<Wire>, Wire)> {
        let wire = Wire::default();
        match table.seat(wire.clone(), now) {
            Seat::Free(place) | Seat::Instead(place) => Some((place, wire)),
            Seat::Refused => None,
        }
    }

    #[test]
    fn the_longest_silent_one_gives_way() {
        let table = Table::new(3);
        let (first, first_wire) = seat(&table, at(0)).unwrap();
        let (_second, second_wire) = seat(&table, at(1)).unwrap();
        let (_third, third_wire) = seat(&table, at(2)).unwrap();
        first.heard(at(3));
        first.answered(at(4), false);
        let _fourth = seat(&table, at(5)).unwrap();
        assert!(second_wire.is_cut());
        assert!(!first_wire.is_cut() && !third_wire.is_cut());
        let _fifth = seat(&table, at(6)).unwrap();
        assert!(third_wire.is_cut() && !first_wire.is_cut());
    }

    #[test]
    fn one_that_ordered_or_is_being_answered_stays() {
        let table = Table::new(2);
        let (ordered, ordered_wire) = seat(&table, at(0)).unwrap();
        ordered.heard(at(1));
        ordered.answered(at(2), true);
        let (answering, answering_wire) = seat(&table, at(3)).unwrap();
        answering.heard(at(4));
        assert!(seat(&table, at(100)).is_none());
        assert!(!ordered_wire.is_cut() && !answering_wire.is_cut());
        answering.answered(at(101), false);
        assert!(seat(&table, at(102)).is_some());
        assert!(answering_wire.is_cut() && !ordered_wire.is_cut());
    }

    #[test]
    fn a_place_is_free_again_when_its_session_ends() {
        let table = Table::new(1);
        let (place, wire) = seat(&table, at(0)).unwrap();
        drop(place);
        assert!(matches!(table.seat(wire.clone(), at(1)), Seat::Free(_)));
        assert_eq!(table.len(), 0);
        assert!(!wire.is_cut());
    }

    #[test]
    fn those_that_do_not_end_do_not_pile_up() {
        let table = Table::new(1);
        let places: Vec<_> = (0..2 * ENDING_MAX as u64)
            .map_while(|number| seat(&table, at(number)))
            .collect();
        assert_eq!(places.len(), ENDING_MAX + 1);
        assert_eq!(table.len(), ENDING_MAX + 1);
    }
}
