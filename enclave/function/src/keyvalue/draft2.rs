//! `wasi:keyvalue` 0.2.0-draft2: the version of `wit/`, with compare-and-swap.

use wasmtime::component::Resource;

use super::{Bucket, Pair, Refused, Result, Swap};
use crate::bindings::wasi::keyvalue::{atomics, batch, store};
use crate::guest::Guest;
use crate::{BucketId, KvError};

impl Guest {
    /// Reads a key for a swap; whoever calls it has counted the call.
    fn see(&mut self, bucket: BucketId, key: String) -> Result<Resource<Swap>> {
        let seen = self.world.get_for_swap(bucket, &key)?;
        self.carry(seen.value.as_ref().map_or(0, Vec::len))?;
        Ok(self.keep(Swap { bucket, key, seen })?)
    }
}

impl store::Host for Guest {
    fn open(&mut self, name: String) -> Result<Resource<Bucket>> {
        self.open_bucket(&name)
    }

    fn convert_error(&mut self, refused: Refused) -> wasmtime::Result<store::Error> {
        Ok(refused.said()?.into())
    }
}

impl store::HostBucket for Guest {
    fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>> {
        self.read(&bucket, &key)
    }

    fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<()> {
        self.write(&bucket, &key, value)
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<()> {
        self.remove(&bucket, &key)
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool> {
        self.has(&bucket, &key)
    }

    fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Result<store::KeyResponse> {
        self.enter(cursor.as_ref().map_or(0, String::len))?;
        let bucket = self.bucket(&bucket)?;
        let page = self.page(bucket, cursor.as_deref())?;
        Ok(store::KeyResponse {
            keys: page.keys,
            cursor: page.cursor,
        })
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.take(bucket)?;
        Ok(())
    }
}

impl atomics::Host for Guest {
    fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Result<i64> {
        self.add(&bucket, &key, delta)
    }

    fn swap(
        &mut self,
        cas: Resource<Swap>,
        value: Vec<u8>,
    ) -> wasmtime::Result<std::result::Result<(), atomics::CasError>> {
        self.enter(value.len())?;
        let Swap { bucket, key, seen } = self.take(cas)?;
        let swapped = self.world.swap(bucket, &key, &seen.token, value);
        let lost = match swapped {
            Ok(true) => return Ok(Ok(())),
            // The proposal: the new handle has been updated to the latest version.
            Ok(false) => self.see(bucket, key),
            Err(error) => Err(error.into()),
        };
        Ok(Err(match lost {
            Ok(newer) => atomics::CasError::CasFailed(newer),
            Err(refused) => atomics::CasError::StoreError(refused.said()?.into()),
        }))
    }
}

impl atomics::HostCas for Guest {
    fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Resource<Swap>> {
        self.enter(key.len())?;
        let bucket = self.bucket(&bucket)?;
        self.see(bucket, key)
    }

    fn current(&mut self, cas: Resource<Swap>) -> Result<Option<Vec<u8>>> {
        self.enter(0)?;
        let bytes = self.look(&cas)?.seen.value.as_ref().map_or(0, Vec::len);
        self.carry(bytes)?;
        Ok(self.look(&cas)?.seen.value.clone())
    }

    fn drop(&mut self, cas: Resource<Swap>) -> wasmtime::Result<()> {
        self.take(cas)?;
        Ok(())
    }
}

impl batch::Host for Guest {
    fn get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<Vec<Pair>> {
        self.read_many(&bucket, keys)
    }

    fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Result<()> {
        self.write_many(&bucket, pairs)
    }

    fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<()> {
        self.remove_many(&bucket, &keys)
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
