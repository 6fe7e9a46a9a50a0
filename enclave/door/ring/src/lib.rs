//! Two byte rings in memory that a host and an enclave program share, one for each direction.
//!
//! ```text
//!  Producer ─ try_push ─▶ ┌ head │ tail │ who is parked ┐            ┌ peek ─▶ Consumer
//!           ─ publish ──▶ │ frame │ frame │ …   │ wrap   │ ─ copied ─▶│ take into private memory
//!                         └ len kind id payload, 64-aligned ┘        └ skip
//! ```
//!
//! Goes in: payloads of at most a quarter of the ring, each with a kind and a call's number ([`Head`]); longer
//! messages go in parts ([`Sender`]). Comes out: the same, in order, each once.
//!
//! Always true: the peer is the adversary. Each end keeps its own index in private memory; the peer's is read once
//! and must lie between what it was and what can be, else this end is [`Poisoned`] for good. A frame's head is copied before
//! it is judged, its payload before anybody looks at it; no reference into shared memory leaves this crate.
//! A full ring says so ([`PushError::Full`]) and drops nothing. Who waits spins for about two wake-ups
//! ([`Spin`]), then sleeps on a word in the shared memory, for a limited time: a peer that never wakes costs that time.
//!
//! Left to others: what kinds and payloads mean beyond their order (`enclave/door`, `host/launcher`), who is
//! allowed to have the memory, and what is done with a peer that lied.
//!
//! On paper: a message of 64 bytes is 128 bytes of the ring, one copy in, one copy out, no system call while both
//! ends are awake; publishing a batch costs one fence (20 ns), and one `futex` call when the peer sleeps.

mod consumer;
mod mapping;
mod memory;
mod message;
mod producer;
mod spin;

pub use consumer::{Consumer, Frame, Waker};
pub use mapping::{MapError, RING_BYTES, Shared, create, open};
pub use memory::{End, Memory};
pub use message::{Kind, PARK_MAX, SendError, Sender};
pub use producer::{Producer, PushError};
pub use spin::Spin;

/// Frames begin at multiples of this many bytes: a cache line, and room for a head wherever a frame ends.
pub const FRAME_ALIGN: usize = 64;
/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 16;
/// The kind of what fills the end of a ring when a frame does not fit there.
const WRAP: u32 = u32::MAX;

/// What stands before a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the payload.
    pub length: u32,
    /// What it is; any number but the largest.
    pub kind: u32,
    /// The call it belongs to.
    pub id: u64,
}

impl Head {
    const fn to_words(self) -> [u64; 2] {
        [self.length as u64 | (self.kind as u64) << 32, self.id]
    }

    const fn from_words([first, id]: [u64; 2]) -> Head {
        Head {
            length: (first & 0xffff_ffff) as u32,
            kind: (first >> 32) as u32,
            id,
        }
    }
}

/// The peer wrote what an honest one never does, or the memory is broken: nothing of it can be believed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other end of the ring broke its rules; end it and start it again")]
pub struct Poisoned;

/// The longest payload of one frame in a ring of so many bytes. A frame and what it may waste at the end of the ring
/// are then at most half of it, so that a ring which is nearly empty takes any frame.
#[must_use]
pub const fn payload_max(capacity: usize) -> usize {
    capacity / 4 - HEAD_BYTES
}

/// Bytes that a frame with this payload takes.
const fn frame_bytes(payload: usize) -> usize {
    (HEAD_BYTES + payload).next_multiple_of(FRAME_ALIGN)
}

/// Whether a ring may have so many bytes.
const fn is_capacity(bytes: usize) -> bool {
    bytes.is_power_of_two() && bytes >= 4 * FRAME_ALIGN
}
