//! Memory for outputs that wait until they are read.
//!
//! ```text
//! an answer in parts begins ─ reserve the longest ─▶ Reserved ─ keep what was computed ─▶ its last part left: dropped
//! ```
//!
//! Always true: all that is reserved together stays below the limit; no user is given more while it keeps more unread than
//! would be left, so that one alone leaves at least half of what is there beyond all that turns can take at once; requests
//! that still compute, which turns limit, are not held against their user; whoever reserved before it computed never has to
//! break off for want of room. Not here: how long a reader may take (`call`).

use std::collections::HashMap;
use std::sync::Mutex;

use bield_envelope::Principal;

use crate::flights::lock;

/// Bytes that outputs may take.
pub(crate) struct Unsent {
    bytes_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// For all that is reserved.
    bytes: usize,
    /// Of that what waits for its reader, by user; nobody is in it with 0.
    kept: HashMap<Principal, usize>,
}

impl Unsent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            taken: Mutex::default(),
        }
    }

    /// Sets bytes aside for an answer; `None` without room.
    pub(crate) fn reserve(&self, user: Principal, bytes: usize) -> Option<Reserved<'_>> {
        let mut taken = lock(&self.taken);
        let left = (self.bytes_max - taken.bytes).checked_sub(bytes)?;
        if taken.kept.get(&user).is_some_and(|own| *own > left) {
            return None;
        }
        taken.bytes += bytes;
        Some(Reserved {
            of: self,
            user,
            bytes,
            kept: 0,
        })
    }
}

/// Room for one answer's outputs, until dropped.
pub(crate) struct Reserved<'a> {
    of: &'a Unsent,
    user: Principal,
    bytes: usize,
    /// All of it or nothing.
    kept: usize,
}

impl Reserved<'_> {
    /// Keeps at most `bytes` for the reader from now on, and gives back what is more.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let bytes = self.bytes.min(bytes);
        let mut taken = lock(&self.of.taken);
        taken.bytes -= self.bytes - bytes;
        let own = taken.kept.entry(self.user).or_default();
        *own = *own - self.kept + bytes;
        if *own == 0 {
            taken.kept.remove(&self.user);
        }
        (self.bytes, self.kept) = (bytes, bytes);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn user(number: u8) -> Principal {
        Principal::from_bytes([number; 32])
    }

    /// Nothing is reserved, nor remembered.
    fn is_empty(unsent: &Unsent) -> bool {
        let taken = lock(&unsent.taken);
        (taken.bytes, taken.kept.len()) == (0, 0)
    }

    #[test]
    fn one_user_gets_half_and_all_together_no_more_than_there_is() {
        let unsent = Unsent::new(60);
        let take = |number| {
            let mut reserved = unsent.reserve(user(number), 10)?;
            reserved.keep(10);
            Some(reserved)
        };
        let own: Vec<_> = std::iter::from_fn(|| take(1)).collect();
        assert_eq!(own.len(), 3);
        let others: Vec<_> = std::iter::from_fn(|| take(2)).collect();
        assert_eq!(others.len(), 2);
        let last = take(3);
        assert!(last.is_some() && take(4).is_none());
        drop((own, others, last));
        assert!(unsent.reserve(user(1), 60).is_some());
        assert!(unsent.reserve(user(1), 61).is_none());
        assert!(is_empty(&unsent));
    }

    #[test]
    fn who_computes_on_all_turns_and_reads_at_once_is_not_refused() {
        let turns = 8;
        let unsent = Unsent::new((turns + 5) * 10);
        let reserve = || unsent.reserve(user(1), 10);
        let mut under_way: VecDeque<_> = std::iter::from_fn(reserve).take(turns).collect();
        assert_eq!(under_way.len(), turns);
        for _ in 0..3 * turns {
            let mut read = under_way.pop_front().unwrap();
            read.keep(10);
            under_way.push_back(reserve().unwrap());
        }
        drop(under_way);
        assert!(is_empty(&unsent));
    }

    #[test]
    fn one_user_alone_leaves_room_however_it_mixes_runs_and_unread_answers() {
        let (turns, spare) = (8, 5);
        let unsent = Unsent::new((turns + spare) * 10);
        for unread_first in 0..=turns {
            let mut held: Vec<_> = (0..unread_first)
                .filter_map(|_| unsent.reserve(user(1), 10))
                .collect();
            held.iter_mut().for_each(|one| one.keep(10));
            held.extend((0..turns).map_while(|_| unsent.reserve(user(1), 10)));
            held.iter_mut().for_each(|one| one.keep(10));
            assert!(unsent.reserve(user(1), 10).is_none(), "{unread_first}");
            let others: Vec<_> = std::iter::from_fn(|| unsent.reserve(user(2), 10)).collect();
            assert!(others.len() >= spare / 2, "{unread_first}");
        }
    }

    #[test]
    fn what_an_answer_does_not_need_is_free_again() {
        let unsent = Unsent::new(60);
        let mut small = unsent.reserve(user(1), 60).unwrap();
        assert!(unsent.reserve(user(2), 1).is_none());
        small.keep(1);
        small.keep(60);
        assert!(unsent.reserve(user(2), 60).is_none());
        assert!(unsent.reserve(user(2), 59).is_some());
        small.keep(0);
        drop(small);
        assert!(is_empty(&unsent));
    }
}
