//! Loaded models under one memory budget, the least recently used evicted first.
//!
//! ```text
//! get ──▶ resident? ──▶ Arc<dyn Model>
//!            └ no ──▶ single flight: reserve ──▶ load ──▶ Space shrinks to what stays ──▶ resident
//! ```
//!
//! Always true: memory is reserved before it is spent; residents and reservations together never exceed the
//! budget; a model that is running is never evicted, since that would free nothing; what a failed load had
//! reserved is free again. While loading, model and engine's copy exist beside each other, so a load reserves
//! [`LOADING_FACTOR`] times the model. Not here: how a model is loaded (`loading`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bield_engine::Model;
use bield_envelope::Digest;
use bield_protocol::refusal::{Refusal, Retry};

use crate::flights::{Flights, lock};

/// A model's bytes during loading, in multiples of its file: the opened file and the engine's copy of its weights.
pub(crate) const LOADING_FACTOR: u64 = 2;

/// The models that are loaded.
pub(crate) struct Models {
    budget: u64,
    table: Mutex<Table>,
    flights: Flights<Result<Arc<dyn Model>, Refusal>>,
}

#[derive(Default)]
struct Table {
    /// Bytes of residents and reservations.
    used: u64,
    /// Counts uses, to order them.
    uses: u64,
    residents: HashMap<Digest, Resident>,
}

struct Resident {
    model: Arc<dyn Model>,
    bytes: u64,
    last_used: u64,
}

impl Models {
    /// Makes an empty cache of at most `budget` bytes.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            table: Mutex::default(),
            flights: Flights::new(),
        }
    }

    /// Returns a model that is loaded.
    pub(crate) fn resident(&self, package: Digest) -> Option<Arc<dyn Model>> {
        let mut table = lock(&self.table);
        table.uses += 1;
        let uses = table.uses;
        let resident = table.residents.get_mut(&package)?;
        resident.last_used = uses;
        Some(Arc::clone(&resident.model))
    }

    /// Returns a model, loaded by `load` if need be.
    ///
    /// # Errors
    /// What `load` refuses; shared by all who waited for the same load.
    pub(crate) fn get(
        &self,
        package: Digest,
        load: impl FnOnce() -> Result<Loaded, Refusal>,
    ) -> Result<Arc<dyn Model>, Refusal> {
        self.flights.join(package, || match self.resident(package) {
            Some(model) => Ok(model),
            None => Ok(self.keep(package, load()?)),
        })
    }

    /// Sets memory for loading a model of `model_bytes` aside, and evicts idle models if that takes it.
    ///
    /// # Errors
    /// `model-too-large` when it never fits, `models-full` when running models are in the way.
    pub(crate) fn reserve(self: &Arc<Self>, model_bytes: u64) -> Result<Space, Refusal> {
        let bytes = model_bytes.saturating_mul(LOADING_FACTOR);
        if bytes > self.budget {
            return Err(too_large(model_bytes, bytes, self.budget));
        }
        let mut table = lock(&self.table);
        if table.used - table.idle_bytes() + bytes > self.budget {
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

    /// Lets a model go that nobody runs; one that runs stays until it makes room for another.
    pub(crate) fn forget(&self, package: Digest) {
        let mut table = lock(&self.table);
        let idle = table.residents.get(&package).is_some_and(Resident::is_idle);
        let forgotten = idle.then(|| table.remove(package)).flatten();
        drop(table);
        drop(forgotten);
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

    /// Counts the resident packages.
    pub(crate) fn count(&self) -> usize {
        lock(&self.table).residents.len()
    }

    fn keep(&self, package: Digest, mut loaded: Loaded) -> Arc<dyn Model> {
        loaded.space.shrink(loaded.bytes);
        let mut table = lock(&self.table);
        table.uses += 1;
        let resident = Resident {
            model: Arc::clone(&loaded.model),
            bytes: std::mem::take(&mut loaded.space.bytes),
            last_used: table.uses,
        };
        let replaced = table.residents.insert(package, resident);
        debug_assert!(replaced.is_none(), "one flight per package");
        drop(table);
        Arc::clone(&loaded.model)
    }
}

impl Table {
    /// Bytes of models that nobody runs. New runs begin under the table's lock, so idle stays idle while it is held.
    fn idle_bytes(&self) -> u64 {
        let idle = self.residents.values().filter(|r| r.is_idle());
        idle.map(|resident| resident.bytes).sum()
    }

    fn evict(&mut self) -> Option<Arc<dyn Model>> {
        let idle = self.residents.iter().filter(|(_, r)| r.is_idle());
        let oldest = idle.min_by_key(|(_, resident)| resident.last_used);
        let package = *oldest?.0;
        self.remove(package)
    }

    fn remove(&mut self, package: Digest) -> Option<Arc<dyn Model>> {
        let resident = self.residents.remove(&package)?;
        self.used -= resident.bytes;
        Some(resident.model)
    }
}

impl Resident {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.model) == 1
    }
}

/// A model that was just loaded.
pub(crate) struct Loaded {
    pub(crate) model: Arc<dyn Model>,
    /// Bytes that stay in use.
    pub(crate) bytes: u64,
    /// What was set aside for loading it.
    pub(crate) space: Space,
}

/// Memory set aside; free again on drop.
pub(crate) struct Space {
    models: Arc<Models>,
    bytes: u64,
}

impl Space {
    fn shrink(&mut self, to: u64) {
        let surplus = self.bytes.saturating_sub(to);
        lock(&self.models.table).used -= surplus;
        self.bytes -= surplus;
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
        Retry::AfterChange,
    )
}

const fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use bield_engine::EngineError;
    use bield_package::tensor::{Tensor, TensorSpec};

    use super::*;
    use crate::testing::package;

    struct Nothing;

    impl Model for Nothing {
        fn inputs(&self) -> &[TensorSpec] {
            &[]
        }
        fn outputs(&self) -> &[TensorSpec] {
            &[]
        }
        fn run(&self, _: &[Tensor], _: &[&str]) -> Result<Vec<Tensor>, EngineError> {
            Ok(Vec::new())
        }
    }

    const MIB: u64 = 1 << 20;

    fn load(models: &Arc<Models>, name: u8, mib: u64) -> Result<Arc<dyn Model>, Refusal> {
        models.get(package(name), || {
            Ok(Loaded {
                space: models.reserve(mib * MIB)?,
                model: Arc::new(Nothing),
                bytes: mib * MIB,
            })
        })
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let models = Arc::new(Models::new(4 * MIB));
        load(&models, 1, 1).unwrap();
        load(&models, 2, 1).unwrap();
        models.resident(package(1)).unwrap();
        // Two at rest and two for loading fill the budget; a third needs one gone.
        load(&models, 3, 1).unwrap();
        assert_eq!(models.names(9), [package(3), package(1), package(2)]);
        load(&models, 4, 1).unwrap();
        assert_eq!(models.names(9), [package(4), package(3), package(1)]);
        assert_eq!(lock(&models.table).used, 3 * MIB);
    }

    #[test]
    fn a_model_at_work_stays_and_the_refusal_has_the_numbers() {
        let models = Arc::new(Models::new(4 * MIB));
        let at_work = load(&models, 1, 2).unwrap();
        let refused = load(&models, 2, 2).err().unwrap();
        assert_eq!(refused.code, "models-full");
        for number in ["2 MiB", "4 MiB", "2 of the 4 MiB"] {
            assert!(refused.message.contains(number), "{refused}");
        }
        assert!(models.resident(package(1)).is_some());
        drop(at_work);
        assert!(load(&models, 2, 2).is_ok());
        assert!(models.resident(package(1)).is_none());
    }

    #[test]
    fn a_model_that_never_fits_evicts_nobody() {
        let models = Arc::new(Models::new(4 * MIB));
        load(&models, 1, 1).unwrap();
        let refused = load(&models, 2, 3).err().unwrap();
        assert_eq!(refused.code, "model-too-large");
        assert!(models.resident(package(1)).is_some());
    }

    #[test]
    fn a_failed_load_gives_its_memory_back() {
        let models = Arc::new(Models::new(4 * MIB));
        for _ in 0..3 {
            let refused = models.get(package(1), || {
                let _space = models.reserve(2 * MIB)?;
                Err(Refusal::new("test", "no", Retry::Never))
            });
            assert_eq!(refused.err().unwrap().code, "test");
        }
        assert_eq!(lock(&models.table).used, 0);
        assert!(load(&models, 1, 2).is_ok());
    }

    #[test]
    fn a_model_asked_for_by_many_is_loaded_once() {
        let models = Arc::new(Models::new(4 * MIB));
        let loads = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let model = models.get(package(1), || {
                        loads.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(50));
                        Ok(Loaded {
                            space: models.reserve(MIB)?,
                            model: Arc::new(Nothing),
                            bytes: MIB,
                        })
                    });
                    assert!(model.is_ok());
                });
            }
        });
        assert_eq!(loads.load(Ordering::SeqCst), 1);
    }
}
