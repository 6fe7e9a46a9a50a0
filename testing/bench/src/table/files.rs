//! A folder as a state's files: what `host/launcher` does with them, less the socket between.
//!
//! ```text
//! write:  open once ─ cut ─ write          append: the same ─ fdatasync          remove: unlink
//! ```
//!
//! Always true: what `append` returned of survives a power cut. Counts what goes to the disk and what comes from it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Result;
use bield_ledger::{Files, FilesError};
use tempfile::TempDir;

/// What went to the disk and came from it.
#[derive(Default)]
pub(crate) struct Moved {
    /// Bytes written, synced or not.
    pub(super) written: AtomicU64,
    /// Calls of `fdatasync`.
    pub(super) syncs: AtomicU64,
    /// Reads.
    pub(super) reads: AtomicU64,
    /// Their bytes.
    pub(super) read: AtomicU64,
}

/// Reads of a folder so far, or between two moments.
pub(super) struct Reads {
    pub(super) count: f64,
    pub(super) bytes: f64,
}

impl Reads {
    /// Since an earlier moment.
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            count: self.count - before.count,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// A folder that goes with the last handle.
#[derive(Clone)]
pub(crate) struct Folder {
    folder: Arc<TempDir>,
    pub(super) moved: Arc<Moved>,
}

impl Folder {
    /// A new one below `parent`.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        Ok(Self {
            folder: Arc::new(TempDir::new_in(parent)?),
            moved: Arc::default(),
        })
    }

    /// Bytes of all files in it.
    pub(super) fn bytes(&self) -> Result<u64> {
        let lengths = fs::read_dir(self.folder.path())?.map(|entry| Ok(entry?.metadata()?.len()));
        lengths.sum()
    }

    /// What was read of it so far.
    pub(super) fn reads(&self) -> Reads {
        Reads {
            count: self.moved.reads.load(Relaxed) as f64,
            bytes: self.moved.read.load(Relaxed) as f64,
        }
    }

    /// Another handle.
    pub(super) fn handle(&self) -> Handle {
        Handle {
            folder: self.clone(),
            open: BTreeMap::new(),
        }
    }
}

/// One handle on a folder; keeps the files open that it wrote last.
pub(super) struct Handle {
    folder: Folder,
    open: BTreeMap<String, File>,
}

impl Handle {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.folder.path().join(name)
    }

    fn put(&mut self, name: &str, offset: u64, bytes: &[u8], sync: bool) -> io::Result<()> {
        let is_new = !self.open.contains_key(name);
        if is_new {
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false);
            let file = options.open(self.path(name))?;
            if self.open.len() >= OPEN_MAX {
                self.open.pop_first();
            }
            self.open.insert(name.to_owned(), file);
        }
        let file = &self.open[name];
        let there = file.metadata()?.len();
        if there < offset {
            return Err(io::Error::new(ErrorKind::InvalidInput, "a gap"));
        }
        if there > offset {
            file.set_len(offset)?;
        }
        file.write_all_at(bytes, offset)?;
        self.folder
            .moved
            .written
            .fetch_add(bytes.len() as u64, Relaxed);
        if sync {
            file.sync_data()?;
            self.folder.moved.syncs.fetch_add(1, Relaxed);
            if is_new {
                File::open(self.folder.folder.path())?.sync_all()?;
            }
        }
        Ok(())
    }

    fn get(&mut self, name: &str, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        if !self.open.contains_key(name) {
            let file = match File::open(self.path(name)) {
                Ok(file) => file,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            if self.open.len() >= OPEN_MAX {
                self.open.pop_first();
            }
            self.open.insert(name.to_owned(), file);
        }
        let file = &self.open[name];
        let there = file.metadata()?.len().saturating_sub(offset).min(length);
        let mut bytes = vec![0; usize::try_from(there).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset)?;
        let moved = &self.folder.moved;
        moved.reads.fetch_add(1, Relaxed);
        moved.read.fetch_add(there, Relaxed);
        Ok(bytes)
    }

    fn names(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.folder.folder.path())? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }
}

impl Files for Handle {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        self.names().map_err(|error| away(&error))
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        self.get(name, offset, length).map_err(|error| away(&error))
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.put(name, offset, bytes, true)
            .map_err(|error| away(&error))
    }

    fn write(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.put(name, offset, bytes, false)
            .map_err(|error| away(&error))
    }

    /// A state replaces no file.
    fn replace(&mut self, _: &str, _: &[u8]) -> Result<(), FilesError> {
        Err(FilesError::Refused)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        self.open.remove(name);
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(away(&error)),
            _ => Ok(()),
        }
    }
}

fn away(error: &io::Error) -> FilesError {
    FilesError::Unreachable(error.to_string())
}

/// Files that stay open in a handle.
const OPEN_MAX: usize = 64;
