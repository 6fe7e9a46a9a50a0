//! What every face shares: the models, and the bounds.
//!
//! Always true: at most [`CALLS_MAX`] calls run at once, on threads of their own, and a call that began counts
//! until it ends, whoever still waits for it; request bodies take at most
//! [`BODIES_KIB_MAX`] together, counted twice for what is made of them, and each at most what its path takes,
//! [`BODY_BYTES_MAX`] where tensors are; a body that stands still, or takes too long
//! in all, is given up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::guard::Token;
use crate::refused::Refused;
use crate::text::{Pooling, Text};
use crate::upstream::{Done, Upstream};

/// Calls at once: each holds a thread while the answer is awaited.
const CALLS_MAX: usize = 32;
/// Longest wait for one of those places.
const PLACE_WAIT: Duration = Duration::from_secs(30);
/// Largest body: a request that fits into a sealed one, raw, and its JSON.
pub(crate) const BODY_BYTES_MAX: usize = bield_protocol::inference::BODY_BYTES_MAX + (1 << 20);
/// All bodies together, in KiB (1 GiB).
const BODIES_KIB_MAX: usize = 1 << 20;
/// Longest standstill of a body on its way in.
const SILENCE_WAIT: Duration = Duration::from_secs(10);
/// Longest time for a whole body.
const BODY_WAIT: Duration = Duration::from_secs(120);

/// How a model's text becomes tokens, and its output embeddings.
pub(crate) struct Reading {
    pub(crate) text: Option<Text>,
    pub(crate) pooling: Pooling,
}

/// What every handler sees.
pub(crate) struct Front {
    pub(crate) upstream: Arc<dyn Upstream>,
    pub(crate) readings: HashMap<String, Reading>,
    pub(crate) token: Option<Token>,
    calls: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
}

/// A body that counts against the bound until it is dropped.
pub(crate) struct Held {
    pub(crate) bytes: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Lets the bytes go; what was made of them counts on.
    pub(crate) fn read(&mut self) {
        self.bytes = Vec::new();
    }
}

impl Front {
    pub(crate) fn new(
        upstream: Arc<dyn Upstream>,
        readings: HashMap<String, Reading>,
        token: Option<Token>,
    ) -> Self {
        Self {
            upstream,
            readings,
            token,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
        }
    }

    /// Does something that blocks, when there is a place.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Upstream) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let place = timeout(PLACE_WAIT, self.calls.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(Refused::busy(format_args!(
                "{CALLS_MAX} calls are running; retry"
            )));
        };
        let upstream = self.upstream.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&*upstream)
        });
        done.await.unwrap_or_else(|_| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            Err(Refused::new(
                status,
                "internal",
                "the proxy failed at this call; please report it",
            ))
        })
    }

    /// Reads a body of at most `bytes_max` within the bounds.
    pub(crate) async fn read(&self, body: Body, bytes_max: usize) -> Result<Held, Refused> {
        timeout(BODY_WAIT, self.read_bounded(body, bytes_max))
            .await
            .unwrap_or_else(|_| Err(too_slow()))
    }

    async fn read_bounded(&self, body: Body, bytes_max: usize) -> Result<Held, Refused> {
        let mut parts = body.into_data_stream();
        let mut held = Held {
            bytes: Vec::new(),
            _memory: None,
        };
        loop {
            let part = match timeout(SILENCE_WAIT, parts.next()).await {
                Err(_) => return Err(too_slow()),
                Ok(None) => return Ok(held),
                Ok(Some(Err(_))) => return Err(Refused::bad("the body broke off")),
                Ok(Some(Ok(part))) => part,
            };
            let length = held.bytes.len() + part.len();
            if length > bytes_max {
                return Err(Refused::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too-large",
                    format_args!("a body has at most {bytes_max} bytes here"),
                ));
            }
            // As much again for what is made of it.
            let kib = |bytes: usize| (2 * bytes).div_ceil(1024);
            let more = u32::try_from(kib(length) - kib(held.bytes.len())).unwrap_or(u32::MAX);
            let memory = self
                .bodies
                .clone()
                .try_acquire_many_owned(more)
                .map_err(|_| {
                    Refused::busy("the proxy reads as many bytes of requests as it may; retry")
                })?;
            match &mut held._memory {
                Some(all) => all.merge(memory),
                none => *none = Some(memory),
            }
            held.bytes.extend_from_slice(&part);
        }
    }

    /// Headers that name the receipts of answers, and say how much they mean.
    pub(crate) fn headers(&self, done: &[Done]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let named = done.iter().take(RECEIPTS_MAX);
        let receipts: Vec<_> = named.map(|done| done.receipt.to_string()).collect();
        let mut put = |name: &'static str, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        if !receipts.is_empty() {
            put(RECEIPT, &receipts.join(", "));
        }
        if done.iter().any(|done| !done.kept) {
            put(KEPT, "no");
        }
        if let Some(start) = done.iter().find_map(|done| done.start) {
            // The gateway's word: no receipt says it.
            put(START, &format!("{start} (unproven)"));
        }
        if self.upstream.simulated() || done.iter().any(|done| done.simulated) {
            put(TEE, "simulated");
        }
        headers
    }
}

/// A JSON answer.
pub(crate) struct Json(pub(crate) serde_json::Value);

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (kind, self.0.to_string()).into_response()
    }
}

fn too_slow() -> Refused {
    Refused::new(
        StatusCode::REQUEST_TIMEOUT,
        "too-slow",
        "the body came too slowly; send it again",
    )
}

/// Names the receipt of an answer; the first [`RECEIPTS_MAX`], separated by commas, where it took several calls.
pub(crate) const RECEIPT: &str = "bield-receipt";
/// Says so when a receipt was verified and the home could not keep it, as when its disk is full.
pub(crate) const KEPT: &str = "bield-receipt-kept";
/// Receipts that the header names: clients take a few KiB of headers. Bodies name all.
const RECEIPTS_MAX: usize = 16;
/// How warm the start was, by the gateway's word.
pub(crate) const START: &str = "bield-start";
/// Says so when nothing is protected by hardware.
pub(crate) const TEE: &str = "bield-tee";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::played::Played;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up() {
        let front = Front::new(Arc::new(Played::default()), HashMap::new(), None);
        let still = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let refused = front.read(Body::from_stream(still), 1).await;
        assert_eq!(
            refused.err().map(|refused| refused.status.as_u16()),
            Some(408)
        );
    }

    #[tokio::test]
    async fn memory_of_a_body_is_free_again_when_it_is_dropped() {
        let front = Front::new(Arc::new(Played::default()), HashMap::new(), None);
        let held = front.read(Body::from(vec![7; 4096]), 4096).await;
        assert_eq!(front.bodies.available_permits(), BODIES_KIB_MAX - 8);
        assert_eq!(held.map(|held| held.bytes).ok(), Some(vec![7; 4096]));
        assert_eq!(front.bodies.available_permits(), BODIES_KIB_MAX);
        let refused = front.read(Body::from(vec![7; 4097]), 4096).await;
        assert_eq!(
            refused.err().map(|refused| refused.status),
            Some(StatusCode::PAYLOAD_TOO_LARGE)
        );
    }

    #[tokio::test]
    async fn a_call_that_panics_is_an_error_and_gives_its_place_back() {
        let front = Front::new(Arc::new(Played::default()), HashMap::new(), None);
        let failed: Result<(), _> = front.run(|_| panic!("on purpose")).await;
        assert_eq!(failed.unwrap_err().status, 500);
        assert_eq!(front.calls.available_permits(), CALLS_MAX);
    }
}
