//! Principals and their signatures: Ed25519 (RFC 8032).
//!
//! A signature is only ever made over a domain-separated digest or a COSE structure built in this
//! crate, so one signature can never serve two purposes.

use core::fmt;
use core::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use minicbor::decode;
use rand_core::CryptoRng;

use crate::Secret;
use crate::digest::{bytes32, hex32};

/// An Ed25519 signing key; silent, wiped on drop.
pub struct SigningKey {
    seed: Secret,
    pair: Ed25519KeyPair,
    principal: Principal,
}

impl SigningKey {
    /// Draws a fresh key.
    #[must_use]
    pub fn generate(entropy: &mut impl CryptoRng) -> Self {
        Self::from_seed(Secret::generate(entropy))
    }

    /// Takes the 32-byte private seed (RFC 8032 §5.1.5).
    #[must_use]
    pub fn from_seed(seed: Secret) -> Self {
        use aws_lc_rs::signature::KeyPair;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .expect("every 32 bytes are an Ed25519 seed");
        let public = pair.public_key().as_ref();
        let principal = Principal(
            public
                .try_into()
                .expect("Ed25519 public keys have 32 bytes"),
        );
        Self {
            seed,
            pair,
            principal,
        }
    }

    /// The private seed, for storage and transport.
    #[must_use]
    pub const fn seed(&self) -> &Secret {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub const fn principal(&self) -> Principal {
        self.principal
    }

    /// Signs `message`.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        signature
            .as_ref()
            .try_into()
            .expect("Ed25519 signatures have 64 bytes")
    }
}

/// Someone who can sign: an Ed25519 public key; prints as `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal([u8; 32]);

impl Principal {
    /// Takes the public key's bytes; whether they are a point shows when a signature is checked.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public key's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature of this principal over `message`.
    pub(crate) fn verify(
        &self,
        message: &[u8],
        signature: &[u8; 64],
    ) -> Result<(), SignatureInvalid> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| SignatureInvalid)
    }
}

/// The signature is not this principal's over these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify: other key or altered bytes; do not retry")]
pub struct SignatureInvalid;

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text does not name a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a principal is written as `ed25519:` and 64 hexadecimal digits")]
pub struct ParsePrincipalError;

impl FromStr for Principal {
    type Err = ParsePrincipalError;

    fn from_str(text: &str) -> Result<Self, ParsePrincipalError> {
        text.strip_prefix(PREFIX)
            .and_then(hex32)
            .map(Self)
            .ok_or(ParsePrincipalError)
    }
}

impl<C> minicbor::Encode<C> for Principal {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Principal {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        bytes32(d).map(Self)
    }
}

const PREFIX: &str = "ed25519:";

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 §7.1, test 2.
    #[test]
    fn rfc_8032_test_2_holds() {
        let seed =
            hex32("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = SigningKey::from_seed(Secret::from_bytes(seed));
        assert_eq!(
            key.principal().to_string(),
            "ed25519:3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = key.sign(&[0x72]);
        assert_eq!(
            signature[..8],
            [0x92, 0xa0, 0x09, 0xa9, 0xf0, 0xd4, 0xca, 0xb8]
        );
        assert_eq!(key.principal().verify(&[0x72], &signature), Ok(()));
        assert_eq!(
            key.principal().verify(&[0x73], &signature),
            Err(SignatureInvalid)
        );
    }
}
