//! From log files to verified records: one epoch, file after file.
//!
//! Always true: files follow each other without a gap, each as long as the next one's head says; every
//! record continues the chain; only the last file may end inside a frame.
//!
//! **Signatures.** Records are verified in runs, and of a run the newest signature is checked: it covers
//! the others by hash, their bodies by root, and nobody else can have written them, because each body
//! also opens only with a key that follows from the root secret. What this does not notice is a
//! signature that the host altered in the middle of a run; whoever is given such a record checks it
//! (`bield_capsule::Verifier`, `bield_capsule::ledger_file::LogAudit`). Cost: about 1 µs a record and
//! 40 µs a run instead of 40 µs a record.

use std::collections::BTreeMap;

use bield_capsule::Received;
use bield_capsule::ledger_file::{FileEnd, FileHead, FileReader, Flaw, Item, log_name};
use zeroize::Zeroizing;

use crate::chain::{Chain, Committed, NotNext};
use crate::keys::Keys;
use crate::{Files, FilesError, LoadError};

/// Who is given each record; a refusal ends the replay.
pub(crate) type Each<'a> = &'a mut dyn FnMut(u32, Committed) -> Result<(), String>;

/// Where an epoch's log ends on the storage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// First index of the newest file.
    pub(crate) first: u64,
    /// Bytes of it that count: where the next frame belongs.
    pub(crate) bytes: u64,
    /// Bytes behind them, of an append that nobody was told of.
    pub(crate) torn: u64,
}

pub(crate) struct Replay<'a> {
    pub(crate) files: &'a mut dyn Files,
    pub(crate) keys: &'a Keys,
    pub(crate) epoch: u32,
    /// First index and length of each file of the epoch.
    pub(crate) segments: &'a BTreeMap<u64, u64>,
    /// Records from here on are not looked at: what was not recovered of an earlier epoch.
    pub(crate) until: u64,
}

impl Replay<'_> {
    /// Verifies what follows `chain`, the one at a snapshot; none: from the epoch's beginning.
    pub(crate) fn run(
        mut self,
        mut chain: Option<Chain>,
        each: Each<'_>,
    ) -> Result<(Chain, Tail), LoadError> {
        let size = chain.as_ref().map_or(0, Chain::size);
        let heads = self.heads()?;
        let Some((start, _)) = self.segments.range(..=size).next_back() else {
            return Err(match self.segments.keys().next() {
                None => LoadError::NoLog { epoch: self.epoch },
                Some(first) if size == 0 => LoadError::NoStart { first: *first },
                Some(first) => LoadError::Gap {
                    epoch: self.epoch,
                    expected: size,
                    found: Some(*first),
                },
            });
        };
        let mut next = *start;
        let mut tail = None;
        for (first, bytes) in self.segments.range(*start..) {
            if next >= self.until.max(size) {
                break;
            }
            if *first != next {
                return Err(LoadError::Gap {
                    epoch: self.epoch,
                    expected: next,
                    found: Some(*first),
                });
            }
            let last = self.segments.range(first + 1..).next().is_none();
            let Some(head) = heads.get(first) else {
                tail = Some(Tail {
                    first: *first,
                    bytes: 0,
                    torn: *bytes,
                });
                break; // the newest file, and not even its head is whole
            };
            let chain = match &mut chain {
                Some(chain) => chain,
                None => chain
                    .insert(Chain::begin(self.keys, head).ok_or_else(|| self.other_log(*first))?),
            };
            let end = self.segment(chain, head, size, each)?;
            tail = Some(Tail {
                first: *first,
                bytes: end.bytes,
                torn: bytes.saturating_sub(end.bytes),
            });
            next = end.next;
            if !last && end.bytes != *bytes && next < self.until {
                return Err(LoadError::Altered {
                    epoch: self.epoch,
                    index: next,
                    name: log_name(self.epoch, *first),
                    offset: end.bytes,
                    flaw: Flaw::Short,
                });
            }
        }
        let (Some(chain), Some(tail)) = (chain, tail) else {
            return Err(LoadError::NoLog { epoch: self.epoch });
        };
        if next < size {
            return Err(LoadError::Truncated {
                log: next,
                snapshot: size,
            });
        }
        Ok((chain, tail))
    }

    /// The heads of all files, each checked against the file before it. The newest file may have none.
    fn heads(&mut self) -> Result<BTreeMap<u64, FileHead>, LoadError> {
        let mut heads = BTreeMap::new();
        let newest = self.segments.keys().next_back().copied();
        for first in self.segments.keys() {
            let name = log_name(self.epoch, *first);
            let bytes = self.files.read(&name, 0, READ_BYTES_HEAD)?;
            let altered = |flaw| LoadError::Altered {
                epoch: self.epoch,
                index: *first,
                name: name.clone(),
                offset: 0,
                flaw,
            };
            let (head, head_bytes) = match FileHead::decode(&bytes) {
                Ok(Some(head)) => head,
                Ok(None) if Some(*first) == newest => continue,
                Ok(None) => return Err(altered(Flaw::Short)),
                Err(why) => return Err(altered(why.into())),
            };
            if (head.epoch, head.first) != (self.epoch, *first) {
                return Err(self.other_log(*first));
            }
            debug_assert!(head_bytes as u64 <= READ_BYTES_HEAD);
            if let Some(before) = head.before {
                match self.segments.get(&before.first) {
                    None => {
                        return Err(LoadError::Gap {
                            epoch: self.epoch,
                            expected: before.first,
                            found: Some(*first),
                        });
                    }
                    Some(found) if *found != before.bytes => {
                        return Err(LoadError::Length {
                            name: log_name(self.epoch, before.first),
                            expected: before.bytes,
                            found: *found,
                        });
                    }
                    Some(_) => {}
                }
            }
            heads.insert(*first, head);
        }
        Ok(heads)
    }

    /// Reads one file; records below `from` are passed over.
    fn segment(
        &mut self,
        chain: &mut Chain,
        head: &FileHead,
        from: u64,
        each: Each<'_>,
    ) -> Result<SegmentEnd, LoadError> {
        let name = log_name(self.epoch, head.first);
        let same = (&head.metadata, head.previous) == (chain.metadata(), chain.previous());
        if !same {
            return Err(self.other_log(head.first));
        }
        let mut reader = FileReader::new();
        let mut run = Run::default();
        let mut offset = 0;
        loop {
            let bytes = self.files.read(&name, offset, READ_BYTES)?;
            offset += bytes.len() as u64;
            reader.push(&bytes);
            loop {
                match reader.next_item() {
                    Item::Wants => break,
                    Item::Head(_) => {}
                    Item::Record { index, .. } if index < from => {}
                    Item::Record { index, .. } if index >= self.until => {
                        run.flush(chain, each)?;
                        return Ok(SegmentEnd {
                            next: self.until,
                            bytes: offset,
                        });
                    }
                    Item::Record {
                        index,
                        offset,
                        record,
                    } => {
                        let record = Received::decode(record);
                        let record = record.map_err(|why| LoadError::Broken {
                            epoch: self.epoch,
                            index,
                            why: why.into(),
                        })?;
                        debug_assert!(offset > 0);
                        run.push(index, record, chain, each)?;
                    }
                }
            }
            if (bytes.len() as u64) < READ_BYTES || reader.is_damaged() {
                break;
            }
        }
        run.flush(chain, each)?;
        let next = reader.next_index().unwrap_or(head.first);
        match reader.finish() {
            FileEnd::Clean { bytes } | FileEnd::Torn { bytes } => Ok(SegmentEnd { next, bytes }),
            FileEnd::Damaged {
                offset,
                index,
                flaw,
            } => Err(LoadError::Altered {
                epoch: self.epoch,
                index: index.unwrap_or(head.first),
                name,
                offset,
                flaw,
            }),
        }
    }

    fn other_log(&self, first: u64) -> LoadError {
        LoadError::OtherLog {
            name: log_name(self.epoch, first),
        }
    }
}

struct SegmentEnd {
    next: u64,
    bytes: u64,
}

/// Records that wait to be verified together.
#[derive(Default)]
struct Run {
    first: u64,
    bytes: usize,
    records: Vec<Received>,
}

impl Run {
    fn push(
        &mut self,
        index: u64,
        record: Received,
        chain: &mut Chain,
        each: Each<'_>,
    ) -> Result<(), LoadError> {
        if self.records.is_empty() {
            self.first = index;
        }
        self.bytes += record.as_bytes().len();
        self.records.push(record);
        // The configuration is the owner's, and a run has one writer.
        if index == 0 || self.records.len() == RUN_RECORDS_MAX || self.bytes >= RUN_BYTES_MAX {
            self.flush(chain, each)?;
        }
        Ok(())
    }

    fn flush(&mut self, chain: &mut Chain, each: Each<'_>) -> Result<(), LoadError> {
        let epoch = chain.epoch();
        let first = self.first;
        let broken = |index: u64, why: NotNext| LoadError::Broken { epoch, index, why };
        self.bytes = 0;
        let verified = chain
            .verify_run(core::mem::take(&mut self.records))
            .map_err(|(at, why)| broken(first + at as u64, why))?;
        for (index, verified) in (first..).zip(verified) {
            let at = verified.record().header().clock.time();
            let entries: Vec<Zeroizing<Vec<u8>>> = chain
                .open(&verified)
                .map_err(|why| broken(index, why.into()))?;
            chain.apply(verified).map_err(|why| broken(index, why))?;
            if entries.is_empty() {
                continue;
            }
            let committed = Committed { index, at, entries };
            each(epoch, committed).map_err(|why| LoadError::NotApplied { epoch, index, why })?;
        }
        Ok(())
    }
}

/// Whether an epoch's files hold a data record: something that somebody may have been told of.
pub(crate) fn has_data(
    files: &mut dyn Files,
    epoch: u32,
    segments: &BTreeMap<u64, u64>,
) -> Result<bool, FilesError> {
    if segments
        .iter()
        .any(|(first, bytes)| *first > 2 || *bytes >= READ_BYTES)
    {
        return Ok(true);
    }
    for first in segments.keys() {
        let mut reader = FileReader::new();
        let name = log_name(epoch, *first);
        reader.push(&files.read(&name, 0, READ_BYTES)?);
        loop {
            match reader.next_item() {
                Item::Wants => break,
                Item::Record { index, .. } if index >= 2 => return Ok(true),
                Item::Head(_) | Item::Record { .. } => {}
            }
        }
        if !matches!(
            reader.finish(),
            FileEnd::Clean { .. } | FileEnd::Torn { .. }
        ) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Bytes of one read.
const READ_BYTES: u64 = 1 << 20;
/// Bytes that hold every head of a file.
const READ_BYTES_HEAD: u64 = bield_capsule::ledger_file::FILE_HEAD_BYTES_MAX as u64 + 64;
/// Records that are verified by one signature.
const RUN_RECORDS_MAX: usize = 256;
/// A run ends once it has this many bytes.
const RUN_BYTES_MAX: usize = 4 << 20;
