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
//! program sends beyond [`ANSWER_BYTES_MAX`](crate::enclave::ANSWER_BYTES_MAX) is not kept; of an answer in parts, which is
//! handed out as it comes, what nobody has taken stays below [`UNTAKEN_BYTES_MAX`](slot::UNTAKEN_BYTES_MAX), because the
//! program waits, or is cut off. At most [`CALLS_IN_FLIGHT_MAX`] calls are on their way;
//! more wait for a place. While nobody waits, nobody reads, but who is handed out some of an answer looks each
//! time: what comes late then fills the ring and no more.
//!
//! On paper: a call alone is woken once, by the program, or not at all when it finds the answer while it spins. A call
//! beside others is woken to take its answer or to read, and wakes one other when it leaves.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::visit::CALLS_IN_FLIGHT_MAX;
use bield_ring::{
    Consumer, Kind, PARK_MAX, Poisoned, Producer, SendError, Sender, Shared, Spin, Waker,
};

use crate::VisitError;
use crate::address::DoorAddress;
use crate::process::Process;
use crate::record::{Pipe, Tape};

mod answering;
mod slot;

pub use answering::{Answering, PIECE_BYTES_MAX, Stop};
use slot::{Answer, Slot};

/// Frames that a reader takes before it looks at its own answer and deadline.
const FRAMES_AT_ONCE: usize = 64;

/// The host's end of both rings.
pub(crate) struct Calls {
    requests: Sender<Shared>,
    open: Mutex<Open>,
    /// A place was freed.
    freed: Condvar,
    /// Has whoever reads look around.
    waker: Waker<Shared>,
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
        let hangs_up = waker.clone();
        process.at_end(move || hangs_up.hang_up());
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
            waker,
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
        let mut answering = Answering::new(place, tape, deadline, wait);
        let (id, slot) = (answering.place().id, &answering.place().slot);
        let sent = self.requests.send(id, request, deadline, || {
            // The program may be waiting for room in the other ring.
            self.look();
            slot.has_ended()
        });
        match sent {
            Ok(()) => {}
            // Answered already, without the rest: the program must not wait for that.
            Err(SendError::GivenUp) => self.requests.cancel(id),
            Err(SendError::TimedOut) => return Err(VisitError::TimedOut { wait }),
            Err(_) => {
                answering.give_up();
                return Err(answering::lost());
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
            return Err(answering::lost());
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

    /// Takes what is there already, if nobody reads. When the program is gone, all are lost: who waits for room in the
    /// other ring would wait for nobody.
    fn look(&self) {
        if let Some(mut reading) = self.reading() {
            reading.act(|calls, answers| {
                let is_over = answers.is_hung_up();
                if calls.take_some(answers)? && is_over {
                    calls.lose_all();
                }
                Ok(())
            });
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
                self.requests.flush()?;
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
                Some(slot) => {
                    if matches!(kind, Kind::Whole | Kind::Last) {
                        self.process.answers();
                    }
                    slot.take(kind, frame)?;
                }
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
            slot.lose();
        }
        self.freed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;
    use crate::{Enclave, Launch};

    pub(super) const LONG: Duration = Duration::from_secs(60);

    fn program() -> std::path::PathBuf {
        let test = std::env::current_exe().unwrap();
        let built = test.parent().and_then(|deps| deps.parent()).unwrap();
        built.join("examples/echo-enclave")
    }

    pub(super) fn enclave() -> Enclave {
        Enclave::start(&Launch {
            program: program(),
            ..Launch::default()
        })
        .unwrap()
    }

    #[test]
    fn whoever_reads_for_others_passes_it_on_when_it_leaves() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let enclave = Enclave::start(&Launch {
            program: program(),
            key_services: vec![listener.local_addr().unwrap().to_string()],
            ..Launch::default()
        })
        .unwrap();
        let mut leaves = enclave.begin_call(b"hang:", LONG).unwrap();
        let (calls, stop) = (Arc::clone(&leaves.place().calls), leaves.stop());
        std::thread::scope(|scope| {
            let leaves = scope.spawn(move || leaves.next_part());
            // It reads before anybody else comes, and leaves while they wait.
            while calls.lock().answers.is_some() {
                std::thread::yield_now();
            }
            let stay: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| enclave.call(b"key:0lease", LONG)))
                .collect();
            while calls.lock().followers.len() < 3 {
                std::thread::yield_now();
            }
            stop.stop();
            assert!(matches!(leaves.join().unwrap(), Err(VisitError::Lost(_))));
            for _ in 0..3 {
                let (mut session, _) = listener.accept().unwrap();
                // Closed with bytes that nobody read, it would be broken off.
                session.read_to_end(&mut Vec::new()).unwrap();
                session.write_all(b"here").unwrap();
            }
            for call in stay {
                assert!(call.join().unwrap().unwrap().ends_with(b"here"));
            }
        });
    }

    #[test]
    fn a_request_that_waits_for_room_is_lost_when_the_program_is_killed() {
        let enclave = enclave();
        assert!(!enclave.has_answered());
        enclave.call(b"hello", LONG).unwrap();
        assert!(enclave.has_answered());

        let calls = enclave.calls(LONG).unwrap();
        let signal = Command::new("kill")
            .args(["-STOP", &enclave.pid().to_string()])
            .status();
        assert!(signal.unwrap().success());
        std::thread::scope(|scope| {
            let call = scope.spawn(|| enclave.call(&[0; 8 << 20], LONG));
            while calls.requests.counts().0 == 0 {
                std::thread::yield_now();
            }
            enclave.kill();
            let answer = call.join().unwrap();
            assert!(matches!(answer, Err(VisitError::Lost(_))), "{answer:?}");
        });
    }
}
