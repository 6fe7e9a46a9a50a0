//! Records read back, for audits and for members that lag: each is compared with its leaf before it is
//! opened or given away.

use std::collections::BTreeMap;

use bield_capsule::ledger_file::{FileReader, Item, log_name};
use bield_capsule::{KeyRing, Kind, OpenError, Received, Verifier};
use bield_tlog::Tree;

use crate::chain::Committed;
use crate::{Ledger, LedgerError};

/// Where some records stand: epoch and index, to file and offset.
#[derive(Default)]
pub(crate) struct Points(BTreeMap<(u32, u64), (u64, u64)>);

impl Points {
    /// Remembers one place in so many.
    pub(crate) fn note(&mut self, epoch: u32, index: u64, place: (u64, u64)) {
        if !index.is_multiple_of(POINT_EVERY) {
            return;
        }
        if self.0.len() >= POINTS_MAX {
            self.0.clear();
        }
        self.0.insert((epoch, index), place);
    }

    /// The nearest place at or before a record, in the file that begins with `first`.
    fn before(&self, epoch: u32, index: u64, first: u64) -> Option<(u64, u64)> {
        let nearest = self.0.range((epoch, first)..=(epoch, index)).next_back();
        nearest
            .filter(|(_, (file, _))| *file == first)
            .map(|((_, index), (_, offset))| (*index, *offset))
    }
}

impl Ledger {
    /// Reads data records of this epoch from index `from` on, opened: as many as `bytes_max` bytes of
    /// log hold, at least one when there is one. The first two records of a log have no entries and are
    /// passed over.
    ///
    /// # Errors
    /// A record that is not the one in the tree, records that are not in this member's files, or the
    /// host does not answer.
    pub fn read(&mut self, from: u64, bytes_max: usize) -> Result<Vec<Committed>, LedgerError> {
        self.read_epoch(self.epoch(), from, bytes_max)
    }

    /// The same for any epoch; of an earlier one what was recovered.
    ///
    /// # Errors
    /// As [`Ledger::read`], or no such epoch.
    pub fn read_epoch(
        &mut self,
        epoch: u32,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<Committed>, LedgerError> {
        let records = self.stored(epoch, from.max(2), bytes_max)?;
        let altered = |index| LedgerError::Altered { epoch, index };
        let Some((first, _)) = records.first() else {
            return Ok(Vec::new());
        };
        let Some((verifier, ring)) = self.opener(epoch)? else {
            return Err(altered(*first));
        };
        let open = |(index, record): (u64, Received)| {
            let at = record.header().clock.time();
            let hash = record.hash(); // compared with its leaf by `stored`
            let applied = verifier.recall(record, &hash).map_err(|_| altered(index))?;
            let entries = match applied.record().header().kind {
                Kind::Data => applied.open(&ring).and_then(|entries| {
                    let plain = entries
                        .iter()
                        .map(|entry| entry.plain().map(<[u8]>::to_vec));
                    let plain: Option<Vec<_>> = plain.map(|entry| entry.map(Into::into)).collect();
                    plain.ok_or(OpenError::Layout("an erasable entry in this log"))
                }),
                _ => Ok(Vec::new()),
            };
            let entries = entries.map_err(|_| altered(index))?;
            Ok(Committed { index, at, entries })
        };
        records.into_iter().map(open).collect()
    }

    /// Reads records of this epoch as they are, from index `from` on, for a member that lags and commits
    /// them one by one: as many as `bytes_max` bytes of log hold, at least one when there is one.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub fn records(&mut self, from: u64, bytes_max: usize) -> Result<Vec<Received>, LedgerError> {
        let records = self.stored(self.epoch(), from, bytes_max)?;
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }

    /// Records compared with their leaves.
    fn stored(
        &mut self,
        epoch: u32,
        from: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Received)>, LedgerError> {
        let segments = self.segments_of(epoch)?;
        let size = self.tree_of(epoch)?.size();
        let mut records = Vec::new();
        let (mut next, mut bytes) = (from, 0);
        while next < size && (records.is_empty() || bytes < bytes_max) {
            let Some((first, length)) = segments.range(..=next).next_back() else {
                let first = segments.keys().next().copied().unwrap_or(size);
                return Err(LedgerError::NotHere { first });
            };
            let read = self.stored_in(epoch, (*first, *length), next, size, bytes_max - bytes)?;
            if read.is_empty() {
                return Err(LedgerError::Altered { epoch, index: next });
            }
            bytes += read
                .iter()
                .map(|(_, record)| record.as_bytes().len())
                .sum::<usize>();
            bytes = bytes.min(bytes_max);
            next += read.len() as u64;
            records.extend(read);
        }
        Ok(records)
    }

    /// Records of one file, from `from` on.
    fn stored_in(
        &mut self,
        epoch: u32,
        (first, length): (u64, u64),
        from: u64,
        size: u64,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Received)>, LedgerError> {
        let name = log_name(epoch, first);
        let (mut reader, mut offset) = match self.points.before(epoch, from, first) {
            Some((index, offset)) => (FileReader::resume(offset, index), offset),
            None => (FileReader::new(), 0),
        };
        let mut records = Vec::new();
        let mut bytes = 0;
        while offset < length {
            let piece = READ_BYTES.min(length - offset);
            let read = self.files.read(&name, offset, piece)?;
            if read.is_empty() {
                break;
            }
            offset += read.len() as u64;
            reader.push(&read);
            loop {
                match reader.next_item() {
                    Item::Wants => break,
                    Item::Head(_) => {}
                    Item::Record {
                        index,
                        offset,
                        record,
                    } => {
                        self.points.note(epoch, index, (first, offset));
                        if index < from {
                            continue;
                        }
                        if index >= size || (bytes >= bytes_max && !records.is_empty()) {
                            return Ok(records);
                        }
                        bytes += record.len();
                        let leaf = self.tree_of(epoch)?.leaf(index);
                        let record = Received::decode(record)
                            .ok()
                            .filter(|record| leaf == Some(leaf_of(record)))
                            .ok_or(LedgerError::Altered { epoch, index })?;
                        records.push((index, record));
                    }
                }
            }
        }
        Ok(records)
    }

    /// What opens the records of an epoch; `None` when the epoch's first file is not what it was.
    fn opener(&mut self, epoch: u32) -> Result<Option<(Verifier, KeyRing)>, LedgerError> {
        if epoch == self.epoch() {
            return Ok(Some(self.chain.opener()));
        }
        let capsule = self.past_log(epoch)?.capsule();
        let segments = self.segments_of(epoch)?;
        let Some(first) = segments.keys().next() else {
            return Ok(None);
        };
        let head = self
            .files
            .read(&log_name(epoch, *first), 0, READ_BYTES_HEAD)?;
        let head = bield_capsule::ledger_file::FileHead::decode(&head);
        let chain = head
            .ok()
            .flatten()
            .filter(|(head, _)| head.metadata.name() == capsule && head.epoch == epoch)
            .and_then(|(head, _)| crate::chain::Chain::begin(&self.keys, &head));
        Ok(chain.map(|chain| chain.opener()))
    }

    fn segments_of(&mut self, epoch: u32) -> Result<BTreeMap<u64, u64>, LedgerError> {
        if epoch == self.epoch() {
            return Ok(self.segments.clone());
        }
        let inventory = crate::layout::Inventory::take(&mut *self.files)?;
        Ok(inventory.segments(epoch))
    }

    fn tree_of(&self, epoch: u32) -> Result<&Tree, LedgerError> {
        if epoch == self.epoch() {
            return Ok(self.chain.tree());
        }
        Ok(self.past_log(epoch)?.tree())
    }

    fn past_log(&self, epoch: u32) -> Result<&crate::PastLog, LedgerError> {
        let mut logs = self.past.iter();
        logs.find(|log| log.epoch() == epoch)
            .ok_or(LedgerError::NoEpoch { epoch })
    }
}

fn leaf_of(record: &Received) -> bield_tlog::Hash {
    bield_tlog::leaf_hash(record.hash().as_bytes())
}

/// Bytes of one read.
const READ_BYTES: u64 = 1 << 20;
/// Bytes that hold every head of a file.
const READ_BYTES_HEAD: u64 = bield_capsule::ledger_file::FILE_HEAD_BYTES_MAX as u64 + 64;
/// Records between two places that are remembered.
const POINT_EVERY: u64 = 256;
/// Places that are remembered: 4 MiB.
const POINTS_MAX: usize = 65_536;
