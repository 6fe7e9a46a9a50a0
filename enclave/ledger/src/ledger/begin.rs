//! How a log begins: a new service's, and the next epoch of a recovered one.

use std::collections::BTreeMap;

use bield_capsule::ledger_file::{encode_frame, log_name};
use bield_envelope::{Secret, Time};
use rand_core::CryptoRng;

use super::{Ledger, Parts};
use crate::blocks::Blocks;
use crate::boxes::RootBox;
use crate::chain::Chain;
use crate::keys::Keys;
use crate::layout::{EPOCHS_MAX, Inventory, PREPARED, ROOT};
use crate::past::PastLog;
use crate::prepared::PreparedFile;
use crate::replay::{Tail, has_data};
use crate::{Files, LedgerError};

impl Ledger {
    /// Begins a new service's log in files that hold none: epoch 0, two records, no entry. The program's
    /// state is then the one it starts from when there is no snapshot.
    ///
    /// # Errors
    /// A log is there, or the host does not store.
    pub fn create(
        mut files: Box<dyn Files>,
        seal: Secret,
        root: Secret,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, LedgerError> {
        let inventory = Inventory::take(&mut *files)?;
        if inventory.root {
            return Err(LedgerError::NotEmpty);
        }
        for (epoch, segments) in &inventory.logs {
            if has_data(&mut *files, *epoch, segments)? {
                return Err(LedgerError::NotEmpty);
            }
        }
        for epoch in inventory.logs.keys().chain(inventory.snapshots.keys()) {
            inventory.remove_epoch(&mut *files, *epoch)?;
        }
        files.remove(PREPARED)?;
        let keys = Keys::new(root);
        let parts = found(files, seal, keys, 0, Vec::new(), now, entropy)?;
        let mut ledger = Self::assemble(parts)?;
        ledger.write_root(entropy)?;
        Ok(ledger)
    }

    /// Ends this epoch where it is and begins the next one, in the same files, with `state`, which is the
    /// program's after everything so far. The caller commits an entry that says so before anything else.
    ///
    /// Until this returns, the files load as before.
    ///
    /// # Errors
    /// The host does not store, or there were as many epochs as there may be. Load again.
    pub fn begin_epoch(
        mut self,
        state: impl Into<Blocks>,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, LedgerError> {
        let epoch = self.chain.epoch() + 1;
        if epoch as usize >= EPOCHS_MAX {
            return Err(LedgerError::Epochs);
        }
        let now = self.now(now);
        // One that was begun and never named by a root file holds nothing.
        let inventory = Inventory::take(&mut *self.files)?;
        for later in inventory.logs.keys().chain(inventory.snapshots.keys()) {
            if *later >= epoch {
                inventory.remove_epoch(&mut *self.files, *later)?;
            }
        }
        let capsule = self.chain.metadata().name();
        let log = PastLog::new(
            &self.keys,
            self.chain.epoch(),
            capsule,
            self.chain.into_tree(),
        );
        self.past.push(log);
        let parts = found(
            self.files, self.seal, self.keys, epoch, self.past, now, entropy,
        )?;
        let mut ledger = Self::assemble(parts)?;
        ledger.snapshot(state, entropy)?;
        ledger.write_root(entropy)?;
        Ok(ledger)
    }

    pub(crate) fn write_root(&mut self, entropy: &mut impl CryptoRng) -> Result<(), LedgerError> {
        let content = RootBox {
            root: Secret::from_bytes(*self.keys.root().expose()),
            epoch: self.chain.epoch(),
            capsule: self.capsule(),
        };
        let sealed = content.seal(&self.seal, entropy);
        Ok(self.files.replace(ROOT, &sealed)?)
    }
}

/// A new epoch's capsule with its first two records, durable; its root file is not written yet.
fn found(
    mut files: Box<dyn Files>,
    seal: Secret,
    keys: Keys,
    epoch: u32,
    past: Vec<PastLog>,
    now: Time,
    entropy: &mut impl CryptoRng,
) -> Result<Parts, LedgerError> {
    let previous = past.last().map(PastLog::end);
    let (mut chain, records) = Chain::found(&keys, epoch, previous, now, entropy)?;
    let name = log_name(epoch, 0);
    let head = chain.file_head(0, None).encode();
    let mut frames = Vec::new();
    for (index, record) in (0..).zip(records) {
        encode_frame(index, record.as_bytes(), &mut frames);
        let verified = chain.verify(record)?;
        chain.apply(verified)?;
    }
    files.append(&name, 0, &head)?;
    files.append(&name, head.len() as u64, &frames)?;
    let bytes = (head.len() + frames.len()) as u64;
    Ok(Parts {
        files,
        seal,
        keys,
        chain,
        past,
        segments: BTreeMap::from([(0, bytes)]),
        tail: Tail {
            first: 0,
            bytes,
            torn: 0,
        },
        prepared: PreparedFile::default(),
        term: 0,
        newest_prepared: None,
        snapshots: Vec::new(),
        snapshot: (0, 0),
        recovering: false,
    })
}
