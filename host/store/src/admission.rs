//! Who may create capsules here, and how much all of it may weigh.
//!
//! In: owner ids, sizes. Out: yes, or a refusal that says whose move it is. Always true: what is
//! counted is what was stored; a reservation that is not used is given back.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use bield_capsule::{Metadata, WriterId};

use crate::Refusal;

/// Who may create capsules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owners {
    /// Everyone.
    Any,
    /// These owner ids.
    Listed(BTreeSet<WriterId>),
}

/// A list of owners cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnersError {
    /// The file cannot be read.
    #[error("{path}: {error}; name a file of owner ids, or `any`", path = .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line is no owner id.
    #[error("{path}, line {line}: not an owner id of 64 hexadecimal digits", path = .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
    },
}

impl Owners {
    /// Reads `any`, or a file with one owner id a line; `#` begins a comment.
    ///
    /// # Errors
    /// See [`OwnersError`].
    pub fn read(argument: &str) -> Result<Self, OwnersError> {
        if argument == "any" {
            return Ok(Self::Any);
        }
        let path = Path::new(argument);
        let text = std::fs::read_to_string(path).map_err(|error| OwnersError::File {
            path: path.to_owned(),
            error,
        })?;
        let mut listed = BTreeSet::new();
        for (number, line) in text.lines().enumerate() {
            let id = line.split('#').next().unwrap_or_default().trim();
            if id.is_empty() {
                continue;
            }
            listed.insert(WriterId::from_str(id).map_err(|_| OwnersError::Line {
                path: path.to_owned(),
                line: number + 1,
            })?);
        }
        Ok(Self::Listed(listed))
    }

    fn admit(&self, owner: &WriterId) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.contains(owner),
        }
    }
}

/// How much a store takes.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    /// Capsules.
    pub capsules_max: u64,
    /// Bytes of one capsule's records; the capsule's own quota counts when it is smaller.
    pub capsule_bytes_max: u64,
    /// Bytes of all records together.
    pub total_bytes_max: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            capsules_max: 100_000,
            capsule_bytes_max: 1 << 40,
            total_bytes_max: 1 << 44,
        }
    }
}

/// The rules, and what is used of them.
#[derive(Debug)]
pub struct Admission {
    owners: Owners,
    quotas: Quotas,
    capsules: AtomicU64,
    bytes: AtomicU64,
}

impl Admission {
    /// Nothing is used yet.
    #[must_use]
    pub const fn new(owners: Owners, quotas: Quotas) -> Self {
        Self {
            owners,
            quotas,
            capsules: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Counts a capsule that is here already.
    pub(crate) fn found(&self, bytes: u64) {
        self.capsules.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes a place for a new capsule.
    pub(crate) fn create(&self, metadata: &Metadata) -> Result<(), Refusal> {
        let owner = metadata.owner().id();
        if !self.owners.admit(&owner) {
            return Err(Refusal::new(
                403,
                "owner-not-admitted",
                format!(
                    "this store creates no capsules of owner {owner}; ask its operator to add that id to its list of owners"
                ),
            ));
        }
        let max = self.quotas.capsules_max;
        let take = |taken: u64| (taken < max).then_some(taken + 1);
        match self
            .capsules
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::new(
                409,
                "capsules-quota",
                format!(
                    "this store holds {max} capsules and takes no more; use another store, or ask its operator"
                ),
            )),
        }
    }

    /// Gives the place back: the capsule was not created.
    pub(crate) fn uncreate(&self) {
        self.capsules.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes room for a record of `bytes` in a capsule that holds `held` bytes.
    pub(crate) fn take(
        &self,
        bytes: u64,
        held: u64,
        own_quota: Option<u64>,
    ) -> Result<(), Refusal> {
        let flag = self.quotas.capsule_bytes_max;
        let (max, whose) = match own_quota {
            Some(own) if own < flag => (own, "its owner can raise the quota in the configuration"),
            _ => (flag, "ask this store's operator, or use another store"),
        };
        let after = held.saturating_add(bytes);
        if after > max {
            return Err(Refusal::new(
                413,
                "quota",
                format!("the capsule would hold {after} bytes here and may hold {max}; {whose}"),
            )
            .with("held", held)
            .with("max", max));
        }
        let total = self.quotas.total_bytes_max;
        let take = |taken: u64| taken.checked_add(bytes).filter(|after| *after <= total);
        match self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Refusal::new(
                507,
                "store-full",
                format!(
                    "this store takes {total} bytes in all and is full; use another store, or ask its operator"
                ),
            )),
        }
    }

    /// Gives room back: the record was not stored.
    pub(crate) fn untake(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_quota_counts_and_says_whose_it_is() {
        let quotas = Quotas {
            capsule_bytes_max: 100,
            total_bytes_max: 150,
            ..Quotas::default()
        };
        let admission = Admission::new(Owners::Any, quotas);
        let own = admission.take(60, 0, Some(50)).unwrap_err();
        assert!(own.slug == "quota" && own.message.contains("its owner"));
        let flag = admission.take(60, 50, Some(1000)).unwrap_err();
        assert!(flag.slug == "quota" && flag.message.contains("operator"));
        admission.take(100, 0, None).unwrap();
        assert_eq!(admission.take(60, 0, None).unwrap_err().slug, "store-full");
        admission.untake(100);
        admission.take(60, 0, None).unwrap();
    }

    #[test]
    fn a_list_of_owners_has_comments_and_named_mistakes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("owners");
        let id = WriterId::from_bytes([7; 32]);
        std::fs::write(&path, format!("# ours\n\n{id} # a person\n")).unwrap();
        let owners = Owners::read(path.to_str().unwrap()).unwrap();
        assert_eq!(owners, Owners::Listed([id].into()));
        std::fs::write(&path, format!("{id}\nabc\n")).unwrap();
        let error = Owners::read(path.to_str().unwrap()).unwrap_err();
        assert!(matches!(error, OwnersError::Line { line: 2, .. }));
    }
}
