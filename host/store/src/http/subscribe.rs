//! `GET /v1/capsules/<name>/subscribe?from=`: records in order of arrival, and on as they come.
//!
//! ```text
//! log grows ──watch──▶ task: page from the shard ──▶ two chunks ──▶ connection
//!                        └── waits here when the reader is slow; after a while it is cut off
//! ```
//!
//! Always true: a subscriber costs one page of [`ARRIVALS_ROOM`], however slowly it reads, out of the
//! memory for all of them, and waits for that; one that takes nothing for `stall_max` (30 s) is cut off
//! and counted, one that takes too little by its connection; an empty item every [`SIGN_OF_LIFE`] tells a
//! quiet log from a dead connection. What is sent may not be synced yet, like what is read.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bield_capsule::CapsuleName;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::Face;
use super::outgoing::Outgoing;
use super::query::{self, Query};
use crate::metrics::Metrics;
use crate::replica::ARRIVALS_ROOM;
use crate::{Refusal, Store};

/// A quiet subscription sends an empty item this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Longest chunk handed to the connection at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;

pub(super) async fn subscribe(
    State(face): State<Face>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let name = query::capsule(&name)?;
    let from = Query::parse(query.as_deref(), &["from"])?
        .optional("from")?
        .unwrap_or(0);
    let permit = Arc::clone(&face.subscribers)
        .try_acquire_owned()
        .map_err(|_| {
            Refusal::new(
                503,
                "subscribers",
                "this store has all the subscribers it takes; read pages, or use another replica",
            )
            .retry_after(Duration::from_secs(10))
        })?;
    let grown = face.store.ask(name, |replica| Ok(replica.watch())).await?;
    let (chunks, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(2);
    let subscription = Subscription {
        store: Arc::clone(&face.store),
        name,
        from,
        grown,
        stopping: face.stopping.clone(),
        stall_max: face.stall_max,
        memory: face.sending.clone(),
        chunks,
    };
    tokio::spawn(async move {
        let metrics = Arc::clone(subscription.store.metrics());
        metrics.subscribers.fetch_add(1, Relaxed);
        subscription.run(&metrics).await;
        metrics.subscribers.fetch_sub(1, Relaxed);
        drop(permit);
    });
    // It never ends well: a reader must not take an early end for a whole answer.
    let body = futures_util::stream::unfold(Some(body), async |body| {
        let mut body = body?;
        match body.recv().await {
            Some(chunk) => Some((chunk, Some(body))),
            None => Some((Err(std::io::Error::other("the subscription is over")), None)),
        }
    });
    let kind = HeaderValue::from_static("application/octet-stream");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

struct Subscription {
    store: Arc<Store>,
    name: CapsuleName,
    from: u64,
    grown: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    stall_max: Duration,
    memory: Outgoing,
    chunks: mpsc::Sender<Result<Bytes, std::io::Error>>,
}

/// The subscription is over.
struct Over;

impl Subscription {
    async fn run(mut self, metrics: &Metrics) {
        while !*self.stopping.borrow() {
            let Ok(()) = self.step(metrics).await else {
                return;
            };
        }
    }

    /// Sends what is there, or waits for more.
    async fn step(&mut self, metrics: &Metrics) -> Result<(), Over> {
        if *self.grown.borrow_and_update() > self.from {
            // Without room it looks again, and ends when it is to.
            let Ok(room) = self.memory.room(ARRIVALS_ROOM).await else {
                return if self.chunks.is_closed() {
                    Err(Over)
                } else {
                    Ok(())
                };
            };
            let from = self.from;
            let page = self
                .store
                .read(self.name, move |replica| replica.arrivals(from))
                .await;
            let page = match page {
                Ok(page) => page,
                // A busy shard is asked again; a broken one ends the stream, and the reader comes back.
                Err(refusal) if refusal.slug == "busy" => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    return Ok(());
                }
                Err(_) => return Err(Over),
            };
            self.from += page.records as u64;
            metrics
                .sent_bytes
                .fetch_add(page.bytes.len() as u64, Relaxed);
            let mut rest = room.hold(page.bytes);
            while !rest.is_empty() {
                let chunk = rest.split_to(rest.len().min(CHUNK_BYTES_MAX));
                self.send(chunk, metrics).await?;
            }
            return Ok(());
        }
        let more = async {
            tokio::select! {
                grown = self.grown.changed() => grown.map_err(|_| Over),
                _ = self.stopping.changed() => Err(Over),
                () = self.chunks.closed() => Err(Over),
            }
        };
        match timeout(SIGN_OF_LIFE, more).await {
            Ok(more) => more,
            Err(_) => self.send(Bytes::from_static(&[0; 4]), metrics).await,
        }
    }

    async fn send(&mut self, chunk: Bytes, metrics: &Metrics) -> Result<(), Over> {
        tokio::select! {
            sent = timeout(self.stall_max, self.chunks.send(Ok(chunk))) => match sent {
                Ok(sent) => sent.map_err(|_| Over),
                Err(_) => {
                    metrics.dropped.fetch_add(1, Relaxed);
                    tracing::info!(capsule = %self.name, "a subscriber read nothing for {:?} and is cut off", self.stall_max);
                    Err(Over)
                }
            },
            _ = self.stopping.changed() => Err(Over),
        }
    }
}
