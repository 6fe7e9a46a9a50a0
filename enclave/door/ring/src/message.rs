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
//! no longer; a `Cancel` is never lost: without room for it now, it goes first when there is. Cancelling and flushing wait
//! for nobody, so that a reader who does either goes on reading while others wait for room.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::memory::Memory;
use crate::producer::{Producer, PushError};
use crate::{Poisoned, payload_max};

/// How long a reader sleeps before it looks around by itself. Nothing waits for this with an honest, living peer.
pub const PARK_MAX: Duration = Duration::from_millis(500);
/// How long one sender waits for room before it lets the others have a look.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// Most `Cancel`s that wait for room: twice the calls that may be on their way (`bield_protocol::visit`). An honest peer,
/// which reads, leaves fewer.
const CANCELS_MAX: usize = 8192;

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
    /// Held for a moment only.
    place: Mutex<Place<M>>,
    /// The producer is there again.
    back: Condvar,
    /// Calls to cancel when there is room. Held for a moment only.
    cancels: Mutex<Vec<u64>>,
    /// The other side lied or reads nothing.
    poisoned: AtomicBool,
    part_max: usize,
}

/// Where the producer is while nobody sends.
struct Place<M> {
    /// `None` while one who sends waits for room with it.
    producer: Option<Producer<M>>,
    /// How many wait until it is there again.
    waiting: usize,
}

impl<M: Memory> Sender<M> {
    /// Sends through this producer.
    #[must_use]
    pub fn new(producer: Producer<M>) -> Self {
        Self {
            part_max: payload_max(producer.capacity()),
            place: Mutex::new(Place {
                producer: Some(producer),
                waiting: 0,
            }),
            back: Condvar::new(),
            cancels: Mutex::default(),
            poisoned: AtomicBool::new(false),
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
        {
            let mut cancels = lock(&self.cancels);
            if cancels.len() == CANCELS_MAX {
                self.poisoned.store(true, Ordering::Relaxed);
                return;
            }
            cancels.push(id);
        }
        self.send_cancels();
    }

    /// Sends what was left for later; does not wait.
    ///
    /// # Errors
    /// [`Poisoned`], whoever found it: nothing goes out any more.
    pub fn flush(&self) -> Result<(), Poisoned> {
        self.send_cancels();
        match self.poisoned.load(Ordering::Relaxed) {
            true => Err(Poisoned),
            false => Ok(()),
        }
    }

    /// How often a frame found the ring full, and how often the other side had to be woken.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let mut held = lock(&self.place);
        held.waiting += 1;
        held = self
            .back
            .wait_while(held, |place| place.producer.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        held.waiting -= 1;
        held.producer
            .as_ref()
            .map_or((0, 0), |producer| (producer.full(), producer.wakes()))
    }

    fn push(
        &self,
        kind: Kind,
        id: u64,
        payload: &[u8],
        deadline: Instant,
        given_up: &impl Fn() -> bool,
    ) -> Result<(), SendError> {
        let mut held = lock(&self.place);
        let mut had_it = false;
        let pushed = loop {
            if let Some(producer) = &mut held.producer {
                self.push_cancels(producer);
                match producer.try_push(kind.number(), id, payload) {
                    Ok(()) => {
                        producer.publish();
                        break Ok(());
                    }
                    Err(PushError::Full) => {}
                    // Parts are never too long.
                    Err(_) => break Err(Poisoned.into()),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if given_up() {
                break Err(SendError::GivenUp);
            }
            if left.is_zero() {
                break Err(SendError::TimedOut);
            }
            let wait = left.min(ROOM_WAIT);
            // Whoever had it lets the others have a look.
            let is_mine = !had_it || held.waiting == 0;
            let mine = held.producer.take_if(|_| is_mine);
            had_it = mine.is_some();
            match mine {
                Some(mut producer) => {
                    // Unlocked: the others wait for no longer than they want to.
                    drop(held);
                    let waited = producer.wait_room(payload.len(), wait);
                    held = lock(&self.place);
                    held.producer = Some(producer);
                    self.back.notify_all();
                    if let Err(error) = waited {
                        break Err(error.into());
                    }
                }
                None => {
                    held.waiting += 1;
                    let waited = self.back.wait_timeout(held, wait);
                    held = waited.unwrap_or_else(PoisonError::into_inner).0;
                    held.waiting -= 1;
                }
            }
        };
        if held.waiting > 0 {
            self.back.notify_all();
        }
        drop(held);
        if matches!(pushed, Err(SendError::Poisoned(_))) {
            self.poisoned.store(true, Ordering::Relaxed);
        }
        // Of those who cancelled while this one had the ring, and found it taken.
        self.send_cancels();
        pushed
    }

    /// Sends the cancels that wait, unless somebody sends at the moment: who does sends them afterwards.
    fn send_cancels(&self) {
        while !lock(&self.cancels).is_empty() {
            let Some(mut held) = try_lock(&self.place) else {
                return;
            };
            let Some(producer) = &mut held.producer else {
                return;
            };
            if !self.push_cancels(producer) {
                return;
            }
        }
    }

    /// Whether all of them are on their way.
    fn push_cancels(&self, producer: &mut Producer<M>) -> bool {
        let mut cancels = lock(&self.cancels);
        let kind = Kind::Cancel.number();
        let mut pushed = Ok(());
        while let Some(id) = cancels.last() {
            pushed = producer.try_push(kind, *id, &[]);
            if pushed.is_err() {
                break;
            }
            cancels.pop();
        }
        producer.publish();
        if matches!(pushed, Err(PushError::Poisoned(_))) {
            self.poisoned.store(true, Ordering::Relaxed);
        }
        pushed.is_ok()
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(what: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match what.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::{Consumer, Spin, create};

    /// A sender whose ring is full, and the reading end.
    fn full() -> (Sender<crate::Shared>, Consumer<crate::Shared>) {
        let (_, [ring, _]) = create().unwrap();
        let spin = || Spin::fixed(Duration::ZERO);
        let sender = Sender::new(Producer::new(ring.clone(), spin()));
        let payload = vec![0; sender.part_max];
        while sender
            .push(Kind::Part, 1, &payload, Instant::now(), &|| false)
            .is_ok()
        {}
        while sender
            .push(Kind::Part, 1, &[], Instant::now(), &|| false)
            .is_ok()
        {}
        (sender, Consumer::new(ring, spin()))
    }

    #[test]
    fn who_cancels_or_flushes_waits_for_nobody_and_the_cancel_comes() {
        let (sender, mut consumer) = full();
        let sending = lock(&sender.place);
        // Held by another: this would wait for ever if it did.
        sender.cancel(7);
        sender.flush().unwrap();
        drop(sending);
        sender.cancel(8);
        assert_eq!(lock(&sender.cancels).len(), 2, "there is no room");
        let until = Instant::now() + Duration::from_secs(60);
        thread::scope(|scope| {
            scope.spawn(|| {
                sender
                    .push(Kind::Whole, 9, b"last", until, &|| false)
                    .unwrap()
            });
            let mut cancelled = Vec::new();
            loop {
                assert!(consumer.wait_until(until).unwrap(), "nothing came");
                let frame = consumer.peek().unwrap().unwrap();
                let head = frame.head();
                frame.skip();
                match Kind::from_number(head.kind) {
                    Some(Kind::Cancel) => cancelled.push(head.id),
                    Some(Kind::Whole) => break,
                    _ => {}
                }
            }
            cancelled.sort_unstable();
            assert_eq!(cancelled, [7, 8], "before what was sent after them");
        });
    }

    #[test]
    fn who_waits_for_another_that_waits_for_room_does_so_until_its_own_deadline() {
        let (sender, mut consumer) = full();
        let push =
            |until, given_up: bool| sender.push(Kind::Whole, 9, b"last", until, &|| given_up);
        // As one does that waits for room.
        let producer = lock(&sender.place).producer.take();
        let until = Instant::now() + Duration::from_secs(60);
        assert_eq!(push(Instant::now(), false), Err(SendError::TimedOut));
        assert_eq!(push(until, true), Err(SendError::GivenUp));
        thread::scope(|scope| {
            let third = scope.spawn(|| push(until, false));
            lock(&sender.place).producer = producer;
            sender.back.notify_all();
            while !third.is_finished() {
                while let Some(frame) = consumer.peek().unwrap() {
                    frame.skip();
                }
            }
            assert_eq!(third.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn whoever_leaves_too_many_cancels_unread_is_believed_no_more() {
        let (sender, _consumer) = full();
        for id in 0..CANCELS_MAX as u64 {
            sender.cancel(id);
        }
        sender.flush().unwrap();
        sender.cancel(0);
        assert_eq!(sender.flush(), Err(Poisoned));
        assert_eq!(lock(&sender.cancels).len(), CANCELS_MAX);
    }
}
