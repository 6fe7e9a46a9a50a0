//! The packer: four policies on one seeded trace, in the simulator and on real processes; many models against one.
//!
//! ```text
//! seed ─▶ Trace (2 busy, 8 rare) ─┬─▶ a deployment with --policy P, for each P ─▶ latencies, container time, failures
//!                                 └─▶ the same state machine, simulated
//! ```
//!
//! Always true: all policies get the same requests at the same times, each in a deployment of its own, one after the other and
//! in another order each round; medians of rounds count; latencies count from the intended time, and every answer was verified.
//! Container time is the sum of the time that workers existed, until the last one ended for want of requests.

mod cast;
mod policies;
mod simulated;
mod throughput;

use std::path::PathBuf;

use anyhow::Result;

use crate::bars::{self, Bar};
use crate::capsule::machine;

/// What bield's container time may be of fnpacker's.
const CONTAINER_TIME: f64 = 0.4;
/// What busy models' latency may be of that with a worker for each model.
const BUSY_LATENCY: f64 = 1.1;

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Four policies in the simulator.
    Simulated,
    /// Four policies on real processes.
    Policies,
    /// A hundred models against one.
    Throughput,
}

/// What is measured, and how much.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder of the built programs.
    #[arg(long)]
    programs: PathBuf,
    /// Short traces, few models: shows that it works, not what it does.
    #[arg(long)]
    quick: bool,
    /// Only this part; repeatable.
    #[arg(long = "only")]
    parts: Vec<Part>,
    /// How often each policy replays the trace [default: 3].
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: Option<u8>,
    /// What the trace is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the parts, all when none is named, and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |part| options.parts.is_empty() || options.parts.contains(&part);
    let folder = bars::folder(&options.programs);
    std::fs::create_dir_all(&folder)?;
    let mut bars = vec![Bar::told("machine".into(), f64::NAN, "", machine())];
    if wanted(Part::Simulated) {
        simulated::measured(options.seed, options.quick, &mut bars)?;
    }
    if wanted(Part::Policies) {
        policies::measured(options, &folder, &mut bars)?;
    }
    if wanted(Part::Throughput) {
        throughput::measured(options.quick, &mut bars)?;
    }
    bars::report("packer", &options.programs, &bars)
}
