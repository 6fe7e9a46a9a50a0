//! One answer from both ends: appraised evidence, a certificate, an admitted request, a receipt,
//! and a caller who compares it with what it sent.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use bield_envelope::{
    AudienceKey, Digest, RequestHeader, SealedRequest, Secret, Seeded, Signed, SigningKey, Time,
    seal_request,
};
use bield_evidence::{
    Appraised, Evidence, Policy, Reference, Roots, appraise, canonical_dcap, claims_report_data,
    verify as verify_evidence,
};
use bield_grant::{
    Admitted, CodeSelector, Grant, GrantedRequest, Groups, Isolation, LEASE_TIME_MAX, LeaseTerms,
    Leased, Meter, PackageFacts, PackageSelector, ReplayGuard, Revocations, Successions,
    UserSelector, admit, admit_lease,
};
use bield_receipt::{
    Anchor, CERTIFICATE_BACKDATE, CERTIFICATE_TIME_MAX, Expected, ExpectedOutput, Receipt,
    ReceiptBundle, WorkerCertificate, output_commitment, verify,
};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};

const NOW: Time = Time::from_secs(1_800_000_000);
const SALT: [u8; 32] = [7; 32];
const ANSWER: &[u8] = b"an answer";

#[test]
fn the_caller_finds_its_own_request_and_answer_in_the_receipt() {
    let (worker, service, appraised) = (key(3), key(4), appraised());
    let (admitted, sent, grant) = admitted(&appraised);

    let certificate = WorkerCertificate::for_worker(
        worker.principal(),
        &appraised,
        service.principal(),
        None,
        NOW,
    );
    assert_eq!(certificate.code, *appraised.measurement());
    assert!(certificate.simulated);
    assert_eq!(certificate.not_before, NOW.minus(CERTIFICATE_BACKDATE));
    assert_eq!(
        certificate.not_after.since(certificate.not_before),
        CERTIFICATE_TIME_MAX
    );

    let commitment = output_commitment(&SALT, ANSWER);
    let receipt = Receipt::bind(&admitted, commitment, None, appraised.simulated(), NOW);
    assert_eq!(receipt.grant, grant);
    let bundle = ReceiptBundle::new(
        Signed::sign(&worker, receipt).into_signed(),
        Signed::sign(&service, certificate).into_signed(),
        None,
    );

    let anchor = Anchor {
        allow_simulated: true,
        ..Anchor::new(service.principal())
    };
    let expected = Expected {
        request: Some(sent),
        package: Some(package()),
        output: Some(ExpectedOutput {
            salt: &SALT,
            output: ANSWER,
        }),
        ..Expected::default()
    };
    let bundle = ReceiptBundle::decode(&bundle.encode()).unwrap();
    let verified = verify(&bundle, &anchor, expected, NOW).unwrap();
    assert_eq!(verified.receipt().code, *appraised.measurement());
    assert!(verified.simulated());
}

/// The admitted request, what its sender knows of it, and the grant behind it.
fn admitted(appraised: &Appraised) -> (Admitted<GrantedRequest>, Digest, Digest) {
    let (owner, user) = (key(1), key(2));
    let grant = Signed::sign(
        &owner,
        Grant {
            id: [1; 16],
            package: PackageSelector::Digest(package()),
            user: UserSelector::Principal(user.principal()),
            code: CodeSelector::Measurement(appraised.measurement().clone()),
            isolation: Isolation::Shared,
            not_before: NOW,
            not_after: NOW.plus(CERTIFICATE_TIME_MAX),
            requests: None,
        },
    );
    let grants = [grant];
    let successions = Successions::new();
    let facts = PackageFacts {
        digest: package(),
        owner: owner.principal(),
        name: &"echo".parse().unwrap(),
        version: &"1.0.0".parse().unwrap(),
    };
    let terms = LeaseTerms {
        id: 1,
        now: NOW,
        time: LEASE_TIME_MAX,
    };
    let revoked = Revocations::new();
    let lease = admit_lease(appraised, facts, &grants, &successions, &revoked, terms).unwrap();

    let mut entropy = Seeded::new(8);
    let audience = AudienceKey::generate(&mut entropy);
    let header = RequestHeader {
        audience: lease.audience(),
        key: audience.public().id(),
        package: package(),
        id: [9; 16],
        created: NOW,
    };
    let (sealed, opener) = seal_request(
        audience.public(),
        &header,
        &user,
        b"a question",
        &mut entropy,
    )
    .unwrap();
    let (opened, _) = audience
        .open(&SealedRequest::parse(&sealed).unwrap())
        .unwrap();
    let leased = Leased {
        lease: &lease,
        keys: &[header.key],
        grants: &grants,
        groups: &Groups::new(),
        successions: &successions,
        meter: &Meter::default(),
    };
    let admitted = admit(opened, leased, &mut ReplayGuard::new(1), NOW).unwrap();
    (admitted, opener.request(), grants[0].digest())
}

fn appraised() -> Appraised {
    let platform = Platform::generate(Options::seeded([8; 32], NOW)).unwrap();
    let claims_buffer = b"claims".to_vec();
    let report = SgxReport {
        measurement: [0xc0; 32],
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
    let claims = verify_evidence(&evidence, &roots, NOW).unwrap();
    appraise(&claims, &Policy::dev(Reference::Deferred), NOW)
        .admit(claims)
        .unwrap()
}

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([number; 32]))
}

fn package() -> Digest {
    Digest::of("test package", &[])
}
