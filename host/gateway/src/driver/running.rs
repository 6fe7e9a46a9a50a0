//! A request that is at a worker.
//!
//! Two hold it: the call, which learns how it went, and the engine, which lets go when the worker is done with it. When both
//! have, the packer hears that the place is free again, exactly once; so an answer in parts keeps its place until the worker has
//! sent all of it, and a client that hangs up frees nothing before the worker is done. A client that reads an answer in parts
//! more slowly than the worker made it holds the place [`READ_GRACE`] longer and no more.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_engines::Bytes;
use bield_packer::{Event, Failure, RequestId, WorkerId};
use bield_protocol::feedback::Feedback;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::runtime::Handle;

use super::Driver;

/// How long after a worker's end of an answer in parts the client's tells whether it was whole.
const READ_GRACE: Duration = Duration::from_secs(1);

/// The call's hold. Dropped without a word, nobody waits for the answer any more.
pub(super) struct Running(Arc<Shared>);

/// The engine's hold.
struct AtWorker(Arc<Shared>);

struct Shared {
    driver: Arc<Driver>,
    request: RequestId,
    worker: WorkerId,
    began: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    at_worker: bool,
    /// What stood at the head of an answer that comes in parts, while they come.
    head: Option<Option<Feedback>>,
    /// How it went.
    went: Option<Went>,
    is_told: bool,
}

enum Went {
    Answered(Option<Feedback>),
    Failed(Failure),
    /// Nobody waits for an answer, or the worker could not open the request: that says nothing of either.
    Returned,
}

impl Running {
    pub(super) fn begin(driver: &Arc<Driver>, request: RequestId, worker: WorkerId) -> Self {
        Self(Arc::new(Shared {
            driver: Arc::clone(driver),
            request,
            worker,
            began: Instant::now(),
            state: Mutex::default(),
        }))
    }

    /// What the engine holds until the worker is done.
    pub(super) fn place(&self) -> bield_engines::Place {
        self.0.lock().at_worker = true;
        Box::new(AtWorker(Arc::clone(&self.0)))
    }

    pub(super) fn answered(self, feedback: Option<Feedback>) {
        self.0.lock().went = Some(Went::Answered(feedback));
    }

    /// The parts of an answer, which tell by their end how it went.
    pub(super) fn until_the_last(
        self,
        feedback: Option<Feedback>,
        parts: BoxStream<'static, io::Result<Bytes>>,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        self.0.lock().head = Some(feedback);
        stream::unfold((parts, Some(self)), |(mut parts, mut running)| async move {
            let part = parts.next().await;
            let went = match &part {
                Some(Ok(_)) => None,
                Some(Err(_)) => Some(Went::Failed(Failure::Broken)),
                None => {
                    let running = running.as_ref();
                    let head = running.and_then(|running| running.0.lock().head.take());
                    head.map(Went::Answered)
                }
            };
            if went.is_some()
                && let Some(running) = running.take()
            {
                running.0.lock().went = went;
            }
            Some((part?, (parts, running)))
        })
        .boxed()
    }

    pub(super) fn failed(self, failure: Failure) {
        self.0.lock().went = Some(Went::Failed(failure));
    }

    /// Nothing is to be learnt from it.
    pub(super) fn returned(self) {
        self.0.lock().went = Some(Went::Returned);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.went.get_or_insert(Went::Returned);
        self.0.tell_if_over(state);
    }
}

impl Drop for AtWorker {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.at_worker = false;
        if state.head.is_some() && state.went.is_none() {
            drop(state);
            return Arc::clone(&self.0).tell_after_grace();
        }
        self.0.tell_if_over(state);
    }
}

impl Shared {
    fn tell_if_over(&self, mut state: MutexGuard<'_, State>) {
        if state.at_worker || state.is_told {
            return;
        }
        let Some(went) = state.went.take() else {
            return;
        };
        state.is_told = true;
        drop(state);
        let (request, worker) = (self.request, self.worker);
        let is_tried_again = matches!(went, Went::Failed(Failure::Lost | Failure::Busy));
        let event = match went {
            Went::Answered(feedback) => Event::Answered {
                request,
                worker,
                took: self.began.elapsed(),
                feedback,
            },
            Went::Failed(failure) => Event::Failed {
                request,
                worker,
                failure,
            },
            Went::Returned => Event::Returned { request, worker },
        };
        match is_tried_again {
            true => self.driver.tell(event),
            false => self.driver.tell_last(request, event),
        }
    }

    /// The worker has sent all it will; whoever reads soon says whether that was all of it.
    fn tell_after_grace(self: Arc<Self>) {
        let tell = move || {
            let mut state = self.lock();
            if let Some(head) = state.head.take() {
                state.went.get_or_insert(Went::Answered(head));
            }
            self.tell_if_over(state);
        };
        match Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    tokio::time::sleep(READ_GRACE).await;
                    tell();
                });
            }
            Err(_) => tell(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
