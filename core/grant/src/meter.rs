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
