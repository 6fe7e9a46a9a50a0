//! Who writes a function's state, and the newest heads of it that nobody may go behind.
//!
//! ```text
//! runtime ── Hold ──▶ token, anchored heads ──▶ opens its files: they must reach those heads ──▶ serves
//!         ── Anchor(token, heads) ──▶ kept; the hold lives on
//!         ── Release(token, heads) ──▶ kept; the next Hold waits for nobody
//! another ── Hold, once the first has ended ──▶ a larger token; the first one's anchors are refused from then on
//! ```
//!
//! Always true (of a service that keeps spec/09 §10): of one state, one token is the newest, and only its holder
//! anchors; an anchored head of a writer is only ever replaced by a later one of the same writer, or left out by
//! the holder because the holder's own anchored head covers it. So a host that puts yesterday's files back is found
//! out by whoever holds the state next.
//!
//! Not here: what a state holds (`core/table`), how its files are verified (`core/capsule`), who may ask (a grant).

use bield_capsule::{CapsuleName, Head, WriterId};
use bield_envelope::{Digest, Time, wire};
use minicbor::{Decode, Encode};

/// What a runtime says of one function's state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StateRequest {
    /// The package of the function, granted to the code that asks.
    #[n(0)]
    pub package: Digest,
    /// The capsule that its state is.
    #[n(1)]
    pub capsule: CapsuleName,
    /// The writer that the runtime writes as: who holds.
    #[n(2)]
    pub writer: WriterId,
    /// What it does.
    #[n(3)]
    pub act: StateAct,
}

/// What a runtime does with a state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[non_exhaustive]
pub enum StateAct {
    /// Holds it: anew, or for longer under the same token when nobody else held it since.
    #[n(0)]
    Hold,
    /// Anchors heads, and holds it for longer.
    #[n(1)]
    Anchor(#[n(0)] Anchors),
    /// Anchors heads, and lets go.
    #[n(2)]
    Release(#[n(0)] Anchors),
}

/// Heads that a holder has the service keep. Those of writers it does not name stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Anchors {
    /// The token of its hold.
    #[n(0)]
    pub token: u64,
    /// Heads that are verified and durable on the host's side; each writer once.
    #[cbor(n(1), decode_with = "wire::at_most::<STATE_HEADS_MAX, _, _>")]
    pub heads: Vec<Head>,
    /// Writers whose heads need not be kept any more: from the head of the holder's own writer, anchored here or
    /// before, each of theirs is reached by predecessors and parents.
    #[cbor(n(2), decode_with = "wire::at_most::<STATE_HEADS_MAX, _, _>")]
    pub covered: Vec<WriterId>,
}

/// A state as the key service knows it, said to its holder.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HeldState {
    /// Grows with each new holder.
    #[n(0)]
    pub token: u64,
    /// End of the hold, by the service's clock. A holder counts [`STATE_HOLD_SECS`] from before it asked, by a clock
    /// of its own.
    #[n(1)]
    pub until: Time,
    /// All heads that are anchored, ascending by writer.
    #[cbor(n(2), decode_with = "wire::at_most::<STATE_HEADS_MAX, _, _>")]
    pub heads: Vec<Head>,
}

/// How long a state is held after each act of its holder, in seconds: what a function waits at most when its runtime
/// died, and three times what a holder should let pass between two acts.
pub const STATE_HOLD_SECS: u64 = 30;

/// The most writers of one state whose heads are anchored at a time; a holder names those that it covers.
pub const STATE_HEADS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(writer: u8, seq: u64) -> Head {
        Head {
            writer: WriterId::from_bytes([writer; 32]),
            seq,
            hash: Digest::from_bytes([seq as u8; 32]),
        }
    }

    #[test]
    fn more_heads_than_are_kept_are_no_message() {
        let anchors = |count: u8| Anchors {
            token: 1,
            heads: (0..count).map(|writer| head(writer, 1)).collect(),
            covered: Vec::new(),
        };
        let read = |anchors: &Anchors| wire::decode::<Anchors>(&wire::encode(anchors), 1 << 16);
        let most = anchors(STATE_HEADS_MAX as u8);
        assert_eq!(read(&most).unwrap(), most);
        assert!(read(&anchors(STATE_HEADS_MAX as u8 + 1)).is_err());
    }
}
