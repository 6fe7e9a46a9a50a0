//! Files that appear whole or not at all, and secrets that only their owner can read.
//!
//! ```text
//! draft beside PATH ─▶ write ─▶ fsync ─▶ rename (or link, to never replace) ─▶ fsync directory
//! ```
//!
//! Always true: a reader sees the old bytes or all of the new ones, also after a power cut; a secret
//! file has mode 0600 from its first byte; one that others can read is refused, not repaired,
//! because it may have been read already. What is believed because of where it lies is refused when
//! somebody else than its reader and root could have put it there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// A file could not be used. Whoever runs this program looks at it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Reading or writing failed.
    #[error("{path}: {error}{hint}", path = .path.display(), hint = hint(.error))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// Others can read a secret.
    #[error(
        "{path} holds a secret but others can read it (mode {mode:o}): run chmod 600 on it, and \
         replace the key if somebody may have read it", path = .path.display()
    )]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others can change what is believed because it lies here.
    #[error(
        "{path} is believed but others can change it (mode {mode:o}): look at what it says, then run \
         chmod go-w on it", path = .path.display()
    )]
    WritableByOthers {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else owns what is believed because it lies here.
    #[error(
        "{path} is believed but belongs to another user (uid {owner}): choose another home with \
         --home or BIELD_HOME, or make it yours", path = .path.display()
    )]
    OtherOwner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Longer than such a file can be.
    #[error("{path} has more than {max} bytes: this is not the right file", path = .path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes allowed.
        max: u64,
    },
}

impl FileError {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            error,
        }
    }

    /// Whether the file is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == ErrorKind::NotFound)
    }

    /// Whether the file is there already.
    #[must_use]
    pub fn is_existing(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == ErrorKind::AlreadyExists)
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull => "; free some space and repeat",
        ErrorKind::PermissionDenied => "; check its owner and permissions",
        ErrorKind::ReadOnlyFilesystem => "; choose another place",
        _ => "",
    }
}

/// Who may read a new file, and whether it may replace an old one.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Write {
    /// Mode 0644 less the umask, replaces.
    Public,
    /// As public, never replaces: the file that is there stays.
    PublicOnce,
    /// Mode 0600, replaces.
    Secret,
    /// Mode 0600, never replaces: the file that is there stays.
    SecretOnce,
}

/// Writes a public file whole or not at all, replacing one that is there.
///
/// # Errors
/// The disk is full, the directory is missing or not writable, and the like.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes, Write::Public)
}

pub(crate) fn write(path: &Path, bytes: &[u8], how: Write) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(
        ".{:016x}.new",
        getrandom::u64().unwrap_or_default()
    ));
    let draft = path.with_file_name(name);
    let written = fill(&draft, bytes, how).and_then(|()| match how {
        // A link, unlike a rename, fails when the name is taken.
        Write::PublicOnce | Write::SecretOnce => {
            fs::hard_link(&draft, path).and_then(|()| fs::remove_file(&draft))
        }
        Write::Public | Write::Secret => fs::rename(&draft, path),
    });
    if let Err(error) = written {
        let _ = fs::remove_file(&draft);
        return Err(FileError::io(path, error));
    }
    // The name is durable only with its directory; some file systems cannot say so, which is theirs.
    if let Ok(directory) = File::open(directory_of(path)) {
        let _ = directory.sync_all();
    }
    Ok(())
}

/// Reads a file that only this user or root can have written.
pub(crate) fn read_own(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let at = |error| FileError::io(path, error);
    let file = File::open(path).map_err(at)?;
    check_own(path, &file.metadata().map_err(at)?)?;
    read_all(path, file, bytes_max)
}

/// Reads a file, whoever wrote it.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|error| FileError::io(path, error))?;
    read_all(path, file, bytes_max)
}

fn read_all(path: &Path, file: File, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    let read = file.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|error| FileError::io(path, error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(FileError::TooLong {
            path: path.to_owned(),
            max: bytes_max,
        });
    }
    Ok(bytes)
}

pub(crate) fn read_secret(path: &Path, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let at = |error| FileError::io(path, error);
    let file = File::open(path).map_err(at)?;
    check_private(path, &file)?;
    // Sized before it is filled: growing would leave unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max as usize + 1));
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(at)?;
    if bytes.len() as u64 > bytes_max {
        return Err(FileError::TooLong {
            path: path.to_owned(),
            max: bytes_max,
        });
    }
    Ok(bytes)
}

/// Refuses a directory that another user owns or can change; one that is missing passes.
pub(crate) fn check_directory(path: &Path) -> Result<(), FileError> {
    match fs::metadata(path) {
        Ok(metadata) => check_own(path, &metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(FileError::io(path, error)),
    }
}

/// Removes a file; one that is missing is removed already.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(FileError::io(path, error)),
        _ => Ok(()),
    }
}

/// Makes a directory, and those above it, that only this user can enter.
pub(crate) fn make_private_directory(path: &Path) -> Result<(), FileError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(|error| FileError::io(path, error))
}

fn fill(path: &Path, bytes: &[u8], how: Write) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        // Never writable by the group, whatever the umask: such a trust file would be refused.
        let mode = match how {
            Write::Secret | Write::SecretOnce => 0o600,
            Write::Public | Write::PublicOnce => 0o644,
        };
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    }
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(unix)]
fn check_private(path: &Path, file: &File) -> Result<(), FileError> {
    use std::os::unix::fs::MetadataExt as _;

    let metadata = file
        .metadata()
        .map_err(|error| FileError::io(path, error))?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::ReadableByOthers {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

#[cfg(unix)]
fn check_own(path: &Path, metadata: &fs::Metadata) -> Result<(), FileError> {
    use std::os::unix::fs::MetadataExt as _;

    check_owner(path, metadata.uid(), rustix::process::geteuid().as_raw())?;
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(FileError::WritableByOthers {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Root may own it: root can change everything anyway.
#[cfg(unix)]
fn check_owner(path: &Path, owner: u32, reader: u32) -> Result<(), FileError> {
    if owner != reader && owner != 0 {
        return Err(FileError::OtherOwner {
            path: path.to_owned(),
            owner,
        });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_own(_: &Path, _: &fs::Metadata) -> Result<(), FileError> {
    Ok(()) // As below.
}

#[cfg(not(unix))]
fn check_private(_: &Path, _: &File) -> Result<(), FileError> {
    Ok(()) // No permission bits to look at; the home directory's own protection has to do.
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn a_secret_is_private_from_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"secret", Write::SecretOnce).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(&**read_secret(&path, 10).unwrap(), b"secret");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"secret", Write::Secret).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = read_secret(&path, 10).unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        assert!(refused.to_string().contains("mode 640"), "{refused}");
    }

    #[test]
    fn a_file_written_once_is_never_replaced_and_no_draft_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, b"first", Write::SecretOnce).unwrap();
        assert!(
            write(&path, b"second", Write::SecretOnce)
                .unwrap_err()
                .is_existing()
        );
        assert_eq!(read_own(&path, 10).unwrap(), b"first");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_public_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("receipt");
        write_atomically(&path, b"first").unwrap();
        write_atomically(&path, b"second").unwrap();
        assert_eq!(read_own(&path, 10).unwrap(), b"second");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("long");
        write_atomically(&path, b"0123456789").unwrap();
        assert!(matches!(
            read_own(&path, 9),
            Err(FileError::TooLong { max: 9, .. })
        ));
    }

    #[test]
    fn what_another_user_owns_is_refused_but_for_root() {
        let path = Path::new("trust.toml");
        assert!(check_owner(path, 1000, 1000).is_ok());
        assert!(check_owner(path, 0, 1000).is_ok());
        for reader in [0, 1000] {
            let refused = check_owner(path, 1001, reader).unwrap_err();
            assert!(refused.to_string().contains("uid 1001"), "{refused}");
        }
    }

    #[test]
    fn a_public_file_is_never_writable_by_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trust.toml");
        write(&path, b"text", Write::PublicOnce).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o022, 0);
        assert_eq!(read_own(&path, 10).unwrap(), b"text");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let refused = read_own(&path, 10).unwrap_err();
        assert!(refused.to_string().contains("chmod go-w"), "{refused}");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let refused = write_atomically(Path::new("/nonexistent/x"), b"").unwrap_err();
        assert!(refused.is_missing());
        assert!(
            refused.to_string().starts_with("/nonexistent/x: "),
            "{refused}"
        );
    }
}
