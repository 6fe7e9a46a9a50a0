//! The replica's HTTP face: paths, limits, and how a body gets in.
//!
//! ```text
//! PUT  /v1/capsules/<name>                       metadata: begin a capsule
//! GET  /v1/capsules  /v1/capsules/<name>         which ones; metadata
//! POST /v1/capsules/<name>/records?kept=         `u32 length ‖ record` … → acknowledgements
//! GET  /v1/capsules/<name>/records/<writer>      a page of one chain
//! GET  /v1/capsules/<name>/heads?nonce=          a signed page of heads
//! GET  /v1/capsules/<name>/subscribe?from=       records in order of arrival, and on
//! GET, POST /v1/capsules/<name>/forks            fork proofs
//! GET  /v1/capsules/<name>/log/…                 checkpoint, tiles, proofs (C2SP tlog-tiles)
//! ```
//!
//! Always true: a body is read within a limit, on time, and within the memory for all bodies
//! together; answers that are not taken hold bounded memory; every refusal is JSON with a slug and a
//! sentence.
//!
//! Not here: TLS (records are sealed and signed, statements are signed; the network sees what the
//! store sees), who may read (whoever has the name: what is read is sealed). Names are no secret:
//! `GET /v1/capsules` lists them all, so names, sizes and times are public to whoever reaches the port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::{Refusal, Store};
use body::BODIES_BYTES_MAX;
use outgoing::Outgoing;

mod body;
mod capsules;
mod log;
mod outgoing;
mod query;
mod records;
mod subscribe;

/// Longest body of records: what a round of a shard can take.
pub const APPEND_BYTES_MAX: usize = 8 << 20;

/// Most subscriptions: each holds a connection and a page.
const SUBSCRIBERS_MAX: usize = 1024;

/// Memory for answers that were asked for and not taken yet: 28 of the longest pages.
const ANSWERS_BYTES_MAX: usize = 64 << 20;

/// The same for subscriptions, so that slow ones do not keep readers waiting.
const SUBSCRIPTIONS_BYTES_MAX: usize = 64 << 20;

/// What every handler sees.
#[derive(Clone)]
pub(crate) struct Face {
    pub(crate) store: Arc<Store>,
    /// Memory for bodies, in KiB.
    bodies: Arc<Semaphore>,
    subscribers: Arc<Semaphore>,
    /// Memory for answers.
    answers: Outgoing,
    /// Memory for what subscriptions send.
    sending: Outgoing,
    draining: Arc<AtomicBool>,
    /// Tells subscriptions to end.
    stopping: watch::Receiver<bool>,
    /// Checkpoints go to witnesses before they are served.
    witnessed: bool,
    /// A subscriber that takes nothing for this long is cut off.
    stall_max: Duration,
}

impl Face {
    pub(crate) fn new(
        store: Arc<Store>,
        draining: Arc<AtomicBool>,
        stopping: watch::Receiver<bool>,
        witnessed: bool,
        stall_max: Duration,
    ) -> Self {
        Self {
            store,
            bodies: Arc::new(Semaphore::new(BODIES_BYTES_MAX / 1024)),
            subscribers: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)),
            answers: Outgoing::new(ANSWERS_BYTES_MAX),
            sending: Outgoing::new(SUBSCRIPTIONS_BYTES_MAX),
            draining,
            stopping,
            witnessed,
            stall_max,
        }
    }

    /// Reads a body of at most `max` bytes, unless it is `refused` already; the permit is its memory.
    async fn read(
        &self,
        body: Body,
        max: usize,
        refused: Option<Refusal>,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        if self.draining.load(Ordering::SeqCst) {
            return Err(Refusal::draining());
        }
        body::receive(body, max, &self.bodies, refused, body::PACE).await
    }
}

pub(crate) fn router(face: Face) -> Router {
    Router::new()
        .route("/v1/identity", get(capsules::identity))
        .route("/v1/capsules", get(capsules::list))
        .route("/v1/capsules/{name}", put(capsules::create).get(capsules::metadata))
        .route("/v1/capsules/{name}/records", post(records::append))
        .route("/v1/capsules/{name}/records/{writer}", get(records::page))
        .route("/v1/capsules/{name}/heads", get(records::heads))
        .route("/v1/capsules/{name}/subscribe", get(subscribe::subscribe))
        .route("/v1/capsules/{name}/forks", get(records::forks).post(records::add_fork))
        .route("/v1/capsules/{name}/log/checkpoint", get(log::checkpoint))
        .route("/v1/capsules/{name}/log/proof", get(log::proof))
        .route("/v1/capsules/{name}/log/tile/{*path}", get(log::tile))
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(async || {
            Refusal::new(404, "no-such-path", "nothing is here; the paths begin with /v1/identity, /v1/capsules, /metrics, /healthz and /readyz")
        })
        .method_not_allowed_fallback(async || {
            Refusal::new(405, "other-method", "this path takes another method: see the list of paths in the documentation")
        })
        .with_state(face)
}

async fn ready(State(face): State<Face>) -> Result<&'static str, Refusal> {
    if face.draining.load(Ordering::SeqCst) {
        return Err(Refusal::draining());
    }
    match face.store.metrics().set_back.load(Ordering::Relaxed) {
        0 => Ok("ready\n"),
        _ => Err(Refusal::new(
            503,
            "set-back",
            "a witness has seen a longer log than this store has: its disk was set back, or another store uses its \
             key; use another replica, and tell the operator",
        )),
    }
}

async fn metrics(State(face): State<Face>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    (
        [(header::CONTENT_TYPE, kind)],
        face.store.metrics().render(),
    )
        .into_response()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        tracing::debug!(status = self.status, slug = self.slug, "refused");
        let mut response = json_response(status, &self.body());
        if let Some(after) = self.after {
            // RFC 9110 §10.2.3: whole seconds, at least one.
            let secs = after.as_millis().div_ceil(1000).max(1);
            let secs = u64::try_from(secs).unwrap_or(u64::MAX);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, secs.into());
        }
        response
    }
}

/// A JSON response.
fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, kind)], format!("{body}\n")).into_response()
}

/// A response of plain bytes.
fn bytes_response(bytes: impl Into<Body>) -> Response {
    let kind = HeaderValue::from_static("application/octet-stream");
    ([(header::CONTENT_TYPE, kind)], bytes.into()).into_response()
}

/// An empty answer that says that it is done.
fn done(status: StatusCode, what: &str) -> Response {
    json_response(status, &json!({ "done": what }))
}
