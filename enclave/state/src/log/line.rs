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

use std::collections::{BTreeMap, BTreeSet};

use bield_capsule::{Head, WriterId};

use super::chain::{Chain, Segment, Stored};
use crate::StateError;
use crate::control::{Checkpoint, Control};

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

/// What the newest checkpoint of a line covers.
#[derive(Default)]
pub(crate) struct Covered {
    /// Where the newest chains ended, by writer.
    heads: BTreeMap<WriterId, Head>,
    /// Holders before the one whose flush it speaks of: that one had read all that counts of their chains, also of those that are too long
    /// ago to be named.
    before: BTreeSet<WriterId>,
}

impl Covered {
    /// Whether a record, and all before it in its chain, is in the levels.
    pub(crate) fn covers(&self, writer: &WriterId, seq: u64) -> bool {
        let named = self.heads.get(writer).is_some_and(|head| head.seq >= seq);
        named || self.before.contains(writer)
    }

    /// Whether a chain is one that the checkpoint does not name any more.
    pub(crate) fn is_forgotten(&self, writer: &WriterId) -> bool {
        self.before.contains(writer) && !self.heads.contains_key(writer)
    }

    pub(crate) fn heads(&self) -> impl Iterator<Item = &Head> {
        self.heads.values()
    }
}

impl Counted {
    fn checkpoint(&self) -> Option<(u64, &Checkpoint)> {
        let records = self.chain.records.range(..=self.through.seq);
        let control =
            records.flat_map(|(seq, stored)| stored.control.iter().map(|one| (*seq, one)));
        let mut checkpoints = control.filter_map(|(seq, control)| match control {
            Control::Checkpoint(checkpoint) => Some((seq, checkpoint)),
            Control::Fence(_) => None,
        });
        checkpoints.next_back()
    }
}

impl Line {
    /// The newest checkpoint of the line, and what that covers.
    pub(crate) fn checkpoint(&self) -> Option<(&Checkpoint, Covered)> {
        let (_, _, checkpoint) = self.newest_checkpoint()?;
        let at = self.flushed(checkpoint).unwrap_or(0);
        let heads = checkpoint.covered.iter().map(|head| (head.writer, *head));
        let before = self.chains[..at].iter();
        let covered = Covered {
            heads: heads.collect(),
            before: before.map(|counted| counted.chain.writer).collect(),
        };
        Some((checkpoint, covered))
    }

    /// Files with nothing but what the newest checkpoint covers, if that stands at or before an anchored head: whoever
    /// follows has it in its line too.
    pub(crate) fn behind(&self, anchored: &[Head]) -> Vec<Segment> {
        let Some((at, seq, checkpoint)) = self.newest_checkpoint() else {
            return Vec::new();
        };
        let of = |writer: &WriterId| {
            let chain = |counted: &Counted| counted.chain.writer == *writer;
            self.chains.iter().position(chain)
        };
        let reaches = |head: &Head| match of(&head.writer) {
            Some(place) => place > at || (place == at && head.seq >= seq),
            None => false,
        };
        if !anchored.iter().any(reaches) {
            return Vec::new();
        }
        let Some(at) = self.flushed(checkpoint) else {
            return Vec::new();
        };
        let before = self.chains[..at].iter();
        let mut behind: Vec<_> = before
            .flat_map(|counted| counted.chain.segments.clone())
            .collect();
        let chain = &self.chains[at].chain;
        let own = checkpoint
            .covered
            .iter()
            .find(|head| head.writer == chain.writer);
        let through = own.map_or(0, |head| head.seq);
        let pairs = chain.segments.iter().zip(chain.segments.iter().skip(1));
        let covered = pairs.filter(|(_, next)| next.first <= through + 1);
        behind.extend(covered.map(|(segment, _)| segment.clone()));
        behind
    }

    /// The chain of the holder whose flush a checkpoint speaks of; that of a later compaction says the same again.
    fn flushed(&self, checkpoint: &Checkpoint) -> Option<usize> {
        let flushed = checkpoint.covered.last()?.writer;
        let mut chains = self.chains.iter();
        chains.position(|counted| counted.chain.writer == flushed)
    }

    /// Where it stands: which chain, which record.
    fn newest_checkpoint(&self) -> Option<(usize, u64, &Checkpoint)> {
        let mut chains = self.chains.iter().enumerate().rev();
        chains.find_map(|(at, counted)| {
            let (seq, checkpoint) = counted.checkpoint()?;
            Some((at, seq, checkpoint))
        })
    }

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
    pub(crate) fn whole(&self, covered: &Covered) -> Result<(), StateError> {
        let covers = |writer: &WriterId, seq: u64| covered.covers(writer, seq);
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
            // What lies before a chain that is covered so is covered too.
            let is_first = index == 0 && !covered.before.contains(&writer);
            if let Some(before) = before.filter(|_| is_first)
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
