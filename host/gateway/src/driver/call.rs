//! One call: it waits for what the packer says, goes to a worker, and once more to another if the first one lost it.
//!
//! ```text
//! round: arrives ─▶ worker ─┬─▶ answer                                           over
//!                           └─▶ "the function's state is elsewhere", its answer is kept
//!                                 └▶ another round: to who has it, or was not asked yet; when all were asked, after a pause
//! ```
//!
//! Always true: a request is sent to a worker that had it only after that worker said that it did nothing with it. What
//! all workers refuse because of one that died is asked again until that one's hold is over; a hold that is prolonged
//! meanwhile is of one that lives where this gateway does not reach: then the refusal is passed on, with `Retry-After`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use bield_engines::{Answer, Body, Bytes, Endpoint, EngineError};
use bield_envelope::Digest;
use bield_face::Refusal;
use bield_packer::{Caller, Event, Failure, Refusal as No, RequestId};
use bield_protocol::feedback::{Feedback, StatePlace};
use bield_protocol::service::STATE_HOLD_SECS;
use tokio::sync::mpsc;

use super::running::Running;
use super::{Driver, Word};

/// Between two rounds over all workers, at most ...
const ROUND_PAUSE: Duration = Duration::from_secs(1);
/// ... and at least, whatever a worker says.
const ROUND_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Workers asked in one round: a pool whose workers come and go must not keep a call for ever.
const ASKED_MAX: usize = 64;
/// The longest wait that a worker is believed, so that nothing is added up beyond what a clock holds.
const AWAY_MAX: Duration = Duration::from_secs(3600);
/// How far what is said of one end of a hold may differ, and how long whoever is next may take to hold.
const HOLD_SLACK: Duration = Duration::from_secs(2);
/// Longest wait for the end of a hold.
const HOLD_WAIT_MAX: Duration = Duration::from_secs(STATE_HOLD_SECS);

/// What came of a round over the workers.
enum Round {
    Over(Result<Answer, Refusal>),
    /// A worker's answer is that another holds the function's state, for so long if that one is gone.
    Elsewhere(Answer, Duration),
}

/// Whom a call was sent to.
#[derive(Default)]
struct Sent {
    /// Lost it: it may have run there.
    lost: Option<Arc<Endpoint>>,
    /// Said that the state is elsewhere, since the last pause.
    without: Vec<u64>,
    /// Its number with the packer, which takes each once; none is the client's.
    number: Option<u64>,
}

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
        let mut sent = Sent::default();
        // When the hold ends that is waited for, and how often it was prolonged or was another's.
        let (mut held_until, mut prolonged) = (None, 0);
        loop {
            let round = self.round(number, package, caller, &sealed, &mut sent);
            let (answer, wait) = match round.await {
                Round::Over(result) => return result,
                Round::Elsewhere(answer, wait) => (answer, wait),
            };
            let now = Instant::now();
            let until = *held_until.get_or_insert(now + wait.min(HOLD_WAIT_MAX) + HOLD_SLACK);
            prolonged += u32::from(now + wait > until);
            // Once may be because one that was asked before holds it now.
            if now >= until || prolonged > 1 || self.drains.load(Ordering::SeqCst) {
                return match sent.lost {
                    // Not what the last one said: an earlier one may have done it.
                    Some(_) => Err(lost().retry_after(wait)),
                    None => Ok(answer),
                };
            }
            tokio::time::sleep(wait.clamp(ROUND_PAUSE_MIN, ROUND_PAUSE)).await;
            sent.without.clear();
        }
    }

    /// Sends it where the packer says, until it is answered or those that were asked have not the function's state.
    async fn round(
        self: &Arc<Self>,
        number: u64,
        package: Digest,
        caller: Caller,
        sealed: &Bytes,
        sent: &mut Sent,
    ) -> Round {
        let mut elsewhere = None;
        loop {
            let number = sent.number.replace(self.number()).unwrap_or(number);
            let went = self.once(number, package, caller, sealed, sent).await;
            match went {
                Ok(Some(answer)) => match answer.feedback.as_ref().and_then(away) {
                    Some(wait) if sent.without.len() >= ASKED_MAX => {
                        return Round::Elsewhere(answer, wait);
                    }
                    Some(wait) => elsewhere = Some((answer, wait)),
                    None => return Round::Over(Ok(answer)),
                },
                // Who is left has said so.
                Ok(None) => match elsewhere {
                    Some((answer, wait)) => return Round::Elsewhere(answer, wait),
                    None => return Round::Over(Err(lost())),
                },
                Err(refusal) => return Round::Over(Err(refusal)),
            }
        }
    }

    /// Brings it to the packer once: an answer; none when it was to go where it has been.
    async fn once(
        self: &Arc<Self>,
        number: u64,
        package: Digest,
        caller: Caller,
        sealed: &Bytes,
        sent: &mut Sent,
    ) -> Result<Option<Answer>, Refusal> {
        let request = RequestId(number);
        let (word, words) = mpsc::unbounded_channel();
        let bytes = self.sizes.news_of(package).await;
        let mut waits = LeavesWhenDropped {
            driver: self,
            request,
            words,
            is_over: false,
        };
        self.arrive(request, package, bytes, caller, word);
        let mut was_full = false;
        loop {
            let (worker, endpoint) = match waits.words.recv().await {
                Some(Word::Go(worker, endpoint)) => (worker, endpoint),
                Some(Word::No(refusal, retry)) => {
                    waits.over();
                    return Err(match (&sent.lost, refusal) {
                        // Whatever keeps it from another worker, it may have run at one.
                        (Some(_), _) => lost().retry_after(retry),
                        (None, No::Lost) if was_full => full().retry_after(retry),
                        (None, refusal) => self.refusal(refusal, retry),
                    });
                }
                None if sent.lost.is_some() => return Err(lost()),
                None => return Err(stopping()),
            };
            let running = Running::begin(self, request, worker);
            if sent
                .lost
                .as_ref()
                .is_some_and(|lost| lost.id == endpoint.id)
            {
                // It has seen the request, and would say that it was replayed.
                running.returned();
                waits.over();
                return match sent.without.is_empty() {
                    true => Err(lost()),
                    false => Ok(None),
                };
            }
            if sent.without.contains(&endpoint.id) {
                running.returned();
                waits.over();
                return Ok(None);
            }
            let place = running.place();
            let invoked = self
                .engine
                .invoke(&endpoint, sealed.clone(), self.call_wait, place);
            match invoked.await {
                Ok(Answer { feedback, body }) => {
                    let body = match body {
                        Body::Whole(bytes) => {
                            running.answered(feedback.clone());
                            Body::Whole(bytes)
                        }
                        Body::InParts(parts) => {
                            Body::InParts(running.until_the_last(feedback.clone(), parts))
                        }
                        Body::Refused(refusal) => {
                            running.returned();
                            Body::Refused(refusal)
                        }
                    };
                    waits.over();
                    if feedback.as_ref().and_then(away).is_some() {
                        sent.without.push(endpoint.id);
                    }
                    return Ok(Some(Answer { feedback, body }));
                }
                Err(EngineError::Lost) => {
                    self.look_at(endpoint.group.0);
                    running.failed(Failure::Lost);
                    sent.lost = Some(endpoint);
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
        bytes: Option<u64>,
        caller: Caller,
        word: mpsc::UnboundedSender<Word>,
    ) {
        let mut inner = self.lock();
        inner.calls.insert(request, word);
        if let Some(bytes) = bytes {
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

    fn refusal(&self, refusal: No, retry: Duration) -> Refusal {
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
            No::NoWorker if self.drains.load(Ordering::SeqCst) => return stopping(),
            No::NoWorker => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-runtime",
                "no runtime is up; one is being restarted".to_owned(),
            ),
            No::Lost => return lost().retry_after(retry),
        };
        Refusal::new(status, code, message).retry_after(retry)
    }

    fn failed(&self, error: &EngineError) -> Refusal {
        use bield_face::Failure as Of;
        match error {
            EngineError::Timeout(wait) => Of::TimedOut(*wait).into(),
            EngineError::Denied(why) => {
                // What the platform says to this gateway is not for its clients.
                tracing::error!("the platform refuses a request: {why}");
                let why = "the platform that runs the workers refuses it; the operator must look";
                Of::Broken(why.to_owned()).into()
            }
            error => Of::Broken(error.to_string()).into(),
        }
    }
}

/// How long another may hold the function's state, when the answer is that it does.
fn away(feedback: &Feedback) -> Option<Duration> {
    match feedback.state {
        Some(StatePlace::Elsewhere(millis)) => Some(Duration::from_millis(millis).min(AWAY_MAX)),
        _ => None,
    }
}

fn lost() -> Refusal {
    bield_face::Failure::Lost.into()
}

fn stopping() -> Refusal {
    Refusal::unavailable("stopping", "this gateway is stopping; try another one")
}

fn full() -> Refusal {
    Refusal::unavailable(
        "workers-full",
        "the workers it was sent to are full or ending; come back shortly",
    )
}

/// Held by a call until it is over or answers: a client that goes away says so to the packer.
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
        // Over, it was let go of with its end.
        if self.is_over {
            return;
        }
        let request = self.request;
        let mut inner = self.driver.lock();
        inner.calls.remove(&request);
        self.driver.handle(&mut inner, Event::Left { request });
        // Sent to a worker at the last moment, it did not go there any more.
        if let Ok(Word::Go(worker, _)) = self.words.try_recv() {
            self.driver
                .handle(&mut inner, Event::Returned { request, worker });
        }
    }
}
