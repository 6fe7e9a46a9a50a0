//! One made-up machine: its identity, certificates, quoting key and sealing secret.
//!
//! ```text
//! secret (32 B) ──HKDF──▶ root, PCK CA, PCK, TCB signing, attestation keys ──▶ quotes, collateral
//!        └────────HKDF (measurement, context)─────────────────────────────▶ seal keys
//! ```
//!
//! Always true: everything follows from the secret, the [`Options`] and the time of making, so a
//! machine kept on disk is 50 bytes and a seeded one reproduces itself byte by byte.

use bield_envelope::{Secret, Time};
use bield_evidence::Measurement;

use crate::collateral::{self, CollateralOptions};
use crate::extension::Identity;
use crate::pki::{Key, Pki};
use crate::quote::Quoter;
use crate::report::{Kind, SgxReport, TdxReport};
use crate::{MARKER, SoftwareTeeError};

/// What kind of machine to make. The default is an ordinary, fully patched one.
#[derive(Clone, Debug)]
pub struct Options {
    /// Makes the same machine again; `None` draws a new one.
    pub seed: Option<[u8; 32]>,
    /// When it was made: its certificates are valid from a day earlier, for 30 years.
    pub created: Time,
    /// Family, model and platform kind.
    pub fmspc: [u8; 6],
    /// Patch level of the quoting enclave; below [`QE_SVN`] it is out of date.
    pub qe_svn: u16,
    /// The certificate says that packages can be added later.
    pub dynamic_platform: bool,
    /// The certificate says that its keys are cached by the registration service.
    pub cached_keys: bool,
    /// The certificate says that multithreading is on.
    pub smt: bool,
}

impl Options {
    /// The machine of `seed`, made at `created`.
    pub fn seeded(seed: [u8; 32], created: Time) -> Self {
        Self {
            seed: Some(seed),
            created,
            fmspc: FMSPC,
            qe_svn: QE_SVN,
            dynamic_platform: false,
            cached_keys: false,
            smt: false,
        }
    }
}

impl Default for Options {
    /// A new machine, made now.
    fn default() -> Self {
        Self {
            seed: None,
            ..Self::seeded([0; 32], bield_platform::now())
        }
    }
}

/// A made-up machine that quotes in real formats. It protects nothing.
pub struct Platform {
    secret: Secret,
    identity: Identity,
    pki: Pki,
    quoter: Quoter,
}

impl Platform {
    /// Makes a machine.
    ///
    /// # Errors
    /// When `options.created` is outside the years a certificate can name.
    pub fn generate(options: Options) -> Result<Self, SoftwareTeeError> {
        let secret = match options.seed {
            Some(seed) => Secret::from_bytes(seed),
            None => Secret::generate(&mut bield_platform::Randomness),
        };
        Self::from_secret(secret, &options)
    }

    /// Makes the machine of `secret`; `options.seed` is not looked at.
    pub(crate) fn from_secret(secret: Secret, options: &Options) -> Result<Self, SoftwareTeeError> {
        // The marker ends up in every program that can make a machine.
        let name = secret.derive(MARKER, &[b"ppid v1"]);
        let mut ppid = [0; 16];
        ppid.copy_from_slice(&name.expose()[..16]);
        let identity = Identity {
            ppid,
            fmspc: options.fmspc,
            cpu_svn: CPU_SVN,
            pce_svn: PCE_SVN,
            dynamic_platform: options.dynamic_platform,
            cached_keys: options.cached_keys,
            smt: options.smt,
        };
        let pki = Pki::issue(&secret, &identity, options.created)?;
        let attestation_key = Key::derive(&secret, "attestation");
        let quoter = Quoter::new(attestation_key, identity.clone(), options.qe_svn, &pki);
        Ok(Self {
            secret,
            identity,
            pki,
            quoter,
        })
    }

    /// The root certificate (DER) under which this machine's quotes verify, and under no other.
    pub fn root_der(&self) -> &[u8] {
        &self.pki.root_der
    }

    /// The name of this machine inside its certificate (PPID).
    pub fn id(&self) -> [u8; 16] {
        self.identity.ppid
    }

    /// Quotes an SGX enclave, format version 3; about 4.1 KB.
    pub fn sgx_quote(&self, report: &SgxReport) -> Vec<u8> {
        self.quoter.sgx(report)
    }

    /// Quotes a TDX 1.0 guest, format version 4; about 4.3 KB.
    pub fn tdx_quote_v4(&self, report: &TdxReport) -> Vec<u8> {
        self.quoter.tdx_v4(report)
    }

    /// Quotes a TDX 1.5 guest, format version 5; about 4.4 KB.
    pub fn tdx_quote_v5(&self, report: &TdxReport) -> Vec<u8> {
        self.quoter.tdx_v5(report)
    }

    /// Issues the collateral for quotes of `kind`: `QuoteCollateralV3` as JSON.
    ///
    /// # Errors
    /// When a date in `options` is outside the years a document can name, or the validity is zero.
    pub fn collateral(
        &self,
        kind: Kind,
        options: &CollateralOptions,
    ) -> Result<Vec<u8>, SoftwareTeeError> {
        let documents = collateral::issue(kind, &self.identity, &self.pki, options)?;
        Ok(serde_json::to_vec(&documents).expect("strings and bytes always encode"))
    }

    /// Derives the sealing key of the code `measurement` for `context`, as EGETKEY would.
    pub fn seal_key(&self, measurement: &Measurement, context: &str) -> Secret {
        let code = measurement.to_string();
        let parts: [&[u8]; 2] = [code.as_bytes(), context.as_bytes()];
        self.secret.derive("bield software tee seal key v1", &parts)
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }
}

/// Patch level of the quoting enclave that counts as up to date.
pub const QE_SVN: u16 = 8;

const FMSPC: [u8; 6] = [0x5a, 0x1e, 0, 0, 0, 1];
const CPU_SVN: [u8; 16] = [3, 3, 2, 2, 3, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];
const PCE_SVN: u16 = 13;
