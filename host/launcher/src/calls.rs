//! Calls to a program through two rings in shared memory.
//!
//! ```text
//! call (any thread) ─ request ─▶ ring ─▶ program
//!   ├ one of those that wait reads ◀─ ring ─ answers, in parts ─┘
//!   └ the others are handed theirs; who has its own passes the reading on
//! ```
//!
//! Always true: an answer reaches the call it belongs to or nobody; every call ends by its deadline; while a call waits,
//! somebody reads; when the program is gone, or breaks the rules of the ring, all calls end at once as lost. What a
//! program sends beyond [`ANSWER_BYTES_MAX`] is not kept; of an answer in parts, which is handed out as it comes, what
//! nobody has taken stays below [`UNTAKEN_BYTES_MAX`], because the program waits. At most [`CALLS_IN_FLIGHT_MAX`] calls are on their way; more
//! wait for a place. While nobody waits, nobody reads: what comes late then fills the ring and no more.
//!
//! On paper: a call alone is woken once, by the program, or not at all when it finds the answer while it spins. A call
//! beside others is woken to take its answer or to read, and wakes one other when it leaves.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::call::ANSWER_AHEAD_BYTES_MAX;
use bield_protocol::visit::CALLS_IN_FLIGHT_MAX;
use bield_ring::{
    Consumer, Frame, Kind, PARK_MAX, Poisoned, Producer, SendError, Sender, Shared, Spin,
};

use crate::VisitError;
use crate::address::DoorAddress;
use crate::enclave::ANSWER_BYTES_MAX;
use crate::process::Process;
use crate::record::{Pipe, Tape};

/// Frames that a reader takes before it looks at its own answer and deadline.
const FRAMES_AT_ONCE: usize = 64;

/// Bytes of an answer in parts that are kept until they are taken: what a program may be ahead, and its longest part,
/// a sealed chunk with its head.
const UNTAKEN_BYTES_MAX: usize = ANSWER_AHEAD_BYTES_MAX + (2 << 20);

/// The host's end of both rings.
pub(crate) struct Calls {
    requests: Sender<Shared>,
    open: Mutex<Open>,
    /// A place was freed.
    freed: Condvar,
    /// Open as long as calls may come.
    visit: Pipe,
    process: Arc<Process>,
}

/// Calls on their way.
struct Open {
    next: u64,
    slots: HashMap<u64, Arc<Slot>>,
    /// The end that answers come from, while nobody reads.
    answers: Option<Consumer<Shared>>,
    /// Calls that wait while another reads. The oldest is the next to read.
    followers: BTreeSet<u64>,
    /// No answer comes any more.
    lost: bool,
}

/// Where one answer is put together.
#[derive(Default)]
struct Slot {
    answer: Mutex<Answer>,
    changed: Condvar,
}

#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    /// Of how many bytes, when that was told.
    length: Option<usize>,
    /// Parts came before any length did.
    is_streamed: bool,
    end: Option<End>,
    /// Nobody reads, and this call is to.
    may_read: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Complete,
    /// The program says that there is no answer, or is gone.
    Lost,
    TooLong,
}

impl Calls {
    /// Makes the rings and passes them through the door.
    pub(crate) fn open(
        door: &DoorAddress,
        process: &Arc<Process>,
        wait: Duration,
    ) -> io::Result<Arc<Calls>> {
        let (file, [to_program, from_program]) = bield_ring::create()?;
        let visit = door.calls(&file, wait)?;
        let answers = Consumer::new(from_program, Spin::measured());
        let waker = answers.waker();
        process.at_end(move || waker.hang_up());
        Ok(Arc::new(Calls {
            requests: Sender::new(Producer::new(to_program, Spin::measured())),
            open: Mutex::new(Open {
                next: 0,
                slots: HashMap::new(),
                answers: Some(answers),
                followers: BTreeSet::new(),
                lost: false,
            }),
            freed: Condvar::new(),
            visit,
            process: Arc::clone(process),
        }))
    }

    /// Whether no answer will come any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lock().lost
    }

    /// Sends a request, at most `wait` long.
    pub(crate) fn begin(
        self: &Arc<Self>,
        request: &[u8],
        tape: Tape,
        wait: Duration,
    ) -> Result<Answering, VisitError> {
        let deadline = Instant::now() + wait;
        let place = self.place(deadline, wait)?;
        let mut answering = Answering {
            place,
            tape,
            deadline,
            wait,
            is_over: false,
        };
        let (id, slot) = (answering.place.id, &answering.place.slot);
        let sent = self.requests.send(id, request, deadline, || {
            // The program may be waiting for room in the other ring.
            self.look();
            slot.lock().end.is_some()
        });
        match sent {
            Ok(()) => {}
            // Answered already, without the rest: the program must not wait for that.
            Err(SendError::GivenUp) => self.requests.cancel(id),
            Err(SendError::TimedOut) => return Err(VisitError::TimedOut { wait }),
            Err(_) => {
                answering.is_over = true;
                return Err(lost());
            }
        }
        Ok(answering)
    }

    /// Waits for one of the places for calls.
    fn place(self: &Arc<Self>, deadline: Instant, wait: Duration) -> Result<Place, VisitError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (mut open, _) = self
            .freed
            .wait_timeout_while(self.lock(), left, |open| {
                !open.lost && open.slots.len() >= CALLS_IN_FLIGHT_MAX
            })
            .unwrap_or_else(PoisonError::into_inner);
        if open.lost {
            return Err(lost());
        }
        if open.slots.len() >= CALLS_IN_FLIGHT_MAX {
            return Err(VisitError::TimedOut { wait });
        }
        let id = open.next;
        open.next += 1;
        let slot = Arc::<Slot>::default();
        open.slots.insert(id, Arc::clone(&slot));
        Ok(Place {
            calls: Arc::clone(self),
            id,
            slot,
        })
    }

    /// The right to read, if nobody reads.
    fn reading(&self) -> Option<Reading<'_>> {
        let answers = self.lock().answers.take()?;
        Some(Reading {
            calls: self,
            answers: Some(answers),
        })
    }

    /// Takes what is there already, if nobody reads.
    fn look(&self) {
        if let Some(mut reading) = self.reading() {
            reading.act(|calls, answers| calls.take_some(answers).map(|_| ()));
        }
    }

    /// Reads answers until there is something of this one or the deadline is over. When the program is gone, all are lost.
    fn read(
        &self,
        answers: &mut Consumer<Shared>,
        slot: &Slot,
        deadline: Instant,
    ) -> Result<(), Poisoned> {
        let mut is_idle = false;
        loop {
            // Asked before the last look: what a program sent before it ended is taken.
            let is_over = answers.is_hung_up() || (is_idle && self.visit.is_closed());
            let is_empty = self.take_some(answers)?;
            if slot.lock().is_ready() {
                return Ok(());
            }
            if is_over && is_empty {
                self.lose_all();
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if is_idle {
                self.requests.flush();
            }
            is_idle = is_empty && !answers.wait(PARK_MAX.min(left))?;
        }
    }

    /// Takes up to [`FRAMES_AT_ONCE`] frames; whether there are no more.
    fn take_some(&self, answers: &mut Consumer<Shared>) -> Result<bool, Poisoned> {
        for _ in 0..FRAMES_AT_ONCE {
            let Some(frame) = answers.peek()? else {
                return Ok(true);
            };
            let kind = Kind::from_number(frame.head().kind).ok_or(Poisoned)?;
            let slot = self.lock().slots.get(&frame.head().id).map(Arc::clone);
            match slot {
                Some(slot) => slot.take(kind, frame)?,
                // Nobody waits for it any more.
                None => frame.skip(),
            }
        }
        Ok(false)
    }

    fn lose_all(&self) {
        let mut open = self.lock();
        open.lost = true;
        for slot in open.slots.values() {
            slot.end(&mut slot.lock(), End::Lost);
        }
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Takes a frame of this answer.
    fn take(&self, kind: Kind, frame: Frame<'_, Shared>) -> Result<(), Poisoned> {
        let mut answer = self.lock();
        let all = answer.bytes.len() + frame.head().length as usize;
        if answer.end.is_some() {
            frame.skip();
        } else if kind == Kind::Cancel {
            frame.skip();
            self.end(&mut answer, End::Lost);
        } else if kind == Kind::Length {
            let mut length = Vec::new();
            frame.take(&mut length);
            let length = u64::from_le_bytes(length.try_into().map_err(|_| Poisoned)?);
            match usize::try_from(length) {
                Ok(length) if length <= ANSWER_BYTES_MAX => {
                    answer.bytes.reserve_exact(length);
                    answer.length = Some(length);
                }
                _ => self.end(&mut answer, End::TooLong),
            }
        } else {
            answer.is_streamed |= kind == Kind::Part && answer.length.is_none();
            if all > answer.bytes_max() {
                frame.skip();
                self.end(&mut answer, End::TooLong);
                return Ok(());
            }
            frame.take(&mut answer.bytes);
            if matches!(kind, Kind::Whole | Kind::Last) {
                self.end(&mut answer, End::Complete);
            } else if answer.is_streamed {
                self.changed.notify_one();
            }
        }
        Ok(())
    }

    /// Ends an answer that has not ended, and wakes who waits.
    fn end(&self, answer: &mut Answer, end: End) {
        answer.end.get_or_insert(end);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    /// Whether there is something to hand out.
    const fn is_ready(&self) -> bool {
        self.end.is_some() || self.is_streamed && !self.bytes.is_empty()
    }

    const fn bytes_max(&self) -> usize {
        match (self.is_streamed, self.length) {
            (true, _) => UNTAKEN_BYTES_MAX,
            (false, Some(length)) => length,
            (false, None) => ANSWER_BYTES_MAX,
        }
    }
}

/// An answer on its way. Dropped before its end, it tells the program that nobody waits.
pub struct Answering {
    place: Place,
    tape: Tape,
    deadline: Instant,
    wait: Duration,
    /// The program knows, or needs not.
    is_over: bool,
}

impl Answering {
    /// Whether nothing more comes.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Waits for the whole answer, or, of one that comes in parts, for what there is next; `None` after its end. Each
    /// part may take as long as a whole call.
    ///
    /// # Errors
    /// See [`VisitError`]; no more of it comes then, and what came is not all of it.
    pub fn next_part(&mut self) -> Result<Option<Vec<u8>>, VisitError> {
        if self.is_over {
            return Ok(None);
        }
        self.place.wait(self.deadline);
        let (bytes, end) = {
            let mut answer = self.place.slot.lock();
            match answer.is_ready() {
                true => (std::mem::take(&mut answer.bytes), answer.end),
                false => return Err(VisitError::TimedOut { wait: self.wait }),
            }
        };
        self.tape.from_program(&bytes).map_err(VisitError::Lost)?;
        match end {
            None => {}
            Some(End::Complete) => {
                self.is_over = true;
                return Ok(Some(bytes));
            }
            Some(End::Lost) => {
                self.is_over = true;
                return Err(lost());
            }
            Some(End::TooLong) => {
                return Err(VisitError::TooLong {
                    max: ANSWER_BYTES_MAX,
                });
            }
        }
        self.deadline = Instant::now() + self.wait;
        let (calls, slot) = (&self.place.calls, &self.place.slot);
        let sent =
            calls
                .requests
                .send_more(self.place.id, bytes.len() as u64, self.deadline, || {
                    calls.look();
                    slot.lock().end.is_some()
                });
        match sent {
            Ok(()) | Err(SendError::GivenUp) => Ok(Some(bytes)),
            Err(SendError::TimedOut) => Err(VisitError::TimedOut { wait: self.wait }),
            Err(_) => Err(lost()),
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if !self.is_over {
            self.place.calls.requests.cancel(self.place.id);
        }
    }
}

impl Open {
    /// When nobody reads, tells the oldest of those that wait to.
    fn pass_on(&mut self) {
        if self.answers.is_none() {
            return;
        }
        while let Some(id) = self.followers.pop_first() {
            if let Some(slot) = self.slots.get(&id) {
                slot.lock().may_read = true;
                slot.changed.notify_one();
                return;
            }
        }
    }
}

/// The right to read answers. Dropped, it passes to another call that waits.
struct Reading<'a> {
    calls: &'a Calls,
    /// Taken on drop only.
    answers: Option<Consumer<Shared>>,
}

impl Reading<'_> {
    /// Reads. A program that breaks the rules is killed, and all calls are lost.
    fn act(&mut self, read: impl FnOnce(&Calls, &mut Consumer<Shared>) -> Result<(), Poisoned>) {
        let calls = self.calls;
        let Some(answers) = &mut self.answers else {
            return;
        };
        if let Err(error) = read(calls, answers) {
            calls.lose_all();
            tracing::error!(pid = calls.process.pid(), "killed: {error}");
            calls.process.kill();
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut open = self.calls.lock();
        open.answers = self.answers.take();
        open.pass_on();
    }
}

/// A place among the calls on their way, given back on drop.
struct Place {
    calls: Arc<Calls>,
    id: u64,
    slot: Arc<Slot>,
}

impl Place {
    /// Waits until there is something of the answer, at most until the deadline: reads, or follows whoever reads.
    fn wait(&self, deadline: Instant) {
        loop {
            if let Some(mut reading) = self.reading_or_follow() {
                reading.act(|calls, answers| calls.read(answers, &self.slot, deadline));
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let waits = |answer: &mut Answer| !answer.is_ready() && !answer.may_read;
            let (mut answer, _) = self
                .slot
                .changed
                .wait_timeout_while(self.slot.lock(), left, waits)
                .unwrap_or_else(PoisonError::into_inner);
            let may_read = std::mem::take(&mut answer.may_read);
            if !may_read || answer.is_ready() {
                drop(answer);
                // It may have been told to read at the last moment.
                let mut open = self.calls.lock();
                open.followers.remove(&self.id);
                self.slot.lock().may_read = false;
                open.pass_on();
                return;
            }
        }
    }

    /// The right to read; without it, this call is one of those that wait for it, from the same moment on.
    fn reading_or_follow(&self) -> Option<Reading<'_>> {
        let mut open = self.calls.lock();
        match open.answers.take() {
            Some(answers) => Some(Reading {
                calls: &self.calls,
                answers: Some(answers),
            }),
            None => {
                open.followers.insert(self.id);
                None
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.calls.lock().slots.remove(&self.id);
        self.calls.freed.notify_one();
    }
}

fn lost() -> VisitError {
    VisitError::Lost(io::Error::new(
        ErrorKind::ConnectionReset,
        "there is no answer",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot that gets parts of this size until it has so many bytes more.
    fn flooded(part: &[u8], bytes: usize) -> Slot {
        let (_, [ring, _]) = bield_ring::create().unwrap();
        let mut producer = Producer::new(ring.clone(), Spin::fixed(Duration::ZERO));
        let mut consumer = Consumer::new(ring, Spin::fixed(Duration::ZERO));
        let slot = Slot::default();
        for _ in 0..bytes.div_ceil(part.len()) {
            producer.try_push(Kind::Part.number(), 0, part).unwrap();
            producer.publish();
            let frame = consumer.peek().unwrap().unwrap();
            slot.take(Kind::Part, frame).unwrap();
        }
        slot
    }

    #[test]
    fn a_program_that_does_not_wait_until_its_parts_are_taken_is_cut_off() {
        let part = vec![7; 100_000];
        let honest = flooded(&part, ANSWER_AHEAD_BYTES_MAX);
        assert!(honest.lock().end.is_none() && honest.lock().is_ready());
        let hostile = flooded(&part, 2 * UNTAKEN_BYTES_MAX);
        assert!(hostile.lock().end == Some(End::TooLong));
        assert!(hostile.lock().bytes.len() <= UNTAKEN_BYTES_MAX);
    }
}
