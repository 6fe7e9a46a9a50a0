//! One package inside one code, as the attested key service named it and this client checked it.
//!
//! Always true: the audience follows from package and code; the code is one that the client's list
//! selects (of code chosen by its signer, who signed what is the attested service's word); the
//! package is the one asked for (by digest, or by owner, name and perhaps version); the anchor of
//! receipts is the service that proved itself; the key has not ended and ends within
//! [`KEY_TIME_MAX`]. So sealing to it reaches that code and no other. The key itself, what a package
//! asked for by digest is called and whose it is, and its tensors are the attested service's word.

use std::time::Duration;

use bield_envelope::{Digest, Principal, Time};
use bield_evidence::{Measurement, Reference};
use bield_grant::CodeSelector;
use bield_protocol::service::{KeyConfiguration, PackageReference};
use bield_protocol::tensor::TensorSpec;
use bield_receipt::Anchor;

use crate::{Gateway, TargetError, Trust};

/// Longest time from now until a key's end that is believed: services say an hour, and a client must
/// come back to learn of a revocation.
pub(crate) const KEY_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where and to whom calls go; made by [`KeyService::target`](crate::KeyService::target) only.
pub struct Target {
    pub(crate) named: KeyConfiguration,
    pub(crate) anchor: Anchor,
    pub(crate) gateway: Gateway,
}

impl Target {
    /// Compares what the service named with what was asked, where that says something.
    pub(crate) fn verify(
        named: KeyConfiguration,
        package: &PackageReference,
        code: &CodeSelector,
        service: Principal,
        trust: &Trust,
        now: Time,
    ) -> Result<Self, TargetError> {
        if !code.admits(&named.code) {
            return Err(TargetError::OtherCode {
                expected: code.clone(),
                found: named.code.measurement,
            });
        }
        let measurement = named.code.measurement.clone();
        if !is_asked(&named, package) {
            return Err(TargetError::OtherPackage {
                expected: describe(package),
                found: format!("{}@{} of {}", named.name, named.version, named.owner),
            });
        }
        if named.audience != bield_grant::audience(named.package, &measurement) {
            return Err(TargetError::OtherAudience {
                found: named.audience,
            });
        }
        if named.service != service {
            return Err(TargetError::OtherService {
                expected: service,
                found: named.service,
            });
        }
        let not_after = named.not_after;
        if not_after > now.plus(KEY_TIME_MAX) {
            return Err(TargetError::EndsTooLate { not_after, now });
        }
        let anchor = Anchor {
            service,
            code: Reference::Listed(vec![measurement]),
            allow_simulated: trust.allows_simulated(),
            hardening: trust.runtime_hardening().clone(),
        };
        let gateway = Gateway::new(trust.gateway());
        let target = Self {
            named,
            anchor,
            gateway,
        };
        target.check_end(now).map(|()| target)
    }

    /// Refuses a key that has ended.
    pub(crate) fn check_end(&self, now: Time) -> Result<(), TargetError> {
        let not_after = self.named.not_after;
        if now >= not_after {
            return Err(TargetError::Ended { not_after, now });
        }
        Ok(())
    }

    /// The package.
    #[must_use]
    pub const fn package(&self) -> Digest {
        self.named.package
    }

    /// The only code that can open what is sealed to this target.
    #[must_use]
    pub const fn code(&self) -> &Measurement {
        &self.named.code.measurement
    }

    /// Who owns the package.
    #[must_use]
    pub const fn owner(&self) -> Principal {
        self.named.owner
    }

    /// The owner's name for the package.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.named.name
    }

    /// The owner's version of the package.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.named.version
    }

    /// What a call must supply.
    #[must_use]
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.named.inputs
    }

    /// What an answer can hold.
    #[must_use]
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.named.outputs
    }

    /// When this target ends; ask the key service again before.
    #[must_use]
    pub const fn not_after(&self) -> Time {
        self.named.not_after
    }
}

fn is_asked(named: &KeyConfiguration, package: &PackageReference) -> bool {
    match package {
        PackageReference::Digest(digest) => named.package == *digest,
        PackageReference::Named(owner, name, version) => {
            let same_version = version
                .as_ref()
                .is_none_or(|version| named.version == *version);
            named.owner == *owner && named.name == *name && same_version
        }
        // A kind of reference that this version does not know is not compared, hence not used.
        _ => false,
    }
}

fn describe(package: &PackageReference) -> String {
    match package {
        PackageReference::Digest(digest) => digest.to_string(),
        PackageReference::Named(owner, name, Some(version)) => {
            format!("{name}@{version} of {owner}")
        }
        PackageReference::Named(owner, name, None) => format!("{name} of {owner}"),
        _ => "of an unknown kind".to_owned(),
    }
}
