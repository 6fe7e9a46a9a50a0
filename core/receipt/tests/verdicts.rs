//! Stories of receipts: what is believed, what is not, and what is said aloud.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod cast;
#[path = "verdicts/states.rs"]
mod states;

use core::time::Duration;

use bield_envelope::{Secret, Signed, SigningKey, Time};
use bield_evidence::{
    HardeningDemand, HardeningStatement, Outcome, Profile, Protection, Reference,
};
use bield_receipt::{
    Anchor, CERTIFICATE_TIME_MAX, Expected, ExpectedOutput, Receipt, ReceiptBundle, Report,
    WorkerCertificate, examine, output_commitment, verify,
};
use cast::{Cast, NOON, OUTPUT, SALT, code, digest};
use proptest::prelude::*;

#[test]
fn a_receipt_that_matches_everything_known_is_believed() {
    let cast = Cast::new();
    let verified = verify(&cast.bundle(), &cast.anchor(), cast.expected(), cast.now()).unwrap();
    assert_eq!(**verified.receipt(), cast.receipt());
    assert_eq!(**verified.certificate(), cast.certificate());
    assert_eq!(
        verified.to_string(),
        "receipt verified (software TEE: no hardware protection); \
         NOT CHECKED: service-evidence-digest, service-evidence"
    );
}

#[test]
fn a_software_tee_is_refused_unless_the_reader_allows_it() {
    let cast = Cast::new();
    let anchor = Anchor::new(cast.service.principal());
    let error = verify(&cast.bundle(), &anchor, cast.expected(), cast.now()).unwrap_err();
    assert_eq!(names(error.failed()), ["hardware"]);
    assert!(
        error
            .to_string()
            .contains("software TEE: no hardware protection"),
        "{error}"
    );
}

#[test]
fn a_receipt_on_hardware_says_so() {
    let cast = Cast::new();
    let bundle = cast.bundle_of(
        WorkerCertificate {
            simulated: false,
            ..cast.certificate()
        },
        Receipt {
            simulated: false,
            ..cast.receipt()
        },
    );
    let anchor = Anchor::new(cast.service.principal());
    let verified = verify(&bundle, &anchor, cast.expected(), cast.now()).unwrap();
    assert!(!verified.simulated());
    assert!(
        verified
            .to_string()
            .starts_with("receipt verified (hardware TEE)")
    );
}

#[test]
fn what_the_reader_does_not_know_is_listed_as_not_checked() {
    let cast = Cast::new();
    let anchor = Anchor {
        allow_simulated: true,
        ..Anchor::new(cast.service.principal())
    };
    let verified = verify(&cast.bundle(), &anchor, Expected::default(), cast.now()).unwrap();
    let skipped: Vec<_> = verified
        .checks()
        .iter()
        .filter(|check| check.outcome == Outcome::NotChecked)
        .map(|check| check.name)
        .collect();
    assert_eq!(
        skipped,
        [
            "service-evidence-digest",
            "service-evidence",
            "accepted-code",
            "hardening",
            "request",
            "package",
            "output"
        ]
    );
}

#[test]
fn each_lie_is_refused_under_its_own_name() {
    let cast = Cast::new();
    type Change = fn(&mut WorkerCertificate, &mut Receipt);
    let lies: [(&str, Change); 11] = [
        ("certificate-service", |certificate, _| {
            certificate.service = certificate.worker
        }),
        ("certificate-lifetime", |certificate, _| {
            certificate.not_after = certificate.not_after.plus(Duration::from_millis(1));
        }),
        ("code", |certificate, _| certificate.code = code(0xbd)),
        ("simulated", |certificate, _| certificate.simulated = false),
        ("simulated", |_, receipt| receipt.simulated = false),
        ("time", |_, receipt| {
            receipt.at = NOON.minus(Duration::from_millis(1))
        }),
        ("time", |_, receipt| {
            receipt.at = NOON.plus(CERTIFICATE_TIME_MAX)
        }),
        ("accepted-code", |certificate, receipt| {
            certificate.code = code(0xbd);
            receipt.code = code(0xbd);
        }),
        ("request", |_, receipt| {
            receipt.request = digest(b"another request")
        }),
        ("package", |_, receipt| {
            receipt.package = digest(b"another package")
        }),
        ("output", |_, receipt| {
            receipt.output = output_commitment(&SALT, b"another answer")
        }),
    ];
    for (name, lie) in lies {
        let (mut certificate, mut receipt) = (cast.certificate(), cast.receipt());
        lie(&mut certificate, &mut receipt);
        let bundle = cast.bundle_of(certificate, receipt);
        let error = verify(&bundle, &cast.anchor(), cast.expected(), cast.now()).unwrap_err();
        assert_eq!(names(error.failed()), [name]);
    }
}

#[test]
fn a_receipt_from_the_future_is_refused() {
    let cast = Cast::new();
    let before = NOON.minus(Duration::from_millis(60_001));
    let report = examine(&cast.bundle(), &cast.anchor(), cast.expected(), before);
    assert_eq!(outcome(&report, "not-in-the-future"), Outcome::Failed);
    let within_skew = NOON.minus(Duration::from_secs(60));
    assert!(examine(&cast.bundle(), &cast.anchor(), cast.expected(), within_skew).passed());
}

#[test]
fn another_salt_does_not_open_the_commitment() {
    let cast = Cast::new();
    let output = Some(ExpectedOutput {
        salt: &[0; 32],
        output: OUTPUT,
    });
    let expected = Expected {
        output,
        ..cast.expected()
    };
    let error = verify(&cast.bundle(), &cast.anchor(), expected, cast.now()).unwrap_err();
    assert_eq!(names(error.failed()), ["output"]);
    assert!(
        !format!("{error} {expected:?}").contains("python"),
        "answers stay silent"
    );
}

#[test]
fn a_certificate_of_another_key_service_ends_the_chain_and_reads_nothing_further() {
    let cast = Cast::new();
    let mut impostor = Cast::new();
    impostor.service = SigningKey::from_seed(Secret::from_bytes([1; 32]));
    let report = report(&cast, &impostor.bundle());
    assert!(report.receipt().is_none());
    for check in report.checks() {
        let expected = match check.name {
            "certificate-signature" => Outcome::Failed,
            _ => Outcome::NotChecked,
        };
        assert_eq!(check.outcome, expected, "{check}");
    }
    assert!(report.accept().is_err());
}

#[test]
fn a_receipt_signed_by_an_uncertified_key_is_refused() {
    let cast = Cast::new();
    let stranger = SigningKey::from_seed(Secret::from_bytes([1; 32]));
    let receipt = Signed::sign(&stranger, cast.receipt()).into_signed();
    let report = report(
        &cast,
        &ReceiptBundle {
            receipt,
            ..cast.bundle()
        },
    );
    assert_eq!(outcome(&report, "receipt-signature"), Outcome::Failed);
    assert_eq!(outcome(&report, "request"), Outcome::NotChecked);
    assert!(report.accept().is_err());
}

#[test]
fn evidence_that_the_certificate_does_not_name_is_refused() {
    let cast = Cast::new();
    let other = ReceiptBundle {
        service_evidence: Some(vec![1]),
        ..cast.bundle()
    };
    assert_eq!(
        outcome(&report(&cast, &other), "service-evidence-digest"),
        Outcome::Failed
    );
    let silent = WorkerCertificate {
        service_evidence: None,
        ..cast.certificate()
    };
    let unnamed = ReceiptBundle {
        service_evidence: Some(vec![1]),
        ..cast.bundle_of(silent, cast.receipt())
    };
    assert_eq!(
        outcome(&report(&cast, &unnamed), "service-evidence-digest"),
        Outcome::Failed
    );
    let named = report(&cast, &cast.bundle_with_evidence());
    assert_eq!(outcome(&named, "service-evidence-digest"), Outcome::Passed);
    assert_eq!(outcome(&named, "service-evidence"), Outcome::NotChecked);
}

#[test]
fn the_hardening_that_the_key_service_signed_counts_and_nothing_else() {
    let cast = Cast::new();
    let with = |hardening: HardeningStatement| {
        let certificate = WorkerCertificate {
            hardening,
            ..cast.certificate()
        };
        report(&cast, &cast.bundle_of(certificate, cast.receipt()))
    };
    let lacking =
        HardeningStatement::new([Protection::NoCoreFile], [Protection::ListedSystemCalls]);
    for stated in [HardeningStatement::default(), lacking] {
        let report = with(stated);
        assert_eq!(outcome(&report, "hardening"), Outcome::Failed);
        assert!(!report.passed());
    }
    let report = with(HardeningStatement::new(
        HardeningDemand::GUEST,
        [Protection::LockedMemory],
    ));
    assert!(report.passed());
    let check = report
        .checks()
        .iter()
        .find(|check| check.name == "hardening");
    assert_eq!(
        check.unwrap().have,
        "in force: no core file, not dumpable, no new privileges, no inherited files, listed system calls only; \
         NOT in force: memory locked"
    );
}

#[test]
fn a_certificate_of_before_that_states_nothing_is_not_read() {
    // `v1` had no hardening: another domain, so its signature is over other bytes, and a map without key 7.
    let cast = Cast::new();
    let signed = Signed::sign(&cast.service, cast.certificate());
    let payload = bield_envelope::wire::encode(&*signed);
    let stated = bield_envelope::wire::encode(&cast.certificate().hardening);
    let silent = [
        &[payload[0] - 1],
        &payload[1..payload.len() - 1 - stated.len()],
    ]
    .concat();
    assert!(bield_envelope::wire::decode::<WorkerCertificate>(&payload, 256).is_ok());
    assert!(bield_envelope::wire::decode::<WorkerCertificate>(&silent, 256).is_err());
}

#[test]
fn an_anchor_that_lists_no_code_accepts_none() {
    let cast = Cast::new();
    let anchor = Anchor {
        code: Reference::Listed(Vec::new()),
        ..cast.anchor()
    };
    let report = examine(&cast.bundle(), &anchor, cast.expected(), cast.now());
    assert_eq!(outcome(&report, "accepted-code"), Outcome::Failed);
}

proptest! {
    /// Verification against the rules said once more, plainly.
    #[test]
    fn a_receipt_is_believed_exactly_when_the_oracle_believes_it(
        (service, worker) in (1..3u8, 1..3u8),
        (from, life, at, now) in (5..8u64, 0..70u64, 4..80u64, 0..90u64),
        (code_a, code_b, accepted) in (1..3u8, 1..3u8, prop::option::of(1..3u8)),
        (simulated_a, simulated_b, allowed) in (any::<bool>(), any::<bool>(), any::<bool>()),
        (request, asked) in (1..3u8, prop::option::of(1..3u8)),
    ) {
        let key = |number: u8| SigningKey::from_seed(Secret::from_bytes([number; 32]));
        let minute = |number: u64| Time::from_secs(number * 60);
        let certificate = WorkerCertificate {
            worker: key(11).principal(),
            code: code(code_a),
            simulated: simulated_a,
            not_before: minute(from),
            not_after: minute(from + life),
            service: key(1).principal(),
            service_evidence: None,
            hardening: HardeningStatement::default(),
        };
        let receipt = Receipt {
            code: code(code_b),
            simulated: simulated_b,
            at: minute(at),
            request: digest(&[request]),
            ..Cast::new().receipt()
        };
        let bundle = ReceiptBundle::new(
            Signed::sign(&key(10 + worker), receipt).into_signed(),
            Signed::sign(&key(service), certificate).into_signed(),
            None,
        );
        let anchor = Anchor {
            service: key(1).principal(),
            code: accepted.map_or(Reference::Deferred, |n| Reference::Listed(vec![code(n)])),
            allow_simulated: allowed,
            hardening: HardeningDemand::of(Profile::Dev),
        };
        let expected = Expected {
            request: asked.map(|number| digest(&[number])),
            ..Expected::default()
        };
        let believed = service == 1
            && worker == 1
            && life <= 60
            && (from..from + life).contains(&at)
            && at <= now + 1
            && code_a == code_b
            && accepted.is_none_or(|accepted| accepted == code_b)
            && simulated_a == simulated_b
            && (!simulated_b || allowed)
            && asked.is_none_or(|asked| asked == request);
        prop_assert_eq!(verify(&bundle, &anchor, expected, minute(now)).is_ok(), believed);
    }
}

fn report(cast: &Cast, bundle: &ReceiptBundle) -> Report {
    examine(bundle, &cast.anchor(), cast.expected(), cast.now())
}

fn outcome(report: &Report, name: &str) -> Outcome {
    report
        .checks()
        .iter()
        .find(|check| check.name == name)
        .unwrap()
        .outcome
}

fn names<'a>(checks: impl Iterator<Item = &'a bield_evidence::Check>) -> Vec<&'static str> {
    checks.map(|check| check.name).collect()
}
