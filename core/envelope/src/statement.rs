//! Signed statements: COSE_Sign1 (RFC 9052 §4.2) with EdDSA, in two types.
//!
//! ```text
//! bytes ──decode──▶ Signed<T> ──verify(principal)──▶ Verified<T> ──▶ code that needs the truth
//! ```
//!
//! The structure is `18([h'{1: -8, 4: signer}', {}, payload, signature])`. The signature covers
//! `["Signature1", protected, external_aad, payload]` with the statement's domain as external AAD,
//! so a grant can never pass as a receipt. Decoding is strict: one encoding per statement.

use core::marker::PhantomData;
use core::ops::Deref;

use minicbor::data::{Tag, Type};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::wire::{self, WireError};
use crate::{Digest, Principal, SignatureInvalid, SigningKey};

/// Something a principal can sign.
pub trait Statement: Encode<()> + for<'b> Decode<'b, ()> {
    /// Names the kind and version of statement; part of what is signed.
    const DOMAIN: &'static str;
    /// The most bytes the payload may have.
    const BYTES_MAX: usize;
}

/// Why a signed statement was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Not a COSE_Sign1 in the one accepted form, or its payload is not the statement.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Names another signer than the one required.
    #[error("signed by {found}, but {expected} must sign this; ask that principal")]
    OtherSigner {
        /// Who must sign.
        expected: Principal,
        /// Who is named.
        found: Principal,
    },
    /// The signature does not verify.
    #[error(transparent)]
    Invalid(#[from] SignatureInvalid),
}

/// A parsed statement whose signature nobody has checked yet.
pub struct Signed<T> {
    bytes: Vec<u8>,
    parts: Parts,
    kind: PhantomData<fn() -> T>,
}

/// The fields of the COSE_Sign1 structure, as ranges of nothing: small copies.
#[derive(Clone)]
struct Parts {
    signer: Principal,
    payload: Vec<u8>,
    signature: [u8; 64],
}

impl<T: Statement> Signed<T> {
    /// Signs `statement`. The result is verified by construction.
    #[must_use = "the signed statement is the result"]
    pub fn sign(key: &SigningKey, statement: T) -> Verified<T> {
        let payload = wire::encode(&statement);
        assert!(
            payload.len() <= T::BYTES_MAX,
            "a statement larger than its type allows"
        );
        let signer = key.principal();
        let signature = key.sign(&to_be_signed::<T>(&signer, &payload));
        let parts = Parts {
            signer,
            payload,
            signature,
        };
        let signed = Self {
            bytes: parts.encode(),
            parts,
            kind: PhantomData,
        };
        Verified { statement, signed }
    }

    /// Parses the structure; says nothing about the signature.
    ///
    /// # Errors
    /// Too long, malformed, or not the one accepted encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let max = T::BYTES_MAX + STRUCTURE_BYTES_MAX;
        if bytes.len() > max {
            return Err(WireError::TooLong {
                found: bytes.len(),
                max,
            });
        }
        let parts =
            Parts::decode(bytes).map_err(|_| WireError::Malformed { what: "COSE_Sign1" })?;
        if parts.encode() != bytes {
            return Err(WireError::NotCanonical { what: "COSE_Sign1" });
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            parts,
            kind: PhantomData,
        })
    }

    /// The signer the structure names; a claim until verified.
    #[must_use]
    pub fn claimed_signer(&self) -> Principal {
        self.parts.signer
    }

    /// The whole structure.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Checks that `principal` signed this, and decodes what it says.
    ///
    /// # Errors
    /// Another signer, an invalid signature, or a payload that is not this kind of statement.
    pub fn verify(self, principal: &Principal) -> Result<Verified<T>, StatementError> {
        if self.parts.signer != *principal {
            return Err(StatementError::OtherSigner {
                expected: *principal,
                found: self.parts.signer,
            });
        }
        let message = to_be_signed::<T>(principal, &self.parts.payload);
        principal.verify(&message, &self.parts.signature)?;
        let statement = wire::decode(&self.parts.payload, T::BYTES_MAX)?;
        Ok(Verified {
            statement,
            signed: self,
        })
    }

    /// Checks the signature by the key the structure names. Whether that key may say this is the
    /// caller's question.
    ///
    /// # Errors
    /// As [`Signed::verify`].
    pub fn verify_claimed(self) -> Result<Verified<T>, StatementError> {
        let signer = self.parts.signer;
        self.verify(&signer)
    }
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            parts: self.parts.clone(),
            kind: PhantomData,
        }
    }
}

impl<T> core::fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Signed({} bytes, claimed {})",
            self.bytes.len(),
            self.parts.signer
        )
    }
}

impl<C, T> Encode<C> for Signed<T> {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.bytes)?.ok()
    }
}

impl<'b, C, T: Statement> Decode<'b, C> for Signed<T> {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Self::decode(d.bytes()?).map_err(|_| decode::Error::message("not a signed statement"))
    }
}

/// A statement whose signature was checked. There is no other way to make one.
pub struct Verified<T> {
    statement: T,
    signed: Signed<T>,
}

impl<T> Verified<T> {
    /// Who signed it.
    #[must_use]
    pub fn signer(&self) -> Principal {
        self.signed.parts.signer
    }

    /// The whole signed structure.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.signed.bytes
    }

    /// Identifies this statement with its signature.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of("bield statement v1", &[&self.signed.bytes])
    }

    /// The signed form, to pass on.
    #[must_use]
    pub fn as_signed(&self) -> &Signed<T> {
        &self.signed
    }

    /// Gives up the verified type to pass the signed form on.
    #[must_use]
    pub fn into_signed(self) -> Signed<T> {
        self.signed
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.statement
    }
}

impl<T: Clone> Clone for Verified<T> {
    fn clone(&self) -> Self {
        Self {
            statement: self.statement.clone(),
            signed: self.signed.clone(),
        }
    }
}

impl<T: core::fmt::Debug> core::fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Verified")
            .field("signer", &self.signer())
            .field("statement", &self.statement)
            .finish()
    }
}

impl Parts {
    fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(self.payload.len() + STRUCTURE_BYTES_MAX));
        into_memory(e.tag(Tag::new(COSE_SIGN1)).and_then(|e| {
            e.array(4)?.bytes(&protected(&self.signer))?.map(0)?;
            e.bytes(&self.payload)?.bytes(&self.signature)
        }));
        e.into_writer()
    }

    fn decode(bytes: &[u8]) -> Result<Self, decode::Error> {
        let refuse = || decode::Error::message("not COSE_Sign1");
        let mut d = Decoder::new(bytes);
        if d.tag()?.as_u64() != COSE_SIGN1 || d.array()? != Some(4) {
            return Err(refuse());
        }
        let signer = signer_of(d.bytes()?)?;
        if d.datatype()? != Type::Map || d.map()? != Some(0) {
            return Err(refuse());
        }
        let payload = d.bytes()?.to_vec();
        let signature = d.bytes()?.try_into().map_err(|_| refuse())?;
        Ok(Self {
            signer,
            payload,
            signature,
        })
    }
}

/// Protected header: `{1 (alg): -8 (EdDSA), 4 (kid): the 32-byte public key}`.
fn protected(signer: &Principal) -> Vec<u8> {
    let mut e = Encoder::new(Vec::with_capacity(40));
    into_memory(
        e.map(2)
            .and_then(|e| e.u8(1)?.i8(-8)?.u8(4)?.bytes(signer.as_bytes())),
    );
    e.into_writer()
}

fn signer_of(protected: &[u8]) -> Result<Principal, decode::Error> {
    let mut d = Decoder::new(protected);
    let expected = d.map()? == Some(2) && d.u8()? == 1 && d.i8()? == -8 && d.u8()? == 4;
    if !expected {
        return Err(decode::Error::message("not an EdDSA header"));
    }
    d.decode()
}

/// `Sig_structure` of RFC 9052 §4.4.
fn to_be_signed<T: Statement>(signer: &Principal, payload: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::with_capacity(payload.len() + STRUCTURE_BYTES_MAX));
    into_memory(e.array(4).and_then(|e| {
        e.str("Signature1")?.bytes(&protected(signer))?;
        e.bytes(T::DOMAIN.as_bytes())?.bytes(payload)
    }));
    e.into_writer()
}

fn into_memory<T>(result: Result<T, encode::Error<core::convert::Infallible>>) {
    assert!(result.is_ok(), "encoding to memory cannot fail");
}

/// CBOR tag of COSE_Sign1.
const COSE_SIGN1: u64 = 18;

/// Everything of the structure but the payload; 160 bytes are ample for tag, headers, signature.
const STRUCTURE_BYTES_MAX: usize = 160;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[derive(Debug, Clone, PartialEq, Encode, Decode)]
    struct Note(#[n(0)] u64);

    impl Statement for Note {
        const DOMAIN: &'static str = "test note v1";
        const BYTES_MAX: usize = 64;
    }

    #[derive(Debug, Clone, PartialEq, Encode, Decode)]
    struct Other(#[n(0)] u64);

    impl Statement for Other {
        const DOMAIN: &'static str = "test other v1";
        const BYTES_MAX: usize = 64;
    }

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_seed(Secret::from_bytes([byte; 32]))
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let bytes = Signed::sign(&key(1), Note(7)).as_bytes().to_vec();
        let good = Signed::<Note>::decode(&bytes)
            .unwrap()
            .verify(&key(1).principal())
            .unwrap();
        assert_eq!(*good, Note(7));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                let opened = Signed::<Note>::decode(&bad)
                    .map_err(StatementError::from)
                    .and_then(|signed| signed.verify(&key(1).principal()));
                assert!(opened.is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_statement_of_another_kind_or_signer_is_refused() {
        let bytes = Signed::sign(&key(1), Note(7)).as_bytes().to_vec();
        let other = Signed::<Other>::decode(&bytes)
            .unwrap()
            .verify(&key(1).principal());
        assert_eq!(other.err(), Some(StatementError::Invalid(SignatureInvalid)));
        let signer = Signed::<Note>::decode(&bytes)
            .unwrap()
            .verify(&key(2).principal());
        assert!(matches!(signer, Err(StatementError::OtherSigner { .. })));
    }
}
