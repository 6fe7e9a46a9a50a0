//! Holds a dependency, no code: see `Cargo.toml`.
