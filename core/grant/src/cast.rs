//! The cast of this crate's tests: owners, users, packages, code, and an hour to play in.

use core::time::Duration;

use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey, Time, Verified};
use bield_evidence::{Measurement, TeeKind, software_measurement};
use bield_package::{PackageName, PackageVersion};

use crate::{
    CodeIdentity, CodeSelector, CodeSigner, Grant, Group, Isolation, Lease, PackageSelector,
    SignerId, Succession, Successions, UserSelector, VerifiedSuccession,
};

/// When every story happens.
pub(crate) const NOON: Time = Time::from_secs(1_800_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);

pub(crate) fn owner(number: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([number; 32]))
}

pub(crate) fn user_key(number: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([100 + number; 32]))
}

pub(crate) fn user(number: u8) -> Principal {
    user_key(number).principal()
}

pub(crate) fn package(number: u8) -> Digest {
    Digest::of("test package", &[&[number]])
}

/// Every package of the tests is called so.
pub(crate) fn name() -> PackageName {
    "magika".parse().unwrap()
}

/// Package 1 is version 1.0.0, package 2 version 2.0.0, and so on.
pub(crate) fn version(number: u8) -> PackageVersion {
    format!("{number}.0.0").parse().unwrap()
}

pub(crate) fn measurement(number: u8) -> Measurement {
    let program = Digest::of("test program", &[&[number]]);
    software_measurement(program, Digest::of("test configuration", &[]))
}

/// Code by signer 1, product 1, security version = `number`.
pub(crate) fn code(number: u8) -> CodeIdentity {
    CodeIdentity {
        measurement: measurement(number),
        signer: SignerId::new(TeeKind::Sgx, &[1; 32]).ok(),
        product: Some(1),
        svn: Some(number.into()),
    }
}

pub(crate) fn measured(number: u8) -> CodeSelector {
    CodeSelector::Measurement(measurement(number))
}

pub(crate) fn signed_by(signer: u8, product: Option<u16>, svn_min: u32) -> CodeSelector {
    CodeSelector::Signed(CodeSigner::new(TeeKind::Sgx, &[signer; 32], product, svn_min).unwrap())
}

pub(crate) fn one(number: u8) -> UserSelector {
    UserSelector::Principal(user(number))
}

pub(crate) fn team() -> UserSelector {
    UserSelector::Group("team".parse().unwrap())
}

pub(crate) fn named(range: &str) -> PackageSelector {
    PackageSelector::Named(name(), range.parse().unwrap())
}

/// User 1 may use package 1 in code 1 from an hour before noon to an hour after.
pub(crate) fn grant() -> Grant {
    Grant {
        id: [7; 16],
        package: PackageSelector::Digest(package(1)),
        user: one(1),
        code: measured(1),
        isolation: Isolation::Shared,
        not_before: NOON.minus(HOUR),
        not_after: NOON.plus(HOUR),
        requests: None,
    }
}

/// The grant above with one thing changed, signed by owner 1.
pub(crate) fn granted(change: impl FnOnce(&mut Grant)) -> Verified<Grant> {
    granted_by(&owner(1), change)
}

pub(crate) fn granted_by(signer: &SigningKey, change: impl FnOnce(&mut Grant)) -> Verified<Grant> {
    let mut grant = grant();
    change(&mut grant);
    Signed::sign(signer, grant)
}

/// The group `team` at this revision.
pub(crate) fn team_of(signer: &SigningKey, revision: u64, members: &[u8]) -> Verified<Group> {
    let members = members.iter().map(|number| user(*number)).collect();
    Signed::sign(
        signer,
        Group::new("team".parse().unwrap(), revision, members).unwrap(),
    )
}

pub(crate) fn succeeded(from: &SigningKey, to: &SigningKey, at: Time) -> VerifiedSuccession {
    let succession = Succession {
        from: from.principal(),
        to: to.principal(),
        at,
    };
    let halves = [from, to].map(|signer| Signed::sign(signer, succession.clone()));
    let [by_old, by_new] = halves;
    VerifiedSuccession::new(by_old, by_new).unwrap()
}

/// These successions, all an hour old.
pub(crate) fn successions(of: &[(&SigningKey, &SigningKey)]) -> Successions {
    of.iter()
        .map(|(from, to)| succeeded(from, to, NOON.minus(HOUR)))
        .collect::<Vec<_>>()
        .iter()
        .collect()
}

/// Package 1 of owner 1 in code 1, leased until ten minutes after noon.
pub(crate) fn lease() -> Lease {
    Lease {
        package: package(1),
        owner: owner(1).principal(),
        name: name(),
        version: version(1),
        code: code(1),
        simulated: true,
        not_after: NOON.plus(MINUTE * 10),
        id: 1,
    }
}
