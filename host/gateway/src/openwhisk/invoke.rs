//! `POST …/actions/NAME`: an invocation, waited for or not.
//!
//! | the invocation | answer |
//! |---|---|
//! | not blocking | 202 `{"activationId"}` |
//! | blocking, and it ends within the longest wait, 60 s, or its action's limit | 200 and its record, or with `result=true` its result |
//! | blocking, and it does not | 202 `{"activationId"}`: it goes on, and its record comes |
//! | blocking, and it ends in an error | 502 and its record, or with `result=true` its result |
//! | blocking, and nobody could take it | 429 or 503: it has not run, and there is no record |
//! | what it brings is not one sealed request | 400, 413: it has not begun |

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_face::{Refusal, json_response, package_of};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::actions::Action;
use super::activations::{Ended, Record};
use super::error::{WhiskError, name};
use super::query::Query;
use super::{CONCURRENT_MAX, Limits, Namespace, Openwhisk, Shared, TOO_LONG, Whole, now_ms};

/// Names the activation beside its answer.
const ACTIVATION: HeaderName = HeaderName::from_static("x-openwhisk-activation-id");

/// What an invocation came to.
enum End {
    Record(Record),
    /// Nobody could take it; it has not run.
    NotRun(Refusal),
}

pub(super) async fn invoke(
    State(openwhisk): Shared,
    Path((namespace, action)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, WhiskError> {
    let (own, found, concurrent) = match begin(&openwhisk, &headers, &namespace, &action) {
        Ok(begun) => begun,
        Err(error) => {
            // A client hears it once it has sent its request.
            openwhisk.bodies.discard(body).await;
            return Err(error);
        }
    };
    let (bytes, memory) = openwhisk.bodies.read(body).await?;
    let sealed = sealed(&bytes)?;
    drop(bytes);

    let (query, now) = (Query::of(query.as_deref()), now_ms());
    let (blocking, only_result) = (query.says("blocking"), query.says("result"));
    let timeout = found.timeout();
    let record = Record {
        id: name(),
        version: found.version(),
        limits: found.limits(),
        name: action,
        start: now,
        end: now,
        ended: Ended::Success,
        result: Value::Null,
        bytes: 0,
    };
    let id = record.id.clone();
    let index = openwhisk.index(own);
    // Goes on when nobody waits any more.
    let running = tokio::spawn(run(
        Arc::clone(&openwhisk),
        index,
        record,
        sealed,
        timeout,
        blocking,
        (concurrent, memory),
    ));
    let mut response = if blocking {
        // It ends within its own limit, so that the lesser of both is waited for.
        match tokio::time::timeout(openwhisk.limits.blocking_max, running).await {
            Ok(Ok(End::Record(record))) => {
                let status = match record.ended {
                    Ended::Success => StatusCode::OK,
                    _ => StatusCode::BAD_GATEWAY,
                };
                match only_result {
                    true => json_response(status, &record.result),
                    false => json_response(status, &record.shown(own.account.namespace())),
                }
            }
            Ok(Ok(End::NotRun(refusal))) => return Err(refusal.into()),
            Ok(Err(_)) => {
                return Err(WhiskError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "this gateway is stopping; invoke the action again, at another one",
                ));
            }
            Err(_) => json_response(StatusCode::ACCEPTED, &json!({ "activationId": id })),
        }
    } else {
        json_response(StatusCode::ACCEPTED, &json!({ "activationId": id }))
    };
    if let Ok(id) = id.parse() {
        response.headers_mut().insert(ACTIVATION, id);
    }
    Ok(response)
}

/// Who invokes what, and a place for it.
fn begin<'a>(
    openwhisk: &'a Openwhisk,
    headers: &HeaderMap,
    namespace: &str,
    action: &str,
) -> Result<(&'a Namespace, Action, OwnedSemaphorePermit), WhiskError> {
    let own = openwhisk.namespace(headers, namespace)?;
    let found = own.actions().get(action).cloned();
    let found = found.ok_or_else(WhiskError::not_found)?;
    let concurrent = Arc::clone(&own.concurrent).try_acquire_owned();
    let concurrent = concurrent.map_err(|_| {
        WhiskError::new(
            StatusCode::TOO_MANY_REQUESTS,
            format!(
                "Too many concurrent requests in flight (count: {CONCURRENT_MAX}, allowed: {CONCURRENT_MAX})."
            ),
        )
    })?;
    Ok((own, found, concurrent))
}

/// The one sealed request that is the parameters.
fn sealed(parameters: &[u8]) -> Result<Bytes, WhiskError> {
    let parameters: Value = serde_json::from_slice(parameters)
        .map_err(|_| WhiskError::malformed("parameters are a JSON object"))?;
    let text = parameters["sealed"].as_str();
    let sealed = text.and_then(|text| STANDARD.decode(text).ok());
    let sealed = sealed.ok_or_else(|| {
        WhiskError::malformed(
            "an invocation takes {\"sealed\": base64 of a sealed request}; use the SDK, which verifies the key service and seals the request before it leaves your machine",
        )
    })?;
    package_of(&sealed)?;
    Ok(sealed.into())
}

/// Has it answered and keeps the record.
async fn run(
    openwhisk: Arc<Openwhisk>,
    index: usize,
    record: Record,
    sealed: Bytes,
    timeout: Duration,
    blocking: bool,
    _held: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> End {
    let own = &openwhisk.namespaces[index];
    let answer = (openwhisk.answers)(own.caller, sealed);
    let (ended, result) = match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(whole)) => result(whole, &openwhisk.limits),
        Ok(Err(refusal)) if refusal.code() == TOO_LONG => too_long("more", &openwhisk.limits),
        Ok(Err(refusal)) if blocking && has_not_run(&refusal) => return End::NotRun(refusal),
        Ok(Err(refusal)) => {
            let error = json!({ "code": refusal.code(), "message": refusal.message() });
            let ended = match refusal.status() {
                StatusCode::BAD_REQUEST => Ended::Application,
                _ => Ended::Internal,
            };
            (ended, json!({ "error": error }))
        }
        Err(_) => {
            let ms = timeout.as_millis();
            let error = format!("The action exceeded its time limits of {ms} milliseconds.");
            (Ended::Developer, json!({ "error": error }))
        }
    };
    let record = Record {
        end: now_ms(),
        bytes: length(&result),
        ended,
        result,
        ..record
    };
    own.activations().keep(record.clone());
    End::Record(record)
}

/// Refused before a worker had it, or by a worker that did not begin.
fn has_not_run(refusal: &Refusal) -> bool {
    match refusal.status() {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE => refusal.code() != "runtime-lost",
        _ => false,
    }
}

fn result((feedback, sealed): Whole, limits: &Limits) -> (Ended, Value) {
    let result = json!({
        "sealed": STANDARD.encode(sealed),
        "kind": feedback.as_ref().map(|feedback| feedback.start),
        "feedback": feedback,
    });
    let length = length(&result);
    match length <= limits.payload_bytes_max {
        true => (Ended::Success, result),
        false => too_long(&length.to_string(), limits),
    }
}

fn too_long(length: &str, limits: &Limits) -> (Ended, Value) {
    let max = limits.payload_bytes_max;
    let error = format!(
        "The action produced a response that exceeded the allowed length: {length} > {max} bytes."
    );
    (Ended::Application, json!({ "error": error }))
}

/// Length of a value as JSON, in bytes.
fn length(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

impl Openwhisk {
    fn index(&self, own: &Namespace) -> usize {
        let mut all = self.namespaces.iter();
        all.position(|one| std::ptr::eq(one, own)).unwrap_or(0)
    }
}
