//! Messages of any length through a ring, many at once.
//!
//! ```text
//! short:  Whole                         both directions; parts of several calls alternate
//! long:   Length, Part, Part, …, Last
//! streamed, length unknown:  Part, …, Last;  the reader's More says what it has taken
//! Cancel: who asked does not wait any more; or, from the program, there is no answer, or no more of it
//! ```
//!
//! Always true: the parts of one call are in order; whoever cannot send waits for room until its own deadline and
//! no longer; a `Cancel` is never lost: without room for it now, it goes first when there is.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::memory::Memory;
use crate::producer::{Producer, PushError};
use crate::{Poisoned, payload_max};

/// How long a reader sleeps before it looks around by itself. Nothing waits for this with an honest, living peer.
pub const PARK_MAX: Duration = Duration::from_millis(500);
/// How long one sender waits for room before it lets the others have a look.
const ROOM_WAIT: Duration = Duration::from_millis(5);

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A message.
    Whole,
    /// A message in parts begins; the payload is its length, a u64 in little-endian bytes.
    Length,
    /// A part; more follow.
    Part,
    /// The last part.
    Last,
    /// Nobody waits for this call's answer any more; or there will be none.
    Cancel,
    /// So many more bytes of a streamed answer were taken by who asked; a u64 in little-endian bytes.
    More,
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Kind> {
        Some(match number {
            1 => Kind::Whole,
            2 => Kind::Length,
            3 => Kind::Part,
            4 => Kind::Last,
            5 => Kind::Cancel,
            6 => Kind::More,
            _ => return None,
        })
    }

    /// Its number in a frame's head.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Kind::Whole => 1,
            Kind::Length => 2,
            Kind::Part => 3,
            Kind::Last => 4,
            Kind::Cancel => 5,
            Kind::More => 6,
        }
    }
}

/// Why a message was not sent, or not all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The other side took nothing for too long.
    #[error("the other side made no room in time; it is busy or stuck: try again later")]
    TimedOut,
    /// The other side does not want it any more.
    #[error("the other side wants no more of this message")]
    GivenUp,
    /// See [`Poisoned`].
    #[error(transparent)]
    Poisoned(#[from] Poisoned),
}

/// Sends messages from any thread.
pub struct Sender<M> {
    outgoing: Mutex<Outgoing<M>>,
    part_max: usize,
}

struct Outgoing<M> {
    producer: Producer<M>,
    /// Calls to cancel when there is room. Each had a frame in the ring, or is one the other side waits for.
    cancels: Vec<u64>,
}

impl<M: Memory> Sender<M> {
    /// Sends through this producer.
    #[must_use]
    pub fn new(producer: Producer<M>) -> Self {
        Self {
            part_max: payload_max(producer.capacity()),
            outgoing: Mutex::new(Outgoing {
                producer,
                cancels: Vec::new(),
            }),
        }
    }

    /// Sends a message, in parts if need be, until `deadline` or until `given_up`.
    ///
    /// # Errors
    /// See [`SendError`]. Some of it may be on its way: the caller tells the other side with [`cancel`](Self::cancel).
    pub fn send(
        &self,
        id: u64,
        bytes: &[u8],
        deadline: Instant,
        given_up: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        if bytes.len() <= self.part_max {
            return self.push(Kind::Whole, id, bytes, deadline, &given_up);
        }
        let length = (bytes.len() as u64).to_le_bytes();
        self.push(Kind::Length, id, &length, deadline, &given_up)?;
        self.send_part(id, bytes, true, deadline, given_up)
    }

    /// Sends the next part of a message whose length was not told.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_part(
        &self,
        id: u64,
        bytes: &[u8],
        last: bool,
        deadline: Instant,
        given_up: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        let mut rest = bytes;
        loop {
            let (part, after) = rest.split_at(rest.len().min(self.part_max));
            rest = after;
            let kind = if last && rest.is_empty() {
                Kind::Last
            } else {
                Kind::Part
            };
            self.push(kind, id, part, deadline, &given_up)?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Says that so many more bytes of a streamed answer were taken.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_more(
        &self,
        id: u64,
        bytes: u64,
        deadline: Instant,
        given_up: impl Fn() -> bool,
    ) -> Result<(), SendError> {
        self.push(Kind::More, id, &bytes.to_le_bytes(), deadline, &given_up)
    }

    /// Sends a `Cancel`, now or as soon as there is room; does not wait.
    pub fn cancel(&self, id: u64) {
        let mut outgoing = self.lock();
        outgoing.cancels.push(id);
        outgoing.flush();
    }

    /// Sends what was left for later.
    pub fn flush(&self) {
        self.lock().flush();
    }

    /// How often a frame found the ring full, and how often the other side had to be woken.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let outgoing = self.lock();
        (outgoing.producer.full(), outgoing.producer.wakes())
    }

    fn push(
        &self,
        kind: Kind,
        id: u64,
        payload: &[u8],
        deadline: Instant,
        given_up: &impl Fn() -> bool,
    ) -> Result<(), SendError> {
        loop {
            let mut outgoing = self.lock();
            outgoing.flush();
            match outgoing.producer.try_push(kind.number(), id, payload) {
                Ok(()) => {
                    outgoing.producer.publish();
                    return Ok(());
                }
                Err(PushError::Full) => {}
                // Parts are never too long.
                Err(_) => return Err(Poisoned.into()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if given_up() {
                return Err(SendError::GivenUp);
            }
            if left.is_zero() {
                return Err(SendError::TimedOut);
            }
            let wait = left.min(ROOM_WAIT);
            outgoing.producer.wait_room(payload.len(), wait)?;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outgoing<M>> {
        self.outgoing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Memory> Outgoing<M> {
    fn flush(&mut self) {
        while let Some(id) = self.cancels.last() {
            let kind = Kind::Cancel.number();
            if self.producer.try_push(kind, *id, &[]).is_err() {
                break;
            }
            self.cancels.pop();
        }
        self.producer.publish();
    }
}
