//! One runtime with its bounded queue. How an answer travels from it is `bield_face`'s; what is left of one when the runtime
//! has sent all has a place of its own, as many as there are slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use bield_face::{Answer, Failure, Refusal, hand_over};
use bield_launcher::Supervisor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Arguments;

/// A supervised runtime.
pub(crate) struct Worker {
    supervisor: Supervisor,
    slots: Arc<Semaphore>,
    slots_total: usize,
    /// Places for what is left of answers that the runtime is done with.
    tails: Arc<Semaphore>,
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
            tails: Arc::new(Semaphore::new(slots_total)),
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
        let tails = Arc::clone(&self.tails);
        Ok(hand_over(enclave, sealed, self.call_wait, Box::new(slot), tails).await?)
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

fn restarting() -> Refusal {
    Failure::Lost.into()
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
