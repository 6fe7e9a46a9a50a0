//! Files beside the log's own: snapshots, the log file that each begins, recovery files.

use bield_capsule::ledger_file::{Before, log_name};
use bield_envelope::Secret;
use rand_core::CryptoRng;

use super::Ledger;
use crate::layout::{STATE_BYTES_MAX, recovery_name, snapshot_name};
use crate::{LedgerError, boxes, snapshot};

impl Ledger {
    /// Whether enough log was written since the last snapshot to be worth one: 64 MiB or half of the last
    /// snapshot, whichever is more, or 65 536 records. So the log that a start replays stays bounded,
    /// and snapshots cost at most three times what the log itself does.
    #[must_use]
    pub fn wants_snapshot(&self) -> bool {
        let records = self.size().saturating_sub(self.snapshot.0.max(2));
        self.since_bytes >= SNAPSHOT_LOG_BYTES.max(self.snapshot.1 / 2)
            || records >= SNAPSHOT_RECORDS
    }

    /// Writes a snapshot of `state`, the program's after the newest committed record. Chunk by chunk: no
    /// second copy of the state is made. The two newest snapshots stay.
    ///
    /// # Errors
    /// The host does not store (the log is as good as before), a record waits to be committed, or the
    /// state is too large.
    pub fn snapshot(
        &mut self,
        state: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Result<(), LedgerError> {
        self.writable()?;
        let size = self.size();
        if self.reserved.is_some() {
            return Err(LedgerError::Uncommitted { index: size });
        }
        if state.len() as u64 > STATE_BYTES_MAX {
            let found = state.len() as u64;
            return Err(LedgerError::TooLarge { found });
        }
        self.rotate(size)?;
        if !self.snapshots.contains(&size) {
            self.snapshots.push(size);
        }
        let bytes = snapshot::write(
            &mut *self.files,
            &self.keys,
            &self.chain,
            &self.past,
            state,
            entropy,
        )?;
        (self.snapshot, self.since_bytes) = ((size, bytes), 0);
        self.forget_snapshots()
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

    fn forget_snapshots(&mut self) -> Result<(), LedgerError> {
        self.snapshots.sort_unstable();
        while self.snapshots.len() > SNAPSHOTS_KEPT {
            let oldest = self.snapshots[0];
            self.files
                .remove(&snapshot_name(self.chain.epoch(), oldest))?;
            self.snapshots.remove(0);
        }
        Ok(())
    }
}

/// Log since the last snapshot that is worth one, in bytes: a second or so of replay.
const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;
/// The same in records.
const SNAPSHOT_RECORDS: u64 = 65_536;
/// Whole snapshots that stay: the newest, and one to fall back to.
const SNAPSHOTS_KEPT: usize = 2;
