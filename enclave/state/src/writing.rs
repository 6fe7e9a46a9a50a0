//! From entries to records: one signer, many callers.
//!
//! ```text
//! callers ─ push ─▶ Queue ─ take ─▶ seal once ─▶ segment file ─▶ tickets reached
//!    ▲                                │ head                        │
//!    └──────────── wait(ticket, durability) ◀───────────────────────┘
//! ```
//!
//! In: entries that were applied to the table already. Out: records in the order of the entries. Always
//! true: what reached a level is in the log at that level; a record is signed once; after a failure nobody
//! is told of anything more, and everybody who waits hears why. While one record is written the next one
//! fills: many callers make few records.
//!
//! Back-pressure: a caller waits while 256 KiB of entries wait for the signer.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bield_capsule::{Batch, Head, KeyRing, Queue, QueueError, QueueLimits, Ticket};
use bield_table::Table;
use rand_core::CryptoRng;

use crate::clocks::Clocks;
use crate::disk::lock;
use crate::history::{HEADS_KEPT, History, TOKEN_HEADS};
use crate::log::append::Log;
use crate::log::chain::Segment;
use crate::{Lacking, StateError};

/// Randomness that the state draws from.
pub type Entropy = Box<dyn CryptoRng + Send>;

/// How safe a write is when its commit returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// In this enclave's memory: gone with the process.
    Memory,
    /// In a signed record that the host took: gone with the machine's power.
    Local,
    /// In a signed record that the host says is on its disk.
    LocalSync,
}

/// The log, and who waits for it.
pub(crate) struct Writing {
    queue: Queue,
    log: Mutex<Log>,
    history: Mutex<History>,
    /// The position of the last entry whose caller waits for the disk.
    sync: AtomicU64,
    /// The end of the hold, by the running clock, in milliseconds.
    held: AtomicU64,
    /// The newest records that are written, and those that are durable.
    stored: Mutex<[Reached; 2]>,
    /// Why nothing more is told.
    failed: OnceLock<String>,
    /// Bytes of records that the next checkpoint is to cover.
    logged: AtomicU64,
    /// How often whoever waits for a signature looks before it sleeps.
    looks: AtomicU32,
    pub(crate) keys: KeyRing,
    pub(crate) clocks: Arc<dyn Clocks>,
    entropy: Mutex<Entropy>,
}

/// A record and the last entry up to which all are in it or before.
#[derive(Clone, Copy, Default)]
struct Reached(Option<(Ticket, Head)>);

/// What lies before a segment.
pub(crate) struct Before {
    /// Where the chains ended.
    pub(crate) heads: Vec<Head>,
    /// Segments of the own chain.
    pub(crate) segments: Vec<Segment>,
    /// As [`Writing::logged`].
    pub(crate) logged: u64,
}

impl Writing {
    pub(crate) fn new(
        log: Log,
        history: History,
        keys: KeyRing,
        clocks: Arc<dyn Clocks>,
        entropy: Entropy,
        held: Duration,
    ) -> Self {
        let queue = Queue::new(QueueLimits::default());
        queue.hold(true);
        Self {
            queue,
            log: Mutex::new(log),
            history: Mutex::new(history),
            sync: AtomicU64::new(0),
            held: AtomicU64::new(millis(held)),
            stored: Mutex::new([Reached::default(); 2]),
            failed: OnceLock::new(),
            logged: AtomicU64::new(0),
            looks: AtomicU32::new(LOOKS_MAX),
            keys,
            clocks,
            entropy: Mutex::new(entropy),
        }
    }

    /// Queues the entries of a batch side by side.
    pub(crate) fn push(&self, batch: &Batch) -> Result<Ticket, QueueError> {
        self.queue.push_batch(batch)
    }

    /// Says how safe an entry is to be, so that its record is written so at once.
    pub(crate) fn want(&self, ticket: Ticket, wanted: Durability) {
        if wanted == Durability::LocalSync {
            self.sync.fetch_max(ticket.position(), Ordering::AcqRel);
        }
    }

    /// Waits until everything that is queued is signed: then there is room.
    pub(crate) fn wait_for_room(&self) -> Result<(), StateError> {
        self.wait_signed(self.last())
    }

    /// Waits until an entry is as safe as wanted.
    pub(crate) fn wait(&self, ticket: Ticket, wanted: Durability) -> Result<(), StateError> {
        match wanted {
            Durability::Memory => Ok(()),
            Durability::Local => self.wait_for(ticket, LOCAL),
            Durability::LocalSync => {
                self.wait_for(ticket, LOCAL)?;
                // Its record was written before anybody said that it was to be synced.
                if self.queue.state(LOCAL_SYNC) < ticket {
                    self.sync_now()?;
                }
                Ok(())
            }
        }
    }

    /// Waits until an entry stands in a signed record, which the log goes on from.
    pub(crate) fn wait_signed(&self, ticket: Ticket) -> Result<(), StateError> {
        self.ask(ticket);
        self.look_for(ticket);
        self.queue.wait(ticket, SENT).map_err(stopped)
    }

    /// Has what was queued up to an entry written now.
    pub(crate) fn ask(&self, ticket: Ticket) {
        self.queue.ask(ticket);
    }

    fn wait_for(&self, ticket: Ticket, level: usize) -> Result<(), StateError> {
        self.ask(ticket);
        self.queue.wait(ticket, level).map_err(stopped)
    }

    /// A record is signed in less time than a thread takes to wake: so looks for about as long, while that has
    /// lately paid off. Where the signer has no core of its own it soon is not tried any more.
    fn look_for(&self, ticket: Ticket) {
        if self.queue.state(SENT) >= ticket {
            return;
        }
        let looks = self.looks.load(Ordering::Relaxed);
        let paid_off = (0..looks).any(|_| {
            (0..PAUSES).for_each(|_| core::hint::spin_loop());
            self.queue.state(SENT) >= ticket
        });
        let looks = if paid_off { looks * 2 } else { looks / 2 };
        let looks = looks.clamp(LOOKS_MIN, LOOKS_MAX);
        self.looks.store(looks, Ordering::Relaxed);
    }

    /// The last entry that was queued.
    pub(crate) fn last(&self) -> Ticket {
        self.queue.state(MEMORY)
    }

    /// Takes what is queued and writes it; waits for entries. `false`: closed, or failed.
    pub(crate) fn turn(&self, batch: &mut Batch, table: &Table) -> bool {
        match self.queue.take(batch) {
            Some(tickets) => self.write(batch, table, tickets.first, tickets.last),
            None => false,
        }
    }

    fn write(&self, batch: &Batch, table: &Table, first: Ticket, last: Ticket) -> bool {
        let mut log = lock(&self.log);
        let written = self.write_in(&mut log, batch, table, first, last);
        drop(log);
        if let Err(error) = &written {
            self.fails(&reason(error));
        }
        written.is_ok()
    }

    fn write_in(
        &self,
        log: &mut Log,
        batch: &Batch,
        table: &Table,
        first: Ticket,
        last: Ticket,
    ) -> Result<(), StateError> {
        let now = self.clocks.now();
        let record = log.seal(batch, &self.keys, now, &mut *lock(&self.entropy))?;
        lock(&self.history).add(record.head());
        table.sealed(record.header());
        self.queue.reached(last, SENT);
        let durably = self.sync.load(Ordering::Acquire) >= first.position();
        log.write(&record, durably)?;
        self.counts(record.as_bytes().len() as u64);
        self.stored(last, record.head(), durably);
        let level = if durably { LOCAL_SYNC } else { LOCAL };
        self.queue.reached(last, level);
        if log.is_full() {
            self.rotate_in(log)?;
        }
        Ok(())
    }

    /// Writes one record of these entries now, durably with all before it.
    pub(crate) fn append(&self, batch: &Batch) -> Result<Head, StateError> {
        let mut log = lock(&self.log);
        let appended = self.append_in(&mut log, batch);
        drop(log);
        self.heard(appended)
    }

    fn append_in(&self, log: &mut Log, batch: &Batch) -> Result<Head, StateError> {
        let now = self.clocks.now();
        let record = log.seal(batch, &self.keys, now, &mut *lock(&self.entropy))?;
        lock(&self.history).add(record.head());
        log.write(&record, true)?;
        self.stored(self.queue.state(LOCAL), record.head(), true);
        Ok(record.head())
    }

    /// Makes durable all that was written.
    pub(crate) fn sync_now(&self) -> Result<Head, StateError> {
        let mut log = lock(&self.log);
        // Records of entries up to here are written while the lock is not held: none is under way.
        let through = self.queue.state(LOCAL);
        let synced = log.sync();
        let head = log.head();
        if synced.is_ok() {
            self.stored(through, head, true);
        }
        drop(log);
        self.heard(synced)?;
        self.queue.reached(through, LOCAL_SYNC);
        Ok(head)
    }

    /// Begins a new segment; says what lies before it.
    pub(crate) fn rotate(&self) -> Result<Before, StateError> {
        let mut log = lock(&self.log);
        let heads = lock(&self.history).heads(HEADS_KEPT);
        let logged = self.logged();
        let rotated = self.rotate_in(&mut log);
        let segments = log.take_former();
        drop(log);
        self.heard(rotated)?;
        Ok(Before {
            heads,
            segments,
            logged,
        })
    }

    /// Notes bytes of records that no checkpoint covers yet.
    pub(crate) fn counts(&self, bytes: u64) {
        self.logged.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A checkpoint covers so many of them.
    pub(crate) fn covers(&self, bytes: u64) {
        self.logged.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes of records that a start would read and apply.
    pub(crate) fn logged(&self) -> u64 {
        self.logged.load(Ordering::Relaxed)
    }

    fn rotate_in(&self, log: &mut Log) -> Result<(), StateError> {
        let now = self.clocks.now();
        log.rotate(&self.keys, now, &mut *lock(&self.entropy))?;
        lock(&self.history).add(log.head());
        self.stored(self.queue.state(LOCAL), log.head(), true);
        Ok(())
    }

    /// Reads the log, between two records.
    pub(crate) fn with_log<T>(&self, read: impl FnOnce(&mut Log) -> T) -> T {
        read(&mut lock(&self.log))
    }

    /// Where the newest chains of the state end, newest signed records included.
    pub(crate) fn heads(&self) -> Vec<Head> {
        lock(&self.history).heads(TOKEN_HEADS)
    }

    /// Of these heads those that are ahead of the state.
    pub(crate) fn lacking(&self, heads: &[Head]) -> Result<Vec<Lacking>, StateError> {
        lock(&self.history).lacking(heads)
    }

    /// Prolongs the hold.
    pub(crate) fn hold(&self, until: Duration) {
        self.held.store(millis(until), Ordering::Release);
    }

    /// Whether the key service's hold lasts.
    pub(crate) fn held(&self) -> Result<(), StateError> {
        let (now, until) = (self.clocks.running(), self.held.load(Ordering::Acquire));
        match millis(now) < until {
            true => Ok(()),
            false => Err(StateError::HoldEnded),
        }
    }

    /// Takes no more entries: the signer ends when what is queued is written.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// No more reports come.
    pub(crate) fn end(&self) {
        self.queue.end();
    }

    /// Fails everybody who waits, when a thread is gone.
    pub(crate) const fn guard(&self) -> bield_capsule::QueueGuard<'_> {
        self.queue.guard()
    }

    fn heard<T>(&self, outcome: Result<T, StateError>) -> Result<T, StateError> {
        if let Err(StateError::Stopped { reason }) = &outcome {
            self.fails(reason);
        }
        outcome
    }

    fn fails(&self, reason: &str) {
        let _ = self.failed.set(reason.to_owned());
        self.queue.fail(reason);
    }

    /// Whether what is signed is stored as well, as far as is known: else nothing is told, not even of what nobody
    /// waits to be stored.
    pub(crate) fn runs(&self) -> Result<(), StateError> {
        match self.failed.get().cloned() {
            Some(reason) => Err(StateError::Stopped { reason }),
            None => Ok(()),
        }
    }

    /// A record is written that holds all entries up to here, under the log's lock.
    fn stored(&self, through: Ticket, head: Head, durably: bool) {
        let reached = Some((through, head));
        let mut stored = lock(&self.stored);
        stored[0] = Reached(reached);
        if durably {
            stored[1] = Reached(reached);
        }
    }

    /// The newest durable record, if it holds all entries up to this one; else the newest that is written, if that does;
    /// none: it is signed at most.
    pub(crate) fn reached(&self, ticket: Ticket) -> Option<Head> {
        let [written, durable] = *lock(&self.stored);
        let holds = |reached: Reached| reached.0.filter(|(through, _)| *through >= ticket);
        let (_, head) = holds(durable).or_else(|| holds(written))?;
        Some(head)
    }
}

fn reason(error: &StateError) -> String {
    match error {
        StateError::Stopped { reason } => reason.clone(),
        other => other.to_string(),
    }
}

pub(crate) fn stopped(error: QueueError) -> StateError {
    match error {
        QueueError::Full => StateError::Full,
        QueueError::Failed { reason } => StateError::Stopped {
            reason: reason.to_string(),
        },
        QueueError::TooLong { .. } => bield_capsule::BatchFull::Full.into(),
        _ => StateError::Stopped {
            reason: "it was closed".to_owned(),
        },
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Pauses between two looks: some 200 ns, so that the signer gets the queue's lock.
const PAUSES: u32 = 16;
/// About 50 µs.
const LOOKS_MAX: u32 = 256;
/// Enough to notice that looking pays off again.
const LOOKS_MIN: u32 = 8;

const MEMORY: usize = 0;
const SENT: usize = 1;
const LOCAL: usize = 2;
const LOCAL_SYNC: usize = 3;
