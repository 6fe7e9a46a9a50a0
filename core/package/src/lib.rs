//! Sealed packages: pack, open chunk by chunk.

pub mod tensor;
