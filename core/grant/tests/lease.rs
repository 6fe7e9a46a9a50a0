//! A lease from the first byte: a quote of the software TEE, verified, appraised, admitted.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use bield_envelope::{Digest, Secret, Signed, SigningKey, Time, Verified};
use bield_evidence::{
    Appraised, Evidence, Measurement, Policy, Reference, Roots, TeeKind, appraise, canonical_dcap,
    claims_report_data, verify,
};
use bield_grant::{Grant, Isolation, LEASE_TIME_MAX, Revocations, admit_lease};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};

const NOW: Time = Time::from_secs(1_800_000_000);
const CODE: [u8; 32] = [0xc0; 32];

#[test]
fn appraised_code_with_a_grant_is_leased_for_and_marked_as_simulated() {
    let lease = admit_lease(
        &appraised(CODE),
        package(),
        owner().principal(),
        &[grant(CODE)],
        &Revocations::new(),
        NOW,
    )
    .unwrap();
    assert_eq!(lease.code, measurement(CODE));
    assert_eq!(lease.audience(), grant(CODE).audience());
    assert_eq!(lease.not_after, NOW.plus(LEASE_TIME_MAX));
    assert!(lease.simulated);
}

#[test]
fn genuine_evidence_of_other_code_is_refused_although_its_appraisal_was_deferred() {
    let refused = admit_lease(
        &appraised([0xbd; 32]),
        package(),
        owner().principal(),
        &[grant(CODE)],
        &Revocations::new(),
        NOW,
    )
    .unwrap_err();
    assert_eq!(refused.code(), "code-not-granted");
    let granted = format!("granted: {}", measurement(CODE));
    assert!(refused.to_string().contains(&granted), "{refused}");
}

fn appraised(code: [u8; 32]) -> Appraised {
    let platform = Platform::generate(Options::seeded([4; 32], NOW)).unwrap();
    let claims_buffer = b"claims".to_vec();
    let report = SgxReport {
        measurement: code,
        report_data: claims_report_data(&claims_buffer),
        ..SgxReport::default()
    };
    let collateral = platform
        .collateral(Kind::Sgx, &CollateralOptions::at(NOW))
        .unwrap();
    let evidence = Evidence {
        claims_buffer,
        ..canonical_dcap(&platform.sgx_quote(&report), &collateral).unwrap()
    };
    let roots = Roots::none().with_simulated_dcap(platform.root_der().to_vec());
    let claims = verify(&evidence, &roots, NOW).unwrap();
    appraise(&claims, &Policy::dev(Reference::Deferred), NOW)
        .admit(claims)
        .unwrap()
}

fn grant(code: [u8; 32]) -> Verified<Grant> {
    Signed::sign(
        &owner(),
        Grant {
            id: [1; 16],
            package: package(),
            user: SigningKey::from_seed(Secret::from_bytes([2; 32])).principal(),
            code: measurement(code),
            isolation: Isolation::Shared,
            not_before: NOW,
            not_after: NOW.plus(LEASE_TIME_MAX * 2),
        },
    )
}

fn measurement(code: [u8; 32]) -> Measurement {
    Measurement::new(TeeKind::Sgx, &code).unwrap()
}

fn owner() -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([1; 32]))
}

fn package() -> Digest {
    Digest::of("test package", &[])
}
