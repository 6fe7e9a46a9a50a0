//! Capsule replicas.
