//! Verifies records one after another, and opens them where it can.
//!
//! In: records in the order of a file. Out: the first one that does not hold, or what all of them are.

use bield_capsule::{
    Head, KeyRing, Kind, Metadata, OpenError, Received, Verifier, VerifierPolicy, WriterId,
};
use bield_evidence::{Mover, Outcome};
use bield_tlog::Tree;

use super::{Audit, AuditOptions};
use crate::words::{counted, is_or_are};

/// Verifies records one after another, and opens them where it can.
pub(super) struct Walk<'a> {
    pub(super) verifier: Verifier,
    keys: Option<&'a KeyRing>,
    pub(super) records: u64,
    opened: u64,
    entries: u64,
    erased: u64,
    without_key: u64,
    sealed: u64,
    pub(super) tree: Tree,
    unreadable: Option<(Head, OpenError)>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(metadata: Metadata, options: &AuditOptions<'a>) -> Self {
        let policy = VerifierPolicy {
            allow_simulated: options.allow_simulated,
            ..VerifierPolicy::default()
        };
        Self {
            verifier: Verifier::new(metadata, policy),
            keys: options.keys,
            records: 0,
            opened: 0,
            entries: 0,
            erased: 0,
            without_key: 0,
            sealed: 0,
            tree: Tree::new(),
            unreadable: None,
        }
    }

    pub(super) fn take(&mut self, record: Received) -> Result<(), String> {
        let (head, kind) = (record.head(), record.header().kind);
        let verified = self.verifier.verify(record);
        let applied = verified.and_then(|verified| self.verifier.apply(verified));
        let applied = applied.map_err(|error| error.to_string())?;
        self.records += 1;
        self.tree.append(head.hash.as_bytes());
        if kind != Kind::Data {
            return Ok(());
        }
        self.sealed += 1;
        let Some(keys) = self.keys else {
            return Ok(());
        };
        let generation = applied.record().header().generation;
        match applied.open(keys) {
            Ok(entries) => {
                self.opened += 1;
                self.entries += entries.len() as u64;
            }
            Err(OpenError::NoKey { .. }) if self.verifier.config().erased(generation) => {
                self.erased += 1
            }
            Err(OpenError::NoKey { .. }) => self.without_key += 1,
            Err(error) => {
                self.unreadable.get_or_insert((head, error));
            }
        }
        Ok(())
    }

    /// Whose record belongs where bytes that do not hold say `claim`: what they say may be what was
    /// changed.
    pub(super) fn expected(&self, claim: Option<Head>) -> (Option<WriterId>, Option<u64>) {
        let next = |writer: &WriterId| Some(self.verifier.chain(writer)?.tip().seq + 1);
        if let Some(claim) = claim {
            if let Some(next) = next(&claim.writer) {
                return (Some(claim.writer), Some(next));
            }
            if claim.seq == 0 {
                return (Some(claim.writer), Some(0));
            }
        }
        let mut chains = self.verifier.chains();
        match (chains.next(), chains.next()) {
            (Some(only), None) => (Some(only.writer()), next(&only.writer())),
            _ => (None, None),
        }
    }

    /// Says what the walk found, after the records themselves.
    pub(super) fn conclude(&self, audit: &mut Audit) {
        audit.records = self.records;
        let config = self.verifier.config();
        audit.heads = config
            .head()
            .into_iter()
            .chain(self.verifier.chains().map(|chain| chain.tip()))
            .collect();
        if config.head().is_none() {
            // Nothing says who may write, so nothing that follows says anything.
            audit.fail(
                "configuration",
                "there is no config record",
                "the owner's config record 0, from which all rights follow",
            );
        }
        let writers = self.verifier.chains().count();
        let missing: Vec<_> = self.verifier.missing().collect();
        if audit.bad.is_none() {
            let have = format!(
                "{} of {}: signatures, chains, rights, bodies' roots",
                counted(self.records, "record"),
                counted(u64::try_from(writers).unwrap_or(u64::MAX), "writer")
            );
            audit.pass("records", &have);
        }
        if let Some(gap) = missing.first() {
            let have = format!("{} is named and not here", gap.need);
            audit.add(
                "parents",
                Outcome::NotChecked,
                &have,
                "the records that others name",
                Mover::Operator,
            );
        }
        match (self.keys, &self.unreadable) {
            (None, _) if self.sealed > 0 => {
                let have = format!("{} sealed bodies are not opened", self.sealed);
                audit.open("contents", &have, "the key ring (--keys)");
            }
            (None, _) => {}
            (Some(_), Some((head, error))) => {
                audit.fail(
                    "contents",
                    &format!("{head}: {error}"),
                    "every body opens with its key",
                );
            }
            (Some(_), None) => {
                if self.opened > 0 {
                    let entries = match self.entries {
                        1 => "1 entry".to_owned(),
                        entries => format!("{entries} entries"),
                    };
                    let have = format!("{} open, {entries}", counted(self.opened, "record"));
                    audit.pass("contents", &have);
                }
                if self.erased > 0 {
                    let have = format!(
                        "{} {} erased: provable, not readable",
                        counted(self.erased, "record"),
                        is_or_are(self.erased)
                    );
                    audit.open("erased", &have, "nothing: the owner destroyed the key");
                }
                if self.without_key > 0 {
                    let have = format!(
                        "{} sealed with a key that the ring does not have",
                        counted(self.without_key, "record")
                    );
                    audit.open("keys", &have, "keys of their generations");
                }
            }
        }
        audit.open(
            "newest",
            "no file shows what came after it",
            "the replicas' answers (bield capsule heads)",
        );
    }
}
