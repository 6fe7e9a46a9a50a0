//! Workers that somebody else runs, each at an address: the plain face of `bield-worker`.
//!
//! ```text
//!  each second: GET /readyz ─ 200 ─▶ an endpoint, under a new number
//!                           └─ refused, draining, or nothing else three times in a row ─▶ none
//!  POST / sealed ─▶ 200 sealed bytes, `bield-feedback` │ a refusal of the worker ─▶ the trait's │ another ─▶ passed on
//! ```
//!
//! | 503 of a worker | for the caller |
//! |---|---|
//! | `draining`, `stopping` | [`EngineError::Draining`] |
//! | `starting`, `restarting` | [`EngineError::Cold`] |
//! | `busy`, `memory`, or none of a worker's | [`EngineError::Full`] |
//! | `runtime-lost` | [`EngineError::Lost`] |
//! | another: the runtime's own | passed on |
//!
//! Always true: place N is the N-th address in the order of their text, so that gateways which were given the same
//! addresses in whatever order mean the same worker by the same place; a worker that a call could not reach gets no other
//! until it says that it is ready; one that answers calls is there, however late its reports are; an answer whose length was
//! announced is whole before it is passed on.
//!
//! Not here: starting and ending them. Scaling says only which are used.

mod parts;
mod said;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bield_face::{FEEDBACK, SEALED};
use bield_launcher::ANSWER_BYTES_MAX;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Answer, Body, Bytes, Endpoint, Engine, EngineError, Group, Place, Seen};
use parts::Waits;
pub(crate) use said::{feedback_of, retry_of};
use said::{parse_feedback, refusal, said};

/// Between two questions whether a worker is ready.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the answer to one.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long a client may take for a part before the rest is given up, as with a runtime of this machine.
const TAKE_WAIT: Duration = Duration::from_secs(30);
/// Probes in a row without a word until a worker counts as gone.
const MISSES_MAX: u32 = 3;
/// After so long without a byte on a connection the system asks whether the other side still lives, as often again, and
/// three times: a machine that vanished is noticed.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long a connection is kept for the next request: less than workers wait for one (`bield_face::Connections`).
const IDLE_MAX: Duration = Duration::from_secs(30);

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// The engine of workers at known addresses. Dropping it forgets them.
pub struct Remote {
    http: Http,
    workers: Vec<Arc<Worker>>,
    probes: Vec<AbortHandle>,
}

struct Worker {
    group: Group,
    authority: Authority,
    want: watch::Sender<u32>,
    seen: watch::Sender<Seen>,
    next: Arc<AtomicU64>,
    /// Probes in a row without a word.
    misses: AtomicU32,
}

impl Remote {
    /// Begins to look after workers at these addresses (`host:port`). Needs a tokio runtime.
    ///
    /// # Errors
    /// The address that is none.
    pub fn new(addresses: &[String]) -> Result<Self, String> {
        let http = client();
        let mut addresses = addresses.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        let next = Arc::<AtomicU64>::default();
        let workers = (0..)
            .zip(addresses)
            .map(|(place, address)| {
                let authority = address.parse::<Authority>().ok();
                // A name and a password before it would be shown as part of the worker's name.
                let authority = authority
                    .filter(|authority| authority.port_u16().is_some() && !address.contains('@'));
                Ok(Arc::new(Worker {
                    group: Group(place),
                    authority: authority.ok_or(address)?,
                    want: watch::Sender::new(0),
                    seen: watch::Sender::default(),
                    next: Arc::clone(&next),
                    misses: AtomicU32::new(0),
                }))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let probe = |worker: &Arc<Worker>| {
            tokio::spawn(Arc::clone(worker).probe(http.clone())).abort_handle()
        };
        Ok(Self {
            probes: workers.iter().map(probe).collect(),
            workers,
            http,
        })
    }

    /// The addresses by place.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.workers.iter().map(|worker| worker.authority.as_str())
    }

    fn worker(&self, group: Group) -> Result<&Arc<Worker>, EngineError> {
        let worker = usize::try_from(group.0)
            .ok()
            .and_then(|n| self.workers.get(n));
        worker.ok_or_else(|| EngineError::Denied(format!("there is no place {}", group.0)))
    }

    fn scale_to(&self, group: Group, want: u32) -> BoxFuture<'_, Result<(), EngineError>> {
        let scaled = self.worker(group).map(|worker| worker.scale(want));
        future::ready(scaled).boxed()
    }

    /// Sends it and reads the head of the answer.
    async fn post(&self, to: &Worker, sealed: Bytes) -> Result<Response<Incoming>, EngineError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(to.uri("/"))
            .header(header::CONTENT_TYPE, SEALED)
            .body(Full::new(sealed))
            .map_err(|error| EngineError::Broken(error.to_string()))?;
        self.http.request(request).await.map_err(|error| {
            tracing::warn!(worker = %to.authority, %error, "not reached");
            EngineError::Lost
        })
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        for probe in &self.probes {
            probe.abort();
        }
    }
}

impl Engine for Remote {
    fn ensure(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        future::ready(self.worker(group).map(|_| ())).boxed()
    }

    fn scale(&self, group: Group, want: u32) -> BoxFuture<'_, Result<(), EngineError>> {
        self.scale_to(group, want)
    }

    fn endpoints(&self, group: Group) -> watch::Receiver<Seen> {
        match self.worker(group) {
            Ok(worker) => worker.seen.subscribe(),
            Err(_) => watch::Sender::default().subscribe(),
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
            let worker = self.worker(endpoint.group)?;
            if !worker.shows(endpoint.id) {
                return Err(EngineError::Lost);
            }
            let answered = async {
                let response = self.post(worker, sealed).await?;
                worker.misses.store(0, Ordering::Relaxed);
                read(response, within, place).await
            };
            let answer = tokio::time::timeout(within, answered).await;
            let answer = answer.unwrap_or(Err(EngineError::Timeout(within)));
            if matches!(answer, Err(EngineError::Lost | EngineError::Draining)) {
                worker.gone(endpoint.id, &format!("{} did not answer", worker.authority));
            }
            answer
        }
        .boxed()
    }

    fn delete(&self, group: Group) -> BoxFuture<'_, Result<(), EngineError>> {
        self.scale_to(group, 0)
    }
}

impl Worker {
    /// Asks again and again whether it is ready, while it is wanted.
    async fn probe(self: Arc<Self>, http: Http) {
        let mut want = self.want.subscribe();
        loop {
            if want.wait_for(|want| *want > 0).await.is_err() {
                return;
            }
            self.look(&http).await;
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    /// Asks once.
    async fn look(&self, http: &Http) {
        let asked = async {
            let answer = http.get(self.uri("/readyz")).await?;
            let status = answer.status();
            let code = match status {
                StatusCode::OK => None,
                _ => said(answer).await.and_then(|said| said.code),
            };
            Ok::<_, hyper_util::client::legacy::Error>((status, code))
        };
        match tokio::time::timeout(PROBE_WAIT, asked).await {
            Ok(Ok((StatusCode::OK, _))) => self.is_there(),
            Ok(Ok((status, code))) => {
                let what = format!("answers {}", status.as_u16());
                match code.as_deref() {
                    Some("draining" | "stopping") => self.is_gone(&what),
                    _ => self.missed(&what),
                }
            }
            Ok(Err(error)) => {
                let what = format!("is not reached: {error}");
                match is_refused(&error) {
                    true => self.is_gone(&what),
                    false => self.missed(&what),
                }
            }
            Err(_) => self.missed("does not answer"),
        }
    }

    fn scale(&self, want: u32) {
        self.want.send_replace(want.min(1));
        if want == 0 {
            self.seen.send_replace(Seen::default());
        }
    }

    /// Told to go, it is not shown, and why it is not there is of no interest: scaling writes what is wanted before it
    /// empties what is seen, and whoever changes that looks at the former while nobody else does.
    fn is_wanted(&self) -> bool {
        *self.want.borrow() > 0
    }

    fn shows(&self, id: u64) -> bool {
        let seen = self.seen.borrow();
        seen.endpoints.iter().any(|endpoint| endpoint.id == id)
    }

    fn is_there(&self) {
        self.misses.store(0, Ordering::Relaxed);
        self.seen.send_if_modified(|seen| {
            if !self.is_wanted() || !seen.endpoints.is_empty() {
                return false;
            }
            seen.endpoints = vec![Endpoint {
                group: self.group,
                id: self.next.fetch_add(1, Ordering::Relaxed),
                name: self.authority.to_string(),
            }];
            seen.trouble = None;
            true
        });
    }

    /// One that is there may be too busy to say so.
    fn missed(&self, what: &str) {
        let misses = self.misses.fetch_add(1, Ordering::Relaxed) + 1;
        let is_shown = !self.seen.borrow().endpoints.is_empty();
        if !is_shown || misses >= MISSES_MAX {
            self.is_gone(what);
        }
    }

    fn is_gone(&self, what: &str) {
        let trouble = format!("{} {what}; start it or correct its address", self.authority);
        self.seen.send_if_modified(|seen| {
            if !self.is_wanted() {
                return false;
            }
            let is_new = !seen.endpoints.is_empty() || seen.trouble.is_none();
            seen.endpoints.clear();
            seen.trouble = Some(trouble);
            is_new
        });
    }

    fn gone(&self, id: u64, trouble: &str) {
        self.seen.send_if_modified(|seen| {
            let before = seen.endpoints.len();
            seen.endpoints.retain(|endpoint| endpoint.id != id);
            let is_new = seen.endpoints.len() < before;
            if is_new {
                seen.trouble = Some(trouble.to_owned());
            }
            is_new
        });
    }

    fn uri(&self, path: &'static str) -> Uri {
        let mut parts = hyper::http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(hyper::http::uri::PathAndQuery::from_static(path));
        // All three are there and well-formed.
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// Keeps connections for the next request to the same place.
pub(crate) fn client() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_WAIT));
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(KEEPALIVE));
    connector.set_keepalive_retries(Some(3));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .build(connector)
}

/// Reads an answer: all of it when its length was announced.
async fn read(
    response: Response<Incoming>,
    within: Duration,
    place: Place,
) -> Result<Answer, EngineError> {
    let status = response.status();
    let headers = response.headers();
    let feedback = headers
        .get(FEEDBACK)
        .and_then(|value| parse_feedback(value.as_bytes()));
    let is_sealed = headers.get(header::CONTENT_TYPE) == Some(&SEALED);
    if status != StatusCode::OK || !is_sealed {
        return refusal(status, response).await.map(|refusal| Answer {
            feedback,
            body: Body::Refused(refusal),
        });
    }
    let body = match response.body().size_hint().exact() {
        Some(length) if length > ANSWER_BYTES_MAX as u64 => {
            return Err(EngineError::Broken(format!(
                "the worker announced an answer of {length} bytes; a sealed one has at most {ANSWER_BYTES_MAX}"
            )));
        }
        Some(_) => {
            let whole = response.into_body().collect().await;
            Body::Whole(whole.map_err(|_| EngineError::Lost)?.to_bytes())
        }
        None => {
            let waits = Waits {
                part: within,
                take: TAKE_WAIT,
            };
            Body::InParts(parts::pass_on(response.into_body(), waits, place))
        }
    };
    Ok(Answer { feedback, body })
}

/// Whether nobody listens there.
fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    let is_it = |error: &(dyn std::error::Error + 'static)| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    std::iter::successors(Some(error), |error| error.source()).any(is_it)
}

#[cfg(test)]
mod tests;
