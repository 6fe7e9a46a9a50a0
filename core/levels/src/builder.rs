//! Builds one run from cells in ascending order.
//!
//! ```text
//! cells ──▶ block │ block │ … │ index │ filter │ properties     one buffer, sealed in place at the end
//! ```
//!
//! In: cells, each key once and above the one before. Out: a run's bytes, its name and what a manifest
//! says of it. Always true: nothing is sealed before all is known, so a run's key depends on all of its
//! plaintext ([`GenerationSecrets::salt`]) and every section names the number of blocks.
//!
//! Cost of a run of n bytes: one copy, three passes (hedge, AES-GCM, name) at about 0.5 ns a byte
//! together, and 0.1 µs a key for filter and hash. Memory: the run itself, 8 bytes a key for the
//! filter, and what constructing the filter takes (about 30 bytes a key, freed at the end).

use bield_capsule::WriterId;
use rand_core::CryptoRng;
use std::collections::BTreeMap;

use crate::block::{self, cell_bytes};
use crate::key::{GenerationSecrets, Place, Section, TAG_BYTES};
use crate::meta::{Properties, Summary};
use crate::{
    Cell, LevelsError, Limit, Limits, RunId, RunMeta, Settings, WRITERS_MAX, filter, index,
};
use bield_envelope::{Wiped, wire};

/// A run that is sealed and not yet stored.
pub(crate) struct Built {
    pub(crate) meta: RunMeta,
    pub(crate) sealed: Vec<u8>,
}

/// Takes cells and makes a run of them.
pub(crate) struct RunBuilder {
    settings: Settings,
    /// Blocks in clear, each with room for its tag.
    run: Vec<u8>,
    index: Vec<u8>,
    hashes: Vec<u64>,
    writers: BTreeMap<WriterId, u16>,
    /// Where the open block begins.
    block_at: usize,
    begins: Vec<u16>,
    /// What stands for the open block in the index.
    separator: Vec<u8>,
    /// Where each closed block ends.
    ends: Vec<usize>,
    summary: Option<Summary>,
}

impl RunBuilder {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            // Growing would leave copies of cells behind.
            run: Vec::with_capacity(settings.run_bytes() + settings.run_bytes() / 4),
            index: Vec::new(),
            hashes: Vec::new(),
            writers: BTreeMap::new(),
            block_at: 0,
            begins: Vec::new(),
            separator: Vec::new(),
            ends: Vec::new(),
            summary: None,
        }
    }

    /// Takes the next cell.
    pub(crate) fn push(
        &mut self,
        cell: &Cell<'_>,
        secrets: &GenerationSecrets,
    ) -> Result<(), LevelsError> {
        cell.check()?;
        if self
            .summary
            .as_ref()
            .is_some_and(|so_far| *so_far.last >= *cell.key)
        {
            return Err(LevelsError::Unsorted);
        }
        let writer = self.writer(cell.version.writer)?;
        let open = self.run.len() - self.block_at + self.begins.len() * 2;
        if !self.begins.is_empty() && open + cell_bytes(cell) > self.settings.block_bytes() {
            self.end_block();
        }
        if self.begins.is_empty() {
            self.begin_block(cell.key);
        }
        self.begins.push((self.run.len() - self.block_at) as u16);
        block::push(cell, writer, &mut self.run);
        self.hashes.push(secrets.filter_hash(cell.key));
        self.count(cell);
        Ok(())
    }

    /// Whether the run is as long as its setting, or has as many writers as one may.
    pub(crate) fn is_full(&self) -> bool {
        self.run.len() >= self.settings.run_bytes() || self.writers.len() == WRITERS_MAX
    }

    /// Whether it has no cell.
    pub(crate) const fn is_empty(&self) -> bool {
        self.summary.is_none()
    }

    /// Seals the run; `swept` is the serial of the newest range delete that was applied to its cells.
    pub(crate) fn finish(
        mut self,
        secrets: &GenerationSecrets,
        swept: u64,
        entropy: &mut impl CryptoRng,
    ) -> Option<Built> {
        let summary = self.summary.take()?;
        self.end_block();
        let data = self.run.len();
        let properties = Properties {
            summary: summary.clone(),
            writers: in_order(&self.writers),
        };
        let sections = [
            self.index,
            filter::encode(self.hashes, TAG_BYTES),
            wire::encode(&properties),
        ];
        let mut run = self.run;
        let mut lengths = [0; 3];
        for (plain, length) in sections.into_iter().map(Wiped::from).zip(&mut lengths) {
            run.extend_from_slice(&plain);
            run.resize(run.len() + TAG_BYTES, 0);
            *length = (plain.len() + TAG_BYTES) as u32;
        }
        let salt = secrets.salt(&run, entropy);
        let key = secrets.run(&salt);
        let blocks = self.ends.len() as u32;
        let (mut rest, mut tail) = run.split_at_mut(data);
        let mut begin = 0;
        for (end, number) in self.ends.iter().zip(0..) {
            let (block, after) = rest.split_at_mut(end - begin);
            let place = Place {
                section: Section::Block,
                number,
                blocks,
            };
            key.seal(place, block);
            (rest, begin) = (after, *end);
        }
        for (section, length) in [Section::Index, Section::Filter, Section::Properties]
            .into_iter()
            .zip(lengths)
        {
            let (sealed, after) = tail.split_at_mut(length as usize);
            key.seal(
                Place {
                    section,
                    number: 0,
                    blocks,
                },
                sealed,
            );
            tail = after;
        }
        let meta = RunMeta {
            id: RunId::of(&run),
            bytes: run.len() as u64,
            salt,
            generation: secrets.generation(),
            blocks,
            sections: lengths,
            swept,
            summary,
        };
        debug_assert_eq!(meta.check(), Ok(()));
        Some(Built { meta, sealed: run })
    }

    fn writer(&mut self, writer: WriterId) -> Result<u16, LevelsError> {
        if let Some(known) = self.writers.get(&writer) {
            return Ok(*known);
        }
        let next = self.writers.len();
        if next == WRITERS_MAX {
            return Err(Limits::new(Limit::Writers, next + 1).into());
        }
        self.writers.insert(writer, next as u16);
        Ok(next as u16)
    }

    fn begin_block(&mut self, first: &[u8]) {
        self.block_at = self.run.len();
        self.separator.clear();
        if let Some(before) = &self.summary {
            self.separator
                .extend_from_slice(index::separator(&before.last, first));
        }
    }

    fn end_block(&mut self) {
        block::end(&self.begins, &mut self.run);
        self.begins.clear();
        self.run.resize(self.run.len() + TAG_BYTES, 0);
        let sealed = (self.run.len() - self.block_at) as u32;
        index::push(sealed, &self.separator, &mut self.index);
        self.ends.push(self.run.len());
    }

    fn count(&mut self, cell: &Cell<'_>) {
        let clock = cell.version.clock;
        let summary = self
            .summary
            .get_or_insert_with(|| Summary::begin(cell.key, clock));
        summary.count(cell);
    }
}

/// Writers by the number under which cells name them.
fn in_order(writers: &BTreeMap<WriterId, u16>) -> Vec<WriterId> {
    let mut numbered: Vec<_> = writers.iter().map(|(writer, at)| (*at, *writer)).collect();
    numbered.sort_unstable();
    numbered.into_iter().map(|(_, writer)| writer).collect()
}
