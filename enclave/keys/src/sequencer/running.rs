//! A service that has its state and its log: what all threads share.
//!
//! Always true: what readers are shown was applied; what must not be shown before it counts is shown after
//! [`Running::wait_until_counted`]; the published checkpoint covers records that count, and only grows;
//! once there is [`Trouble`], it stays, and nothing is served any more; one snapshot is written at a time, by a
//! thread that holds no lock while it seals and writes.
//!
//! Lock order: state, then ledger, then the rest; nobody waits for the sequencer with a lock in hand.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard,
    RwLockWriteGuard,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bield_capsule::Received;
use bield_envelope::{Digest, Principal, Time};
use bield_ledger::{Ledger, LedgerError, SnapshotJob};
use bield_platform::Randomness;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::Reply;
use bield_tlog::{Hash, VerifiedCheckpoint};

use super::queue::{NotQueued, Queue};
use super::{Caller, Job, not_durable};
use crate::files::SharedFiles;
use crate::limits::lock;
use crate::metrics::Metrics;
use crate::state::{Ask, State};
use crate::witnesses::{NotCosigned, Proofs};

/// Told once, when the service ends for good.
pub(crate) type Fate = Box<dyn Fn(&Trouble) + Send + Sync>;
/// The host's clock.
pub(crate) type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// Why nothing is served any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Stable short name of the refusal.
    pub(crate) code: &'static str,
    /// One sentence, which names no principal, package or model.
    pub(crate) sentence: String,
    /// Whether the caller may find another instance, or this one restarted.
    pub(crate) passing: bool,
}

impl Trouble {
    pub(crate) fn rolled_back(sentence: String) -> Self {
        Self {
            code: "rolled-back",
            sentence,
            passing: false,
        }
    }

    pub(crate) fn forked(sentence: String) -> Self {
        Self {
            code: "forked",
            sentence,
            passing: false,
        }
    }

    /// The program is wrong, or its files are: it serves nothing from here.
    pub(crate) fn fault(why: &dyn core::fmt::Display) -> Self {
        Self {
            code: "stopped",
            sentence: format!(
                "the service stopped: {why}; its operator must look and start it again"
            ),
            passing: true,
        }
    }

    /// This instance ends, and the same or another one goes on.
    pub(crate) fn passing(why: &dyn core::fmt::Display) -> Self {
        Self {
            code: "not-leader",
            sentence: why.to_string(),
            passing: true,
        }
    }

    /// What witnesses saw.
    pub(crate) fn witnessed(why: &NotCosigned) -> Self {
        match why {
            NotCosigned::RolledBack { .. } => Self::rolled_back(why.to_string()),
            NotCosigned::Forked { .. } => Self::forked(why.to_string()),
            NotCosigned::TooFew { .. } => Self::fault(why),
        }
    }

    pub(crate) fn refusal(&self) -> Refusal {
        let retry = if self.passing {
            Retry::After(1000)
        } else {
            Retry::AfterChange
        };
        Refusal::new(self.code, &self.sentence, retry)
    }
}

/// State, log, queue, and what is known of them.
pub(crate) struct Running {
    state: RwLock<State>,
    service: Mutex<Principal>,
    ledger: Mutex<Ledger>,
    pub(super) queue: Queue<Caller, Job>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) files: SharedFiles,
    clock: Clock,
    /// The newest checkpoint that counts.
    published: Mutex<VerifiedCheckpoint>,
    grown: Condvar,
    /// Size of the log that holds everything that was applied.
    applied: AtomicU64,
    /// Size of the log at the newest snapshot, or at the start.
    snapshot: AtomicU64,
    /// Writes a snapshot, or has written one.
    writer: Mutex<Option<JoinHandle<()>>>,
    /// After a snapshot that failed.
    next_snapshot: Mutex<Instant>,
    trouble: OnceLock<Trouble>,
    /// Other instances share this log: this one's slot, and how many there are.
    group: OnceLock<(u8, u8)>,
    fate: Fate,
    outage: Mutex<Option<String>>,
    /// The record that this instance made last: the state has its entries.
    own: Mutex<Option<Digest>>,
}

impl Running {
    pub(crate) fn new(
        state: State,
        ledger: Ledger,
        files: SharedFiles,
        clock: Clock,
        metrics: Arc<Metrics>,
        fate: Fate,
    ) -> Arc<Self> {
        let size = ledger.size();
        metrics.records.set(size);
        Arc::new(Self {
            service: Mutex::new(state.service()),
            published: Mutex::new(ledger.checkpoint(None)),
            grown: Condvar::new(),
            applied: AtomicU64::new(size),
            snapshot: AtomicU64::new(size),
            writer: Mutex::default(),
            next_snapshot: Mutex::new(Instant::now()),
            state: RwLock::new(state),
            ledger: Mutex::new(ledger),
            queue: Queue::new(),
            metrics,
            files,
            clock,
            trouble: OnceLock::new(),
            group: OnceLock::new(),
            fate,
            outage: Mutex::default(),
            own: Mutex::default(),
        })
    }

    /// Queues an ask and waits for its answer.
    pub(crate) fn submit(&self, by: Caller, ask: Ask) -> Reply {
        if let Some(trouble) = self.trouble() {
            return Reply::Refused(trouble.refusal());
        }
        let (job, answer) = Job::new(ask);
        match self.queue.push(by, job) {
            Ok(()) => {}
            Err(NotQueued::Full) => return Reply::Refused(busy()),
            Err(NotQueued::Closed) => return Reply::Refused(self.ending()),
        }
        match answer.recv_timeout(ANSWER_WAIT) {
            Ok(reply) => reply,
            Err(RecvTimeoutError::Timeout) => Reply::Refused(not_durable(&"the storage is slow")),
            Err(RecvTimeoutError::Disconnected) => Reply::Refused(self.ending()),
        }
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|poisoned| {
            // A panic while it was written ends the service: what is read now is never shown.
            self.stop(Trouble::fault(&"it found a fault in itself"));
            poisoned.into_inner()
        })
    }

    /// The service's principal, without waiting for whoever writes: then as it was when it was last read.
    pub(crate) fn service(&self) -> Principal {
        let mut known = lock(&self.service);
        if let Ok(state) = self.state.try_read() {
            *known = state.service();
        }
        *known
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn host_time(&self) -> Time {
        (self.clock)()
    }

    /// The time: the host's, and never before the newest record.
    pub(crate) fn now(&self) -> Time {
        let host = self.host_time();
        self.ledger().now(host)
    }

    /// Remembers the record that holds what was applied here.
    pub(super) fn made(&self, record: &Received) {
        *lock(&self.own) = Some(record.hash());
    }

    /// Whether the state has this record's entries already, since this instance made it.
    pub(crate) fn is_own(&self, record: &Received) -> bool {
        *lock(&self.own) == Some(record.hash())
    }

    /// Takes it apart: for a member that is given another state.
    pub(crate) fn into_parts(self) -> (State, Ledger) {
        let state = self
            .state
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let ledger = self
            .ledger
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        (state, ledger)
    }

    /// Size of the log that counts.
    pub(crate) fn size(&self) -> u64 {
        lock(&self.published).checkpoint().size()
    }

    /// The newest checkpoint that counts.
    pub(crate) fn published(&self) -> VerifiedCheckpoint {
        lock(&self.published).clone()
    }

    pub(crate) fn publish(&self, checkpoint: VerifiedCheckpoint) {
        let size = checkpoint.checkpoint().size();
        self.metrics.records.set(size);
        *lock(&self.published) = checkpoint;
        self.grown.notify_all();
    }

    /// The record of this index is in the state now.
    pub(crate) fn applied(&self, record: u64) {
        self.applied.store(record + 1, Ordering::SeqCst);
    }

    /// Waits until everything that was applied counts; call it after the state was read.
    ///
    /// # Errors
    /// It does not in time, or the service is over.
    pub(crate) fn wait_until_counted(&self) -> Result<(), Refusal> {
        if let Some(trouble) = self.trouble() {
            return Err(trouble.refusal());
        }
        let size = self.applied.load(Ordering::SeqCst);
        let deadline = Instant::now() + COUNTED_WAIT;
        let mut published = lock(&self.published);
        while published.checkpoint().size() < size {
            if let Some(trouble) = self.trouble() {
                return Err(trouble.refusal());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(not_durable(&self.outage_reason()));
            }
            let woken = self.grown.wait_timeout(published, left);
            published = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Ends the service for good: everybody is refused with `trouble` from now on.
    pub(crate) fn stop(&self, trouble: Trouble) {
        let mut first = false;
        let kept = self.trouble.get_or_init(|| {
            first = true;
            trouble
        });
        self.queue.close();
        self.grown.notify_all();
        if first {
            (self.fate)(kept);
        }
    }

    /// Says that other instances share this log: one of them may be ahead of this one, rightly.
    pub(crate) fn share_log(&self, slot: u8, members: u8) {
        // Said once, when it is made.
        let _ = self.group.set((slot, members));
    }

    /// Whether other instances share this log.
    pub(crate) fn shares_log(&self) -> bool {
        self.group.get().is_some()
    }

    pub(crate) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.get()
    }

    /// Takes no more asks; what is queued is served.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Remembers why nothing becomes durable; `None` when it does again.
    pub(super) fn outage(&self, why: Option<String>) {
        self.metrics.not_durable.set(u64::from(why.is_some()));
        *lock(&self.outage) = why;
    }

    /// Why nothing becomes durable now, if so.
    pub(crate) fn outage_now(&self) -> Option<String> {
        lock(&self.outage).clone()
    }

    pub(crate) fn outage_reason(&self) -> String {
        self.outage_now()
            .unwrap_or_else(|| "the storage is slow".to_owned())
    }

    /// Has a thread write a snapshot of what counts, if one is due, none is being written, and other members of
    /// a group do not begin theirs now. Only between records.
    pub(crate) fn snapshot_if_due(self: &Arc<Self>) {
        if self.wants_snapshot() {
            self.snapshot_apart();
        }
    }

    /// Has a thread write a snapshot of what counts.
    pub(super) fn snapshot_apart(self: &Arc<Self>) {
        let Ok(Some(job)) = self.begin_snapshot() else {
            return self.put_snapshots_off();
        };
        let running = Arc::clone(self);
        let writer = std::thread::Builder::new()
            .name("snapshot".into())
            .spawn(move || {
                let written = catch_unwind(AssertUnwindSafe(|| running.write_snapshot(job)));
                if written.is_err() {
                    running.stop(Trouble::fault(&"it found a fault in itself"));
                }
            });
        match writer {
            Ok(writer) => *lock(&self.writer) = Some(writer),
            Err(_) => self.give_snapshot_up(),
        }
    }

    /// Writes a snapshot of what counts, after the one that is being written; tells whether there is one. Only
    /// between records.
    pub(crate) fn snapshot(&self) -> bool {
        self.finish_snapshot();
        match self.begin_snapshot() {
            Ok(Some(job)) => self.write_snapshot(job),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Waits until no snapshot is being written. After [`Running::stop`] that is the end of one write.
    pub(crate) fn finish_snapshot(&self) {
        let writer = lock(&self.writer).take();
        if let Some(writer) = writer {
            // Its panics were caught where they happened.
            drop(writer.join());
        }
    }

    fn wants_snapshot(&self) -> bool {
        let ledger = self.ledger();
        let turn = |(slot, members): &(u8, u8)| has_turn(ledger.size(), *slot, *members);
        ledger.wants_snapshot()
            && self.group.get().is_none_or(turn)
            && Instant::now() >= *lock(&self.next_snapshot)
    }

    /// Encodes the state, which nobody changes meanwhile: this is all that orders wait for.
    fn begin_snapshot(&self) -> Result<Option<SnapshotJob>, LedgerError> {
        let state = self.state();
        let index = self.ledger().size();
        if self.applied.load(Ordering::SeqCst) != index {
            // The state is ahead by a record that is on its way.
            return Err(LedgerError::Uncommitted { index });
        }
        let blocks = state.to_blocks();
        let mut ledger = self.ledger();
        if ledger.size() != index {
            // A follower's log grows before its state does.
            return Err(LedgerError::Uncommitted { index });
        }
        ledger.begin_snapshot(blocks, &mut Randomness)
    }

    /// Seals and writes it, with no lock in hand; tells whether it counts.
    fn write_snapshot(&self, mut job: SnapshotJob) -> bool {
        let mut files = self.files.clone();
        let written = loop {
            if self.trouble().is_some() {
                // As when the process ends: what there is of it counts for nothing.
                return false;
            }
            match job.step(&mut files) {
                Ok(None) => {}
                Ok(Some(written)) => break written,
                Err(_) => {
                    self.give_snapshot_up();
                    return false;
                }
            }
        };
        self.snapshot.store(written.size(), Ordering::SeqCst);
        self.metrics.snapshots.add(1);
        // Older ones that the host does not remove now are removed after the next one.
        drop(self.ledger().end_snapshot(Some(written)));
        true
    }

    fn give_snapshot_up(&self) {
        self.put_snapshots_off();
        // What the host does not remove now is removed before the next one.
        drop(self.ledger().end_snapshot(None));
    }

    /// The log is as good without; a host that cannot store one is not asked at every record.
    fn put_snapshots_off(&self) {
        *lock(&self.next_snapshot) = Instant::now() + SNAPSHOT_PAUSE;
    }

    /// Whether the next start would have more to replay than is worth a snapshot at the end.
    pub(super) fn is_worth_a_snapshot(&self) -> bool {
        let ledger = self.ledger();
        let since = ledger
            .size()
            .saturating_sub(self.snapshot.load(Ordering::SeqCst));
        !ledger.is_pending() && since >= SNAPSHOT_AT_END_RECORDS
    }

    fn ending(&self) -> Refusal {
        match self.trouble() {
            Some(trouble) => trouble.refusal(),
            None => Refusal::new(
                "ending",
                "this instance of the key service ends; ask again when it is back",
                Retry::After(1000),
            ),
        }
    }
}

impl Proofs for Running {
    fn consistency(&self, old: u64, new: u64) -> Option<Vec<Hash>> {
        self.ledger().consistency_to(old, new).ok()
    }
}

/// Whether this stretch of the log is the one in which the member in `slot` begins its snapshots: whoever begins
/// one answers nobody while it encodes its state, and shares its disk while it writes; a majority must not do so
/// at once.
fn has_turn(size: u64, slot: u8, members: u8) -> bool {
    (size / SNAPSHOT_TURN_RECORDS) % u64::from(members.max(1)) == u64::from(slot)
}

fn busy() -> Refusal {
    Refusal::new(
        "busy",
        "the key service has as many orders waiting as it takes; ask again",
        Retry::After(500),
    )
}

/// The longest a session waits for an answer: a record is tried again for as long as it takes, but its
/// callers are told at the first failure.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// The longest a reader waits for what it read to count.
const COUNTED_WAIT: Duration = Duration::from_secs(5);
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(60);
/// Records of a member's turn: seconds under load, and little more to replay than is due anyway.
const SNAPSHOT_TURN_RECORDS: u64 = 256;
/// Records whose replay takes about as long as a small snapshot.
const SNAPSHOT_AT_END_RECORDS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_begin_their_snapshots_at_different_sizes() {
        for members in [3, 5] {
            let mut turns = vec![0; usize::from(members)];
            for size in 0..10 * SNAPSHOT_TURN_RECORDS * u64::from(members) {
                let mut now = (0..members).filter(|slot| has_turn(size, *slot, members));
                turns[usize::from(now.next().unwrap())] += 1;
                assert_eq!(now.next(), None, "two at {size}");
            }
            assert!(turns.iter().all(|turn| *turn == turns[0]));
        }
    }
}
