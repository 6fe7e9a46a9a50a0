//! The one runtime: its places, its short queue, and whether it takes work.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use bield_envelope::Digest;
use bield_face::{Bodies, Failure, Outcome, Refusal, hand_over};
use bield_launcher::{State, Supervisor};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::Arguments;
use crate::metrics::Counts;

/// How long the runtime may take to report; a busy one that does not is not ready.
const REPORT_WAIT: Duration = Duration::from_secs(2);
/// How long a report counts: whoever asks, and however often, the runtime is asked twice a second.
const REPORT_COUNTS: Duration = Duration::from_millis(500);
/// What stands around sealed bytes in base64: names, keys, dates.
const AROUND_BYTES_MAX: usize = 64 << 10;

/// What every face sees.
pub(crate) struct Worker {
    /// Set once, when the first start succeeded.
    supervisor: OnceLock<Arc<Supervisor>>,
    up: Semaphore,
    places: Arc<Semaphore>,
    places_total: u32,
    /// Places for what is left of answers that the runtime is done with.
    tails: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    queue_wait: Duration,
    call_wait: Duration,
    draining: AtomicBool,
    /// When the runtime was last asked to report, and whether it did.
    reported: Arc<Mutex<Option<(Instant, bool)>>>,
    packages: PathBuf,
    pub(crate) bodies: Bodies,
    pub(crate) counts: Counts,
    /// An action takes one activation at a time unless the platform says otherwise.
    pub(crate) allow_concurrent: bool,
}

impl Worker {
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let places = arguments.places();
        Self {
            supervisor: OnceLock::new(),
            up: Semaphore::new(0),
            places: Arc::new(Semaphore::new(places)),
            places_total: u32::try_from(places).unwrap_or(u32::MAX),
            tails: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            waiting_max: arguments.queue,
            queue_wait: Duration::from_millis(arguments.queue_ms),
            call_wait: Duration::from_millis(arguments.call_ms),
            draining: AtomicBool::new(false),
            reported: Arc::default(),
            packages: arguments.packages.clone(),
            bodies: Bodies::new("worker", arguments.body_bytes_max(), arguments.bodies_mib),
            counts: Counts::default(),
            allow_concurrent: arguments.allow_concurrent,
        }
    }

    /// The runtime is up for the first time.
    pub(crate) fn serve(&self, supervisor: Arc<Supervisor>) {
        let _ = self.supervisor.set(supervisor);
        // Whoever waits for it goes on, and nobody waits again.
        self.up.close();
    }

    /// Waits until the runtime is up for the first time.
    pub(crate) async fn is_up(&self) {
        let _ = self.up.acquire().await;
    }

    /// Reads a sealed request in its plain form and has it answered.
    ///
    /// # Errors
    /// The host's refusals; counted.
    pub(crate) async fn plain(&self, body: Body) -> Result<Outcome, Refusal> {
        self.counted(async {
            let body = self.bodies.unless(self.takes_work(), body).await?;
            let (sealed, _memory) = self.bodies.read(body).await?;
            bield_face::package_of(&sealed)?;
            self.call(sealed, None).await
        })
        .await
    }

    /// Bodies that carry a sealed request in base64.
    pub(crate) fn in_base64(&self) -> Bodies {
        let max = self.bodies.bytes_max().div_ceil(3) * 4 + AROUND_BYTES_MAX;
        self.bodies.up_to(max)
    }

    /// Counts what a request came to.
    pub(crate) async fn counted(
        &self,
        request: impl Future<Output = Result<Outcome, Refusal>>,
    ) -> Result<Outcome, Refusal> {
        let outcome = request.await;
        match &outcome {
            Ok(Outcome::Refused(_, refusal)) | Err(refusal) => self.counts.refused(refusal.code()),
            Ok(outcome) => self.counts.answered(outcome.feedback()),
        }
        outcome
    }

    /// Hands a sealed request to the runtime, within the `left` time if there is a limit.
    ///
    /// # Errors
    /// 503: the request has not run, except that it may have with `runtime-lost`; 504, 502.
    pub(crate) async fn call(
        &self,
        sealed: Bytes,
        left: Option<Duration>,
    ) -> Result<Outcome, Refusal> {
        let until = left.map(|left| Instant::now() + left);
        let place = self.place(left).await?;
        self.takes_work()?;
        let enclave = self.supervisor.get().and_then(|one| one.enclave());
        let enclave = enclave.ok_or(Failure::Lost)?;
        let wait = match until {
            None => self.call_wait,
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.call_wait.min(left)
            }
        };
        if wait.is_zero() {
            return Err(too_late());
        }
        let tails = Arc::clone(&self.tails);
        let answer = hand_over(enclave, sealed, wait, Box::new(place), tails).await?;
        Outcome::of(answer)
    }

    /// Waits in the bounded queue for a place.
    async fn place(&self, left: Option<Duration>) -> Result<OwnedSemaphorePermit, Refusal> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let _waits = Waits::begin(&self.waiting, self.waiting_max).ok_or_else(full)?;
        let wait = left.map_or(self.queue_wait, |left| left.min(self.queue_wait));
        let place = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(wait, place).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(full()),
        }
    }

    /// Whether a new request may begin.
    ///
    /// # Errors
    /// 503 `draining`, `starting`.
    pub(crate) fn takes_work(&self) -> Result<(), Refusal> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(Refusal::unavailable(
                "draining",
                "this worker is stopping; another one takes the request",
            ));
        }
        match self.supervisor.get() {
            Some(_) => Ok(()),
            None => Err(Refusal::unavailable(
                "starting",
                "the runtime is being started; come back shortly",
            )),
        }
    }

    /// Whether the runtime is up and says so itself, which it does once it has its configuration and evidence.
    ///
    /// # Errors
    /// 503 with what is missing.
    pub(crate) async fn is_ready(&self) -> Result<(), Refusal> {
        self.takes_work()?;
        let supervisor = Arc::clone(self.supervisor.get().ok_or(Failure::Lost)?);
        // One at a time, also when whoever asked goes: the thread that asks lets the next one in.
        let mut reported = Arc::clone(&self.reported).lock_owned().await;
        let known = reported.filter(|(at, _)| at.elapsed() < REPORT_COUNTS);
        let reports = match known {
            Some((_, reports)) => Ok(reports),
            None => {
                let asking = tokio::task::spawn_blocking(move || {
                    let enclave = supervisor.enclave();
                    let reports =
                        enclave.is_some_and(|enclave| enclave.status(REPORT_WAIT).is_ok());
                    *reported = Some((Instant::now(), reports));
                    reports
                });
                asking.await
            }
        };
        match reports {
            Ok(true) => Ok(()),
            _ => Err(Refusal::unavailable(
                "restarting",
                "the runtime does not report; it is being restarted, or its log says what it waits for",
            )),
        }
    }

    /// Whether a package of this digest can be opened here, as far as the host can tell.
    pub(crate) async fn has(&self, package: &Digest) -> bool {
        let file = self.packages.join(format!("{package}.bield"));
        tokio::fs::try_exists(file).await.unwrap_or(false)
    }

    /// Takes no new work from here on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Waits until the runtime has nothing to do, after [`Self::drain`].
    pub(crate) async fn finished(&self) {
        let _ = self.places.acquire_many(self.places_total).await;
    }

    /// Has the runtime end. Blocks until it is gone.
    pub(crate) fn end(&self, wait: Duration) {
        if let Some(supervisor) = self.supervisor.get() {
            supervisor.finish(wait);
        }
    }

    pub(crate) fn in_flight(&self) -> u64 {
        let free = u64::try_from(self.places.available_permits()).unwrap_or(u64::MAX);
        u64::from(self.places_total).saturating_sub(free)
    }

    /// Whether the runtime runs, and how often it was started.
    pub(crate) fn life(&self) -> (bool, u64) {
        match self.supervisor.get() {
            Some(one) => (one.state() == State::Running, one.starts()),
            None => (false, 0),
        }
    }
}

/// What cannot be answered in time is not begun.
pub(crate) fn too_late() -> Refusal {
    Refusal::new(
        StatusCode::GATEWAY_TIMEOUT,
        "too-late",
        "the deadline passed before the request could begin; ask again with more time",
    )
}

fn full() -> Refusal {
    Refusal::unavailable(
        "busy",
        "every place at this worker's runtime is taken; another worker may take the request, or come back shortly",
    )
}

/// One place in the queue, given back when the caller stops waiting for whatever reason.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let more = |count| (count < max).then_some(count + 1);
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Self(waiting))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
