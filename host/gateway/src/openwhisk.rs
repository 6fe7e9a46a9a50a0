//! A part of Apache OpenWhisk's REST interface, so that its clients work unchanged.
//!
//! ```text
//!  /api/v1/namespaces                                      GET
//!  /api/v1/namespaces/NS/limits                            GET
//!  /api/v1/namespaces/NS/actions                           GET
//!  /api/v1/namespaces/NS/actions/NAME                      PUT  GET  DELETE
//!  /api/v1/namespaces/NS/actions/NAME?blocking=&result=    POST {"sealed": base64} ─▶ as /v1/call
//!  /api/v1/namespaces/NS/activations[/ID[/result|/logs]]   GET
//! ```
//!
//! Goes in: basic authentication of one of the namespaces named on the command line, whose `_` stands for its own. Comes out:
//! what OpenWhisk says in that case; errors are `{"error", "code"}`.
//!
//! Always true: an action names an image and limits, which are kept and shown, but what runs is the measured runtime
//! alone, whichever the image; an invocation takes one sealed request and goes the way of `/v1/call`, with the namespace as
//! its caller; actions and activations are kept in memory, of each namespace at most [`actions::ACTIONS_MAX`] and
//! [`activations::RECORDS_MAX`] of them, and are gone with the process; a namespace sees nothing of another.
//!
//! Not here: packages, triggers, rules, sequences, code, default parameters, logs (what a runtime says is not for callers).

mod actions;
mod activations;
mod auth;
mod error;
mod invoke;
mod query;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{any, get};
use bield_face::{Bodies, Refusal, json_response};
use bield_packer::Caller;
use bield_protocol::feedback::Feedback;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::Semaphore;

use actions::Actions;
use activations::Activations;
pub(crate) use auth::Account;
use error::WhiskError;

/// Invocations of one namespace at once; more get 429.
const CONCURRENT_MAX: usize = 256;

/// Code of a refusal: the answer is longer than a result may be.
pub(crate) const TOO_LONG: &str = "answer-too-long";

/// Has a sealed request answered: the feedback and all of the sealed answer, or a refusal [`TOO_LONG`] where that has more than
/// [`Limits::sealed_bytes_max`] bytes.
pub(crate) type Answers =
    Box<dyn Fn(Caller, Bytes) -> BoxFuture<'static, Result<Whole, Refusal>> + Send + Sync>;

/// A whole sealed answer with what the worker says beside it.
pub(crate) type Whole = (Option<Feedback>, Bytes);

/// What all actions keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Longest parameters and longest result, as JSON, in bytes.
    pub(crate) payload_bytes_max: usize,
    /// Longest time of one activation.
    pub(crate) timeout_max: Duration,
    /// Longest wait of a blocking invocation.
    pub(crate) blocking_max: Duration,
    /// Requests that one worker has at once.
    pub(crate) concurrency_max: u64,
}

impl Limits {
    /// Longest sealed answer whose base64 may fit into a result, in bytes.
    pub(crate) const fn sealed_bytes_max(&self) -> usize {
        self.payload_bytes_max / 4 * 3
    }
}

/// The interface. Handlers share it.
pub(crate) struct Openwhisk {
    namespaces: Vec<Namespace>,
    answers: Answers,
    bodies: Bodies,
    limits: Limits,
}

/// What is kept of one namespace.
struct Namespace {
    account: Account,
    caller: Caller,
    actions: Mutex<Actions>,
    activations: Mutex<Activations>,
    concurrent: Arc<Semaphore>,
}

type Shared = State<Arc<Openwhisk>>;

impl Openwhisk {
    /// Serves these namespaces; bodies come out of the memory of `bodies`.
    pub(crate) fn new(
        accounts: Vec<Account>,
        limits: Limits,
        bodies: &Bodies,
        answers: Answers,
    ) -> Openwhisk {
        let namespaces = accounts.into_iter().map(|account| Namespace {
            caller: account.caller(),
            account,
            actions: Mutex::default(),
            activations: Mutex::new(Activations::of(limits.payload_bytes_max)),
            concurrent: Arc::new(Semaphore::new(CONCURRENT_MAX)),
        });
        Openwhisk {
            namespaces: namespaces.collect(),
            answers,
            bodies: bodies.up_to(limits.payload_bytes_max),
            limits,
        }
    }

    /// The namespace that the request authenticates as, if it is the one in the path.
    fn namespace(&self, headers: &HeaderMap, named: &str) -> Result<&Namespace, WhiskError> {
        let own = self.authenticated(headers)?;
        match named == "_" || named == own.account.namespace() {
            true => Ok(own),
            false => Err(WhiskError::new(
                StatusCode::FORBIDDEN,
                "The supplied authentication is not authorized to access this resource.",
            )),
        }
    }

    fn authenticated(&self, headers: &HeaderMap) -> Result<&Namespace, WhiskError> {
        let accounts = self.namespaces.iter().map(|one| &one.account);
        let found = auth::authenticate(headers, accounts)?;
        Ok(&self.namespaces[found])
    }
}

impl Namespace {
    fn actions(&self) -> MutexGuard<'_, Actions> {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn activations(&self) -> MutexGuard<'_, Activations> {
        self.activations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The paths.
pub(crate) fn router(openwhisk: Arc<Openwhisk>) -> Router {
    let base = "/api/v1/namespaces/{namespace}";
    let action = get(actions::show)
        .put(actions::put)
        .delete(actions::delete)
        .post(invoke::invoke);
    Router::new()
        .route("/api/v1/namespaces", get(namespaces))
        .route(&format!("{base}/limits"), get(limits))
        .route(&format!("{base}/actions"), get(actions::list))
        .route(&format!("{base}/actions/{{name}}"), action)
        .route(&format!("{base}/activations"), get(activations::list))
        .route(
            &format!("{base}/activations/{{id}}"),
            get(activations::show),
        )
        .route(
            &format!("{base}/activations/{{id}}/{{part}}"),
            get(activations::show_part),
        )
        .route("/api/v1/{*path}", any(async || WhiskError::not_found()))
        .method_not_allowed_fallback(async || {
            WhiskError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "The resource takes another method.",
            )
        })
        .with_state(openwhisk)
}

async fn namespaces(State(openwhisk): Shared, headers: HeaderMap) -> Result<Response, WhiskError> {
    let own = openwhisk.authenticated(&headers)?;
    Ok(json_response(
        StatusCode::OK,
        &json!([own.account.namespace()]),
    ))
}

async fn limits(
    State(openwhisk): Shared,
    axum::extract::Path(namespace): axum::extract::Path<String>,
    headers: HeaderMap,
) -> Result<Response, WhiskError> {
    openwhisk.namespace(&headers, &namespace)?;
    let limits = openwhisk.limits;
    let body = json!({
        "concurrentInvocations": CONCURRENT_MAX,
        "minActionConcurrency": 1,
        "maxActionConcurrency": limits.concurrency_max,
        "minActionMemory": actions::MEMORY_MIB.start(),
        "maxActionMemory": actions::MEMORY_MIB.end(),
        "minActionTimeout": actions::TIMEOUT_MS_MIN,
        "maxActionTimeout": actions::timeout_ms_max(&limits),
        "maxPayloadSize": format!("{} B", limits.payload_bytes_max),
    });
    Ok(json_response(StatusCode::OK, &body))
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
