//! `GET /v1/why/<request>`: why a request went where it went, by its number in `bield-request`.
//!
//! The last few thousand are known, to whoever asks: digests of packages, predicted times, nothing of who called.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use bield_face::{Refusal, json_response};

use crate::http::Face;

pub(crate) async fn why(
    State(face): State<Face>,
    Path(request): Path<String>,
) -> Result<Response, Refusal> {
    let number: u64 = request.parse().map_err(|_| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "not-a-number",
            "a request is named by the number in the header bield-request of its answer",
        )
    })?;
    let explained = face
        .fleet
        .workers()
        .and_then(|workers| workers.driver.why(number));
    let explained = explained.and_then(|explained| serde_json::to_value(explained).ok());
    match explained {
        Some(explained) => Ok(json_response(StatusCode::OK, &explained)),
        None => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "no-such-request",
            "this gateway knows nothing of a request of that number: it was refused before a worker was looked for, or others came after it and took its place",
        )),
    }
}
