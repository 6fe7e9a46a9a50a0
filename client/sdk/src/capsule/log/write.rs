//! Writing to an opened capsule: configuration by the owner, entries by this home's writer.
//!
//! Always true: a chain is continued only after enough replicas named its end, all of them after a
//! process ended while it was sending; one process writes with a key at a time; what a quorum keeps is
//! remembered before the next process can forget it.

use std::sync::Arc;

use bield_capsule::{
    CapsuleName, Change, Fetched, GenerationKey, Head, Kept, KeyRing, NotResumed, Received,
    Remembered, Verifier, Writer, WriterId, resume_head,
};
use bield_envelope::{Principal, Secret};

use super::{Log, apply, at_all, extend, words};
use crate::capsule::appender::{Appender, AppenderOptions, Older};
use crate::capsule::error::{LogError, ReplicaError};
use crate::capsule::replica::ReplicaClient;
use crate::capsule::sink::{ReplicaSink, Sink, introduce};
use crate::gateway::is_loopback;
use crate::{Randomness, now};

impl Log {
    /// Changes the configuration: the owner's act. Returns the new config record's head once a quorum
    /// keeps it.
    ///
    /// # Errors
    /// Not the owner's home, too few answers, changes that contradict the state, too few replicas.
    pub fn configure(&mut self, changes: &[Change]) -> Result<Head, LogError> {
        let key = self.home.owner_key()?;
        let mut writing = self.home.configure()?;
        self.need_all_after_a_crash(writing.ended_in_order())?;
        let owner = self.metadata.owner_id();
        let chain = self
            .base
            .chain(&owner)
            .ok_or(LogError::NotAdmitted { writer: owner })?;
        let (tip, levels) = (chain.signed_head().clone(), chain.levels().clone());
        let config = self.config();
        let mut writer = Writer::resume_owner(key, &self.metadata, &tip, config, levels)?;
        let record = writer.configure(changes, now())?;
        let head = record.head();
        let mut base = self.base.clone();
        apply(&mut base, record.clone())?;
        writing.begin()?;
        let config: Arc<[Received]> = self.config.iter().cloned().chain([record]).collect();
        let (metadata, name) = (&self.metadata, self.metadata.name());
        let newest = config.len() - 1;
        let stored = at_all(&self.replicas, |replica| {
            // As a rule only the newest record is missing.
            let short = replica.append(&name, [config[newest].as_bytes()], Kept::Synced);
            match short {
                Ok(_) => Ok(()),
                Err(ReplicaError::Refused { .. }) => {
                    introduce(replica, metadata, &config, Kept::Synced).map(drop)
                }
                Err(error) => Err(error),
            }
        });
        enough("the configuration", stored, self.quorum())?;
        writing.finish()?;
        self.base = base;
        self.config = config;
        self.seen.advance(head);
        self.home.keep_seen(&self.seen)?;
        Ok(head)
    }

    /// Makes a new generation and seals with it from now on; returns its number. The key is stored
    /// before anybody is told of it.
    ///
    /// # Errors
    /// As [`Log::configure`].
    pub fn rotate(&mut self) -> Result<u32, LogError> {
        self.home.owner_key()?;
        let number = self.config().generation() + 1;
        // Left over from a rotation that nobody took note of: that key serves now.
        if self.ring.generation(number).is_none() {
            self.ring
                .insert(GenerationKey::generate(number, &mut Randomness))?;
            self.keep_ring()?;
        }
        let key = self.ring.generation(number);
        let commitment = key.map(|key| key.commitment(&self.metadata));
        let commitment = commitment.ok_or(LogError::NoKey { generation: number })?;
        self.configure(&[Change::Generation { number, commitment }])?;
        Ok(number)
    }

    /// Starts appending with this home's key.
    ///
    /// # Errors
    /// Not a writer's home, not admitted, another process writes, too few answers, a chain that was
    /// rolled back, or no key of the newest generation.
    pub fn appender(&mut self, options: AppenderOptions) -> Result<Appender, LogError> {
        let key = self.home.writer_key()?;
        let writer = key.id();
        let generation = self.config().generation();
        let sealing = key_of(&self.ring, generation).ok_or(LogError::NoKey { generation })?;
        // Another key than the one committed to would seal what nobody can open.
        sealing.check(&self.metadata, self.config())?;
        let mut writing = self.home.write()?;
        self.need_all_after_a_crash(writing.ended_in_order())?;
        self.need_fresh()?;
        let config = self
            .config()
            .head()
            .ok_or(LogError::NotAdmitted { writer })?;
        let verifier = self.own_chain(&writer, writing.ended_in_order())?;
        let next = verifier
            .chain(&writer)
            .map_or(0, |chain| chain.tip().seq + 1);
        if !self.config().through(&writer).includes(next) {
            return Err(LogError::Revoked { writer });
        }
        let (writer, first) = match verifier.chain(&writer) {
            Some(chain) => {
                let (tip, levels) = (chain.signed_head().clone(), chain.levels().clone());
                let resumed = Writer::resume(key, &self.metadata, &tip, config, levels)?;
                (resumed, Vec::new())
            }
            None if !self.config().admits(&writer) => {
                return Err(LogError::NotAdmitted { writer });
            }
            None => {
                let (opened, record) = Writer::open(key, &self.metadata, config, None, now())?;
                (opened, vec![record])
            }
        };
        writing.begin()?;
        let counted = || self.counted_replicas();
        let sinks: Vec<Box<dyn Sink>> = counted()
            .map(|replica| {
                let (metadata, config) = (self.metadata.clone(), Arc::clone(&self.config));
                let replica = Arc::clone(replica);
                Box::new(ReplicaSink::new(replica, metadata, config, Kept::Synced)) as _
            })
            .collect();
        let older = Replicas {
            replicas: counted().cloned().collect(),
            name: self.metadata.name(),
            writer: writer.id(),
        };
        let options = AppenderOptions {
            quorum: self.quorum(),
            local: counted().position(|replica| is_loopback(replica.url())),
            ..options
        };
        Ok(Appender::start_with(
            writer,
            sealing,
            first,
            sinks,
            options,
            Some(Box::new(older)),
            Some(writing),
        )?)
    }

    /// Remembers the newest record of this home's chain.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&mut self, head: Option<Head>) -> Result<(), LogError> {
        if head.is_some_and(|head| self.seen.advance(head)) {
            self.home.keep_seen(&self.seen)?;
        }
        Ok(())
    }

    /// This home's own chain up to the newest record that enough replicas name (`spec/06 §9`).
    fn own_chain(&self, writer: &WriterId, ended_in_order: bool) -> Result<Verifier, LogError> {
        let mut found = self.base.clone();
        let name = self.metadata.name();
        let fetch = |principal: &Principal, head: &Head| {
            let mut replicas = self.replicas.iter();
            let Some(replica) = replicas.find(|replica| replica.principal() == *principal) else {
                return Fetched::Wrong;
            };
            // What one replica gave out and was verified, the next one need only have as well.
            let tip = found.chain(writer).map(bield_capsule::Chain::tip);
            if tip == Some(*head) {
                let page = replica.records(&name, writer, head.seq, Some(head.seq));
                let same = page.is_ok_and(|page| {
                    let record = page.records.first();
                    record.is_some_and(|record| record.hash() == head.hash)
                });
                return if same { Fetched::Right } else { Fetched::Wrong };
            }
            let mut verifier = self.base.clone();
            let extended = extend(&mut verifier, replica, writer, Some(head.seq));
            let tip = verifier.chain(writer).map(bield_capsule::Chain::tip);
            if extended.is_err() || tip != Some(*head) {
                return Fetched::Wrong;
            }
            found = verifier;
            Fetched::Right
        };
        let seen = self.seen.head(writer);
        let remembered = if ended_in_order {
            Remembered::Newest(seen)
        } else {
            Remembered::Perhaps(seen)
        };
        let statements = self.statements();
        let config = self.config();
        match resume_head(
            writer,
            remembered,
            config,
            &statements,
            &self.question,
            fetch,
        ) {
            Ok(_) => Ok(found),
            Err(NotResumed::NotFresh(_)) => {
                Err(self
                    .need_fresh()
                    .err()
                    .unwrap_or_else(|| LogError::TooFewAnswers {
                        got: self.answers.len(),
                        need: config.answers().unwrap_or(usize::MAX),
                        why: "some answers do not count: compare the clocks".to_owned(),
                    }))
            }
            Err(NotResumed::RolledBack {
                remembered, found, ..
            }) => Err(LogError::RolledBack {
                what: "writer",
                writer: *writer,
                found,
                seen: remembered.seq,
            }),
            Err(NotResumed::Forked {
                seq, first, second, ..
            }) => Err(LogError::Forked {
                writer: *writer,
                seq,
                found: second,
                seen: first,
            }),
            Err(error) => Err(LogError::Withheld {
                writer: *writer,
                seq: seen.map_or(0, |head| head.seq),
                why: error.to_string(),
            }),
        }
    }

    /// After a process ended while it was sending, one replica alone may hold its newest record: another
    /// one in its place would fork the chain.
    fn need_all_after_a_crash(&self, ended_in_order: bool) -> Result<(), LogError> {
        if ended_in_order || self.answers.len() == self.config().replicas().len() {
            return Ok(());
        }
        Err(LogError::Unfinished {
            why: words(&self.silent),
        })
    }
}

/// Older records of one writer, from whichever replica gives them out.
struct Replicas {
    replicas: Vec<Arc<ReplicaClient>>,
    name: CapsuleName,
    writer: WriterId,
}

impl Older for Replicas {
    fn records(&self, from: u64, end: u64) -> Vec<Received> {
        let to = Some(end.saturating_sub(1));
        self.replicas
            .iter()
            .find_map(|replica| {
                let page = replica.records(&self.name, &self.writer, from, to).ok()?;
                (!page.records.is_empty()).then_some(page.records)
            })
            .unwrap_or_default()
    }
}

/// A copy of a generation's key for a thread of its own.
pub(in crate::capsule) fn key_of(ring: &KeyRing, generation: u32) -> Option<GenerationKey> {
    let key = ring.generation(generation)?;
    let copy = Secret::from_bytes(*key.secret().expose());
    Some(GenerationKey::from_secret(generation, copy))
}

pub(super) fn enough(
    what: &'static str,
    stored: Vec<Result<(), ReplicaError>>,
    need: usize,
) -> Result<(), LogError> {
    let (stored, failed): (Vec<_>, Vec<_>) = stored.into_iter().partition(Result::is_ok);
    if stored.len() >= need {
        return Ok(());
    }
    let failed: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
    Err(LogError::NotStored {
        what,
        got: stored.len(),
        need,
        why: words(&failed),
    })
}
