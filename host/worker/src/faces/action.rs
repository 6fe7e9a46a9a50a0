//! OpenWhisk's action interface: `POST /init` once, then `POST /run` (apache/openwhisk, `docs/actions-new.md`).
//!
//! ```text
//! {"value": {"sealed": base64}, "deadline": "ms since 1970", …} ─▶ {"sealed": base64, "feedback": {…}, "kind": "hot"}
//! ```
//!
//! | what happens | status and body |
//! |---|---|
//! | `/init` the first time, whatever it brings | 200 `{"OK":true}` |
//! | `/init` again | 403 `{"error":"Cannot initialize the action more than once."}` |
//! | `/run` before `/init` | 403 `{"error":"System not initialized."}` |
//! | a sealed answer, be it a refusal under seal | 200 `{"sealed", "feedback", "kind"}`; `kind` is how warm the start was |
//! | nothing sealed came, or it cannot be opened (yet), or the deadline has passed | 200 `{"error": {"code", "message", "retry"}}`: OpenWhisk's *application error* |
//! | draining, starting, no place, or the runtime was lost | 503: OpenWhisk runs the activation elsewhere |
//! | longer than the limit | 413 `{"error": …}` |
//! | the runtime broke a rule, or took too long | 502 `{"error": …}` |
//! | another method | 500 `{"error":"Bad request."}` |
//!
//! Always true: the code in `/init` is not looked at and never reaches the runtime, nor does anything of the activation but the
//! sealed bytes: what runs is measured. Answers have a length, because OpenWhisk takes none without. After each run, however
//! it ends, the line [`SENTINEL`] stands on standard output and on standard error.
//!
//! Not here: limits on results, which the platform enforces.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_face::{Outcome, Refusal, json_response, package_of};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::SemaphorePermit;

use super::Faces;
use crate::worker::too_late;

/// Ends the log of one activation (`docs/actions-new.md`).
const SENTINEL: &str = "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX";
/// Longest body of `/init`: OpenWhisk's code limit of 48 MB.
const CODE_BYTES_MAX: usize = 48 << 20;

/// What another container does better: 503 has the platform end this one and run the activation in another.
const BETTER_ELSEWHERE: [&str; 7] = [
    "draining",
    "stopping",
    "starting",
    "restarting",
    "busy",
    "memory",
    "runtime-lost",
];

/// The body of `/run`, as far as it is looked at.
#[derive(Deserialize)]
struct Run<'a> {
    #[serde(borrow, default)]
    value: Input<'a>,
    /// Milliseconds since 1970, a string or a number.
    #[serde(default)]
    deadline: Value,
}

#[derive(Default, Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    sealed: Option<Text<'a>>,
}

/// Borrowed from the body wherever nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// `POST /init`. Answers when the runtime is up: the platform asks again only while nobody listens.
pub(super) async fn init(State(faces): State<Arc<Faces>>, method: Method, body: Body) -> Response {
    if method != Method::POST {
        return bad_request();
    }
    let again = || {
        error(
            StatusCode::FORBIDDEN,
            "Cannot initialize the action more than once.",
        )
    };
    if faces.is_action.load(Ordering::Relaxed) {
        faces.worker.bodies.discard(body).await;
        return again();
    }
    // Taken in, so that the platform hears the answer, and dropped.
    let bodies = faces.worker.bodies.up_to(CODE_BYTES_MAX);
    if let Err(refusal) = bodies.read(body).await {
        return failed(&refusal);
    }
    faces.worker.is_up().await;
    if let Err(refusal) = faces.worker.takes_work() {
        return failed(&refusal);
    }
    if faces.is_action.swap(true, Ordering::Relaxed) {
        return again();
    }
    json_response(StatusCode::OK, &json!({ "OK": true }))
}

/// `POST /run`.
pub(super) async fn run(State(faces): State<Arc<Faces>>, method: Method, body: Body) -> Response {
    if method != Method::POST {
        return bad_request();
    }
    if !faces.is_action.load(Ordering::Relaxed) {
        faces.worker.bodies.discard(body).await;
        return error(StatusCode::FORBIDDEN, "System not initialized.");
    }
    // Written when this ends, also when the platform hangs up.
    let _end = EndOfLog;
    // Held until the whole answer is there.
    let one = faces.activations.try_acquire().ok();
    let outcome = activate(&faces, one.as_ref(), body);
    let outcome = faces.worker.counted(outcome).await;
    let whole = match outcome {
        Ok(outcome) => outcome.whole().await,
        Err(refusal) => Err(refusal),
    };
    match whole {
        Ok((feedback, sealed)) => json_response(
            StatusCode::OK,
            &json!({
                "sealed": STANDARD.encode(sealed),
                "kind": feedback.start,
                "feedback": feedback,
            }),
        ),
        Err(refusal) => failed(&refusal),
    }
}

async fn activate(
    faces: &Faces,
    one: Option<&SemaphorePermit<'_>>,
    body: Body,
) -> Result<Outcome, Refusal> {
    let worker = &faces.worker;
    let may_begin = worker.takes_work().and_then(|()| match one {
        Some(_) => Ok(()),
        None => Err(Refusal::unavailable(
            "busy",
            "this action takes one activation at a time (__OW_ALLOW_CONCURRENT is not set)",
        )),
    });
    let body = worker.bodies.unless(may_begin, body).await?;
    // What was decoded counts in the place of what it was decoded from.
    let (bytes, _memory) = worker.in_base64().read(body).await?;
    let (sealed, left) = read(&bytes)?;
    drop(bytes);
    worker.bodies.fits(&sealed)?;
    package_of(&sealed)?;
    if left.is_some_and(|left| left.is_zero()) {
        return Err(too_late());
    }
    faces.worker.call(sealed, left).await
}

/// The sealed request of an activation, and how long it may take.
fn read(body: &[u8]) -> Result<(Bytes, Option<Duration>), Refusal> {
    let run: Run<'_> = serde_json::from_slice(body).map_err(|_| nothing_sealed())?;
    let Text(text) = run.value.sealed.ok_or_else(nothing_sealed)?;
    let sealed = STANDARD.decode(&*text).map_err(|_| nothing_sealed())?;
    let deadline = match &run.deadline {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let left = deadline.map(|ms| Duration::from_millis(ms).saturating_sub(now));
    Ok((sealed.into(), left))
}

fn nothing_sealed() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "unsealed",
        "this action takes {\"sealed\": base64 of a sealed request} and nothing else; use the SDK, which verifies the key service and seals the request before it leaves your machine",
    )
}

/// A refusal in OpenWhisk's terms.
fn failed(refusal: &Refusal) -> Response {
    let status = match refusal.status() {
        _ if BETTER_ELSEWHERE.contains(&refusal.code()) => StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::PAYLOAD_TOO_LARGE => StatusCode::PAYLOAD_TOO_LARGE,
        // The request's own fault, its sender's, or the key service's, which every container asks.
        StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT | StatusCode::SERVICE_UNAVAILABLE => {
            StatusCode::OK
        }
        _ if refusal.code() == "too-late" => StatusCode::OK,
        _ => StatusCode::BAD_GATEWAY,
    };
    let error = json!({
        "code": refusal.code(),
        "message": refusal.message(),
        "retry": refusal.retry_json(),
    });
    json_response(status, &json!({ "error": error }))
}

fn error(status: StatusCode, message: &str) -> Response {
    json_response(status, &json!({ "error": message }))
}

/// What an action says to what it does not know.
pub(super) fn bad_request() -> Response {
    error(StatusCode::INTERNAL_SERVER_ERROR, "Bad request.")
}

/// Writes [`SENTINEL`] when it is dropped.
struct EndOfLog;

impl Drop for EndOfLog {
    fn drop(&mut self) {
        // Nobody may read them any more; the run is not the worse for it.
        let _ = writeln!(std::io::stdout(), "{SENTINEL}");
        let _ = std::io::stdout().flush();
        let _ = writeln!(std::io::stderr(), "{SENTINEL}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_another_container_does_better_has_the_platform_end_this_one() {
        for (status, code, says) in [
            (503, "draining", 503),
            (503, "busy", 503),
            (503, "runtime-lost", 503),
            (503, "no-lease", 200),
            (503, "key-service-unreachable", 200),
            (400, "not-opened", 200),
            (408, "slow-body", 200),
            (504, "too-late", 200),
            (504, "timed-out", 502),
            (413, "too-long", 413),
            (502, "bad-answer", 502),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let refusal = Refusal::passed_on(status, code, "so it is", None);
            assert_eq!(failed(&refusal).status().as_u16(), says, "{code}");
        }
    }
}
