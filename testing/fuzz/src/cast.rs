//! The cast: one owner, one user, one key service, one runtime, and what they honestly made.
//!
//! Everything follows from fixed seeds, so that a failing input can be replayed.

use core::time::Duration;

use bield_envelope::{
    Digest, RequestHeader, Secret, Seeded, Signed, SigningKey, Statement, Time, Verified,
};
use bield_evidence::{HardeningStatement, Measurement, Protection, TeeKind, software_measurement};
use bield_grant::{
    Allotment, CodeIdentity, CodeSelector, CodeSigner, Grant, Group, Isolation, Lease,
    PackageSelector, SignerId, Succession, UserSelector, VerifiedSuccession, audience,
};
use bield_package::PackageKey;
use bield_protocol::service::Share;
use bield_receipt::{Receipt, WorkerCertificate, output_commitment, service_evidence_digest};

pub(crate) const NOON: Time = Time::from_secs(1_800_000_000);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const SALT: [u8; 32] = [0x5a; 32];
pub(crate) const OUTPUT: &[u8] = b"an answer";
pub(crate) const SERVICE_EVIDENCE: &[u8] = b"evidence of the key service";

pub(crate) fn owner() -> SigningKey {
    key(1)
}

pub(crate) fn user() -> SigningKey {
    key(2)
}

pub(crate) fn service() -> SigningKey {
    key(3)
}

pub(crate) fn worker() -> SigningKey {
    key(4)
}

pub(crate) fn package_key() -> PackageKey {
    PackageKey::generate(&mut Seeded::new(5))
}

fn key(seed: u64) -> SigningKey {
    SigningKey::generate(&mut Seeded::new(seed))
}

pub(crate) fn digest(name: &str) -> Digest {
    Digest::of("bield fuzz v1", &[name.as_bytes()])
}

pub(crate) fn secret(byte: u8) -> Secret {
    Secret::from_bytes([byte; 32])
}

pub(crate) fn code() -> Measurement {
    software_measurement(digest("program"), digest("configuration"))
}

pub(crate) fn header(key: Digest) -> RequestHeader {
    RequestHeader {
        audience: audience(digest("package"), &code()),
        key,
        package: digest("package"),
        id: [7; 16],
        created: NOON,
    }
}

pub(crate) fn grant() -> Verified<Grant> {
    Signed::sign(
        &owner(),
        Grant {
            id: [9; 16],
            package: PackageSelector::Digest(digest("package")),
            user: UserSelector::Principal(user().principal()),
            code: CodeSelector::Measurement(code()),
            isolation: Isolation::Wiped,
            not_before: NOON,
            not_after: NOON.plus(HOUR),
            requests: None,
        },
    )
}

/// A grant with every other selector, and a quota.
pub(crate) fn grant_by_selectors() -> Verified<Grant> {
    let range = ">=1.2.0-rc.1, <2.0.0-a".parse();
    let range = range.expect("a range of versions");
    Signed::sign(
        &owner(),
        Grant {
            id: [10; 16],
            package: PackageSelector::Named("small".parse().expect("a name"), range),
            user: UserSelector::Group("team".parse().expect("a name")),
            code: signer(),
            isolation: Isolation::Dedicated,
            not_before: NOON,
            not_after: NOON.plus(HOUR),
            requests: Some(1_000),
        },
    )
}

pub(crate) fn signer() -> CodeSelector {
    let signer = CodeSigner::new(TeeKind::Sgx, &[0xd0; 32], Some(1), 3);
    CodeSelector::Signed(signer.expect("a signer"))
}

pub(crate) fn code_identity() -> CodeIdentity {
    CodeIdentity {
        measurement: code(),
        signer: SignerId::new(TeeKind::Sgx, &[0xd0; 32]).ok(),
        product: Some(1),
        svn: Some(3),
    }
}

pub(crate) fn lease() -> Lease {
    Lease {
        package: digest("package"),
        owner: owner().principal(),
        name: "small".parse().expect("a name"),
        version: "1.2.0".parse().expect("a version"),
        code: code_identity(),
        simulated: true,
        not_after: NOON,
        id: 17,
    }
}

pub(crate) fn allotment() -> Allotment {
    Allotment {
        grant: grant_by_selectors().digest(),
        requests: 500,
    }
}

/// The owner's team; `members` of it are drawn.
pub(crate) fn group(revision: u64, members: u64) -> Verified<Group> {
    let members = (10..10 + members).map(|seed| key(seed).principal());
    let name = "team".parse().expect("a name");
    let group = Group::new(name, revision, members.collect());
    Signed::sign(&owner(), group.expect("a group of few"))
}

/// The user's new key.
pub(crate) fn heir() -> SigningKey {
    key(6)
}

pub(crate) fn succeeded() -> VerifiedSuccession {
    let half = |by| {
        let succession = Succession {
            from: user().principal(),
            to: heir().principal(),
            at: NOON,
        };
        Signed::sign(by, succession)
    };
    VerifiedSuccession::new(half(&user()), half(&heir())).expect("both say the same")
}

pub(crate) fn share() -> Share {
    Share {
        generation: 1,
        number: 2,
        threshold: 2,
        bytes: vec![7; 33].into(),
    }
}

pub(crate) fn certificate() -> Verified<WorkerCertificate> {
    Signed::sign(
        &service(),
        WorkerCertificate {
            worker: worker().principal(),
            code: code(),
            simulated: true,
            not_before: NOON,
            not_after: NOON.plus(HOUR),
            service: service().principal(),
            service_evidence: Some(service_evidence_digest(SERVICE_EVIDENCE)),
            hardening: HardeningStatement::new(
                [Protection::NoCoreFile],
                [Protection::LockedMemory],
            ),
        },
    )
}

pub(crate) fn receipt() -> Verified<Receipt> {
    Signed::sign(
        &worker(),
        Receipt {
            request: digest("request"),
            package: digest("package"),
            code: code(),
            grant: grant().digest(),
            output: output_commitment(&SALT, OUTPUT),
            at: NOON,
            state: None,
            simulated: true,
        },
    )
}

/// The signed bytes, to compare with.
pub(crate) fn bytes<T: Statement>(statement: &Verified<T>) -> Vec<u8> {
    statement.as_bytes().to_vec()
}

/// Asserts that accepted bytes are an honest object: anything else is a forgery.
pub(crate) fn assert_honest(accepted: &[u8], honest: &[Vec<u8>], what: &str) {
    assert!(
        honest.iter().any(|seed| seed == accepted),
        "{what} accepted that nobody made"
    );
}
