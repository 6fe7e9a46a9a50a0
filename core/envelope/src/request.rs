//! The sealed request: what a data user sends, and what comes out when a runtime opens it.
//!
//! ```text
//! "bldq" ‖ 1 ‖ u16 length ‖ header │ encapsulation (1120) │ HPKE ciphertext of sender ‖ signature ‖ body
//! └────────── AAD, visible ────────┘
//! ```
//!
//! Always true: the header is authenticated, every request has its own encapsulation and hence its
//! own keys; an [`Opened`] request was sealed by the holder of the sender's signing key for exactly
//! this header, because the signature covers the AAD and the encapsulation and only the sealer knows
//! the encapsulated secret. One copy of the body, one X-Wing operation, one Ed25519 signature a side.
//!
//! Not here: whether the sender may ask this (`bield-grant`), replay (its `ReplayGuard`).

use hpke::inout::InOutBuf;
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::audience::{ENCAPSULATION_BYTES, Receiver};
use crate::response::{ResponseOpener, ResponseSealer};
use crate::stream::TAG_BYTES;
use crate::wire::{self, WireError};
use crate::{
    AudienceKey, AudiencePublicKey, Digest, Hasher, Principal, Secret, SigningKey, Time, Wiped,
};

/// The part of a request that the host sees and cannot change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RequestHeader {
    /// The audience: a package and the code that may open this request (`bield_grant::audience`).
    #[n(0)]
    pub audience: Digest,
    /// Which of the audience's keys this is sealed to ([`AudiencePublicKey::id`]).
    #[n(1)]
    pub key: Digest,
    /// The package that is to answer.
    #[n(2)]
    pub package: Digest,
    /// Random name of this request.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub id: [u8; 16],
    /// When it was sealed, by the sender's clock.
    #[n(4)]
    pub created: Time,
}

/// Why a sealed message was not accepted; contents are never quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not a sealed message of the expected kind and version.
    #[error("not a bield {what}: {why}; seal it with a bield client of this version")]
    Malformed {
        /// `sealed request` or `sealed response`.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Longer than a sealed message may be.
    #[error("sealed message of {found} bytes is longer than the {max} bytes allowed; send less")]
    TooLong {
        /// Bytes received.
        found: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The visible header does not decode.
    #[error(transparent)]
    Header(#[from] WireError),
    /// Sealed to another key than this one.
    #[error("sealed to key {found}, not to {expected}; fetch the key configuration again")]
    OtherKey {
        /// The key at hand.
        expected: Digest,
        /// The key the request names.
        found: Digest,
    },
    /// The AEAD tag does not verify.
    #[error("sealed message does not open: wrong key or altered bytes; do not retry")]
    Altered,
    /// Opens, but is not signed by the sender it names.
    #[error("request opens but its sender's signature does not verify; do not retry")]
    SenderUnproven,
    /// A response that ended before its last chunk.
    #[error("sealed response ends before its last chunk: truncated on the way; retry")]
    Truncated,
}

/// What a request's plaintext is, as a type: `Opened<Request>`, later `Admitted<Request>`.
pub enum Request {}

/// A message that was opened and whose sender is proven. Only [`AudienceKey::open`] makes one.
pub struct Opened<T> {
    header: RequestHeader,
    sender: Principal,
    digest: Digest,
    plain: Wiped,
    kind: core::marker::PhantomData<fn() -> T>,
}

impl Opened<Request> {
    /// The authenticated header.
    #[must_use]
    pub const fn header(&self) -> &RequestHeader {
        &self.header
    }

    /// Who sealed it; the signature was checked.
    #[must_use]
    pub const fn sender(&self) -> Principal {
        self.sender
    }

    /// Digest of the sealed bytes: what a receipt names.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The plaintext body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.plain[PREAMBLE_BYTES..]
    }
}

/// A sealed request whose header was parsed; nothing is opened or proven yet.
pub struct SealedRequest<'a> {
    bytes: &'a [u8],
    header: RequestHeader,
    aad_bytes: usize,
}

impl<'a> SealedRequest<'a> {
    /// Parses the visible part.
    ///
    /// # Errors
    /// Not a sealed request, another version, too short or too long, or a malformed header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > SEALED_REQUEST_BYTES_MAX {
            let (found, max) = (bytes.len(), SEALED_REQUEST_BYTES_MAX);
            return Err(EnvelopeError::TooLong { found, max });
        }
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or(malformed("it does not start with `bldq`"))?;
        let rest = rest
            .strip_prefix(&[VERSION])
            .ok_or(malformed("it has another version"))?;
        let (length, rest) = rest.split_first_chunk().ok_or(malformed("it ends early"))?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (header, rest) = rest
            .split_at_checked(length)
            .ok_or(malformed("it ends early"))?;
        if rest.len() < ENCAPSULATION_BYTES + PREAMBLE_BYTES + TAG_BYTES {
            return Err(malformed("it ends early"));
        }
        let header = wire::decode(header, HEADER_BYTES_MAX)?;
        Ok(Self {
            bytes,
            header,
            aad_bytes: PREFIX_BYTES + length,
        })
    }

    /// The visible header. Untrusted until opened.
    #[must_use]
    pub const fn header(&self) -> &RequestHeader {
        &self.header
    }

    /// Digest of all sealed bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        sealed_digest(self.bytes)
    }
}

impl AudienceKey {
    /// Opens a sealed request and checks its sender's signature.
    ///
    /// # Errors
    /// Another key, altered bytes, or an unproven sender.
    pub fn open(
        &self,
        sealed: &SealedRequest<'_>,
    ) -> Result<(Opened<Request>, ResponseSealer), EnvelopeError> {
        let (expected, found) = (self.public().id(), sealed.header.key);
        if expected != found {
            return Err(EnvelopeError::OtherKey { expected, found });
        }
        let (aad, rest) = sealed.bytes.split_at(sealed.aad_bytes);
        let (encapsulation, ciphertext) = rest.split_at(ENCAPSULATION_BYTES);
        let mut receiver = self
            .receiver(encapsulation, INFO)
            .ok_or(EnvelopeError::Altered)?;
        let plain = open_body(&mut receiver, aad, ciphertext)?;
        let sender = sender_of(&plain, aad, encapsulation)?;
        let digest = sealed.digest();
        let response = ResponseSealer::new(exported(|out| receiver.export(EXPORT, out)), digest);
        let header = sealed.header.clone();
        let kind = core::marker::PhantomData;
        Ok((
            Opened {
                header,
                sender,
                digest,
                plain,
                kind,
            },
            response,
        ))
    }
}

/// Seals `body` to an audience; returns the bytes to send and what opens the answer.
///
/// # Errors
/// When the header names another key than `to`, or the body is too long.
pub fn seal_request(
    to: &AudiencePublicKey,
    header: &RequestHeader,
    sender: &SigningKey,
    body: &[u8],
    entropy: &mut impl CryptoRng,
) -> Result<(Vec<u8>, ResponseOpener), EnvelopeError> {
    if header.key != to.id() {
        return Err(EnvelopeError::OtherKey {
            expected: to.id(),
            found: header.key,
        });
    }
    let header = wire::encode(header);
    let total =
        PREFIX_BYTES + header.len() + ENCAPSULATION_BYTES + PREAMBLE_BYTES + body.len() + TAG_BYTES;
    if total > SEALED_REQUEST_BYTES_MAX {
        return Err(EnvelopeError::TooLong {
            found: total,
            max: SEALED_REQUEST_BYTES_MAX,
        });
    }
    let length = u16::try_from(header.len()).expect("a header is shorter than 64 KiB");
    let (encapsulation, mut hpke) = to.sender(INFO, entropy).ok_or(EnvelopeError::Altered)?;

    let mut sealed = Vec::with_capacity(total);
    sealed.extend(MAGIC);
    sealed.push(VERSION);
    sealed.extend(length.to_be_bytes());
    sealed.extend(&header);
    let aad = sealed.clone();
    sealed.extend(&encapsulation);
    let plain_from = sealed.len();
    sealed.extend(sender.principal().as_bytes());
    sealed.extend(sender.sign(sender_digest(&aad, &encapsulation).as_bytes()));
    sealed.extend(body);
    let tag = hpke
        .seal_inout_detached(InOutBuf::from(&mut sealed[plain_from..]), &aad)
        .map_err(|_| EnvelopeError::Altered)?;
    sealed.extend(hpke::Serializable::to_bytes(&tag));
    debug_assert_eq!(sealed.len(), total);

    let digest = sealed_digest(&sealed);
    let opener = ResponseOpener::new(exported(|out| hpke.export(EXPORT, out)), digest);
    Ok((sealed, opener))
}

fn open_body(
    receiver: &mut Receiver,
    aad: &[u8],
    ciphertext: &[u8],
) -> Result<Wiped, EnvelopeError> {
    let (body, tag) = ciphertext.split_at(ciphertext.len() - TAG_BYTES);
    let tag = hpke::Deserializable::from_bytes(tag).map_err(|_| EnvelopeError::Altered)?;
    let mut plain = body.to_vec();
    let opened = receiver.open_inout_detached(InOutBuf::from(&mut plain[..]), aad, &tag);
    // Whatever became of it, it is wiped.
    let plain = Wiped::from(plain);
    opened.map_err(|_| EnvelopeError::Altered).map(|()| plain)
}

/// Reads the sender from the plaintext's head and checks that it signed this encapsulation.
fn sender_of(plain: &[u8], aad: &[u8], encapsulation: &[u8]) -> Result<Principal, EnvelopeError> {
    let (sender, rest) = plain
        .split_first_chunk()
        .ok_or(EnvelopeError::SenderUnproven)?;
    let signature = rest.first_chunk().ok_or(EnvelopeError::SenderUnproven)?;
    let sender = Principal::from_bytes(*sender);
    sender
        .verify(sender_digest(aad, encapsulation).as_bytes(), signature)
        .map_err(|_| EnvelopeError::SenderUnproven)?;
    Ok(sender)
}

fn sender_digest(aad: &[u8], encapsulation: &[u8]) -> Digest {
    Digest::of("bield request sender v1", &[aad, encapsulation])
}

fn sealed_digest(bytes: &[u8]) -> Digest {
    Hasher::new("bield sealed request v1")
        .update(bytes)
        .finish()
}

fn exported(export: impl FnOnce(&mut [u8]) -> Result<(), hpke::HpkeError>) -> Secret {
    let mut bytes = Zeroizing::new([0; 32]);
    export(&mut *bytes).expect("HPKE exports 32 bytes");
    Secret::from_bytes(*bytes)
}

const fn malformed(why: &'static str) -> EnvelopeError {
    EnvelopeError::Malformed {
        what: "sealed request",
        why,
    }
}

/// The most bytes of one sealed request: a batch of large images fits, memory stays bounded.
pub const SEALED_REQUEST_BYTES_MAX: usize = 256 << 20;

const MAGIC: &[u8] = b"bldq";
const VERSION: u8 = 1;
/// Magic, version, header length.
const PREFIX_BYTES: usize = 4 + 1 + 2;
/// A header has five short fields: 140 bytes.
const HEADER_BYTES_MAX: usize = 512;
/// Sender's public key and signature, before the body.
const PREAMBLE_BYTES: usize = 32 + 64;
const INFO: &[u8] = b"bield request v1";
const EXPORT: &[u8] = b"bield response v1";
