//! The engine, and functions made ready to run in it.

use std::sync::Arc;

use bield_compiled::{Compiled, LoadError, Settings};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::{self, FunctionPre};
use crate::function::Function;
use crate::guest::Guest;
use crate::limits::{
    INSTANCES_MAX, MEMORIES_MAX, MEMORY_BYTES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX,
};
use crate::system;
use crate::ticker::Ticker;

/// One engine for all functions of a program.
pub struct Host {
    engine: Engine,
    linker: Linker<Guest>,
    ticker: Arc<Ticker>,
    pooled: bool,
}

impl Host {
    /// Starts an engine in which at most `instances` requests run at once, and the thread of its deadlines.
    ///
    /// Room for the instances is reserved ahead and used again, which is quicker; where the system reserves no such
    /// amounts of addresses, each instance gets its own ([`is_pooled`](Self::is_pooled) tells).
    ///
    /// # Errors
    /// This machine is none the engine runs on, or gives no thread.
    pub fn new(settings: Settings, instances: u32) -> Result<Self, HostError> {
        let mut config = settings.config();
        let pooled = match settings {
            Settings::Library => None,
            Settings::Machine => {
                let pool = InstanceAllocationStrategy::Pooling(pool(instances));
                Engine::new(config.clone().allocation_strategy(pool)).ok()
            }
        };
        let pooled_engine = pooled.is_some();
        let own = || {
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            Engine::new(&config).map_err(HostError::of)
        };
        let engine = pooled.map_or_else(own, Ok)?;
        let mut linker = Linker::new(&engine);
        bindings::Function::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)
            .map_err(HostError::of)?;
        bindings::draft::Imports::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)
            .map_err(HostError::of)?;
        let ticker = Ticker::start(&engine, instances as usize).map_err(|error| HostError {
            why: error.to_string(),
        })?;
        Ok(Self {
            engine,
            linker,
            ticker: Arc::new(ticker),
            pooled: pooled_engine,
        })
    }

    /// Whether room for instances is reserved ahead.
    #[must_use]
    pub fn is_pooled(&self) -> bool {
        self.pooled
    }

    /// The engine itself. Who makes instances past [`Function`] has none of its promises: for measurements.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Compiles a component for this engine. Not on the path of a request: see [`bield_compiled`].
    ///
    /// # Errors
    /// It is no component, too large, or not valid here.
    #[cfg(feature = "compiler")]
    pub fn compile(&self, wasm: &[u8]) -> Result<Compiled, crate::CompileError> {
        bield_compiled::compile(&self.engine, wasm)
    }

    /// Makes compiled code ready to be called: everything that does not depend on a request is done here.
    ///
    /// # Errors
    /// It imports what there is not, exports no handler, or has more parts than any function may.
    pub fn load(&self, compiled: &Compiled) -> Result<Function, FunctionError> {
        let component = compiled.load(&self.engine)?;
        let mut linker = self.linker.clone();
        system::link(&mut linker, &component)?;
        let ready = linker
            .instantiate_pre(&component)
            .map_err(FunctionError::invalid)?;
        let ready = FunctionPre::new(ready).map_err(|_| FunctionError::NoHandler)?;
        Ok(Function::new(ready, Arc::clone(&self.ticker)))
    }
}

/// Reserves addresses for so many instances of the largest function; pages are taken when they are touched.
///
/// What an instance leaves is undone when it ends, at once: the first `…_KEPT_BYTES` are written over and stay, the rest goes
/// back to the kernel. Not gathered over several instances, and not found out by `PAGEMAP_SCAN`: that passes over pages
/// which are on their way elsewhere just then (swap, compaction), and the next instance reads them
/// (wasmtime, pull request 14357).
fn pool(instances: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(INSTANCES_MAX))
        .total_memories(instances.saturating_mul(MEMORIES_MAX))
        .total_tables(instances.saturating_mul(TABLES_MAX))
        .total_stacks(instances)
        .max_core_instances_per_component(INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .max_memory_size(MEMORY_BYTES_MAX as usize)
        .table_elements(TABLE_ELEMENTS_MAX as usize)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .decommit_batch_size(1)
        .pagemap_scan(Enabled::No)
        .async_stack_keep_resident(STACK_KEPT_BYTES)
        .linear_memory_keep_resident(MEMORY_KEPT_BYTES)
        .table_keep_resident(TABLE_KEPT_BYTES);
    pool
}

/// What is zeroed of a stack rather than given back: more than most requests use.
const STACK_KEPT_BYTES: usize = 32 << 10;
/// As [`STACK_KEPT_BYTES`], of a memory.
const MEMORY_KEPT_BYTES: usize = 0;
/// As [`STACK_KEPT_BYTES`], of a table: one of 4000 elements.
const TABLE_KEPT_BYTES: usize = 32 << 10;

/// Bytes of an instance's own bookkeeping, beside memories and tables: Python's has 300 KB.
const INSTANCE_BYTES_MAX: usize = 1 << 20;

/// The engine does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("functions cannot run on this machine: {why}")]
pub struct HostError {
    /// In the engine's words.
    pub why: String,
}

impl HostError {
    fn of(error: wasmtime::Error) -> Self {
        Self {
            why: error.root_cause().to_string(),
        }
    }
}

/// Why a function cannot be made ready. Its author's move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FunctionError {
    /// It was compiled for another engine.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It imports what functions do not have.
    #[error(
        "the function imports {0}, which functions do not have; they have log, wasi:keyvalue 0.2.0-draft2 or 0.2.0-draft, \
         and wasi:nn 0.2.0-rc-2024-10-28"
    )]
    Import(String),
    /// It does not handle requests.
    #[error(
        "the function exports no bield:function/handler@0.1.0; build it for the world `function`"
    )]
    NoHandler,
    /// Its imports or its size are not what there is.
    #[error("the function cannot be run: {0}")]
    Invalid(String),
}

impl FunctionError {
    pub(crate) fn invalid(error: wasmtime::Error) -> Self {
        Self::Invalid(error.root_cause().to_string())
    }
}
