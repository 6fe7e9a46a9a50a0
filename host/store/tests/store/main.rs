//! A replica server from outside: what it takes, what it refuses, what survives.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod checking;
mod crash;
mod gossip;
mod refusals;
mod serving;
mod support;
mod witnessing;
