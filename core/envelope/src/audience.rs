//! The key pair requests are sealed to: HPKE (RFC 9180) with the X-Wing hybrid KEM (0x647a),
//! HKDF-SHA256 (0x0001) and AES-256-GCM (0x0002), base mode.
//!
//! One pair per audience (a package and the code allowed to open its requests). The private half
//! lives in the key service and in runtimes that hold a lease. One encapsulation: 0.25 ms to seal,
//! 0.4 ms to open.

use hpke::kdf::HkdfSha256;
use hpke::kem::XWing;
use hpke::{Deserializable, Kem, Serializable};
use minicbor::{Decode, Encode, decode, encode};
use rand_core::CryptoRng;

use crate::gcm::Aes256Gcm;
use crate::{Digest, Secret};

pub(crate) type Sender = hpke::aead::AeadCtxS<Aes256Gcm, HkdfSha256, XWing>;
pub(crate) type Receiver = hpke::aead::AeadCtxR<Aes256Gcm, HkdfSha256, XWing>;

/// Bytes of an X-Wing public key.
pub(crate) const PUBLIC_BYTES: usize = 1216;
/// Bytes of an X-Wing encapsulation.
pub(crate) const ENCAPSULATION_BYTES: usize = 1120;

/// The private half; silent, wiped on drop.
pub struct AudienceKey {
    seed: Secret,
    private: <XWing as Kem>::PrivateKey,
    public: AudiencePublicKey,
}

impl AudienceKey {
    /// Draws a fresh key pair.
    #[must_use]
    pub fn generate(entropy: &mut impl CryptoRng) -> Self {
        Self::from_seed(Secret::generate(entropy))
    }

    /// Takes the 32-byte X-Wing decapsulation key (draft-connolly-cfrg-xwing-kem §5.2).
    #[must_use]
    pub fn from_seed(seed: Secret) -> Self {
        let private = <XWing as Kem>::PrivateKey::from_bytes(seed.expose())
            .expect("every 32 bytes are an X-Wing private key");
        let public = XWing::sk_to_pk(&private);
        let bytes = public.to_bytes().to_vec();
        Self {
            seed,
            private,
            public: AudiencePublicKey { bytes, key: public },
        }
    }

    /// The 32-byte private key, for storage and transport.
    #[must_use]
    pub const fn seed(&self) -> &Secret {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &AudiencePublicKey {
        &self.public
    }

    pub(crate) fn receiver(&self, encapsulation: &[u8], info: &[u8]) -> Option<Receiver> {
        let encapsulation = <XWing as Kem>::EncappedKey::from_bytes(encapsulation).ok()?;
        hpke::setup_receiver(&hpke::OpModeR::Base, &self.private, &encapsulation, info).ok()
    }
}

/// The public half of an audience key: 1216 bytes.
#[derive(Clone)]
pub struct AudiencePublicKey {
    bytes: Vec<u8>,
    key: <XWing as Kem>::PublicKey,
}

impl AudiencePublicKey {
    /// Parses 1216 bytes; `None` when they are not an X-Wing public key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = <XWing as Kem>::PublicKey::from_bytes(bytes).ok()?;
        (bytes.len() == PUBLIC_BYTES).then(|| Self {
            bytes: bytes.to_vec(),
            key,
        })
    }

    /// The 1216 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Names this key in requests.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of("bield audience key v1", &[&self.bytes])
    }

    pub(crate) fn sender(
        &self,
        info: &[u8],
        entropy: &mut impl CryptoRng,
    ) -> Option<(Vec<u8>, Sender)> {
        let mode = hpke::OpModeS::Base;
        let (encapsulation, sender) = hpke::setup_sender_with_rng::<Aes256Gcm, HkdfSha256, XWing>(
            &mode, &self.key, info, entropy,
        )
        .ok()?;
        Some((encapsulation.to_bytes().to_vec(), sender))
    }
}

impl core::fmt::Debug for AudiencePublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AudiencePublicKey({})", self.id().short())
    }
}

impl PartialEq for AudiencePublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for AudiencePublicKey {}

impl<C> Encode<C> for AudiencePublicKey {
    fn encode<W: encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for AudiencePublicKey {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Self::from_bytes(d.bytes()?).ok_or_else(|| decode::Error::message("not an X-Wing key"))
    }
}
