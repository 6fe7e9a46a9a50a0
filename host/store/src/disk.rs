//! The disk as a journal sees it: one flat directory of files, and what must be synced by whom.
//!
//! In: names chosen by the journal, offsets, bytes. Out: the same bytes, or the system's error.
//!
//! Always true: a write or a new name may be lost until its sync has returned, and nothing here
//! syncs on its own; a write may be short; an error of a sync is final for what it covered.
//!
//! [`Files`] is a real directory, owned by one process at a time. `Faulty` (feature `faulty`) keeps
//! everything in memory and fails, tears, loses and forgets on demand.
//!
//! Not here: which bytes to write (`journal`).

use std::io::{self, IoSlice};

#[cfg(any(test, feature = "faulty"))]
mod faulty;
mod files;

#[cfg(any(test, feature = "faulty"))]
pub use faulty::{Fault, Faulty, FaultyFile, Operation, Survival};
pub use files::{Files, FilesError};

/// One flat directory of files.
pub trait Disk: Send + Sync {
    /// An open file.
    type File: DiskFile;

    /// The names of all files, in no order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a new, empty file. Its name lasts from the next [`Disk::sync_directory`].
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken; otherwise what the system says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is none; otherwise what the system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    /// What the system says; the old name then stays.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names last as they are now.
    ///
    /// # Errors
    /// What the system says; which names last is then unknown.
    fn sync_directory(&self) -> io::Result<()>;

    /// Gives up the directory itself, once its files are removed.
    ///
    /// # Errors
    /// What the system says; an empty directory stays behind.
    fn discard(&self) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn size(&self) -> io::Result<u64>;

    /// Reads at `offset`; fewer bytes than asked for, none only at the end.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at `offset` in one call; says how many bytes were taken, maybe fewer than given.
    ///
    /// # Errors
    /// What the system says; nothing of this call was then written.
    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Cuts or extends (with zeros) to `size`. Lasts from the next [`DiskFile::sync_all`].
    ///
    /// # Errors
    /// What the system says.
    fn truncate(&self, size: u64) -> io::Result<()>;

    /// Makes what was written last (`fdatasync`).
    ///
    /// # Errors
    /// What the system says. The system may then have forgotten what was written: never try again.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes what was written and the length last (`fsync`).
    ///
    /// # Errors
    /// As [`DiskFile::sync_data`].
    fn sync_all(&self) -> io::Result<()>;

    /// Asks the system to read from the device from now on, not from its memory; best effort.
    ///
    /// After a failed sync, memory shows bytes that the device never got.
    fn forget_cached(&self);
}

/// Writes all of `parts`, however short the single writes are.
pub(crate) fn write_all(
    file: &impl DiskFile,
    mut parts: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_at(parts, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => {
                IoSlice::advance_slices(&mut parts, taken);
                offset += taken as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Fills `into`; an early end of the file is an error.
pub(crate) fn read_exact(
    file: &impl DiskFile,
    mut into: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    while !into.is_empty() {
        match file.read_at(into, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => {
                into = &mut into[got..];
                offset += got as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
