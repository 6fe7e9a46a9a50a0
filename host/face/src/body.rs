//! Bodies of requests, within limits on one, on all together, and on time.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Refusal;

/// Longest time a client may take to send a body; a 64 MiB body needs 18 Mbit/s.
const BODY_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a refused body that are read and dropped before the refusal is sent.
const DISCARD_BYTES_MAX: usize = 256 << 20;

/// Reads bodies; clones share one memory.
#[derive(Clone)]
pub struct Bodies {
    /// What takes them, as refusals name it: `gateway`, `worker`.
    taker: &'static str,
    /// Longest body in bytes.
    max: usize,
    /// Memory for all of them, in KiB.
    memory: Arc<Semaphore>,
}

impl Bodies {
    /// Bodies of at most `max` bytes, `total_mib` MiB of them at once; `taker` is how refusals call who takes them.
    #[must_use]
    pub fn new(taker: &'static str, max: usize, total_mib: u32) -> Self {
        let kib = usize::try_from(total_mib)
            .unwrap_or(usize::MAX)
            .saturating_mul(1024);
        Self {
            taker,
            max,
            memory: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Bodies of at most `max` bytes out of the same memory.
    #[must_use]
    pub fn up_to(&self, max: usize) -> Self {
        Self {
            max,
            ..self.clone()
        }
    }

    /// Longest body in bytes.
    #[must_use]
    pub const fn bytes_max(&self) -> usize {
        self.max
    }

    /// Whether what was in a longer body keeps to the limit.
    ///
    /// # Errors
    /// 413 `too-long`.
    pub fn fits(&self, bytes: &[u8]) -> Result<(), Refusal> {
        match bytes.len() <= self.max {
            true => Ok(()),
            false => Err(self.too_long()),
        }
    }

    /// The body, if nothing is against the request. Else it is taken in and dropped before the refusal is given, because a
    /// client reads one only once it has sent its request.
    ///
    /// # Errors
    /// The refusal that is `against` it.
    pub async fn unless(&self, against: Result<(), Refusal>, body: Body) -> Result<Body, Refusal> {
        let Err(refusal) = against else {
            return Ok(body);
        };
        self.discard(body).await;
        Err(refusal)
    }

    /// Takes a body in and drops it, within the limits of one that is refused.
    pub async fn discard(&self, body: Body) {
        let _ = tokio::time::timeout(BODY_WAIT, discard(body)).await;
    }

    /// Reads a body. Its memory counts until the permit is dropped.
    ///
    /// # Errors
    /// 413 `too-long`, 408 `slow-body`, 400 `cut-body`, 503 `memory`.
    pub async fn read(&self, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let received = tokio::time::timeout(BODY_WAIT, self.receive(body)).await;
        received.unwrap_or_else(|_| {
            Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "slow-body",
                format!(
                    "the request did not arrive within {} s; send it again",
                    BODY_WAIT.as_secs()
                ),
            )
            .retry_after(Duration::from_secs(1)))
        })
    }

    /// One that is refused is still taken in, up to [`DISCARD_BYTES_MAX`], because a client reads a refusal only once it
    /// has sent its request.
    async fn receive(&self, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let announced = body.size_hint().exact();
        let announced = announced.map_or(self.max, |bytes| {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        });
        let mut kept = Kept::new(&self.memory).and_then(|kept| match announced <= self.max {
            true => Ok(kept),
            false => Err(self.too_long()),
        });
        let mut frames = body.into_data_stream();
        let mut total = 0usize;
        while let Some(frame) = frames.next().await {
            // Hardly anybody is left to hear it.
            let frame = frame.map_err(|_| cut())?;
            total = total.saturating_add(frame.len());
            if kept.is_err() && total > DISCARD_BYTES_MAX {
                break;
            }
            // From the first refusal on, nothing is kept any more.
            kept = kept.and_then(|kept| match total <= self.max {
                true => kept.with(&frame, announced, &self.memory),
                false => Err(self.too_long()),
            });
        }
        let kept = kept?;
        Ok((kept.bytes.into(), kept.memory))
    }

    fn too_long(&self) -> Refusal {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-long",
            format!(
                "the body is longer than the {} MiB this {} takes; send less",
                self.max >> 20,
                self.taker
            ),
        )
    }
}

async fn discard(body: Body) {
    let mut frames = body.into_data_stream();
    let mut total = 0;
    while let Some(Ok(frame)) = frames.next().await {
        total += frame.len();
        if total > DISCARD_BYTES_MAX {
            return;
        }
    }
}

fn cut() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "cut-body",
        "the request broke off before its end; send all of it",
    )
}

/// What has arrived of a body, with permits for the memory it takes: for what came, not for what is announced.
struct Kept {
    bytes: Vec<u8>,
    memory: OwnedSemaphorePermit,
}

impl Kept {
    fn new(memory: &Arc<Semaphore>) -> Result<Self, Refusal> {
        Ok(Self {
            bytes: Vec::new(),
            memory: permits(memory, 0)?,
        })
    }

    /// Adds a frame. Room doubles, up to the announced length, so a body is copied at most twice.
    fn with(
        mut self,
        frame: &[u8],
        announced: usize,
        memory: &Arc<Semaphore>,
    ) -> Result<Self, Refusal> {
        let needed = self.bytes.len() + frame.len();
        if needed > self.bytes.capacity() {
            let room = (2 * needed).min(announced).max(needed);
            let held = self.memory.num_permits();
            self.memory
                .merge(permits(memory, room.div_ceil(1024).saturating_sub(held))?);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(frame);
        Ok(self)
    }
}

fn permits(memory: &Arc<Semaphore>, kib: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    Arc::clone(memory).try_acquire_many_owned(kib).map_err(|_| {
        Refusal::unavailable(
            "memory",
            "all memory for request bodies is in use; come back shortly",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_counted_while_it_is_held_and_refused_beyond_its_limit() {
        let bodies = Bodies::new("worker", 1 << 20, 1);
        let (read, held) = bodies.read(Body::from(vec![7; 1 << 20])).await.unwrap();
        assert_eq!(read.len(), 1 << 20);
        let refused = bodies.read(Body::from(vec![7; 4096])).await.unwrap_err();
        assert_eq!(refused.code(), "memory");
        drop((read, held));
        assert!(bodies.read(Body::from(vec![7; 4096])).await.is_ok());
        let long = bodies.read(Body::from(vec![7; (1 << 20) + 1])).await;
        let long = long.unwrap_err();
        assert_eq!(
            long.message(),
            "the body is longer than the 1 MiB this worker takes; send less"
        );
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_none_and_one_up_to_its_limit_is_whole() {
        let bodies = Bodies::new("worker", DISCARD_BYTES_MAX + 2, 1024);
        let frames = |end: Result<Bytes, std::io::Error>| {
            let part = Bytes::from(vec![7; DISCARD_BYTES_MAX / 4]);
            let parts = (0..4).map(move |_| Ok(part.clone()));
            Body::from_stream(futures_util::stream::iter(parts.chain([end])))
        };
        let whole = bodies.read(frames(Ok(Bytes::from_static(b"ab")))).await;
        assert_eq!(whole.unwrap().0.len(), DISCARD_BYTES_MAX + 2);
        let broken = Err(std::io::ErrorKind::ConnectionReset.into());
        let cut = bodies.read(frames(broken)).await.unwrap_err();
        assert_eq!(cut.code(), "cut-body");
    }

    #[tokio::test]
    async fn what_is_refused_early_is_taken_in_first() {
        let bodies = Bodies::new("worker", 1 << 20, 1);
        let taken = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let parts = (0..100).map(move |_| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from_static(&[7; 1000]))
        });
        let body = Body::from_stream(futures_util::stream::iter(parts));
        let against = Err(Refusal::unavailable("draining", "stopping"));
        let refused = bodies.unless(against, body).await.unwrap_err();
        assert_eq!(refused.code(), "draining");
        assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 100);
        assert!(bodies.unless(Ok(()), Body::empty()).await.is_ok());
    }
}
