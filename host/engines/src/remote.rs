//! Workers that somebody else runs, each at an address: the plain face of `bield-worker`.
//!
//! ```text
//!  each second: GET /readyz ─ 200 ─▶ an endpoint, under a new number;  anything else ─▶ none
//!  POST / sealed ─▶ 200 sealed bytes, `bield-feedback` │ 503 ─▶ Full or Draining │ other ─▶ its refusal, passed on
//! ```
//!
//! Always true: place N is the N-th address in the order of their text, so that gateways which were given the same
//! addresses in whatever order mean the same worker by the same place; a worker that a call could not reach gets no other
//! until it says that it is ready; an answer whose length was announced is whole before it is passed on.
//!
//! Not here: starting and ending them. Scaling says only which are used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bield_envelope::Digest;
use bield_face::{FEEDBACK, SEALED};
use bield_launcher::ANSWER_BYTES_MAX;
use bield_protocol::feedback::{Feedback, StartKind};
use futures_util::StreamExt as _;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::{Answer, Body, Bytes, Endpoint, Engine, EngineError, Group, Place, Refusal, Seen};

/// Between two questions whether a worker is ready.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for the answer to one.
const PROBE_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for a connection.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Longest refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// Most packages in a worker's word on what it holds (`bield_protocol::feedback`).
const RESIDENT_MAX: usize = 64;

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
                let authority = authority.filter(|authority| authority.port_u16().is_some());
                Ok(Arc::new(Worker {
                    group: Group(place),
                    authority: authority.ok_or(address)?,
                    want: watch::Sender::new(0),
                    seen: watch::Sender::default(),
                    next: Arc::clone(&next),
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
            let answered = async {
                let response = self.post(worker, sealed).await?;
                read(response, place).await
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
            let asked = http.get(self.uri("/readyz"));
            match tokio::time::timeout(PROBE_WAIT, asked).await {
                Ok(Ok(answer)) if answer.status() == StatusCode::OK => self.is_there(),
                Ok(Ok(answer)) => self.is_gone(&format!("answers {}", answer.status().as_u16())),
                Ok(Err(error)) => self.is_gone(&format!("is not reached: {error}")),
                Err(_) => self.is_gone("does not answer"),
            }
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    fn scale(&self, want: u32) {
        self.want.send_replace(want.min(1));
        if want == 0 {
            self.seen.send_replace(Seen::default());
        }
    }

    fn is_there(&self) {
        // Told to go meanwhile, it stays away.
        if *self.want.borrow() == 0 || !self.seen.borrow().endpoints.is_empty() {
            return;
        }
        let endpoint = Endpoint {
            group: self.group,
            id: self.next.fetch_add(1, Ordering::Relaxed),
            name: self.authority.to_string(),
        };
        self.seen.send_modify(|seen| {
            seen.endpoints = vec![endpoint];
            seen.trouble = None;
        });
    }

    fn is_gone(&self, what: &str) {
        let trouble = format!("{} {what}; start it or correct its address", self.authority);
        self.seen.send_if_modified(|seen| {
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
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .build(connector)
}

/// Reads an answer: all of it when its length was announced.
async fn read(response: Response<Incoming>, place: Place) -> Result<Answer, EngineError> {
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
            let parts = response.into_body().into_data_stream();
            let parts = parts.map(move |part| {
                // Held until the last part.
                let _ = &place;
                part.map_err(std::io::Error::other)
            });
            Body::InParts(parts.boxed())
        }
    };
    Ok(Answer { feedback, body })
}

/// What a worker says that does not answer.
async fn refusal(status: StatusCode, response: Response<Incoming>) -> Result<Refusal, EngineError> {
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect();
    let body = body.await.map_err(|_| EngineError::Lost)?.to_bytes();
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let error = &said["error"];
    let (code, message) = (error["code"].as_str(), error["message"].as_str());
    match (status, code, message) {
        (StatusCode::SERVICE_UNAVAILABLE, Some("draining" | "stopping"), _) => {
            Err(EngineError::Draining)
        }
        (StatusCode::SERVICE_UNAVAILABLE, ..) => Err(EngineError::Full),
        (_, Some(code), Some(message)) => {
            let retry = error["retry"]["after_ms"]
                .as_u64()
                .map(Duration::from_millis);
            Ok(Refusal::passed_on(status, code, message, retry))
        }
        _ => Err(EngineError::Broken(format!(
            "the worker answered {} without a sentence; the operator should run workers of this release there",
            status.as_u16()
        ))),
    }
}

/// The feedback that a worker gives as JSON; nothing when it is not whole.
fn parse_feedback(json: &[u8]) -> Option<Feedback> {
    feedback_of(&serde_json::from_slice(json).ok()?)
}

/// The same, read already.
pub(crate) fn feedback_of(said: &Value) -> Option<Feedback> {
    let start = match said["start"].as_str()? {
        "hot" => StartKind::Hot,
        "warm-runtime" => StartKind::WarmRuntime,
        "warm-model" => StartKind::WarmModel,
        "warm-key" => StartKind::WarmKey,
        "cold" => StartKind::Cold,
        _ => return None,
    };
    let number = |name: &str| said[name].as_u64();
    let resident = said["resident"].as_array()?.iter().take(RESIDENT_MAX);
    let resident: Option<Vec<Digest>> = resident
        .map(|digest| digest.as_str()?.parse().ok())
        .collect();
    Some(Feedback {
        start,
        lease_us: number("lease_us")?,
        open_us: number("open_us")?,
        load_us: number("load_us")?,
        run_us: number("run_us")?,
        total_us: number("total_us")?,
        resident: resident?,
        in_flight: number("in_flight")?.try_into().ok()?,
        queue_us: number("queue_us")?,
        free_bytes: number("free_bytes")?,
        engine: said["engine"].as_str().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_comes_through_its_header_as_it_went_in() {
        let feedback = Feedback {
            start: StartKind::WarmKey,
            lease_us: 1,
            open_us: 2,
            load_us: 3,
            run_us: 4,
            total_us: 5,
            resident: vec![Digest::from_bytes([7; 32])],
            in_flight: 6,
            queue_us: 7,
            free_bytes: u64::MAX,
            engine: Some("rten 1".to_owned()),
        };
        let header = bield_face::feedback_header(&feedback);
        assert_eq!(parse_feedback(header.as_bytes()), Some(feedback));
        assert_eq!(parse_feedback(b"{\"start\": \"hot\"}"), None);
        assert_eq!(parse_feedback(b"\xff"), None);
    }

    #[tokio::test]
    async fn places_are_the_addresses_in_order_and_what_is_none_is_named() {
        let addresses = ["b:2", "a:1", "b:2"].map(str::to_owned);
        let remote = Remote::new(&addresses).unwrap();
        assert!(remote.addresses().eq(["a:1", "b:2"]));
        let wrong = Remote::new(&["no port".to_owned()]);
        assert_eq!(wrong.err().as_deref(), Some("no port"));
    }
}
