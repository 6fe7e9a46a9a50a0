//! How a body gets in: within a length, within the memory for all bodies, and at a least rate.
//!
//! Always true: memory is counted for what has arrived, never for what is announced, so a client
//! that sends nothing holds nothing; a body that comes more slowly than its [`Pace`] is given up; a refused body is read to its end, because a client reads a refusal
//! only once it has sent its request, and none of it is kept.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::Refusal;

/// Memory for all bodies together.
pub(super) const BODIES_BYTES_MAX: usize = 256 << 20;

/// How fast a body must come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Longest time a client may take to send it.
    longest: Duration,
    /// How long it may be behind `rate_min`.
    grace: Duration,
    /// Bytes a second, at least.
    rate_min: u64,
}

/// 8 MiB in 30 s need 2.3 Mbit/s; what is shorter needs 1 Mbit/s.
pub(super) const PACE: Pace = Pace {
    longest: Duration::from_secs(30),
    grace: Duration::from_secs(5),
    rate_min: 128 << 10,
};

/// Bytes of a refused body that are read and dropped before the refusal is sent.
const DISCARD_BYTES_MAX: usize = 64 << 20;

/// Reads a body of at most `max` bytes, unless it is `refused` already; the permit is its memory.
pub(super) async fn receive(
    body: Body,
    max: usize,
    memory: &Arc<Semaphore>,
    refused: Option<Refusal>,
    pace: Pace,
) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
    let announced = body.size_hint().exact();
    let announced = announced.map_or(max, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut kept = match refused {
        _ if announced > max => Err(too_long(max)),
        Some(refusal) => Err(refusal),
        None => Kept::new(memory),
    };
    let began = Instant::now();
    let mut total = 0usize;
    let mut frames = body.into_data_stream();
    loop {
        let due = pace.grace + Duration::from_millis(total as u64 * 1000 / pace.rate_min);
        let frame = match timeout_at(began + due.min(pace.longest), frames.next()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                let message = "the body was cut off; send it again";
                return Err(Refusal::new(400, "cut-off", message));
            }
            Err(_) => return Err(slow(pace)),
        };
        total = total.saturating_add(frame.len());
        if total > DISCARD_BYTES_MAX {
            break;
        }
        // From the first refusal on, nothing is kept any more.
        kept = kept.and_then(|kept| match total <= max {
            true => kept.with(&frame, announced, memory),
            false => Err(too_long(max)),
        });
    }
    let kept = kept?;
    Ok((kept.bytes.into(), kept.memory))
}

/// What has arrived of a body, with permits for the memory it takes.
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
            let more = room.div_ceil(1024).saturating_sub(held);
            self.memory.merge(permits(memory, more)?);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(frame);
        Ok(self)
    }
}

fn permits(memory: &Arc<Semaphore>, kib: usize) -> Result<OwnedSemaphorePermit, Refusal> {
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    let permits = Arc::clone(memory).try_acquire_many_owned(kib);
    permits.map_err(|_| Refusal::busy())
}

fn too_long(max: usize) -> Refusal {
    let message = format!("a body here has at most {max} bytes; send less at once");
    Refusal::new(413, "too-long", message).with("max", max)
}

fn slow(pace: Pace) -> Refusal {
    let message = format!(
        "the body came at less than {} KiB/s, or not within {} s; send it again",
        pace.rate_min >> 10,
        pace.longest.as_secs()
    );
    Refusal::new(408, "slow-body", message).retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::BadFrame;

    #[tokio::test]
    async fn memory_is_taken_for_what_arrives_and_given_back_with_the_permit() {
        let memory = Arc::new(Semaphore::new(8));
        let (bytes, held) = receive(Body::from(vec![7; 5000]), 8192, &memory, None, PACE)
            .await
            .unwrap();
        assert_eq!((bytes.len(), memory.available_permits()), (5000, 3));
        let busy = receive(Body::from(vec![7; 5000]), 8192, &memory, None, PACE).await;
        assert_eq!(busy.unwrap_err().slug, "busy");
        assert_eq!(
            memory.available_permits(),
            3,
            "a refused body holds nothing"
        );
        drop(held);
        assert_eq!(memory.available_permits(), 8);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up_and_one_that_comes_slowly_is_not() {
        let pace = Pace {
            longest: Duration::from_secs(20),
            grace: Duration::from_millis(200),
            rate_min: 1 << 20,
        };
        let memory = Arc::new(Semaphore::new(1024));
        let never = Body::from_stream(futures_util::stream::pending::<Result<Bytes, BadFrame>>());
        let refusal = receive(never, 8192, &memory, None, pace).await.unwrap_err();
        assert_eq!((refusal.status, refusal.slug), (408, "slow-body"));

        // 30 parts of 20 KiB: at 1 MiB/s they may take 0.8 s.
        let parts = |wait: u64| {
            Body::from_stream(futures_util::stream::unfold(0, move |n| async move {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                let part = Ok::<_, BadFrame>(Bytes::from_static(&[0; 20 << 10]));
                (n < 30).then_some((part, n + 1))
            }))
        };
        let (bytes, _memory) = receive(parts(10), 1 << 20, &memory, None, pace)
            .await
            .unwrap();
        assert_eq!(bytes.len(), 30 * (20 << 10));
        let refusal = receive(parts(60), 1 << 20, &memory, None, pace).await;
        assert_eq!(refusal.unwrap_err().slug, "slow-body");
    }
}
