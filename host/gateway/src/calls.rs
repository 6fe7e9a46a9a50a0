//! `POST /v1/call`: a sealed request in, a sealed answer out, at once or as it comes.
//!
//! Whether it comes in parts is the runtime's word. A connection that breaks is all that tells a client of an answer that
//! was cut; who verifies needs no telling.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bield_envelope::SealedRequest;
use bield_protocol::call::Reply;
use bield_protocol::feedback::Feedback;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::Face;
use crate::refusal::{Refusal, refuse};
use crate::worker::Answer;

/// Media type of sealed requests and answers.
const SEALED: HeaderValue = HeaderValue::from_static("application/vnd.bield.sealed");
/// Carries the runtime's unsealed feedback for the packer, as JSON.
const FEEDBACK: HeaderName = HeaderName::from_static("bield-feedback");
/// Longest time a client may take to send a body; a 64 MiB body needs 18 Mbit/s.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a refused body that are read and dropped before the refusal is sent.
const DISCARD_BYTES_MAX: usize = 256 << 20;

pub(crate) async fn call(State(face): State<Face>, body: Body) -> Result<Response, Refusal> {
    if face.is_draining() {
        return Err(Refusal::unavailable(
            "draining",
            "this gateway is stopping; try another one or come back",
        ));
    }
    let (sealed, _memory) = read(&face, body).await?;
    let package = match SealedRequest::parse(&sealed) {
        Ok(request) => request.header().package,
        Err(error) => return Err(unsealed(&error)),
    };
    let Answer { first, rest } = face.fleet.call(&package, sealed).await?;
    match Reply::decode(&first) {
        Ok(Reply::Streamed(feedback, first)) => {
            let first = stream::once(async { Ok(Bytes::from(first)) });
            let body = match rest {
                Some(rest) => Body::from_stream(first.chain(rest.into_stream())),
                None => Body::from_stream(first),
            };
            Ok((
                [
                    (header::CONTENT_TYPE, SEALED),
                    (FEEDBACK, as_json(&feedback)),
                ],
                body,
            )
                .into_response())
        }
        // A whole answer is one message.
        _ if rest.is_some() => Err(other_version()),
        Ok(Reply::Sealed(feedback, answer)) => Ok((
            [
                (header::CONTENT_TYPE, SEALED),
                (FEEDBACK, as_json(&feedback)),
            ],
            answer,
        )
            .into_response()),
        Ok(Reply::Unsealed(feedback, refusal)) => {
            // It could not open the request, so it cannot seal either: come back, or seal it anew.
            let status = match refusal.retry_after_ms {
                Some(_) => StatusCode::SERVICE_UNAVAILABLE,
                None => StatusCode::BAD_REQUEST,
            };
            let mut response = refuse(
                status,
                &refusal.code,
                &refusal.message,
                refusal.retry_after_ms,
            );
            response.headers_mut().insert(FEEDBACK, as_json(&feedback));
            Ok(response)
        }
        Ok(_) | Err(_) => Err(other_version()),
    }
}

fn other_version() -> Refusal {
    Refusal::new(
        StatusCode::BAD_GATEWAY,
        "other-version",
        "the runtime's answer is not one this gateway knows; the operator should run both from one release",
    )
}

/// Reads the body within the limits on one body, on all bodies together, and on time.
async fn read(face: &Face, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let max = face.arguments.body_bytes_max();
    let received = tokio::time::timeout(BODY_WAIT, receive(body, max, &face.bodies)).await;
    received.unwrap_or_else(|_| {
        Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow-body",
            format!(
                "the request did not arrive within {} s; send it again",
                BODY_WAIT.as_secs()
            ),
        )
        .retry_after(Duration::from_secs(1)))
    })
}

/// Reads a body of at most `max` bytes. One that is refused is still taken in, up to
/// [`DISCARD_BYTES_MAX`], because a client reads a refusal only once it has sent its request.
async fn receive(
    body: Body,
    max: usize,
    memory: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let announced = body.size_hint().exact();
    let announced = announced.map_or(max, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut kept = Kept::new(memory).and_then(|kept| match announced <= max {
        true => Ok(kept),
        false => Err(too_long(max)),
    });
    let mut frames = body.into_data_stream();
    let mut total = 0usize;
    // A broken connection ends the body early; then it does not parse, and nobody is left to hear it.
    while let Some(Ok(frame)) = frames.next().await {
        total = total.saturating_add(frame.len());
        if total > DISCARD_BYTES_MAX {
            break;
        }
        // From the first refusal on, nothing is kept any more.
        kept = kept.and_then(|kept| match total <= max {
            true => kept.with(&frame, announced, memory),
            false => Err(too_long(max)),
        });
    }
    let kept = kept?;
    Ok((kept.bytes.into(), kept.memory))
}

/// What has arrived of a body, with permits for the memory it takes: for what came, not for what is announced.
struct Kept {
    bytes: Vec<u8>,
    memory: OwnedSemaphorePermit,
}

impl Kept {
    fn new(memory: &Arc<Semaphore>) -> Result<Kept, Refusal> {
        Ok(Kept {
            bytes: Vec::new(),
            memory: permits(memory, 0)?,
        })
    }

    /// Adds a frame. Room doubles, up to the announced length, so a body is copied at most twice.
    fn with(
        mut self,
        frame: &[u8],
        announced: usize,
        memory: &Arc<Semaphore>,
    ) -> Result<Kept, Refusal> {
        let needed = self.bytes.len() + frame.len();
        if needed > self.bytes.capacity() {
            let room = (2 * needed).min(announced).max(needed);
            let held = self.memory.num_permits();
            self.memory
                .merge(permits(memory, room.div_ceil(1024).saturating_sub(held))?);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(frame);
        Ok(self)
    }
}

fn permits(memory: &Arc<Semaphore>, kib: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    Arc::clone(memory).try_acquire_many_owned(kib).map_err(|_| {
        Refusal::unavailable(
            "memory",
            "all memory for request bodies is in use; come back shortly",
        )
    })
}

fn too_long(max: usize) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too-long",
        format!(
            "the body is longer than the {} MiB this gateway takes; send less",
            max >> 20
        ),
    )
}

fn unsealed(error: &bield_envelope::EnvelopeError) -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "unsealed",
        format!(
            "this endpoint takes sealed requests only ({error}); use `bield call` or the SDK, which verify the \
             key service and seal the request before it leaves your machine"
        ),
    )
}

fn as_json(feedback: &Feedback) -> HeaderValue {
    let json = serde_json::to_string(feedback).unwrap_or_default();
    HeaderValue::try_from(json).unwrap_or(HeaderValue::from_static("{}"))
}
