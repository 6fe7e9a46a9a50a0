//! Transparency log forms of C2SP.

pub mod note;
mod text;
pub mod tile;
pub mod tree;

pub use tile::{TileKind, TilePath};
pub use tree::{
    Hash, ProofInvalid, Tree, TreeError, leaf_hash, verify_consistency, verify_inclusion,
};
