//! The evidence certificate: self-signed X.509 in the interoperable RA-TLS form.
//!
//! ```text
//! extension 2.23.133.5.4.9   60000([ quote, claims-buffer ])      any RA-TLS verifier reads it
//! quote.report_data          SHA-256(claims-buffer) ‖ zeros
//! claims-buffer              pubkey-hash = SHA-256(certificate key), role, service, issued-at, kind, hardening
//! ```
//!
//! Reading checks everything that needs no policy: sizes, strict DER, one P-256 key, the
//! self-signature, the claims, and that they name this key. So every single-byte change to a
//! certificate is refused. It does *not* check the quote: that is the gate's work, where an error
//! can be named and told to the peer.
//!
//! The vendor's endorsements are not in here. They reach 100 KiB where a TLS handshake message ends
//! at 64 KiB, and they expire on their own schedule; they travel in the gate. About 5 KB with a DCAP
//! quote. spec/03 §2.

use bield_envelope::{Time, wire};
use bield_evidence::{Endorsements, Evidence};
use der::{Decode as _, Encode as _};
use minicbor::data::Tag;
use minicbor::encode::Write;
use minicbor::{Decoder, Encoder, decode, encode};
use rustls::crypto::CryptoProvider;
use time::OffsetDateTime;
use x509_cert::Certificate;
use x509_cert::ext::Extension;

use crate::key::{SessionKey, is_p256, verifies};
use crate::{CLAIMS_BYTES_MAX, SessionClaims};

/// A certificate as the peer showed it: well-formed, self-signed, claims about its own key.
///
/// Its evidence is *not* verified by this type's existence.
#[derive(Debug, Clone)]
pub struct PeerCertificate {
    claims: SessionClaims,
    spki: Vec<u8>,
    quote: Vec<u8>,
    claims_buffer: Vec<u8>,
    not_before: Time,
    not_after: Time,
}

impl PeerCertificate {
    /// Reads the DER of a certificate.
    ///
    /// # Errors
    /// Whatever departs from spec/03 §2; see [`CertificateError`].
    pub fn parse(der: &[u8], provider: &CryptoProvider) -> Result<Self, CertificateError> {
        bounded(der, CERTIFICATE_BYTES_MAX)?;
        let malformed = |_| CertificateError::Malformed;
        let certificate = Certificate::from_der(der).map_err(malformed)?;
        if certificate.to_der().map_err(malformed)? != der {
            return Err(CertificateError::Malformed);
        }
        let body = certificate.tbs_certificate();
        let spki = body.subject_public_key_info().to_der().map_err(malformed)?;
        if !is_p256(&spki) {
            return Err(CertificateError::KeyKind);
        }
        let signature = certificate
            .signature()
            .as_bytes()
            .ok_or(CertificateError::Malformed)?;
        let signed = body.to_der().map_err(malformed)?;
        if certificate.signature_algorithm() != body.signature()
            || !verifies(provider, &spki, &signed, signature)
        {
            return Err(CertificateError::Signature);
        }

        let extensions = body.extensions().map_or(&[][..], |found| found);
        let quoted = evidence_extension(extensions)?;
        let claims =
            SessionClaims::decode(&quoted.claims_buffer).map_err(|_| CertificateError::Claims)?;
        if !claims.are_of(&spki) {
            return Err(CertificateError::OtherKey);
        }
        let validity = body.validity();
        Ok(Self {
            not_before: time_of(validity.not_before),
            not_after: time_of(validity.not_after),
            quote: quoted.quote,
            claims_buffer: quoted.claims_buffer,
            claims,
            spki,
        })
    }

    /// What the certificate's evidence attests besides code, once that evidence is verified.
    #[must_use]
    pub const fn claims(&self) -> &SessionClaims {
        &self.claims
    }

    /// Its key, as SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Its evidence together with `endorsements`; not verified.
    #[must_use]
    pub fn evidence(&self, endorsements: Endorsements) -> Evidence {
        Evidence {
            kind: self.claims.kind,
            quote: self.quote.clone(),
            claims_buffer: self.claims_buffer.clone(),
            endorsements,
        }
    }

    /// First and last time at which it is valid.
    #[must_use]
    pub const fn validity(&self) -> (Time, Time) {
        (self.not_before, self.not_after)
    }
}

/// Why bytes are not an evidence certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than any evidence needs.
    #[error("certificate, or its evidence, of {found} bytes; at most {max}")]
    TooLong {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// Not strict DER of an X.509 certificate.
    #[error("certificate is malformed")]
    Malformed,
    /// The key is not on P-256.
    #[error("certificate key is not an uncompressed P-256 key")]
    KeyKind,
    /// Not signed by its own key.
    #[error("certificate is not signed by its own key")]
    Signature,
    /// The evidence extension is missing, doubled or malformed.
    #[error("certificate has no well-formed evidence extension 2.23.133.5.4.9")]
    Extension,
    /// The claims-buffer is malformed or of another version.
    #[error("certificate's claims are malformed")]
    Claims,
    /// The claims are about another key: evidence copied from someone else's certificate.
    #[error("certificate carries evidence of another key")]
    OtherKey,
    /// Not valid now.
    #[error("certificate is valid from {from} until {until}, and it is {now}; renew the identity")]
    NotValidNow {
        /// First valid time.
        from: Time,
        /// Last valid time.
        until: Time,
        /// The time it was checked at.
        now: Time,
    },
    /// The provider would not sign.
    #[error("certificate could not be made: {0}")]
    NotMade(String),
}

/// Makes a certificate of `key` around a quote over `claims_buffer`, which must be the key's.
///
/// # Errors
/// Too long, or the provider does not sign.
pub fn certificate_der(
    key: &SessionKey,
    quote: &[u8],
    claims_buffer: &[u8],
    not_before: Time,
    not_after: Time,
) -> Result<Vec<u8>, CertificateError> {
    let quoted = Quoted {
        quote: quote.to_vec(),
        claims_buffer: claims_buffer.to_vec(),
    };
    let content = wire::encode(&quoted);
    bounded(&content, EVIDENCE_EXTENSION_BYTES_MAX)?;
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_before = date(not_before)?;
    parameters.not_after = date(not_after)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters
        .distinguished_name
        .push(rcgen::DnType::CommonName, "bield session");
    let extension = rcgen::CustomExtension::from_oid_content(EVIDENCE_OID, content);
    parameters.custom_extensions.push(extension);
    let certificate = parameters
        .self_signed(key)
        .map_err(|error| CertificateError::NotMade(error.to_string()))?;
    bounded(certificate.der(), CERTIFICATE_BYTES_MAX)?;
    Ok(certificate.der().to_vec())
}

/// Reads the one evidence extension; a second one is refused.
fn evidence_extension(extensions: &[Extension]) -> Result<Quoted, CertificateError> {
    let ours = |e: &&Extension| {
        e.extn_id
            .arcs()
            .map(u64::from)
            .eq(EVIDENCE_OID.iter().copied())
    };
    let mut found = extensions.iter().filter(ours);
    let (Some(extension), None) = (found.next(), found.next()) else {
        return Err(CertificateError::Extension);
    };
    let content = extension.extn_value.as_bytes();
    bounded(content, EVIDENCE_EXTENSION_BYTES_MAX)?;
    wire::decode(content, EVIDENCE_EXTENSION_BYTES_MAX).map_err(|_| CertificateError::Extension)
}

fn bounded(bytes: &[u8], max: usize) -> Result<(), CertificateError> {
    if bytes.len() > max {
        return Err(CertificateError::TooLong {
            found: bytes.len(),
            max,
        });
    }
    Ok(())
}

/// `60000([quote, claims-buffer])`.
struct Quoted {
    quote: Vec<u8>,
    claims_buffer: Vec<u8>,
}

impl<C> minicbor::Encode<C> for Quoted {
    fn encode<W: Write>(
        &self,
        out: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        out.tag(EVIDENCE_TAG)?
            .array(2)?
            .bytes(&self.quote)?
            .bytes(&self.claims_buffer)?
            .ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Quoted {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        // Tag and length are compared by `wire::decode`, which encodes again.
        d.tag()?;
        d.array()?;
        Ok(Self {
            quote: d.bytes()?.to_vec(),
            claims_buffer: d.bytes()?.to_vec(),
        })
    }
}

fn time_of(time: x509_cert::time::Time) -> Time {
    Time::from_secs(time.to_unix_duration().as_secs())
}

fn date(time: Time) -> Result<OffsetDateTime, CertificateError> {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .ok_or_else(|| CertificateError::NotMade("date out of range".into()))
}

/// Bytes of a certificate: the evidence extension and about 400 bytes around it; rustls ends a
/// handshake message at 64 KiB.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the evidence extension: DCAP quotes take about 5 KB, SNP reports 1.2 KB.
pub const EVIDENCE_EXTENSION_BYTES_MAX: usize = 12 * 1024;

const EVIDENCE_OID: &[u64] = &[2, 23, 133, 5, 4, 9];
const EVIDENCE_TAG: Tag = Tag::new(60_000);

const _: () = assert!(EVIDENCE_EXTENSION_BYTES_MAX + 1024 <= CERTIFICATE_BYTES_MAX);
const _: () = assert!(CLAIMS_BYTES_MAX < EVIDENCE_EXTENSION_BYTES_MAX);
