//! Calls to a program through two rings in shared memory.
//!
//! ```text
//! call (any thread) ─ request ─▶ ring ─▶ program
//!   ▲ woken                                 │
//!   └── one thread reads ◀─ ring ─ answer, in parts ─┘
//! ```
//!
//! Always true: an answer reaches the call it belongs to or nobody; every call ends by its deadline; when the program is
//! gone, or breaks the rules of the ring, all calls end at once as lost. What a program sends beyond
//! [`ANSWER_BYTES_MAX`] is not kept. At most [`CALLS_IN_FLIGHT_MAX`] calls are on their way; more wait for a place.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::visit::CALLS_IN_FLIGHT_MAX;
use bield_ring::{
    Consumer, Frame, Kind, PARK_MAX, Poisoned, Producer, SendError, Sender, Shared, Spin,
};

use crate::VisitError;
use crate::address::DoorAddress;
use crate::enclave::ANSWER_BYTES_MAX;
use crate::process::Process;
use crate::record::Pipe;

/// The host's end of both rings.
pub(crate) struct Calls {
    requests: Sender<Shared>,
    open: Mutex<Open>,
    /// A place was freed.
    freed: Condvar,
}

/// Calls on their way.
struct Open {
    next: u64,
    slots: HashMap<u64, Arc<Slot>>,
    /// No answer comes any more.
    lost: bool,
}

/// Where one answer is put together.
#[derive(Default)]
struct Slot {
    answer: Mutex<Answer>,
    ended: Condvar,
}

#[derive(Default)]
struct Answer {
    bytes: Vec<u8>,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Complete,
    /// The program says that there is no answer, or is gone.
    Lost,
    TooLong,
}

impl Calls {
    /// Makes the rings, passes them through the door and starts to read answers.
    pub(crate) fn open(
        door: &DoorAddress,
        process: &Arc<Process>,
        wait: Duration,
    ) -> io::Result<Arc<Calls>> {
        let (file, [to_program, from_program]) = bield_ring::create()?;
        let visit = door.calls(&file, wait)?;
        let calls = Arc::new(Calls {
            requests: Sender::new(Producer::new(to_program, Spin::measured())),
            open: Mutex::new(Open {
                next: 0,
                slots: HashMap::new(),
                lost: false,
            }),
            freed: Condvar::new(),
        });
        let answers = Consumer::new(from_program, Spin::measured());
        let waker = answers.waker();
        let (reader, program) = (Arc::clone(&calls), Arc::clone(process));
        std::thread::Builder::new()
            .name(format!("answers {}", process.pid()))
            .spawn(move || reader.read(answers, &visit, &program))?;
        process.at_end(move || waker.hang_up());
        Ok(calls)
    }

    /// Whether no answer will come any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lock().lost
    }

    /// Sends a request and waits for its answer, at most `wait`.
    pub(crate) fn call(&self, request: &[u8], wait: Duration) -> Result<Vec<u8>, VisitError> {
        let deadline = Instant::now() + wait;
        let place = self.place(deadline, wait)?;
        let (id, slot) = (place.id, &place.slot);
        let sent = self
            .requests
            .send(id, request, deadline, || slot.lock().end.is_some());
        match sent {
            Ok(()) => {}
            // Answered already, without the rest: the program must not wait for that.
            Err(SendError::GivenUp) => self.requests.cancel(id),
            Err(SendError::TimedOut) => {
                self.requests.cancel(id);
                return Err(VisitError::TimedOut { wait });
            }
            Err(_) => return Err(lost()),
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let (mut answer, _) = slot
            .ended
            .wait_timeout_while(slot.lock(), left, |answer| answer.end.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match answer.end {
            Some(End::Complete) => Ok(std::mem::take(&mut answer.bytes)),
            Some(End::Lost) => Err(lost()),
            Some(End::TooLong) => {
                self.requests.cancel(id);
                Err(VisitError::TooLong {
                    max: ANSWER_BYTES_MAX,
                })
            }
            None => {
                self.requests.cancel(id);
                Err(VisitError::TimedOut { wait })
            }
        }
    }

    /// Waits for one of the places for calls.
    fn place(&self, deadline: Instant, wait: Duration) -> Result<Place<'_>, VisitError> {
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
            calls: self,
            id,
            slot,
        })
    }

    /// Reads answers until the program is gone or lies. The visit stays open as long.
    fn read(&self, mut answers: Consumer<Shared>, visit: &Pipe, process: &Process) {
        let ended = self.read_all(&mut answers, visit);
        self.lose_all();
        if let Err(error) = ended {
            tracing::error!(pid = process.pid(), "killed: {error}");
            process.kill();
        }
    }

    fn read_all(&self, answers: &mut Consumer<Shared>, visit: &Pipe) -> Result<(), Poisoned> {
        let mut is_idle = false;
        loop {
            // Asked before the last look: what a program sent before it ended is taken.
            let is_over = answers.is_hung_up() || (is_idle && visit.is_closed());
            self.take_all(answers)?;
            if is_over {
                return Ok(());
            }
            self.requests.flush();
            is_idle = !answers.wait(PARK_MAX)?;
        }
    }

    fn take_all(&self, answers: &mut Consumer<Shared>) -> Result<(), Poisoned> {
        while let Some(frame) = answers.peek()? {
            let kind = Kind::from_number(frame.head().kind).ok_or(Poisoned)?;
            let slot = self.lock().slots.get(&frame.head().id).map(Arc::clone);
            match slot {
                Some(slot) => slot.take(kind, frame)?,
                // Nobody waits for it any more.
                None => frame.skip(),
            }
        }
        Ok(())
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
                Ok(length) if length <= ANSWER_BYTES_MAX => answer.bytes.reserve_exact(length),
                _ => self.end(&mut answer, End::TooLong),
            }
        } else if all > ANSWER_BYTES_MAX {
            frame.skip();
            self.end(&mut answer, End::TooLong);
        } else {
            frame.take(&mut answer.bytes);
            if matches!(kind, Kind::Whole | Kind::Last) {
                self.end(&mut answer, End::Complete);
            }
        }
        Ok(())
    }

    /// Ends an answer that has not ended, and wakes who waits.
    fn end(&self, answer: &mut Answer, end: End) {
        answer.end.get_or_insert(end);
        self.ended.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the calls on their way, given back on drop.
struct Place<'a> {
    calls: &'a Calls,
    id: u64,
    slot: Arc<Slot>,
}

impl Drop for Place<'_> {
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
