//! Cores that all workers share: what another worker, or another copy of a package, cannot help with.
//!
//! On paper: `n` requests that compute on `c < n` shared cores take `n / c` times as long as alone, in however many workers
//! they are. Another worker adds no core: whatever it answers earlier, others get later, and starting it and opening
//! packages in it is work on top. So while every core has a request,
//!
//! * no worker is started for load, if there is one that could take the request: it waits for a place there, and what it
//!   waits is what the cores need anyway;
//! * no replica is opened because waits add up;
//! * an opening gets its share of the cores only, so it is predicted to take `(n + 1) / c` times as long. Runs are
//!   slower everywhere alike, which changes no choice, and their measured times have it in them.
//!
//! A worker computes with `worker_cores` at most, whatever was sent there: where one cannot use all cores, others are
//! started until they do. What it costs: a short request may wait behind long ones for a place.
//!
//! A request in flight may also wait for its reader, or for storage, and leave its core idle: one that takes
//! [`COMPUTES`] times as long as predicted, and as long as starting a worker, does not count. Nor does one at a
//! worker that is left alone for its failures.
//!
//! Not here: workers for memory, spares, pre-warming (`upkeep.rs`). Of fewer workers: as many places as there are cores
//! do for what computes.

use std::time::Duration;

use super::Packer;
use crate::worker::{Flight, Phase, Worker};

/// A request that takes so many times what was predicted waits for something else than a core.
const COMPUTES: u32 = 4;

/// What is asked of the pool at once.
#[derive(Clone, Copy, Default)]
pub(super) struct Demand {
    /// Places that it takes.
    pub(super) places: usize,
    /// Cores that it keeps busy; 0 where they are not known.
    pub(super) cores: usize,
}

impl Packer {
    /// Whether every core has a request, or will have when those that start serve.
    pub(super) fn cores_are_busy(&self) -> bool {
        self.settings.cores > 0 && self.busy_cores() >= self.settings.cores
    }

    /// What an opening of `open_us` takes beside all that computes, in microseconds.
    pub(super) fn shared_us(&self, open_us: u64) -> u64 {
        let (cores, busy) = (self.settings.cores, self.busy_cores());
        if cores == 0 || busy < cores {
            return open_us;
        }
        let sharing = u64::from(busy).saturating_add(1);
        open_us.saturating_mul(sharing) / u64::from(cores)
    }

    /// What is asked now, requests that wait included.
    pub(super) fn demand(&self) -> Demand {
        let in_flight: usize = self.workers.values().map(|w| w.flights.len()).sum();
        let waiting = self.queue.len();
        if self.settings.cores == 0 {
            return Demand {
                places: in_flight + waiting,
                cores: 0,
            };
        }
        let computing: usize = self.workers.values().map(|w| self.computing(w)).sum();
        let cores = (computing + waiting).min(self.settings.cores as usize);
        Demand {
            places: in_flight - computing + cores,
            cores,
        }
    }

    /// Cores that one worker can use.
    pub(super) fn worker_cores(&self) -> u32 {
        match self.settings.worker_cores {
            0 => u32::MAX,
            cores => cores,
        }
    }

    fn busy_cores(&self) -> u32 {
        let busy = self.workers.values().map(|worker| {
            let there = match worker.phase {
                Phase::Starting => worker.planned.requests,
                Phase::Serving | Phase::Stopping => self.computing(worker) as u32,
            };
            let places = self.settings.concurrency.max(1);
            there.min(places).min(self.worker_cores())
        });
        busy.fold(0, u32::saturating_add)
    }

    fn computing(&self, worker: &Worker) -> usize {
        if self.now < worker.avoid_until {
            return 0;
        }
        let start = self.start_time();
        let computes = |flight: &&Flight| {
            let predicted = flight.expected.saturating_sub(flight.sent);
            let most = predicted.saturating_mul(COMPUTES).max(start);
            self.now.saturating_sub(flight.sent) <= most.max(Duration::from_millis(1))
        };
        worker.flights.iter().filter(computes).count()
    }
}
