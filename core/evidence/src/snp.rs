//! AMD SEV-SNP attestation reports.
//!
//! ```text
//! report (1184 bytes) ── VCEK or VLEK ── ASK or ASVK ── ARK (ours, byte for byte)
//!    TCB, chip id    ═══ extensions
//! ```
//!
//! Always true: every one of the 1184 bytes is signed, part of the signature or required to be zero;
//! the firmware versions are those of the *certificate*, and a report that claims others is refused;
//! the ARK is one of ours, its dates included in the check.
//! Left to appraisal: debug, migration agents, VMPL, SMT, firmware minimum. Not checked: AMD's
//! revocation list, which the endorsements do not carry (spec/02 §4.4).
//! Cost: two RSA-4096 and one P-384 verification, about 2.5 ms.
//!
//! Source: AMD publication 56860, "SEV Secure Nested Paging Firmware ABI", ATTESTATION_REPORT.

pub(crate) mod chain;
pub(crate) mod report;

use bield_envelope::Time;

use crate::claims::{Claims, SnpTcb, TcbStatus};
use crate::evidence::{Endorsements, Evidence};
use crate::measurement::{Measurement, TeeKind};
use crate::roots::Roots;
use crate::verify::EvidenceError;
use chain::{Chain, KeyKind, Product};
use report::Report;

pub(crate) fn verify(
    evidence: &Evidence,
    roots: &Roots,
    now: Time,
) -> Result<Claims, EvidenceError> {
    let report = Report::parse(&evidence.quote)?;
    let Endorsements::Snp { ask, vek } = &evidence.endorsements else {
        return Err(EvidenceError::MissingEndorsements {
            kind: evidence.kind,
        });
    };
    let chain = chain::verify(ask, vek, roots.amd(), now)?;
    chain.check_signature(report.signed(), &report.signature()?)?;
    check_signing_key(&report, &chain)?;
    let tcb = check_tcb(&report, &chain)?;
    let platform_id = check_chip(&report, &chain)?;
    check_family(&report, chain.product)?;
    Ok(Claims {
        kind: TeeKind::Snp,
        simulated: chain.root.simulated,
        root: chain.root.digest(),
        measurement: Measurement::new(TeeKind::Snp, report.measurement()).map_err(|_| {
            EvidenceError::Malformed {
                what: "measurement",
            }
        })?,
        registers: Vec::new(),
        signer: Some(report.id_key_digest())
            .filter(|digest| digest.iter().any(|byte| *byte != 0))
            .map(<[u8]>::to_vec),
        product: None,
        svn: Some(report.guest_svn()),
        debug: report.debug(),
        migratable: report.migration_agent(),
        configuration: report.host_data().to_vec(),
        tcb_status: TcbStatus::NotRated,
        advisories: Vec::new(),
        tcb_date: None,
        snp_tcb: Some(tcb),
        platform_id,
        dynamic_platform: None,
        cached_keys: None,
        smt: Some(report.smt()),
        report_data: report.report_data(),
        hardening: None,
        vmpl: Some(report.vmpl()),
        evaluation_number: None,
        revocation_checked: false,
        collateral_from: chain.from,
        collateral_until: chain.until,
    })
}

/// The report names the kind of key that signed it; the certificate must be of that kind.
fn check_signing_key(report: &Report<'_>, chain: &Chain<'_>) -> Result<(), EvidenceError> {
    let matches = match chain.key_kind {
        KeyKind::Vcek => report.signing_key() == 0,
        KeyKind::Vlek => report.signing_key() == 1,
    };
    matches.then_some(()).ok_or_else(|| {
        not_genuine("the certificate is for another kind of key than the report was signed with")
    })
}

/// Compares the firmware versions the report claims with those AMD certified for the signing key.
fn check_tcb(report: &Report<'_>, chain: &Chain<'_>) -> Result<SnpTcb, EvidenceError> {
    let claimed = chain.product.tcb(report.reported_tcb())?;
    if claimed != chain.tcb {
        return Err(EvidenceError::NotGenuine {
            reason: format!(
                "the report claims firmware {claimed}; its certificate is for {}",
                chain.tcb
            ),
        });
    }
    Ok(claimed)
}

/// Returns the platform's identity: certified for a VCEK, reported for a VLEK, empty when masked.
fn check_chip(report: &Report<'_>, chain: &Chain<'_>) -> Result<Vec<u8>, EvidenceError> {
    let reported = report.chip_id();
    let masked = reported.iter().all(|byte| *byte == 0);
    match (&chain.hardware_id, masked) {
        (Some(certified), true) => Ok(certified.clone()),
        (Some(certified), false) => {
            let (id, rest) = reported
                .split_at_checked(certified.len())
                .ok_or_else(|| not_genuine("chip id"))?;
            if id != certified || rest.iter().any(|byte| *byte != 0) {
                return Err(not_genuine("the report comes from another chip"));
            }
            Ok(certified.clone())
        }
        (None, true) => Ok(Vec::new()),
        (None, false) => Ok(reported.to_vec()),
    }
}

/// Reports from version 3 name the CPU family; it must be one of the certified product.
fn check_family(report: &Report<'_>, product: Product) -> Result<(), EvidenceError> {
    match report.cpu_family() {
        None if product == Product::Turin => Err(not_genuine(
            "a report without CPU family from a product that has one",
        )),
        Some(family) if family != product.cpu_family() => {
            Err(not_genuine("the report comes from another CPU family"))
        }
        _ => Ok(()),
    }
}

fn not_genuine(reason: &str) -> EvidenceError {
    EvidenceError::NotGenuine {
        reason: reason.to_owned(),
    }
}
