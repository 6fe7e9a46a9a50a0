//! One capsule at one replica: verify, then store, then say so.
//!
//! ```text
//! records ──▶ known? ──▶ Verifier::verify ──▶ quota ──▶ Journal::append ──▶ Verifier::apply ──▶ log
//!               │ other hash, same place                                                         │
//!               ▼                                                              Journal::sync ──▶ acknowledge
//!          ForkProof ──▶ stored, served; its writer is frozen                                 (signed, `kept`)
//! ```
//!
//! In: decoded records from writers and from other replicas, both equally distrusted. Out: records,
//! acknowledgements, heads, checkpoints, fork proofs.
//!
//! Always true: every record is verified in full (signature, chain, admission, window of its
//! certificate) before it is stored; what is stored is all there is to serve; an acknowledgement
//! names what is held *and how*: `synced` only after a sync returned that covered it; after an error
//! of the disk other than a full one the replica takes nothing more until it is opened anew.
//!
//! Cost of a record: one signature check (40 µs in suite 1, the rest of the list is below 10), two
//! hash passes, one `write`; memory 200 bytes. Nothing here spawns, waits or looks at a clock.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bield_capsule::{
    Acknowledgement, CapsuleName, Chain, Context, ForkProof, Head, HeadsStatement, History, Kept,
    Metadata, MetadataError, Nonce, Received, RecordError, Refused, Through, Verifier,
    VerifierPolicy, WriterId,
};
use bield_envelope::{Digest, Signed, SigningKey, Time};
use bield_tlog::{Hash, LogVerifier, SignedCheckpoint, TilePath, TreeError, VerifiedCheckpoint};
use tokio::sync::watch;

use crate::admission::Admission;
use crate::journal::{Journal, JournalError, Options};
use crate::storage::{CHECKPOINT, METADATA, OpenJournalError, Storage};
use crate::{Refusal, frames};

mod forks;
mod log;
#[cfg(test)]
mod tests;

pub use log::{LogProof, origin_of};

use forks::Forks;
use log::Log;

/// Most records on one page.
pub const PAGE_RECORDS_MAX: usize = 1024;

/// A page takes no further record at this length; it ends at most one record later.
pub const PAGE_BYTES_MAX: usize = 1 << 20;

/// The same for a page of arrivals: subscribers are many, and the next page follows at once.
pub const ARRIVALS_BYTES_MAX: usize = 256 << 10;

/// Longest page in bytes.
pub(crate) const PAGE_ROOM: usize = PAGE_BYTES_MAX + frames::ITEM_BYTES_MAX + 4 * PAGE_RECORDS_MAX;

/// Longest page of arrivals in bytes.
pub(crate) const ARRIVALS_ROOM: usize =
    ARRIVALS_BYTES_MAX + frames::ITEM_BYTES_MAX + 4 * PAGE_RECORDS_MAX;

/// Most bytes of a capsule's fork proofs: one a writer, so only writers that were let in fill them.
pub const FORKS_BYTES_MAX: usize = 4 << 20;

/// One capsule at one replica.
pub struct Replica {
    storage: Arc<dyn Storage>,
    key: Arc<SigningKey>,
    verifier: Verifier,
    journal: Box<dyn Journal>,
    /// Where each writer's records stand in the log, by seq.
    places: HashMap<WriterId, Vec<u64>>,
    log: Log,
    forks: Forks,
    /// Bytes of all records.
    held: u64,
    /// Records that the stored checkpoint covers.
    remembered: u64,
    stopped: bool,
    grown: watch::Sender<u64>,
}

/// Where records come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From whoever sent them, now: certificates must hold now.
    Sender,
    /// From a replica of the configuration, which signed that it holds them: they arrived there in
    /// time (`spec/06 §6`), or a replica that joins late could never catch up.
    Replica,
}

/// What became of a group of records.
#[derive(Debug, Default)]
pub struct Taken {
    /// How many, from the first on, are held now.
    pub accepted: usize,
    /// How many of them were not held before.
    pub new: usize,
    /// Their writers.
    pub writers: BTreeSet<WriterId>,
    /// Why the next one is not held.
    pub refused: Option<Refusal>,
}

/// Some records, `u32 length ‖ record` each.
#[derive(Debug, Default, Clone)]
pub struct Page {
    /// The records.
    pub bytes: Vec<u8>,
    /// How many.
    pub records: usize,
    /// There are more in the range asked for.
    pub more: bool,
}

/// What stands in a store's list about a capsule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Records held.
    pub records: u64,
    /// Records that last.
    pub synced: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// Writers frozen by a fork proof.
    pub forks: u64,
}

/// A capsule cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A file cannot be read or written.
    #[error(
        "{what} of capsule {capsule} cannot be used: {error}; correct the disk or its permissions and start again"
    )]
    Item {
        /// Which.
        what: &'static str,
        /// Whose.
        capsule: CapsuleName,
        /// What the system said.
        error: io::Error,
    },
    /// The metadata is not what the name is the hash of.
    #[error("metadata of capsule {capsule}: {error}; restore it from another replica")]
    Metadata {
        /// Whose.
        capsule: CapsuleName,
        /// What is wrong.
        error: MetadataError,
    },
    /// The records cannot be read.
    #[error("capsule {capsule}: {error}")]
    Journal {
        /// Whose.
        capsule: CapsuleName,
        /// What is wrong.
        error: OpenJournalError,
    },
    /// A stored record is none.
    #[error("record {index} of capsule {capsule} is not a record: {error}; run `bield-store fsck`")]
    Record {
        /// Whose.
        capsule: CapsuleName,
        /// Its place in the log.
        index: u64,
        /// What is wrong.
        error: RecordError,
    },
    /// A stored record does not follow from those before.
    #[error(
        "record {index} of capsule {capsule} does not follow: {refused}; run `bield-store fsck`"
    )]
    Chain {
        /// Whose.
        capsule: CapsuleName,
        /// Its place in the log.
        index: u64,
        /// What is wrong.
        refused: Box<Refused>,
    },
    /// The stored records are not those that the last checkpoint covers.
    #[error(
        "capsule {capsule} here is not what this store's checkpoint of {size} records covers: the disk was set back or \
         changed; copy the capsule from another replica"
    )]
    Checkpoint {
        /// Whose.
        capsule: CapsuleName,
        /// Records it covers.
        size: u64,
    },
}

impl Replica {
    /// Begins a capsule; its metadata is stored when this returns.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn create(
        storage: Arc<dyn Storage>,
        key: Arc<SigningKey>,
        metadata: &Metadata,
        policy: VerifierPolicy,
    ) -> Result<Self, OpenError> {
        let capsule = metadata.name();
        let put = storage.put(&capsule, METADATA, metadata.as_bytes());
        put.map_err(item("metadata", capsule))?;
        Self::open(storage, key, capsule, policy)
    }

    /// Opens a capsule that is stored here, and what a crash left of it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        storage: Arc<dyn Storage>,
        key: Arc<SigningKey>,
        capsule: CapsuleName,
        policy: VerifierPolicy,
    ) -> Result<Self, OpenError> {
        let metadata = read_metadata(&*storage, capsule)?;
        let mut log = Log::new(&capsule, &key);
        let published = storage
            .get(&capsule, CHECKPOINT)
            .map_err(item("checkpoint", capsule))?
            .map(|bytes| read_checkpoint(&bytes, &log))
            .transpose()
            .map_err(item("checkpoint", capsule))?;
        let published_size = published.as_ref().map_or(0, |p| p.checkpoint().size());

        let (mut verifier, mut places, mut held) =
            (Verifier::new(metadata, policy), HashMap::new(), 0);
        let mut failed = None;
        let options = Options {
            acknowledged: published_size,
            ..Options::default()
        };
        let journal = storage.journal(&capsule, options, &mut |index, bytes| {
            held += bytes.len() as u64;
            match restore(&mut verifier, &mut places, &mut log, index, bytes) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let journal = journal.map_err(|error| OpenError::Journal { capsule, error })?;
        if let Some(published) = published {
            if !log.extends(published.checkpoint()) {
                return Err(OpenError::Checkpoint {
                    capsule,
                    size: published_size,
                });
            }
            log.published = Some(published);
        }
        compare_cuts(&mut verifier, &places, &log);
        let forks = Forks::load(&*storage, &capsule).map_err(item("fork proofs", capsule))?;
        for proof in forks.proofs() {
            freeze(&mut verifier, proof);
        }
        Ok(Self {
            grown: watch::Sender::new(log.size()),
            storage,
            key,
            verifier,
            journal,
            places,
            log,
            forks,
            held,
            remembered: published_size,
            stopped: false,
        })
    }

    /// Takes records in, in order, until one is refused. They are written, not yet synced.
    pub fn ingest(
        &mut self,
        records: Vec<Received>,
        source: Source,
        now: Time,
        admission: &Admission,
    ) -> Taken {
        let mut taken = Taken::default();
        for record in records {
            let writer = record.header().writer;
            match self.take(record, source, now, admission) {
                Ok(new) => {
                    taken.accepted += 1;
                    taken.new += usize::from(new);
                    taken.writers.insert(writer);
                }
                Err(refusal) => {
                    taken.refused = Some(refusal.with("record", taken.accepted));
                    break;
                }
            }
        }
        if taken.new > 0 {
            self.grown.send_replace(self.log.size());
        }
        taken
    }

    /// Takes one record in; says whether it is new.
    fn take(
        &mut self,
        record: Received,
        source: Source,
        now: Time,
        admission: &Admission,
    ) -> Result<bool, Refusal> {
        let head = record.head();
        if record.header().capsule != self.name() {
            let found = record.header().capsule;
            return Err(Refused::OtherCapsule { found }.into());
        }
        if let Some(here) = self.hash_at(&head.writer, head.seq) {
            if here == head.hash {
                return Ok(false);
            }
            return Err(self.conflict(&record));
        }
        if self.stopped {
            return Err(Refusal::stopped());
        }
        let context = Context {
            arrived: (source == Source::Sender).then_some(now),
            history: self,
        };
        let verified = self.verifier.verify_in(record, &context)?;
        let bytes = verified.record().as_bytes();
        let room = bytes.len() as u64;
        admission.take(room, self.held, self.verifier.config().quota())?;
        let index = match self.journal.append(&[bytes]) {
            Ok(index) => index,
            Err(error) => {
                admission.untake(room);
                return Err(self.failed(error));
            }
        };
        let applied = self.verifier.apply(verified);
        let applied = applied.expect("verified against this state a moment ago");
        debug_assert_eq!(applied.record().head(), head);
        if self.verifier.config().is_owner(&head.writer) {
            compare_cuts(&mut self.verifier, &self.places, &self.log);
        }
        assert_eq!(
            self.log.push(head.hash),
            index,
            "journal and log go together"
        );
        self.places.entry(head.writer).or_default().push(index);
        self.held += room;
        if head.seq == 0
            && let Some(proof) = self.forks.of(&head.writer)
        {
            freeze(&mut self.verifier, proof);
        }
        Ok(true)
    }

    /// A record for a place that holds another one: proof, or noise.
    fn conflict(&mut self, record: &Received) -> Refusal {
        let head = record.head();
        if self.forks.has(&head.writer) {
            return forked(&head);
        }
        let proof = || {
            let here = self.places[&head.writer][head.seq as usize];
            let here = self.journal.record(here).map_err(Refusal::from)?;
            let here = Received::decode(here).map_err(|_| Refusal::stopped())?;
            let chain = self
                .verifier
                .chain(&head.writer)
                .ok_or_else(Refusal::stopped)?;
            ForkProof::new(
                self.verifier.metadata(),
                chain.key(),
                here.signed_head(),
                record.signed_head(),
            )
            .map_err(Refusal::from)
        };
        match proof() {
            Ok(proof) => match self.keep_fork(head.writer, proof) {
                Ok(()) => forked(&head),
                Err(refusal) => refusal,
            },
            Err(refusal) if refusal.slug == "no-fork" => Refused::Signature.into(),
            Err(refusal) => refusal,
        }
    }

    /// Takes a fork proof from anyone; says whether it is new.
    ///
    /// # Errors
    /// It proves nothing, or is about a writer that has no record here (yet).
    pub fn add_fork(&mut self, proof: &[u8]) -> Result<bool, Refusal> {
        let proof = ForkProof::decode(proof)?;
        let fork = proof.verify(&self.name())?;
        if self.forks.has(&fork.writer) {
            return Ok(false);
        }
        if !self.places.contains_key(&fork.writer) {
            // Anyone can draw a key and fork it: only writers that were let in count.
            let mut refusal = Refusal::new(
                409,
                "unknown-writer",
                format!(
                    "the proof holds, but writer {} has no record here; send the writer's records first",
                    fork.writer
                ),
            );
            refusal.retry = true;
            return Err(refusal);
        }
        self.keep_fork(fork.writer, proof)?;
        Ok(true)
    }

    fn keep_fork(&mut self, writer: WriterId, proof: ForkProof) -> Result<(), Refusal> {
        let capsule = self.name();
        if !self.forks.fit(&proof, FORKS_BYTES_MAX) {
            let message = "this store keeps as many fork proofs of this capsule as it may; use another replica";
            return Err(Refusal::new(409, "forks-full", message));
        }
        let kept = self
            .forks
            .keep(&*self.storage, &capsule, writer, proof.clone());
        if let Err(error) = kept {
            tracing::error!(%capsule, %writer, %error, "a fork proof cannot be stored");
            if crate::journal::lacks(&error) {
                return Err(JournalError::NoSpace.into());
            }
            self.stopped = true;
            return Err(Refusal::stopped());
        }
        freeze(&mut self.verifier, &proof);
        tracing::warn!(%capsule, %writer, "a writer told two stories: it is frozen, the proof is served");
        Ok(())
    }

    /// Makes everything taken in so far last; says whether there was anything to do.
    ///
    /// # Errors
    /// The disk failed: nothing may be acknowledged as synced, and nothing more is taken in.
    pub fn sync(&mut self) -> Result<bool, Refusal> {
        if self.journal.synced() == self.journal.len() {
            return Ok(false);
        }
        if self.stopped {
            return Err(Refusal::stopped());
        }
        match self.journal.sync() {
            Ok(()) => Ok(true),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&mut self, error: JournalError) -> Refusal {
        let capsule = self.name();
        if let JournalError::NoSpace = error {
            tracing::error!(%capsule, "the disk is full: records are refused until space is freed");
        } else {
            tracing::error!(%capsule, %error, "the replica stops taking records; start the store again once the disk is well");
            self.stopped = true;
        }
        error.into()
    }

    /// Signs what is held of a writer's chain, and how safely; `None` when that is nothing.
    #[must_use]
    pub fn acknowledge(&self, writer: &WriterId, now: Time) -> Option<Vec<u8>> {
        let head = self.head_of(writer)?;
        let index = *self.places.get(writer)?.last()?;
        let kept = if index < self.journal.synced() {
            Kept::Synced
        } else if self.storage.writes_through() {
            Kept::Written
        } else {
            Kept::Memory
        };
        let said = Acknowledgement::of(self.name(), head, kept, now);
        Some(Signed::sign(&self.key, said).as_bytes().to_vec())
    }

    /// Signs a page of heads for a caller's nonce: of each writer the newest record that counts.
    #[must_use]
    pub fn heads(&self, nonce: Nonce, after: Option<WriterId>, now: Time) -> Vec<u8> {
        let config = self.verifier.config().head();
        let chains = self.verifier.chains_after(after);
        let heads = chains.filter_map(|chain| self.counting(chain));
        let page = HeadsStatement::page(self.name(), nonce, now, config, after, heads);
        Signed::sign(&self.key, page).as_bytes().to_vec()
    }

    /// Records of one writer, `from` to `to`, both included.
    ///
    /// # Errors
    /// The disk failed, or the writer is not known here.
    pub fn records(&self, writer: &WriterId, from: u64, to: u64) -> Result<Page, Refusal> {
        let Some(places) = self.places.get(writer) else {
            return Err(Refusal::new(
                404,
                "no-writer",
                "this store has no record by that writer; ask another replica",
            ));
        };
        let end = usize::try_from(to)
            .unwrap_or(usize::MAX)
            .saturating_add(1)
            .min(places.len());
        let start = usize::try_from(from).unwrap_or(usize::MAX).min(end);
        self.page(places[start..end].iter().copied(), PAGE_BYTES_MAX)
    }

    /// Records in order of arrival, from log index `from` on.
    ///
    /// # Errors
    /// The disk failed.
    pub fn arrivals(&self, from: u64) -> Result<Page, Refusal> {
        self.page(from..self.log.size(), ARRIVALS_BYTES_MAX)
    }

    fn page(&self, indices: impl Iterator<Item = u64>, bytes_max: usize) -> Result<Page, Refusal> {
        let mut indices = indices.peekable();
        let mut page = Page::default();
        while let Some(start) = indices.next() {
            // Neighbours in the log are read with one call.
            let mut end = start + 1;
            let mut bytes = page.bytes.len() + self.record_bytes(start);
            let mut records = page.records + 1;
            while records < PAGE_RECORDS_MAX
                && bytes < bytes_max
                && indices.next_if_eq(&end).is_some()
            {
                bytes += self.record_bytes(end);
                records += 1;
                end += 1;
            }
            let read = self.journal.read(start..end, &mut |_, record| {
                frames::push(&mut page.bytes, record);
                page.records += 1;
                ControlFlow::Continue(())
            });
            if let Err(error) = read {
                let capsule = self.name();
                tracing::error!(%capsule, %error, "stored records cannot be read");
                return Err(unreadable());
            }
            if page.records >= PAGE_RECORDS_MAX || page.bytes.len() >= bytes_max {
                page.more = indices.peek().is_some();
                break;
            }
        }
        Ok(page)
    }

    fn record_bytes(&self, index: u64) -> usize {
        self.journal.record_bytes(index).unwrap_or_default()
    }

    /// Fork proofs, `u32 length ‖ proof` each.
    #[must_use]
    pub fn forks(&self) -> Vec<u8> {
        self.forks.encode()
    }

    /// A checkpoint of all synced records; it is new to the world until [`Replica::publish`].
    ///
    /// # Errors
    /// Never, as long as the journal is not longer than the log.
    pub fn checkpoint(&self) -> Result<VerifiedCheckpoint, TreeError> {
        self.log.checkpoint(self.journal.synced())
    }

    /// The newest checkpoint that left the store.
    #[must_use]
    pub const fn published(&self) -> Option<&VerifiedCheckpoint> {
        self.log.published.as_ref()
    }

    /// Stores a checkpoint before it leaves, so that a disk set back to before is noticed at start.
    ///
    /// # Errors
    /// It cannot be stored: it must not leave.
    pub fn publish(&mut self, checkpoint: VerifiedCheckpoint) -> Result<(), Refusal> {
        let older = |published: &VerifiedCheckpoint| {
            checkpoint.checkpoint().size() < published.checkpoint().size()
        };
        // Nothing new: neither a record nor a cosignature.
        if self.log.published.as_ref() == Some(&checkpoint) {
            return Ok(());
        }
        // `remember` may have stored a longer one; a cosigned one is worth more than its last records.
        if self.log.published.as_ref().is_some_and(older)
            || !self.log.extends(checkpoint.checkpoint())
        {
            return Ok(());
        }
        let (capsule, bytes) = (self.name(), checkpoint.to_string());
        let put = self.storage.put(&capsule, CHECKPOINT, bytes.as_bytes());
        put.map_err(|error| {
            tracing::error!(%capsule, %error, "a checkpoint cannot be stored, so it is not published");
            Refusal::new(503, "stopped", "this replica cannot store its checkpoint; use another replica").retry_after(std::time::Duration::from_secs(30))
        })?;
        self.remembered = checkpoint.checkpoint().size();
        self.log.published = Some(checkpoint);
        Ok(())
    }

    /// Stores a checkpoint of all synced records without publishing it: should the disk lose the
    /// newest of them, the next start tells. Says whether there was anything to do.
    ///
    /// # Errors
    /// It cannot be stored.
    pub fn remember(&mut self) -> io::Result<bool> {
        let synced = self.journal.synced();
        if synced <= self.remembered {
            return Ok(false);
        }
        let checkpoint = self.log.checkpoint(synced).map_err(io::Error::other)?;
        let bytes = checkpoint.to_string();
        self.storage
            .put(&self.name(), CHECKPOINT, bytes.as_bytes())?;
        self.remembered = synced;
        Ok(true)
    }

    /// Proves that the log grew from `old` to `new` records.
    ///
    /// # Errors
    /// The log has not that many.
    pub fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, TreeError> {
        self.log.consistency(old, new)
    }

    /// Proves that a record is among the first `size`; `None` when it is not.
    ///
    /// # Errors
    /// The log has not that many.
    pub fn prove(&self, hash: &Digest, size: u64) -> Result<Option<LogProof>, TreeError> {
        self.log.prove(hash, size)
    }

    /// A tile or bundle of the log that synced records fill.
    #[must_use]
    pub fn tile(&self, path: &TilePath) -> Option<Vec<u8>> {
        self.log.tile(path, self.journal.synced())
    }

    /// The key of the log's checkpoints.
    #[must_use]
    pub fn log_verifier(&self) -> &LogVerifier {
        self.log.verifier()
    }

    /// The capsule's name.
    #[must_use]
    pub fn name(&self) -> CapsuleName {
        self.verifier.metadata().name()
    }

    /// What has been verified so far.
    #[must_use]
    pub const fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Header hash of a record that is held.
    #[must_use]
    pub fn hash_at(&self, writer: &WriterId, seq: u64) -> Option<Digest> {
        let index = *self.places.get(writer)?.get(usize::try_from(seq).ok()?)?;
        self.log.hash(index)
    }

    /// The newest record that is held of a writer, whatever has become of the writer since.
    #[must_use]
    pub fn head_of(&self, writer: &WriterId) -> Option<Head> {
        let places = self.places.get(writer)?;
        Some(Head {
            writer: *writer,
            seq: places.len().checked_sub(1)? as u64,
            hash: self.log.hash(*places.last()?)?,
        })
    }

    /// Is there proof that this writer forked?
    #[must_use]
    pub fn is_forked(&self, writer: &WriterId) -> bool {
        self.forks.has(writer)
    }

    /// Has an error of the disk ended the taking of records?
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Counts.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            records: self.log.size(),
            synced: self.journal.synced(),
            bytes: self.held,
            forks: self.forks.len() as u64,
        }
    }

    /// Tells how long the log is, whenever it grows.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }

    /// The newest record of a chain that counts: a revocation may have cut it below its tip.
    fn counting(&self, chain: &Chain) -> Option<Head> {
        let tip = chain.tip();
        let seq = match chain.through(self.verifier.config()) {
            Through::Nothing => return None,
            Through::Everything => tip.seq,
            Through::Last(last) => last.min(tip.seq),
        };
        let hash = self.hash_at(&tip.writer, seq)?;
        Some(Head { seq, hash, ..tip })
    }
}

impl History for Replica {
    fn hash_at(&self, writer: &WriterId, seq: u64) -> Option<Digest> {
        Replica::hash_at(self, writer, seq)
    }
}

/// Reads and checks a capsule's metadata.
pub(crate) fn read_metadata(
    storage: &dyn Storage,
    capsule: CapsuleName,
) -> Result<Metadata, OpenError> {
    let bytes = storage
        .get(&capsule, METADATA)
        .and_then(|bytes| bytes.ok_or_else(|| io::ErrorKind::NotFound.into()))
        .map_err(item("metadata", capsule))?;
    let named = Metadata::decode_named(&bytes, &capsule);
    named.map_err(|error| OpenError::Metadata { capsule, error })
}

fn read_checkpoint(bytes: &[u8], log: &Log) -> io::Result<VerifiedCheckpoint> {
    SignedCheckpoint::parse(bytes)
        .and_then(|signed| signed.verify(&log.origin(), &[log.verifier().clone()]))
        .map_err(io::Error::other)
}

/// Takes back a record of the own journal: it was verified before it was written.
fn restore(
    verifier: &mut Verifier,
    places: &mut HashMap<WriterId, Vec<u64>>,
    log: &mut Log,
    index: u64,
    bytes: &[u8],
) -> Result<(), OpenError> {
    let capsule = verifier.metadata().name();
    let record = Received::decode(bytes.to_vec()).map_err(|error| OpenError::Record {
        capsule,
        index,
        error,
    })?;
    let head = record.head();
    verifier
        .restore_own(record)
        .map_err(|refused| OpenError::Chain {
            capsule,
            index,
            refused: Box::new(refused),
        })?;
    log.push(head.hash);
    places.entry(head.writer).or_default().push(index);
    Ok(())
}

/// Tells the verifier which records are where the owner cut chains: it keeps no hashes below the tips.
fn compare_cuts(verifier: &mut Verifier, places: &HashMap<WriterId, Vec<u64>>, log: &Log) {
    let asked = |chain: &Chain| {
        let last = chain.unchecked_cut(verifier.config())?;
        let writer = chain.writer();
        let index = *places.get(&writer)?.get(usize::try_from(last.seq).ok()?)?;
        let (seq, hash) = (last.seq, log.hash(index)?);
        Some(Head { writer, seq, hash })
    };
    let stored: Vec<Head> = verifier.chains().filter_map(asked).collect();
    for head in stored {
        verifier.compare_cut(head);
    }
}

fn freeze(verifier: &mut Verifier, proof: &ForkProof) {
    // Its proof was verified and its writer has a chain here, or it would not have been kept. After
    // a crash that took the writer's only, never synced record, the proof waits for that writer.
    let _ = verifier.mark_forked(proof);
}

fn item(what: &'static str, capsule: CapsuleName) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Item {
        what,
        capsule,
        error,
    }
}

fn forked(head: &Head) -> Refusal {
    Refusal::new(
        409,
        "forked",
        format!(
            "writer {} signed two records for one place ({}): the proof is stored and nothing more is taken from it; its \
             owner must revoke it",
            head.writer, head.seq
        ),
    )
    .with("writer", head.writer.to_string())
    .with("seq", head.seq)
}

fn unreadable() -> Refusal {
    Refusal::new(
        500,
        "unreadable",
        "stored records cannot be read here; fetch them from another replica, and tell this store's operator to run `bield-store fsck`",
    )
}
