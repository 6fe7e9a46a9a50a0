//! The world of one request of a function: its buckets over a state.
//!
//! ```text
//! guest ─▶ TableWorld ─▶ bield_state::Request ─▶ table, log
//! ```
//!
//! Always true: reads and writes take the way that they take in `bield-runtime` (its world reaches models as well, and
//! is not for others to make): bucket by its number, one lock for the request, the state.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bield_envelope::Time;
use bield_function::{
    BucketId, CasToken, KeyPage, KvError, Level, ModelId, NnError, NnErrorKind, Seen, World,
};
use bield_package::tensor::Tensor;
use bield_state::{Bucket, Change, Request, State, StateError};

/// What a guest leaves of its request.
#[derive(Clone)]
pub(crate) struct Left(Arc<Mutex<Option<Request>>>);

impl Left {
    /// Ends the request as a runtime does before it answers.
    pub(crate) fn finish(&self) -> Result<()> {
        let request = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        request.context("a request ends once")?.finish()?;
        Ok(())
    }
}

/// The world of one request.
pub(crate) struct TableWorld {
    declared: Vec<Bucket>,
    open: Vec<Bucket>,
    left: Left,
}

impl TableWorld {
    /// Begins a request of a state; its world, and what is left of it when its guest is gone.
    pub(crate) fn begin(state: &State, buckets: &[Bucket]) -> Result<(Box<Self>, Left)> {
        let left = Left(Arc::new(Mutex::new(Some(state.request(&[])?))));
        let world = Self {
            declared: buckets.to_vec(),
            open: Vec::new(),
            left: left.clone(),
        };
        Ok((Box::new(world), left))
    }

    fn bucket(&self, id: BucketId) -> Result<&Bucket, KvError> {
        self.open.get(id.0 as usize).ok_or(KvError::NoSuchStore)
    }

    fn with<T>(
        &self,
        act: impl FnOnce(&mut Request) -> Result<T, StateError>,
    ) -> Result<T, KvError> {
        let mut left = self.left.0.lock().unwrap_or_else(PoisonError::into_inner);
        let request = left.as_mut().ok_or(KvError::NoSuchStore)?;
        act(request).map_err(|error| KvError::Other(error.to_string()))
    }
}

impl World for TableWorld {
    fn now(&self) -> Time {
        Time::from_secs(1_800_000_000)
    }

    fn random(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn log(&mut self, _: Level, _: &str) {}

    fn open(&mut self, bucket: &str) -> Result<BucketId, KvError> {
        let declared = self.declared.iter().find(|known| known.name == bucket);
        self.open
            .push(declared.ok_or(KvError::NoSuchStore)?.clone());
        u32::try_from(self.open.len() - 1)
            .map(BucketId)
            .map_err(|_| KvError::NoSuchStore)
    }

    fn get(&mut self, bucket: BucketId, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        let bucket = self.bucket(bucket)?;
        let found = self.with(|state| state.get(bucket, key.as_bytes()))?;
        Ok(found.map(|found| found.value.to_vec()))
    }

    fn set(&mut self, bucket: BucketId, key: &str, value: Vec<u8>) -> Result<(), KvError> {
        let bucket = self.bucket(bucket)?;
        let set = Change::Set {
            key: key.as_bytes(),
            value: &value,
            expires: None,
        };
        self.with(|state| state.write(bucket, &[set]))
    }

    fn delete(&mut self, bucket: BucketId, key: &str) -> Result<(), KvError> {
        let bucket = self.bucket(bucket)?;
        let key = key.as_bytes();
        self.with(|state| state.write(bucket, &[Change::Delete { key }]))
    }

    fn exists(&mut self, bucket: BucketId, key: &str) -> Result<bool, KvError> {
        let bucket = self.bucket(bucket)?;
        self.with(|state| state.exists(bucket, key.as_bytes()))
    }

    fn list_keys(&mut self, _: BucketId, _: Option<&str>) -> Result<KeyPage, KvError> {
        Err(KvError::unsupported("not measured here"))
    }

    fn increment(&mut self, bucket: BucketId, key: &str, delta: i64) -> Result<i64, KvError> {
        let bucket = self.bucket(bucket)?;
        self.with(|state| state.increment(bucket, key.as_bytes(), delta))
    }

    fn get_for_swap(&mut self, _: BucketId, _: &str) -> Result<Seen, KvError> {
        Err(KvError::unsupported("not measured here"))
    }

    fn swap(&mut self, _: BucketId, _: &str, _: &CasToken, _: Vec<u8>) -> Result<bool, KvError> {
        Err(KvError::unsupported("not measured here"))
    }

    fn set_many(&mut self, _: BucketId, _: Vec<(String, Vec<u8>)>) -> Result<(), KvError> {
        Err(KvError::unsupported("not measured here"))
    }

    fn delete_many(&mut self, _: BucketId, _: &[String]) -> Result<(), KvError> {
        Err(KvError::unsupported("not measured here"))
    }

    fn load_model(&mut self, _: &str) -> Result<ModelId, NnError> {
        Err(NnError::new(NnErrorKind::NotFound, "no such model"))
    }

    fn compute(&mut self, _: ModelId, _: Vec<Tensor>) -> Result<Vec<Tensor>, NnError> {
        Err(NnError::new(NnErrorKind::NotFound, "no such model"))
    }
}
