//! Agreement among the 3 or 5 members of a group: which record comes next, and who says so.
//!
//! ```text
//!   propose(record) ─┐                                ┌─▶ Ready { now, steps, later }
//!   step(from, bytes)┼─▶ Group (Raft, in memory only) ┤      now:   letters to send at once
//!   tick()           ┘                                │      steps: Prepare / Commit, in order, on this
//!                      ◀── persisted() ───────────────┘             member's disk
//!                                                            later: letters to send after the steps
//! ```
//!
//! In: records that are opaque here, letters of other members, ticks. Out: what to write, what to send,
//! who leads. Nothing here reads a clock, draws randomness, or touches a disk or a socket.
//!
//! Always true:
//! - A process that starts is a new member ([`MemberId`]); nothing about votes or terms is ever read
//!   from a disk. So a disk that the host set back or copied cannot vote twice: only memory votes.
//! - Every member is handed the same records in the same order. Before a member's letter that
//!   acknowledges a record leaves, its disk has the record and the term ([`Step::Prepare`]), so the
//!   greatest `(term, size)` among the disks of all members holds all that was ever acknowledged.
//! - At most one record is undecided at any time: a leader proposes the next one after the last was
//!   committed.
//! - Letters are strict, bounded CBOR and of one group; what is not a letter of this group is refused
//!   before Raft sees it.
//!
//! Left to others: who may be a member (attested sessions, in `bield-keys`), what a record is, moving
//! state to a member that joins, beginning a group ([`Founding`] says what all must have agreed on).
//!
//! On paper: a record is one round trip and one durable write on each member, written by all at the
//! same time. Idle, a leader sends one letter of about 40 bytes to each member per heartbeat.

mod change;
mod group;
mod log;
mod member;
mod ready;
mod wire;

pub use group::{
    Founding, Group, GroupError, HOLD_TICKS, Position, Proposal, Replacement, Role, StepError,
};
pub use member::{Configuration, MEMBERS_MAX, MemberId, MemberIdError, Slot};
pub use ready::{Ready, Step};
pub use wire::{LETTER_BYTES_MAX, LetterError, RECORD_BYTES_MAX};

/// Length of the intervals of a group, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between two letters of an idle leader to one member.
    pub heartbeat: usize,
    /// Silence of the leader after which a member stands for election, and silence of a majority after
    /// which a leader steps down. Members wait for up to [`ELECTION_SPREAD`] ticks more, each for
    /// another time, so that two seldom stand at once.
    pub election: usize,
}

impl Default for Timing {
    /// With ticks of 50 ms: a heartbeat each 100 ms, a new leader within about 2 s.
    fn default() -> Self {
        Self {
            heartbeat: 2,
            election: 20,
        }
    }
}

/// The most ticks that one member waits longer than another before it stands for election.
pub const ELECTION_SPREAD: usize = MEMBERS_MAX * SPREAD_PER_SLOT;

/// Ticks that are a slot's own; which of them a member takes is drawn with its id.
pub(crate) const SPREAD_PER_SLOT: usize = 3;
