//! `wasi:keyvalue` 0.2.0-draft, which came before draft2: cursors are numbers, sums have no sign, nothing is swapped.
//!
//! What this version cannot say is refused, never bent: a place in a listing that this request was not told of, a sum
//! below zero, a step beyond what a number under a key can be.

use std::collections::VecDeque;

use wasmtime::component::Resource;

use super::{Bucket, Pair, Refused, Result};
use crate::bindings::draft::wasi::keyvalue::{atomics, batch, store};
use crate::guest::Guest;
use crate::{BucketId, KvError, World};

impl store::Host for Guest {
    fn open(&mut self, name: String) -> Result<Resource<Bucket>> {
        self.open_bucket(&name)
    }

    fn convert_error(&mut self, refused: Refused) -> wasmtime::Result<store::Error> {
        Ok(match refused.said()? {
            KvError::NoSuchStore => store::Error::NoSuchStore,
            KvError::AccessDenied => store::Error::AccessDenied,
            KvError::Other(words) => store::Error::Other(words),
        })
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
        cursor: Option<u64>,
    ) -> Result<store::KeyResponse> {
        self.enter(0)?;
        let bucket = self.bucket(&bucket)?;
        let place = match cursor {
            Some(number) => Some(self.cursors.find(bucket, number)?),
            None => None,
        };
        let page = self.page(bucket, place.as_deref())?;
        let place = page.cursor;
        let next = place.map(|place| self.cursors.give(bucket, place, &mut *self.world));
        Ok(store::KeyResponse {
            keys: page.keys,
            cursor: next,
        })
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.take(bucket)?;
        Ok(())
    }
}

impl atomics::Host for Guest {
    fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Result<u64> {
        self.enter(key.len())?;
        let bucket = self.bucket(&bucket)?;
        // Not the world's increment, which has gone below zero when this version learns that it cannot say so.
        loop {
            self.in_time()?;
            let seen = self.world.get_for_swap(bucket, &key)?;
            let sum = sum(seen.value.as_deref(), delta)?;
            let text = sum.to_string().into_bytes();
            if self.world.swap(bucket, &key, &seen.token, text)? {
                return Ok(sum.unsigned_abs());
            }
        }
    }
}

/// The number that a value is (`spec/07 §6`: decimal text), and `delta` more; neither below zero nor beyond 2^63 − 1.
fn sum(value: Option<&[u8]>, delta: u64) -> Result<i64> {
    let text = value.map_or(Ok("0"), str::from_utf8);
    let number = text.ok().and_then(|text| {
        let number: i64 = text.parse().ok()?;
        (number.to_string() == text).then_some(number)
    });
    let Some(number) = number else {
        return Err(KvError::Other("the value is no decimal number of 64 bits".to_owned()).into());
    };
    match number.checked_add_unsigned(delta) {
        Some(sum @ 0..) => Ok(sum),
        Some(_) => Err(KvError::unsupported("the number is below zero; use 0.2.0-draft2").into()),
        None => Err(KvError::unsupported("numbers end at 2^63 - 1").into()),
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

/// The places in listings that a request was told of, by number.
///
/// Numbers count up from a random one, so that a cursor that somebody kept from an earlier request is refused instead of
/// meaning another place. They are below 2^53: languages whose integers are doubles can hold them.
#[derive(Default)]
pub(crate) struct Cursors {
    newest: Option<u64>,
    kept: VecDeque<(u64, BucketId, String)>,
}

impl Cursors {
    fn find(&self, bucket: BucketId, number: u64) -> Result<String> {
        let mut kept = self.kept.iter();
        let found = kept.find(|(known, of, _)| (*known, *of) == (number, bucket));
        let unknown =
            "a cursor is good in the request that was given it, while it is among its newest 64";
        let found = found.ok_or_else(|| KvError::unsupported(unknown))?;
        Ok(found.2.clone())
    }

    fn give(&mut self, bucket: BucketId, place: String, world: &mut dyn World) -> u64 {
        let number = self
            .newest
            .map_or_else(|| first(world), |newest| newest + 1);
        self.newest = Some(number);
        if self.kept.len() == CURSORS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((number, bucket, place));
        number
    }
}

fn first(world: &mut dyn World) -> u64 {
    let mut random = [0; 8];
    world.random(&mut random);
    u64::from_le_bytes(random) >> 12
}

/// Cursors that are remembered: a listing needs one at a time, and some listings are made side by side.
const CURSORS_MAX: usize = 64;
