//! What a place keeps when its process dies: committed records, a term, one undecided record.

use bield_group::Step;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) committed: Vec<u64>,
    pub(crate) term: u64,
    pub(crate) prepared: Option<u64>,
}

impl Disk {
    /// Which disk goes further: `(term, size)`.
    pub(crate) fn head(&self) -> (u64, usize) {
        let undecided = usize::from(self.prepared.is_some());
        (self.term, self.committed.len() + undecided)
    }

    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Prepare { term, record } => {
                assert!(*term >= self.term, "a term goes back on a disk");
                self.term = *term;
                self.prepared = record.as_deref().map(number);
            }
            Step::Commit { record, .. } => {
                self.committed.push(number(record));
                self.prepared = None;
            }
        }
    }

    /// Every member promised to go on from here.
    pub(crate) fn settle(&mut self) {
        self.committed.extend(self.prepared.take());
    }

    /// What another member has committed, in `term`.
    pub(crate) fn install(&mut self, committed: &[u64], term: u64) {
        *self = Self {
            committed: committed.to_vec(),
            term,
            prepared: None,
        };
    }
}

pub(crate) fn number(record: &[u8]) -> u64 {
    u64::from_be_bytes(
        record
            .try_into()
            .expect("records of this simulation have 8 bytes"),
    )
}
