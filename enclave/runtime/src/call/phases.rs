//! What a call had to wait for, and what of that the host is told.

use std::time::{Duration, Instant};

use bield_protocol::feedback::{Feedback, StartKind, StatePlace};

use super::Runtime;
use crate::loading::LoadTimes;

/// Most packages named in one feedback.
const RESIDENT_NAMED_MAX: usize = 64;

/// What a call had to wait for; what is absent was there already.
#[derive(Default)]
pub(super) struct Phases {
    pub(super) lease: Option<Duration>,
    pub(super) load: Option<LoadTimes>,
    /// For others' turns.
    pub(super) queue: Duration,
    /// Computing: neither sending outputs nor waiting for their reader.
    pub(super) run: Duration,
    /// Making the engine's state for the run.
    pub(super) session: Option<Duration>,
    pub(super) engine: Option<&'static str>,
    /// Until the first part left, of an answer that leaves in parts.
    pub(super) first: Option<Duration>,
    /// Of a function with a state.
    pub(super) state: Option<StatePlace>,
}

impl Phases {
    pub(super) fn lease<T>(&mut self, act: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = act();
        *self.lease.get_or_insert_default() += started.elapsed();
        done
    }

    const fn start(&self) -> StartKind {
        match (&self.lease, &self.load) {
            (None, None) if self.session.is_some() => StartKind::WarmRuntime,
            (None, None) => StartKind::Hot,
            (Some(_), None) => StartKind::WarmModel,
            (None, Some(_)) => StartKind::WarmKey,
            (Some(_), Some(_)) => StartKind::Cold,
        }
    }
}

impl Runtime {
    pub(super) fn feedback(&self, phases: &Phases, started: Instant) -> Feedback {
        let load = phases.load.unwrap_or_default();
        let models = self.models.counts();
        let mut resident = self.models.names(RESIDENT_NAMED_MAX);
        if let Some(functions) = &self.functions {
            resident.extend(functions.names());
            resident.truncate(RESIDENT_NAMED_MAX);
        }
        Feedback {
            start: phases.start(),
            lease_us: micros(phases.lease.unwrap_or_default()),
            open_us: micros(load.open),
            load_us: micros(load.load),
            run_us: micros(phases.run),
            total_us: micros(phases.first.unwrap_or_else(|| started.elapsed())),
            resident,
            in_flight: u32::try_from(self.gate.inside()).unwrap_or(u32::MAX),
            queue_us: micros(phases.queue + load.queue),
            free_bytes: models.free_bytes,
            engine: phases.engine.map(str::to_owned),
            state: phases.state,
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

const _: () = assert!(RESIDENT_NAMED_MAX * 40 < 64 << 10);
