//! The key service: what durability, signatures and attestation cost, against what cannot be beaten, and next
//! to what people use.
//!
//! ```text
//! grants, leases ──▶ service in this process ──▶ synced log (──▶ witness)    rates, witness
//!                    bare device, bare Ed25519, etcd in the same run
//! sessions       ──▶ bield-keys process, attested                            sessions
//! 10⁶ grants     ──▶ snapshot ──▶ start; log ──▶ replay                      state
//! kill, revoke   ──▶ first acknowledged change, first refusal                failover, revocation
//! ```
//!
//! Every target is a ratio of two things measured in the same run, or a count of bytes or of a protocol's own
//! lengths; all else is told. Loads are closed loops: each caller has one question at a time.

mod cast;
mod disk;
mod failover;
mod load;
mod rates;
mod revocation;
mod sessions;
mod state;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::bars::{self, Bar};
use crate::capsule::machine;
pub(crate) use state::{Task, perform};

/// A part of the bench.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Grants and leases in process against device, cryptography and etcd.
    Rates,
    /// The same with a witness.
    Witness,
    /// Handshakes, grants and leases over attested sessions.
    Sessions,
    /// Start-up, replay, memory, snapshots.
    State,
    /// From the kill of a leader to the next acknowledged change.
    Failover,
    /// From an acknowledged revocation to the last lease's end.
    Revocation,
}

/// How much is measured.
pub(crate) struct Effort {
    quick: bool,
}

impl Effort {
    /// Interleaved rounds, of which the median counts.
    const fn rounds(&self) -> usize {
        if self.quick { 1 } else { 3 }
    }

    /// One measurement.
    const fn span(&self) -> Duration {
        Duration::from_millis(if self.quick { 400 } else { 1500 })
    }

    /// Grants that are signed beforehand for one measurement.
    const fn orders(&self) -> usize {
        if self.quick { 4_000 } else { 20_000 }
    }

    /// Of a large state.
    const fn grants(&self) -> u64 {
        if self.quick { 100_000 } else { 1_000_000 }
    }

    /// Of a log that is replayed.
    const fn records(&self) -> u64 {
        if self.quick { 10_000 } else { 100_000 }
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
        Part::Rates,
        Part::Witness,
        Part::Sessions,
        Part::State,
        Part::Failover,
        Part::Revocation,
    ];
    for part in all.into_iter().filter(|part| wanted(*part)) {
        eprintln!("{:>4.0} s", begin.elapsed().as_secs_f64());
        match part {
            Part::Rates => rates::alone(&folder, &effort, &mut bars)?,
            Part::Witness => rates::witnessed(programs, &folder, &effort, &mut bars)?,
            Part::Sessions => sessions::measured(&folder, &effort, &mut bars)?,
            Part::State => state::measured(&folder, &effort, &mut bars)?,
            Part::Failover => failover::measured(&effort, &mut bars)?,
            Part::Revocation => revocation::measured(&folder, &mut bars)?,
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    bars.push(Bar::told(
        "the whole run".to_owned(),
        seconds,
        "s",
        machine(),
    ));
    bars::report("keys", programs, &bars)
}
