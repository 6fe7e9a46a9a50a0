//! What an operator sees: everything the packer knows, as a value for `--json` and the status page.
//!
//! Durations are microseconds, memory is bytes, memory over time is gigabyte-seconds (10⁹ bytes for a second).

use std::collections::BTreeMap;

use bield_protocol::feedback::StartKind;
use serde::Serialize;

use crate::event::{Caller, Failure, Group, Refusal, Slot, WorkerId};

/// All of it, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// Name of the policy.
    pub policy: &'static str,
    /// When, since the driver's origin.
    pub at_us: u64,
    /// Nothing new is taken.
    pub draining: bool,
    /// Workers at most.
    pub workers_max: u32,
    /// Workers, by name.
    pub workers: Vec<WorkerView>,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that may wait.
    pub queue_max: usize,
    /// Packages that were asked for or sized, by digest.
    pub packages: Vec<PackageView>,
    /// Callers, by name.
    pub callers: Vec<CallerView>,
    /// What starting a worker takes, as measured, else guessed.
    pub start_us: u64,
    /// Sums since the packer began.
    pub totals: Totals,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkerView {
    /// Its name.
    pub worker: WorkerId,
    /// Its place in the pool.
    pub slot: Slot,
    /// What it is for.
    pub group: Group,
    /// What it does.
    pub state: WorkerState,
    /// Requests there.
    pub in_flight: u32,
    /// Packages resident there, as far as known, in hexadecimal.
    pub resident: Vec<String>,
    /// Bytes free for models, as far as known.
    pub free_bytes: u64,
    /// Memory of its process; 0 before it is measured.
    pub memory_bytes: u64,
    /// When it was asked for, since the driver's origin.
    pub since_us: u64,
    /// Requests it answered.
    pub answered: u64,
    /// Failures in a row.
    pub failures: u32,
    /// Its memory over time so far.
    pub gb_s: f64,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It is being started.
    Starting,
    /// It serves, and holds nothing yet.
    Empty,
    /// It serves.
    Serving,
    /// It serves, but is left alone for a while after failures.
    Avoided,
    /// It ends when it is idle.
    Retiring,
    /// It was told to end.
    Stopping,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PackageView {
    /// Its digest, in hexadecimal.
    pub package: String,
    /// Requests a second, over the last of them.
    pub rate: f64,
    /// What it takes when resident: measured, else the length of its file, else zero.
    pub size_bytes: u64,
    /// What making it resident takes, measured or guessed.
    pub open_us: u64,
    /// What one run takes, measured or guessed.
    pub run_us: u64,
    /// How long a worker is kept for it after its last use.
    pub keep_alive_us: u64,
    /// How long after its last use it is not expected at all.
    pub prewarm_us: u64,
    /// Requests of it that wait.
    pub waiting: usize,
    /// Requests of it that are at workers.
    pub in_flight: u32,
    /// Requests that arrived.
    pub arrived: u64,
    /// Its part of the pool's memory over time.
    pub gb_s: f64,
}

/// One caller.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CallerView {
    /// Its name.
    pub caller: Caller,
    /// Its requests that wait.
    pub waiting: usize,
    /// Memory over time while its requests were at workers.
    pub gb_s: f64,
}

/// Sums since the packer began.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Totals {
    /// Requests that arrived.
    pub arrived: u64,
    /// Requests that were answered.
    pub answered: u64,
    /// Requests that came back from a worker with nothing said of it: unheard, or not opened.
    pub returned: u64,
    /// Clients that left before their answer.
    pub left: u64,
    /// Dispatches that were second attempts.
    pub retried: u64,
    /// Answers by the start they report.
    pub starts: BTreeMap<StartKind, u64>,
    /// Workers asked for.
    pub workers_started: u64,
    /// Workers told to end.
    pub workers_stopped: u64,
    /// Workers that could not be started.
    pub start_failures: u64,
    /// Requests that found nothing to go to and waited for a worker to start.
    pub cold_starts: u64,
    /// Dispatches that failed, by how.
    pub failures: BTreeMap<Failure, u64>,
    /// Requests refused, by why.
    pub refusals: BTreeMap<Refusal, u64>,
    /// Time that workers existed, in seconds.
    pub worker_s: f64,
    /// Memory of all workers over time, as far as measured: the sum of all packages, the other packages and what is
    /// unused; likewise of all callers, the other callers and what is idle. The time of a worker before it was measured
    /// counts when it is, at what was measured then; of one that ends before, at what was last measured of any.
    pub gb_s: f64,
    /// Of it: while workers held nothing and nobody was there.
    pub unused_gb_s: f64,
    /// Of it: while nobody was there, whatever they held.
    pub idle_gb_s: f64,
    /// Of it: of packages that are not shown apart.
    pub other_packages_gb_s: f64,
    /// Of it: of callers that are not shown apart.
    pub other_callers_gb_s: f64,
}
