//! The directory of one program's files, and the promise that what was said to be stored is.
//!
//! ```text
//! write:   open ─ cut to offset ─ write ─▶ done, not synced
//! append:  open ─ cut to offset ─ write ─ fdatasync ┐
//! replace: .new ─ write ─ fsync ─ rename ───────────┼─ fsync directory, if names changed ─▶ done
//! remove:  unlink ──────────────────────────────────┘
//! ```
//!
//! Always true: one process owns the directory ([`Directory::open`] refuses a second one), because two
//! programs that append to one log would each destroy what the other was told is stored; the directory
//! is this user's alone (0700, files 0600) and nobody else's; only regular files with plain names are touched, never a
//! link's target. What a crashed owner left unsynced is synced before anyone reads it: a program that
//! read a record takes it for stored.
//!
//! After a failed sync the kernel may take the unwritten pages for clean; therefore a refused append
//! is repeated from its bytes, never by a second sync.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::visit::storage::{NAMES_MAX, Name};
use rustix::fs::{FlockOperation, OFlags};

use crate::record::Pipe;

/// How long opening waits for the previous owner: a program that is restarted may find its
/// predecessor's last write under way.
const OWN_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks at a held lock.
const OWN_PAUSE: Duration = Duration::from_millis(20);
/// The lock's file. Its name is no [`Name`], so no program can touch it.
const LOCK: &str = ".lock";
/// A replaced file before its renaming. No [`Name`] either.
const HALF: &str = ".new";

/// An open directory, owned by this process until the value is dropped.
pub(crate) struct Directory {
    path: PathBuf,
    /// Held while bytes change.
    state: Mutex<DirectoryState>,
    /// Whether a visit goes on when another one begins.
    is_shared: bool,
    _lock: File,
}

struct DirectoryState {
    /// Whether names changed since the directory was last synced.
    names_changed: bool,
    /// The newest visit: those before it are over.
    visit: u64,
}

/// The right to change files: one at a time.
pub(crate) struct Turn<'a> {
    path: &'a Path,
    state: MutexGuard<'a, DirectoryState>,
}

/// Why an operation did not happen.
pub(crate) enum DirectoryError {
    /// The file is shorter than the offset of an append.
    Gap,
    /// The visit is over: the program closed it or began another one.
    Over,
    /// The system refused: no space, no permission, a broken disk.
    System(io::Error),
}

impl From<io::Error> for DirectoryError {
    fn from(error: io::Error) -> DirectoryError {
        DirectoryError::System(error)
    }
}

impl Directory {
    /// Makes or takes over a directory.
    ///
    /// # Errors
    /// `ResourceBusy` when another process owns it, `PermissionDenied` when it is another user's, else the
    /// system's.
    pub(crate) fn open(path: &Path) -> io::Result<Directory> {
        let parents = missing(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let metadata = path.metadata()?;
        check_owner(metadata.uid(), rustix::process::geteuid().as_raw())?;
        if metadata.permissions().mode() & 0o077 != 0 {
            std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
        }
        let lock = owner_only()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))?;
        own(&lock)?;
        remove_if_there(&path.join(HALF))?;
        let directory = Directory {
            path: path.to_owned(),
            state: Mutex::new(DirectoryState {
                names_changed: true,
                visit: 0,
            }),
            is_shared: false,
            _lock: lock,
        };
        for (name, _) in directory.list()? {
            directory.file(&name)?.sync_all()?;
        }
        directory.turn().sync_names()?;
        // Its own name, too, must outlast a crash, and those of all directories made for it.
        for parent in parents {
            File::open(parent)?.sync_all()?;
        }
        Ok(directory)
    }

    /// Lets several visits go on beside each other: those of several programs, or several of one. No two of them may
    /// change one file.
    pub(crate) fn shared(self) -> Directory {
        Directory {
            is_shared: true,
            ..self
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All files with their lengths in bytes, in no order.
    pub(crate) fn list(&self) -> io::Result<Vec<(Name, u64)>> {
        let mut files = Vec::new();
        for entry in self.path.read_dir()? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(Name::new) else {
                continue;
            };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Removed in between.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if !metadata.is_file() {
                continue;
            }
            if files.len() == NAMES_MAX {
                return Err(io::Error::other(format!("more than {NAMES_MAX} files")));
            }
            files.push((name, metadata.len()));
        }
        Ok(files)
    }

    /// At most `length` bytes from `offset` on; fewer at the file's end, none of a missing file.
    pub(crate) fn read(&self, name: &Name, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = match self.file(name) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        // No more memory than the file has bytes.
        let there = file.metadata()?.len().saturating_sub(offset);
        let length = usize::try_from(there).unwrap_or(length).min(length);
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Waits for the right to change files.
    pub(crate) fn turn(&self) -> Turn<'_> {
        let state = self.state.lock();
        Turn {
            path: &self.path,
            state: state.unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Begins a visit and with that, unless the directory is shared, ends all before it; its number. The program closes one visit before it
    /// uses the next, so what is closed already begins nothing.
    pub(crate) fn begin(&self, visit: &Pipe) -> io::Result<u64> {
        let mut turn = self.turn();
        if visit.is_closed() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        turn.state.visit += 1;
        Ok(turn.state.visit)
    }

    /// The right to change files for a visit that is not over.
    pub(crate) fn turn_of(&self, number: u64, visit: &Pipe) -> Result<Turn<'_>, DirectoryError> {
        let turn = self.turn();
        if (turn.state.visit != number && !self.is_shared) || visit.is_closed() {
            return Err(DirectoryError::Over);
        }
        Ok(turn)
    }

    fn file(&self, name: &Name) -> io::Result<File> {
        let file = owner_only()
            .read(true)
            .open(self.path.join(name.as_str()))?;
        regular(&file)?;
        Ok(file)
    }
}

impl Turn<'_> {
    /// Cuts the file to `offset`, adds `bytes`, syncs.
    pub(crate) fn append(
        &mut self,
        name: &Name,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), DirectoryError> {
        self.add(name, offset, bytes)?.sync_data()?;
        Ok(self.sync_names()?)
    }

    /// As [`append`](Self::append) without the sync: the next append to the file does it.
    pub(crate) fn write(
        &mut self,
        name: &Name,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), DirectoryError> {
        self.add(name, offset, bytes).map(drop)
    }

    fn add(&mut self, name: &Name, offset: u64, bytes: &[u8]) -> Result<File, DirectoryError> {
        let path = self.path.join(name.as_str());
        let file = match owner_only().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if offset > 0 {
                    return Err(DirectoryError::Gap);
                }
                self.state.names_changed = true;
                owner_only().write(true).create_new(true).open(&path)?
            }
            Err(error) => return Err(error.into()),
        };
        let there = regular(&file)?;
        if there < offset {
            return Err(DirectoryError::Gap);
        }
        if there > offset {
            file.set_len(offset)?;
        }
        file.write_all_at(bytes, offset)?;
        Ok(file)
    }

    /// Gives the file this content, whole or not at all.
    pub(crate) fn replace(&mut self, name: &Name, bytes: &[u8]) -> io::Result<()> {
        let half = self.path.join(HALF);
        let written = (|| {
            let file = owner_only()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&half)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()?;
            std::fs::rename(&half, self.path.join(name.as_str()))
        })();
        if let Err(error) = written {
            // Its bytes are wanted back; what prevents that is the same trouble.
            let _ = std::fs::remove_file(&half);
            return Err(error);
        }
        self.state.names_changed = true;
        self.sync_names()
    }

    /// Removes the file, if it is there.
    pub(crate) fn remove(&mut self, name: &Name) -> io::Result<()> {
        self.state.names_changed |= remove_if_there(&self.path.join(name.as_str()))?;
        self.sync_names()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        if self.state.names_changed {
            File::open(self.path)?.sync_all()?;
            self.state.names_changed = false;
        }
        Ok(())
    }
}

/// Options that follow no link, wait for no pipe and make files that only this user reads.
fn owner_only() -> std::fs::OpenOptions {
    let mut options = File::options();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options.mode(0o600).custom_flags(flags.bits().cast_signed());
    options
}

/// The length of a regular file.
fn regular(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok(metadata.len())
}

/// The parents of a path that are to be made, and the first one that is there: where names will be added.
fn missing(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut parents = Vec::new();
    for parent in std::path::absolute(path)?.ancestors().skip(1) {
        parents.push(parent.to_owned());
        if parent.exists() {
            break;
        }
    }
    Ok(parents)
}

/// Root may own it: root can change everything anyway.
fn check_owner(owner: u32, user: u32) -> io::Result<()> {
    if owner == user || owner == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::PermissionDenied,
        format!("it belongs to another user (uid {owner}), who could set it back"),
    ))
}

/// Whether it was there.
fn remove_if_there(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn own(lock: &File) -> io::Result<()> {
    let deadline = Instant::now() + OWN_WAIT;
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(OWN_PAUSE);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ErrorKind::ResourceBusy.into()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
