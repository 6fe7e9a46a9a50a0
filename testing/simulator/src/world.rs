//! What things cost, and what goes wrong.

use std::time::Duration;

use bield_envelope::Digest;

/// One model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its package.
    pub package: Digest,
    /// Bytes it takes when resident.
    pub bytes: u64,
    /// What opening it takes alone, its lease included.
    pub open: Duration,
    /// What one run takes alone.
    pub run: Duration,
}

/// Where workers live.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// The trace's models, by index.
    pub models: Vec<Model>,
    /// What starting a worker takes.
    pub start: Duration,
    /// Bytes a worker has for models.
    pub budget: u64,
    /// Bytes a worker takes without any.
    pub base: u64,
    /// Cores that all workers share; 0 where each request has its own.
    pub cores: u32,
    /// How much every time varies: 0.1 for a tenth more or less.
    pub noise: f64,
    /// How long a client waits.
    pub patience: Duration,
    /// What goes wrong.
    pub faults: Faults,
}

/// How likely things go wrong, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// A worker does not start.
    pub start_fails: f64,
    /// A worker refuses a request unread.
    pub busy: f64,
    /// A worker is gone in the middle of a request.
    pub dies: f64,
    /// An answer breaks off.
    pub breaks: f64,
}
