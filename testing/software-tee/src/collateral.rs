//! What a verifier needs beside the quote: revocation lists, TCB information, QE identity.
//!
//! Goes in: the platform, and what the signed statements should say. Comes out: the answers of
//! Intel's provisioning service (PCS v4) as one JSON document, `QuoteCollateralV3` of `dcap-qvl`.
//!
//! Always true: with [`CollateralOptions::default`] the platform is up to date and the documents are
//! valid from an hour ago for thirty days; every negative knob changes what is *said*, and it is
//! signed as honestly as the rest. About 12 KB, four P-256 signatures.
//!
//! Source: Intel "PCS API v4", TCB Info v3 and Enclave Identity v2.

use std::time::Duration;

use bield_envelope::Time;
use dcap_qvl::{QuoteCollateralV3, TcbStatus};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::extension::Identity;
use crate::pki::{Pki, date};
use crate::quote::{QE_SIGNER, TDX_MODULE_SVN, qe_product};
use crate::report::Kind;
use crate::{QE_SVN, SoftwareTeeError};

/// What the collateral says about the platform.
#[derive(Clone, Debug)]
pub struct CollateralOptions {
    /// Status of the platform's patch level.
    pub status: TcbStatus,
    /// Advisories that apply to it, such as `INTEL-SA-00000`.
    pub advisories: Vec<String>,
    /// When that patch level was current; counts for grace periods.
    pub tcb_date: Time,
    /// When the documents were issued.
    pub issued: Time,
    /// How long after `issued` they may be used.
    pub valid: Duration,
    /// Revokes the platform's PCK certificate.
    pub pck_revoked: bool,
    /// Speaks about another family of platforms than the quote's.
    pub fmspc: Option<[u8; 6]>,
    /// Lowest patch level of the quoting enclave that counts as up to date.
    pub qe_svn_min: u16,
    /// Grows with every TCB recovery.
    pub evaluation_number: u32,
}

impl CollateralOptions {
    /// Collateral of an up-to-date platform, fetched at `now`.
    pub fn at(now: Time) -> Self {
        Self {
            status: TcbStatus::UpToDate,
            advisories: Vec::new(),
            tcb_date: TCB_DATE,
            issued: now.minus(Duration::from_secs(3600)),
            valid: Duration::from_secs(30 * 24 * 3600),
            pck_revoked: false,
            fmspc: None,
            qe_svn_min: QE_SVN,
            evaluation_number: 17,
        }
    }
}

impl Default for CollateralOptions {
    /// Collateral of an up-to-date platform, fetched now.
    fn default() -> Self {
        Self::at(bield_platform::now())
    }
}

/// Writes and signs the documents.
pub(crate) fn issue(
    kind: Kind,
    identity: &Identity,
    pki: &Pki,
    options: &CollateralOptions,
) -> Result<QuoteCollateralV3, SoftwareTeeError> {
    let until = options.issued.plus(options.valid);
    let tcb_info = tcb_info(kind, identity, options, until)?.to_string();
    let qe_identity = qe_identity(kind, options, until)?.to_string();
    let tcb_chain = [&*pki.tcb_pem, &*pki.root_pem].concat();
    Ok(QuoteCollateralV3 {
        pck_crl_issuer_chain: [&*pki.pck_ca_pem, &*pki.root_pem].concat(),
        root_ca_crl: pki.root_crl(options.issued, until)?,
        pck_crl: pki.pck_crl(options.pck_revoked, options.issued, until)?,
        tcb_info_issuer_chain: tcb_chain.clone(),
        tcb_info_signature: pki.tcb_key.sign_raw(tcb_info.as_bytes()).to_vec(),
        tcb_info,
        qe_identity_issuer_chain: tcb_chain,
        qe_identity_signature: pki.tcb_key.sign_raw(qe_identity.as_bytes()).to_vec(),
        qe_identity,
        pck_certificate_chain: None,
    })
}

fn tcb_info(
    kind: Kind,
    identity: &Identity,
    options: &CollateralOptions,
    until: Time,
) -> Result<Value, SoftwareTeeError> {
    let mut tcb = json!({
        "sgxtcbcomponents": components(&identity.cpu_svn),
        "pcesvn": identity.pce_svn,
    });
    let mut info = json!({
        "id": "SGX",
        "version": 3,
        "issueDate": text(options.issued)?,
        "nextUpdate": text(until)?,
        "fmspc": hex::encode_upper(options.fmspc.unwrap_or(identity.fmspc)),
        "pceId": "0000",
        "tcbType": 0,
        "tcbEvaluationDataNumber": options.evaluation_number,
    });
    if kind == Kind::Tdx {
        let [module_svn, module_version, ..] = TDX_MODULE_SVN;
        // Component 1 names the module's version; its own levels are listed by module identity.
        let mut platform_part = TDX_MODULE_SVN;
        platform_part[1] = 0;
        tcb["tdxtcbcomponents"] = components(&platform_part);
        let module = json!({
            "mrsigner": "00".repeat(48),
            "attributes": "00".repeat(8),
            "attributesMask": "FF".repeat(8),
        });
        let mut versioned = module.clone();
        versioned["id"] = json!(format!("TDX_{module_version:02X}"));
        versioned["tcbLevels"] = json!([{
            "tcb": { "isvsvn": module_svn },
            "tcbDate": text(options.tcb_date)?,
            "tcbStatus": "UpToDate",
        }]);
        info["id"] = json!("TDX");
        info["tdxModule"] = module;
        info["tdxModuleIdentities"] = json!([versioned]);
    }
    info["tcbLevels"] = json!([{
        "tcb": tcb,
        "tcbDate": text(options.tcb_date)?,
        "tcbStatus": options.status.to_string(),
        "advisoryIDs": options.advisories,
    }]);
    Ok(info)
}

fn qe_identity(
    kind: Kind,
    options: &CollateralOptions,
    until: Time,
) -> Result<Value, SoftwareTeeError> {
    Ok(json!({
        "id": match kind { Kind::Sgx => "QE", Kind::Tdx => "TD_QE" },
        "version": 2,
        "issueDate": text(options.issued)?,
        "nextUpdate": text(until)?,
        "tcbEvaluationDataNumber": options.evaluation_number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        // Provisioning key allowed, not a debug enclave; INIT and 64-bit mode are masked out.
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": hex::encode_upper(QE_SIGNER),
        "isvprodid": qe_product(kind),
        "tcbLevels": [{
            "tcb": { "isvsvn": options.qe_svn_min },
            "tcbDate": text(options.tcb_date)?,
            "tcbStatus": "UpToDate",
        }],
    }))
}

fn components(svns: &[u8; 16]) -> Value {
    svns.iter().map(|svn| json!({ "svn": svn })).collect()
}

/// RFC 3339 with whole seconds, as Intel writes it.
fn text(time: Time) -> Result<String, SoftwareTeeError> {
    date(time)?
        .format(&Rfc3339)
        .map_err(|_| SoftwareTeeError::Date)
}

/// 2024-03-13T00:00:00Z, the date of a real TCB recovery.
const TCB_DATE: Time = Time::from_secs(1_710_288_000);
