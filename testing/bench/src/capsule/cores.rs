//! One core for a thread and all threads it starts.

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Gives the cores back when dropped.
pub(crate) struct Pinned(CpuSet);

/// Keeps this thread, and those it starts from now on, on the first core it may use.
pub(crate) fn pin_to_one() -> Result<Pinned> {
    let all = sched_getaffinity(None).context("asking for this thread's cores")?;
    let core = (0..CpuSet::MAX_CPU)
        .find(|core| all.is_set(*core))
        .context("a thread has a core")?;
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).context("pinning to one core")?;
    Ok(Pinned(all))
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // On one core the rest would only be slower.
        let _ = sched_setaffinity(None, &self.0);
    }
}
