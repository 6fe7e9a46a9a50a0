//! Self-clocking batches: many producers, one signer, no timer and no batch size to tune.
//!
//! ```text
//! producers ──push──▶ pending Batch ──take (swap)──▶ signer's Batch ──seal──▶ record ──▶ replicas
//!     ▲                 bounded                                                            │
//!     └── wait(ticket, level) ◀────────────── reached(through, level) ◀── acknowledgements ┘
//! ```
//!
//! While one record is signed the next one fills: a lone put is signed at once, and under load a
//! record carries as many puts as arrive in the time of a signature (`batch = rate × T / (1 − rate ×
//! t)`, T per record, t per put).
//!
//! In: payloads from any number of threads. Out: batches for one signer, a [`Ticket`] per entry.
//! Always true: tickets count entries in the order in which they stand in the chain, and a producer's
//! own entries keep their order; nothing is dropped and nothing grows without end, a full queue
//! refuses ([`QueueError::Full`]) or makes the producer wait; after a failure every waiter and every
//! later push gets its reason. What is in flight is bounded by not calling [`Queue::take`].
//!
//! Left to the caller: threads, time, and what the levels mean (their order is that of `spec/06 §8`).
//!
//! Cost per push: one uncontended lock (20–25 ns), one copy, no allocation once the two batches have
//! grown. The signer is woken at most once per batch and only when it sleeps; it spins before it
//! does, for as long as spinning has lately paid off, at most about one wake-up's cost (50 µs).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::batch::ENTRY_BYTES;
use crate::{BODY_BYTES_MAX, Batch, BatchFull, Durability, ENTRIES_MAX};

/// Durability levels, in the order of `spec/06 §8`: memory, sent, local, local-sync, replicated,
/// witnessed.
pub const LEVELS: usize = ORDER.len();

/// The levels by number; how many replicas and witnesses is the caller's to say, and to say alike.
const ORDER: [Durability; 6] = [
    Durability::Memory,
    Durability::Sent,
    Durability::Local,
    Durability::LocalSync,
    Durability::Replicated(1),
    Durability::Witnessed(1, 1),
];

/// How much waits for the signer before producers are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Bytes of body; a single longer entry or group is taken by an empty queue.
    pub bytes: usize,
    /// Entries.
    pub entries: usize,
}

impl Default for QueueLimits {
    /// 256 KiB: two batches and the record they become stay within a second-level cache.
    fn default() -> Self {
        Self {
            bytes: BODY_BYTES_MAX / 4,
            entries: ENTRIES_MAX,
        }
    }
}

/// An entry's position among all that were pushed, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticket(u64);

impl Ticket {
    /// Takes a position; 0 comes before the first entry.
    #[must_use]
    pub const fn new(position: u64) -> Self {
        Self(position)
    }

    /// The position.
    #[must_use]
    pub const fn position(self) -> u64 {
        self.0
    }
}

/// The tickets of a batch: one per entry, in the order of the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tickets {
    /// Of the first entry.
    pub first: Ticket,
    /// Of the last entry.
    pub last: Ticket,
}

/// Why an entry is not queued, or will not be durable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The signer is behind.
    #[error("the queue is full: the signer is behind; wait for room (`push_wait`) or try later")]
    Full,
    /// It fits no record, even alone.
    #[error(
        "{bytes} bytes in {entries} entries fit no record: push them in smaller groups, or split the entry; do not retry"
    )]
    TooLong {
        /// Bytes of payload.
        bytes: usize,
        /// Entries.
        entries: usize,
    },
    /// No more entries are taken.
    #[error("the queue is closed; open a new writer")]
    Closed,
    /// The writing ended before the entry was as durable as asked for.
    #[error(
        "the writing ended and the entry has not reached this level: ask the replicas what they keep before writing it again"
    )]
    Ended,
    /// The signer or its transport failed.
    #[error(
        "writing failed: {reason}; entries not reported durable may be lost, read the chain before writing them again"
    )]
    Failed {
        /// What failed, in the words of who failed.
        reason: Arc<str>,
    },
}

/// A bounded queue of entries, taken whole.
///
/// ```
/// use bield_capsule::{Batch, Queue, QueueLimits};
/// let queue = Queue::new(QueueLimits::default());
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         let _guard = queue.guard();
///         let mut batch = Batch::new();
///         while let Some(tickets) = queue.take(&mut batch) {
///             // seal the batch, hand the record to the transport, then:
///             queue.reached(tickets.last, 1);
///         }
///     });
///     let ticket = queue.push(b"entry")?;
///     queue.wait(ticket, 1)?;
///     queue.close();
///     Ok::<(), bield_capsule::QueueError>(())
/// })?;
/// # Ok::<(), bield_capsule::QueueError>(())
/// ```
pub struct Queue {
    state: Mutex<State>,
    limits: QueueLimits,
    /// Whether the signer has something to take or to hear, without taking the lock.
    ready: AtomicBool,
    /// Turns the signer spins before it sleeps.
    spin: AtomicU32,
    /// The signer sleeps here.
    filled: Condvar,
    /// Producers sleep here.
    room: Condvar,
    /// Whoever waits for durability sleeps here.
    advanced: Condvar,
}

#[derive(Default)]
struct State {
    pending: Batch,
    issued: u64,
    taken: u64,
    /// By level; level 0 is `issued`.
    reached: [u64; LEVELS],
    closed: bool,
    /// No more reports come.
    ended: bool,
    failed: Option<Arc<str>>,
    signer_sleeps: bool,
    /// Batches wait to grow.
    held: bool,
    /// Somebody found no room, or asked.
    pressed: bool,
    producers_asleep: usize,
    waiters_asleep: usize,
}

impl Queue {
    /// Begins empty and open.
    #[must_use]
    pub fn new(limits: QueueLimits) -> Self {
        Self {
            state: Mutex::default(),
            limits,
            ready: AtomicBool::new(false),
            spin: AtomicU32::new(SPIN_MAX),
            filled: Condvar::new(),
            room: Condvar::new(),
            advanced: Condvar::new(),
        }
    }

    /// Queues an entry.
    ///
    /// # Errors
    /// Full, too long, closed or failed; the entry is not queued.
    pub fn push(&self, payload: &[u8]) -> Result<Ticket, QueueError> {
        self.offer(payload.len(), 1, |batch| batch.push(payload))
    }

    /// Queues an entry, and waits for room if need be.
    ///
    /// # Errors
    /// Too long, closed or failed, also while waiting; the entry is not queued.
    pub fn push_wait(&self, payload: &[u8]) -> Result<Ticket, QueueError> {
        self.offer_wait(payload.len(), 1, |batch| batch.push(payload))
    }

    /// Queues all entries side by side in one record, or none; the ticket is the last one's. One
    /// allocation a call: the caller's `as_ref` runs before the queue is locked, where it may panic.
    ///
    /// # Errors
    /// As [`Queue::push`].
    pub fn push_many<E: AsRef<[u8]>>(&self, payloads: &[E]) -> Result<Ticket, QueueError> {
        let payloads: Vec<&[u8]> = payloads.iter().map(AsRef::as_ref).collect();
        let bytes = payloads
            .iter()
            .fold(0_usize, |sum, payload| sum.saturating_add(payload.len()));
        if bytes > BODY_BYTES_MAX || payloads.len() > ENTRIES_MAX {
            let entries = payloads.len();
            return Err(QueueError::TooLong { bytes, entries });
        }
        self.offer(bytes, payloads.len(), |batch| {
            payloads.iter().try_for_each(|payload| batch.push(payload))
        })
    }

    /// Queues the entries of a batch, erasable ones too, side by side in one record, or none; the
    /// ticket is the last one's. The batch was filled without holding the queue's lock.
    ///
    /// # Errors
    /// As [`Queue::push`].
    pub fn push_batch(&self, entries: &Batch) -> Result<Ticket, QueueError> {
        self.offer(entries.entries().len(), entries.len(), |batch| {
            batch.append(entries)
        })
    }

    /// [`Queue::push_batch`], and waits for room if need be.
    ///
    /// # Errors
    /// As [`Queue::push_wait`].
    pub fn push_batch_wait(&self, entries: &Batch) -> Result<Ticket, QueueError> {
        self.offer_wait(entries.entries().len(), entries.len(), |batch| {
            batch.append(entries)
        })
    }

    /// Takes all that is pending, for the one signer; waits while there is nothing. `into` is
    /// cleared first, its memory becomes the queue's. `None`: closed and drained, or failed.
    pub fn take(&self, into: &mut Batch) -> Option<Tickets> {
        self.spin();
        let mut state = self.lock();
        loop {
            match self.swap(&mut state, into) {
                Taken::Batch(tickets) => return Some(tickets),
                Taken::End => return None,
                Taken::Nothing => {
                    state.signer_sleeps = true;
                    state = wait(&self.filled, state);
                    state.signer_sleeps = false;
                }
            }
        }
    }

    /// Takes all that is pending, if anything is; does not wait.
    pub fn try_take(&self, into: &mut Batch) -> Option<Tickets> {
        match self.swap(&mut self.lock(), into) {
            Taken::Batch(tickets) => Some(tickets),
            Taken::End | Taken::Nothing => None,
        }
    }

    /// Reports that all entries up to `through` reached `level`, and so the levels that it implies
    /// ([`Durability::implies`]): what is replicated was sent, and says nothing of the local disk.
    /// Entries that were never taken stay unreported, and a level never goes back.
    ///
    /// # Panics
    /// When there is no such level.
    pub fn reached(&self, through: Ticket, level: usize) {
        assert!(level < LEVELS, "levels are those of spec/06 §8");
        let mut state = self.lock();
        let through = through.0.min(state.taken);
        for (reached, lower) in state.reached.iter_mut().zip(ORDER) {
            if ORDER[level].implies(lower) {
                *reached = through.max(*reached);
            }
        }
        let wake = state.waiters_asleep > 0;
        drop(state);
        if wake {
            self.advanced.notify_all();
        }
    }

    /// While held, what is pending grows until half of the limits, or until somebody finds no room or
    /// asks ([`Queue::ask`]), or the queue is closed; only then, or once it is let go, does the signer get
    /// it. For a writer whose receivers are busy: a record then that they cannot take yet would cost them
    /// a signature check, the same entries in the next one cost nothing. And for one whose producers write
    /// several entries before they wait for any: they ask when they wait.
    pub fn hold(&self, held: bool) {
        let mut state = self.lock();
        state.held = held;
        let wake = self.tells(&mut state);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Has the signer take what is pending although the queue is held, when this entry is part of that.
    pub fn ask(&self, ticket: Ticket) {
        let mut state = self.lock();
        if ticket.0 <= state.taken {
            return;
        }
        state.pressed = true;
        let wake = self.tells(&mut state);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    /// The last ticket of those that reached `level` without a gap.
    ///
    /// # Panics
    /// When there is no such level.
    #[must_use]
    pub fn state(&self, level: usize) -> Ticket {
        Ticket(self.lock().at(level))
    }

    /// Waits until an entry reached `level`.
    ///
    /// # Errors
    /// The queue failed, was closed before the entry was queued, or ended before it got there.
    ///
    /// # Panics
    /// When there is no such level.
    pub fn wait(&self, ticket: Ticket, level: usize) -> Result<(), QueueError> {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = state.outcome(ticket, level) {
                return outcome;
            }
            state.waiters_asleep += 1;
            state = wait(&self.advanced, state);
            state.waiters_asleep -= 1;
        }
    }

    /// Waits until an entry reached `level`, at most so long or a little longer; says whether it did.
    ///
    /// # Errors
    /// The queue failed, was closed before the entry was queued, or ended before it got there.
    ///
    /// # Panics
    /// When there is no such level.
    pub fn wait_at_most(
        &self,
        ticket: Ticket,
        level: usize,
        span: Duration,
    ) -> Result<bool, QueueError> {
        let mut state = self.lock();
        state.waiters_asleep += 1;
        let (mut state, _) = self
            .advanced
            .wait_timeout_while(state, span, |state| state.outcome(ticket, level).is_none())
            .unwrap_or_else(PoisonError::into_inner);
        state.waiters_asleep -= 1;
        state
            .outcome(ticket, level)
            .map_or(Ok(false), |outcome| outcome.map(|()| true))
    }

    /// Takes no more entries; what is pending can still be taken and reported. Who waits for an entry
    /// that was never queued gets an error; the others wait on, until the report or [`Queue::end`].
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake_all();
    }

    /// Closes the queue and says that no more reports will come: who waits for a level that an entry
    /// has not reached by now gets [`QueueError::Ended`]. Called once the last acknowledgement is in,
    /// or is given up.
    pub fn end(&self) {
        let mut state = self.lock();
        (state.closed, state.ended) = (true, true);
        drop(state);
        self.wake_all();
    }

    /// Fails the queue for good: waiters whose entries have not got there, and every later push, get
    /// the reason, which must hold no secret. The first reason stays.
    pub fn fail(&self, reason: &str) {
        self.lock().failed.get_or_insert_with(|| reason.into());
        self.wake_all();
    }

    /// Fails the queue when dropped by a panic: the signer and the transport hold one each, so that
    /// nobody waits for a thread that is gone.
    #[must_use]
    pub const fn guard(&self) -> QueueGuard<'_> {
        QueueGuard(self)
    }

    fn offer(
        &self,
        bytes: usize,
        entries: usize,
        push: impl FnOnce(&mut Batch) -> Result<(), BatchFull>,
    ) -> Result<Ticket, QueueError> {
        let mut state = self.lock();
        let (ticket, wake) = self.put(&mut state, bytes, entries, push)?;
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(ticket)
    }

    fn offer_wait(
        &self,
        bytes: usize,
        entries: usize,
        push: impl Fn(&mut Batch) -> Result<(), BatchFull>,
    ) -> Result<Ticket, QueueError> {
        let mut state = self.lock();
        loop {
            match self.put(&mut state, bytes, entries, &push) {
                Err(QueueError::Full) => {
                    if self.tells(&mut state) {
                        self.filled.notify_one();
                    }
                    state.producers_asleep += 1;
                    state = wait(&self.room, state);
                    state.producers_asleep -= 1;
                }
                Err(error) => return Err(error),
                Ok((ticket, wake)) => {
                    drop(state);
                    if wake {
                        self.filled.notify_one();
                    }
                    return Ok(ticket);
                }
            }
        }
    }

    /// Queues entries under the lock; says whether the signer must be woken.
    fn put(
        &self,
        state: &mut State,
        bytes: usize,
        entries: usize,
        push: impl FnOnce(&mut Batch) -> Result<(), BatchFull>,
    ) -> Result<(Ticket, bool), QueueError> {
        if let Some(reason) = &state.failed {
            let reason = Arc::clone(reason);
            return Err(QueueError::Failed { reason });
        }
        if state.closed {
            return Err(QueueError::Closed);
        }
        let before = state.pending.len();
        if before > 0
            && (state.pending.bytes() + bytes + entries * ENTRY_BYTES > self.limits.bytes
                || before + entries > self.limits.entries)
        {
            state.pressed = true;
            return Err(QueueError::Full);
        }
        if let Err(full) = push(&mut state.pending) {
            state.pending.truncate(before);
            return Err(match full {
                BatchFull::Full if before > 0 => QueueError::Full,
                _ => QueueError::TooLong { bytes, entries },
            });
        }
        state.issued += entries as u64;
        let wake = self.tells(state);
        Ok((Ticket(state.issued), wake))
    }

    fn swap(&self, state: &mut State, into: &mut Batch) -> Taken {
        if state.failed.is_some() {
            return Taken::End;
        }
        if state.pending.is_empty() {
            return if state.closed {
                Taken::End
            } else {
                Taken::Nothing
            };
        }
        if !self.is_due(state) {
            return Taken::Nothing;
        }
        into.clear();
        core::mem::swap(&mut state.pending, into);
        state.pressed = false;
        let first = Ticket(state.taken + 1);
        state.taken = state.issued;
        self.ready.store(false, Ordering::Relaxed);
        if state.producers_asleep > 0 {
            self.room.notify_all();
        }
        Taken::Batch(Tickets {
            first,
            last: Ticket(state.taken),
        })
    }

    /// Tells a signer that spins of what is due; `true`: it sleeps, and whoever called wakes it.
    fn tells(&self, state: &mut State) -> bool {
        if state.pending.is_empty() || !self.is_due(state) {
            return false;
        }
        // Only the first of a batch writes to what the signer looks at.
        if !self.ready.load(Ordering::Relaxed) {
            self.ready.store(true, Ordering::Release);
        }
        core::mem::take(&mut state.signer_sleeps)
    }

    /// Whether what is pending may be taken now.
    const fn is_due(&self, state: &State) -> bool {
        !state.held
            || state.closed
            || state.pressed
            || state.pending.bytes() >= self.limits.bytes / 2
            || state.pending.len() >= self.limits.entries / 2
    }

    /// Spins while there is nothing, for a span that follows how often that was worth it: on a busy
    /// or a single core it soon is no span at all.
    fn spin(&self) {
        if self.ready.load(Ordering::Acquire) {
            return;
        }
        let turns = self.spin.load(Ordering::Relaxed);
        let paid_off = (0..turns).any(|_| {
            core::hint::spin_loop();
            self.ready.load(Ordering::Acquire)
        });
        let turns = if paid_off {
            turns.saturating_mul(2)
        } else {
            turns / 2
        };
        self.spin
            .store(turns.clamp(SPIN_MIN, SPIN_MAX), Ordering::Relaxed);
    }

    fn wake_all(&self) {
        self.ready.store(true, Ordering::Release);
        self.filled.notify_all();
        self.room.notify_all();
        self.advanced.notify_all();
    }

    /// A panic under the lock cannot leave the state torn: every step before the last is undone or
    /// whole, so the lock stays usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn at(&self, level: usize) -> u64 {
        assert!(level < LEVELS, "levels are those of spec/06 §8");
        if level == 0 {
            self.issued
        } else {
            self.reached[level]
        }
    }

    /// What a waiter gets, once it is known.
    fn outcome(&self, ticket: Ticket, level: usize) -> Option<Result<(), QueueError>> {
        if self.at(level) >= ticket.0 {
            return Some(Ok(()));
        }
        if let Some(reason) = &self.failed {
            let reason = Arc::clone(reason);
            return Some(Err(QueueError::Failed { reason }));
        }
        if self.closed && ticket.0 > self.issued {
            return Some(Err(QueueError::Closed));
        }
        self.ended.then_some(Err(QueueError::Ended))
    }
}

enum Taken {
    Batch(Tickets),
    Nothing,
    End,
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
    condition
        .wait(state)
        .unwrap_or_else(PoisonError::into_inner)
}

/// Fails its queue when a panic drops it; see [`Queue::guard`].
pub struct QueueGuard<'a>(&'a Queue);

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("a thread of the writer panicked");
        }
    }
}

/// Turns of at most 12 ns: about one wake-up of a sleeping thread.
const SPIN_MAX: u32 = 4096;
/// Enough to notice that spinning pays off again.
const SPIN_MIN: u32 = 16;

#[cfg(test)]
mod tests;
