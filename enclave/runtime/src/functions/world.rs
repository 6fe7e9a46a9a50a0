//! What one request of a function reaches: its buckets, its models, its log.
//!
//! ```text
//! guest ─▶ World ─┬─ buckets ─▶ bield_state::Request ─▶ table, log
//!                 ├─ models ──▶ lease of the model's package ─▶ may this user use it? ─▶ the warm model
//!                 └─ log ─────▶ lines for the owner
//! ```
//!
//! Always true: a bucket or a model that the manifest does not name is not reached; a model runs only on behalf of the user
//! whose request this is, under a grant of the model's owner, kept apart as that grant asks; numbers are added and
//! values swapped only in linearizable buckets. Whoever waits for a model to be opened computes nothing meanwhile and has
//! given its turn back.
//!
//! Not here: limits (`bield-function`), when a write counts (`bield-state`), who may call the function (admission).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::{Principal, Time};
use bield_function::{
    BucketId, CasToken, KeyPage, KvError, Level, ModelId, NnError, NnErrorKind, Seen, World,
};
use bield_grant::{Admitted, GrantedUse, Isolation, Refused, admit_use};
use bield_package::tensor::Tensor;
use bield_package::{BucketSpec, Consistency, Durability};
use bield_platform::Randomness;
use bield_protocol::refusal::Refusal;
use bield_state::{Bucket, Change, StateError, SwapOutcome};
use bield_table::{Handle, PageLimits, TableError};
use rand_core::Rng as _;

use super::{Log, OpenFunction, Reach};
use crate::flights::lock;
use crate::keys::Keys;
use crate::models::Lent;
use crate::refusals;
use crate::turns::OwnTurn;

/// Most keys of one page of a listing, and most bytes of them.
const PAGE: PageLimits = PageLimits {
    keys: 1000,
    bytes: 1 << 20,
};
/// The base64 of a cursor is no longer than of a key.
const CURSOR_BYTES_MAX: usize = 2048;

/// What is left of a request when its guest is gone.
pub(crate) struct Left {
    pub(crate) state: Option<bield_state::Request>,
    /// Whether it changed anything.
    pub(crate) wrote: bool,
    /// The host's trouble, not the guest's: what the caller reads instead of an answer.
    pub(crate) failed: Option<Refusal>,
}

impl Left {
    /// A request that begins.
    pub(crate) const fn of(state: Option<bield_state::Request>) -> Self {
        Self {
            state,
            wrote: false,
            failed: None,
        }
    }
}

/// The world of one request.
pub(crate) struct RequestWorld {
    reach: Arc<Reach>,
    function: Arc<OpenFunction>,
    user: Principal,
    now: Time,
    until: Instant,
    turn: Option<OwnTurn>,
    left: Arc<Mutex<Left>>,
    buckets: Vec<Bucket>,
    models: Vec<(Lent, bool)>,
    log: Arc<Log>,
}

impl RequestWorld {
    /// The world of a request of `user` that began at `now`, may take until `until`, and holds `turn`.
    pub(crate) fn new(
        reach: Arc<Reach>,
        function: Arc<OpenFunction>,
        user: Principal,
        now: Time,
        until: Instant,
        turn: OwnTurn,
        left: Arc<Mutex<Left>>,
    ) -> Self {
        Self {
            log: Arc::clone(&function.log),
            reach,
            function,
            user,
            now,
            until,
            turn: Some(turn),
            left,
            buckets: Vec::new(),
            models: Vec::new(),
        }
    }

    fn bucket(&self, id: BucketId) -> Result<&Bucket, KvError> {
        self.buckets.get(id.0 as usize).ok_or(KvError::NoSuchStore)
    }

    fn atomic(&self, id: BucketId) -> Result<&Bucket, KvError> {
        let bucket = self.bucket(id)?;
        match bucket.consistency {
            bield_table::Consistency::Linearizable => Ok(bucket),
            _ => Err(KvError::unsupported(format_args!(
                "bucket {} is not linearizable; declare it so in bield.toml to add and swap in one step",
                bucket.name
            ))),
        }
    }

    fn with<T>(
        &self,
        act: impl FnOnce(&mut bield_state::Request) -> Result<T, StateError>,
    ) -> Result<T, KvError> {
        let mut left = lock(&self.left);
        let state = left.state.as_mut().ok_or(KvError::NoSuchStore)?;
        act(state).map_err(|error| {
            if !is_the_guests(&error) {
                left.failed = Some(super::states::of_files(&error));
            }
            KvError::Other(error.to_string())
        })
    }

    /// As [`with`](Self::with), for what changes something.
    fn change<T>(
        &self,
        act: impl FnOnce(&mut bield_state::Request) -> Result<T, StateError>,
    ) -> Result<T, KvError> {
        lock(&self.left).wrote = true;
        self.with(act)
    }

    fn wait(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

impl World for RequestWorld {
    fn now(&self) -> Time {
        self.now
    }

    fn random(&mut self, bytes: &mut [u8]) {
        Randomness.fill_bytes(bytes);
    }

    fn log(&mut self, level: Level, line: &str) {
        self.log.write(self.now, level, line);
    }

    fn open(&mut self, bucket: &str) -> Result<BucketId, KvError> {
        let spec = self.function.spec.bucket(bucket);
        let bucket = declared(spec.ok_or(KvError::NoSuchStore)?);
        let known = self.buckets.iter().position(|known| *known == bucket);
        let at = known.unwrap_or_else(|| {
            self.buckets.push(bucket);
            self.buckets.len() - 1
        });
        u32::try_from(at)
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
        self.change(|state| state.write(bucket, &[set]))
    }

    fn delete(&mut self, bucket: BucketId, key: &str) -> Result<(), KvError> {
        let bucket = self.bucket(bucket)?;
        let key = key.as_bytes();
        self.change(|state| state.write(bucket, &[Change::Delete { key }]))
    }

    fn exists(&mut self, bucket: BucketId, key: &str) -> Result<bool, KvError> {
        let bucket = self.bucket(bucket)?;
        self.with(|state| state.exists(bucket, key.as_bytes()))
    }

    fn list_keys(&mut self, bucket: BucketId, cursor: Option<&str>) -> Result<KeyPage, KvError> {
        let bucket = self.bucket(bucket)?;
        let none = || KvError::Other("the cursor is none that list-keys gave".to_owned());
        let after = cursor
            .map(|cursor| {
                let fits = cursor.len() <= CURSOR_BYTES_MAX;
                fits.then(|| hex::decode(cursor).ok())
                    .flatten()
                    .ok_or_else(none)
            })
            .transpose()?;
        let page = self.with(|state| state.list_keys(bucket, after.as_deref(), PAGE))?;
        let keys = page.keys.into_iter().map(String::from_utf8);
        Ok(KeyPage {
            // All were set by this function, as text.
            keys: keys.filter_map(Result::ok).collect(),
            cursor: page.after.map(hex::encode),
        })
    }

    fn increment(&mut self, bucket: BucketId, key: &str, delta: i64) -> Result<i64, KvError> {
        let bucket = self.atomic(bucket)?;
        self.change(|state| state.increment(bucket, key.as_bytes(), delta))
    }

    fn get_for_swap(&mut self, bucket: BucketId, key: &str) -> Result<Seen, KvError> {
        let bucket = self.atomic(bucket)?;
        let found = self.with(|state| state.get(bucket, key.as_bytes()))?;
        let token = CasToken(Handle::of(found.as_ref()).encode());
        Ok(Seen {
            value: found.map(|found| found.value.to_vec()),
            token,
        })
    }

    fn swap(
        &mut self,
        bucket: BucketId,
        key: &str,
        token: &CasToken,
        value: Vec<u8>,
    ) -> Result<bool, KvError> {
        let bucket = self.atomic(bucket)?;
        let seen = Handle::decode(&token.0)
            .ok_or_else(|| KvError::Other("the token is none that was given".to_owned()))?;
        let set = Change::Set {
            key: key.as_bytes(),
            value: &value,
            expires: None,
        };
        let swapped = self.change(|state| state.swap(bucket, set, seen))?;
        Ok(matches!(swapped, SwapOutcome::Done))
    }

    fn set_many(&mut self, bucket: BucketId, pairs: Vec<(String, Vec<u8>)>) -> Result<(), KvError> {
        let bucket = self.bucket(bucket)?;
        let sets = pairs.iter().map(|(key, value)| Change::Set {
            key: key.as_bytes(),
            value,
            expires: None,
        });
        let sets: Vec<_> = sets.collect();
        self.change(|state| state.write(bucket, &sets))
    }

    fn delete_many(&mut self, bucket: BucketId, keys: &[String]) -> Result<(), KvError> {
        let bucket = self.bucket(bucket)?;
        let deletes = keys.iter().map(|key| Change::Delete {
            key: key.as_bytes(),
        });
        let deletes: Vec<_> = deletes.collect();
        self.change(|state| state.write(bucket, &deletes))
    }

    fn load_model(&mut self, name: &str) -> Result<ModelId, NnError> {
        let package = self.function.spec.model(name).ok_or_else(|| {
            NnError::new(
                NnErrorKind::NotFound,
                format!("the manifest names no model {name}"),
            )
        })?;
        // What follows may wait for others, who may wait for a turn.
        self.turn = None;
        let lent = self.lend(package);
        let turn = self.reach.turns.take_own(self.user, self.wait());
        self.turn = Some(turn.map_err(|_| late())?);
        self.models.push(lent?);
        let at = u32::try_from(self.models.len() - 1);
        at.map(ModelId).map_err(|_| late())
    }

    fn compute(&mut self, model: ModelId, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, NnError> {
        let (model, apart) = self.models.get(model.0 as usize).ok_or_else(|| {
            NnError::new(NnErrorKind::InvalidArgument, "no such model".to_owned())
        })?;
        let ran = match apart {
            true => model.run_apart(&inputs, &[]),
            false => model.run_timed(&inputs, &[]),
        };
        let ran = ran.map(|(tensors, _)| tensors);
        ran.map_err(|error| NnError::new(NnErrorKind::Runtime, error.to_string()))
    }
}

impl RequestWorld {
    fn may_use(&self, keys: &Keys) -> Result<Admitted<GrantedUse>, Refused> {
        let now = keys.now();
        let audience = keys.audience_ids(now);
        admit_use(self.user, keys.leased(&audience), now)
    }

    /// The model of `package` for this user, and whether nothing of a run may stay in its engine.
    fn lend(&self, package: bield_envelope::Digest) -> Result<(Lent, bool), NnError> {
        let no = |refusal: Refusal| {
            let kind = match refusal.code.as_str() {
                "not-granted" => NnErrorKind::Security,
                "model-too-large" => NnErrorKind::TooLarge,
                "queue-full" | "models-full" => NnErrorKind::Timeout,
                _ => NnErrorKind::Runtime,
            };
            NnError::new(kind, refusal.message)
        };
        let mut keys = self.reach.keys(package).map_err(no)?;
        let mut used = self.may_use(&keys);
        // As with requests: a grant may be younger than the lease at hand.
        if let Err(refused) = &used
            && refusals::may_change_with_the_lease(refused)
            && let Ok(newer) = self.reach.renew(package, &keys)
        {
            used = self.may_use(&newer);
            keys = newer;
        }
        let used = used.map_err(|refused| {
            let why = format!(
                "its owner grants it to each caller of the function, and you may not use it now ({})",
                refused.outside()
            );
            NnError::new(NnErrorKind::Security, why)
        })?;
        keys.note_use();
        let apart = match used.isolation {
            Isolation::Shared => false,
            Isolation::Wiped => true,
            other => {
                let why = format!(
                    "the model's grant asks for isolation {other}, which a function cannot give"
                );
                return Err(NnError::new(NnErrorKind::Unsupported, why));
            }
        };
        let lent = self.reach.lend(self.user, &keys, self.wait()).map_err(no)?;
        if apart && !lent.wipes() {
            let why =
                "the model's engine cannot give the isolation that its grant asks for".to_owned();
            return Err(NnError::new(NnErrorKind::Unsupported, why));
        }
        Ok((lent, apart))
    }
}

/// Whether a function may go on after an operation that failed so: it asked for what cannot be. All else is trouble with
/// the state, and the request's end: a function must not answer as if a key were not there that could not be read.
fn is_the_guests(error: &StateError) -> bool {
    match error {
        StateError::TooLarge(_) => true,
        StateError::Table(error) => matches!(
            error,
            TableError::Bucket
                | TableError::Key { .. }
                | TableError::Value { .. }
                | TableError::Range
                | TableError::Batch(_)
                | TableError::NotANumber
                | TableError::Overflow
        ),
        _ => false,
    }
}

fn late() -> NnError {
    NnError::new(NnErrorKind::Timeout, "no turn came in time".to_owned())
}

/// A bucket as its function's manifest declares it.
pub(super) fn declared(spec: &BucketSpec) -> Bucket {
    Bucket {
        name: spec.name.clone(),
        consistency: match spec.consistency {
            Consistency::Eventual => bield_table::Consistency::Eventual,
            Consistency::Epoch => bield_table::Consistency::Epoch,
            Consistency::Linearizable => bield_table::Consistency::Linearizable,
        },
        durability: match spec.durability {
            Durability::Memory => bield_state::Durability::Memory,
            Durability::Local => bield_state::Durability::Local,
            Durability::LocalSync => bield_state::Durability::LocalSync,
        },
    }
}
