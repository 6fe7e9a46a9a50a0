//! Who waits for the answer of one call, and how long it is waited for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::call::ANSWER_AHEAD_BYTES_MAX;
use bield_ring::{Memory, RING_BYTES, SendError, Shared, payload_max};

use super::Line;
use crate::{DoorError, STREAM_WAIT};

/// Who waits for the answer of one call. Dropped without a reply, it tells them that there is none.
pub struct Caller<M: Memory = Shared> {
    id: u64,
    line: Arc<Line<M>>,
    asked: Arc<Asked>,
    /// Bytes of the request.
    reserved: usize,
    /// Bytes of parts.
    sent: u64,
    /// Parts were sent.
    begun: bool,
    ended: bool,
}

impl<M: Memory> Caller<M> {
    /// Who waits for the answer to a request for which so many bytes are reserved.
    pub(super) const fn new(
        id: u64,
        line: Arc<Line<M>>,
        asked: Arc<Asked>,
        reserved: usize,
    ) -> Self {
        Self {
            id,
            line,
            asked,
            reserved,
            sent: 0,
            begun: false,
            ended: false,
        }
    }

    /// Whether nobody waits for the answer any more: what has not begun need not begin.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.asked.cancelled.load(Ordering::Relaxed) || self.line.gone.load(Ordering::Relaxed)
    }

    /// Whether a part would go out at once, as far as who asked has taken what was sent.
    #[must_use]
    pub fn takes_more(&self) -> bool {
        self.is_behind(*self.asked.taken())
    }

    /// Waits until who asked has taken enough of what was sent: at most so long in all, and [`STREAM_WAIT`] from one time
    /// that it took something to the next.
    ///
    /// # Errors
    /// [`DoorError::NotSent`]: the caller went away, or takes too little.
    pub fn wait_until_taken(&self, at_most: Duration) -> Result<(), DoorError> {
        let mut taken = self.asked.taken();
        let mut patience = Patience::new(*taken, Instant::now(), at_most);
        loop {
            if self.is_cancelled() {
                return Err(SendError::GivenUp.into());
            }
            if self.is_behind(*taken) {
                return Ok(());
            }
            let left = patience.left(*taken, Instant::now());
            if left.is_zero() {
                return Err(SendError::TimedOut.into());
            }
            let waited = self.asked.changed.wait_timeout(taken, left);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn is_behind(&self, taken: u64) -> bool {
        self.sent.saturating_sub(taken) < ANSWER_AHEAD_BYTES_MAX as u64
    }

    /// Sends the next part of an answer whose length is not known yet, when who asked has taken enough of what went
    /// before.
    ///
    /// # Errors
    /// As [`wait_until_taken`](Self::wait_until_taken), which waits [`STREAM_WAIT`] here; or the host reads nothing for as
    /// long: each frame has its own time, because whoever takes an answer slowly may take one from time to time.
    pub fn part(&mut self, bytes: &[u8]) -> Result<(), DoorError> {
        self.begun = true;
        self.wait_until_taken(STREAM_WAIT)?;
        self.sent += bytes.len() as u64;
        self.send(bytes, false)
    }

    /// Sends the answer, or the last part of it, without waiting for what went before.
    ///
    /// # Errors
    /// [`DoorError::NotSent`]: the caller went away, or the host reads nothing.
    pub fn reply(mut self, bytes: &[u8]) -> Result<(), DoorError> {
        self.send(bytes, true)?;
        self.ended = true;
        Ok(())
    }

    fn send(&self, bytes: &[u8], last: bool) -> Result<(), DoorError> {
        let (answers, id) = (&self.line.answers, self.id);
        let deadline = || Instant::now() + STREAM_WAIT;
        let given_up = || self.is_cancelled();
        if !self.begun {
            return Ok(answers.send(id, bytes, deadline(), given_up)?);
        }
        let mut rest = bytes;
        loop {
            let (frame, after) = rest.split_at(rest.len().min(FRAME_BYTES_MAX));
            rest = after;
            let is_end = rest.is_empty();
            answers.send_part(id, frame, last && is_end, deadline(), given_up)?;
            if is_end {
                return Ok(());
            }
        }
    }
}

impl<M: Memory> Drop for Caller<M> {
    fn drop(&mut self) {
        self.line.lock().remove(&self.id);
        let inside = &self.line.inside.0;
        inside.fetch_sub(self.reserved, Ordering::Relaxed);
        if !self.ended {
            self.line.answers.cancel(self.id);
        }
    }
}

/// What who asked said since.
#[derive(Default)]
pub(super) struct Asked {
    /// It does not wait any more.
    cancelled: AtomicBool,
    /// Bytes of the answer that it has taken, as it says: more than were sent does no harm.
    taken: Mutex<u64>,
    changed: Condvar,
}

impl Asked {
    /// Nobody waits any more.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.tell(|_| {});
    }

    /// Notes what the host said, and wakes who waits for it.
    pub(super) fn tell(&self, note: impl FnOnce(&mut u64)) {
        note(&mut self.taken());
        self.changed.notify_all();
    }

    fn taken(&self) -> MutexGuard<'_, u64> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of a part that go out at once.
const FRAME_BYTES_MAX: usize = payload_max(RING_BYTES);

/// How long one is waited for who takes an answer in parts.
struct Patience {
    /// `None` for ever.
    until: Option<Instant>,
    seen: u64,
    pause_until: Instant,
}

impl Patience {
    fn new(taken: u64, now: Instant, at_most: Duration) -> Self {
        Self {
            until: now.checked_add(at_most),
            seen: taken,
            pause_until: now + STREAM_WAIT,
        }
    }

    /// What is left of it when so many bytes are taken.
    fn left(&mut self, taken: u64, now: Instant) -> Duration {
        if taken > self.seen {
            self.seen = taken;
            self.pause_until = now + STREAM_WAIT;
        }
        let until = self.until.unwrap_or(self.pause_until);
        until.min(self.pause_until).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_something_has_time_again_but_not_for_ever() {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let mut patience = Patience::new(10, begin, STREAM_WAIT * 2);
        assert_eq!(patience.left(10, begin), STREAM_WAIT);
        let later = begin + STREAM_WAIT - second;
        assert_eq!(patience.left(10, later), second, "it took nothing");
        assert_eq!(patience.left(11, later), STREAM_WAIT);
        assert_eq!(patience.left(11, later + second), STREAM_WAIT - second);
        let late = begin + STREAM_WAIT * 2 - second;
        assert_eq!(patience.left(12, late), second, "in all");
        assert!(patience.left(13, late + second).is_zero());
        let mut patience = Patience::new(0, begin, Duration::MAX);
        assert_eq!(patience.left(0, begin), STREAM_WAIT);
    }
}
