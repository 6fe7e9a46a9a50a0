//! Keys that sign records, in every suite.
//!
//! In: a 32-byte seed (drawn inside an enclave, or kept by an owner). Out: signatures over header
//! hashes, and public keys with the id that headers carry. Always true: a private key cannot be
//! printed, cloned or compared and is wiped on drop; one signature has one spelling (suite 2 is
//! normalised to a low `s` and refused otherwise).
//!
//! Cost: Ed25519 signs in 9 µs and verifies in 40, P-256 20 and 65, ML-DSA-44 54 and 30, once per
//! record of any size. Suites 2 and 3 draw their signing nonce inside the library, not from an
//! argument: signing is the one thing in this crate that two runs of one seed do not repeat.

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, ML_DSA_44, ML_DSA_44_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use aws_lc_rs::{agreement, digest};
use bield_envelope::{Digest, Secret, SignatureInvalid};
use rand_core::CryptoRng;

use crate::{Suite, WriterId};

/// A key that signs records: a writer's or an owner's.
pub struct WriterKey {
    seed: Secret,
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    MlDsa44(PqdsaKeyPair),
}

impl WriterKey {
    /// Draws a fresh key.
    #[must_use]
    pub fn generate(suite: Suite, entropy: &mut impl CryptoRng) -> Self {
        loop {
            // A P-256 scalar must be in 1 … n−1; a random one misses with probability 2⁻³².
            if let Some(key) = Self::from_seed(suite, Secret::generate(entropy)) {
                return key;
            }
        }
    }

    /// Takes a seed; `None` when it is no private key of the suite.
    #[must_use]
    pub fn from_seed(suite: Suite, seed: Secret) -> Option<Self> {
        let (pair, public) = match suite {
            Suite::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).ok()?;
                let public = pair.public_key().as_ref().to_vec();
                (Pair::Ed25519(pair), public)
            }
            Suite::P256 => {
                let scalar =
                    agreement::PrivateKey::from_private_key(&agreement::ECDH_P256, seed.expose());
                let public = scalar.ok()?.compute_public_key().ok()?.as_ref().to_vec();
                let pair = EcdsaKeyPair::from_private_key_and_public_key(
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    seed.expose(),
                    &public,
                )
                .ok()?;
                (Pair::P256(pair), public)
            }
            Suite::MlDsa44 => {
                let pair = PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, seed.expose()).ok()?;
                let public = pair.public_key().as_ref().to_vec();
                (Pair::MlDsa44(pair), public)
            }
        };
        let public = PublicKey::from_bytes(suite, &public)?;
        Some(Self { seed, pair, public })
    }

    /// The seed, for storage.
    #[must_use]
    pub const fn seed(&self) -> &Secret {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Its suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.public.suite
    }

    /// The id that headers carry.
    #[must_use]
    pub const fn id(&self) -> WriterId {
        self.public.id
    }

    /// Signs a header hash (`spec/06 §3`).
    pub(crate) fn sign(&self, header_hash: &Digest) -> Vec<u8> {
        let message = to_be_signed(header_hash);
        match &self.pair {
            Pair::Ed25519(pair) => pair.sign(&message).as_ref().to_vec(),
            Pair::P256(pair) => {
                let hashed = digest::digest(&digest::SHA256, &message);
                let mut signature = pair
                    .sign_digest(&hashed)
                    .expect("a valid key signs every digest")
                    .as_ref()
                    .to_vec();
                make_low(&mut signature[32..]);
                signature
            }
            Pair::MlDsa44(pair) => {
                let mut signature = vec![0; Suite::MlDsa44.signature_bytes()];
                pair.sign(&message, &mut signature)
                    .expect("a valid key signs every message");
                signature
            }
        }
    }
}

/// A key that verifies records. Whether its owner may write is for the configuration to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    suite: Suite,
    id: WriterId,
    bytes: Box<[u8]>,
}

impl PublicKey {
    /// Takes a public key's bytes; `None` when the length is not the suite's.
    #[must_use]
    pub fn from_bytes(suite: Suite, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == suite.public_key_bytes()).then(|| Self {
            suite,
            id: WriterId::from(suite.hash(WRITER_DOMAIN, &[&[suite.number()], bytes])),
            bytes: bytes.into(),
        })
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The id that headers carry.
    #[must_use]
    pub const fn id(&self) -> WriterId {
        self.id
    }

    /// Checks a signature over a header hash.
    pub(crate) fn verify(
        &self,
        header_hash: &Digest,
        signature: &[u8],
    ) -> Result<(), SignatureInvalid> {
        let message = to_be_signed(header_hash);
        let algorithm: &'static dyn signature::VerificationAlgorithm = match self.suite {
            Suite::Ed25519 => &ED25519,
            Suite::P256 if !is_low(signature) => return Err(SignatureInvalid),
            Suite::P256 => &ECDSA_P256_SHA256_FIXED,
            Suite::MlDsa44 => &ML_DSA_44,
        };
        UnparsedPublicKey::new(algorithm, &self.bytes)
            .verify(&message, signature)
            .map_err(|_| SignatureInvalid)
    }
}

fn to_be_signed(header_hash: &Digest) -> Vec<u8> {
    [RECORD_DOMAIN, header_hash.as_bytes()].concat()
}

/// Replaces `s` by `n − s` when it is in the upper half.
fn make_low(s: &mut [u8]) {
    if *s <= HALF_ORDER[..] {
        return;
    }
    let mut borrow = 0;
    for (digit, order) in s.iter_mut().zip(ORDER).rev() {
        let difference = i16::from(order) - i16::from(*digit) - borrow;
        borrow = i16::from(difference < 0);
        *digit = difference.rem_euclid(256) as u8;
    }
}

fn is_low(signature: &[u8]) -> bool {
    signature.len() == 64 && signature[32..] <= HALF_ORDER[..]
}

/// Order of P-256's group (SP 800-186 §3.2.1.3).
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6,
    0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// `(ORDER − 1) / 2`.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xde,
    0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8,
];

const WRITER_DOMAIN: &str = "bield capsule writer v1";
const RECORD_DOMAIN: &[u8] = b"bield capsule record v1\0";

#[cfg(test)]
mod tests {
    use super::*;
    use bield_envelope::Seeded;

    #[test]
    fn every_suite_signs_what_it_verifies_and_nothing_else() {
        for suite in Suite::ALL {
            let key = WriterKey::generate(suite, &mut Seeded::new(1));
            let hash = Digest::of("test", &[b"a"]);
            let signature = key.sign(&hash);
            assert_eq!(signature.len(), suite.signature_bytes());
            assert_eq!(key.public().verify(&hash, &signature), Ok(()));
            let other = Digest::of("test", &[b"b"]);
            assert!(key.public().verify(&other, &signature).is_err());
            for at in 0..signature.len() {
                let mut altered = signature.clone();
                altered[at] ^= 0x40;
                assert!(
                    key.public().verify(&hash, &altered).is_err(),
                    "{suite:?} {at}"
                );
            }
            let again = WriterKey::from_seed(suite, Secret::from_bytes(*key.seed().expose()));
            assert_eq!(again.map(|key| key.id()), Some(key.id()));
        }
    }

    #[test]
    fn a_p256_signature_has_one_spelling() {
        let key = WriterKey::generate(Suite::P256, &mut Seeded::new(2));
        for n in 0..32u8 {
            let hash = Digest::of("test", &[&[n]]);
            let mut signature = key.sign(&hash);
            assert!(is_low(&signature));
            // The other spelling, n − s, is the same signature to the mathematics.
            let mut borrow = 0;
            for (digit, order) in signature[32..].iter_mut().zip(ORDER).rev() {
                let difference = i16::from(order) - i16::from(*digit) - borrow;
                borrow = i16::from(difference < 0);
                *digit = difference.rem_euclid(256) as u8;
            }
            assert!(
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public().as_bytes())
                    .verify(&to_be_signed(&hash), &signature)
                    .is_ok()
            );
            assert!(key.public().verify(&hash, &signature).is_err());
        }
    }

    #[test]
    fn no_private_key_is_made_from_a_zero_scalar() {
        assert!(WriterKey::from_seed(Suite::P256, Secret::from_bytes([0; 32])).is_none());
        assert!(WriterKey::from_seed(Suite::P256, Secret::from_bytes([0xff; 32])).is_none());
    }
}
