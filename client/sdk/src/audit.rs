//! A principal's audit: pages fetched, chained, and compared with what the home has seen of it.
//!
//! ```text
//! seen before: (count, digest) ──┐
//! from ─▶ entry ─▶ entry ─▶ … ─▶ must meet it here ─▶ … ─▶ (count, digest) of all ─▶ kept
//! ```
//!
//! Always true: every entry returned hangs in one chain of digests with the count and digest that were
//! kept before and are kept now; one that was changed, left out or put in before the kept place shows.
//! That nothing was left out after it is the attested service's word, until it is asked again.

use bield_envelope::{Digest, SigningKey};
use bield_protocol::service::{
    AUDIT_START, AuditEntry, AuditPage, Operation, RefusedLease, Reply, chained,
};

use crate::{KeyService, ServiceError};

/// How far an audit was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Entries.
    pub count: u64,
    /// Chain of all of them.
    pub digest: Digest,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            count: 0,
            digest: Digest::from_bytes(AUDIT_START),
        }
    }
}

/// Which part of an audit is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditFrom {
    /// From this entry on, counted from 0.
    Entry(u64),
    /// The newest so many.
    Last(u64),
}

/// A verified part of an audit, up to its newest entry.
#[derive(Debug, Clone)]
pub struct Audit {
    /// Number of the first entry below.
    pub from: u64,
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// How far it had been seen before.
    pub before: Seen,
    /// How far it has been seen now.
    pub now: Seen,
    /// Leases that were refused lately, by the service's memory alone.
    pub refused: Vec<RefusedLease>,
}

/// The audit is not the one that was seen, or hangs together with nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// There is less of it than was seen.
    #[error(
        "it has {shown} entries, this home has seen {seen}: entries are gone; do not rely on it"
    )]
    Shorter {
        /// Entries seen.
        seen: u64,
        /// Entries shown.
        shown: u64,
    },
    /// Up to the place seen before, it is another one.
    #[error(
        "its first {seen} entries are not those this home has seen: altered; do not rely on it"
    )]
    Altered {
        /// Entries seen.
        seen: u64,
    },
    /// Its entries do not make the digest it names.
    #[error("entry {at}: the entries do not make the chain it names; do not rely on it")]
    Unchained {
        /// Number of the entry.
        at: u64,
    },
    /// It goes on without end, or stands still.
    #[error("its pages do not lead to its end; do not rely on it")]
    Endless,
}

impl AuditError {
    /// A short word, stable across versions.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Shorter { .. } => "audit-shorter",
            Self::Altered { .. } => "audit-altered",
            Self::Unchained { .. } => "audit-unchained",
            Self::Endless => "audit-endless",
        }
    }
}

impl KeyService<'_> {
    /// The audit of `owner`, compared with what this home has seen of it, which is what is kept then.
    /// `progress` receives entries fetched and entries to fetch.
    ///
    /// # Errors
    /// The session broke, the service refuses, or the audit is not the one that was seen.
    pub fn audit(
        &mut self,
        owner: &SigningKey,
        from: AuditFrom,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Audit, ServiceError> {
        let (home, origin) = (self.home(), self.fresh().head.origin().clone());
        let before = home.audit_seen(&origin, &owner.principal())?;
        let audit = collect(
            before,
            from,
            |from| match self.question(owner, Operation::Audit { from })? {
                Reply::Audit(page) => Ok(page),
                _ => Err(ServiceError::OtherAnswer),
            },
            progress,
        )?;
        home.keep_audit(&origin, &owner.principal(), &audit.now)?;
        Ok(audit)
    }
}

/// Fetches and chains the pages from what is wanted, or from what was seen if that is earlier.
fn collect(
    before: Seen,
    from: AuditFrom,
    mut fetch: impl FnMut(u64) -> Result<AuditPage, ServiceError>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Audit, ServiceError> {
    let wanted = match from {
        AuditFrom::Entry(wanted) => wanted,
        AuditFrom::Last(entries) => fetch(before.count)?.count.saturating_sub(entries),
    };
    let start = wanted.min(before.count);
    let mut page = fetch(start)?;
    if page.count < before.count {
        let (seen, shown) = (before.count, page.count);
        return Err(AuditError::Shorter { seen, shown }.into());
    }
    let mut chain = Chain {
        before,
        at: start,
        digest: page.before,
        wanted,
        entries: Vec::new(),
    };
    // Before the first entry nothing can be claimed, and at the place seen before only that.
    chain.check_before()?;
    loop {
        if page.from != chain.at || page.before != chain.digest {
            return Err(AuditError::Unchained { at: chain.at }.into());
        }
        let empty = page.entries.is_empty();
        for entry in page.entries {
            chain.add(entry)?;
        }
        progress(
            chain.at.saturating_sub(start),
            page.count.saturating_sub(start),
        );
        if chain.at >= page.count {
            if chain.at > page.count || chain.digest != page.digest {
                return Err(AuditError::Unchained { at: chain.at }.into());
            }
            return Ok(Audit {
                from: wanted.min(chain.at),
                entries: chain.entries,
                before,
                now: Seen {
                    count: chain.at,
                    digest: chain.digest,
                },
                refused: page.refused,
            });
        }
        if empty {
            return Err(AuditError::Endless.into());
        }
        page = fetch(chain.at)?;
    }
}

/// The chain as far as it was followed.
struct Chain {
    before: Seen,
    at: u64,
    digest: Digest,
    wanted: u64,
    entries: Vec<AuditEntry>,
}

impl Chain {
    fn add(&mut self, entry: AuditEntry) -> Result<(), AuditError> {
        self.digest = chained(&self.digest, &entry);
        if self.at >= self.wanted {
            self.entries.push(entry);
        }
        self.at += 1;
        self.check_before()
    }

    /// At the place seen before, the chain must be the one seen; before the first entry, the known start.
    fn check_before(&self) -> Result<(), AuditError> {
        let seen = match self.at {
            0 => Seen::default().digest,
            at if at == self.before.count => self.before.digest,
            _ => return Ok(()),
        };
        if seen == self.digest {
            return Ok(());
        }
        Err(match self.at {
            0 => AuditError::Unchained { at: 0 },
            seen => AuditError::Altered { seen },
        })
    }
}

#[cfg(test)]
mod tests;
