//! Which sessions are open, and which one gives way when there is no room.
//!
//! ```text
//! new session ──▶ room? ──yes──▶ a place
//!                   └─no──▶ of whoever has the most sessions, the longest silent one is cut ──▶ its place
//!                           none such ──▶ refused
//! ```
//!
//! Always true: at most `max` sessions are open and not told to end; those that were told number at most
//! [`ENDING_MAX`]; an eighth of the places is for attested peers only, and a newcomer, of whom nothing is known,
//! takes none of it; a session that is being answered, or is another member's, is never cut for another; one that
//! ordered within [`ORDERED_FOR`] is cut only where its caller has more than an eighth of the places, or nobody
//! else's can be; a place is given back however its session ends.
//!
//! On paper: a look at all sessions for a newcomer that finds no room, 100 µs at 4096.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::Principal;
use bield_evidence::Measurement;

use crate::limits::lock;

/// Ends a session from outside.
pub(super) trait Cut: Send {
    /// Makes its reads and writes fail from now on.
    fn cut(&self);
}

/// Who a session's peer is, as far as it was shown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Class {
    /// Nothing is known.
    Anonymous,
    /// It signed an order of this registered principal, which was done.
    Principal(Principal),
    /// A runtime with this code; attested.
    Code(Measurement),
    /// Another member; attested.
    Member,
}

impl Class {
    const fn is_attested(&self) -> bool {
        matches!(self, Self::Code(_) | Self::Member)
    }
}

/// All open sessions.
pub(super) struct Table<C> {
    open: Mutex<Open<C>>,
    max: usize,
    /// Places for attested peers, of `max`.
    reserved: usize,
}

struct Open<C> {
    next: u64,
    sessions: BTreeMap<u64, Session<C>>,
}

struct Session<C> {
    heard: Instant,
    /// When it last ordered something that was done.
    ordered: Option<Instant>,
    class: Class,
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
            reserved: max / RESERVED,
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
        let attested = open
            .sessions
            .values()
            .filter(|session| !session.ending && session.class.is_attested())
            .count();
        let beyond = attested > self.reserved;
        let others = open.sessions.len() - ending - attested.min(self.reserved);
        let full = others >= self.max - self.reserved;
        if full {
            let Some(longest) = self.gives_way(&open, beyond, now) else {
                return Seat::Refused;
            };
            open.end(longest);
        }
        let number = open.next;
        open.next += 1;
        let session = Session {
            heard: now,
            ordered: None,
            class: Class::Anonymous,
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

    /// Whose place a newcomer takes; an attested peer's only where those have more than is reserved for them.
    fn gives_way(&self, open: &Open<C>, attested_too: bool, now: Instant) -> Option<u64> {
        let mut each: HashMap<&Class, usize> = HashMap::new();
        for session in open.sessions.values().filter(|session| !session.ending) {
            *each.entry(&session.class).or_default() += 1;
        }
        let fair = (self.max / FAIR).max(1);
        let candidates = open
            .sessions
            .iter()
            .filter(|(_, session)| !(session.answering || session.ending))
            .filter(|(_, session)| session.class != Class::Member)
            .filter(|(_, session)| attested_too || !session.class.is_attested())
            .map(|(number, session)| {
                let count = each.get(&session.class).copied().unwrap_or_default();
                let ordered = session
                    .ordered
                    .is_some_and(|at| now.saturating_duration_since(at) < ORDERED_FOR);
                (*number, session.heard, count, ordered)
            });
        // Who has more than its share first: of those, whoever has the most; then who is idle longest.
        candidates
            .filter(|(_, _, count, ordered)| !ordered || *count > 1)
            .min_by_key(|(_, heard, count, ordered)| {
                let spared = *ordered && *count <= fair;
                (spared, std::cmp::Reverse(*count), *ordered, *heard)
            })
            .map(|(number, ..)| number)
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

impl<C: Cut> Open<C> {
    fn end(&mut self, number: u64) {
        if let Some(session) = self.sessions.get_mut(&number)
            && !session.ending
        {
            session.ending = true;
            session.cut.cut();
        }
    }
}

impl<C: Cut> Place<C> {
    /// A message came.
    pub(super) fn heard(&self, now: Instant) {
        self.change(|session| (session.heard, session.answering) = (now, true));
    }

    /// It was answered; `ordered` when that was an order, which was done.
    pub(super) fn answered(&self, now: Instant, ordered: bool) {
        self.change(|session| {
            (session.heard, session.answering) = (now, false);
            if ordered {
                session.ordered = Some(now);
            }
        });
    }

    /// Its peer showed who it is.
    pub(super) fn is(&self, class: Class) {
        self.change(|session| session.class = class);
    }

    /// What ends it, from any thread.
    pub(super) fn cutter(&self) -> impl Fn() + Send + use<C> {
        let (table, number) = (Arc::clone(&self.table), self.number);
        move || lock(&table.open).end(number)
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
/// One place in so many is for attested peers.
const RESERVED: usize = 8;
/// One place in so many may be one caller's before its working sessions give way, too.
const FAIR: usize = 8;
/// How long an order that was done keeps its session's place.
const ORDERED_FOR: Duration = Duration::from_secs(60);

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

    impl Table<Wire> {
        /// As if the threads of those that were cut had ended.
        fn forget_ending(&self) {
            lock(&self.open)
                .sessions
                .retain(|_, session| !session.ending);
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
        let (_ordered, ordered_wire) = working(&table, &principal(1), 2);
        let (answering, answering_wire) = seat(&table, at(3)).unwrap();
        answering.heard(at(4));
        assert!(seat(&table, at(100)).is_none());
        assert!(!ordered_wire.is_cut() && !answering_wire.is_cut());
        answering.answered(at(101), false);
        assert!(seat(&table, at(102)).is_some());
        assert!(answering_wire.is_cut() && !ordered_wire.is_cut());
    }

    fn principal(number: u8) -> Class {
        Class::Principal(Principal::from_bytes([number; 32]))
    }

    /// A session of `class` whose order was just done.
    fn working(table: &Arc<Table<Wire>>, class: &Class, now: u64) -> (Place<Wire>, Wire) {
        let (place, wire) = seat(table, at(now)).unwrap();
        place.is(class.clone());
        place.heard(at(now));
        place.answered(at(now), true);
        (place, wire)
    }

    #[test]
    fn an_order_keeps_a_place_for_a_minute_and_not_for_ever() {
        let table = Table::new(2);
        let (old, old_wire) = working(&table, &principal(1), 0);
        let (_new, new_wire) = working(&table, &principal(2), 30_000);
        assert!(seat(&table, at(59_000)).is_none());
        // Still talking, and ordering nothing.
        old.heard(at(60_000));
        old.answered(at(60_001), false);
        assert!(seat(&table, at(60_002)).is_some());
        assert!(old_wire.is_cut() && !new_wire.is_cut());
    }

    #[test]
    fn one_principal_with_most_sessions_gives_way_to_others_even_while_it_orders() {
        let table = Table::new(7);
        let (_few, few_wire) = working(&table, &principal(1), 0);
        let many: Vec<_> = (1..7)
            .map(|now| working(&table, &principal(2), now))
            .collect();
        let _newcomer = seat(&table, at(10)).unwrap();
        assert!(many[0].1.is_cut(), "its longest silent one");
        assert!(!few_wire.is_cut() && many[1..].iter().all(|(_, wire)| !wire.is_cut()));
    }

    #[test]
    fn strangers_take_no_place_of_attested_peers() {
        let table = Table::new(16);
        let code = Measurement::new(bield_evidence::TeeKind::Sgx, &[1; 32]);
        let code = Class::Code(code.unwrap());
        let (runtime, runtime_wire) = seat(&table, at(0)).unwrap();
        runtime.is(code.clone());
        let strangers: Vec<_> = (1..=14).map(|now| seat(&table, at(now)).unwrap()).collect();
        assert!(strangers.iter().all(|(_, wire)| !wire.is_cut()));
        // The sixteenth place is free, and a stranger takes another stranger's all the same.
        let (another, _) = seat(&table, at(20)).unwrap();
        assert!(strangers[0].1.is_cut() && !runtime_wire.is_cut());
        another.is(code);
        drop(strangers);
        let (member, member_wire) = seat(&table, at(30)).unwrap();
        member.is(Class::Member);
        for now in 31..100 {
            std::mem::forget(seat(&table, at(now)).unwrap());
            table.forget_ending();
        }
        assert!(!member_wire.is_cut(), "a member never gives way");
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
