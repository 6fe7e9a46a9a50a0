//! The certificates of a made-up CPU vendor, shaped like Intel's.
//!
//! ```text
//! Root CA (30 y, path ≤ 1) ──▶ PCK Platform CA (30 y, path 0) ──▶ PCK (the platform; SGX extension)
//!        └──────────────────▶ TCB Signing (signs TCB info and QE identity)
//! ```
//!
//! Goes in: the platform's secret, its identity, the time it was made. Comes out: certificates and
//! the keys that sign quotes and collateral.
//!
//! Always true: every subject says "Simulated (NOT Intel)"; every key follows from the platform's
//! secret and every signature is deterministic (RFC 6979), so the same secret and time give the
//! same bytes; revocation lists are made on demand, so they are never stale.
//!
//! The shape is what the verifier demands: the TCB signer is issued by the root itself, leaves say
//! `CA:FALSE` and carry no extended key usage, lists carry no distribution point.

use std::time::Duration;

use bield_envelope::{Secret, Time};
use p256::ecdsa::signature::Signer as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SerialNumber, SignatureAlgorithm, SigningKey,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::{SoftwareTeeError, extension};

/// A P-256 key that signs certificates (DER) and quotes (raw r ‖ s) alike.
pub(crate) struct Key {
    signing: p256::ecdsa::SigningKey,
    /// Uncompressed point: 0x04 ‖ x ‖ y.
    point: Vec<u8>,
}

impl Key {
    /// Derives the key named `purpose` from the platform's secret.
    pub(crate) fn derive(secret: &Secret, purpose: &str) -> Self {
        // One candidate in 2^32 is no P-256 scalar; the next attempt then is.
        for attempt in 0u32.. {
            let context: [&[u8]; 2] = [purpose.as_bytes(), &attempt.to_be_bytes()];
            let candidate = secret.derive("bield software tee key v1", &context);
            if let Ok(signing) = p256::ecdsa::SigningKey::from_slice(candidate.expose()) {
                let point = signing.verifying_key().to_sec1_point(false);
                return Self {
                    point: point.as_bytes().to_vec(),
                    signing,
                };
            }
        }
        unreachable!("one of 2^32 candidates is a P-256 scalar")
    }

    /// Signs `message` (ECDSA over SHA-256) as r ‖ s, the form inside quotes and collateral.
    pub(crate) fn sign_raw(&self, message: &[u8]) -> [u8; 64] {
        let signature: p256::ecdsa::Signature = self.signing.sign(message);
        signature.to_bytes().into()
    }

    /// x ‖ y, as quotes carry a public key.
    pub(crate) fn coordinates(&self) -> &[u8] {
        &self.point[1..]
    }

    fn identifier(&self) -> Vec<u8> {
        Sha256::digest(&self.point)[..20].to_vec()
    }

    /// A positive serial number that follows from the key.
    fn serial(&self) -> SerialNumber {
        let mut serial = self.identifier();
        serial[0] = serial[0] & 0x7f | 1;
        SerialNumber::from_slice(&serial)
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: p256::ecdsa::Signature = self.signing.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

/// The certificates of one platform and the keys behind them.
pub(crate) struct Pki {
    pub(crate) root_der: Vec<u8>,
    pub(crate) root_pem: String,
    pub(crate) pck_ca_pem: String,
    pub(crate) pck_pem: String,
    pub(crate) tcb_pem: String,
    pub(crate) pck_key: Key,
    pub(crate) tcb_key: Key,
    root_key: Key,
    root_params: CertificateParams,
    pck_ca_key: Key,
    pck_ca_params: CertificateParams,
}

impl Pki {
    /// Issues every certificate for the platform described by `identity`, as of `created`.
    pub(crate) fn issue(
        secret: &Secret,
        identity: &extension::Identity,
        created: Time,
    ) -> Result<Self, SoftwareTeeError> {
        let root_key = Key::derive(secret, "root");
        let pck_ca_key = Key::derive(secret, "pck ca");
        let pck_key = Key::derive(secret, "pck");
        let tcb_key = Key::derive(secret, "tcb signing");

        let root_params = authority("Simulated SGX Root CA", &root_key, 1, created)?;
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::from_params(&root_params, &root_key);

        let pck_ca_params = authority("Simulated SGX PCK Platform CA", &pck_ca_key, 0, created)?;
        let pck_ca = pck_ca_params.signed_by(&pck_ca_key, &root_issuer)?;
        let pck_ca_issuer = Issuer::from_params(&pck_ca_params, &pck_ca_key);

        let mut pck_params = leaf("Simulated SGX PCK Certificate", &pck_key, created)?;
        pck_params.custom_extensions = vec![CustomExtension::from_oid_content(
            extension::OID,
            extension::encode(identity),
        )];
        let pck = pck_params.signed_by(&pck_key, &pck_ca_issuer)?;
        let tcb = leaf("Simulated SGX TCB Signing", &tcb_key, created)?
            .signed_by(&tcb_key, &root_issuer)?;

        Ok(Self {
            root_der: root.der().to_vec(),
            root_pem: root.pem(),
            pck_ca_pem: pck_ca.pem(),
            pck_pem: pck.pem(),
            tcb_pem: tcb.pem(),
            pck_key,
            tcb_key,
            root_params,
            root_key,
            pck_ca_params,
            pck_ca_key,
        })
    }

    /// The root's revocation list (DER), always empty.
    pub(crate) fn root_crl(&self, from: Time, until: Time) -> Result<Vec<u8>, SoftwareTeeError> {
        crl(&self.root_params, &self.root_key, vec![], from, until)
    }

    /// The PCK CA's revocation list (DER), naming the platform's own certificate when `revoked`.
    pub(crate) fn pck_crl(
        &self,
        revoked: bool,
        from: Time,
        until: Time,
    ) -> Result<Vec<u8>, SoftwareTeeError> {
        let entries = if revoked {
            vec![RevokedCertParams {
                serial_number: self.pck_key.serial(),
                revocation_time: date(from)?,
                reason_code: None,
                invalidity_date: None,
            }]
        } else {
            vec![]
        };
        crl(&self.pck_ca_params, &self.pck_ca_key, entries, from, until)
    }
}

/// The calendar form of `time`.
pub(crate) fn date(time: Time) -> Result<OffsetDateTime, SoftwareTeeError> {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or(SoftwareTeeError::Date)
}

fn authority(
    name: &str,
    key: &Key,
    path_length: u8,
    created: Time,
) -> Result<CertificateParams, SoftwareTeeError> {
    let mut params = subject(name, key, created)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf(name: &str, key: &Key, created: Time) -> Result<CertificateParams, SoftwareTeeError> {
    let mut params = subject(name, key, created)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::ContentCommitment,
    ];
    Ok(params)
}

fn subject(name: &str, key: &Key, created: Time) -> Result<CertificateParams, SoftwareTeeError> {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject.push(DnType::OrganizationName, "Simulated (NOT Intel)");
    subject.push(DnType::CountryName, "US");

    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.not_before = date(created.minus(CLOCK_TOLERANCE))?;
    params.not_after = date(created.plus(CERTIFICATE_LIFE))?;
    params.key_identifier_method = KeyIdMethod::PreSpecified(key.identifier());
    params.serial_number = Some(key.serial());
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn crl(
    issuer: &CertificateParams,
    key: &Key,
    revoked_certs: Vec<RevokedCertParams>,
    from: Time,
    until: Time,
) -> Result<Vec<u8>, SoftwareTeeError> {
    let list = CertificateRevocationListParams {
        this_update: date(from)?,
        next_update: date(until)?,
        crl_number: SerialNumber::from(from.as_secs()),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::PreSpecified(key.identifier()),
    };
    let signed = list.signed_by(&Issuer::from_params(issuer, key))?;
    Ok(signed.der().to_vec())
}

/// Certificates are valid a day earlier, for peers whose clocks are behind.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(24 * 3600);

/// Long enough that no development platform outlives its certificates: 30 years.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
