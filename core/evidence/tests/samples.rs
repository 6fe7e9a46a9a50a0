//! Evidence from real hardware gets the verdict it deserves, offline.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]
#![expect(clippy::disallowed_methods, reason = "tests read files")]

mod common;

use bield_envelope::Time;
use bield_evidence::{
    Check, Claims, Endorsements, Evidence, EvidenceError, HardeningDemand, HardeningStatement,
    Measurement, Outcome, Policy, Protection, Reference, Roots, SnpTcb, TcbStatus, TeeKind,
    appraise, canonical_dcap, root_digest, verify,
};
use common::{Dcap, SGX, SNP_NOW, TDX, TDX_15EX, TDX_OUTDATED};

fn verified(sample: &Dcap) -> Claims {
    let mut claims = verify(&sample.evidence(), &Roots::vendor(), sample.now).unwrap();
    assert_eq!(claims.hardening, None);
    claims.hardening = Some(hardened());
    assert_eq!(claims.kind, sample.kind);
    assert!(!claims.simulated);
    claims
}

/// What a program of ours states in a guest that refuses it nothing.
fn hardened() -> HardeningStatement {
    HardeningStatement::new(Protection::ALL, [])
}

fn listed(claims: &Claims) -> Reference {
    Reference::Listed(vec![claims.measurement.clone()])
}

/// Names of the failed checks.
fn failures(claims: &Claims, policy: &Policy, now: Time) -> Vec<&'static str> {
    let appraisal = appraise(claims, policy, now);
    let failed = appraisal.failed().map(|check| check.name).collect();
    assert_eq!(
        appraisal.clone().admit(claims.clone()).is_ok(),
        appraisal.passed()
    );
    failed
}

#[test]
fn the_real_sgx_quote_verifies_and_only_a_policy_that_names_its_status_accepts_it() {
    let claims = verified(&SGX);
    assert_eq!(
        claims.tcb_status,
        TcbStatus::ConfigurationAndSWHardeningNeeded
    );
    assert_eq!(claims.advisories, ["INTEL-SA-00289", "INTEL-SA-00615"]);
    assert_eq!(claims.evaluation_number, Some(17));
    assert!(!claims.debug);
    assert_eq!(claims.platform_id.len(), 16);
    let reference = listed(&claims);
    for policy in [
        Policy::strict(reference.clone()),
        Policy::cloud(reference.clone()),
    ] {
        assert_eq!(failures(&claims, &policy, SGX.now), ["tcb"]);
    }
    assert_eq!(failures(&claims, &Policy::dev(reference), SGX.now), [""; 0]);
}

#[test]
fn the_real_tdx_quote_is_up_to_date_yet_fails_strict_for_being_a_cloud_machine() {
    let claims = verified(&TDX);
    assert_eq!(claims.tcb_status, TcbStatus::UpToDate);
    assert_eq!(claims.dynamic_platform, Some(true));
    assert_eq!(claims.registers.len(), 5);
    let reference = listed(&claims);
    let strict = failures(&claims, &Policy::strict(reference.clone()), TDX.now);
    assert!(strict.contains(&"dynamic platform"), "{strict:?}");
    let cloud = Policy::cloud(reference).with_evaluation_number_min(17);
    assert_eq!(failures(&claims, &cloud, TDX.now), [""; 0]);
}

#[test]
fn a_real_guest_that_states_nothing_or_too_little_is_refused_outside_dev() {
    let mut claims = verified(&TDX);
    let reference = listed(&claims);
    let cloud = Policy::cloud(reference.clone());
    let refused = HardeningStatement::new(HardeningDemand::GUEST, [Protection::ListedSystemCalls]);
    for stated in [None, Some(HardeningStatement::default()), Some(refused)] {
        claims.hardening = stated;
        assert_eq!(failures(&claims, &cloud, TDX.now), ["hardening"]);
        let strict = failures(&claims, &Policy::strict(reference.clone()), TDX.now);
        assert!(strict.contains(&"hardening"), "{strict:?}");
        assert_eq!(
            failures(&claims, &Policy::dev(reference.clone()), TDX.now),
            [""; 0]
        );
    }
    // What a deployment's limits decide is asked for by those who want it.
    claims.hardening = Some(HardeningStatement::new(
        HardeningDemand::GUEST,
        [Protection::LockedMemory],
    ));
    assert_eq!(failures(&claims, &cloud, TDX.now), [""; 0]);
    let locked = cloud.with_hardening(HardeningDemand::exactly([Protection::LockedMemory]));
    assert_eq!(failures(&claims, &locked, TDX.now), ["hardening"]);
}

#[test]
fn the_real_td_1_5_extended_quote_is_up_to_date() {
    let claims = verified(&TDX_15EX);
    assert_eq!(claims.tcb_status, TcbStatus::UpToDate);
    let cloud = Policy::cloud(listed(&claims));
    assert_eq!(failures(&claims, &cloud, TDX_15EX.now), [""; 0]);
}

#[test]
fn the_real_outdated_tdx_quote_matches_no_tcb_level() {
    let refused = verify(&TDX_OUTDATED.evidence(), &Roots::vendor(), TDX_OUTDATED.now);
    assert!(
        matches!(&refused, Err(EvidenceError::NotGenuine { reason }) if reason.contains("TCB level")),
        "{refused:?}"
    );
}

#[test]
fn real_quotes_without_collateral_are_refused_by_name() {
    for name in ["quote-from-tappd.hex", "tdx-quote.hex"] {
        let evidence = Evidence {
            kind: TeeKind::Tdx,
            quote: common::dcap_hex(name),
            claims_buffer: Vec::new(),
            endorsements: Endorsements::None,
        };
        let kind = TeeKind::Tdx;
        assert_eq!(
            verify(&evidence, &Roots::vendor(), TDX.now),
            Err(EvidenceError::MissingEndorsements { kind })
        );
    }
}

#[test]
fn the_real_milan_report_verifies() {
    let mut claims = verify(&common::milan(), &Roots::vendor(), SNP_NOW).unwrap();
    claims.hardening = Some(hardened());
    assert_eq!(claims.kind, TeeKind::Snp);
    assert_eq!(claims.tcb_status, TcbStatus::NotRated);
    let tcb = SnpTcb {
        bootloader: 3,
        snp: 8,
        microcode: 115,
        ..SnpTcb::default()
    };
    assert_eq!(claims.snp_tcb, Some(tcb));
    assert_eq!(claims.platform_id[..4], [0xd4, 0x95, 0x54, 0xec]);
    assert_eq!(claims.vmpl, Some(0));
    assert!(!claims.debug && !claims.simulated && !claims.revocation_checked);

    let cloud = Policy::cloud(listed(&claims)).with_snp_tcb_min(tcb);
    assert_eq!(failures(&claims, &cloud, SNP_NOW), [""; 0]);
    let newer = SnpTcb { snp: 9, ..tcb };
    let cloud = cloud.with_snp_tcb_min(newer);
    assert_eq!(failures(&claims, &cloud, SNP_NOW), ["tcb"]);
    let strict = failures(&claims, &Policy::strict(listed(&claims)), SNP_NOW);
    assert!(
        strict.contains(&"tcb"),
        "strict without a minimum: {strict:?}"
    );
}

#[test]
fn a_real_report_with_another_products_certificates_is_refused() {
    let milan = common::milan();
    let with = |ask: Vec<u8>, vek: Vec<u8>| Evidence {
        endorsements: Endorsements::Snp { ask, vek },
        ..milan.clone()
    };
    let Endorsements::Snp { ask, vek } = &milan.endorsements else {
        unreachable!()
    };
    let turin_ask = common::builtin("turin", "ask");
    for evidence in [
        with(turin_ask.clone(), common::turin_vcek()),
        with(turin_ask, vek.clone()),
        with(ask.clone(), common::turin_vcek()),
        with(common::builtin("milan", "ark"), vek.clone()),
        with(vek.clone(), ask.clone()),
    ] {
        let refused = verify(&evidence, &Roots::vendor(), SNP_NOW);
        assert!(
            matches!(
                refused,
                Err(EvidenceError::NotGenuine { .. } | EvidenceError::UnknownRoot { .. })
            ),
            "{refused:?}"
        );
    }
}

#[test]
fn a_real_azure_report_parses_and_is_refused_for_want_of_certificates() {
    let evidence = Evidence {
        kind: TeeKind::Snp,
        quote: common::azure_report(),
        claims_buffer: Vec::new(),
        endorsements: Endorsements::None,
    };
    let kind = TeeKind::Snp;
    assert_eq!(
        verify(&evidence, &Roots::vendor(), SNP_NOW),
        Err(EvidenceError::MissingEndorsements { kind })
    );
    // Its certificates are not those of the other machine either.
    let evidence = Evidence {
        endorsements: common::milan().endorsements,
        ..evidence
    };
    assert!(matches!(
        verify(&evidence, &Roots::vendor(), SNP_NOW),
        Err(EvidenceError::NotGenuine { .. })
    ));
}

#[test]
fn real_evidence_is_refused_outside_its_dates() {
    let day = core::time::Duration::from_secs(86_400);
    for (evidence, now) in [
        (SGX.evidence(), SGX.now),
        (TDX.evidence(), TDX.now),
        (TDX_15EX.evidence(), TDX_15EX.now),
        (common::milan(), SNP_NOW),
    ] {
        let claims = verify(&evidence, &Roots::vendor(), now).unwrap();
        for edge in [claims.collateral_from, claims.collateral_until] {
            assert!(verify(&evidence, &Roots::vendor(), edge).is_ok(), "{edge}");
        }
        for outside in [
            claims.collateral_from.minus(day),
            claims.collateral_until.plus(day),
            Time::from_secs(0),
            Time::from_millis(u64::MAX),
        ] {
            let refused = verify(&evidence, &Roots::vendor(), outside);
            assert!(
                matches!(refused, Err(EvidenceError::OutsideValidity { .. })),
                "{outside}: {refused:?}"
            );
            let appraisal = appraise(&claims, &Policy::dev(listed(&claims)), outside);
            assert!(appraisal.failed().any(|check| check.name == "collateral"));
        }
    }
}

#[test]
fn real_evidence_is_refused_without_its_root() {
    for (evidence, now) in [(SGX.evidence(), SGX.now), (common::milan(), SNP_NOW)] {
        let refused = verify(&evidence, &Roots::none(), now);
        assert!(matches!(refused, Err(EvidenceError::UnknownRoot { .. })));
    }
}

#[test]
fn the_vendor_roots_are_those_of_the_packages_they_came_from() {
    let intel = std::fs::read(common::package("dcap-qvl").join("src/TrustedRootCA.der")).unwrap();
    assert_eq!(intel, include_bytes!("../roots/intel-sgx.der"));
    let amd: [(&str, &[u8]); 3] = [
        ("milan", include_bytes!("../roots/ark-milan.der")),
        ("genoa", include_bytes!("../roots/ark-genoa.der")),
        ("turin", include_bytes!("../roots/ark-turin.der")),
    ];
    for (product, ours) in amd {
        assert_eq!(common::builtin(product, "ark"), ours, "{product}");
    }
    let claims = verified(&SGX);
    assert_eq!(claims.root, root_digest(&intel));
}

#[test]
fn padding_is_trimmed_when_zero_and_refused_otherwise() {
    let (quote, collateral) = TDX.raw();
    let canonical = TDX.evidence();
    assert!(quote.len() > canonical.quote.len(), "this sample is padded");
    let as_shipped = Evidence {
        quote: quote.clone(),
        ..canonical.clone()
    };
    assert!(matches!(
        verify(&as_shipped, &Roots::vendor(), TDX.now),
        Err(EvidenceError::NotCanonical { .. })
    ));
    for at in canonical.quote.len()..quote.len() {
        let mut padded = quote.clone();
        padded[at] = 1;
        assert!(canonical_dcap(&padded, &collateral).is_err());
    }
}

#[test]
fn evidence_of_one_kind_does_not_pass_as_another() {
    for kind in [TeeKind::Tdx, TeeKind::Snp] {
        let evidence = Evidence {
            kind,
            ..SGX.evidence()
        };
        assert!(verify(&evidence, &Roots::vendor(), SGX.now).is_err());
    }
    let swapped = Evidence {
        endorsements: common::milan().endorsements,
        ..SGX.evidence()
    };
    assert!(matches!(
        verify(&swapped, &Roots::vendor(), SGX.now),
        Err(EvidenceError::MissingEndorsements { .. })
    ));
}

#[test]
fn collateral_of_another_sample_is_refused() {
    for (quote, collateral) in [(&SGX, &TDX), (&TDX, &SGX), (&TDX, &TDX_OUTDATED)] {
        let evidence = Evidence {
            endorsements: collateral.evidence().endorsements,
            ..quote.evidence()
        };
        let refused = verify(&evidence, &Roots::vendor(), collateral.now);
        assert!(refused.is_err(), "{} {}", quote.name, collateral.name);
    }
}

#[test]
fn a_claims_buffer_the_quote_does_not_commit_to_is_refused() {
    let evidence = Evidence {
        claims_buffer: vec![0xa0],
        ..SGX.evidence()
    };
    assert_eq!(
        verify(&evidence, &Roots::vendor(), SGX.now),
        Err(EvidenceError::ClaimsBuffer)
    );
}

// knowledge/users.md §7, by number.

#[test]
fn pain_2_security_versions_come_from_the_certificate_not_from_what_the_platform_reports() {
    // The report's TCB field raised by one, everything else genuine: the signature catches it first,
    // and the comparison with the certificate would (tests/snp_chain.rs signs such a report).
    let mut evidence = common::milan();
    evidence.quote[0x186] += 1;
    assert!(verify(&evidence, &Roots::vendor(), SNP_NOW).is_err());
    // DCAP: the header's QE and PCE versions are signed, yet never used for the TCB level.
    let claims = verified(&SGX);
    let mut raised = SGX.evidence();
    raised.quote[8..12].fill(0xff);
    assert!(verify(&raised, &Roots::vendor(), SGX.now).is_err());
    assert_eq!(
        claims.tcb_status,
        TcbStatus::ConfigurationAndSWHardeningNeeded
    );
}

#[test]
fn pain_5_old_but_genuine_collateral_with_lower_thresholds_is_refused() {
    let claims = verified(&TDX);
    let policy = Policy::cloud(listed(&claims)).with_evaluation_number_min(18);
    assert_eq!(failures(&claims, &policy, TDX.now), ["evaluation number"]);
    let later = claims
        .collateral_until
        .plus(core::time::Duration::from_secs(1));
    assert!(verify(&TDX.evidence(), &Roots::vendor(), later).is_err());
}

#[test]
fn pain_6_debug_and_simulated_and_empty_references_never_pass_a_default_policy() {
    let genuine = verified(&TDX);
    let none = Reference::Listed(Vec::new());
    for make in [Policy::strict, Policy::cloud, Policy::dev] {
        let failed = failures(&genuine, &make(none.clone()), TDX.now);
        assert!(failed.contains(&"measurement"));
        let mut debug = genuine.clone();
        debug.debug = true;
        assert!(failures(&debug, &make(listed(&genuine)), TDX.now).contains(&"debug"));
    }
    let mut simulated = genuine.clone();
    simulated.simulated = true;
    for make in [Policy::strict, Policy::cloud] {
        let failed = failures(&simulated, &make(listed(&genuine)), TDX.now);
        assert!(failed.contains(&"root"));
    }
    let dev = Policy::dev(listed(&genuine));
    assert_eq!(failures(&simulated, &dev, TDX.now), [""; 0]);
    let failed = failures(&simulated, &dev.without_simulated(), TDX.now);
    assert_eq!(failed, ["root"]);
}

#[test]
fn pain_7_unknown_evidence_types_and_values_fail_closed() {
    let encoded = SGX.evidence().encode();
    assert_eq!(Evidence::decode(&encoded), Ok(SGX.evidence()));
    assert_eq!(encoded[1..3], [0x01, 0x01], "key 1: kind sgx");
    for kind in [0x00, 0x04, 0x17] {
        let mut unknown = encoded.clone();
        unknown[2] = kind;
        assert!(Evidence::decode(&unknown).is_err());
    }
    for (at, value) in [
        (0x00, 1),    // report version before any known here
        (0x00, 6),    // and after
        (0x34, 2),    // signature algorithm
        (0x0b, 0x04), // guest policy bit 26
        (0x48, 0x20), // key flags bit 5
    ] {
        let mut evidence = common::milan();
        evidence.quote[at] = value;
        assert!(matches!(
            verify(&evidence, &Roots::vendor(), SNP_NOW),
            Err(EvidenceError::Malformed { .. })
        ));
    }
    let mut evidence = SGX.evidence();
    for version in [0, 2, 4, 6] {
        evidence.quote[0] = version;
        assert!(verify(&evidence, &Roots::vendor(), SGX.now).is_err());
    }
}

#[test]
fn pain_10_checks_not_made_are_listed_beside_those_made() {
    let mut claims = verify(&common::milan(), &Roots::vendor(), SNP_NOW).unwrap();
    claims.hardening = Some(hardened());
    let appraisal = appraise(&claims, &Policy::cloud(Reference::Deferred), SNP_NOW);
    let skipped: Vec<_> = appraisal
        .checks()
        .iter()
        .filter(|check| check.outcome == Outcome::NotChecked)
        .map(|check| check.name)
        .collect();
    assert_eq!(
        skipped,
        [
            "measurement",
            "tcb",
            "revocation",
            "platform",
            "configuration",
            "report data"
        ]
    );
    let json = serde_json::to_value(appraisal.checks()).unwrap();
    assert_eq!(json[2]["outcome"], "not_checked");
    assert_eq!(json[2]["mover"], "owner");
}

#[test]
fn a_refusal_names_every_failed_check_with_have_need_and_whose_move() {
    let claims = verified(&SGX);
    let other = Measurement::new(TeeKind::Sgx, &[1; 32]).unwrap();
    let policy = Policy::strict(Reference::Listed(vec![other.clone()]))
        .with_platforms([])
        .with_evaluation_number_min(99);
    let refusal = appraise(&claims, &policy, SGX.now)
        .admit(claims.clone())
        .unwrap_err();
    let names: Vec<_> = refusal.failed().iter().map(|check| check.name).collect();
    assert_eq!(
        names,
        ["measurement", "tcb", "evaluation number", "platform"]
    );
    let text = refusal.to_string();
    for part in [
        &claims.measurement.to_string(),
        &other.to_string(),
        "ConfigurationAndSWHardeningNeeded",
        "at least 99",
        "the owner's move",
        "the operator's move",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn only_the_appraised_claims_are_admitted() {
    let claims = verified(&TDX);
    let appraisal = appraise(&claims, &Policy::cloud(listed(&claims)), TDX.now);
    assert!(appraisal.passed());
    let other = verified(&SGX);
    assert!(appraisal.clone().admit(other).is_err());
    let appraised = appraisal.admit(claims.clone()).unwrap();
    assert_eq!(appraised.claims(), &claims);
    assert!(!appraised.simulated());
    let made: fn(&Check) -> bool = |check| check.outcome == Outcome::Passed;
    assert!(appraised.checks().iter().any(made));
}

#[test]
fn an_allow_list_of_platforms_admits_only_those() {
    let claims = verified(&TDX);
    let policy = Policy::cloud(listed(&claims));
    let listed = policy.clone().with_platforms([claims.platform_id.clone()]);
    assert_eq!(failures(&claims, &listed, TDX.now), [""; 0]);
    let other = policy.with_platforms([vec![0; 16]]);
    assert_eq!(failures(&claims, &other, TDX.now), ["platform"]);
    let mut masked = claims.clone();
    masked.platform_id = Vec::new();
    assert_eq!(failures(&masked, &listed, TDX.now), ["platform"]);
}

#[test]
fn an_out_of_date_platform_has_its_grace_and_no_more() {
    let mut claims = verified(&TDX);
    claims.tcb_status = TcbStatus::OutOfDate;
    let day = core::time::Duration::from_secs(86_400);
    let cloud = Policy::cloud(listed(&claims));
    claims.tcb_date = Some(TDX.now.minus(day * 30));
    assert_eq!(failures(&claims, &cloud, TDX.now), [""; 0]);
    assert_eq!(
        failures(&claims, &Policy::strict(listed(&claims)), TDX.now)[0],
        "tcb"
    );
    claims.tcb_date = Some(TDX.now.minus(day * 31));
    assert_eq!(failures(&claims, &cloud, TDX.now), ["tcb"]);
    claims.tcb_date = None;
    assert_eq!(failures(&claims, &cloud, TDX.now), ["tcb"]);
}
