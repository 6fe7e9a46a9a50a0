//! Appends entries: one thread signs, one thread a sink sends, nobody waits for the slowest.
//!
//! ```text
//!  callers ──push──▶ Queue ──▶ signer: Writer::seal ──▶ Window ──▶ sender ──▶ replica 1
//!     ▲                         (all that is queued)      │  └───▶ sender ──▶ replica 2
//!     │                                                   └──────▶ sender ──▶ journal
//!     └────────── wait(ticket, level) ◀── quorum of verified acknowledgements ──┘
//! ```
//!
//! In: entries from any number of threads. Out: [`Ticket`]s, durability levels, [`Receipt`]s. Always
//! true: both queues clock themselves: while one record is signed, or a quorum of replicas is busy, the
//! next one fills, because a replica checks a signature a record, whatever is in it; every buffer is bounded, a full one makes callers wait and never drops; a sink
//! that is slow or dead costs the others nothing; a level is reported only when the signed word of
//! enough replicas, or the disk, supports it.
//!
//! A key that outlives the process signs no record that is not in its home first, durably
//! (`pending`): a crash, a refusal or a liar never makes it sign another one for the same place.
//!
//! Cost of a put: one lock, one copy and its share of a record (see [`bield_capsule::Queue`] and
//! [`bield_capsule::Writer`]); no allocation, no system call. Of a record: two locks, one
//! allocation, one wake-up a sleeping thread; from a home also one write and one `fdatasync`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bield_capsule::{
    Batch, Config, Durability, EntryPlace, GenerationKey, Head, KeyRing, Metadata, Queue,
    QueueError, QueueLimits, Received, Ticket, WriteError, Writer,
};
use bield_envelope::Secret;

use super::home::CapsuleHomeError;
use super::pending::{PENDING_BYTES_DROP, PENDING_BYTES_MAX, Writing};
use super::prove::Kepts;
use super::sink::{Sink, SinkError};
use super::window::{Health, LANES_MAX, NotReached, SinkState, Window, Work};
use crate::{Kind, Randomness, now};

/// How an appender works.
#[derive(Debug, Clone, Copy)]
pub struct AppenderOptions {
    /// How much waits for the signer before callers are held back.
    pub limits: QueueLimits,
    /// How many sinks must keep a record before memory lets go of it.
    pub quorum: usize,
    /// Which sink is on this machine: what it keeps is `local`.
    pub local: Option<usize>,
    /// How long a sink may be silent before nobody hopes for it any more.
    pub patience: Duration,
}

impl Default for AppenderOptions {
    fn default() -> Self {
        Self {
            limits: QueueLimits::default(),
            quorum: 1,
            local: None,
            patience: Duration::from_secs(10),
        }
    }
}

/// Why an entry was not appended, or did not become durable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The queue is full, closed or failed, or the entry is too long.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// Too few replicas keep it.
    #[error(transparent)]
    NotReached(#[from] NotReached),
    /// The record could not be made.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Something in the home directory.
    #[error(transparent)]
    Home(#[from] CapsuleHomeError),
    /// More sinks than there can be.
    #[error("{0} sinks, at most {LANES_MAX}; leave some out")]
    Sinks(usize),
}

impl AppendError {
    /// What to do next.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NotReached(NotReached::Forked(_)) => Kind::Refused,
            Self::NotReached(_) => Kind::Unreachable,
            _ => Kind::Local,
        }
    }
}

/// Older records of the writer's chain, for a replica that lost touch.
pub trait Older: Send + Sync {
    /// Records from `from` on, before `end`; as many as are at hand, none when nobody has them.
    fn records(&self, from: u64, end: u64) -> Vec<Received>;
}

/// Appends to one writer's chain.
pub struct Appender {
    shared: Arc<Shared>,
    signer: Option<JoinHandle<()>>,
    senders: Vec<JoinHandle<()>>,
}

struct Shared {
    queue: Queue,
    window: Window,
    signing: Mutex<Signing>,
    older: Option<Box<dyn Older>>,
    quorum: Durability,
}

struct Signing {
    writer: Writer,
    generation: GenerationKey,
    /// Where records of a key that outlives this process are before they leave it.
    ahead: Option<Writing>,
}

/// How an appender ended.
#[derive(Debug)]
pub struct Finished {
    /// The chain's newest record.
    pub head: Option<Head>,
    /// That record, and who keeps exactly it and everything before: what [`Log::receipt`] takes.
    ///
    /// [`Log::receipt`]: super::Log::receipt
    pub newest: Option<Kepts>,
    /// How every sink is.
    pub sinks: Vec<SinkState>,
}

impl Appender {
    /// Starts the threads. `writer` is positioned; `first` are records it made already and nobody has
    /// yet, such as its open record. Without sinks records are signed and let go, which is a
    /// benchmark of everything but the network.
    ///
    /// # Errors
    /// Too many sinks.
    pub fn start(
        writer: Writer,
        generation: GenerationKey,
        first: Vec<Received>,
        sinks: Vec<Box<dyn Sink>>,
        options: AppenderOptions,
    ) -> Result<Self, AppendError> {
        Self::start_with(writer, generation, first, sinks, options, None, None)
    }

    pub(super) fn start_with(
        writer: Writer,
        generation: GenerationKey,
        first: Vec<Received>,
        sinks: Vec<Box<dyn Sink>>,
        options: AppenderOptions,
        older: Option<Box<dyn Older>>,
        writing: Option<Writing>,
    ) -> Result<Self, AppendError> {
        if sinks.len() > LANES_MAX {
            return Err(AppendError::Sinks(sinks.len()));
        }
        let end = writer.head().map_or(0, |head| head.seq + 1);
        let base = first.first().map_or(end, |record| record.header().seq);
        let names = sinks
            .iter()
            .map(|sink| (sink.name().to_owned(), sink.principal()));
        let window = Window::new(base, names, options.local, options.quorum, options.patience);
        let mut ahead = writing;
        for record in first {
            if let Some(ahead) = &mut ahead {
                ahead.keep(&record).map_err(CapsuleHomeError::from)?;
            }
            window.push(Arc::new(record), Ticket::new(0))?;
        }
        let shared = Arc::new(Shared {
            queue: Queue::new(options.limits),
            window,
            signing: Mutex::new(Signing {
                writer,
                generation,
                ahead,
            }),
            older,
            quorum: Durability::Replicated(u8::try_from(options.quorum).unwrap_or(u8::MAX)),
        });
        let senders = sinks.into_iter().enumerate().map(|(lane, sink)| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || send(lane, sink, base, &shared))
        });
        let senders = senders.collect();
        let signer = thread::spawn({
            let shared = Arc::clone(&shared);
            move || sign(&shared)
        });
        Ok(Self {
            shared,
            signer: Some(signer),
            senders,
        })
    }

    /// Queues an entry; never waits.
    ///
    /// # Errors
    /// The queue is full, or the writer has stopped.
    #[inline]
    pub fn push(&self, entry: &[u8]) -> Result<Ticket, QueueError> {
        self.shared.queue.push(entry)
    }

    /// Queues an entry, and waits for room if need be.
    ///
    /// # Errors
    /// The entry is too long, or the writer has stopped.
    #[inline]
    pub fn append(&self, entry: &[u8]) -> Result<Ticket, QueueError> {
        self.shared.queue.push_wait(entry)
    }

    /// Queues entries that stand side by side in one record, and waits for room if need be.
    ///
    /// # Errors
    /// They fit no record, or the writer has stopped.
    pub fn append_batch(&self, entries: &Batch) -> Result<Ticket, QueueError> {
        self.shared.queue.push_batch_wait(entries)
    }

    /// Seals entries whose keys can be destroyed one by one later into a record of their own. `keep`
    /// stores the keys; the record is sent after it has returned.
    ///
    /// # Errors
    /// They fit no record, or the keys cannot be stored: then the writer stops.
    pub fn append_erasable<E>(
        &self,
        metadata: &Metadata,
        entries: &[impl AsRef<[u8]>],
        keep: impl FnOnce(Vec<(EntryPlace, Secret)>) -> Result<(), E>,
    ) -> Result<Result<Head, E>, AppendError> {
        let (suite, name) = (metadata.suite(), metadata.name());
        let mut batch = Batch::new();
        let mut keys = Vec::with_capacity(entries.len());
        for entry in entries {
            let key = batch.push_erasable(suite, &name, entry.as_ref(), &mut Randomness);
            keys.push(key.map_err(|_| QueueError::TooLong {
                bytes: entries.iter().map(|entry| entry.as_ref().len()).sum(),
                entries: entries.len(),
            })?);
        }
        let mut signing = self.shared.signing();
        let record = signing.seal(&batch)?;
        let head = record.head();
        let places = (0..).map(|index| EntryPlace {
            writer: head.writer,
            seq: head.seq,
            index,
        });
        if let Err(error) = keep(places.zip(keys).collect()) {
            // The record exists and its place is taken, but nobody could ever read it.
            self.shared
                .stop("the keys of erasable entries could not be stored");
            return Ok(Err(error));
        }
        self.keep_ahead(&mut signing, &record)?;
        self.shared.window.push(Arc::new(record), Ticket::new(0))?;
        Ok(Ok(head))
    }

    fn keep_ahead(&self, signing: &mut Signing, record: &Received) -> Result<(), AppendError> {
        let quorum = self.shared.quorum;
        signing
            .keep(record, &self.shared.window, quorum)
            .inspect_err(|error| self.shared.stop(&error.to_string()))
    }

    /// Waits until an entry has reached `level`.
    ///
    /// # Errors
    /// Too few sinks are left, or the writer stopped.
    pub fn wait(&self, ticket: Ticket, level: Durability) -> Result<(), NotReached> {
        if level == Durability::Memory {
            return Ok(());
        }
        self.shared.window.wait(ticket, level)
    }

    /// Waits until the record `seq` has reached `level`.
    ///
    /// # Errors
    /// As [`Appender::wait`].
    pub fn wait_record(&self, seq: u64, level: Durability) -> Result<(), NotReached> {
        self.shared.window.wait_record(seq, level)
    }

    /// The newest ticket that has reached `level`.
    #[must_use]
    pub fn reached(&self, level: Durability) -> Ticket {
        self.shared.window.reached(level)
    }

    /// Whether the record `seq` has reached `level`.
    #[must_use]
    pub fn has_reached(&self, seq: u64, level: Durability) -> bool {
        self.shared.window.has_reached(seq, level)
    }

    /// How every sink is, in the order in which they were given.
    #[must_use]
    pub fn sinks(&self) -> Vec<SinkState> {
        self.shared.window.sinks()
    }

    /// The chain's newest record.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.shared.signing().writer.head()
    }

    /// Names a newer configuration from the next record on, and seals under its newest generation.
    ///
    /// # Errors
    /// A head that is older or of another chain, or a generation whose key is not in `ring`.
    pub fn reconfigure(&self, config: &Config, ring: &KeyRing) -> Result<(), WriteError> {
        let generation =
            super::log::key_of(ring, config.generation()).ok_or(WriteError::Generation)?;
        let mut signing = self.shared.signing();
        if let Some(head) = config.head() {
            signing.writer.adopt_config(head)?;
            signing.generation = generation;
        }
        Ok(())
    }

    /// The newest record and the signed words of replicas that keep exactly it and what is before.
    #[must_use]
    pub fn newest(&self) -> Option<Kepts> {
        let (record, acknowledgements) = self.shared.window.newest()?;
        Some(Kepts {
            record: Received::clone(&record),
            acknowledgements,
        })
    }

    /// Takes no more entries, waits until all that were queued are sealed and have reached `level`.
    ///
    /// # Errors
    /// As [`Appender::wait`].
    pub fn flush(&mut self, level: Durability) -> Result<(), AppendError> {
        self.shared.queue.close();
        if let Some(signer) = self.signer.take() {
            // A panic there has failed the queue, and the window is told below.
            if signer.join().is_err() {
                self.shared.stop("the signing thread panicked");
            }
        }
        let end = self.shared.window.end();
        match end.checked_sub(1) {
            Some(last) if level > Durability::Sent => Ok(self.wait_record(last, level)?),
            _ => self
                .shared
                .window
                .is_stopped()
                .map_or(Ok(()), |why| Err(why.into())),
        }
    }

    /// Flushes to `level`, gives working sinks a moment to catch up, and ends.
    ///
    /// # Errors
    /// As [`Appender::flush`]. The home directory then keeps what no quorum has, and the next process
    /// sends it again first.
    pub fn finish(mut self, level: Durability) -> Result<Finished, AppendError> {
        let flushed = self.flush(level);
        if flushed.is_ok() {
            self.shared.window.settle(GRACE);
        }
        let end = self.shared.window.end();
        // More may have been asked for than the quorum: the chain is safe to go on from all the same.
        let quorum = self.shared.quorum;
        let safe = end
            .checked_sub(1)
            .is_none_or(|last| self.wait_record(last, quorum).is_ok());
        let finished = Finished {
            head: self.head(),
            newest: self.newest(),
            sinks: self.sinks(),
        };
        self.shared.window.end_here();
        if safe {
            let mut signing = self.shared.signing();
            if let (Some(ahead), Some(head)) = (&mut signing.ahead, finished.head) {
                ahead.settled(head)?;
            }
        }
        // Senders end by themselves; one that waits for a dead replica must not hold this up.
        self.senders.retain(|sender| !sender.is_finished());
        flushed.map(|()| finished)
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.stop("it was given up");
        // Nothing is sealed any more when the right to write ends.
        if let Some(signer) = self.signer.take() {
            let _ = signer.join();
        }
        self.shared.signing().ahead = None;
    }
}

impl Shared {
    fn signing(&self) -> MutexGuard<'_, Signing> {
        self.signing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// While a quorum of replicas is busy the batch grows: they clock the signer, as the signer clocks
    /// the callers. Measured with three replicas on this machine, 100 B at half of what they take: 4 ms
    /// instead of 200 to a quorum, 600 records a second instead of 5,000.
    fn clock(&self) {
        self.window.clock(|busy| self.queue.hold(busy));
    }

    fn stop(&self, why: &str) {
        self.queue.fail(why);
        self.window.stop(why.to_owned());
    }
}

impl Signing {
    fn seal(&mut self, batch: &Batch) -> Result<Received, WriteError> {
        self.writer
            .seal(batch, &self.generation, &[], now(), &mut Randomness)
    }

    /// Keeps a record in the home before it leaves the machine; drops what a quorum keeps now and then.
    fn keep(
        &mut self,
        record: &Received,
        window: &Window,
        quorum: Durability,
    ) -> Result<(), AppendError> {
        let Some(ahead) = &mut self.ahead else {
            return Ok(());
        };
        if let Some(before) = record.header().seq.checked_sub(1)
            && ahead.bytes() >= PENDING_BYTES_DROP
        {
            if ahead.bytes() >= PENDING_BYTES_MAX {
                window.wait_record(before, quorum)?;
            }
            if window.has_reached(before, quorum) {
                ahead.settled(Head {
                    writer: record.header().writer,
                    seq: before,
                    hash: record.header().prev,
                })?;
            }
        }
        Ok(ahead.keep(record).map_err(CapsuleHomeError::from)?)
    }
}

/// The signer: all that is queued becomes a record, again and again.
fn sign(shared: &Shared) {
    let _guard = shared.queue.guard();
    let mut batch = Batch::new();
    while let Some(tickets) = shared.queue.take(&mut batch) {
        // Held until the record is in the window: the chain's order is the window's.
        let mut signing = shared.signing();
        let record = match signing.seal(&batch) {
            Ok(record) => Arc::new(record),
            Err(error) => return shared.stop(&error.to_string()),
        };
        if let Err(error) = signing.keep(&record, &shared.window, shared.quorum) {
            return shared.stop(&error.to_string());
        }
        if let Err(error) = shared.window.push(record, tickets.last) {
            return shared.stop(&error.to_string());
        }
        drop(signing);
        shared.clock();
    }
}

/// A sender: all that its sink does not have yet goes out in one run, again and again.
fn send(lane: usize, mut sink: Box<dyn Sink>, base: u64, shared: &Shared) {
    let window = &shared.window;
    let mut run = Vec::new();
    let mut cursor = base;
    let mut pause = PAUSE_MIN;
    let rest = |health: Health, pause: &mut Duration| {
        window.ails(lane, health);
        shared.clock();
        let ends = window.rest(*pause);
        *pause = (*pause * 2).min(PAUSE_MAX);
        ends
    };
    loop {
        match window.next(cursor, &mut run) {
            Work::Done => return,
            Work::Run => {}
            Work::Behind { end } => {
                window.ails(lane, Health::CatchingUp);
                let older = shared.older.as_ref();
                run.extend(
                    older
                        .map(|older| older.records(cursor, end))
                        .unwrap_or_default()
                        .into_iter()
                        .map(Arc::new),
                );
                if run.is_empty() {
                    let why = format!(
                        "{} misses record {cursor}, which no other replica gives out now",
                        sink.name()
                    );
                    if rest(Health::Down(why), &mut pause) {
                        return;
                    }
                    continue;
                }
            }
        }
        window.sends(lane);
        match sink.keep(&run) {
            Ok(stored) => {
                cursor = stored.head.seq + 1;
                pause = PAUSE_MIN;
                window.kept(lane, stored);
                shared.clock();
            }
            Err(SinkError::Gap { have }) => {
                let next = have.map_or(0, |have| have.saturating_add(1));
                if next > window.end() {
                    let why = format!(
                        "{} has a record {} of this writer, which it never wrote: another process has \
                         its key",
                        sink.name(),
                        next - 1
                    );
                    window.ails(lane, Health::Out(why));
                    return shared.clock();
                }
                if next == cursor {
                    // It says that it misses nothing, and still does not take it.
                    let why = format!("{} sees a gap where none is", sink.name());
                    if rest(Health::Down(why), &mut pause) {
                        return;
                    }
                }
                cursor = next;
            }
            Err(SinkError::Down(why)) => {
                if rest(Health::Down(why), &mut pause) {
                    return;
                }
            }
            Err(SinkError::Out(why)) => {
                window.ails(lane, Health::Out(why));
                return shared.clock();
            }
            Err(SinkError::Forked(why)) => {
                window.ails(lane, Health::Out(why.clone()));
                shared.queue.fail(&why);
                return window.stop_for(NotReached::Forked(why));
            }
        }
    }
}

/// Pause before a sink that failed is tried again; doubles up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long the end waits for replicas beyond the quorum.
const GRACE: Duration = Duration::from_millis(500);
