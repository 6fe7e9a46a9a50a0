//! Open Inference Protocol version 2: REST with the binary tensor data extension, and gRPC.
//!
//! Source: the specification of the Open Inference Protocol, and Triton's extensions `binary_tensor_data` and
//! `model_repository` (its index only). What a model takes and gives is told from the attested key
//! configuration; its version is the owner's, and only one is served under a name.

mod elements;
pub(crate) mod grpc;
pub(crate) mod infer;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bield_sdk::TensorSpec;
use serde_json::{Value, json};

use crate::front::{BODY_BYTES_MAX, Front, Held, Json};
use crate::refused::Refused;
use crate::upstream::{About, Done, Upstream};

use infer::{Asked, HEADER_LENGTH, Written};

/// Largest request for the index.
const INDEX_BYTES_MAX: usize = 64 << 10;
/// What runs behind a model, in metadata.
const PLATFORM: &str = "bield";
/// Extensions of the protocol that are spoken.
const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "model_repository(index)"];

/// A refusal in the protocol's form.
pub(crate) struct Failed(pub(crate) Refused);

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self(refused)
    }
}

impl axum::response::IntoResponse for Failed {
    fn into_response(self) -> Response {
        let mut response = Json(json!({"error": self.0.message})).into_response();
        self.0.mark(&mut response);
        response
    }
}

type Answer = Result<Response, Failed>;
type Shared = State<Arc<Front>>;

/// The protocol's paths.
pub(crate) fn router() -> Router<Arc<Front>> {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/", get(server))
        .route("/v2/health/live", get(live))
        .route("/v2/health/ready", get(ready))
        .route("/v2/repository/index", post(index))
        .route("/v2/models/{model}", get(model))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(model))
        .route(
            "/v2/models/{model}/versions/{version}/ready",
            get(model_ready),
        )
        .route("/v2/models/{model}/versions/{version}/infer", post(infer))
}

/// A model, and a version of it where one is meant.
#[derive(serde::Deserialize)]
struct Meant {
    model: String,
    version: Option<String>,
}

/// What the model is, when it is the version that is meant.
pub(crate) fn about(
    upstream: &dyn Upstream,
    model: &str,
    version: Option<&str>,
) -> Result<About, Refused> {
    let about = upstream.about(model)?;
    match version {
        Some(version) if version != about.version => Err(Refused::unknown(format_args!(
            "model {} is served in version {} only",
            about.name, about.version
        ))),
        _ => Ok(about),
    }
}

async fn server(State(front): Shared) -> Response {
    let value = json!({
        "name": PLATFORM,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": EXTENSIONS,
    });
    (front.headers(&[]), Json(value)).into_response()
}

async fn live() -> Response {
    Json(json!({"live": true})).into_response()
}

async fn ready(State(front): Shared) -> Response {
    let ready = front.run(|upstream| {
        let unready = upstream
            .names()
            .into_iter()
            .find_map(|name| upstream.about(&name).err());
        unready.map_or(Ok(()), Err)
    });
    readiness(&front, ready.await, json!({"ready": true}))
}

async fn model_ready(State(front): Shared, Path(meant): Path<Meant>) -> Response {
    let name = meant.model.clone();
    let ready = front
        .run(move |upstream| about(upstream, &meant.model, meant.version.as_deref()).map(drop));
    readiness(&front, ready.await, json!({"name": name, "ready": true}))
}

fn readiness(front: &Front, ready: Result<(), Refused>, value: Value) -> Response {
    match ready {
        Ok(()) => (front.headers(&[]), Json(value)).into_response(),
        Err(refused) => Failed(refused).into_response(),
    }
}

async fn model(State(front): Shared, Path(meant): Path<Meant>) -> Answer {
    let told = front.run(move |upstream| about(upstream, &meant.model, meant.version.as_deref()));
    let about = told.await?;
    let tensor = |spec: &TensorSpec| {
        json!({
            "name": spec.name(),
            "datatype": elements::datatype(spec.element()),
            "shape": shape(spec),
        })
    };
    let value = json!({
        "name": about.name,
        "versions": [about.version],
        "platform": PLATFORM,
        "inputs": about.inputs.iter().map(tensor).collect::<Vec<_>>(),
        "outputs": about.outputs.iter().map(tensor).collect::<Vec<_>>(),
        "parameters": {"bield_package": about.package.to_string(), "bield_owner": about.owner},
    });
    Ok((front.headers(&[]), Json(value)).into_response())
}

/// Length of each dimension, -1 where the caller chooses.
fn shape(spec: &TensorSpec) -> Vec<i64> {
    let length = |length: &Option<u64>| length.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    spec.shape().iter().map(length).collect()
}

#[derive(serde::Deserialize)]
struct IndexText {
    #[serde(default)]
    ready: bool,
}

async fn index(State(front): Shared, body: Body) -> Answer {
    let held = front.read(body, INDEX_BYTES_MAX).await?;
    let only_ready = match held.bytes.trim_ascii() {
        b"" => false,
        json => {
            let asked: IndexText = serde_json::from_slice(json)
                .map_err(|_| Refused::bad("the request is not JSON, or `ready` no bool"))?;
            asked.ready
        }
    };
    let models = front.run(|upstream| Ok(listed(upstream))).await?;
    let models: Vec<_> = models
        .into_iter()
        .filter(|model| !only_ready || model.reason.is_none())
        .map(|model| {
            let state = model.state();
            json!({"name": model.name, "version": model.version, "state": state,
                   "reason": model.reason.unwrap_or_default()})
        })
        .collect();
    Ok((front.headers(&[]), Json(Value::Array(models))).into_response())
}

/// A model in the index.
struct Listed {
    name: String,
    version: String,
    /// Why it cannot be called.
    reason: Option<String>,
}

impl Listed {
    const fn state(&self) -> &'static str {
        if self.reason.is_none() {
            "READY"
        } else {
            "UNAVAILABLE"
        }
    }
}

fn listed(upstream: &dyn Upstream) -> Vec<Listed> {
    let each = upstream
        .names()
        .into_iter()
        .map(|name| match upstream.about(&name) {
            Ok(about) => Listed {
                name,
                version: about.version,
                reason: None,
            },
            Err(refused) => Listed {
                name,
                version: String::new(),
                reason: Some(refused.message),
            },
        });
    each.collect()
}

async fn infer(
    State(front): Shared,
    Path(meant): Path<Meant>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (mut held, header) = (
        read(&front, &headers, body, BODY_BYTES_MAX).await?,
        header_length(&headers)?,
    );
    let done = front.run(move |upstream| {
        let Asked {
            inputs,
            outputs,
            form,
        } = infer::read(&held.bytes, header)?;
        // What was made of them counts on, until the call ends.
        held.read();
        let about = about(upstream, &meant.model, meant.version.as_deref())?;
        form.fits(&about, &outputs)?;
        let done = upstream.call(&about, inputs, outputs)?;
        let written = form.write(&done)?;
        Ok((done, written))
    });
    let (done, written) = done.await?;
    Ok(answered(&front, &done, written))
}

/// The response that an answer is.
pub(crate) fn answered(front: &Front, done: &Done, written: Written) -> Response {
    let mut response = (
        front.headers(std::slice::from_ref(done)),
        Bytes::from(written.body),
    )
        .into_response();
    let kind = match written.header {
        Some(length) => {
            response
                .headers_mut()
                .insert(HEADER_LENGTH, HeaderValue::from(length));
            "application/octet-stream"
        }
        None => "application/json",
    };
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A body that is not compressed.
pub(crate) async fn read(
    front: &Front,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
) -> Result<Held, Refused> {
    let encoding = headers.get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Err(Refused::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed",
            "compressed bodies are not read here: the way is short; send it as it is",
        ));
    }
    front.read(body, bytes_max).await
}

/// Bytes of JSON before the raw ones, as announced.
pub(crate) fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Refused> {
    let announced = headers
        .get(HEADER_LENGTH)
        .map(|value| value.to_str().unwrap_or_default());
    let parsed = announced.map(str::parse).transpose();
    parsed.map_err(|_| Refused::bad("Inference-Header-Content-Length is no number"))
}
