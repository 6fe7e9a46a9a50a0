//! Files that several parts of the key service use.
//!
//! Goes in and comes out: as of the files below. Always true: one operation at a time.

use std::sync::{Arc, Mutex};

use bield_ledger::{Files, FilesError};

use crate::limits::lock;

/// Files that the ledger and the recovery box share: still one operation at a time.
#[derive(Clone)]
pub(crate) struct SharedFiles(Arc<Mutex<Box<dyn Files>>>);

impl SharedFiles {
    pub(crate) fn new(files: impl Files + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(files))))
    }
}

impl Files for SharedFiles {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        lock(&self.0).list()
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        lock(&self.0).read(name, offset, length)
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        lock(&self.0).append(name, offset, bytes)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        lock(&self.0).replace(name, bytes)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        lock(&self.0).remove(name)
    }
}
