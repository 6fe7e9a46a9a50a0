//! Processes of this machine.
//!
//! ```text
//!  scale 1 ─▶ start ──▶ Supervisor: runs, ends, runs again … ─▶ endpoints: each instance under a new number
//!               │fails: pause 50 ms … 10 s, given up after [`STARTS_MAX`]
//!  scale 0 ─▶ the watch closes: the program finishes what it has begun ─▶ gone; killed after a while
//! ```
//!
//! Always true: at most one process in a place; each in a process group of its own; one whose end was seen by a call gets
//! no other call; when this process dies, however it does, the programs end, because the kernel closes their watch
//! (`bield_launcher`). A parent-death signal would be worse here: Linux sends it when the *thread* ends that started the
//! program, and those threads come and go.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bield_face::{Failure, Outcome, hand_over};
use bield_launcher::{Enclave, Launch, LaunchError, Supervisor};
use futures_util::future::{self, BoxFuture, FutureExt as _};
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, spawn_blocking};

use crate::memory::{self, MemoryLimit};
use crate::{Answer, Body, Bytes, Endpoint, Engine, EngineError, Group, Place, Seen};

/// Starts that fail in a row before it is said that none will come. Together with the pauses between them about a second.
const STARTS_MAX: u32 = 4;
/// Pause after the first failed start; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// How long a call that was lost looks whether the process ended: the kernel closes its sockets before it can be reaped.
const END_WAIT: Duration = Duration::from_secs(1);
/// How long beyond its own time a process may take to go once it is killed.
const GONE_WAIT: Duration = Duration::from_secs(5);

/// What runs in each place of a pool.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// What to start.
    pub launch: Launch,
    /// How many places there are.
    pub places: u32,
    /// Requests that one instance has at once: as many answers may be on their way to clients after that.
    pub concurrency: usize,
    /// How long an instance that is to go may take to finish.
    pub finish_wait: Duration,
    /// Most memory of one instance in bytes; the kernel ends one that takes more.
    pub memory_bytes_max: Option<u64>,
}

/// The engine of this machine. Dropping it ends the processes.
pub struct Embedded {
    slots: Vec<Arc<Slot>>,
    tasks: Vec<AbortHandle>,
    finish_wait: Duration,
    limit: Option<Result<Arc<MemoryLimit>, String>>,
}

struct Slot {
    group: Group,
    want: watch::Sender<Want>,
    seen: watch::Sender<Seen>,
    /// Whether a process is there or being started.
    busy: watch::Sender<bool>,
    now: Mutex<Now>,
    tails: Arc<Semaphore>,
    next: Arc<AtomicU64>,
}

/// How many are wanted, and how often that changed: who looks late sees that it was 0 meanwhile.
#[derive(Debug, Clone, Copy, Default)]
struct Want {
    count: u32,
    changes: u64,
}

impl Want {
    fn is_up(&self) -> bool {
        self.count > 0
    }
}

#[derive(Default)]
struct Now {
    /// Kept when it was stopped, for whoever asks what there was.
    supervisor: Option<Arc<Supervisor>>,
    /// Of those before it.
    starts_before: u64,
    words_before: Option<String>,
    instance: Option<(u64, Arc<Enclave>)>,
}

impl Embedded {
    /// Makes the places of a pool, all empty. Needs a tokio runtime.
    #[must_use]
    pub fn new(pool: &Pool) -> Self {
        let next = Arc::<AtomicU64>::default();
        let limit = pool.memory_bytes_max.map(MemoryLimit::new);
        if let Some(Err(why)) = &limit {
            tracing::warn!(
                why,
                "the memory of workers is not limited; they run without"
            );
        }
        let (slots, tasks) = (0..pool.places)
            .map(|place| {
                let slot = Arc::new(Slot {
                    group: Group(place),
                    want: watch::Sender::default(),
                    seen: watch::Sender::default(),
                    busy: watch::Sender::new(false),
                    now: Mutex::default(),
                    tails: Arc::new(Semaphore::new(pool.concurrency)),
                    next: Arc::clone(&next),
                });
                let control_group = match &limit {
                    Some(Ok(limit)) => limit.place(place),
                    _ => None,
                };
                let launch = Launch {
                    control_group,
                    ..pool.launch.clone()
                };
                let task = tokio::spawn(Arc::clone(&slot).keep(launch, pool.finish_wait));
                (slot, task.abort_handle())
            })
            .collect();
        Self {
            slots,
            tasks,
            finish_wait: pool.finish_wait,
            limit,
        }
    }

    /// How often a program was started in a place, restarts included.
    #[must_use]
    pub fn starts(&self, group: Group) -> u64 {
        let Some(slot) = self.slot(group) else {
            return 0;
        };
        let now = slot.lock();
        let these = now
            .supervisor
            .as_ref()
            .map(|supervisor| supervisor.starts());
        now.starts_before + these.unwrap_or_default()
    }

    /// What a program in a place said last of why it waits, ended or did not start.
    #[must_use]
    pub fn last_words(&self, group: Group) -> Option<String> {
        let slot = self.slot(group)?;
        let (supervisor, before) = {
            let now = slot.lock();
            (now.supervisor.clone(), now.words_before.clone())
        };
        // Of a program that ended, it may wait for its last line.
        supervisor
            .and_then(|supervisor| supervisor.last_words())
            .or(before)
    }

    /// What supervises the process in a place, or did so last.
    #[must_use]
    pub fn supervisor(&self, group: Group) -> Option<Arc<Supervisor>> {
        self.slot(group)?.lock().supervisor.clone()
    }

    /// Whether the memory of processes is limited; the sentence says why not though it was asked for.
    pub fn memory_limit(&self) -> Option<Result<(), &str>> {
        let limit = self.limit.as_ref()?;
        Some(limit.as_ref().map(|_| ()).map_err(String::as_str))
    }

    fn slot(&self, group: Group) -> Option<&Arc<Slot>> {
        self.slots.get(usize::try_from(group.0).ok()?)
    }

    fn known(&self, group: Group) -> Result<&Arc<Slot>, EngineError> {
        self.slot(group)
            .ok_or_else(|| EngineError::Denied(format!("there is no place {}", group.0)))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        for slot in &self.slots {
            slot.scale(0);
            let supervisor = slot.lock().supervisor.take();
            if let Some(supervisor) = supervisor {
                supervisor.stop();
            }
        }
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Engine for Embedded {
    fn ensure(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        future::ready(self.known(group).map(|_| ())).boxed()
    }

    fn scale(&self, group: Group, want: u32) -> BoxFuture<'_, Result<(), EngineError>> {
        let scaled = self.known(group).map(|slot| slot.scale(want.min(1)));
        future::ready(scaled).boxed()
    }

    fn endpoints(&self, group: Group) -> watch::Receiver<Seen> {
        match self.slot(group) {
            Some(slot) => slot.seen.subscribe(),
            None => watch::Sender::default().subscribe(),
        }
    }

    fn invoke<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        sealed: Bytes,
        within: Duration,
        place: Place,
    ) -> BoxFuture<'a, Result<Answer, EngineError>> {
        async move {
            let slot = self.known(endpoint.group)?;
            if !slot.want.borrow().is_up() {
                // It finishes what it has begun.
                return Err(EngineError::Draining);
            }
            let enclave = slot.instance(endpoint.id).ok_or(EngineError::Lost)?;
            let tails = Arc::clone(&slot.tails);
            match hand_over(Arc::clone(&enclave), sealed, within, place, tails).await {
                Ok(answer) => Ok(match Outcome::of(answer) {
                    Ok(outcome) => answer_of(outcome),
                    Err(refusal) => Answer {
                        feedback: None,
                        body: Body::Refused(refusal),
                    },
                }),
                Err(Failure::Lost) => {
                    let ended = spawn_blocking(move || enclave.wait(Some(END_WAIT)).is_some());
                    if ended.await.unwrap_or(true) {
                        slot.gone(endpoint.id);
                    }
                    Err(EngineError::Lost)
                }
                Err(Failure::TimedOut(wait)) => Err(EngineError::Timeout(wait)),
                Err(Failure::Stopping) => Err(EngineError::Draining),
                Err(Failure::Broken(why)) => Err(EngineError::Broken(why)),
                Err(_) => Err(EngineError::Lost),
            }
        }
        .boxed()
    }

    fn memory(&self, group: Group) -> Option<u64> {
        let pid = self.slot(group)?.lock().instance.as_ref()?.1.pid();
        memory::resident_bytes(pid)
    }

    fn delete(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        async move {
            let slot = self.known(group)?;
            slot.scale(0);
            let mut busy = slot.busy.subscribe();
            let gone = busy.wait_for(|busy| !busy);
            let wait = self.finish_wait + GONE_WAIT;
            match tokio::time::timeout(wait, gone).await {
                Ok(_) => Ok(()),
                Err(_) => Err(EngineError::Timeout(wait)),
            }
        }
        .boxed()
    }
}

fn answer_of(outcome: Outcome) -> Answer {
    let feedback = Some(outcome.feedback().clone());
    let body = match outcome {
        Outcome::Sealed(_, answer) => Body::Whole(answer.into()),
        Outcome::InParts(_, first, rest) => {
            let first = stream::once(future::ready(Ok(Bytes::from(first))));
            Body::InParts(match rest {
                Some(rest) => first.chain(rest.into_stream()).boxed(),
                None => first.boxed(),
            })
        }
        Outcome::Refused(_, refusal) => Body::Refused(refusal),
    };
    Answer { feedback, body }
}

impl Slot {
    /// Starts and ends what is wanted in this place, for as long as the engine lives.
    async fn keep(self: Arc<Self>, launch: Launch, finish_wait: Duration) {
        let mut want = self.want.subscribe();
        loop {
            let Ok(changes) = want.wait_for(Want::is_up).await.map(|want| want.changes) else {
                return;
            };
            self.busy.send_replace(true);
            let started = self.start(&launch, &mut want).await;
            let is_over = |want: &Want| match started {
                Some(_) => !want.is_up(),
                None => want.changes > changes,
            };
            let _ = want.wait_for(is_over).await;
            if let Some(supervisor) = started {
                let _ = spawn_blocking(move || supervisor.finish(finish_wait)).await;
            }
            self.instance_is(None);
            self.seen.send_modify(|seen| seen.trouble = None);
            self.busy.send_replace(false);
        }
    }

    fn scale(&self, count: u32) {
        self.want.send_if_modified(|want| {
            let is_new = want.count != count;
            want.count = count;
            want.changes += u64::from(is_new);
            is_new
        });
    }

    /// Starts a process that is supervised from then on; tries again a few times.
    async fn start(
        self: &Arc<Self>,
        launch: &Launch,
        want: &mut watch::Receiver<Want>,
    ) -> Option<Arc<Supervisor>> {
        let mut pause = PAUSE_MIN;
        for _ in 0..STARTS_MAX {
            let error = match self.start_once(launch.clone()).await {
                Ok(supervisor) => return Some(supervisor),
                Err(error) => error,
            };
            tracing::error!(place = self.group.0, "{error}");
            self.seen
                .send_modify(|seen| seen.trouble = Some(error.to_string()));
            tokio::select! {
                () = tokio::time::sleep(pause) => pause *= 2,
                _ = want.wait_for(|want| !want.is_up()) => return None,
            }
        }
        self.seen.send_modify(|seen| seen.given_up += 1);
        None
    }

    async fn start_once(self: &Arc<Self>, launch: Launch) -> Result<Arc<Supervisor>, LaunchError> {
        let told = Arc::clone(self);
        let program = launch.program.clone();
        let started = spawn_blocking(move || {
            // The first instance is told of below, once whoever sees it finds its supervisor as well.
            let is_first = AtomicBool::new(true);
            Supervisor::start_telling(launch, move |enclave| {
                if !is_first.swap(false, Ordering::SeqCst) {
                    told.instance_is(enclave);
                }
            })
        });
        let supervisor = match started.await {
            Ok(started) => Arc::new(started?),
            Err(_) => {
                return Err(LaunchError::Program {
                    program,
                    error: std::io::ErrorKind::Interrupted.into(),
                });
            }
        };
        let old = self.lock().supervisor.clone();
        let words = old.as_ref().and_then(|old| old.last_words());
        let mut now = self.lock();
        now.starts_before += old.map_or(0, |old| old.starts());
        now.words_before = words.or(now.words_before.take());
        now.supervisor = Some(Arc::clone(&supervisor));
        drop(now);
        self.instance_is(supervisor.enclave());
        Ok(supervisor)
    }

    /// The instance that serves now, under a number of its own, or none.
    fn instance_is(&self, enclave: Option<Arc<Enclave>>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let endpoint = enclave.as_ref().map(|enclave| Endpoint {
            group: self.group,
            id,
            name: format!("process {}", enclave.pid()),
        });
        let instance = enclave.map(|enclave| (id, enclave));
        let old = std::mem::replace(&mut self.lock().instance, instance);
        // Whose program still runs waits for its end when it is dropped, and nobody is to wait for that.
        drop(old);
        self.seen.send_modify(|seen| {
            if endpoint.is_some() {
                seen.trouble = None;
            }
            seen.endpoints = endpoint.into_iter().collect();
        });
    }

    /// An instance has ended.
    fn gone(&self, id: u64) {
        let gone = self.lock().instance.take_if(|instance| instance.0 == id);
        drop(spawn_blocking(move || drop(gone)));
        self.seen
            .send_modify(|seen| seen.endpoints.retain(|endpoint| endpoint.id != id));
    }

    fn instance(&self, id: u64) -> Option<Arc<Enclave>> {
        let now = self.lock();
        let (current, enclave) = now.instance.as_ref()?;
        (*current == id && enclave.is_running()).then(|| Arc::clone(enclave))
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
