//! The newest verified head of each key service's log that this home has met.
//!
//! ```text
//! logs/<SHA-256 of the origin>.head    who, the log's key, the signed checkpoint (0600)
//! logs/<SHA-256 of the origin>.left    holders of shares recovered another log from it, and this home went along
//! logs/current                         which of them the trust file's service continues
//! logs/lock                            held while one of them changes
//! ```
//!
//! Always true: a head gives way only to one that was judged against exactly it, so two programs at
//! once cannot put an older one in its place; a file appears whole or not at all. Other trust forgets
//! which log is current and no head, so a log that comes back is still compared; a log that was left stays
//! left.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use bield_envelope::Principal;
use bield_protocol::service::LogHead;
use bield_tlog::Origin;

use super::{Home, HomeError};
use crate::files::{self, FileError, Write};
use crate::freshness::Head;

/// What a head was compared with, and how it goes on from there.
#[derive(Debug, Clone)]
pub(crate) struct Compared {
    /// The head that stood as the current one.
    pub(crate) current: Option<Head>,
    /// What was kept of the very log that was shown.
    pub(crate) met: Option<Head>,
    /// The head that it goes on from, in the same log or through recoveries; `None` when it begins anew.
    pub(crate) from: Option<Head>,
    /// Whether all of `from` is in it.
    pub(crate) whole: bool,
}

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

    /// Every head that is kept, as far as whole; at most [`HEADS_MAX`].
    pub(crate) fn heads(&self) -> Result<Vec<Head>, HomeError> {
        let entries = match std::fs::read_dir(self.logs()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(FileError::io(&self.logs(), error).into()),
        };
        let mut segments: Vec<_> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_suffix(HEAD).map(ToOwned::to_owned)
            })
            .collect();
        segments.sort();
        segments.truncate(HEADS_MAX);
        let heads = segments.iter().map(|segment| self.read_head(segment));
        Ok(heads
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Whether this home has gone on from that log to one that was recovered from it.
    pub(crate) fn has_left(&self, origin: &Origin) -> bool {
        self.left_path(origin).try_exists().unwrap_or(true)
    }

    /// Keeps `head` in place of what it was compared with; `false` when something else stands there by now
    /// and the comparison has to be made again.
    pub(crate) fn keep_head(&self, compared: &Compared, head: &Head) -> Result<bool, HomeError> {
        let _lock = self.lock_logs()?;
        if self.head()? != compared.current || self.head_of(head.origin())? != compared.met {
            return Ok(false);
        }
        let from = compared.from.as_ref();
        if let Some(from) = from
            && self.head_of(from.origin())?.as_ref() != Some(from)
        {
            return Ok(false);
        }
        if compared.met.as_ref() != Some(head) {
            self.write_head(head)?;
        }
        if let Some(from) = from
            && from.origin() != head.origin()
        {
            // Of a log that was recovered from less than was seen, what was seen of audits is partly void.
            if compared.whole {
                self.carry_audits(from.origin(), head.origin())?;
            }
            self.carry_shares(from.origin(), head.origin())?;
            let text = format!("{}\n", head.origin().path_segment());
            let path = self.left_path(from.origin());
            files::write(&path, text.as_bytes(), Write::Secret)?;
        }
        if compared.current.as_ref().map(Head::origin) != Some(head.origin()) {
            self.point_to(head)?;
        }
        Ok(true)
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
            head.service,
            head.log(),
            head.checkpoint()
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
        self.logs().join(format!("{segment}{HEAD}"))
    }

    fn left_path(&self, origin: &Origin) -> PathBuf {
        let segment = origin.path_segment();
        self.logs().join(format!("{segment}.left"))
    }
}

/// Reads a head and checks its log's signature again: a damaged file is never compared with.
fn parse(bytes: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (front, note) = text.split_once("\n\n")?;
    let mut lines = front.lines();
    (lines.next()? == TITLE).then_some(())?;
    let service: Principal = lines.next()?.strip_prefix("service ")?.parse().ok()?;
    let log = lines.next()?.strip_prefix("log ")?;
    if lines.next().is_some() {
        return None;
    }
    let log = LogHead::read(log, note).ok()?;
    Some(Head { service, log })
}

fn damaged(path: &Path) -> HomeError {
    HomeError::Damaged {
        path: path.to_owned(),
    }
}

/// Heads that a service met for the first time is shown: a home meets few services.
const HEADS_MAX: usize = 64;
const HEAD: &str = ".head";
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
