//! What the owner's chain says, folded (`spec/06 §5`).
//!
//! ```text
//! config 0 ─ config 1 ─ … ─ config n ──▶ Config as of n:  who may write, how far
//!    changes    changes        changes                    generations, replicas, quorum, witnesses
//! ```
//!
//! In: config records in order. Out: the state after them. Always true: a record with one change that
//! contradicts the state before it changes nothing; what `uncertify` or `revoke` took stays taken, except
//! that the owner may admit an uncertified writer by its key, and `codes` may be replaced; every table
//! has a limit. Of the past only what later records need is kept: the hash of every config record, because
//! open records name it, and where every generation begins.
//!
//! Memory: 32 bytes a config record, 40 a generation, about 50 to 90 an entry of any other table. Copies
//! share every table that they do not change.

mod change;
mod fold;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bield_envelope::{Digest, Principal, wire::WireError};

pub use self::change::{
    CHANGES_BYTES_MAX, CHANGES_MAX, CODES_MAX, Change, KEEP_MAX, Last, decode_changes,
    encode_changes,
};
use self::fold::Step;
use crate::{CapsuleName, CertificateError, Head, Metadata, Suite, WriterCertificate, WriterId};

/// Most config records in a capsule: one an hour for seven years; 2 MiB of hashes.
pub const CONFIG_RECORDS_MAX: usize = 65_536;

/// Most principals that certify writers at a time.
pub const CERTIFIERS_MAX: usize = 64;

/// Most principals whose certificates once counted.
pub const FORMER_CERTIFIERS_MAX: usize = 4096;

/// Most writers that stay although their certifier does not, over all former certifiers.
pub const KEPT_WRITERS_MAX: usize = 65_536;

/// Most writers that the owner admits by key.
pub const ADMITTED_MAX: usize = 65_536;

/// Most writers that are revoked. A capsule that comes near should exchange its certifier.
pub const REVOKED_MAX: usize = 65_536;

/// Most key generations.
pub const CONFIG_GENERATIONS_MAX: usize = 65_536;

/// Most replicas at a time.
pub const REPLICAS_MAX: usize = 64;

/// Most witnesses at a time.
pub const WITNESSES_MAX: usize = 64;

/// Longest address of a replica, and longest verifier key of a witness, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// The configuration after some config record.
#[derive(Clone, Debug)]
pub struct Config {
    capsule: CapsuleName,
    suite: Suite,
    owner: WriterId,
    records: Hashes,
    certifiers: Arc<BTreeMap<Principal, Codes>>,
    former: Arc<BTreeMap<Principal, Arc<Former>>>,
    kept: usize,
    admitted: Arc<BTreeSet<WriterId>>,
    revoked: Arc<BTreeMap<WriterId, Option<Last>>>,
    generations: Arc<Vec<Generation>>,
    replicas: Arc<BTreeMap<Principal, String>>,
    quorum: Quorum,
    witnesses: Arc<BTreeMap<String, String>>,
    quota: Option<u64>,
}

/// Header hashes of the config chain. Copies share all but the newest few.
#[derive(Clone, Debug, Default)]
struct Hashes {
    older: Arc<Vec<Digest>>,
    recent: Vec<Digest>,
}

/// How many hashes every copy has for itself: 16 KiB.
const RECENT_MAX: usize = 512;

impl Hashes {
    fn len(&self) -> usize {
        self.older.len() + self.recent.len()
    }

    fn get(&self, at: usize) -> Option<Digest> {
        let recent = at.checked_sub(self.older.len());
        recent
            .map_or_else(|| self.older.get(at), |at| self.recent.get(at))
            .copied()
    }

    fn push(&mut self, hash: Digest) {
        if self.recent.len() >= RECENT_MAX {
            Arc::make_mut(&mut self.older).append(&mut self.recent);
        }
        self.recent.push(hash);
    }
}

/// Which codes' certificates of a certifier count; `None`: all.
type Codes = Option<BTreeSet<Vec<u8>>>;

/// A principal whose certificates no longer admit anyone new.
#[derive(Clone, Debug)]
struct Former {
    codes: Codes,
    keep: BTreeSet<WriterId>,
}

#[derive(Clone, Debug)]
struct Generation {
    /// Config record that began it.
    from: u64,
    commitment: Digest,
    erased: bool,
}

/// How many acknowledgements and cosignatures make a record durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Distinct replicas that acknowledge; at least 1.
    pub replicas: u8,
    /// Distinct witnesses that cosign the log of each of these.
    pub witnesses: u8,
}

/// Why a config record changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not the CBOR that changes are made of.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The header counts other changes than there are.
    #[error("the header counts {header} changes, the body has {body}; do not retry")]
    Count {
        /// What the header says.
        header: u32,
        /// What there is.
        body: usize,
    },
    /// A change breaks a rule by itself.
    #[error("change {index} breaks a rule: {rule}; the owner must write another record")]
    Rule {
        /// Which change, from 0.
        index: usize,
        /// Which rule.
        rule: &'static str,
    },
    /// A change contradicts the state before it.
    #[error("change {index} contradicts the state before it: {what}; the owner must write another")]
    Contradiction {
        /// Which change, from 0.
        index: usize,
        /// What is contradicted.
        what: &'static str,
    },
    /// A table is full.
    #[error("change {index} would make more than {max} {what}; the owner must remove some first")]
    Full {
        /// Which change, from 0.
        index: usize,
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

impl Config {
    /// The configuration before the first config record: nobody may write.
    #[must_use]
    pub fn new(metadata: &Metadata) -> Self {
        Self {
            capsule: metadata.name(),
            suite: metadata.suite(),
            owner: metadata.owner_id(),
            records: Hashes::default(),
            certifiers: Arc::default(),
            former: Arc::default(),
            kept: 0,
            admitted: Arc::default(),
            revoked: Arc::default(),
            generations: Arc::default(),
            replicas: Arc::default(),
            quorum: Quorum::default(),
            witnesses: Arc::default(),
            quota: None,
        }
    }

    /// The configuration after one more config record, whose header hash is `hash`.
    ///
    /// # Errors
    /// A change breaks a rule, contradicts what was before it, or overflows a table.
    pub fn after(&self, hash: Digest, changes: &[Change]) -> Result<Self, ConfigError> {
        let mut next = self.clone();
        if next.records.len() >= CONFIG_RECORDS_MAX {
            return Err(Step { index: 0 }.full("config records", CONFIG_RECORDS_MAX));
        }
        for (index, change) in changes.iter().enumerate() {
            next.change(Step { index }, change)?;
        }
        next.records.push(hash);
        Ok(next)
    }

    /// Which capsule it is of.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.capsule
    }

    /// The owner's id: that of the config chain.
    #[must_use]
    pub const fn owner(&self) -> WriterId {
        self.owner
    }

    /// Whether this is the owner's id: that of the config chain.
    #[must_use]
    pub fn is_owner(&self, writer: &WriterId) -> bool {
        *writer == self.owner
    }

    /// The newest config record.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        let seq = self.records.len().checked_sub(1)?;
        Some(Head {
            writer: self.owner,
            seq: seq as u64,
            hash: self.records.get(seq)?,
        })
    }

    /// Header hash of the config record at `seq`.
    #[must_use]
    pub fn hash_at(&self, seq: u64) -> Option<Digest> {
        self.records.get(usize::try_from(seq).ok()?)
    }

    /// The newest generation as of config record `config`; 0 when there was none.
    #[must_use]
    pub fn generation_at(&self, config: u64) -> u32 {
        self.generations.partition_point(|row| row.from <= config) as u32
    }

    /// The newest generation; 0 when there is none.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generations.len() as u32
    }

    /// What fixes the key of generation `number`.
    #[must_use]
    pub fn commitment(&self, number: u32) -> Option<Digest> {
        self.row(number).map(|row| row.commitment)
    }

    /// Whether the key of generation `number` is destroyed.
    #[must_use]
    pub fn erased(&self, number: u32) -> bool {
        self.row(number).is_some_and(|row| row.erased)
    }

    /// Principals whose certificates admit writers.
    pub fn certifiers(&self) -> impl Iterator<Item = &Principal> {
        self.certifiers.keys()
    }

    /// Whether the owner admitted this writer's key itself.
    #[must_use]
    pub fn admits(&self, writer: &WriterId) -> bool {
        self.admitted.contains(writer)
    }

    /// How far a writer's chain counts, as far as revocations say.
    #[must_use]
    pub fn through(&self, writer: &WriterId) -> Through {
        match self.revoked.get(writer) {
            None => Through::Everything,
            Some(Some(last)) => Through::Last(last.seq),
            Some(None) => Through::Nothing,
        }
    }

    /// The last record of a revoked writer that stays; none: it is not revoked, or nothing stays.
    #[must_use]
    pub fn last(&self, writer: &WriterId) -> Option<Last> {
        self.revoked.get(writer).copied().flatten()
    }

    /// Whether revocations leave this very record.
    #[must_use]
    pub fn includes(&self, head: &Head) -> bool {
        match self.revoked.get(&head.writer) {
            None => true,
            Some(None) => false,
            Some(Some(last)) => head.seq < last.seq || Last::from(*head) == *last,
        }
    }

    /// Whether a certificate by `signer`, whose signature is checked, counts.
    ///
    /// # Errors
    /// Its signer is not certified (any more), or not for this code.
    pub fn counts(
        &self,
        signer: &Principal,
        certificate: &WriterCertificate,
    ) -> Result<(), CertificateError> {
        let codes = match (self.certifiers.get(signer), self.former.get(signer)) {
            (Some(codes), _) => codes,
            (None, Some(former)) if former.keep.contains(&certificate.writer) => &former.codes,
            _ => return Err(CertificateError::Signer),
        };
        match (codes, &certificate.code) {
            (None, _) => Ok(()),
            (Some(codes), Some(code)) if codes.contains(code) => Ok(()),
            _ => Err(CertificateError::Code),
        }
    }

    /// Replicas whose acknowledgements count, and where they are reached.
    pub fn replicas(&self) -> impl ExactSizeIterator<Item = (&Principal, &str)> {
        self.replicas
            .iter()
            .map(|(principal, address)| (principal, address.as_str()))
    }

    /// Whether acknowledgements of this principal count.
    #[must_use]
    pub fn is_replica(&self, principal: &Principal) -> bool {
        self.replicas.contains_key(principal)
    }

    /// How many make a record durable: one replica and no witness until the owner says otherwise.
    #[must_use]
    pub const fn quorum(&self) -> Quorum {
        self.quorum
    }

    /// How many replicas must answer so that every record that a quorum acknowledged is held by one of
    /// them: `n − q + 1`; `None` when the quorum is larger than the configuration.
    #[must_use]
    pub fn answers(&self) -> Option<usize> {
        let rest = self
            .replicas
            .len()
            .checked_sub(usize::from(self.quorum.replicas))?;
        Some(rest + 1)
    }

    /// Witnesses whose cosignatures count: name and verifier key.
    pub fn witnesses(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.witnesses
            .iter()
            .map(|(name, key)| (name.as_str(), key.as_str()))
    }

    /// How many bytes replicas are asked to hold.
    #[must_use]
    pub const fn quota(&self) -> Option<u64> {
        self.quota
    }

    fn row(&self, number: u32) -> Option<&Generation> {
        self.generations.get((number as usize).checked_sub(1)?)
    }
}

/// How much of a writer's chain counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Through {
    /// None of it.
    Nothing,
    /// Records up to this position, inclusive.
    Last(u64),
    /// All of it.
    Everything,
}

impl Through {
    /// Whether the record at `seq` counts.
    #[must_use]
    pub const fn includes(self, seq: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Last(last) => seq <= last,
            Self::Everything => true,
        }
    }
}

impl Default for Quorum {
    fn default() -> Self {
        Self {
            replicas: 1,
            witnesses: 0,
        }
    }
}

#[cfg(test)]
mod tests;
