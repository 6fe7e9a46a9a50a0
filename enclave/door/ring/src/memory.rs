//! What a ring needs of the memory it lies in.
//!
//! One implementation is a mapped file ([`Shared`](crate::Shared)). Tests have others: a model for `loom`, and one
//! whose other end is a liar.

use std::time::Duration;

/// One end of a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Writes frames; moves the head.
    Producer,
    /// Reads frames; moves the tail.
    Consumer,
}

/// One direction's shared memory. Both ends have one on the same bytes; every value read may be a lie.
pub trait Memory {
    /// Bytes of the ring: a power of two, at least 256. Never changes and does not come from shared memory.
    fn capacity(&self) -> usize;

    /// The index that `end` moves. What that end wrote before it published this index is visible afterwards.
    fn index(&self, end: End) -> u64;

    /// Publishes the index that `end`, this end, moves.
    fn publish(&self, end: End, index: u64);

    /// Orders what this end wrote before against what it reads after (sequentially consistent).
    fn fence(&self);

    /// Says whether `end`, this end, is about to sleep.
    fn mark(&self, end: End, sleeps: bool);

    /// Whether `end`, the other one, says that it sleeps.
    fn is_marked(&self, end: End) -> bool;

    /// Sleeps while `end`, this end, is marked: at most `limit`, possibly shorter.
    fn sleep(&self, end: End, limit: Duration);

    /// Takes away the mark of `end` and wakes whoever sleeps on it.
    fn wake(&self, end: End);

    /// Reads the head of a frame at `at`, a multiple of 64 below the capacity.
    fn head(&self, at: usize) -> [u64; 2];

    /// Writes the head of a frame at `at`, a multiple of 64 below the capacity.
    fn set_head(&self, at: usize, words: [u64; 2]);

    /// Appends a copy of `length` bytes from `at` to `into`.
    ///
    /// # Panics
    /// The bytes do not lie in the ring.
    fn read(&self, at: usize, length: usize, into: &mut Vec<u8>);

    /// Copies `bytes` to `at`.
    ///
    /// # Panics
    /// The bytes do not lie in the ring.
    fn write(&self, at: usize, bytes: &[u8]);
}
