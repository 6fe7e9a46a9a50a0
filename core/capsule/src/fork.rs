//! Evidence that a writer told two stories (`spec/06 §10`).
//!
//! ```text
//!                    ┌─▶ seq 7, hash a, signature ──┐
//!   … ──▶ seq 6 ─────┤                              ├─▶ ForkProof ──verify(name)──▶ Fork
//!                    └─▶ seq 7, hash b, signature ──┘
//! ```
//!
//! In: two signed heads with one capsule, writer and seq and different hashes. Out: bytes that
//! convince anyone who has the capsule's name, with nothing else. Always true: no honest writer can
//! be accused, because both signatures are checked; one pair of heads has one proof, the smaller
//! hash first. Left to others: what follows from it (`crate::Verifier`), and whether the writer was
//! ever admitted.
//!
//! Cost: two signature checks; at most 200 000 bytes, about 1 KiB as a rule.

use bield_envelope::{SignatureInvalid, wire, wire::WireError};
use minicbor::{Decode, Encode};

use crate::{
    CapsuleName, HEADER_BYTES_MAX, Head, METADATA_BYTES_MAX, Metadata, MetadataError, PublicKey,
    RecordError, SignedHead, Suite, WriterId,
};

/// Longest encoded fork proof in bytes: two of the longest headers, and room.
pub const FORK_PROOF_BYTES_MAX: usize = 200_000;

/// Two signed heads that no honest writer makes. Structure is right; signatures are checked by
/// [`ForkProof::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkProof {
    metadata: Metadata,
    key: PublicKey,
    first: SignedHead,
    second: SignedHead,
}

/// A fork that was proven: both heads are the writer's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// In which capsule.
    pub capsule: CapsuleName,
    /// Who told two stories, or whose key was stolen or copied.
    pub writer: WriterId,
    /// Where the two stories part at the latest.
    pub seq: u64,
    /// The head with the smaller hash.
    pub first: Head,
    /// The head with the larger hash.
    pub second: Head,
}

/// Why two heads prove no fork.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForkError {
    /// Not the CBOR of a fork proof.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The metadata is none, or of another capsule.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A head is none.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The key is not one of the capsule's suite.
    #[error("the writer's key is not of the capsule's suite; do not retry")]
    Key,
    /// Heads of different capsules, writers or positions contradict nothing; one of a kind that has no place
    /// in its chain binds nobody.
    #[error(
        "the two heads are not of one capsule, writer and position, or not of their chain: no fork; do not retry"
    )]
    NotComparable,
    /// No room to remember forks of writers that have no chain here.
    #[error(
        "{max} forks of unknown writers are remembered: keep the proof, and retry with the chain"
    )]
    Full {
        /// The limit.
        max: usize,
    },
    /// Twice the same header.
    #[error("the two heads have one hash: no fork; do not retry")]
    Same,
    /// Not in the one order.
    #[error("the head with the smaller hash must come first; do not retry")]
    Order,
    /// A head the writer did not sign: no evidence against it.
    #[error("a head is not signed by the writer: proves nothing; do not retry")]
    Signature(#[from] SignatureInvalid),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Fields {
    #[cbor(n(0), with = "minicbor::bytes")]
    metadata: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    key: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    first: Vec<u8>,
    #[cbor(n(3), with = "minicbor::bytes")]
    second: Vec<u8>,
}

impl ForkProof {
    /// Makes the proof of two heads, given in any order.
    ///
    /// # Errors
    /// The heads do not contradict each other, or are not both signed by `key`.
    pub fn new(
        metadata: &Metadata,
        key: &PublicKey,
        a: SignedHead,
        b: SignedHead,
    ) -> Result<Self, ForkError> {
        let (first, second) = if a.head().hash <= b.head().hash {
            (a, b)
        } else {
            (b, a)
        };
        let proof = Self {
            metadata: metadata.clone(),
            key: key.clone(),
            first,
            second,
        };
        proof.verify(&metadata.name())?;
        Ok(proof)
    }

    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(&Fields {
            metadata: self.metadata.as_bytes().to_vec(),
            key: self.key.as_bytes().to_vec(),
            first: self.first.as_bytes().to_vec(),
            second: self.second.as_bytes().to_vec(),
        })
    }

    /// Reads a proof; says nothing about the signatures.
    ///
    /// # Errors
    /// Too long, or not the one encoding of metadata, key and two heads.
    pub fn decode(bytes: &[u8]) -> Result<Self, ForkError> {
        let fields: Fields = wire::decode(bytes, FORK_PROOF_BYTES_MAX)?;
        let metadata = Metadata::decode(&fields.metadata)?;
        let key = PublicKey::from_bytes(metadata.suite(), &fields.key).ok_or(ForkError::Key)?;
        Ok(Self {
            key,
            metadata,
            first: SignedHead::decode(&fields.first)?,
            second: SignedHead::decode(&fields.second)?,
        })
    }

    /// The capsule it claims to be about.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.metadata.name()
    }

    /// The two signed heads, the smaller hash first.
    #[must_use]
    pub const fn heads(&self) -> [&SignedHead; 2] {
        [&self.first, &self.second]
    }

    /// Checks everything, from the capsule's name alone.
    ///
    /// # Errors
    /// Metadata of another capsule, heads that do not contradict each other, or that the writer did
    /// not sign.
    pub fn verify(&self, name: &CapsuleName) -> Result<Fork, ForkError> {
        let found = self.metadata.name();
        if found != *name {
            let expected = *name;
            return Err(MetadataError::OtherName { expected, found }.into());
        }
        let (first, second) = (self.first.head(), self.second.head());
        if !self.first.header().belongs(&self.metadata)
            || !self.second.header().belongs(&self.metadata)
            || (first.writer, first.seq) != (second.writer, second.seq)
        {
            return Err(ForkError::NotComparable);
        }
        match first.hash.cmp(&second.hash) {
            core::cmp::Ordering::Less => {}
            core::cmp::Ordering::Equal => return Err(ForkError::Same),
            core::cmp::Ordering::Greater => return Err(ForkError::Order),
        }
        self.first.verify(&self.key)?;
        self.second.verify(&self.key)?;
        Ok(Fork {
            capsule: *name,
            writer: first.writer,
            seq: first.seq,
            first,
            second,
        })
    }
}

const _: () = assert!(
    FORK_PROOF_BYTES_MAX
        > 2 * (HEADER_BYTES_MAX + Suite::MlDsa44.signature_bytes())
            + METADATA_BYTES_MAX
            + Suite::MlDsa44.public_key_bytes()
            + 64
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Clock, Header, Kind, Received, WriterKey};
    use bield_envelope::{Digest, Seeded, Time};

    fn capsule(suite: Suite) -> Metadata {
        let owner = WriterKey::generate(suite, &mut Seeded::new(1));
        let mut entropy = Seeded::new(2);
        Metadata::new(owner.public(), None, Time::from_secs(1), &mut entropy).unwrap()
    }

    fn head(metadata: &Metadata, key: &WriterKey, change: impl Fn(&mut Header)) -> SignedHead {
        let suite = metadata.suite();
        let mut header = Header {
            suite,
            kind: Kind::Close,
            capsule: metadata.name(),
            writer: key.id(),
            seq: 3,
            epoch: 0,
            clock: Clock::from_bits(5),
            config: 0,
            generation: 0,
            count: 0,
            body_bytes: 0,
            prev: Digest::from_bytes([3; 32]),
            salt: [0; 16],
            commitment: [0; 32],
            root: suite.root(&[]),
            parents: Vec::new(),
            skips: Vec::new(),
        };
        change(&mut header);
        Received::sign(key, &header, &[]).unwrap().signed_head()
    }

    fn fork(suite: Suite) -> ForkProof {
        let metadata = capsule(suite);
        let key = WriterKey::generate(suite, &mut Seeded::new(3));
        let a = head(&metadata, &key, |_| {});
        let b = head(&metadata, &key, |header| header.epoch = 1);
        let proof = ForkProof::new(&metadata, key.public(), a.clone(), b.clone()).unwrap();
        let other = ForkProof::new(&metadata, key.public(), b, a).unwrap();
        assert_eq!(proof.encode(), other.encode(), "one fork has one proof");
        proof
    }

    fn believed(bytes: &[u8], name: &CapsuleName) -> bool {
        ForkProof::decode(bytes).is_ok_and(|proof| proof.verify(name).is_ok())
    }

    #[test]
    fn a_fork_is_proven_by_its_proof_alone_and_every_flip_is_refused() {
        for suite in Suite::ALL {
            let proof = fork(suite);
            let bytes = proof.encode();
            let name = proof.capsule();
            let again = ForkProof::decode(&bytes).unwrap();
            let fork = again.verify(&name).unwrap();
            assert_eq!((fork.seq, fork.capsule), (3, name));
            assert!(fork.first.hash < fork.second.hash);
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << (at % 8);
                assert!(!believed(&bad, &name), "{suite:?} byte {at}");
            }
            assert!(!believed(&bytes[..bytes.len() - 1], &name));
            assert!(!believed(&[&bytes[..], &[0]].concat(), &name));
            assert!(!believed(&bytes, &CapsuleName::from_bytes([0; 32])));
        }
    }

    #[test]
    fn heads_that_do_not_contradict_each_other_accuse_nobody() {
        let metadata = capsule(Suite::Ed25519);
        let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(3));
        let thief = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(4));
        let a = head(&metadata, &key, |_| {});
        let refuse = |b: SignedHead, why: ForkError| {
            let made = ForkProof::new(&metadata, key.public(), a.clone(), b);
            assert_eq!(made, Err(why));
        };
        refuse(a.clone(), ForkError::Same);
        let later = head(&metadata, &key, |header| header.seq = 5);
        refuse(later, ForkError::NotComparable);
        let foreign = CapsuleName::from_bytes([9; 32]);
        let elsewhere = head(&metadata, &key, |header| header.capsule = foreign);
        refuse(elsewhere, ForkError::NotComparable);
        let other = head(&metadata, &thief, |header| header.epoch = 1);
        refuse(other, ForkError::NotComparable);
        let forged = head(&metadata, &thief, |header| {
            header.epoch = 1;
            header.writer = key.id();
        });
        refuse(forged, ForkError::Signature(SignatureInvalid));
    }

    #[test]
    fn the_larger_hash_first_is_refused() {
        let mut proof = fork(Suite::Ed25519);
        core::mem::swap(&mut proof.first, &mut proof.second);
        let name = proof.capsule();
        assert_eq!(proof.verify(&name), Err(ForkError::Order));
    }
}
