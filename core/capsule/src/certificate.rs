//! Openings and certificates: how a chain shows that its writer may write (`spec/06 §6`).
//!
//! ```text
//! key service ──▶ WriterCertificate ──▶ opening ──▶ body of the chain's first record
//!                 capsule, writer,      key, certificate
//!                 code, window
//! ```
//!
//! In: the body of an open record. Out: the writer's key, whose id is the one in the header, and a
//! certificate whose signature is checked. Always true: a certificate is for one capsule and one
//! writer. Whether its signer counts is for [`crate::Config`] to say, at each record anew.

use bield_envelope::{Signed, Statement, Time, Verified, wire};
use minicbor::{Decode, Encode};

use crate::{CapsuleName, PublicKey, Suite, WriterId};

/// Longest encoded measurement in bytes: a kind and 64 bytes today, and room.
pub const CODE_BYTES_MAX: usize = 128;

/// Longest body of an open record in bytes: an ML-DSA key, a certificate, and room.
pub const OPENING_BYTES_MAX: usize = 8192;

/// A certified principal's word that a writer may write, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WriterCertificate {
    /// Where it may write.
    #[n(0)]
    pub capsule: CapsuleName,
    /// Who may.
    #[n(1)]
    pub writer: WriterId,
    /// Encoded measurement of the code that holds the writer's key, from its evidence.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub code: Option<Vec<u8>>,
    /// The evidence came from a software TEE: there is no hardware protection.
    #[n(3)]
    pub simulated: bool,
    /// First moment of the window.
    #[n(4)]
    pub not_before: Time,
    /// First moment after the window.
    #[n(5)]
    pub not_after: Time,
}

impl Statement for WriterCertificate {
    const DOMAIN: &'static str = "bield capsule writer certificate v1";
    const BYTES_MAX: usize = 512;
}

impl WriterCertificate {
    /// Whether `time` lies in the window.
    #[must_use]
    pub fn holds_at(&self, time: Time) -> bool {
        self.not_before <= time && time < self.not_after
    }
}

/// Why a certificate does not admit a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The writer's key is not admitted by the owner, and there is no certificate.
    #[error("there is none, and the owner has not admitted the key itself")]
    Absent,
    /// Not a signed certificate in the one accepted encoding.
    #[error("it does not decode, or its signature does not verify")]
    Invalid,
    /// The measurement is longer than it may be, or the window is empty.
    #[error("it breaks a rule of its format")]
    Rule,
    /// Made for another capsule or another writer.
    #[error("it is for another capsule or another writer")]
    Other,
    /// The configuration does not certify its signer.
    #[error("its signer is not certified by the owner")]
    Signer,
    /// The owner counts only certificates for listed code, and this is for other code.
    #[error("the owner does not count certificates for this code")]
    Code,
    /// The record's clock lies outside of the window.
    #[error("the record's clock lies outside of its window")]
    Clock,
    /// The record arrived outside of the window, and of 60 s of grace.
    #[error("the record arrived outside of its window")]
    Arrival,
}

/// The body of an open record, checked against the header it stands under.
#[derive(Clone, Debug)]
pub struct Opening {
    key: PublicKey,
    certificate: Option<Verified<WriterCertificate>>,
}

/// Why the body of an open record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpeningError {
    /// Not the CBOR that an opening is made of, or a key that is not of the capsule's suite.
    #[error("it does not decode as a key of the suite and a certificate")]
    Encoding,
    /// The key has another id than the header says.
    #[error("its key is not the one that the header names")]
    OtherKey,
    /// The certificate is wrong in itself.
    #[error("its certificate is refused: {0}")]
    Certificate(CertificateError),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Fields {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    certificate: Option<Vec<u8>>,
}

impl Opening {
    /// Encodes the body of an open record; the certificate is signed bytes.
    #[must_use]
    pub fn encode(key: &PublicKey, certificate: Option<&[u8]>) -> Vec<u8> {
        wire::encode(&Fields {
            key: key.as_bytes().to_vec(),
            certificate: certificate.map(<[u8]>::to_vec),
        })
    }

    /// Reads the body of the open record of `writer` in `capsule`, and checks the certificate's
    /// signature by the principal it names.
    ///
    /// # Errors
    /// The body or the certificate is wrong in itself.
    pub fn decode(
        suite: Suite,
        capsule: &CapsuleName,
        writer: &WriterId,
        body: &[u8],
    ) -> Result<Self, OpeningError> {
        let fields: Fields =
            wire::decode(body, OPENING_BYTES_MAX).map_err(|_| OpeningError::Encoding)?;
        let key = PublicKey::from_bytes(suite, &fields.key).ok_or(OpeningError::Encoding)?;
        if key.id() != *writer {
            return Err(OpeningError::OtherKey); // spec/06 §6: the id MUST be that of the key
        }
        let certificate = fields
            .certificate
            .map(|bytes| certificate(capsule, writer, &bytes))
            .transpose()
            .map_err(OpeningError::Certificate)?;
        Ok(Self { key, certificate })
    }

    /// The writer's key.
    #[must_use]
    pub const fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The certificate; its signer is not judged.
    #[must_use]
    pub const fn certificate(&self) -> Option<&Verified<WriterCertificate>> {
        self.certificate.as_ref()
    }
}

fn certificate(
    capsule: &CapsuleName,
    writer: &WriterId,
    bytes: &[u8],
) -> Result<Verified<WriterCertificate>, CertificateError> {
    let certificate = Signed::<WriterCertificate>::decode(bytes)
        .map_err(|_| CertificateError::Invalid)?
        .verify_claimed()
        .map_err(|_| CertificateError::Invalid)?;
    if certificate.capsule != *capsule || certificate.writer != *writer {
        return Err(CertificateError::Other);
    }
    let code_bytes = certificate.code.as_ref().map_or(0, Vec::len);
    if code_bytes > CODE_BYTES_MAX || certificate.not_before >= certificate.not_after {
        return Err(CertificateError::Rule);
    }
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use bield_envelope::{Secret, Seeded, SigningKey};

    use super::*;
    use crate::WriterKey;

    const CAPSULE: CapsuleName = CapsuleName::from_bytes([1; 32]);

    fn statement(writer: WriterId) -> WriterCertificate {
        WriterCertificate {
            capsule: CAPSULE,
            writer,
            code: Some(vec![7; 50]),
            simulated: false,
            not_before: Time::from_millis(10),
            not_after: Time::from_millis(20),
        }
    }

    fn signed(statement: WriterCertificate) -> Vec<u8> {
        let key = SigningKey::from_seed(Secret::from_bytes([9; 32]));
        Signed::sign(&key, statement).as_bytes().to_vec()
    }

    #[test]
    fn an_opening_gives_back_key_and_certificate() {
        for suite in Suite::ALL {
            let key = WriterKey::generate(suite, &mut Seeded::new(1));
            let body = Opening::encode(key.public(), Some(&signed(statement(key.id()))));
            let opening = Opening::decode(suite, &CAPSULE, &key.id(), &body).unwrap();
            assert_eq!(opening.key(), key.public());
            assert_eq!(**opening.certificate().unwrap(), statement(key.id()));
            let bare = Opening::encode(key.public(), None);
            let opening = Opening::decode(suite, &CAPSULE, &key.id(), &bare).unwrap();
            assert!(opening.certificate().is_none());
            assert_eq!(bare[0], 0xa1, "an absent certificate is left out");
        }
    }

    #[test]
    fn a_certificate_for_anything_else_is_refused() {
        let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(1));
        let good = statement(key.id());
        let mut flipped = signed(good.clone());
        *flipped.last_mut().unwrap() ^= 1;
        let cases = [
            (
                signed(WriterCertificate {
                    capsule: CapsuleName::from_bytes([2; 32]),
                    ..good.clone()
                }),
                CertificateError::Other,
            ),
            (
                signed(statement(WriterId::from_bytes([3; 32]))),
                CertificateError::Other,
            ),
            (
                signed(WriterCertificate {
                    code: Some(vec![0; CODE_BYTES_MAX + 1]),
                    ..good.clone()
                }),
                CertificateError::Rule,
            ),
            (
                signed(WriterCertificate {
                    not_after: good.not_before,
                    ..good
                }),
                CertificateError::Rule,
            ),
            (flipped, CertificateError::Invalid),
            (vec![1], CertificateError::Invalid),
        ];
        for (bytes, expected) in cases {
            let body = Opening::encode(key.public(), Some(&bytes));
            let refused = Opening::decode(Suite::Ed25519, &CAPSULE, &key.id(), &body);
            assert_eq!(refused.err(), Some(OpeningError::Certificate(expected)));
        }
        let body = Opening::encode(key.public(), None);
        let other = WriterId::from_bytes([3; 32]);
        let refused = Opening::decode(Suite::Ed25519, &CAPSULE, &other, &body);
        assert_eq!(refused.err(), Some(OpeningError::OtherKey));
    }

    #[test]
    fn a_window_holds_its_first_moment_and_not_its_end() {
        let statement = statement(WriterId::from_bytes([3; 32]));
        let holds = |millis| statement.holds_at(Time::from_millis(millis));
        assert_eq!([9, 10, 19, 20].map(holds), [false, true, true, false]);
    }
}
