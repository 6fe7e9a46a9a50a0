//! Recovery shares that this home holds: `shares/<log>-<generation>.share`, 0600, never replaced.

use std::fs;
use std::path::{Path, PathBuf};

use bield_protocol::service::{Reply, Share};
use bield_tlog::Origin;

use super::{Home, HomeError};
use crate::files::{self, FileError, Write};

/// A share in this home.
pub struct KeptShare {
    /// Its file.
    pub path: PathBuf,
    /// The share; a secret.
    pub share: Share,
    /// Whether it is of the service that the trust file means, by what this home last saw of it.
    pub current: bool,
}

impl Home {
    /// Keeps a share of the service whose log is `origin`, durably. Taking the same again changes nothing.
    ///
    /// # Errors
    /// The file cannot be written, or holds another share.
    pub fn keep_share(&self, origin: &Origin, share: &Share) -> Result<PathBuf, HomeError> {
        self.make()?;
        files::make_private_directory(&self.path().join(SHARES))?;
        let segment = origin.path_segment();
        let name = format!("{segment}-{:010}{SUFFIX}", share.generation);
        let path = self.path().join(SHARES).join(name);
        let bytes = Reply::Share(share.clone()).encode();
        match files::write(&path, &bytes, Write::SecretOnce) {
            Err(error) if error.is_existing() => {
                if *read(&path)?.bytes == *share.bytes {
                    Ok(path)
                } else {
                    Err(HomeError::ShareExists { path })
                }
            }
            written => Ok(written.map(|()| path)?),
        }
    }

    /// The shares in this home, the newest generation last.
    ///
    /// # Errors
    /// A file is damaged, or others can read it.
    pub fn shares(&self) -> Result<Vec<KeptShare>, HomeError> {
        files::check_directory(self.path())?;
        let directory = self.path().join(SHARES);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::io(&directory, error).into()),
        };
        let current = self.head()?.map(|head| head.origin().path_segment());
        let mut shares = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(SUFFIX) {
                continue;
            }
            shares.push(KeptShare {
                share: read(&entry.path())?,
                path: entry.path(),
                current: current
                    .as_ref()
                    .is_some_and(|segment| name.starts_with(segment)),
            });
        }
        shares.sort_by_key(|kept| (kept.share.generation, kept.path.clone()));
        Ok(shares)
    }

    /// The share in a file, such as a backup of one.
    ///
    /// # Errors
    /// The file holds none, or others can read it.
    pub fn share_at(&self, path: &Path) -> Result<Share, HomeError> {
        read(path)
    }

    /// Takes the shares of one log along to the one that people recovered from it: the key that they open
    /// is the same.
    pub(super) fn carry_shares(&self, before: &Origin, after: &Origin) -> Result<(), HomeError> {
        let directory = self.path().join(SHARES);
        let prefix = before.path_segment();
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(FileError::io(&directory, error).into()),
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix(&prefix) else {
                continue;
            };
            let path = directory.join(format!("{}{rest}", after.path_segment()));
            // A name that is taken stays: nothing here is ever replaced.
            if !path.exists() {
                fs::rename(entry.path(), &path).map_err(|error| FileError::io(&path, error))?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Share, HomeError> {
    let none = || HomeError::NotAShare {
        path: path.to_owned(),
    };
    let bytes = match files::read_secret(path, SHARE_FILE_BYTES_MAX) {
        Err(FileError::TooLong { .. }) => return Err(none()),
        bytes => bytes?,
    };
    match Reply::decode(&bytes) {
        Ok(Reply::Share(share)) => Ok(share),
        _ => Err(none()),
    }
}

const SHARES: &str = "shares";
const SUFFIX: &str = ".share";
/// A share has at most 256 bytes, its numbers a few.
const SHARE_FILE_BYTES_MAX: u64 = 512;
