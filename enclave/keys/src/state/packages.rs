//! Packages: who owns them, what opens them, which key requests are sealed to.
//!
//! Always true: a package has one key, that of its first registration; the audience keys of a package that was
//! deleted and registered again are new ones; reading never writes, since every audience key derives from
//! the root, the registration and a generation that counts up.

use std::collections::BTreeMap;

use bield_envelope::{AudienceKey, Digest, Principal, Secret, Signed, Time};
use bield_evidence::Measurement;
use bield_grant::{CodeIdentity, PackageFacts, PackageSelector, audience};
use bield_package::tensor::TensorSpec;
use bield_package::{PackageHeader, PackageName, PackageVersion};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{AUDIENCE_KEYS_MAX, LeasedAudienceKey, PackageReference};
use core::time::Duration;
use subtle::ConstantTimeEq as _;

use super::ask::{Checked, Inconsistent, PackagePut};
use super::entry::Entry;
use super::grants::{Handle, Stage};
use super::index::Target;
use super::limits::{CODES_EACH_MAX, KEY_CONFIGURATION_SECS, PACKAGES_EACH_MAX, PACKAGES_MAX};
use super::refuse::{self, Whose};
use super::{State, kept};

/// A registered package.
pub(super) struct Package {
    /// Who signed its header; a successor may stand for it now.
    pub(super) owner: Principal,
    pub(super) name: PackageName,
    pub(super) version: PackageVersion,
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    pub(super) key: Secret,
    /// Counts registrations, so that "newest" does not depend on a clock.
    pub(super) serial: u64,
    pub(super) at: Time,
    /// Of its audience keys.
    pub(super) generation: u32,
    /// Earlier generations that still open requests, and until when; newest first.
    pub(super) before: Vec<(u32, Time)>,
    /// Code that leased it lately, with the number of its newest lease.
    pub(super) codes: BTreeMap<Measurement, (CodeIdentity, u64)>,
}

impl Package {
    pub(super) fn facts(&self, digest: Digest) -> PackageFacts<'_> {
        PackageFacts {
            digest,
            owner: self.owner,
            name: &self.name,
            version: &self.version,
        }
    }

    /// Remembers that code leased it.
    pub(super) fn leased(&mut self, code: &CodeIdentity, lease: u64) {
        self.codes
            .insert(code.measurement.clone(), (code.clone(), lease));
        if self.codes.len() > CODES_EACH_MAX {
            let oldest = self.codes.iter().min_by_key(|(_, (_, lease))| *lease);
            if let Some(oldest) = oldest.map(|(code, _)| code.clone()) {
                self.codes.remove(&oldest);
            }
        }
    }
}

impl State {
    pub(super) fn package(&self, digest: &Digest) -> Result<&Package, Refusal> {
        self.packages
            .get(digest)
            .ok_or_else(|| refuse::unknown_package(digest))
    }

    /// A package, if it is the signer's.
    pub(super) fn own_package(&self, by: Principal, digest: &Digest) -> Result<&Package, Refusal> {
        self.ordering(by)?;
        let package = self.package(digest)?;
        if self.people.current(package.owner) != by {
            return Err(refuse::not_owner(by, &format!("package {digest}")));
        }
        Ok(package)
    }

    /// Finds the package that a user names.
    pub(super) fn resolve(&self, reference: &PackageReference) -> Result<Digest, Refusal> {
        let (owner, name, version) = match reference {
            PackageReference::Digest(digest) => return self.package(digest).map(|_| *digest),
            PackageReference::Named(owner, name, version) => (*owner, name, version.as_deref()),
            _ => return Err(refuse::unsupported("a package reference")),
        };
        let found = || {
            let person = self.people.by_key.get(&self.people.current(owner))?;
            let versions = self.names.get(&(person.number, name.parse().ok()?))?;
            versions
                .iter()
                .rev()
                .map(|(_, digest)| *digest)
                .find(|digest| {
                    let package = self.packages.get(digest);
                    package
                        .is_some_and(|p| version.is_none_or(|wanted| p.version.as_str() == wanted))
                })
        };
        found().ok_or_else(|| refuse::unknown_name(owner, name, version))
    }

    /// The packages that a person calls so.
    pub(super) fn named(&self, owner: u32, name: &PackageName) -> impl Iterator<Item = Digest> {
        let versions = self.names.get(&(owner, name.clone()));
        versions.into_iter().flatten().map(|(_, digest)| *digest)
    }

    /// Where the grants for a package are found.
    pub(super) fn targets(&self, digest: &Digest) -> Result<[Target; 2], Refusal> {
        let package = self.package(digest)?;
        let owner = self.ordering(self.people.current(package.owner))?;
        Ok([
            self.grants.index.package(digest),
            self.grants.index.named(owner.number, &package.name),
        ])
    }

    pub(super) fn check_put_package(
        &self,
        by: Principal,
        put: &PackagePut,
    ) -> Result<Checked, Refusal> {
        let person = self.ordering(by)?;
        let digest = PackageHeader::package(&put.header);
        if put.header.owner != by || put.header.signer() != by {
            return Err(refuse::not_owner(by, &format!("package {digest}")));
        }
        if let Some(known) = self.packages.get(&digest) {
            if known.key.ct_eq(&put.key).into() {
                return Ok(Checked::already());
            }
            let message = format!("package {digest} is registered with another key; pack it anew");
            return Err(Refusal::new("package-key-differs", message, Retry::Never));
        }
        let have = person.packages.len();
        refuse::room(
            have,
            PACKAGES_EACH_MAX,
            "packages of a principal",
            Whose::Signer,
        )?;
        refuse::room(
            self.packages.len(),
            PACKAGES_MAX,
            "packages",
            Whose::Operator,
        )?;
        Ok(Checked::done(Entry::PackagePut {
            header: put.header.as_signed().clone(),
            inputs: put.inputs.clone(),
            outputs: put.outputs.clone(),
            key: Secret::from_bytes(*put.key.expose()),
        }))
    }

    pub(super) fn apply_package_put(
        &mut self,
        header: &Signed<PackageHeader>,
        specs: (&[TensorSpec], &[TensorSpec]),
        key: &Secret,
        at: Time,
    ) -> Result<(), Inconsistent> {
        let (digest, header) = kept::package(header).ok_or(Inconsistent("no package header"))?;
        self.serial += 1;
        let package = Package {
            owner: header.owner,
            name: header.name.clone(),
            version: header.version.clone(),
            inputs: specs.0.to_vec(),
            outputs: specs.1.to_vec(),
            key: Secret::from_bytes(*key.expose()),
            serial: self.serial,
            at,
            generation: 0,
            before: Vec::new(),
            codes: BTreeMap::new(),
        };
        self.keep_package(digest, package)
    }

    /// Puts a package into its indexes.
    pub(super) fn keep_package(
        &mut self,
        digest: Digest,
        package: Package,
    ) -> Result<(), Inconsistent> {
        let owner = self.people.current(package.owner);
        let person = self.people.person_mut(&owner)?;
        person.packages.insert(digest);
        let versions = self
            .names
            .entry((person.number, package.name.clone()))
            .or_default();
        versions.insert((package.serial, digest));
        match self.packages.insert(digest, package) {
            None => Ok(()),
            Some(_) => Err(Inconsistent("a package registered again")),
        }
    }

    pub(super) fn check_delete_package(
        &self,
        by: Principal,
        package: Digest,
    ) -> Result<Checked, Refusal> {
        self.own_package(by, &package)?;
        let live = |handle: &Handle| {
            let kept = self.grants.get(*handle);
            kept.is_some_and(|kept| kept.stage != Stage::Revoked)
        };
        let grants = self.grants_for(&package).into_iter().filter(live).count();
        let grants = u32::try_from(grants).unwrap_or(u32::MAX);
        Ok(Checked::done(Entry::PackageDeleted {
            by,
            package,
            grants,
        }))
    }

    /// Grants for exactly this package, those that were revoked included.
    fn grants_for(&self, package: &Digest) -> Vec<Handle> {
        let exactly = PackageSelector::Digest(*package);
        let found = self.grants.targeted(self.grants.index.package(package));
        found
            .filter(|handle| {
                let kept = self.grants.get(*handle);
                kept.is_some_and(|kept| kept.says().package == exactly)
            })
            .collect()
    }

    pub(super) fn apply_package_deleted(
        &mut self,
        by: &Principal,
        digest: &Digest,
    ) -> Result<(), Inconsistent> {
        let package = self
            .packages
            .remove(digest)
            .ok_or(Inconsistent("no such package"))?;
        let person = self.people.person_mut(by)?;
        person.packages.remove(digest);
        let name = (person.number, package.name);
        if let Some(versions) = self.names.get_mut(&name) {
            versions.remove(&(package.serial, *digest));
            if versions.is_empty() {
                self.names.remove(&name);
            }
        }
        // Remembered until they would have ended: a package that comes back brings back no grant and no quota.
        for handle in self.grants_for(digest) {
            self.grants.advance(handle, Stage::Revoked);
        }
        Ok(())
    }

    pub(super) fn check_rotate_audience(
        &self,
        by: Principal,
        digest: Digest,
        at_once: bool,
        now: Time,
    ) -> Result<Checked, Refusal> {
        let package = self.own_package(by, &digest)?;
        let Some(generation) = package.generation.checked_add(1) else {
            return Err(refuse::malformed("no further generation of keys"));
        };
        let holds = Duration::from_secs(KEY_CONFIGURATION_SECS);
        Ok(Checked::done(Entry::AudienceRotated {
            by,
            package: digest,
            generation,
            before_until: (!at_once).then(|| now.plus(holds)),
        }))
    }

    pub(super) fn apply_audience_rotated(
        &mut self,
        digest: &Digest,
        generation: u32,
        before_until: Option<Time>,
        at: Time,
    ) -> Result<(), Inconsistent> {
        let package = self
            .packages
            .get_mut(digest)
            .ok_or(Inconsistent("no such package"))?;
        if package.generation.checked_add(1) != Some(generation) {
            return Err(Inconsistent("a generation left out"));
        }
        match before_until {
            Some(until) => package.before.insert(0, (package.generation, until)),
            // "At once" is for a key that somebody has: none from before may go on.
            None => package.before.clear(),
        }
        package.before.retain(|(_, until)| at < *until);
        package.before.truncate(AUDIENCE_KEYS_MAX - 1);
        package.generation = generation;
        Ok(())
    }

    /// The key pair that requests for a package in this code are sealed to.
    pub(super) fn audience_key(
        &self,
        digest: Digest,
        package: &Package,
        code: &Measurement,
        generation: u32,
    ) -> AudienceKey {
        AudienceKey::from_seed(self.audience_seed(digest, package, code, generation))
    }

    /// What that pair is made of: all that a lease needs, and a hundredth of the work.
    fn audience_seed(
        &self,
        digest: Digest,
        package: &Package,
        code: &Measurement,
        generation: u32,
    ) -> Secret {
        let audience = audience(digest, code);
        let context: &[&[u8]] = &[
            audience.as_bytes(),
            &package.serial.to_be_bytes(),
            &generation.to_be_bytes(),
        ];
        self.root.derive(AUDIENCE_KEY, context)
    }

    /// The keys that open requests now: the current one first.
    pub(super) fn audience_keys(
        &self,
        digest: Digest,
        package: &Package,
        code: &Measurement,
        now: Time,
    ) -> Vec<LeasedAudienceKey> {
        let before = package.before.iter().filter(|(_, until)| now < *until);
        let before = before.map(|(generation, until)| (*generation, Some(*until)));
        core::iter::once((package.generation, None))
            .chain(before)
            .map(|(generation, not_after)| LeasedAudienceKey {
                seed: self.audience_seed(digest, package, code, generation),
                not_after,
            })
            .collect()
    }
}

const AUDIENCE_KEY: &str = "bield audience key v2";
