//! What one file shows to someone who has nothing but the capsule's name (`spec/06 §7`).
//!
//! ```text
//! name ─▶ metadata ─▶ owner ─▶ config records ─▶ who may write, replicas
//!                                    │
//!                     opening ─▶ writer's key ─▶ head ─▶ path ─▶ record ─▶ slice ─▶ entry
//!                                                 └─ acknowledgements by replicas
//! ```
//!
//! In: records, a path and a record's secret to make a proof; a name and policy to check one. Out:
//! [`Proven`], which says what was proven and lists what was not. Always true: nothing is believed
//! that does not lead back to the name; the entry shown is decrypted under the one key that the
//! record commits to; the secret in a proof opens one record and no other. Left to others: whether
//! the head is the newest ([`crate::fresh`]).
//!
//! Cost: a signature per config record, three more, one per acknowledgement, the hashes of the
//! path, and the slice. About 2 KiB beside config records and slice.

mod entry;
mod proven;
mod refused;
mod verify;

use core::cmp::Reverse;
use core::fmt;

use bield_envelope::{Secret, Signed, wire};
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use self::entry::EntryProof;
pub use self::proven::{Acknowledged, Authority, NotChecked, Proven, ProvenEntry};
pub use self::refused::{AcknowledgementError, ProofError};
use crate::{
    Acknowledgement, CONFIG_RECORDS_MAX, CapsuleName, Header, Metadata, PATH_HEADERS_MAX,
    REPLICAS_MAX, Received, RecordError, RecordSecret, SignedHead,
};

/// Longest proof file in bytes: a body, a long configuration, and room.
pub const PROOF_BYTES_MAX: usize = 16 << 20;

/// A proof file: its structure is right, nothing else is known until [`Proof::verify`].
pub struct Proof {
    metadata: Metadata,
    config: Vec<Received>,
    opening: Option<Received>,
    head: SignedHead,
    path: Vec<Header>,
    entry: Option<EntryProof>,
    acknowledgements: Vec<Signed<Acknowledgement>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Fields {
    #[cbor(n(0), with = "minicbor::bytes")]
    metadata: Vec<u8>,
    #[cbor(n(1), decode_with = "wire::at_most::<CONFIG_RECORDS_MAX, _, _>")]
    config: Vec<ByteVec>,
    #[n(2)]
    opening: Option<ByteVec>,
    #[cbor(n(3), with = "minicbor::bytes")]
    head: Vec<u8>,
    #[cbor(n(4), decode_with = "wire::at_most::<PATH_HEADERS_MAX, _, _>")]
    path: Vec<ByteVec>,
    #[n(5)]
    entry: Option<EntryFields>,
    #[cbor(n(6), decode_with = "wire::at_most::<REPLICAS_MAX, _, _>")]
    acknowledgements: Vec<Signed<Acknowledgement>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct EntryFields {
    #[n(0)]
    index: u32,
    #[cbor(n(1), with = "bield_envelope::transport")]
    secret: Secret,
    #[cbor(n(2), with = "minicbor::bytes")]
    slice: Vec<u8>,
    #[n(3)]
    start: u32,
    #[n(4)]
    end: u32,
}

impl Proof {
    /// A proof that the last header of `path` (the head itself, when it is empty) is a record of the
    /// chain that `head` ends. `config` are the config records from 0 to one that the head names, or
    /// later; `opening` is the writer's open record, none for the owner.
    #[must_use]
    pub fn new(
        metadata: Metadata,
        config: Vec<Received>,
        opening: Option<Received>,
        head: SignedHead,
        path: Vec<Header>,
    ) -> Self {
        Self {
            metadata,
            config,
            opening,
            head,
            path,
            entry: None,
            acknowledgements: Vec::new(),
        }
    }

    /// Also shows an entry of the target. Whoever gets the proof can open `record` and no other.
    ///
    /// # Errors
    /// Not the target, not its secret, or no such entry.
    pub fn show(
        mut self,
        record: &Received,
        secret: RecordSecret,
        index: u32,
    ) -> Result<Self, ProofError> {
        if self.target().hash() != record.hash() {
            return Err(ProofError::Rule("the entry is of another record"));
        }
        self.entry = Some(EntryProof::cut(record, secret, index)?);
        Ok(self)
    }

    /// Also shows that replicas hold the chain up to the head. Of each the best word is kept: one that
    /// verifies and is about the head, and of those the one that says it is kept most safely.
    #[must_use]
    pub fn acknowledged(
        mut self,
        words: impl IntoIterator<Item = Signed<Acknowledgement>>,
    ) -> Self {
        let head = self.head.head();
        let worth = |word: &Signed<Acknowledgement>| {
            let said = word.clone().verify_claimed().ok()?;
            (said.head() == head).then_some(said.kept)
        };
        self.acknowledgements.extend(words);
        self.acknowledgements
            .sort_by_cached_key(|word| (word.claimed_signer(), Reverse(worth(word))));
        self.acknowledgements
            .dedup_by_key(|word| word.claimed_signer());
        self
    }

    /// The canonical bytes. They hold the secret of the record that is shown, and are wiped on drop.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let bytes = |record: &Received| ByteVec::from(record.as_bytes().to_vec());
        wire::encode_secret(&Fields {
            metadata: self.metadata.as_bytes().to_vec(),
            config: self.config.iter().map(bytes).collect(),
            opening: self.opening.as_ref().map(bytes),
            head: self.head.as_bytes().to_vec(),
            path: self
                .path
                .iter()
                .map(|header| ByteVec::from(header.encode()))
                .collect(),
            entry: self.entry.as_ref().map(|entry| EntryFields {
                index: entry.index,
                secret: Secret::from_bytes(*entry.secret.expose()),
                slice: entry.slice.clone(),
                start: entry.start,
                end: entry.end,
            }),
            acknowledgements: self.acknowledgements.clone(),
        })
    }

    /// Reads a proof file; proves nothing yet.
    ///
    /// # Errors
    /// Too long, or not the one encoding of its parts.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let fields: Fields = wire::decode(bytes, PROOF_BYTES_MAX)?;
        let record = |what| {
            move |bytes: ByteVec| {
                Received::decode(bytes.into()).map_err(|why| ProofError::Record { what, why })
            }
        };
        Ok(Self {
            metadata: Metadata::decode(&fields.metadata)?,
            config: fields
                .config
                .into_iter()
                .map(record("a config record"))
                .collect::<Result<_, _>>()?,
            opening: fields.opening.map(record("the open record")).transpose()?,
            head: SignedHead::decode(&fields.head).map_err(|why| ProofError::Record {
                what: "the head",
                why,
            })?,
            path: fields
                .path
                .iter()
                .map(|bytes| whole_header(bytes))
                .collect::<Result<_, _>>()?,
            entry: fields.entry.map(|entry| EntryProof {
                index: entry.index,
                secret: RecordSecret::from_bytes(*entry.secret.expose()),
                slice: entry.slice,
                start: entry.start,
                end: entry.end,
            }),
            acknowledgements: fields.acknowledgements,
        })
    }

    /// The capsule it claims to be about.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.metadata.name()
    }

    /// The record that is proven.
    fn target(&self) -> &Header {
        self.path.last().unwrap_or(self.head.header())
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Proof(of {}/{} from {})",
            self.target().writer.short(),
            self.target().seq,
            self.head.head()
        )
    }
}

#[cfg(test)]
mod tests;

fn whole_header(bytes: &[u8]) -> Result<Header, ProofError> {
    let what = "a header of the path";
    let refuse = |why| ProofError::Record { what, why };
    let (header, used) = Header::decode_prefix(bytes).map_err(refuse)?;
    match bytes.len() - used {
        0 => Ok(header),
        extra => Err(refuse(RecordError::Trailing { extra })),
    }
}
