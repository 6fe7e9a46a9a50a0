//! Key-value semantics over a capsule's records.
//!
//! ```text
//!  put, delete, swap, increment          records of other writers, and own ones after a restart
//!        │ clock, lease                              │ Verifier: Applied
//!        ▼                                           ▼
//!  entries ──▶ a data record (the caller seals) ──▶ Table::apply ──▶ memtable ──▶ get, page, snapshot, look
//!                                                                       │ freeze, flushed      ▲
//!                                                                       ▼                      │
//!                                                                  levels (`core/levels`) ─────┘
//! ```
//!
//! In: own changes, and records that a verifier applied (nothing else opens); the present and what was
//! flushed as arguments. Out: values, entries for the next record, cells for runs.
//!
//! Always true: what a table shows follows from the set of records it applied, not from the order in
//! which chains were mixed, nor from repetitions; of two writes of a key the one with the larger
//! version (hybrid logical clock, then writer) wins, everywhere; the changes of one record become
//! visible together; a change under a lease counts for everybody or for nobody. Nothing here reads a
//! clock, draws randomness, does I/O but through [`Cold`], or starts a thread; calls are safe from
//! several threads. Keys and values in memory are wiped when they go.
//!
//! **Cost on paper.** Hot get: one read lock on the view and one on a shard (about 15 ns each), one
//! search in a sixteenth of the keys, no copy with [`Table::read`]: less than twice one search in a
//! plain `BTreeMap` (0.18 µs among 10⁵ keys), where a Redis GET over loopback takes 10 to 13 µs. Put:
//! one uncontended lock, encoding and three copies of key and value (entry, record, memtable), one
//! search, one allocation for the value and one for a key of more than 38 bytes: well under 1 µs. A
//! write looks at nothing cold; compare-and-swap and increment read the key first. A get whose clock
//! is newer than everything flushed never looks further; else it costs what the levels cost.
//! `--example rates` prints what this machine does.
//!
//! **What leaks.** Keys, values, buckets, tokens and kinds of change stand inside sealed bodies, runs
//! and cursors. Whoever stores records sees their number, times, lengths, counts of entries, who wrote
//! and when flushes come: so how much is written, how long changes are together, and, from which blocks are read,
//! how often something is asked for that is not in memory. Equal values do not look alike.
//!
//! Not here: sealing, chains and files (`enclave/state`), runs and compaction (`core/levels`), who
//! grants leases (the key service), what guests see (`enclave/runtime`). Written for second
//! implementations in `spec/07-table.md`.
//!
//! ```
//! use std::sync::Arc;
//! use bield_capsule::{Batch, WriterId};
//! use bield_envelope::Time;
//! use bield_table::{Consistency, Leases, NoCold, Op, Options, Table, full_key};
//!
//! let writer = WriterId::from_bytes([7; 32]);
//! let table = Table::open(writer, Options::default(), Arc::new(NoCold), &[], Leases::default())?;
//! let (key, now) = (full_key("cart", b"apples")?, Time::from_millis(1_800_000_000_000));
//! let mut next_record = Batch::new();
//! let put = Op::Put { key: &key, value: b"3", expires: None };
//! table.write(&[put], now, |entries| next_record.append(entries))?;
//! let found = table.get(&key, Consistency::Eventual, now)?;
//! assert_eq!(&*found.ok_or("nothing there")?.value, b"3");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod clock;
mod cold;
mod cut;
mod entry;
mod error;
mod key;
mod lease;
mod memtable;
mod session;
mod table;
mod watch;

pub use bield_levels::{KEY_BYTES_MAX, VALUE_BYTES_MAX, Version};
pub use clock::{CLOCK_AHEAD, HybridClock};
pub use cold::{Cold, Most, NoCold, Part};
pub use entry::{
    Action, CONTROL, Change, Condition, EntryError, FOLLOWS_MAX, Followed, Lease, TableEntry,
};
pub use error::{ApplyError, TableError};
pub use key::{BUCKET_BYTES_MAX, bucket_range, full_key, split_key};
pub use lease::Leases;
pub use session::{SESSION_BYTES_MAX, SESSION_HEADS_MAX, Session, Standing};
pub use table::{
    Changed, Consistency, Found, Frozen, Handle, Keys, LEASE_RANGE, Looked, Op, Options, Page,
    PageLimits, Snapshot, Swapped, Table, Taken, Written, lease_holder,
};
pub use watch::{WATCHED_KEYS_MAX, WATCHERS_MAX, WatcherId};
