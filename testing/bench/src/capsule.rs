//! The log: what verifiability costs, against what cannot be beaten and against what people use.
//!
//! ```text
//! puts ──▶ Appender ──▶ signed ──▶ disk ──▶ 2 of 3 replicas      append, bounds
//!                                    │
//!            peers: redis, etcd, NATS│                            peers
//!                                    ▼
//!              receive ── reads ── proofs ── recovery             receive, stored
//! ```
//!
//! Everything goes through public interfaces, as a user's program would; every bar is a ratio of two
//! things measured in turn in one run, the median of its rounds. A latency runs from the moment at
//! which a put was due. What cannot be measured here is a row that says so.

mod append;
pub(crate) mod bounds;
pub(crate) mod chain;
pub(crate) mod cores;
mod load;
pub(crate) mod peers;
pub(crate) mod place;
mod receive;
mod stored;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bield_capsule::Suite;

use crate::bars::{self, Bar};
use append::VALUES;
use place::{Place, Store};

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Rates and latencies in memory, and the ratio to one signature per put.
    Memory,
    /// Rates and latencies with a synced journal.
    Disk,
    /// Rates and latencies with two of three replicas.
    Replicas,
    /// The cost of bare cryptography and of the bare device.
    Bounds,
    /// Receiving.
    Receive,
    /// Bytes on disk, reads, proofs, recovery.
    Stored,
    /// Redis, etcd, NATS.
    Peers,
}

/// How much is measured.
pub(crate) struct Effort {
    quick: bool,
}

impl Effort {
    fn suites(&self) -> impl Iterator<Item = Suite> + use<> {
        Suite::ALL.into_iter().take(if self.quick { 1 } else { 3 })
    }

    fn values(&self) -> impl Iterator<Item = usize> + use<> {
        let quick = self.quick;
        VALUES
            .into_iter()
            .filter(move |value| !quick || *value == 100)
    }

    /// Interleaved rounds, of which the median counts.
    const fn rounds(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// One measurement in a place.
    fn span(&self, place: &Place) -> Duration {
        let full = match place {
            Place::Memory => Duration::from_millis(400),
            Place::Disk(_) | Place::Segments(_) | Place::Stores(_) => Duration::from_secs(1),
        };
        if self.quick { full / 4 } else { full }
    }

    /// A count, or a twentieth of it.
    const fn records(&self, full: usize) -> usize {
        if self.quick { full / 20 } else { full }
    }
}

/// Runs the parts, all when none is named, and reports.
pub(crate) fn run(programs: &Path, quick: bool, parts: &[Part]) -> Result<()> {
    let effort = Effort { quick };
    let begin = Instant::now();
    // Beside the results, so on the disk of the build; what /tmp is differs between machines.
    let folder = bars::folder(programs);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut bars = Vec::new();
    let wanted = |part| parts.is_empty() || parts.contains(&part);
    let all = [
        Part::Memory,
        Part::Bounds,
        Part::Receive,
        Part::Stored,
        Part::Peers,
        Part::Disk,
        Part::Replicas,
    ];
    for part in all.into_iter().filter(|part| wanted(*part)) {
        eprintln!("{:>4.0} s", begin.elapsed().as_secs_f64());
        measure(part, programs, &folder, &effort, &mut bars)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    bars.push(Bar::told(
        "the whole run".to_owned(),
        seconds,
        "s",
        machine(),
    ));
    bars::report("capsule", programs, &bars)
}

fn measure(
    part: Part,
    programs: &Path,
    folder: &Path,
    effort: &Effort,
    bars: &mut Vec<Bar>,
) -> Result<()> {
    match part {
        Part::Memory => {
            append::against_single(effort, bars)?;
            append::one_core(effort, bars)?;
            append::post_quantum(effort, bars)?;
            append::offered(&Place::Memory, effort, bars)
        }
        Part::Disk => append::offered(&Place::Disk(folder.to_owned()), effort, bars),
        Part::Replicas => {
            let stores = (0..3).map(|_| Store::start(programs, folder));
            append::offered(&Place::Stores(stores.collect::<Result<_>>()?), effort, bars)
        }
        Part::Bounds => {
            bounds::crypto(effort, bars)?;
            bounds::device(folder, effort, bars)
        }
        Part::Receive => receive::received(effort, bars),
        Part::Stored => {
            stored::bytes_on_disk(folder, bars)?;
            stored::reads(folder, effort, bars)?;
            stored::proofs(folder, effort, bars)?;
            stored::recovery(folder, effort, bars)
        }
        Part::Peers => peers::raced(programs, folder, effort, bars),
    }
}

/// What all this ran on.
pub(crate) fn machine() -> String {
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{cores} × {}, load average at the end {}",
        model.unwrap_or("unknown processor"),
        load.split(' ').next().unwrap_or("unknown")
    )
}
