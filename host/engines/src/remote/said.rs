//! What a worker says beside answers: its refusals, and its word on what it holds. Nothing of it is checked but its form
//! and its length.

use std::time::Duration;

use bield_envelope::Digest;
use bield_protocol::feedback::{Feedback, StartKind, StatePlace};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::{EngineError, Refusal};

/// Longest refusal that is read, in bytes.
const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// Longest name of an engine in a worker's word on itself, in bytes.
const ENGINE_BYTES_MAX: usize = 64;
/// Most packages in a worker's word on what it holds (`bield_protocol::feedback`).
const RESIDENT_MAX: usize = 64;

/// What a worker says that does not answer.
pub(super) async fn refusal(
    status: StatusCode,
    response: Response<Incoming>,
) -> Result<Refusal, EngineError> {
    let said = said(response).await.ok_or(EngineError::Lost)?;
    let is_unavailable = status == StatusCode::SERVICE_UNAVAILABLE;
    match (said.code.as_deref(), said.message.as_deref()) {
        (Some("draining" | "stopping"), _) if is_unavailable => Err(EngineError::Draining),
        (Some("starting" | "restarting"), _) if is_unavailable => Err(EngineError::Cold),
        (Some("busy" | "memory"), _) if is_unavailable => Err(EngineError::Full),
        (Some("runtime-lost"), _) if is_unavailable => Err(EngineError::Lost),
        (Some(code), Some(message)) => Ok(Refusal::passed_on(status, code, message, said.retry)),
        // Something in between, which has nowhere to send it.
        _ if is_unavailable => Err(EngineError::Full),
        _ => Err(EngineError::Broken(format!(
            "the worker answered {} without a sentence; the operator should run workers of this release there",
            status.as_u16()
        ))),
    }
}

/// A refusal as `bield_face` writes it, as far as it is there.
pub(super) struct Said {
    pub(super) code: Option<String>,
    message: Option<String>,
    retry: Option<Duration>,
}

/// Reads it; nothing when it breaks off or is longer than any.
pub(super) async fn said(response: Response<Incoming>) -> Option<Said> {
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect();
    let body = body.await.ok()?.to_bytes();
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    let error = &said["error"];
    let text = |name: &str| error[name].as_str().map(str::to_owned);
    Some(Said {
        code: text("code"),
        message: text("message"),
        retry: retry_of(error),
    })
}

/// After how long an error in `bield_face`'s form says to come back.
pub(crate) fn retry_of(error: &Value) -> Option<Duration> {
    let after_ms = error["retry"]["after_ms"].as_u64();
    after_ms.map(Duration::from_millis)
}

/// The feedback that a worker gives as JSON; nothing when it is not whole.
pub(super) fn parse_feedback(json: &[u8]) -> Option<Feedback> {
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
        engine: said["engine"]
            .as_str()
            .map(|name| name[..name.floor_char_boundary(ENGINE_BYTES_MAX)].to_owned()),
        state: match &said["state"] {
            Value::String(here) if here == "here" => Some(StatePlace::Here),
            place => place["elsewhere"].as_u64().map(StatePlace::Elsewhere),
        },
    })
}
