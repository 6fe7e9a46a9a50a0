//! Entries of a table inside data records, byte by byte (`spec/07 §3`).
//!
//! ```text
//! put          0x01 ‖ clock ‖ u16 ‖ key ‖ value
//! put until    0x02 ‖ clock ‖ expires ‖ u16 ‖ key ‖ value
//! delete       0x03 ‖ clock ‖ key
//! delete range 0x04 ‖ clock ‖ u16 ‖ from ‖ to
//! lease        0x05 ‖ clock ‖ token ‖ u16 ‖ from ‖ u16 ‖ to ‖ (token ‖ writer ‖ seq)*
//! acknowledge  0x06 ‖ clock ‖ epoch
//! fenced       0x07 ‖ clock ‖ token ‖ condition ‖ one of the first three, without its clock
//! ```
//!
//! In: payloads of plain entries from opened records, written by whoever was admitted. Out: borrowed
//! values. Always true: one value has one encoding, and nothing else decodes; tags from
//! [`CONTROL`] on are not the table's and mean whatever its keeper says.
//!
//! Cost: 11 bytes beside key and value for a put, no copy to decode, none but the batch's to encode.

use bield_capsule::{Clock, WriterId};
use bield_envelope::Time;

use crate::key::{is_range, split_key};
use crate::{KEY_BYTES_MAX, VALUE_BYTES_MAX, Version};

/// The first tag that is not the table's.
pub const CONTROL: u8 = 0xf0;

/// Most leases that one lease says it follows.
pub const FOLLOWS_MAX: usize = 64;

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TableEntry<'a> {
    /// Orders it among all entries; strictly increases along a writer's chain.
    pub clock: Clock,
    /// What it does.
    pub action: Action<'a>,
}

/// What an entry does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// A put or a delete.
    Change(Change<'a>),
    /// Deletes what is older in a range of one bucket.
    DeleteRange {
        /// The first full key.
        from: &'a [u8],
        /// The end, exclusive.
        to: &'a [u8],
    },
    /// Takes a range of keys for its writer alone.
    Lease(Lease<'a>),
    /// Its writer has applied everything in the cut of this epoch.
    Acknowledge {
        /// The epoch.
        epoch: u64,
    },
    /// A change by the holder of a lease.
    Fenced {
        /// The lease's token.
        token: u64,
        /// What the holder had compared before.
        condition: Condition,
        /// The change.
        change: Change<'a>,
    },
}

/// A put or a delete.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Sets a value.
    Put {
        /// Full key.
        key: &'a [u8],
        /// At most [`VALUE_BYTES_MAX`].
        value: &'a [u8],
        /// From then on nothing is there.
        expires: Option<Time>,
    },
    /// Leaves nothing.
    Delete {
        /// Full key.
        key: &'a [u8],
    },
}

impl<'a> Change<'a> {
    /// The full key.
    #[must_use]
    pub const fn key(&self) -> &'a [u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// What the holder of a lease saw before a change. Recorded for audits; receivers do not compare again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It did not look.
    Unconditional,
    /// The key had no value.
    Absent,
    /// The key's value was this one.
    Is(Version),
}

/// A range of keys that one writer alone changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Lease<'a> {
    /// Larger for every new holder; given out once, by whoever grants leases.
    pub token: u64,
    /// The first full key.
    pub from: &'a [u8],
    /// The end, exclusive.
    pub to: &'a [u8],
    follows: &'a [u8],
}

/// A lease that another one follows, and how far the changes under it count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its token.
    pub token: u64,
    /// Its holder.
    pub holder: WriterId,
    /// Changes in the holder's records up to this one count.
    pub seq: u64,
}

impl<'a> Lease<'a> {
    /// The leases it follows, tokens descending.
    pub fn follows(&self) -> impl ExactSizeIterator<Item = Followed> + use<'a> {
        self.follows
            .as_chunks::<FOLLOWED_BYTES>()
            .0
            .iter()
            .map(|bytes| {
                let mut fields = Fields(bytes);
                let mut word = || fields.array().map_or(0, u64::from_be_bytes);
                let token = word();
                let holder = fields.array().map_or([0; 32], |bytes| bytes);
                let seq = fields.array().map_or(0, u64::from_be_bytes);
                Followed {
                    token,
                    holder: WriterId::from_bytes(holder),
                    seq,
                }
            })
    }
}

/// Why a payload is no entry of a table; contents are never quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an entry of a table: {0}; its writer is at fault, do not retry")]
pub struct EntryError(pub(crate) &'static str);

impl<'a> TableEntry<'a> {
    /// Reads one payload; `None` when its tag is not the table's.
    ///
    /// # Errors
    /// Anything but the one encoding of an entry within its limits.
    pub fn decode(payload: &'a [u8]) -> Result<Option<Self>, EntryError> {
        let (&tag, rest) = payload.split_first().ok_or(EntryError("it is empty"))?;
        if tag >= CONTROL {
            return Ok(None);
        }
        let mut fields = Fields(rest);
        let clock = Clock::from_bits(fields.word()?);
        let action = match tag {
            PUT | PUT_UNTIL | DELETE => Action::Change(change(tag, fields)?),
            DELETE_RANGE => {
                let (from, to) = (fields.counted()?, fields.0);
                if !is_range(from, to) {
                    return Err(EntryError("a range that is not one of a bucket"));
                }
                Action::DeleteRange { from, to }
            }
            LEASE => Action::Lease(lease(fields)?),
            ACKNOWLEDGE => {
                let epoch = fields.word()?;
                if !fields.0.is_empty() {
                    return Err(TRAILING);
                }
                Action::Acknowledge { epoch }
            }
            FENCED => {
                let token = fields.word()?;
                let condition = condition(&mut fields)?;
                let [tag] = fields.array().ok_or(SHORT)?;
                let change = change(tag, fields)?;
                Action::Fenced {
                    token,
                    condition,
                    change,
                }
            }
            _ => return Err(EntryError("its tag is unknown")),
        };
        Ok(Some(Self { clock, action }))
    }

    /// Appends the encoding.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        let head = |tag: u8, out: &mut Vec<u8>| {
            out.push(tag);
            out.extend_from_slice(&self.clock.bits().to_be_bytes());
        };
        match self.action {
            Action::Change(change) => {
                head(tag_of(&change), out);
                encode_change(&change, out);
            }
            Action::DeleteRange { from, to } => {
                head(DELETE_RANGE, out);
                counted(from, out);
                out.extend_from_slice(to);
            }
            Action::Lease(lease) => {
                head(LEASE, out);
                out.extend_from_slice(&lease.token.to_be_bytes());
                counted(lease.from, out);
                counted(lease.to, out);
                out.extend_from_slice(lease.follows);
            }
            Action::Acknowledge { epoch } => {
                head(ACKNOWLEDGE, out);
                out.extend_from_slice(&epoch.to_be_bytes());
            }
            Action::Fenced {
                token,
                condition,
                change,
            } => {
                head(FENCED, out);
                out.extend_from_slice(&token.to_be_bytes());
                match condition {
                    Condition::Unconditional => out.push(0),
                    Condition::Absent => out.push(1),
                    Condition::Is(version) => {
                        out.push(2);
                        out.extend_from_slice(&version.clock.bits().to_be_bytes());
                        out.extend_from_slice(version.writer.as_bytes());
                    }
                }
                out.push(tag_of(&change));
                encode_change(&change, out);
            }
        }
    }

    /// Makes a lease entry; `scratch` is memory to borrow from.
    #[must_use]
    pub fn lease(
        clock: Clock,
        token: u64,
        (from, to): (&'a [u8], &'a [u8]),
        follows: &[Followed],
        scratch: &'a mut Vec<u8>,
    ) -> Self {
        scratch.clear();
        for followed in follows {
            scratch.extend_from_slice(&followed.token.to_be_bytes());
            scratch.extend_from_slice(followed.holder.as_bytes());
            scratch.extend_from_slice(&followed.seq.to_be_bytes());
        }
        let follows = scratch.as_slice();
        Self {
            clock,
            action: Action::Lease(Lease {
                token,
                from,
                to,
                follows,
            }),
        }
    }
}

fn change<'a>(tag: u8, mut fields: Fields<'a>) -> Result<Change<'a>, EntryError> {
    if tag == DELETE {
        return Ok(Change::Delete {
            key: key(fields.0)?,
        });
    }
    let expires = match tag {
        PUT => None,
        PUT_UNTIL => Some(Time::from_millis(fields.word()?)),
        _ => return Err(EntryError("its tag is unknown")),
    };
    let key = key(fields.counted()?)?;
    if fields.0.len() > VALUE_BYTES_MAX {
        return Err(EntryError("its value is too long"));
    }
    let value = fields.0;
    Ok(Change::Put {
        key,
        value,
        expires,
    })
}

fn lease(mut fields: Fields<'_>) -> Result<Lease<'_>, EntryError> {
    let token = fields.word()?;
    let (from, to, follows) = (fields.counted()?, fields.counted()?, fields.0);
    let long = from.len().max(to.len()) > KEY_BYTES_MAX;
    if long || from >= to || from.first().is_none_or(|first| *first == 0) {
        return Err(EntryError("a lease of no range"));
    }
    let lease = Lease {
        token,
        from,
        to,
        follows,
    };
    if !follows.len().is_multiple_of(FOLLOWED_BYTES) || lease.follows().len() > FOLLOWS_MAX {
        return Err(TRAILING);
    }
    let mut above = token;
    for followed in lease.follows() {
        if followed.token >= above {
            return Err(EntryError("a lease that follows a later one"));
        }
        above = followed.token;
    }
    Ok(lease)
}

fn condition(fields: &mut Fields<'_>) -> Result<Condition, EntryError> {
    match fields.array().ok_or(SHORT)? {
        [0] => Ok(Condition::Unconditional),
        [1] => Ok(Condition::Absent),
        [2] => Ok(Condition::Is(Version {
            clock: Clock::from_bits(fields.word()?),
            writer: WriterId::from_bytes(fields.array().ok_or(SHORT)?),
        })),
        _ => Err(EntryError("its condition is unknown")),
    }
}

fn key(bytes: &[u8]) -> Result<&[u8], EntryError> {
    split_key(bytes).map_or(Err(EntryError("its key is none of a bucket")), |_| {
        Ok(bytes)
    })
}

const fn tag_of(change: &Change<'_>) -> u8 {
    match change {
        Change::Put { expires: None, .. } => PUT,
        Change::Put { .. } => PUT_UNTIL,
        Change::Delete { .. } => DELETE,
    }
}

fn encode_change(change: &Change<'_>, out: &mut Vec<u8>) {
    match *change {
        Change::Put {
            key,
            value,
            expires,
        } => {
            if let Some(expires) = expires {
                out.extend_from_slice(&expires.as_millis().to_be_bytes());
            }
            counted(key, out);
            out.extend_from_slice(value);
        }
        Change::Delete { key } => out.extend_from_slice(key),
    }
}

fn counted(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// What is left of a payload.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn word(&mut self) -> Result<u64, EntryError> {
        self.array().map(u64::from_be_bytes).ok_or(SHORT)
    }

    fn counted(&mut self) -> Result<&'a [u8], EntryError> {
        let length = self.array().map(u16::from_be_bytes).ok_or(SHORT)?;
        let (taken, rest) = self.0.split_at_checked(length.into()).ok_or(SHORT)?;
        self.0 = rest;
        Ok(taken)
    }
}

const PUT: u8 = 1;
const PUT_UNTIL: u8 = 2;
const DELETE: u8 = 3;
const DELETE_RANGE: u8 = 4;
const LEASE: u8 = 5;
const ACKNOWLEDGE: u8 = 6;
const FENCED: u8 = 7;
const FOLLOWED_BYTES: usize = 48;
const SHORT: EntryError = EntryError("it is cut off");
const TRAILING: EntryError = EntryError("bytes follow it");
