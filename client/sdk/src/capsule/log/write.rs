//! Writing to an opened capsule: configuration by the owner, entries by this home's writer.
//!
//! Always true: every record is in this home before it leaves it, and what no quorum is known to keep is
//! sent again, byte for byte, before anything is sealed; a chain is continued only after enough replicas
//! named its end; one process writes with a key at a time; what a quorum keeps is remembered before the
//! next process can forget it. How many replicas lie makes no difference to that.

use std::sync::Arc;

use bield_capsule::{
    CapsuleName, Change, Fetched, GenerationKey, Head, Kept, KeyRing, NotResumed, Received,
    Remembered, Verifier, Writer, WriterId, WriterKey, encode_changes, resume_head,
};
use bield_envelope::{Principal, Secret};

use super::{Log, apply, at_all, extend, words};
use crate::capsule::appender::{Appender, AppenderOptions, Older};
use crate::capsule::error::{LogError, ReplicaError};
use crate::capsule::frames::FRAME_HEAD_BYTES;
use crate::capsule::home::CapsuleHomeError;
use crate::capsule::pending::Writing;
use crate::capsule::replica::ReplicaClient;
use crate::capsule::sink::{FORKED, GAP, ReplicaSink, Sink, introduce, proven_fork};
use crate::capsule::window::RUN_BYTES_MAX;
use crate::gateway::is_loopback;
use crate::{Randomness, now};

impl Log {
    /// Changes the configuration: the owner's act. Returns the new config record's head once a quorum
    /// keeps it. A change that no quorum was known to keep is sent again first; when it is the same one,
    /// that is all.
    ///
    /// # Errors
    /// Not the owner's home, too few answers, changes that contradict the state, too few replicas.
    pub fn configure(&mut self, changes: &[Change]) -> Result<Head, LogError> {
        let key = self.home.owner_key()?;
        self.check_key(&key, &self.metadata.owner_id())?;
        let mut writing = self.home.configure()?;
        if let Some((head, body)) = self.confirm(&mut writing)?
            && body == encode_changes(changes)
        {
            return Ok(head);
        }
        let owner = self.metadata.owner_id();
        let chain = self
            .base
            .chain(&owner)
            .ok_or(LogError::NotAdmitted { writer: owner })?;
        let (tip, levels) = (chain.signed_head().clone(), chain.levels().clone());
        let config = self.config();
        let mut writer = Writer::resume_owner(key, &self.metadata, &tip, config, levels)?;
        let record = writer.configure(changes, now())?;
        let mut base = self.base.clone();
        apply(&mut base, record.clone())?;
        // In the home before it leaves it: another one in its place would fork the owner's chain.
        writing.keep(&record)?;
        self.publish(&mut writing, base, record)
    }

    /// Sends config records again that no quorum is known to keep, byte for byte; returns the newest one
    /// and its changes.
    fn confirm(&mut self, writing: &mut Writing) -> Result<Option<(Head, Vec<u8>)>, LogError> {
        let owner = self.metadata.owner_id();
        let mut newest = None;
        for record in writing.pending().to_vec() {
            let head = record.head();
            newest = Some((head, record.body().to_vec()));
            match self.base.config().hash_at(head.seq) {
                Some(found) if found != head.hash => {
                    return Err(LogError::Forked {
                        writer: owner,
                        seq: head.seq,
                        found,
                        seen: head.hash,
                    });
                }
                // Some replica has it: now a quorum must.
                Some(_) => self.spread()?,
                None => {
                    let mut base = self.base.clone();
                    apply(&mut base, record.clone())?;
                    self.publish(writing, base, record)?;
                }
            }
        }
        if let Some((head, _)) = newest {
            writing.settled(head)?;
        }
        Ok(newest)
    }

    /// Hands `record`, the newest of the owner's chain, to all replicas, until a quorum keeps it.
    fn publish(
        &mut self,
        writing: &mut Writing,
        base: Verifier,
        record: Received,
    ) -> Result<Head, LogError> {
        let head = record.head();
        let before = std::mem::take(&mut self.config);
        self.config = before.iter().cloned().chain([record]).collect();
        if let Err(error) = self.spread() {
            self.config = before;
            return Err(error);
        }
        self.base = base;
        writing.settled(head)?;
        self.seen = self.home.seen()?;
        Ok(head)
    }

    fn spread(&self) -> Result<(), LogError> {
        let (config, metadata) = (&self.config, &self.metadata);
        let newest = config.len() - 1;
        let stored = at_all(&self.replicas, |replica| {
            // As a rule only the newest record is missing.
            let short = replica.append(&metadata.name(), [config[newest].as_bytes()], Kept::Synced);
            match short {
                Ok(_) => Ok(()),
                Err(ReplicaError::Refused { .. }) => {
                    introduce(replica, metadata, config, Kept::Synced).map(drop)
                }
                Err(error) => Err(error),
            }
        });
        self.name_fork(&self.metadata.owner_id(), &stored)?;
        enough("the configuration", stored, self.quorum()).map_err(|error| match error {
            LogError::NotStored { got, need, why, .. } => LogError::Unconfirmed { got, need, why },
            error => error,
        })
    }

    /// Stops for good when a replica that refuses proves a fork.
    fn name_fork(
        &self,
        writer: &WriterId,
        stored: &[Result<(), ReplicaError>],
    ) -> Result<(), LogError> {
        let name = self.metadata.name();
        for error in stored.iter().filter_map(|stored| stored.as_ref().err()) {
            if error.code() != Some(FORKED) {
                continue;
            }
            let mut replicas = self.replicas.iter();
            let replica = replicas.find(|replica| replica.url() == error.replica());
            if let Some(why) = replica.and_then(|replica| proven_fork(replica, &name, writer)) {
                return Err(LogError::OwnFork(why));
            }
        }
        Ok(())
    }

    /// Makes a new generation and seals with it from now on; returns its number. The key is stored
    /// before anybody is told of it.
    ///
    /// # Errors
    /// As [`Log::configure`].
    pub fn rotate(&mut self) -> Result<u32, LogError> {
        self.check_key(&self.home.owner_key()?, &self.metadata.owner_id())?;
        // A rotation that no quorum was known to keep counts first.
        let mut writing = self.home.configure()?;
        self.confirm(&mut writing)?;
        drop(writing);
        let number = self.config().generation() + 1;
        // Left over from a rotation that nobody took note of: that key serves now.
        self.update_ring(|ring| match ring.generation(number) {
            Some(_) => Ok(()),
            None => ring.insert(GenerationKey::generate(number, &mut Randomness)),
        })?;
        let key = self.ring.generation(number);
        let commitment = key.map(|key| key.commitment(&self.metadata));
        let commitment = commitment.ok_or(LogError::NoKey { generation: number })?;
        self.configure(&[Change::Generation { number, commitment }])?;
        Ok(number)
    }

    /// Refuses a key that is another one's: files may have been swapped.
    fn check_key(&self, key: &WriterKey, id: &WriterId) -> Result<(), LogError> {
        if key.id() == *id {
            return Ok(());
        }
        let path = self.home.path().display();
        Err(LogError::Argument(format!(
            "{path}/owner.key is not the key of this capsule's owner: was it swapped with another file, \
             such as writer.key? put the right one back"
        )))
    }

    /// Starts appending with this home's key.
    ///
    /// # Errors
    /// Not a writer's home, not admitted, another process writes, too few answers, a chain that was
    /// rolled back, or no key of the newest generation.
    pub fn appender(&mut self, options: AppenderOptions) -> Result<Appender, LogError> {
        let key = self.home.writer_key()?;
        let writer = key.id();
        if writer == self.metadata.owner_id() {
            return Err(LogError::Argument(format!(
                "{}/writer.key is the owner's key, which writes no entries: was it swapped with owner.key? \
                 put the right one back",
                self.home.path().display()
            )));
        }
        let generation = self.config().generation();
        let sealing = key_of(&self.ring, generation).ok_or(LogError::NoKey { generation })?;
        // Another key than the one committed to would seal what nobody can open.
        sealing.check(&self.metadata, self.config())?;
        let mut writing = self.home.write()?;
        self.need_fresh()?;
        self.send_again(&writer, &mut writing)?;
        let config = self
            .config()
            .head()
            .ok_or(LogError::NotAdmitted { writer })?;
        let verifier = self.own_chain(&writer)?;
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
        let counted = || self.counted_replicas();
        let sinks: Vec<Box<dyn Sink>> = counted()
            .map(|replica| {
                let (metadata, config) = (self.metadata.clone(), Arc::clone(&self.config));
                let replica = Arc::clone(replica);
                Box::new(ReplicaSink::new(replica, metadata, config, Kept::Synced)) as _
            })
            .collect();
        let older = self.older(&writer.id());
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

    /// Hands replicas what the last process made and no quorum is known to keep, byte for byte, before
    /// anything else is sealed.
    fn send_again(&mut self, writer: &WriterId, writing: &mut Writing) -> Result<(), LogError> {
        let pending = writing.pending().to_vec();
        let (Some(first), Some(last)) = (pending.first(), pending.last()) else {
            return Ok(());
        };
        let (from, head) = (first.header().seq, last.head());
        if head.writer != *writer {
            // Of a key that was put away: nothing else will stand in those places.
            if self.home.has_retired(&head.writer) {
                return Ok(writing.drop_all()?);
            }
            let path = writing.path().to_owned();
            return Err(CapsuleHomeError::Pending { path }.into());
        }
        let older = self.older(writer);
        let (metadata, config, name) = (&self.metadata, &self.config, self.metadata.name());
        let replicas: Vec<_> = self.counted_replicas().cloned().collect();
        let stored = at_all(&replicas, |replica| {
            let send = |records: &[Received]| {
                for run in runs(records) {
                    let bytes = run.iter().map(Received::as_bytes);
                    if let Some(refused) = replica.append(&name, bytes, Kept::Synced)?.refused {
                        return Err(refused);
                    }
                }
                Ok(())
            };
            let sent = send(&pending).or_else(|error| {
                if !matches!(error, ReplicaError::Refused { .. }) || error.code() == Some(FORKED) {
                    return Err(error);
                }
                introduce(replica, metadata, config, Kept::Synced)?;
                send(&pending)
            });
            // What comes before them it may lack as well.
            let Err(ReplicaError::Refused { code, have, .. }) = &sent else {
                return sent;
            };
            if code != GAP {
                return sent;
            }
            let mut next = have.map_or(0, |have| have + 1);
            while next < from {
                let records = older.records(next, from);
                if records.is_empty() {
                    return sent;
                }
                next += records.len() as u64;
                send(&records)?;
            }
            send(&pending)
        });
        self.name_fork(writer, &stored)?;
        enough("the last append", stored, self.quorum()).map_err(|error| match error {
            LogError::NotStored { got, need, why, .. } => LogError::Unfinished { got, need, why },
            error => error,
        })?;
        writing.settled(head)?;
        self.refresh()
    }

    fn older(&self, writer: &WriterId) -> Replicas {
        Replicas {
            replicas: self.counted_replicas().cloned().collect(),
            name: self.metadata.name(),
            writer: *writer,
        }
    }

    /// This home's own chain up to the newest record that enough replicas name (`spec/06 §9`).
    fn own_chain(&self, writer: &WriterId) -> Result<Verifier, LogError> {
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
        // Every record was in this home before it left it, and what a quorum keeps was remembered.
        let remembered = Remembered::Newest(seen);
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
            Ok(Some(newest)) if seen.is_none_or(|seen| seen.seq < newest.seq) => {
                Err(LogError::KeyElsewhere {
                    writer: *writer,
                    found: newest.seq,
                    seen: seen.map(|seen| seen.seq),
                })
            }
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

/// Runs that fit in a request each.
fn runs(mut records: &[Received]) -> Vec<&[Received]> {
    let mut runs = Vec::new();
    while !records.is_empty() {
        let mut bytes = 0;
        let fits = records.iter().take_while(|record| {
            bytes += record.as_bytes().len() + FRAME_HEAD_BYTES;
            bytes <= RUN_BYTES_MAX
        });
        let (run, rest) = records.split_at(fits.count().max(1));
        runs.push(run);
        records = rest;
    }
    runs
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
