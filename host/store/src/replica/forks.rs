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

    /// Length of all, as [`Forks::encode`] writes them.
    pub(super) fn bytes(&self) -> usize {
        let each = self.proofs.values();
        each.map(|proof| proof.encode().len() + 4).sum()
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
