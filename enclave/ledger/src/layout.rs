//! The files of a ledger: which there are, what they are called, what lies in them.
//!
//! | name | content | written |
//! |---|---|---|
//! | `root` | root secret, epoch and capsule under the TEE's seal key (`boxes`) | whole, when an epoch begins or a member joined; its presence says that the log here is this instance's |
//! | `log-<epoch>-<first>` | head, then one frame per committed record (`bield_capsule::ledger_file`) | appended, one durable write a record |
//! | `snapshot-<epoch>-<size>` | state, leaves, tip under a key derived from the root secret (`snapshot`) | appended chunk by chunk; counts once whole |
//! | `prepared` | term, and the record that this member acknowledged before it was committed, sealed (`prepared`) | appended; replaced by its newest frame once it is long |
//! | `recovery-<generation>` | root secret under a recovery key (`boxes`) | whole |
//!
//! Epochs and generations have 10 decimal digits, indices and sizes 20, so names sort as numbers do.
//!
//! **Order of writes.** Genesis and every later epoch: head of the first log file; records 0 and 1 in
//! one append; in an epoch after the first a snapshot of the recovered state at size 2; `root`. An epoch
//! without a data record holds nothing that anybody was told of: where `root` does not name it, it is
//! as if it were not there. A commit is one append to the newest log file, nothing else. A snapshot at
//! size *n*: first the head of a new log file `log-<epoch>-n`, which names the file before it with its
//! length; then the snapshot, while records from *n* on are committed; then all snapshots but this one
//! and the newest whole one before it are removed. What is left of one that broke off is removed before
//! the next one is written. So the file that record *n* goes to exists wherever a snapshot at *n* does,
//! and a log that ends before *n* is a truncated one.
//!
//! **Start.** `root` opens; the newest snapshot that opens gives state, trees and chain (an unfinished or
//! altered one gives way to the one before, and without any the log is replayed from its beginning,
//! over all epochs); log files must follow each other without a gap, each as long as the next one's head
//! says; records from the snapshot's size on are verified and replayed; a torn last frame is cut.

use std::collections::BTreeMap;

use bield_capsule::ledger_file::{log_name, parse_log_name};

use crate::{Files, FilesError};

/// Most bytes of a state: what fits a snapshot's chunks, and far beyond what fits a TEE's memory.
pub const STATE_BYTES_MAX: u64 = 1 << 40;

/// Most epochs: each is begun by people.
pub const EPOCHS_MAX: usize = 1024;

/// Most files that are looked at in a listing.
pub const FILES_MAX: usize = 1 << 17;

/// The root file.
pub(crate) const ROOT: &str = "root";

/// The file of prepared records.
pub(crate) const PREPARED: &str = "prepared";

pub(crate) fn snapshot_name(epoch: u32, size: u64) -> String {
    format!("snapshot-{epoch:010}-{size:020}")
}

pub(crate) fn recovery_name(generation: u32) -> String {
    format!("recovery-{generation:010}")
}

fn parse_snapshot_name(name: &str) -> Option<(u32, u64)> {
    let (epoch, size) = name.strip_prefix("snapshot-")?.split_once('-')?;
    let place = (epoch.parse().ok()?, size.parse().ok()?);
    (snapshot_name(place.0, place.1) == name).then_some(place)
}

fn parse_recovery_name(name: &str) -> Option<u32> {
    let generation = name.strip_prefix("recovery-")?.parse().ok()?;
    (recovery_name(generation) == name).then_some(generation)
}

/// The files that there are, by what they are. Other files are left alone.
#[derive(Clone, Default)]
pub(crate) struct Inventory {
    pub(crate) root: bool,
    pub(crate) prepared: u64,
    /// By epoch, then by first index: length in bytes.
    pub(crate) logs: BTreeMap<u32, BTreeMap<u64, u64>>,
    /// By epoch, then by size: length in bytes.
    pub(crate) snapshots: BTreeMap<u32, BTreeMap<u64, u64>>,
    /// Generations.
    pub(crate) recoveries: Vec<u32>,
}

impl Inventory {
    pub(crate) fn take(files: &mut dyn Files) -> Result<Self, FilesError> {
        let mut inventory = Self::default();
        for (name, bytes) in files.list()?.into_iter().take(FILES_MAX) {
            if name == ROOT {
                inventory.root = true;
            } else if name == PREPARED {
                inventory.prepared = bytes;
            } else if let Some((epoch, first)) = parse_log_name(&name) {
                let logs = inventory.logs.entry(epoch).or_default();
                logs.insert(first, bytes);
            } else if let Some((epoch, size)) = parse_snapshot_name(&name) {
                let snapshots = inventory.snapshots.entry(epoch).or_default();
                snapshots.insert(size, bytes);
            } else if let Some(generation) = parse_recovery_name(&name) {
                inventory.recoveries.push(generation);
            }
        }
        inventory.recoveries.sort_unstable();
        Ok(inventory)
    }

    /// The log files of an epoch, ascending: first index and length.
    pub(crate) fn segments(&self, epoch: u32) -> BTreeMap<u64, u64> {
        self.logs.get(&epoch).cloned().unwrap_or_default()
    }

    /// Removes the files of `epoch`, and those that only this instance's past needed.
    pub(crate) fn remove_epoch(&self, files: &mut dyn Files, epoch: u32) -> Result<(), FilesError> {
        for size in self
            .snapshots
            .get(&epoch)
            .into_iter()
            .flat_map(BTreeMap::keys)
        {
            files.remove(&snapshot_name(epoch, *size))?;
        }
        for first in self
            .logs
            .get(&epoch)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .rev()
        {
            files.remove(&log_name(epoch, *first))?;
        }
        Ok(())
    }
}
