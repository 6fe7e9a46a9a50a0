//! A function's state inside the enclave: a capsule's log and sorted levels on the host's untrusted files.
//!
//! ```text
//!                inside the TEE                                   │ the host's directory
//! requests ─▶ table (memory) ─▶ Writing: seal, sign once ────────▶│ …-log-…   segments: chains of holders
//!    ▲              │ over its budget                             │
//!    │              └─▶ flush, compaction ─────────────────────────▶│ …         runs, named by their hash
//!    └──────────── levels ◀── checkpoint, in the log ◀── open ────│
//!
//! key service: who holds the state (token), the newest anchored heads ─▶ Opening
//! ```
//!
//! In: the capsule's metadata, configuration and keys from a function's package; the hold and the anchored
//! heads from the key service; files of a host that may read, drop, cut, reorder, alter, mix and give back
//! older ones. Out: a state that reads and writes, cuts before and after each request for receipts, and heads
//! to anchor.
//!
//! Always true: nothing is used before it was verified; all records form one line of holders, each of which
//! found the end of the one before; files that do not reach what is anchored serve nothing and say how far
//! behind they are ([`StateError::RolledBack`]); a caller who has seen more than the state has is told so
//! ([`StateError::Behind`]); what was acknowledged at a durability is there after a crash of that kind; memory
//! is bounded, and a commit waits for it rather than fail.
//!
//! What stays open: between two anchors the host can put back files that hold every anchored head and not
//! what came after; callers with a session token notice, others do not. A host that stops a holder's clock
//! keeps it from noticing that its hold is over: its writes then do not count, and whoever was told of them
//! notices by their token.
//!
//! **The log is dropped once levels hold it.** Once the key service knows of a checkpoint the segments before it are
//! removed; what is left verifies by itself, since each segment begins with the chain's open record and a signed head. So a
//! start reads what was written since the last flush, and nothing of the rest but what requests ask for. Whoever
//! wants the whole log keeps it elsewhere (replicas, `host/store`).
//!
//! Not here: what entries mean (`core/table`), runs (`core/levels`), the conversation with the key service
//! and what a guest sees (`enclave/runtime`).

mod clocks;
mod cold;
mod control;
mod disk;
mod earlier;
mod error;
mod history;
mod log;
mod names;
mod open;
mod removal;
mod request;
mod runs;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;
mod writing;

pub use bield_table::{Consistency, Found, Handle, Keys, Page, PageLimits, TableError};
pub use clocks::Clocks;
pub use error::{Flawed, Lacking, StateError};
pub use log::append::Author;
pub use open::Opening;
pub use request::{Bucket, Change, Cut, Request, SwapOutcome};
pub use settings::Settings;
pub use state::{Anchoring, State};
pub use writing::{Durability, Entropy};
