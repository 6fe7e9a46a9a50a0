//! The cast of this crate's tests: owners, users, packages, code, and an hour to play in.

use core::time::Duration;

use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey, Time, Verified};
use bield_evidence::{Measurement, software_measurement};

use crate::{Grant, Isolation, Lease};

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

pub(crate) fn code(number: u8) -> Measurement {
    let program = Digest::of("test program", &[&[number]]);
    software_measurement(program, Digest::of("test configuration", &[]))
}

/// User 1 may use package 1 in code 1 from an hour before noon to an hour after.
pub(crate) fn grant() -> Grant {
    Grant {
        id: [7; 16],
        package: package(1),
        user: user(1),
        code: code(1),
        isolation: Isolation::Shared,
        not_before: NOON.minus(HOUR),
        not_after: NOON.plus(HOUR),
    }
}

/// The grant above with one thing changed, signed by owner 1.
pub(crate) fn granted(change: impl FnOnce(&mut Grant)) -> Verified<Grant> {
    let mut grant = grant();
    change(&mut grant);
    Signed::sign(&owner(1), grant)
}

/// Package 1 of owner 1 in code 1, leased until ten minutes after noon.
pub(crate) fn lease() -> Lease {
    Lease {
        package: package(1),
        owner: owner(1).principal(),
        code: code(1),
        simulated: true,
        not_after: NOON.plus(MINUTE * 10),
    }
}
