//! Files beside the log's own: snapshots, the log file that each begins, recovery files.

use bield_capsule::ledger_file::{Before, log_name};
use bield_envelope::Secret;
use rand_core::CryptoRng;

use super::Ledger;
use crate::layout::{STATE_BYTES_MAX, recovery_name, snapshot_name};
use crate::{Blocks, LedgerError, SnapshotJob, WrittenSnapshot, boxes};

impl Ledger {
    /// Whether enough log was written since the last snapshot to be worth one, and none is being written:
    /// 64 MiB or half of the last snapshot, whichever is more, or 65 536 records. So the log that a start
    /// replays stays bounded, and snapshots cost at most three times what the log itself does.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        let records = self.size().saturating_sub(self.snapshot.0.max(2));
        let is_worth_one = self.since_bytes >= SNAPSHOT_LOG_BYTES.max(self.snapshot.1 / 2)
            || records >= SNAPSHOT_RECORDS;
        is_worth_one && self.writing.is_none()
    }

    /// Begins a snapshot of `state`, the program's after the newest committed record; `None` when there is
    /// one of it. Records may be committed while the job writes its file, to these files by any handle;
    /// [`Ledger::end_snapshot`] must hear what became of it.
    ///
    /// # Errors
    /// The host does not store (the log is as good as before), a record waits to be committed, a snapshot
    /// is being written, or the state is too large.
    pub fn begin_snapshot(
        &mut self,
        state: impl Into<Blocks>,
        entropy: &mut impl CryptoRng,
    ) -> Result<Option<SnapshotJob>, LedgerError> {
        self.writable()?;
        let size = self.size();
        if self.reserved.is_some() {
            return Err(LedgerError::Uncommitted { index: size });
        }
        if self.writing.is_some() {
            return Err(LedgerError::SnapshotUnderWay);
        }
        // Written again it would be no snapshot for as long as that takes.
        if self.newest_snapshot().is_some_and(|(at, _)| at == size) {
            return Ok(None);
        }
        let state = state.into();
        let found = state.bytes();
        if found > STATE_BYTES_MAX {
            return Err(LedgerError::TooLarge { found });
        }
        // What broke off takes room that the new one needs.
        let whole = self.snapshot.0;
        self.forget_snapshots(|at| at <= whole || at == size)?;
        self.rotate(size)?;
        if !self.snapshots.contains(&size) {
            self.snapshots.push(size);
        }
        self.writing = Some(size);
        Ok(Some(SnapshotJob::new(
            &self.keys,
            &self.chain,
            &self.past,
            state,
            entropy,
        )))
    }

    /// Takes the snapshot that was begun into account, or, when it was given up, removes what there is of
    /// it: on a full disk the log needs the room. The newest whole one before it stays, to fall back to.
    ///
    /// # Errors
    /// The host does not remove those before; the snapshot counts all the same.
    pub fn end_snapshot(&mut self, written: Option<WrittenSnapshot>) -> Result<(), LedgerError> {
        let Some(size) = self.writing.take() else {
            return Ok(());
        };
        let Some(WrittenSnapshot { bytes, .. }) = written.filter(|written| written.size == size)
        else {
            return self.forget_snapshots(|at| at != size);
        };
        let (before, _) = core::mem::replace(&mut self.snapshot, (size, bytes));
        self.since_bytes = self.bytes_since(size);
        self.forget_snapshots(|at| at == before || at == size)
    }

    /// Begins a snapshot, writes it and ends it: where nothing else waits for the ledger.
    ///
    /// # Errors
    /// As [`Ledger::begin_snapshot`].
    pub fn snapshot(
        &mut self,
        state: impl Into<Blocks>,
        entropy: &mut impl CryptoRng,
    ) -> Result<(), LedgerError> {
        let Some(mut job) = self.begin_snapshot(state, entropy)? else {
            return Ok(());
        };
        let written = loop {
            match job.step(&mut *self.files) {
                Ok(None) => {}
                Ok(Some(written)) => break Ok(written),
                Err(error) => break Err(error),
            }
        };
        match written {
            Ok(written) => self.end_snapshot(Some(written)),
            Err(error) => {
                // Tried again before the next one.
                drop(self.end_snapshot(None));
                Err(error.into())
            }
        }
    }

    /// Writes the root secret under a recovery key into the file of its generation.
    ///
    /// # Errors
    /// The host does not store.
    pub fn write_recovery(
        &mut self,
        generation: u32,
        key: &Secret,
        entropy: &mut impl CryptoRng,
    ) -> Result<(), LedgerError> {
        let sealed =
            boxes::seal_recovery(key, generation, &self.capsule(), self.keys.root(), entropy);
        Ok(self.files.replace(&recovery_name(generation), &sealed)?)
    }

    /// Reads the recovery file of `generation` back and compares it: for a rehearsal.
    ///
    /// # Errors
    /// The host does not answer. `Ok(false)`: the key does not open the file to this root secret.
    pub fn check_recovery(&mut self, generation: u32, key: &Secret) -> Result<bool, LedgerError> {
        let name = recovery_name(generation);
        let sealed = self.files.read(&name, 0, boxes::BOX_BYTES_MAX)?;
        let opened = boxes::open_recovery(key, generation, &sealed);
        Ok(opened
            .is_some_and(|(_, root)| subtle::ConstantTimeEq::ct_eq(&root, self.keys.root()).into()))
    }

    /// Removes a recovery file: the shares of its generation open nothing any more.
    ///
    /// # Errors
    /// The host does not answer.
    pub fn remove_recovery(&mut self, generation: u32) -> Result<(), LedgerError> {
        Ok(self.files.remove(&recovery_name(generation))?)
    }

    /// Size and bytes of the newest whole snapshot.
    pub(crate) fn newest_snapshot(&self) -> Option<(u64, u64)> {
        (self.snapshot.1 != 0).then_some(self.snapshot)
    }

    /// Makes the file that record `size` goes to, before there is a snapshot at `size`.
    pub(super) fn rotate(&mut self, size: u64) -> Result<(), crate::FilesError> {
        let (first, _) = self.newest_segment();
        if first == size {
            return Ok(());
        }
        let head = self.file_head(size);
        let name = log_name(self.chain.epoch(), size);
        self.rotating = true; // whatever comes of it: its head says how long the file before is
        self.files.append(&name, 0, &head)?;
        self.rotating = false;
        self.segments.insert(size, head.len() as u64);
        Ok(())
    }

    pub(super) fn file_head(&self, first: u64) -> Vec<u8> {
        let before = self.segments.range(..first).next_back();
        let before = before.map(|(first, bytes)| Before {
            first: *first,
            bytes: *bytes,
        });
        self.chain.file_head(first, before).encode()
    }

    fn forget_snapshots(&mut self, stays: impl Fn(u64) -> bool) -> Result<(), LedgerError> {
        let epoch = self.chain.epoch();
        while let Some(at) = self.snapshots.iter().position(|size| !stays(*size)) {
            let name = snapshot_name(epoch, self.snapshots[at]);
            self.files.remove(&name)?;
            self.snapshots.remove(at);
        }
        Ok(())
    }
}

/// Log since the last snapshot that is worth one, in bytes: a second or so of replay.
const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;
/// The same in records.
const SNAPSHOT_RECORDS: u64 = 65_536;
