//! A thread that owns some capsules: takes all that waits, stores it, syncs once, then answers.
//!
//! ```text
//! inbox ──▶ round ──▶ ingest, ingest, … ──▶ one sync a touched journal ──▶ sign, answer ──▶ questions
//!   ▲                                                                          │
//!   └───────────── the next round gathers meanwhile (group commit) ◀───────────┘
//! ```
//!
//! Always true: a replica has one owner and no lock; an append is answered after the sync that
//! covers it, when it asked for one; a question sees whole rounds. The slower the disk, the larger
//! the groups: nothing is tuned.
//!
//! Cost of a round: one sync a touched journal, one signature a touched writer, whatever the number
//! of requests.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use bield_capsule::{CapsuleName, Kept, Metadata, Received, WriterId};
use tokio::sync::oneshot;

use crate::replica::{Replica, Source, Taken};
use crate::store::Shared;
use crate::{Refusal, system};

mod inbox;

pub(crate) use inbox::{Inbox, Round};

/// What reading a page weighs: eight fill a round, so that appends wait for some milliseconds of them.
pub(crate) const READ_WEIGHT: usize = 4 << 20;

/// What was written without a sync is synced after this long at the latest.
const LAZY_SYNC: Duration = Duration::from_millis(200);

/// What was synced is covered by a stored checkpoint after this long, or a few times that.
const REMEMBER: Duration = Duration::from_secs(5);

/// Checkpoints stored at once: three file syncs each, some ten milliseconds together.
const REMEMBER_AT_ONCE: usize = 8;

/// How long an idle shard sleeps between looks at nothing.
const IDLE: Duration = Duration::from_secs(3600);

/// Carries the answer back.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Refusal>>;

/// A question to a replica; it answers its asker itself.
pub(crate) type Question = Box<dyn FnOnce(Result<&mut Replica, Refusal>) + Send>;

/// Something for a shard to do.
pub(crate) enum Job {
    /// Begin a capsule; says whether it is new.
    Create(Metadata, Answer<bool>),
    /// Take records in.
    Append(Append),
    /// Look at a replica; and what that weighs.
    Ask(Question, usize),
}

/// Records to take in.
pub(crate) struct Append {
    pub(crate) records: Vec<Received>,
    /// Why what follows the records in the request is not one.
    pub(crate) then: Option<Refusal>,
    pub(crate) kept: Kept,
    pub(crate) source: Source,
    pub(crate) answer: Answer<Appended>,
}

/// What became of the records of one request.
#[derive(Debug, Default)]
pub struct Appended {
    /// How many, from the first on, are held now.
    pub accepted: usize,
    /// How many of them were not held before.
    pub new: usize,
    /// One signed acknowledgement a writer, of the newest record that is held.
    pub acknowledgements: Vec<Arc<[u8]>>,
    /// Why the next record is not held.
    pub refused: Option<Refusal>,
}

impl Job {
    /// What it takes of memory and time, in bytes: checking a signature takes as long as hashing
    /// some 200 KB, but memory is what runs out first.
    fn weight(&self) -> usize {
        const RECORD: usize = 16 << 10;
        match self {
            Job::Append(append) => {
                let bytes = append.records.iter().map(|r| r.as_bytes().len() + RECORD);
                bytes.sum()
            }
            Job::Create(..) => 0,
            Job::Ask(_, weight) => *weight,
        }
    }
}

/// The state of one thread.
pub(crate) struct Shard {
    shared: Arc<Shared>,
    replicas: HashMap<CapsuleName, Replica>,
    /// Capsules that are stored here and do not open.
    broken: BTreeSet<CapsuleName>,
    /// Written, not synced.
    dirty: BTreeSet<CapsuleName>,
    /// Synced, not covered by a stored checkpoint.
    forgettable: BTreeSet<CapsuleName>,
}

impl Shard {
    /// Opens the capsules of this shard.
    pub(crate) fn open(shared: Arc<Shared>, capsules: Vec<CapsuleName>) -> Self {
        let mut shard = Self {
            shared,
            replicas: HashMap::new(),
            broken: BTreeSet::new(),
            dirty: BTreeSet::new(),
            forgettable: BTreeSet::new(),
        };
        for name in capsules {
            let shared = &shard.shared;
            let (storage, key) = (Arc::clone(&shared.storage), Arc::clone(&shared.key));
            match Replica::open(storage, key, name, shared.policy) {
                Ok(replica) => {
                    shared.admission.found(replica.standing().bytes);
                    shard.serve(replica);
                }
                Err(error) => {
                    // One bad capsule must not take the others along.
                    tracing::error!(%error, "a capsule is not served");
                    shared.metrics.stopped.fetch_add(1, Relaxed);
                    shard.broken.insert(name);
                }
            }
        }
        shard
    }

    fn serve(&mut self, replica: Replica) {
        self.shared.metrics.capsules.fetch_add(1, Relaxed);
        self.shared.list(&replica);
        // Whatever was synced before this start, the witnesses may not have seen.
        self.shared.synced(replica.name());
        self.replicas.insert(replica.name(), replica);
    }

    /// Works until the inbox is closed and empty.
    pub(crate) fn run(mut self, inbox: &Inbox) {
        let mut written_at = Instant::now();
        let mut remembered_at = Instant::now();
        loop {
            let mut wait = IDLE;
            if !self.dirty.is_empty() {
                wait = LAZY_SYNC.saturating_sub(written_at.elapsed());
            }
            if !self.forgettable.is_empty() {
                wait = wait.min(REMEMBER.saturating_sub(remembered_at.elapsed()));
            }
            match inbox.take(wait) {
                Round::Jobs(jobs) => {
                    if self.dirty.is_empty() {
                        written_at = Instant::now();
                    }
                    if self.forgettable.is_empty() {
                        remembered_at = Instant::now();
                    }
                    self.round(jobs);
                }
                Round::Idle => {}
                Round::Closed => break,
            }
            if !self.dirty.is_empty() && written_at.elapsed() >= LAZY_SYNC {
                let dirty = std::mem::take(&mut self.dirty);
                self.sync(&dirty);
            }
            if !self.forgettable.is_empty() && remembered_at.elapsed() >= REMEMBER {
                self.remember(REMEMBER_AT_ONCE);
                remembered_at = Instant::now();
            }
        }
        let dirty = std::mem::take(&mut self.dirty);
        self.sync(&dirty);
        self.remember(usize::MAX);
    }

    /// Stores checkpoints of what was synced.
    fn remember(&mut self, max: usize) {
        for _ in 0..max.min(self.forgettable.len()) {
            let Some(capsule) = self.forgettable.pop_first() else {
                return;
            };
            if let Some(replica) = self.replicas.get_mut(&capsule)
                && let Err(error) = replica.remember()
            {
                tracing::warn!(%capsule, %error, "a checkpoint cannot be stored now");
            }
        }
    }

    fn round(&mut self, jobs: Vec<(CapsuleName, Job)>) {
        let now = system::now();
        let mut taken = Vec::new();
        let mut questions = Vec::new();
        let mut wants_sync = BTreeSet::new();
        for (capsule, job) in jobs {
            match job {
                Job::Create(metadata, answer) => {
                    // A caller that has gone away is no reason to stop.
                    let _ = answer.send(self.create(&metadata));
                }
                Job::Append(mut append) => {
                    let Some(replica) = self.replicas.get_mut(&capsule) else {
                        let _ = append.answer.send(Err(self.absent(&capsule)));
                        continue;
                    };
                    let records = std::mem::take(&mut append.records);
                    let outcome =
                        replica.ingest(records, append.source, now, &self.shared.admission);
                    if append.kept == Kept::Synced {
                        wants_sync.insert(capsule);
                    }
                    self.dirty.insert(capsule);
                    taken.push((capsule, append, outcome));
                }
                Job::Ask(question, _) => questions.push((capsule, question)),
            }
        }
        self.shared
            .metrics
            .grouped
            .fetch_add(taken.len() as u64, Relaxed);
        self.sync(&wants_sync);
        self.answer(taken, now);
        for (capsule, question) in questions {
            let Some(replica) = self.replicas.get_mut(&capsule) else {
                question(Err(self.absent(&capsule)));
                continue;
            };
            let before = replica.standing();
            question(Ok(replica));
            if replica.standing() != before {
                self.shared.list(replica);
            }
        }
    }

    fn create(&mut self, metadata: &Metadata) -> Result<bool, Refusal> {
        let name = metadata.name();
        if self.replicas.contains_key(&name) {
            return Ok(false);
        }
        if self.broken.contains(&name) {
            return Err(self.absent(&name));
        }
        self.shared.admission.create(metadata)?;
        let (storage, key) = (
            Arc::clone(&self.shared.storage),
            Arc::clone(&self.shared.key),
        );
        match Replica::create(storage, key, metadata, self.shared.policy) {
            Ok(replica) => {
                self.serve(replica);
                Ok(true)
            }
            Err(error) => {
                tracing::error!(%error, "a capsule cannot be created");
                self.shared.admission.uncreate();
                Err(Refusal::new(
                    507,
                    "not-created",
                    "this store cannot write the capsule's first file; its operator must look at its disk, then try again",
                )
                .retry_after(Duration::from_secs(30)))
            }
        }
    }

    fn absent(&self, capsule: &CapsuleName) -> Refusal {
        if self.broken.contains(capsule) {
            return Refusal::new(
                500,
                "damaged",
                "this store's copy of the capsule does not open; use another replica, and tell the operator to run \
                 `bield-store fsck`",
            );
        }
        Refusal::no_capsule()
    }

    /// Syncs the journals of `capsules`. What fails is known to its replica, which then takes nothing.
    fn sync(&mut self, capsules: &BTreeSet<CapsuleName>) {
        let metrics = &self.shared.metrics;
        for capsule in capsules {
            self.dirty.remove(capsule);
            let Some(replica) = self.replicas.get_mut(capsule) else {
                continue;
            };
            let (before, began) = (replica.standing(), Instant::now());
            match replica.sync() {
                Ok(true) => {
                    let after = replica.standing();
                    metrics.syncs.fetch_add(1, Relaxed);
                    metrics
                        .synced_records
                        .fetch_add(after.synced - before.synced, Relaxed);
                    let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    metrics.sync_micros.fetch_add(micros, Relaxed);
                    self.forgettable.insert(*capsule);
                    self.shared.synced(*capsule);
                }
                Ok(false) => {}
                Err(_) => {
                    metrics.stopped.fetch_add(1, Relaxed);
                }
            }
        }
    }

    fn answer(&mut self, taken: Vec<(CapsuleName, Append, Taken)>, now: bield_envelope::Time) {
        // Requests of one round for one writer share one signature: the newest head covers them all.
        let mut signed: HashMap<(CapsuleName, WriterId), Arc<[u8]>> = HashMap::new();
        let mut touched = BTreeSet::new();
        for (capsule, append, outcome) in taken {
            let replica = &self.replicas[&capsule];
            touched.insert(capsule);
            let metrics = &self.shared.metrics;
            metrics
                .repeated
                .fetch_add((outcome.accepted - outcome.new) as u64, Relaxed);
            metrics.records.fetch_add(outcome.new as u64, Relaxed);
            if replica.is_stopped() {
                metrics.refuse("stopped");
                let _ = append.answer.send(Err(Refusal::stopped()));
                continue;
            }
            let acknowledgements = outcome
                .writers
                .iter()
                .filter_map(|writer| match signed.get(&(capsule, *writer)) {
                    Some(bytes) => Some(Arc::clone(bytes)),
                    None => {
                        let bytes: Arc<[u8]> = replica.acknowledge(writer, now)?.into();
                        signed.insert((capsule, *writer), Arc::clone(&bytes));
                        Some(bytes)
                    }
                })
                .collect();
            let refused = outcome.refused.or(append.then);
            if let Some(refusal) = &refused {
                metrics.refuse(refusal.slug);
            }
            let _ = append.answer.send(Ok(Appended {
                accepted: outcome.accepted,
                new: outcome.new,
                acknowledgements,
                refused,
            }));
        }
        for capsule in touched {
            self.shared.list(&self.replicas[&capsule]);
        }
    }
}
