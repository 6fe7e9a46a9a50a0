//! CapsuleDB's sorted levels: sealed runs, chained manifests, compaction.
//!
//! ```text
//!   memtable ──Flush──▶ run ──▶ store (untrusted: ciphertext under BLAKE3 names)
//!                        │
//!                     RunMeta ──▶ Manifest n ──▶ a data record of the capsule: sealed, signed, chained
//!                        │            │
//!   Compaction ◀── Plan ─┴────────────┤
//!                                     ▼
//!   get, scan ◀──────────────────── Levels ◀── blocks: read, opened in their place, cached
//! ```
//!
//! In: sorted cells from a table (`core/table`), keys of the capsule, a store that may lose, alter,
//! exchange and roll back whatever it has. Out: runs for the store, manifests for the capsule, cells.
//!
//! Always true: nothing that a store answers is used before it opened under the key of its run, in its
//! place; a run is reached only through a manifest, and a manifest only through the one before it, so
//! levels are rolled back exactly when the capsule is; the winner among cells of one key does not
//! depend on where they lie. Nothing here reads a clock, draws randomness, opens a file or starts a
//! thread: time, entropy and the store are arguments. Calls are safe from several threads.
//!
//! **A cold get on paper.** Index and filter in memory, then one read of a 4 KiB block, one AES-GCM open
//! in place (about 1 µs), one binary search in it. Hashing the block as well would cost 4 µs more and say
//! nothing new: the tag binds capsule, generation, run, section, number and count.
//!
//! **What a store learns.** When runs are made, their lengths, which parts of which are read when, and so
//! roughly how much is written and how often the same block is missed. No key, value or count; names
//! are hashes of ciphertext.
//!
//! Not here: what entries of records mean, memtables, clocks, sessions (`core/table`); files
//! (`enclave/state`); records and heads (`core/capsule`). Written for second implementations in
//! `spec/07-levels.md`.
//!
//! # Features
//! * `testing`: adds `Memory`, a store in memory that tests can damage.
//! * `measured`: adds runs without encryption, so that a bench can tell what encryption costs.

mod blobs;
mod block;
mod builder;
mod cache;
mod cell;
mod changes;
mod check;
mod compaction;
mod error;
mod filter;
mod flush;
mod index;
mod key;
mod levels;
mod manifest;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod merge;
mod meta;
mod plan;
#[cfg(test)]
mod properties;
mod ranges;
mod run;
mod scan;
mod settings;

pub use blobs::{BlobError, Blobs, RunId};
pub use cell::{
    Cell, Content, KEY_BYTES_MAX, OwnedCell, OwnedContent, RangeDelete, VALUE_BYTES_MAX, Version,
};
pub use changes::Changes;
pub use compaction::{Compacted, Compaction, Counts, Progress, READ_AHEAD_BYTES};
pub use error::{LevelsError, Limit, Limits, Part};
pub use flush::{Flush, Flushed};
pub use levels::Levels;
pub use manifest::{
    COVERED_MAX, MANIFEST_BYTES_MAX, Manifest, ManifestError, RANGE_DELETES_MAX, RETIRED_KEPT,
    RETIRED_MAX, RUNS_MAX, Retired, SortedRun, UPPER_MAX,
};
#[cfg(any(test, feature = "testing"))]
pub use memory::Memory;
pub use meta::{RUN_BYTES_MAX, RunMeta, Summary};
pub use plan::Plan;
pub use ranges::Ranges;
pub use scan::{Page, PageLimits, Scan};
pub use settings::Settings;

/// Most writers whose cells a run holds.
pub const WRITERS_MAX: usize = 1024;
