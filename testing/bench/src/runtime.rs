//! The runtime: sealed inference through real processes against the same engine in process, and against what people use
//! today on the plaintext file.
//!
//! ```text
//! this process ─seal─▶ gateway ─door─▶ runtime: lease · open · load · run ─▶ answer, receipt verified
//!      ├─ the same engine in this process
//!      ├─ Python: onnxruntime, OpenVINO; onnxruntime behind HTTP (FastAPI, MLServer)
//!      └─ native: a runtime started for each request; reuse-enclave-only: a runtime that keeps nothing
//! ```
//!
//! Always true: everything that is compared has the same inputs, threads and warm-up and alternates, call by call, and the
//! median of the ratios counts, so that a disturbance meets all; ours and each peer's answers agree, or the part fails; what
//! cannot be had is a row that says why, and a part that fails keeps no other from the table.
//!
//! On paper, a hot sealed call adds to the run: one HPKE seal and open (0.7 ms), 600 KB of image through AES-GCM twice,
//! BLAKE3 twice and four copies (1 ms), two HTTP hops on loopback, and three signatures. A cold one adds an attested
//! session (5 ms) and one pass of AES-GCM over the model.

mod caller;
mod cold;
mod hot;
mod isolation;
mod kinds;
pub(crate) mod load;
mod memory;
mod models;
mod peers;
mod plain;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bield_end_to_end::Person;
use bield_engine::Engine;
use bield_sdk::{Answered, CallError, Randomness, Target};

use crate::bars::{self, Bar};
use crate::capsule::machine;
use crate::deployment::{ModelFile, Setup};
pub(crate) use memory::open;
use models::Subject;
pub(crate) use models::{EngineKind, Which};
use plain::Engines;

/// Runs at once in each runtime, and sessions of one model in onnxruntime.
const CONCURRENCY: usize = 2;

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Package on disk to first answer.
    Cold,
    /// Latency of hot calls.
    Hot,
    /// Answers a second by clients.
    Load,
    /// Where the time goes for each kind of start, and baselines.
    Kinds,
    /// Opening, one more session, unloading.
    Memory,
    /// What `wiped` and `dedicated` cost.
    Isolation,
    /// `bench door`.
    Door,
}

/// What is measured, and how much.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder of the built programs.
    #[arg(long)]
    programs: PathBuf,
    /// Few calls, two small models: shows that it works, not what it does.
    #[arg(long)]
    quick: bool,
    /// Only this part; repeatable.
    #[arg(long = "only")]
    parts: Vec<Part>,
    /// Only this model; repeatable.
    #[arg(long = "model")]
    models: Vec<Which>,
    /// Only this engine; repeatable.
    #[arg(long = "engine")]
    engines: Vec<EngineKind>,
    /// Threads of one run, ours and the peers'; when not said, all parts have 1, and `hot` has 2 as well unless quick.
    #[arg(long)]
    threads: Option<usize>,
    /// The name of the file with the results.
    #[arg(long, hide = true, default_value = "runtime")]
    into: String,
}

/// How often things are measured.
#[derive(Clone, Copy)]
struct Effort {
    quick: bool,
}

impl Effort {
    /// Cold starts, and samples of each kind of start.
    const fn rounds(self) -> usize {
        if self.quick { 2 } else { 7 }
    }

    /// Hot calls.
    const fn calls(self) -> usize {
        if self.quick { 8 } else { 60 }
    }

    /// Whether so many hot calls in so long are enough: large models have fewer, so that a run ends.
    fn is_enough(self, calls: usize, took: Duration) -> bool {
        calls >= 20 && took > Duration::from_secs(45)
    }

    /// One window of load.
    const fn span(self) -> Duration {
        Duration::from_millis(if self.quick { 400 } else { 1000 })
    }

    /// Windows of load, of which the median counts.
    const fn windows(self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// Clients at once.
    const fn clients(self) -> &'static [usize] {
        if self.quick { &[1, 2] } else { &[1, 2, 4, 8] }
    }
}

/// Measures a part and adds its rows.
type Measure = fn(&Bench<'_>, &mut Vec<Bar>) -> Result<()>;

/// The parts of each model on each engine.
const PARTS: [(Part, Measure); 6] = [
    (Part::Cold, cold::measured),
    (Part::Hot, hot::latency),
    (Part::Load, hot::load),
    (Part::Kinds, kinds::measured),
    (Part::Memory, memory::measured),
    (Part::Isolation, isolation::measured),
];

/// The row of how long all took.
const WHOLE: &str = "the whole run";

/// One model on one engine, with what all parts need.
struct Bench<'a> {
    subject: &'a Subject,
    kind: EngineKind,
    engine: &'a dyn Engine,
    file: ModelFile,
    library: Option<&'a Path>,
    threads: usize,
    effort: Effort,
    folder: &'a Path,
}

impl Bench<'_> {
    /// Begins its rows; 1 thread is not said.
    fn name(&self) -> String {
        let name = format!("{}, {}", self.subject.which.name(), self.kind.name());
        match self.threads {
            1 => name,
            threads => format!("{name}, {threads} threads"),
        }
    }

    /// A deployment with room for everything.
    fn roomy(&self) -> Setup {
        Setup {
            threads: self.threads,
            concurrency: CONCURRENCY,
            onnxruntime: match self.kind {
                EngineKind::Rten => None,
                EngineKind::Onnxruntime => self.library.map(Path::to_path_buf),
            },
            ..Setup::default()
        }
    }

    /// A deployment with room for one such model.
    fn tight(&self) -> Result<Setup> {
        // Weights that the engine widens and constants that it computes take more than the file.
        let bytes = std::fs::read(&self.file.path)?;
        let footprint = self.engine.footprint_of(&bytes, self.file.format);
        let model = self.engine.load(bytes, self.file.format)?;
        let told = model.resident_bytes().unwrap_or_default();
        let most = footprint.loading.max(footprint.resident).max(told);
        Ok(Setup {
            models_mib_max: most.div_ceil(1 << 20),
            ..self.roomy()
        })
    }

    /// One call through the SDK; returns the answer and the milliseconds the user waited.
    fn call(&self, user: &Person, target: &Target) -> Result<(Answered, f64), CallError> {
        let inputs = self.subject.inputs.clone();
        let started = Instant::now();
        let answered = target.call(&user.key, inputs, Vec::new(), &mut Randomness)?;
        Ok((answered, caller::milliseconds(started)))
    }
}

/// Runs the parts, all when none is named, and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let begin = Instant::now();
    let effort = Effort {
        quick: options.quick,
    };
    let library = std::env::var_os("BIELD_ONNXRUNTIME").map(PathBuf::from);
    let threads = options.threads.unwrap_or(1);
    let engines = Engines::open(threads, CONCURRENCY, library.as_deref())?;
    let folder = bars::folder(&options.programs);
    std::fs::create_dir_all(&folder)?;
    let usual = match effort.quick {
        true => &[Which::MobilenetV1, Which::Magika][..],
        false => &Which::ALL[..],
    };
    let models = chosen(&options.models, usual);
    let (mut bars, mut failed) = (Vec::new(), Vec::new());
    let wanted = |part| options.parts.is_empty() || options.parts.contains(&part);
    let kinds = chosen(&options.engines, &EngineKind::ALL);
    let steps = models.len() * kinds.len() * PARTS.iter().filter(|(part, _)| wanted(*part)).count();
    let mut at = 0;
    for which in models {
        let subject = match Subject::find(&options.programs, which) {
            Ok(subject) => subject,
            Err(why) => {
                bars.push(Bar::missing(which.name().into(), &format!("{why:#}")));
                continue;
            }
        };
        for kind in kinds.iter().copied() {
            let ready = engines
                .get(kind)
                .and_then(|engine| Ok((engine, subject.file(kind)?)));
            let (engine, file) = match ready {
                Ok(ready) => ready,
                Err(why) => {
                    let name = format!("{}, {}", which.name(), kind.name());
                    bars.push(Bar::missing(name, &format!("{why:#}")));
                    continue;
                }
            };
            let bench = Bench {
                subject: &subject,
                kind,
                engine,
                file,
                library: library.as_deref(),
                threads,
                effort,
                folder: &folder,
            };
            for (part, measure) in PARTS.into_iter().filter(|(part, _)| wanted(*part)) {
                at += 1;
                let seconds = begin.elapsed().as_secs_f64();
                let name = bench.name();
                eprintln!(
                    "{seconds:>4.0} s  {at:>2}/{steps}  {name}: {}",
                    name_of(part)
                );
                if let Err(why) = measure(&bench, &mut bars) {
                    let part = format!("{}: {}", bench.name(), name_of(part));
                    eprintln!("{part} failed: {why:#}");
                    bars.push(Bar::missing(part.clone(), &format!("failed: {why:#}")));
                    failed.push(part);
                }
            }
        }
    }
    if options.threads.is_none() && !options.quick && wanted(Part::Hot) {
        eprintln!("{:>4.0} s  hot, 2 threads", begin.elapsed().as_secs_f64());
        hot_again(options, 2, &mut bars, &mut failed);
    }
    if wanted(Part::Door) {
        eprintln!("{:>4.0} s  door", begin.elapsed().as_secs_f64());
        door(&options.programs, effort, &mut bars)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    bars.push(Bar::told(WHOLE.into(), seconds, "s", machine()));
    bars::report(&options.into, &options.programs, &bars)?;
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

/// Part `hot` with other threads, in a process of its own: onnxruntime's are made once in a process.
fn hot_again(options: &Options, threads: usize, bars: &mut Vec<Bar>, failed: &mut Vec<String>) {
    let into = format!("runtime-{threads}-threads");
    let mut again = || -> Result<bool> {
        // What an earlier run left is not this one's.
        let file = bars::folder(&options.programs).join(format!("{into}.json"));
        let _ = std::fs::remove_file(file);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["runtime", "--only", "hot", "--into", &into]);
        command.arg("--programs").arg(&options.programs);
        command.args(["--threads", &threads.to_string()]);
        for which in &options.models {
            command.args(["--model", &name_of(*which)]);
        }
        for kind in &options.engines {
            command.args(["--engine", kind.name()]);
        }
        // Its table stands in ours.
        let done = command.stdout(Stdio::null()).status()?;
        let more = bars::read(&into, &options.programs)?;
        bars.extend(more.into_iter().filter(|bar| bar.name != WHOLE));
        Ok(done.success())
    };
    let done = again();
    let part = format!("hot, {threads} threads");
    if let Err(why) = &done {
        bars.push(Bar::missing(part.clone(), &format!("failed: {why:#}")));
    }
    if !done.unwrap_or(false) {
        failed.push(part);
    }
}

/// `bench door` in a process of its own, since it takes a core for itself.
fn door(programs: &Path, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("door").arg("--programs").arg(programs);
    if effort.quick {
        command.arg("--quick");
    }
    let done = command.output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "bench door: {said}");
    for bar in bars::read("door", programs)? {
        bars.push(bar.renamed("door"));
    }
    Ok(())
}

fn chosen<T: Copy>(asked: &[T], usual: &[T]) -> Vec<T> {
    match asked.is_empty() {
        true => usual.to_vec(),
        false => asked.to_vec(),
    }
}

/// As the command line has it.
fn name_of(value: impl clap::ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
