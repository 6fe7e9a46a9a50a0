//! Checking proofs with nothing but roots: RFC 9162 §2.1.3.2 and §2.1.4.2.
//!
//! Always true: any input gets an answer; a proof that is one hash too long or too short is
//! refused; each (tree, question) has exactly one proof that is accepted, up to SHA-256 collisions.
//!
//! Cost: one hash per hash of an inclusion proof, at most two per hash of a consistency proof.

use super::{Hash, node_hash};

/// Checks that `leaf` is number `index` of the tree of `size` leaves under `root`
/// (RFC 9162 §2.1.3.2).
///
/// # Errors
/// [`ProofInvalid`] when it does not follow from `proof`.
pub fn verify_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), ProofInvalid> {
    if index >= size {
        return Err(ProofInvalid);
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return Err(ProofInvalid);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            // A right edge without siblings passes through levels unchanged.
            climb_while_left(&mut node, &mut last);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    accept(last == 0 && hash == *root)
}

/// Checks that the tree of `new_size` leaves under `new_root` begins with the tree of `old_size`
/// leaves under `old_root` (RFC 9162 §2.1.4.2).
///
/// Every tree begins with the empty one and with itself; both take an empty proof, and both roots
/// must be what they have to be.
///
/// # Errors
/// [`ProofInvalid`] when it does not follow from `proof`.
pub fn verify_consistency(
    old_size: u64,
    old_root: &Hash,
    new_size: u64,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ProofInvalid> {
    if old_size > new_size {
        return Err(ProofInvalid);
    }
    for (size, root) in [(old_size, old_root), (new_size, new_root)] {
        if size == 0 && *root != Hash::EMPTY_ROOT {
            return Err(ProofInvalid);
        }
    }
    if old_size == new_size {
        return accept(proof.is_empty() && old_root == new_root);
    }
    if old_size == 0 {
        return accept(proof.is_empty());
    }

    // The walk starts at the last complete subtree of the old tree. When that is the whole old
    // tree, its hash is known and the proof leaves it out.
    let (mut node, mut last) = (old_size - 1, new_size - 1);
    let level = node.trailing_ones();
    (node, last) = (node >> level, last >> level);
    let (first, rest) = if old_size.is_power_of_two() {
        (*old_root, proof)
    } else {
        let (first, rest) = proof.split_first().ok_or(ProofInvalid)?;
        (*first, rest)
    };
    let (mut old_hash, mut new_hash) = (first, first);
    for sibling in rest {
        if last == 0 {
            return Err(ProofInvalid);
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            climb_while_left(&mut node, &mut last);
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    accept(last == 0 && old_hash == *old_root && new_hash == *new_root)
}

/// The proof does not show what it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the proof does not lead to this root: the log shows another tree; do not retry, keep both"
)]
pub struct ProofInvalid;

/// Moves up until `node` is a right child or the root's only path.
const fn climb_while_left(node: &mut u64, last: &mut u64) {
    while *node & 1 == 0 && *node != 0 {
        *node >>= 1;
        *last >>= 1;
    }
}

const fn accept(holds: bool) -> Result<(), ProofInvalid> {
    if holds { Ok(()) } else { Err(ProofInvalid) }
}
