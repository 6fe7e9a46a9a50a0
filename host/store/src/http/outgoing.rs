//! Memory for answers: what readers have asked for and not taken yet.
//!
//! ```text
//! room(most) ──▶ page from the shard ──▶ room.hold(page) ──▶ connection ──▶ sent: memory is free
//!    │ none within a second
//!    └──▶ 503 busy, come back
//! ```
//!
//! Always true: room is taken before the shard is asked, for the longest answer there may be, and
//! what the answer did not need is given back at once; the rest goes with the last reference to its
//! bytes, whether they were sent or their connection was cut. So readers, however many and slow,
//! hold no more than the memory given here, and no more questions than fit in it wait at a shard.
//!
//! Not here: cutting those that take too little (`connections`).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::Refusal;

/// Longest a reader waits for memory that others hold: pages are sent in milliseconds, or slowly.
const WAIT: Duration = Duration::from_secs(1);

/// Memory for some kind of answers.
#[derive(Clone)]
pub(super) struct Outgoing(Arc<Semaphore>);

impl Outgoing {
    /// `bytes` in all.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / 1024)))
    }

    /// Takes room for an answer of at most `bytes`.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room, Refusal> {
        let room = timeout(WAIT, Arc::clone(&self.0).acquire_many_owned(kib(bytes)));
        match room.await {
            Ok(Ok(memory)) => Ok(Room(memory)),
            _ => Err(Refusal::new(
                503,
                "busy",
                "readers have not taken the answers they asked for, and there is no memory for more; ask again after a \
                 moment, or another replica",
            )
            .retry_after(Duration::from_secs(2))),
        }
    }
}

/// Room for one answer.
pub(super) struct Room(OwnedSemaphorePermit);

impl Room {
    /// Keeps what `bytes` take until the last part of them is gone; gives back the rest.
    pub(super) fn hold(mut self, mut bytes: Vec<u8>) -> Bytes {
        // Vectors double: what they have to spare would count for nothing.
        if bytes.capacity() > bytes.len() + bytes.len() / 4 {
            bytes.shrink_to_fit();
        }
        let spare = self
            .0
            .num_permits()
            .saturating_sub(kib(bytes.capacity()) as usize);
        drop(self.0.split(spare));
        let memory = self.0;
        Bytes::from_owner(Held {
            bytes,
            _memory: memory,
        })
    }
}

struct Held {
    bytes: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_that_take_nothing_hold_no_more_than_the_memory_for_answers() {
        let outgoing = Outgoing::new(64 << 10);
        let mut held = Vec::new();
        for _ in 0..7 {
            let room = outgoing.room(32 << 10).await.unwrap();
            // Only what the answer took counts from here on.
            held.push(room.hold(vec![7; 5000]));
        }
        let refusal = outgoing.room(32 << 10).await.err().unwrap();
        assert_eq!((refusal.status, refusal.slug), (503, "busy"));
        assert!(refusal.retry && refusal.after.is_some());

        // A part that is still to be sent holds all of its answer.
        let part = held.pop().unwrap().split_off(4999);
        assert!(outgoing.room(32 << 10).await.is_err());
        drop(part);
        drop(outgoing.room(32 << 10).await.unwrap());
        drop(held);
        drop(outgoing.room(64 << 10).await.unwrap());
    }
}
