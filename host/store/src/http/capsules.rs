//! Capsules by name: beginning them, listing them, their metadata.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_capsule::{METADATA_BYTES_MAX, Metadata};
use serde_json::json;

use super::query::{self, Query};
use super::{Face, bytes_response, done, json_response};
use crate::Refusal;

/// Most capsules in one answer of the list.
const LIST_MAX: usize = 1000;

/// Memory for the list: lines of 200 bytes, and what they are made of.
const LIST_BYTES_MAX: usize = 1 << 20;

/// `GET /v1/identity`: who signs here.
pub(super) async fn identity(State(face): State<Face>) -> Response {
    let body = json!({
        "principal": face.store.principal().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    json_response(StatusCode::OK, &body)
}

/// `GET /v1/capsules?after=`: what is held, ascending by name.
pub(super) async fn list(
    State(face): State<Face>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let after = Query::parse(query.as_deref(), &["after"])?.optional("after")?;
    let room = face.answers.room(LIST_BYTES_MAX).await?;
    let mut found = face.store.capsules(after, LIST_MAX + 1);
    let more = found.len() > LIST_MAX;
    found.truncate(LIST_MAX);
    let capsules: Vec<_> = found
        .iter()
        .map(|(name, standing)| {
            json!({
                "name": name.to_string(),
                "records": standing.records,
                "synced": standing.synced,
                "bytes": standing.bytes,
                "forks": standing.forks,
            })
        })
        .collect();
    let body = json!({ "capsules": capsules, "more": more });
    let list = room.hold(format!("{body}\n").into_bytes());
    let kind = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, kind)], list).into_response())
}

/// `PUT /v1/capsules/<name>`: begins a capsule; 201 when it is new, 200 when it was here.
pub(super) async fn create(
    State(face): State<Face>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let (bytes, _memory) = face.read(body, METADATA_BYTES_MAX, None).await?;
    let metadata = Metadata::decode_named(&bytes, &name)
        .map_err(|error| Refusal::new(422, "bad-metadata", error.to_string()))?;
    match face.store.create(metadata).await {
        Ok(true) => Ok(done(StatusCode::CREATED, "created")),
        Ok(false) => Ok(done(StatusCode::OK, "exists")),
        Err(refusal) => {
            face.store.metrics().refuse(refusal.slug);
            Err(refusal)
        }
    }
}

/// `GET /v1/capsules/<name>`: the metadata.
pub(super) async fn metadata(
    State(face): State<Face>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let metadata = face.store.ask(name, |replica| {
        Ok(replica.verifier().metadata().as_bytes().to_vec())
    });
    Ok(bytes_response(metadata.await?))
}
