//! The host's files, shared by the threads of one state.
//!
//! In: two handles on one directory. Out: the same operations, from any thread. Always true: one writing
//! operation at a time, and reads do not wait for it: what is read was complete before its name was known.
//! Nothing that comes from here is believed before it was checked by whoever asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bield_ledger::{Files, FilesError, TRANSFER_BYTES_MAX};

/// Both handles.
#[derive(Clone)]
pub(crate) struct Disk {
    writes: Arc<Mutex<Box<dyn Files>>>,
    reads: Arc<Mutex<Box<dyn Files>>>,
}

impl Disk {
    pub(crate) fn new(writes: Box<dyn Files>, reads: Box<dyn Files>) -> Self {
        Self {
            writes: Arc::new(Mutex::new(writes)),
            reads: Arc::new(Mutex::new(reads)),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<(String, u64)>, FilesError> {
        lock(&self.reads).list()
    }

    /// Reads exactly `length` bytes, in pieces; fewer where the file ends.
    pub(crate) fn read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < length {
            let done = bytes.len() as u64;
            let piece = (length - done).min(TRANSFER_BYTES_MAX as u64);
            let mut got = lock(&self.reads).read(name, offset.saturating_add(done), piece)?;
            got.truncate(usize::try_from(piece).unwrap_or(usize::MAX));
            let ends = (got.len() as u64) < piece;
            bytes.append(&mut got);
            if ends {
                break;
            }
        }
        Ok(bytes)
    }

    /// Writes at `offset`, durably with all that was written to the file before; once more when the answer
    /// was lost, as the second time writes the same bytes at the same place. No bytes: only makes durable.
    pub(crate) fn append(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        let last = bytes.len().saturating_sub(1) / TRANSFER_BYTES_MAX * TRANSFER_BYTES_MAX;
        let (before, last) = bytes.split_at(last);
        self.write(name, offset, before)?;
        let at = offset + before.len() as u64;
        twice(|| lock(&self.writes).append(name, at, last))
    }

    /// As [`Disk::append`], but as durable as the host's memory.
    pub(crate) fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        let mut at = offset;
        for piece in bytes.chunks(TRANSFER_BYTES_MAX) {
            twice(|| lock(&self.writes).write(name, at, piece))?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes durable what lies in a file, whoever wrote it.
    pub(crate) fn sync(&self, name: &str) -> Result<(), FilesError> {
        let files = self.list()?;
        match files.iter().find(|(file, _)| file == name) {
            Some((_, length)) => self.append(name, *length, &[]),
            None => Ok(()),
        }
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), FilesError> {
        lock(&self.writes).remove(name)
    }
}

fn twice(mut ask: impl FnMut() -> Result<(), FilesError>) -> Result<(), FilesError> {
    ask().or_else(|_| ask())
}

/// A lock whose holder panicked leaves nothing half done that a later check would not find.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
