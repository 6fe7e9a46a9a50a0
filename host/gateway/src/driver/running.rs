//! A request that is at a worker.
//!
//! Two hold it: the call, which learns how it went, and the engine, which lets go when the worker is done with it. Only when
//! both have, the packer hears that the place is free again, exactly once; so an answer in parts keeps its place until the
//! worker has sent all of it, and a client that hangs up frees nothing before the worker is done.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bield_packer::{Event, Failure, RequestId, WorkerId};
use bield_protocol::feedback::Feedback;

use super::Driver;

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
    /// How it went.
    went: Option<Went>,
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

    pub(super) fn failed(self, failure: Failure) {
        self.0.lock().went = Some(Went::Failed(failure));
    }

    /// The worker could not open the request.
    pub(super) fn refused(self) {
        drop(self);
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
        self.0.tell_if_over(state);
    }
}

impl Shared {
    fn tell_if_over(&self, mut state: MutexGuard<'_, State>) {
        if state.at_worker {
            return;
        }
        let Some(went) = state.went.take() else {
            return;
        };
        drop(state);
        let (request, worker) = (self.request, self.worker);
        self.driver.tell(match went {
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
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
