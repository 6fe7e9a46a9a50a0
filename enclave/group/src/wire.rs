//! Letters between members: strict CBOR of what Raft says, and nothing that Raft would have to parse.
//!
//! Raft's own messages are protobuf, whose parser (2.28) can be made to recurse without end
//! (RUSTSEC-2024-0437). So the fields travel as bounded CBOR with one accepted encoding, and Raft's
//! message is made of checked numbers here. Kinds that members never send (proposals that are passed
//! on, transfers of leadership, reads) do not decode.

use bield_envelope::wire;
use minicbor::{Decode, Encode};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use crate::change::Change;
use crate::member::{MemberId, MemberIdError};

/// Longest record in bytes: the longest of a capsule (1 MiB of body and its header) and room.
pub const RECORD_BYTES_MAX: usize = 1_200_000;

/// Longest letter in bytes: entries up to a mebibyte, or one record that is longer, and its frame.
pub const LETTER_BYTES_MAX: usize = ENTRIES_BYTES_MAX + RECORD_BYTES_MAX + (64 << 10);

/// Bytes of entries after which a letter takes no further one.
pub(crate) const ENTRIES_BYTES_MAX: usize = 1 << 20;

/// Most entries of a letter: even empty ones cost some bytes, here and on the wire.
const ENTRIES_MAX: usize = 1 << 16;

/// Why bytes are not a letter for this member; contents are not quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// Not the one encoding of a letter.
    #[error("not a letter of a group: {0}")]
    Malformed(#[from] wire::WireError),
    /// Of another group, or for or from another member than the session's.
    #[error("a letter of another group or for another member")]
    Misdirected,
    /// A name that names no member.
    #[error(transparent)]
    Member(#[from] MemberIdError),
    /// Entries that no leader sends.
    #[error("entries that are too many, too long, or not in order")]
    Entries,
}

/// One letter.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Letter {
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) group: [u8; 16],
    #[n(1)]
    kind: Kind,
    #[n(2)]
    from: u64,
    #[n(3)]
    to: u64,
    #[n(4)]
    term: u64,
    #[n(5)]
    log_term: u64,
    #[n(6)]
    index: u64,
    #[n(7)]
    commit: u64,
    #[n(8)]
    commit_term: u64,
    #[n(9)]
    reject: bool,
    #[n(10)]
    reject_hint: u64,
    #[n(11)]
    entries: Vec<Item>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
enum Kind {
    #[n(0)]
    Append,
    #[n(1)]
    AppendResponse,
    #[n(2)]
    Vote,
    #[n(3)]
    VoteResponse,
    #[n(4)]
    PreVote,
    #[n(5)]
    PreVoteResponse,
    #[n(6)]
    Heartbeat,
    #[n(7)]
    HeartbeatResponse,
    /// "What you lack is forgotten here: join again." No state travels with it.
    #[n(8)]
    LeftBehind,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
struct Item {
    #[n(0)]
    term: u64,
    #[n(1)]
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
enum Content {
    #[n(0)]
    Nothing,
    #[n(1)]
    Record(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(2)]
    Learn(#[n(0)] u64),
    #[n(3)]
    Forget(#[n(0)] u64),
    #[n(4)]
    Replace(#[n(0)] u64, #[n(1)] Option<u64>),
    #[n(5)]
    Settle,
}

/// Writes what Raft wants to say; `None` for kinds that members do not send each other.
pub(crate) fn write(group: [u8; 16], message: &Message) -> Option<Vec<u8>> {
    let kind = match message.get_msg_type() {
        MessageType::MsgAppend => Kind::Append,
        MessageType::MsgAppendResponse => Kind::AppendResponse,
        MessageType::MsgRequestVote => Kind::Vote,
        MessageType::MsgRequestVoteResponse => Kind::VoteResponse,
        MessageType::MsgRequestPreVote => Kind::PreVote,
        MessageType::MsgRequestPreVoteResponse => Kind::PreVoteResponse,
        MessageType::MsgHeartbeat => Kind::Heartbeat,
        MessageType::MsgHeartbeatResponse => Kind::HeartbeatResponse,
        MessageType::MsgSnapshot => Kind::LeftBehind,
        _ => return None,
    };
    let letter = Letter {
        group,
        kind,
        from: message.from,
        to: message.to,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        reject: message.reject,
        reject_hint: message.reject_hint,
        entries: message
            .get_entries()
            .iter()
            .map(item)
            .collect::<Option<_>>()?,
    };
    Some(wire::encode(&letter))
}

/// What a letter says.
pub(crate) enum Read {
    /// For Raft.
    Message(Box<Message>),
    /// The sender, leader in `term`, has forgotten what this member lacks.
    LeftBehind {
        /// The sender's term.
        term: u64,
    },
}

/// Reads a letter of `group` from the member `from` to the member `to`.
pub(crate) fn read(
    group: [u8; 16],
    from: MemberId,
    to: MemberId,
    bytes: &[u8],
) -> Result<Read, LetterError> {
    let letter: Letter = wire::decode(bytes, LETTER_BYTES_MAX)?;
    if letter.group != group || letter.from != from.as_u64() || letter.to != to.as_u64() {
        return Err(LetterError::Misdirected);
    }
    letter.into_raft()
}

impl Letter {
    fn into_raft(self) -> Result<Read, LetterError> {
        let kind = match self.kind {
            Kind::Append => MessageType::MsgAppend,
            Kind::AppendResponse => MessageType::MsgAppendResponse,
            Kind::Vote => MessageType::MsgRequestVote,
            Kind::VoteResponse => MessageType::MsgRequestVoteResponse,
            Kind::PreVote => MessageType::MsgRequestPreVote,
            Kind::PreVoteResponse => MessageType::MsgRequestPreVoteResponse,
            Kind::Heartbeat => MessageType::MsgHeartbeat,
            Kind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
            Kind::LeftBehind => return Ok(Read::LeftBehind { term: self.term }),
        };
        let mut message = Message::default();
        message.set_msg_type(kind);
        message.from = self.from;
        message.to = self.to;
        message.term = self.term;
        message.log_term = self.log_term;
        message.index = self.index;
        message.commit = self.commit;
        message.commit_term = self.commit_term;
        message.reject = self.reject;
        message.reject_hint = self.reject_hint;
        message.set_entries(self.entries()?.into());
        Ok(Read::Message(Box::new(message)))
    }

    /// The entries, whose places follow from the letter's: terms never decrease, none is later than
    /// the sender's.
    fn entries(self) -> Result<Vec<Entry>, LetterError> {
        if self.entries.is_empty() {
            return Ok(Vec::new());
        }
        let fits = self.kind == Kind::Append
            && self.entries.len() <= ENTRIES_MAX
            && self.index.checked_add(ENTRIES_MAX as u64).is_some();
        if !fits {
            return Err(LetterError::Entries);
        }
        let mut before = self.log_term;
        let mut entries = Vec::with_capacity(self.entries.len());
        for (index, item) in (self.index + 1..).zip(self.entries) {
            if item.term < before || item.term > self.term {
                return Err(LetterError::Entries);
            }
            before = item.term;
            entries.push(item.into_raft(index)?);
        }
        Ok(entries)
    }
}

impl Item {
    fn into_raft(self, index: u64) -> Result<Entry, LetterError> {
        let id = MemberId::from_u64;
        let change = match self.content {
            Content::Nothing => return Ok(entry(self.term, index, EntryType::EntryNormal, vec![])),
            Content::Record(record) => {
                if record.is_empty() || record.len() > RECORD_BYTES_MAX {
                    return Err(LetterError::Entries);
                }
                return Ok(entry(self.term, index, EntryType::EntryNormal, record));
            }
            Content::Learn(member) => Change::Learn(id(member)?),
            Content::Forget(member) => Change::Forget(id(member)?),
            Content::Replace(new, old) => Change::Replace {
                new: id(new)?,
                old: old.map(id).transpose()?,
            },
            Content::Settle => Change::Settle,
        };
        let kind = EntryType::EntryConfChangeV2;
        Ok(entry(self.term, index, kind, change.data()))
    }
}

fn item(entry: &Entry) -> Option<Item> {
    let content = match (entry.get_entry_type(), entry.data.is_empty()) {
        (EntryType::EntryNormal, true) => Content::Nothing,
        (EntryType::EntryNormal, false) => Content::Record(entry.data.to_vec()),
        _ => match Change::of(entry)? {
            Change::Learn(member) => Content::Learn(member.as_u64()),
            Change::Forget(member) => Content::Forget(member.as_u64()),
            Change::Replace { new, old } => {
                Content::Replace(new.as_u64(), old.map(MemberId::as_u64))
            }
            Change::Settle => Content::Settle,
        },
    };
    Some(Item {
        term: entry.term,
        content,
    })
}

fn entry(term: u64, index: u64, kind: EntryType, data: Vec<u8>) -> Entry {
    let mut entry = Entry::default();
    entry.set_entry_type(kind);
    entry.term = term;
    entry.index = index;
    entry.data = data.into();
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: [u8; 16] = [7; 16];

    fn member(slot: u8) -> MemberId {
        MemberId::new(slot, 0x100).unwrap()
    }

    fn append(entries: Vec<Entry>) -> Message {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        message.from = member(0).as_u64();
        message.to = member(1).as_u64();
        message.term = 9;
        message.log_term = 3;
        message.index = 40;
        message.commit = 39;
        message.set_entries(entries.into());
        message
    }

    fn read_back(message: &Message) -> Result<Message, LetterError> {
        let bytes = write(GROUP, message).unwrap();
        match read(GROUP, member(0), member(1), &bytes)? {
            Read::Message(message) => Ok(*message),
            Read::LeftBehind { .. } => panic!("an append is read as another letter"),
        }
    }

    #[test]
    fn raft_is_told_what_raft_said() {
        let replace = Change::Replace {
            new: member(2),
            old: Some(MemberId::new(2, 0x200).unwrap()),
        };
        let v2 = EntryType::EntryConfChangeV2;
        let message = append(vec![
            entry(3, 41, EntryType::EntryNormal, vec![]),
            entry(8, 42, EntryType::EntryNormal, vec![1, 2, 3]),
            entry(8, 43, v2, Change::Learn(member(2)).data()),
            entry(8, 44, v2, replace.data()),
            entry(9, 45, v2, Change::Settle.data()),
            entry(9, 46, v2, Change::Forget(member(2)).data()),
        ]);
        assert_eq!(read_back(&message).unwrap(), message);
    }

    #[test]
    fn letters_of_other_groups_senders_and_receivers_are_refused() {
        let bytes = write(GROUP, &append(vec![])).unwrap();
        let outcome = |group, from, to| read(group, from, to, &bytes).err();
        assert_eq!(outcome(GROUP, member(0), member(1)), None);
        let misdirected = Some(LetterError::Misdirected);
        assert_eq!(outcome([8; 16], member(0), member(1)), misdirected);
        assert_eq!(outcome(GROUP, member(2), member(1)), misdirected);
        assert_eq!(outcome(GROUP, member(0), member(2)), misdirected);
    }

    #[test]
    fn entries_out_of_order_or_from_the_future_are_refused() {
        let normal = EntryType::EntryNormal;
        let back = append(vec![
            entry(8, 41, normal, vec![1]),
            entry(7, 42, normal, vec![2]),
        ]);
        assert_eq!(read_back(&back).err(), Some(LetterError::Entries));
        let before = append(vec![entry(2, 41, normal, vec![1])]);
        assert_eq!(read_back(&before).err(), Some(LetterError::Entries));
        let future = append(vec![entry(10, 41, normal, vec![1])]);
        assert_eq!(read_back(&future).err(), Some(LetterError::Entries));
    }

    #[test]
    fn records_beyond_the_limit_are_refused() {
        let record = vec![1; RECORD_BYTES_MAX + 1];
        let long = append(vec![entry(9, 41, EntryType::EntryNormal, record)]);
        assert_eq!(read_back(&long).err(), Some(LetterError::Entries));
    }

    #[test]
    fn letters_beyond_the_limit_are_refused_before_they_are_read() {
        let bytes = vec![0x9f; LETTER_BYTES_MAX + 1];
        let refused = read(GROUP, member(0), member(1), &bytes);
        let too_long = wire::WireError::TooLong {
            found: LETTER_BYTES_MAX + 1,
            max: LETTER_BYTES_MAX,
        };
        assert_eq!(refused.err(), Some(LetterError::Malformed(too_long)));
    }

    #[test]
    fn no_prefix_and_no_extension_of_a_letter_is_one() {
        let bytes = write(
            GROUP,
            &append(vec![entry(9, 41, EntryType::EntryNormal, vec![5])]),
        );
        let bytes = bytes.unwrap();
        for end in 0..bytes.len() {
            assert!(read(GROUP, member(0), member(1), &bytes[..end]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(read(GROUP, member(0), member(1), &longer).is_err());
    }

    #[test]
    fn kinds_that_members_do_not_send_are_not_written() {
        let mut message = append(vec![]);
        for kind in [
            MessageType::MsgPropose,
            MessageType::MsgTransferLeader,
            MessageType::MsgTimeoutNow,
            MessageType::MsgReadIndex,
            MessageType::MsgHup,
        ] {
            message.set_msg_type(kind);
            assert_eq!(write(GROUP, &message), None);
        }
    }

    #[test]
    fn being_left_behind_carries_no_state() {
        let mut message = append(vec![]);
        message.set_msg_type(MessageType::MsgSnapshot);
        message.mut_snapshot().data = vec![1; 1000].into();
        let bytes = write(GROUP, &message).unwrap();
        assert!(bytes.len() < 100);
        let read = read(GROUP, member(0), member(1), &bytes).unwrap();
        assert!(matches!(read, Read::LeftBehind { term: 9 }));
    }
}
