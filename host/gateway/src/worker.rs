//! One runtime with its bounded queue.
//!
//! An answer that comes in parts is passed on as it comes, in pieces of at most `PIECE_BYTES_MAX`: two wait here for a client,
//! and up to 3 MiB before them (`bield_launcher`). A client that takes no piece for [`TAKE_WAIT`] loses the rest; of one that
//! goes away the runtime is told at once. How long the whole may take, the runtime bounds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use bield_launcher::{Answering, Stop, Supervisor, VisitError};
use futures_util::stream::{self, Stream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::Arguments;
use crate::refusal::Refusal;

/// How long a client may take for a piece of an answer before the rest is cancelled.
const TAKE_WAIT: Duration = Duration::from_secs(30);

/// A supervised runtime.
pub(crate) struct Worker {
    supervisor: Supervisor,
    slots: Arc<Semaphore>,
    slots_total: usize,
    waiting: AtomicUsize,
    waiting_max: usize,
    queue_wait: Duration,
    call_wait: Duration,
}

impl Worker {
    pub(crate) fn new(supervisor: Supervisor, arguments: &Arguments) -> Worker {
        let slots_total = usize::from(arguments.concurrency);
        Worker {
            supervisor,
            slots: Arc::new(Semaphore::new(slots_total)),
            slots_total,
            waiting: AtomicUsize::new(0),
            waiting_max: arguments.queue,
            queue_wait: Duration::from_millis(arguments.queue_ms),
            call_wait: Duration::from_millis(arguments.call_ms),
        }
    }

    pub(crate) fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.slots_total - self.slots.available_permits().min(self.slots_total)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A slot, if a call can start at once.
    pub(crate) fn free_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.supervisor.enclave().is_some()
    }

    /// Hands the request over and waits for the answer, or for the first of it.
    pub(crate) async fn call(
        &self,
        slot: OwnedSemaphorePermit,
        sealed: Bytes,
    ) -> Result<Answer, Refusal> {
        let enclave = self.supervisor.enclave().ok_or_else(restarting)?;
        let wait = self.call_wait;
        // The slot travels along: a client that hangs up does not free it before the runtime is done.
        let answer = tokio::task::spawn_blocking(move || {
            let mut answering = enclave.begin_call(&sealed, wait)?;
            let first = answering.next_part()?.unwrap_or_default();
            let rest = (!answering.is_over()).then_some(Rest { answering, slot });
            Ok(Answer { first, rest })
        });
        match answer.await {
            Ok(Ok(answer)) if answer.first.is_empty() => Err(restarting()),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(VisitError::Lost(_))) => Err(restarting()),
            Ok(Err(VisitError::TimedOut { .. })) => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timed-out",
                format!(
                    "the runtime did not answer within {} ms; come back when it is less busy",
                    wait.as_millis()
                ),
            )
            .retry_after(Duration::from_secs(1))),
            Ok(Err(error)) => Err(Refusal::new(
                StatusCode::BAD_GATEWAY,
                "bad-answer",
                error.to_string(),
            )),
            Err(_) => Err(Refusal::unavailable(
                "stopping",
                "this gateway is stopping; try another one",
            )),
        }
    }

    /// Waits in the bounded queue for a slot.
    pub(crate) async fn slot(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let _place = Place::take(&self.waiting, self.waiting_max).ok_or_else(|| {
            Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "queue-full",
                format!(
                    "{} requests wait already; come back shortly",
                    self.waiting_max
                ),
            )
            .retry_after(Duration::from_secs(1))
        })?;
        match tokio::time::timeout(self.queue_wait, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(restarting()),
            Err(_) => Err(Refusal::unavailable(
                "queue-timeout",
                format!(
                    "no runtime was free within {} ms; come back shortly",
                    self.queue_wait.as_millis()
                ),
            )),
        }
    }
}

/// An answer, or the first of it.
pub(crate) struct Answer {
    pub(crate) first: Vec<u8>,
    /// What is still to come.
    pub(crate) rest: Option<Rest>,
}

/// The parts that are still to come.
pub(crate) struct Rest {
    answering: Answering,
    slot: OwnedSemaphorePermit,
}

impl Rest {
    /// Passes the parts on as they come. An error is the last: what came is then not all.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        let Self {
            mut answering,
            slot,
        } = self;
        let stops = StopsWhenDropped(answering.stop());
        let (parts, taken) = mpsc::channel(1);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            // The call is under way until its last part left.
            let _slot = slot;
            loop {
                let part = match answering.next_part() {
                    Ok(None) => return,
                    Ok(Some(part)) => Ok(Bytes::from(part)),
                    Err(error) => Err(io::Error::other(error)),
                };
                let is_last = part.is_err();
                let sent = runtime.block_on(parts.send_timeout(part, TAKE_WAIT));
                // Dropped, the rest is cancelled.
                if sent.is_err() || is_last {
                    return;
                }
            }
        });
        stream::unfold((taken, stops), async |(mut taken, stops)| {
            Some((taken.recv().await?, (taken, stops)))
        })
    }
}

/// Held by what a client reads: goes when all was read, or when the client does.
struct StopsWhenDropped(Stop);

impl Drop for StopsWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn restarting() -> Refusal {
    Refusal::unavailable(
        "runtime-lost",
        "the runtime ended and is being restarted; send the request again",
    )
}

/// One place in the queue, given back when the caller stops waiting for whatever reason.
struct Place<'a> {
    waiting: &'a AtomicUsize,
}

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, max: usize) -> Option<Place<'a>> {
        let more = |count| (count < max).then_some(count + 1);
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Place { waiting })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
