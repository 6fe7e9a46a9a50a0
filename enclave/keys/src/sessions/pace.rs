//! A stream that gives a peer so much time, so many bytes and so much computing, and no more.
//!
//! ```text
//! session ──read──▶ Paced ──▶ stream          while it waits for the peer: no turn is held
//!                     ├─ deadline of this message (or handshake): passed → TimedOut
//!                     ├─ bytes of this message: beyond its limit → InvalidData
//!                     └─ memory that all sessions share: used up → the session ends
//! ```
//!
//! Always true: however slowly bytes drip, a handshake or message ends at its deadline; what a session
//! holds of the shared memory is given back with the message and when the stream is dropped; a turn is
//! held only while this thread computes, never while it waits for a peer.
//!
//! On paper: one system call more (the wait's limit) for each read or write.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::PEER_WAIT;
use crate::limits::{Turn, Turns};
use crate::witnesses::Pipe;

/// What one message may take, set anew for each.
pub(crate) struct Pace<'a> {
    deadline: Cell<Instant>,
    bytes_left: Cell<usize>,
    /// Bytes of this message that count against `memory`.
    held: Cell<usize>,
    memory: &'a Memory,
    turns: &'a Turns,
    turn: RefCell<Option<Turn<'a>>>,
    /// Whether computing needs a turn: in the handshake.
    takes_turns: Cell<bool>,
    /// Another member: it may be silent and say much, for as long as it lives.
    endless: Cell<bool>,
}

/// Bytes that messages on their way may take in all sessions together.
pub(crate) struct Memory(AtomicUsize);

impl Memory {
    pub(crate) const fn new(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let less = |left: usize| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
    }

    fn give(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}

impl<'a> Pace<'a> {
    /// For a handshake: `wait` in all.
    pub(super) fn handshake(turns: &'a Turns, memory: &'a Memory, wait: Duration) -> Rc<Self> {
        Rc::new(Self {
            deadline: Cell::new(Instant::now() + wait),
            bytes_left: Cell::new(HANDSHAKE_BYTES_MAX),
            held: Cell::new(0),
            memory,
            turns,
            turn: RefCell::new(None),
            takes_turns: Cell::new(true),
            endless: Cell::new(false),
        })
    }

    /// For the next message of at most `bytes`, here `wait` from now; gives back what the one before held.
    pub(super) fn message(&self, wait: Duration, bytes: usize) {
        self.takes_turns.set(false);
        drop(self.turn.take());
        self.deadline.set(Instant::now() + wait);
        self.bytes_left.set(bytes);
        self.memory.give(self.held.take());
    }

    /// For a session with another member, which ends by itself.
    pub(super) fn member(&self, wait: Duration) {
        self.message(wait, usize::MAX);
        self.endless.set(true);
    }

    fn left(&self) -> io::Result<Duration> {
        if self.endless.get() {
            return Ok(PEER_WAIT);
        }
        let left = self
            .deadline
            .get()
            .saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(left)
    }

    /// Takes a turn again after waiting for the peer.
    fn compute(&self) -> io::Result<()> {
        if self.takes_turns.get() {
            let turn = self.turns.take(self.deadline.get());
            *self.turn.borrow_mut() = Some(turn.ok_or(ErrorKind::TimedOut)?);
        }
        Ok(())
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        if self.endless.get() {
            return Ok(());
        }
        let left = self.bytes_left.get().checked_sub(bytes);
        let too_long = || io::Error::new(ErrorKind::InvalidData, "more bytes than a request has");
        self.bytes_left.set(left.ok_or_else(too_long)?);
        if !self.memory.take(bytes) {
            let busy = "too many bytes are on their way in other sessions; try again";
            return Err(io::Error::other(busy));
        }
        self.held.set(self.held.get() + bytes);
        Ok(())
    }
}

impl Drop for Pace<'_> {
    fn drop(&mut self) {
        self.memory.give(self.held.take());
    }
}

/// A stream that keeps to a pace.
pub(crate) struct Paced<'a, S> {
    stream: S,
    pace: Rc<Pace<'a>>,
}

impl<'a, S: Pipe> Paced<'a, S> {
    pub(super) fn new(stream: S, pace: &Rc<Pace<'a>>) -> Self {
        Self {
            stream,
            pace: Rc::clone(pace),
        }
    }

    /// Lets the peer have its time; the turn is free meanwhile.
    fn wait<T>(&mut self, act: impl FnOnce(&mut S) -> io::Result<T>) -> io::Result<T> {
        drop(self.pace.turn.take());
        self.stream.limit_waits(self.pace.left()?)?;
        let outcome = act(&mut self.stream)?;
        self.pace.compute()?;
        Ok(outcome)
    }
}

impl<S: Pipe> Read for Paced<'_, S> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.wait(|stream| stream.read(to))?;
        self.pace.count(count)?;
        Ok(count)
    }
}

impl<S: Pipe> Write for Paced<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(|stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The most bytes that a peer sends before its session is open: a certificate with evidence, a proof.
const HANDSHAKE_BYTES_MAX: usize = 512 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    #[test]
    fn bytes_that_drip_do_not_stretch_the_deadline() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (turns, memory) = (Turns::new(1), Memory::new(1000));
        let pace = Pace::handshake(&turns, &memory, SOON);
        let mut stream = Paced::new(near, &pace);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while far.write_all(b"x").is_ok() && begun.elapsed() < 20 * SOON {
                    std::thread::sleep(SOON / 10);
                }
            });
            let mut all = [0; 1000];
            assert!(stream.read_exact(&mut all).is_err());
            assert!(begun.elapsed() < 10 * SOON);
            drop(stream);
            drop(pace);
        });
    }

    #[test]
    fn nobody_holds_a_turn_while_waiting_for_a_peer() {
        let (far, near) = UnixStream::pair().unwrap();
        let (turns, memory) = (Turns::new(1), Memory::new(1000));
        let pace = Pace::handshake(&turns, &memory, SOON);
        let mut stream = Paced::new(near, &pace);
        pace.compute().unwrap();
        assert!(turns.take(Instant::now()).is_none(), "computing");
        assert!(stream.read(&mut [0; 8]).is_err(), "the peer is silent");
        assert!(turns.take(Instant::now() + SOON).is_some());
        drop(far);
    }

    #[test]
    fn one_message_has_its_bytes_and_all_have_theirs() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (turns, memory) = (Turns::new(1), Memory::new(100));
        let pace = Pace::handshake(&turns, &memory, SOON);
        let mut stream = Paced::new(near, &pace);
        let mut to = [0; 60];
        far.write_all(&[0; 600]).unwrap();
        pace.message(SOON, 100);
        stream.read_exact(&mut to).unwrap();
        assert_eq!(
            stream.read(&mut to).unwrap_err().kind(),
            ErrorKind::InvalidData
        );
        pace.message(SOON, 1000);
        stream.read_exact(&mut to).unwrap();
        assert!(
            stream.read(&mut to).is_err(),
            "the memory of all is used up"
        );
        drop((stream, pace));
        assert_eq!(memory.0.load(Ordering::SeqCst), 100, "all is given back");
    }
}
