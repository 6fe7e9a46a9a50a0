//! The immutable beginning of a capsule; its hash is the capsule's name (`spec/06 §2`).
//!
//! In: suite, owner key, time, randomness. Out: [`Metadata`] with its name. Always true: a value of
//! this type has the name of its own bytes, so whoever has the name can check the metadata, the
//! owner's key in it, and from there everything else.

use bield_envelope::{Time, wire, wire::WireError};
use minicbor::{Decode, Encode};
use rand_core::CryptoRng;

use crate::{CapsuleName, PublicKey, Suite, WriterId};

/// Longest encoded metadata in bytes: an ML-DSA key of 1312 and room.
pub const METADATA_BYTES_MAX: usize = 2048;

/// Longest label in bytes: it is for people, and public.
pub const LABEL_BYTES_MAX: usize = 64;

/// A capsule's metadata, checked and named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    bytes: Box<[u8]>,
    name: CapsuleName,
    owner: PublicKey,
    created: Time,
    label: Option<String>,
}

/// Why bytes are no capsule's metadata.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Not the CBOR that metadata is made of.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A version this program does not know.
    #[error("metadata version {found} is unknown: written by a newer bield; update, do not retry")]
    Version {
        /// The version named.
        found: u32,
    },
    /// A suite this program does not know, or a key that is not of it.
    #[error("suite {found} is unknown or the owner key is not one of it; do not retry")]
    Suite {
        /// The suite named.
        found: u8,
    },
    /// The label is longer than it may be.
    #[error("a label has at most {LABEL_BYTES_MAX} bytes; choose a shorter one")]
    Label,
    /// The bytes are those of another capsule.
    #[error("these bytes are the metadata of capsule {found}, not of {expected}; do not retry")]
    OtherName {
        /// The capsule asked for.
        expected: CapsuleName,
        /// The capsule they name.
        found: CapsuleName,
    },
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Fields {
    #[n(0)]
    version: u32,
    #[n(1)]
    suite: u8,
    #[cbor(n(2), with = "minicbor::bytes")]
    owner: Vec<u8>,
    #[n(3)]
    created: Time,
    #[cbor(n(4), with = "minicbor::bytes")]
    nonce: [u8; 16],
    #[n(5)]
    label: Option<String>,
}

impl Metadata {
    /// Makes metadata for a new capsule.
    ///
    /// # Errors
    /// The label is too long.
    pub fn new(
        owner: &PublicKey,
        label: Option<&str>,
        now: Time,
        entropy: &mut impl CryptoRng,
    ) -> Result<Self, MetadataError> {
        let mut nonce = [0; 16];
        entropy.fill_bytes(&mut nonce);
        Self::decode(&wire::encode(&Fields {
            version: VERSION,
            suite: owner.suite().number(),
            owner: owner.as_bytes().to_vec(),
            created: now,
            nonce,
            label: label.map(str::to_owned),
        }))
    }

    /// Reads metadata and computes its name.
    ///
    /// # Errors
    /// Not canonical metadata of a known version and suite.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetadataError> {
        let fields: Fields = wire::decode(bytes, METADATA_BYTES_MAX)?;
        if fields.version != VERSION {
            return Err(MetadataError::Version {
                found: fields.version,
            });
        }
        let owner = Suite::from_number(fields.suite)
            .and_then(|suite| PublicKey::from_bytes(suite, &fields.owner))
            .ok_or(MetadataError::Suite {
                found: fields.suite,
            })?;
        if fields
            .label
            .as_ref()
            .is_some_and(|label| label.len() > LABEL_BYTES_MAX)
        {
            return Err(MetadataError::Label);
        }
        Ok(Self {
            name: owner.suite().hash(NAME_DOMAIN, &[bytes]).into(),
            bytes: bytes.into(),
            owner,
            created: fields.created,
            label: fields.label,
        })
    }

    /// Reads the metadata of the capsule called `name`.
    ///
    /// # Errors
    /// As [`Metadata::decode`], or the metadata of another capsule.
    pub fn decode_named(bytes: &[u8], name: &CapsuleName) -> Result<Self, MetadataError> {
        let metadata = Self::decode(bytes)?;
        if metadata.name != *name {
            return Err(MetadataError::OtherName {
                expected: *name,
                found: metadata.name,
            });
        }
        Ok(metadata)
    }

    /// The canonical bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The capsule's name.
    #[must_use]
    pub const fn name(&self) -> CapsuleName {
        self.name
    }

    /// The capsule's suite.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.owner.suite()
    }

    /// Who configures the capsule.
    #[must_use]
    pub const fn owner(&self) -> &PublicKey {
        &self.owner
    }

    /// The id of the config chain.
    #[must_use]
    pub const fn owner_id(&self) -> WriterId {
        self.owner.id()
    }

    /// When it was made, by its owner's clock.
    #[must_use]
    pub const fn created(&self) -> Time {
        self.created
    }

    /// What people call it; public, and nobody's proof of anything.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }
}

const VERSION: u32 = 1;
const NAME_DOMAIN: &str = "bield capsule name v1";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WriterKey;
    use bield_envelope::Seeded;

    #[test]
    fn every_flipped_bit_names_another_capsule_or_none() {
        for suite in Suite::ALL {
            let mut entropy = Seeded::new(3);
            let key = WriterKey::generate(suite, &mut entropy);
            let metadata = Metadata::new(
                key.public(),
                Some("log"),
                Time::from_millis(9),
                &mut entropy,
            )
            .unwrap();
            assert_eq!(
                Metadata::decode_named(metadata.as_bytes(), &metadata.name()),
                Ok(metadata.clone())
            );
            for bit in 0..metadata.as_bytes().len() * 8 {
                let mut bytes = metadata.as_bytes().to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    Metadata::decode_named(&bytes, &metadata.name()).is_err(),
                    "{bit}"
                );
            }
        }
    }
}
