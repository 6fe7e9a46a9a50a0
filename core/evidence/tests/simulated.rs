//! Evidence of a made-up machine: the same verifier, another root, and every way to be refused.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use core::time::Duration;

use bield_envelope::Time;
use bield_evidence::{
    Claims, Endorsements, Evidence, EvidenceError, HardeningDemand, HardeningStatement,
    Measurement, Policy, PolicyConfig, Profile, Reference, Roots, TcbStatus, TeeKind, appraise,
    canonical_dcap, claims_report_data, verify,
};
use bield_software_tee::{
    CollateralOptions, Kind, Options, Platform, QE_SVN, SgxReport, TcbStatus as Status, TdxReport,
};

const NOW: Time = Time::from_secs(1_795_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn machine_with(seed: u8, change: impl FnOnce(&mut Options)) -> Platform {
    let mut options = Options::seeded([seed; 32], NOW);
    change(&mut options);
    Platform::generate(options).unwrap()
}

fn machine() -> Platform {
    machine_with(7, |_| {})
}

fn roots(machine: &Platform) -> Roots {
    Roots::vendor().with_simulated_dcap(machine.root_der().to_vec())
}

fn evidence(
    machine: &Platform,
    quote: Vec<u8>,
    kind: Kind,
    change: impl FnOnce(&mut CollateralOptions),
) -> Evidence {
    let mut options = CollateralOptions::at(NOW);
    change(&mut options);
    let collateral = machine.collateral(kind, &options).unwrap();
    Evidence {
        kind: match kind {
            Kind::Sgx => TeeKind::Sgx,
            Kind::Tdx => TeeKind::Tdx,
        },
        quote,
        claims_buffer: Vec::new(),
        endorsements: Endorsements::Dcap(collateral),
    }
}

fn sgx(machine: &Platform, change: impl FnOnce(&mut CollateralOptions)) -> Evidence {
    let report = SgxReport {
        measurement: [1; 32],
        svn: 4,
        report_data: claims_report_data(b"claims"),
        ..SgxReport::default()
    };
    evidence(machine, machine.sgx_quote(&report), Kind::Sgx, change)
}

fn tdx_report() -> TdxReport {
    TdxReport {
        mr_td: [1; 48],
        rtmr: [[2; 48], [3; 48], [4; 48], [5; 48]],
        ..TdxReport::default()
    }
}

fn all(machine: &Platform) -> [Evidence; 3] {
    [
        sgx(machine, |_| {}),
        evidence(
            machine,
            machine.tdx_quote_v4(&tdx_report()),
            Kind::Tdx,
            |_| {},
        ),
        evidence(
            machine,
            machine.tdx_quote_v5(&tdx_report()),
            Kind::Tdx,
            |_| {},
        ),
    ]
}

fn listed(claims: &Claims) -> Reference {
    Reference::Listed(vec![claims.measurement.clone()])
}

fn failures(claims: &Claims, policy: &Policy) -> Vec<&'static str> {
    let appraisal = appraise(claims, policy, NOW);
    appraisal.failed().map(|check| check.name).collect()
}

#[test]
fn every_format_verifies_under_its_own_root_and_is_marked_simulated() {
    let machine = machine();
    for evidence in all(&machine) {
        let claims = verify(&evidence, &roots(&machine), NOW).unwrap();
        assert!(claims.simulated);
        assert_eq!(claims.tcb_status, TcbStatus::UpToDate);
        assert_eq!(claims.platform_id, machine.id());
        assert_eq!(failures(&claims, &Policy::dev(listed(&claims))), [""; 0]);
    }
}

#[test]
fn both_tdx_formats_of_the_same_guest_measure_alike() {
    let machine = machine();
    let [_, v4, v5] = all(&machine).map(|evidence| {
        let claims = verify(&evidence, &roots(&machine), NOW).unwrap();
        claims.measurement
    });
    assert_eq!(v4, v5);
}

#[test]
fn default_policies_refuse_simulated_evidence_and_nothing_else_about_it() {
    let machine = machine();
    for evidence in all(&machine) {
        let mut claims = verify(&evidence, &roots(&machine), NOW).unwrap();
        claims.hardening = Some(HardeningStatement::new(HardeningDemand::GUEST, []));
        for policy in [
            Policy::strict(listed(&claims)),
            Policy::cloud(listed(&claims)),
            Policy::dev(listed(&claims)).without_simulated(),
        ] {
            assert_eq!(failures(&claims, &policy), ["root"]);
            let refusal = appraise(&claims, &policy, NOW)
                .admit(claims.clone())
                .unwrap_err();
            assert!(refusal.to_string().contains("SIMULATED"), "{refusal}");
        }
    }
}

#[test]
fn vendor_roots_alone_do_not_verify_simulated_evidence() {
    for evidence in all(&machine()) {
        let refused = verify(&evidence, &Roots::vendor(), NOW);
        assert!(matches!(refused, Err(EvidenceError::UnknownRoot { .. })));
    }
}

#[test]
fn a_configuration_names_the_simulated_root_and_only_dev_takes_it() {
    let machine = machine();
    let evidence = sgx(&machine, |_| {});
    let config = PolicyConfig {
        allow_simulated: true,
        simulated_roots: vec![hex::encode(machine.root_der())],
        measurements: vec![format!("sgx:{}", "01".repeat(32))],
        ..PolicyConfig::new(Profile::Dev)
    };
    let claims = verify(&evidence, &config.roots().unwrap(), NOW).unwrap();
    let policy = config.clone().into_policy().unwrap();
    assert!(appraise(&claims, &policy, NOW).admit(claims).is_ok());
    for profile in [Profile::Strict, Profile::Cloud] {
        let config = PolicyConfig {
            profile,
            ..config.clone()
        };
        assert!(config.roots().is_err() && config.into_policy().is_err());
    }
}

#[test]
fn another_platforms_root_is_unknown() {
    let (machine, other) = (machine(), machine_with(8, |_| {}));
    for evidence in all(&machine) {
        let refused = verify(&evidence, &roots(&other), NOW);
        assert!(matches!(refused, Err(EvidenceError::UnknownRoot { .. })));
    }
}

#[test]
fn another_platforms_collateral_or_quote_is_refused() {
    let (machine, other) = (machine(), machine_with(8, |_| {}));
    let both = roots(&machine).with_simulated_dcap(other.root_der().to_vec());
    let mixed = Evidence {
        endorsements: sgx(&other, |_| {}).endorsements,
        ..sgx(&machine, |_| {})
    };
    assert!(verify(&mixed, &both, NOW).is_err());
}

#[test]
fn debug_is_refused_before_any_policy() {
    let machine = machine();
    let enclave = machine.sgx_quote(&SgxReport {
        debug: true,
        ..SgxReport::default()
    });
    let guest = TdxReport {
        debug: true,
        ..tdx_report()
    };
    for evidence in [
        evidence(&machine, enclave, Kind::Sgx, |_| {}),
        evidence(&machine, machine.tdx_quote_v4(&guest), Kind::Tdx, |_| {}),
        evidence(&machine, machine.tdx_quote_v5(&guest), Kind::Tdx, |_| {}),
    ] {
        let refused = verify(&evidence, &roots(&machine), NOW);
        assert!(
            matches!(&refused, Err(EvidenceError::Open { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn an_out_of_date_platform_fails_strict_and_has_a_grace_in_cloud() {
    let machine = machine();
    let with_date = |days: u32| {
        let evidence = sgx(&machine, |options| {
            options.status = Status::OutOfDate;
            options.tcb_date = NOW.minus(DAY * days);
        });
        verify(&evidence, &roots(&machine), NOW).unwrap()
    };
    let recent = with_date(10);
    assert_eq!(recent.tcb_status, TcbStatus::OutOfDate);
    assert_eq!(
        failures(&recent, &Policy::strict(listed(&recent))),
        ["root", "tcb"]
    );
    assert_eq!(failures(&recent, &Policy::cloud(listed(&recent))), ["root"]);
    let old = with_date(40);
    assert_eq!(
        failures(&old, &Policy::cloud(listed(&old))),
        ["root", "tcb"]
    );
}

#[test]
fn every_status_reaches_the_policy_and_revoked_never_does() {
    let machine = machine();
    for (status, strict, cloud) in [
        (Status::UpToDate, true, true),
        (Status::SWHardeningNeeded, false, true),
        (Status::ConfigurationNeeded, false, false),
        (Status::ConfigurationAndSWHardeningNeeded, false, false),
        (Status::OutOfDateConfigurationNeeded, false, false),
    ] {
        let evidence = sgx(&machine, |options| options.status = status);
        let claims = verify(&evidence, &roots(&machine), NOW).unwrap();
        assert_eq!(claims.tcb_status.to_string(), status.to_string());
        let met = |policy: &Policy| !failures(&claims, policy).contains(&"tcb");
        assert_eq!(met(&Policy::strict(listed(&claims))), strict, "{status}");
        assert_eq!(met(&Policy::cloud(listed(&claims))), cloud, "{status}");
        assert!(met(&Policy::dev(listed(&claims))));
    }
    let evidence = sgx(&machine, |options| options.status = Status::Revoked);
    let refused = verify(&evidence, &roots(&machine), NOW);
    assert!(
        matches!(refused, Err(EvidenceError::Revoked { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_revoked_platform_certificate_is_refused() {
    let machine = machine();
    let evidence = sgx(&machine, |options| options.pck_revoked = true);
    let refused = verify(&evidence, &roots(&machine), NOW);
    assert!(
        matches!(refused, Err(EvidenceError::Revoked { .. })),
        "{refused:?}"
    );
}

#[test]
fn expired_or_future_collateral_is_refused() {
    let machine = machine();
    for issued in [NOW.minus(DAY * 400), NOW.plus(DAY)] {
        let evidence = sgx(&machine, |options| options.issued = issued);
        let refused = verify(&evidence, &roots(&machine), NOW);
        assert!(
            matches!(refused, Err(EvidenceError::OutsideValidity { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn collateral_for_another_tee_or_family_is_refused() {
    let machine = machine();
    let quote = sgx(&machine, |_| {}).quote;
    let tdx_collateral = Evidence {
        kind: TeeKind::Sgx,
        ..evidence(&machine, quote, Kind::Tdx, |_| {})
    };
    let other_family = sgx(&machine, |options| options.fmspc = Some([9; 6]));
    for evidence in [tdx_collateral, other_family] {
        let refused = verify(&evidence, &roots(&machine), NOW);
        assert!(
            matches!(refused, Err(EvidenceError::NotGenuine { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn edited_tcb_info_is_refused() {
    let machine = machine();
    let genuine = sgx(&machine, |options| options.status = Status::OutOfDate);
    let Endorsements::Dcap(collateral) = &genuine.endorsements else {
        unreachable!()
    };
    let text = String::from_utf8(collateral.clone()).unwrap();
    let better = text.replace("OutOfDate", "UpToDate");
    assert_ne!(better, text);
    let edited = Evidence {
        endorsements: Endorsements::Dcap(better.into_bytes()),
        ..genuine
    };
    let refused = verify(&edited, &roots(&machine), NOW);
    assert!(matches!(refused, Err(EvidenceError::NotGenuine { .. })));
}

#[test]
fn an_old_quoting_enclave_is_refused() {
    let machine = machine_with(7, |options| options.qe_svn = QE_SVN - 1);
    let evidence = sgx(&machine, |_| {});
    let refused = verify(&evidence, &roots(&machine), NOW);
    assert!(
        matches!(refused, Err(EvidenceError::NotGenuine { .. })),
        "{refused:?}"
    );
}

#[test]
fn platform_flags_reach_the_policy() {
    let machine = machine_with(7, |options| {
        options.dynamic_platform = true;
        options.cached_keys = true;
        options.smt = true;
    });
    let claims = verify(&sgx(&machine, |_| {}), &roots(&machine), NOW).unwrap();
    assert_eq!(
        failures(&claims, &Policy::strict(listed(&claims))),
        ["root", "dynamic platform", "cached keys", "smt"]
    );
    assert_eq!(failures(&claims, &Policy::cloud(listed(&claims))), ["root"]);
}

#[test]
fn a_claims_buffer_must_be_the_one_in_the_report_data() {
    let machine = machine();
    let evidence = |claims_buffer: &[u8]| Evidence {
        claims_buffer: claims_buffer.to_vec(),
        ..sgx(&machine, |_| {})
    };
    assert!(verify(&evidence(b"claims"), &roots(&machine), NOW).is_ok());
    assert_eq!(
        verify(&evidence(b"claimz"), &roots(&machine), NOW),
        Err(EvidenceError::ClaimsBuffer)
    );
    assert!(verify(&evidence(&[0; 5000]), &roots(&machine), NOW).is_err());
}

#[test]
fn a_changed_program_is_another_measurement_and_fails() {
    let machine = machine();
    let claims = verify(&sgx(&machine, |_| {}), &roots(&machine), NOW).unwrap();
    let other = Measurement::new(TeeKind::Sgx, &[2; 32]).unwrap();
    let policy = Policy::dev(Reference::Listed(vec![other]));
    assert_eq!(failures(&claims, &policy), ["measurement"]);
}

#[test]
fn what_the_made_up_machine_delivers_is_already_canonical() {
    for evidence in all(&machine()) {
        let Endorsements::Dcap(collateral) = &evidence.endorsements else {
            unreachable!()
        };
        assert_eq!(
            canonical_dcap(&evidence.quote, collateral),
            Ok(evidence.clone())
        );
    }
}

#[test]
fn collateral_with_foreign_or_spare_parts_is_refused() {
    let machine = machine();
    let genuine = sgx(&machine, |_| {});
    let Endorsements::Dcap(collateral) = &genuine.endorsements else {
        unreachable!()
    };
    let text = core::str::from_utf8(collateral).unwrap();
    for other in [
        text.replacen('{', "{ ", 1),
        text.replacen('{', "{\"extra\":1,", 1),
        text.replacen(
            "-----END CERTIFICATE-----\\n\"",
            "-----END CERTIFICATE-----\\n \"",
            1,
        ),
        text.replacen("\\n-----END", "\\r\\n-----END", 1),
        format!("{text} "),
    ] {
        assert_ne!(other, text);
        let altered = Evidence {
            endorsements: Endorsements::Dcap(other.into_bytes()),
            ..genuine.clone()
        };
        let refused = verify(&altered, &roots(&machine), NOW);
        assert!(
            matches!(refused, Err(EvidenceError::NotCanonical { .. })),
            "{refused:?}"
        );
    }
}
