//! What goes wrong, each with what, where, whose move it is, and whether to try again.
//!
//! Always true: an error names files, writers, positions and counts, never keys or values. None of these
//! is served around: a state that does not open serves nothing.

use core::fmt;

use bield_capsule::segment::Flaw;
use bield_capsule::{
    BatchFull, KeyRingError, OpenError, RecordError, Refused, WriteError, WriterId,
};
use bield_envelope::Time;
use bield_ledger::FilesError;

/// Why a state does not open, or does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The host's storage.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The package's configuration of the capsule does not hold.
    #[error(
        "config record {index} that came with the package is refused ({why}); the owner must pack the function again"
    )]
    Config {
        /// Which one, from 0.
        index: usize,
        /// Why.
        why: Box<Flawed>,
    },
    /// The package's key ring is not the capsule's.
    #[error("the key ring that came with the package: {0}")]
    Keys(#[from] KeyRingError),
    /// Bytes of the log are altered.
    #[error(
        "record {record} of writer {} is altered (file {file}: {why}); the operator must put the file back, nothing is served until then",
        writer.short()
    )]
    Altered {
        /// The file.
        file: String,
        /// Whose chain.
        writer: WriterId,
        /// The first record that cannot be used.
        record: u64,
        /// What is wrong there.
        why: Box<Flawed>,
    },
    /// A file's head is altered, or it is the file of something else.
    #[error(
        "file {file} is not what its name says ({why}): altered, or put in another's place; the operator must put the right one back, nothing is served until then"
    )]
    OtherFile {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Records that later ones build on are not there.
    #[error(
        "records {from} to {to} of writer {} are missing: a file was removed or cut; the operator must put it back, nothing is served until then",
        writer.short()
    )]
    Missing {
        /// Whose chain.
        writer: WriterId,
        /// The first missing one.
        from: u64,
        /// The last missing one.
        to: u64,
    },
    /// The files are older than what the key service knows of them.
    #[error(
        "the files are from before: {} that the key service knows of {} missing ({}); the operator must put the newest files back, nothing is served until then",
        records(*.behind),
        is_or_are(*.behind),
        list(.writers)
    )]
    RolledBack {
        /// Records that are missing, in all.
        behind: u64,
        /// By writer.
        writers: Vec<Lacking>,
    },
    /// The caller has seen newer state than this one.
    #[error(
        "the caller has seen {} that {} not here ({}): this state is older, or another copy; ask the machine that served the caller before, or wait and try again",
        records(*.behind),
        is_or_are(*.behind),
        list(.writers)
    )]
    Behind {
        /// Records that are missing, in all.
        behind: u64,
        /// By writer.
        writers: Vec<Lacking>,
    },
    /// Two stories of one position.
    #[error(
        "there are two stories of the state at record {seq} of writer {}: the files were copied and both copies went on; the owner must say which one stays, do not retry",
        writer.short()
    )]
    Forked {
        /// Whose chain.
        writer: WriterId,
        /// Where.
        seq: u64,
    },
    /// A verified record does not open.
    #[error("record {seq} of writer {} is genuine and does not open: {why}", writer.short())]
    Sealed {
        /// Whose.
        writer: WriterId,
        /// Where.
        seq: u64,
        /// Why.
        why: OpenError,
    },
    /// A verified record holds what this version does not understand.
    #[error(
        "record {seq} of writer {} holds what this code does not understand; run the function with newer code",
        writer.short()
    )]
    Unknown {
        /// Whose.
        writer: WriterId,
        /// Where.
        seq: u64,
    },
    /// The sorted levels: a run is missing, altered or not readable.
    #[error(transparent)]
    Levels(#[from] bield_levels::LevelsError),
    /// The table: a bound, a lease, or a value that is no number.
    #[error(transparent)]
    Table(#[from] bield_table::TableError),
    /// A verified record does not go into the table.
    #[error(transparent)]
    Apply(#[from] bield_table::ApplyError),
    /// The writer could not make a record.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// More in one commit than a record takes.
    #[error("too much for one commit: {0}")]
    TooLarge(#[from] BatchFull),
    /// As many writes wait as may.
    #[error("as many writes wait for the disk as may; try again shortly")]
    Full,
    /// The disk failed; what was not acknowledged may be lost.
    #[error(
        "the state stopped writing: {reason}; what was acknowledged is kept, anything else may be lost; the operator must look at the host's storage, then the function opens again"
    )]
    Stopped {
        /// What failed.
        reason: String,
    },
    /// The key service's hold ended, or is not known to last.
    #[error(
        "the hold of the state ended, another may have it; ask the key service for it again, then retry"
    )]
    HoldEnded,
    /// The writer's certificate ended.
    #[error("the writer's certificate ended at {}; renew the writer, then retry", until.as_millis())]
    CertificateEnded {
        /// When, in milliseconds since 1970.
        until: Time,
    },
}

/// Records of one writer that are not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// Whose.
    pub writer: WriterId,
    /// The newest that is here; none: nothing of this writer.
    pub have: Option<u64>,
    /// The one that somebody knows of.
    pub need: u64,
}

impl Lacking {
    /// How many.
    #[must_use]
    pub const fn records(&self) -> u64 {
        match self.have {
            Some(have) => self.need.saturating_sub(have),
            None => self.need.saturating_add(1),
        }
    }

    /// How many of all.
    pub(crate) fn sum(writers: &[Self]) -> u64 {
        let records = writers.iter().map(Self::records);
        records.fold(0, u64::saturating_add)
    }
}

/// So many records, in words.
fn records(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} record{plural}")
}

/// The verb for so many.
const fn is_or_are(count: u64) -> &'static str {
    match count {
        1 => "is",
        _ => "are",
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of writer {}", self.records(), self.writer.short())
    }
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Flawed {
    /// Its frame in the file.
    #[error("{}", frame(.0))]
    Frame(Flaw),
    /// Its structure.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What it says, or who says it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// How the file begins.
    #[error("the start of the file does not fit the chain")]
    Start,
}

const fn frame(flaw: &Flaw) -> &'static str {
    match flaw {
        Flaw::Short => "the file ends inside it",
        Flaw::Head => "the head of its frame is altered",
        Flaw::Payload => "its bytes are altered",
        Flaw::BehindSeal => "bytes follow the end of the file's content",
    }
}

fn list(writers: &[Lacking]) -> String {
    let each: Vec<String> = writers.iter().map(ToString::to_string).collect();
    each.join(", ")
}
