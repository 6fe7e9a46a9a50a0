//! What members say to each other inside a session: strict CBOR, private to this program.
//!
//! ```text
//! dialler: Hello ─▶            acceptor: ◀─ Hello
//! dialler: Look, Promise, Start, Join, Knock ─▶      ◀─ one Answer each; State is followed by pieces
//! dialler: Letter ─▶           no answer: letters of a group are lost or not
//! ```
//!
//! Always true: nothing here is written before the peer's code, and its machine when machines are named, was
//! admitted, but for the hello itself; every message is bounded
//! before it is read; of two members each dials the other, so that letters go both ways.

use bield_envelope::{Principal, Time, wire};
use bield_group::{Configuration, Founding, LETTER_BYTES_MAX, MemberId, Position};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::{ApplyError, Head, PIECE_BYTES_MAX, Slot, Transfer};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Hello {
    /// [`VERSION`].
    #[n(0)]
    pub(super) version: u16,
    /// The [`MemberId`] of this process.
    #[n(1)]
    pub(super) member: u64,
    /// Members of a whole group.
    #[n(2)]
    pub(super) members: u8,
}

/// From the dialler.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Message {
    /// First.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// "This is how I stand, and what my host's clock says; and you?"
    #[n(1)]
    Look(#[n(0)] Status, #[n(1)] Time),
    /// "Promise to be in this group and no other, if all others do."
    #[n(2)]
    Promise(#[n(0)] Plan),
    /// "All have promised."
    #[n(3)]
    Start(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]),
    /// "Give me the state of a place in the log; this is what I have."
    #[n(4)]
    Join(#[n(0)] Option<Head>),
    /// "I follow; let me vote."
    #[n(5)]
    Knock(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]),
    /// A letter of a group.
    #[n(6)]
    Letter(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// From the acceptor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) enum Answer {
    /// To a hello.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// To a look: how it stands, and what its host's clock says.
    #[n(1)]
    Status(#[n(0)] Status, #[n(1)] Time),
    /// Promised, started, or let in.
    #[n(2)]
    Done,
    /// Not now.
    #[n(3)]
    No,
    /// To a join: the state of this place follows in pieces.
    #[n(4)]
    State(#[n(0)] Place),
}

/// How a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) enum Status {
    /// In no group; its disk shows this.
    #[n(0)]
    Forming(#[n(0)] Option<Head>),
    /// It has promised, or is being given the state of a group.
    #[n(1)]
    Entering,
    /// In a group of this service, whose leader has this slot.
    #[n(2)]
    Live(#[n(0)] Principal, #[n(1)] Option<Slot>),
}

/// A group that one member proposes to all.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Plan {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(super) group: [u8; 16],
    #[n(1)]
    pub(super) term: u64,
    /// In the order of the slots.
    #[n(2)]
    pub(super) members: Vec<u64>,
    /// The slot whose disk they go on from.
    #[n(3)]
    pub(super) from: Slot,
    /// What that disk shows; `None`: nobody has anything, and `from` begins a new service.
    #[n(4)]
    pub(super) head: Option<Head>,
}

impl Plan {
    /// As the group reads it; `None` when a name names no member.
    pub(super) fn founding(&self) -> Option<Founding> {
        Some(Founding {
            group: self.group,
            term: self.term,
            members: ids(&self.members)?,
        })
    }
}

/// A place in a group's log, and the service whose log it is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct Place {
    #[n(0)]
    service: Principal,
    #[cbor(n(1), with = "minicbor::bytes")]
    group: [u8; 16],
    #[n(2)]
    index: u64,
    #[n(3)]
    term: u64,
    #[n(4)]
    voters: Vec<u64>,
    #[n(5)]
    outgoing: Vec<u64>,
    #[n(6)]
    learners: Vec<u64>,
}

impl Place {
    pub(super) fn new(service: Principal, position: &Position) -> Self {
        let numbers = |ids: &[MemberId]| ids.iter().map(|id| id.as_u64()).collect();
        let configuration = &position.configuration;
        Self {
            service,
            group: position.group,
            index: position.index,
            term: position.term,
            voters: numbers(&configuration.voters),
            outgoing: numbers(&configuration.outgoing),
            learners: numbers(&configuration.learners),
        }
    }

    pub(super) const fn service(&self) -> Principal {
        self.service
    }

    /// As the group reads it; `None` when a name names no member.
    pub(super) fn position(&self) -> Option<Position> {
        Some(Position {
            group: self.group,
            index: self.index,
            term: self.term,
            configuration: Configuration {
                voters: ids(&self.voters)?,
                outgoing: ids(&self.outgoing)?,
                learners: ids(&self.learners)?,
            },
        })
    }
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, LETTER_BYTES_MAX + FRAME_BYTES)
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, ANSWER_BYTES_MAX)
    }
}

/// A piece of a state as it travels, or the end, or that there will be no end.
pub(super) enum Piece {
    More(Zeroizing<Vec<u8>>),
    End,
    Broken,
}

impl Piece {
    /// Takes the next one of a transfer.
    pub(super) fn of(transfer: &mut dyn Transfer) -> Self {
        match transfer.next() {
            Ok(Some(piece)) if piece.len() <= PIECE_BYTES_MAX => Self::More(piece),
            Ok(None) => Self::End,
            Ok(Some(_)) | Err(ApplyError::Storage(_) | ApplyError::Refused(_)) => Self::Broken,
        }
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (tag, piece): (u8, &[u8]) = match self {
            Self::More(piece) => (0, piece),
            Self::End => (1, &[]),
            Self::Broken => (2, &[]),
        };
        // Sized before it is filled: pieces hold secrets, and growing would leave copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + piece.len()));
        bytes.push(tag);
        bytes.extend_from_slice(piece);
        bytes
    }

    pub(super) fn decode(mut bytes: Zeroizing<Vec<u8>>) -> Self {
        match bytes.first() {
            Some(0) if bytes.len() <= PIECE_BYTES_MAX + 1 => {
                bytes.remove(0);
                Self::More(bytes)
            }
            Some(1) if bytes.len() == 1 => Self::End,
            _ => Self::Broken,
        }
    }
}

fn ids(numbers: &[u64]) -> Option<Vec<MemberId>> {
    let few = numbers.len() <= 2 * bield_group::MEMBERS_MAX;
    let ids = numbers.iter().map(|n| MemberId::from_u64(*n).ok());
    few.then(|| ids.collect()).flatten()
}

/// The version of these messages; members of another version are of another code.
pub(super) const VERSION: u16 = 2;
/// Bytes around a letter.
const FRAME_BYTES: usize = 64;
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head {
            service: Principal::from_bytes([1; 32]),
            epoch: 2,
            term: 3,
            size: 4,
            root: [5; 32],
        }
    }

    #[test]
    fn messages_and_answers_come_back() {
        let hello = Hello {
            version: VERSION,
            member: 0x801,
            members: 3,
        };
        let plan = Plan {
            group: [7; 16],
            term: 9,
            members: vec![0x800, 0x801, 0x802],
            from: 1,
            head: Some(head()),
        };
        for message in [
            Message::Hello(hello),
            Message::Look(Status::Forming(Some(head())), Time::from_secs(7)),
            Message::Look(Status::Live(head().service, Some(2)), Time::from_secs(8)),
            Message::Promise(plan),
            Message::Start([7; 16]),
            Message::Join(None),
            Message::Knock([7; 16]),
            Message::Letter(vec![1, 2, 3]),
        ] {
            assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
        let position = Position {
            group: [7; 16],
            index: 12,
            term: 3,
            configuration: Configuration {
                voters: vec![MemberId::new(0, 0x800).unwrap()],
                outgoing: vec![],
                learners: vec![MemberId::new(2, 0x900).unwrap()],
            },
        };
        let place = Place::new(head().service, &position);
        assert_eq!(place.position(), Some(position));
        let answer = Answer::State(place);
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn longer_messages_than_any_are_refused() {
        let letter = Message::Letter(vec![0; LETTER_BYTES_MAX + FRAME_BYTES]);
        assert!(Message::decode(&letter.encode()).is_err());
        assert!(Answer::decode(&vec![0; ANSWER_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn pieces_come_back_and_nothing_else_is_one() {
        let piece = Piece::More(Zeroizing::new(vec![9, 8])).encode();
        assert!(matches!(Piece::decode(piece), Piece::More(bytes) if *bytes == [9, 8]));
        assert!(matches!(Piece::decode(Piece::End.encode()), Piece::End));
        for broken in [vec![], vec![2], vec![1, 1], vec![7; 4]] {
            assert!(matches!(
                Piece::decode(Zeroizing::new(broken)),
                Piece::Broken
            ));
        }
    }
}
