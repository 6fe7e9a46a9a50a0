//! Seal here, carry by other means, open here: for tools that have a transport of their own.
//!
//! ```text
//! POST /v1/seal/{model}  Open Inference Protocol request ─▶ {"id", "receipt", "sealed": base64}
//! POST /v1/open/{id}     {"sealed": base64}              ─▶ Open Inference Protocol answer, receipt verified
//! ```
//!
//! Always true: what was sealed is opened by this process only, once, and soon, for whoever shows the
//! `id`, which is not among the bytes that are carried (`openers.rs`); the answer has the form that was asked for; a receipt that
//! does not hold is a refusal, and whoever carried the bytes saw ciphertext.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_envelope::Digest;
use serde::Deserialize;
use serde_json::json;

use crate::front::{BODY_BYTES_MAX, Front, Json};
use crate::oip::infer::{self, Asked};
use crate::oip::{Failed, about, answered, header_length, read};
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
        read(&front, &headers, body, BODY_BYTES_MAX).await?,
        header_length(&headers)?,
    );
    let carried = front.run(move |upstream| {
        let held = held; // whole, so that it counts until the call ends
        let Asked {
            inputs,
            outputs,
            form,
        } = infer::read(&held.bytes, header)?;
        let about = about(upstream, &model, None)?;
        form.fits(&about, &outputs)?;
        upstream.seal(&about, inputs, outputs, form)
    });
    let carried = carried.await?;
    let value = json!({
        "id": carried.id.to_string(), "receipt": carried.receipt.to_string(),
        "sealed": STANDARD.encode(&carried.sealed),
    });
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
    let held = read(&front, &headers, body, BODY_BYTES_MAX).await?;
    let opened = front.run(move |upstream| {
        let held = held; // whole, so that it counts until the call ends
        let text: AnswerText = serde_json::from_slice(&held.bytes)
            .map_err(|_| Refused::bad("the request is not {\"sealed\": base64}"))?;
        let sealed = STANDARD
            .decode(text.sealed)
            .map_err(|_| Refused::bad("`sealed` is not base64"))?;
        let (done, form) = upstream.open(id, &sealed)?;
        let written = form.write(&done)?;
        Ok((done, written))
    });
    let (done, written) = opened.await?;
    Ok(answered(&front, &done, written))
}
