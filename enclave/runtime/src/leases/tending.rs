//! What happens to leases while nobody waits: renewal, return, forgetting.
//!
//! Always true: one pass changes nothing that a request waits for; it stops at the first sign that the key service
//! cannot be asked, and what it could not do is done by a later pass. On paper: a pass without work looks at
//! each lease once, at most [`LEASES_MAX`](super::LEASES_MAX).

use std::sync::Arc;
use std::time::Duration;

use bield_envelope::Digest;
use bield_platform::Randomness;
use bield_protocol::service::Returned;

use super::{Entry, Keys, KeysError, Leases, count};
use crate::flights::lock;

/// How long one session that returns allotments may take.
const RETURN_WAIT: Duration = Duration::from_secs(10);

impl Leases {
    /// Goes over all leases once. Names the packages whose keys the key service refused.
    pub(crate) fn tend(&self) -> Vec<Digest> {
        self.forget_ended();
        let mut refused = Vec::new();
        if !lock(&self.outage).is_over(self.clock.running()) {
            return refused;
        }
        for (package, seen) in self.due() {
            match self.renew_used(package, &seen) {
                Ok(_) | Err(KeysError::TooSoon) => {}
                Err(KeysError::NotGranted) => refused.push(package),
                Err(error) if error.is_outage() => {
                    self.note_outage();
                    return refused;
                }
                Err(_) => self.note_failure(package),
            }
        }
        self.return_idle();
        refused
    }

    /// Returns what no lease will use any more, because this program stops.
    pub(crate) fn give_back(&self, wait: Duration) {
        let mut cached = lock(&self.cached);
        let all: Vec<_> = cached.values_mut().filter_map(Entry::returning).collect();
        drop(cached);
        if !all.is_empty() {
            // Without an answer it counts as used: this was the last chance.
            let _ = self.source.give_back(&all, wait);
        }
    }

    fn forget_ended(&self) {
        for entry in lock(&self.cached).values_mut() {
            if entry.keys.as_ref().is_some_and(|keys| !keys.is_current()) {
                entry.returning();
                entry.keys = None;
            }
        }
    }

    /// Leases that are used and due, those that end first first.
    fn due(&self) -> Vec<(Digest, Arc<Keys>)> {
        let now = self.clock.running();
        let cached = lock(&self.cached);
        let mut due: Vec<_> = cached
            .iter()
            .filter(|(_, entry)| now >= entry.due && entry.backoff.is_over(now))
            .filter_map(|(package, entry)| {
                let keys = entry.keys.as_ref().filter(|keys| keys.is_used())?;
                Some((entry.ends, *package, Arc::clone(keys)))
            })
            .collect();
        due.sort_unstable_by_key(|(ends, ..)| *ends);
        due.into_iter()
            .map(|(_, package, keys)| (package, keys))
            .collect()
    }

    fn renew_used(&self, package: Digest, seen: &Arc<Keys>) -> Result<Arc<Keys>, KeysError> {
        self.flights.join(package, || {
            if let Some(newer) = self.newer(package, seen) {
                return Ok(newer);
            }
            let renewed = self.fetch(package)?;
            count(&self.counts.renewed);
            Ok(renewed)
        })
    }

    fn return_idle(&self) {
        let now = self.clock.running();
        let idle: Vec<_> = lock(&self.cached)
            .iter_mut()
            .filter(|(_, entry)| entry.is_idle(now) && entry.backoff.is_over(now))
            .filter_map(|(package, entry)| Some((*package, entry.returning()?)))
            .collect();
        if idle.is_empty() {
            return;
        }
        let (packages, all): (Vec<_>, Vec<_>) = idle.into_iter().unzip();
        match self.source.give_back(&all, RETURN_WAIT) {
            Err(error) if error.is_outage() => self.note_outage(),
            // Taken, or never to be taken.
            _ => {
                let mut cached = lock(&self.cached);
                for (package, returned) in packages.iter().zip(all) {
                    if let Some(entry) = cached.get_mut(package)
                        && entry.returned.as_ref() == Some(&returned)
                    {
                        entry.returned = None;
                    }
                }
            }
        }
    }

    fn note_outage(&self) {
        lock(&self.outage).note(self.clock.running(), &mut Randomness);
    }

    fn note_failure(&self, package: Digest) {
        if let Some(entry) = lock(&self.cached).get_mut(&package) {
            entry.backoff.note(self.clock.running(), &mut Randomness);
        }
    }
}

impl Entry {
    /// Whether nobody will use these allotments: the keys ended, or will without having been used.
    fn is_idle(&self, now: Duration) -> bool {
        self.keys
            .as_ref()
            .is_none_or(|keys| !keys.is_used() && now >= self.idle)
    }

    /// What is to be returned for this package; its keys, if any, admit nothing by it afterwards.
    pub(super) fn returning(&mut self) -> Option<Returned> {
        if self.returned.is_none() {
            self.returned = self.keys.as_ref().and_then(|keys| keys.unused());
        }
        self.returned.clone()
    }
}
