//! A stream that gives a peer so much time, so many bytes and so much computing, and no more.
//!
//! ```text
//! session ──read──▶ Paced ──▶ stream          while it waits for the peer: no turn is held
//!                     ├─ deadline of this message (or handshake): passed → TimedOut
//!                     ├─ bytes of this message: beyond its limit → InvalidData
//!                     └─ memory that all sessions share: used up → the stranger that holds most of it ends
//! ```
//!
//! Always true: however slowly bytes drip, a handshake or message ends at its deadline; what a session
//! holds of the shared memory, for what it reads or for the reply it is sent, is given back with the message and
//! when the stream is dropped; attested peers have a memory of their own, which strangers cannot use up; a turn is
//! held only while this thread computes, never while it waits for a peer.
//!
//! On paper: one system call more (the wait's limit) and one lock for each read; a look at all holders when the
//! memory is used up.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::cluster::PEER_WAIT;
use crate::limits::{Turn, Turns, lock};
use crate::witnesses::Pipe;

/// What one message may take, set anew for each.
pub(crate) struct Pace<'a> {
    deadline: Cell<Instant>,
    bytes_left: Cell<usize>,
    /// What this message holds of the memory that all share.
    held: Held<'a>,
    turns: &'a Turns,
    turn: RefCell<Option<Turn<'a>>>,
    /// Whether computing needs a turn: in the handshake.
    takes_turns: Cell<bool>,
    /// Another member: it may be silent and say much, for as long as it lives.
    endless: Cell<bool>,
}

/// Bytes that messages on their way may take in all sessions together.
pub(crate) struct Memory {
    strangers: Pool,
    attested: Pool,
    next: AtomicU64,
}

/// One class's bytes.
struct Pool(Mutex<Book>);

struct Book {
    left: usize,
    holders: HashMap<u64, Holder>,
}

struct Holder {
    bytes: usize,
    /// Ends its session. None: it is known, and does not end for another.
    cut: Option<Box<dyn Fn() + Send>>,
}

/// A session's part of the memory.
struct Held<'a> {
    memory: &'a Memory,
    number: u64,
    attested: Cell<bool>,
}

impl Memory {
    /// Of `bytes`, a quarter is for attested peers.
    pub(crate) fn new(bytes: usize) -> Self {
        let pool = |left| {
            let holders = HashMap::new();
            Pool(Mutex::new(Book { left, holders }))
        };
        Self {
            strangers: pool(bytes - bytes / 4),
            attested: pool(bytes / 4),
            next: AtomicU64::new(0),
        }
    }

    /// The part of a session that `cut` ends.
    fn hold(&self, cut: Box<dyn Fn() + Send>) -> Held<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let holder = Holder {
            bytes: 0,
            cut: Some(cut),
        };
        lock(&self.strangers.0).holders.insert(number, holder);
        Held {
            memory: self,
            number,
            attested: Cell::new(false),
        }
    }
}

impl Book {
    /// Takes `bytes` for `number`; strangers that hold more than it would are cut to make room.
    fn take(&mut self, number: u64, bytes: usize) -> bool {
        let own = match self.holders.get(&number) {
            Some(holder) => holder.bytes + bytes,
            None => return false, // it was cut
        };
        while self.left < bytes {
            let strangers = self.holders.iter().filter_map(|(number, holder)| {
                holder.cut.as_ref().map(|_| (holder.bytes, *number))
            });
            let known = self.holders[&number].cut.is_none();
            match strangers.max() {
                // A known one comes before any stranger that holds something.
                Some((most, largest)) if most > 0 && (known || most > own) => self.cut(largest),
                _ => return false,
            }
        }
        self.left -= bytes;
        if let Some(holder) = self.holders.get_mut(&number) {
            holder.bytes = own;
        }
        true
    }

    fn cut(&mut self, number: u64) {
        if let Some(holder) = self.holders.remove(&number) {
            // Its thread wakes and gives the memory itself back at once.
            self.left += holder.bytes;
            if let Some(cut) = holder.cut {
                cut();
            }
        }
    }
}

impl Held<'_> {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        let pool = match self.attested.get() {
            true => &self.memory.attested,
            false => &self.memory.strangers,
        };
        lock(&pool.0)
    }

    fn take(&self, bytes: usize) -> bool {
        self.book().take(self.number, bytes)
    }

    /// Gives all back.
    fn give(&self) {
        let mut book = self.book();
        let bytes = match book.holders.get_mut(&self.number) {
            Some(holder) => std::mem::take(&mut holder.bytes),
            None => 0,
        };
        book.left += bytes;
    }

    /// It does not end for another from now on.
    fn known(&self) {
        if let Some(holder) = self.book().holders.get_mut(&self.number) {
            holder.cut = None;
        }
    }

    /// From now on its bytes are those of attested peers.
    fn attested(&self) {
        self.give();
        let moved = self.book().holders.remove(&self.number);
        self.attested.set(true);
        if let Some(mut holder) = moved {
            holder.cut = None;
            self.book().holders.insert(self.number, holder);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut book = self.book();
        if let Some(holder) = book.holders.remove(&self.number) {
            book.left += holder.bytes;
        }
    }
}

impl<'a> Pace<'a> {
    /// For a handshake: `wait` in all.
    pub(super) fn handshake(
        turns: &'a Turns,
        memory: &'a Memory,
        wait: Duration,
        cut: Box<dyn Fn() + Send>,
    ) -> Rc<Self> {
        Rc::new(Self {
            deadline: Cell::new(Instant::now() + wait),
            bytes_left: Cell::new(HANDSHAKE_BYTES_MAX),
            held: memory.hold(cut),
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
        self.held.give();
    }

    /// For a reply of `bytes`, which leaves in `wait` from now.
    ///
    /// # Errors
    /// The memory for what is on its way is used up.
    pub(super) fn reply(&self, wait: Duration, bytes: usize) -> io::Result<()> {
        // What TLS asks a peer to say while it is written to.
        self.message(wait, HANDSHAKE_BYTES_MAX);
        self.hold(bytes)
    }

    /// Its peer is attested.
    pub(super) fn attested(&self) {
        self.held.attested();
    }

    /// Its peer is a registered principal.
    pub(super) fn known(&self) {
        self.held.known();
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
        self.hold(bytes)
    }

    fn hold(&self, bytes: usize) -> io::Result<()> {
        if self.held.take(bytes) {
            return Ok(());
        }
        let busy = "too many bytes are on their way in other sessions; try again";
        Err(io::Error::other(busy))
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

    fn nothing() -> Box<dyn Fn() + Send> {
        Box::new(|| {})
    }

    /// Of strangers and of attested peers.
    fn left(memory: &Memory) -> (usize, usize) {
        (
            lock(&memory.strangers.0).left,
            lock(&memory.attested.0).left,
        )
    }

    #[test]
    fn bytes_that_drip_do_not_stretch_the_deadline() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let (turns, memory) = (Turns::new(1), Memory::new(1000));
        let pace = Pace::handshake(&turns, &memory, SOON, nothing());
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
        let pace = Pace::handshake(&turns, &memory, SOON, nothing());
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
        let (turns, memory) = (Turns::new(1), Memory::new(136));
        let pace = Pace::handshake(&turns, &memory, SOON, nothing());
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
        assert_eq!(left(&memory), (102, 34), "all is given back");
    }

    #[test]
    fn the_stranger_that_holds_most_ends_and_not_whoever_reads_next() {
        let memory = Memory::new(400);
        let (cuts, cut) = std::sync::mpsc::channel();
        let hold = |name: &'static str| {
            let cuts = cuts.clone();
            memory.hold(Box::new(move || cuts.send(name).unwrap()))
        };
        let (hoarder, small, owner) = (hold("hoarder"), hold("small"), hold("owner"));
        assert!(hoarder.take(250) && small.take(40));
        assert!(!hoarder.take(50), "it holds most itself");
        assert!(small.take(50));
        assert_eq!(cut.try_recv(), Ok("hoarder"));
        assert!(!hoarder.take(1), "it was cut");
        assert!(hold("another").take(200));
        owner.known();
        assert!(owner.take(290), "a known one comes before all strangers");
        assert_eq!(cut.try_recv(), Ok("small"));
        drop((hoarder, small, owner));
        assert_eq!(left(&memory), (300, 100));
    }

    #[test]
    fn strangers_use_up_nothing_of_attested_peers_and_replies_count() {
        let (turns, memory) = (Turns::new(1), Memory::new(400));
        let stranger = Pace::handshake(&turns, &memory, SOON, nothing());
        stranger.known();
        stranger.count(300).unwrap();
        let runtime = Pace::handshake(&turns, &memory, SOON, nothing());
        assert!(runtime.count(10).is_err());
        runtime.attested();
        runtime.count(10).unwrap();
        runtime.reply(SOON, 100).unwrap();
        assert!(runtime.reply(SOON, 101).is_err());
        runtime.message(SOON, 100);
        assert_eq!(left(&memory), (0, 100));
        stranger.reply(SOON, 300).unwrap();
        drop((stranger, runtime));
        assert_eq!(left(&memory), (300, 100));
    }
}
