//! Quotes in Intel's formats: SGX v3, TDX v4 and TDX v5.
//!
//! ```text
//! header 48 ‖ [v5: body type u16 ‖ size u32] ‖ body (SGX 384, TD 1.0 584, TD 1.5 648)     ─┐ signed
//! length u32 ‖ signature 64 ‖ attestation key 64 ‖ [v4, v5: type 6 u16 ‖ length u32]   ◀┘
//!     ‖ QE report 384 ‖ its signature by the PCK 64 ‖ u16 32 ‖ auth data 32
//!     ‖ type 5 u16 ‖ length u32 ‖ PEM chain
//! ```
//!
//! Goes in: what the guest claims (a report) and the platform's keys. Comes out: about 4.2 KB.
//! The quoting enclave's part is the same for every quote of a platform and is signed once, so a
//! quote costs one SHA-256 over some 600 bytes and one P-256 signature.
//!
//! Sources: Intel "SGX ECDSA Quote Library API" §A (v3), "TDX DCAP Quoting Library API" §A.3 (v4, v5).

use dcap_qvl::INTEL_QE_VENDOR_ID;
use dcap_qvl::quote::{EnclaveReport, TDReport10, TDReport15};
use parity_scale_codec::Encode as _;
use sha2::{Digest as _, Sha256};

use crate::extension::Identity;
use crate::pki::{Key, Pki};
use crate::report::{Kind, SgxReport, TdxReport};

/// Signs quotes for one platform.
pub(crate) struct Quoter {
    attestation_key: Key,
    identity: Identity,
    qe_svn: u16,
    sgx_qe: Vec<u8>,
    tdx_qe: Vec<u8>,
}

impl Quoter {
    /// Certifies `attestation_key` with the platform's PCK, once for each kind.
    pub(crate) fn new(attestation_key: Key, identity: Identity, qe_svn: u16, pki: &Pki) -> Self {
        let part = |kind| qe_part(kind, &attestation_key, &identity, qe_svn, pki);
        let (sgx_qe, tdx_qe) = (part(Kind::Sgx), part(Kind::Tdx));
        Self {
            attestation_key,
            identity,
            qe_svn,
            sgx_qe,
            tdx_qe,
        }
    }

    pub(crate) fn sgx(&self, report: &SgxReport) -> Vec<u8> {
        let mut attributes = [0; 16];
        attributes[0] = ATTRIBUTE_INIT | ATTRIBUTE_64_BIT;
        if report.debug {
            attributes[0] |= ATTRIBUTE_DEBUG;
        }
        attributes[8] = XFRM_LEGACY;
        let body = EnclaveReport {
            cpu_svn: self.identity.cpu_svn,
            misc_select: 0,
            reserved1: [0; 28],
            attributes,
            mr_enclave: report.measurement,
            reserved2: [0; 32],
            mr_signer: report.signer,
            reserved3: [0; 96],
            isv_prod_id: report.product,
            isv_svn: report.svn,
            reserved4: [0; 60],
            report_data: report.report_data,
        };
        let signed = [self.header(3, Kind::Sgx), body.encode()].concat();
        let signature = self.attestation_key.sign_raw(&signed);
        let key = self.attestation_key.coordinates();
        finish(signed, &[&signature, key, &self.sgx_qe].concat())
    }

    pub(crate) fn tdx_v4(&self, report: &TdxReport) -> Vec<u8> {
        let signed = [self.header(4, Kind::Tdx), td_1_0(report).encode()].concat();
        self.finish_tdx(signed)
    }

    pub(crate) fn tdx_v5(&self, report: &TdxReport) -> Vec<u8> {
        let base = td_1_0(report);
        let body = TDReport15 {
            base,
            tee_tcb_svn2: base.tee_tcb_svn,
            mr_service_td: [0; 48],
        }
        .encode();
        let mut signed = self.header(5, Kind::Tdx);
        signed.extend(BODY_TYPE_TD_1_5.to_le_bytes());
        signed.extend(length_of(&body));
        signed.extend(body);
        self.finish_tdx(signed)
    }

    fn finish_tdx(&self, signed: Vec<u8>) -> Vec<u8> {
        let signature = self.attestation_key.sign_raw(&signed);
        let auth = [
            &signature[..],
            self.attestation_key.coordinates(),
            &CERTIFICATION_QE_REPORT.to_le_bytes(),
            &length_of(&self.tdx_qe),
            &self.tdx_qe,
        ]
        .concat();
        finish(signed, &auth)
    }

    fn header(&self, version: u16, kind: Kind) -> Vec<u8> {
        let tee_type = match kind {
            Kind::Sgx => TEE_TYPE_SGX,
            Kind::Tdx => TEE_TYPE_TDX,
        };
        // v3 tells the QE's and PCE's patch level here; later versions keep it zero.
        let (qe_svn, pce_svn) = match version {
            3 => (self.qe_svn, self.identity.pce_svn),
            _ => (0, 0),
        };
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend(version.to_le_bytes());
        header.extend(KEY_TYPE_ECDSA_P256.to_le_bytes());
        header.extend(tee_type.to_le_bytes());
        header.extend(qe_svn.to_le_bytes());
        header.extend(pce_svn.to_le_bytes());
        header.extend(INTEL_QE_VENDOR_ID);
        header.extend(self.identity.ppid);
        header.resize(HEADER_BYTES, 0);
        header
    }
}

/// Product number of the quoting enclave of `kind`, as the collateral also says.
pub(crate) fn qe_product(kind: Kind) -> u16 {
    match kind {
        Kind::Sgx => 1,
        Kind::Tdx => 2,
    }
}

/// Signer of the made-up quoting enclave.
pub(crate) const QE_SIGNER: [u8; 32] = *b"SIMULATED-QE-SIGNER (NOT INTEL)!";

/// Patch level of the TDX module: component 0 is the module, 1 its version, 2 the SEAM loader.
pub(crate) const TDX_MODULE_SVN: [u8; 16] = [5, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn td_1_0(report: &TdxReport) -> TDReport10 {
    let mut td_attributes = [0; 8];
    td_attributes[3] = TD_SEPT_VE_DISABLE;
    if report.debug {
        td_attributes[0] = TD_DEBUG;
    }
    TDReport10 {
        tee_tcb_svn: TDX_MODULE_SVN,
        mr_seam: [0x77; 48],
        mr_signer_seam: [0; 48],
        seam_attributes: [0; 8],
        td_attributes,
        xfam: [0xe7, 2, 6, 0, 0, 0, 0, 0],
        mr_td: report.mr_td,
        mr_config_id: report.config_id,
        mr_owner: [0; 48],
        mr_owner_config: [0; 48],
        rt_mr0: report.rtmr[0],
        rt_mr1: report.rtmr[1],
        rt_mr2: report.rtmr[2],
        rt_mr3: report.rtmr[3],
        report_data: report.report_data,
    }
}

/// QE report ‖ PCK signature ‖ auth data ‖ certificate chain.
fn qe_part(kind: Kind, attestation_key: &Key, identity: &Identity, svn: u16, pki: &Pki) -> Vec<u8> {
    let mut attributes = [0; 16];
    attributes[0] = ATTRIBUTE_INIT | ATTRIBUTE_64_BIT | ATTRIBUTE_PROVISION_KEY;
    attributes[8] = XFRM_AVX;
    let mut report_data = [0; 64];
    let hash = Sha256::new()
        .chain_update(attestation_key.coordinates())
        .chain_update(QE_AUTH_DATA)
        .finalize();
    report_data[..32].copy_from_slice(&hash);
    let report = EnclaveReport {
        cpu_svn: identity.cpu_svn,
        misc_select: 0,
        reserved1: [0; 28],
        attributes,
        mr_enclave: [0x11; 32],
        reserved2: [0; 32],
        mr_signer: QE_SIGNER,
        reserved3: [0; 96],
        isv_prod_id: qe_product(kind),
        isv_svn: svn,
        reserved4: [0; 60],
        report_data,
    }
    .encode();
    let chain = [&pki.pck_pem, &pki.pck_ca_pem, &pki.root_pem, "\0"].concat();
    [
        &report[..],
        &pki.pck_key.sign_raw(&report),
        &(QE_AUTH_DATA.len() as u16).to_le_bytes(),
        &QE_AUTH_DATA,
        &CERTIFICATION_PCK_CHAIN.to_le_bytes(),
        &length_of(chain.as_bytes()),
        chain.as_bytes(),
    ]
    .concat()
}

fn finish(signed: Vec<u8>, auth: &[u8]) -> Vec<u8> {
    [&signed[..], &length_of(auth), auth].concat()
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len())
        .expect("parts of a quote are some KiB")
        .to_le_bytes()
}

const HEADER_BYTES: usize = 48;
const KEY_TYPE_ECDSA_P256: u16 = 2;
const TEE_TYPE_SGX: u32 = 0;
const TEE_TYPE_TDX: u32 = 0x81;
const BODY_TYPE_TD_1_5: u16 = 3;
const CERTIFICATION_PCK_CHAIN: u16 = 5;
const CERTIFICATION_QE_REPORT: u16 = 6;
/// The verifier wants exactly 32 bytes.
const QE_AUTH_DATA: [u8; 32] = [0x20; 32];

const ATTRIBUTE_INIT: u8 = 0x01;
const ATTRIBUTE_DEBUG: u8 = 0x02;
const ATTRIBUTE_64_BIT: u8 = 0x04;
const ATTRIBUTE_PROVISION_KEY: u8 = 0x10;
const XFRM_LEGACY: u8 = 0x03;
const XFRM_AVX: u8 = 0xe7;
const TD_DEBUG: u8 = 0x01;
/// Bit 28: the verifier refuses guests without it.
const TD_SEPT_VE_DISABLE: u8 = 0x10;
