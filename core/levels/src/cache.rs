//! What was opened stays for a while, under one budget in bytes.
//!
//! In and out: blocks, and what finds blocks (index, filter, writers), both counted with what keeping
//! them costs. Always true: what is kept never exceeds the budget; what does not fit is used and not
//! kept. Eviction resists scans; what is evicted is wiped when its last reader is done.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use quick_cache::sync::{Cache as Quick, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};

use crate::block::Block;
use crate::run::Opened;

/// Opened parts of runs.
pub(crate) struct Cache(Quick<Name, Held, Weight, BuildHasherDefault<DefaultHasher>>);

/// A run's serial, and a block of it or [`OPENED`].
type Name = (u64, u64);

#[derive(Clone)]
enum Held {
    Opened(Arc<Opened>),
    Block(Arc<Block>),
}

impl Cache {
    /// Makes an empty one.
    pub(crate) fn new(bytes_max: u64) -> Self {
        // A shard keeps nothing larger than itself, and an index and filter may be large.
        let shards = (bytes_max / SHARD_BYTES).clamp(1, SHARDS_MAX) as usize;
        let options = OptionsBuilder::new()
            .estimated_items_capacity((bytes_max / ITEM_BYTES) as usize)
            // The library rounds up by shard.
            .weight_capacity(bytes_max - bytes_max % shards as u64)
            .shards(shards)
            .build()
            .expect("both required options are given");
        let hasher = BuildHasherDefault::new();
        let lifecycle = DefaultLifecycle::default();
        Self(Quick::with_options(options, Weight, hasher, lifecycle))
    }

    pub(crate) fn opened(&self, run: u64) -> Option<Arc<Opened>> {
        match self.0.get(&(run, OPENED))? {
            Held::Opened(opened) => Some(opened),
            Held::Block(_) => None,
        }
    }

    pub(crate) fn keep_opened(&self, run: u64, opened: &Arc<Opened>) {
        self.0.insert((run, OPENED), Held::Opened(opened.clone()));
    }

    pub(crate) fn block(&self, run: u64, number: u32) -> Option<Arc<Block>> {
        match self.0.get(&(run, number.into()))? {
            Held::Block(block) => Some(block),
            Held::Opened(_) => None,
        }
    }

    pub(crate) fn keep_block(&self, run: u64, number: u32, block: &Arc<Block>) {
        self.0
            .insert((run, number.into()), Held::Block(block.clone()));
    }

    /// Bytes it holds.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.weight()
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Name, Held> for Weight {
    fn weight(&self, _: &Name, held: &Held) -> u64 {
        let bytes = match held {
            Held::Opened(opened) => opened.bytes(),
            Held::Block(block) => block.bytes(),
        };
        bytes as u64 + KEPT_BYTES
    }
}

/// Stands where the number of a block would.
const OPENED: u64 = u64::MAX;
/// What keeping something costs beside it: its place in the cache's table, and its own header.
const KEPT_BYTES: u64 = 200;
/// Bytes of the average block.
const ITEM_BYTES: u64 = 4096;
/// Bytes of a shard from which more of them are made.
const SHARD_BYTES: u64 = 8 << 20;
/// Most shards: readers at once that do not wait for each other.
const SHARDS_MAX: u64 = 16;
