//! Capsule replicas.

pub mod disk;
pub mod journal;
