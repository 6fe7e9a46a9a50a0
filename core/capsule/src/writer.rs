//! One chain: from batches to signed records (`spec/06 §3–§6`).
//!
//! ```text
//! Batch, GenerationKey ──▶ seal ──▶ header ‖ signature ‖ body ──▶ Received ──▶ replicas
//!                           │  ▲
//!                           ▼  │ prev, skip pointers, clock, epoch, config
//!                          the chain so far
//! ```
//!
//! In: a key, the verified newest config record, batches; time and randomness as arguments. Out:
//! records, each the next of the chain. Always true: what a writer makes passes the rules a receiver
//! applies to a record by itself; seq has no gap, clock, epoch and config never go back; a refused
//! call changes nothing, so the next one takes the same place; nothing follows a close. The owner's
//! writer holds the folded configuration and signs no change that contradicts it: such a record is
//! refused by all, but it is signed, and with the one that takes its place it proves a fork.
//!
//! A key must have one `Writer` at a time: two of them fork the chain, which anybody can then prove.
//! Left to the caller: that the generation is the newest one as of the adopted config record, that
//! parents are verified heads, and to hand every record on, in order.
//!
//! Cost per record: that of [`crate::RecordSecret`]'s module (one copy, two hash passes, one
//! encryption) plus one signature and one header hash; five to seven allocations, none per entry.

use bield_envelope::Time;
use rand_core::CryptoRng;

use crate::body;
use crate::certificate::{Opening, OpeningError};
use crate::record::ZERO;
use crate::{
    Batch, CapsuleName, Change, Clock, Config, ConfigError, GenerationKey, Head, Header, Kind,
    Metadata, PARENTS_MAX, PublicKey, Received, RecordError, SignedHead, SkipLevels, Suite,
    WriterId, WriterKey, decode_changes, encode_changes,
};

/// Why there is no record. The chain is as it was before the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The key is of another suite than the capsule.
    #[error("key is of suite {found:?}, the capsule of {expected:?}: draw a key of its suite")]
    Suite {
        /// The capsule's.
        expected: Suite,
        /// The key's.
        found: Suite,
    },
    /// Config records are the owner's, everything else is not.
    #[error(
        "the owner's key writes config records and nothing else, no other key writes them: use the other kind of key"
    )]
    Role,
    /// The head is not one of this chain, or of the config chain where that is asked for.
    #[error("head {0} is of another chain or another capsule; do not retry with it")]
    OtherChain(Head),
    /// The newest record does not carry this key's signature, or its hashes are others.
    #[error("the head to continue from does not verify; ask the replicas again")]
    Unverified,
    /// The config head is older than the adopted one.
    #[error(
        "config record {found} is older than {adopted}, which was adopted: whoever showed it rolled back; ask other replicas"
    )]
    ConfigBackwards {
        /// Adopted.
        adopted: u64,
        /// Shown.
        found: u64,
    },
    /// Two config records with one seq.
    #[error(
        "config record {seq} is another than the one adopted: the owner's chain is forked; stop, and tell the owner"
    )]
    ConfigForked {
        /// Its place.
        seq: u64,
    },
    /// An epoch before the current one.
    #[error("epoch {found} is over, the chain is in {current}; ask for the current one")]
    Epoch {
        /// The chain's.
        current: u64,
        /// Asked for.
        found: u64,
    },
    /// Nothing to seal.
    #[error("a data record has at least one entry; push before sealing")]
    Empty,
    /// Generations count from 1.
    #[error("generation 0 seals nothing: ask the owner for a generation's key")]
    Generation,
    /// More parents than a record names.
    #[error("{found} parents, a record names at most {PARENTS_MAX}; name the rest in the next")]
    Parents {
        /// Given.
        found: usize,
    },
    /// The chain was ended.
    #[error("the chain is closed; open a new one with a fresh key")]
    Closed,
    /// The last position is taken.
    #[error("the chain has no further position; close it and open a new one with a fresh key")]
    Exhausted,
    /// The certificate is not one for this key and capsule.
    #[error("no opening that receivers accept: {0}; ask the key service for a certificate")]
    Opening(#[from] OpeningError),
    /// The changes are too many, too long, none, or contradict the configuration before them.
    #[error("no config record that receivers accept, nothing was signed: {0}")]
    Config(#[from] ConfigError),
    /// The record would break a rule of the format.
    #[error("not written, the arguments make no record: {0}")]
    Record(#[from] RecordError),
}

/// Writes one chain.
///
/// ```
/// use bield_capsule::{Batch, Change, GenerationKey, Metadata, Suite, Writer, WriterKey};
/// # use bield_envelope::{Seeded, Time};
/// # let (now, mut entropy) = (Time::from_millis(1), Seeded::new(1));
/// let owner = WriterKey::generate(Suite::Ed25519, &mut entropy);
/// let metadata = Metadata::new(owner.public(), Some("log"), now, &mut entropy)?;
/// let generation = GenerationKey::generate(1, &mut entropy);
/// let key = WriterKey::generate(Suite::Ed25519, &mut entropy);
/// let changes = [
///     Change::admit(key.public()),
///     Change::Generation { number: 1, commitment: generation.commitment(&metadata) },
/// ];
/// let (_, config) = Writer::owner(owner, &metadata, &changes, now)?;
///
/// let (mut writer, open) = Writer::open(key, &metadata, config.head(), None, now)?;
/// let mut batch = Batch::new();
/// batch.push(b"paid 5 to bob")?;
/// let record = writer.seal(&batch, &generation, &[], now, &mut entropy)?;
/// assert_eq!(record.header().prev, open.hash());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Writer {
    key: WriterKey,
    suite: Suite,
    capsule: CapsuleName,
    owner: WriterId,
    levels: SkipLevels,
    epoch: u64,
    clock: Clock,
    /// Newest config record adopted; in the owner's chain its own newest.
    config: Option<Head>,
    /// What the owner's chain says; only in the owner's.
    folded: Option<Box<Config>>,
    closed: bool,
    /// Memory for associated data.
    scratch: Vec<u8>,
}

impl Writer {
    /// Begins a writer's chain with its open record, after the verified config record `config`.
    ///
    /// # Errors
    /// A key of another suite or the owner's, a head that is not of the config chain, or a
    /// certificate that is wrong in itself.
    pub fn open(
        key: WriterKey,
        metadata: &Metadata,
        config: Head,
        certificate: Option<&[u8]>,
        now: Time,
    ) -> Result<(Self, Received), WriteError> {
        let mut writer = Self::new(key, metadata)?;
        if writer.is_owner() {
            return Err(WriteError::Role);
        }
        writer.adopt_config(config)?;
        let body = Opening::encode(writer.key.public(), certificate);
        Opening::decode(writer.suite, &writer.capsule, &writer.id(), &body)?;
        let mut header = writer.next(Kind::Open, now)?;
        header.parents = vec![config];
        let record = writer.sign_clear(header, &body)?;
        Ok((writer, record))
    }

    /// Begins the owner's chain: config record 0.
    ///
    /// # Errors
    /// Not the owner's key, no change or too many, a change that contradicts another.
    pub fn owner(
        key: WriterKey,
        metadata: &Metadata,
        changes: &[Change],
        now: Time,
    ) -> Result<(Self, Received), WriteError> {
        let mut writer = Self::new(key, metadata)?;
        if !writer.is_owner() {
            return Err(WriteError::Role);
        }
        writer.folded = Some(Box::new(Config::new(metadata)));
        let record = writer.configure(changes, now)?;
        Ok((writer, record))
    }

    /// Continues a chain from its newest record, as found by asking enough replicas
    /// (`spec/06 §9`); `levels` are those of the verified chain, its last record being `tip`.
    ///
    /// # Errors
    /// The owner's key ([`Writer::resume_owner`]), a tip that is not this key's or does not verify, a
    /// closed chain, an older config head.
    pub fn resume(
        key: WriterKey,
        metadata: &Metadata,
        tip: &SignedHead,
        config: Head,
        levels: SkipLevels,
    ) -> Result<Self, WriteError> {
        let writer = Self::new(key, metadata)?;
        if writer.is_owner() {
            return Err(WriteError::Role);
        }
        writer.continued(tip, config, levels)
    }

    /// Continues the owner's chain from its newest record `tip`; `config` is what the chain says up to
    /// there, as a verifier folded it, and `levels` are those of the verified chain.
    ///
    /// # Errors
    /// Not the owner's key, a tip that does not verify, a configuration that does not end with it.
    pub fn resume_owner(
        key: WriterKey,
        metadata: &Metadata,
        tip: &SignedHead,
        config: &Config,
        levels: SkipLevels,
    ) -> Result<Self, WriteError> {
        let mut writer = Self::new(key, metadata)?;
        if !writer.is_owner() {
            return Err(WriteError::Role);
        }
        if config.capsule() != writer.capsule || config.head() != Some(tip.head()) {
            return Err(WriteError::OtherChain(tip.head()));
        }
        writer.folded = Some(Box::new(config.clone()));
        writer.continued(tip, tip.head(), levels)
    }

    /// Writes changes to the configuration; the owner's chain only. They are folded into what the
    /// chain says before anything is signed.
    ///
    /// # Errors
    /// Not the owner's chain, no change or too many, a change that contradicts the configuration.
    pub fn configure(&mut self, changes: &[Change], now: Time) -> Result<Received, WriteError> {
        let Some(folded) = &self.folded else {
            return Err(WriteError::Role);
        };
        let mut header = self.next(Kind::Config, now)?;
        header.config = header.seq;
        let body = encode_changes(changes);
        header.count = changes.len() as u32;
        decode_changes(&body, header.count)?;
        header.body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        header.root = self.suite.root(&body);
        let after = folded.after(header.hash(), changes)?;
        let record = self.sign_clear(header, &body)?;
        self.config = Some(record.head());
        self.folded = Some(Box::new(after));
        Ok(record)
    }

    /// Seals a batch into the next data record.
    ///
    /// # Errors
    /// An empty batch, generation 0, parents that make no record, a closed chain.
    pub fn seal(
        &mut self,
        batch: &Batch,
        generation: &GenerationKey,
        parents: &[Head],
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Received, WriteError> {
        let mut header = self.next(Kind::Data, now)?;
        if batch.is_empty() {
            return Err(WriteError::Empty);
        }
        if generation.number() == 0 {
            return Err(WriteError::Generation);
        }
        header.parents = sorted(parents.to_vec())?;
        header.generation = generation.number();
        let bytes = body::seal(&mut header, batch, generation, &mut self.scratch, entropy);
        let record = Received::sign_in_place(&self.key, header, bytes)?;
        self.advance(&record);
        Ok(record)
    }

    /// Names the heads of other chains: an agreed cut, from which `epoch` begins.
    ///
    /// # Errors
    /// An epoch before the current one, parents that make no record, a closed chain.
    pub fn join(
        &mut self,
        parents: Vec<Head>,
        epoch: u64,
        now: Time,
    ) -> Result<Received, WriteError> {
        let mut header = self.next(Kind::Join, now)?;
        if epoch < self.epoch {
            return Err(WriteError::Epoch {
                current: self.epoch,
                found: epoch,
            });
        }
        header.epoch = epoch;
        header.parents = sorted(parents)?;
        self.sign_clear(header, &[])
    }

    /// Ends the chain.
    ///
    /// # Errors
    /// It is closed, or the owner's: that one has no end.
    pub fn close(&mut self, now: Time) -> Result<Received, WriteError> {
        let header = self.next(Kind::Close, now)?;
        let record = self.sign_clear(header, &[])?;
        self.closed = true;
        Ok(record)
    }

    /// Names a newer verified config record from the next record on.
    ///
    /// # Errors
    /// A head of another chain, an older one, or another one with the same seq; and the owner's
    /// chain adopts nothing but what it writes.
    pub fn adopt_config(&mut self, head: Head) -> Result<(), WriteError> {
        if self.is_owner() {
            return Err(WriteError::Role);
        }
        if head.writer != self.owner {
            return Err(WriteError::OtherChain(head));
        }
        match self.config {
            Some(adopted) if head.seq < adopted.seq => Err(WriteError::ConfigBackwards {
                adopted: adopted.seq,
                found: head.seq,
            }),
            Some(adopted) if head.seq == adopted.seq && head != adopted => {
                Err(WriteError::ConfigForked { seq: head.seq })
            }
            _ => {
                self.config = Some(head);
                Ok(())
            }
        }
    }

    /// The newest record's position.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        Some(Head {
            writer: self.id(),
            seq: self.levels.next().checked_sub(1)?,
            hash: self.levels.newest()?,
        })
    }

    /// The newest config record named.
    #[must_use]
    pub const fn config(&self) -> Option<Head> {
        self.config
    }

    /// The id of the chain.
    #[must_use]
    pub const fn id(&self) -> WriterId {
        self.key.id()
    }

    /// The key that verifies the chain.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// The capsule it writes to.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.capsule
    }

    /// The capsule's suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// Its current epoch.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether the chain was ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    fn continued(
        mut self,
        tip: &SignedHead,
        config: Head,
        levels: SkipLevels,
    ) -> Result<Self, WriteError> {
        let header = tip.header();
        if header.capsule != self.capsule || header.writer != self.id() {
            return Err(WriteError::OtherChain(tip.head()));
        }
        if tip.verify(self.key.public()).is_err()
            || levels.newest() != Some(tip.head().hash)
            || header.seq.checked_add(1) != Some(levels.next())
        {
            return Err(WriteError::Unverified);
        }
        if config.writer != self.owner {
            return Err(WriteError::OtherChain(config));
        }
        if config.seq < header.config {
            return Err(WriteError::ConfigBackwards {
                adopted: header.config,
                found: config.seq,
            });
        }
        if header.kind == Kind::Close {
            return Err(WriteError::Closed);
        }
        self.levels = levels;
        self.epoch = header.epoch;
        self.clock = header.clock;
        self.config = Some(config);
        Ok(self)
    }

    fn new(key: WriterKey, metadata: &Metadata) -> Result<Self, WriteError> {
        let suite = metadata.suite();
        if key.suite() != suite {
            return Err(WriteError::Suite {
                expected: suite,
                found: key.suite(),
            });
        }
        Ok(Self {
            key,
            suite,
            capsule: metadata.name(),
            owner: metadata.owner_id(),
            levels: SkipLevels::new(),
            epoch: 0,
            clock: Clock::default(),
            config: None,
            folded: None,
            closed: false,
            scratch: Vec::new(),
        })
    }

    fn is_owner(&self) -> bool {
        self.id() == self.owner
    }

    /// The next record's header, for a body in clear and empty.
    fn next(&self, kind: Kind, now: Time) -> Result<Header, WriteError> {
        if self.closed {
            return Err(WriteError::Closed);
        }
        if self.is_owner() != (kind == Kind::Config) {
            return Err(WriteError::Role);
        }
        let seq = self.levels.next();
        if seq == u64::MAX {
            return Err(WriteError::Exhausted); // seq + 1 must exist
        }
        Ok(Header {
            suite: self.suite,
            kind,
            capsule: self.capsule,
            writer: self.id(),
            seq,
            epoch: self.epoch,
            clock: self.clock.next(now),
            config: self.config.map_or(0, |head| head.seq),
            generation: 0,
            count: 0,
            body_bytes: 0,
            prev: self.levels.prev(),
            salt: [0; 16],
            commitment: [0; 32],
            root: ZERO,
            parents: Vec::new(),
            skips: self.levels.skips(),
        })
    }

    fn sign_clear(&mut self, mut header: Header, body: &[u8]) -> Result<Received, WriteError> {
        header.body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        header.root = self.suite.root(body);
        let record = Received::sign(&self.key, &header, body)?;
        self.advance(&record);
        Ok(record)
    }

    fn advance(&mut self, record: &Received) {
        let header = record.header();
        self.levels.push(header.seq, record.hash());
        self.clock = header.clock;
        self.epoch = header.epoch;
    }
}

/// Ascending by writer, as headers have them.
fn sorted(mut parents: Vec<Head>) -> Result<Vec<Head>, WriteError> {
    if parents.len() > PARENTS_MAX {
        return Err(WriteError::Parents {
            found: parents.len(),
        });
    }
    parents.sort_unstable();
    Ok(parents)
}

#[cfg(test)]
mod tests;
