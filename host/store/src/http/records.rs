//! Records in and out, heads, fork proofs.

use std::sync::atomic::Ordering::Relaxed;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bield_capsule::{FORK_PROOF_BYTES_MAX, Kept, Received, WriterId};

use super::query::{self, Hex16, Query};
use super::{APPEND_BYTES_MAX, Face, bytes_response, done};
use crate::replica::{FORKS_BYTES_MAX, PAGE_ROOM, Source};
use crate::{Refusal, frames, system};

/// Whether the range asked for has more records than the page.
const MORE: HeaderName = HeaderName::from_static("bield-more");

/// Bodies up to this length are decoded in place: hashing them takes less than handing them over.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Longest page of heads, with its signature.
const HEADS_ROOM: usize = (1 << 20) + 4096;

/// `POST /v1/capsules/<name>/records?kept=`: takes records in, in order, until one is refused.
pub(super) async fn append(
    State(face): State<Face>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let kept = Query::parse(query.as_deref(), &["kept"])?.optional::<String>("kept")?;
    let kept = kept.as_deref().unwrap_or("synced");
    let kept = Kept::from_name(kept)
        .ok_or_else(|| query::bad("`kept` is memory, written or synced".to_owned()))?;
    let refused = face.store.serves(name).await.err();
    let (bytes, _memory) = face.read(body, APPEND_BYTES_MAX, refused).await?;
    let (records, then) = decoded(bytes).await?;
    let appended = face
        .store
        .append(name, records, then, kept, Source::Sender)
        .await?;
    let mut acknowledgements = Vec::new();
    for acknowledgement in &appended.acknowledgements {
        frames::push(&mut acknowledgements, acknowledgement);
    }
    match appended.refused {
        None => Ok(bytes_response(acknowledgements)),
        Some(refusal) => Err(refusal
            .with("accepted", appended.accepted)
            .with("acknowledgements", STANDARD.encode(acknowledgements))),
    }
}

/// Reads the records of a body, and why the next item is none.
async fn decoded(body: Bytes) -> Result<(Vec<Received>, Option<Refusal>), Refusal> {
    if body.len() <= INLINE_BYTES_MAX {
        return Ok(decode(&body));
    }
    let decoding = tokio::task::spawn_blocking(move || decode(&body));
    decoding.await.map_err(|_| Refusal::draining())
}

fn decode(body: &[u8]) -> (Vec<Received>, Option<Refusal>) {
    let mut records = Vec::new();
    for item in frames::items(body) {
        let record = item.map_err(Refusal::from).and_then(|bytes| {
            Received::decode(bytes.to_vec()).map_err(|error| {
                Refusal::new(422, "bad-record", error.to_string()).with("record", records.len())
            })
        });
        match record {
            Ok(record) => records.push(record),
            Err(refusal) => return (records, Some(refusal)),
        }
    }
    (records, None)
}

/// `GET /v1/capsules/<name>/records/<writer>?from=&to=`: a page of one chain.
pub(super) async fn page(
    State(face): State<Face>,
    Path((name, writer)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let writer: WriterId = writer
        .parse()
        .map_err(|_| query::bad("a writer's id has 64 hexadecimal digits".to_owned()))?;
    let query = Query::parse(query.as_deref(), &["from", "to"])?;
    let from = query.optional("from")?.unwrap_or(0);
    let to = query.optional("to")?.unwrap_or(u64::MAX);
    let room = face.answers.room(PAGE_ROOM).await?;
    let page = face
        .store
        .read(name, move |replica| replica.records(&writer, from, to))
        .await?;
    let sent = &face.store.metrics().sent_bytes;
    sent.fetch_add(page.bytes.len() as u64, Relaxed);
    let mut response = bytes_response(room.hold(page.bytes));
    let more = HeaderValue::from_static(if page.more { "true" } else { "false" });
    response.headers_mut().insert(MORE, more);
    Ok(response)
}

/// `GET /v1/capsules/<name>/heads?nonce=&after=`: a signed page of heads.
pub(super) async fn heads(
    State(face): State<Face>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let query = Query::parse(query.as_deref(), &["nonce", "after"])?;
    let Hex16(nonce) = query.required("nonce")?;
    let after = query.optional("after")?;
    let room = face.answers.room(HEADS_ROOM).await?;
    let heads = face.store.ask(name, move |replica| {
        Ok(replica.heads(nonce, after, system::now()))
    });
    Ok(bytes_response(room.hold(heads.await?)))
}

/// `GET /v1/capsules/<name>/forks`: fork proofs.
pub(super) async fn forks(
    State(face): State<Face>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let room = face.answers.room(FORKS_BYTES_MAX).await?;
    let forks = face.store.ask(name, |replica| Ok(replica.forks()));
    Ok(bytes_response(room.hold(forks.await?)))
}

/// `POST /v1/capsules/<name>/forks`: one fork proof; 201 when it is new, 200 when it was here.
pub(super) async fn add_fork(
    State(face): State<Face>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let refused = face.store.serves(name).await.err();
    let (proof, _memory) = face.read(body, FORK_PROOF_BYTES_MAX, refused).await?;
    let added = face
        .store
        .ask(name, move |replica| replica.add_fork(&proof))
        .await;
    match added {
        Ok(true) => Ok(done(StatusCode::CREATED, "kept")),
        Ok(false) => Ok(done(StatusCode::OK, "exists")),
        Err(refusal) => {
            face.store.metrics().refuse(refusal.slug);
            Err(refusal)
        }
    }
}
