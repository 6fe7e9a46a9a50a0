//! What an owner can change, in the one accepted encoding (`spec/06 §5`).

use bield_envelope::{Digest, Principal, wire};
use minicbor::{Decode, Encode};

use crate::{ConfigError, Head, PublicKey, WriterId};

/// Most changes in one config record.
pub const CHANGES_MAX: usize = 256;

/// Longest body of a config record in bytes.
pub const CHANGES_BYTES_MAX: usize = 65_536;

/// Most writers one `uncertify` keeps.
pub const KEEP_MAX: usize = 1024;

/// Most measurements one `codes` lists.
pub const CODES_MAX: usize = 64;

/// One change of a capsule's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// Certificates of this principal admit writers.
    #[n(0)]
    Certify(#[n(0)] Principal),
    /// Its certificates count no more, for ever; of the writers it certified only `keep` stay.
    #[n(1)]
    Uncertify {
        /// Who certifies no more.
        #[n(0)]
        principal: Principal,
        /// Who stays; ascending, each once.
        #[cbor(n(1), decode_with = "wire::at_most::<KEEP_MAX, _, _>")]
        keep: Vec<WriterId>,
    },
    /// A writer without a certificate: its public key. [`Change::admit`] makes it.
    #[n(2)]
    Admit(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Records of this writer after `last` are refused, and so is another one in its place; all of
    /// them when there is no `last`.
    #[n(3)]
    Revoke {
        /// Whose.
        #[n(0)]
        writer: WriterId,
        /// The last record that stays.
        #[cbor(
            n(1),
            encode_with = "encode_last",
            decode_with = "decode_last",
            is_nil = "never"
        )]
        last: Option<Last>,
    },
    /// From here on records are sealed under this generation.
    #[n(4)]
    Generation {
        /// One more than the one before.
        #[n(0)]
        number: u32,
        /// Fixes the generation's key.
        #[n(1)]
        commitment: Digest,
    },
    /// The key of this generation is destroyed.
    #[n(5)]
    Erase(#[n(0)] u32),
    /// Acknowledgements of this principal count.
    #[n(6)]
    Replica {
        /// Who acknowledges.
        #[n(0)]
        principal: Principal,
        /// Where it is reached.
        #[n(1)]
        address: String,
    },
    /// They count no more.
    #[n(7)]
    Unreplica(#[n(0)] Principal),
    /// How many make a record durable.
    #[n(8)]
    Quorum {
        /// Replicas, at least 1.
        #[n(0)]
        replicas: u8,
        /// Witnesses of each of these replicas' logs.
        #[n(1)]
        witnesses: u8,
    },
    /// Cosignatures by this key count: `name+hash+key`, as C2SP signed notes write it.
    #[n(9)]
    Witness(#[n(0)] String),
    /// Cosignatures under this name count no more.
    #[n(10)]
    Unwitness(#[n(0)] String),
    /// Replicas may refuse to hold more bytes than this.
    #[n(11)]
    Quota(#[n(0)] u64),
    /// From all certificates of this principal only those with one of these codes count.
    #[n(12)]
    Codes {
        /// Whose certificates.
        #[n(0)]
        principal: Principal,
        /// Encoded measurements; ascending, each once.
        #[cbor(n(1), encode_with = "encode_codes", decode_with = "decode_codes")]
        codes: Vec<Vec<u8>>,
    },
}

/// The last record of a chain that stays: named by hash, because a writer that forked its chain has two
/// for one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Last {
    /// Position.
    #[n(0)]
    pub seq: u64,
    /// Header hash there.
    #[n(1)]
    pub hash: Digest,
}

impl From<Head> for Last {
    fn from(head: Head) -> Self {
        Self {
            seq: head.seq,
            hash: head.hash,
        }
    }
}

impl Change {
    /// Admits the holder of this key.
    #[must_use]
    pub fn admit(key: &PublicKey) -> Self {
        Self::Admit(key.as_bytes().to_vec())
    }
}

/// The body of a config record with these changes.
#[must_use]
pub fn encode_changes(changes: &[Change]) -> Vec<u8> {
    wire::encode(&Changes(changes.to_vec()))
}

/// Reads the body of a config record whose header counts `count` changes.
///
/// # Errors
/// Not the one encoding of so many changes, or too long.
pub fn decode_changes(body: &[u8], count: u32) -> Result<Vec<Change>, ConfigError> {
    let Changes(changes) = wire::decode(body, CHANGES_BYTES_MAX)?;
    if changes.is_empty() || changes.len() != count as usize {
        return Err(ConfigError::Count {
            header: count,
            body: changes.len(),
        });
    }
    Ok(changes)
}

#[derive(Encode, Decode)]
#[cbor(transparent)]
struct Changes(#[cbor(n(0), decode_with = "wire::at_most::<CHANGES_MAX, _, _>")] Vec<Change>);

/// An explicit null: fields of an array keep their places.
fn encode_last<C, W: minicbor::encode::Write>(
    last: &Option<Last>,
    e: &mut minicbor::Encoder<W>,
    context: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    match last {
        Some(last) => last.encode(e, context),
        None => e.null()?.ok(),
    }
}

/// Keeps the derived encoder from leaving a trailing null out.
const fn never(_: &Option<Last>) -> bool {
    false
}

fn decode_last<C>(
    d: &mut minicbor::Decoder<'_>,
    context: &mut C,
) -> Result<Option<Last>, minicbor::decode::Error> {
    if d.datatype()? == minicbor::data::Type::Null {
        return d.null().map(|()| None);
    }
    Last::decode(d, context).map(Some)
}

fn encode_codes<C, W: minicbor::encode::Write>(
    codes: &[Vec<u8>],
    e: &mut minicbor::Encoder<W>,
    _: &mut C,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    e.array(codes.len() as u64)?;
    codes.iter().try_for_each(|code| e.bytes(code)?.ok())
}

fn decode_codes<C>(
    d: &mut minicbor::Decoder<'_>,
    _: &mut C,
) -> Result<Vec<Vec<u8>>, minicbor::decode::Error> {
    match d.array()? {
        Some(codes) if codes <= CODES_MAX as u64 => {
            (0..codes).map(|_| d.bytes().map(<[u8]>::to_vec)).collect()
        }
        _ => Err(minicbor::decode::Error::message("a list that is too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_change() -> Vec<Change> {
        let principal = Principal::from_bytes([1; 32]);
        let writer = WriterId::from_bytes([2; 32]);
        vec![
            Change::Certify(principal),
            Change::Uncertify {
                principal,
                keep: vec![writer],
            },
            Change::Admit(vec![3; 32]),
            Change::Revoke {
                writer,
                last: Some(Last {
                    seq: 7,
                    hash: Digest::from_bytes([5; 32]),
                }),
            },
            Change::Revoke { writer, last: None },
            Change::Generation {
                number: 1,
                commitment: Digest::from_bytes([4; 32]),
            },
            Change::Erase(1),
            Change::Replica {
                principal,
                address: "http://a".into(),
            },
            Change::Unreplica(principal),
            Change::Quorum {
                replicas: 2,
                witnesses: 1,
            },
            Change::Witness("w+00000000+AA==".into()),
            Change::Unwitness("w".into()),
            Change::Quota(1),
            Change::Codes {
                principal,
                codes: vec![vec![1, 2], vec![1, 3]],
            },
        ]
    }

    #[test]
    fn every_change_survives_its_bytes_and_has_one_encoding() {
        let changes = every_change();
        let body = encode_changes(&changes);
        assert_eq!(
            decode_changes(&body, changes.len() as u32),
            Ok(changes.clone())
        );
        for cut in 0..body.len() {
            assert!(decode_changes(&body[..cut], changes.len() as u32).is_err());
        }
        for count in [0, changes.len() as u32 - 1, changes.len() as u32 + 1] {
            assert!(decode_changes(&body, count).is_err());
        }
    }

    #[test]
    fn a_revocation_of_everything_writes_its_null() {
        let writer = WriterId::from_bytes([2; 32]);
        let body = encode_changes(&[Change::Revoke { writer, last: None }]);
        assert_eq!(body[..5], [0x81, 0x82, 0x03, 0x82, 0x58]);
        assert_eq!(body.last(), Some(&0xf6));
        let shorter = [&[0x81, 0x82, 0x03, 0x81], &body[4..body.len() - 1]].concat();
        assert!(decode_changes(&shorter, 1).is_err(), "the null is left out");
    }

    #[test]
    fn too_many_changes_are_refused_before_they_are_read() {
        let body = encode_changes(&vec![Change::Quota(1); CHANGES_MAX + 1]);
        assert!(decode_changes(&body, CHANGES_MAX as u32 + 1).is_err());
        assert!(decode_changes(&[0x80], 0).is_err(), "no change at all");
    }
}
