//! The newest verified head of each key service's log that this home has met.
//!
//! ```text
//! logs/<SHA-256 of the origin>.head    who, the log's key, the signed checkpoint (0600)
//! logs/current                         which of them the trust file's service continues
//! logs/lock                            held while one of them changes
//! ```
//!
//! Always true: a head gives way only to one that was judged against exactly it, so two programs at
//! once cannot put an older one in its place; a file appears whole or not at all. Other trust forgets
//! which log is current and no head, so a log that comes back is still compared.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use bield_envelope::Principal;
use bield_tlog::{LogVerifier, Origin, SignedCheckpoint};

use super::{Home, HomeError};
use crate::files::{self, FileError, Write};
use crate::freshness::Head;

impl Home {
    /// The newest verified head of the service that the trust file means; `None` before first contact.
    ///
    /// # Errors
    /// The files are damaged, or others can read (hence perhaps write) them.
    pub fn head(&self) -> Result<Option<Head>, HomeError> {
        files::check_directory(self.path())?;
        let path = self.logs().join(CURRENT);
        let segment = match files::read_secret(&path, SEGMENT_BYTES + 1) {
            Err(error) if error.is_missing() => return Ok(None),
            bytes => bytes?,
        };
        let segment = String::from_utf8_lossy(segment.trim_ascii_end()).into_owned();
        let plain = |byte: u8| byte.is_ascii_hexdigit();
        if segment.len() as u64 != SEGMENT_BYTES || !segment.bytes().all(plain) {
            return Err(damaged(&path));
        }
        // The pointer is written after what it points to, so a head that is missing was taken away.
        match self.read_head(&segment)? {
            Some(head) => Ok(Some(head)),
            None => Err(damaged(&path)),
        }
    }

    /// The newest verified head of the log `origin`.
    pub(crate) fn head_of(&self, origin: &Origin) -> Result<Option<Head>, HomeError> {
        files::check_directory(self.path())?;
        self.read_head(&origin.path_segment())
    }

    /// Keeps `head` in place of `judged`, the one that it was compared with; `false` when another stands
    /// there by now and the comparison has to be made again.
    pub(crate) fn keep_head(&self, judged: Option<&Head>, head: &Head) -> Result<bool, HomeError> {
        let _lock = self.lock_logs()?;
        let current = self.head()?;
        let there = match &current {
            Some(current) => Some(current.clone()),
            None => self.head_of(head.origin())?,
        };
        if there.as_ref() != judged {
            return Ok(false);
        }
        let moves = current.as_ref().map(Head::origin) != Some(head.origin());
        if there.as_ref() != Some(head) {
            self.write_head(head)?;
        }
        if moves {
            if let Some(before) = &current {
                self.carry_audits(before.origin(), head.origin())?;
                self.carry_shares(before.origin(), head.origin())?;
            }
            self.point_to(head)?;
        }
        Ok(true)
    }

    /// Keeps `head` whatever stood there: only what a person has accepted by hand comes here. Shares go
    /// along from the log that it was recovered from, if it was; what was seen of audits does not, because
    /// some of it is void.
    pub(crate) fn replace_head(
        &self,
        head: &Head,
        recovered_from: Option<&Origin>,
    ) -> Result<(), HomeError> {
        let _lock = self.lock_logs()?;
        self.write_head(head)?;
        if let Some(before) = recovered_from {
            self.carry_shares(before, head.origin())?;
        }
        self.point_to(head)
    }

    /// Forgets which log the trust file's service continues: the trust is another one.
    pub(super) fn forget_current(&self) -> Result<(), HomeError> {
        Ok(files::remove(&self.logs().join(CURRENT))?)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.path().join(LOGS)
    }

    /// The right to change what is kept of logs; ends with the file.
    pub(crate) fn lock_logs(&self) -> Result<File, HomeError> {
        self.make()?;
        files::make_private_directory(&self.logs())?;
        let path = self.logs().join(LOCK);
        let at = |error| FileError::io(&path, error);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(at)?;
        file.lock().map_err(at)?;
        Ok(file)
    }

    fn write_head(&self, head: &Head) -> Result<(), HomeError> {
        let path = self.head_path(&head.origin().path_segment());
        let text = format!(
            "{TITLE}\nservice {}\nlog {}\n\n{}",
            head.service, head.log, head.checkpoint
        );
        Ok(files::write(&path, text.as_bytes(), Write::Secret)?)
    }

    fn point_to(&self, head: &Head) -> Result<(), HomeError> {
        let text = format!("{}\n", head.origin().path_segment());
        let path = self.logs().join(CURRENT);
        Ok(files::write(&path, text.as_bytes(), Write::Secret)?)
    }

    fn read_head(&self, segment: &str) -> Result<Option<Head>, HomeError> {
        let path = self.head_path(segment);
        let bytes = match files::read_secret(&path, HEAD_BYTES_MAX) {
            Err(error) if error.is_missing() => return Ok(None),
            bytes => bytes?,
        };
        let head = parse(&bytes).filter(|head| head.origin().path_segment() == segment);
        head.map(Some).ok_or_else(|| damaged(&path))
    }

    fn head_path(&self, segment: &str) -> PathBuf {
        self.logs().join(format!("{segment}.head"))
    }
}

/// Reads a head and checks its log's signature again: a damaged file is never compared with.
fn parse(bytes: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (front, note) = text.split_once("\n\n")?;
    let mut lines = front.lines();
    (lines.next()? == TITLE).then_some(())?;
    let service: Principal = lines.next()?.strip_prefix("service ")?.parse().ok()?;
    let log: LogVerifier = lines.next()?.strip_prefix("log ")?.parse().ok()?;
    if lines.next().is_some() {
        return None;
    }
    let signed = SignedCheckpoint::parse(note.as_bytes()).ok()?;
    let origin = Origin::from(log.name());
    let checkpoint = signed.verify(&origin, std::slice::from_ref(&log)).ok()?;
    Some(Head {
        service,
        log,
        checkpoint,
    })
}

fn damaged(path: &Path) -> HomeError {
    HomeError::Damaged {
        path: path.to_owned(),
    }
}

const LOGS: &str = "logs";
const CURRENT: &str = "current";
const LOCK: &str = "lock";
const TITLE: &str = "bield key service head v1";
/// SHA-256 in hexadecimal digits.
const SEGMENT_BYTES: u64 = 64;
/// A checkpoint takes at most 8 KiB on the wire; the lines before it less than one.
const HEAD_BYTES_MAX: u64 = 16 << 10;

#[cfg(test)]
mod tests;
