//! `wasi:keyvalue` 0.2.0-draft2 over a [`World`](crate::World).
//!
//! On paper: a value that is read is copied twice, out of the table and into the guest; one that is written once into
//! the host, which passes it on.
#![expect(
    unreachable_pub,
    reason = "the generated bindings export the types of handles"
)]

use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::wasi::keyvalue::{atomics, batch, store};
use crate::guest::Guest;
use crate::{BucketId, KvError, Seen};

/// An open bucket.
pub struct Bucket(BucketId);

/// A key as it was read for a swap.
pub struct Swap {
    bucket: BucketId,
    key: String,
    seen: Seen,
}

impl Guest {
    fn bucket(&self, handle: &Resource<Bucket>) -> Result<BucketId> {
        Ok(self.look(handle)?.0)
    }

    fn see(
        &mut self,
        bucket: BucketId,
        key: String,
    ) -> Result<Result<Resource<Swap>, store::Error>> {
        let seen = match self.world.get_for_swap(bucket, &key) {
            Ok(seen) => seen,
            Err(error) => return Ok(Err(error.into())),
        };
        self.carry(seen.value.as_ref().map_or(0, Vec::len))?;
        Ok(Ok(self.keep(Swap { bucket, key, seen })?))
    }
}

impl store::Host for Guest {
    fn open(&mut self, name: String) -> Result<Result<Resource<Bucket>, store::Error>> {
        self.enter(name.len())?;
        match self.world.open(&name) {
            Ok(bucket) => Ok(Ok(self.keep(Bucket(bucket))?)),
            Err(error) => Ok(Err(error.into())),
        }
    }
}

impl store::HostBucket for Guest {
    fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Result<Option<Vec<u8>>, store::Error>> {
        self.enter(key.len())?;
        let bucket = self.bucket(&bucket)?;
        let read = self.world.get(bucket, &key);
        if let Ok(Some(value)) = &read {
            self.carry(value.len())?;
        }
        Ok(read.map_err(Into::into))
    }

    fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> Result<Result<(), store::Error>> {
        self.enter(key.len() + value.len())?;
        let bucket = self.bucket(&bucket)?;
        Ok(self.world.set(bucket, &key, value).map_err(Into::into))
    }

    fn delete(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Result<(), store::Error>> {
        self.enter(key.len())?;
        let bucket = self.bucket(&bucket)?;
        Ok(self.world.delete(bucket, &key).map_err(Into::into))
    }

    fn exists(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Result<bool, store::Error>> {
        self.enter(key.len())?;
        let bucket = self.bucket(&bucket)?;
        Ok(self.world.exists(bucket, &key).map_err(Into::into))
    }

    fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Result<Result<store::KeyResponse, store::Error>> {
        self.enter(cursor.as_ref().map_or(0, String::len))?;
        let bucket = self.bucket(&bucket)?;
        let page = match self.world.list_keys(bucket, cursor.as_deref()) {
            Ok(page) => page,
            Err(error) => return Ok(Err(error.into())),
        };
        self.carry(
            page.keys
                .iter()
                .map(|key| key.len() + LIST_ITEM_BYTES)
                .sum(),
        )?;
        Ok(Ok(store::KeyResponse {
            keys: page.keys,
            cursor: page.cursor,
        }))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> Result<()> {
        self.take(bucket)?;
        Ok(())
    }
}

impl atomics::Host for Guest {
    fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> Result<Result<i64, store::Error>> {
        self.enter(key.len())?;
        let bucket = self.bucket(&bucket)?;
        let sum = self.world.increment(bucket, &key, delta);
        Ok(sum.map_err(Into::into))
    }

    fn swap(
        &mut self,
        cas: Resource<Swap>,
        value: Vec<u8>,
    ) -> Result<Result<(), atomics::CasError>> {
        self.enter(value.len())?;
        let Swap { bucket, key, seen } = self.take(cas)?;
        match self.world.swap(bucket, &key, &seen.token, value) {
            Ok(true) => Ok(Ok(())),
            Err(error) => Ok(Err(atomics::CasError::StoreError(error.into()))),
            // The proposal: the new handle has been updated to the latest version.
            Ok(false) => Ok(Err(match self.see(bucket, key)? {
                Ok(newer) => atomics::CasError::CasFailed(newer),
                Err(error) => atomics::CasError::StoreError(error),
            })),
        }
    }
}

impl atomics::HostCas for Guest {
    fn new(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Result<Result<Resource<Swap>, store::Error>> {
        self.enter(key.len())?;
        let bucket = self.bucket(&bucket)?;
        self.see(bucket, key)
    }

    fn current(&mut self, cas: Resource<Swap>) -> Result<Result<Option<Vec<u8>>, store::Error>> {
        self.enter(0)?;
        let bytes = self.look(&cas)?.seen.value.as_ref().map_or(0, Vec::len);
        self.carry(bytes)?;
        Ok(Ok(self.look(&cas)?.seen.value.clone()))
    }

    fn drop(&mut self, cas: Resource<Swap>) -> Result<()> {
        self.take(cas)?;
        Ok(())
    }
}

impl batch::Host for Guest {
    fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Result<Vec<Option<(String, Vec<u8>)>>, store::Error>> {
        self.enter(keys.iter().map(|key| key.len() + LIST_ITEM_BYTES).sum())?;
        let bucket = self.bucket(&bucket)?;
        let values = match self.world.get_many(bucket, &keys) {
            Ok(values) => values,
            Err(error) => return Ok(Err(error.into())),
        };
        let pairs = keys.into_iter().zip(values);
        let pairs: Vec<_> = pairs.map(|(key, value)| Some((key, value?))).collect();
        let bytes = |pair: &Option<(String, Vec<u8>)>| match pair {
            Some((key, value)) => key.len() + value.len() + LIST_ITEM_BYTES,
            None => LIST_ITEM_BYTES,
        };
        self.carry(pairs.iter().map(bytes).sum())?;
        Ok(Ok(pairs))
    }

    fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<Result<(), store::Error>> {
        let bytes = |(key, value): &(String, Vec<u8>)| key.len() + value.len() + LIST_ITEM_BYTES;
        self.enter(pairs.iter().map(bytes).sum())?;
        let bucket = self.bucket(&bucket)?;
        Ok(self.world.set_many(bucket, pairs).map_err(Into::into))
    }

    fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Result<(), store::Error>> {
        self.enter(keys.iter().map(|key| key.len() + LIST_ITEM_BYTES).sum())?;
        let bucket = self.bucket(&bucket)?;
        Ok(self.world.delete_many(bucket, &keys).map_err(Into::into))
    }
}

impl From<KvError> for store::Error {
    fn from(error: KvError) -> Self {
        match error {
            KvError::NoSuchStore => Self::NoSuchStore,
            KvError::AccessDenied => Self::AccessDenied,
            KvError::Other(words) => Self::Other(words),
        }
    }
}

/// What an item of a list costs beside its bytes, so that empty ones are not free.
const LIST_ITEM_BYTES: usize = 16;
