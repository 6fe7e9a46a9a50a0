//! The worker as platforms see it: its program, over HTTP, with a stand-in for the runtime.

#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod action;
mod container;
mod inference;
mod support;
