//! A store: its shards, and the one door to them.
//!
//! ```text
//!   HTTP handlers ┐                    ┌─▶ inbox ─▶ Shard 0: capsules …
//!   peers         ├─▶ Store::submit ───┼─▶ inbox ─▶ Shard 1: capsules …
//!   witnesses     ┘   (by name)        └─▶ inbox ─▶ Shard N
//! ```
//!
//! Always true: a capsule is at one shard for the life of the process; what a caller gets is an
//! answer or a refusal, in bounded memory. Waiting for the answer is the caller's: `await` it, or
//! block on it from a thread that may.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bield_capsule::{CapsuleName, Kept, Metadata, Received, VerifierPolicy};
use bield_envelope::{Principal, SigningKey};
use tokio::sync::oneshot;

use crate::Refusal;
use crate::admission::Admission;
use crate::metrics::Metrics;
use crate::replica::{Replica, Source, Standing};
use crate::shard::{Append, Appended, Inbox, Job, READ_WEIGHT, Shard};
use crate::storage::Storage;

/// What all threads of a store see.
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) policy: VerifierPolicy,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    list: RwLock<BTreeMap<CapsuleName, Standing>>,
    /// Capsules whose log grew, for the witnesses.
    grown: Mutex<BTreeSet<CapsuleName>>,
    grew: Condvar,
}

impl Shared {
    /// Notes what stands in the list about a replica.
    pub(crate) fn list(&self, replica: &Replica) {
        let standing = replica.standing();
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let before = list.insert(replica.name(), standing).unwrap_or_default();
        let frozen = standing.forks.saturating_sub(before.forks);
        self.metrics.forks.fetch_add(frozen, Relaxed);
    }

    /// Notes that more of a capsule lasts.
    pub(crate) fn synced(&self, capsule: CapsuleName) {
        let mut grown = self.grown.lock().unwrap_or_else(PoisonError::into_inner);
        grown.insert(capsule);
        self.grew.notify_all();
    }
}

/// What a store is made of.
pub struct Settings {
    /// Where capsules are kept.
    pub storage: Arc<dyn Storage>,
    /// Signs acknowledgements, heads and checkpoints.
    pub key: SigningKey,
    /// Who may create capsules, and how much there may be.
    pub admission: Admission,
    /// What certificates count.
    pub policy: VerifierPolicy,
    /// Threads that own capsules.
    pub shards: usize,
}

/// The capsules of one replica server.
pub struct Store {
    shared: Arc<Shared>,
    inboxes: Vec<Arc<Inbox>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens all capsules and starts the shards.
    ///
    /// # Errors
    /// When the storage cannot be listed or threads do not start. A capsule that does not open is
    /// logged and refused, the others are served.
    pub fn open(settings: Settings) -> io::Result<Arc<Self>> {
        let names = settings.storage.capsules()?;
        let shared = Arc::new(Shared {
            storage: settings.storage,
            key: Arc::new(settings.key),
            policy: settings.policy,
            admission: settings.admission,
            metrics: Arc::default(),
            list: RwLock::default(),
            grown: Mutex::default(),
            grew: Condvar::new(),
        });
        let shards = settings.shards.max(1);
        let mut inboxes = Vec::with_capacity(shards);
        let mut threads = Vec::with_capacity(shards);
        let mut opened = Vec::with_capacity(shards);
        for shard in 0..shards {
            let inbox = Arc::new(Inbox::default());
            let mine = names
                .iter()
                .copied()
                .filter(|name| place(name, shards) == shard);
            let (mine, shared, own) = (mine.collect(), Arc::clone(&shared), Arc::clone(&inbox));
            let (tell, told) = std::sync::mpsc::channel();
            let thread = std::thread::Builder::new()
                .name(format!("shard-{shard}"))
                .spawn(move || {
                    let shard = Shard::open(shared, mine);
                    let _ = tell.send(());
                    shard.run(&own);
                })?;
            inboxes.push(inbox);
            threads.push(thread);
            opened.push(told);
        }
        for told in opened {
            // An error is a shard that died while it opened: its thread's panic says why.
            told.recv().map_err(io::Error::other)?;
        }
        Ok(Arc::new(Self {
            shared,
            inboxes,
            threads: Mutex::new(threads),
        }))
    }

    /// Who signs here.
    #[must_use]
    pub fn principal(&self) -> Principal {
        self.shared.key.principal()
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Begins a capsule; says whether it is new.
    ///
    /// # Errors
    /// The owner may not, or there is no room.
    pub async fn create(&self, metadata: Metadata) -> Result<bool, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.submit(metadata.name(), Job::Create(metadata, answer))?;
        answered.await.unwrap_or_else(|_| Err(Refusal::draining()))
    }

    /// Takes records in, in order, until one is refused.
    ///
    /// # Errors
    /// Nothing was even looked at: no such capsule, too much queued, or the disk failed.
    pub async fn append(
        &self,
        capsule: CapsuleName,
        records: Vec<Received>,
        then: Option<Refusal>,
        kept: Kept,
        source: Source,
    ) -> Result<Appended, Refusal> {
        let (answer, answered) = oneshot::channel();
        let append = Append {
            records,
            then,
            kept,
            source,
            answer,
        };
        self.submit(capsule, Job::Append(append))?;
        answered.await.unwrap_or_else(|_| Err(Refusal::draining()))
    }

    /// Lets `question` look at a replica, on the replica's thread.
    ///
    /// # Errors
    /// No such capsule, too much queued, or what the question answers.
    pub async fn ask<T: Send + 'static>(
        &self,
        capsule: CapsuleName,
        question: impl FnOnce(&mut Replica) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.question(capsule, 0, question).await
    }

    /// As [`Store::ask`], for a question that reads a page: a shard does a few a round only.
    ///
    /// # Errors
    /// As [`Store::ask`].
    pub async fn read<T: Send + 'static>(
        &self,
        capsule: CapsuleName,
        question: impl FnOnce(&mut Replica) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.question(capsule, READ_WEIGHT, question).await
    }

    /// Is the capsule one that is served here?
    ///
    /// # Errors
    /// Why not.
    pub async fn serves(&self, capsule: CapsuleName) -> Result<(), Refusal> {
        match self.standing(&capsule) {
            Some(_) => Ok(()),
            // Its shard knows whether it is absent or damaged.
            None => self.ask(capsule, |_| Ok(())).await,
        }
    }

    async fn question<T: Send + 'static>(
        &self,
        capsule: CapsuleName,
        weight: usize,
        question: impl FnOnce(&mut Replica) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let question = move |replica: Result<&mut Replica, Refusal>| {
            let _ = answer.send(replica.and_then(question));
        };
        self.submit(capsule, Job::Ask(Box::new(question), weight))?;
        answered.await.unwrap_or_else(|_| Err(Refusal::draining()))
    }

    /// The capsules behind `after`, ascending, at most `max`.
    #[must_use]
    pub fn capsules(&self, after: Option<CapsuleName>, max: usize) -> Vec<(CapsuleName, Standing)> {
        let list = self
            .shared
            .list
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let range = list.range((from, std::ops::Bound::Unbounded));
        range
            .take(max)
            .map(|(name, standing)| (*name, *standing))
            .collect()
    }

    /// What stands in the list about one capsule.
    #[must_use]
    pub fn standing(&self, capsule: &CapsuleName) -> Option<Standing> {
        let list = self
            .shared
            .list
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        list.get(capsule).copied()
    }

    /// Waits until logs have grown, and says which.
    #[must_use]
    pub(crate) fn grown(&self, wait: Duration) -> BTreeSet<CapsuleName> {
        let grown = self
            .shared
            .grown
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut grown, _) = self
            .shared
            .grew
            .wait_timeout_while(grown, wait, |grown| grown.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *grown)
    }

    /// Finishes what is queued, syncs, and ends the shards. Blocks.
    pub fn close(&self) {
        for inbox in &self.inboxes {
            inbox.close();
        }
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard ended with a panic");
            }
        }
    }

    fn submit(&self, capsule: CapsuleName, job: Job) -> Result<(), Refusal> {
        let inbox = &self.inboxes[place(&capsule, self.inboxes.len())];
        inbox
            .push(capsule, job)
            .inspect_err(|refusal| self.shared.metrics.refuse(refusal.slug))
    }
}

/// Names are hashes: any of their bits spread evenly.
fn place(capsule: &CapsuleName, shards: usize) -> usize {
    let [first, second, ..] = *capsule.as_bytes();
    usize::from(u16::from_be_bytes([first, second])) % shards
}
