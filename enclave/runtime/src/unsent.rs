//! Memory for outputs that wait until they are read.
//!
//! ```text
//! an answer in parts begins ─ reserve the longest ─▶ Reserved ─ shrink to what was computed ─▶ its last part left: dropped
//! ```
//!
//! Always true: all that is reserved together stays below the limit; no user has more of it than was left for others when it
//! reserved, so that one alone gets at most half; whoever reserved before it computed never has to break off for want of
//! room. Not here: how long a reader may take (`call`).

use std::collections::HashMap;
use std::sync::Mutex;

use bield_envelope::Principal;

use crate::flights::lock;

/// Bytes that outputs may take.
pub(crate) struct Unsent {
    bytes_max: usize,
    /// By user; nobody is in it with 0.
    reserved: Mutex<HashMap<Principal, usize>>,
}

impl Unsent {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            reserved: Mutex::default(),
        }
    }

    /// Sets bytes aside for an answer; `None` without room.
    pub(crate) fn reserve(&self, user: Principal, bytes: usize) -> Option<Reserved<'_>> {
        let mut reserved = lock(&self.reserved);
        let left = self.bytes_max - reserved.values().sum::<usize>();
        let left = left.checked_sub(bytes)?;
        let own = reserved.get(&user).copied().unwrap_or(0);
        if own > left {
            return None;
        }
        reserved.insert(user, own + bytes);
        Some(Reserved {
            of: self,
            user,
            bytes,
        })
    }

    fn give_back(&self, user: Principal, bytes: usize) {
        let mut reserved = lock(&self.reserved);
        if let Some(own) = reserved.get_mut(&user) {
            *own -= bytes;
            if *own == 0 {
                reserved.remove(&user);
            }
        }
    }
}

/// Room for one answer's outputs, until dropped.
pub(crate) struct Reserved<'a> {
    of: &'a Unsent,
    user: Principal,
    bytes: usize,
}

impl Reserved<'_> {
    /// Gives back what is more than `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let more = self.bytes.saturating_sub(bytes);
        self.bytes -= more;
        self.of.give_back(self.user, more);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.of.give_back(self.user, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u8) -> Principal {
        Principal::from_bytes([number; 32])
    }

    #[test]
    fn one_user_gets_half_and_all_together_no_more_than_there_is() {
        let unsent = Unsent::new(60);
        let take = |number| unsent.reserve(user(number), 10);
        let own: Vec<_> = std::iter::from_fn(|| take(1)).collect();
        assert_eq!(own.len(), 3);
        let others: Vec<_> = std::iter::from_fn(|| take(2)).collect();
        assert_eq!(others.len(), 2);
        let last = take(3);
        assert!(last.is_some() && take(4).is_none());
        drop((own, others, last));
        assert!(unsent.reserve(user(1), 60).is_some());
        assert!(unsent.reserve(user(1), 61).is_none());
        assert!(lock(&unsent.reserved).is_empty());
    }

    #[test]
    fn what_an_answer_does_not_need_is_free_again() {
        let unsent = Unsent::new(60);
        let mut small = unsent.reserve(user(1), 60).unwrap();
        assert!(unsent.reserve(user(2), 1).is_none());
        small.shrink(1);
        small.shrink(60);
        assert!(unsent.reserve(user(2), 60).is_none());
        assert!(unsent.reserve(user(2), 59).is_some());
        small.shrink(0);
        drop(small);
        assert!(lock(&unsent.reserved).is_empty());
    }
}
