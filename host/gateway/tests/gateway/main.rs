//! The gateway as a process, with a stand-in for the enclave programs, over real sockets.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod calls;
mod keys;
mod openwhisk;
mod operation;
mod packages;
mod pool;
mod remote;
mod support;
