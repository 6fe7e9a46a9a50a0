//! What a manifest says of a run, so that opening it takes one read and finding a run none.
//!
//! In: what a builder counted. Out: strict CBOR inside a manifest; [`Summary`] stands inside the run as
//! well, sealed, and both must agree. Always true of a meta that was checked: its sections fit its
//! length, its range of keys is not empty, its counts do not contradict each other.

use core::fmt;

use bield_capsule::{Clock, WriterId};
use bield_envelope::Digest;
use minicbor::{Decode, Encode};

use crate::block::Impossible;
use crate::key::TAG_BYTES;
use crate::{Cell, Content, KEY_BYTES_MAX, RunId, VALUE_BYTES_MAX, WRITERS_MAX};

/// Bytes of the longest run; a builder ends one soon after its setting, 64 MiB at most.
pub const RUN_BYTES_MAX: u64 = 256 << 20;

/// One run as its manifest knows it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct RunMeta {
    /// The name under which the store has it.
    #[n(0)]
    pub id: RunId,
    /// Its length in bytes.
    #[n(1)]
    pub bytes: u64,
    /// What its key derives from, with the generation's.
    #[n(2)]
    pub salt: Digest,
    /// Which key of the capsule sealed it, from 1.
    #[n(3)]
    pub generation: u32,
    /// Blocks, which begin the run.
    #[n(4)]
    pub blocks: u32,
    /// Sealed bytes of index, filter and properties, which end it in this order.
    #[n(5)]
    pub sections: [u32; 3],
    /// Range deletes with a serial up to this one have been applied: none of them covers a cell in it.
    #[n(6)]
    pub swept: u64,
    /// What is in it.
    #[n(7)]
    pub summary: Summary,
}

/// What is in a run.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Summary {
    /// Its smallest key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub first: Vec<u8>,
    /// Its largest key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub last: Vec<u8>,
    /// Cells, one for each key.
    #[n(2)]
    pub cells: u32,
    /// How many of them are deletions.
    #[n(3)]
    pub deleted: u32,
    /// How many of them expire.
    #[n(4)]
    pub expiring: u32,
    /// The oldest clock of its cells.
    #[cbor(n(5), with = "crate::cell::clock")]
    pub oldest: Clock,
    /// The newest clock of its cells.
    #[cbor(n(6), with = "crate::cell::clock")]
    pub newest: Clock,
}

impl RunMeta {
    /// Whether a key lies between the smallest and the largest.
    #[must_use]
    pub fn may_have(&self, key: &[u8]) -> bool {
        *self.summary.first <= *key && *key <= *self.summary.last
    }

    /// Sealed bytes of all blocks.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        self.bytes
            - self
                .sections
                .iter()
                .map(|bytes| u64::from(*bytes))
                .sum::<u64>()
    }

    /// Checks it by itself.
    pub(crate) fn check(&self) -> Result<(), Impossible> {
        let tail: u64 = self.sections.iter().map(|bytes| u64::from(*bytes)).sum();
        let smallest = self
            .sections
            .iter()
            .all(|bytes| *bytes as usize >= TAG_BYTES);
        if !smallest || self.bytes > RUN_BYTES_MAX || tail >= self.bytes {
            return Err("a run whose sections do not fit it");
        }
        if self.generation == 0 || self.blocks == 0 || self.blocks > self.summary.cells {
            return Err("a run without cells, or of no generation");
        }
        self.summary.check()
    }
}

impl Summary {
    /// Of no cells yet; the first one has this key and clock.
    pub(crate) fn begin(first: &[u8], clock: Clock) -> Self {
        Self {
            first: first.to_vec(),
            last: Vec::new(),
            cells: 0,
            deleted: 0,
            expiring: 0,
            oldest: clock,
            newest: clock,
        }
    }

    /// Counts one more cell, above all before.
    pub(crate) fn count(&mut self, cell: &Cell<'_>) {
        let clock = cell.version.clock;
        self.last.clear();
        self.last.extend_from_slice(cell.key);
        self.cells += 1;
        self.oldest = self.oldest.min(clock);
        self.newest = self.newest.max(clock);
        match cell.content {
            Content::Deleted => self.deleted += 1,
            Content::Value {
                expires: Some(_), ..
            } => self.expiring += 1,
            Content::Value { .. } => {}
        }
    }

    fn check(&self) -> Result<(), Impossible> {
        let key = |key: &[u8]| (1..=KEY_BYTES_MAX).contains(&key.len());
        if !key(&self.first) || !key(&self.last) || self.first > self.last {
            return Err("a run with an impossible range of keys");
        }
        let kinds = u64::from(self.deleted) + u64::from(self.expiring);
        if kinds > self.cells.into() || self.oldest > self.newest {
            return Err("a run with impossible counts or clocks");
        }
        Ok(())
    }
}

impl fmt::Debug for RunMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, bytes, summary) = (self.id.short(), self.bytes, &self.summary);
        write!(f, "Run({id}, {bytes} bytes, {summary:?})")
    }
}

/// Counts and clocks; the keys are nobody's business.
impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cells,
            deleted,
            expiring,
            oldest,
            newest,
            ..
        } = self;
        write!(
            f,
            "{cells} cells, {deleted} deleted, {expiring} expiring, {oldest} to {newest}"
        )
    }
}

/// The sealed properties of a run.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct Properties {
    /// As in the manifest.
    #[n(0)]
    pub(crate) summary: Summary,
    /// Who wrote its cells; cells name them by position.
    #[cbor(
        n(1),
        decode_with = "bield_envelope::wire::at_most::<WRITERS_MAX, _, _>"
    )]
    pub(crate) writers: Vec<WriterId>,
}

/// Longest properties in bytes: two keys and all writers.
pub(crate) const PROPERTIES_BYTES_MAX: usize = 2 * KEY_BYTES_MAX + 34 * WRITERS_MAX + 128;

/// A builder stops after the cell that crosses its setting.
const _: () = assert!(
    (crate::Settings::RUN_BYTES_MAX + 2 * (VALUE_BYTES_MAX + KEY_BYTES_MAX)) as u64 * 3 / 2
        < RUN_BYTES_MAX
);
