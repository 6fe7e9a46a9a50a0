//! Functions: what a fresh instance for each request costs, what calls out of a guest and its own code cost, next to a
//! process, to native code and to a runtime that keeps its instances.
//!
//! ```text
//! this process: bield-function ─▶ instance ─▶ call ─▶ end        fresh      ÷ a process's start
//!                     │              ├─ buckets ─▶ bield-state   calls      ÷ the same calls without a guest
//!                     │              └─ SHA-256                  kernel     ÷ the same C, compiled by cc
//!                     ├─ an instance that stays                  hot, memory
//!                     └─ compile ─▶ seal ─▶ open, load           code
//! the programs: SDK ─▶ gateway ─▶ runtime, keys                  end-to-end, next to workerd
//! ```
//!
//! Always true: what is compared alternates, and the median of the ratios counts; answers are checked; guests are the
//! components that the tests run. A time that issue or specification names is a bar as such and, since machines differ,
//! also as a ratio to something in the same run. Everything in this process runs under the allocator of enclaves, which
//! wipes while a call runs.
//!
//! The product never calls an instance twice: `hot` and `memory` use wasmtime past it, on the product's own engine.

mod calls;
mod cast;
mod code;
mod fresh;
mod kept;
mod kernel;
mod memory;
mod sealed;
mod table;
mod workerd;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bars::{self, Bar};
use crate::capsule::machine;
use cast::Cast;

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// An instance, its call and its end, against the start of a process.
    Fresh,
    /// A call of an instance that stays.
    Hot,
    /// Calls out of a guest over the table.
    Calls,
    /// A guest's own code against the same code, native.
    Kernel,
    /// Compiling, and opening and loading what was compiled.
    Code,
    /// Memory of instances.
    Memory,
    /// Through SDK and processes, next to workerd.
    EndToEnd,
}

/// What is measured, and how much.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder of the built programs.
    #[arg(long)]
    programs: PathBuf,
    /// Few calls: shows that it works, not what it does.
    #[arg(long)]
    quick: bool,
    /// Only this part; repeatable.
    #[arg(long = "only")]
    parts: Vec<Part>,
}

/// How often things are measured.
#[derive(Clone, Copy)]
struct Effort {
    quick: bool,
}

impl Effort {
    /// Rounds in which everything compared is measured once, and of which the median counts.
    const fn rounds(self) -> usize {
        if self.quick { 3 } else { 21 }
    }

    /// Calls of a function in a round.
    const fn calls(self) -> usize {
        if self.quick { 20 } else { 200 }
    }

    /// What takes milliseconds, in a round.
    const fn starts(self) -> usize {
        if self.quick { 2 } else { 8 }
    }

    /// Of what takes a second or more.
    const fn compilations(self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// One window of load.
    const fn span(self) -> Duration {
        Duration::from_millis(if self.quick { 500 } else { 3000 })
    }
}

/// Measures a part and adds its rows.
type Measure = fn(&Cast, Effort, &mut Vec<Bar>) -> Result<()>;

const PARTS: [(Part, &str, Measure); 7] = [
    (Part::Fresh, "fresh", fresh::measured),
    (Part::Hot, "hot", kept::hot),
    (Part::Calls, "calls", calls::measured),
    (Part::Kernel, "kernel", kernel::measured),
    (Part::Code, "code", code::measured),
    (Part::Memory, "memory", memory::measured),
    (Part::EndToEnd, "end-to-end", sealed::measured),
];

/// Runs the parts, all when none is named, and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let effort = Effort {
        quick: options.quick,
    };
    let begin = Instant::now();
    // Beside the results, so on the disk of the build.
    let folder = bars::folder(&options.programs);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let cast = Cast::gather(&folder)?;
    let (mut bars, mut failed) = (Vec::new(), Vec::new());
    let wanted = |part| options.parts.is_empty() || options.parts.contains(&part);
    for (_, name, measure) in PARTS.into_iter().filter(|(part, ..)| wanted(*part)) {
        eprintln!("{:>4.0} s  {name}", begin.elapsed().as_secs_f64());
        if let Err(why) = measure(&cast, effort, &mut bars) {
            eprintln!("{name} failed: {why:#}");
            bars.push(Bar::missing(name.to_owned(), &format!("failed: {why:#}")));
            failed.push(name);
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    bars.push(Bar::told("the whole run".into(), seconds, "s", machine()));
    bars::report("functions", &options.programs, &bars)?;
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}

/// Microseconds since `begun`.
fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}
