//! Calls: requests out of one ring, answers into the other, many at once by number.
//!
//! ```text
//!  ring ─ Whole, or Length Part… Last ─▶ Calls::next ─▶ Call { bytes, caller } ─▶ whoever answers
//!       ─ Cancel ─▶ caller.is_cancelled()               caller.part …, caller.reply ─▶ ring
//!       ─ More ─▶ caller.part waits no longer
//! ```
//!
//! Goes in: frames of a host that may lie. Comes out: whole requests in private memory, each with the right to answer it
//! once.
//!
//! Always true: one request has at most [`Limits::request_bytes_max`] bytes and all that are [`Inside`] together, whichever
//! line they came through, at most [`Limits::bytes_max`], from their first frame until their [`Caller`] is dropped; one that
//! would exceed either is handed out as [`Unread`] before its bytes are kept. At most [`CALLS_IN_FLIGHT_MAX`] calls, twice,
//! are known. A caller that is dropped says that there is no answer. Of an answer that is sent in parts at most
//! [`ANSWER_AHEAD_BYTES_MAX`](bield_protocol::call::ANSWER_AHEAD_BYTES_MAX), one part and the last are on their way that nobody took yet; more waits. A frame that an honest
//! host never sends ends this line, and nothing else; so does a host that lies about what it read, whoever finds out. Left to
//! others: what is in a request, and how many calls are let in (`enclave/runtime`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_protocol::visit::CALLS_IN_FLIGHT_MAX;
use bield_ring::{
    Consumer, Head, Kind, Memory, PARK_MAX, Poisoned, Producer, Sender, Shared, Spin,
};

use crate::{DoorError, Stream};

mod caller;

use caller::Asked;
pub use caller::Caller;

/// How long a host may pause in the middle of a request.
pub const REQUEST_PAUSE_MAX: Duration = Duration::from_secs(10);

/// What calls may take of this program's memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one request.
    pub request_bytes_max: usize,
    /// Bytes of all requests that are inside.
    pub bytes_max: usize,
}

/// Bytes of all requests that a program has; clones count together.
#[derive(Clone, Default)]
pub struct Inside(Arc<AtomicUsize>);

/// One call.
pub struct Call<M: Memory = Shared> {
    /// The request, or why it was not kept.
    pub bytes: Result<Vec<u8>, Unread>,
    /// Who waits for the answer.
    pub caller: Caller<M>,
}

/// Why a request was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unread {
    /// Too long for anybody.
    #[error("the request has more than {max} bytes; send less")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// The requests inside take all the memory there is for requests.
    #[error("the requests inside take all memory for requests; come back shortly")]
    NoRoom,
    /// The host stopped in the middle of it.
    #[error("the request broke off on its way; send it again")]
    BrokeOff,
}

/// Reads calls. There is one reader.
pub struct Calls<M: Memory = Shared> {
    requests: Consumer<M>,
    line: Arc<Line<M>>,
    limits: Limits,
    /// Requests of which parts are still to come.
    unfinished: HashMap<u64, Unfinished<M>>,
    /// The host lied: nothing it wrote after is believed.
    poisoned: bool,
    /// Closed when the host is gone.
    stream: Option<Stream>,
}

/// What answers and reader share.
struct Line<M> {
    answers: Sender<M>,
    /// Calls handed out and not answered.
    asked: Mutex<HashMap<u64, Arc<Asked>>>,
    inside: Inside,
    gone: AtomicBool,
}

/// The buffer for a request, or why there is none; and who waits.
type Admitted<M> = (Result<Vec<u8>, Unread>, Caller<M>);

struct Unfinished<M: Memory> {
    length: usize,
    /// `None` when the call was handed out unread: what still comes is skipped.
    call: Option<(Vec<u8>, Caller<M>)>,
    moved: Instant,
}

impl Calls {
    /// Takes the memory that came with a [`Calls`](crate::Visit::Calls) visit. Its requests count among those `inside`.
    ///
    /// # Errors
    /// [`DoorError::NoRings`] when there came none that is safe to use.
    pub fn open(mut stream: Stream, limits: Limits, inside: &Inside) -> Result<Calls, DoorError> {
        let Some(file) = stream.take_file() else {
            return Err(DoorError::NoRings("no file came with the visit".to_owned()));
        };
        let rings =
            bield_ring::open(file).map_err(|error| DoorError::NoRings(error.to_string()))?;
        let mut calls = Calls::over(rings, limits, inside);
        calls.stream = Some(stream);
        Ok(calls)
    }

    /// Waits for the next call.
    ///
    /// # Errors
    /// [`DoorError::HostGone`] when the visit was closed, [`DoorError::Poisoned`] when the host broke the rules: no
    /// more calls come, and nobody waits for those that are inside.
    pub fn next_call(&mut self) -> Result<Call, DoorError> {
        let next = self.wait_for_call();
        if next.is_err() {
            self.line.gone.store(true, Ordering::Relaxed);
            for asked in self.line.lock().values() {
                asked.tell(|_| {});
            }
        }
        next
    }

    fn wait_for_call(&mut self) -> Result<Call, DoorError> {
        loop {
            // Whoever answered may have found that the host lies.
            self.line.answers.flush()?;
            if let Some(call) = self.try_next()? {
                return Ok(call);
            }
            if let Some(call) = self.broken_off(Instant::now()) {
                return Ok(call);
            }
            let stream = self.stream.as_ref();
            if !self.requests.wait(PARK_MAX)? && stream.is_none_or(Stream::is_gone) {
                return Err(DoorError::HostGone);
            }
        }
    }
}

impl<M: Memory + Clone> Calls<M> {
    /// Reads calls from the first of these rings and answers into the second.
    #[must_use]
    pub fn over([to_program, from_program]: [M; 2], limits: Limits, inside: &Inside) -> Calls<M> {
        Calls {
            requests: Consumer::new(to_program, Spin::measured()),
            line: Arc::new(Line {
                answers: Sender::new(Producer::new(from_program, Spin::measured())),
                asked: Mutex::default(),
                inside: inside.clone(),
                gone: AtomicBool::new(false),
            }),
            limits,
            unfinished: HashMap::new(),
            poisoned: false,
            stream: None,
        }
    }

    /// The next call that is whole already, if there is one.
    ///
    /// # Errors
    /// [`DoorError::Poisoned`] when the host broke the rules, and from then on.
    pub fn try_next(&mut self) -> Result<Option<Call<M>>, DoorError> {
        if self.poisoned {
            return Err(Poisoned.into());
        }
        self.read_frames().inspect_err(|_| self.poisoned = true)
    }

    fn read_frames(&mut self) -> Result<Option<Call<M>>, DoorError> {
        while let Some(frame) = self.requests.peek()? {
            let head = frame.head();
            let call = match Kind::from_number(head.kind) {
                Some(Kind::Whole) => Some(self.whole(head)?),
                Some(Kind::Length) => self.begin(head)?,
                Some(Kind::Part) => self.part(head, false)?,
                Some(Kind::Last) => self.part(head, true)?,
                Some(Kind::Cancel) => {
                    frame.skip();
                    self.unfinished.remove(&head.id);
                    if let Some(asked) = self.line.lock().remove(&head.id) {
                        asked.cancel();
                    }
                    None
                }
                Some(Kind::More) => {
                    let bytes = self.number()?;
                    // Of an answer that has ended meanwhile: late, and no lie.
                    if let Some(asked) = self.line.lock().get(&head.id) {
                        asked.tell(|taken| *taken = taken.saturating_add(bytes));
                    }
                    None
                }
                _ => return Err(Poisoned.into()),
            };
            if call.is_some() {
                return Ok(call);
            }
        }
        Ok(None)
    }

    /// A request in one frame.
    fn whole(&mut self, head: Head) -> Result<Call<M>, DoorError> {
        let length = head.length as usize;
        match self.admit(head.id, length)? {
            (Ok(mut bytes), caller) => {
                self.take(&mut bytes)?;
                let bytes = Ok(bytes);
                Ok(Call { bytes, caller })
            }
            (Err(unread), caller) => {
                self.skip()?;
                let bytes = Err(unread);
                Ok(Call { bytes, caller })
            }
        }
    }

    /// The length of a request in parts. One that will not be kept is handed out now.
    fn begin(&mut self, head: Head) -> Result<Option<Call<M>>, DoorError> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let (call, unread) = match self.admit(head.id, length)? {
            (Ok(bytes), caller) => (Some((bytes, caller)), None),
            (Err(unread), caller) => {
                let bytes = Err(unread);
                (None, Some(Call { bytes, caller }))
            }
        };
        let moved = Instant::now();
        let unfinished = Unfinished {
            length,
            call,
            moved,
        };
        self.unfinished.insert(head.id, unfinished);
        Ok(unread)
    }

    fn part(&mut self, head: Head, last: bool) -> Result<Option<Call<M>>, DoorError> {
        let Entry::Occupied(mut entry) = self.unfinished.entry(head.id) else {
            // Of a request that was cancelled or took too long: late, and no lie.
            self.skip()?;
            return Ok(None);
        };
        let unfinished = entry.get_mut();
        unfinished.moved = Instant::now();
        let Some((bytes, _)) = &mut unfinished.call else {
            if last {
                entry.remove();
            }
            self.skip()?;
            return Ok(None);
        };
        let all = bytes.len() + head.length as usize;
        if all > unfinished.length || (last && all != unfinished.length) {
            return Err(Poisoned.into());
        }
        // As `take`, which cannot be called while the entry is held.
        if let Some(frame) = self.requests.peek()? {
            frame.take(bytes);
        }
        if !last {
            return Ok(None);
        }
        let call = entry.remove().call;
        Ok(call.map(|(bytes, caller)| Call {
            bytes: Ok(bytes),
            caller,
        }))
    }

    /// Reserves room for a request, and makes its caller.
    fn admit(&mut self, id: u64, length: usize) -> Result<Admitted<M>, DoorError> {
        let asked = Arc::<Asked>::default();
        let line = Arc::clone(&self.line);
        {
            let mut calls = line.lock();
            let known = calls.len() + self.unfinished.len();
            if known >= 2 * CALLS_IN_FLIGHT_MAX || self.unfinished.contains_key(&id) {
                return Err(Poisoned.into());
            }
            match calls.entry(id) {
                Entry::Vacant(place) => place.insert(Arc::clone(&asked)),
                Entry::Occupied(_) => return Err(Poisoned.into()),
            };
        }
        let max = self.limits.request_bytes_max;
        let bytes = if length > max {
            Err(Unread::TooLong { max })
        } else {
            line.inside.reserve(length, self.limits.bytes_max)
        };
        let reserved = bytes.as_ref().map_or(0, |_| length);
        Ok((bytes, Caller::new(id, line, asked, reserved)))
    }

    /// A request that stopped on its way, if there is one.
    fn broken_off(&mut self, now: Instant) -> Option<Call<M>> {
        let stale = |unfinished: &Unfinished<M>| {
            now.saturating_duration_since(unfinished.moved) > REQUEST_PAUSE_MAX
        };
        let id = *self
            .unfinished
            .iter()
            .find(|(_, unfinished)| stale(unfinished))?
            .0;
        let (_, caller) = self.unfinished.remove(&id)?.call?;
        Some(Call {
            bytes: Err(Unread::BrokeOff),
            caller,
        })
    }

    /// The number in the frame at hand.
    fn number(&mut self) -> Result<u64, DoorError> {
        let mut bytes = Vec::new();
        self.take(&mut bytes)?;
        let bytes = bytes.try_into().map_err(|_| Poisoned)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn take(&mut self, into: &mut Vec<u8>) -> Result<(), DoorError> {
        if let Some(frame) = self.requests.peek()? {
            frame.take(into);
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<(), DoorError> {
        if let Some(frame) = self.requests.peek()? {
            frame.skip();
        }
        Ok(())
    }
}

impl<M> Line<M> {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Asked>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    /// An empty buffer with room for `length` bytes that count among those of all requests.
    fn reserve(&self, length: usize, max: usize) -> Result<Vec<u8>, Unread> {
        let fits = |bytes: usize| bytes.checked_add(length).filter(|all| *all <= max);
        let order = Ordering::Relaxed;
        self.0
            .fetch_update(order, order, fits)
            .map_err(|_| Unread::NoRoom)?;
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(length).is_err() {
            self.0.fetch_sub(length, order);
            return Err(Unread::NoRoom);
        }
        Ok(bytes)
    }
}
