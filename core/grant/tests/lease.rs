//! A lease from the first byte: a quote of the software TEE, verified, appraised, admitted.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use core::time::Duration;

use bield_envelope::{Digest, Secret, Signed, SigningKey, Time, Verified};
use bield_evidence::{
    Appraised, Claims, Evidence, Measurement, Policy, Reference, Roots, TeeKind, appraise,
    canonical_dcap, claims_report_data, verify,
};
use bield_grant::{
    CodeIdentity, CodeSelector, CodeSigner, Grant, Isolation, LEASE_TIME_MAX, Lease, LeaseTerms,
    PackageFacts, PackageSelector, Refused, Revocations, Successions, UserSelector, admit_lease,
};
use bield_package::{PackageName, PackageVersion};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport, TdxReport};

const NOW: Time = Time::from_secs(1_800_000_000);
const CODE: [u8; 32] = [0xc0; 32];
const SIGNER: [u8; 32] = [0xd0; 32];

#[test]
fn appraised_code_with_a_grant_is_leased_for_and_marked_as_simulated() {
    let lease = lease(CODE, SIGNER, &grant(by_measurement(CODE))).unwrap();
    assert_eq!(lease.code.measurement, measurement(CODE));
    assert_eq!(lease.code.svn, Some(3));
    assert_eq!(
        lease.audience(),
        bield_grant::audience(package(), &measurement(CODE))
    );
    assert_eq!(lease.not_after, NOW.plus(LEASE_TIME_MAX));
    assert_eq!(
        (lease.id, lease.name.as_str(), lease.version.as_str()),
        (7, "magika", "3.3.0")
    );
    assert!(lease.simulated);
}

#[test]
fn genuine_evidence_of_other_code_is_refused_although_its_appraisal_was_deferred() {
    let refused = lease([0xbd; 32], SIGNER, &grant(by_measurement(CODE))).unwrap_err();
    assert_eq!(refused.code(), "code-not-granted");
    let granted = format!("granted: {}", measurement(CODE));
    assert!(refused.to_string().contains(&granted), "{refused}");
}

#[test]
fn code_of_a_granted_signer_is_leased_for_from_the_granted_version_on() {
    let signed = |svn_min| {
        let signer = CodeSigner::new(TeeKind::Sgx, &SIGNER, Some(1), svn_min).unwrap();
        grant(CodeSelector::Signed(signer))
    };
    assert!(lease(CODE, SIGNER, &signed(3)).is_ok());
    assert!(
        lease([0xbd; 32], SIGNER, &signed(3)).is_ok(),
        "whatever its measurement"
    );
    assert!(lease(CODE, SIGNER, &signed(4)).is_err(), "too old");
    assert!(
        lease(CODE, [0xd1; 32], &signed(3)).is_err(),
        "another signer"
    );
}

#[test]
fn unsigned_code_and_the_fields_of_a_host_prove_no_signer() {
    let unsigned = CodeIdentity::of(&sgx_claims(CODE, [0; 32]));
    assert_eq!(unsigned.signer, None);
    let signed = sgx_claims(CODE, SIGNER);
    let code = CodeIdentity::of(&signed);
    assert_eq!(code.signer.unwrap().as_bytes(), SIGNER);

    // MROWNER is 48 bytes that the host chose when it started the TD.
    let mut td = tdx_claims();
    td.signer = Some(vec![0xd0; 48]);
    assert_eq!(CodeIdentity::of(&td).signer, None);
}

fn lease(code: [u8; 32], signer: [u8; 32], grant: &Verified<Grant>) -> Result<Lease, Refused> {
    let name: PackageName = "magika".parse().unwrap();
    let version: PackageVersion = "3.3.0".parse().unwrap();
    let facts = PackageFacts {
        digest: package(),
        owner: owner().principal(),
        name: &name,
        version: &version,
    };
    let terms = LeaseTerms {
        id: 7,
        now: NOW,
        time: Duration::from_secs(3600),
    };
    admit_lease(
        &appraised(sgx_claims(code, signer)),
        facts,
        [grant],
        &Successions::new(),
        &Revocations::new(),
        terms,
    )
    .map(bield_grant::Admitted::into_inner)
}

fn appraised(claims: Claims) -> Appraised {
    appraise(&claims, &Policy::dev(Reference::Deferred), NOW)
        .admit(claims)
        .unwrap()
}

fn sgx_claims(code: [u8; 32], signer: [u8; 32]) -> Claims {
    claims(Kind::Sgx, |platform, report_data| {
        platform.sgx_quote(&SgxReport {
            measurement: code,
            signer,
            product: 1,
            svn: 3,
            report_data,
            ..SgxReport::default()
        })
    })
}

fn tdx_claims() -> Claims {
    claims(Kind::Tdx, |platform, report_data| {
        platform.tdx_quote_v4(&TdxReport {
            report_data,
            ..TdxReport::default()
        })
    })
}

fn claims(kind: Kind, quote: impl FnOnce(&Platform, [u8; 64]) -> Vec<u8>) -> Claims {
    let platform = Platform::generate(Options::seeded([4; 32], NOW)).unwrap();
    let claims_buffer = b"claims".to_vec();
    let quote = quote(&platform, claims_report_data(&claims_buffer));
    let collateral = platform
        .collateral(kind, &CollateralOptions::at(NOW))
        .unwrap();
    let evidence = Evidence {
        claims_buffer,
        ..canonical_dcap(&quote, &collateral).unwrap()
    };
    let roots = Roots::none().with_simulated_dcap(platform.root_der().to_vec());
    verify(&evidence, &roots, NOW).unwrap()
}

fn grant(code: CodeSelector) -> Verified<Grant> {
    let user = SigningKey::from_seed(Secret::from_bytes([2; 32])).principal();
    Signed::sign(
        &owner(),
        Grant {
            id: [1; 16],
            package: PackageSelector::Named("magika".parse().unwrap(), "^3".parse().unwrap()),
            user: UserSelector::Principal(user),
            code,
            isolation: Isolation::Shared,
            not_before: NOW,
            not_after: NOW.plus(LEASE_TIME_MAX * 2),
            requests: None,
        },
    )
}

fn by_measurement(code: [u8; 32]) -> CodeSelector {
    CodeSelector::Measurement(measurement(code))
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
