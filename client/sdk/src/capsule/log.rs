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

mod address;
mod create;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bield_capsule::{
    Applied, Config, Entries, Head, HeadsStatement, KeyRing, KeyRingError, Metadata, OpenError,
    Question, Received, Refused, Through, Verifier, VerifierPolicy, WriterId,
};
use bield_envelope::{Signed, Verified};
use rand_core::Rng as _;

pub use create::CreateOptions;
pub(super) use create::introduce_all;
pub(super) use write::key_of;

use super::error::{Lie, LogError, ReplicaError};
use super::home::{CapsuleHome, KnownReplica, Seen};
use super::replica::ReplicaClient;
use crate::{Randomness, now};

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
    /// Whether addresses of the configuration may be of this machine or its network.
    allow_private: bool,
}

/// A chain of which a quorum shows less than was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// What was seen: verified, and named by a quorum then, or written here.
    pub seen: Head,
    /// The newest that is named now; when it is not older, another record stands at that position.
    pub found: Option<u64>,
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
        Self::open_at(home, policy, false)
    }

    fn open_at(
        home: CapsuleHome,
        policy: VerifierPolicy,
        allow_private: bool,
    ) -> Result<Self, LogError> {
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
            allow_private,
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
            let end = self.replicas.len();
            self.ask(asked, nonce)?;
            asked = end;
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
        self.seen = self.home.see(head)?;
        Ok(())
    }

    /// Asks those from `from` on at once, and stops waiting soon after enough have answered that nothing
    /// more is learnt: one that hangs holds nobody up.
    fn ask(&mut self, from: usize, nonce: [u8; 16]) -> Result<(), LogError> {
        let name = self.metadata.name();
        let (sender, answers) = mpsc::channel();
        let mut waiting = BTreeSet::new();
        for (at, replica) in self.replicas.iter().enumerate().skip(from) {
            let (replica, sender) = (Arc::clone(replica), sender.clone());
            waiting.insert(at);
            // Nobody listens any more when it comes too late.
            thread::spawn(move || sender.send((at, replica.all_heads(&name, nonce))));
        }
        drop(sender);
        let mut until = None;
        while !waiting.is_empty() {
            let left = until.map_or(REFRESH_WAIT, |until: Instant| {
                until.saturating_duration_since(Instant::now())
            });
            let Ok((replica, answer)) = answers.recv_timeout(left) else {
                break;
            };
            waiting.remove(&replica);
            match answer {
                Ok(pages) => self.answers.push(Answer { replica, pages }),
                Err(error) => self.silent.push(error),
            }
            // How many are enough only a verified configuration says.
            if until.is_none() && !waiting.is_empty() && self.fetch_config().is_ok() {
                let config = self.base.config();
                let replicas = &self.replicas;
                let counted = self
                    .answers
                    .iter()
                    .filter(|answer| config.is_replica(&replicas[answer.replica].principal()));
                if config.answers().is_some_and(|need| counted.count() >= need) {
                    until = Some(Instant::now() + REFRESH_GRACE);
                }
            }
        }
        for at in waiting {
            self.silent.push(ReplicaError::Late {
                replica: self.replicas[at].url().to_owned(),
            });
        }
        self.answers.sort_by_key(|answer| answer.replica);
        Ok(())
    }

    /// What a quorum shows less of than was seen from here.
    #[must_use]
    pub fn losses(&self) -> Vec<Loss> {
        let owner = self.metadata.owner_id();
        if !self.is_fresh() {
            return Vec::new();
        }
        let seen = self.seen.heads().filter(|head| head.writer != owner);
        seen.filter_map(|seen| {
            let need = match self.config().through(&seen.writer) {
                Through::Everything => seen.seq,
                Through::Last(last) => seen.seq.min(last),
                Through::Nothing => return None,
            };
            let named = self.answers.iter();
            let named: Vec<_> = named
                .filter_map(|answer| answer.head(&seen.writer))
                .collect();
            let whole = named.iter().any(|head| {
                let same = need < seen.seq || head.hash == seen.hash;
                head.seq > need || (head.seq == need && same)
            });
            let found = named.iter().map(|head| head.seq).max();
            (!whole).then_some(Loss { seen, found })
        })
        .collect()
    }

    /// Refuses when a quorum shows less than was seen from here.
    ///
    /// # Errors
    /// [`LogError::RolledBack`], or [`LogError::Forked`] when another record stands there.
    pub fn need_whole(&self) -> Result<(), LogError> {
        let Some(loss) = self.losses().into_iter().next() else {
            return Ok(());
        };
        Err(LogError::RolledBack {
            what: "writer",
            writer: loss.seen.writer,
            found: loss.found,
            seen: loss.seen.seq,
        })
    }

    /// The position up to which a quorum named the chain of `writer`.
    pub(super) fn settled(&self, writer: &WriterId) -> Option<u64> {
        let named = self.answers.iter();
        let mut named: Vec<_> = named
            .filter_map(|answer| Some(answer.head(writer)?.seq))
            .collect();
        named.sort_unstable_by(|a, b| b.cmp(a));
        named.get(self.quorum().checked_sub(1)?).copied()
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

    /// Changes the keys of this home: those that are stored now, whoever stored them.
    ///
    /// # Errors
    /// As [`CapsuleHome::update_ring`].
    pub fn update_ring<T>(
        &mut self,
        change: impl FnOnce(&mut KeyRing) -> Result<T, KeyRingError>,
    ) -> Result<T, LogError> {
        let (made, ring) = self.home.update_ring(change)?;
        self.ring = ring;
        Ok(made)
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
        let mut newest = BTreeMap::<WriterId, Head>::new();
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

    /// Adds clients for replicas of the configuration that were not known. Their addresses are the
    /// owner's word: they must not make this machine ask for something else.
    fn meet_replicas(&mut self) {
        let config = self.base.config();
        for (principal, address) in config.replicas() {
            let mut known = self.replicas.iter();
            if known.any(|replica| replica.principal() == *principal) {
                continue;
            }
            match address::check(address, self.allow_private) {
                Ok(()) => {
                    let client = ReplicaClient::new(address, *principal);
                    self.replicas.push(Arc::new(client));
                }
                Err(why) => {
                    let replica = address.escape_debug().to_string();
                    // Looked at again after others were met.
                    if !self.silent.iter().any(|silent| silent.replica() == replica) {
                        self.silent.push(ReplicaError::NotAsked { replica, why });
                    }
                }
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

    /// Every statement, as it was signed.
    pub(super) fn statements(&self) -> Vec<Signed<HeadsStatement>> {
        let pages = self.answers.iter().flat_map(|answer| &answer.pages);
        pages.map(|page| page.as_signed().clone()).collect()
    }

    /// What the replicas were asked.
    pub(super) const fn question(&self) -> &Question {
        &self.question
    }
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
            replica.lied(Lie::Refused {
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

/// How long others may still answer after enough did.
const REFRESH_GRACE: Duration = Duration::from_millis(500);
/// Longest wait for the first ones: each request ends by itself before.
const REFRESH_WAIT: Duration = Duration::from_secs(60);
/// How far behind this machine's clock a replica's may be.
const ANSWER_AGE_MAX: Duration = Duration::from_secs(300);
