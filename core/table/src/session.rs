//! What a caller has seen: read-your-writes and monotonic reads across workers (`spec/07 §7`).
//!
//! In: heads that answers came from. Out: whether a state has all of it, and if not how much it lacks.
//! Always true: tokens only grow; one encoding each; a token is no secret and no permission, whoever
//! makes one up gets a refusal.

use std::collections::BTreeMap;

use bield_capsule::{Head, History, WriterId};
use bield_envelope::wire::{self, WireError};
use minicbor::{Decode, Encode};

/// Most writers a token names.
pub const SESSION_HEADS_MAX: usize = 1024;

/// Longest token in bytes.
pub const SESSION_BYTES_MAX: usize = SESSION_HEADS_MAX * 78 + 8;

/// Heads that were seen, one a writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session(BTreeMap<WriterId, Head>);

/// Whether a state has what a session has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All of it.
    Covered,
    /// Not all: of each writer so many records are lacking.
    Behind {
        /// Records lacking, by writer, ascending.
        writers: Vec<(WriterId, u64)>,
        /// In total.
        records: u64,
    },
    /// Another record is where the session saw one: one of them is of a fork.
    Other {
        /// What the session saw.
        seen: Head,
    },
}

impl Session {
    /// A session that has seen these heads.
    #[must_use]
    pub fn new(heads: impl IntoIterator<Item = Head>) -> Self {
        let mut session = Self::default();
        session.see(heads);
        session
    }

    /// Takes in what an answer came from.
    pub fn see(&mut self, heads: impl IntoIterator<Item = Head>) {
        for head in heads {
            let seen = self.0.entry(head.writer).or_insert(head);
            if head.seq > seen.seq {
                *seen = head;
            }
        }
    }

    /// What was seen, ascending by writer.
    pub fn heads(&self) -> impl ExactSizeIterator<Item = Head> {
        self.0.values().copied()
    }

    /// Whether all that `other` has seen was seen here, by positions alone.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.values().all(|head| {
            let own = self.0.get(&head.writer);
            own.is_some_and(|own| own.seq > head.seq || own == head)
        })
    }

    /// Compares with a state: its heads, and hashes below them where it has them.
    #[must_use]
    pub fn standing(&self, state: &Self, history: &dyn History) -> Standing {
        let mut writers = Vec::new();
        for seen in self.0.values() {
            let have = state.0.get(&seen.writer);
            let known = match have {
                Some(have) if have.seq == seen.seq => Some(have.hash),
                Some(have) if have.seq > seen.seq => history.hash_at(&seen.writer, seen.seq),
                _ => {
                    let next = have.map_or(0, |have| have.seq + 1);
                    writers.push((seen.writer, (seen.seq - next).saturating_add(1)));
                    continue;
                }
            };
            if known.is_some_and(|known| known != seen.hash) {
                return Standing::Other { seen: *seen };
            }
        }
        if writers.is_empty() {
            return Standing::Covered;
        }
        let lacking = writers.iter().map(|(_, records)| *records);
        let records = lacking.fold(0, u64::saturating_add);
        Standing::Behind { writers, records }
    }

    /// The token: CBOR, an array of heads ascending by writer. None: it has seen more writers than a
    /// token names, and a token that leaves some out would promise less than was seen.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        if self.0.len() > SESSION_HEADS_MAX {
            return None;
        }
        let heads = self.heads().collect();
        Some(wire::encode(&Token { heads }))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// Anything but the one encoding of heads that ascend by writer.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let token: Token = wire::decode(bytes, SESSION_BYTES_MAX)?;
        if !token.heads.is_sorted_by(|a, b| a.writer < b.writer) {
            return Err(WireError::NotCanonical { what: "Session" });
        }
        Ok(Self::new(token.heads))
    }
}

#[derive(Encode, Decode)]
#[cbor(transparent)]
struct Token {
    #[cbor(n(0), decode_with = "wire::at_most::<SESSION_HEADS_MAX, _, _>")]
    heads: Vec<Head>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bield_capsule::NoHistory;
    use bield_envelope::Digest;

    fn head(writer: u8, seq: u64, hash: u8) -> Head {
        Head {
            writer: WriterId::from_bytes([writer; 32]),
            seq,
            hash: Digest::from_bytes([hash; 32]),
        }
    }

    #[test]
    fn a_token_has_one_encoding() {
        let session = Session::new([head(2, u64::MAX, 1), head(1, 0, 2)]);
        let bytes = session.encode().unwrap();
        assert_eq!(Session::decode(&bytes), Ok(session));
        for at in 0..bytes.len() {
            assert!(Session::decode(&bytes[..at]).is_err());
            for bit in 0..8 {
                let mut other = bytes.clone();
                other[at] ^= 1 << bit;
                if let Ok(session) = Session::decode(&other) {
                    assert_eq!(session.encode(), Some(other));
                }
            }
        }
        let twice = wire::encode(&Token {
            heads: vec![head(1, 1, 1); 2],
        });
        assert!(Session::decode(&twice).is_err());
        let most = Session::new((0..2000_u16).map(|n| {
            let mut writer = [0xff; 32];
            writer[..2].copy_from_slice(&n.to_be_bytes());
            Head {
                writer: WriterId::from_bytes(writer),
                ..head(0, u64::MAX, 9)
            }
        }));
        assert_eq!(most.encode(), None);
        let most = Session::new(most.heads().take(SESSION_HEADS_MAX));
        let bytes = most.encode().unwrap();
        assert!(bytes.len() <= SESSION_BYTES_MAX);
        assert_eq!(Session::decode(&bytes), Ok(most));
    }

    #[test]
    fn a_state_that_lacks_records_is_told_how_many() {
        let state = Session::new([head(1, 5, 5), head(2, 7, 7)]);
        let seen =
            |heads: &[Head]| Session::new(heads.iter().copied()).standing(&state, &NoHistory);
        assert_eq!(seen(&[head(1, 5, 5), head(2, 3, 3)]), Standing::Covered);
        let Standing::Behind { writers, records } = seen(&[head(1, 9, 9), head(3, 1, 1)]) else {
            panic!("it is behind");
        };
        assert_eq!((records, writers.len()), (6, 2));
        assert_eq!((writers[0].1, writers[1].1), (4, 2));
        assert_eq!(
            seen(&[head(1, 5, 6)]),
            Standing::Other {
                seen: head(1, 5, 6)
            }
        );
        assert_eq!(
            seen(&[head(4, u64::MAX, 6)]),
            Standing::Behind {
                writers: vec![(head(4, 0, 0).writer, u64::MAX)],
                records: u64::MAX,
            }
        );
    }

    #[test]
    fn a_session_only_grows() {
        let mut session = Session::new([head(1, 5, 5)]);
        let before = session.clone();
        session.see([head(1, 4, 4), head(2, 0, 0)]);
        assert!(session.covers(&before) && !before.covers(&session));
        assert_eq!(session.heads().next(), Some(head(1, 5, 5)));
    }
}
