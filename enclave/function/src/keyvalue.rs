//! `wasi:keyvalue` over a [`World`](crate::World): what its two versions have in common.
//!
//! ```text
//! 0.2.0-draft2 ── keyvalue/draft2.rs ─┐
//!                                     ├─▶ counted, handles looked up ─▶ World
//! 0.2.0-draft ─── keyvalue/draft.rs ──┘
//! ```
//!
//! Always true: both are the same buckets, keys and numbers; a function may import either, or both.
//!
//! On paper: a value that is read is copied twice, out of the table and into the guest; one that is written once into
//! the host, which passes it on.
#![expect(
    unreachable_pub,
    reason = "the generated bindings export the types of handles"
)]

mod draft;
mod draft2;

use wasmtime::component::Resource;

use crate::guest::Guest;
use crate::{BucketId, KeyPage, KvError, Seen, Stopped};

pub(crate) use draft::Cursors;

/// An open bucket.
pub struct Bucket(BucketId);

/// A key as it was read for a swap.
pub struct Swap {
    bucket: BucketId,
    key: String,
    seen: Seen,
}

/// Why a call has no result: the guest reads the one, the other ends it.
pub enum Refused {
    /// The world's answer.
    Said(KvError),
    /// The request is over.
    Ended(Stopped),
}

impl From<KvError> for Refused {
    fn from(error: KvError) -> Self {
        Self::Said(error)
    }
}

impl From<Stopped> for Refused {
    fn from(stopped: Stopped) -> Self {
        Self::Ended(stopped)
    }
}

impl Refused {
    /// What the guest reads; an end is the engine's.
    fn said(self) -> wasmtime::Result<KvError> {
        match self {
            Self::Said(error) => Ok(error),
            Self::Ended(stopped) => Err(stopped.into()),
        }
    }
}

type Result<T> = std::result::Result<T, Refused>;

impl Guest {
    fn bucket(&self, handle: &Resource<Bucket>) -> Result<BucketId> {
        Ok(self.look(handle)?.0)
    }

    fn open_bucket(&mut self, name: &str) -> Result<Resource<Bucket>> {
        self.enter(name.len())?;
        let bucket = self.world.open(name)?;
        Ok(self.keep(Bucket(bucket))?)
    }

    fn read(&mut self, bucket: &Resource<Bucket>, key: &str) -> Result<Option<Vec<u8>>> {
        self.enter(key.len())?;
        let bucket = self.bucket(bucket)?;
        let value = self.world.get(bucket, key)?;
        self.carry(value.as_ref().map_or(0, Vec::len))?;
        Ok(value)
    }

    fn write(&mut self, bucket: &Resource<Bucket>, key: &str, value: Vec<u8>) -> Result<()> {
        self.enter(key.len() + value.len())?;
        let bucket = self.bucket(bucket)?;
        Ok(self.world.set(bucket, key, value)?)
    }

    fn remove(&mut self, bucket: &Resource<Bucket>, key: &str) -> Result<()> {
        self.enter(key.len())?;
        let bucket = self.bucket(bucket)?;
        Ok(self.world.delete(bucket, key)?)
    }

    fn has(&mut self, bucket: &Resource<Bucket>, key: &str) -> Result<bool> {
        self.enter(key.len())?;
        let bucket = self.bucket(bucket)?;
        Ok(self.world.exists(bucket, key)?)
    }

    /// One page; whoever calls it has counted the call.
    fn page(&mut self, bucket: BucketId, cursor: Option<&str>) -> Result<KeyPage> {
        let page = self.world.list_keys(bucket, cursor)?;
        let lengths = page.keys.iter().map(|key| key.len() + LIST_ITEM_BYTES);
        self.carry(lengths.sum())?;
        Ok(page)
    }

    fn add(&mut self, bucket: &Resource<Bucket>, key: &str, delta: i64) -> Result<i64> {
        self.enter(key.len())?;
        let bucket = self.bucket(bucket)?;
        Ok(self.world.increment(bucket, key, delta)?)
    }

    fn read_many(&mut self, bucket: &Resource<Bucket>, keys: Vec<String>) -> Result<Vec<Pair>> {
        self.enter(keys.iter().map(|key| key.len() + LIST_ITEM_BYTES).sum())?;
        let bucket = self.bucket(bucket)?;
        // One by one: the same key a million times over is a million values.
        let read = |key: String| -> Result<Pair> {
            self.in_time()?;
            let value = self.world.get(bucket, &key)?;
            let bytes = value.as_ref().map_or(0, |value| key.len() + value.len());
            self.carry(bytes + LIST_ITEM_BYTES)?;
            Ok(value.map(|value| (key, value)))
        };
        keys.into_iter().map(read).collect()
    }

    fn write_many(
        &mut self,
        bucket: &Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<()> {
        let bytes = |(key, value): &(String, Vec<u8>)| key.len() + value.len() + LIST_ITEM_BYTES;
        self.enter(pairs.iter().map(bytes).sum())?;
        let bucket = self.bucket(bucket)?;
        Ok(self.world.set_many(bucket, pairs)?)
    }

    fn remove_many(&mut self, bucket: &Resource<Bucket>, keys: &[String]) -> Result<()> {
        self.enter(keys.iter().map(|key| key.len() + LIST_ITEM_BYTES).sum())?;
        let bucket = self.bucket(bucket)?;
        Ok(self.world.delete_many(bucket, keys)?)
    }
}

/// A key with its value, if it has one.
type Pair = Option<(String, Vec<u8>)>;

/// What an item of a list costs beside its bytes, so that empty ones are not free.
const LIST_ITEM_BYTES: usize = 16;
