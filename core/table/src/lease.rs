//! Who alone may change a range of keys, and whose changes count (`spec/07 §6`).
//!
//! ```text
//! token 5, A ──────────●··········      changes of A after the dot do not count: lease 7 says it
//! token 6, B       ●∙∙∙∙∙∙∙∙∙∙∙∙∙∙      follows A there, and does not know B: B counts for nothing
//! token 7, C           ●──────────
//! ```
//!
//! In: leases as they come, in any order; changes to judge. Out: whether a change counts. Always true:
//! the answer follows from the set of leases and from where the change stands in its chain, never from
//! what came first; for each key one line of leases counts, from the highest token down. A lease that
//! comes late and changes an answer that was given is told ([`Leases::add`]).

use std::collections::BTreeMap;
use std::ops::Bound;

use bield_capsule::{Clock, WriterId};

use crate::{Followed, Lease, Version};

/// The leases that a table knows; a new table of the same capsule is opened with them.
#[derive(Clone, Debug, Default)]
pub struct Leases(BTreeMap<u64, Known>);

#[derive(Clone)]
struct Known {
    version: Version,
    /// Where it stands in its holder's chain.
    seq: u64,
    from: Vec<u8>,
    to: Vec<u8>,
    follows: Vec<Followed>,
    /// What was answered, by the first key of each stretch between bounds of leases.
    answered: BTreeMap<Vec<u8>, Answered>,
}

impl core::fmt::Debug for Known {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Lease of {}", self.version.writer.short())
    }
}

/// The newest change that was counted, the oldest that was not.
#[derive(Clone, Copy, Default)]
struct Answered {
    counted: Option<u64>,
    refused: Option<u64>,
}

impl Known {
    fn covers(&self, key: &[u8]) -> bool {
        *self.from <= *key && *key < *self.to
    }

    fn split(&mut self, at: &[u8]) {
        if !self.covers(at) {
            return;
        }
        let before = self.answered.range::<[u8], _>(up_to(at)).next_back();
        let answered = before.map(|(_, answered)| *answered).unwrap_or_default();
        self.answered.entry(at.to_vec()).or_insert(answered);
    }
}

impl Leases {
    /// The same leases, for a table that has judged nothing.
    pub(crate) fn unanswered(mut self) -> Self {
        for known in self.0.values_mut() {
            for answered in known.answered.values_mut() {
                *answered = Answered::default();
            }
        }
        self
    }

    /// Whether this very lease is known.
    pub(crate) fn knows(&self, token: u64, version: &Version) -> bool {
        self.0
            .get(&token)
            .is_some_and(|known| known.version == *version)
    }

    /// Takes a lease in. `false`: changes that were judged before are to be judged otherwise now.
    pub(crate) fn add(&mut self, version: Version, seq: u64, lease: &Lease<'_>) -> bool {
        let known = Known {
            version,
            seq,
            from: lease.from.to_vec(),
            to: lease.to.to_vec(),
            follows: lease.follows().collect(),
            answered: BTreeMap::new(),
        };
        // spec/07 §6: of two leases with one token the older version counts.
        if self
            .0
            .get(&lease.token)
            .is_some_and(|known| known.version <= version)
        {
            return true;
        }
        for other in self.0.values_mut() {
            other.split(lease.from);
            other.split(lease.to);
        }
        let bounds: Vec<Vec<u8>> = self
            .0
            .values()
            .flat_map(|k| [k.from.clone(), k.to.clone()])
            .collect();
        let replaced = self.0.insert(lease.token, known);
        if let Some(known) = self.0.get_mut(&lease.token) {
            known
                .answered
                .insert(lease.from.to_vec(), Answered::default());
            for bound in &bounds {
                known.split(bound);
            }
        }
        let judged = replaced.is_some_and(|known| {
            let mut answered = known.answered.values();
            answered.any(|answered| answered.counted.is_some() || answered.refused.is_some())
        });
        !judged && self.answers_hold()
    }

    fn answers_hold(&self) -> bool {
        self.0.iter().all(|(token, known)| {
            known.answered.iter().all(|(key, answered)| {
                let counts = |seq| self.judge(key, &known.version.writer, seq, *token);
                answered.counted.is_none_or(counts) && !answered.refused.is_some_and(counts)
            })
        })
    }

    /// Whether a change under a lease counts, and remembers that this was answered.
    pub(crate) fn counts(&mut self, key: &[u8], writer: &WriterId, seq: u64, token: u64) -> bool {
        let counts = self.judge(key, writer, seq, token);
        let Some(known) = self.0.get_mut(&token) else {
            return counts;
        };
        if known.version.writer != *writer {
            return counts;
        }
        let stretch = known.answered.range_mut::<[u8], _>(up_to(key)).next_back();
        if let Some((_, answered)) = stretch.filter(|_| *known.from <= *key && *key < *known.to) {
            if counts {
                answered.counted = answered.counted.max(Some(seq));
            } else {
                answered.refused = Some(answered.refused.map_or(seq, |known| known.min(seq)));
            }
        }
        counts
    }

    fn judge(&self, key: &[u8], writer: &WriterId, seq: u64, token: u64) -> bool {
        let mut limit = u64::MAX;
        let Some(mut at) = self.highest(key) else {
            return false;
        };
        loop {
            let known = &self.0[&at];
            if at == token {
                return known.version.writer == *writer && seq >= known.seq && seq <= limit;
            }
            let Some((below, through)) = self.below(known, key) else {
                return false;
            };
            (at, limit) = (below, through);
        }
    }

    /// Whether a change without a lease counts: before the key was leased first.
    pub(crate) fn free(&self, key: &[u8], clock: Clock) -> bool {
        let mut covering = self.0.values().filter(|known| known.covers(key));
        covering.all(|known| clock < known.version.clock)
    }

    /// Whether a range delete counts: before any key of the range was leased first.
    pub(crate) fn free_range(&self, from: &[u8], to: &[u8], clock: Clock) -> bool {
        let mut overlapping = self.overlapping(from, to);
        overlapping.all(|(_, known)| clock < known.version.clock)
    }

    /// Token and holder of the lease that counts now.
    pub(crate) fn holder(&self, key: &[u8]) -> Option<(u64, WriterId)> {
        let token = self.highest(key)?;
        Some((token, self.0[&token].version.writer))
    }

    /// Whether a writer holds all of a range.
    pub(crate) fn holds(&self, writer: &WriterId, from: &[u8], to: &[u8]) -> bool {
        let own = |key: &[u8]| {
            self.holder(key)
                .is_some_and(|(_, holder)| holder == *writer)
        };
        let mut bounds = self.0.values().flat_map(|known| [&known.from, &known.to]);
        own(from) && bounds.all(|bound| !(from < bound && bound.as_slice() < to) || own(bound))
    }

    /// Leases that overlap a range, tokens descending.
    pub(crate) fn overlapping(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = (u64, LeaseOf<'_>)> {
        let all = self.0.iter().rev();
        let known = all.filter(move |(_, known)| *known.from < *to && *from < *known.to);
        known.map(|(token, known)| {
            let version = &known.version;
            (*token, LeaseOf { version })
        })
    }

    fn highest(&self, key: &[u8]) -> Option<u64> {
        let mut covering = self.0.iter().rev().filter(|(_, known)| known.covers(key));
        covering.next().map(|(token, _)| *token)
    }

    /// The lease that this one follows at a key, and through where it counts.
    fn below(&self, known: &Known, key: &[u8]) -> Option<(u64, u64)> {
        known.follows.iter().find_map(|followed| {
            let other = self.0.get(&followed.token)?;
            let is = other.version.writer == followed.holder
                && other.seq <= followed.seq
                && other.covers(key);
            is.then_some((followed.token, followed.seq))
        })
    }
}

fn up_to(key: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(key))
}

/// A lease, as far as others ask.
pub(crate) struct LeaseOf<'a> {
    pub(crate) version: &'a Version,
}
