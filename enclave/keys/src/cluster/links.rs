//! Sessions with the other members: one this member dials to each, and those that they dial.
//!
//! Always true: the peer's fresh evidence was appraised by the session, its measurement is admitted,
//! and its machine is that of its slot (when the configuration names machines), before a byte about
//! the service or the group is written or read; a peer that names another slot than the one dialled,
//! or this member's own, is left; so is one whose code was withdrawn meanwhile.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bield_group::MemberId;
use bield_platform::Randomness;
use bield_session::{Local, Session, SessionError, connect};
use zeroize::Zeroizing;

use super::member::{Event, Reply, Told};
use super::message::{Answer, Hello, Message, Piece, VERSION};
use super::queues::Taken;
use super::{ApplyError, PEER_WAIT, Pipe, Shared, Slot, Transfer};

/// What a dialled session has to do.
pub(super) enum Order {
    /// Carry a letter to this process; to another one in its slot, never.
    Letter { to: MemberId, bytes: Vec<u8> },
    /// Ask; exactly one [`Event::Told`] comes of it.
    Ask(Message),
}

/// Why a session with a member ends; nobody is told but this program.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error(transparent)]
    Dial(#[from] std::io::Error),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("code {0} is neither this member's own, nor named by its configuration, nor admitted")]
    NotAdmitted(String),
    #[error("code {0} was withdrawn by an administrator")]
    Withdrawn(String),
    #[error("the other end is not the member it should be")]
    OtherMember,
    #[error("the evidence of the member in slot {0} is of another machine than that slot's")]
    OtherMachine(Slot),
    #[error(
        "it left when it had seen which code this is, on which machine and in a group of how many; new code is let \
         in when an administrator has admitted it"
    )]
    Left,
    #[error("the other end does not keep to the messages of members")]
    OutOfTurn,
}

impl LinkError {
    /// Whether a person must change something: trying again does not help.
    const fn lasts(&self) -> bool {
        matches!(
            self,
            Self::NotAdmitted(_) | Self::Withdrawn(_) | Self::OtherMachine(_) | Self::Left
        )
    }
}

/// Keeps a session to the member in `slot` for as long as this instance takes part.
pub(super) fn dial(shared: &Shared, slot: Slot) {
    let mut told = None;
    loop {
        match open(shared, slot) {
            Ok((session, member)) => {
                told = None;
                drop(converse(shared, slot, session, member));
            }
            Err(error) if error.lasts() => {
                let why = Some(error.to_string());
                if let Some(why) = why.as_ref().filter(|_| told != why) {
                    shared.surroundings.apart(slot, why);
                }
                told = why;
            }
            Err(_) => {}
        }
        // Until the next attempt nothing is carried and every question fails.
        let until = Instant::now() + shared.settings.tick * RETRY_TICKS;
        loop {
            match shared.outbox(slot).take(until) {
                Taken::Item(Order::Ask(_)) => shared.inbox.push(Event::told(slot, None)),
                Taken::Item(Order::Letter { .. }) => {}
                Taken::Nothing => break,
                Taken::Closed => return,
            }
        }
    }
}

fn open(shared: &Shared, slot: Slot) -> Result<(Session<Box<dyn Pipe>>, MemberId), LinkError> {
    let around = &shared.surroundings;
    let (identity, expect) = (around.identity()?, around.expect()?);
    let pipe = around.dial(slot)?;
    let local = Local::Attested(&identity);
    let mut session = connect(pipe, local, &expect, around.now(), &mut Randomness)?;
    check(shared, &session)?;
    check_machine(shared, &session, slot)?;
    let hello = Message::Hello(shared.hello()).encode();
    let answer = session.send(&hello).and_then(|()| session.receive());
    let answer = Answer::decode(&answer.map_err(|_| LinkError::Left)?);
    let Ok(Answer::Hello(hello)) = answer else {
        return Err(LinkError::OutOfTurn);
    };
    let member = peer(shared, hello)?;
    if member.slot() != slot {
        return Err(LinkError::OtherMember);
    }
    Ok((session, member))
}

fn converse(
    shared: &Shared,
    slot: Slot,
    mut session: Session<Box<dyn Pipe>>,
    member: MemberId,
) -> Result<(), LinkError> {
    loop {
        let order = shared.outbox(slot).take(Instant::now() + PEER_WAIT);
        let order = match (order, check_still(shared, &session)) {
            (Taken::Item(Order::Ask(_)), Err(withdrawn)) => {
                shared.inbox.push(Event::told(slot, None));
                return Err(withdrawn);
            }
            (_, Err(withdrawn)) => return Err(withdrawn),
            (order, Ok(())) => order,
        };
        match order {
            Taken::Item(Order::Letter { to, bytes }) if to == member => {
                session.send(&Message::Letter(bytes).encode())?;
            }
            Taken::Item(Order::Letter { .. }) | Taken::Nothing => {}
            Taken::Item(Order::Ask(question)) => {
                let asked = ask(&mut session, &question);
                let Ok(Answer::State(place)) = asked else {
                    let (answer, failed) = match asked {
                        Ok(answer) => (Some(Told::Answer(answer)), Ok(())),
                        Err(error) => (None, Err(error)),
                    };
                    let answer = answer.map(|answer| (member, answer));
                    shared.inbox.push(Event::told(slot, answer));
                    failed?;
                    continue;
                };
                let (pieces, incoming) = sync_channel(PIECES_AHEAD);
                let told = Told::State(place, Incoming(incoming));
                shared.inbox.push(Event::told(slot, Some((member, told))));
                carry(&mut session, &pieces)?;
            }
            Taken::Closed => {
                session.close();
                return Ok(());
            }
        }
    }
}

fn ask(session: &mut Session<Box<dyn Pipe>>, question: &Message) -> Result<Answer, LinkError> {
    session.send(&question.encode())?;
    Answer::decode(&session.receive()?).map_err(|_| LinkError::OutOfTurn)
}

/// Takes the pieces of a state off a session; whoever installs them may have given up.
fn carry(
    session: &mut Session<Box<dyn Pipe>>,
    pieces: &SyncSender<Piece>,
) -> Result<(), LinkError> {
    loop {
        let piece = session.receive().map(Piece::decode);
        let last = !matches!(piece, Ok(Piece::More(_)));
        let failed = piece.as_ref().is_err();
        let sent = pieces.send(piece.unwrap_or(Piece::Broken));
        match (last, failed || sent.is_err()) {
            (_, true) => return Err(LinkError::OutOfTurn),
            (true, false) => return Ok(()),
            (false, false) => {}
        }
    }
}

/// Serves a session that another member opened, until it ends.
pub(super) fn serve<S: Read + Write>(
    shared: &Shared,
    mut session: Session<S>,
) -> Result<(), LinkError> {
    check(shared, &session)?;
    let Ok(Message::Hello(hello)) = Message::decode(&session.receive()?) else {
        return Err(LinkError::OutOfTurn);
    };
    let from = peer(shared, hello)?;
    check_machine(shared, &session, from.slot())?;
    session.send(&Answer::Hello(shared.hello()).encode())?;
    while !shared.is_over() {
        let message = session.receive()?;
        check_still(shared, &session)?;
        match Message::decode(&message).map_err(|_| LinkError::OutOfTurn)? {
            Message::Hello(_) => return Err(LinkError::OutOfTurn),
            Message::Letter(bytes) => {
                let size = bytes.len();
                shared.inbox.offer(Event::Letter { from, bytes }, size);
            }
            question => answer(shared, &mut session, from, question)?,
        }
    }
    session.close();
    Ok(())
}

fn answer<S: Read + Write>(
    shared: &Shared,
    session: &mut Session<S>,
    from: MemberId,
    question: Message,
) -> Result<(), LinkError> {
    let (reply, replied) = sync_channel(1);
    shared.inbox.push(Event::Asked {
        from,
        question,
        reply,
    });
    // The one thread that answers may be waiting for its disk.
    match replied.recv_timeout(ANSWER_WAIT) {
        Ok(Reply::Answer(answer)) => session.send(&answer.encode())?,
        Ok(Reply::State(place, mut transfer)) => {
            session.send(&Answer::State(place).encode())?;
            loop {
                let piece = Piece::of(&mut *transfer);
                session.send(&piece.encode())?;
                if !matches!(piece, Piece::More(_)) {
                    break;
                }
            }
        }
        Err(_) => session.send(&Answer::No.encode())?,
    }
    Ok(())
}

/// Refuses every peer of code that this member does not accept beside its own.
fn check<S: Read + Write>(shared: &Shared, session: &Session<S>) -> Result<(), LinkError> {
    let peer = session.peer();
    let code = peer
        .appraised
        .as_ref()
        .map(|appraised| appraised.measurement());
    match code {
        Some(code)
            if peer.role == bield_session::Role::KeyService
                && shared.surroundings.admitted(code) =>
        {
            Ok(())
        }
        Some(code) => Err(LinkError::NotAdmitted(code.short())),
        None => Err(LinkError::OtherMember),
    }
}

/// Refuses a peer whose evidence is of another machine than the one that the configuration has for its slot.
fn check_machine<S: Read + Write>(
    shared: &Shared,
    session: &Session<S>,
    slot: Slot,
) -> Result<(), LinkError> {
    let appraised = session.peer().appraised.as_ref();
    let machine = appraised.map_or(&[][..], |appraised| &appraised.claims().platform_id);
    let fits = shared.surroundings.fits(slot, machine);
    fits.then_some(()).ok_or(LinkError::OtherMachine(slot))
}

/// Refuses a peer that was admitted when its session began, and is not any more.
fn check_still<S: Read + Write>(shared: &Shared, session: &Session<S>) -> Result<(), LinkError> {
    let code = session.peer().appraised.as_ref();
    let code = code.map(|appraised| appraised.measurement());
    match code.filter(|code| shared.surroundings.withdrawn(code)) {
        Some(code) => Err(LinkError::Withdrawn(code.short())),
        None => Ok(()),
    }
}

fn peer(shared: &Shared, hello: Hello) -> Result<MemberId, LinkError> {
    let member = MemberId::from_u64(hello.member).map_err(|_| LinkError::OtherMember)?;
    let settings = &shared.settings;
    let fits = hello.version == VERSION
        && hello.members == settings.members
        && member.slot() < settings.members
        && member.slot() != settings.slot;
    fits.then_some(member).ok_or(LinkError::OtherMember)
}

/// The pieces of a state on their way from a session's thread to the one that installs them.
pub(super) struct Incoming(Receiver<Piece>);

impl Transfer for Incoming {
    fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, ApplyError> {
        match self.0.recv_timeout(PIECE_WAIT) {
            Ok(Piece::More(piece)) => Ok(Some(piece)),
            Ok(Piece::End) => Ok(None),
            Ok(Piece::Broken) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let sentence = "the connection to the member that gives the state broke off";
                Err(ApplyError::Storage(sentence.into()))
            }
        }
    }
}

/// Ticks between two attempts to reach a member.
const RETRY_TICKS: u32 = 5;
/// Pieces read ahead of the disk.
const PIECES_AHEAD: usize = 2;
/// How long a question waits for the thread that answers; below [`PEER_WAIT`], which the asker waits.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
const _: () = assert!(ANSWER_WAIT.as_secs() < PEER_WAIT.as_secs());
/// How long the next piece may take.
const PIECE_WAIT: Duration = Duration::from_secs(30);
