//! The fork proofs a replica keeps for one capsule.
//!
//! Always true: a proof is on the disk before its writer is frozen in memory; one a writer, and only
//! of writers that have a chain here; all together are within [`super::FORKS_BYTES_MAX`].

use std::collections::BTreeMap;
use std::io;

use bield_capsule::{CapsuleName, ForkProof, WriterId};

use crate::frames;
use crate::storage::{FORKS, Storage};

#[derive(Debug, Default)]
pub(super) struct Forks {
    proofs: BTreeMap<WriterId, ForkProof>,
}

impl Forks {
    /// Reads them back; each is verified again.
    pub(super) fn load(storage: &dyn Storage, capsule: &CapsuleName) -> io::Result<Self> {
        let bytes = storage.get(capsule, FORKS)?.unwrap_or_default();
        let mut proofs = BTreeMap::new();
        for item in frames::items(&bytes) {
            let proof = item.map_err(io::Error::other)?;
            let proof = ForkProof::decode(proof).map_err(io::Error::other)?;
            let fork = proof.verify(capsule).map_err(io::Error::other)?;
            proofs.insert(fork.writer, proof);
        }
        Ok(Self { proofs })
    }

    /// Keeps one more, for good.
    pub(super) fn keep(
        &mut self,
        storage: &dyn Storage,
        capsule: &CapsuleName,
        writer: WriterId,
        proof: ForkProof,
    ) -> io::Result<()> {
        let mut bytes = self.encode();
        frames::push(&mut bytes, &proof.encode());
        storage.put(capsule, FORKS, &bytes)?;
        self.proofs.insert(writer, proof);
        Ok(())
    }

    pub(super) fn of(&self, writer: &WriterId) -> Option<&ForkProof> {
        self.proofs.get(writer)
    }

    pub(super) fn has(&self, writer: &WriterId) -> bool {
        self.proofs.contains_key(writer)
    }

    pub(super) fn proofs(&self) -> impl Iterator<Item = &ForkProof> {
        self.proofs.values()
    }

    pub(super) fn len(&self) -> usize {
        self.proofs.len()
    }

    /// Are these and one more at most `max` bytes?
    pub(super) fn fit(&self, more: &ForkProof, max: usize) -> bool {
        let all = self.proofs.values().chain(std::iter::once(more));
        all.map(|proof| proof.encode().len() + 4).sum::<usize>() <= max
    }

    /// `u32 length ‖ proof` each.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for proof in self.proofs.values() {
            frames::push(&mut bytes, &proof.encode());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use bield_capsule::{Head, Metadata, Suite, Writer, WriterKey};
    use bield_envelope::{Digest, Seeded, Time};

    use super::*;

    #[test]
    fn the_proofs_of_a_capsule_are_within_their_bytes() {
        let now = Time::from_secs(1_800_000_000);
        let owner = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(1));
        let metadata =
            Metadata::new(owner.public(), Some("test"), now, &mut Seeded::new(2)).unwrap();
        let key = || WriterKey::generate(Suite::Ed25519, &mut Seeded::new(3));
        let sign = |story: u8| {
            let config = Head {
                writer: owner.id(),
                seq: 0,
                hash: Digest::from_bytes([story; 32]),
            };
            let (_, open) = Writer::open(key(), &metadata, config, None, now).unwrap();
            open.signed_head()
        };
        let proof = ForkProof::new(&metadata, key().public(), sign(1), sign(2)).unwrap();
        let one = proof.encode().len() + 4;
        let mut forks = Forks::default();
        assert!(forks.fit(&proof, one) && !forks.fit(&proof, one - 1));
        forks.proofs.insert(key().id(), proof.clone());
        assert!(forks.fit(&proof, 2 * one) && !forks.fit(&proof, 2 * one - 1));
        assert_eq!(forks.encode().len(), one);
    }
}
