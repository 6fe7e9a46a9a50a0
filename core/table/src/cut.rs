//! How far each writer's chain is known, and cuts through all of them (`spec/07 §5`).
//!
//! ```text
//! writer A   e e │ e e e        a cut names a record of each chain; since clocks increase along a
//! writer B   e │ e e            chain, a clock for each writer says the same of entries
//! ```
//!
//! In: the records of every writer in the order of its chain. Out: where chains stand, and cuts as
//! clocks. Always true: a cut never shrinks; a cut is only used when everything in it is here.

use std::collections::{BTreeMap, VecDeque};

use bield_capsule::{Clock, WriterId};

use crate::Version;

/// Most marks kept of a chain between two cuts: 1 MiB. Beyond, every other one goes, and a cut may be
/// taken for a little earlier than it is.
const MARKS_MAX: usize = 65_536;

/// For each writer the newest clock that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut(BTreeMap<WriterId, Clock>);

impl Cut {
    /// Whether an entry of this version is in it.
    pub(crate) fn includes(&self, version: &Version) -> bool {
        self.0
            .get(&version.writer)
            .is_some_and(|clock| version.clock <= *clock)
    }

    pub(crate) fn clock_of(&self, writer: &WriterId) -> Option<Clock> {
        self.0.get(writer).copied()
    }

    /// Takes in what is in another one.
    pub(crate) fn join(&mut self, other: &Self) {
        for (writer, clock) in &other.0 {
            let own = self.0.entry(*writer).or_default();
            *own = (*own).max(*clock);
        }
    }
}

/// Where every chain stands.
#[derive(Debug, Default)]
pub(crate) struct Chains(BTreeMap<WriterId, Chain>);

#[derive(Debug, Default)]
struct Chain {
    /// The newest record applied.
    seq: u64,
    /// Clock of its newest entry.
    clock: Clock,
    /// Records with entries since the newest cut: seq, and the clock of the last entry up to there.
    marks: VecDeque<(u64, Clock)>,
}

impl Chains {
    /// Clock of a writer's newest entry.
    pub(crate) fn clock(&self, writer: &WriterId) -> Clock {
        self.0
            .get(writer)
            .map_or_else(Clock::default, |chain| chain.clock)
    }

    /// The newest record applied of a writer.
    pub(crate) fn seq(&self, writer: &WriterId) -> Option<u64> {
        self.0.get(writer).map(|chain| chain.seq)
    }

    /// Takes note of a record; `clock` of its last entry, when it has any.
    pub(crate) fn extend(&mut self, writer: WriterId, seq: u64, clock: Option<Clock>) {
        let chain = self.0.entry(writer).or_default();
        chain.seq = chain.seq.max(seq);
        if let Some(clock) = clock {
            chain.clock = chain.clock.max(clock);
            chain.marks.push_back((seq, clock));
            if chain.marks.len() > MARKS_MAX {
                let mut odd = false;
                chain.marks.retain(|_| {
                    odd = !odd;
                    !odd
                });
            }
        }
    }

    /// The newest record of every chain, ascending by writer.
    pub(crate) fn all(&self) -> impl Iterator<Item = (WriterId, u64)> {
        self.0.iter().map(|(writer, chain)| (*writer, chain.seq))
    }

    /// The cut through these positions; none while a record in it is not here.
    pub(crate) fn cut(&self, at: &[(WriterId, u64)], before: &Cut) -> Option<Cut> {
        let mut cut = before.clone();
        for (writer, seq) in at {
            let chain = self.0.get(writer).filter(|chain| chain.seq >= *seq)?;
            let after = chain.marks.partition_point(|mark| mark.0 <= *seq);
            if let Some((_, clock)) = after.checked_sub(1).map(|index| chain.marks[index]) {
                let own = cut.0.entry(*writer).or_default();
                *own = (*own).max(clock);
            }
        }
        Some(cut)
    }

    /// Forgets marks that no later cut asks for.
    pub(crate) fn forget(&mut self, cut: &Cut) {
        for (writer, chain) in &mut self.0 {
            let Some(clock) = cut.clock_of(writer) else {
                continue;
            };
            // The newest in the cut stays: a later cut may name the same place.
            while chain.marks.get(1).is_some_and(|mark| mark.1 <= clock) {
                chain.marks.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(byte: u8) -> WriterId {
        WriterId::from_bytes([byte; 32])
    }

    fn version(clock: u64, by: u8) -> Version {
        Version {
            clock: Clock::from_bits(clock),
            writer: writer(by),
        }
    }

    #[test]
    fn a_cut_through_records_is_one_through_clocks() {
        let mut chains = Chains::default();
        for (seq, clock) in [(1, Some(10)), (2, None), (3, Some(30)), (5, Some(50))] {
            chains.extend(writer(1), seq, clock.map(Clock::from_bits));
        }
        chains.extend(writer(2), 1, Some(Clock::from_bits(5)));
        let none = Cut::default();
        let cut = chains
            .cut(&[(writer(1), 4), (writer(2), 1)], &none)
            .unwrap();
        assert!(cut.includes(&version(30, 1)) && !cut.includes(&version(31, 1)));
        assert!(cut.includes(&version(5, 2)) && !cut.includes(&version(1, 3)));
        assert_eq!(chains.cut(&[(writer(1), 6)], &none), None);
        assert_eq!(chains.cut(&[(writer(3), 0)], &none), None);
        chains.forget(&cut);
        let again = chains.cut(&[(writer(1), 4)], &cut).unwrap();
        assert_eq!(again, cut);
        let later = chains.cut(&[(writer(1), 5)], &cut).unwrap();
        assert!(later.includes(&version(50, 1)) && later.includes(&version(5, 2)));
    }

    #[test]
    fn marks_are_bounded_and_a_cut_is_never_taken_for_later() {
        let mut chains = Chains::default();
        for seq in 1..=MARKS_MAX as u64 + 10 {
            chains.extend(writer(1), seq, Some(Clock::from_bits(seq)));
        }
        let cut = chains.cut(&[(writer(1), 1001)], &Cut::default()).unwrap();
        assert!(!cut.includes(&version(1002, 1)) && cut.includes(&version(1000, 1)));
    }
}
