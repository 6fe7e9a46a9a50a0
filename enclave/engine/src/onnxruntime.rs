//! The engine onnxruntime: C++ behind the crate ort, faster than rten on convolutional networks.
//!
//! ```text
//! .ort ──▶ bytes stay ◀── session ◀── session …   opened on demand, weights read in place and shared
//! ONNX ──▶ one session with a copy of its own ──▶ bytes freed
//!            └── a run borrows a free session, opens one more, or waits
//! ```
//!
//! Always true: one run at a time per session; at most `sessions_max` sessions per model, one for ONNX, since
//! each of those would copy the weights; a session that panicked is not used again, and an ONNX is broken then, since its
//! bytes are gone; nothing is logged, sent or written; the program has no environment that the library could read but
//! what keeps it from telling its maker what it loads ([`ENVIRONMENT`](crate::ENVIRONMENT); `refuse_environment` in
//! `enclave/platform`), and it is not opened without.
//!
//! Left to others: whether the library is the right one (`bield_platform::Library`). A hostile model may be able
//! to subvert it, as any C++ parser: whoever serves models of owners who do not trust each other uses rten.
//! What a run leaves in the library's own memory is freed but not wiped.
//!
//! On paper, `.ort`: the file once, and 10 to 40 MB per session; ONNX: 3.5 × the file (graph, weights, packed
//! weights), of which the file itself is freed after loading.

mod tensors;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bield_package::ModelFormat;
use bield_package::onnx::Signature;
use bield_package::prepared::ort_signature;
use bield_package::tensor::{Tensor, TensorSpec};
use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{InMemorySession, OutputSelector, RunOptions, Session, SessionInputValue};
use self_cell::self_cell;

use crate::ends::{asked, given};
use crate::{Engine, EngineError, Footprint, Model};

/// Oldest version whose interface this program speaks: 1.23.
const OLDEST: &str = "1.23";

/// What a session takes beside the weights, in bytes: packed weights, activations, and what the library's allocator
/// keeps for the next run. Measured 10 to 40 MB on convolutional networks of up to 179 MB.
const SESSION_BYTES: u64 = 40 << 20;

/// The library cannot be used. The operator's move.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It is no onnxruntime, or misses a library of the system.
    #[error(
        "onnxruntime does not open ({0}); give a libonnxruntime.so of version {OLDEST} or newer"
    )]
    Library(#[from] ort::LoadDynamicError),
    /// It opened and does not start; a program may open it once.
    #[error("onnxruntime does not start: {0:?}")]
    Start(ort::ErrorCode),
    /// It would tell its maker what it does. A fault of the program that opens it.
    #[error(
        "onnxruntime is not opened where the environment does not keep it silent (ORT_DISABLE_TELEMETRY)"
    )]
    Telemetry,
    /// It panicked.
    #[error("onnxruntime does not start: it is older than {OLDEST}")]
    Panic,
}

/// The engine onnxruntime with its threads.
pub struct OnnxRuntime {
    environment: Environment,
    sessions_max: usize,
    name: &'static str,
}

impl OnnxRuntime {
    /// Opens the library at `path`, once per process, with `threads` threads that all runs share and at most
    /// `sessions_max` runs of one model at a time.
    ///
    /// All its threads start here, so that a sandbox may forbid new ones afterwards.
    ///
    /// # Errors
    ///
    /// The file is no such library, or this process has opened one before, or what
    /// [`ENVIRONMENT`](crate::ENVIRONMENT) says is not set.
    pub fn open(path: &Path, threads: usize, sessions_max: usize) -> Result<Self, OpenError> {
        let mut wanted = crate::ENVIRONMENT.iter();
        if !wanted.all(|(name, value)| std::env::var_os(name).is_some_and(|is| is == *value)) {
            return Err(OpenError::Telemetry);
        }
        let opened = catch_unwind(|| {
            let builder = ort::init_from(path)?;
            // Waiting threads sleep: they share their processor with others.
            let pool = GlobalThreadPoolOptions::default()
                .with_intra_threads(threads.max(1))
                .and_then(|pool| pool.with_inter_threads(1))
                .and_then(|pool| pool.with_spin_control(false))
                .map_err(|error| OpenError::Start(error.code()))?;
            let environment = builder
                .with_name("bield")
                .with_telemetry(false)
                .with_global_thread_pool(pool)
                // Its messages may quote a model.
                .with_logger(Arc::new(|_, _, _, _, _| {}))
                .build()
                .map_err(|error| OpenError::Start(error.code()))?;
            environment.set_log_level(LogLevel::Fatal);
            Ok(environment)
        });
        Ok(Self {
            environment: opened.unwrap_or(Err(OpenError::Panic))?,
            sessions_max: sessions_max.max(1),
            name: name(),
        })
    }

    fn refuse(&self, reason: String) -> EngineError {
        EngineError::Load {
            engine: self.name,
            reason,
        }
    }
}

impl Engine for OnnxRuntime {
    fn name(&self) -> &'static str {
        self.name
    }

    fn takes(&self, format: ModelFormat) -> bool {
        matches!(format, ModelFormat::Onnx | ModelFormat::Ort)
    }

    fn examine(&self, bytes: &[u8], format: ModelFormat) -> Result<(), EngineError> {
        signature(bytes, format, self.name).map(drop)
    }

    fn load(&self, bytes: Vec<u8>, format: ModelFormat) -> Result<Box<dyn Model>, EngineError> {
        let signature = signature(&bytes, format, self.name)?;
        let (bytes, own, sessions_max) = if format == ModelFormat::Ort {
            (bytes, None, self.sessions_max)
        } else {
            let session = open_own(&self.environment, &bytes).map_err(|why| self.refuse(why))?;
            (Vec::new(), Some(session), 1)
        };
        let sessions = Sessions::try_new(bytes, |bytes| {
            let first = match own {
                Some(session) => Open::Own(session),
                None => open_borrowing(&self.environment, bytes).map_err(|why| self.refuse(why))?,
            };
            check_ends(first.get(), &signature)?;
            Ok::<_, EngineError>(Pool {
                idle: Mutex::new(Idle {
                    sessions: vec![first],
                    open: 1,
                }),
                returned: Condvar::new(),
            })
        })?;
        Ok(Box::new(Loaded {
            sessions,
            sessions_max,
            broken: AtomicBool::new(false),
            environment: self.environment.clone(),
            has_rows: signature.has_rows(),
            inputs: signature.inputs,
            outputs: signature.outputs,
            name: self.name,
        }))
    }

    fn footprint(&self, format: ModelFormat, bytes: u64) -> Footprint {
        let sessions = |count: usize| SESSION_BYTES.saturating_mul(count as u64);
        if format == ModelFormat::Ort {
            let all = bytes.saturating_add(sessions(self.sessions_max));
            return Footprint {
                loading: all,
                resident: all,
            };
        }
        let copies = bytes.saturating_mul(7) / 2;
        Footprint {
            loading: bytes.saturating_add(copies).saturating_add(sessions(1)),
            resident: copies.saturating_add(sessions(1)),
        }
    }
}

/// What the file says.
fn signature(
    bytes: &[u8],
    format: ModelFormat,
    name: &'static str,
) -> Result<Signature, EngineError> {
    // The library tells an `.ort` file by these bytes, whatever it is called.
    let is_ort = bytes.get(4..8) == Some(b"ORTM");
    match format {
        ModelFormat::Onnx if !is_ort => Ok(Signature::read(bytes)?),
        ModelFormat::Ort => Ok(ort_signature(bytes)?),
        _ => Err(EngineError::Format {
            format,
            engines: name,
        }),
    }
}

/// Checks that the library found the inputs and outputs that the file's reader found.
fn check_ends(session: &Session, signature: &Signature) -> Result<(), EngineError> {
    let sides = [
        (session.inputs(), &signature.inputs),
        (session.outputs(), &signature.outputs),
    ];
    for (found, specs) in sides {
        for spec in specs {
            let agrees = found.iter().any(|outlet| {
                let element = outlet.dtype().tensor_type().and_then(tensors::element);
                outlet.name() == spec.name() && element == Some(spec.element())
            });
            if !agrees || found.len() != specs.len() {
                return Err(EngineError::Specs {
                    promised: spec.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Opens a session that copies what it needs, and optimises the graph.
fn open_own(environment: &Environment, onnx: &[u8]) -> Result<Session, String> {
    opened(|| builder(environment, GraphOptimizationLevel::All)?.commit_from_memory(onnx))
}

/// Opens a session that reads the weights where they are; the graph was optimised when the file was made.
fn open_borrowing<'a>(environment: &Environment, ort: &'a [u8]) -> Result<Open<'a>, String> {
    let level = GraphOptimizationLevel::Disable;
    let session = opened(|| builder(environment, level)?.commit_from_memory_directly(ort))?;
    Ok(Open::Borrowing(session))
}

fn builder(
    environment: &Environment,
    level: GraphOptimizationLevel,
) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(environment)?
        .with_optimization_level(level)?
        .with_log_level(LogLevel::Fatal)?;
    Ok(builder)
}

/// The code of an error only: the library's own words may quote contents.
fn opened<T>(open: impl FnOnce() -> ort::Result<T>) -> Result<T, String> {
    caught(open)?.map_err(|error| format!("{:?}", error.code()))
}

/// A model in onnxruntime.
struct Loaded {
    sessions: Sessions,
    sessions_max: usize,
    /// The only session panicked, and there are no bytes to open another from.
    broken: AtomicBool,
    environment: Environment,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    has_rows: bool,
    name: &'static str,
}

self_cell!(
    /// The bytes of a model and the sessions that borrow them.
    struct Sessions {
        owner: Vec<u8>,
        #[not_covariant]
        dependent: Pool,
    }
);

struct Pool<'a> {
    idle: Mutex<Idle<'a>>,
    returned: Condvar,
}

struct Idle<'a> {
    sessions: Vec<Open<'a>>,
    /// How many there are, those that run included.
    open: usize,
}

/// A session over the model's bytes, or with its own copy.
enum Open<'a> {
    Borrowing(InMemorySession<'a>),
    Own(Session),
}

impl Open<'_> {
    fn get(&self) -> &Session {
        match self {
            Self::Borrowing(session) => session,
            Self::Own(session) => session,
        }
    }
}

impl Model for Loaded {
    fn engine(&self) -> &'static str {
        self.name
    }

    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        outputs: &[&str],
    ) -> Result<(Vec<Tensor>, Option<Duration>), EngineError> {
        let asked = asked(&self.outputs, outputs)?;
        tensors::bound_strings(inputs)?;
        let values = given(&self.inputs, inputs)?
            .map(|tensor| {
                let tensor = tensor?;
                let value = tensors::to_value(tensor).map_err(|error| self.refuse(&error))?;
                Ok((tensor.name(), SessionInputValue::from(value)))
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        self.sessions.with_dependent(|bytes, pool| {
            let (mut taken, opened) = self.take(bytes, pool)?;
            match caught(|| self.compute(&mut taken, values, &asked)) {
                Ok(tensors) => Ok((tensors?, opened)),
                Err(reason) => {
                    // A session that panicked is not used again.
                    if let Some(Open::Own(_)) = taken.session.take() {
                        self.broken.store(true, Ordering::Relaxed);
                    }
                    Err(self.refuse_run(reason))
                }
            }
        })
    }

    fn has_rows(&self) -> bool {
        self.has_rows
    }

    fn runs_max(&self) -> usize {
        self.sessions_max
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

impl Loaded {
    /// A session that is free, or one more, or the next that is given back.
    fn take<'p, 'a>(
        &self,
        bytes: &'a [u8],
        pool: &'p Pool<'a>,
    ) -> Result<(Taken<'p, 'a>, Option<Duration>), EngineError> {
        let mut idle = lock(&pool.idle);
        while idle.sessions.is_empty() && idle.open == self.sessions_max {
            let waited = pool.returned.wait(idle);
            idle = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let session = idle.sessions.pop();
        idle.open += usize::from(session.is_none());
        drop(idle);
        let mut taken = Taken { pool, session };
        if taken.session.is_some() {
            return Ok((taken, None));
        }
        if self.is_broken() {
            return Err(self.refuse_run("it panicked before".to_owned()));
        }
        let started = Instant::now();
        let session = open_borrowing(&self.environment, bytes);
        taken.session = Some(session.map_err(|reason| self.refuse_run(reason))?);
        Ok((taken, Some(started.elapsed())))
    }

    fn compute(
        &self,
        taken: &mut Taken<'_, '_>,
        inputs: Vec<(&str, SessionInputValue<'_>)>,
        asked: &[usize],
    ) -> Result<Vec<Tensor>, EngineError> {
        let specs = || asked.iter().map(|index| &self.outputs[*index]);
        let selected = specs().fold(OutputSelector::no_default(), |selected, spec| {
            selected.with(spec.name())
        });
        let options = RunOptions::new().map_err(|error| self.refuse(&error))?;
        let options = options.with_outputs(selected);
        let results = match &mut taken.session {
            Some(Open::Borrowing(session)) => session.run_with_options(inputs, &options),
            Some(Open::Own(session)) => session.run_with_options(inputs, &options),
            None => return Err(self.refuse_run("it has no session".to_owned())),
        };
        let results = results.map_err(|error| self.refuse(&error))?;
        let tensor = |spec: &TensorSpec| match results.get(spec.name()) {
            Some(value) => tensors::from_value(value, spec),
            None => Err(EngineError::OutputType {
                name: spec.name().to_owned(),
                need: spec.element(),
            }),
        };
        specs().map(tensor).collect()
    }

    /// The code only: the library's own words may quote contents.
    fn refuse(&self, error: &ort::Error) -> EngineError {
        self.refuse_run(format!("{:?}", error.code()))
    }

    fn refuse_run(&self, reason: String) -> EngineError {
        EngineError::Run {
            engine: self.name,
            reason,
        }
    }
}

/// A session that runs, or the place of one that is being opened; given back on drop.
struct Taken<'p, 'a> {
    pool: &'p Pool<'a>,
    session: Option<Open<'a>>,
}

impl Drop for Taken<'_, '_> {
    fn drop(&mut self) {
        let mut idle = lock(&self.pool.idle);
        match self.session.take() {
            Some(session) => idle.sessions.push(session),
            None => idle.open -= 1,
        }
        drop(idle);
        self.pool.returned.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `act`; a panic becomes a reason.
fn caught<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(|_| "it panicked".to_owned())
}

/// Its own name for its build: it says the commit, not the version.
fn name() -> &'static str {
    let build = ort::info();
    let commit = build
        .split_once("git-commit-id=")
        .and_then(|(_, rest)| rest.split([',', ' ']).next());
    format!("onnxruntime {}", commit.unwrap_or("of an unknown build")).leak()
}
