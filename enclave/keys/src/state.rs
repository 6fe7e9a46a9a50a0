//! What the key service knows: principals, packages with their keys, grants; and one root secret.
//!
//! Pure: a change is checked and applied in memory and returns how to undo it, for the case that it
//! cannot be made durable. The service's identity and every audience key derive from the root, so
//! reading never writes.

use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{AudienceKey, Digest, Principal, Secret, Signed, SigningKey, Time, Verified};
use bield_envelope::{transport, wire};
use bield_evidence::Measurement;
use bield_grant::{Grant, audience};
use bield_package::PackageHeader;
use bield_package::tensor::TensorSpec;
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{GRANTS_PER_LEASE_MAX, PackageReference};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The most bytes of an encoded state: it is sealed again, as a whole, at each change. A change beyond
/// it is refused; what was accepted always opens again.
pub const STATE_BYTES_MAX: usize = 64 << 20;
/// The most principals.
pub const PRINCIPALS_MAX: usize = 10_000;
/// The most packages.
pub const PACKAGES_MAX: usize = 10_000;
/// The most grants of all packages together.
pub const GRANTS_MAX: usize = 50_000;

// Sealed, the largest state still fits the host's storage; the seal adds 53 bytes.
const _: () = assert!(STATE_BYTES_MAX as u64 + 64 <= bield_protocol::visit::storage::BYTES_MAX);

/// Everything the service must not forget.
pub struct State {
    root: Secret,
    principals: BTreeSet<Principal>,
    packages: BTreeMap<Digest, Package>,
    grants: usize,
}

/// A registered package.
pub(crate) struct Package {
    pub(crate) header: Verified<PackageHeader>,
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
    pub(crate) key: Secret,
    pub(crate) grants: Vec<Verified<Grant>>,
    /// Counts registrations, so that "newest" does not depend on a clock.
    registered: u64,
}

/// A change that was asked for and not applied yet.
pub enum Change {
    /// Make a principal known.
    Register(Principal),
    /// Register a package; the header's signature was checked.
    PutPackage {
        /// The owner's word for it.
        header: Verified<PackageHeader>,
        /// What a request must supply.
        inputs: Vec<TensorSpec>,
        /// What an answer holds.
        outputs: Vec<TensorSpec>,
        /// Opens it.
        key: Secret,
    },
    /// Register a grant; its signature was checked.
    Grant(Verified<Grant>),
}

/// How to take an applied change back.
#[must_use = "a change that cannot be made durable must be undone"]
pub enum Undo {
    /// The change was there already; nothing changed.
    Nothing,
    /// Forget this principal.
    Principal(Principal),
    /// Forget this package.
    Package(Digest),
    /// Forget this package's last grant.
    LastGrant(Digest),
}

impl State {
    /// A service that knows nobody yet.
    #[must_use]
    pub fn new(entropy: &mut impl CryptoRng) -> Self {
        Self {
            root: Secret::generate(entropy),
            principals: BTreeSet::new(),
            packages: BTreeMap::new(),
            grants: 0,
        }
    }

    /// The key that signs workers' certificates.
    #[must_use]
    pub fn identity(&self) -> SigningKey {
        SigningKey::from_seed(self.root.derive("bield key service identity v1", &[]))
    }

    /// The key pair of an audience.
    #[must_use]
    pub fn audience_key(&self, package: Digest, code: &Measurement) -> AudienceKey {
        let audience = audience(package, code);
        let context: &[&[u8]] = &[audience.as_bytes()];
        AudienceKey::from_seed(self.root.derive("bield audience key v1", context))
    }

    /// How many principals, packages and grants there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.principals.len(), self.packages.len(), self.grants)
    }

    pub(crate) fn package(&self, package: Digest) -> Result<&Package, Refusal> {
        self.packages
            .get(&package)
            .ok_or_else(|| unknown_package(&package))
    }

    /// Finds the package a user names.
    pub(crate) fn resolve(&self, named: &PackageReference) -> Result<Digest, Refusal> {
        let (owner, name, version) = match named {
            PackageReference::Digest(digest) => return self.package(*digest).map(|_| *digest),
            PackageReference::Named(owner, name, version) => (owner, name, version),
            _ => {
                return Err(Refusal::new(
                    "unsupported",
                    "package reference of another version",
                    Retry::Never,
                ));
            }
        };
        let of_owner = self
            .packages
            .iter()
            .filter(|(_, package)| package.header.owner == *owner);
        let of_name = of_owner.filter(|(_, package)| {
            package.header.name.as_str() == name
                && version
                    .as_ref()
                    .is_none_or(|version| package.header.version.as_str() == version)
        });
        of_name
            .max_by_key(|(_, package)| package.registered)
            .map(|(digest, _)| *digest)
            .ok_or_else(|| {
                let version = version
                    .as_ref()
                    .map_or_else(String::new, |version| format!("@{version}"));
                let message = format!(
                    "{owner} has no package called {name}{version} here; its owner must register it"
                );
                Refusal::new("unknown-package", message, Retry::AfterChange)
            })
    }

    /// Checks and applies a change ordered by `by`.
    ///
    /// # Errors
    /// Why this principal cannot order this now. Nothing changed then.
    pub fn apply(&mut self, by: Principal, change: Change, now: Time) -> Result<Undo, Refusal> {
        if !matches!(change, Change::Register(_)) && !self.principals.contains(&by) {
            let message = format!("{by} is not registered with this key service; register first");
            return Err(Refusal::new("not-registered", message, Retry::AfterChange));
        }
        match change {
            Change::Register(principal) => self.register(by, principal),
            Change::PutPackage {
                header,
                inputs,
                outputs,
                key,
            } => {
                let digest = PackageHeader::package(&header);
                self.put_package(
                    by,
                    digest,
                    Package {
                        header,
                        inputs,
                        outputs,
                        key,
                        grants: Vec::new(),
                        registered: self.packages.len() as u64,
                    },
                )
            }
            Change::Grant(grant) => self.grant(by, grant, now),
        }
    }

    /// Takes back what [`State::apply`] did.
    pub fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Nothing => {}
            Undo::Principal(principal) => {
                self.principals.remove(&principal);
            }
            Undo::Package(digest) => {
                self.packages.remove(&digest);
            }
            Undo::LastGrant(package) => {
                if let Some(package) = self.packages.get_mut(&package) {
                    self.grants -= usize::from(package.grants.pop().is_some());
                }
            }
        }
    }

    fn register(&mut self, by: Principal, principal: Principal) -> Result<Undo, Refusal> {
        if by != principal {
            let message = format!("{by} cannot register {principal}; a principal registers itself");
            return Err(Refusal::new("other-principal", message, Retry::Never));
        }
        if self.principals.contains(&principal) {
            return Ok(Undo::Nothing);
        }
        room(self.principals.len(), PRINCIPALS_MAX, "principals")?;
        self.principals.insert(principal);
        Ok(Undo::Principal(principal))
    }

    fn put_package(
        &mut self,
        by: Principal,
        digest: Digest,
        package: Package,
    ) -> Result<Undo, Refusal> {
        if package.header.owner != by || package.header.signer() != by {
            let message = format!("{by} does not own package {digest}; its owner must register it");
            return Err(Refusal::new("not-owner", message, Retry::Never));
        }
        if let Some(known) = self.packages.get(&digest) {
            if same_key(&known.key, &package.key) {
                return Ok(Undo::Nothing);
            }
            let message = format!("package {digest} is registered with another key; pack it anew");
            return Err(Refusal::new("package-key-differs", message, Retry::Never));
        }
        room(self.packages.len(), PACKAGES_MAX, "packages")?;
        self.packages.insert(digest, package);
        Ok(Undo::Package(digest))
    }

    fn grant(&mut self, by: Principal, grant: Verified<Grant>, now: Time) -> Result<Undo, Refusal> {
        let all = self.grants;
        let package = self
            .packages
            .get_mut(&grant.package)
            .ok_or_else(|| unknown_package(&grant.package))?;
        if package.header.owner != by || grant.signer() != by {
            let message = format!("only the owner of package {} can grant it", grant.package);
            return Err(Refusal::new("not-owner", message, Retry::Never));
        }
        if grant.not_after <= now || grant.not_after <= grant.not_before {
            let message = format!(
                "the grant ended at {}, it is {now}; make a new one",
                grant.not_after
            );
            return Err(Refusal::new("grant-expired", message, Retry::Never));
        }
        if package
            .grants
            .iter()
            .any(|known| known.digest() == grant.digest())
        {
            return Ok(Undo::Nothing);
        }
        room(all, GRANTS_MAX, "grants")?;
        room(
            package.grants.len(),
            GRANTS_PER_LEASE_MAX,
            "grants of one package",
        )?;
        let digest = grant.package;
        package.grants.push(grant);
        self.grants += 1;
        Ok(Undo::LastGrant(digest))
    }

    /// Encodes the state, keys included, into a buffer that is wiped.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let packages = self.packages.values().map(|package| StoredPackage {
            header: package.header.as_signed().clone(),
            inputs: package.inputs.clone(),
            outputs: package.outputs.clone(),
            key: Secret::from_bytes(*package.key.expose()),
            grants: package
                .grants
                .iter()
                .map(|grant| grant.as_signed().clone())
                .collect(),
            registered: package.registered,
        });
        wire::encode_secret(&Stored {
            root: Secret::from_bytes(*self.root.expose()),
            principals: self.principals.iter().copied().collect(),
            packages: packages.collect(),
        })
    }

    /// Decodes what [`State::encode`] gave; every signature is checked again.
    ///
    /// # Errors
    /// `None` when it is not a state of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = wire::decode(bytes, STATE_BYTES_MAX).ok()?;
        let mut state = Self {
            root: stored.root,
            principals: stored.principals.into_iter().collect(),
            packages: BTreeMap::new(),
            grants: 0,
        };
        for stored in stored.packages {
            let header = stored.header.verify_claimed().ok()?;
            let owner = header.owner;
            let grants: Option<Vec<_>> = stored
                .grants
                .into_iter()
                .map(|grant| grant.verify(&owner).ok())
                .collect();
            let package = Package {
                inputs: stored.inputs,
                outputs: stored.outputs,
                key: stored.key,
                grants: grants?,
                registered: stored.registered,
                header,
            };
            state.grants += package.grants.len();
            state
                .packages
                .insert(PackageHeader::package(&package.header), package);
        }
        Some(state)
    }
}

fn same_key(left: &Secret, right: &Secret) -> bool {
    left.ct_eq(right).into()
}

fn room(have: usize, max: usize, what: &str) -> Result<(), Refusal> {
    if have < max {
        return Ok(());
    }
    let message = format!("this key service holds its {max} {what}; its operator must make room");
    Err(Refusal::new("full", message, Retry::AfterChange))
}

fn unknown_package(digest: &Digest) -> Refusal {
    let message = format!("package {digest} is not registered here; its owner must register it");
    Refusal::new("unknown-package", message, Retry::AfterChange)
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Stored {
    #[cbor(n(0), with = "transport")]
    root: Secret,
    #[n(1)]
    principals: Vec<Principal>,
    #[n(2)]
    packages: Vec<StoredPackage>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct StoredPackage {
    #[n(0)]
    header: Signed<PackageHeader>,
    #[n(1)]
    inputs: Vec<TensorSpec>,
    #[n(2)]
    outputs: Vec<TensorSpec>,
    #[cbor(n(3), with = "transport")]
    key: Secret,
    #[n(4)]
    grants: Vec<Signed<Grant>>,
    #[n(5)]
    registered: u64,
}
