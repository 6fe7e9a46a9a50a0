//! Sessions: a thread each, with limits on time, bytes, computing and number.
//!
//! ```text
//! accept loop ──▶ a place? ──▶ thread ──handshake (10 s in all, a turn to compute)──▶ messages (30 s each) ──▶ end
//! ```
//!
//! Goes in: streams that somebody opened. Comes out: requests for the [`KeyService`], replies for the peer.
//! Always true: a session that panics, stalls, drips, floods or lies ends alone; a handshake takes at most
//! [`HANDSHAKE_MAX`], however its bytes come; at most as many sessions are open as the configuration says, and
//! a newcomer takes the place of the longest silent one of whoever has most (`table`); requests and replies on
//! their way hold at most [`MEMORY_MAX`] bytes in all sessions together (`pace`).
//!
//! On paper: a silent session costs a stack's touched pages and its TLS state, about 100 KB, and two file
//! descriptors.

mod pace;
mod table;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bield_door::Stream;
use bield_envelope::Principal;
use bield_evidence::Appraised;
use bield_platform::{Randomness, now};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{Reply, Request};
use bield_session::{Expect, Identity, Role, Session, SessionError};

use crate::limits::Turns;
use crate::metrics::Metrics;
use crate::program::KeyService;
use crate::service::Conversation;
use pace::{Memory, Pace, Paced};
use table::{Class, Cut, Place, Seat, Table};

/// What a session needs to know of its program.
pub(crate) trait House: Send + Sync {
    /// How this instance shows itself now.
    ///
    /// # Errors
    /// The TEE does not answer.
    fn identity(&self) -> Result<Arc<Identity>, SessionError>;

    /// Who may open a session.
    ///
    /// # Errors
    /// The policy does not hold.
    fn expect(&self) -> Result<Vec<Expect>, SessionError>;

    /// Serves a session with another member, until it ends.
    fn serve_member(&self, session: Session<MemberStream<'_>>);

    /// Who answers.
    fn service(&self) -> &Arc<KeyService>;
}

/// What a session with another member runs over.
pub(crate) type MemberStream<'a> = Paced<'a, Stream>;

/// All sessions of a program.
pub(crate) struct Sessions {
    house: Arc<dyn House>,
    table: Arc<Table<Wire>>,
    turns: Turns,
    memory: Memory,
    metrics: Arc<Metrics>,
}

/// A second handle of a session's stream.
struct Wire(Stream);

impl Cut for Wire {
    fn cut(&self) {
        // It may be closed already.
        drop(self.0.cut());
    }
}

impl Sessions {
    pub(crate) fn new(
        house: Arc<dyn House>,
        sessions_max: usize,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Arc::new(Self {
            house,
            table: Table::new(sessions_max),
            turns: Turns::new(processors * TURNS_PER_PROCESSOR),
            memory: Memory::new(MEMORY_MAX),
            metrics,
        })
    }

    /// Serves a session on a thread of its own, if there is room.
    pub(crate) fn serve(self: &Arc<Self>, stream: Stream) {
        let Ok(second) = stream.second() else {
            self.metrics.sessions_refused.add(1);
            return;
        };
        let place = match self.table.seat(Wire(second), Instant::now()) {
            Seat::Free(place) => place,
            Seat::Instead(place) => {
                self.metrics.sessions_evicted.add(1);
                place
            }
            Seat::Refused => {
                self.metrics.sessions_refused.add(1);
                return;
            }
        };
        let sessions = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("session".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // What goes wrong is told to the peer as far as it may know, and to nobody else.
                drop(sessions.converse(stream, &place));
            });
        if started.is_err() {
            self.metrics.sessions_refused.add(1);
        }
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Ends all sessions; those that are being answered get their answer first, if they take it.
    pub(crate) fn end(&self) {
        let deadline = Instant::now() + END_WAIT;
        while self.table.len() > 0 && Instant::now() < deadline {
            self.table.cut_idle();
            std::thread::sleep(END_PAUSE);
        }
    }

    fn converse(&self, stream: Stream, place: &Place<Wire>) -> Result<(), SessionError> {
        let cut = Box::new(place.cutter());
        let pace = Pace::handshake(&self.turns, &self.memory, HANDSHAKE_MAX, cut);
        let expect = self.house.expect()?;
        let identity = self.house.identity()?;
        let stream = Paced::new(stream, &pace);
        let session = bield_session::accept(stream, &identity, &expect, now(), &mut Randomness)?;
        self.answer_all(session, &pace, place)
    }

    fn answer_all(
        &self,
        mut session: Session<Paced<'_, Stream>>,
        pace: &Rc<Pace<'_>>,
        place: &Place<Wire>,
    ) -> Result<(), SessionError> {
        let peer = session.peer();
        if peer.role == Role::KeyService {
            pace.member(SILENCE_MAX);
            pace.attested();
            place.is(Class::Member);
            self.house.serve_member(session);
            return Ok(());
        }
        let runtime = peer
            .appraised
            .clone()
            .filter(|_| peer.role == Role::Runtime);
        if let Some(runtime) = &runtime {
            pace.attested();
            place.is(Class::Code(runtime.measurement().clone()));
        }
        let attested = runtime.is_some();
        let mut with = Conversation {
            runtime: runtime.map(Arc::<Appraised>::new),
            binding: session.binding(),
            sequence: 0,
        };
        for _ in 0..MESSAGES_MAX {
            pace.message(SILENCE_MAX, REQUEST_BYTES_MAX);
            let message = match session.receive() {
                Ok(message) => message,
                Err(SessionError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            };
            place.heard(Instant::now());
            let service = self.house.service();
            let (reply, by) = match Request::decode(&message) {
                Ok(request) => {
                    let by = signer(&request);
                    (service.answer(&mut with, request), by)
                }
                Err(error) => {
                    let refusal = Refusal::new("malformed", error, Retry::Never);
                    (Reply::Refused(refusal), None)
                }
            };
            drop(message);
            let done = !matches!(reply, Reply::Refused(_));
            // What was done had its signature checked.
            let by = by.filter(|by| done && !attested && service.is_registered(*by));
            if let Some(by) = by {
                place.is(Class::Principal(by));
                pace.known();
            }
            let ordered = done && (attested || by.is_some());
            let reply = reply.encode();
            let room = pace.reply(SILENCE_MAX, reply.len());
            room.map_err(SessionError::Stream)?;
            session.send(&reply)?;
            place.answered(Instant::now(), ordered);
        }
        session.close();
        Ok(())
    }
}

/// Who says to have signed a request.
fn signer(request: &Request) -> Option<Principal> {
    match request {
        Request::Command(command)
        | Request::PutPackage(command, _)
        | Request::GiveShare(command, _) => Some(command.claimed_signer()),
        _ => None,
    }
}

/// How long a handshake may take, from the first byte to the open gate.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a session may be silent, or take for one message. Runtimes open a new one for each lease.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The most messages of one session: an owner's script with thousands of grants fits.
const MESSAGES_MAX: usize = 100_000;
/// The most bytes of one request on the wire: the longest command has 1 MiB; TLS and frames add a little.
const REQUEST_BYTES_MAX: usize = 2 << 20;
/// The most bytes of requests and replies on their way, in all sessions together.
const MEMORY_MAX: usize = 256 << 20;
/// Handshakes that compute at once, for each processor: one that waits for the TEE leaves the other room.
const TURNS_PER_PROCESSOR: usize = 4;
/// How long the last answers may take to leave.
const END_WAIT: Duration = Duration::from_secs(2);
const END_PAUSE: Duration = Duration::from_millis(10);
/// A session's stack: pages are used as they are touched, about 100 KB of it in a release build.
const STACK_BYTES: usize = 2 << 20;

#[cfg(test)]
mod tests;
