//! Two clocks: the host's, which may lie, and one that only runs on.
//!
//! Everything about leases is decided by these two, so a test plays them and waits for nothing. Always true of
//! [`Clock::running`]: it never goes back. Not here: which of the two counts (`keys`).

use std::time::{Duration, Instant};

use bield_envelope::Time;

/// The clocks of this program.
pub(crate) trait Clock: Send + Sync {
    /// Time since some moment before the first call.
    fn running(&self) -> Duration;

    /// What the host says.
    fn host(&self) -> Time;
}

/// The clocks of the machine.
pub(crate) struct MachineClock(Instant);

impl MachineClock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for MachineClock {
    fn running(&self) -> Duration {
        self.0.elapsed()
    }

    fn host(&self) -> Time {
        bield_platform::now()
    }
}
