//! The capsule's transparency log at this replica, in the forms of C2SP tlog-tiles.

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bield_envelope::Digest;
use bield_tlog::TilePath;
use serde_json::json;

use super::query::{self, Query};
use super::{Face, bytes_response, json_response};
use crate::Refusal;

/// `GET …/log/checkpoint`: the newest one that left the store; cosigned, where there are witnesses.
pub(super) async fn checkpoint(
    State(face): State<Face>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let waits = face.witnessed;
    let note = face.store.ask(name, move |replica| {
        // With witnesses, their task publishes once they have cosigned; before that, and without
        // any, the checkpoint is made when somebody asks.
        if let Some(published) = replica.published().filter(|_| waits) {
            return Ok(published.to_string());
        }
        let checkpoint = replica.checkpoint().map_err(no_such_size)?;
        let note = checkpoint.to_string();
        replica.publish(checkpoint)?;
        Ok(note)
    });
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], note.await?).into_response())
}

/// `GET …/log/tile/…`: a tile of hashes or a bundle of entries.
pub(super) async fn tile(
    State(face): State<Face>,
    Path((name, path)): Path<(String, String)>,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let path: TilePath = format!("tile/{path}")
        .parse()
        .map_err(|error| query::bad(format!("{error}")))?;
    let tile = face.store.ask(name, move |replica| Ok(replica.tile(&path)));
    match tile.await? {
        Some(tile) => Ok(bytes_response(tile)),
        None => Err(Refusal::new(
            404,
            "no-tile",
            "the log has not grown that far; read the checkpoint for its size",
        )),
    }
}

/// `GET …/log/proof?hash=&size=`: where a record stands among the first `size`, and the proof.
pub(super) async fn proof(
    State(face): State<Face>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let query = Query::parse(query.as_deref(), &["hash", "size"])?;
    let hash: Digest = query.required("hash")?;
    let size = query.optional("size")?;
    let proof = face.store.ask(name, move |replica| {
        let size = size.unwrap_or(replica.standing().synced);
        replica.prove(&hash, size).map_err(no_such_size)
    });
    let Some(proof) = proof.await? else {
        return Err(Refusal::new(
            404,
            "not-in-log",
            "the log has no such record within that size; ask for a later checkpoint",
        ));
    };
    let hashes: Vec<_> = proof.hashes.iter().map(ToString::to_string).collect();
    let body = json!({ "index": proof.index, "size": proof.size, "hashes": hashes });
    Ok(json_response(StatusCode::OK, &body))
}

fn no_such_size(error: bield_tlog::TreeError) -> Refusal {
    Refusal::new(
        404,
        "no-such-size",
        format!("{error}; read the checkpoint for the log's size"),
    )
}
