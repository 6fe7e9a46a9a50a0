//! A replica's transparency log of one capsule: which records, in which order (`spec/06 §11`).
//!
//! In: header hashes in order of arrival. Out: checkpoints, tiles, bundles, proofs. Always true: a
//! checkpoint covers synced records only, and each extends the one before, so a crash never makes
//! this replica sign two histories; one that leaves the store was stored before.
//!
//! Memory, a record: 64 bytes of tree, 32 of hash, about 60 of the way back from hash to index.

use std::collections::HashMap;

use bield_capsule::CapsuleName;
use bield_envelope::{Digest, SigningKey};
use bield_tlog::tile::push_entry;
use bield_tlog::{
    Checkpoint, Hash, LogKey, LogVerifier, Origin, TileKind, TilePath, Tree, TreeError,
    VerifiedCheckpoint,
};

/// The log of one capsule at one replica.
pub(super) struct Log {
    key: LogKey,
    tree: Tree,
    hashes: Vec<Digest>,
    indices: HashMap<Digest, u64>,
    /// The newest one that left the store.
    pub(super) published: Option<VerifiedCheckpoint>,
}

/// Where a record stands in a log, and the hashes that prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// Its index.
    pub index: u64,
    /// The tree's size.
    pub size: u64,
    /// Hashes from the leaf's sibling up (RFC 6962 §2.1.1).
    pub hashes: Vec<Hash>,
}

impl Log {
    pub(super) fn new(capsule: &CapsuleName, key: &SigningKey) -> Self {
        let name = origin_of(capsule, key.principal().as_bytes());
        Self {
            key: LogKey::new(
                name.parse().expect("digits and slashes are a key name"),
                key.seed(),
            ),
            tree: Tree::new(),
            hashes: Vec::new(),
            indices: HashMap::new(),
            published: None,
        }
    }

    pub(super) fn push(&mut self, hash: Digest) -> u64 {
        let index = self.tree.append(hash.as_bytes());
        self.hashes.push(hash);
        self.indices.insert(hash, index);
        index
    }

    pub(super) fn hash(&self, index: u64) -> Option<Digest> {
        self.hashes.get(usize::try_from(index).ok()?).copied()
    }

    pub(super) fn size(&self) -> u64 {
        self.hashes.len() as u64
    }

    pub(super) fn verifier(&self) -> &LogVerifier {
        self.key.verifier()
    }

    pub(super) fn origin(&self) -> Origin {
        self.key.verifier().name().into()
    }

    /// Signs the tree of the first `synced` records, unless that was done already.
    pub(super) fn checkpoint(&self, synced: u64) -> Result<VerifiedCheckpoint, TreeError> {
        if let Some(published) = &self.published
            && published.checkpoint().size() == synced
        {
            return Ok(published.clone());
        }
        let root = self.tree.root_at(synced)?;
        Ok(Checkpoint::new(self.origin(), synced, root).sign(&self.key))
    }

    /// Is this the tree it was signed for?
    pub(super) fn extends(&self, checkpoint: &Checkpoint) -> bool {
        let root = self.tree.root_at(checkpoint.size());
        root.is_ok_and(|root| root == checkpoint.root())
    }

    pub(super) fn consistency(&self, old: u64, new: u64) -> Result<Vec<Hash>, TreeError> {
        self.tree.consistency_proof(old, new)
    }

    pub(super) fn prove(&self, hash: &Digest, size: u64) -> Result<Option<LogProof>, TreeError> {
        let Some(&index) = self.indices.get(hash).filter(|index| **index < size) else {
            return Ok(None);
        };
        let hashes = self.tree.inclusion_proof(index, size)?;
        Ok(Some(LogProof {
            index,
            size,
            hashes,
        }))
    }

    /// A tile of hashes, or a bundle of entries, that synced records fill.
    pub(super) fn tile(&self, path: &TilePath, synced: u64) -> Option<Vec<u8>> {
        let covers = match path.kind() {
            TileKind::Entries => 1,
            TileKind::Hashes(level) => 256u64.checked_pow(level.into())?,
        };
        let end = path
            .index()
            .checked_mul(256)?
            .checked_add(path.width().into())?;
        if end.checked_mul(covers)? > synced {
            return None;
        }
        match path.kind() {
            TileKind::Hashes(_) => self.tree.tile(path),
            TileKind::Entries => {
                let start = usize::try_from(path.index() * 256).ok()?;
                let hashes = self.hashes.get(start..usize::try_from(end).ok()?)?;
                let mut bundle = Vec::with_capacity(hashes.len() * 34);
                for hash in hashes {
                    push_entry(&mut bundle, hash.as_bytes()).ok()?;
                }
                Some(bundle)
            }
        }
    }
}

/// The origin of the log of `capsule` at the replica with this public key (`spec/06 §11`).
#[must_use]
pub fn origin_of(capsule: &CapsuleName, replica: &[u8; 32]) -> String {
    format!("bield/capsule/{capsule}/{}", hex::encode(replica))
}
