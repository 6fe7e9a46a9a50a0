//! The P-256 key of an attested end: signs the TLS handshake, its certificate and the gate.

use std::sync::Arc;

use bield_envelope::Secret;
use rand_core::CryptoRng;
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// ECDSA on P-256; silent. The scalar lives in aws-lc, which wipes it on drop.
pub struct SessionKey {
    key: Arc<dyn rustls::sign::SigningKey>,
    spki: Vec<u8>,
}

impl SessionKey {
    /// Draws a fresh key.
    ///
    /// # Panics
    /// When eight draws in a row are not scalars of P-256: `entropy` is broken (chance 2^-256).
    #[must_use]
    pub fn generate(entropy: &mut impl CryptoRng) -> Self {
        (0..8)
            .find_map(|_| Self::from_scalar(&Secret::generate(entropy)))
            .expect("random bytes are scalars of P-256 but for one draw in 2^32")
    }

    /// Takes a private scalar (SEC 1, big endian); `None` when it is zero or not below the order.
    #[must_use]
    pub fn from_scalar(scalar: &Secret) -> Option<Self> {
        let mut der = Zeroizing::new(Vec::with_capacity(PKCS8_PREFIX.len() + 32));
        der.extend_from_slice(&PKCS8_PREFIX);
        der.extend_from_slice(scalar.expose());
        // Not through `CryptoProvider::key_provider`, which takes a copy that nobody wipes.
        let borrowed = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&der[..]));
        let key = any_ecdsa_type(&borrowed).ok()?;
        let spki = key.public_key()?.to_vec();
        is_p256(&spki).then_some(Self { key, spki })
    }

    /// The public half as SubjectPublicKeyInfo (RFC 5480 §2), 91 bytes of DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Signs with SHA-256; the signature is an ASN.1 `ECDSA-Sig-Value` (RFC 3279 §2.2.3).
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let signer = self.key.choose_scheme(&schemes);
        let signer = signer.ok_or_else(|| rustls::Error::General("not a P-256 key".into()))?;
        signer.sign(message)
    }

    pub(crate) fn for_tls(&self) -> Arc<dyn rustls::sign::SigningKey> {
        Arc::clone(&self.key)
    }
}

impl rcgen::PublicKeyData for SessionKey {
    fn der_bytes(&self) -> &[u8] {
        point(&self.spki)
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for SessionKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Self::sign(self, message).map_err(|_| rcgen::Error::RemoteKeyError)
    }
}

/// Whether `spki` is an uncompressed P-256 key in the one encoding accepted here.
pub(crate) fn is_p256(spki: &[u8]) -> bool {
    spki.len() == SPKI_BYTES && spki.starts_with(&SPKI_PREFIX)
}

/// Checks a signature made by [`SessionKey::sign`].
pub(crate) fn verifies(
    provider: &CryptoProvider,
    spki: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let wanted = SignatureScheme::ECDSA_NISTP256_SHA256;
    let known = provider.signature_verification_algorithms.mapping;
    let found = known.iter().find(|(scheme, _)| *scheme == wanted);
    // TLS 1.3 pins the curve to the hash: the first algorithm of the scheme is P-256 with SHA-256.
    let Some(algorithm) = found.and_then(|(_, algorithms)| algorithms.first()) else {
        return false;
    };
    is_p256(spki)
        && algorithm
            .verify_signature(point(spki), message, signature)
            .is_ok()
}

fn point(spki: &[u8]) -> &[u8] {
    spki.get(SPKI_BYTES - 65..).unwrap_or_default()
}

/// DER up to the uncompressed point's coordinates: id-ecPublicKey, prime256v1, BIT STRING, 0x04.
const SPKI_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const SPKI_BYTES: usize = SPKI_PREFIX.len() + 64;

/// PKCS #8 around an RFC 5915 key without its optional public half, up to the 32-byte scalar.
const PKCS8_PREFIX: [u8; 35] = [
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01,
    0x01, 0x04, 0x20,
];

#[cfg(test)]
mod tests {
    use super::*;
    use bield_envelope::Seeded;

    #[test]
    fn a_signature_verifies_only_under_its_key_and_message() {
        let provider = crate::provider();
        let mut entropy = Seeded::new(1);
        let (one, other) = (
            SessionKey::generate(&mut entropy),
            SessionKey::generate(&mut entropy),
        );
        let signature = one.sign(b"message").unwrap();
        assert!(verifies(&provider, one.spki(), b"message", &signature));
        assert!(!verifies(&provider, one.spki(), b"massage", &signature));
        assert!(!verifies(&provider, other.spki(), b"message", &signature));
        assert!(!verifies(&provider, b"", b"message", &signature));
    }

    #[test]
    fn a_scalar_outside_the_group_is_refused() {
        for scalar in [[0; 32], [0xff; 32]] {
            assert!(SessionKey::from_scalar(&Secret::from_bytes(scalar)).is_none());
        }
    }
}
