//! Paths of the one port; which belongs to whom stands in the crate's documentation.

mod action;
mod container;
mod inference;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get, post};
use bield_face::Refusal;
use tokio::sync::Semaphore;

use crate::worker::Worker;

/// What the handlers share.
pub(crate) struct Faces {
    worker: Arc<Worker>,
    /// The platform said `/init`: this worker is an action.
    is_action: AtomicBool,
    /// Activations at once.
    activations: Semaphore,
}

pub(crate) fn router(worker: &Arc<Worker>) -> Router {
    let activations = match worker.allow_concurrent {
        // Then the places at the runtime are the limit.
        true => Semaphore::MAX_PERMITS,
        false => 1,
    };
    let faces = Arc::new(Faces {
        worker: Arc::clone(worker),
        is_action: AtomicBool::new(false),
        activations: Semaphore::new(activations),
    });
    let model = "/v2/models/{name}";
    Router::new()
        .route("/", post(plain))
        .route("/init", any(action::init))
        .route("/run", any(action::run))
        .route("/healthz", get(container::alive))
        .route("/readyz", get(container::ready))
        .route("/v2", get(inference::server))
        .route("/v2/health/live", get(inference::live))
        .route("/v2/health/ready", get(inference::ready))
        .route(model, get(inference::model))
        .route(&format!("{model}/ready"), get(inference::model_ready))
        .route(&format!("{model}/infer"), post(inference::infer))
        .fallback(unknown)
        .method_not_allowed_fallback(async |uri: Uri| {
            let refusal = Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "other-method",
                "this path takes another method: POST /, /init, /run and /v2/models/<digest>/infer, GET the others",
            );
            match uri.path().starts_with("/v2") {
                true => inference::failed(&refusal),
                false => refusal.into_response(),
            }
        })
        .with_state(faces)
}

/// `POST /`: a sealed request in, a sealed answer out, at once or as it comes; the same as a gateway's `/v1/call`.
async fn plain(State(faces): State<Arc<Faces>>, body: Body) -> Result<Response, Refusal> {
    let outcome = faces.worker.plain(body).await?;
    Ok(outcome.into_response())
}

async fn unknown(State(faces): State<Arc<Faces>>, uri: Uri) -> Response {
    if uri.path().starts_with("/v2/") {
        return inference::unknown();
    }
    if faces.is_action.load(Ordering::Relaxed) {
        return action::bad_request();
    }
    Refusal::new(
        StatusCode::NOT_FOUND,
        "no-such-path",
        "nothing is here; the paths are /, /init, /run, /healthz, /readyz and /v2",
    )
    .into_response()
}
