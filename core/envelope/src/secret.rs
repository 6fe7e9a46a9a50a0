//! 32 secret bytes that cannot be printed, copied or serialised by accident.

use aws_lc_rs::hkdf;
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A 256-bit secret. No `Debug`, `Clone`, `PartialEq` or serialisation; wiped on drop.
///
/// ```compile_fail
/// let secret = bield_envelope::Secret::from_bytes([0; 32]);
/// println!("{secret:?}");
/// ```
/// ```compile_fail
/// let secret = bield_envelope::Secret::from_bytes([0; 32]);
/// let copy = secret.clone();
/// ```
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Draws a fresh secret.
    #[must_use]
    pub fn generate(entropy: &mut impl CryptoRng) -> Self {
        let mut secret = Self([0; 32]);
        entropy.fill_bytes(&mut secret.0);
        secret
    }

    /// Takes 32 bytes; the caller's copy is the caller's to wipe.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Shows the bytes. Every call is a place to review: storage, transport, a primitive's input.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Derives another secret: HKDF-SHA256 (RFC 5869) with salt `"bield derive v1"` and
    /// info = `u64 length ‖ label`, then `u64 length ‖ part` for each part of `context`.
    #[must_use]
    pub fn derive(&self, label: &str, context: &[&[u8]]) -> Self {
        let mut info = Vec::with_capacity(128);
        for part in core::iter::once(label.as_bytes()).chain(context.iter().copied()) {
            info.extend((part.len() as u64).to_be_bytes());
            info.extend(part);
        }
        let mut derived = Self([0; 32]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, DERIVE_SALT)
            .extract(&self.0)
            .expand(&[&info], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut derived.0))
            .expect("HKDF-SHA256 yields 32 bytes for every input");
        derived
    }
}

impl subtle::ConstantTimeEq for Secret {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.0.ct_eq(&other.0)
    }
}

const DERIVE_SALT: &[u8] = b"bield derive v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_and_context_separate_derived_secrets() {
        let secret = Secret::from_bytes([7; 32]);
        let base = secret.derive("a", &[b"b"]);
        for other in [
            secret.derive("ab", &[]),
            secret.derive("a", &[b"c"]),
            secret.derive("a", &[b"b", b""]),
            Secret::from_bytes([8; 32]).derive("a", &[b"b"]),
        ] {
            assert_ne!(base.expose(), other.expose());
        }
        assert_eq!(base.expose(), secret.derive("a", &[b"b"]).expose());
    }
}
