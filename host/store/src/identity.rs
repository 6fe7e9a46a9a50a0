//! A program's own signing key: made once, kept in a file only its owner reads.
//!
//! Always true: the key is on the disk before it signs anything, and is never replaced; a file that
//! others can read is refused, because then others can acknowledge in this store's name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bield_envelope::{Secret, SigningKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// The key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file or its directory cannot be read or written.
    #[error("{path}: {error}; correct the path or its permissions and start again", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others can read the key.
    #[error("{path} can be read by others (mode {mode:o}): run `chmod 600` on it, and replace it if others were there", path = .path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("{path} does not hold 64 hexadecimal digits: restore it from a backup", path = .path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the key in `directory`, or makes one when there is none.
///
/// # Errors
/// See [`IdentityError`].
pub fn identity(
    directory: &Path,
    entropy: &mut impl CryptoRng,
) -> Result<SigningKey, IdentityError> {
    let path = directory.join(FILE);
    match read(&path)? {
        Some(key) => Ok(key),
        None => {
            let key = SigningKey::generate(entropy);
            write_once(directory, &path, key.seed()).map_err(|error| failed(&path, error))?;
            Ok(key)
        }
    }
}

fn read(path: &Path) -> Result<Option<SigningKey>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, error)),
    };
    let mode = file.metadata().map_err(|error| failed(path, error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(IdentityError::Readable { path, mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(128));
    let read = file.take(128).read_to_string(&mut text);
    read.map_err(|error| failed(path, error))?;
    let mut seed = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text.trim_end(), &mut *seed).map_err(|_| IdentityError::NotAKey {
        path: path.to_owned(),
    })?;
    Ok(Some(SigningKey::from_seed(Secret::from_bytes(*seed))))
}

fn write_once(directory: &Path, path: &Path, seed: &Secret) -> io::Result<()> {
    let text = Zeroizing::new(format!("{}\n", hex::encode(seed.expose())));
    // A crash leaves either no key or a whole one: half a file is never under its name.
    let half = path.with_extension("new");
    let _ = fs::remove_file(&half);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    File::open(directory)?.sync_all()
}

fn failed(path: &Path, error: io::Error) -> IdentityError {
    let path = path.to_owned();
    IdentityError::File { path, error }
}

const FILE: &str = "identity.key";

#[cfg(test)]
mod tests {
    use super::*;
    use bield_envelope::Seeded;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_and_readable_by_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let made = identity(directory.path(), &mut Seeded::new(1)).unwrap();
        let again = identity(directory.path(), &mut Seeded::new(2)).unwrap();
        assert_eq!(made.principal(), again.principal());
        let path = directory.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = identity(directory.path(), &mut Seeded::new(3));
        assert!(matches!(
            refused,
            Err(IdentityError::Readable { mode: 0o640, .. })
        ));
    }

    #[test]
    fn a_damaged_key_is_refused_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        identity(directory.path(), &mut Seeded::new(1)).unwrap();
        let path = directory.path().join(FILE);
        fs::write(&path, "ab").unwrap();
        let refused = identity(directory.path(), &mut Seeded::new(3));
        assert!(matches!(refused, Err(IdentityError::NotAKey { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"ab");
    }
}
