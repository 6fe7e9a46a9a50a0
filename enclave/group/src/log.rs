//! The end of the log that Raft needs, in memory: from a position on, bounded in entries and bytes.
//!
//! Entries that are forgotten are on this member's disk as records; whoever still lacks them joins
//! again and is given the state. Always true: entries are contiguous and begin right after `base`.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// What Raft reads.
pub(crate) struct Log {
    /// Index and term of the last entry that is not here.
    base: (u64, u64),
    entries: VecDeque<Entry>,
    bytes: usize,
    conf: ConfState,
    hard: HardState,
}

impl Log {
    /// Begins after `index`, an entry of `term`, with the configuration of that place.
    pub(crate) fn after(index: u64, term: u64, conf: ConfState) -> Self {
        let hard = HardState {
            term,
            commit: index,
            ..HardState::default()
        };
        Self {
            base: (index, term),
            entries: VecDeque::new(),
            bytes: 0,
            conf,
            hard,
        }
    }

    /// Adds entries; from the first of them on, whatever was there before is dropped.
    ///
    /// `false`: they do not connect, and nothing was added.
    #[must_use]
    pub(crate) fn append(&mut self, entries: Vec<Entry>) -> bool {
        let Some(first) = entries.first() else {
            return true;
        };
        let (base, last) = (self.base.0, self.last());
        if first.index <= base || first.index > last + 1 {
            return false;
        }
        while self.last() >= first.index {
            self.bytes -= self.entries.pop_back().map_or(0, |entry| entry.data.len());
        }
        self.bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.entries.extend(entries);
        true
    }

    /// Whether more is kept than so many entries, or so many bytes of their data.
    pub(crate) fn is_beyond(&self, entries: usize, bytes: usize) -> bool {
        self.entries.len() > entries || self.bytes > bytes
    }

    /// Forgets the oldest entries until so many entries and bytes are left, at most up to `limit`.
    pub(crate) fn forget(&mut self, limit: u64, entries: usize, bytes: usize) {
        while self.base.0 < limit
            && self.is_beyond(entries, bytes)
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry.data.len();
            self.base = (entry.index, entry.term);
        }
    }

    /// Index of the last entry.
    pub(crate) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    /// Term of the last entry.
    pub(crate) fn last_term(&self) -> u64 {
        self.entries.back().map_or(self.base.1, |entry| entry.term)
    }

    /// Entries after `index` that are here.
    pub(crate) fn since(&self, index: u64) -> impl Iterator<Item = &Entry> {
        let skip = index.saturating_sub(self.base.0);
        self.entries
            .iter()
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }

    /// The entry at `index`, if it is here.
    fn at(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let mut entries: Vec<Entry> = (low..high).filter_map(|i| self.at(i).cloned()).collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index < self.base.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let entry = self.at(index).map(|entry| entry.term);
        entry.ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// A letter that says "you are too far behind", and no more: state moves when a member joins.
    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = self.base.0;
        metadata.term = self.base.1;
        metadata.set_conf_state(self.conf.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            data: vec![0; 10].into(),
            ..Entry::default()
        }
    }

    fn read(log: &Log, low: u64, high: u64) -> raft::Result<Vec<u64>> {
        let entries = log.entries(low, high, None, GetEntriesContext::empty(false))?;
        Ok(entries.iter().map(|entry| entry.index).collect())
    }

    #[test]
    fn what_is_appended_is_read_and_overwritten_from_its_first_entry_on() {
        let mut log = Log::after(5, 2, ConfState::default());
        assert!(log.append(vec![entry(6, 2), entry(7, 2), entry(8, 2)]));
        assert!(log.append(vec![entry(7, 3)]));
        assert_eq!(read(&log, 6, 8).unwrap(), [6, 7]);
        assert_eq!((log.last(), log.last_term()), (7, 3));
        assert_eq!(log.term(7).unwrap(), 3);
        assert!(log.is_beyond(1, 20) && log.is_beyond(2, 19) && !log.is_beyond(2, 20));
    }

    #[test]
    fn a_gap_is_not_appended() {
        let mut log = Log::after(5, 2, ConfState::default());
        assert!(!log.append(vec![entry(7, 2)]));
        assert!(!log.append(vec![entry(5, 2)]));
        assert_eq!(log.last(), 5);
    }

    #[test]
    fn what_was_forgotten_is_said_to_be() {
        let mut log = Log::after(0, 0, ConfState::default());
        assert!(log.append((1..=9).map(|i| entry(i, 1)).collect()));
        log.forget(4, 0, 0);
        assert_eq!(log.first_index().unwrap(), 5);
        assert_eq!(log.term(4).unwrap(), 1);
        assert!(matches!(
            log.term(3),
            Err(raft::Error::Store(StorageError::Compacted))
        ));
        assert!(read(&log, 4, 6).is_err());
        assert!(read(&log, 5, 11).is_err());
        assert_eq!(log.since(7).map(|e| e.index).collect::<Vec<_>>(), [8, 9]);
        log.forget(9, 3, 50);
        assert_eq!(log.first_index().unwrap(), 7);
        log.forget(9, 3, 20);
        assert_eq!(log.first_index().unwrap(), 8);
    }
}
