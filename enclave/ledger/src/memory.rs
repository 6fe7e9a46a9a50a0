//! Files in memory that crash, refuse, forget and roll back when a test says so.
//!
//! A clone is another handle on the same disk; [`MemoryFiles::contents`] copies the disk, and
//! [`MemoryFiles::restore`] puts such a copy back: a rolled-back disk, or with a new one a cloned
//! instance.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::{Files, FilesError};

/// All files of a disk.
pub type Contents = BTreeMap<String, Vec<u8>>;

/// Files that last as long as any handle on them.
#[derive(Clone, Default)]
pub struct MemoryFiles(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: Contents,
    /// Writing operations so far.
    writes: u64,
    fault: Option<Fault>,
    dead: bool,
}

/// What goes wrong, and at which writing operation, counted from 0 over the disk's whole life
/// ([`MemoryFiles::writes`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Power is lost: of the operation only the first `bytes` happen, of all later ones nothing, until
    /// [`MemoryFiles::restart`]. A replacement or removal happens when `bytes` is not 0.
    Crash {
        /// The operation.
        write: u64,
        /// Bytes of it that are written.
        bytes: u64,
    },
    /// The host refuses this operation and nothing of it happens; later ones succeed.
    Refuse {
        /// The operation.
        write: u64,
    },
    /// The operation happens and the answer is lost; later ones succeed.
    LoseAnswer {
        /// The operation.
        write: u64,
    },
}

impl MemoryFiles {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk with these files.
    #[must_use]
    pub fn with(contents: Contents) -> Self {
        let files = Self::new();
        files.restore(contents);
        files
    }

    /// A copy of all files.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.disk().files.clone()
    }

    /// Puts these files in the place of all there are.
    pub fn restore(&self, contents: Contents) {
        self.disk().files = contents;
    }

    /// Changes one file by hand; an absent file is empty.
    pub fn alter(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        change(self.disk().files.entry(name.to_owned()).or_default());
    }

    /// Counts the writing operations so far: what the next one's number is.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.disk().writes
    }

    /// Plans a fault.
    pub fn fail(&self, fault: Fault) {
        self.disk().fault = Some(fault);
    }

    /// Whether a planned crash has happened.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.disk().dead
    }

    /// Ends a crash: what was written before it is there, and everything works.
    pub fn restart(&self) {
        let mut disk = self.disk();
        (disk.dead, disk.fault) = (false, None);
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs a writing operation of which `part(n)` does the first `n` bytes.
    fn change(&self, length: u64, part: impl FnOnce(&mut Contents, u64)) -> Result<(), FilesError> {
        let mut disk = self.disk();
        if disk.dead {
            return Err(lost());
        }
        let number = disk.writes;
        disk.writes += 1;
        match disk.fault {
            Some(Fault::Crash { write, bytes }) if write == number => {
                part(&mut disk.files, bytes.min(length));
                disk.dead = true;
                Err(lost())
            }
            Some(Fault::Refuse { write }) if write == number => Err(FilesError::Refused),
            Some(Fault::LoseAnswer { write }) if write == number => {
                part(&mut disk.files, length);
                Err(lost())
            }
            _ => {
                part(&mut disk.files, length);
                Ok(())
            }
        }
    }
}

impl Files for MemoryFiles {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        let disk = self.disk();
        if disk.dead {
            return Err(lost());
        }
        let lengths = disk.files.iter();
        Ok(lengths
            .map(|(name, bytes)| (name.clone(), bytes.len() as u64))
            .collect())
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        let disk = self.disk();
        if disk.dead {
            return Err(lost());
        }
        let bytes = disk.files.get(name).map_or(&[][..], Vec::as_slice);
        let start = bytes.len().min(offset as usize);
        let end = bytes.len().min(start + length as usize);
        Ok(bytes[start..end].to_vec())
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        let length = self.disk().files.get(name).map_or(0, Vec::len);
        if offset > length as u64 {
            let gap = format!("{name} has {length} bytes, {offset} are to stay");
            return Err(FilesError::Unreachable(gap));
        }
        self.change(bytes.len() as u64, |files, part| {
            let file = files.entry(name.to_owned()).or_default();
            file.resize(offset as usize, 0);
            file.extend_from_slice(&bytes[..part as usize]);
        })
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        self.change(1, |files, part| {
            if part != 0 {
                files.insert(name.to_owned(), bytes.to_vec());
            }
        })
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        self.change(1, |files, part| {
            if part != 0 {
                files.remove(name);
            }
        })
    }
}

fn lost() -> FilesError {
    FilesError::Unreachable("power was lost".to_owned())
}
