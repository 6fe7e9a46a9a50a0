//! Functions as their authors write them: built, and called on buckets in memory.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod begun;
mod checked_in;
mod examples;
mod kept;
mod native;
mod oracle;
mod python;
mod support;
