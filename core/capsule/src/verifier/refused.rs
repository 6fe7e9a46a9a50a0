//! Why a record is refused: one kind per rule, each says whose move it is.

use bield_envelope::{Digest, Time};

use crate::{
    CapsuleName, CertificateError, Clock, ConfigError, Head, Last, OpeningError, WriterId,
};

/// Why a record is not accepted. Nothing of a refused record was used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The record belongs to another capsule.
    #[error("record is of capsule {found}; send it there")]
    OtherCapsule {
        /// The capsule it names.
        found: CapsuleName,
    },
    /// The record is in another suite than its capsule.
    #[error("record is not in the capsule's suite; do not retry")]
    OtherSuite,
    /// In a run: the record is of another writer than the first one.
    #[error("a run has one writer; verify the records of {found} by themselves")]
    OtherWriter {
        /// Whose record it is.
        found: WriterId,
    },
    /// Config records are the owner's, and the owner writes nothing else.
    #[error("only the owner writes config records, and nothing else; do not retry")]
    OwnerKind,
    /// Records before this one are missing.
    #[error(
        "record {got} of {writer} does not follow {}: fetch what lies between, then retry",
        position(.have)
    )]
    Gap {
        /// Whose chain.
        writer: WriterId,
        /// The newest position applied; none: nothing of the chain.
        have: Option<u64>,
        /// The position of the record.
        got: u64,
    },
    /// Config records that the record was written under are missing.
    #[error("record was written under config {need}, {} is known: fetch the config chain, then retry", position(.have))]
    ConfigGap {
        /// The newest config record applied.
        have: Option<u64>,
        /// The one that the record names.
        need: u64,
    },
    /// The very record was applied before.
    #[error("record {head} was applied before; nothing to do")]
    Known {
        /// Its position.
        head: Head,
    },
    /// The position lies before the newest one, and which record is there is not kept here.
    #[error("record {seq} of {writer} lies before the newest one: compare it with the one stored")]
    Earlier {
        /// Whose chain.
        writer: WriterId,
        /// The position.
        seq: u64,
    },
    /// The writer signed another record for the same position: a fork (`spec/06 §10`).
    #[error(
        "{writer} signed two records for position {seq}: keep the first, make a fork proof of both \
         heads; the owner must revoke the writer"
    )]
    Conflict {
        /// Who told two stories.
        writer: WriterId,
        /// Where.
        seq: u64,
        /// The record that is applied.
        known: Digest,
        /// This one.
        found: Digest,
    },
    /// The writer told two stories, and the owner has not said which records stay.
    #[error(
        "{writer} forked its chain at {seq}: the owner must revoke it, naming the last record that stays"
    )]
    Forked {
        /// Whose chain.
        writer: WriterId,
        /// The lowest position with two records.
        seq: u64,
    },
    /// A predecessor with another hash.
    #[error("record names another predecessor than the one applied; do not retry")]
    Prev,
    /// Skip pointers with other hashes.
    #[error("record has skip pointers to records that were not applied; do not retry")]
    Skips,
    /// The clock runs backwards.
    #[error("clock {found} is before that of the predecessor, {before}; do not retry")]
    Clock {
        /// The predecessor's.
        before: Clock,
        /// The record's.
        found: Clock,
    },
    /// The epoch runs backwards.
    #[error("epoch {found} is before that of the predecessor, {before}; do not retry")]
    Epoch {
        /// The predecessor's.
        before: u64,
        /// The record's.
        found: u64,
    },
    /// The writer had verified more config records before.
    #[error("config {found} is before that of the predecessor, {before}; do not retry")]
    ConfigBackwards {
        /// The predecessor's.
        before: u64,
        /// The record's.
        found: u64,
    },
    /// The chain was closed.
    #[error("the chain of {writer} is closed: its program must open a new one")]
    Closed {
        /// Whose chain.
        writer: WriterId,
    },
    /// A body that is sealed under another generation than the newest one the writer knew of.
    #[error(
        "record is sealed under generation {found}, but {expected} is the newest as of its config: \
         its program must open a new chain"
    )]
    Generation {
        /// The newest as of the record's config; 0: there is none.
        expected: u32,
        /// The record's.
        found: u32,
    },
    /// The owner took the writer's right to write, from some position on.
    #[error("{writer} is revoked after {}: do not retry", position(.last))]
    Revoked {
        /// Who.
        writer: WriterId,
        /// The last position that stays; none: nothing stays.
        last: Option<u64>,
    },
    /// The owner named another record as the last one of this chain that stays.
    #[error(
        "the owner says that the chain of {writer} ends with record {} of another hash; do not retry",
        last.seq
    )]
    OtherLast {
        /// Who.
        writer: WriterId,
        /// The record that stays.
        last: Last,
    },
    /// Neither the owner nor a certificate admits the writer.
    #[error(
        "{writer} is not admitted: {reason}; the owner must admit it, or a certifier certify it; retry \
         after newer configuration"
    )]
    NotAdmitted {
        /// Who.
        writer: WriterId,
        /// Why its certificate does not help.
        #[source]
        reason: CertificateError,
    },
    /// A certificate from a software TEE, where policy asks for hardware.
    #[error("the certificate of {writer} is simulated, and policy here does not allow that")]
    Simulated {
        /// Whose.
        writer: WriterId,
    },
    /// The record lies outside of its writer's certificate.
    #[error(
        "the certificate of {writer} does not cover the record: {reason}; get a new certificate"
    )]
    Certificate {
        /// Whose.
        writer: WriterId,
        /// Why not.
        #[source]
        reason: CertificateError,
    },
    /// A writer without a certificate has a clock far ahead of that of the replica it sends to.
    #[error("clock {found} is more than a day ahead of {now} here: set the clock of {writer}")]
    ClockAhead {
        /// Whose.
        writer: WriterId,
        /// The record's.
        found: Clock,
        /// The replica's.
        now: Time,
    },
    /// The body of an open record is wrong.
    #[error("opening is refused: {0}; do not retry")]
    Opening(#[from] OpeningError),
    /// An open record whose parent is not in the config chain.
    #[error("an open record names the config record it was made under; do not retry")]
    OpenParent,
    /// A config record that changes nothing because it is wrong.
    #[error("config record is refused: {0}")]
    Config(#[from] ConfigError),
    /// The record was written under another config record than the one applied at that position: the
    /// owner forked its chain, or the author lies.
    #[error(
        "record names config {parent}, but another one was applied there; compare the two, and do not \
         retry"
    )]
    OtherConfig {
        /// What the record names.
        parent: Head,
        /// What was applied.
        known: Digest,
    },
    /// More writers than policy allows.
    #[error(
        "the capsule has {max} writers, the most that policy here allows; the operator must raise it"
    )]
    Writers {
        /// The limit.
        max: usize,
    },
    /// The signature is not by the writer.
    #[error("signature does not verify; fetch the record from another replica")]
    Signature,
}

impl Refused {
    /// Whether the same record may be accepted later: after what it builds on, or newer configuration, has
    /// arrived.
    #[must_use]
    pub const fn retry(&self) -> bool {
        matches!(
            self,
            Self::Gap { .. } | Self::ConfigGap { .. } | Self::NotAdmitted { .. }
        )
    }

    /// A word for metrics and messages between programs.
    #[must_use]
    pub const fn slug(&self) -> &'static str {
        match self {
            Self::OtherCapsule { .. } => "other-capsule",
            Self::OtherSuite => "other-suite",
            Self::OtherWriter { .. } => "other-writer",
            Self::OwnerKind => "owner-kind",
            Self::Gap { .. } => "gap",
            Self::ConfigGap { .. } => "config-gap",
            Self::Known { .. } => "known",
            Self::Earlier { .. } => "earlier",
            Self::Conflict { .. } => "conflict",
            Self::Forked { .. } => "forked",
            Self::Prev => "prev",
            Self::Skips => "skips",
            Self::Clock { .. } => "clock",
            Self::Epoch { .. } => "epoch",
            Self::ConfigBackwards { .. } => "config-backwards",
            Self::Closed { .. } => "closed",
            Self::Generation { .. } => "generation",
            Self::Revoked { .. } => "revoked",
            Self::NotAdmitted { .. } => "not-admitted",
            Self::Simulated { .. } => "simulated",
            Self::Certificate { .. } => "certificate",
            Self::Opening(_) => "opening",
            Self::OpenParent => "open-parent",
            Self::Config(_) => "config",
            Self::ClockAhead { .. } => "clock-ahead",
            Self::OtherConfig { .. } => "other-config",
            Self::OtherLast { .. } => "other-last",
            Self::Writers { .. } => "writers",
            Self::Signature => "signature",
        }
    }
}

fn position(seq: &Option<u64>) -> String {
    seq.map_or_else(|| "nothing".to_owned(), |seq| seq.to_string())
}
