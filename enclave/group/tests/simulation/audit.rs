//! The auditor: whatever was applied anywhere is one sequence, and stays.

use crate::disk::Disk;

#[derive(Default)]
pub(crate) struct Auditor {
    /// What was applied by any process ever, in order.
    applied: Vec<u64>,
    acknowledged: Vec<u64>,
}

impl Auditor {
    /// A member has applied its newest record, or begins to lead: all of this has now been seen.
    pub(crate) fn seen(&mut self, committed: &[u64]) {
        let both = committed.len().min(self.applied.len());
        assert_eq!(
            committed[..both],
            self.applied[..both],
            "two records were committed at one place"
        );
        for record in &committed[both..] {
            assert!(!self.applied.contains(record), "a record counts twice");
            self.applied.push(*record);
        }
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
        let more = disk.committed.len() - self.applied.len();
        assert!(more <= 1, "more than one record was undecided: {more}");
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
