//! Skip pointers: which earlier records a record names by hash (`spec/06 §3`).
//!
//! ```text
//! seq   0    1    2    3    4    5    6    7    8        8 names 7 (prev), 6, 4 and 0
//!       ◀──────────────────────────────────────┘
//!                           ◀──────────────────┘
//!                                     ◀────────┘
//! ```
//!
//! In: header hashes in the order of seq. Out: the pointers of the next record. Always true: for
//! every power of two up to the chain's length it holds the newest multiple's hash, and those are
//! exactly the pointers that a record needs, because seq is itself a multiple of every distance it
//! points over. Memory: 32 bytes per doubling of the chain, 2 KiB at most.

use bield_envelope::Digest;

use crate::record::ZERO;
use crate::skips_at;

/// What a chain's next record needs to know of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SkipLevels {
    /// Position of the next record.
    next: u64,
    /// Header hash at seq 0: the newest multiple of every power of two beyond the chain's length.
    first: Option<Digest>,
    /// At j: the hash of the newest record whose seq is a multiple of 2^j.
    levels: Vec<Digest>,
}

impl SkipLevels {
    /// A chain without records.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: 0,
            first: None,
            levels: Vec::new(),
        }
    }

    /// The levels of a chain whose next record is `next`, from the header hashes that `hash_at` knows: it
    /// is asked for exactly those that are kept. `None` when one is missing.
    ///
    /// Nothing is checked here: a wrong hash makes every later record that names it look wrong.
    #[must_use]
    pub fn restore(next: u64, mut hash_at: impl FnMut(u64) -> Option<Digest>) -> Option<Self> {
        let Some(newest) = next.checked_sub(1) else {
            return Some(Self::new());
        };
        let levels = newest.checked_ilog2().map_or(1, |log| log + 1);
        Some(Self {
            next,
            first: Some(hash_at(0)?),
            levels: (0..levels)
                .map(|level| hash_at(newest >> level << level))
                .collect::<Option<_>>()?,
        })
    }

    /// Position of the next record.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Header hash of the newest record.
    #[must_use]
    pub fn newest(&self) -> Option<Digest> {
        self.levels.first().copied()
    }

    /// `prev` of the next record: zero at seq 0.
    #[must_use]
    pub fn prev(&self) -> Digest {
        self.newest().unwrap_or(ZERO)
    }

    /// Skip pointers of the next record.
    #[must_use]
    pub fn skips(&self) -> Vec<Digest> {
        let first = self.first.unwrap_or(ZERO);
        (1..=skips_at(self.next))
            .map(|level| self.levels.get(level).copied().unwrap_or(first))
            .collect()
    }

    /// Header hash at `seq`, where it is among those that are kept.
    #[must_use]
    pub fn hash_at(&self, seq: u64) -> Option<Digest> {
        let newest = self.next.checked_sub(1)?;
        if seq == 0 {
            return self.first;
        }
        let kept = |level: &usize| newest >> level << level == seq;
        (0..self.levels.len())
            .find(kept)
            .map(|level| self.levels[level])
    }

    /// Whether `skips` are the pointers of the next record; without allocating.
    #[must_use]
    pub fn are(&self, skips: &[Digest]) -> bool {
        skips.len() == skips_at(self.next)
            && skips
                .iter()
                .zip(1..)
                .all(|(skip, level)| self.levels.get(level).copied().or(self.first) == Some(*skip))
    }

    /// Adds the next record.
    ///
    /// # Panics
    /// When `seq` is not the next: a gap would silently name wrong records for ever.
    pub fn push(&mut self, seq: u64, hash: Digest) {
        assert_eq!(seq, self.next, "records are added in order");
        if seq == 0 {
            self.first = Some(hash);
            self.levels.push(hash);
        } else {
            let levels = skips_at(seq) + 1;
            if self.levels.len() < levels {
                self.levels.resize(levels, hash);
            }
            self.levels[..levels].fill(hash);
        }
        self.next = seq.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(seq: u64) -> Digest {
        Digest::of("test", &[&seq.to_be_bytes()])
    }

    #[test]
    fn pointers_are_the_hashes_at_every_power_of_two_back() {
        let mut levels = SkipLevels::new();
        for seq in 0..3000 {
            let skips: Vec<_> = (1..=skips_at(seq)).map(|j| hash(seq - (1 << j))).collect();
            assert_eq!(levels.skips(), skips, "{seq}");
            assert!(levels.are(&skips));
            if let [first, ..] = skips[..] {
                let mut other = skips.clone();
                other[0] = Digest::of("other", &[first.as_bytes()]);
                assert!(!levels.are(&other) && !levels.are(&skips[1..]));
            }
            let prev = seq.checked_sub(1).map(hash);
            assert_eq!(levels.newest(), prev);
            let known = (0..seq).filter(|at| levels.hash_at(*at) == Some(hash(*at)));
            let said = (0..seq).filter(|at| levels.hash_at(*at).is_some());
            assert!(seq > 70 || (known.eq(said) && levels.hash_at(seq).is_none()));
            levels.push(seq, hash(seq));
        }
        assert!(levels.levels.len() == 12, "2^11 is the largest below 3000");
    }

    #[test]
    fn levels_are_restored_from_the_hashes_that_are_kept() {
        let mut levels = SkipLevels::new();
        for seq in 0..600 {
            let restored = SkipLevels::restore(seq, |at| levels.hash_at(at));
            assert_eq!(restored.as_ref(), Some(&levels), "{seq}");
            assert!(seq == 0 || SkipLevels::restore(seq, |_| None).is_none());
            levels.push(seq, hash(seq));
        }
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn a_gap_is_a_bug() {
        SkipLevels::new().push(1, hash(1));
    }
}
