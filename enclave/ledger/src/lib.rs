//! The key service log.
