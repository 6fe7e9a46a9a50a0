//! The SDK against a key service and a gateway on real sockets, in software TEEs, which lie in one place
//! at a time.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod calls;
mod freshness;
mod functions;
mod support;
