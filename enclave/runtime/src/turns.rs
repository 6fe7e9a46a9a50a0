//! Two bounds on concurrency: how many calls are inside, and how many of them compute.
//!
//! A call that finds the [`Gate`] full is told to come back; one that is inside waits for its [`Turns`] with
//! its request open and its keys and model at hand, so that waiting for the host or the key service takes no turn.
//!
//! Always true: of several users who wait each gets one turn before any gets a second, and one user's calls go in
//! the order in which they came to wait; nobody waits longer than it said; a turn is never lost, and waiting takes no
//! processor time; who needs no turn any more, because another's run answers it, is out of the line at once. On paper: a
//! hash look-up in, one out, one wake-up.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bield_envelope::Principal;

use crate::flights::lock;

/// Counts the calls inside and refuses more than its limit.
pub(crate) struct Gate {
    limit: usize,
    inside: Mutex<usize>,
    emptied: Condvar,
}

impl Gate {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            inside: Mutex::new(0),
            emptied: Condvar::new(),
        })
    }

    /// Lets one call in until its entry is dropped; `None` when it is full.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Entry> {
        let mut inside = lock(&self.inside);
        if *inside >= self.limit {
            return None;
        }
        *inside += 1;
        Some(Entry(Arc::clone(self)))
    }

    /// Counts the calls inside.
    pub(crate) fn inside(&self) -> usize {
        *lock(&self.inside)
    }

    /// Waits until no call is inside, at most so long.
    pub(crate) fn wait_empty(&self, wait: Duration) {
        let waiting = lock(&self.inside);
        let _ = self
            .emptied
            .wait_timeout_while(waiting, wait, |inside| *inside > 0);
    }
}

/// A place inside the gate.
pub(crate) struct Entry(Arc<Gate>);

impl Drop for Entry {
    fn drop(&mut self) {
        let mut inside = lock(&self.0.inside);
        *inside -= 1;
        if *inside == 0 {
            self.0.emptied.notify_all();
        }
    }
}

/// The right to compute, held by so many at once; who waits is served in turn, user by user.
///
/// ```text
/// a: ■ ■ ■ ■ ■ ┐
/// b: ■         ├──▶ a b c a c a a a …
/// c: ■ ■       ┘
/// ```
pub(crate) struct Turns {
    line: Mutex<Line>,
}

/// Who waits. Everyone in it waits on a condition of its own, so that nobody is woken in vain.
struct Line {
    free: usize,
    by: HashMap<Principal, VecDeque<Arc<Waiter>>>,
    users: VecDeque<Principal>,
}

/// One that waits for one turn.
#[derive(Default)]
pub(crate) struct Waiter {
    called: Condvar,
    /// Changed and read under the line's lock only, as the other; atomic for sharing.
    has_turn: AtomicBool,
    is_dismissed: AtomicBool,
}

/// A turn that did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late;

impl Turns {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            line: Mutex::new(Line {
                free: count,
                by: HashMap::new(),
                users: VecDeque::new(),
            }),
        }
    }

    /// Waits for a turn of `user`, at most `wait`. Whoever holds one waits for nothing else, so that turns come.
    ///
    /// # Errors
    /// [`Late`].
    pub(crate) fn take(&self, user: Principal, wait: Duration) -> Result<Turn<'_>, Late> {
        self.take_as(&Arc::default(), user, wait)
    }

    /// The same as somebody who can be [dismissed](Self::dismiss), once.
    ///
    /// # Errors
    /// [`Late`], also when dismissed.
    pub(crate) fn take_as(
        &self,
        waiter: &Arc<Waiter>,
        user: Principal,
        wait: Duration,
    ) -> Result<Turn<'_>, Late> {
        let mut line = lock(&self.line);
        if waiter.is_dismissed() {
            return Err(Late);
        }
        if line.free > 0 {
            // Nobody waits then.
            line.free -= 1;
            return Ok(Turn(self));
        }
        line.join(user, waiter);
        let (mut line, _) = waiter
            .called
            .wait_timeout_while(line, wait, |_| !waiter.has_turn() && !waiter.is_dismissed())
            .unwrap_or_else(PoisonError::into_inner);
        if waiter.has_turn() {
            return Ok(Turn(self));
        }
        line.leave(user, waiter);
        Err(Late)
    }

    /// As [`take`](Self::take).
    ///
    /// # Errors
    /// [`Late`].
    pub(crate) fn take_own(
        self: &Arc<Self>,
        user: Principal,
        wait: Duration,
    ) -> Result<OwnTurn, Late> {
        // The turn goes on in the value that is returned.
        std::mem::forget(self.take(user, wait)?);
        Ok(OwnTurn(Arc::clone(self)))
    }

    fn pass_on(&self) {
        let mut line = lock(&self.line);
        match line.next() {
            Some(waiter) => {
                waiter.has_turn.store(true, Ordering::Relaxed);
                waiter.called.notify_one();
            }
            None => line.free += 1,
        }
    }

    /// Takes somebody out of the line, or keeps it out; a turn that it has already stays its own.
    pub(crate) fn dismiss(&self, user: Principal, waiter: &Arc<Waiter>) {
        let mut line = lock(&self.line);
        waiter.is_dismissed.store(true, Ordering::Relaxed);
        line.leave(user, waiter);
        waiter.called.notify_one();
    }

    /// Whether a turn is free, so that nobody waits.
    pub(crate) fn is_free(&self) -> bool {
        lock(&self.line).free > 0
    }

    /// Counts those who wait.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.line).by.values().map(VecDeque::len).sum()
    }
}

impl Line {
    fn join(&mut self, user: Principal, waiter: &Arc<Waiter>) {
        let of_user = self.by.entry(user).or_default();
        if of_user.is_empty() {
            self.users.push_back(user);
        }
        of_user.push_back(Arc::clone(waiter));
    }

    fn leave(&mut self, user: Principal, waiter: &Arc<Waiter>) {
        let Some(of_user) = self.by.get_mut(&user) else {
            return;
        };
        of_user.retain(|other| !Arc::ptr_eq(other, waiter));
        if of_user.is_empty() {
            self.by.remove(&user);
            self.users.retain(|other| *other != user);
        }
    }

    /// Takes who is next out of the line.
    fn next(&mut self) -> Option<Arc<Waiter>> {
        let user = self.users.pop_front()?;
        let of_user = self.by.get_mut(&user)?;
        let next = of_user.pop_front();
        if of_user.is_empty() {
            self.by.remove(&user);
        } else {
            self.users.push_back(user);
        }
        next
    }
}

impl Waiter {
    fn has_turn(&self) -> bool {
        self.has_turn.load(Ordering::Relaxed)
    }

    fn is_dismissed(&self) -> bool {
        self.is_dismissed.load(Ordering::Relaxed)
    }
}

/// A turn; on drop it passes to who is next.
pub(crate) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

/// A turn that goes where it is needed.
pub(crate) struct OwnTurn(Arc<Turns>);

impl Drop for OwnTurn {
    fn drop(&mut self) {
        self.0.pass_on();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::MAX;

    fn user(number: u8) -> Principal {
        Principal::from_bytes([number; 32])
    }

    fn until_waiting(turns: &Turns, count: usize) {
        while turns.waiting() < count {
            thread::yield_now();
        }
    }

    #[test]
    fn a_full_gate_refuses_until_somebody_leaves() {
        let gate = Gate::new(2);
        let first = gate.enter().unwrap();
        let _second = gate.enter().unwrap();
        assert!(gate.enter().is_none());
        drop(first);
        assert!(gate.enter().is_some());
        assert_eq!(gate.inside(), 1);
    }

    #[test]
    fn no_more_threads_compute_than_there_are_turns() {
        let turns = Turns::new(2);
        let (computing, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for number in 0..16 {
                let (turns, computing, most) = (&turns, &computing, &most);
                scope.spawn(move || {
                    let _turn = turns.take(user(number % 3), LONG).unwrap();
                    let inside = computing.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(inside, Ordering::SeqCst);
                    thread::yield_now();
                    computing.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(lock(&turns.line).free, 2, "every turn came back");
        assert!(lock(&turns.line).by.is_empty());
    }

    #[test]
    fn one_who_floods_waits_for_the_others_turns() {
        let turns = Turns::new(1);
        let (tell, told) = channel();
        thread::scope(|scope| {
            let held = turns.take(user(9), LONG).unwrap();
            for (at, name) in [1, 1, 1, 1, 2, 3, 3].into_iter().enumerate() {
                let (turns, tell) = (&turns, tell.clone());
                scope.spawn(move || {
                    let _turn = turns.take(user(name), LONG).unwrap();
                    tell.send(name).unwrap();
                });
                until_waiting(turns, at + 1);
            }
            drop(held);
        });
        let order: Vec<u8> = told.try_iter().collect();
        assert_eq!(order, [1, 2, 3, 1, 3, 1, 1]);
    }

    #[test]
    fn who_is_dismissed_takes_no_turn_from_those_behind_it() {
        let turns = Turns::new(1);
        let held = turns.take(user(9), LONG).unwrap();
        let dismissed = [Arc::default(), Arc::default()];
        thread::scope(|scope| {
            let rides = scope.spawn(|| turns.take_as(&dismissed[0], user(1), LONG).is_err());
            until_waiting(&turns, 1);
            let waits = scope.spawn(|| turns.take(user(2), LONG).is_ok());
            until_waiting(&turns, 2);
            turns.dismiss(user(1), &dismissed[0]);
            assert_eq!(turns.waiting(), 1);
            drop(held);
            assert!(waits.join().unwrap());
            assert!(rides.join().unwrap());
        });
        assert!(turns.is_free());
        turns.dismiss(user(1), &dismissed[1]);
        let before = turns.take_as(&dismissed[1], user(1), LONG);
        assert_eq!(before.err(), Some(Late), "before it came to wait");
    }

    #[test]
    fn who_waited_too_long_leaves_and_its_turn_goes_to_the_next() {
        let turns = Turns::new(1);
        let held = turns.take(user(1), LONG).unwrap();
        let soon = Duration::from_millis(1);
        assert_eq!(turns.take(user(2), soon).err(), Some(Late));
        assert_eq!(turns.take(user(1), Duration::ZERO).err(), Some(Late));
        assert_eq!(turns.waiting(), 0);
        thread::scope(|scope| {
            let waits = scope.spawn(|| turns.take(user(2), LONG).is_ok());
            until_waiting(&turns, 1);
            drop(held);
            assert!(waits.join().unwrap());
        });
        assert!(turns.take(user(3), Duration::ZERO).is_ok());
    }
}
