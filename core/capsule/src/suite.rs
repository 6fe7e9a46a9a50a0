//! Cipher suites: which signature, hash and derivation a capsule uses for its whole life (`spec/06 §1`).
//!
//! In: a suite number from metadata or a header. Out: hashes, derived keys and body roots in that
//! suite. Always true: an unknown number is refused, and no suite's value can pass as another's,
//! because the number is part of what is hashed and signed. Keys and signatures are in [`crate::key`].

use aws_lc_rs::{digest, hkdf};
use bield_envelope::Digest;

/// A cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Suite {
    /// Ed25519, BLAKE3, AES-256-GCM: the default.
    Ed25519 = 1,
    /// ECDSA P-256, SHA-256, HKDF, AES-256-GCM: algorithms that FIPS 140 modules have.
    P256 = 2,
    /// ML-DSA-44 (FIPS 204), BLAKE3, AES-256-GCM: signatures that quantum computers do not forge.
    MlDsa44 = 3,
}

/// Piece of a body whose hash stands in the root in suite 2, in bytes.
pub const PIECE_BYTES: usize = 4096;

impl Suite {
    /// Every suite, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Ed25519, Self::P256, Self::MlDsa44];

    /// The suite with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Ed25519),
            2 => Some(Self::P256),
            3 => Some(Self::MlDsa44),
            _ => None,
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519 + BLAKE3 + AES-256-GCM",
            Self::P256 => "P-256 + SHA-256 + AES-256-GCM",
            Self::MlDsa44 => "ML-DSA-44 + BLAKE3 + AES-256-GCM",
        }
    }

    /// Length of a signature in bytes.
    #[must_use]
    pub const fn signature_bytes(self) -> usize {
        match self {
            Self::Ed25519 | Self::P256 => 64,
            Self::MlDsa44 => 2420,
        }
    }

    /// Length of a public key in bytes.
    #[must_use]
    pub const fn public_key_bytes(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::P256 => 65,
            Self::MlDsa44 => 1312,
        }
    }

    /// `H(domain, parts…)`.
    #[must_use]
    pub fn hash(self, domain: &str, parts: &[&[u8]]) -> Digest {
        match self {
            Self::Ed25519 | Self::MlDsa44 => Digest::of(domain, parts),
            Self::P256 => {
                let mut context = digest::Context::new(&digest::SHA256);
                for part in core::iter::once(domain.as_bytes()).chain(parts.iter().copied()) {
                    context.update(&(part.len() as u64).to_be_bytes());
                    context.update(part);
                }
                sha256_digest(&context.finish())
            }
        }
    }

    /// `Root(body)`.
    #[must_use]
    pub fn root(self, body: &[u8]) -> Digest {
        match self {
            Self::Ed25519 | Self::MlDsa44 => Digest::from_bytes(*blake3::hash(body).as_bytes()),
            Self::P256 => {
                let mut pieces = Vec::with_capacity(body.len().div_ceil(PIECE_BYTES) * 32);
                for piece in body.chunks(PIECE_BYTES) {
                    pieces.extend_from_slice(digest::digest(&digest::SHA256, piece).as_ref());
                }
                self.hash(BODY_DOMAIN, &[&pieces])
            }
        }
    }

    /// `KDF(key, label, parts…, output.len())`; fills `output`, at most 8160 bytes.
    pub(crate) fn derive(self, key: &[u8; 32], label: &str, parts: &[&[u8]], output: &mut [u8]) {
        match self {
            Self::Ed25519 | Self::MlDsa44 => {
                let mut hasher = blake3::Hasher::new_keyed(key);
                for part in core::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
                    hasher.update(&(part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
                hasher.finalize_xof().fill(output);
            }
            Self::P256 => {
                let mut info = Vec::with_capacity(256);
                for part in core::iter::once(label.as_bytes()).chain(parts.iter().copied()) {
                    info.extend_from_slice(&(part.len() as u64).to_be_bytes());
                    info.extend_from_slice(part);
                }
                hkdf::Salt::new(hkdf::HKDF_SHA256, KDF_SALT)
                    .extract(key)
                    .expand(&[&info], Length(output.len()))
                    .and_then(|okm| okm.fill(output))
                    .expect("HKDF-SHA256 yields up to 8160 bytes for every input");
            }
        }
    }
}

/// Domain of a suite 2 body root.
pub(crate) const BODY_DOMAIN: &str = "bield capsule body v1";

const KDF_SALT: &[u8] = b"bield capsule kdf v1";

/// An output length for HKDF.
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn sha256_digest(value: &digest::Digest) -> Digest {
    Digest::from_bytes(value.as_ref().try_into().expect("SHA-256 yields 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_name_suites_one_to_one() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_number(suite.number()), Some(suite));
        }
        assert!(
            [0, 4, 255]
                .into_iter()
                .all(|n| Suite::from_number(n).is_none())
        );
    }

    #[test]
    fn a_root_covers_every_byte_and_the_length() {
        for suite in Suite::ALL {
            for len in [0, 1, 1024, 4095, 4096, 4097, 9000] {
                let body = vec![7; len];
                let root = suite.root(&body);
                let mut longer = body.clone();
                longer.push(0);
                assert_ne!(root, suite.root(&longer));
                for at in (0..len).step_by(509) {
                    let mut other = body.clone();
                    other[at] ^= 1;
                    assert_ne!(root, suite.root(&other), "{suite:?} {len} {at}");
                }
            }
        }
    }

    #[test]
    fn labels_parts_and_keys_separate_derived_bytes() {
        for suite in Suite::ALL {
            let derive = |key: u8, label, parts: &[&[u8]]| {
                let mut output = [0; 64];
                suite.derive(&[key; 32], label, parts, &mut output);
                output
            };
            let base = derive(1, "a", &[b"b"]);
            for other in [
                derive(2, "a", &[b"b"]),
                derive(1, "ab", &[]),
                derive(1, "a", &[b"b", b""]),
            ] {
                assert_ne!(base, other);
            }
        }
    }
}
