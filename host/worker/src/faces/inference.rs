//! Open Inference Protocol v2 over REST, with the binary tensor extension: a model is a package, named by its digest.
//!
//! ```text
//! POST /v2/models/<digest>/infer  inputs:  one tensor `sealed`, BYTES, shape [1]: the sealed request
//!                                 outputs: one tensor `sealed`, BYTES, shape [1]: the sealed answer
//! ```
//!
//! Always true: the digest in the path is the one in the request's sealed header; errors are `{"error": sentence}`; what the
//! tensors of the model itself are, only its owner and users know.
//!
//! Not here: versions of models (a digest is one), repositories, statistics, gRPC.

mod tensor;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_envelope::Digest;
use bield_face::{FEEDBACK, Refusal, feedback_header, json_response, package_of};
use serde_json::json;

use super::Faces;
use tensor::{Asked, LENGTH, NAME};

/// `GET /v2`
pub(super) async fn server() -> Response {
    let version = env!("CARGO_PKG_VERSION");
    let body = json!({ "name": "bield", "version": version, "extensions": ["binary_tensor_data"] });
    json_response(StatusCode::OK, &body)
}

/// `GET /v2/health/live`
pub(super) async fn live() -> Response {
    json_response(StatusCode::OK, &json!({ "live": true }))
}

/// `GET /v2/health/ready`
pub(super) async fn ready(State(faces): State<Arc<Faces>>) -> Response {
    match faces.worker.is_ready().await {
        Ok(()) => json_response(StatusCode::OK, &json!({ "ready": true })),
        Err(refusal) => failed(&refusal),
    }
}

/// `GET /v2/models/{name}`
pub(super) async fn model(State(faces): State<Arc<Faces>>, Path(name): Path<String>) -> Response {
    match known(&faces, &name).await {
        Ok(package) => {
            let sealed = json!([{ "name": NAME, "datatype": "BYTES", "shape": [1] }]);
            let body = json!({
                "name": package.to_string(),
                "versions": [],
                "platform": "bield-sealed",
                "inputs": sealed,
                "outputs": sealed,
            });
            json_response(StatusCode::OK, &body)
        }
        Err(refusal) => failed(&refusal),
    }
}

/// `GET /v2/models/{name}/ready`
pub(super) async fn model_ready(
    State(faces): State<Arc<Faces>>,
    Path(name): Path<String>,
) -> Response {
    let ready = match known(&faces, &name).await {
        Ok(package) => faces.worker.is_ready().await.map(|()| package),
        Err(refusal) => Err(refusal),
    };
    match ready {
        Ok(package) => {
            let body = json!({ "name": package.to_string(), "ready": true });
            json_response(StatusCode::OK, &body)
        }
        Err(refusal) => failed(&refusal),
    }
}

/// `POST /v2/models/{name}/infer`
pub(super) async fn infer(
    State(faces): State<Arc<Faces>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let mut asked = None;
    let outcome = async {
        let worker = &faces.worker;
        let named = digest(&name);
        let may_begin = worker.takes_work().and(named.clone().map(|_| ()));
        let body = worker.bodies.unless(may_begin, body).await?;
        // What was decoded counts in the place of what it was decoded from.
        let (bytes, _memory) = worker.in_base64().read(body).await?;
        let (sealed, reply) = tensor::read(&headers, &bytes)?;
        drop(bytes);
        worker.bodies.fits(&sealed)?;
        asked = Some(reply);
        if package_of(&sealed)? != named? {
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "other-model",
                "the request was sealed for another package than the path names; seal it for this one",
            ));
        }
        faces.worker.call(sealed, None).await
    };
    let whole = match faces.worker.counted(outcome).await {
        Ok(outcome) => outcome.whole().await,
        Err(refusal) => Err(refusal),
    };
    match whole {
        Ok((feedback, sealed)) => {
            let mut response = answered(&name, &asked.unwrap_or_default(), sealed);
            let beside = feedback_header(&feedback);
            response.headers_mut().insert(FEEDBACK, beside);
            response
        }
        Err(refusal) => failed(&refusal),
    }
}

fn answered(model: &str, asked: &Asked, sealed: Vec<u8>) -> Response {
    let (json, binary) = tensor::write(model, asked, sealed);
    if binary.is_empty() {
        return json_response(StatusCode::OK, &json);
    }
    let mut body = json.to_string().into_bytes();
    let length = body.len();
    body.extend(binary);
    let mut response = body.into_response();
    let headers = response.headers_mut();
    let kind = header::HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(LENGTH, length.into());
    response
}

fn digest(name: &str) -> Result<Digest, Refusal> {
    name.parse().map_err(|_| no_such_model())
}

/// The package of this name, if its file is here.
async fn known(faces: &Faces, name: &str) -> Result<Digest, Refusal> {
    let package = digest(name)?;
    match faces.worker.has(&package).await {
        true => Ok(package),
        false => Err(no_such_model()),
    }
}

fn no_such_model() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "no-such-model",
        "no package of this digest is here; a model's name is the digest that `bield pack` printed",
    )
}

/// What is said to paths that the protocol has and this server has not, or that nobody has.
pub(super) fn unknown() -> Response {
    failed(&Refusal::new(
        StatusCode::NOT_FOUND,
        "no-such-path",
        "nothing is here; the paths are /v2, /v2/health/live, /v2/health/ready and /v2/models/<digest>, with /ready and /infer",
    ))
}

/// A refusal in the protocol's form, with the time after which to come back.
pub(super) fn failed(refusal: &Refusal) -> Response {
    let body = json!({ "error": refusal.message() });
    let mut response = json_response(refusal.status(), &body);
    if let Some(seconds) = refusal.retry_seconds() {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    response
}
