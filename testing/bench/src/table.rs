//! The table: calls of a state, verified records, sealed levels, next to Redis and to a store without cryptography.
//!
//! ```text
//! Request ─▶ table ─▶ log: sealed, signed, chained ─▶ files         calls, verified, redis, ycsb
//!              └────▶ levels: sealed runs                          cold, space
//! ```
//!
//! Everything runs over `enclave/state` as a runtime opens it, in this process. What is compared is measured in turns
//! in one run; a ratio is the median of its turns. What cannot be measured here is a row that says so.

mod calls;
mod cold;
mod draw;
pub(crate) mod files;
mod function;
mod hot;
mod ops;
pub(crate) mod place;
mod received;
mod redis;
mod space;
mod stores;
mod timed;
mod ycsb;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::bars::{self, Bar};

/// What is measured, and how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Folder of the built programs.
    #[arg(long)]
    programs: PathBuf,
    /// Short measurements of fewer records: shows that it works, not what it does.
    #[arg(long)]
    quick: bool,
    /// Only this part; repeatable.
    #[arg(long = "only")]
    parts: Vec<Part>,
}

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Puts, gets, scans, swaps, additions: memory, block cache, disk.
    Calls,
    /// Records of other writers taken in, own ones sealed.
    Verified,
    /// A sealed block next to the same one in plaintext.
    Cold,
    /// Gets and puts next to Redis, directly and through a function.
    Redis,
    /// YCSB A to F, next to Redis and to fjall.
    Ycsb,
    /// Bytes written, held and read; starts; puts while runs are merged.
    Space,
}

/// How much is measured.
pub(crate) struct Effort {
    quick: bool,
}

impl Effort {
    /// One measurement.
    const fn span(&self) -> Duration {
        Duration::from_millis(if self.quick { 100 } else { 1000 })
    }

    /// One turn of two that are compared.
    const fn slice(&self) -> Duration {
        Duration::from_millis(if self.quick { 20 } else { 50 })
    }

    /// Turns of which the median counts.
    const fn turns(&self) -> usize {
        if self.quick { 5 } else { 31 }
    }

    /// Whole measurements of which the median counts.
    const fn rounds(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// A count, or a twentieth of it.
    const fn records(&self, full: usize) -> usize {
        if self.quick { full / 20 } else { full }
    }
}

/// Runs the parts, all when none is named, and reports.
pub(crate) fn run(options: &Options) -> Result<()> {
    let effort = Effort {
        quick: options.quick,
    };
    let begin = Instant::now();
    // Beside the results, so on the disk of the build.
    let folder = bars::folder(&options.programs);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut bars = Vec::new();
    let all = [
        Part::Calls,
        Part::Verified,
        Part::Cold,
        Part::Redis,
        Part::Ycsb,
        Part::Space,
    ];
    let wanted = |part: &Part| options.parts.is_empty() || options.parts.contains(part);
    for part in all.into_iter().filter(wanted) {
        eprintln!("{:>4.0} s", begin.elapsed().as_secs_f64());
        match part {
            Part::Calls => {
                ops::memory(&effort, &mut bars)?;
                ops::disk(&folder, &effort, &mut bars)?;
            }
            Part::Verified => received::verified(&folder, &effort, &mut bars)?,
            Part::Cold => cold::against_plain(&folder, &effort, &mut bars)?,
            Part::Redis => hot::against_redis(&folder, &effort, &mut bars)?,
            Part::Ycsb => ycsb::workloads(&folder, &effort, &mut bars)?,
            Part::Space => {
                space::amplification(&folder, &effort, &mut bars)?;
                space::recovery(&folder, &effort, &mut bars)?;
                space::merging(&folder, &effort, &mut bars)?;
            }
        }
    }
    bars.push(Bar::told(
        "the whole run".to_owned(),
        begin.elapsed().as_secs_f64(),
        "s",
        crate::capsule::machine(),
    ));
    bars::report("table", &options.programs, &bars)
}
