//! The host's files for a service in this process: a real directory, synced as a launcher syncs it.
//!
//! ```text
//! append:  open ─ cut to offset ─ write ─ fdatasync        replace: write ─ fsync ─ rename ─ fsync folder
//! ```
//!
//! Always true: with `sync`, what was answered survives a power cut. Without it only test data is made
//! sooner. On paper: what `host/launcher` does for a program, less the socket between them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bield_ledger::{Files, FilesError};

/// What went to the disk.
#[derive(Default)]
pub(super) struct Written {
    /// Appends that were synced.
    pub(super) appends: AtomicU64,
    /// Their bytes.
    pub(super) bytes: AtomicU64,
}

/// A folder as the ledger's files.
pub(crate) struct Disk {
    folder: PathBuf,
    sync: bool,
    written: Arc<Written>,
}

impl Disk {
    /// Syncs what it writes.
    pub(super) fn synced(folder: &Path) -> (Self, Arc<Written>) {
        let disk = Self::new(folder, true);
        let written = Arc::clone(&disk.written);
        (disk, written)
    }

    /// Leaves writing to the system: for test data.
    pub(crate) fn unsynced(folder: &Path) -> Self {
        Self::new(folder, false)
    }

    fn new(folder: &Path, sync: bool) -> Self {
        Self {
            folder: folder.to_owned(),
            sync,
            written: Arc::default(),
        }
    }

    fn try_append(&self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let path = self.folder.join(name);
        let is_new = !path.exists();
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let there = file.metadata()?.len();
        if there < offset {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a gap"));
        }
        if there > offset {
            file.set_len(offset)?;
        }
        file.write_all_at(bytes, offset)?;
        if self.sync {
            file.sync_data()?;
        }
        if self.sync && is_new {
            File::open(&self.folder)?.sync_all()?;
        }
        self.written.appends.fetch_add(1, Relaxed);
        self.written.bytes.fetch_add(bytes.len() as u64, Relaxed);
        Ok(())
    }

    fn try_replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let half = self.folder.join(".new");
        fs::write(&half, bytes)?;
        if self.sync {
            File::open(&half)?.sync_all()?;
        }
        fs::rename(&half, self.folder.join(name))?;
        if self.sync {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(())
    }

    fn try_list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }

    fn try_read(&self, name: &str, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let file = match File::open(self.folder.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let there = file.metadata()?.len().saturating_sub(offset).min(length);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl Files for Disk {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        self.try_list().map_err(away)
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        self.try_read(name, offset, length).map_err(away)
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.try_append(name, offset, bytes).map_err(away)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        self.try_replace(name, bytes).map_err(away)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        match fs::remove_file(self.folder.join(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(away),
        }
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what `map_err` takes by name"
)]
fn away(error: io::Error) -> FilesError {
    FilesError::Unreachable(error.to_string())
}
