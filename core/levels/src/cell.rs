//! What a run holds: one cell a key, and the one order in which cells replace each other.
//!
//! In and out: borrowed cells on the way through, owned ones for whoever asked. Always true: of two
//! cells with one key the same one wins wherever and in whatever order they meet ([`Cell::replaces`]),
//! so replicas agree and a compaction changes no answer. Nothing here prints a key or a value.

use core::cmp::Ordering;
use core::fmt;

use bield_capsule::{Clock, WriterId};
use bield_envelope::{Time, Wiped};
use minicbor::{Decode, Encode};

use crate::{Limit, Limits};

/// Bytes of the longest key. A key has at least one.
pub const KEY_BYTES_MAX: usize = 1024;

/// Bytes of the longest value: a put of it fits a capsule's record (1 MiB) with room for its entry.
pub const VALUE_BYTES_MAX: usize = 1_000_000;

/// When a cell was written and by whom: the total order of all writes to a capsule.
///
/// By clock, then by the writer's bytes. A writer's clock increases with every write, so no two
/// writes of one capsule have the same version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Version {
    /// Hybrid logical time of the write.
    #[cbor(n(0), with = "clock")]
    pub clock: Clock,
    /// Who wrote.
    #[n(1)]
    pub writer: WriterId,
}

/// A clock as its 64 bits, in CBOR.
pub(crate) mod clock {
    use super::Clock;

    pub(crate) fn encode<C, W: minicbor::encode::Write>(
        clock: &Clock,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(clock.bits())?.ok()
    }

    pub(crate) fn decode<C>(
        d: &mut minicbor::Decoder<'_>,
        _: &mut C,
    ) -> Result<Clock, minicbor::decode::Error> {
        d.u64().map(Clock::from_bits)
    }
}

/// What a write left under its key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// Bytes, for ever or until a moment.
    Value {
        /// At most [`VALUE_BYTES_MAX`]; may be empty.
        bytes: &'a [u8],
        /// From then on nothing is there; what is older stays hidden.
        expires: Option<Time>,
    },
    /// Nothing: the key was deleted.
    Deleted,
}

/// One key, its newest version and what that left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// 1 to [`KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// Who wrote it and when.
    pub version: Version,
    /// What is there.
    pub content: Content<'a>,
}

impl<'a> Cell<'a> {
    /// Checks lengths; everything that is stored went through here.
    ///
    /// # Errors
    /// An empty key, or a key or value that is too long.
    pub const fn check(&self) -> Result<(), Limits> {
        if self.key.is_empty() || self.key.len() > KEY_BYTES_MAX {
            return Err(Limits::new(Limit::Key, self.key.len()));
        }
        match self.content {
            Content::Value { bytes, .. } if bytes.len() > VALUE_BYTES_MAX => {
                Err(Limits::new(Limit::Value, bytes.len()))
            }
            _ => Ok(()),
        }
    }

    /// Whether this cell wins over another one of its key.
    ///
    /// By version. Two cells of one version are the same cell, unless a writer broke its promise; then
    /// a deletion wins over a value, and the larger bytes over the smaller, so that all agree on one.
    #[must_use]
    pub fn replaces(&self, other: &Cell<'_>) -> bool {
        self.precedence(other) == Ordering::Greater
    }

    /// The order behind [`Cell::replaces`].
    #[must_use]
    pub fn precedence(&self, other: &Cell<'_>) -> Ordering {
        let content = |cell: &Cell<'_>| match cell.content {
            Content::Value { .. } => 0,
            Content::Deleted => 1,
        };
        self.version
            .cmp(&other.version)
            .then_with(|| content(self).cmp(&content(other)))
            .then_with(|| match (self.content, other.content) {
                (
                    Content::Value { bytes, expires },
                    Content::Value {
                        bytes: others,
                        expires: other,
                    },
                ) => (bytes, expires).cmp(&(others, other)),
                _ => Ordering::Equal,
            })
    }

    /// The value at a moment; `None` when it was deleted or has expired.
    #[must_use]
    pub fn value_at(&self, now: Time) -> Option<&'a [u8]> {
        match self.content {
            Content::Value { bytes, expires } if expires.is_none_or(|at| now < at) => Some(bytes),
            _ => None,
        }
    }

    /// A copy that lives by itself.
    #[must_use]
    pub fn to_owned(&self) -> OwnedCell {
        OwnedCell {
            key: self.key.to_vec(),
            version: self.version,
            content: match self.content {
                Content::Value { bytes, expires } => OwnedContent::Value {
                    bytes: Wiped::from(bytes.to_vec()),
                    expires,
                },
                Content::Deleted => OwnedContent::Deleted,
            },
        }
    }
}

impl fmt::Debug for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            version,
            content,
        } = self;
        let (clock, writer) = (version.clock, version.writer.short());
        write!(f, "Cell(key of {} bytes, {clock} {writer}, ", key.len())?;
        match content {
            Content::Value { bytes, expires } => {
                write!(f, "{} bytes, expires {expires:?})", bytes.len())
            }
            Content::Deleted => write!(f, "deleted)"),
        }
    }
}

/// A [`Content`] with its own bytes; they are wiped on drop.
pub enum OwnedContent {
    /// As [`Content::Value`].
    Value {
        /// The value.
        bytes: Wiped,
        /// From then on nothing is there.
        expires: Option<Time>,
    },
    /// As [`Content::Deleted`].
    Deleted,
}

/// A [`Cell`] with its own bytes.
pub struct OwnedCell {
    /// As [`Cell::key`].
    pub key: Vec<u8>,
    /// As [`Cell::version`].
    pub version: Version,
    /// As [`Cell::content`].
    pub content: OwnedContent,
}

impl OwnedCell {
    /// The same cell, borrowed.
    #[must_use]
    pub fn as_cell(&self) -> Cell<'_> {
        Cell {
            key: &self.key,
            version: self.version,
            content: match &self.content {
                OwnedContent::Value { bytes, expires } => Content::Value {
                    bytes,
                    expires: *expires,
                },
                OwnedContent::Deleted => Content::Deleted,
            },
        }
    }
}

impl fmt::Debug for OwnedCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_cell().fmt(f)
    }
}

/// Deletes every older cell whose key lies in a range.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RangeDelete {
    /// The first key, 0 to [`KEY_BYTES_MAX`] bytes.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub from: Vec<u8>,
    /// The end, which is no part of it; above `from`, at most [`KEY_BYTES_MAX`] bytes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub to: Vec<u8>,
    /// Cells with an older version are gone.
    #[n(2)]
    pub version: Version,
}

impl RangeDelete {
    /// Whether a key lies in the range.
    #[must_use]
    pub fn covers(&self, key: &[u8]) -> bool {
        *self.from <= *key && *key < *self.to
    }

    /// Checks lengths and order.
    ///
    /// # Errors
    /// A bound that is too long, or an empty range.
    pub fn check(&self) -> Result<(), Limits> {
        let longest = self.from.len().max(self.to.len());
        if longest > KEY_BYTES_MAX {
            return Err(Limits::new(Limit::Key, longest));
        }
        if self.from >= self.to {
            return Err(Limits::new(Limit::Range, 0));
        }
        Ok(())
    }
}

impl fmt::Debug for RangeDelete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clock, writer) = (self.version.clock, self.version.writer.short());
        write!(f, "RangeDelete({clock} {writer})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(clock: u64, writer: u8) -> Version {
        Version {
            clock: Clock::from_bits(clock),
            writer: WriterId::from_bytes([writer; 32]),
        }
    }

    fn value(version: Version, bytes: &[u8]) -> Cell<'_> {
        Cell {
            key: b"k",
            version,
            content: Content::Value {
                bytes,
                expires: None,
            },
        }
    }

    #[test]
    fn the_later_clock_wins_then_the_writer_then_the_deletion_then_the_bytes() {
        let cells = [
            value(version(1, 9), b"z"),
            value(version(2, 1), b"z"),
            value(version(2, 2), b"a"),
            value(version(2, 2), b"b"),
            Cell {
                content: Content::Deleted,
                ..value(version(2, 2), b"")
            },
        ];
        for (i, left) in cells.iter().enumerate() {
            for (j, right) in cells.iter().enumerate() {
                assert_eq!(left.replaces(right), i > j, "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn a_value_ends_at_the_moment_it_expires() {
        let expires = Some(Time::from_millis(10));
        let cell = Cell {
            content: Content::Value {
                bytes: b"v",
                expires,
            },
            ..value(version(1, 1), b"")
        };
        assert_eq!(cell.value_at(Time::from_millis(9)), Some(&b"v"[..]));
        assert_eq!(cell.value_at(Time::from_millis(10)), None);
    }

    #[test]
    fn neither_keys_nor_values_are_printed() {
        let cell = value(version(1, 1), b"topsecret").to_owned();
        assert!(!format!("{cell:?}").contains("secret"));
        let range = RangeDelete {
            from: b"secret".to_vec(),
            to: b"secreu".to_vec(),
            version: version(1, 1),
        };
        assert!(!format!("{range:?}").contains("secre"));
        assert!(range.covers(b"secret0") && !range.covers(b"secreu") && range.check().is_ok());
    }
}
