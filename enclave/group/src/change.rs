//! Changes of the configuration, in Raft's terms and back.
//!
//! Raft keeps a change as protobuf bytes. Only bytes made here are ever parsed: a change travels as
//! numbers ([`crate::wire`]) and is encoded anew by the member that receives it.

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
    EntryType,
};

use crate::{Configuration, MemberId, MemberIdError};

/// What happens to the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A process is told of everything from now on.
    Learn(MemberId),
    /// A process that was only told has no part any more.
    Forget(MemberId),
    /// `new` decides, and the others in its place do not; both sets of voters must agree until
    /// [`Change::Settle`].
    Replace {
        /// The learner that becomes a voter.
        new: MemberId,
        /// The voter whose place it takes.
        old: Option<MemberId>,
    },
    /// Only the new voters count from now on.
    Settle,
}

impl Change {
    pub(crate) fn to_raft(&self) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        let mut push = |kind, member: MemberId| {
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = member.as_u64();
            change.mut_changes().push(single);
        };
        match self {
            Self::Learn(member) => push(ConfChangeType::AddLearnerNode, *member),
            Self::Forget(member) => push(ConfChangeType::RemoveNode, *member),
            Self::Replace { new, old } => {
                push(ConfChangeType::AddNode, *new);
                if let Some(old) = old {
                    push(ConfChangeType::RemoveNode, *old);
                }
                change.set_transition(ConfChangeTransition::Explicit);
            }
            Self::Settle => {}
        }
        change
    }

    /// Reads an entry of this process's own log; `None` when it is no change made by [`Change`].
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        if entry.get_entry_type() != EntryType::EntryConfChangeV2 {
            return None;
        }
        let change = ConfChangeV2::parse_from_bytes(&entry.data).ok()?;
        let members = change
            .get_changes()
            .iter()
            .map(|single| Some((single.get_change_type(), id(single.node_id).ok()?)))
            .collect::<Option<Vec<_>>>()?;
        let explicit = change.get_transition() == ConfChangeTransition::Explicit;
        let read = match (explicit, members.as_slice()) {
            (false, []) => Self::Settle,
            (false, [(ConfChangeType::AddLearnerNode, member)]) => Self::Learn(*member),
            (false, [(ConfChangeType::RemoveNode, member)]) => Self::Forget(*member),
            (true, [(ConfChangeType::AddNode, new)]) => Self::Replace {
                new: *new,
                old: None,
            },
            (
                true,
                [
                    (ConfChangeType::AddNode, new),
                    (ConfChangeType::RemoveNode, old),
                ],
            ) => Self::Replace {
                new: *new,
                old: Some(*old),
            },
            _ => return None,
        };
        (read.data() == entry.data.as_ref()).then_some(read)
    }

    /// The data of its entry.
    pub(crate) fn data(&self) -> Vec<u8> {
        // Encoding to memory fails only for sizes beyond 2 GiB; an empty entry would be another change.
        self.to_raft()
            .write_to_bytes()
            .expect("a change of two members encodes")
    }
}

impl Configuration {
    pub(crate) fn of(state: &ConfState) -> Result<Self, MemberIdError> {
        let read = |ids: &[u64]| {
            let mut members = ids.iter().copied().map(id).collect::<Result<Vec<_>, _>>()?;
            members.sort_unstable();
            Ok(members)
        };
        let mut learners = read(state.get_learners())?;
        learners.extend(read(state.get_learners_next())?);
        Ok(Self {
            voters: read(state.get_voters())?,
            outgoing: read(state.get_voters_outgoing())?,
            learners,
        })
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        let write = |members: &[MemberId]| members.iter().map(|m| m.as_u64()).collect::<Vec<_>>();
        let mut state = ConfState::default();
        state.set_voters(write(&self.voters));
        state.set_voters_outgoing(write(&self.outgoing));
        state.set_learners(write(&self.learners));
        state
    }
}

fn id(number: u64) -> Result<MemberId, MemberIdError> {
    MemberId::from_u64(number)
}
