//! Counts requests against what a key service set aside for this runtime.
//!
//! ```text
//!   key service: quota 100 ─ 40 set aside ─▶ Allotment ─▶ Meter ─ take ─▶ 39, 38, … 0, refused
//!                          ◀── unused ─────────────────── Meter
//! ```
//!
//! Always true: for each grant, requests taken and not given back never exceed the allotment,
//! whatever threads do; a grant without an allotment has none. What is never returned counts as used.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bield_envelope::Digest;
use minicbor::{Decode, Encode};

/// So many requests under one metered grant, set aside for one lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Allotment {
    /// The grant: digest of its signed bytes.
    #[n(0)]
    pub grant: Digest,
    /// How many requests.
    #[n(1)]
    pub requests: u64,
}

/// Most requests that one lease holds of one grant: what a runtime that dies can lose.
pub const ALLOTMENT_MAX: u64 = 1_000;

impl Allotment {
    /// How much of `left` requests one lease gets: half of them, so that another runtime finds some
    /// too; at least one while there is one, at most [`ALLOTMENT_MAX`].
    #[must_use]
    pub const fn share(left: u64) -> u64 {
        let half = left.div_ceil(2);
        if half < ALLOTMENT_MAX {
            half
        } else {
            ALLOTMENT_MAX
        }
    }
}

/// What is left of the allotments of one lease; shared by the threads that serve under it.
#[derive(Debug, Default)]
pub struct Meter(BTreeMap<Digest, AtomicU64>);

impl Meter {
    /// Starts to count. An allotment that is listed twice counts once, with its smaller number.
    #[must_use]
    pub fn new(allotments: impl IntoIterator<Item = Allotment>) -> Self {
        let mut left = BTreeMap::new();
        for Allotment { grant, requests } in allotments {
            left.entry(grant)
                .and_modify(|known: &mut u64| *known = requests.min(*known))
                .or_insert(requests);
        }
        let counters = left
            .into_iter()
            .map(|(grant, left)| (grant, AtomicU64::new(left)));
        Self(counters.collect())
    }

    /// Takes one request; `false` when none is left.
    #[must_use]
    pub fn take(&self, grant: &Digest) -> bool {
        self.0.get(grant).is_some_and(|left| {
            left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
                left.checked_sub(1)
            })
            .is_ok()
        })
    }

    /// Gives back one request that was taken and not served.
    pub(crate) fn give_back(&self, grant: &Digest) {
        if let Some(left) = self.0.get(grant) {
            left.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Takes all that is left, to return it to the key service: nothing is admitted by this meter
    /// afterwards.
    #[must_use]
    pub fn unused(&self) -> Vec<Allotment> {
        let take = |(grant, left): (&Digest, &AtomicU64)| Allotment {
            grant: *grant,
            requests: left.swap(0, Ordering::AcqRel),
        };
        self.0
            .iter()
            .map(take)
            .filter(|unused| unused.requests > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(number: u8) -> Digest {
        Digest::of("test grant", &[&[number]])
    }

    fn allotted(number: u8, requests: u64) -> Allotment {
        Allotment {
            grant: grant(number),
            requests,
        }
    }

    #[test]
    fn a_grant_without_an_allotment_has_none() {
        let meter = Meter::new([allotted(1, 1)]);
        assert!(!meter.take(&grant(2)) && !Meter::default().take(&grant(1)));
        meter.give_back(&grant(2));
        assert!(!meter.take(&grant(2)), "and none can be given back to it");
    }

    #[test]
    fn what_is_returned_is_not_served_any_more() {
        let meter = Meter::new([allotted(1, 3), allotted(2, 1)]);
        assert!(meter.take(&grant(1)) && meter.take(&grant(2)));
        assert_eq!(meter.unused(), [allotted(1, 2)]);
        assert!(!meter.take(&grant(1)));
        assert_eq!(meter.unused(), [], "returned once");
    }

    #[test]
    fn an_allotment_listed_twice_counts_once() {
        for both in [
            [allotted(1, 2), allotted(1, 5)],
            [allotted(1, 5), allotted(1, 2)],
        ] {
            assert_eq!(Meter::new(both).unused(), [allotted(1, 2)]);
        }
    }

    #[test]
    fn a_share_leaves_something_for_others_and_uses_all_up_in_the_end() {
        assert_eq!([0, 1, 2, 3, 100].map(Allotment::share), [0, 1, 1, 2, 50]);
        assert_eq!(Allotment::share(u64::MAX), ALLOTMENT_MAX);
        let (mut left, mut leases) = (5_000u64, 0);
        while left > 0 {
            left -= Allotment::share(left);
            leases += 1;
        }
        assert!(leases < 20, "{leases} leases for one quota");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn threads_together_take_exactly_what_was_allotted(allotment in 0..200u64, threads in 1..5u64) {
            let meter = Meter::new([allotted(1, allotment)]);
            let take = || (0..100).filter(|_| meter.take(&grant(1))).count() as u64;
            let taken: u64 = std::thread::scope(|scope| {
                let all: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
                all.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            prop_assert_eq!(taken, allotment.min(threads * 100));
            let unused: u64 = meter.unused().iter().map(|unused| unused.requests).sum();
            prop_assert_eq!(taken + unused, allotment);
        }
    }
}
