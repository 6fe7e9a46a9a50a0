//! Keys of notes: their names, ids, and the two kinds used here.
//!
//! | kind | type byte | signs | secret | public |
//! |---|---|---|---|---|
//! | [`Ed25519Note`] | 0x01 | a note's text | [`LogKey`] | [`LogVerifier`] |
//! | [`CosignatureV1`] | 0x04 | `cosignature/v1`, a time, the text | [`WitnessKey`] | [`WitnessVerifier`] |
//!
//! Always true: the kind is part of the type, so that a witness's key cannot stand for a log's; a
//! key's id is SHA-256(name ‖ 0x0A ‖ type ‖ public key)\[..4\] and a verifier key with another id
//! is refused (signed-note, "Signatures").

use core::fmt;
use core::marker::PhantomData;
use core::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use bield_envelope::Secret;

use crate::text::{base64, from_base64};

/// Bytes of the longest key name: what the next cosignature format can carry in its length byte
/// (tlog-cosignature, "ML-DSA-44 signed message").
pub const KEY_NAME_BYTES_MAX: usize = 255;

/// The name of a key: not empty, no spaces, no `+`, no control characters. Best a schema-less
/// address, such as `example.com/log`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let forbidden = |c: char| c.is_whitespace() || c == '+' || c < '\u{20}';
        if text.is_empty() || text.len() > KEY_NAME_BYTES_MAX || text.contains(forbidden) {
            return Err(KeyError::Name);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Four bytes that tell keys of one name apart; prints as 8 hexadecimal digits. Anyone can make a
/// key with a given id, so it identifies and proves nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 4]);

impl KeyId {
    /// Takes the four bytes as they stand in a signature line.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The four bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 4] {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A kind of signature; closed to the two of this crate.
pub trait SignatureType: sealed::Sealed {
    /// The type byte assigned by signed-note, "Signature types".
    const BYTE: u8;
}

/// Signatures over a note's text: what logs make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ed25519Note {}

/// Timestamped cosignatures over a checkpoint: what witnesses make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CosignatureV1 {}

impl SignatureType for Ed25519Note {
    const BYTE: u8 = 0x01;
}

impl SignatureType for CosignatureV1 {
    const BYTE: u8 = 0x04;
}

/// A log's key: signs checkpoints.
pub type LogKey = NoteKey<Ed25519Note>;
/// A witness's key: cosigns checkpoints.
pub type WitnessKey = NoteKey<CosignatureV1>;
/// What a log's signature is checked with.
pub type LogVerifier = VerifierKey<Ed25519Note>;
/// What a witness's cosignature is checked with.
pub type WitnessVerifier = VerifierKey<CosignatureV1>;

/// A signing key with its name; silent, and its secret is wiped on drop.
///
/// Derive each key from a secret of its own: one Ed25519 key must not serve two cosigners
/// (tlog-cosignature, "Ed25519 signed message") and should not serve two kinds.
///
/// ```
/// use bield_envelope::Secret;
/// use bield_tlog::{LogKey, LogVerifier};
///
/// let key = LogKey::new("example.com/log".parse()?, &Secret::from_bytes([7; 32]));
/// let published = key.verifier().to_string();
/// assert_eq!(published.parse::<LogVerifier>()?, *key.verifier());
/// # Ok::<_, bield_tlog::note::KeyError>(())
/// ```
/// ```compile_fail
/// fn silent(key: bield_tlog::LogKey) { println!("{key:?}"); }
/// ```
pub struct NoteKey<T: SignatureType> {
    pair: Ed25519KeyPair,
    verifier: VerifierKey<T>,
}

impl<T: SignatureType> NoteKey<T> {
    /// Takes the 32-byte private seed (RFC 8032 §5.1.5).
    #[must_use]
    pub fn new(name: KeyName, seed: &Secret) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .expect("every 32 bytes are an Ed25519 seed");
        let public = pair.public_key().as_ref();
        let public = public
            .try_into()
            .expect("Ed25519 public keys have 32 bytes");
        Self {
            pair,
            verifier: VerifierKey::new(name, public),
        }
    }

    /// The public half.
    #[must_use]
    pub const fn verifier(&self) -> &VerifierKey<T> {
        &self.verifier
    }

    pub(crate) fn signature(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        let signature = signature.as_ref();
        signature
            .try_into()
            .expect("Ed25519 signatures have 64 bytes")
    }
}

/// A public key with its name; prints as a verifier key, `name+id+base64(type ‖ key)`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifierKey<T: SignatureType> {
    name: KeyName,
    id: KeyId,
    public: [u8; 32],
    kind: PhantomData<T>,
}

impl<T: SignatureType> VerifierKey<T> {
    /// Names an Ed25519 public key; whether it is a point shows when a signature is checked.
    #[must_use]
    pub fn new(name: KeyName, public: [u8; 32]) -> Self {
        let hashed = [name.as_str().as_bytes(), &[b'\n', T::BYTE], &public].concat();
        let hash = digest(&SHA256, &hashed);
        let id = hash.as_ref().first_chunk().expect("SHA-256 has 32 bytes");
        Self {
            id: KeyId(*id),
            name,
            public,
            kind: PhantomData,
        }
    }

    /// The key's name.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The key's id.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// The Ed25519 public key.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    pub(crate) fn accepts(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(message, signature)
            .is_ok()
    }
}

impl<T: SignatureType> fmt::Display for VerifierKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[T::BYTE], self.public.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, self.id, base64(key))
    }
}

impl<T: SignatureType> fmt::Debug for VerifierKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: SignatureType> FromStr for VerifierKey<T> {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let [Some(name), Some(id), Some(key)] = [(); 3].map(|()| parts.next()) else {
            return Err(KeyError::Verifier);
        };
        let name = name.parse()?;
        let key = from_base64(key).ok_or(KeyError::Verifier)?;
        let (kind, public) = key.split_first().ok_or(KeyError::Verifier)?;
        if *kind != T::BYTE {
            return Err(KeyError::Kind {
                found: *kind,
                wanted: T::BYTE,
            });
        }
        let public = public.try_into().map_err(|_| KeyError::Verifier)?;
        let verifier = Self::new(name, public);
        if verifier.id.to_string() != id {
            return Err(KeyError::Id);
        }
        Ok(verifier)
    }
}

/// Why a text names no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The name breaks a rule.
    #[error("a key name has 1 to {KEY_NAME_BYTES_MAX} bytes, no spaces and no `+`; choose another")]
    Name,
    /// The parts are not those of a verifier key.
    #[error("a verifier key is written as name+id+base64, the last of a type and 32 bytes")]
    Verifier,
    /// A key of another kind, such as a witness's where a log's is needed.
    #[error(
        "key of type {found:#04x} where {wanted:#04x} is needed (1 log, 4 witness); ask its owner for that one"
    )]
    Kind {
        /// The type byte in the text.
        found: u8,
        /// The one wanted.
        wanted: u8,
    },
    /// The id is not that of this name and key.
    #[error("the id does not belong to this name and key; copy the verifier key again")]
    Id,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Ed25519Note {}
    impl Sealed for super::CosignatureV1 {}
}
