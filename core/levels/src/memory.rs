//! A store in memory, for tests: it keeps, and does whatever harm a test wants.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::{BlobError, Blobs, RunId};

/// Runs in memory.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<RunId, Vec<u8>>>);

impl Memory {
    /// All that is kept, to be looked at or damaged.
    pub fn kept(&self) -> MutexGuard<'_, BTreeMap<RunId, Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blobs for Memory {
    fn put(&self, name: &RunId, bytes: &[u8]) -> Result<(), BlobError> {
        self.kept().insert(*name, bytes.to_vec());
        Ok(())
    }

    fn read(&self, name: &RunId, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        let kept = self.kept();
        let bytes = kept.get(name).ok_or(BlobError::Missing)?;
        let begin = (offset as usize).min(bytes.len());
        let end = begin.saturating_add(length).min(bytes.len());
        Ok(bytes[begin..end].to_vec())
    }

    fn remove(&self, name: &RunId) -> Result<(), BlobError> {
        self.kept().remove(name);
        Ok(())
    }

    fn list(&self) -> Result<Vec<RunId>, BlobError> {
        Ok(self.kept().keys().copied().collect())
    }
}
