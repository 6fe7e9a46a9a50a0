//! Everything an operator may see, as values.

use super::Packer;
use crate::accounts::gb_s;
use crate::explain::micros;
use crate::view::{CallerView, PackageView, Totals, View, WorkerView};

impl Packer {
    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Memory of all workers over time, in gigabyte-seconds, as far as it is booked: for each worker up to its last event.
    #[must_use]
    pub fn booked_gb_s(&self) -> f64 {
        gb_s(self.accounts.total)
    }

    /// Everything an operator may see, as of the last event.
    #[must_use]
    pub fn view(&self) -> View {
        let mut accounts = self.accounts.clone();
        let workers = self.workers.iter().map(|(id, worker)| {
            let unbooked = worker.bill(self.now, &self.packages, &mut accounts);
            WorkerView {
                worker: *id,
                slot: worker.slot,
                group: worker.group,
                state: worker.state(self.now),
                in_flight: worker.in_flight(),
                resident: worker
                    .resident
                    .iter()
                    .map(|held| held.package.to_string())
                    .collect(),
                free_bytes: worker.free(&self.packages),
                memory_bytes: worker.memory.unwrap_or(0),
                since_us: micros(worker.since),
                answered: worker.answered,
                failures: worker.failures,
                gb_s: gb_s(worker.taken + unbooked),
            }
        });
        let workers: Vec<_> = workers.collect();
        // Of packages that are not known any more.
        let forgotten = accounts
            .packages
            .iter()
            .filter(|(package, _)| self.packages.get(**package).is_none());
        let other_packages =
            accounts.other_packages + forgotten.map(|(_, part)| part).sum::<u128>();
        let mut packages: Vec<_> = self
            .packages
            .iter()
            .map(|(package, known)| PackageView {
                package: package.to_string(),
                rate: known.rate(self.now),
                size_bytes: known.size(),
                open_us: micros(self.packages.open_time(package, &self.settings)),
                run_us: micros(known.run(&self.settings)),
                keep_alive_us: micros(known.expected.until),
                prewarm_us: micros(known.expected.from),
                waiting: known.waiting,
                in_flight: known.in_flight,
                arrived: known.arrived,
                gb_s: gb_s(accounts.packages.get(&package).copied().unwrap_or(0)),
            })
            .collect();
        packages.sort_by(|a, b| a.package.cmp(&b.package));
        let mut callers: Vec<_> = accounts.callers.keys().copied().collect();
        callers.extend(self.queue.callers());
        callers.sort_unstable();
        callers.dedup();
        let callers = callers.into_iter().map(|caller| CallerView {
            caller,
            waiting: self.queue.of_caller(caller),
            gb_s: gb_s(accounts.callers.get(&caller).copied().unwrap_or(0)),
        });
        View {
            policy: self.settings.policy.name(),
            at_us: micros(self.now),
            draining: self.draining,
            workers_max: self.settings.workers_max,
            workers,
            waiting: self.queue.len(),
            queue_max: self.settings.queue_max,
            packages,
            callers: callers.collect(),
            start_us: micros(self.start_time()),
            totals: Totals {
                worker_s: accounts.worker_us as f64 / 1e6,
                gb_s: gb_s(accounts.total),
                unused_gb_s: gb_s(accounts.unused),
                idle_gb_s: gb_s(accounts.idle),
                other_packages_gb_s: gb_s(other_packages),
                other_callers_gb_s: gb_s(accounts.other_callers),
                ..self.totals.clone()
            },
        }
    }
}
