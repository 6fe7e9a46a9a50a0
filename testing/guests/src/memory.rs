//! A world in memory: buckets that requests share, one [`World`] for each request.
//!
//! Always true: atomic operations are atomic among all requests, as of a linearizable bucket; on an eventual one they are
//! refused. Pages of keys are short, so that whoever lists must turn them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bield_envelope::Time;
use bield_function::{
    BucketId, CasToken, KeyPage, KvError, Level, ModelId, NnError, NnErrorKind, Seen, World,
};
use bield_package::tensor::Tensor;

/// What runs the models of a world: name and inputs to outputs.
pub type Models = dyn Fn(&str, Vec<Tensor>) -> Result<Vec<Tensor>, NnError> + Send + Sync;

/// Buckets that outlive requests.
#[derive(Clone)]
pub struct Buckets {
    names: Arc<[(String, bool)]>,
    models: Arc<[String]>,
    run: Arc<Models>,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    values: BTreeMap<(u32, String), (u64, Vec<u8>)>,
    writes: u64,
    lines: Vec<String>,
}

impl Buckets {
    /// Empty buckets with these names, each with whether it has atomic operations.
    #[must_use]
    pub fn new(buckets: &[(&str, bool)]) -> Self {
        Self {
            names: buckets
                .iter()
                .map(|(name, atomic)| ((*name).to_owned(), *atomic))
                .collect(),
            models: Arc::new([]),
            run: Arc::new(|name, _| Err(NnError::new(NnErrorKind::NotFound, name))),
            kept: Arc::default(),
        }
    }

    /// Adds one model.
    #[must_use]
    pub fn with_model(mut self, name: &str, run: Arc<Models>) -> Self {
        self.models = Arc::new([name.to_owned()]);
        self.run = run;
        self
    }

    /// The world of one request.
    #[must_use]
    pub fn request(&self) -> OneRequest {
        OneRequest(self.clone())
    }

    /// Keys and values of a bucket, as they stand now.
    #[must_use]
    pub fn contents(&self, bucket: &str) -> BTreeMap<String, Vec<u8>> {
        let at = self.names.iter().position(|(name, _)| name == bucket);
        let kept = self.kept();
        let values = kept.values.iter();
        let of_bucket = values.filter(|((of, _), _)| usize::try_from(*of).ok() == at);
        of_bucket
            .map(|((_, key), (_, value))| (key.clone(), value.clone()))
            .collect()
    }

    /// What functions logged.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.kept().lines.clone()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn atomic(&self, bucket: BucketId) -> Result<(), KvError> {
        let atomic = self
            .names
            .get(bucket.0 as usize)
            .is_some_and(|(_, atomic)| *atomic);
        atomic
            .then_some(())
            .ok_or_else(|| KvError::unsupported("the bucket is eventual"))
    }
}

/// What one request sees.
pub struct OneRequest(Buckets);

impl World for OneRequest {
    fn now(&self) -> Time {
        Time::from_secs(1_800_000_000)
    }

    fn random(&mut self, bytes: &mut [u8]) {
        bytes.fill(7);
    }

    fn log(&mut self, level: Level, line: &str) {
        self.0.kept().lines.push(format!("{level:?} {line}"));
    }

    fn open(&mut self, bucket: &str) -> Result<BucketId, KvError> {
        let at = self.0.names.iter().position(|(name, _)| name == bucket);
        let at = at.and_then(|at| u32::try_from(at).ok());
        at.map(BucketId).ok_or(KvError::NoSuchStore)
    }

    fn get(&mut self, bucket: BucketId, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.get_seen(bucket, key).value)
    }

    fn set(&mut self, bucket: BucketId, key: &str, value: Vec<u8>) -> Result<(), KvError> {
        self.0.kept().set(bucket, key, value);
        Ok(())
    }

    fn delete(&mut self, bucket: BucketId, key: &str) -> Result<(), KvError> {
        self.0.kept().values.remove(&(bucket.0, key.to_owned()));
        Ok(())
    }

    fn exists(&mut self, bucket: BucketId, key: &str) -> Result<bool, KvError> {
        Ok(self.get(bucket, key)?.is_some())
    }

    fn list_keys(&mut self, bucket: BucketId, cursor: Option<&str>) -> Result<KeyPage, KvError> {
        let kept = self.0.kept();
        let from = (bucket.0, cursor.unwrap_or_default().to_owned());
        let of_bucket = kept
            .values
            .range(from..)
            .take_while(|((of, _), _)| *of == bucket.0);
        let mut keys: Vec<String> = of_bucket
            .map(|((_, key), _)| key.clone())
            .take(PAGE + 1)
            .collect();
        let cursor = keys.get(PAGE).cloned();
        keys.truncate(PAGE);
        Ok(KeyPage { keys, cursor })
    }

    fn increment(&mut self, bucket: BucketId, key: &str, delta: i64) -> Result<i64, KvError> {
        self.0.atomic(bucket)?;
        let mut kept = self.0.kept();
        let text = kept
            .values
            .get(&(bucket.0, key.to_owned()))
            .map_or(&b"0"[..], |(_, value)| value);
        let number = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse::<i64>().ok());
        let sum = number.and_then(|number| number.checked_add(delta));
        let sum = sum.ok_or_else(|| KvError::Other("no number, or too large a sum".to_owned()))?;
        kept.set(bucket, key, sum.to_string().into_bytes());
        Ok(sum)
    }

    fn get_for_swap(&mut self, bucket: BucketId, key: &str) -> Result<Seen, KvError> {
        self.0.atomic(bucket)?;
        Ok(self.get_seen(bucket, key))
    }

    fn swap(
        &mut self,
        bucket: BucketId,
        key: &str,
        token: &CasToken,
        value: Vec<u8>,
    ) -> Result<bool, KvError> {
        self.0.atomic(bucket)?;
        let mut kept = self.0.kept();
        let same = kept.token(bucket, key) == *token;
        if same {
            kept.set(bucket, key, value);
        }
        Ok(same)
    }

    fn set_many(&mut self, bucket: BucketId, pairs: Vec<(String, Vec<u8>)>) -> Result<(), KvError> {
        pairs
            .into_iter()
            .try_for_each(|(key, value)| self.set(bucket, &key, value))
    }

    fn delete_many(&mut self, bucket: BucketId, keys: &[String]) -> Result<(), KvError> {
        keys.iter().try_for_each(|key| self.delete(bucket, key))
    }

    fn load_model(&mut self, name: &str) -> Result<ModelId, NnError> {
        let at = self.0.models.iter().position(|model| model == name);
        let at = at.and_then(|at| u32::try_from(at).ok());
        at.map(ModelId)
            .ok_or_else(|| NnError::new(NnErrorKind::NotFound, "no such model"))
    }

    fn compute(&mut self, model: ModelId, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, NnError> {
        let name = self
            .0
            .models
            .get(model.0 as usize)
            .map_or("", String::as_str);
        (self.0.run)(name, inputs)
    }
}

impl OneRequest {
    fn get_seen(&self, bucket: BucketId, key: &str) -> Seen {
        let kept = self.0.kept();
        let found = kept.values.get(&(bucket.0, key.to_owned()));
        Seen {
            value: found.map(|(_, value)| value.clone()),
            token: kept.token(bucket, key),
        }
    }
}

impl Kept {
    fn set(&mut self, bucket: BucketId, key: &str, value: Vec<u8>) {
        self.writes += 1;
        self.values
            .insert((bucket.0, key.to_owned()), (self.writes, value));
    }

    fn token(&self, bucket: BucketId, key: &str) -> CasToken {
        let write = self
            .values
            .get(&(bucket.0, key.to_owned()))
            .map_or(0, |(write, _)| *write);
        CasToken(write.to_le_bytes().to_vec())
    }
}

/// Keys on one page.
const PAGE: usize = 3;
