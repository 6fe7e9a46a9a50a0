//! The order of holders: from the chains that are there to the one line of records that counts.
//!
//! ```text
//! chain A, token 3   0 1 2 3 4 5 6         6 was written after B began: it does not count
//!                              ▲
//! chain B, token 4             0 1 2 3     before = A/5
//!                                    ▲
//! chain C, token 4                   0 1   before = B/3; nobody names C: the newest
//! ```
//!
//! In: verified chains. Out: [`Line`]. Always true: every chain but the newest counts through the record that
//! its successor found, no further; of two holders the one with the larger token counts. A state's files
//! hold one line, or the copies of a directory that both went on: [`StateError::Forked`].

use std::collections::BTreeMap;

use bield_capsule::{Head, WriterId};

use super::chain::{Chain, Segment, Stored};
use crate::StateError;

/// The records that count, and the chains beside them.
pub(crate) struct Line {
    /// Oldest first.
    pub(crate) chains: Vec<Counted>,
    /// Files of chains that do not count: broken starts, or holders that were succeeded.
    pub(crate) aside: Vec<Segment>,
}

/// A chain, and how much of it counts.
pub(crate) struct Counted {
    pub(crate) chain: Chain,
    pub(crate) through: Head,
}

impl Line {
    /// Orders the chains.
    pub(crate) fn of(chains: Vec<Chain>) -> Result<Self, StateError> {
        let mut waiting: BTreeMap<WriterId, Chain> = BTreeMap::new();
        let mut aside = Vec::new();
        for chain in chains {
            match chain.fence {
                Some(_) => drop(waiting.insert(chain.writer, chain)),
                None => aside.extend(chain.segments),
            }
        }
        let mut line = Vec::new();
        let mut through = newest(&waiting)?;
        while let Some(head) = through {
            // Not there: then a manifest has to cover it, see `Line::missing`.
            let Some(chain) = waiting.remove(&head.writer) else {
                break;
            };
            if let Some(stored) = chain.records.get(&head.seq)
                && stored.hash() != head.hash
            {
                let (writer, seq) = (head.writer, head.seq);
                return Err(StateError::Forked { writer, seq });
            }
            through = chain.fence.and_then(|fence| fence.before);
            line.push(Counted {
                chain,
                through: head,
            });
        }
        line.reverse();
        let unused = waiting.into_values().flat_map(|chain| chain.segments);
        aside.extend(unused);
        Ok(Self {
            chains: line,
            aside,
        })
    }

    /// The records that count, oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = (WriterId, u64, &Stored)> {
        self.chains.iter().flat_map(|counted| {
            let records = counted.chain.records.range(..=counted.through.seq);
            records.map(|(seq, stored)| (counted.chain.writer, *seq, stored))
        })
    }

    /// The newest record.
    pub(crate) fn tip(&self) -> Option<Head> {
        Some(self.chains.last()?.through)
    }

    /// Checks that all records are there but for those that the newest manifest covers.
    pub(crate) fn whole(&self, covered: &BTreeMap<WriterId, Head>) -> Result<(), StateError> {
        let covers =
            |writer: &WriterId, seq: u64| covered.get(writer).is_some_and(|head| head.seq >= seq);
        for (index, counted) in self.chains.iter().enumerate() {
            let writer = counted.chain.writer;
            let through = counted.through.seq;
            let missing = |from, to| Err(StateError::Missing { writer, from, to });
            for hole in &counted.chain.holes {
                let to = hole.to.min(through);
                if hole.from <= to && !covers(&writer, to) {
                    return missing(hole.from, to);
                }
            }
            let newest = counted.chain.tip().map(|head| head.seq);
            if newest.is_none_or(|newest| newest < through) && !covers(&writer, through) {
                return missing(newest.map_or(0, |newest| newest + 1), through);
            }
            let before = counted.chain.fence.and_then(|fence| fence.before);
            if let Some(before) = before.filter(|_| index == 0)
                && !covers(&before.writer, before.seq)
            {
                return Err(StateError::Missing {
                    writer: before.writer,
                    from: 0,
                    to: before.seq,
                });
            }
        }
        Ok(())
    }
}

/// The tip of the newest chain: of those with the largest token the one that no other follows.
fn newest(chains: &BTreeMap<WriterId, Chain>) -> Result<Option<Head>, StateError> {
    let fence = |chain: &Chain| chain.fence.map(|fence| (fence.token, fence.before));
    let token = chains
        .values()
        .filter_map(|chain| Some(fence(chain)?.0))
        .max();
    let holders = || {
        let of_token = |chain: &&Chain| chain.fence.map(|fence| fence.token) == token;
        chains.values().filter(of_token)
    };
    let followed = |chain: &Chain| {
        holders().any(|other| {
            let before = fence(other).and_then(|(_, before)| before);
            before.is_some_and(|before| before.writer == chain.writer)
        })
    };
    let mut last = holders().filter(|chain| !followed(chain));
    let Some(newest) = last.next() else {
        return Ok(None);
    };
    match last.next() {
        Some(other) => Err(StateError::Forked {
            writer: other.writer,
            seq: 0,
        }),
        None => Ok(newest.tip()),
    }
}
