//! The running log: seal, prepare, commit, and the words it signs about itself.
//!
//! ```text
//! entries ──seal──▶ record ──(group: prepare, on a majority)──▶ commit ──▶ entries, in every member
//!                     │                                            │
//!                  reserved: no other record for this place     durable, then in chain and tree
//! ```
//!
//! Always true: a place in the log gets one record, whatever fails: once one was sealed here, or tried
//! to be written, only that one is committed there; what is in chain and tree is durable; a signed
//! checkpoint covers durable records only.

use std::collections::BTreeMap;

use bield_capsule::ledger_file::{Before, encode_frame, log_name};
use bield_capsule::{Batch, CapsuleName, GenerationKey, Received, Verified, Writer};
use bield_envelope::{Digest, Secret, Time};
use bield_tlog::{Checkpoint, Hash, LogKey, LogVerifier, Origin, TreeHead, VerifiedCheckpoint};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::boxes::{self, RootBox};
use crate::chain::Chain;
use crate::keys::{Keys, origin};
use crate::layout::{Inventory, PREPARED, ROOT, STATE_BYTES_MAX, recovery_name, snapshot_name};
use crate::past::PastLog;
use crate::prepared::PreparedFile;
use crate::replay::{Tail, has_data};
use crate::{Files, LedgerError, snapshot};

/// The key service's log.
pub struct Ledger {
    pub(crate) files: Box<dyn Files>,
    pub(crate) seal: Secret,
    pub(crate) keys: Keys,
    pub(crate) chain: Chain,
    pub(crate) past: Vec<PastLog>,
    log_key: LogKey,
    origin: Origin,
    generation: GenerationKey,
    writer: Option<Writer>,
    batch: Batch,
    /// The one record that may be committed next: sealed here, or tried to be written.
    reserved: Option<Digest>,
    /// The newest record that `writer` made, while it is not committed.
    sealed: Option<Digest>,
    /// First index and length of each log file of this epoch; the last is the one that is appended to.
    pub(crate) segments: BTreeMap<u64, u64>,
    prepared: PreparedFile,
    term: u64,
    /// The record that is prepared for the next place.
    newest_prepared: Option<Digest>,
    /// A new file was begun and may be there: nothing is written to the one before any more.
    rotating: bool,
    /// Sizes of the snapshots that may be there, ascending.
    pub(crate) snapshots: Vec<u64>,
    /// Size and bytes of the newest whole snapshot.
    snapshot: (u64, u64),
    /// Bytes of log since then.
    since_bytes: u64,
    recovering: bool,
    pub(crate) points: crate::read::Points,
}

/// What a load makes a ledger of.
pub(crate) struct Parts {
    pub(crate) files: Box<dyn Files>,
    pub(crate) seal: Secret,
    pub(crate) keys: Keys,
    pub(crate) chain: Chain,
    pub(crate) past: Vec<PastLog>,
    pub(crate) segments: BTreeMap<u64, u64>,
    pub(crate) tail: Tail,
    pub(crate) prepared: PreparedFile,
    pub(crate) term: u64,
    pub(crate) newest_prepared: Option<Digest>,
    pub(crate) snapshots: Vec<u64>,
    pub(crate) snapshot: (u64, u64),
    pub(crate) recovering: bool,
}

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
        state: &[u8],
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, LedgerError> {
        let epoch = self.chain.epoch() + 1;
        if epoch as usize >= crate::layout::EPOCHS_MAX {
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

    pub(crate) fn assemble(parts: Parts) -> Result<Self, crate::FilesError> {
        let Parts {
            files,
            seal,
            keys,
            chain,
            past,
            segments,
            tail,
            prepared,
            term,
            newest_prepared,
            snapshots,
            snapshot,
            recovering,
        } = parts;
        let (epoch, name) = (chain.epoch(), chain.metadata().name());
        let log_key = keys.log(epoch, &name);
        let mut ledger = Self {
            files,
            seal,
            origin: origin(&log_key),
            log_key,
            generation: keys.generation(epoch, &name),
            keys,
            past,
            writer: None,
            batch: Batch::new(),
            reserved: None,
            sealed: None,
            segments,
            rotating: false,
            prepared,
            term,
            newest_prepared,
            snapshots,
            snapshot,
            since_bytes: 0,
            recovering,
            points: crate::read::Points::default(),
            chain,
        };
        ledger.since_bytes = ledger
            .segments
            .range(snapshot.0..)
            .map(|(_, bytes)| bytes)
            .sum();
        if !recovering {
            ledger.mend(tail)?;
        }
        Ok(ledger)
    }

    /// Cuts a torn append off, so that a file which another one follows ends exactly behind a frame.
    fn mend(&mut self, tail: Tail) -> Result<(), crate::FilesError> {
        let name = log_name(self.chain.epoch(), tail.first);
        let bytes = match tail.bytes {
            0 => {
                let head = self.file_head(tail.first);
                self.files.append(&name, 0, &head)?;
                head.len() as u64
            }
            bytes => {
                if tail.torn != 0 {
                    self.files.append(&name, bytes, &[])?;
                }
                bytes
            }
        };
        self.segments.insert(tail.first, bytes);
        Ok(())
    }

    /// Makes the next record of `entries`: at least one, together at most what one record holds
    /// (`bield_capsule::Batch`). Nothing is written; nobody may be answered before it is committed.
    ///
    /// # Errors
    /// The record before is not committed, entries that do not fit, or a log that is being recovered.
    pub fn seal(
        &mut self,
        entries: &[&[u8]],
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Received, LedgerError> {
        self.writable()?;
        if self.reserved.is_some() {
            let index = self.size();
            return Err(LedgerError::Uncommitted { index });
        }
        self.batch.clear();
        for entry in entries {
            self.batch.push(entry)?;
        }
        let now = self.now(now);
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => self.writer.insert(self.chain.writer(&self.keys)?),
        };
        let sealed = writer.seal(&self.batch, &self.generation, &[], now, entropy);
        self.batch = Batch::new(); // wiped
        let record = sealed?;
        self.reserved = Some(record.hash());
        self.sealed = self.reserved;
        Ok(record)
    }

    /// Holds for the group, durable and sealed when this returns: `term` has begun, and after what is
    /// committed comes exactly `record`, or nothing. It takes the place of whatever was prepared before;
    /// the same again is fine.
    ///
    /// # Errors
    /// A record that does not continue the log, a term that is over, another record in the same term, or
    /// the host does not store.
    pub fn prepare(&mut self, term: u64, record: Option<&Received>) -> Result<(), LedgerError> {
        self.writable()?;
        let (index, capsule) = (self.size(), self.capsule());
        if let Some(record) = record {
            let verified = self.chain.verify(record.clone())?;
            self.chain.open(&verified).map_err(crate::NotNext::from)?;
        }
        let hash = record.map(Received::hash);
        let other =
            hash.is_some() && self.newest_prepared.is_some() && self.newest_prepared != hash;
        if term < self.term || (term == self.term && other) {
            let newest = self.term;
            return Err(LedgerError::Term { term, newest });
        }
        if (term, hash) == (self.term, self.newest_prepared) {
            return Ok(());
        }
        let bytes = record.map_or(&[][..], Received::as_bytes);
        let place = (term, index);
        self.prepared
            .put(&mut *self.files, &self.keys, &capsule, place, bytes)?;
        (self.term, self.newest_prepared) = (term, hash);
        Ok(())
    }

    /// The term of the last [`Ledger::prepare`], or of the transfer this log came by; 0: there was none.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// Size and root of the tree with `record` as its next leaf.
    #[must_use]
    pub fn head_with(&self, record: &Received) -> TreeHead {
        let leaf = bield_tlog::leaf_hash(record.hash().as_bytes());
        TreeHead {
            size: self.size() + 1,
            root: self.chain.tree().root_with(leaf),
        }
    }

    /// Makes a record the log's next one: verified, durable, then in chain and tree. Gives its entries.
    ///
    /// A record from elsewhere passes every rule before anything is stored. After
    /// [`LedgerError::NotDurable`] call it again with the same record until it succeeds.
    ///
    /// # Errors
    /// A record that does not continue the log, another one than was made or tried here, one that is
    /// committed already, or a write whose outcome is not known.
    pub fn commit(&mut self, record: &Received) -> Result<Vec<Zeroizing<Vec<u8>>>, LedgerError> {
        self.writable()?;
        let index = self.size();
        let hash = record.hash();
        if self.is_newest(&hash) {
            let index = index - 1;
            return Err(LedgerError::Known { index });
        }
        if self.reserved.is_some_and(|reserved| reserved != hash) {
            return Err(LedgerError::Reserved { index });
        }
        let verified = self.chain.verify(record.clone())?;
        let entries = self.chain.open(&verified).map_err(crate::NotNext::from)?;
        self.commit_verified(vec![verified])?;
        Ok(entries)
    }

    /// Stores verified records that follow each other in one durable write, then takes them into account.
    pub(crate) fn commit_verified(&mut self, verified: Vec<Verified>) -> Result<(), LedgerError> {
        self.writable()?;
        let index = self.size();
        let Some(hash) = verified.first().map(|first| first.record().hash()) else {
            return Ok(());
        };
        match &self.reserved {
            Some(reserved) if *reserved != hash => return Err(LedgerError::Reserved { index }),
            Some(_) => {}
            None => self.reserved = Some(hash),
        }
        self.write_frames(index, &verified)?;
        for verified in verified {
            let hash = verified.record().hash();
            self.chain.apply(verified)?;
            if self.sealed != Some(hash) {
                self.writer = None; // it has not made this record
            }
        }
        (self.reserved, self.sealed, self.newest_prepared) = (None, None, None);
        Ok(())
    }

    /// Records in the log: the next one's index.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.chain.size()
    }

    /// Size and root of the tree over all committed records.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        self.chain.head()
    }

    /// Which log: `bield/keys/<capsule>/<key>`.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What its checkpoints verify with.
    #[must_use]
    pub const fn verifier(&self) -> &LogVerifier {
        self.log_key.verifier()
    }

    /// The capsule of this epoch.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.chain.metadata().name()
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.chain.epoch()
    }

    /// The root secret: identity and audience keys derive from it.
    #[must_use]
    pub const fn root(&self) -> &Secret {
        self.keys.root()
    }

    /// The header hash of the newest record; every record has one.
    #[must_use]
    pub fn newest_leaf(&self) -> Option<Hash> {
        self.chain.tree().leaf(self.size() - 1)
    }

    /// Signs size and root of the tree, with an extension line `nonce <hex>` where a fresh cosignature is
    /// to be asked for.
    ///
    /// # Panics
    /// Never: its own lines make a checkpoint.
    #[must_use]
    pub fn checkpoint(&self, nonce: Option<[u8; 32]>) -> VerifiedCheckpoint {
        let head = self.head();
        let plain = Checkpoint::new(self.origin.clone(), head.size, head.root);
        let checkpoint = match nonce {
            None => plain,
            Some(nonce) => {
                let text = format!("{plain}nonce {}\n", Digest::from_bytes(nonce));
                Checkpoint::parse(&text).expect("origin, size, root and one extension line")
            }
        };
        checkpoint.sign(&self.log_key)
    }

    /// Proves that the log begins with its first `size` records.
    ///
    /// # Errors
    /// The log has fewer records: whoever asks knows more than this log does.
    pub fn consistency(&self, size: u64) -> Result<Vec<Hash>, LedgerError> {
        let tree = self.chain.tree();
        Ok(tree.consistency_proof(size, tree.size())?)
    }

    /// Proves that the first `to` records begin with the first `size` of them: for a checkpoint that is not
    /// the newest.
    ///
    /// # Errors
    /// The log has fewer records than `to`, or `to` is less than `size`.
    pub fn consistency_to(&self, size: u64, to: u64) -> Result<Vec<Hash>, LedgerError> {
        Ok(self.chain.tree().consistency_proof(size, to)?)
    }

    /// Whether the log had this head; not when it is ahead of the log, nor when it is another log's.
    #[must_use]
    pub fn contains(&self, head: TreeHead) -> bool {
        self.chain.tree().root_at(head.size) == Ok(head.root)
    }

    /// The logs of earlier epochs, ascending.
    #[must_use]
    pub fn past(&self) -> &[PastLog] {
        &self.past
    }

    /// The time: `host`'s clock, and never before the newest record.
    #[must_use]
    pub fn now(&self, host: Time) -> Time {
        host.max(self.chain.clock())
    }

    /// Whether a record was sealed, or tried to be written, and is not committed.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.reserved.is_some()
    }

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

    /// Ends the log in this process and gives the files and the seal key back: for a member that is given
    /// its group's log anew.
    #[must_use]
    pub fn into_parts(self) -> (Box<dyn Files>, Secret) {
        (self.files, self.seal)
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

    fn writable(&self) -> Result<(), LedgerError> {
        if self.recovering {
            return Err(LedgerError::Recovering);
        }
        Ok(())
    }

    fn is_newest(&self, hash: &Digest) -> bool {
        let leaf = bield_tlog::leaf_hash(hash.as_bytes());
        self.newest_leaf() == Some(leaf)
    }

    fn write_frames(&mut self, index: u64, records: &[Verified]) -> Result<(), LedgerError> {
        if self.rotating {
            self.rotate(index).map_err(LedgerError::NotDurable)?;
        }
        let (first, end) = self.newest_segment();
        let mut frame = Vec::new();
        for (index, verified) in (index..).zip(records) {
            encode_frame(index, verified.record().as_bytes(), &mut frame);
        }
        let name = log_name(self.chain.epoch(), first);
        self.files
            .append(&name, end, &frame)
            .map_err(LedgerError::NotDurable)?;
        self.points.note(self.chain.epoch(), index, (first, end));
        self.segments.insert(first, end + frame.len() as u64);
        self.since_bytes += frame.len() as u64;
        Ok(())
    }

    /// First index and length of the file that is appended to.
    fn newest_segment(&self) -> (u64, u64) {
        let newest = self.segments.iter().next_back();
        newest.map_or((0, 0), |(first, bytes)| (*first, *bytes))
    }

    /// Makes the file that record `size` goes to, before there is a snapshot at `size`.
    fn rotate(&mut self, size: u64) -> Result<(), crate::FilesError> {
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

    fn file_head(&self, first: u64) -> Vec<u8> {
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

/// Log since the last snapshot that is worth one, in bytes: a second or so of replay.
const SNAPSHOT_LOG_BYTES: u64 = 64 << 20;
/// The same in records.
const SNAPSHOT_RECORDS: u64 = 65_536;
/// Whole snapshots that stay: the newest, and one to fall back to.
const SNAPSHOTS_KEPT: usize = 2;
