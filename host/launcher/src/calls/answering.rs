//! An answer on its way to who asked.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bield_ring::SendError;

use super::slot::{End, Slot};
use super::{Calls, Place};
use crate::VisitError;
use crate::enclave::ANSWER_BYTES_MAX;
use crate::record::Tape;

/// Most bytes of an answer in parts that are handed out at once, and told to the program as taken: so that it sees a slow
/// caller take something in a second or two. As long as the longest frame, so that the first is never cut.
pub const PIECE_BYTES_MAX: usize = 128 << 10;

/// An answer on its way. Dropped before its end, it tells the program that nobody waits.
pub struct Answering {
    place: Place,
    tape: Tape,
    deadline: Instant,
    wait: Duration,
    /// What came; it was handed out up to `at`.
    came: Vec<u8>,
    at: usize,
    in_parts: bool,
    end: Option<End>,
    /// The program knows, or needs not.
    is_over: bool,
}

impl Answering {
    pub(super) const fn new(place: Place, tape: Tape, deadline: Instant, wait: Duration) -> Self {
        Self {
            place,
            tape,
            deadline,
            wait,
            came: Vec::new(),
            at: 0,
            in_parts: false,
            end: None,
            is_over: false,
        }
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// The program is gone and need not be told.
    pub(super) const fn give_up(&mut self) {
        self.is_over = true;
    }

    /// Whether nothing more comes, because all of it was handed out.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether all of it came, so that the program is done with it and [`next_part`](Self::next_part) waits no more.
    #[must_use]
    pub fn has_come(&self) -> bool {
        self.place.slot.lock().end == Some(End::Complete)
    }

    /// What ends it from another thread.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop {
            calls: Arc::clone(&self.place.calls),
            slot: Arc::clone(&self.place.slot),
            id: self.place.id,
        }
    }

    /// Waits for the whole answer, or, of one that comes in parts, for what there is next, at most [`PIECE_BYTES_MAX`];
    /// `None` after its end. The program may take as long for each part as for a whole call.
    ///
    /// # Errors
    /// See [`VisitError`]; no more of it comes then, and what came is not all of it.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, VisitError> {
        if self.is_over {
            return Ok(None);
        }
        if self.at == self.came.len() && self.end.is_none() {
            self.wait_for_more()?;
        }
        let left = self.came.len() - self.at;
        if left == 0 || !self.in_parts {
            match self.end {
                Some(End::Lost) => {
                    self.is_over = true;
                    return Err(lost());
                }
                Some(End::TooLong) => {
                    let max = ANSWER_BYTES_MAX;
                    return Err(VisitError::TooLong { max });
                }
                Some(End::Complete) | None => {}
            }
        }
        let piece = self.piece();
        match self.end {
            None => self.tell_taken(piece.len())?,
            Some(End::Complete) => self.is_over = self.at == self.came.len(),
            Some(End::Lost | End::TooLong) => {}
        }
        Ok(Some(piece))
    }

    fn wait_for_more(&mut self) -> Result<(), VisitError> {
        self.place.wait(self.deadline);
        let mut answer = self.place.slot.lock();
        if !answer.is_ready() {
            return Err(VisitError::TimedOut { wait: self.wait });
        }
        self.came = std::mem::take(&mut answer.bytes);
        self.at = 0;
        self.end = answer.end;
        self.in_parts = answer.is_streamed;
        if self.in_parts {
            answer.ahead = self.came.len();
        }
        drop(answer);
        self.tape.from_program(&self.came).map_err(VisitError::Lost)
    }

    /// What is handed out next.
    fn piece(&mut self) -> Vec<u8> {
        let left = self.came.len() - self.at;
        if self.at == 0 && (left <= PIECE_BYTES_MAX || !self.in_parts) {
            return std::mem::take(&mut self.came);
        }
        let from = self.at;
        self.at += left.min(PIECE_BYTES_MAX);
        self.came[from..self.at].to_vec()
    }

    fn tell_taken(&mut self, bytes: usize) -> Result<(), VisitError> {
        self.deadline = Instant::now() + self.wait;
        let (calls, slot) = (&self.place.calls, &self.place.slot);
        slot.lock().ahead = self.came.len() - self.at;
        // While nobody waits, nobody reads, and a program that waits for room would not see that something is taken.
        calls.look();
        if slot.has_ended() {
            return Ok(());
        }
        let sent = calls
            .requests
            .send_more(self.place.id, bytes as u64, self.deadline, || {
                calls.look();
                slot.has_ended()
            });
        match sent {
            Ok(()) | Err(SendError::GivenUp) => Ok(()),
            Err(SendError::TimedOut) => Err(VisitError::TimedOut { wait: self.wait }),
            Err(_) => Err(lost()),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.is_over {
            // Whoever would stop it from now on need not.
            self.place.slot.lose();
            self.place.calls.requests.cancel(self.place.id);
        }
    }
}

/// Ends an answer that somebody may be waiting for; outlives it without harm.
pub struct Stop {
    calls: Arc<Calls>,
    slot: Arc<Slot>,
    id: u64,
}

impl Stop {
    /// Tells the program that nobody waits, unless all came. Whoever waits goes on until the program has said that there is
    /// no answer.
    pub fn tell(&self) {
        if !self.slot.has_ended() {
            self.calls.requests.cancel(self.id);
        }
    }

    /// Tells the program that nobody waits, unless all came, and whoever waits that no more comes: at once, or when it looks
    /// around the next time, half a second later at most.
    pub fn stop(&self) {
        if self.slot.lose() {
            self.calls.requests.cancel(self.id);
            self.calls.waker.nudge();
        }
    }
}

pub(super) fn lost() -> VisitError {
    VisitError::Lost(io::Error::new(
        ErrorKind::ConnectionReset,
        "there is no answer",
    ))
}

// A frame has at most a quarter of its ring.
const _: () = assert!(PIECE_BYTES_MAX >= bield_ring::payload_max(bield_ring::RING_BYTES));

#[cfg(test)]
mod tests {
    use super::super::tests::{LONG, enclave};
    use super::*;

    #[test]
    fn what_the_program_sends_comes_in_while_the_first_of_it_is_handed_out() {
        let enclave = enclave();
        let mut answering = enclave.begin_call(b"ahead:", LONG).unwrap();
        let first = answering.next_part().unwrap().unwrap();
        // More than the ring holds, so that the program waits until somebody reads.
        let began = Instant::now();
        while !answering.has_come() {
            assert!(began.elapsed() < LONG, "nobody reads");
            answering.tell_taken(0).unwrap();
            std::thread::yield_now();
        }
        let mut length = first.len();
        while let Some(part) = answering.next_part().unwrap() {
            length += part.len();
        }
        assert!(length > 2 * bield_ring::RING_BYTES);
    }

    #[test]
    fn a_program_that_is_told_that_nobody_waits_keeps_its_place_until_it_answers() {
        let enclave = enclave();
        let hung = enclave.begin_call(b"hang:", LONG).unwrap();
        hung.stop().tell();
        let cancels = || enclave.call(b"cancels:", LONG).unwrap();
        assert!(cancels().ends_with(b"1"));
        assert!(!hung.place().slot.has_ended());
        let dropped = enclave.begin_call(b"next", LONG).unwrap();
        let stop = dropped.stop();
        drop(dropped);
        stop.tell();
        assert!(cancels().ends_with(b"2"), "told once");
    }
}
