//! One thread decides the order of everything that changes, and answers when it counts.
//!
//! ```text
//! sessions ──submit──▶ queue (one of each in turn) ──▶ check, apply ──▶ one record ──▶ commit ──▶ witnesses ──▶ answers
//!                                                      all that waits     sealed        durable     cosigned
//! ```
//!
//! Goes in: what was asked, by whom, signatures checked. Comes out: a reply for each, after the record
//! that holds its entries counts. Always true: one record is on its way at a time, and while it is, no
//! other is made; while a record is written, asks gather for the next one, so the price of a durable write
//! is divided by the load; a record that could not be stored is stored again, byte for byte, and until
//! then everybody is told `not-durable`; the state is ahead of the log by that record at most.
//!
//! A panic anywhere here ends the service ([`Running::stop`]): what was applied and not committed must
//! never be shown. Left to others: how a record comes to count ([`Commit`]), what an ask means (`state`).
//!
//! On paper: an Ed25519 signature and a durable write for each record, of up to [`BATCH_MAX`] asks.

pub(crate) mod queue;
mod running;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bield_capsule::Received;
use bield_envelope::{Principal, Time};
use bield_ledger::LedgerError;
use bield_platform::Randomness;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::Reply;
use zeroize::Zeroizing;

use crate::recovery;
use crate::state::{Answer, Ask, Checked, Entry, Order};
use crate::witnesses::{NotCosigned, Proofs, Witnesses};
pub(crate) use running::{Clock, Running, Trouble};

/// Who asked: each has its turn.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// A principal.
    Principal(Principal),
    /// Runtimes that want this owner's packages, apart from what the owner orders itself; none: packages that
    /// there are not.
    Owner(Option<Principal>),
    /// The program itself.
    Program,
}

/// Something that was asked, and where its answer goes.
pub(crate) struct Job {
    ask: Ask,
    answer: SyncSender<Reply>,
}

impl Job {
    pub(crate) fn new(ask: Ask) -> (Self, Receiver<Reply>) {
        let (answer, receiver) = sync_channel(1);
        (Self { ask, answer }, receiver)
    }

    fn answer(self, reply: Reply) {
        // Who does not wait any more needs no answer.
        drop(self.answer.try_send(reply));
    }
}

/// How a record comes to count: alone, or by the word of a group.
pub(crate) trait Commit: Send {
    /// Makes `record` durable, here and wherever it must be.
    ///
    /// # Errors
    /// [`NotYet`].
    fn commit(&mut self, running: &Running, record: &Received) -> Result<(), NotYet>;
}

/// Why a record does not count yet.
#[derive(Debug)]
pub(crate) enum NotYet {
    /// The same record may be tried again.
    Again(String),
    /// It never will here: the service ends.
    Over(Trouble),
}

/// A service of one instance: what is in its log counts.
pub(crate) struct Solo;

impl Commit for Solo {
    fn commit(&mut self, running: &Running, record: &Received) -> Result<(), NotYet> {
        match running.ledger().commit(record) {
            Ok(_) | Err(LedgerError::Known { .. }) => Ok(()),
            Err(error @ LedgerError::NotDurable(_)) => Err(NotYet::Again(error.to_string())),
            Err(error) => Err(NotYet::Over(Trouble::fault(&error))),
        }
    }
}

/// The thread's own.
pub(crate) struct Sequencer {
    running: Arc<Running>,
    commit: Box<dyn Commit>,
    witnesses: Witnesses,
    /// What did not fit the record before.
    carried: Option<Job>,
}

/// Asks whose entries share a record.
struct Batch {
    /// The record's clock: each of its entries was checked and applied with it.
    at: Time,
    entries: Vec<Zeroizing<Vec<u8>>>,
    bytes: usize,
    /// What the answers take, about.
    reply_bytes: usize,
    answers: Vec<(SyncSender<Reply>, Said)>,
    /// Recovery files of this generation were written for it.
    shares: Option<u32>,
}

enum Said {
    Answer(Answer),
    Refused(Refusal),
}

impl Sequencer {
    pub(crate) fn new(
        running: Arc<Running>,
        commit: Box<dyn Commit>,
        witnesses: Witnesses,
    ) -> Self {
        Self {
            running,
            commit,
            witnesses,
            carried: None,
        }
    }

    /// Serves until the queue is closed and empty, or the service is over.
    pub(crate) fn run(mut self) {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.serve()));
        let over = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(trouble)) => Some(trouble),
            Err(_) => Some(Trouble::fault(&"it found a fault in itself")),
        };
        if let Some(trouble) = over {
            self.running.stop(trouble);
        }
        // Dropped jobs tell their callers that there is no answer.
        self.running.queue.close();
        while self.running.queue.pop().is_some() {}
        self.running.finish_snapshot();
    }

    fn serve(&mut self) -> Result<(), Trouble> {
        while let Some(job) = self.next() {
            let mut batch = self.gather(job)?;
            let counted = batch.entries.is_empty()
                || match self.make_count(&mut batch) {
                    Ok(counted) => counted,
                    Err(trouble) => {
                        // First it is over, then its callers hear that it is.
                        self.running.stop(trouble.clone());
                        batch.refuse(&trouble.refusal());
                        return Ok(());
                    }
                };
            if !counted {
                batch.tell_not_durable(&"the program ends");
                return Ok(());
            }
            self.answer(batch);
            self.running.snapshot_if_due();
            if self.running.trouble().is_some() {
                return Ok(());
            }
        }
        self.last_snapshot();
        Ok(())
    }

    fn next(&mut self) -> Option<Job> {
        self.carried.take().or_else(|| self.running.queue.wait())
    }

    /// Checks and applies what waits, as far as one record holds it.
    fn gather(&mut self, first: Job) -> Result<Batch, Trouble> {
        let running = Arc::clone(&self.running);
        let (record, now) = {
            let ledger = running.ledger();
            (ledger.size(), ledger.now(running.host_time()))
        };
        let mut batch = Batch::at(now);
        let mut state = running.state_mut();
        let mut next = Some(first);
        while let Some(mut job) = next.take() {
            recovery::fill(&mut job.ask, &state, running.ledger().root());
            match state.check(&job.ask, now) {
                Err(refusal) => batch.answers.push((job.answer, Said::Refused(refusal))),
                Ok(Checked { entries, answer }) => {
                    let encoded: Vec<_> = entries.iter().map(Entry::encode).collect();
                    let bytes: usize = encoded.iter().map(|entry| entry.len() + ENTRY_BYTES).sum();
                    if batch.bytes + bytes > RECORD_BYTES && !batch.entries.is_empty() {
                        self.carried = Some(job);
                        break;
                    }
                    if let Err(refusal) = self.prepare_shares(&job.ask, &entries, &mut batch) {
                        batch.answers.push((job.answer, Said::Refused(refusal)));
                    } else {
                        for entry in &entries {
                            let applied = state.apply(entry, record, now);
                            if let Err(error) = applied {
                                // Said before anybody reads what was applied by halves.
                                let trouble = Trouble::fault(&error);
                                running.stop(trouble.clone());
                                return Err(trouble);
                            }
                        }
                        batch.bytes += bytes;
                        batch.reply_bytes += answer.bytes();
                        batch.entries.extend(encoded);
                        batch.answers.push((job.answer, Said::Answer(answer)));
                    }
                }
            }
            if batch.answers.len() < BATCH_MAX && batch.reply_bytes < REPLIES_BYTES {
                next = running.queue.pop();
            }
        }
        if !batch.entries.is_empty() {
            running.applied(record);
        }
        Ok(batch)
    }

    /// Writes the recovery box before the entry that makes it count: a box nobody ordered opens nothing
    /// more than the one before, but an order without its box would be a promise.
    fn prepare_shares(
        &self,
        ask: &Ask,
        entries: &[Entry],
        batch: &mut Batch,
    ) -> Result<(), Refusal> {
        let Ask::Order {
            order: Order::MakeShares { shares, .. },
            ..
        } = ask
        else {
            return Ok(());
        };
        if entries.is_empty() {
            return Ok(());
        }
        let written = recovery::write_box(&self.running, shares);
        batch.shares = shares.first().map(|share| share.generation);
        written.map_err(|error| not_durable(&error))
    }

    /// Seals the batch's record and has it count; `false` when the program ends before it does.
    fn make_count(&mut self, batch: &mut Batch) -> Result<bool, Trouble> {
        let running = Arc::clone(&self.running);
        let sealed = {
            let mut ledger = running.ledger();
            let entries: Vec<&[u8]> = batch.entries.iter().map(|entry| entry.as_slice()).collect();
            ledger.seal(&entries, batch.at, &mut Randomness)
        };
        let record = sealed.map_err(|error| Trouble::fault(&error))?;
        running.made(&record);
        let mut stored = false;
        let mut outage = Outage::default();
        loop {
            let attempt = if stored {
                Ok(())
            } else {
                self.commit.commit(&running, &record)
            };
            let attempt = attempt.and_then(|()| {
                stored = true;
                self.witnessed()
            });
            match attempt {
                Ok(()) => {
                    running.outage(None);
                    return Ok(true);
                }
                Err(NotYet::Over(trouble)) => return Err(trouble),
                Err(NotYet::Again(why)) => {
                    running.outage(Some(why.clone()));
                    batch.tell_not_durable(&why);
                    if !outage.wait(&running) {
                        return Ok(false);
                    }
                }
            }
            if running.trouble().is_some() {
                return Ok(false);
            }
        }
    }

    /// Has the newest checkpoint cosigned, if there are witnesses, and shows it to everybody.
    fn witnessed(&self) -> Result<(), NotYet> {
        let checkpoint = self.running.ledger().checkpoint(None);
        let proofs: Arc<dyn Proofs> = Arc::clone(&self.running) as _;
        match self.witnesses.cosign(checkpoint, &proofs) {
            Ok(checkpoint) => {
                self.running.publish(checkpoint);
                Ok(())
            }
            Err(few @ NotCosigned::TooFew { .. }) => {
                self.running.metrics.witness_failures.add(1);
                Err(NotYet::Again(few.to_string()))
            }
            Err(set_back) => Err(NotYet::Over(self.set_back(&set_back))),
        }
    }

    /// What it means that witnesses saw more: in a group others may rightly be ahead, and this instance joins them.
    fn set_back(&self, why: &NotCosigned) -> Trouble {
        match why {
            NotCosigned::RolledBack { .. } if self.running.shares_log() => Trouble::passing(why),
            _ => Trouble::witnessed(why),
        }
    }

    fn answer(&self, batch: Batch) {
        let size = self.running.size();
        for (answer, said) in batch.answers {
            let reply = match said {
                Said::Refused(refusal) => Reply::Refused(refusal),
                Said::Answer(said) => said.reply(size),
            };
            // Who does not wait any more needs no answer.
            drop(answer.try_send(reply));
        }
        if let Some(generation) = batch.shares {
            recovery::forget_before(&self.running, generation);
        }
    }

    /// So that the next start has little to replay.
    fn last_snapshot(&self) {
        self.running.finish_snapshot();
        if self.running.is_worth_a_snapshot() {
            self.running.snapshot();
        }
    }
}

/// A time in which nothing becomes durable.
#[derive(Default)]
struct Outage {
    attempts: u32,
}

impl Outage {
    /// Waits before the next attempt, and tells those who ask meanwhile. `false` when the program ends.
    fn wait(&mut self, running: &Running) -> bool {
        running.metrics.commit_failures.add(1);
        let pause = PAUSE_MIN * 2_u32.saturating_pow(self.attempts.min(8));
        self.attempts = self.attempts.saturating_add(1);
        let until = Instant::now() + pause.min(PAUSE_MAX);
        loop {
            let why = running.outage_reason();
            while let Some(job) = running.queue.pop() {
                job.answer(Reply::Refused(not_durable(&why)));
            }
            if running.trouble().is_some() {
                return false;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            if running.queue.is_closed() {
                // A host that is gone stores nothing any more; the record is not acknowledged.
                return self.attempts <= ATTEMPTS_AT_END;
            }
            running.queue.pause(left);
        }
    }
}

impl Batch {
    const fn at(at: Time) -> Self {
        Self {
            at,
            entries: Vec::new(),
            bytes: 0,
            reply_bytes: 0,
            answers: Vec::new(),
            shares: None,
        }
    }

    /// Answers everybody who waits for this record; it may count later all the same.
    fn tell_not_durable(&mut self, why: &dyn core::fmt::Display) {
        self.refuse(&not_durable(why));
    }

    fn refuse(&mut self, with: &Refusal) {
        for (answer, said) in self.answers.drain(..) {
            let refusal = match said {
                Said::Refused(refusal) => refusal,
                Said::Answer(_) => with.clone(),
            };
            drop(answer.try_send(Reply::Refused(refusal)));
        }
    }
}

/// The refusal while nothing becomes durable.
pub(crate) fn not_durable(why: &dyn core::fmt::Display) -> Refusal {
    let message = format!("not durable now: {why}. The change may still count; ask again to see");
    Refusal::new("not-durable", message, Retry::After(1000))
}

/// The most asks that share a record.
const BATCH_MAX: usize = 1024;
/// Bytes of replies that wait for one record; the last may go beyond.
const REPLIES_BYTES: usize = 32 << 20;
/// Bytes of entries in a record, their places counted, with room for what seals them.
const RECORD_BYTES: usize = bield_capsule::PAYLOAD_BYTES_MAX - (64 << 10);
/// What an entry takes beside its bytes, at most.
const ENTRY_BYTES: usize = 16;
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Attempts to store the last record when the program ends.
const ATTEMPTS_AT_END: u32 = 5;

const _: () = assert!(crate::state::ENTRY_BYTES_MAX < RECORD_BYTES);
