//! Tests of the verifier: one story per rule, runs, and random interleavings against an oracle.

pub(crate) mod author;
mod oracle;
mod orders;
mod rules;
mod runs;
