//! Intel DCAP: SGX version 3 and TDX version 4 and 5 quotes, verified by `dcap-qvl`.
//!
//! ```text
//! quote ── attestation key ── QE report ── PCK ── PCK CA ─┐
//! collateral: TCB info, QE identity ── TCB signer ────────┼─▶ root (ours, byte for byte)
//!             root CRL, PCK CRL ──────────────────────────┘
//! ```
//!
//! The library's claims path is used (`verify_with_policy` with its claims-only policy): its hard
//! rejections stand (debug, migratable, revoked, expired, wrong signatures), its TCB verdict is
//! passed on for [`crate::appraise`] to judge. Its plain `verify` drops most claims and is not used.
//! What the library leaves unchecked, bytes outside every signature, is closed by [`canonical`].

pub(crate) mod canonical;

use bield_envelope::Time;
use dcap_qvl::quote::Report;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{PckCertFlag, QuoteClaims, QuotePolicy};

use crate::claims::{Claims, TcbStatus};
use crate::evidence::{Endorsements, Evidence};
use crate::measurement::{Measurement, TeeKind, tdx_measurement};
use crate::roots::{Root, Roots, root_digest};
use crate::verify::EvidenceError;

pub(crate) fn verify(
    evidence: &Evidence,
    roots: &Roots,
    now: Time,
) -> Result<Claims, EvidenceError> {
    let Endorsements::Dcap(collateral) = &evidence.endorsements else {
        return Err(EvidenceError::MissingEndorsements {
            kind: evidence.kind,
        });
    };
    let parts = canonical::check(&evidence.quote, collateral)?;
    let kind = if parts.quote.header.is_sgx() {
        TeeKind::Sgx
    } else {
        TeeKind::Tdx
    };
    if kind != evidence.kind {
        return Err(EvidenceError::Malformed {
            what: "quote of another kind than the evidence says",
        });
    }
    let root = roots
        .dcap(&parts.root)
        .ok_or_else(|| EvidenceError::UnknownRoot {
            root: root_digest(&parts.root),
        })?;
    let found = QuoteVerifier::new(root.der.clone())
        .verify_with_policy(
            &evidence.quote,
            parts.collateral,
            now.as_secs(),
            &QuotePolicy::claims_only(now.as_secs()),
        )
        .map_err(|error| refusal(&format!("{error:#}"), now))?;
    check_window(&found, now)?;
    claims(kind, root, &found)
}

/// Applies the whole collateral window, certificate and root dates included.
fn check_window(found: &QuoteClaims, now: Time) -> Result<(), EvidenceError> {
    let reason = if found.latest_issue_date > now.as_secs() {
        "part of the collateral is not valid yet"
    } else if found.earliest_expiration_date <= now.as_secs() {
        "part of the collateral has expired"
    } else {
        return Ok(());
    };
    Err(EvidenceError::OutsideValidity {
        now,
        reason: reason.to_owned(),
    })
}

fn claims(kind: TeeKind, root: &Root, found: &QuoteClaims) -> Result<Claims, EvidenceError> {
    let code = code(&found.report)?;
    let pck = &found.platform.pck;
    Ok(Claims {
        kind,
        simulated: root.simulated,
        root: root.digest(),
        measurement: code.measurement,
        registers: code.registers,
        signer: code.signer,
        product: code.product,
        svn: code.svn,
        debug: code.debug,
        migratable: false, // the verifier refuses migratable TDs
        configuration: code.configuration,
        tcb_status: status(found.tcb.status)?,
        advisories: found.tcb.advisory_ids.clone(),
        tcb_date: Some(tcb_date(found)?),
        snp_tcb: None,
        platform_id: pck.ppid.clone(),
        dynamic_platform: flag(pck.dynamic_platform),
        cached_keys: flag(pck.cached_keys),
        smt: flag(pck.smt_enabled),
        report_data: code.report_data,
        hardening: None,
        vmpl: None,
        evaluation_number: Some(found.tcb.eval_data_number),
        revocation_checked: true,
        collateral_from: Time::from_secs(found.latest_issue_date),
        collateral_until: Time::from_secs(found.earliest_expiration_date.saturating_sub(1)),
    })
}

/// The part of the claims that comes from the report body.
struct Code {
    measurement: Measurement,
    registers: Vec<Vec<u8>>,
    signer: Option<Vec<u8>>,
    product: Option<u16>,
    svn: Option<u32>,
    debug: bool,
    configuration: Vec<u8>,
    report_data: [u8; 64],
}

fn code(report: &Report) -> Result<Code, EvidenceError> {
    const MALFORMED: EvidenceError = EvidenceError::Malformed {
        what: "report body",
    };
    if let Some(report) = report.as_sgx() {
        return Ok(Code {
            measurement: Measurement::new(TeeKind::Sgx, &report.mr_enclave)
                .map_err(|_| MALFORMED)?,
            registers: Vec::new(),
            signer: Some(report.mr_signer.to_vec()),
            product: Some(report.isv_prod_id),
            svn: Some(report.isv_svn.into()),
            debug: report.attributes[0] & SGX_FLAG_DEBUG != 0,
            // SDM vol. 3D, REPORT structure: 32 reserved bytes, then CONFIGID (64).
            configuration: report.reserved3[32..].to_vec(),
            report_data: report.report_data,
        });
    }
    let report = report.as_td10().ok_or(MALFORMED)?;
    let registers = [
        report.mr_td,
        report.rt_mr0,
        report.rt_mr1,
        report.rt_mr2,
        report.rt_mr3,
    ];
    Ok(Code {
        measurement: tdx_measurement(&registers),
        registers: registers.iter().map(|register| register.to_vec()).collect(),
        signer: (report.mr_owner != [0; 48]).then(|| report.mr_owner.to_vec()),
        product: None,
        svn: None,
        // Bits 7:0 are the "TD under debug" group: any of them makes the TD untrusted.
        debug: report.td_attributes[0] != 0,
        configuration: report.mr_config_id.to_vec(),
        report_data: report.report_data,
    })
}

/// ATTRIBUTES.DEBUG, Intel SDM vol. 3D, "ATTRIBUTES structure".
const SGX_FLAG_DEBUG: u8 = 1 << 1;

fn flag(flag: PckCertFlag) -> Option<bool> {
    match flag {
        PckCertFlag::True => Some(true),
        PckCertFlag::False => Some(false),
        PckCertFlag::Undefined => None,
    }
}

fn status(status: dcap_qvl::TcbStatus) -> Result<TcbStatus, EvidenceError> {
    use dcap_qvl::TcbStatus as Found;
    Ok(match status {
        Found::UpToDate => TcbStatus::UpToDate,
        Found::SWHardeningNeeded => TcbStatus::SWHardeningNeeded,
        Found::ConfigurationNeeded => TcbStatus::ConfigurationNeeded,
        Found::ConfigurationAndSWHardeningNeeded => TcbStatus::ConfigurationAndSWHardeningNeeded,
        Found::OutOfDate => TcbStatus::OutOfDate,
        Found::OutOfDateConfigurationNeeded => TcbStatus::OutOfDateConfigurationNeeded,
        Found::TDRelaunchAdvised => TcbStatus::TDRelaunchAdvised,
        Found::TDRelaunchAdvisedConfigurationNeeded => {
            TcbStatus::TDRelaunchAdvisedConfigurationNeeded
        }
        Found::Revoked => {
            return Err(EvidenceError::Revoked {
                reason: "TCB level".to_owned(),
            });
        }
    })
}

/// Date of the platform's level, or of the quoting enclave's when that is out of date and older.
fn tcb_date(found: &QuoteClaims) -> Result<Time, EvidenceError> {
    let platform = Time::from_secs(found.platform.tcb_date_tag);
    if found.qe.tcb_level.tcb_status != dcap_qvl::TcbStatus::OutOfDate {
        return Ok(platform);
    }
    let quoting_enclave = found
        .qe
        .tcb_level
        .tcb_date
        .parse::<der::DateTime>()
        .map_err(|_| EvidenceError::Malformed {
            what: "date of the quoting enclave's TCB level",
        })?;
    Ok(platform.min(Time::from_secs(quoting_enclave.unix_duration().as_secs())))
}

/// Sorts the library's reasons into ours. The texts are those of the pinned version and tests hold
/// one of each group; an unknown text is still a refusal, only of the last group.
fn refusal(error: &str, now: Time) -> EvidenceError {
    let says = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
    let reason = error.to_owned();
    if says(&["Revoked", "revoked"]) {
        EvidenceError::Revoked { reason }
    } else if says(&["xpired", "future", "NotValidYet"]) {
        EvidenceError::OutsideValidity { now, reason }
    } else if says(OPEN) {
        EvidenceError::Open { reason }
    } else {
        EvidenceError::NotGenuine { reason }
    }
}

/// Words of the library's refusals of attributes that open a TEE to its host.
const OPEN: &[&str] = &[
    "Debug mode",
    "TD profiling",
    "Reserved bits",
    "TD migration",
    "SERVTD_EXT",
    "SEPT_VE_DISABLE",
    "MR service TD",
];
