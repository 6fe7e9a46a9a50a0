//! A state as a runtime holds it, and the world of one request on it.
//!
//! ```text
//! guest ─▶ TableWorld ─▶ bield_state::Request ─▶ table, log ─▶ files of a real folder
//! ```
//!
//! Always true: reads and writes take the way that they take in `bield-runtime` (its world reaches models as well, and
//! is not for others to make): bucket by its number, one lock for the request, the state. The log is sealed, signed and
//! written beside the requests; the bucket is linearizable and promises memory only, so nobody waits for a disk.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bield_capsule::{
    Change as Configured, GenerationKey, KeyRing, Metadata, Suite, VerifierPolicy, Writer,
    WriterCertificate, WriterKey,
};
use bield_envelope::{Signed, SigningKey, Time};
use bield_function::{
    BucketId, CasToken, KeyPage, KvError, Level, ModelId, NnError, NnErrorKind, Seen, World,
};
use bield_package::tensor::Tensor;
use bield_sdk::{Randomness, now};
use bield_state::{
    Author, Bucket, Change, Clocks, Consistency, Durability, Entropy, Opening, Request, Settings,
    State, StateError,
};
use tempfile::TempDir;

use crate::keys::Disk;

/// Keys and values that are there from the begin, as many as the paper's benchmark has.
pub(super) const RECORDS: u32 = 2000;
/// How long the hold lasts: longer than a run.
const HELD: Duration = Duration::from_secs(86_400);

/// A state that serves; its folder goes away with it.
pub(super) struct Table {
    state: State,
    buckets: Vec<Bucket>,
    _folder: TempDir,
}

impl Table {
    /// Makes a state with these buckets, and fills the first of them.
    pub(super) fn open(folder: &Path, names: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir_in(folder)?;
        let buckets: Vec<Bucket> = names.iter().map(|name| bucket(name)).collect();
        let state = State::open(opening(folder.path(), &buckets)?)?;
        let table = Self {
            state,
            buckets,
            _folder: folder,
        };
        let keys: Vec<String> = (0..RECORDS).map(key).collect();
        let mut request = table.state.request(&[])?;
        for keys in keys.chunks(100) {
            let sets = keys.iter().map(|key| Change::Set {
                key: key.as_bytes(),
                value: VALUE,
                expires: None,
            });
            request.write(&table.buckets[0], &sets.collect::<Vec<_>>())?;
        }
        request.finish()?;
        Ok(table)
    }

    /// Begins a request; its world, and what is left of it when its guest is gone.
    pub(super) fn begin(&self) -> Result<(Box<TableWorld>, Left)> {
        let left = Left(Arc::new(Mutex::new(Some(self.state.request(&[])?))));
        let world = TableWorld {
            declared: self.buckets.clone(),
            open: Vec::new(),
            left: left.clone(),
        };
        Ok((Box::new(world), left))
    }
}

/// What a guest leaves of its request.
#[derive(Clone)]
pub(super) struct Left(Arc<Mutex<Option<Request>>>);

impl Left {
    /// Ends the request as a runtime does before it answers.
    pub(super) fn finish(&self) -> Result<()> {
        let request = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        request.context("a request ends once")?.finish()?;
        Ok(())
    }
}

/// Key number `number`, as the guest in `calls.wat` spells it.
pub(super) fn key(number: u32) -> String {
    let digit = |shift: u32| char::from(b'0' + (number >> shift & 31) as u8);
    match number >> 10 {
        0 => format!("k0{}{}", digit(5), digit(0)),
        more => format!("k{more}{}{}", digit(5), digit(0)),
    }
}

fn bucket(name: &str) -> Bucket {
    Bucket {
        name: name.to_owned(),
        consistency: Consistency::Linearizable,
        durability: Durability::Memory,
    }
}

fn opening(folder: &Path, buckets: &[Bucket]) -> Result<Opening> {
    let (entropy, begun) = (&mut Randomness, now());
    let owner = WriterKey::generate(Suite::Ed25519, entropy);
    let metadata = Metadata::new(owner.public(), None, begun, entropy)?;
    let service = SigningKey::generate(entropy);
    let generation = GenerationKey::generate(1, entropy);
    let changes = [
        Configured::Certify(service.principal()),
        Configured::Generation {
            number: 1,
            commitment: generation.commitment(&metadata),
        },
    ];
    let (_, config) = Writer::owner(owner, &metadata, &changes, begun)?;
    let mut keys = KeyRing::new();
    keys.insert(generation)?;
    let key = WriterKey::generate(Suite::Ed25519, entropy);
    let certificate = WriterCertificate {
        capsule: metadata.name(),
        writer: key.id(),
        code: None,
        simulated: false,
        not_before: begun,
        not_after: begun.plus(HELD),
    };
    let certificate = Signed::sign(&service, certificate).as_bytes().to_vec();
    let entropy = || -> Entropy { Box::new(Randomness) };
    Ok(Opening {
        metadata,
        config: vec![config.into_bytes()],
        keys,
        policy: VerifierPolicy::default(),
        author: Author {
            key,
            certificate: Some(certificate),
        },
        token: 1,
        held: HELD,
        anchored: Vec::new(),
        buckets: buckets.to_vec(),
        files: Box::new(Disk::unsynced(folder)),
        reads: Box::new(Disk::unsynced(folder)),
        clocks: Arc::new(Machine(Instant::now())),
        entropy: [entropy(), entropy()],
        settings: Settings::default(),
    })
}

struct Machine(Instant);

impl Clocks for Machine {
    fn now(&self) -> Time {
        now()
    }

    fn running(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The world of one request.
pub(super) struct TableWorld {
    declared: Vec<Bucket>,
    open: Vec<Bucket>,
    left: Left,
}

impl TableWorld {
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

    fn get_many(&mut self, _: BucketId, _: &[String]) -> Result<Vec<Option<Vec<u8>>>, KvError> {
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

const VALUE: &[u8] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_ones_that_the_guest_asks_for() {
        assert_eq!(key(0), "k000");
        assert_eq!(key(33), "k011");
        assert_eq!(key(1023), "k0OO");
        assert_eq!(key(1024), "k100");
    }
}
