//! A worker's memory over time, booked to who is there.
//!
//! Always true: no time is booked twice or left out; until its memory is measured its time is kept as of a byte, split
//! as it will be booked.

use std::time::Duration;

use super::{RESIDENTS_MAX, Worker};
use crate::accounts::{Accounts, ByteMicros};
use crate::explain::micros;
use crate::packages::Packages;

impl Worker {
    /// Books its memory up to `now`.
    pub(crate) fn book(&mut self, now: Duration, packages: &Packages, accounts: &mut Accounts) {
        self.count_again();
        let micros = match self.memory {
            Some(bytes) => {
                let micros = self.bill_at(bytes, now, packages, accounts);
                self.taken += u128::from(bytes) * u128::from(micros);
                micros
            }
            None => {
                let mut unmeasured = std::mem::take(&mut self.unmeasured);
                let micros = self.bill_at(1, now, packages, &mut unmeasured);
                self.unmeasured = unmeasured;
                micros
            }
        };
        // In whole microseconds, so that nothing is lost between one booking and the next.
        self.booked = self.booked.saturating_add(Duration::from_micros(micros));
    }

    /// It takes `bytes`: so it is booked from now on, and so was the time that was booked before it was measured.
    pub(crate) fn measured(&mut self, bytes: u64, accounts: &mut Accounts) {
        if self.memory.is_none() {
            self.count_unmeasured(bytes, accounts);
        }
        self.memory = Some(bytes);
    }

    /// Books the time that was not measured at `bytes`.
    pub(crate) fn count_unmeasured(&mut self, bytes: u64, accounts: &mut Accounts) {
        let unmeasured = std::mem::take(&mut self.unmeasured);
        self.taken += unmeasured.total * u128::from(bytes);
        accounts.merge(unmeasured, bytes);
    }

    /// Whether its time before it was measured is split among as many as are kept apart.
    pub(crate) fn is_unmeasured_for_long(&self) -> bool {
        self.unmeasured
            .packages
            .len()
            .max(self.unmeasured.callers.len())
            >= RESIDENTS_MAX
    }

    /// Adds to `accounts` what is not booked yet, at no byte while it was not measured; returns how much.
    pub(crate) fn bill(
        &self,
        now: Duration,
        packages: &Packages,
        accounts: &mut Accounts,
    ) -> ByteMicros {
        accounts.worker_us += self.unmeasured.worker_us;
        let bytes = self.memory.unwrap_or(0);
        let micros = self.bill_at(bytes, now, packages, accounts);
        u128::from(bytes) * u128::from(micros)
    }

    /// Adds to `accounts` what is not booked yet, at `bytes`; returns for how many microseconds.
    fn bill_at(
        &self,
        bytes: u64,
        now: Duration,
        packages: &Packages,
        accounts: &mut Accounts,
    ) -> u64 {
        let micros = micros(now.saturating_sub(self.booked));
        if micros == 0 {
            return 0;
        }
        let there = self
            .flights
            .iter()
            .map(|flight| (flight.package, flight.caller));
        let there: Vec<_> = there.collect();
        let held = self
            .resident
            .iter()
            .map(|held| (held.package, packages.size(held.package)));
        let held: Vec<_> = if there.is_empty() {
            held.collect()
        } else {
            Vec::new()
        };
        accounts.book(bytes, micros, &there, &held);
        micros
    }
}
