//! What can go wrong with a capsule and its replicas, whose move it is, and whether to try again.

use bield_capsule::{CapsuleName, Head, MetadataError, RecordError, Refused, WriterId};
use bield_envelope::{Principal, StatementError, wire::WireError};

use crate::{FileError, HomeError, Kind};

/// One replica could not be used. Others may be fine: nothing depends on a single one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// Nobody listens there, the connection broke, or it kept silent for too long.
    #[error("replica {replica} is unreachable: {error}; its operator must look, then retry")]
    Unreachable {
        /// Its URL.
        replica: String,
        /// What happened.
        #[source]
        error: Box<ureq::Error>,
    },
    /// Its address is the owner's word, and not one to ask.
    #[error("replica {replica} is not asked: {why}")]
    NotAsked {
        /// Its URL.
        replica: String,
        /// Why not.
        why: String,
    },
    /// It had not answered when enough others had.
    #[error("replica {replica} had not answered yet when enough others had")]
    Late {
        /// Its URL.
        replica: String,
    },
    /// It said no; only its word.
    #[error("replica {replica} says {status} ({code}): {message}")]
    Refused {
        /// Its URL.
        replica: String,
        /// HTTP status.
        status: u16,
        /// Stable short name, as sent.
        code: String,
        /// One sentence, as sent, made safe to print.
        message: String,
        /// Whether it expects the same request to pass later.
        retry: bool,
        /// The newest position that it has of the writer in question, when it said so.
        have: Option<u64>,
    },
    /// What it sent does not verify. Nothing of it was used.
    #[error(
        "replica {replica} sent what does not verify: {lie}; not used: take another replica, and \
         show this to its operator"
    )]
    Lied {
        /// Its URL.
        replica: String,
        /// What was wrong.
        #[source]
        lie: Lie,
    },
}

/// An answer that cannot be true, or is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lie {
    /// Not the form that this interface has.
    #[error("the answer has another form than asked for; is this a bield store of this version?")]
    Form,
    /// A record that is none.
    #[error("a record: {0}")]
    Record(#[from] RecordError),
    /// Another record than the one asked for.
    #[error("asked for {writer}/{seq}, got another record", writer = .writer.short())]
    OtherRecord {
        /// Whose chain.
        writer: WriterId,
        /// The position asked for.
        seq: u64,
    },
    /// A record that does not belong where it stands.
    #[error("{writer}/{seq}: {error}", writer = .writer.short())]
    Refused {
        /// Whose chain.
        writer: WriterId,
        /// The position.
        seq: u64,
        /// Why it does not belong there.
        #[source]
        error: Box<Refused>,
    },
    /// Metadata that is none, or of another capsule.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A statement signed by somebody else, or by nobody.
    #[error("a statement: {0}")]
    Statement(#[from] StatementError),
    /// A statement about something else than what was asked.
    #[error("a statement about something else: {0}")]
    OtherStatement(&'static str),
    /// An acknowledgement of a record that was never sent.
    #[error("it acknowledges {head}, which was never written")]
    NeverWritten {
        /// What it claims to hold.
        head: Head,
    },
    /// A proof that does not hold.
    #[error("a proof: {0}")]
    Proof(String),
    /// It stands for another principal than the configuration says.
    #[error("it calls itself {found}, the configuration names {expected}")]
    OtherPrincipal {
        /// Who stands in the configuration.
        expected: Principal,
        /// Who answered.
        found: Principal,
    },
}

impl From<WireError> for Lie {
    fn from(error: WireError) -> Self {
        Self::Statement(error.into())
    }
}

impl ReplicaError {
    /// What to do next.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } | Self::Late { .. } | Self::Refused { retry: true, .. } => {
                Kind::Unreachable
            }
            Self::Refused { .. } | Self::NotAsked { .. } | Self::Lied { .. } => Kind::Refused,
        }
    }

    /// The stable short name of the refusal, when there is one; only the replica's word.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Which replica.
    #[must_use]
    pub fn replica(&self) -> &str {
        match self {
            Self::Unreachable { replica, .. }
            | Self::Late { replica }
            | Self::NotAsked { replica, .. }
            | Self::Refused { replica, .. }
            | Self::Lied { replica, .. } => replica,
        }
    }

    /// Whether the replica sent something that does not verify.
    #[must_use]
    pub const fn is_lie(&self) -> bool {
        matches!(self, Self::Lied { .. })
    }
}

/// A capsule could not be made, opened, read or configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Something in the home directory.
    #[error(transparent)]
    Home(#[from] super::home::CapsuleHomeError),
    /// A replica that everything depends on at this moment.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The arguments make no capsule.
    #[error("{0}")]
    Argument(String),
    /// Metadata could not be made.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A record could not be made.
    #[error(transparent)]
    Write(#[from] bield_capsule::WriteError),
    /// A record was not appended, or did not become durable.
    #[error(transparent)]
    Append(#[from] super::appender::AppendError),
    /// The key ring did not take a key.
    #[error(transparent)]
    Ring(#[from] bield_capsule::KeyRingError),
    /// Too few replicas took a record.
    #[error(
        "{what} is stored at {got} of {need} replicas: {why}; the operators of the others must look, \
         then repeat"
    )]
    NotStored {
        /// What was to be stored.
        what: &'static str,
        /// How many took it.
        got: usize,
        /// How many are needed.
        need: usize,
        /// Why the others did not.
        why: String,
    },
    /// Too few replicas answered to know what is newest.
    #[error(
        "{got} of the {need} replicas that are needed answered, so newer records may be hidden: {why}; \
         retry when more answer"
    )]
    TooFewAnswers {
        /// How many answered.
        got: usize,
        /// How many are needed.
        need: usize,
        /// Why the others did not.
        why: String,
    },
    /// No replica has a configuration that verifies.
    #[error("no replica gave a configuration of capsule {name} that verifies: {why}")]
    NoConfiguration {
        /// The capsule.
        name: CapsuleName,
        /// What each one gave instead.
        why: String,
    },
    /// The replicas together show less than was seen from here before.
    #[error(
        "ROLLED BACK: {what} {writer} ends at {found}, but {seen} was seen from here before, with another \
         record or a later one; nothing is written; keep this home directory, and ask the replicas' operators what they lost",
        writer = .writer.short(), found = position(.found)
    )]
    RolledBack {
        /// Which chain.
        what: &'static str,
        /// Whose.
        writer: WriterId,
        /// Where it ends now.
        found: Option<u64>,
        /// What was seen.
        seen: u64,
    },
    /// Two records stand at one place of a chain.
    #[error(
        "FORKED: {writer}/{seq} is {found} now, but was {seen} before: the owner must revoke the writer; \
         `bield capsule heads` collects the proof", writer = .writer.short(), found = .found.short(), seen = .seen.short()
    )]
    Forked {
        /// Whose chain.
        writer: WriterId,
        /// Where.
        seq: u64,
        /// What is there now.
        found: bield_envelope::Digest,
        /// What was there.
        seen: bield_envelope::Digest,
    },
    /// What was appended last is not with a quorum yet.
    #[error(
        "what was appended last is kept in this home and was sent again, and {got} of {need} replicas have it: \
         {why}; nothing else is appended before; retry when more answer"
    )]
    Unfinished {
        /// How many took it.
        got: usize,
        /// How many are needed.
        need: usize,
        /// Why the others did not.
        why: String,
    },
    /// A change of the configuration is not with a quorum yet.
    #[error(
        "the change is signed and kept in this home, and {got} of {need} replicas have it: {why}; it may count \
         already: repeat it when more answer, and the same record is sent again before anything else is signed"
    )]
    Unconfirmed {
        /// How many took it.
        got: usize,
        /// How many are needed.
        need: usize,
        /// Why the others did not.
        why: String,
    },
    /// There are records by this home's key that this home did not make.
    #[error(
        "{writer} ends at {found}, but this home wrote up to {seen} only: another process has its key, or this \
         home was set back to an earlier state; going on would fork the chain: begin a new one with \
         `bield capsule writer --new`", writer = .writer.short(), seen = position(.seen)
    )]
    KeyElsewhere {
        /// The writer.
        writer: WriterId,
        /// Where its chain ends.
        found: u64,
        /// What this home knows to have written.
        seen: Option<u64>,
    },
    /// This home's own chain is forked, which a replica proves.
    #[error("{0}")]
    OwnFork(String),
    /// Records that replicas named are not given out, or do not verify.
    #[error("{writer}/{seq} was named by a replica but no replica gives out a record that verifies: {why}",
        writer = .writer.short())]
    Withheld {
        /// Whose chain.
        writer: WriterId,
        /// The first record missing.
        seq: u64,
        /// What each replica gave instead.
        why: String,
    },
    /// A record does not open.
    #[error("{writer}/{seq}: {error}", writer = .writer.short())]
    Open {
        /// Whose chain.
        writer: WriterId,
        /// The record.
        seq: u64,
        /// Why not.
        #[source]
        error: bield_capsule::OpenError,
    },
    /// What replicas gave out makes no proof.
    #[error("no proof can be made of what the replicas gave out: {0}")]
    Proof(#[source] Box<bield_capsule::ProofError>),
    /// The key that new records must be sealed with is not here.
    #[error(
        "this home has no key for generation {generation}, which new records are sealed with: the owner \
         must share it"
    )]
    NoKey {
        /// The newest generation; 0 when the capsule has none.
        generation: u32,
    },
    /// The owner has not admitted this home's key.
    #[error("writer {writer} is not admitted: the owner admits it with `bield capsule admit`")]
    NotAdmitted {
        /// The writer.
        writer: WriterId,
    },
    /// The owner revoked this home's key.
    #[error("writer {writer} is revoked by the owner: ask it to admit a new key; do not retry")]
    Revoked {
        /// The writer.
        writer: WriterId,
    },
    /// The owner destroyed the key of a record.
    #[error("{writer}/{seq}: the owner erased generation {generation}: provable, gone for good",
        writer = .writer.short())]
    Erased {
        /// Whose record.
        writer: WriterId,
        /// Which one.
        seq: u64,
        /// Its generation.
        generation: u32,
    },
    /// A record is refused.
    #[error("{writer}/{seq}: {error}", writer = .writer.short())]
    Refused {
        /// Whose chain.
        writer: WriterId,
        /// The record.
        seq: u64,
        /// Why.
        #[source]
        error: Box<Refused>,
    },
}

impl LogError {
    /// What to do next.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Replica(error) => error.kind(),
            Self::NotStored { .. }
            | Self::TooFewAnswers { .. }
            | Self::Unfinished { .. }
            | Self::Unconfirmed { .. } => Kind::Unreachable,
            Self::Append(error) => error.kind(),
            Self::Home(_)
            | Self::Argument(_)
            | Self::Metadata(_)
            | Self::Write(_)
            | Self::Ring(_)
            | Self::NoKey { .. } => Kind::Local,
            Self::NoConfiguration { .. }
            | Self::RolledBack { .. }
            | Self::Forked { .. }
            | Self::KeyElsewhere { .. }
            | Self::OwnFork(_)
            | Self::Withheld { .. }
            | Self::Open { .. }
            | Self::Proof(_)
            | Self::NotAdmitted { .. }
            | Self::Revoked { .. }
            | Self::Erased { .. }
            | Self::Refused { .. } => Kind::Refused,
        }
    }
}

impl From<HomeError> for LogError {
    fn from(error: HomeError) -> Self {
        Self::Home(error.into())
    }
}

impl From<FileError> for LogError {
    fn from(error: FileError) -> Self {
        Self::Home(error.into())
    }
}

fn position(seq: &Option<u64>) -> String {
    seq.map_or_else(|| "nothing".to_owned(), |seq| seq.to_string())
}
