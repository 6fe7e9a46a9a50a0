//! The durable order of a capsule's records at one replica.
//!
//! ```text
//! records ──append──▶ page cache ──sync──▶ disk        index 0, 1, 2 … in order of arrival
//!                          └── kill: kept ──┘
//!                          └── power cut: any part may be lost, whole records at the end
//! ```
//!
//! In: opaque records, in groups. Out: the same bytes under the same index, for ever.
//!
//! Always true: what [`Journal::sync`] has covered is there after every crash; what is there is a
//! prefix of what was appended; changed bytes are reported, never returned. After an error that
//! leaves the disk's state unknown the journal refuses everything until it is opened anew: a sync
//! that failed is never tried again, because the system may have dropped what it could not write.
//!
//! [`SegmentJournal`] keeps segment files on a [`crate::disk::Disk`], [`ObjectJournal`] keeps one
//! object a group in object storage. Not here: what a record is, whose it is, who may append it.
//!
//! All calls block: call them from a thread that may.

use std::io;
use std::ops::{ControlFlow, Range};

pub use bield_capsule::segment::{FRAME_BYTES_MAX, Flaw};

mod index;
mod object;
mod recovery;
mod segments;
#[cfg(test)]
mod tests;
mod window;

pub(crate) use object::GETS_AT_ONCE;
pub use object::{ObjectJournal, Requests};
pub use recovery::{Mode, Options, Recovered};
pub use segments::SegmentJournal;

/// Receives records in order; breaks when it has enough.
pub type Visit<'a> = dyn FnMut(u64, &[u8]) -> ControlFlow<()> + 'a;

/// Records of one capsule at one replica, in order of arrival, durable from sync on.
pub trait Journal: Send + Sync {
    /// Appends a group of records; returns the index of the first. They last from the next sync.
    ///
    /// # Errors
    /// See [`JournalError`]. Whether any of the group will be found later is then unknown, except
    /// after [`JournalError::Record`] and [`JournalError::NoSpace`]: nothing was written, go on.
    fn append(&mut self, records: &[&[u8]]) -> Result<u64, JournalError>;

    /// Makes everything appended so far last. Costs nothing when there is nothing new.
    ///
    /// # Errors
    /// Nothing that was not synced before may be acknowledged; see [`JournalError`].
    fn sync(&mut self) -> Result<(), JournalError>;

    /// Shows `visit` the records of `range` in order, synced or not, each verified.
    ///
    /// # Errors
    /// When the range reaches behind the end, or bytes have changed; records before are shown.
    fn read(&self, range: Range<u64>, visit: &mut Visit<'_>) -> Result<(), JournalError>;

    /// How many records there are, synced or not; the index of the next.
    fn len(&self) -> u64;

    /// How many records are known to last.
    fn synced(&self) -> u64;

    /// Bytes stored, framing included, space set aside not.
    fn bytes(&self) -> u64;

    /// Bytes of one record, without framing; `None` behind the end.
    fn record_bytes(&self, index: u64) -> Option<usize>;

    /// Reads everything again, from the device where the system lets us, and reports all damage.
    ///
    /// # Errors
    /// When reading fails; damage is no error here.
    fn scrub(&self) -> Result<Scrub, JournalError>;

    /// Removes all records, and what held them. A removal cut short is completed at the next open.
    ///
    /// # Errors
    /// When the disk refuses; open and remove again.
    fn remove(self: Box<Self>) -> Result<(), JournalError>;

    /// Is there no record?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One record.
    ///
    /// # Errors
    /// As [`Journal::read`].
    fn record(&self, index: u64) -> Result<Vec<u8>, JournalError> {
        let mut found = Vec::new();
        self.read(index..index.saturating_add(1), &mut |_, record| {
            found.extend_from_slice(record);
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// All records from the first on.
    ///
    /// # Errors
    /// As [`Journal::read`].
    fn replay(&self, visit: &mut Visit<'_>) -> Result<(), JournalError> {
        self.read(0..self.len(), visit)
    }
}

/// A record that is no longer what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Number of the segment, or the first index of the object.
    pub segment: u64,
    /// Where in it, in bytes.
    pub offset: u64,
    /// The record that belongs there; the next one when it is no record's place.
    pub index: u64,
    /// What is wrong.
    pub what: Damaged,
}

/// What is wrong at a damaged place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// The file or object is gone.
    Gone,
    /// The header names nothing, or something else.
    Header,
    /// A record does not verify.
    Frame(Flaw),
    /// The table at the end does not verify; the records may.
    Seal,
    /// There are bytes where nothing was written.
    Rest,
    /// It ends too early: records are missing.
    Cut,
}

/// What [`Journal::scrub`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "damage is reported here, not as an error"]
pub struct Scrub {
    /// Records that verify.
    pub intact: u64,
    /// Everything else; at most one entry a record and three a segment.
    pub damage: Vec<Damage>,
}

/// Why a journal does not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The caller's mistake; nothing was written.
    #[error(
        "record {position} of the group has {bytes} bytes; a record has 1 to {FRAME_BYTES_MAX}"
    )]
    Record {
        /// Its position in the group.
        position: usize,
        /// Its length.
        bytes: usize,
    },
    /// Nothing was written and the journal goes on: free some space (or files, where the process or
    /// the system may open no more), then append again.
    #[error(
        "no space left for the next records, or no file may be opened: free some, then append them again"
    )]
    NoSpace,
    /// The disk or the object storage failed.
    #[error(
        "{doing} failed at {place}: {source}; open the journal anew before anything is appended"
    )]
    Failing {
        /// What was being done.
        doing: &'static str,
        /// The file or object.
        place: String,
        /// What the system says.
        source: io::Error,
    },
    /// An earlier call failed.
    #[error(
        "an earlier write or sync failed: open the journal anew; what was not synced may be lost"
    )]
    Stopped,
    /// Opened for reading only.
    #[error("the journal is open for reading only")]
    ReadOnly,
    /// There is no such record.
    #[error("there is no record {index}: the journal has {len}")]
    Absent {
        /// The first index asked for that is not there.
        index: u64,
        /// Records there are.
        len: u64,
    },
    /// Synced bytes have changed or are gone.
    #[error(
        "segment {} is damaged at byte {} (record {}, {:?}): trying again does not help; copy this \
         capsule from another replica, or open it for salvage, which reads what is intact",
        .0.segment, .0.offset, .0.index, .0.what
    )]
    Damaged(Damage),
    /// The journal ends before what its owner acknowledged.
    #[error(
        "the journal ends at record {len}, but {acknowledged} were acknowledged: the disk lost synced \
         records; copy this capsule from another replica, or open it for salvage"
    )]
    Shortened {
        /// Records found.
        len: u64,
        /// Records the caller had acknowledged.
        acknowledged: u64,
    },
    /// The files are another capsule's.
    #[error("{place} belongs to another capsule: this is the wrong directory or prefix")]
    Foreign {
        /// The file or object.
        place: String,
    },
    /// Another owner has written: this one must stop.
    #[error(
        "another owner has written record {index}: this replica no longer owns the journal and must stop"
    )]
    Fenced {
        /// The index both wanted to write.
        index: u64,
    },
}

/// Names what was being done when the system failed.
fn failing(
    doing: &'static str,
    place: impl Into<String>,
) -> impl FnOnce(io::Error) -> JournalError {
    let place = place.into();
    move |source| JournalError::Failing {
        doing,
        place,
        source,
    }
}

/// A record has its bounds before anything is written.
fn check_records(records: &[&[u8]]) -> Result<(), JournalError> {
    let out = |record: &&[u8]| record.is_empty() || record.len() > FRAME_BYTES_MAX;
    match records.iter().position(out) {
        Some(position) => Err(JournalError::Record {
            position,
            bytes: records[position].len(),
        }),
        None => Ok(()),
    }
}

/// What no writer of records can know: see the segment format.
fn draw_salt() -> Result<[u8; 8], JournalError> {
    let mut salt = [0; 8];
    let drawn = getrandom::fill(&mut salt).map_err(|error| io::Error::other(error.to_string()));
    drawn.map_err(failing("drawing a salt", "the operating system"))?;
    Ok(salt)
}

/// Is it a lack of space or of files, which passes once some are free?
pub(crate) fn lacks(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(error.kind(), StorageFull | QuotaExceeded)
        || matches!(
            errno,
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
        )
}
