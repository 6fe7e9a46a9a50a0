//! One epoch's capsule as far as it was verified: the chain, its tree, and what opens its records.
//!
//! Always true: record *i* of the chain is leaf *i* of the tree; record 0 is the configuration, 1 the
//! opening of the one writer, every other one data of that writer; whoever holds a `Chain` knows that
//! its capsule belongs to the root secret it was made with.

use bield_capsule::ledger_file::{FileHead, Previous};
use bield_capsule::{
    Applied, Change, Entry, GenerationKey, KeyRing, Kind, Metadata, OpenError, Received,
    RecordError, Refused, SignedHead, SkipLevels, Verified, Verifier, VerifierPolicy, WriteError,
    Writer, WriterId,
};
use bield_envelope::{Digest, Secret, Time};
use bield_tlog::{Tree, TreeHead};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::keys::Keys;

/// A committed data record, opened.
pub struct Committed {
    /// Its index in the log: its leaf in the tree.
    pub index: u64,
    /// Its writer's clock.
    pub at: Time,
    /// Its entries, in order; wiped on drop.
    pub entries: Vec<Zeroizing<Vec<u8>>>,
}

/// Why a record does not continue the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotNext {
    /// Not a record.
    #[error("the bytes are no record: {0}")]
    Record(#[from] RecordError),
    /// It breaks a rule of the capsule: signature, chain, rights.
    #[error(transparent)]
    Refused(Box<Refused>),
    /// Its body does not open with the service's key.
    #[error("the record does not open: {0}")]
    Open(#[from] OpenError),
    /// A log has a configuration, an opening, then data of one writer, and nothing else.
    #[error("the record is of a kind or a writer that has no place there; do not retry")]
    Place,
}

impl From<Refused> for NotNext {
    fn from(refused: Refused) -> Self {
        Self::Refused(Box::new(refused))
    }
}

/// One epoch.
pub(crate) struct Chain {
    epoch: u32,
    previous: Option<Previous>,
    verifier: Verifier,
    writer: WriterId,
    ring: KeyRing,
    tree: Tree,
    /// Records 0 and 1, for snapshots.
    start: Vec<Vec<u8>>,
}

/// What a snapshot keeps of a chain beside its tree's leaves.
pub(crate) struct Tip {
    pub(crate) start: Vec<Vec<u8>>,
    /// None: there is no data record yet.
    pub(crate) head: Option<Vec<u8>>,
    pub(crate) levels: Vec<Digest>,
}

impl Chain {
    /// The chain of a file's capsule, before its first record; `None` when the capsule is not one of
    /// this root secret.
    pub(crate) fn begin(keys: &Keys, head: &FileHead) -> Option<Self> {
        let (epoch, name) = (head.epoch, head.metadata.name());
        if keys.owner(epoch).public() != head.metadata.owner() {
            return None;
        }
        let mut ring = KeyRing::new();
        ring.insert(keys.generation(epoch, &name)).ok()?;
        let policy = VerifierPolicy {
            allow_simulated: false,
            writers_max: 1,
        };
        Some(Self {
            epoch,
            previous: head.previous,
            writer: keys.writer(epoch, &name).id(),
            verifier: Verifier::new(head.metadata.clone(), policy),
            ring,
            tree: Tree::new(),
            start: Vec::new(),
        })
    }

    /// A new capsule with its first two records.
    pub(crate) fn found(
        keys: &Keys,
        epoch: u32,
        previous: Option<Previous>,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<(Self, [Received; 2]), WriteError> {
        let owner = keys.owner(epoch);
        let label = previous.map(|previous| previous.label());
        let metadata = Metadata::new(owner.public(), label.as_deref(), now, entropy)
            .expect("the label is a digest or none");
        let name = metadata.name();
        let writer = keys.writer(epoch, &name);
        let changes = [
            Change::admit(writer.public()),
            Change::Generation {
                number: 1,
                commitment: keys.generation(epoch, &name).commitment(&metadata),
            },
        ];
        let (_, config) = Writer::owner(owner, &metadata, &changes, now)?;
        let (_, open) = Writer::open(writer, &metadata, config.head(), None, now)?;
        let head = FileHead {
            epoch,
            first: 0,
            before: None,
            previous,
            metadata,
        };
        let chain = Self::begin(keys, &head).expect("the owner's key is this root's");
        Ok((chain, [config, open]))
    }

    /// The chain as a snapshot has it; `None` when its parts do not belong together.
    pub(crate) fn resume(keys: &Keys, head: &FileHead, tip: &Tip, tree: Tree) -> Option<Self> {
        let mut chain = Self::begin(keys, head)?;
        for record in &tip.start {
            let record = Received::decode(record.clone()).ok()?;
            let verified = chain.verify(record).ok()?;
            chain.apply(verified).ok()?;
        }
        if tree.size() < 2 || chain.tree.size() != 2 {
            return None;
        }
        if let Some(head) = &tip.head {
            let head = SignedHead::decode(head).ok()?;
            let levels = restored(head.header().seq, &tip.levels)?;
            chain.verifier.skip_to(&head, levels).ok()?;
        }
        // Every hash that the chain goes on from is a leaf; and the tree's size is the chain's.
        let applied = chain.verifier.chain(&chain.writer)?;
        let next = applied.levels().next();
        let mut kept = (0..next.min(2)).chain(newest_multiples(next));
        let leaf = |seq: u64| {
            let hash = applied.levels().hash_at(seq)?;
            (tree.leaf(seq + 1) == Some(bield_tlog::leaf_hash(hash.as_bytes()))).then_some(())
        };
        let linked = kept.all(|seq| applied.levels().hash_at(seq).is_none() || leaf(seq).is_some());
        let begins = tree.leaf(0) == chain.tree.leaf(0) && tree.leaf(1) == chain.tree.leaf(1);
        if !linked || !begins || tree.size() != next + 1 {
            return None;
        }
        chain.tree = tree;
        Some(chain)
    }

    /// What a snapshot keeps.
    pub(crate) fn tip(&self) -> Tip {
        let chain = self.verifier.chain(&self.writer);
        let levels = chain.map(bield_capsule::Chain::levels);
        let next = levels.map_or(0, SkipLevels::next);
        let hash = |seq| levels.and_then(|levels| levels.hash_at(seq));
        Tip {
            start: self.start.clone(),
            head: chain
                .filter(|_| next > 1)
                .map(|chain| chain.signed_head().as_bytes().to_vec()),
            levels: core::iter::once(0)
                .chain(newest_multiples(next))
                .filter_map(hash)
                .collect(),
        }
    }

    /// Checks a record against everything so far, its signature included.
    pub(crate) fn verify(&self, record: Received) -> Result<Verified, NotNext> {
        self.place(&record, self.tree.size())?;
        Ok(self.verifier.verify(record)?)
    }

    /// Checks the signature of a record in its chain alone: whether the writer made it.
    pub(crate) fn verify_own_signature(&self, record: &Received) -> Result<(), NotNext> {
        let chain = self.verifier.chain(&self.writer).ok_or(NotNext::Place)?;
        let signed = record.signed_head().verify(chain.key());
        signed.map_err(|_| Refused::Signature.into())
    }

    /// Checks records that follow each other, the newest signature for all; says which one is wrong.
    pub(crate) fn verify_run(&self, run: Vec<Received>) -> Result<Vec<Verified>, (usize, NotNext)> {
        for (at, record) in run.iter().enumerate() {
            self.place(record, self.tree.size() + at as u64)
                .map_err(|why| (at, why))?;
        }
        let verified = self.verifier.verify_run(run);
        verified.map_err(|(at, refused)| (at, refused.into()))
    }

    /// Takes a verified record into account.
    pub(crate) fn apply(&mut self, verified: Verified) -> Result<Applied, NotNext> {
        let applied = self.verifier.apply(verified)?;
        let record = applied.record();
        if self.start.len() < 2 {
            self.start.push(record.as_bytes().to_vec());
        }
        self.tree.append(record.hash().as_bytes());
        Ok(applied)
    }

    /// Opens a verified data record; a record without a sealed body has no entries.
    pub(crate) fn open(&self, verified: &Verified) -> Result<Vec<Zeroizing<Vec<u8>>>, OpenError> {
        if verified.record().header().kind != Kind::Data {
            return Ok(Vec::new());
        }
        let entries = verified.open(&self.ring)?;
        entries
            .iter()
            .map(|entry| match entry {
                Entry::Plain(payload) => Ok(Zeroizing::new(payload.to_vec())),
                Entry::Erasable(_) => Err(OpenError::Layout("an erasable entry in this log")),
            })
            .collect()
    }

    /// What opens records that were applied before.
    pub(crate) fn opener(&self) -> (Verifier, KeyRing) {
        let mut ring = KeyRing::new();
        for key in self
            .ring
            .generations()
            .filter_map(|number| self.ring.generation(number))
        {
            let secret = Secret::from_bytes(*key.secret().expose());
            let copied = ring.insert(GenerationKey::from_secret(key.number(), secret));
            debug_assert!(copied.is_ok(), "an empty ring takes every key");
        }
        (self.verifier.clone(), ring)
    }

    /// A writer that continues the chain.
    pub(crate) fn writer(&self, keys: &Keys) -> Result<Writer, WriteError> {
        let name = self.metadata().name();
        let (Some(chain), Some(config)) = (
            self.verifier.chain(&self.writer),
            self.verifier.config().head(),
        ) else {
            return Err(WriteError::Unverified);
        };
        let levels = chain.levels().clone();
        let key = keys.writer(self.epoch, &name);
        Writer::resume(key, self.metadata(), &chain.signed_head(), config, levels)
    }

    pub(crate) const fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) const fn previous(&self) -> Option<Previous> {
        self.previous
    }

    pub(crate) const fn metadata(&self) -> &Metadata {
        self.verifier.metadata()
    }

    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn into_tree(self) -> Tree {
        self.tree
    }

    pub(crate) fn size(&self) -> u64 {
        self.tree.size()
    }

    pub(crate) fn head(&self) -> TreeHead {
        TreeHead {
            size: self.tree.size(),
            root: self.tree.root(),
        }
    }

    /// The clock of the newest record.
    pub(crate) fn clock(&self) -> Time {
        let chain = self.verifier.chain(&self.writer);
        chain.map_or(self.metadata().created(), |chain| chain.clock().time())
    }

    /// The end of this epoch, for the next one.
    pub(crate) fn end(&self) -> Previous {
        let head = self.head();
        Previous {
            capsule: self.metadata().name(),
            size: head.size,
            root: *head.root.as_bytes(),
        }
    }

    /// The head of a file that begins with record `first`.
    pub(crate) fn file_head(
        &self,
        first: u64,
        before: Option<bield_capsule::ledger_file::Before>,
    ) -> FileHead {
        FileHead {
            epoch: self.epoch,
            first,
            before,
            previous: self.previous,
            metadata: self.metadata().clone(),
        }
    }

    fn place(&self, record: &Received, index: u64) -> Result<(), NotNext> {
        let header = record.header();
        let (kind, writer) = match index {
            0 => (Kind::Config, self.metadata().owner_id()),
            1 => (Kind::Open, self.writer),
            _ => (Kind::Data, self.writer),
        };
        if (header.kind, header.writer) == (kind, writer) {
            Ok(())
        } else {
            Err(NotNext::Place)
        }
    }
}

/// The positions whose hashes a chain with `next` records keeps, from the newest on.
fn newest_multiples(next: u64) -> impl Iterator<Item = u64> {
    let newest = next.checked_sub(1);
    let levels = newest.map_or(0, |newest| newest.checked_ilog2().map_or(1, |log| log + 1));
    (0..levels).map(move |level| newest.unwrap_or(0) >> level << level)
}

/// The levels of a chain whose newest record is `seq`, from what [`Chain::tip`] kept.
fn restored(seq: u64, kept: &[Digest]) -> Option<SkipLevels> {
    let (first, rest) = kept.split_first()?;
    let next = seq.checked_add(1)?;
    let at = |seq: u64| match seq {
        0 => Some(*first),
        _ => newest_multiples(next)
            .zip(rest)
            .find_map(|(kept, hash)| (kept == seq).then_some(*hash)),
    };
    SkipLevels::restore(next, at)
}
