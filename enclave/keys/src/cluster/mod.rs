//! Several instances, one log: the members of a key service agree before anything counts.
//!
//! ```text
//!  sequencer ──commit(record)──▶ Cluster ──┬─▶ bield_group::Group   who leads, what is committed
//!                                          ├─▶ Apply (ledger, state): prepare, commit, transfer, install
//!  accept loop ──serve(session)─▶ Cluster ─┤
//!                                          └─▶ one dialled session a peer ──▶ the other members
//! ```
//!
//! Always true: a record is acknowledged only after a majority of the members had it on disk, and
//! every member applies the same records in the same order, the leader included: [`Apply::prepare`]
//! and [`Apply::commit`] are called on *every* member, always on one thread. No byte about the
//! service goes to a peer before its fresh evidence was appraised and its code was found to be
//! admitted. A member that can no longer tell what counts stops ([`Stopped`]): the process ends and
//! starts again as a new incarnation, which asks its way in.
//!
//! Left to others: what a record says (`state`), how it is kept (`bield-ledger`), how the host
//! reaches the others (`bield-door`), which code is admitted (the state's administrators).
//!
//! On paper: one commit is one durable write on each member at the same time and one round trip
//! between them, then one more durable write on each; the followers' last write is not waited for.

mod forming;
mod handle;
mod links;
mod member;
mod message;
mod queues;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::sync::Arc;

use bield_capsule::Received;
use bield_envelope::{Principal, Time};
use bield_evidence::{Measurement, PolicyConfig};
use bield_session::{Expect, Freshness, Identity, SessionError};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

pub use bield_group::{Slot, Timing};
use handle::Shared;
pub use handle::{Cluster, Limits, Settings, StartError};

/// How far a member's disk goes. Orders as `(epoch, term, size)`: of two disks of one service the
/// greater one holds everything that was ever acknowledged by a majority of which either was part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// The service's unchanging name (its first identity key). Two disks that differ here belong to
    /// different services, and are never merged.
    #[n(0)]
    pub service: Principal,
    /// The log epoch: a human recovery begins the next.
    #[n(1)]
    pub epoch: u32,
    /// The term of the last [`Apply::prepare`] or [`Apply::install`]; 0 if there was none.
    #[n(2)]
    pub term: u64,
    /// Records of this epoch's log, a prepared one counted.
    #[n(3)]
    pub size: u64,
    /// Hash of the tree over those records, a prepared one counted.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub root: [u8; 32],
}

/// What an instance does with what the group decides. Called on one thread; a call may block.
///
/// [`ApplyError::Storage`] is answered by the same call again after a pause, with the same
/// arguments, until it succeeds or the instance stops. [`ApplyError::Refused`] ends the instance.
pub trait Apply: Send {
    /// How far the disk goes; `None` when it holds no service at all.
    ///
    /// # Errors
    /// The disk cannot be read, or what it holds does not open.
    fn head(&mut self) -> Result<Option<Head>, ApplyError>;

    /// Whether it holds a service that this instance cannot open, as one that was left by other code is: it
    /// gives way to the state of a group, and never to a new service.
    fn is_sealed(&mut self) -> bool;

    /// The time of the newest record that counts; `None` when it holds no service.
    fn clock(&mut self) -> Option<Time>;

    /// Draws a new service; only after every member has shown that it holds none.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    fn begin(&mut self) -> Result<(), ApplyError>;

    /// Every member promised to go on from this disk, or from one that shows the same head: a
    /// prepared record counts now, and is committed. Nothing happens when there is none.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    fn settle(&mut self) -> Result<(), ApplyError>;

    /// Makes durable, sealed: "`term` has begun, and after what is committed comes exactly
    /// `record`", or nothing. It takes the place of whatever was prepared before. The term must be
    /// authenticated like a record: a host that could raise it could bring back an old disk.
    ///
    /// # Errors
    /// [`ApplyError::Refused`] when the record is not one that may follow what is committed.
    fn prepare(&mut self, term: u64, record: Option<&Received>) -> Result<(), ApplyError>;

    /// The record counts: makes it durable in clear form and applies it. It need not have been
    /// prepared. The term of the last `prepare` stays in force.
    ///
    /// # Errors
    /// [`ApplyError::Refused`] when the record does not verify.
    fn commit(&mut self, record: &Received) -> Result<(), ApplyError>;

    /// Everything that another member needs to have exactly what is committed here now: root secret,
    /// snapshot, records. `have` is what that member's disk shows, as it says itself: what both have
    /// need not be sent, but then must be shown to be the same. The pieces are taken on another thread
    /// while this one goes on.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    fn transfer(&mut self, have: Option<&Head>) -> Result<Box<dyn Transfer>, ApplyError>;

    /// Puts what the pieces say in the place of everything this instance held, in `term`; a prepared
    /// record goes. A disk on which this breaks off shows its old head, or no service at all, but
    /// never a part as if it were the whole. Verifies before use.
    ///
    /// # Errors
    /// [`ApplyError::Refused`] when the pieces do not make a service.
    fn install(&mut self, term: u64, pieces: &mut dyn Transfer) -> Result<(), ApplyError>;
}

/// The pieces of a transfer, in order.
pub trait Transfer: Send {
    /// The next piece, at most [`PIECE_BYTES_MAX`] bytes; `None` after the last.
    ///
    /// # Errors
    /// The disk or the connection failed.
    fn next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, ApplyError>;
}

/// Why an instance could not do what the group decided.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The host's storage failed; the same again may succeed.
    #[error("the host's storage failed: {0}")]
    Storage(String),
    /// What was decided cannot be done here, now or later.
    #[error("{0}")]
    Refused(String),
}

/// What surrounds a member: the way to its peers, its identity, and whom it takes for one of its own.
pub trait Surroundings: Send + Sync {
    /// Opens a pipe to the member in `slot`. Its waits are limited to about [`PEER_WAIT`].
    ///
    /// # Errors
    /// The host gives none now; asked again after a pause.
    fn dial(&self, slot: Slot) -> std::io::Result<Box<dyn Pipe>>;

    /// The attested identity in role key service; the service's own principal may be absent from it.
    ///
    /// # Errors
    /// No evidence from this machine's TEE.
    fn identity(&self) -> Result<Arc<Identity>, SessionError>;

    /// Whom to expect: [`expect_member`] of the measured configuration.
    ///
    /// # Errors
    /// The configuration's policy does not hold.
    fn expect(&self) -> Result<Expect, SessionError>;

    /// Whether code of this measurement may take part: this instance's own, what its measured configuration
    /// names or an administrator admitted, unless one withdrew it.
    fn admitted(&self, code: &Measurement) -> bool;

    /// Whether code of this measurement is known not to be [`admitted`](Self::admitted), by the state that is here.
    fn withdrawn(&self, code: &Measurement) -> bool;

    /// Whether the member in `slot` may run on the machine of this identity: always, where the
    /// configuration names no machines.
    fn fits(&self, slot: Slot, machine: &[u8]) -> bool;

    /// This member and the one in `slot` do not take each other for members; `why` is for the operator. Said once,
    /// until it changes.
    fn apart(&self, slot: Slot, why: &str);

    /// The host's time, for certificates and evidence, and for the others to compare theirs with.
    fn now(&self) -> Time;

    /// Whether the configuration has witnesses.
    fn has_witnesses(&self) -> bool;

    /// Whether the witnesses confirm that no newer head than this instance's own, which must be
    /// `head`, was ever cosigned: what is committed here, or that and the one record that is prepared
    /// here. No group begins from a head without it where there are witnesses; and where it is
    /// confirmed, a majority may begin without the others.
    ///
    /// # Errors
    /// [`Unconfirmed`]; without witnesses, always.
    fn confirm(&self, head: &Head) -> Result<(), Unconfirmed>;

    /// The role has changed.
    fn changed(&self, role: Role);

    /// This instance takes part no more; the program ends now. Called once.
    fn stopped(&self, why: &Stopped);
}

/// Why a group must not begin from a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    /// Not enough witnesses answered, or this instance cannot ask; it may be asked again.
    #[error("{0}")]
    Unknown(String),
    /// Witnesses saw more, or another history.
    #[error("{0}")]
    SetBack(String),
}

/// A byte pipe to another member.
pub trait Pipe: Read + Write + Send {}

impl<T: Read + Write + Send> Pipe for T {}

/// The part an instance plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not in a group yet, or not with a vote yet.
    Forming,
    /// In the group and not its leader; serves nobody, and may take over.
    Follower {
        /// The leader's slot, as far as known.
        leader: Option<Slot>,
    },
    /// Everything committed by earlier leaders is applied here, and this instance decides what is
    /// next. It may have been succeeded without knowing: only [`Agreement::commit`] tells.
    Leader,
}

/// How the sequencer makes records count.
pub trait Agreement: Send + Sync {
    /// Makes `record` the next of the log: returns after it is durable on a majority and has been
    /// committed here through [`Apply::commit`]. Hold no lock that `Apply` takes.
    ///
    /// # Errors
    /// [`NotCommitted`]; after [`NotCommitted::Unknown`] only the same record may be tried again.
    fn commit(&self, record: &Received) -> Result<(), NotCommitted>;

    /// The part this instance plays now.
    fn role(&self) -> Role;

    /// Why this instance takes part no more.
    fn stopped(&self) -> Option<Stopped>;
}

/// Why a record is not known to count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCommitted {
    /// This instance does not lead: the record was not taken, and never will be.
    #[error("this instance does not lead its group; ask another one")]
    NotLeader,
    /// Another record is on its way; this one was not taken.
    #[error("another record is not decided yet; try again")]
    Busy,
    /// No majority answered in time: the record may still count. Ask with the same record again.
    #[error("no majority of the members has answered yet; the change may still count")]
    Unknown,
    /// This instance stopped: the record may count or not.
    #[error("this instance has left its group: {0}")]
    Stopped(Stopped),
}

/// Why an instance takes part no more: it ends, and joins again as a new incarnation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// It led and does not any more: another one may lead now.
    #[error("this instance led its group and no longer hears from a majority; it starts again")]
    Deposed,
    /// It was away for so long that the group has replaced it or forgotten what it missed.
    #[error("this instance was away for too long; it starts again and is brought up to date")]
    LeftBehind,
    /// There has been no leader for long; all members start again and form a group anew.
    #[error("no member leads this group; this instance starts again to form a new one")]
    Leaderless,
    /// What members promised each other at the beginning came to nothing.
    #[error("the group did not come about: {0}; this instance starts again")]
    NotFormed(String),
    /// The disk or a transfer does not hold what it must; a person must look.
    #[error("{0}")]
    Refused(String),
    /// The program asked for it.
    #[error("this instance was asked to end")]
    Asked,
    /// A fault in this program.
    #[error("this instance found its own state in disorder and ends: {0}")]
    Fault(String),
}

/// Whom a member expects at the other end of a session with another member: role key service, the
/// measured policy, whichever code ([`Surroundings::admitted`] decides about that), evidence made for
/// this very session.
///
/// # Errors
/// Measurements are left in the policy, or roots cannot be read.
pub fn expect_member(peers: &PolicyConfig) -> Result<Expect, SessionError> {
    let refuse = |error: &dyn core::fmt::Display| SessionError::Attest(error.to_string());
    let policy = peers.clone().into_deferred_policy();
    let policy = policy.map_err(|error| refuse(&error))?;
    let roots = peers.roots().map_err(|error| refuse(&error))?;
    Ok(Expect::attested(
        bield_session::Role::KeyService,
        roots,
        policy,
        None,
        Freshness::Fresh,
    ))
}

/// How far a leader's clock may be ahead of the clocks of those that make a majority with it.
pub const CLOCK_AHEAD_MAX: std::time::Duration = std::time::Duration::from_secs(600);

/// Bytes of one piece of a transfer: the longest record of a log in its frame.
pub const PIECE_BYTES_MAX: usize = (1 << 20) + (8 << 10);

/// How long one read or write on a pipe may wait: members hear from each other several times a second.
pub const PEER_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
