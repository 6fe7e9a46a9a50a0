//! The cache of leased keys.
//!
//! ```text
//! get(package) ──▶ cached and current? ──▶ Keys
//!                      └ no ──▶ a place, and for strangers a token (`cold`) ──▶ single flight ──▶ KeySource ──▶ Keys
//! renew(package, seen) ── as get, but anything newer than `seen`, rationed ──▶ Keys
//! tend() ── in the background: renew what is used and due, return what is not used, forget what ended
//! ```
//!
//! Always true: keys whose lease or certificate has ended are never handed out; a lease that the key service
//! refuses to renew is forgotten at once, and one that it cannot be asked about goes on to its end; who has current
//! keys waits for nobody; a failure is kept from nobody who comes later. What a lease allotted is spent here or
//! returned, never both: it is taken out of the meter before it is sent, and sent again if no answer comes.
//! Renewals ahead of time are rationed per package ([`RENEWAL_EVERY`], [`RENEWALS_AT_ONCE`]) and first fetches over all
//! packages, so that users without a grant and strangers cannot turn this runtime against the key service. Why the
//! key service refuses is not even kept: outside, all reasons are `not-granted` (spec/04).
//!
//! Not here: the session (`key_service`), what keys are (`keys`), admission (`bield-grant`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bield_envelope::{Digest, Time};
use bield_platform::Randomness;
use bield_protocol::service::Returned;

mod error;
mod renewal;
mod tending;

pub(crate) use error::KeysError;

use crate::clock::Clock;
use crate::cold::Cold;
use crate::flights::{Flights, lock};
use crate::keys::Keys;
use crate::tokens::Tokens;
use renewal::{Backoff, due_in};

/// Most packages whose keys, or unreturned allotments, are kept; the one that ends first makes room.
pub(crate) const LEASES_MAX: usize = 1024;
/// One renewal ahead of time per package and this long, on average.
pub(crate) const RENEWAL_EVERY: Duration = Duration::from_secs(1);
/// Renewals that may follow each other at once: a few grants made in a row work at once.
pub(crate) const RENEWALS_AT_ONCE: u32 = 3;

/// Where keys come from.
pub(crate) trait KeySource: Send + Sync {
    /// Asks for the keys of `package`. What `returned` gives goes with the question; it is called only when the
    /// question is about to leave, and whatever it gave counts as sent.
    ///
    /// # Errors
    /// See [`KeysError`].
    fn fetch(
        &self,
        package: Digest,
        returned: &dyn Fn() -> Option<Returned>,
    ) -> Result<Keys, KeysError>;

    /// Returns what leases did not use, all in one session that takes at most `wait`.
    ///
    /// # Errors
    /// See [`KeysError`]; some may have arrived.
    fn give_back(&self, returned: &[Returned], wait: Duration) -> Result<(), KeysError>;
}

/// The keys of many packages.
pub(crate) struct Leases {
    source: Box<dyn KeySource>,
    clock: Arc<dyn Clock>,
    cached: Mutex<HashMap<Digest, Entry>>,
    flights: Flights<Result<Arc<Keys>, KeysError>>,
    cold: Cold,
    /// While the key service cannot be asked, renewals wait together.
    outage: Mutex<Backoff>,
    counts: Counts,
}

/// One package that this runtime has, or had, keys of.
struct Entry {
    /// `None` once they have ended.
    keys: Option<Arc<Keys>>,
    ends: Time,
    /// When they are renewed in the background, by the running clock, if they are used.
    due: Duration,
    /// When their allotments are returned if they are not.
    idle: Duration,
    backoff: Backoff,
    renewals: Tokens,
    /// What an earlier lease did not use, until the key service has it.
    returned: Option<Returned>,
}

/// What happened since start.
#[derive(Default)]
struct Counts {
    fetched: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    renewed: AtomicU64,
}

/// [`Counts`] at one moment, and the packages whose keys are here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LeaseCounts {
    pub(crate) held: u64,
    /// Leases got, renewals included.
    pub(crate) fetched: u64,
    /// Of these, those got in the background.
    pub(crate) renewed: u64,
    /// Questions without an answer.
    pub(crate) failed: u64,
    /// Questions that the key service answered with no.
    pub(crate) refused: u64,
}

impl Leases {
    /// Keeps what `source` gives; at most `places` threads wait for keys at once.
    pub(crate) fn new(source: Box<dyn KeySource>, clock: Arc<dyn Clock>, places: usize) -> Self {
        Self {
            source,
            cold: Cold::new(places, Arc::clone(&clock)),
            clock,
            cached: Mutex::default(),
            flights: Flights::new(),
            outage: Mutex::default(),
            counts: Counts::default(),
        }
    }

    /// Returns current keys that are already here.
    pub(crate) fn cached(&self, package: Digest) -> Option<Arc<Keys>> {
        let keys = lock(&self.cached).get(&package)?.keys.clone();
        keys.filter(|keys| keys.is_current())
    }

    /// Returns current keys, fetched if need be.
    ///
    /// # Errors
    /// See [`KeysError`]; shared by all who waited for the same fetch.
    pub(crate) fn get(&self, package: Digest) -> Result<Arc<Keys>, KeysError> {
        if let Some(keys) = self.cached(package) {
            return Ok(keys);
        }
        // An ended lease still says that the package is real; such refetches must not starve behind strangers.
        let known = lock(&self.cached).contains_key(&package);
        // Held while waiting for another thread's fetch too: either way a thread is taken.
        let _place = self.cold.enter(known)?;
        loop {
            let got = self.flights.join(package, || {
                if let Some(keys) = self.cached(package) {
                    return Ok(keys);
                }
                if !known {
                    self.cold.spend(package)?;
                }
                self.fetch(package)
            });
            match got {
                // Somebody else's flight, and it did not even ask.
                Err(KeysError::TooSoon) => {}
                Err(error) if known && error.is_outage() => {
                    return Err(KeysError::LeaseEnded(Box::new(error)));
                }
                got => return got,
            }
        }
    }

    /// Returns keys newer than `seen`, for a request that those refuse: a grant may be younger than its lease.
    ///
    /// # Errors
    /// [`KeysError::TooSoon`] when the ration is used up, else as [`get`](Self::get).
    pub(crate) fn renew(&self, package: Digest, seen: &Arc<Keys>) -> Result<Arc<Keys>, KeysError> {
        let _place = self.cold.enter(true)?;
        self.flights.join(package, || {
            if let Some(newer) = self.newer(package, seen) {
                return Ok(newer);
            }
            self.spend_renewal(package)?;
            self.fetch(package)
        })
    }

    /// Returns keys that were fetched after this was called, or by a fetch that was under way.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn fetch_anew(&self, package: Digest) -> Result<Arc<Keys>, KeysError> {
        let _place = self.cold.enter(true)?;
        self.flights.join(package, || self.fetch(package))
    }

    /// Forgets the keys of a package. Whoever serves with them goes on; what they were allotted is returned.
    pub(crate) fn let_go(&self, package: Digest) {
        let mut cached = lock(&self.cached);
        let keys = cached.get_mut(&package).and_then(|entry| {
            entry.returning();
            entry.keys.take()
        });
        drop(cached);
        drop(keys);
    }

    /// Counts what happened.
    pub(crate) fn counts(&self) -> LeaseCounts {
        let entries = lock(&self.cached);
        let held = entries.values().filter(|entry| entry.keys.is_some());
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LeaseCounts {
            held: held.count() as u64,
            fetched: read(&self.counts.fetched),
            renewed: read(&self.counts.renewed),
            failed: read(&self.counts.failed),
            refused: read(&self.counts.refused),
        }
    }

    fn newer(&self, package: Digest, seen: &Arc<Keys>) -> Option<Arc<Keys>> {
        self.cached(package).filter(|keys| !Arc::ptr_eq(keys, seen))
    }

    fn spend_renewal(&self, package: Digest) -> Result<(), KeysError> {
        let now = self.clock.running();
        let mut cached = lock(&self.cached);
        // Forgotten meanwhile: whoever asks next begins as a stranger.
        let entry = cached.get_mut(&package).ok_or(KeysError::TooSoon)?;
        entry
            .renewals
            .take(now)
            .then_some(())
            .ok_or(KeysError::TooSoon)
    }

    /// Asks the key service. Called by the leader of a flight only.
    fn fetch(&self, package: Digest) -> Result<Arc<Keys>, KeysError> {
        let fetched = self.source.fetch(package, &|| self.returned_by(package));
        match fetched {
            Ok(keys) => {
                count(&self.counts.fetched);
                *lock(&self.outage) = Backoff::default();
                let keys = Arc::new(keys);
                self.keep(package, &keys);
                Ok(keys)
            }
            Err(KeysError::NotGranted) => {
                count(&self.counts.refused);
                lock(&self.cached).remove(&package);
                self.cold.note(package);
                Err(KeysError::NotGranted)
            }
            Err(error) => {
                count(&self.counts.failed);
                Err(error)
            }
        }
    }

    /// What goes with the next question for keys of `package`; nothing admits by it any more.
    fn returned_by(&self, package: Digest) -> Option<Returned> {
        lock(&self.cached).get_mut(&package)?.returning()
    }

    fn keep(&self, package: Digest, keys: &Arc<Keys>) {
        let (now, left) = (self.clock.running(), keys.left());
        let mut cached = lock(&self.cached);
        let renewals = match cached.remove(&package) {
            // What it returned has arrived.
            Some(before) => before.renewals,
            None => Tokens::new(RENEWAL_EVERY, RENEWALS_AT_ONCE, now),
        };
        make_room(&mut cached);
        let entry = Entry {
            keys: Some(Arc::clone(keys)),
            ends: keys.ends(),
            due: now + due_in(left, &mut Randomness),
            idle: now + left * renewal::IDLE / 1000,
            backoff: Backoff::default(),
            renewals,
            returned: None,
        };
        cached.insert(package, entry);
    }
}

fn make_room(cached: &mut HashMap<Digest, Entry>) {
    while cached.len() >= LEASES_MAX {
        let ends_first = cached.iter().min_by_key(|(_, entry)| entry.ends);
        let Some(package) = ends_first.map(|(package, _)| *package) else {
            return;
        };
        cached.remove(&package);
    }
}

fn count(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
