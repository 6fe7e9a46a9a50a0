//! Functions: opened packages that are WebAssembly components, their states and their world.
//!
//! ```text
//! package ─▶ component ─ SHA-256 as in the manifest ─ sealed code, or compiled ─▶ OpenFunction ┐
//! key service ─ hold ─▶ files ─▶ state ────────────────────────────────────────────────────────┼─▶ a fresh instance
//! leases of models ─▶ models that are warm ────────────────────────────────────────────────────┘
//! ```
//!
//! In: keys of a function's package. Out: a function that can be called, once for each request in an instance of its own.
//! Always true: the code that runs is the component that the manifest names, compiled by this program or by one with its
//! seal key; unless the configuration says otherwise, functions of one owner are inside at a time, and are let go, code and
//! state, before another owner's come (`owners`); memory for code is reserved as for models.
//!
//! Not here: what a request is (`call::function`), what the state's files hold (`bield-state`), limits
//! (`bield-function`).
//!
//! On paper: opening costs the package's bytes once through AES and SHA-256, and 1.5 s of a core for each MB where no sealed
//! code lies in the host's storage; a call after that, one fresh instance.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::{Digest, Principal, Secret};
use bield_function::{Function, FunctionError, Host, Limits};
use bield_package::{FunctionLimits, FunctionSpec, ModelFormat};
use bield_platform::Tee;
use bield_protocol::configuration::FunctionsConfiguration;
use bield_protocol::refusal::{Refusal, Retry};

mod code;
mod log;
mod owners;
mod reach;
pub(crate) mod states;
mod uses;
mod world;

pub(crate) use log::Log;
pub(crate) use reach::Reach;
pub(crate) use states::{HeldState, States};
pub(crate) use world::{Left, RequestWorld};

use crate::flights::{Flights, lock};
use crate::keys::Keys;
use crate::loading::LoadTimes;
use crate::models::Space;
use code::CodeCache;
use owners::Owners;

/// Most functions kept open.
const FUNCTIONS_MAX: usize = 64;

/// What the engine of functions is called in feedback.
pub(crate) const ENGINE: &str = "wasmtime";

/// All that functions take.
pub(crate) struct Functions {
    pub(crate) reach: Arc<Reach>,
    pub(crate) states: States,
    host: Host,
    code: CodeCache,
    opened: Mutex<HashMap<Digest, Kept>>,
    flights: Flights<Result<Arc<OpenFunction>, Refusal>>,
    owners: Owners,
    instance_bytes_max: u64,
}

/// A function that was used last at some moment.
struct Kept {
    function: Arc<OpenFunction>,
    used: Instant,
}

/// A function that is ready to be called.
pub(crate) struct OpenFunction {
    pub(crate) function: Function,
    pub(crate) spec: FunctionSpec,
    pub(crate) limits: Limits,
    pub(crate) log: Arc<Log>,
    owner: Principal,
    /// For its code.
    _space: Space,
}

/// What is made before the program is confined.
pub(crate) struct FunctionsEngine {
    host: Host,
    /// Seals native code.
    key: Secret,
    several_owners: bool,
    instance_bytes_max: u64,
}

impl FunctionsEngine {
    /// Starts the engine of functions.
    ///
    /// # Errors
    /// This machine runs none, or its TEE has no seal key.
    pub(crate) fn start(
        configuration: &FunctionsConfiguration,
        tee: &dyn Tee,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            host: Host::new(code::SETTINGS, configuration.instances_max)?,
            key: tee.seal_key("bield function code v1")?,
            several_owners: configuration.several_owners,
            instance_bytes_max: configuration.instance_mib_max << 20,
        })
    }
}

impl Functions {
    pub(crate) fn new(engine: FunctionsEngine, states: States, reach: Arc<Reach>) -> Self {
        Self {
            host: engine.host,
            code: CodeCache::new(states.files(), engine.key),
            reach,
            states,
            opened: Mutex::default(),
            flights: Flights::new(),
            owners: Owners::new(engine.several_owners),
            instance_bytes_max: engine.instance_bytes_max,
        }
    }

    /// Lets a request of a function of `owner` in, until the place is dropped; functions of the owner before are let go.
    ///
    /// # Errors
    /// Another owner's requests go on for longer than `wait`.
    pub(crate) fn enter(
        &self,
        owner: Principal,
        wait: Duration,
    ) -> Result<owners::Place<'_>, Refusal> {
        let (place, leaving) = self
            .owners
            .enter(owner, wait)
            .ok_or_else(|| crate::refusals::late(wait))?;
        if let Some(_leaving) = leaving {
            let mut opened = lock(&self.opened);
            let gone: Vec<_> = opened
                .extract_if(|_, kept| kept.function.owner != owner)
                .collect();
            let stay: Vec<Digest> = opened.keys().copied().collect();
            drop(opened);
            drop(gone);
            self.states.let_go_but(&|package| stay.contains(&package));
        }
        Ok(place)
    }

    /// A function that is open, or is opened now; says in `times` what that took.
    ///
    /// # Errors
    /// It is no function, does not open, or asks for more than this runtime gives.
    pub(crate) fn get(
        &self,
        keys: &Keys,
        wait: Duration,
        times: &mut Option<LoadTimes>,
    ) -> Result<Arc<OpenFunction>, Refusal> {
        let package = keys.lease.package;
        if let Some(open) = self.open(package) {
            return Ok(open);
        }
        let started = Instant::now();
        let mut own = None;
        let opened = self.flights.join_within(package, wait, || {
            if let Some(open) = self.open(package) {
                return Ok(open);
            }
            let function = Arc::new(self.load(keys, wait, own.insert(LoadTimes::default()))?);
            let mut opened = lock(&self.opened);
            if opened.len() >= FUNCTIONS_MAX {
                let oldest = opened.iter().min_by_key(|(_, kept)| kept.used);
                let oldest = oldest.map(|(package, _)| *package);
                oldest.and_then(|package| opened.remove(&package));
            }
            let kept = Kept {
                function: Arc::clone(&function),
                used: Instant::now(),
            };
            opened.insert(package, kept);
            Ok(function)
        });
        *times = Some(own.unwrap_or(LoadTimes {
            open: started.elapsed(),
            ..LoadTimes::default()
        }));
        opened.unwrap_or_else(|| Err(crate::refusals::late(wait)))
    }

    /// The packages of those that are open.
    pub(crate) fn names(&self) -> Vec<Digest> {
        lock(&self.opened).keys().copied().collect()
    }

    fn open(&self, package: Digest) -> Option<Arc<OpenFunction>> {
        let mut opened = lock(&self.opened);
        let kept = opened.get_mut(&package)?;
        kept.used = Instant::now();
        Some(Arc::clone(&kept.function))
    }

    fn load(
        &self,
        keys: &Keys,
        wait: Duration,
        times: &mut LoadTimes,
    ) -> Result<OpenFunction, Refusal> {
        let started = Instant::now();
        let (manifest, wasm, space) =
            self.reach
                .loader
                .component(keys, &self.reach.models, wait)?;
        let Some(spec) = manifest
            .function
            .filter(|_| manifest.format == ModelFormat::Component)
        else {
            return Err(no_function());
        };
        times.open = started.elapsed();
        let started = Instant::now();
        let limits = limits(&spec.limits, self.instance_bytes_max)?;
        if bield_compiled::component_digest(&wasm) != spec.component {
            return Err(other_component());
        }
        let compiled = self.code.get(&self.host, &wasm, wait)?;
        let function = self
            .host
            .load(&compiled)
            .map_err(|error| unusable(&error))?;
        times.load = started.elapsed();
        Ok(OpenFunction {
            function,
            limits,
            spec,
            log: Arc::default(),
            owner: keys.lease.owner,
            _space: space,
        })
    }

    /// Lets go a function whose keys are not given any more.
    pub(crate) fn forget(&self, package: Digest) {
        lock(&self.opened).remove(&package);
        self.states.let_go_but(&|other| other != package);
    }

    /// Does what keeps states alive.
    pub(crate) fn tend(&self) {
        self.states.tend();
    }
}

fn limits(asked: &FunctionLimits, instance_bytes_max: u64) -> Result<Limits, Refusal> {
    let limits = Limits {
        memory_bytes: asked.memory_bytes,
        deadline: Duration::from_millis(asked.deadline_ms),
        host_calls: asked.host_calls,
        output_bytes: asked.output_bytes,
        log_bytes: asked.log_bytes,
        ..Limits::default()
    };
    limits.check().map_err(|error| too_much(&error))?;
    if limits.memory_bytes > instance_bytes_max {
        return Err(too_much(&format_args!(
            "it asks for {} MiB of memory, and this runtime gives {}; its operator can give more (functions.instance_mib_max)",
            limits.memory_bytes >> 20,
            instance_bytes_max >> 20,
        )));
    }
    Ok(limits)
}

fn too_much(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::new("function-too-large", why, Retry::AfterChange)
}

pub(crate) fn no_function() -> Refusal {
    Refusal::new(
        "not-a-function",
        "the package is a model and was called as a function; ask it with tensors",
        Retry::Never,
    )
}

fn other_component() -> Refusal {
    Refusal::new(
        "package-damaged",
        "the component in the package is not the one that its manifest names; its owner must pack it again",
        Retry::AfterChange,
    )
}

fn unusable(error: &FunctionError) -> Refusal {
    Refusal::new(
        "function-unusable",
        format_args!("{error}; its owner must build and pack it again"),
        Retry::AfterChange,
    )
}

/// What a runtime without functions says.
pub(crate) fn off() -> Refusal {
    Refusal::new(
        "functions-off",
        "this runtime does not run functions; its operator can let it ([functions] in its configuration)",
        Retry::AfterChange,
    )
}
