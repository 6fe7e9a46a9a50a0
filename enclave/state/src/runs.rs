//! Runs of the levels as files of the host.
//!
//! In: sealed runs under their names. Out: their bytes, as the host gives them: whoever asked checks them.
//! Always true: a run is durable when it is put; reads do not wait for writes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bield_ledger::FilesError;
use bield_levels::{BlobError, Blobs, RunId};

use crate::disk::{Disk, lock};
use crate::names::{FileName, Names};

/// The run files of one capsule.
#[derive(Clone)]
pub(crate) struct RunFiles {
    disk: Disk,
    names: Names,
    /// Put here by this process and not yet said to be named by a manifest.
    made: Arc<Mutex<BTreeSet<RunId>>>,
}

impl RunFiles {
    pub(crate) fn new(disk: Disk, names: Names) -> Self {
        Self {
            disk,
            names,
            made: Arc::default(),
        }
    }

    /// Runs that this process put, but for those that were kept or dropped.
    pub(crate) fn made(&self) -> Vec<RunId> {
        lock(&self.made).iter().copied().collect()
    }

    /// These are named by a manifest, or gone.
    pub(crate) fn settled(&self, is_settled: impl Fn(&RunId) -> bool) {
        lock(&self.made).retain(|run| !is_settled(run));
    }

    pub(crate) fn name(&self, run: &RunId) -> String {
        self.names.run(run.as_bytes())
    }
}

impl Blobs for RunFiles {
    fn put(&self, name: &RunId, bytes: &[u8]) -> Result<(), BlobError> {
        let file = self.name(name);
        lock(&self.made).insert(*name);
        self.disk.append(&file, 0, bytes).map_err(failed)
    }

    fn read(&self, name: &RunId, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        let file = self.name(name);
        let bytes = self
            .disk
            .read(&file, offset, length as u64)
            .map_err(failed)?;
        // The host answers nothing for a file that is not there, too.
        if bytes.is_empty() && length > 0 && !self.list()?.contains(name) {
            return Err(BlobError::Missing);
        }
        Ok(bytes)
    }

    fn remove(&self, name: &RunId) -> Result<(), BlobError> {
        self.disk.remove(&self.name(name)).map_err(failed)
    }

    fn list(&self) -> Result<Vec<RunId>, BlobError> {
        let files = self.disk.list().map_err(failed)?;
        let run = |(name, _): (String, u64)| match self.names.parse(&name)? {
            FileName::Run(id) => Some(RunId::from_bytes(id)),
            FileName::Segment { .. } => None,
        };
        Ok(files.into_iter().filter_map(run).collect())
    }
}

fn failed(error: FilesError) -> BlobError {
    BlobError::Failed(error.to_string())
}
