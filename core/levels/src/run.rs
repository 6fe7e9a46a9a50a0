//! One run of a manifest, read a block at a time.
//!
//! ```text
//! cold get:  index (in memory) ──▶ 1 read of one block ──▶ 1 AES-GCM open ──▶ 1 binary search
//! first use of a run:  1 read of its tail ──▶ 3 opens ──▶ index, filter, writers
//! ```
//!
//! In: what the manifest says of a run; what a store says its bytes are. Out: opened sections. Always
//! true: no byte is used before it was opened under this run's key, in its place; an answer that is too
//! short, altered, or another run's is an error that names the run and the part. The name of a run is
//! the hash of all its bytes and is checked when all of it is read ([`Run::check`]), not at each read:
//! AES-GCM with the place in its associated data says as much, at a fifth of the cost.

use std::sync::Arc;

use bield_capsule::WriterId;
use bield_envelope::{Wiped, wire};

use crate::block::{Block, Impossible};
use crate::filter::Filter;
use crate::index::Index;
use crate::key::{GenerationSecrets, Place, RunKey, Section};
use crate::meta::{PROPERTIES_BYTES_MAX, Properties};
use crate::{Blobs, LevelsError, Part, RunId, RunMeta};

/// A run with its key.
pub(crate) struct Run {
    meta: RunMeta,
    key: RunKey,
    secrets: Arc<GenerationSecrets>,
    /// What caches know it by: unique within one family of levels.
    serial: u64,
}

/// What is needed of a run before one of its blocks can be found.
pub(crate) struct Opened {
    pub(crate) index: Index,
    pub(crate) filter: Filter,
    pub(crate) writers: Box<[WriterId]>,
}

impl Opened {
    /// Bytes of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.index.bytes() + self.filter.bytes() + size_of_val(&*self.writers)
    }
}

impl Run {
    pub(crate) fn new(meta: RunMeta, secrets: Arc<GenerationSecrets>, serial: u64) -> Self {
        let key = secrets.run(&meta.salt);
        Self {
            meta,
            key,
            secrets,
            serial,
        }
    }

    pub(crate) const fn meta(&self) -> &RunMeta {
        &self.meta
    }

    pub(crate) const fn serial(&self) -> u64 {
        self.serial
    }

    /// What its generation seals with.
    pub(crate) const fn secrets(&self) -> &Arc<GenerationSecrets> {
        &self.secrets
    }

    /// Reads and opens index, filter and properties: one read.
    pub(crate) fn open(&self, blobs: &dyn Blobs) -> Result<Opened, LevelsError> {
        let meta = &self.meta;
        let data = meta.data_bytes();
        let tail = self.read_to_the_end(blobs, data)?;
        let [index, filter, _] = meta.sections.map(|bytes| bytes as usize);
        let (index, rest) = tail.split_at(index);
        let (filter, properties) = rest.split_at(filter);

        let index = self.open_section(Section::Index, 0, Part::Index, index.to_vec())?;
        let index = Index::parse(index, meta.blocks, data)
            .map_err(|what| self.broken(Part::Index, what))?;
        let filter = self.open_section(Section::Filter, 0, Part::Filter, filter.to_vec())?;
        let filter = Filter::parse(filter).map_err(|what| self.broken(Part::Filter, what))?;
        let part = Part::Properties;
        let properties = self.open_section(Section::Properties, 0, part, properties.to_vec())?;
        let properties: Properties = wire::decode(&properties, PROPERTIES_BYTES_MAX)
            .map_err(|_| self.broken(part, "not the encoding of properties"))?;
        if properties.summary != meta.summary {
            return Err(self.broken(part, "it sums up other cells than the manifest says"));
        }
        Ok(Opened {
            index,
            filter,
            writers: properties.writers.into(),
        })
    }

    /// Reads and opens one block: one read.
    pub(crate) fn block(
        &self,
        blobs: &dyn Blobs,
        opened: &Opened,
        number: u32,
    ) -> Result<Block, LevelsError> {
        let (begin, bytes) = self.range(opened, number)?;
        let sealed = self.read(blobs, begin, bytes, Part::Block(number))?;
        self.open_block(number, sealed)
    }

    /// Reads neighbouring blocks up to so many bytes, at least one: one read.
    pub(crate) fn blocks(
        &self,
        blobs: &dyn Blobs,
        opened: &Opened,
        from: u32,
        bytes_max: usize,
    ) -> Result<Vec<Block>, LevelsError> {
        let (begin, mut bytes) = self.range(opened, from)?;
        let mut lengths = vec![bytes];
        while let Some((_, more)) = opened.index.range(from + lengths.len() as u32)
            && bytes + more <= bytes_max
        {
            bytes += more;
            lengths.push(more);
        }
        let sealed = self.read(blobs, begin, bytes, Part::Block(from))?;
        let mut rest = &sealed[..];
        let opened = lengths.iter().zip(from..).map(|(bytes, number)| {
            let (block, after) = rest.split_at(*bytes);
            rest = after;
            self.open_block(number, block.to_vec())
        });
        opened.collect()
    }

    /// Compares the whole run with its name, in pieces.
    pub(crate) fn check(&self, blobs: &dyn Blobs) -> Result<(), LevelsError> {
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < self.meta.bytes {
            let bytes = (self.meta.bytes - at).min(CHECKED_BYTES) as usize;
            hasher.update(&self.read(blobs, at, bytes, Part::Whole)?);
            at += bytes as u64;
        }
        let run = self.meta.id;
        if RunId::from_bytes(*hasher.finalize().as_bytes()) != run {
            return Err(LevelsError::NotTheRun { run });
        }
        Ok(())
    }

    /// The error for a part that is authentic and impossible.
    pub(crate) const fn broken(&self, part: Part, what: Impossible) -> LevelsError {
        LevelsError::Broken {
            run: self.meta.id,
            part,
            what,
        }
    }

    fn range(&self, opened: &Opened, number: u32) -> Result<(u64, usize), LevelsError> {
        let range = opened.index.range(number);
        range.ok_or_else(|| self.broken(Part::Index, "it has fewer blocks"))
    }

    fn open_block(&self, number: u32, sealed: Vec<u8>) -> Result<Block, LevelsError> {
        let part = Part::Block(number);
        let plain = self.open_section(Section::Block, number, part, sealed)?;
        Block::parse(plain).map_err(|what| self.broken(part, what))
    }

    fn open_section(
        &self,
        section: Section,
        number: u32,
        part: Part,
        sealed: Vec<u8>,
    ) -> Result<Wiped, LevelsError> {
        let blocks = self.meta.blocks;
        let place = Place {
            section,
            number,
            blocks,
        };
        let run = self.meta.id;
        let opened = self.key.open(place, sealed);
        opened.ok_or(LevelsError::Altered { run, part })
    }

    /// Reads from `offset` on; refuses a store that has bytes behind the run's end: no name accounts for them.
    fn read_to_the_end(&self, blobs: &dyn Blobs, offset: u64) -> Result<Vec<u8>, LevelsError> {
        let length = (self.meta.bytes - offset) as usize;
        let run = self.meta.id;
        let read = blobs
            .read(&run, offset, length + 1)
            .map_err(|error| LevelsError::blob(run, error))?;
        match length.checked_sub(read.len()) {
            Some(0) => Ok(read),
            Some(missing) => Err(LevelsError::Cut {
                run,
                part: Part::Index,
                missing: missing as u64,
            }),
            None => Err(LevelsError::NotTheRun { run }),
        }
    }

    fn read(
        &self,
        blobs: &dyn Blobs,
        offset: u64,
        length: usize,
        part: Part,
    ) -> Result<Vec<u8>, LevelsError> {
        let run = self.meta.id;
        let read = blobs
            .read(&run, offset, length)
            .map_err(|error| LevelsError::blob(run, error))?;
        match length.checked_sub(read.len()) {
            Some(0) => Ok(read),
            Some(missing) => Err(LevelsError::Cut {
                run,
                part,
                missing: missing as u64,
            }),
            None => Err(LevelsError::Altered { run, part }),
        }
    }
}

/// Bytes read at a time to check a run's name.
const CHECKED_BYTES: u64 = 1 << 20;
