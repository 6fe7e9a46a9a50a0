//! A real directory, owned by one process at a time.
//!
//! In: a path. Out: a [`Disk`]. Always true: while a [`Files`] lives, its process alone holds the
//! directory's lock, and the system drops that lock when the process dies, however it dies.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FlockOperation};

use super::{Disk, DiskFile};

/// One directory of a file system. See the module's text.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    directory: File,
    /// Locked as long as it is open.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// Another process, or another part of this one, has it open.
    #[error("{path} is in use by another process: stop that one first, or wait until it ends")]
    Owned {
        /// The directory.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("{path} cannot be used: {source}; check that it exists and belongs to this user")]
    System {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl Files {
    /// Takes ownership of the directory at `path`, which is made if it is absent.
    ///
    /// # Errors
    /// When another process owns it, or the system refuses.
    pub fn own(path: &Path) -> Result<Self, FilesError> {
        let system = |source| FilesError::System {
            path: path.to_owned(),
            source,
        };
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(system)?;
            // The new name lasts only once the directory that holds it is synced.
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            let parent = File::open(parent.unwrap_or(Path::new("."))).map_err(system)?;
            parent.sync_all().map_err(system)?;
        }
        let directory = File::open(path).map_err(system)?;
        let lock = private()
            .create(true)
            .open(path.join(LOCK))
            .map_err(system)?;
        let owned = || FilesError::Owned {
            path: path.to_owned(),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(owned()),
            Err(errno) => return Err(system(errno.into())),
        }
        // Locked, but discarded by its last owner between our open and our lock.
        if lock.metadata().map_err(system)?.nlink() == 0 {
            return Err(owned());
        }
        Ok(Self {
            path: path.to_owned(),
            directory,
            _lock: lock,
        })
    }

    fn at(&self, name: &str) -> io::Result<PathBuf> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'.';
        if name.is_empty()
            || name.len() > 64
            || name.starts_with('.')
            || name == LOCK
            || !name.bytes().all(plain)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a name of a journal's file",
            ));
        }
        Ok(self.path.join(name))
    }
}

impl Disk for Files {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // Names that are no text are none of ours.
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        private().create_new(true).open(self.at(name)?)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        private().open(self.at(name)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from)?, self.at(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name)?)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn discard(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(LOCK))?;
        fs::remove_dir(&self.path)
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, into, offset)
    }

    fn write_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        match parts {
            [one] => std::os::unix::fs::FileExt::write_at(self, one, offset),
            _ => Ok(rustix::io::pwritev(
                self,
                &parts[..parts.len().min(IOV_MAX)],
                offset,
            )?),
        }
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn forget_cached(&self) {
        // Drops pages that are not waiting to be written; where it cannot, reading still works.
        let _ = rustix::fs::fadvise(self, 0, None, Advice::DontNeed);
    }
}

/// The system takes no more parts in one write.
const IOV_MAX: usize = 1024;

const LOCK: &str = "lock";

/// Records are ciphertext, but how many a capsule has is nobody else's matter.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("capsule");
        let first = Files::own(&path).unwrap();
        assert!(matches!(Files::own(&path), Err(FilesError::Owned { .. })));
        drop(first);
        let second = Files::own(&path).unwrap();
        second.discard().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::own(home.path()).unwrap();
        for name in [
            "",
            "..",
            "../a",
            "a/b",
            "/a",
            ".a",
            "lock",
            "A",
            "a\0",
            &"a".repeat(65),
        ] {
            let error = files.create(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
        }
        files.create("a.1").unwrap();
        assert_eq!(files.list().unwrap(), ["a.1"]);
    }

    #[test]
    fn more_parts_than_one_call_takes_are_all_written() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::own(home.path()).unwrap();
        let file = files.create("a").unwrap();
        let bytes: Vec<[u8; 2]> = (0..3000_u16).map(u16::to_be_bytes).collect();
        let mut parts: Vec<IoSlice<'_>> = bytes.iter().map(|part| IoSlice::new(part)).collect();
        crate::disk::write_all(&file, &mut parts, 5).unwrap();
        let mut back = vec![0; 6000];
        crate::disk::read_exact(&file, &mut back, 5).unwrap();
        assert_eq!(back, bytes.concat());
        assert!(crate::disk::read_exact(&file, &mut back, 6).is_err());
    }
}
