//! What the key service tells owners about what happened to what is theirs.
//!
//! Each principal has an audit of its own: the entries that concern its packages, grants and groups, counted from
//! 0 and chained by digest ([`chained`]). Who keeps (count, digest) of what it has seen notices any entry that is
//! changed, left out or put in before that, whoever serves the audit.

use bield_capsule::{CapsuleName, WriterId};
use bield_envelope::{Digest, Principal, Time, wire};
use bield_evidence::Measurement;
use minicbor::{Decode, Encode};

use crate::service::{Allotment, GrantId};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuditEntry {
    /// The record of the log that holds it: index of its leaf.
    #[n(0)]
    pub record: u64,
    /// When, by the service's clock.
    #[n(1)]
    pub at: Time,
    /// What.
    #[n(2)]
    pub event: AuditEvent,
}

/// What happened. All of it was ordered by the principal whose audit this is, except where it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum AuditEvent {
    /// The principal registered.
    #[n(0)]
    Registered,
    /// A package was registered: digest, name, version.
    #[n(1)]
    PackagePut(#[n(0)] Digest, #[n(1)] String, #[n(2)] String),
    /// A grant was registered: id, statement digest.
    #[n(2)]
    Granted(#[n(0)] GrantId, #[n(1)] Digest),
    /// Grants were revoked.
    #[n(3)]
    Revoked(#[n(0)] Vec<GrantId>),
    /// A group was registered: name, revision, number of members.
    #[n(4)]
    GroupPut(#[n(0)] String, #[n(1)] u64, #[n(2)] u32),
    /// A group was deleted.
    #[n(5)]
    GroupDeleted(#[n(0)] String),
    /// A package was deleted, with this many grants.
    #[n(6)]
    PackageDeleted(#[n(0)] Digest, #[n(1)] u32),
    /// A package's audience keys were rotated: generation from then on, and whether at once.
    #[n(7)]
    AudienceRotated(#[n(0)] Digest, #[n(1)] u32, #[n(2)] bool),
    /// The principal's key was replaced by this one.
    #[n(8)]
    Succeeded(#[n(0)] Principal),
    /// The principal unregistered.
    #[n(9)]
    Unregistered,
    /// A runtime was given the keys of a package: by nobody's order, under the owner's grants.
    #[n(10)]
    Leased {
        /// The package.
        #[n(0)]
        package: Digest,
        /// The code that its evidence proved.
        #[n(1)]
        code: Measurement,
        /// Its evidence came from a software TEE.
        #[n(2)]
        simulated: bool,
        /// End of the lease.
        #[n(3)]
        until: Time,
        /// The lease's number.
        #[n(4)]
        lease: u64,
        /// What was reserved of metered grants.
        #[n(5)]
        allotments: Vec<Allotment>,
    },
    /// A runtime gave back what it did not use of a lease.
    #[n(11)]
    Returned {
        /// The lease's number.
        #[n(0)]
        lease: u64,
        /// What was left.
        #[n(1)]
        unused: Vec<Allotment>,
    },
    /// The principal, an administrator, had the service's identity key replaced by this one.
    #[n(12)]
    IdentityRotated(#[n(0)] Principal),
    /// The principal, an administrator, let this code of the key service join.
    #[n(13)]
    CodeAdmitted(#[n(0)] Measurement),
    /// The principal, an administrator, took that back.
    #[n(14)]
    CodeWithdrawn(#[n(0)] Measurement),
    /// The principal, an administrator, had a recovery key shared: holders, and how many are needed.
    #[n(15)]
    SharesMade(#[n(0)] Vec<Principal>, #[n(1)] u8),
    /// A runtime took hold of a function's state: by nobody's order, under the owner's grants.
    #[n(16)]
    StateTaken {
        /// The function's package.
        #[n(0)]
        package: Digest,
        /// The state.
        #[n(1)]
        capsule: CapsuleName,
        /// The code that its evidence proved.
        #[n(2)]
        code: Measurement,
        /// Its evidence came from a software TEE.
        #[n(3)]
        simulated: bool,
        /// Whom it writes as.
        #[n(4)]
        writer: WriterId,
        /// The hold's token: one more than the hold's before.
        #[n(5)]
        token: u64,
        /// [`StateHeads::digest`](bield_receipt::StateHeads::digest) of the heads that were anchored then.
        #[n(6)]
        heads: Digest,
    },
    /// It let go, so that another may hold it at once.
    #[n(17)]
    StateReleased {
        /// The state.
        #[n(0)]
        capsule: CapsuleName,
        /// The hold's token.
        #[n(1)]
        token: u64,
        /// [`StateHeads::digest`](bield_receipt::StateHeads::digest) of the heads that are anchored from then on.
        #[n(2)]
        heads: Digest,
    },
}

/// A lease that was refused lately; kept in memory only, a few a package.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RefusedLease {
    /// When.
    #[n(0)]
    pub at: Time,
    /// The package asked for.
    #[n(1)]
    pub package: Digest,
    /// The code that asked.
    #[n(2)]
    pub code: Measurement,
    /// The refusal's stable short name.
    #[n(3)]
    pub reason: String,
}

/// A page of an audit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuditPage {
    /// Number of the first entry below.
    #[n(0)]
    pub from: u64,
    /// [`chained`] of all entries before it.
    #[n(1)]
    pub before: Digest,
    /// Entries in order.
    #[cbor(n(2), decode_with = "wire::at_most::<AUDIT_PAGE_MAX, _, _>")]
    pub entries: Vec<AuditEntry>,
    /// Entries in all.
    #[n(3)]
    pub count: u64,
    /// [`chained`] of all of them.
    #[n(4)]
    pub digest: Digest,
    /// Leases that were refused lately for packages of this principal.
    #[cbor(n(5), decode_with = "wire::at_most::<AUDIT_PAGE_MAX, _, _>")]
    pub refused: Vec<RefusedLease>,
}

/// Continues the chain of an audit; before the first entry it is [`AUDIT_START`].
#[must_use]
pub fn chained(before: &Digest, entry: &AuditEntry) -> Digest {
    Digest::of(
        "bield audit chain v1",
        &[before.as_bytes(), &wire::encode(entry)],
    )
}

/// The chain before the first entry.
pub const AUDIT_START: [u8; 32] = [0; 32];
/// The most entries of one page.
pub const AUDIT_PAGE_MAX: usize = 1000;
