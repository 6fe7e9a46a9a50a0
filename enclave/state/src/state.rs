//! The state of a function while it serves.
//!
//! ```text
//! requests ─▶ Request ─▶ table in memory ──▶ Writing ─▶ log          thread "state signer"
//!                 └────▶ levels (Arc)        └ full ─▶ flush, compaction    thread "state levels"
//! ```
//!
//! In: [`Opening`]; requests from any thread. Out: what they read and wrote, between two cuts. Always true:
//! what the state tells is in the log at the durability that the bucket declares before [`Request::finish`]
//! returns; after a failure of the disk nothing more is acknowledged; nothing is acknowledged once the key
//! service's hold is over.
//!
//! Left to others: asking the key service for the hold and telling it anchors (`enclave/runtime`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bield_capsule::{Batch, Clock, Head, QueueError, Ticket, WriterId};
use bield_levels::RANGE_DELETES_MAX;
use bield_table::Table;

use crate::cold::Cold;
use crate::disk::{Disk, lock};
use crate::log::chain::Segment;
use crate::open::{Opening, Parts};
use crate::writing::{Entropy, Writing};
use crate::{Durability, Lacking, Request, Settings, StateError};

/// An open state; its threads end when it is dropped, once what was queued is written.
pub struct State {
    shared: Arc<Shared>,
    covered: Vec<WriterId>,
    threads: Vec<JoinHandle<()>>,
}

/// What requests and threads share.
pub(crate) struct Shared {
    pub(crate) writing: Writing,
    pub(crate) table: Table,
    /// No write with an older clock is in memory, or comes.
    pub(crate) horizon: Mutex<Clock>,
    pub(crate) cold: Cold,
    pub(crate) disk: Disk,
    pub(crate) settings: Settings,
    /// For the levels' thread.
    pub(crate) entropy: Mutex<Entropy>,
    /// Segments that the next checkpoint covers.
    pub(crate) former: Mutex<Vec<Segment>>,
    /// Ends of chains that the next flush writes to the levels.
    pub(crate) ended: Mutex<Vec<Head>>,
    /// What the flush under way, or the one that failed, covers.
    pub(crate) freezing: Mutex<Option<Freezing>>,
    /// Somebody asked for a flush.
    pub(crate) is_asked: AtomicBool,
    /// The last entry of each durability that a bucket declares.
    pub(crate) pushed: [AtomicU64; 3],
    /// Compaction is so far behind that commits wait for it.
    pub(crate) is_pressed: AtomicBool,
    pub(crate) upkeep: Mutex<Upkeep>,
    /// The thread that keeps the levels sleeps: who has work for it wakes it, and nobody else pays for that.
    pub(crate) is_idle: AtomicBool,
    /// The thread that keeps the levels sleeps here, and commits that wait for it.
    pub(crate) changed: Condvar,
}

/// What a flush covers.
#[derive(Clone)]
pub(crate) struct Freezing {
    /// Where the chains ended.
    pub(crate) covered: Vec<Head>,
    /// Bytes of records.
    pub(crate) logged: u64,
}

/// What the levels' thread is to do.
#[derive(Default)]
pub(crate) struct Upkeep {
    pub(crate) ends: bool,
    /// Why the levels are not kept any more.
    pub(crate) failed: Option<StateError>,
}

/// Heads for the key service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchoring {
    /// Durable, and all that was acknowledged is behind them.
    pub heads: Vec<Head>,
    /// Writers whose anchored heads these stand for.
    pub covered: Vec<WriterId>,
}

impl State {
    /// Opens a state from its files and begins to serve it.
    ///
    /// # Errors
    /// The files are not whole, not this capsule's, older than what is anchored, or not readable; see
    /// [`StateError`]. Nothing is served then.
    pub fn open(opening: Opening) -> Result<Self, StateError> {
        let settings = opening.settings;
        let mut parts = opening.open()?;
        let covered = core::mem::take(&mut parts.covered);
        let (token, leased) = (parts.token, core::mem::take(&mut parts.leased));
        let shared = Arc::new(Shared::new(parts, settings));
        let mut state = Self {
            shared: Arc::clone(&shared),
            covered,
            threads: Vec::new(),
        };
        let signer = Arc::clone(&shared);
        state.spawn("state signer", move || {
            let _guard = signer.writing.guard();
            let mut batch = Batch::new();
            while signer.writing.turn(&mut batch, &signer.table) {}
            signer.writing.end();
        })?;
        shared.lease(token, &leased)?;
        state.spawn("state levels", move || shared.keep())?;
        Ok(state)
    }

    /// Begins a request of someone who has `seen` these heads.
    ///
    /// # Errors
    /// [`StateError::Behind`] or [`StateError::Forked`] when the state does not contain them; the hold is
    /// over.
    pub fn request(&self, seen: &[Head]) -> Result<Request, StateError> {
        self.shared.request(seen)
    }

    /// Where the newest chains of the state end, what is signed and not yet stored included; the newest stands for all.
    #[must_use]
    pub fn heads(&self) -> Vec<Head> {
        self.shared.heads()
    }

    /// Makes durable what was written, for the key service to anchor.
    ///
    /// # Errors
    /// The host does not store.
    pub fn anchoring(&self) -> Result<Anchoring, StateError> {
        let head = self.shared.writing.sync_now()?;
        let covered = self.covered.iter().copied();
        Ok(Anchoring {
            heads: vec![head],
            covered: covered.filter(|writer| *writer != head.writer).collect(),
        })
    }

    /// Notes that the key service took these heads as this holder's: files that are not needed any more may go.
    pub fn anchored(&self, heads: &[Head]) {
        let own = self.shared.table.writer();
        for head in heads.iter().filter(|head| head.writer == own) {
            self.shared.cold.removal.anchored(head.seq);
        }
        if self.shared.is_idle.swap(false, Ordering::AcqRel) {
            let _upkeep = lock(&self.shared.upkeep);
            self.shared.changed.notify_all();
        }
    }

    /// Prolongs the hold until `until` of the running clock.
    pub fn hold(&self, until: Duration) {
        self.shared.writing.hold(until);
    }

    /// When the own writer's certificate ends; none: never. The state is opened anew before.
    #[must_use]
    pub fn ends(&self) -> Option<bield_envelope::Time> {
        self.shared.writing.with_log(|log| log.ends())
    }

    /// Writes what is queued, ends the threads, and says what to anchor when the hold is released.
    ///
    /// # Errors
    /// The host does not store.
    pub fn close(mut self) -> Result<Anchoring, StateError> {
        self.end();
        self.anchoring()
    }

    /// Asks for a flush and waits for it: the log is short afterwards, and the next start quick.
    ///
    /// # Errors
    /// The host does not store.
    pub fn flush(&self) -> Result<(), StateError> {
        self.shared.is_asked.store(true, Ordering::Release);
        self.shared
            .settle(|shared| !shared.is_asked.load(Ordering::Acquire))
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), StateError> {
        let thread = Builder::new().name(name.to_owned()).spawn(run);
        let thread = thread.map_err(|error| StateError::Stopped {
            reason: format!("no thread: {error}"),
        })?;
        self.threads.push(thread);
        Ok(())
    }

    pub(crate) fn end(&mut self) {
        lock(&self.shared.upkeep).ends = true;
        self.shared.changed.notify_all();
        self.shared.writing.close();
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    pub(crate) fn new(parts: Parts, settings: Settings) -> Self {
        Self {
            horizon: Mutex::new(parts.cold.levels().manifest().horizon()),
            writing: parts.writing,
            table: parts.table,
            cold: parts.cold,
            disk: parts.disk,
            settings,
            entropy: Mutex::new(parts.entropy),
            former: Mutex::new(parts.former),
            ended: Mutex::new(parts.ended),
            freezing: Mutex::new(None),
            // A flush covers the starts before this one.
            is_asked: AtomicBool::new(parts.chains >= STARTS_MAX),
            pushed: Default::default(),
            is_pressed: AtomicBool::new(false),
            upkeep: Mutex::default(),
            is_idle: AtomicBool::new(false),
            changed: Condvar::new(),
        }
    }

    /// Takes the linearizable buckets for this holder; the signer's thread runs. Each lease has a token of its own, since of
    /// two with one token only one counts (spec/07 §6); all of them are larger than those of the holds before.
    fn lease(&self, hold: u64, ranges: &[(Vec<u8>, Vec<u8>)]) -> Result<(), StateError> {
        let mut last = Ticket::default();
        let mut token = hold.saturating_mul(LEASES_EACH_MAX);
        for (from, to) in ranges {
            let now = self.writing.clocks.now();
            let lease = |hand: &mut dyn FnMut(&Batch) -> Result<Ticket, QueueError>| {
                self.table.take_lease(token, (from, to), now, hand)
            };
            // The levels' thread does not run yet, so that nobody would make room.
            let admit = |_: &Self| Ok(());
            last = self
                .handed_when(admit, &[Durability::LocalSync], lease)?
                .handed;
            token = token.saturating_add(1);
        }
        self.writing.want(last, Durability::LocalSync);
        self.writing.wait(last, Durability::LocalSync)
    }

    /// Where the newest chains of the state end, ascending by writer.
    pub(crate) fn heads(&self) -> Vec<Head> {
        let mut heads = self.writing.heads();
        heads.sort_unstable();
        heads
    }

    /// The same up to a record that is as safe as can be among those that hold everything up to an entry.
    pub(crate) fn heads_with(&self, ticket: Ticket) -> Vec<Head> {
        let (mut heads, reached) = (self.heads(), self.writing.reached(ticket));
        let own = heads
            .iter_mut()
            .find(|head| head.writer == self.table.writer());
        if let (Some(own), Some(reached)) = (own, reached) {
            *own = reached;
        }
        heads
    }

    /// Whether what is in memory is to be written as runs.
    pub(crate) fn is_over(&self) -> bool {
        self.is_asked.load(Ordering::Acquire)
            || self.table.flush_due()
            || self.table.memory_bytes() >= self.settings.memory_bytes
            || self.writing.logged() >= self.log_bytes_max()
    }

    /// Whether commits wait: memory, the log, range deletes or levels have what they may.
    fn is_full(&self) -> bool {
        self.table.memory_bytes() >= self.settings.memory_bytes.saturating_mul(2)
            || self.writing.logged() >= self.log_bytes_max().saturating_mul(2)
            || self.table.range_deletes() >= RANGE_DELETES_MAX / 2
            || self.is_pressed.load(Ordering::Acquire)
    }

    fn log_bytes_max(&self) -> u64 {
        (self.settings.memory_bytes as u64).saturating_mul(LOG_FACTOR)
    }

    /// Whether these heads are part of the state.
    pub(crate) fn contains(&self, seen: &[Head]) -> Result<(), StateError> {
        let writers = self.writing.lacking(seen)?;
        let writers = self.lacking_of_earlier(seen, writers)?;
        match Lacking::sum(&writers) {
            0 => Ok(()),
            behind => Err(StateError::Behind { behind, writers }),
        }
    }

    /// Wakes the levels' thread, and waits while memory or log holds twice what it should, or compaction is far behind.
    pub(crate) fn admit(&self) -> Result<(), StateError> {
        if !self.is_over() && !self.is_pressed.load(Ordering::Acquire) {
            return Ok(());
        }
        if !self.is_full() {
            if self.is_idle.swap(false, Ordering::AcqRel) {
                let _upkeep = lock(&self.upkeep);
                self.changed.notify_all();
            }
            return Ok(());
        }
        self.settle(|shared| !shared.is_full())
    }

    /// Wakes the levels' thread and waits until it has done what is asked for.
    fn settle(&self, is_done: impl Fn(&Self) -> bool) -> Result<(), StateError> {
        let mut upkeep = lock(&self.upkeep);
        upkeep.failed = None; // it is tried again
        self.changed.notify_all();
        while !is_done(self) {
            if let Some(error) = &upkeep.failed {
                return Err(error.clone());
            }
            if upkeep.ends {
                return Err(StateError::Stopped {
                    reason: "it was closed".to_owned(),
                });
            }
            upkeep = self
                .changed
                .wait(upkeep)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}

/// Times the memory that the log may take before a flush, when keys are overwritten again and again.
const LOG_FACTOR: u64 = 4;
/// Tokens of leases for each hold; a function has at most 32 buckets.
const LEASES_EACH_MAX: u64 = 1 << 16;
/// Starts in the log after which it is covered by a checkpoint, however little is in it.
const STARTS_MAX: usize = 8;
