//! The attested key service: who may open what, from which code.
//!
//! ```text
//!  owner  ──Command: package, grant, revoke …──▶ ┐            ┌─▶ state ─▶ entries ─▶ one record ─▶ log ─▶ witnesses
//!  user   ──KeyConfiguration, Freshness────────▶ │ sessions ──┤ sequencer          sealed, signed   (group)
//!  runtime──Lease, Return, Certify─────────────▶ ┘            └─▶ reads
//!           all inside attested sessions           answers leave when their record counts
//! ```
//!
//! Always true: nothing is acknowledged before it counts: durable, cosigned when there are witnesses, on a
//! majority when there are members; a command counts once, in the session it was signed for, and only says
//! what its signer may say; a key leaves only towards code whose fresh evidence was appraised and that the
//! package's owner granted; a state that was set back, cut or copied is not served from once anybody who
//! saw more asks; one session cannot harm another.
//!
//! | module | |
//! |---|---|
//! | [`state`] | what the service knows, as a machine of entries; pure |
//! | [`service`] | a message of a session becomes a typed question |
//! | `sequencer` | one thread gives everything that changes its order, and answers when it counts |
//! | `sessions`, `limits` | threads, time, bytes, turns, allowances |
//! | `freshness`, `witnesses` | what others remember of the log |
//! | `recovery` | shares of the root |
//! | `cluster` | several instances with one log |
//! | `program`, `files` | door, TEE, start and end; the host's files |
//!
//! Left to others: the log's format and its files (`bield-ledger`), agreement (`bield-group`), sessions
//! (`bield-session`), what a grant admits (`bield-grant`).
//!
//! On paper: a lease is one attested handshake (3 round trips, one quote), one round trip, and its share of a
//! durable write.
//!
//! # Features
//! * `testing`: adds [`testing`], the whole service in one process without a TEE or a door, for tests and benches.

pub mod cluster;
mod files;
mod freshness;
mod limits;
mod metrics;
mod program;
mod recovery;
mod sequencer;
pub mod service;
mod sessions;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod witnesses;

pub use program::{KeyService, ProgramError, run};
pub use recovery::{Sharing, combine};
