//! The auditor: whatever was applied anywhere is one sequence, and stays.

use crate::disk::Disk;

#[derive(Default)]
pub(crate) struct Auditor {
    /// What was applied by any process ever, in order.
    applied: Vec<u64>,
    acknowledged: Vec<u64>,
}

impl Auditor {
    /// A process has applied `committed.last()` as its newest record.
    pub(crate) fn applied(&mut self, committed: &[u64]) {
        let place = committed.len() - 1;
        let record = committed[place];
        if place == self.applied.len() {
            assert!(!self.applied.contains(&record), "a record counts twice");
            self.applied.push(record);
        }
        assert_eq!(
            self.applied.get(place),
            Some(&record),
            "two records were committed at place {place}"
        );
        let before = place.saturating_sub(3);
        assert_eq!(self.applied[before..place], committed[before..place]);
    }

    /// A client was told that its record counts.
    pub(crate) fn acknowledged(&mut self, record: u64) {
        assert!(self.applied.contains(&record));
        self.acknowledged.push(record);
    }

    /// A group begins from this disk: all that was ever applied must be on it.
    pub(crate) fn formed_from(&mut self, disk: &Disk) {
        let kept = disk.committed.get(..self.applied.len());
        assert_eq!(
            kept,
            Some(&self.applied[..]),
            "a group forgets at its beginning"
        );
        // What was undecided and now counts.
        let more = disk.committed[self.applied.len()..].to_vec();
        assert!(more.len() <= 1, "more than one undecided record: {more:?}");
        self.applied.extend(more);
    }

    /// All members are whole again.
    pub(crate) fn whole(&self, states: &[&[u64]]) {
        for state in states {
            assert_eq!(*state, &self.applied[..], "a member is not like the others");
        }
        for record in &self.acknowledged {
            assert!(
                self.applied.contains(record),
                "acknowledged and lost: {record}"
            );
        }
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.applied.len() as u64, self.acknowledged.len() as u64)
    }
}
