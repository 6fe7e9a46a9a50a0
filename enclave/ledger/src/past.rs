//! The logs of earlier epochs, as far as they were recovered: only their trees, for whoever kept one of
//! their checkpoints.

use bield_capsule::CapsuleName;
use bield_capsule::ledger_file::Previous;
use bield_tlog::{Hash, LogVerifier, Origin, Tree, TreeError, TreeHead};

use crate::keys::{Keys, origin};

/// An earlier epoch's log.
pub struct PastLog {
    epoch: u32,
    capsule: CapsuleName,
    origin: Origin,
    verifier: LogVerifier,
    tree: Tree,
}

impl PastLog {
    pub(crate) fn new(keys: &Keys, epoch: u32, capsule: CapsuleName, tree: Tree) -> Self {
        let key = keys.log(epoch, &capsule);
        Self {
            epoch,
            capsule,
            origin: origin(&key),
            verifier: key.verifier().clone(),
            tree,
        }
    }

    /// Which epoch.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Its capsule.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.capsule
    }

    /// The origin of its checkpoints.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What its checkpoints were signed with.
    #[must_use]
    pub const fn verifier(&self) -> &LogVerifier {
        &self.verifier
    }

    /// Where it ended, as far as it was recovered.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead {
            size: self.tree.size(),
            root: self.tree.root(),
        }
    }

    /// Where it was after its first `size` records.
    ///
    /// # Errors
    /// It had fewer.
    pub fn head_at(&self, size: u64) -> Result<TreeHead, TreeError> {
        let root = self.tree.root_at(size)?;
        Ok(TreeHead { size, root })
    }

    /// Proves that its first `to` records begin with the first `size` of them.
    ///
    /// # Errors
    /// It had fewer.
    pub fn consistency_to(&self, size: u64, to: u64) -> Result<Vec<Hash>, TreeError> {
        self.tree.consistency_proof(size, to)
    }

    /// Whether `head` is one that this log had, within what was recovered.
    #[must_use]
    pub fn contains(&self, head: TreeHead) -> bool {
        self.tree.root_at(head.size) == Ok(head.root)
    }

    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn end(&self) -> Previous {
        let head = self.head();
        Previous {
            capsule: self.capsule,
            size: head.size,
            root: *head.root.as_bytes(),
        }
    }
}
