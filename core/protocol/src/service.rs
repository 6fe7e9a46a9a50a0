//! What the key service is asked, inside an attested session.
//!
//! Commands of people are statements signed by their principal and bound to the session and to a
//! counter in it, so that none can be replayed, moved to another session or given another meaning.
//! Runtimes need no signature: the session itself proves their code.

use bield_capsule::{CapsuleName, WriterCertificate, WriterId};
use bield_envelope::{
    AudiencePublicKey, Digest, Principal, Secret, Signed, Statement, Time, transport, wire,
};
use bield_evidence::Measurement;
use bield_grant::{Grant, Lease};
use bield_package::PackageHeader;
use bield_package::tensor::TensorSpec;
use bield_receipt::WorkerCertificate;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::inference::TENSORS_MAX;
use crate::refusal::Refusal;

/// One message to the key service.
#[derive(Encode, Decode)]
#[non_exhaustive]
pub enum Request {
    /// A principal's command that carries no key.
    #[n(0)]
    Command(#[n(0)] Signed<Command>),
    /// The command [`Operation::PutPackage`] and the key it commits to.
    #[n(1)]
    PutPackage(
        #[n(0)] Signed<Command>,
        #[cbor(n(1), with = "transport")] Secret,
    ),
    /// Anyone: the key to seal requests to.
    #[n(2)]
    KeyConfiguration(#[n(0)] PackageReference, #[n(1)] Measurement),
    /// A runtime: the keys of one package, for the code this session's evidence proves.
    #[n(3)]
    Lease(#[n(0)] Digest),
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

/// What a principal can order.
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
}

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

/// One answer of the key service.
#[derive(Encode, Decode)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on its way to the wire"
)]
pub enum Reply {
    /// Done and durable.
    #[n(0)]
    Done,
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
    /// The only code that gets the private half.
    #[n(2)]
    pub code: Measurement,
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
    /// Opens requests ([`AudienceKey`](bield_envelope::AudienceKey) seed).
    #[cbor(n(2), with = "transport")]
    pub audience_key: Secret,
    /// The owner's grants that can matter during the lease.
    #[cbor(n(3), decode_with = "wire::at_most::<GRANTS_PER_LEASE_MAX, _, _>")]
    pub grants: Vec<Signed<Grant>>,
    /// When the service issued it, by the service's clock.
    #[n(4)]
    pub issued: Time,
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
pub const GRANTS_PER_LEASE_MAX: usize = 10_000;

const _: () = assert!(GRANTS_PER_LEASE_MAX * 700 < MESSAGE_BYTES_MAX);
