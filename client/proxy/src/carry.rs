//! Seal here, carry by other means, open here: for tools that have a transport of their own.
//!
//! ```text
//! POST /v1/seal/{model}  Open Inference Protocol request ─▶ {"id", "sealed": base64}
//! POST /v1/open/{id}     {"sealed": base64}              ─▶ Open Inference Protocol answer, receipt verified
//! ```
//!
//! Always true: what was sealed is opened by this process only, once, and soon (`openers.rs`); a receipt that
//! does not hold is a refusal, and whoever carried the bytes saw ciphertext.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_envelope::Digest;
use serde::Deserialize;
use serde_json::json;

use crate::front::{Front, Json};
use crate::oip::infer::{self, Asked, Form};
use crate::oip::{Failed, header_length, read};
use crate::refused::Refused;

type Answer = Result<Response, Failed>;
type Shared = State<Arc<Front>>;

/// The two paths.
pub(crate) fn router() -> Router<Arc<Front>> {
    Router::new()
        .route("/v1/seal/{model}", post(seal))
        .route("/v1/open/{id}", post(open))
}

async fn seal(
    State(front): Shared,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (held, header) = (
        read(&front, &headers, body).await?,
        header_length(&headers)?,
    );
    let carried = front.run(move |upstream| {
        let Asked {
            inputs, outputs, ..
        } = infer::read(&held.bytes, header)?;
        upstream.seal(&model, inputs, outputs)
    });
    let carried = carried.await?;
    let value = json!({"id": carried.id.to_string(), "sealed": STANDARD.encode(&carried.sealed)});
    Ok((front.headers(&[]), Json(value)).into_response())
}

#[derive(Deserialize)]
struct AnswerText {
    sealed: String,
}

async fn open(
    State(front): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let id: Digest = id
        .parse()
        .map_err(|_| Refused::unknown("an id is 64 hex digits, as /v1/seal gave it"))?;
    let held = read(&front, &headers, body).await?;
    let opened = front.run(move |upstream| {
        let text: AnswerText = serde_json::from_slice(&held.bytes)
            .map_err(|_| Refused::bad("the request is not {\"sealed\": base64}"))?;
        let sealed = STANDARD
            .decode(text.sealed)
            .map_err(|_| Refused::bad("`sealed` is not base64"))?;
        let done = upstream.open(id, &sealed)?;
        let written = Form::default().write(&done)?;
        Ok((done, written))
    });
    let (done, written) = opened.await?;
    let headers = front.headers(std::slice::from_ref(&done));
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((headers, json, Bytes::from(written.body)).into_response())
}
