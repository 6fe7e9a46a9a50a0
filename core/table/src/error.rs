//! What can go wrong with a table, whose move it is, and whether to try again. Keys and values never
//! appear.

use bield_capsule::{BatchFull, OpenError, WriterId};
use bield_levels::LevelsError;

use crate::{EntryError, KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// Why the table did not do it. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The bucket's name.
    #[error("a bucket's name has 1 to 64 bytes; do not retry")]
    Bucket,
    /// The key with its bucket.
    #[error("a key of {found} bytes with its bucket, the most is {KEY_BYTES_MAX}; do not retry")]
    Key {
        /// Bytes.
        found: usize,
    },
    /// The value.
    #[error(
        "a value of {found} bytes, the most is {VALUE_BYTES_MAX}: store it in parts; do not retry"
    )]
    Value {
        /// Bytes.
        found: usize,
    },
    /// The range.
    #[error("not a range of keys of one bucket; do not retry")]
    Range,
    /// The changes together.
    #[error("the changes do not become visible together, they fit no record: {0}")]
    Batch(#[from] BatchFull),
    /// The memtable is full and the one before is not flushed yet.
    #[error("memory for new entries is full until a flush ends; retry shortly")]
    Busy,
    /// The clock cannot go on.
    #[error("the writer has no clock left; open a new one with a fresh key")]
    Clock,
    /// An entry that is there is ahead of this writer's clock.
    #[error(
        "the key has a version that is ahead of this writer's clock: a writer's clock is wrong; retry when that time has come"
    )]
    Outranked,
    /// Atomic operations and linearizable reads need a lease on the key.
    #[error("this writer holds no lease on the key; take one, or ask its holder")]
    NotHeld,
    /// Another writer holds the key.
    #[error("writer {} holds the key under lease {token}: ask it", holder.short())]
    HeldBy {
        /// Who.
        holder: WriterId,
        /// Its token.
        token: u64,
    },
    /// A lease with this token, or a later one, is known.
    #[error("lease {known} is known, {found} does not follow it: ask for a new token")]
    Token {
        /// Known.
        known: u64,
        /// Asked for.
        found: u64,
    },
    /// Epochs of the bucket are not kept.
    #[error(
        "epochs of this bucket are not kept: open the table with the bucket among those of epochs"
    )]
    NoEpochs,
    /// The value is no number.
    #[error("the value is no decimal number of 64 bits; do not retry before another one is set")]
    NotANumber,
    /// The sum is no number.
    #[error("the sum does not fit 64 bits; do not retry with this delta")]
    Overflow,
    /// A watcher that is not there.
    #[error("no watcher of this number; watch again")]
    NoWatcher,
    /// Too many watchers.
    #[error("{max} watchers are there already; end one first")]
    Watchers {
        /// Most.
        max: usize,
    },
    /// What was flushed cannot be read.
    #[error(transparent)]
    Cold(#[from] LevelsError),
    /// Whoever takes entries for the next record did not take them.
    #[error("entries were not taken: {0}")]
    Handed(String),
}

/// Why a record is not in the table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A record of the chain between is not here.
    #[error("record {found} of writer {} follows none that is here: apply {need} first", writer.short())]
    Gap {
        /// Whose.
        writer: WriterId,
        /// The next.
        need: u64,
        /// The one given.
        found: u64,
    },
    /// The body does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The writer broke a rule; the record counts for nothing, at every reader alike, and the chain
    /// goes on after it.
    #[error("record {seq} of writer {} counts for nothing: {rule}", writer.short())]
    Fault {
        /// Whose.
        writer: WriterId,
        /// Which.
        seq: u64,
        /// The rule.
        rule: EntryError,
    },
    /// A lease came that changes which changes count among those that are here.
    #[error(
        "lease {token} cuts off changes that were applied: open a new table that knows the leases and apply the log again"
    )]
    Rebuild {
        /// The lease.
        token: u64,
    },
    /// Memory for new entries is full until a flush ends; nothing was applied.
    #[error("memory for new entries is full until a flush ends; retry shortly")]
    Busy,
    /// What was flushed cannot be read, which is asked for when a lease comes late.
    #[error(transparent)]
    Cold(#[from] LevelsError),
}
