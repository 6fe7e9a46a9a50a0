//! One call: it waits for what the packer says, goes to a worker, and once more to another if the first one lost it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bield_engines::{Answer, Body, Bytes, Endpoint, EngineError};
use bield_envelope::Digest;
use bield_face::Refusal;
use bield_packer::{Caller, Event, Failure, RequestId};
use tokio::sync::mpsc;

use super::running::Running;
use super::{Driver, SIZED_MAX, Word};

impl Driver {
    /// A number for a request, never given again.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Answers a sealed request for a package.
    pub(crate) async fn call(
        self: &Arc<Self>,
        number: u64,
        package: Digest,
        caller: Caller,
        sealed: Bytes,
    ) -> Result<Answer, Refusal> {
        let began = Instant::now();
        let result = self.call_unseen(number, package, caller, sealed).await;
        let mut series = self.lock_series();
        match &result {
            Ok(answer) => series.answered(answer.feedback.as_ref(), began.elapsed()),
            Err(refusal) => series.refused(refusal.code()),
        }
        drop(series);
        result
    }

    async fn call_unseen(
        self: &Arc<Self>,
        number: u64,
        package: Digest,
        caller: Caller,
        sealed: Bytes,
    ) -> Result<Answer, Refusal> {
        let request = RequestId(number);
        let (word, words) = mpsc::unbounded_channel();
        self.arrive(request, package, caller, word);
        let mut waits = LeavesWhenDropped {
            driver: self,
            request,
            words,
            is_over: false,
        };
        let mut tried: Option<Endpoint> = None;
        let mut was_full = false;
        loop {
            let (worker, endpoint) = match waits.words.recv().await {
                Some(Word::Go(worker, endpoint)) => (worker, endpoint),
                Some(Word::No(refusal, retry)) => {
                    waits.over();
                    return Err(match refusal {
                        bield_packer::Refusal::Lost if was_full => full().retry_after(retry),
                        _ => self.refusal(refusal, retry),
                    });
                }
                None => {
                    return Err(Refusal::unavailable(
                        "stopping",
                        "this gateway is stopping; try another one",
                    ));
                }
            };
            let running = Running::begin(self, request, worker);
            if tried.as_ref().is_some_and(|tried| tried.id == endpoint.id) {
                // It has seen the request, and would say that it was replayed.
                running.failed(Failure::Lost);
                tried = Some(endpoint);
                continue;
            }
            let place = running.place();
            let invoked = self
                .engine
                .invoke(&endpoint, sealed.clone(), self.call_wait, place);
            match invoked.await {
                Ok(answer) => {
                    match answer.body {
                        Body::Refused(_) => running.refused(),
                        _ => running.answered(answer.feedback.clone()),
                    }
                    waits.over();
                    return Ok(answer);
                }
                Err(EngineError::Lost) => {
                    self.look_at(endpoint.group.0);
                    running.failed(Failure::Lost);
                    tried = Some(endpoint);
                    was_full = false;
                }
                Err(EngineError::Cold | EngineError::Draining | EngineError::Full) => {
                    running.failed(Failure::Busy);
                    was_full = true;
                }
                Err(error) => {
                    let failure = match error {
                        EngineError::Timeout(_) => Failure::TimedOut,
                        _ => Failure::Broken,
                    };
                    running.failed(failure);
                    waits.over();
                    return Err(self.failed(&error));
                }
            }
        }
    }

    /// Tells the packer of a request, and of its package when it has not heard of it.
    fn arrive(
        self: &Arc<Self>,
        request: RequestId,
        package: Digest,
        caller: Caller,
        word: mpsc::UnboundedSender<Word>,
    ) {
        let mut inner = self.lock();
        inner.calls.insert(request, word);
        if !inner.sized.contains(&package)
            && let Some(bytes) = self.package_bytes(&package)
        {
            if inner.sized.len() >= SIZED_MAX {
                inner.sized.clear();
            }
            inner.sized.insert(package);
            self.handle(&mut inner, Event::Sized { package, bytes });
        }
        let deadline = self.origin.elapsed() + self.queue_wait;
        let event = Event::Arrived {
            request,
            package,
            caller,
            deadline,
        };
        self.handle(&mut inner, event);
    }

    /// The length of a package's file: one look-up in the system for each package.
    fn package_bytes(&self, package: &Digest) -> Option<u64> {
        let path = self.packages.as_ref()?.join(format!("{package}.bield"));
        Some(std::fs::metadata(path).ok()?.len())
    }

    fn refusal(&self, refusal: bield_packer::Refusal, retry: Duration) -> Refusal {
        use axum::http::StatusCode;
        use bield_packer::Refusal as No;
        let (status, code, message) = match refusal {
            No::QueueFull => (
                StatusCode::TOO_MANY_REQUESTS,
                "queue-full",
                "as many requests wait already as may; come back shortly".to_owned(),
            ),
            No::ShareFull => (
                StatusCode::TOO_MANY_REQUESTS,
                "share-full",
                "as many requests from your network wait already as may; come back when some are answered".to_owned(),
            ),
            No::AllBusy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "all-busy",
                "no endpoint is free, and this policy lets nobody wait; come back shortly".to_owned(),
            ),
            No::TooLate => (
                StatusCode::SERVICE_UNAVAILABLE,
                "queue-timeout",
                format!(
                    "no runtime was free within {} ms; come back shortly",
                    self.queue_wait.as_millis()
                ),
            ),
            No::NoWorker => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-runtime",
                "no runtime is up; one is being restarted".to_owned(),
            ),
            No::Lost => {
                let lost = Refusal::from(bield_face::Failure::Lost);
                (lost.status(), "runtime-lost", lost.message().to_owned())
            }
        };
        Refusal::new(status, code, message).retry_after(retry)
    }

    fn failed(&self, error: &EngineError) -> Refusal {
        use bield_face::Failure as Of;
        match error {
            EngineError::Timeout(wait) => Of::TimedOut(*wait).into(),
            error => Of::Broken(error.to_string()).into(),
        }
    }
}

fn full() -> Refusal {
    Refusal::unavailable(
        "workers-full",
        "the workers it was sent to are full or ending; come back shortly",
    )
}

/// Held by a call: a client that goes away says so to the packer.
struct LeavesWhenDropped<'a> {
    driver: &'a Arc<Driver>,
    request: RequestId,
    words: mpsc::UnboundedReceiver<Word>,
    is_over: bool,
}

impl LeavesWhenDropped<'_> {
    fn over(mut self) {
        self.is_over = true;
    }
}

impl Drop for LeavesWhenDropped<'_> {
    fn drop(&mut self) {
        let mut inner = self.driver.lock();
        inner.calls.remove(&self.request);
        if !self.is_over {
            let request = self.request;
            self.driver.handle(&mut inner, Event::Left { request });
            // Sent to a worker at the last moment, it did not go there any more.
            if let Ok(Word::Go(worker, _)) = self.words.try_recv() {
                self.driver
                    .handle(&mut inner, Event::Returned { request, worker });
            }
        }
    }
}
