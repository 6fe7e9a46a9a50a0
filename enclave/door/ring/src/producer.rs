//! The writing end.

use std::time::{Duration, Instant};

use crate::memory::{End, Memory};
use crate::{FRAME_ALIGN, Head, Poisoned, Spin, WRAP, frame_bytes, is_capacity, payload_max};

/// Why a frame did not go into the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// No room now; what was pushed before stays.
    #[error("the ring is full; wait for room and push again")]
    Full,
    /// Longer than [`payload_max`].
    #[error("the payload is longer than {max} bytes; send it in parts")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// See [`Poisoned`].
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// Writes frames. There is one on each ring.
pub struct Producer<M> {
    memory: M,
    spin: Spin,
    /// Where the next frame goes; frames before it may be unpublished.
    head: u64,
    published: u64,
    /// Where the consumer was when last asked.
    tail: u64,
    poisoned: bool,
    full: u64,
    wakes: u64,
}

impl<M: Memory> Producer<M> {
    /// The writing end of a ring that nobody has used yet.
    ///
    /// # Panics
    /// The memory's capacity is none.
    #[must_use]
    pub fn new(memory: M, spin: Spin) -> Self {
        assert!(is_capacity(memory.capacity()), "a ring of another size");
        Self {
            memory,
            spin,
            head: 0,
            published: 0,
            tail: 0,
            poisoned: false,
            full: 0,
            wakes: 0,
        }
    }

    /// Writes a frame that the consumer sees at the next [`publish`](Self::publish).
    ///
    /// # Errors
    /// See [`PushError`]; nothing was written then.
    pub fn try_push(&mut self, kind: u32, id: u64, payload: &[u8]) -> Result<(), PushError> {
        debug_assert!(kind != WRAP, "the kind that is not for callers");
        let max = payload_max(self.memory.capacity());
        if payload.len() > max {
            return Err(PushError::TooLong { max });
        }
        if !self.has_room(payload.len())? {
            self.full += 1;
            return Err(PushError::Full);
        }
        let rest = self.rest();
        if frame_bytes(payload.len()) > rest {
            let wrap = Head {
                length: 0,
                kind: WRAP,
                id: 0,
            };
            self.memory.set_head(self.place(), wrap.to_words());
            self.head += rest as u64;
        }
        let head = Head {
            length: u32::try_from(payload.len()).map_err(|_| PushError::TooLong { max })?,
            kind,
            id,
        };
        let place = self.place();
        self.memory.set_head(place, head.to_words());
        self.memory.write(place + crate::HEAD_BYTES, payload);
        self.head += frame_bytes(payload.len()) as u64;
        Ok(())
    }

    /// Shows the consumer all frames pushed so far and wakes it, once, if it sleeps.
    pub fn publish(&mut self) {
        if self.head == self.published {
            return;
        }
        self.memory.publish(End::Producer, self.head);
        self.published = self.head;
        // Store the head, then look at the mark; the consumer sets its mark, then looks at the head. One of the two sees
        // the other's store.
        self.memory.fence();
        if self.memory.is_marked(End::Consumer) {
            self.memory.wake(End::Consumer);
            self.wakes += 1;
        }
    }

    /// Publishes, then waits at most `limit` for room for a payload of so many bytes; whether there is.
    ///
    /// # Errors
    /// [`Poisoned`].
    pub fn wait_room(&mut self, payload: usize, limit: Duration) -> Result<bool, Poisoned> {
        self.publish();
        if self.has_room(payload)? {
            return Ok(true);
        }
        let begin = Instant::now();
        let (memory, tail) = (&self.memory, self.tail);
        if !self.spin.until(|| memory.index(End::Consumer) != tail) {
            self.memory.mark(End::Producer, true);
            self.memory.fence();
            if !self.has_room(payload)? {
                let left = limit.saturating_sub(begin.elapsed());
                self.memory.sleep(End::Producer, left);
            }
            self.memory.mark(End::Producer, false);
        }
        self.has_room(payload)
    }

    /// Bytes of the ring.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity()
    }

    /// How often a push found the ring full.
    #[must_use]
    pub const fn full(&self) -> u64 {
        self.full
    }

    /// How often the consumer had to be woken.
    #[must_use]
    pub const fn wakes(&self) -> u64 {
        self.wakes
    }

    /// Whether a payload of so many bytes fits, after a look at the consumer's index if need be.
    fn has_room(&mut self, payload: usize) -> Result<bool, Poisoned> {
        if self.poisoned {
            return Err(Poisoned);
        }
        let frame = frame_bytes(payload);
        let rest = self.rest();
        let wanted = if frame > rest { rest + frame } else { frame } as u64;
        let capacity = self.memory.capacity() as u64;
        if capacity - (self.head - self.tail) >= wanted {
            return Ok(true);
        }
        let tail = self.memory.index(End::Consumer);
        let honest =
            (self.tail..=self.published).contains(&tail) && tail.is_multiple_of(FRAME_ALIGN as u64);
        if !honest {
            self.poisoned = true;
            return Err(Poisoned);
        }
        self.tail = tail;
        Ok(capacity - (self.head - tail) >= wanted)
    }

    /// Where in the ring the next frame goes.
    fn place(&self) -> usize {
        (self.head % self.memory.capacity() as u64) as usize
    }

    /// Bytes from there to the ring's end.
    fn rest(&self) -> usize {
        self.memory.capacity() - self.place()
    }
}
