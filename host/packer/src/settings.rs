//! What an operator may set, with the bounds of everything the packer keeps.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How requests find workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// By what workers hold and how long they take.
    #[default]
    Bield,
    /// The published rules of SeSeMI's FnPacker, over a fixed number of endpoints.
    FnPacker,
    /// Workers of its own for each package.
    OnePerModel,
    /// Any worker for any package, blindly.
    AllInOne,
}

impl Policy {
    /// All of them, in the order they are listed to people.
    pub const ALL: [Self; 4] = [
        Self::Bield,
        Self::FnPacker,
        Self::OnePerModel,
        Self::AllInOne,
    ];

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bield => "bield",
            Self::FnPacker => "fnpacker",
            Self::OnePerModel => "one-per-model",
            Self::AllInOne => "all-in-one",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No policy has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no policy is called {0:?}; there are bield, fnpacker, one-per-model and all-in-one")]
pub struct ParsePolicyError(String);

impl FromStr for Policy {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, ParsePolicyError> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name() == text)
            .ok_or_else(|| ParsePolicyError(text.to_owned()))
    }
}

/// How long workers that do nothing live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Never less, however sure the prediction.
    pub floor: Duration,
    /// Never more.
    pub ceiling: Duration,
    /// For baselines, and for packages of which too little is known.
    pub fixed: Duration,
    /// Width of a bin of the histogram of idle times, of which there are [`crate::IDLE_BINS`] (240 in the paper: 4 h of
    /// minutes). Shorter in tests.
    pub bin: Duration,
}

/// What an operator sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How requests find workers.
    pub policy: Policy,
    /// Workers that live even when nothing is asked; policy `bield` only.
    pub workers_min: u32,
    /// Workers at most, those that start included. At least 1.
    pub workers_max: u32,
    /// Attested but empty workers that are kept ready beside those in use; policy `bield` only.
    pub spares: u32,
    /// Requests in one worker at once. At least 1.
    pub concurrency: u32,
    /// Requests that may wait, of all callers. 0: none waits, not for a start either; what finds no free place is refused.
    pub queue_max: usize,
    /// Requests that may wait, of one caller.
    pub share: usize,
    /// How long starting a worker takes, until it was measured.
    pub start_guess: Duration,
    /// How long opening a package takes, until it was measured.
    pub open_guess: Duration,
    /// How long running a model takes, until it was measured.
    pub run_guess: Duration,
    /// How long idle workers live.
    pub keep_alive: KeepAlive,
    /// Bytes a worker has for models, until it says so itself; also what a worker is taken to occupy until it is
    /// measured.
    pub worker_bytes: u64,
    /// How often it is looked whether fewer workers would do.
    pub interval: Duration,
    /// Endpoints of policy `fnpacker`.
    pub fnpacker_pool: u32,
    /// Cores that all workers share; 0 where each has its own, or nobody knows. Policy `bield` only.
    pub cores: u32,
    /// Cores that one worker can use at most; 0: all there are.
    pub worker_cores: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::Bield,
            workers_min: 0,
            workers_max: 4,
            spares: 0,
            concurrency: 4,
            queue_max: 256,
            share: 64,
            start_guess: Duration::from_secs(1),
            open_guess: Duration::from_millis(500),
            run_guess: Duration::from_millis(50),
            keep_alive: KeepAlive::default(),
            worker_bytes: 1 << 30,
            interval: Duration::from_secs(10),
            fnpacker_pool: 5,
            cores: 0,
            worker_cores: 0,
        }
    }
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            floor: Duration::from_secs(10),
            ceiling: Duration::from_secs(4 * 60 * 60),
            fixed: Duration::from_secs(10 * 60),
            bin: Duration::from_secs(60),
        }
    }
}
