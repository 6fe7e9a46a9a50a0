//! Quotes and collateral against an unmodified verifier, `dcap-qvl`, with only the root swapped.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::time::Duration;

use bield_envelope::Time;
use bield_software_tee::{
    CollateralOptions, Kind, Options, Platform, SgxReport, TcbStatus, TdxReport,
};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuoteCollateralV3, QuotePolicy};

const NOW: Time = Time::from_secs(1_795_000_000);

fn machine() -> Platform {
    machine_with(|_| {})
}

fn machine_with(change: impl FnOnce(&mut Options)) -> Platform {
    let mut options = Options::seeded([7; 32], NOW);
    change(&mut options);
    Platform::generate(options).unwrap()
}

fn collateral(
    machine: &Platform,
    kind: Kind,
    change: impl FnOnce(&mut CollateralOptions),
) -> QuoteCollateralV3 {
    let mut options = CollateralOptions::at(NOW);
    change(&mut options);
    serde_json::from_slice(&machine.collateral(kind, &options).unwrap()).unwrap()
}

/// Verifies under `root` as strictly as the verifier can; the error is its whole story.
fn verify(
    root: &[u8],
    quote: &[u8],
    collateral: QuoteCollateralV3,
    now: Time,
) -> Result<QuoteClaims, String> {
    QuoteVerifier::new(root.to_vec())
        .verify_with_policy(
            quote,
            collateral,
            now.as_secs(),
            &QuotePolicy::strict(now.as_secs()),
        )
        .map_err(|error| format!("{error:#}"))
}

#[track_caller]
fn refused(result: Result<QuoteClaims, String>, because: &str) {
    match result {
        Ok(_) => panic!("accepted"),
        Err(why) => assert!(why.contains(because), "refused for another reason: {why}"),
    }
}

fn sgx() -> SgxReport {
    SgxReport {
        measurement: [1; 32],
        signer: [2; 32],
        product: 3,
        svn: 4,
        report_data: [5; 64],
        ..SgxReport::default()
    }
}

fn tdx() -> TdxReport {
    TdxReport {
        mr_td: [1; 48],
        rtmr: [[2; 48], [3; 48], [4; 48], [5; 48]],
        report_data: [6; 64],
        ..TdxReport::default()
    }
}

fn quotes(machine: &Platform) -> [(Kind, Vec<u8>); 3] {
    [
        (Kind::Sgx, machine.sgx_quote(&sgx())),
        (Kind::Tdx, machine.tdx_quote_v4(&tdx())),
        (Kind::Tdx, machine.tdx_quote_v5(&tdx())),
    ]
}

#[test]
fn every_format_verifies_strictly_under_the_machines_root() {
    let machine = machine();
    for (kind, quote) in quotes(&machine) {
        let collateral = collateral(&machine, kind, |_| {});
        let claims = verify(machine.root_der(), &quote, collateral, NOW).unwrap();
        assert_eq!(claims.tcb.status, TcbStatus::UpToDate);
    }
}

#[test]
fn no_format_verifies_under_intels_root() {
    let machine = machine();
    for (kind, quote) in quotes(&machine) {
        let collateral = collateral(&machine, kind, |_| {});
        let verified = QuoteVerifier::new_prod().verify(&quote, &collateral, NOW.as_secs());
        assert!(verified.is_err());
    }
}

#[test]
fn another_machines_root_does_not_verify() {
    let (machine, other) = (machine(), Platform::generate(Options::default()).unwrap());
    for (kind, quote) in quotes(&machine) {
        let collateral = collateral(&machine, kind, |_| {});
        assert!(verify(other.root_der(), &quote, collateral, NOW).is_err());
    }
}

#[test]
fn what_the_report_says_arrives_at_the_verifier() {
    let machine = machine();
    let verifier = QuoteVerifier::new(machine.root_der().to_vec());
    let now = NOW.as_secs();

    let documents = collateral(&machine, Kind::Sgx, |_| {});
    let verified = verifier
        .verify(&machine.sgx_quote(&sgx()), &documents, now)
        .unwrap();
    let report = verified.report.as_sgx().unwrap();
    assert_eq!(report.mr_enclave, [1; 32]);
    assert_eq!(report.mr_signer, [2; 32]);
    assert_eq!((report.isv_prod_id, report.isv_svn), (3, 4));
    assert_eq!(report.report_data, [5; 64]);
    assert_eq!(verified.ppid, machine.id());

    let documents = collateral(&machine, Kind::Tdx, |_| {});
    for quote in [machine.tdx_quote_v4(&tdx()), machine.tdx_quote_v5(&tdx())] {
        let verified = verifier.verify(&quote, &documents, now).unwrap();
        let report = verified.report.as_td10().unwrap();
        assert_eq!(report.mr_td, [1; 48]);
        assert_eq!(report.rt_mr3, [5; 48]);
        assert_eq!(report.report_data, [6; 64]);
    }
}

#[test]
fn a_seeded_machine_repeats_itself_byte_by_byte() {
    let (once, again) = (machine(), machine());
    assert_eq!(once.root_der(), again.root_der());
    assert_eq!(quotes(&once), quotes(&again));
    let documents = |machine: &Platform| {
        let options = CollateralOptions::at(NOW);
        machine.collateral(Kind::Tdx, &options).unwrap()
    };
    assert_eq!(documents(&once), documents(&again));
}

#[test]
fn a_debug_guest_is_refused() {
    let machine = machine();
    let debug_sgx = SgxReport {
        debug: true,
        ..sgx()
    };
    let debug_tdx = TdxReport {
        debug: true,
        ..tdx()
    };
    for (kind, quote) in [
        (Kind::Sgx, machine.sgx_quote(&debug_sgx)),
        (Kind::Tdx, machine.tdx_quote_v4(&debug_tdx)),
        (Kind::Tdx, machine.tdx_quote_v5(&debug_tdx)),
    ] {
        let collateral = collateral(&machine, kind, |_| {});
        refused(verify(machine.root_der(), &quote, collateral, NOW), "ebug");
    }
}

#[test]
fn a_revoked_platform_certificate_is_refused() {
    let machine = machine();
    for (kind, quote) in quotes(&machine) {
        let collateral = collateral(&machine, kind, |said| said.pck_revoked = true);
        refused(
            verify(machine.root_der(), &quote, collateral, NOW),
            "evoked",
        );
    }
}

#[test]
fn every_status_but_up_to_date_is_refused() {
    let machine = machine();
    for status in [
        TcbStatus::OutOfDate,
        TcbStatus::OutOfDateConfigurationNeeded,
        TcbStatus::ConfigurationNeeded,
        TcbStatus::ConfigurationAndSWHardeningNeeded,
        TcbStatus::SWHardeningNeeded,
        TcbStatus::Revoked,
    ] {
        for (kind, quote) in quotes(&machine) {
            let collateral = collateral(&machine, kind, |said| said.status = status);
            let verified = verify(machine.root_der(), &quote, collateral, NOW);
            refused(
                verified,
                if status == TcbStatus::Revoked {
                    "evoked"
                } else {
                    "status"
                },
            );
        }
    }
}

#[test]
fn collateral_is_refused_before_and_after_its_time() {
    let machine = machine();
    for (kind, quote) in quotes(&machine) {
        for now in [NOW.plus(31 * DAY), NOW.minus(DAY)] {
            let collateral = collateral(&machine, kind, |_| {});
            assert!(verify(machine.root_der(), &quote, collateral, now).is_err());
        }
        let expired = collateral(&machine, kind, |said| said.issued = NOW.minus(40 * DAY));
        refused(verify(machine.root_der(), &quote, expired, NOW), "xpired");
    }
}

#[test]
fn a_machine_kept_for_years_gets_collateral_that_is_valid_then() {
    let machine = machine();
    let later = NOW.plus(1000 * DAY);
    for (kind, quote) in quotes(&machine) {
        let collateral = collateral(&machine, kind, |said| *said = CollateralOptions::at(later));
        verify(machine.root_der(), &quote, collateral, later).unwrap();
    }
}

#[test]
fn an_old_quoting_enclave_is_refused() {
    let old = machine_with(|options| options.qe_svn = 7);
    for (kind, quote) in quotes(&old) {
        let collateral = collateral(&old, kind, |_| {});
        assert!(verify(old.root_der(), &quote, collateral, NOW).is_err());
    }
    let machine = machine();
    for (kind, quote) in quotes(&machine) {
        let stricter = collateral(&machine, kind, |said| said.qe_svn_min = 9);
        assert!(verify(machine.root_der(), &quote, stricter, NOW).is_err());
    }
}

#[test]
fn collateral_for_another_family_is_refused() {
    let machine = machine();
    for (kind, quote) in quotes(&machine) {
        let collateral = collateral(&machine, kind, |said| said.fmspc = Some([9; 6]));
        refused(verify(machine.root_der(), &quote, collateral, NOW), "mspc");
    }
}

#[test]
fn collateral_for_the_other_kind_is_refused() {
    let machine = machine();
    let swapped = [Kind::Tdx, Kind::Sgx, Kind::Sgx];
    for ((_, quote), kind) in quotes(&machine).into_iter().zip(swapped) {
        let collateral = collateral(&machine, kind, |_| {});
        assert!(verify(machine.root_der(), &quote, collateral, NOW).is_err());
    }
}

#[test]
fn platform_flags_reach_the_policy() {
    for change in [
        |options: &mut Options| options.dynamic_platform = true,
        |options: &mut Options| options.cached_keys = true,
        |options: &mut Options| options.smt = true,
    ] {
        let machine = machine_with(change);
        let quote = machine.sgx_quote(&sgx());
        let collateral = collateral(&machine, Kind::Sgx, |_| {});
        assert!(verify(machine.root_der(), &quote, collateral, NOW).is_err());
    }
}

#[test]
fn a_changed_byte_of_the_signed_parts_is_refused() {
    let machine = machine();
    let verifier = QuoteVerifier::new(machine.root_der().to_vec());
    // Header, body (with its own header in v5), length, signature, attestation key.
    let signed = [48 + 384, 48 + 584, 48 + 6 + 648].map(|signed| signed + 4 + 64 + 64);
    for ((kind, quote), bytes) in quotes(&machine).into_iter().zip(signed) {
        let collateral = collateral(&machine, kind, |_| {});
        for at in (0..bytes).step_by(17) {
            let mut changed = quote.clone();
            changed[at] ^= 1;
            let verified = verifier.verify(&changed, &collateral, NOW.as_secs());
            assert!(verified.is_err(), "byte {at} of {kind:?}");
        }
    }
}

#[test]
fn edited_tcb_information_is_refused() {
    let machine = machine();
    let quote = machine.sgx_quote(&sgx());
    let mut edited = collateral(&machine, Kind::Sgx, |said| said.status = TcbStatus::Revoked);
    edited.tcb_info = edited.tcb_info.replace("Revoked", "UpToDate");
    refused(verify(machine.root_der(), &quote, edited, NOW), "ignature");
}

#[test]
fn our_own_verifier_accepts_its_form_and_calls_it_simulated() {
    use bield_evidence::{Endorsements, Evidence, Roots, TeeKind, verify};

    let machine = machine();
    let roots = Roots::vendor().with_simulated_dcap(machine.root_der().to_vec());
    for (kind, quote) in quotes(&machine) {
        let options = CollateralOptions::at(NOW);
        let evidence = Evidence {
            kind: if kind == Kind::Sgx {
                TeeKind::Sgx
            } else {
                TeeKind::Tdx
            },
            quote,
            claims_buffer: Vec::new(),
            endorsements: Endorsements::Dcap(machine.collateral(kind, &options).unwrap()),
        };
        assert!(verify(&evidence, &roots, NOW).unwrap().simulated);
        assert!(verify(&evidence, &Roots::vendor(), NOW).is_err());
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
