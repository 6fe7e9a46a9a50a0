//! How far this home has seen each principal's audit.
//!
//! One file a principal and log, `logs/<log>-<principal>.audit`: count and chain digest of the newest
//! verified entry. Always true: it only grows. When holders of shares recover a service from at least as
//! much as this home has seen, what is kept goes along to the new log.

use std::path::PathBuf;

use bield_envelope::{Digest, Principal};
use bield_tlog::Origin;

use super::{Home, HomeError};
use crate::audit::Seen;
use crate::files::{self, Write};

impl Home {
    /// How far the audit of `principal` in the log `origin` was seen; nothing of it at first.
    pub(crate) fn audit_seen(
        &self,
        origin: &Origin,
        principal: &Principal,
    ) -> Result<Seen, HomeError> {
        files::check_directory(self.path())?;
        let path = self.audit_path(origin, principal);
        let bytes = match files::read_secret(&path, AUDIT_BYTES_MAX) {
            Err(error) if error.is_missing() => return Ok(Seen::default()),
            bytes => bytes?,
        };
        parse(&bytes).ok_or(HomeError::Damaged { path })
    }

    /// Keeps how far an audit was seen, unless more of it was seen meanwhile.
    pub(crate) fn keep_audit(
        &self,
        origin: &Origin,
        principal: &Principal,
        seen: &Seen,
    ) -> Result<(), HomeError> {
        let _lock = self.lock_logs()?;
        if self.audit_seen(origin, principal)?.count >= seen.count {
            return Ok(());
        }
        self.write_audit(self.audit_path(origin, principal), seen)
    }

    /// Takes what was seen of audits along from one log to the one that goes on from it.
    pub(super) fn carry_audits(&self, before: &Origin, after: &Origin) -> Result<(), HomeError> {
        let entries = match std::fs::read_dir(self.logs()) {
            Ok(entries) => entries,
            Err(error) => return Err(files::FileError::io(&self.logs(), error).into()),
        };
        let prefix = format!("{}-", before.path_segment());
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let Some(rest) = name
                .strip_prefix(&prefix)
                .filter(|rest| rest.ends_with(SUFFIX))
            else {
                continue;
            };
            let bytes = files::read_secret(&entry.path(), AUDIT_BYTES_MAX)?;
            let seen = parse(&bytes).ok_or_else(|| HomeError::Damaged { path: entry.path() })?;
            let path = self.logs().join(format!("{}-{rest}", after.path_segment()));
            self.write_audit(path, &seen)?;
        }
        Ok(())
    }

    fn write_audit(&self, path: PathBuf, seen: &Seen) -> Result<(), HomeError> {
        let text = format!("{} {}\n", seen.count, seen.digest);
        Ok(files::write(&path, text.as_bytes(), Write::Secret)?)
    }

    fn audit_path(&self, origin: &Origin, principal: &Principal) -> PathBuf {
        let principal = principal.to_string();
        let digits = principal.rsplit(':').next().unwrap_or_default();
        self.logs()
            .join(format!("{}-{digits}{SUFFIX}", origin.path_segment()))
    }
}

fn parse(bytes: &[u8]) -> Option<Seen> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (count, digest) = text.trim_end().split_once(' ')?;
    let digest: Digest = digest.parse().ok()?;
    Some(Seen {
        count: count.parse().ok()?,
        digest,
    })
}

const SUFFIX: &str = ".audit";
/// A count of 20 digits and a digest of 64.
const AUDIT_BYTES_MAX: u64 = 96;
