//! What a member has to do now.

use crate::MemberId;

/// Work for the caller, in this order: send `now`, do `steps`, send `later`, then call
/// [`Group::persisted`](crate::Group::persisted).
#[derive(Debug, Default)]
pub struct Ready {
    /// Letters that wait for nothing.
    pub now: Vec<(MemberId, Vec<u8>)>,
    /// What to do with this member's disk and state, one after the other.
    pub steps: Vec<Step>,
    /// Letters that promise what the steps have made durable; never send them before.
    pub later: Vec<(MemberId, Vec<u8>)>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make durable: "`term` has begun, and after what is committed comes exactly `record`", or
    /// nothing. Takes the place of the last `Prepare`.
    Prepare {
        /// The term of the last entry that this member will have acknowledged.
        term: u64,
        /// The one record that is not decided yet.
        record: Option<Vec<u8>>,
    },
    /// The record counts, now and for ever: apply it. It may not have been prepared here.
    Commit {
        /// Its place in the group's log; increases, with gaps.
        index: u64,
        /// The record.
        record: Vec<u8>,
    },
}
