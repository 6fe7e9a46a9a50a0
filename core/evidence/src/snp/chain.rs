//! AMD's certificates: ARK → ASK (ASVK) → VCEK (VLEK), and what the last one's extensions certify.
//!
//! AMD writes the RSA-PSS parameters with an explicit default trailer field, which is not DER's
//! canonical form, so the chain builder is given that spelling beside the canonical one.
//! Source: AMD publication 57230, "VCEK Certificate and KDS Interface", table of extensions.

use core::time::Duration;

use bield_envelope::Time;
use der::Decode as _;
use ring::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use rustls_pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm, UnixTime,
};
use webpki::ring::RSA_PSS_2048_8192_SHA384_LEGACY_KEY as PSS;
use x509_cert::Certificate;

use crate::claims::SnpTcb;
use crate::roots::{Root, root_digest};
use crate::verify::EvidenceError;

/// Largest ASK or VEK certificate, in bytes: real ones are 1.3 to 1.7 KB.
const CERTIFICATE_BYTES_MAX: usize = 4096;

/// A verified chain.
pub(crate) struct Chain<'a> {
    pub(crate) root: &'a Root,
    pub(crate) product: Product,
    pub(crate) key_kind: KeyKind,
    /// Firmware versions the signing key was derived from.
    pub(crate) tcb: SnpTcb,
    /// HWID extension; a VLEK has none.
    pub(crate) hardware_id: Option<Vec<u8>>,
    /// All three certificates hold in this window.
    pub(crate) from: Time,
    pub(crate) until: Time,
    key: Vec<u8>,
}

/// Which key of the chip signs reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// Versioned chip endorsement key: one per chip and firmware level.
    Vcek,
    /// Versioned loaded endorsement key: one per cloud provider.
    Vlek,
}

/// Verifies ASK and VEK up to one of `roots`.
pub(crate) fn verify<'a>(
    ask: &[u8],
    vek: &[u8],
    roots: &'a [Root],
    now: Time,
) -> Result<Chain<'a>, EvidenceError> {
    if ask.len().max(vek.len()) > CERTIFICATE_BYTES_MAX {
        return Err(EvidenceError::Malformed {
            what: "AMD certificate longer than allowed",
        });
    }
    let (ask_parsed, vek_parsed) = (parse(ask)?, parse(vek)?);
    let root = issuer_of(ask, &ask_parsed, roots)?;
    let root_parsed = parse(&root.der)?;
    build(ask, vek, root, now)?;

    let (mut from, mut until) = (Time::from_secs(0), Time::from_millis(u64::MAX));
    for certificate in [&root_parsed, &ask_parsed, &vek_parsed] {
        let validity = certificate.tbs_certificate().validity();
        from = from.max(Time::from_secs(
            validity.not_before.to_unix_duration().as_secs(),
        ));
        until = until.min(Time::from_secs(
            validity.not_after.to_unix_duration().as_secs(),
        ));
    }
    // The chain builder looks at no dates of a trust anchor.
    if now < from || now > until {
        return Err(EvidenceError::OutsideValidity {
            now,
            reason: "an AMD certificate is expired or not valid yet".to_owned(),
        });
    }

    let key_kind = key_kind(&vek_parsed)?;
    let product = Product::of(&vek_parsed)?;
    let hardware_id = match key_kind {
        KeyKind::Vcek => Some(product.hardware_id(&vek_parsed)?),
        KeyKind::Vlek => None,
    };
    Ok(Chain {
        root,
        product,
        key_kind,
        tcb: product.certified_tcb(&vek_parsed)?,
        hardware_id,
        from,
        until,
        key: vek_parsed
            .tbs_certificate()
            .subject_public_key_info()
            .subject_public_key
            .raw_bytes()
            .to_vec(),
    })
}

impl Chain<'_> {
    /// Checks a P-384 signature (r ‖ s) of the verified key.
    pub(crate) fn check_signature(
        &self,
        message: &[u8],
        signature: &[u8; 96],
    ) -> Result<(), EvidenceError> {
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, &self.key)
            .verify(message, signature)
            .map_err(|_| EvidenceError::NotGenuine {
                reason: "the report's signature does not match its certificate".to_owned(),
            })
    }
}

fn parse(der: &[u8]) -> Result<Certificate, EvidenceError> {
    Certificate::from_der(der).map_err(|_| EvidenceError::Malformed {
        what: "AMD certificate",
    })
}

/// Finds the root by name, so that a refusal can tell an unknown root from a bad signature.
fn issuer_of<'a>(
    ask: &[u8],
    parsed: &Certificate,
    roots: &'a [Root],
) -> Result<&'a Root, EvidenceError> {
    roots
        .iter()
        .find(|root| {
            Certificate::from_der(&root.der).is_ok_and(|root| {
                root.tbs_certificate().subject() == parsed.tbs_certificate().issuer()
            })
        })
        .ok_or_else(|| EvidenceError::UnknownRoot {
            root: root_digest(ask),
        })
}

fn build(ask: &[u8], vek: &[u8], root: &Root, now: Time) -> Result<(), EvidenceError> {
    let (root, ask, vek) = (
        CertificateDer::from(root.der.as_slice()),
        CertificateDer::from(ask),
        CertificateDer::from(vek),
    );
    let anchor = webpki::anchor_from_trusted_cert(&root).map_err(|error| refusal(&error, now))?;
    let (anchors, intermediates) = ([anchor], [ask]);
    let leaf = webpki::EndEntityCert::try_from(&vek).map_err(|error| refusal(&error, now))?;
    let path = leaf
        .verify_for_usage(
            &[&AmdPss, PSS],
            &anchors,
            &intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs())),
            AnyUsage,
            None,
            None,
        )
        .map_err(|error| refusal(&error, now))?;
    // A leaf issued by the root itself would leave the ASK's bytes unchecked.
    if path.intermediate_certificates().count() != 1 {
        return Err(EvidenceError::NotCanonical {
            what: "AMD certificate that is not part of the chain",
        });
    }
    Ok(())
}

fn refusal(error: &webpki::Error, now: Time) -> EvidenceError {
    use webpki::Error;
    match error {
        Error::CertExpired { .. } | Error::CertNotValidYet { .. } => {
            EvidenceError::OutsideValidity {
                now,
                reason: "an AMD certificate is expired or not valid yet".to_owned(),
            }
        }
        other => EvidenceError::NotGenuine {
            reason: format!("AMD certificate chain: {other}"),
        },
    }
}

/// RSA-PSS with SHA-384 under AMD's spelling of the parameters.
#[derive(Debug)]
struct AmdPss;

impl SignatureVerificationAlgorithm for AmdPss {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        PSS.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        AlgorithmIdentifier::from_slice(AMD_PSS_ALGORITHM)
    }

    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        PSS.verify_signature(public_key, message, signature)
    }
}

/// id-RSASSA-PSS, RFC 4055 §3.1: SHA-384, MGF1 with SHA-384, salt 48, and `[3] INTEGER 1`, the
/// trailer field's default, which DER would leave out.
#[rustfmt::skip]
const AMD_PSS_ALGORITHM: &[u8] = &[
    0x06, 9, 42, 134, 72, 134, 247, 13, 1, 1, 10,
    0x30, 57,
    0xA0, 15, 0x30, 13, 0x06, 9, 96, 134, 72, 1, 101, 3, 4, 2, 2, 0x05, 0,
    0xA1, 28, 0x30, 26, 0x06, 9, 42, 134, 72, 134, 247, 13, 1, 1, 8,
              0x30, 13, 0x06, 9, 96, 134, 72, 1, 101, 3, 4, 2, 2, 0x05, 0,
    0xA2, 3, 0x02, 1, 48,
    0xA3, 3, 0x02, 1, 1,
];

/// AMD's certificates carry no extended key usage.
struct AnyUsage;

impl webpki::ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// The VEK's subject says which key it is.
fn key_kind(vek: &Certificate) -> Result<KeyKind, EvidenceError> {
    let subject = vek.tbs_certificate().subject().to_string();
    let has = |name: &str| subject.split(',').any(|part| part.trim() == name);
    match (has("CN=SEV-VCEK"), has("CN=SEV-VLEK")) {
        (true, false) => Ok(KeyKind::Vcek),
        (false, true) => Ok(KeyKind::Vlek),
        _ => Err(EvidenceError::Malformed {
            what: "AMD certificate of an unknown kind of key",
        }),
    }
}

/// Processor generation; decides layouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    Milan,
    Genoa,
    Turin,
}

impl Product {
    /// From the product name extension (`1.3.6.1.4.1.3704.1.2`), such as "Milan-B0".
    fn of(vek: &Certificate) -> Result<Self, EvidenceError> {
        // IA5String: tag 0x16, length, text.
        let name = match extension(vek, "1.3.6.1.4.1.3704.1.2") {
            Some([0x16, length, name @ ..]) if usize::from(*length) == name.len() => name,
            _ => &[],
        };
        let name = core::str::from_utf8(name).unwrap_or_default();
        match name.split('-').next() {
            Some("Milan") => Ok(Self::Milan),
            Some("Genoa" | "Bergamo" | "Siena") => Ok(Self::Genoa),
            Some("Turin") => Ok(Self::Turin),
            _ => Err(EvidenceError::Malformed {
                what: "unknown AMD product",
            }),
        }
    }

    pub(crate) const fn cpu_family(self) -> u8 {
        match self {
            Self::Milan | Self::Genoa => 0x19,
            Self::Turin => 0x1A,
        }
    }

    /// Reads a TCB_VERSION field; its reserved bytes must be zero.
    pub(crate) fn tcb(self, field: [u8; 8]) -> Result<SnpTcb, EvidenceError> {
        let (tcb, reserved) = match (self, field) {
            (Self::Milan | Self::Genoa, [bootloader, tee, a, b, c, d, snp, microcode]) => (
                SnpTcb {
                    fmc: 0,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                },
                [a, b, c, d],
            ),
            (Self::Turin, [fmc, bootloader, tee, snp, a, b, c, microcode]) => (
                SnpTcb {
                    fmc,
                    bootloader,
                    tee,
                    snp,
                    microcode,
                },
                [a, b, c, 0],
            ),
        };
        if reserved != [0; 4] {
            return Err(EvidenceError::Malformed {
                what: "unknown part in the SNP firmware version",
            });
        }
        Ok(tcb)
    }

    /// Reads the security versions AMD certified (`1.3.6.1.4.1.3704.1.3.*`).
    fn certified_tcb(self, vek: &Certificate) -> Result<SnpTcb, EvidenceError> {
        Ok(SnpTcb {
            fmc: match self {
                Self::Turin => version(vek, "1.3.6.1.4.1.3704.1.3.9")?,
                Self::Milan | Self::Genoa => 0,
            },
            bootloader: version(vek, "1.3.6.1.4.1.3704.1.3.1")?,
            tee: version(vek, "1.3.6.1.4.1.3704.1.3.2")?,
            snp: version(vek, "1.3.6.1.4.1.3704.1.3.3")?,
            microcode: version(vek, "1.3.6.1.4.1.3704.1.3.8")?,
        })
    }

    /// Reads the chip id (`1.3.6.1.4.1.3704.1.4`): 64 bytes, 8 from Turin on.
    fn hardware_id(self, vek: &Certificate) -> Result<Vec<u8>, EvidenceError> {
        let bytes = match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        };
        let id = extension(vek, "1.3.6.1.4.1.3704.1.4").unwrap_or_default();
        // Some certificates wrap the id in an OCTET STRING.
        let id = match id {
            [0x04, length, rest @ ..] if rest.len() == bytes && usize::from(*length) == bytes => {
                rest
            }
            other => other,
        };
        if id.len() != bytes {
            return Err(EvidenceError::Malformed {
                what: "AMD hardware id extension",
            });
        }
        Ok(id.to_vec())
    }
}

/// A security version extension: a DER INTEGER from 0 to 255.
fn version(vek: &Certificate, oid: &str) -> Result<u8, EvidenceError> {
    extension(vek, oid)
        .and_then(|value| u8::from_der(value).ok())
        .ok_or(EvidenceError::Malformed {
            what: "AMD security version extension",
        })
}

fn extension<'a>(certificate: &'a Certificate, oid: &str) -> Option<&'a [u8]> {
    certificate
        .tbs_certificate()
        .extensions()?
        .iter()
        .find(|extension| extension.extn_id.to_string() == oid)
        .map(|extension| extension.extn_value.as_bytes())
}
