//! The reading end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::memory::{End, Memory};
use crate::{FRAME_ALIGN, HEAD_BYTES, Head, Poisoned, Spin, WRAP};
use crate::{frame_bytes, is_capacity, payload_max};

/// Reads frames. There is one on each ring.
pub struct Consumer<M> {
    memory: M,
    spin: Spin,
    /// Where the next frame is; frames before it may be unreleased.
    tail: u64,
    released: u64,
    /// How far the producer was when last asked.
    head: u64,
    /// Judged already: what stands at the tail.
    ahead: Option<Head>,
    poisoned: bool,
    hung_up: Arc<AtomicBool>,
}

impl<M: Memory> Consumer<M> {
    /// The reading end of a ring that nobody has used yet.
    ///
    /// # Panics
    /// The memory's capacity is none.
    #[must_use]
    pub fn new(memory: M, spin: Spin) -> Self {
        assert!(is_capacity(memory.capacity()), "a ring of another size");
        Self {
            memory,
            spin,
            tail: 0,
            released: 0,
            head: 0,
            ahead: None,
            poisoned: false,
            hung_up: Arc::default(),
        }
    }

    /// The next frame, the same one until it was taken or skipped; `None` when there is none now.
    ///
    /// # Errors
    /// [`Poisoned`].
    pub fn peek(&mut self) -> Result<Option<Frame<'_, M>>, Poisoned> {
        if self.poisoned {
            return Err(Poisoned);
        }
        if self.ahead.is_none() {
            self.ahead = self.judge().inspect_err(|Poisoned| self.poisoned = true)?;
        }
        Ok(self.ahead.map(|head| Frame {
            head,
            consumer: self,
        }))
    }

    /// Waits at most `limit` for a frame; whether there is one. Comes back early when [`Waker::hang_up`] was called.
    ///
    /// # Errors
    /// [`Poisoned`].
    pub fn wait(&mut self, limit: Duration) -> Result<bool, Poisoned> {
        if self.peek()?.is_some() {
            return Ok(true);
        }
        let (memory, head) = (&self.memory, self.head);
        let spun = self.spin.until(|| memory.index(End::Producer) != head);
        if !spun && !limit.is_zero() {
            self.release();
            self.memory.mark(End::Consumer, true);
            // See `Producer::publish`.
            self.memory.fence();
            if self.memory.index(End::Producer) == head && !self.is_hung_up() {
                self.memory.sleep(End::Consumer, limit);
            }
            self.memory.mark(End::Consumer, false);
        }
        Ok(self.peek()?.is_some())
    }

    /// What ends a wait from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker<M>
    where
        M: Clone,
    {
        Waker {
            memory: self.memory.clone(),
            hung_up: Arc::clone(&self.hung_up),
        }
    }

    /// Whether [`Waker::hang_up`] was called. Frames that came before are still there.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        self.hung_up.load(Ordering::SeqCst)
    }

    /// Waits for frames until `deadline`; see [`wait`](Self::wait).
    ///
    /// # Errors
    /// [`Poisoned`].
    pub fn wait_until(&mut self, deadline: Instant) -> Result<bool, Poisoned> {
        self.wait(deadline.saturating_duration_since(Instant::now()))
    }

    /// Reads what stands at the tail and checks it against everything that is known privately.
    fn judge(&mut self) -> Result<Option<Head>, Poisoned> {
        let capacity = self.memory.capacity() as u64;
        if self.tail == self.head {
            let head = self.memory.index(End::Producer);
            if head == self.head {
                return Ok(None);
            }
            let honest = head > self.head
                && head - self.tail <= capacity
                && head.is_multiple_of(FRAME_ALIGN as u64);
            if !honest {
                return Err(Poisoned);
            }
            self.head = head;
        }
        let mut head = self.read_head();
        if head.kind == WRAP {
            let rest = capacity - self.tail % capacity;
            // A wrap is never at the ring's begin, and a frame was published with it.
            if rest == capacity || self.head - self.tail <= rest {
                return Err(Poisoned);
            }
            self.tail += rest;
            head = self.read_head();
        }
        let length = head.length as usize;
        if head.kind == WRAP || length > payload_max(self.memory.capacity()) {
            return Err(Poisoned);
        }
        let frame = frame_bytes(length) as u64;
        let rest = capacity - self.tail % capacity;
        if frame > rest || frame > self.head - self.tail {
            return Err(Poisoned);
        }
        Ok(Some(head))
    }

    fn read_head(&self) -> Head {
        Head::from_words(self.memory.head(self.place()))
    }

    fn place(&self) -> usize {
        (self.tail % self.memory.capacity() as u64) as usize
    }

    /// Steps over the frame at the tail and gives room back in portions: an eighth of the ring, so that a waiting
    /// producer, which wants at most half, always gets it (`payload_max`).
    fn step(&mut self, head: Head) {
        self.ahead = None;
        self.tail += frame_bytes(head.length as usize) as u64;
        if self.tail - self.released >= self.memory.capacity() as u64 / 8 {
            self.release();
        }
    }

    fn release(&mut self) {
        if self.tail == self.released {
            return;
        }
        self.memory.publish(End::Consumer, self.tail);
        self.released = self.tail;
        self.memory.fence();
        if self.memory.is_marked(End::Producer) {
            self.memory.wake(End::Producer);
        }
    }
}

/// A frame that waits to be taken. Dropped, it stays the next one.
pub struct Frame<'a, M: Memory> {
    head: Head,
    consumer: &'a mut Consumer<M>,
}

impl<M: Memory> Frame<'_, M> {
    /// Its head.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Appends a copy of its payload to `into` and gives up its place.
    pub fn take(self, into: &mut Vec<u8>) {
        let at = self.consumer.place() + HEAD_BYTES;
        let length = self.head.length as usize;
        self.consumer.memory.read(at, length, into);
        self.consumer.step(self.head);
    }

    /// Gives up its place.
    pub fn skip(self) {
        self.consumer.step(self.head);
    }
}

/// Ends a consumer's wait from another thread of its process.
#[derive(Clone)]
pub struct Waker<M> {
    memory: M,
    hung_up: Arc<AtomicBool>,
}

impl<M: Memory> Waker<M> {
    /// Has a consumer that sleeps look around now. One that is about to sleep may sleep its time.
    pub fn nudge(&self) {
        self.memory.fence();
        self.memory.wake(End::Consumer);
    }

    /// Tells the consumer that its peer is gone: it sleeps no more.
    pub fn hang_up(&self) {
        self.hung_up.store(true, Ordering::SeqCst);
        self.memory.fence();
        self.memory.wake(End::Consumer);
    }
}
