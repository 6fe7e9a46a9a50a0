//! A key service's log as tests play it: grown, set back, forked, recovered.

use bield_envelope::{Principal, Secret, Time};
use bield_tlog::{Checkpoint, LogKey, Origin, SignedCheckpoint, Tree, VerifiedCheckpoint};

use super::{Freshness, LogHead, Recovered};

/// A log whose records are its name and their numbers.
pub struct PlayedLog {
    key: LogKey,
    tree: Tree,
    before: Option<Box<Self>>,
}

impl PlayedLog {
    /// Who recovers logs, and when.
    pub const HOLDER: Principal = Principal::from_bytes([7; 32]);
    /// See [`HOLDER`](Self::HOLDER).
    pub const RECOVERED_AT: Time = Time::from_secs(1_800_000_000);

    /// A log with so many records; `name` is a C2SP key name.
    ///
    /// # Panics
    /// `name` is none.
    #[must_use]
    pub fn new(name: &str, records: u64) -> Self {
        Self::forked(name, records, records)
    }

    /// One that another one of this name shares the first `common` records with.
    ///
    /// # Panics
    /// `name` is no key name.
    #[must_use]
    pub fn forked(name: &str, records: u64, common: u64) -> Self {
        let mut log = Self {
            key: key(name, 1),
            tree: Tree::new(),
            before: None,
        };
        log.grow(common.min(records));
        if common < records {
            log.tree.append(b"another record");
            log.grow(records - common - 1);
        }
        log
    }

    /// Goes on from `before`, as far as that goes.
    #[must_use]
    pub fn recovered_from(self, before: Self) -> Self {
        let before = Some(Box::new(before));
        Self { before, ..self }
    }

    /// The same under another key of the same name.
    #[must_use]
    pub fn under_another_key(self) -> Self {
        let key = key(self.origin().as_str(), 2);
        Self { key, ..self }
    }

    /// Adds so many records.
    pub fn grow(&mut self, records: u64) {
        for _ in 0..records {
            let record = format!("{} {}", self.key.verifier().name(), self.size());
            self.tree.append(record.as_bytes());
        }
    }

    /// Records of the log.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Its newest checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> VerifiedCheckpoint {
        Checkpoint::new(self.origin(), self.size(), self.tree.root()).sign(&self.key)
    }

    /// What somebody keeps who met it.
    #[must_use]
    pub fn head(&self) -> LogHead {
        LogHead {
            log: self.key.verifier().clone(),
            checkpoint: self.checkpoint(),
        }
    }

    /// What an honest program answers to somebody who kept this note, as far as its log allows; `None` when the
    /// note is of a log that this does not go on from.
    #[must_use]
    pub fn answer_to(&self, kept: &str) -> Option<Freshness> {
        let kept = SignedCheckpoint::parse(kept.as_bytes()).ok()?;
        let mut recovered = Vec::new();
        let mut log = self;
        while log.origin() != *kept.claimed().origin() {
            let before = log.before.as_deref()?;
            recovered.insert(0, before.left_for(log));
            log = before;
        }
        let proof = log
            .tree
            .consistency_proof(kept.claimed().size(), log.size());
        let hashes = proof.unwrap_or_default();
        Some(Freshness {
            consistency: hashes
                .iter()
                .map(|hash| (*hash.as_bytes()).into())
                .collect(),
            recovered,
            ..self.answer()
        })
    }

    /// What its callers end with: a program that does not know their log is asked anew, without it.
    #[must_use]
    pub fn answer_after(&self, kept: Option<&LogHead>) -> Freshness {
        kept.and_then(|kept| self.answer_to(&kept.checkpoint().to_string()))
            .unwrap_or_else(|| self.answer())
    }

    /// What a program answers to somebody who kept nothing.
    #[must_use]
    pub fn answer(&self) -> Freshness {
        Freshness {
            checkpoint: self.checkpoint().to_string(),
            consistency: Vec::new(),
            log: self.key.verifier().to_string(),
            recovered: Vec::new(),
        }
    }

    fn origin(&self) -> Origin {
        Origin::from(self.key.verifier().name())
    }

    fn left_for(&self, next: &Self) -> Recovered {
        Recovered {
            origin: self.origin().to_string(),
            size: self.size(),
            root: *self.tree.root().as_bytes(),
            holders: vec![Self::HOLDER],
            at: Self::RECOVERED_AT,
            next: next.origin().to_string(),
        }
    }
}

fn key(name: &str, seed: u8) -> LogKey {
    let name = name.parse().expect("the test names a key name");
    LogKey::new(name, &Secret::from_bytes([seed; 32]))
}
