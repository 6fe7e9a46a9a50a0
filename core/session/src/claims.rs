//! The claims-buffer: what the certificate's evidence attests besides the code.
//!
//! In the interoperable RA-TLS form of the Confidential Computing Consortium it is a CBOR map of
//! text to byte string whose SHA-256 is the quote's report data. `"pubkey-hash"` is theirs and ties
//! the evidence to the certificate's key; `"bield-session"` is ours and ignored by others.
//! Layout: spec/03 §2.1.

use bield_envelope::{Principal, Time, wire};
use bield_evidence::{HardeningStatement, TeeKind};
use minicbor::encode::Write;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};
use sha2::{Digest as _, Sha256};

use crate::Role;

/// What an end claims about itself under its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionClaims {
    /// SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub key_hash: [u8; 32],
    /// The part it plays.
    pub role: Role,
    /// The key service it is, or belongs to; a peer that pins it cannot be diverted to another one.
    pub service: Option<Principal>,
    /// When the evidence was made, by the clock of its host.
    pub issued_at: Time,
    /// The hardware family of the quote.
    pub kind: TeeKind,
    /// What the process gave up, and what its kernel refused. There is no certificate without it.
    pub hardening: HardeningStatement,
}

impl SessionClaims {
    /// Claims of the key `spki` (SubjectPublicKeyInfo, DER).
    #[must_use]
    pub fn new(
        spki: &[u8],
        role: Role,
        service: Option<Principal>,
        issued_at: Time,
        kind: TeeKind,
        hardening: HardeningStatement,
    ) -> Self {
        Self {
            key_hash: Sha256::digest(spki).into(),
            role,
            service,
            issued_at,
            kind,
            hardening,
        }
    }

    /// Whether these are claims of the key `spki`.
    #[must_use]
    pub fn are_of(&self, spki: &[u8]) -> bool {
        self.key_hash[..] == Sha256::digest(spki)[..]
    }

    /// The claims-buffer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a claims-buffer; exactly one byte string is accepted for each value.
    ///
    /// # Errors
    /// Malformed, not canonical, or longer than [`CLAIMS_BYTES_MAX`].
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, CLAIMS_BYTES_MAX)
    }
}

impl<C> Encode<C> for SessionClaims {
    fn encode<W: Write>(
        &self,
        out: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        let key = wire::encode(&KeyHash {
            algorithm: SHA_256,
            hash: self.key_hash,
        });
        let own = wire::encode(&Own {
            role: self.role,
            service: self.service,
            issued_at: self.issued_at,
            kind: self.kind,
            hardening: self.hardening.clone(),
        });
        out.map(2)?
            .str(PUBKEY_HASH)?
            .bytes(&key)?
            .str(BIELD_SESSION)?
            .bytes(&own)?
            .ok()
    }
}

impl<'b, C> Decode<'b, C> for SessionClaims {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        // `wire::decode` encodes again and compares, which pins lengths and nested encodings too.
        let refused = decode::Error::message;
        d.map()?;
        let key: KeyHash = wire::decode(claim(d, PUBKEY_HASH)?, CLAIMS_BYTES_MAX)
            .map_err(|_| refused("pubkey-hash"))?;
        let own: Own = wire::decode(claim(d, BIELD_SESSION)?, CLAIMS_BYTES_MAX)
            .map_err(|_| refused("bield-session"))?;
        if key.algorithm != SHA_256 {
            return Err(refused("pubkey-hash algorithm"));
        }
        Ok(Self {
            key_hash: key.hash,
            role: own.role,
            service: own.service,
            issued_at: own.issued_at,
            kind: own.kind,
            hardening: own.hardening,
        })
    }
}

fn claim<'b>(d: &mut Decoder<'b>, name: &str) -> Result<&'b [u8], decode::Error> {
    if d.str()? != name {
        return Err(decode::Error::message("claims unknown or out of order"));
    }
    d.bytes()
}

/// `[algorithm, hash]`; 1 is SHA-256 in the IANA registry of named information hashes.
#[derive(Encode, Decode)]
struct KeyHash {
    #[n(0)]
    algorithm: u8,
    #[cbor(n(1), with = "minicbor::bytes")]
    hash: [u8; 32],
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Own {
    #[n(0)]
    role: Role,
    #[n(1)]
    service: Option<Principal>,
    #[n(2)]
    issued_at: Time,
    #[n(3)]
    kind: TeeKind,
    #[n(4)]
    hardening: HardeningStatement,
}

const PUBKEY_HASH: &str = "pubkey-hash";
const BIELD_SESSION: &str = "bield-session";
const SHA_256: u8 = 1;

/// Bytes of a claims-buffer; ours take about 150.
pub const CLAIMS_BYTES_MAX: usize = 1024;
