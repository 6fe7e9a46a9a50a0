//! Drives the packer: brings it what happens, does what it decides.
//!
//! ```text
//!  call ─ Arrived ─▶ ┌────────┐ ─ Dispatch, Refuse ─▶ the call's own task ─ invoke ─▶ ┌────────┐
//!  ticker ─ Tick ──▶ │ Packer │ ─ Start, Stop ─▶ one task a place ─ scale ──────────▶ │ Engine │
//!  place ─ Started,  └────────┘                          ▲────── endpoints ────────── └────────┘
//!          Ended ──────▲
//! ```
//!
//! Always true: every call ends with an answer, a refusal or its client's going; a request is sent to another instance at
//! most once more, and only when no byte of an answer has reached the client; an instance that it was sent to is never sent
//! it again, since a runtime refuses what it has seen, unless it said that it did nothing with it (`call`); a place in a
//! worker counts as taken until the engine says that the worker is done.
//!
//! On paper: the packer is behind one lock, taken twice for a call (arrival, answer) and held for some microseconds each: with
//! 10 000 calls a second it is busy for some twentieth of the time. What it is asked to show takes milliseconds where it knows
//! thousands of packages, so that it is asked once a second, and for people as `status` says. A call that finds a worker at
//! once hears so from its own hand: no task is woken, no thread is changed that was not before.

mod call;
mod place;
mod running;
mod sizes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_engines::{Endpoint, Engine, Group};
use bield_packer::{Decision, Event, Explanation, Failure, Packer, RequestId, View, WorkerId};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::AbortHandle;

use crate::series::Series;
use sizes::Sizes;

/// Between two looks at what workers take of memory.
const MEASURE_EVERY: Duration = Duration::from_secs(1);

/// The packer, its engine, and the calls in between.
pub(crate) struct Driver {
    engine: Arc<dyn Engine>,
    sizes: Sizes,
    origin: Instant,
    queue_wait: Duration,
    call_wait: Duration,
    next: AtomicU64,
    drains: AtomicBool,
    inner: Mutex<Inner>,
    series: Mutex<Series>,
    /// The ticker is to look when it is due.
    sooner: Notify,
    tasks: Mutex<Vec<AbortHandle>>,
}

struct Inner {
    packer: Packer,
    decisions: Vec<Decision>,
    calls: HashMap<RequestId, mpsc::UnboundedSender<Word>>,
    workers: BTreeMap<WorkerId, Hired>,
    /// Who has each place of the pool, and what its task is told.
    places: Vec<Place>,
    /// When the ticker looks next.
    ticks_at: Option<Duration>,
}

/// A worker that the packer asked for.
struct Hired {
    place: u32,
    asked: Instant,
    endpoint: Option<Arc<Endpoint>>,
    /// It was told to end.
    ends: bool,
}

#[derive(Default)]
struct Place {
    worker: Option<WorkerId>,
    /// Who is wanted there, as its task is told.
    want: watch::Sender<Option<WorkerId>>,
    /// The instance that was let go of last.
    past: Option<u64>,
}

/// What a call is told.
enum Word {
    Go(WorkerId, Arc<Endpoint>),
    No(bield_packer::Refusal, Duration),
}

/// How long a call may wait, and for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waits {
    /// For a worker.
    pub(crate) queue: Duration,
    /// For the answer.
    pub(crate) call: Duration,
}

impl Driver {
    /// Begins to drive a pool of `places`.
    pub(crate) fn start(
        packer: Packer,
        places: u32,
        engine: Arc<dyn Engine>,
        packages: Option<PathBuf>,
        waits: Waits,
    ) -> Arc<Driver> {
        let driver = Arc::new(Driver {
            engine,
            sizes: Sizes::new(packages),
            origin: Instant::now(),
            queue_wait: waits.queue,
            call_wait: waits.call,
            next: AtomicU64::new(1),
            drains: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                packer,
                decisions: Vec::new(),
                calls: HashMap::new(),
                workers: BTreeMap::new(),
                places: (0..places).map(|_| Place::default()).collect(),
                ticks_at: None,
            }),
            series: Mutex::default(),
            sooner: Notify::new(),
            tasks: Mutex::default(),
        });
        let mut tasks: Vec<AbortHandle> = (0..places)
            .map(|place| tokio::spawn(Arc::clone(&driver).keep_place(place)).abort_handle())
            .collect();
        tasks.push(tokio::spawn(Arc::clone(&driver).tick()).abort_handle());
        tasks.push(tokio::spawn(Arc::clone(&driver).measure()).abort_handle());
        *driver.tasks.lock().unwrap_or_else(PoisonError::into_inner) = tasks;
        driver.tell(Event::Tick);
        driver
    }

    fn tell(&self, event: Event) {
        self.handle(&mut self.lock(), event);
    }

    /// The last that happens to a request.
    fn tell_last(&self, request: RequestId, event: Event) {
        let mut inner = self.lock();
        inner.calls.remove(&request);
        self.handle(&mut inner, event);
    }

    /// Has the packer take in what happened, and does what it decides.
    fn handle(&self, inner: &mut Inner, event: Event) {
        let mut decisions = std::mem::take(&mut inner.decisions);
        inner
            .packer
            .handle(self.origin.elapsed(), event, &mut decisions);
        let mut undelivered = Vec::new();
        for decision in decisions.drain(..) {
            let undone = inner.act(decision);
            undelivered.extend(undone);
        }
        inner.decisions = decisions;
        for event in undelivered {
            self.handle(inner, event);
        }
        let wakes_at = inner.packer.wakes_at();
        let is_sooner = match (wakes_at, inner.ticks_at) {
            (Some(at), Some(ticks)) => at < ticks,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_sooner {
            inner.ticks_at = wakes_at;
            self.sooner.notify_one();
        }
    }

    /// Tells the packer the time when it asked to be told.
    async fn tick(self: Arc<Self>) {
        loop {
            let at = {
                let mut inner = self.lock();
                inner.ticks_at = inner.packer.wakes_at();
                inner.ticks_at
            };
            let due = async {
                match at {
                    Some(at) => tokio::time::sleep_until((self.origin + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.tell(Event::Tick),
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Tells the packer what workers take of memory, and the charts what there is.
    async fn measure(self: Arc<Self>) {
        let mut times = tokio::time::interval(MEASURE_EVERY);
        loop {
            times.tick().await;
            let there: Vec<(WorkerId, Group)> = {
                let inner = self.lock();
                let there = inner
                    .workers
                    .iter()
                    .filter(|(_, hired)| hired.endpoint.is_some());
                there
                    .map(|(worker, hired)| (*worker, Group(hired.place)))
                    .collect()
            };
            let engine = Arc::clone(&self.engine);
            let measured = tokio::task::spawn_blocking(move || {
                let measured = there.into_iter().filter_map(|(worker, group)| {
                    let bytes = engine.memory(group)?;
                    Some(Event::Measured { worker, bytes })
                });
                measured.collect::<Vec<Event>>()
            });
            // Without its thread the process is ending.
            let measured = measured.await.unwrap_or_default();
            let (waiting, gb_s) = {
                let mut inner = self.lock();
                for event in measured {
                    self.handle(&mut inner, event);
                }
                (inner.packer.waiting(), inner.packer.booked_gb_s())
            };
            let workers = self.workers_up();
            self.lock_series()
                .sample(self.origin.elapsed(), waiting, workers, gb_s);
        }
    }

    /// What the packer sees.
    pub(crate) fn view(&self) -> View {
        self.lock().packer.view()
    }

    /// Why a request went where it went.
    pub(crate) fn why(&self, request: u64) -> Option<Explanation> {
        self.lock().packer.why(RequestId(request)).cloned()
    }

    /// The charts and counts.
    pub(crate) fn lock_series(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers that serve.
    pub(crate) fn workers_up(&self) -> usize {
        let inner = self.lock();
        let up = inner
            .workers
            .values()
            .filter(|hired| hired.endpoint.is_some());
        up.count()
    }

    /// What each place of the pool has: whether a worker is wanted there, and what the engine sees of it.
    pub(crate) fn places(&self) -> Vec<(Group, bool, bield_engines::Seen)> {
        let wanted: Vec<bool> = {
            let inner = self.lock();
            inner
                .places
                .iter()
                .map(|place| place.worker.is_some())
                .collect()
        };
        let seen = |place: u32| self.engine.endpoints(Group(place)).borrow().clone();
        (0..)
            .zip(wanted)
            .map(|(place, wanted)| (Group(place), wanted, seen(place)))
            .collect()
    }

    /// Waits until a worker serves in each place that has one by now.
    ///
    /// # Errors
    /// Why one does not start.
    pub(crate) async fn all_started(&self) -> Result<(), String> {
        for (group, wanted, _) in self.places() {
            if !wanted {
                continue;
            }
            let mut seen = self.engine.endpoints(group);
            let known = seen.wait_for(|seen| !seen.endpoints.is_empty() || seen.trouble.is_some());
            // Without a sender the gateway is stopping.
            if let Ok(seen) = known.await
                && let Some(trouble) = &seen.trouble
            {
                return Err(trouble.clone());
            }
            // Whoever calls from now on finds it, whether its own task has looked or not.
            self.look_at(group.0);
        }
        Ok(())
    }

    /// Takes no more requests, and starts no worker but for those that wait.
    pub(crate) fn drain(&self) {
        self.drains.store(true, Ordering::SeqCst);
        let mut inner = self.lock();
        inner.packer.drain();
        self.handle(&mut inner, Event::Tick);
    }

    /// Ends all workers, each when it has finished what it has begun.
    pub(crate) async fn finish(&self) {
        self.drain();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
        }
        let places = {
            let mut inner = self.lock();
            // Who still waits hears that nobody comes.
            inner.calls.clear();
            u32::try_from(inner.places.len()).unwrap_or(u32::MAX)
        };
        let ended = (0..places).map(|place| self.engine.delete(Group(place)));
        for ended in futures_util::future::join_all(ended).await {
            if let Err(error) = ended {
                tracing::warn!(%error, "a worker did not end");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Does what is decided; what the packer is to hear if it cannot be done.
    fn act(&mut self, decision: Decision) -> Option<Event> {
        match decision {
            Decision::Dispatch { request, worker } => {
                let hired = self.workers.get(&worker);
                let endpoint = hired.and_then(|hired| hired.endpoint.clone());
                let Some(call) = self.calls.get(&request) else {
                    return Some(Event::Returned { request, worker });
                };
                let Some(endpoint) = endpoint else {
                    let failure = Failure::Lost;
                    return Some(Event::Failed {
                        request,
                        worker,
                        failure,
                    });
                };
                // A call that goes meanwhile gives back what it did not read.
                let _ = call.send(Word::Go(worker, endpoint));
            }
            Decision::Refuse {
                request,
                refusal,
                retry_after,
            } => {
                if let Some(call) = self.calls.remove(&request) {
                    let _ = call.send(Word::No(refusal, retry_after));
                }
            }
            Decision::Start { worker, slot, .. } => {
                let hired = Hired {
                    place: slot.0,
                    asked: Instant::now(),
                    endpoint: None,
                    ends: false,
                };
                self.workers.insert(worker, hired);
                if let Some(place) = self.place(slot.0) {
                    place.worker = Some(worker);
                    place.want.send_replace(Some(worker));
                }
            }
            Decision::Stop { worker } => {
                let hired = self.workers.get_mut(&worker)?;
                hired.ends = true;
                let number = hired.place;
                if let Some(place) = self.place(number) {
                    place.want.send_replace(None);
                }
            }
        }
        None
    }

    fn place(&mut self, number: u32) -> Option<&mut Place> {
        self.places.get_mut(usize::try_from(number).ok()?)
    }
}
