//! Which state an answer came from and which it left: heads of a capsule before and after.
//!
//! ```text
//! capsule   writer a  ●──●──●──●      before = { a/2, b/0 }
//!           writer b  ●──●            after  = { a/3, b/0 }
//!                                     receipt: capsule, digest of before, digest of after
//! ```
//!
//! In: the heads that a runtime had, or that somebody kept. Out: their digest, for the receipt, and their bytes, the
//! *session token* that a user keeps and shows at the next call. Always true: heads ascend by writer, each writer
//! once; so one state has one encoding and one digest. The owner's chain is not among them: configuration is no state.
//!
//! Not here: what a holder of the state does with a token that is ahead of it (`enclave/state`).

use bield_capsule::{CapsuleName, HEADS_MAX, Head, History, WriterId};
use bield_envelope::{Digest, wire};
use minicbor::decode::{self, Decoder};
use minicbor::encode::{self, Encoder, Write};
use minicbor::{Decode, Encode};

/// Longest encoded heads, in bytes: of 8192 writers, 80 each.
pub const STATE_HEADS_BYTES_MAX: usize = 3 + HEADS_MAX * HEAD_BYTES_MAX;

/// The state that an answer came from, and the one it left (`spec/08 §3`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StateSpan {
    /// The capsule that holds the state.
    #[n(0)]
    pub capsule: CapsuleName,
    /// [`StateHeads::digest`] when the function began.
    #[n(1)]
    pub before: Digest,
    /// [`StateHeads::digest`] when it had ended; the same when it wrote nothing.
    #[n(2)]
    pub after: Digest,
}

/// Where every writer's chain of a state ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateHeads(Vec<Head>);

impl StateHeads {
    /// Takes heads in any order; `None` when a writer comes twice or there are more than [`HEADS_MAX`].
    #[must_use]
    pub fn new(mut heads: Vec<Head>) -> Option<Self> {
        heads.sort_unstable_by_key(|head| head.writer);
        Self::ascending(heads)
    }

    /// Reads a session token.
    ///
    /// # Errors
    /// Not the one encoding of heads.
    pub fn decode(bytes: &[u8]) -> Result<Self, wire::WireError> {
        wire::decode(bytes, STATE_HEADS_BYTES_MAX)
    }

    /// The session token.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// What a receipt says in their place.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(HEADS_DOMAIN, &[&self.encode()])
    }

    /// The heads, ascending by writer.
    #[must_use]
    pub fn heads(&self) -> &[Head] {
        &self.0
    }

    /// The head of this writer's chain.
    #[must_use]
    pub fn head_of(&self, writer: &WriterId) -> Option<&Head> {
        let at = self
            .0
            .binary_search_by(|head| head.writer.cmp(writer))
            .ok()?;
        self.0.get(at)
    }

    /// Whether this state comes after `seen`, or is the same, as far as heads alone can tell.
    #[must_use]
    pub fn reaches(&self, seen: &Self) -> Reaches {
        let behind = |seen: &&Head| {
            let own = self.head_of(&seen.writer);
            own.is_some_and(|own| {
                own.seq < seen.seq || (own.seq == seen.seq && own.hash != seen.hash)
            })
        };
        if let Some(head) = seen.0.iter().find(behind) {
            return Reaches::Behind(*head);
        }
        let unknown = |seen: &&Head| self.head_of(&seen.writer).is_none();
        seen.0
            .iter()
            .find(unknown)
            .map_or(Reaches::All, |head| Reaches::Unknown(*head))
    }

    /// The heads that are not in `log`.
    pub(crate) fn outside<'a>(&'a self, log: &'a dyn History) -> impl Iterator<Item = &'a Head> {
        let is_outside = |head: &&Head| log.hash_at(&head.writer, head.seq) != Some(head.hash);
        self.0.iter().filter(is_outside)
    }

    /// The heads whose digest is `before` among those from which one writer's chain grew to these. A state has one
    /// writer at a time, so no other can lie before it in one call.
    pub(crate) fn grown_from(&self, before: &Digest, log: &dyn History) -> Option<Self> {
        if self.digest() == *before {
            return Some(self.clone());
        }
        for at in 0..self.0.len() {
            let head = &self.0[at];
            if log.hash_at(&head.writer, head.seq) != Some(head.hash) {
                continue;
            }
            let mut earlier = self.clone();
            for seq in (0..self.0[at].seq).rev() {
                let Some(hash) = log.hash_at(&self.0[at].writer, seq) else {
                    break;
                };
                (earlier.0[at].seq, earlier.0[at].hash) = (seq, hash);
                if earlier.digest() == *before {
                    return Some(earlier);
                }
            }
            // The writer began its chain in this very call.
            earlier.0.remove(at);
            if earlier.digest() == *before {
                return Some(earlier);
            }
        }
        None
    }

    fn ascending(heads: Vec<Head>) -> Option<Self> {
        let ascend = heads.is_sorted_by(|a, b| a.writer < b.writer);
        (ascend && heads.len() <= HEADS_MAX).then_some(Self(heads))
    }
}

/// How a state stands to one that was seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaches {
    /// It has everything that was seen.
    All,
    /// Of this writer it has less, or another record in that place.
    Behind(Head),
    /// It does not name this writer: a holder leaves writers out whose records its own chain builds on. Only a log
    /// tells.
    Unknown(Head),
}

/// `[head, …]`, ascending by writer.
impl<C> Encode<C> for StateHeads {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.encode_with(&self.0, context)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for StateHeads {
    fn decode(d: &mut Decoder<'b>, context: &mut C) -> Result<Self, decode::Error> {
        let heads = wire::at_most::<HEADS_MAX, _, _>(d, context)?;
        Self::ascending(heads).ok_or_else(|| decode::Error::message("heads that do not ascend"))
    }
}

const HEADS_DOMAIN: &str = "bield state heads v1";
/// Head of an array, two byte strings of 32, a number.
const HEAD_BYTES_MAX: usize = 1 + 34 + 9 + 34;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn head(writer: u8, seq: u64) -> Head {
        Head {
            writer: WriterId::from_bytes([writer; 32]),
            seq,
            hash: Digest::of("test", &[&[writer], &seq.to_be_bytes()]),
        }
    }

    fn heads(of: &[(u8, u64)]) -> StateHeads {
        let heads = of.iter().map(|(writer, seq)| head(*writer, *seq));
        StateHeads::new(heads.collect()).unwrap()
    }

    /// Everything that the test's writers ever wrote, up to a position.
    struct Log(u64);

    impl History for Log {
        fn hash_at(&self, writer: &WriterId, seq: u64) -> Option<Digest> {
            (seq <= self.0).then(|| head(writer.as_bytes()[0], seq).hash)
        }
    }

    #[test]
    fn one_state_has_one_token_and_one_digest() {
        let one = heads(&[(2, 7), (1, u64::MAX)]);
        assert_eq!(one, heads(&[(1, u64::MAX), (2, 7)]));
        assert_eq!(StateHeads::decode(&one.encode()), Ok(one.clone()));
        assert_ne!(one.digest(), heads(&[(1, u64::MAX), (2, 8)]).digest());
        let backwards = wire::encode(&vec![head(2, 7), head(1, 1)]);
        let twice = wire::encode(&vec![head(2, 7), head(2, 7)]);
        for bytes in [backwards, twice] {
            assert!(StateHeads::decode(&bytes).is_err());
        }
        assert_eq!(StateHeads::new(vec![head(1, 1), head(1, 2)]), None);
        let full = (0..HEADS_MAX as u64 + 1).map(|n| Head {
            writer: WriterId::from(Digest::of("writer", &[&n.to_be_bytes()])),
            ..head(1, u64::MAX)
        });
        let mut full: Vec<_> = full.collect();
        assert_eq!(StateHeads::new(full.clone()), None);
        full.pop();
        let full = StateHeads::new(full).unwrap();
        assert_eq!(full.encode().len(), STATE_HEADS_BYTES_MAX);
        assert_eq!(StateHeads::decode(&full.encode()), Ok(full));
    }

    #[test]
    fn another_record_in_the_same_place_is_not_reached() {
        let own = heads(&[(1, 5)]);
        let mut other = own.clone();
        other.0[0].hash = Digest::of("test", &[]);
        assert_eq!(own.reaches(&other), Reaches::Behind(other.0[0]));
    }

    #[test]
    fn the_state_before_is_found_in_the_log_and_nowhere_else() {
        let after = heads(&[(1, 3), (2, 9), (3, 2)]);
        let found = |before: &[(u8, u64)]| after.grown_from(&heads(before).digest(), &Log(100));
        for before in [
            &[(1, 3), (2, 9), (3, 2)][..],
            &[(1, 3), (2, 9), (3, 0)],
            &[(1, 3), (2, 9)],
            &[(1, 3), (2, 0), (3, 2)],
        ] {
            assert_eq!(found(before), Some(heads(before)));
        }
        for never in [&[(1, 3), (2, 10), (3, 2)][..], &[(1, 2), (2, 8), (3, 2)]] {
            assert_eq!(found(never), None);
        }
        let cut = after.grown_from(&heads(&[(1, 3), (2, 8), (3, 2)]).digest(), &Log(7));
        assert_eq!(cut, None, "of what the log lacks nothing is known");
    }

    proptest! {
        /// Against the rule said with maps.
        #[test]
        fn a_state_reaches_what_is_behind_it(
            own in prop::collection::btree_map(0..4u8, 0..4u64, 0..4),
            seen in prop::collection::btree_map(0..4u8, 0..4u64, 0..4),
        ) {
            let of = |map: &BTreeMap<u8, u64>| {
                heads(&map.iter().map(|(writer, seq)| (*writer, *seq)).collect::<Vec<_>>())
            };
            let behind = seen
                .iter()
                .any(|(writer, seq)| own.get(writer).is_some_and(|own| own < seq));
            let unknown = seen.keys().any(|writer| !own.contains_key(writer));
            let told = match of(&own).reaches(&of(&seen)) {
                Reaches::All => (false, false),
                Reaches::Unknown(_) => (false, true),
                Reaches::Behind(_) => (true, unknown),
            };
            prop_assert_eq!(told, (behind, unknown));
        }
    }
}
