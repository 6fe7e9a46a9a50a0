//! What an entry of the log says.
//!
//! ```text
//! order ──check──▶ Entry ──encode──▶ one entry of a sealed record ──decode──▶ Entry ──apply──▶ state
//! ```
//!
//! Always true: an entry holds everything that its effect and its audit need, so that applying it asks
//! nobody; it is strict CBOR, an unknown one is refused; its bytes are only ever in buffers that are wiped,
//! since it may hold a package's key or a recovery share.
//!
//! On paper: 110 bytes around a statement; a lease without quotas 150.

use bield_capsule::{CapsuleName, Head, WriterId};
use bield_envelope::{Digest, Principal, Secret, Signed, Time, transport, wire};
use bield_evidence::Measurement;
use bield_grant::{Allotment, CodeIdentity, Grant, Group, GroupName, Succeeded};
use bield_package::PackageHeader;
use bield_package::tensor::TensorSpec;
use bield_protocol::inference::TENSORS_MAX;
use bield_protocol::service::{
    AuditEntry, AuditEvent, GRANTS_PER_LEASE_MAX, GrantId, HOLDERS_MAX, REVOKED_AT_ONCE_MAX,
    Recovered, STATE_HEADS_MAX, Share,
};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

/// One change.
#[derive(Encode, Decode)]
pub enum Entry {
    /// A principal became known.
    #[n(0)]
    Registered(#[n(0)] Principal),
    /// A package was registered.
    #[n(1)]
    PackagePut {
        /// The owner's word for it.
        #[n(0)]
        header: Signed<PackageHeader>,
        /// What a request must supply.
        #[cbor(n(1), decode_with = "wire::at_most::<TENSORS_MAX, _, _>")]
        inputs: Vec<TensorSpec>,
        /// What an answer holds.
        #[cbor(n(2), decode_with = "wire::at_most::<TENSORS_MAX, _, _>")]
        outputs: Vec<TensorSpec>,
        /// Opens it.
        #[cbor(n(3), with = "transport")]
        key: Secret,
    },
    /// A grant was registered, by its signer.
    #[n(2)]
    Granted(#[n(0)] Signed<Grant>),
    /// Grants ended.
    #[n(3)]
    Revoked {
        /// Whose.
        #[n(0)]
        by: Principal,
        /// Which.
        #[cbor(n(1), decode_with = "wire::at_most::<REVOKED_AT_ONCE_MAX, _, _>")]
        ids: Vec<GrantId>,
    },
    /// A group was registered, by its signer.
    #[n(4)]
    GroupPut(#[n(0)] Signed<Group>),
    /// A group was forgotten.
    #[n(5)]
    GroupDeleted {
        /// Whose.
        #[n(0)]
        by: Principal,
        /// Which.
        #[n(1)]
        name: GroupName,
    },
    /// A package was forgotten.
    #[n(6)]
    PackageDeleted {
        /// Whose.
        #[n(0)]
        by: Principal,
        /// Which.
        #[n(1)]
        package: Digest,
        /// With how many grants.
        #[n(2)]
        grants: u32,
    },
    /// A package's audience keys were replaced.
    #[n(7)]
    AudienceRotated {
        /// Whose.
        #[n(0)]
        by: Principal,
        /// Which.
        #[n(1)]
        package: Digest,
        /// The generation from then on.
        #[n(2)]
        generation: u32,
        /// First moment at which the key before opens nothing; `None`: now.
        #[n(3)]
        before_until: Option<Time>,
    },
    /// A principal was succeeded.
    #[n(8)]
    Succeeded(#[n(0)] Succeeded),
    /// A principal was forgotten.
    #[n(9)]
    Unregistered(#[n(0)] Principal),
    /// A runtime was given keys.
    #[n(10)]
    Leased {
        /// Of this package.
        #[n(0)]
        package: Digest,
        /// What its evidence proved.
        #[n(1)]
        code: CodeIdentity,
        /// Its evidence came from a software TEE.
        #[n(2)]
        simulated: bool,
        /// End of the lease.
        #[n(3)]
        until: Time,
        /// Its number.
        #[n(4)]
        lease: u64,
        /// What it reserved.
        #[cbor(n(5), decode_with = "wire::at_most::<GRANTS_PER_LEASE_MAX, _, _>")]
        allotments: Vec<Allotment>,
    },
    /// A runtime gave back what it did not use; that lease ended.
    #[n(11)]
    Returned {
        /// Of this package.
        #[n(0)]
        package: Digest,
        /// The lease.
        #[n(1)]
        lease: u64,
        /// What it did not use.
        #[cbor(n(2), decode_with = "wire::at_most::<GRANTS_PER_LEASE_MAX, _, _>")]
        unused: Vec<Allotment>,
    },
    /// The service's identity key was replaced.
    #[n(12)]
    IdentityRotated {
        /// By this administrator.
        #[n(0)]
        by: Principal,
        /// The old key's word, and the new one's.
        #[n(1)]
        succeeded: Succeeded,
    },
    /// Code of the key service may join.
    #[n(13)]
    CodeAdmitted {
        /// By the word of this administrator.
        #[n(0)]
        by: Principal,
        /// Which.
        #[n(1)]
        code: Measurement,
    },
    /// It may join no more, until it is admitted again, whoever else names it.
    #[n(14)]
    CodeWithdrawn {
        /// By the word of this administrator.
        #[n(0)]
        by: Principal,
        /// Which.
        #[n(1)]
        code: Measurement,
    },
    /// A new recovery key was shared; earlier shares are worth nothing.
    #[n(15)]
    SharesMade {
        /// By this administrator.
        #[n(0)]
        by: Principal,
        /// Who may fetch one.
        #[cbor(n(1), decode_with = "wire::at_most::<HOLDERS_MAX, _, _>")]
        holders: Vec<Principal>,
        /// How many are needed.
        #[n(2)]
        threshold: u8,
        /// One for each holder, in order.
        #[cbor(n(3), decode_with = "wire::at_most::<HOLDERS_MAX, _, _>")]
        shares: Vec<Share>,
    },
    /// The program began to serve.
    #[n(16)]
    Started(#[n(0)] Started),
    /// Holders of shares recovered an earlier log.
    #[n(17)]
    Recovered(#[n(0)] Recovered),
    /// Holders of shares go on from here in the next epoch: nothing of this one counts any more.
    #[n(18)]
    Closed,
    /// A runtime took hold of a function's state.
    #[n(19)]
    StateTaken {
        /// For this package.
        #[n(0)]
        package: Digest,
        /// Which.
        #[n(1)]
        capsule: CapsuleName,
        /// What its evidence proved.
        #[n(2)]
        code: Measurement,
        /// Its evidence came from a software TEE.
        #[n(3)]
        simulated: bool,
        /// Whom it writes as.
        #[n(4)]
        writer: WriterId,
        /// One more than that of the hold before; the first is 1.
        #[n(5)]
        token: u64,
        /// End of the hold.
        #[n(6)]
        until: Time,
        /// Of the heads that are anchored.
        #[n(7)]
        heads: Digest,
    },
    /// Its holder holds it for longer, or let go, and anchored heads.
    #[n(20)]
    StateAnchored {
        /// For this package.
        #[n(0)]
        package: Digest,
        /// Which.
        #[n(1)]
        capsule: CapsuleName,
        /// Of this hold.
        #[n(2)]
        token: u64,
        /// Its end from then on.
        #[n(3)]
        until: Time,
        /// Heads that are new.
        #[cbor(n(4), decode_with = "wire::at_most::<STATE_HEADS_MAX, _, _>")]
        heads: Vec<Head>,
        /// Writers whose heads are not kept any more.
        #[cbor(n(5), decode_with = "wire::at_most::<STATE_HEADS_MAX, _, _>")]
        covered: Vec<WriterId>,
        /// The holder let go: of the heads that are anchored from then on.
        #[n(6)]
        released: Option<Digest>,
    },
}

/// A start of the program. Two clones of one disk differ here, so only one of them can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Started {
    /// Random.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// The member's place in the group, from 0.
    #[n(1)]
    pub member: u8,
}

/// The most bytes of an entry: a lease with an allotment of each grant it can carry.
pub const ENTRY_BYTES_MAX: usize = 512 << 10;

const _: () = assert!(GRANTS_PER_LEASE_MAX * 48 + 1024 < ENTRY_BYTES_MAX);
const _: () = assert!(bield_grant::GROUP_BYTES_MAX + 1024 < ENTRY_BYTES_MAX);

impl Entry {
    /// Encodes the entry into a buffer that is wiped.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(self)
    }

    /// Decodes an entry.
    ///
    /// # Errors
    /// Malformed, longer than [`ENTRY_BYTES_MAX`], or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, ENTRY_BYTES_MAX)
    }

    /// As it stands in the audit of the principal whom it concerns, if it concerns one.
    pub(super) fn audited(&self, record: u64, at: Time) -> Option<AuditEntry> {
        let event = self.event()?;
        Some(AuditEntry { record, at, event })
    }

    fn event(&self) -> Option<AuditEvent> {
        Some(match self {
            Self::Registered(_) => AuditEvent::Registered,
            Self::PackagePut { header, .. } => {
                let (digest, header) = super::kept::package(header)?;
                let (name, version) = (header.name.to_string(), header.version.to_string());
                AuditEvent::PackagePut(digest, name, version)
            }
            Self::Granted(grant) => {
                let says: Grant = super::kept::says(grant.as_bytes())?;
                AuditEvent::Granted(GrantId(says.id), super::kept::digest(grant.as_bytes()))
            }
            Self::Revoked { ids, .. } => AuditEvent::Revoked(ids.clone()),
            Self::GroupPut(group) => {
                let says: Group = super::kept::says(group.as_bytes())?;
                let members = u32::try_from(says.members().len()).ok()?;
                AuditEvent::GroupPut(says.name().to_string(), says.revision(), members)
            }
            Self::GroupDeleted { name, .. } => AuditEvent::GroupDeleted(name.to_string()),
            Self::PackageDeleted {
                package, grants, ..
            } => AuditEvent::PackageDeleted(*package, *grants),
            Self::AudienceRotated {
                package,
                generation,
                before_until,
                ..
            } => AuditEvent::AudienceRotated(*package, *generation, before_until.is_none()),
            Self::Succeeded(succeeded) => {
                let says: bield_grant::Succession = super::kept::says(succeeded.by_old.as_bytes())?;
                AuditEvent::Succeeded(says.to)
            }
            Self::Unregistered(_) | Self::Started(_) | Self::Recovered(_) | Self::Closed => {
                return None;
            }
            Self::Leased {
                package,
                code,
                simulated,
                until,
                lease,
                allotments,
            } => AuditEvent::Leased {
                package: *package,
                code: code.measurement.clone(),
                simulated: *simulated,
                until: *until,
                lease: *lease,
                allotments: allotments.clone(),
            },
            Self::Returned { lease, unused, .. } => AuditEvent::Returned {
                lease: *lease,
                unused: unused.clone(),
            },
            Self::StateTaken {
                package,
                capsule,
                code,
                simulated,
                writer,
                token,
                heads,
                ..
            } => AuditEvent::StateTaken {
                package: *package,
                capsule: *capsule,
                code: code.clone(),
                simulated: *simulated,
                writer: *writer,
                token: *token,
                heads: *heads,
            },
            // Not each time it is held for longer: an audit is kept for ever.
            Self::StateAnchored {
                capsule,
                token,
                released,
                ..
            } => AuditEvent::StateReleased {
                capsule: *capsule,
                token: *token,
                heads: (*released)?,
            },
            Self::IdentityRotated { succeeded, .. } => {
                let says: bield_grant::Succession = super::kept::says(succeeded.by_old.as_bytes())?;
                AuditEvent::IdentityRotated(says.to)
            }
            Self::CodeAdmitted { code, .. } => AuditEvent::CodeAdmitted(code.clone()),
            Self::CodeWithdrawn { code, .. } => AuditEvent::CodeWithdrawn(code.clone()),
            Self::SharesMade {
                holders, threshold, ..
            } => AuditEvent::SharesMade(holders.clone(), *threshold),
        })
    }
}
