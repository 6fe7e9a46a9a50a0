//! Who may ask what: a message of a session becomes a typed question, or a refusal.
//!
//! ```text
//! Request + Conversation ──turn──▶ Turn::Ask       through the sequencer: checked, logged, then answered
//!                                  Turn::Read      answered from the state, when what it shows is durable
//!                                  Turn::Audit …   answered by the program, which has log and counters
//! ```
//!
//! Always true: whatever is signed was verified before it leaves here, by type; a command counts once, in the
//! session it was signed for, in its place; only a peer whose evidence was appraised asks for what runtimes
//! get. Runs on the session's own thread: signatures are checked in parallel.
//!
//! Left to others: whether the state allows it (`state`), order and durability (the program).
//!
//! On paper: one to three signature checks an order, 50 µs each; nothing else.

#[cfg(any(test, feature = "testing"))]
mod desk;
mod read;
mod refused;
mod turn;

#[cfg(any(test, feature = "testing"))]
pub use desk::Desk;
pub use read::{Read, read};
pub use refused::RefusedLeases;
pub use turn::{Conversation, SPECS_BYTES_MAX, Turn, turn};

#[cfg(test)]
pub(crate) mod cast;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod writer_tests;
