//! Whose functions are inside.
//!
//! In: requests, by the owner of the function they are for. Out: places. Always true: unless several owners may be inside,
//! all places that are taken are of one owner; who came first enters first, so that no owner keeps another out; nobody
//! enters while things of the owner before are let go.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bield_envelope::Principal;

use crate::flights::lock;

/// Counts the requests inside.
pub(crate) struct Owners {
    several: bool,
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Default)]
struct Line {
    current: Option<Principal>,
    inside: usize,
    /// Things of the owner before are let go.
    leaving: bool,
    waiting: VecDeque<u64>,
    next: u64,
}

impl Owners {
    pub(crate) fn new(several: bool) -> Self {
        Self {
            several,
            line: Mutex::default(),
            moved: Condvar::new(),
        }
    }

    /// Waits for a place, at most `wait`. Where another owner's functions were here before, they are to be let go while
    /// the second is held.
    pub(crate) fn enter(
        &self,
        owner: Principal,
        wait: Duration,
    ) -> Option<(Place<'_>, Option<Leaving<'_>>)> {
        let mut line = lock(&self.line);
        if self.several {
            line.inside += 1;
            return Some((Place(self), None));
        }
        let number = line.next;
        line.next += 1;
        line.waiting.push_back(number);
        let enters = |line: &mut Line| {
            line.waiting.front() == Some(&number)
                && !line.leaving
                && (line.inside == 0 || line.current == Some(owner))
        };
        let (mut line, _) = self
            .moved
            .wait_timeout_while(line, wait, |line| !enters(line))
            .unwrap_or_else(PoisonError::into_inner);
        let has_place = enters(&mut line);
        line.waiting.retain(|other| *other != number);
        self.moved.notify_all();
        if !has_place {
            return None;
        }
        let changed = line
            .current
            .replace(owner)
            .is_some_and(|before| before != owner);
        line.inside += 1;
        line.leaving = changed;
        drop(line);
        Some((Place(self), changed.then(|| Leaving(self))))
    }
}

/// While it is held, nobody else enters.
pub(crate) struct Leaving<'a>(&'a Owners);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        lock(&self.0.line).leaving = false;
        self.0.moved.notify_all();
    }
}

/// A request inside.
pub(crate) struct Place<'a>(&'a Owners);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = lock(&self.0.line);
        line.inside -= 1;
        if line.inside == 0 {
            self.0.moved.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    fn owner(number: u8) -> Principal {
        Principal::from_bytes([number; 32])
    }

    #[test]
    fn one_owner_is_inside_at_a_time_and_who_came_first_enters_first() {
        let owners = Owners::new(false);
        let (one, leaving) = owners.enter(owner(1), Duration::MAX).unwrap();
        assert!(leaving.is_none());
        let (again, leaving) = owners.enter(owner(1), Duration::MAX).unwrap();
        assert!(leaving.is_none());
        assert!(owners.enter(owner(2), Duration::from_millis(1)).is_none());
        thread::scope(|scope| {
            let (told, order) = channel();
            let waits = |count| {
                while lock(&owners.line).waiting.len() < count {
                    thread::yield_now();
                }
            };
            for (count, number) in [(1, 2), (2, 1)] {
                let (told, owners) = (told.clone(), &owners);
                scope.spawn(move || {
                    let (place, leaving) = owners.enter(owner(number), Duration::MAX).unwrap();
                    told.send((number, leaving.is_some())).unwrap();
                    drop((leaving, place));
                });
                waits(count);
            }
            drop((one, again));
            assert_eq!(order.recv().unwrap(), (2, true));
            assert_eq!(order.recv().unwrap(), (1, true));
        });
    }

    #[test]
    fn several_owners_are_inside_where_they_may() {
        let owners = Owners::new(true);
        let places = [1, 2].map(|number| owners.enter(owner(number), Duration::ZERO).unwrap());
        assert!(places.iter().all(|(_, leaving)| leaving.is_none()));
    }

    #[test]
    fn nobody_enters_while_things_of_the_owner_before_are_let_go() {
        let owners = Owners::new(false);
        drop(owners.enter(owner(1), Duration::ZERO).unwrap());
        let (place, leaving) = owners.enter(owner(2), Duration::ZERO).unwrap();
        let same = || owners.enter(owner(2), Duration::from_millis(1));
        assert!(same().is_none(), "not even of the same owner");
        drop(leaving.unwrap());
        assert!(same().is_some());
        drop(place);
    }
}
