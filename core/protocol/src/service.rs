//! What the key service is asked, inside an attested session.
//!
//! Commands of people are statements signed by their principal and bound to the session and to a
//! counter in it, so that none can be replayed, moved to another session or given another meaning.
//! Runtimes need no signature: the session itself proves their code. A secret that belongs to a command
//! (a package key, a share) travels beside it; the command commits to it.

use bield_capsule::{CapsuleName, WriterCertificate, WriterId};
use bield_envelope::{
    AudiencePublicKey, Digest, Principal, Secret, Signed, Statement, Time, transport, wire,
};
use bield_evidence::Measurement;
pub use bield_grant::Allotment;
use bield_grant::{CodeIdentity, CodeSelector, Grant, Group, Lease, Succeeded};
use bield_package::PackageHeader;
use bield_package::tensor::TensorSpec;
use bield_receipt::WorkerCertificate;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::inference::TENSORS_MAX;
use crate::refusal::Refusal;

pub use crate::audit::{
    AUDIT_PAGE_MAX, AUDIT_START, AuditEntry, AuditEvent, AuditPage, RefusedLease, chained,
};
#[cfg(feature = "played")]
pub use crate::freshness::PlayedLog;
pub use crate::freshness::{
    Freshness, LogHead, NotContinued, PROOF_HASHES_MAX, RECOVERIES_MAX, Recovered,
};
pub use crate::listing::{
    GrantRow, GroupRow, Listing, ListingPage, PackageRow, PrincipalRow, ROWS_MAX,
};
pub use crate::recovery::{SHARE_BYTES_MAX, Share, ShareProgress};
pub use crate::states::{
    Anchors, HeldState, STATE_HEADS_MAX, STATE_HOLD_SECS, StateAct, StateRequest,
};

/// One message to the key service.
#[derive(Encode, Decode)]
#[non_exhaustive]
pub enum Request {
    /// A principal's command that carries no secret.
    #[n(0)]
    Command(#[n(0)] Signed<Command>),
    /// The command [`Operation::PutPackage`] and the key it commits to.
    #[n(1)]
    PutPackage(
        #[n(0)] Signed<Command>,
        #[cbor(n(1), with = "transport")] Secret,
    ),
    /// Anyone: the key to seal requests to, for code that the asking user chooses. Among the code that
    /// the choice allows, the package's owner grants and a runtime has proved lately, the service names
    /// the newest.
    #[n(2)]
    KeyConfiguration(#[n(0)] PackageReference, #[n(1)] CodeSelector),
    /// A runtime: the keys of one package, for the code this session's evidence proves.
    #[n(3)]
    Lease(#[n(0)] LeaseRequest),
    /// A runtime: a certificate for its signing key.
    #[n(4)]
    Certify(#[n(0)] Principal),
    /// Anyone: how the service is.
    #[n(5)]
    Inspect,
    /// A program with evidence: a certificate for the key it will write to a capsule with. Which
    /// code may write there is for the capsule's owner to say, in the capsule's configuration.
    #[n(6)]
    CertifyWriter(#[n(0)] CapsuleName, #[n(1)] WriterId),
    /// Anyone: the newest checkpoint, and the proof that it continues the one the caller kept (a signed
    /// note, at most [`CHECKPOINT_BYTES_MAX`]). A kept checkpoint that the service signed and cannot
    /// continue ends its service: its state was rolled back or forked.
    #[n(7)]
    Freshness(#[n(0)] Option<String>),
    /// The command [`Operation::GiveShare`] and the share it commits to.
    #[n(8)]
    GiveShare(#[n(0)] Signed<Command>, #[n(1)] Share),
    /// A runtime that stops, or whose lease lapsed unused: what it did not use, without a new lease. Answer:
    /// [`Reply::Done`].
    #[n(9)]
    Return(#[n(0)] Returned),
    /// A runtime: holds a function's state, anchors heads of it, or lets go. Answer: [`Reply::State`].
    #[n(10)]
    State(#[n(0)] StateRequest),
}

/// How a user names a package: exactly, or by its owner's name for it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum PackageReference {
    /// This package and no other.
    #[n(0)]
    Digest(#[n(0)] Digest),
    /// What this owner calls so; the newest registered when no version is named. Names are per owner:
    /// nobody else can take one over.
    #[n(1)]
    Named(#[n(0)] Principal, #[n(1)] String, #[n(2)] Option<String>),
}

/// A principal's command.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Command {
    /// The session it is meant for (`Session::binding`).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub session: [u8; 32],
    /// Counts commands in that session from 0; each number once, in order.
    #[n(1)]
    pub sequence: u64,
    /// What to do.
    #[n(2)]
    pub operation: Operation,
}

impl Statement for Command {
    const DOMAIN: &'static str = "bield command v1";
    const BYTES_MAX: usize = 1 << 20;
}

/// What a principal can order. Changes answer [`Reply::Done`]; what only asks says its own reply.
#[derive(Debug, Clone, Encode, Decode)]
#[non_exhaustive]
pub enum Operation {
    /// Make the signer known to the service.
    #[n(0)]
    Register,
    /// Register a package the signer owns. The key travels beside the command.
    #[n(1)]
    PutPackage(#[n(0)] PackageOffer),
    /// Register a grant the signer made.
    #[n(2)]
    Grant(#[n(0)] Signed<Grant>),
    /// End grants of the signer, named by their ids, at most [`REVOKED_AT_ONCE_MAX`]; all or none.
    #[n(3)]
    Revoke(#[cbor(n(0), decode_with = "wire::at_most::<REVOKED_AT_ONCE_MAX, _, _>")] Vec<GrantId>),
    /// Register a group of the signer, or a newer revision of it.
    #[n(4)]
    PutGroup(#[n(0)] Signed<Group>),
    /// Forget a group of the signer: grants to it admit nobody from then on.
    #[n(5)]
    DeleteGroup(#[n(0)] String),
    /// Forget a package of the signer with its key; grants for exactly this package go with it.
    #[n(6)]
    DeletePackage(#[n(0)] Digest),
    /// Replace the key that requests for a package of the signer are sealed to, for all code. Requests
    /// sealed to the one before are still opened for as long as its last key configuration holds, unless
    /// `at_once`.
    #[n(7)]
    RotateAudience {
        /// The package.
        #[n(0)]
        package: Digest,
        /// Refuse requests sealed to the key before from now on.
        #[n(1)]
        at_once: bool,
    },
    /// Replace the signer's key by another: packages, grants and groups are the successor's from then on,
    /// and the old key can order nothing any more.
    #[n(8)]
    Succeed(#[n(0)] Succeeded),
    /// Forget the signer, who must own no package and no group. Grants that name it stay as they are.
    #[n(9)]
    Unregister,
    /// Ask what the signer has here, or what others granted it. Answer: [`Reply::Listing`].
    #[n(10)]
    List(#[n(0)] Listing),
    /// Ask for the signer's audit from entry `from` on (counted from 0). Answer: [`Reply::Audit`].
    #[n(11)]
    Audit {
        /// First entry wanted.
        #[n(0)]
        from: u64,
    },
    /// Administrators: replace the key that signs workers' certificates. The old one signs the new.
    #[n(12)]
    RotateIdentity,
    /// Administrators: let key-service code of another measurement join and receive the state.
    #[n(13)]
    AdmitCode(#[n(0)] Measurement),
    /// Administrators: such code may not join, or not any more, even where a member's configuration names it.
    #[n(14)]
    WithdrawCode(#[n(0)] Measurement),
    /// Administrators: share a new recovery key among `holders`, any `threshold` of whom can recover.
    /// Earlier shares are worth nothing from then on.
    #[n(15)]
    MakeShares {
        /// Who may fetch a share; at most [`HOLDERS_MAX`], each once.
        #[cbor(n(0), decode_with = "wire::at_most::<HOLDERS_MAX, _, _>")]
        holders: Vec<Principal>,
        /// How many are needed: 2 to the number of holders (1 is allowed for a single holder).
        #[n(1)]
        threshold: u8,
    },
    /// Holders: fetch the signer's share. Answer: [`Reply::Share`].
    #[n(16)]
    TakeShare,
    /// Holders: give the share that travels beside, to a service that waits for recovery, or as a
    /// rehearsal to one that runs. Answer: [`Reply::ShareProgress`].
    #[n(17)]
    GiveShare {
        /// [`Share::commitment`] of the share beside.
        #[n(0)]
        share: Digest,
        /// Only check that the shares given open the recovery box; forget them.
        #[n(1)]
        rehearse: bool,
    },
}

/// A grant's random name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct GrantId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// What an owner registers with a package's key.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct PackageOffer {
    /// The package's public header, signed by its owner.
    #[n(0)]
    pub header: Signed<PackageHeader>,
    /// What a request must supply.
    #[cbor(n(1), decode_with = "wire::at_most::<TENSORS_MAX, _, _>")]
    pub inputs: Vec<TensorSpec>,
    /// What an answer holds.
    #[cbor(n(2), decode_with = "wire::at_most::<TENSORS_MAX, _, _>")]
    pub outputs: Vec<TensorSpec>,
    /// [`key_commitment`] of the key that travels beside.
    #[n(3)]
    pub key: Digest,
}

/// Commits to a package key without showing it; a 256-bit random key cannot be guessed from it.
#[must_use]
pub fn key_commitment(key: &Secret) -> Digest {
    Digest::of("bield package key commitment v1", &[key.expose()])
}

/// What a runtime asks for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LeaseRequest {
    /// The package whose keys it wants.
    #[n(0)]
    pub package: Digest,
    /// What was not used of the allotments of an earlier lease, which ends with this.
    #[n(1)]
    pub returned: Option<Returned>,
}

/// What a lease was allotted and did not use. Each lease returns once; later ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Returned {
    /// The lease ([`Lease::id`]).
    #[n(0)]
    pub lease: u64,
    /// What is left of each allotment.
    #[cbor(n(1), decode_with = "wire::at_most::<GRANTS_PER_LEASE_MAX, _, _>")]
    pub unused: Vec<Allotment>,
}

/// One answer of the key service.
#[derive(Encode, Decode)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to the wire"
)]
pub enum Reply {
    /// Done and durable: the size of the log that contains it.
    #[n(0)]
    Done(#[n(0)] u64),
    /// The key to seal requests to.
    #[n(1)]
    KeyConfiguration(#[n(0)] KeyConfiguration),
    /// Keys for a runtime.
    #[n(2)]
    Lease(#[n(0)] LeasedKeys),
    /// A certificate for a runtime's signing key.
    #[n(3)]
    Certificate(#[n(0)] Signed<WorkerCertificate>),
    /// How the service is.
    #[n(4)]
    Inspection(#[n(0)] Inspection),
    /// No.
    #[n(5)]
    Refused(#[n(0)] Refusal),
    /// A certificate for a writer of a capsule.
    #[n(6)]
    WriterCertificate(#[n(0)] Signed<WriterCertificate>),
    /// The newest checkpoint and its proof.
    #[n(7)]
    Freshness(#[n(0)] Freshness),
    /// What was asked for by [`Operation::List`].
    #[n(8)]
    Listing(#[n(0)] ListingPage),
    /// What was asked for by [`Operation::Audit`].
    #[n(9)]
    Audit(#[n(0)] AuditPage),
    /// The holder's share.
    #[n(10)]
    Share(#[n(0)] Share),
    /// How far recovery, or its rehearsal, is.
    #[n(11)]
    ShareProgress(#[n(0)] ShareProgress),
    /// A function's state, held by whom this is said to; after a release, not any more.
    #[n(12)]
    State(#[n(0)] HeldState),
}

/// What a user needs to seal requests for one package and one code.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyConfiguration {
    /// `bield_grant::audience(package, code)`.
    #[n(0)]
    pub audience: Digest,
    /// The package.
    #[n(1)]
    pub package: Digest,
    /// The only code that gets the private half, as its evidence says.
    #[n(2)]
    pub code: CodeIdentity,
    /// Seal to this.
    #[n(3)]
    pub key: AudiencePublicKey,
    /// Do not seal to it after this time; ask again.
    #[n(4)]
    pub not_after: Time,
    /// The package's owner.
    #[n(5)]
    pub owner: Principal,
    /// The owner's name for it.
    #[n(6)]
    pub name: String,
    /// The owner's version of it.
    #[n(7)]
    pub version: String,
    /// What a request must supply.
    #[n(8)]
    pub inputs: Vec<TensorSpec>,
    /// What an answer holds.
    #[n(9)]
    pub outputs: Vec<TensorSpec>,
    /// Who signs workers' certificates: the anchor of receipts.
    #[n(10)]
    pub service: Principal,
    /// When the owner rotates the key, this counts up from 0.
    #[n(11)]
    pub generation: u32,
}

/// The keys of one package for one runtime, until the lease ends. Holds secrets: encode with
/// [`Reply::encode`] only.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct LeasedKeys {
    /// What was admitted: package, owner, the runtime's own code, the end.
    #[n(0)]
    pub lease: Lease,
    /// Opens the package.
    #[cbor(n(1), with = "transport")]
    pub package_key: Secret,
    /// Open requests; the current one first, then those that still hold after a rotation.
    #[cbor(n(2), decode_with = "wire::at_most::<AUDIENCE_KEYS_MAX, _, _>")]
    pub audience_keys: Vec<LeasedAudienceKey>,
    /// The owner's grants that can matter during the lease.
    #[cbor(n(3), decode_with = "wire::at_most::<GRANTS_PER_LEASE_MAX, _, _>")]
    pub grants: Vec<Signed<Grant>>,
    /// When the service issued it, by the service's clock.
    #[n(4)]
    pub issued: Time,
    /// The groups those grants name.
    #[cbor(n(5), decode_with = "wire::at_most::<GROUPS_PER_LEASE_MAX, _, _>")]
    pub groups: Vec<Signed<Group>>,
    /// Successions of the principals those grants and groups name, and of the owner.
    #[cbor(n(6), decode_with = "wire::at_most::<GRANTS_PER_LEASE_MAX, _, _>")]
    pub successions: Vec<Succeeded>,
    /// What metered grants may admit under this lease; a metered grant that is not listed admits nothing.
    #[cbor(n(7), decode_with = "wire::at_most::<GRANTS_PER_LEASE_MAX, _, _>")]
    pub allotments: Vec<Allotment>,
}

/// A key that opens requests, and until when.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct LeasedAudienceKey {
    /// Seed of an [`AudienceKey`](bield_envelope::AudienceKey).
    #[cbor(n(0), with = "transport")]
    pub seed: Secret,
    /// First moment at which it opens nothing any more; `None` while it is the current one.
    #[n(1)]
    pub not_after: Option<Time>,
}

/// How the key service is; counts only.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Inspection {
    /// Registered principals.
    #[n(0)]
    pub principals: u64,
    /// Registered packages.
    #[n(1)]
    pub packages: u64,
    /// Registered grants, expired ones included.
    #[n(2)]
    pub grants: u64,
    /// Who signs workers' certificates.
    #[n(3)]
    pub service: Principal,
    /// One word: `serving`, `following`, `forming`, `recovering`, `stopped`.
    #[n(4)]
    pub state: String,
    /// Records in the log.
    #[n(5)]
    pub size: u64,
    /// The log's verifier key, to give to witnesses (`<origin>+<hash>+<key>`).
    #[n(6)]
    pub log: String,
    /// Witnesses that cosign each record, and how many must.
    #[n(7)]
    pub witnesses: (u8, u8),
    /// Key-service instances that share the log.
    #[n(8)]
    pub members: u8,
    /// Recovery shares: holders and threshold of the newest generation, `None` when nobody could recover.
    #[n(9)]
    pub shares: Option<(u8, u8)>,
    /// How long a lease lasts at most, in seconds: a revocation takes effect within this.
    #[n(10)]
    pub lease_secs: u32,
    /// Why it does not serve, when it does not.
    #[n(11)]
    pub trouble: Option<String>,
}

impl Request {
    /// Encodes the message into a buffer that is wiped.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(self)
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// Malformed or longer than [`MESSAGE_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, MESSAGE_BYTES_MAX)
    }
}

impl Reply {
    /// Encodes the message into a buffer that is wiped.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        wire::encode_secret(self)
    }

    /// Decodes a message.
    ///
    /// # Errors
    /// Malformed or longer than [`MESSAGE_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, MESSAGE_BYTES_MAX)
    }
}

/// The most bytes of one message: a lease with [`GRANTS_PER_LEASE_MAX`] grants of under 700 bytes.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// The most grants one lease carries.
pub const GRANTS_PER_LEASE_MAX: usize = 8_000;
/// The most groups one lease carries.
pub const GROUPS_PER_LEASE_MAX: usize = 8;
/// The most keys of one audience at a time: the current one and those before it that still hold.
pub const AUDIENCE_KEYS_MAX: usize = 8;
/// The most grants that one command revokes.
pub const REVOKED_AT_ONCE_MAX: usize = 4096;
/// The most holders of recovery shares.
pub const HOLDERS_MAX: usize = 16;
/// The most bytes of a checkpoint with its signatures.
pub const CHECKPOINT_BYTES_MAX: usize = 8 << 10;

const _: () = assert!(GRANTS_PER_LEASE_MAX * 700 < MESSAGE_BYTES_MAX);
