//! What is asked of the state, and what comes back before it counts.
//!
//! In: orders whose signatures were checked elsewhere (`service`), in types. Out: [`Checked`]: what to write
//! into the log, and what to say once that is durable. Left to others: sessions, the order of things.

use std::sync::Arc;

use bield_envelope::{Digest, Principal, Secret, Verified};
use bield_evidence::{Appraised, Measurement};
use bield_grant::{Grant, Group, GroupName, VerifiedSuccession};
use bield_package::PackageHeader;
use bield_package::tensor::TensorSpec;
use bield_protocol::service::{
    GrantId, LeaseRequest, Recovered, Reply, Returned, Share, StateRequest,
};

use super::entry::{Entry, Started};

/// What can change the state.
#[expect(clippy::large_enum_variant, reason = "one at a time, on its way")]
pub enum Ask {
    /// A principal's order; its signature and its place in the session were checked.
    Order {
        /// Who signed it.
        by: Principal,
        /// What it orders.
        order: Order,
    },
    /// A runtime wants keys.
    Lease {
        /// Its evidence.
        appraised: Arc<Appraised>,
        /// What it wants.
        request: LeaseRequest,
    },
    /// A runtime returns what it did not use, without another lease.
    Return {
        /// Its evidence.
        appraised: Arc<Appraised>,
        /// What it did not use.
        returned: Returned,
    },
    /// A runtime holds a function's state, anchors heads of it, or lets go.
    State {
        /// Its evidence.
        appraised: Arc<Appraised>,
        /// What it does.
        request: StateRequest,
    },
    /// The program began to serve: the first entry after each start.
    Started(Started),
    /// Holders of shares recovered an earlier log: the first entry of the log that continues it.
    Recovered(Recovered),
}

/// An order, with every signature in it checked by type.
pub enum Order {
    /// [`Operation::Register`](bield_protocol::service::Operation::Register).
    Register,
    /// Register a package; the key is the one that the offer commits to.
    PutPackage(Box<PackagePut>),
    /// Register a grant.
    Grant(Verified<Grant>),
    /// End grants.
    Revoke(Vec<GrantId>),
    /// Register a group.
    PutGroup(Verified<Group>),
    /// Forget a group.
    DeleteGroup(GroupName),
    /// Forget a package.
    DeletePackage(Digest),
    /// Rotate a package's audience keys.
    RotateAudience {
        /// The package.
        package: Digest,
        /// The key before opens nothing any more.
        at_once: bool,
    },
    /// Replace the signer by another principal.
    Succeed(VerifiedSuccession),
    /// Forget the signer.
    Unregister,
    /// Replace the service's identity key.
    RotateIdentity,
    /// Let code join.
    AdmitCode(Measurement),
    /// Let it join no more.
    WithdrawCode(Measurement),
    /// Share a new recovery key.
    MakeShares {
        /// Who gets one.
        holders: Vec<Principal>,
        /// How many are needed.
        threshold: u8,
        /// One for each holder, in order; of the generation that [`State::next_shares`](super::State::next_shares)
        /// names. The sequencer makes them just before it checks: only it knows the generation.
        shares: Vec<Share>,
    },
}

/// A package that is to be registered.
pub struct PackagePut {
    /// The owner's word for it.
    pub header: Verified<PackageHeader>,
    /// What a request must supply.
    pub inputs: Vec<TensorSpec>,
    /// What an answer holds.
    pub outputs: Vec<TensorSpec>,
    /// Opens it.
    pub key: Secret,
}

/// What follows from something that was asked.
pub struct Checked {
    /// To be applied in this order and written into one record; none when there is nothing to change.
    pub entries: Vec<Entry>,
    /// To be said once the entries are durable. May be a refusal beside entries: a runtime that is
    /// refused a lease has still returned what it did not use.
    pub answer: Answer,
}

/// What to say once the entries are durable.
pub enum Answer {
    /// Done: the program adds the size of the log.
    Done,
    /// This. Holds keys when it is a lease.
    Reply(Box<Reply>),
}

impl Answer {
    /// The reply, given the size of the log that holds what it is about.
    #[must_use]
    pub fn reply(self, size: u64) -> Reply {
        match self {
            Self::Done => Reply::Done(size),
            Self::Reply(reply) => *reply,
        }
    }

    /// Bytes that it takes until it has left, about: a lease brings all grants that can matter.
    pub(crate) fn bytes(&self) -> usize {
        let Self::Reply(reply) = self else { return 0 };
        let Reply::Lease(leased) = &**reply else {
            return 0;
        };
        let grants = leased.grants.iter().map(|grant| grant.as_bytes().len());
        let groups = leased.groups.iter().map(|group| group.as_bytes().len());
        let signed: usize = grants.chain(groups).map(|bytes| bytes + SIGNED_BYTES).sum();
        signed + (leased.successions.len() * 2 + leased.allotments.len()) * SIGNED_BYTES
    }
}

/// What a signature and its signer take.
const SIGNED_BYTES: usize = 128;

impl Checked {
    /// Nothing to change: it is so already.
    pub(super) const fn already() -> Self {
        Self {
            entries: Vec::new(),
            answer: Answer::Done,
        }
    }

    pub(super) fn done(entry: Entry) -> Self {
        Self {
            entries: vec![entry],
            answer: Answer::Done,
        }
    }
}

/// What the measured configuration says to the state.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The longest lease, in seconds.
    pub lease_secs: u32,
    /// Who may order what concerns the service as a whole.
    pub administrators: Vec<Principal>,
    /// Who may hold recovery shares; `None`: nobody, and none are made.
    pub recovery: Option<RecoveryLimits>,
    /// Whether administrators may let other code of the key service join.
    pub admits_code: bool,
}

/// What the measured configuration says about recovery shares.
#[derive(Debug, Clone)]
pub struct RecoveryLimits {
    /// Who may hold a share, or who succeeded one of them.
    pub holders: Vec<Principal>,
    /// The fewest that may be enough to recover: 2 at least, unless exactly one holder is named.
    pub threshold_min: u8,
}

/// An entry of the log does not fit the state it is applied to: the log is not this service's, or the program
/// is wrong. Nothing can be served from here; the operator keeps the files and reports it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an entry of the log does not fit the state before it ({0}); keep the files as they are and report it"
)]
pub struct Inconsistent(pub(super) &'static str);

impl Inconsistent {
    /// An entry that does not decode.
    #[must_use]
    pub const fn unreadable() -> Self {
        Self("an entry of another version")
    }
}
