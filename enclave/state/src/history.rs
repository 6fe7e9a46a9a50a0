//! Which heads the state contains: for anchors, session tokens and receipts.
//!
//! In: the records of the line, as they are found and written. Out: whether somebody's heads are part of
//! it, and if not, how far behind it is. Always true: a head at a position whose hash is remembered is
//! compared by hash, an older one by its position, which is as good while no writer signs two records for
//! one place: writers are certified code that cannot be set back.
//!
//! Memory: 32 bytes a record for the newest [`HASHES_MAX`] of each writer.

use std::collections::{BTreeMap, VecDeque};

use bield_capsule::{Head, WriterId};
use bield_envelope::Digest;

use crate::{Lacking, StateError};

/// The heads of a state.
#[derive(Default)]
pub(crate) struct History {
    writers: BTreeMap<WriterId, Known>,
    /// In the order of the line.
    order: Vec<WriterId>,
}

struct Known {
    tip: Head,
    /// Of the positions up to `tip`, without a gap.
    hashes: VecDeque<Digest>,
}

impl History {
    /// Learns a record: the next of its chain, or one that others before it are not known of.
    pub(crate) fn add(&mut self, head: Head) {
        let order = &mut self.order;
        let known = self.writers.entry(head.writer).or_insert_with(|| {
            order.push(head.writer);
            Known {
                tip: head,
                hashes: VecDeque::new(),
            }
        });
        if known.tip.seq.checked_add(1) != Some(head.seq) {
            known.hashes.clear();
        }
        known.tip = head;
        known.hashes.push_back(head.hash);
        if known.hashes.len() > HASHES_MAX {
            known.hashes.pop_front();
        }
    }

    /// Where the chains of so many of the newest holders end, oldest first.
    pub(crate) fn heads(&self, count: usize) -> Vec<Head> {
        let newest = self.order.len().saturating_sub(count);
        let known = self.order[newest..].iter();
        let heads = known.filter_map(|writer| self.writers.get(writer));
        heads.map(|known| known.tip).collect()
    }

    /// Of these heads those that are ahead of the state.
    ///
    /// # Errors
    /// [`StateError::Forked`]: the state has another record at such a place.
    pub(crate) fn lacking(&self, heads: &[Head]) -> Result<Vec<Lacking>, StateError> {
        let mut lacking = Vec::new();
        for head in heads {
            let (writer, need) = (head.writer, head.seq);
            let known = self.writers.get(&writer);
            match known {
                Some(known) if need <= known.tip.seq => {
                    if known.hash_at(need).is_some_and(|hash| hash != head.hash) {
                        return Err(StateError::Forked { writer, seq: need });
                    }
                }
                _ => lacking.push(Lacking {
                    writer,
                    have: known.map(|known| known.tip.seq),
                    need,
                }),
            }
        }
        Ok(lacking)
    }
}

impl Known {
    fn hash_at(&self, seq: u64) -> Option<Digest> {
        let back = usize::try_from(self.tip.seq.checked_sub(seq)?).ok()?;
        let at = self.hashes.len().checked_sub(back + 1)?;
        self.hashes.get(at).copied()
    }
}

/// 2 MiB a writer; of most the last manifest leaves one.
const HASHES_MAX: usize = 65_536;

/// Most chains whose ends a checkpoint names: 18 KiB. Those of older ones are in the levels ([`crate::earlier`]).
pub(crate) const HEADS_KEPT: usize = 256;
/// Chains whose ends a session token and a receipt name. The newest stands for all; a few more let a caller who was
/// away for some starts compare by itself.
pub(crate) const TOKEN_HEADS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(writer: u8, seq: u64) -> Head {
        Head {
            writer: WriterId::from_bytes([writer; 32]),
            seq,
            hash: Digest::of("test", &[&[writer], &seq.to_be_bytes()]),
        }
    }

    #[test]
    fn heads_are_contained_ahead_or_of_another_story() {
        let mut history = History::default();
        history.add(head(1, 9)); // a manifest covers what was before
        (0..5).for_each(|seq| history.add(head(2, seq)));
        assert_eq!(history.heads(9), [head(1, 9), head(2, 4)]);
        let contained = [head(1, 9), head(1, 3), head(2, 0), head(2, 4)];
        assert_eq!(history.lacking(&contained), Ok(Vec::new()));
        let ahead = history
            .lacking(&[head(2, 6), head(3, 1), head(2, 2)])
            .unwrap();
        assert_eq!(ahead[0].records(), 2);
        assert_eq!(ahead[1].records(), 2);
        assert_eq!(Lacking::sum(&ahead), 4);
        let mut other = head(2, 3);
        other.hash = head(9, 9).hash;
        let forked = StateError::Forked {
            writer: other.writer,
            seq: 3,
        };
        assert_eq!(history.lacking(&[head(2, 0), other]), Err(forked));
    }
}
