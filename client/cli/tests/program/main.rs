//! The program as it is typed: results, sentences, exit codes. Nothing here needs a running system.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod functions;
mod keys;
mod offline;
mod receipts;
mod stage;
