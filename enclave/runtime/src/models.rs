//! Loaded models under one memory budget; what is cheapest to do without makes room.
//!
//! ```text
//! get ──▶ resident? ──▶ Lent
//!            └ no ──▶ single flight: reserve ──▶ load ──▶ Space shrinks to what stays ──▶ resident
//!                                      └ no room: evict idle ones ─▶ wait for running ones ─▶ refuse
//! ```
//!
//! Which one goes is decided by GreedyDual-Size-Frequency (Cherkasova, HP Labs 98-69, 1998): a model is worth
//! `age at its last use + uses × time to open it ÷ bytes`, the least worth goes, and the age rises to what it was worth.
//! So a model that took long to open, is asked for often or is small stays longer, and none stays for ever.
//!
//! Always true: memory is reserved before it is spent, but for what an engine computes while it loads, which is known
//! afterwards and refused if it does not fit; residents and reservations together never exceed the budget; a model that is running is never evicted, since that would free nothing; what a failed load had
//! reserved is free again; nobody evicts for a model that does not fit all the same. While it loads, a model may take
//! more than afterwards, when the engine copies it: its engine says how much. A model that is replaced by the same one
//! on another engine (`seconds`), is forgotten or broke takes no new runs, and its memory counts until the last run on it ends. What a
//! run needs beyond its model is not counted: one for each turn and one of a second tier exist, and one of several rows, asked
//! for (`batches`) or tried, needs that for each row. Not here: how a model is loaded (`loading`), clocks.
//!
//! On paper: a look-up is one hash; an eviction looks at each resident once.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bield_engine::Model;
use bield_envelope::Digest;
use bield_platform::memory;
use bield_protocol::refusal::{Refusal, Retry};

use crate::batches::Lane;
use crate::flights::{Flights, lock};
use crate::refusals;
use crate::turns::Gate;

/// A model that is loaded, and who waits to run it.
pub(crate) struct Opened {
    model: Box<dyn Model>,
    pub(crate) lane: Lane,
    /// Bytes that opening it on another engine takes, when that is due; else 0.
    second: AtomicU64,
    /// Dropped after all of them.
    _freed: Freed,
}

/// What an engine took for a model is many small blocks, too, which an allocator likes to keep.
struct Freed;

impl Drop for Freed {
    fn drop(&mut self) {
        memory::give_back_freed();
    }
}

impl Opened {
    /// A model that another engine is to open as well, which takes `second` bytes; none is if that is 0.
    pub(crate) fn new(model: Box<dyn Model>, second: u64) -> Arc<Self> {
        Arc::new(Self {
            lane: Lane::of(&*model),
            model,
            second: AtomicU64::new(second),
            _freed: Freed,
        })
    }

    /// Whether another engine is to open it as well.
    pub(crate) fn second_is_due(&self) -> bool {
        self.second.load(Ordering::Relaxed) > 0
    }

    /// What opening it on another engine takes, if that is due; from here on it is not.
    pub(crate) fn take_second(&self) -> Option<u64> {
        Some(self.second.swap(0, Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }
}

impl Deref for Opened {
    type Target = dyn Model;

    fn deref(&self) -> &Self::Target {
        &*self.model
    }
}

/// The models that are loaded.
pub(crate) struct Models {
    budget: u64,
    table: Mutex<Table>,
    /// A run ended or memory was given back.
    eased: Condvar,
    flights: Flights<Result<Arc<Opened>, Refusal>>,
    /// Those who open a model or wait until another thread has.
    opening: Arc<Gate>,
}

#[derive(Default)]
struct Table {
    /// Bytes of residents and reservations.
    used: u64,
    /// Counts uses, to order them.
    uses: u64,
    /// What the last evicted model was worth.
    age: u64,
    evicted: u64,
    residents: HashMap<Digest, Resident>,
    /// Packages that are being opened, and whether they were forgotten meanwhile.
    opening: HashMap<Digest, bool>,
    /// Replaced or forgotten while they ran.
    leaving: Vec<Leaving>,
}

/// A model that takes no new runs: its memory first, then the leave to use it again.
struct Leaving {
    model: Arc<Opened>,
    _space: Space,
}

struct Resident {
    model: Arc<Opened>,
    bytes: u64,
    /// What opening it again would take.
    took: Duration,
    /// Uses since it is resident.
    uses: u64,
    last_used: u64,
    worth: u64,
}

impl Models {
    /// Makes an empty cache of at most `budget` bytes.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            table: Mutex::default(),
            eased: Condvar::new(),
            flights: Flights::new(),
            opening: Gate::new(usize::MAX),
        }
    }

    /// Lets at most `places` threads wait until models are open, so that others are left for those that are.
    pub(crate) fn with_places(self, places: usize) -> Self {
        Self {
            opening: Gate::new(places),
            ..self
        }
    }

    /// Lends a model that is loaded.
    pub(crate) fn resident(self: &Arc<Self>, package: Digest) -> Option<Lent> {
        let model = lock(&self.table).take(package)?;
        Some(self.lend(model))
    }

    /// Lends a model, loaded by `load` if need be; waits at most `wait` for another request that loads it.
    ///
    /// # Errors
    /// `model-opening` when too many wait already, `queue-full` when it takes another too long; what `load` refuses, shared by all who waited for the same load.
    pub(crate) fn get(
        self: &Arc<Self>,
        package: Digest,
        wait: Duration,
        load: impl FnOnce() -> Result<Loaded, Refusal>,
    ) -> Result<Lent, Refusal> {
        let _place = self.opening.enter().ok_or_else(opening)?;
        let model = self.flights.join_within(package, wait, || {
            let mut table = lock(&self.table);
            if let Some(model) = table.take(package) {
                return Ok(model);
            }
            table.opening.insert(package, false);
            drop(table);
            let _opening = Opening(self, package);
            Ok(self.keep(package, load()?))
        });
        let Some(model) = model else {
            // It held the model for a moment if that landed just then, and may have been the last to.
            self.look_again(lock(&self.table));
            return Err(refusals::late(wait));
        };
        Ok(self.lend(model?))
    }

    /// Lends a model that is kept from everybody else and goes with its last run.
    pub(crate) fn lend_apart(self: &Arc<Self>, loaded: Loaded) -> Lent {
        let Loaded {
            model,
            bytes,
            mut space,
            ..
        } = loaded;
        space.shrink(bytes);
        Lent {
            model: Some(model),
            space: Some(space),
            models: Arc::clone(self),
        }
    }

    /// Sets `bytes` aside for loading a model of `model_bytes`. Evicts idle models if that takes it, and waits at most
    /// `wait` for running ones if that does not do.
    ///
    /// # Errors
    /// `model-too-large` when it never fits, `models-full` when running models are in the way.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        model_bytes: u64,
        bytes: u64,
        wait: Duration,
    ) -> Result<Space, Refusal> {
        if bytes > self.budget {
            return Err(too_large(model_bytes, bytes, self.budget));
        }
        let fits = |table: &mut Table| table.used - table.idle_bytes() + bytes <= self.budget;
        let waited = self
            .eased
            .wait_timeout_while(lock(&self.table), wait, |table| !fits(table));
        let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !fits(&mut table) {
            let busy = table.used - table.idle_bytes();
            return Err(full(model_bytes, bytes, busy, self.budget));
        }
        let mut evicted = Vec::new();
        while table.used + bytes > self.budget {
            let Some(model) = table.evict() else { break };
            evicted.push(model);
        }
        table.used += bytes;
        drop(table);
        // Given back before more is taken, and not under the lock: unmapping gigabytes takes a while.
        drop(evicted);
        Ok(Space {
            models: Arc::clone(self),
            bytes,
        })
    }

    /// Makes `space` at least `bytes` long, which a model of `model_bytes` turned out to take. Evicts idle models if that
    /// takes it, and waits for nobody: who holds some of what others wait for must not.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub(crate) fn grow(
        self: &Arc<Self>,
        space: &mut Space,
        model_bytes: u64,
        bytes: u64,
    ) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(space.bytes);
        if more == 0 {
            return Ok(());
        }
        if bytes > self.budget {
            return Err(too_large(model_bytes, bytes, self.budget));
        }
        let mut grown = self.reserve(model_bytes, more, Duration::ZERO)?;
        space.bytes += std::mem::take(&mut grown.bytes);
        Ok(())
    }

    /// Sets `bytes` aside if they are free: nobody is evicted or waited for.
    pub(crate) fn reserve_free(self: &Arc<Self>, bytes: u64) -> Option<Space> {
        let mut table = lock(&self.table);
        let used = table.used.checked_add(bytes);
        table.used = used.filter(|used| *used <= self.budget)?;
        Some(Space {
            models: Arc::clone(self),
            bytes,
        })
    }

    /// Lets a model go: at once when nobody runs it, else with its last run, and if it is being opened, with the last run
    /// of those who wait for that.
    pub(crate) fn forget(self: &Arc<Self>, package: Digest) {
        let mut table = lock(&self.table);
        if let Some(forgotten) = table.opening.get_mut(&package) {
            *forgotten = true;
        }
        table.retire(package, self);
        let left = table.left();
        drop(table);
        drop(left);
    }

    /// Lets all models go that are open.
    pub(crate) fn forget_all(self: &Arc<Self>) {
        let packages: Vec<_> = lock(&self.table).residents.keys().copied().collect();
        for package in packages {
            self.forget(package);
        }
    }

    /// Names the resident packages, most recently used first, at most `max`.
    pub(crate) fn names(&self, max: usize) -> Vec<Digest> {
        let table = lock(&self.table);
        let mut names: Vec<_> = table
            .residents
            .iter()
            .map(|(package, resident)| (resident.last_used, *package))
            .collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        names.truncate(max);
        names.into_iter().map(|(_, package)| package).collect()
    }

    /// Counts what is here.
    pub(crate) fn counts(&self) -> ModelCounts {
        let table = lock(&self.table);
        ModelCounts {
            resident: table.residents.len() as u64,
            used_bytes: table.used,
            free_bytes: self.budget - table.used,
            evicted: table.evicted,
        }
    }

    fn lend(self: &Arc<Self>, model: Arc<Opened>) -> Lent {
        Lent {
            model: Some(model),
            space: None,
            models: Arc::clone(self),
        }
    }

    fn keep(self: &Arc<Self>, package: Digest, mut loaded: Loaded) -> Arc<Opened> {
        loaded.space.shrink(loaded.bytes);
        let mut table = lock(&self.table);
        let resident = Resident {
            model: Arc::clone(&loaded.model),
            bytes: std::mem::take(&mut loaded.space.bytes),
            took: loaded.took,
            uses: 0,
            last_used: 0,
            worth: 0,
        };
        let replaced = table.residents.insert(package, resident);
        debug_assert!(replaced.is_none(), "one flight per package");
        table.take(package);
        if table.opening.get(&package) == Some(&true) {
            table.retire(package, self);
        }
        drop(table);
        Arc::clone(&loaded.model)
    }

    /// Lets go what nobody holds any more, and tells those who wait for room.
    fn look_again(&self, mut table: MutexGuard<'_, Table>) {
        let left = table.left();
        self.ease(table);
        drop(left);
    }

    /// Tells those who wait for room; under the lock, so that none of them looks away just then.
    fn ease(&self, table: MutexGuard<'_, Table>) {
        drop(table);
        self.eased.notify_all();
    }
}

/// What the models take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ModelCounts {
    pub(crate) resident: u64,
    /// Of residents and of loads under way.
    pub(crate) used_bytes: u64,
    pub(crate) free_bytes: u64,
    /// Models that made room since start.
    pub(crate) evicted: u64,
}

impl Table {
    /// Uses a resident model.
    fn take(&mut self, package: Digest) -> Option<Arc<Opened>> {
        let resident = self.residents.get_mut(&package)?;
        self.uses += 1;
        resident.last_used = self.uses;
        resident.uses += 1;
        resident.worth = self.age.saturating_add(resident.gain());
        Some(Arc::clone(&resident.model))
    }

    /// Bytes of models that nobody runs. New runs begin under the table's lock, so idle stays idle while it is held.
    fn idle_bytes(&self) -> u64 {
        let idle = self.residents.values().filter(|r| r.is_idle());
        idle.map(|resident| resident.bytes).sum()
    }

    fn evict(&mut self) -> Option<Arc<Opened>> {
        let idle = self.residents.iter().filter(|(_, r)| r.is_idle());
        let (package, least) = idle.min_by_key(|(_, r)| (r.worth, r.last_used))?;
        let (package, worth) = (*package, least.worth);
        self.age = self.age.max(worth);
        self.evicted += 1;
        self.remove(package)
    }

    /// Keeps a resident model for nobody but those who run it.
    fn retire(&mut self, package: Digest, models: &Arc<Models>) {
        if let Some(Resident { model, bytes, .. }) = self.residents.remove(&package) {
            let models = Arc::clone(models);
            self.leaving.push(Leaving {
                model,
                _space: Space { models, bytes },
            });
        }
    }

    /// Takes out what was replaced or forgotten and runs no more; to be dropped without the lock.
    fn left(&mut self) -> Vec<Leaving> {
        let is_left = |leaving: &mut Leaving| Arc::strong_count(&leaving.model) == 1;
        self.leaving.extract_if(.., is_left).collect()
    }

    fn remove(&mut self, package: Digest) -> Option<Arc<Opened>> {
        let resident = self.residents.remove(&package)?;
        self.used -= resident.bytes;
        Some(resident.model)
    }
}

impl Resident {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.model) == 1
    }

    /// What keeping it saves: microseconds of opening per GiB, for each use.
    fn gain(&self) -> u64 {
        let saved = self.took.as_micros() * u128::from(self.uses);
        u64::try_from((saved << 30) / u128::from(self.bytes.max(1))).unwrap_or(u64::MAX)
    }
}

/// A package that is being opened, as long as it is.
struct Opening<'a>(&'a Models, Digest);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        lock(&self.0.table).opening.remove(&self.1);
    }
}

/// A model that was just loaded.
pub(crate) struct Loaded {
    pub(crate) model: Arc<Opened>,
    /// Bytes that stay in use.
    pub(crate) bytes: u64,
    /// What was set aside for loading it.
    pub(crate) space: Space,
    /// How long it took.
    pub(crate) took: Duration,
}

/// A model for a run. It is not evicted meanwhile; who waits for room is told when it comes back.
pub(crate) struct Lent {
    /// `None` only while being dropped.
    model: Option<Arc<Opened>>,
    /// Of a model that is not in the cache.
    space: Option<Space>,
    models: Arc<Models>,
}

impl Lent {
    /// Names the model without keeping it.
    pub(crate) fn name(&self) -> Weak<Opened> {
        self.model
            .as_ref()
            .map(Arc::downgrade)
            .expect("lent until dropped")
    }
}

impl Deref for Lent {
    type Target = Opened;

    fn deref(&self) -> &Self::Target {
        self.model.as_deref().expect("lent until dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.space.is_some() {
            // Its memory first, then the leave to use it again.
            self.model = None;
            self.space = None;
            return;
        }
        let mut table = lock(&self.models.table);
        let model = self.model.take();
        if let Some(broken) = model.as_ref().filter(|model| model.is_broken()) {
            let mut residents = table.residents.iter();
            let here = residents.find(|(_, resident)| Arc::ptr_eq(&resident.model, broken));
            if let Some(package) = here.map(|(package, _)| *package) {
                table.retire(package, &self.models);
            }
        }
        // Never the last one of a model that was evicted: only idle ones are.
        drop(model);
        self.models.look_again(table);
    }
}

/// Memory set aside; free again on drop.
pub(crate) struct Space {
    models: Arc<Models>,
    bytes: u64,
}

impl Space {
    fn shrink(&mut self, to: u64) {
        let surplus = self.bytes.saturating_sub(to);
        if surplus == 0 {
            return;
        }
        self.bytes -= surplus;
        let mut table = lock(&self.models.table);
        table.used -= surplus;
        self.models.ease(table);
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

fn too_large(model: u64, need: u64, budget: u64) -> Refusal {
    Refusal::new(
        "model-too-large",
        format_args!(
            "the model has {} MiB and takes {} MiB while it loads, and this runtime keeps models in {} MiB; \
             its operator can give it more (models_mib_max)",
            mib(model),
            mib(need),
            mib(budget),
        ),
        Retry::AfterChange,
    )
}

fn full(model: u64, need: u64, busy: u64, budget: u64) -> Refusal {
    Refusal::new(
        "models-full",
        format_args!(
            "the model has {} MiB and takes {} MiB while it loads, and models at work use {} of the {} MiB for models; \
             seal the request anew in a moment, or its operator gives it more (models_mib_max)",
            mib(model),
            mib(need),
            mib(busy),
            mib(budget),
        ),
        Retry::Anew,
    )
}

fn opening() -> Refusal {
    Refusal::new(
        "model-opening",
        "the model is not open, and as many requests wait for models to be opened as this runtime lets wait; seal the \
         request anew in a moment",
        Retry::Anew,
    )
}

const fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

mod seconds;

#[cfg(test)]
mod forgotten;
#[cfg(test)]
mod tests;
