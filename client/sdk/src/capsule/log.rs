//! A capsule as its owner, a writer or a reader sees it: made, opened, configured, written, read.
//!
//! ```text
//! create:  keys ─▶ home ─▶ metadata, config 0, open 0 ─▶ q replicas ─▶ Log
//! open:    home ─▶ nonce to all ─▶ n − q + 1 answers ─▶ config chain, verified ─▶ Log
//!                                     └ less than `seen`? refused: rolled back
//! ```
//!
//! In: a home directory, replicas. Out: a [`Log`], whose configuration is verified from the capsule's
//! name up. Always true: nothing is said to be made before a quorum keeps it, synced; nothing is
//! written after too few replicas answered, after a rollback, or while another process writes with
//! the same key; the home remembers the newest it has seen before anything newer is written.
//!
//! Cost: opening is one round trip to all replicas and one for the config chain; writing reads this
//! writer's chain once (hashes only, 5 GB/s, one signature a page).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bield_capsule::{
    Applied, Change, Config, Entries, Fetched, GenerationKey, Head, HeadsStatement, Kept, KeyRing,
    Metadata, NotResumed, OpenError, Question, Received, Refused, Suite, Verifier, VerifierPolicy,
    Writer, WriterId, WriterKey, resume_head,
};
use bield_envelope::{Principal, Secret, Signed, Verified};
use rand_core::Rng as _;

use super::appender::{Appender, AppenderOptions, Older};
use super::error::{LogError, ReplicaError};
use super::home::{CapsuleHome, KnownReplica, Seen};
use super::replica::ReplicaClient;
use super::sink::{ReplicaSink, Sink, introduce};
use crate::gateway::is_loopback;
use crate::{Home, Randomness, now};

/// What a new capsule is to be.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// What people call it; public.
    pub label: Option<String>,
    /// Its cipher suite, for ever.
    pub suite: Suite,
    /// Where its replicas are.
    pub replicas: Vec<String>,
    /// How many replicas make a record durable; a majority when `None`.
    pub quorum: Option<u8>,
    /// Principals whose certificates admit writers.
    pub certifiers: Vec<Principal>,
    /// Verifier keys of witnesses, in C2SP form.
    pub witnesses: Vec<String>,
    /// How many witnesses must cosign.
    pub witness_quorum: u8,
}

/// A capsule, opened.
pub struct Log {
    home: CapsuleHome,
    metadata: Metadata,
    /// Knows the config chain and nothing else.
    base: Verifier,
    config: Arc<[Received]>,
    replicas: Vec<Arc<ReplicaClient>>,
    question: Question,
    answers: Vec<Answer>,
    silent: Vec<ReplicaError>,
    ring: KeyRing,
    seen: Seen,
}

/// What a replica answered to this opening's nonce.
pub struct Answer {
    /// Which of [`Log::replicas`].
    pub replica: usize,
    /// Its statements, in pages.
    pub pages: Vec<Verified<HeadsStatement>>,
}

impl Answer {
    /// The head it names for `writer`.
    #[must_use]
    pub fn head(&self, writer: &WriterId) -> Option<Head> {
        self.pages.iter().find_map(|page| page.head_of(writer))
    }

    /// Every head it names.
    pub fn heads(&self) -> impl Iterator<Item = Head> + '_ {
        self.pages
            .iter()
            .flat_map(|page| page.heads.iter().copied())
    }

    fn config(&self) -> Option<u64> {
        Some(self.pages.first()?.config?.seq)
    }
}

impl Log {
    /// Makes a capsule: its keys in the home, its first records at a quorum of replicas.
    ///
    /// # Errors
    /// A replica does not introduce itself, or too few store it; then nothing is left behind in the
    /// home.
    pub fn create(home: &Home, options: &CreateOptions) -> Result<Self, LogError> {
        let count = options.replicas.len();
        let quorum = options.quorum.map_or(count / 2 + 1, usize::from);
        if count == 0 || quorum == 0 || quorum > count {
            return Err(LogError::Argument(format!(
                "a quorum of {quorum} among {count} replicas is none: name more replicas, or a smaller \
                 quorum"
            )));
        }
        let replicas = introduce_all(&options.replicas)?;
        let owner = WriterKey::generate(options.suite, &mut Randomness);
        let writer = WriterKey::generate(options.suite, &mut Randomness);
        let label = options.label.as_deref();
        let metadata = Metadata::new(owner.public(), label, now(), &mut Randomness)?;
        let generation = GenerationKey::generate(1, &mut Randomness);
        let changes = first_changes(options, &metadata, &writer, &generation, &replicas, quorum);
        let mut ring = KeyRing::new();
        ring.insert(generation)?;
        let known: Vec<_> = replicas.iter().map(|replica| known(replica)).collect();
        let place = CapsuleHome::create(home, &metadata, &owner, &writer, &ring, &known)?;
        let made = Self::first_records(&place, metadata, &changes, owner, writer, replicas, quorum);
        if made.is_err() {
            // Nobody was told of it, and its keys open nothing: what a replica keeps of it is empty.
            let _ = std::fs::remove_dir_all(place.path());
        }
        made
    }

    fn first_records(
        home: &CapsuleHome,
        metadata: Metadata,
        changes: &[Change],
        owner: WriterKey,
        writer: WriterKey,
        replicas: Vec<Arc<ReplicaClient>>,
        quorum: usize,
    ) -> Result<Self, LogError> {
        let (_, config) = Writer::owner(owner, &metadata, changes, now())?;
        let (_, open) = Writer::open(writer, &metadata, config.head(), None, now())?;
        let mut base = Verifier::new(metadata.clone(), VerifierPolicy::default());
        // What receivers would refuse is better noticed before anybody has it.
        apply(&mut base, config.clone())?;
        let opened = base
            .verify(open.clone())
            .map_err(|error| refused(&open, error))?;
        drop(opened);
        let config: Arc<[Received]> = [config].into();
        let stored = at_all(&replicas, |replica| {
            introduce(replica, &metadata, &config, Kept::Synced)?;
            replica.append(&metadata.name(), [open.as_bytes()], Kept::Synced)?;
            Ok(())
        });
        enough("the new capsule", stored, quorum)?;
        let mut seen = Seen::default();
        seen.advance(config[0].head());
        seen.advance(open.head());
        home.keep_seen(&seen)?;
        Self::open(home.clone())
    }

    /// Fetches a capsule that somebody else owns, by its full name, and remembers where it is.
    ///
    /// # Errors
    /// No replica has it, or none has a configuration that verifies.
    pub fn adopt(
        home: &Home,
        name: &bield_capsule::CapsuleName,
        urls: &[String],
    ) -> Result<Self, LogError> {
        let replicas = introduce_all(urls)?;
        let mut metadata = None;
        for replica in &replicas {
            match replica.metadata(name) {
                Ok(found) => metadata = Some(found),
                Err(error) if metadata.is_none() && replicas.len() == 1 => return Err(error.into()),
                Err(_) => {}
            }
        }
        let metadata = metadata.ok_or_else(|| LogError::NoConfiguration {
            name: *name,
            why: "none of these replicas has it".to_owned(),
        })?;
        let known: Vec<_> = replicas.iter().map(|replica| known(replica)).collect();
        Self::open(CapsuleHome::adopt(home, &metadata, &known)?)
    }

    /// Opens a capsule of this home: asks all replicas, verifies the configuration, and compares with
    /// what was seen before.
    ///
    /// # Errors
    /// No configuration that verifies, or an older one than was seen before. Too few answers are no
    /// error yet: reading says so, writing refuses.
    pub fn open(home: CapsuleHome) -> Result<Self, LogError> {
        Self::open_with(home, VerifierPolicy::default())
    }

    /// The same with another policy, such as one that accepts writers in software TEEs.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_with(home: CapsuleHome, policy: VerifierPolicy) -> Result<Self, LogError> {
        let metadata = home.metadata()?;
        let known = home.replicas()?;
        let clients = known
            .iter()
            .map(|known| Arc::new(ReplicaClient::new(&known.url, known.principal)));
        let mut log = Self {
            base: Verifier::new(metadata.clone(), policy),
            config: Arc::new([]),
            replicas: clients.collect(),
            question: ask(),
            answers: Vec::new(),
            silent: Vec::new(),
            ring: home.ring()?,
            seen: home.seen()?,
            metadata,
            home,
        };
        log.refresh()?;
        Ok(log)
    }

    /// Asks all replicas again.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn refresh(&mut self) -> Result<(), LogError> {
        self.question = ask();
        let nonce = self.question.nonce;
        self.answers.clear();
        self.silent.clear();
        // Twice when the configuration names replicas that were not known.
        let mut asked = 0;
        while asked < self.replicas.len() {
            let name = self.metadata.name();
            let answers = at_all(&self.replicas[asked..], |replica| {
                replica.all_heads(&name, nonce)
            });
            for (replica, answer) in (asked..).zip(answers) {
                match answer {
                    Ok(pages) => self.answers.push(Answer { replica, pages }),
                    Err(error) => self.silent.push(error),
                }
            }
            asked = self.replicas.len();
            self.fetch_config()?;
            self.meet_replicas();
        }
        self.compare_config()?;
        // Only those in the configuration count.
        let config = self.base.config();
        let replicas = &self.replicas;
        self.answers
            .retain(|answer| config.is_replica(&replicas[answer.replica].principal()));
        self.remember_replicas()?;
        let head = self.base.config().head();
        if head.is_some_and(|head| self.seen.advance(head)) {
            self.home.keep_seen(&self.seen)?;
        }
        Ok(())
    }

    /// Where its files are.
    #[must_use]
    pub const fn home(&self) -> &CapsuleHome {
        &self.home
    }

    /// Its metadata.
    #[must_use]
    pub const fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its configuration, as of the newest config record found.
    #[must_use]
    pub const fn config(&self) -> &Config {
        self.base.config()
    }

    /// The config chain.
    #[must_use]
    pub fn config_records(&self) -> &[Received] {
        &self.config
    }

    /// The keys of this home.
    #[must_use]
    pub const fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The keys of this home, to be changed and then stored with [`Log::keep_ring`].
    pub const fn ring_mut(&mut self) -> &mut KeyRing {
        &mut self.ring
    }

    /// Stores the keys.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_ring(&self) -> Result<(), LogError> {
        Ok(self.home.keep_ring(&self.ring)?)
    }

    /// Every replica that was asked.
    #[must_use]
    pub fn replicas(&self) -> &[Arc<ReplicaClient>] {
        &self.replicas
    }

    /// What those of the configuration answered.
    #[must_use]
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Why others did not answer.
    #[must_use]
    pub fn silent(&self) -> &[ReplicaError] {
        &self.silent
    }

    /// Whether enough replicas answered that no record which a quorum acknowledged can be hidden
    /// (`spec/06 §9`).
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.config()
            .answers()
            .is_some_and(|need| self.answers.len() >= need)
    }

    /// Refuses unless [`Log::is_fresh`].
    ///
    /// # Errors
    /// [`LogError::TooFewAnswers`].
    pub fn need_fresh(&self) -> Result<(), LogError> {
        if self.is_fresh() {
            return Ok(());
        }
        Err(LogError::TooFewAnswers {
            got: self.answers.len(),
            need: self.config().answers().unwrap_or(usize::MAX),
            why: words(&self.silent),
        })
    }

    /// The newest head of every writer that any replica named, ascending by writer.
    #[must_use]
    pub fn newest_heads(&self) -> Vec<Head> {
        let mut newest = std::collections::BTreeMap::<WriterId, Head>::new();
        for head in self.answers.iter().flat_map(Answer::heads) {
            let entry = newest.entry(head.writer).or_insert(head);
            if head.seq > entry.seq {
                *entry = head;
            }
        }
        newest.into_values().collect()
    }

    /// How many replicas must keep a record: the configuration's word.
    #[must_use]
    pub fn quorum(&self) -> usize {
        usize::from(self.config().quorum().replicas)
    }

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
        let mut writer = Writer::resume(key, &self.metadata, &tip, tip.head(), levels)?;
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
        let mut writing = self.home.write()?;
        self.need_all_after_a_crash(writing.ended_in_order())?;
        self.need_fresh()?;
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

    /// Knows the config chain and no other.
    pub(super) fn verifier(&self) -> Verifier {
        self.base.clone()
    }

    /// Those of the configuration.
    pub(super) fn counted_replicas(&self) -> impl Iterator<Item = &Arc<ReplicaClient>> {
        let config = self.base.config();
        self.replicas
            .iter()
            .filter(|replica| config.is_replica(&replica.principal()))
    }

    /// Opens a verified record with the keys of this home.
    ///
    /// # Errors
    /// No key for its generation, or the body does not open.
    pub fn read_entries(&self, record: &Applied) -> Result<Entries, LogError> {
        let head = record.record().head();
        let (writer, seq) = (head.writer, head.seq);
        let generation = record.record().header().generation;
        record.open(&self.ring).map_err(|error| match error {
            OpenError::NoKey { .. } if self.config().erased(generation) => LogError::Erased {
                writer,
                seq,
                generation,
            },
            error => LogError::Open { writer, seq, error },
        })
    }

    /// Replicas that named `head` or a later one of its chain; those that have the most first.
    pub(super) fn holders(&self, head: &Head) -> Vec<&Answer> {
        let mut holders: Vec<_> = self
            .answers
            .iter()
            .filter(|answer| {
                answer
                    .head(&head.writer)
                    .is_some_and(|have| have.seq >= head.seq)
            })
            .collect();
        holders.sort_by_key(|answer| {
            std::cmp::Reverse(answer.head(&head.writer).map(|head| head.seq))
        });
        holders
    }

    /// Brings the config chain up to the newest that verifies.
    fn fetch_config(&mut self) -> Result<(), LogError> {
        let owner = self.metadata.owner_id();
        let mut answers: Vec<_> = self.answers.iter().collect();
        answers.sort_by_key(|answer| std::cmp::Reverse(answer.config()));
        let mut base = self.base.clone();
        let mut records = self.config.to_vec();
        let mut why: Vec<_> = self.silent.iter().map(ToString::to_string).collect();
        for answer in answers {
            let have = base.config().head().map(|head| head.seq);
            if answer.config() <= have {
                continue;
            }
            let replica = &self.replicas[answer.replica];
            let extended = extend_with(&mut base, replica, &owner, None, |record| {
                records.push(record.into_record());
            });
            if let Err(error) = extended {
                why.push(error.to_string());
            }
        }
        if base.config().head().is_none() {
            return Err(LogError::NoConfiguration {
                name: self.metadata.name(),
                why: why.join("; "),
            });
        }
        self.base = base;
        self.config = records.into();
        Ok(())
    }

    /// Adds clients for replicas of the configuration that were not known.
    fn meet_replicas(&mut self) {
        let config = self.base.config();
        for (principal, address) in config.replicas() {
            let mut known = self.replicas.iter();
            if !known.any(|replica| replica.principal() == *principal) {
                let client = ReplicaClient::new(address, *principal);
                self.replicas.push(Arc::new(client));
            }
        }
    }

    fn remember_replicas(&self) -> Result<(), LogError> {
        let known: Vec<_> = self
            .counted_replicas()
            .map(|replica| known(replica))
            .collect();
        if !known.is_empty() && self.home.replicas()? != known {
            self.home.keep_replicas(&known)?;
        }
        Ok(())
    }

    fn compare_config(&self) -> Result<(), LogError> {
        let writer = self.metadata.owner_id();
        let Some(seen) = self.seen.head(&writer) else {
            return Ok(());
        };
        let config = self.base.config();
        match config.hash_at(seen.seq) {
            Some(found) if found == seen.hash => Ok(()),
            Some(found) => Err(LogError::Forked {
                writer,
                seq: seen.seq,
                found,
                seen: seen.hash,
            }),
            None => Err(LogError::RolledBack {
                what: "the configuration",
                writer,
                found: config.head().map(|head| head.seq),
                seen: seen.seq,
            }),
        }
    }

    /// This home's own chain up to the newest record that enough replicas name (`spec/06 §9`).
    fn own_chain(&self, writer: &WriterId) -> Result<Verifier, LogError> {
        let mut found = self.base.clone();
        let fetch = |head: &Head| {
            let mut fetched = Fetched::Unreachable;
            for answer in self.holders(head) {
                let mut verifier = self.base.clone();
                let replica = &self.replicas[answer.replica];
                match extend(&mut verifier, replica, writer, Some(head.seq)) {
                    Ok(())
                        if verifier
                            .chain(writer)
                            .is_some_and(|chain| chain.tip() == *head) =>
                    {
                        found = verifier;
                        return Fetched::Right;
                    }
                    // One that names records and does not give them out may still be right.
                    Ok(()) | Err(ReplicaError::Unreachable { .. }) => {}
                    Err(_) => fetched = Fetched::Wrong,
                }
            }
            fetched
        };
        let seen = self.seen.head(writer);
        let statements = self.statements();
        let config = self.base.config();
        match resume_head(writer, seen, config, &statements, &self.question, fetch) {
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

    /// Every statement, as it was signed.
    pub(super) fn statements(&self) -> Vec<Signed<HeadsStatement>> {
        let pages = self.answers.iter().flat_map(|answer| &answer.pages);
        pages.map(|page| page.as_signed().clone()).collect()
    }

    /// What the replicas were asked.
    pub(super) const fn question(&self) -> &Question {
        &self.question
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
    name: bield_capsule::CapsuleName,
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
pub(super) fn key_of(ring: &KeyRing, generation: u32) -> Option<GenerationKey> {
    let key = ring.generation(generation)?;
    let copy = Secret::from_bytes(*key.secret().expose());
    Some(GenerationKey::from_secret(generation, copy))
}

/// Extends what `verifier` knows of `writer` with what `replica` has, up to `to`.
pub(super) fn extend(
    verifier: &mut Verifier,
    replica: &ReplicaClient,
    writer: &WriterId,
    to: Option<u64>,
) -> Result<(), ReplicaError> {
    extend_with(verifier, replica, writer, to, |_| {})
}

pub(super) fn extend_with(
    verifier: &mut Verifier,
    replica: &ReplicaClient,
    writer: &WriterId,
    to: Option<u64>,
    mut each: impl FnMut(Applied),
) -> Result<(), ReplicaError> {
    let name = verifier.metadata().name();
    loop {
        let from = verifier
            .chain(writer)
            .map_or(0, |chain| chain.tip().seq + 1);
        if to.is_some_and(|to| from > to) {
            return Ok(());
        }
        let page = replica.records(&name, writer, from, to)?;
        let more = page.more;
        let lie = |index: usize, error: Refused| {
            replica.lied(super::error::Lie::Refused {
                writer: *writer,
                seq: from + index as u64,
                error: Box::new(error),
            })
        };
        let verified = verifier
            .verify_run(page.records)
            .map_err(|(index, error)| lie(index, error))?;
        for (index, record) in verified.into_iter().enumerate() {
            let applied = verifier.apply(record).map_err(|error| lie(index, error))?;
            each(applied);
        }
        if !more {
            return Ok(());
        }
    }
}

fn apply(verifier: &mut Verifier, record: Received) -> Result<(), LogError> {
    let copy = record.clone();
    verifier
        .verify(record)
        .and_then(|verified| verifier.apply(verified))
        .map(drop)
        .map_err(|error| refused(&copy, error))
}

fn refused(record: &Received, error: Refused) -> LogError {
    let head = record.head();
    LogError::Refused {
        writer: head.writer,
        seq: head.seq,
        error: Box::new(error),
    }
}

fn first_changes(
    options: &CreateOptions,
    metadata: &Metadata,
    writer: &WriterKey,
    generation: &GenerationKey,
    replicas: &[Arc<ReplicaClient>],
    quorum: usize,
) -> Vec<Change> {
    let mut changes = vec![
        Change::admit(writer.public()),
        Change::Generation {
            number: 1,
            commitment: generation.commitment(metadata),
        },
    ];
    changes.extend(options.certifiers.iter().copied().map(Change::Certify));
    changes.extend(replicas.iter().map(|replica| Change::Replica {
        principal: replica.principal(),
        address: replica.url().to_owned(),
    }));
    changes.extend(options.witnesses.iter().cloned().map(Change::Witness));
    changes.push(Change::Quorum {
        replicas: u8::try_from(quorum).unwrap_or(u8::MAX),
        witnesses: options.witness_quorum,
    });
    changes
}

/// Asks everybody at `urls` who they are; two names of one replica are refused.
pub(super) fn introduce_all(urls: &[String]) -> Result<Vec<Arc<ReplicaClient>>, LogError> {
    let mut replicas: Vec<Arc<ReplicaClient>> = Vec::with_capacity(urls.len());
    for url in urls {
        let replica = ReplicaClient::introduce(url)?;
        let principal = replica.principal();
        if let Some(same) = replicas.iter().find(|other| other.principal() == principal) {
            return Err(LogError::Argument(format!(
                "{url} and {} are one replica, {principal}: name each one once",
                same.url()
            )));
        }
        replicas.push(Arc::new(replica));
    }
    Ok(replicas)
}

fn known(replica: &ReplicaClient) -> KnownReplica {
    KnownReplica {
        url: replica.url().to_owned(),
        principal: replica.principal(),
    }
}

/// Does the same with every replica at once.
pub(super) fn at_all<T: Send>(
    replicas: &[Arc<ReplicaClient>],
    act: impl Fn(&ReplicaClient) -> Result<T, ReplicaError> + Sync,
) -> Vec<Result<T, ReplicaError>> {
    thread::scope(|scope| {
        let act = &act;
        let threads = replicas
            .iter()
            .map(|replica| scope.spawn(move || act(replica)));
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("asking a replica does not panic"))
            .collect()
    })
}

fn enough(
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

fn words(errors: &[ReplicaError]) -> String {
    let words: Vec<_> = errors.iter().map(ToString::to_string).collect();
    if words.is_empty() {
        "no reason is known".to_owned()
    } else {
        words.join("; ")
    }
}

fn ask() -> Question {
    let mut nonce = [0; 16];
    Randomness.fill_bytes(&mut nonce);
    Question {
        nonce,
        now: now(),
        age_max: ANSWER_AGE_MAX,
    }
}

/// How far behind this machine's clock a replica's may be.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(300);
