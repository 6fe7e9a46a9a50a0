//! What a log says of itself: head, signed checkpoint, proofs, time.

use bield_capsule::{CapsuleName, Received};
use bield_envelope::{Digest, Secret, Time};
use bield_tlog::{Checkpoint, Hash, LogVerifier, Origin, Tree, TreeHead, VerifiedCheckpoint};

use super::Ledger;
use crate::{LedgerError, PastLog};

impl Ledger {
    /// The term of the last [`Ledger::prepare`], or of the transfer this log came by; 0: there was none.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// Size and root of the tree with `record` as its next leaf.
    #[must_use]
    pub fn head_with(&self, record: &Received) -> TreeHead {
        let leaf = bield_tlog::leaf_hash(record.hash().as_bytes());
        TreeHead {
            size: self.size() + 1,
            root: self.chain.tree().root_with(leaf),
        }
    }

    /// Records in the log: the next one's index.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.chain.size()
    }

    /// Size and root of the tree over all committed records.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        self.chain.head()
    }

    /// Which log: `bield/keys/<capsule>/<key>`.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What its checkpoints verify with.
    #[must_use]
    pub const fn verifier(&self) -> &LogVerifier {
        self.log_key.verifier()
    }

    /// The capsule of this epoch.
    #[must_use]
    pub const fn capsule(&self) -> CapsuleName {
        self.chain.metadata().name()
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.chain.epoch()
    }

    /// The root secret: identity and audience keys derive from it.
    #[must_use]
    pub const fn root(&self) -> &Secret {
        self.keys.root()
    }

    /// The tree's newest leaf: the hash of the newest record's header hash.
    #[must_use]
    pub fn newest_leaf(&self) -> Option<Hash> {
        self.chain.tree().leaf(self.size() - 1)
    }

    /// The tree over all committed records.
    #[must_use]
    pub fn tree(&self) -> &Tree {
        self.chain.tree()
    }

    /// Signs size and root of the tree, with an extension line `nonce <hex>` where a fresh cosignature is
    /// to be asked for.
    ///
    /// # Panics
    /// Never: its own lines make a checkpoint.
    #[must_use]
    pub fn checkpoint(&self, nonce: Option<[u8; 32]>) -> VerifiedCheckpoint {
        let head = self.head();
        let plain = Checkpoint::new(self.origin.clone(), head.size, head.root);
        let checkpoint = match nonce {
            None => plain,
            Some(nonce) => {
                let text = format!("{plain}nonce {}\n", Digest::from_bytes(nonce));
                Checkpoint::parse(&text).expect("origin, size, root and one extension line")
            }
        };
        checkpoint.sign(&self.log_key)
    }

    /// Proves that the log begins with its first `size` records.
    ///
    /// # Errors
    /// The log has fewer records: whoever asks knows more than this log does.
    pub fn consistency(&self, size: u64) -> Result<Vec<Hash>, LedgerError> {
        let tree = self.chain.tree();
        Ok(tree.consistency_proof(size, tree.size())?)
    }

    /// Proves that the first `to` records begin with the first `size` of them: for a checkpoint that is not
    /// the newest.
    ///
    /// # Errors
    /// The log has fewer records than `to`, or `to` is less than `size`.
    pub fn consistency_to(&self, size: u64, to: u64) -> Result<Vec<Hash>, LedgerError> {
        Ok(self.chain.tree().consistency_proof(size, to)?)
    }

    /// Whether the log had this head; not when it is ahead of the log, nor when it is another log's.
    #[must_use]
    pub fn contains(&self, head: TreeHead) -> bool {
        self.chain.tree().root_at(head.size) == Ok(head.root)
    }

    /// The logs of earlier epochs, ascending.
    #[must_use]
    pub fn past(&self) -> &[PastLog] {
        &self.past
    }

    /// The time: `host`'s clock, and never before the newest record.
    #[must_use]
    pub fn now(&self, host: Time) -> Time {
        host.max(self.chain.clock())
    }

    /// Whether a record was sealed, or tried to be written, and is not committed.
    #[must_use]
    pub const fn is_pending(&self) -> bool {
        self.reserved.is_some()
    }
}
