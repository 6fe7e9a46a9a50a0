//! A played key service that can change its mind, fall silent, and counts what it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bield_envelope::{Digest, Time, Verified};
use bield_grant::{Allotment, Grant, Group, Succeeded};
use bield_protocol::service::{LeasedAudienceKey, LeasedKeys, Returned};

use super::{AUDIENCE, Cast, HOUR, PlayedClock, audience_seed};
use crate::clock::Clock as _;
use crate::flights::lock;
use crate::keys::Keys;
use crate::leases::{KeySource, KeysError, Leases};

/// The played key service.
#[derive(Clone)]
pub(crate) struct Service(Arc<Mutex<Mind>>);

/// What it answers, and what it heard.
pub(crate) struct Mind {
    clock: Arc<PlayedClock>,
    /// Questions so far, for any package.
    pub(crate) fetches: u32,
    /// Grants instead of the user's ordinary one.
    pub(crate) grants: Option<Vec<Verified<Grant>>>,
    pub(crate) groups: Vec<Verified<Group>>,
    pub(crate) successions: Vec<Succeeded>,
    /// Numbers of the audience's keys, and their ends.
    pub(crate) audience: Vec<(u8, Option<Time>)>,
    /// Length of a lease.
    pub(crate) lasts: Duration,
    /// What is left of the quotas of metered grants.
    pub(crate) quotas: BTreeMap<Digest, u64>,
    /// Leases that are out, with what they were allotted; a lease returns once.
    pub(crate) allotted: BTreeMap<u64, Vec<Allotment>>,
    /// Refuses, or is not reached.
    pub(crate) fails: Option<KeysError>,
    /// Does what it is asked, and its answer is lost.
    pub(crate) answers_are_lost: bool,
    /// Holds every answer back as long as it is locked.
    pub(crate) hold: Arc<Mutex<()>>,
    leases: u64,
}

impl Service {
    pub(crate) fn new(clock: Arc<PlayedClock>) -> Self {
        Self(Arc::new(Mutex::new(Mind {
            clock,
            fetches: 0,
            grants: None,
            groups: Vec::new(),
            successions: Vec::new(),
            audience: vec![(AUDIENCE, None)],
            lasts: HOUR / 6,
            quotas: BTreeMap::new(),
            allotted: BTreeMap::new(),
            fails: None,
            answers_are_lost: false,
            hold: Arc::default(),
            leases: 0,
        })))
    }

    pub(crate) fn mind(&self) -> MutexGuard<'_, Mind> {
        lock(&self.0)
    }

    /// A cache in front of it, with so many places to wait.
    pub(crate) fn leases(&self, places: usize) -> Leases {
        let clock = Arc::clone(&self.mind().clock);
        Leases::new(Box::new(self.clone()), clock, places)
    }

    fn wait(&self) {
        let hold = Arc::clone(&self.mind().hold);
        drop(lock(&hold));
    }
}

impl Mind {
    fn take_back(&mut self, returned: &Returned) {
        if self.allotted.remove(&returned.lease).is_some() {
            for unused in &returned.unused {
                *self.quotas.entry(unused.grant).or_default() += unused.requests;
            }
        }
    }

    fn lease(&mut self, package: Digest) -> LeasedKeys {
        let cast = Cast::new();
        let mut leased = cast.leased(package, Duration::ZERO);
        self.leases += 1;
        leased.lease.id = self.leases;
        leased.issued = self.clock.host();
        leased.lease.not_after = leased.issued.plus(self.lasts);
        if let Some(grants) = self.grants.clone() {
            leased.grants = grants.into_iter().map(Verified::into_signed).collect();
        }
        let groups = self.groups.iter().cloned();
        leased.groups = groups.map(Verified::into_signed).collect();
        leased.successions = self.successions.clone();
        let audience = self.audience.iter();
        leased.audience_keys = audience
            .map(|(number, not_after)| LeasedAudienceKey {
                seed: audience_seed(*number),
                not_after: *not_after,
            })
            .collect();
        for (grant, left) in &mut self.quotas {
            let requests = Allotment::share(*left);
            *left -= requests;
            leased.allotments.push(Allotment {
                grant: *grant,
                requests,
            });
        }
        self.allotted
            .insert(leased.lease.id, leased.allotments.clone());
        leased
    }
}

impl KeySource for Service {
    fn fetch(
        &self,
        package: Digest,
        returned: &dyn Fn() -> Option<Returned>,
    ) -> Result<Keys, KeysError> {
        self.wait();
        let mut mind = self.mind();
        mind.fetches += 1;
        if let Some(error) = mind.fails.clone() {
            return Err(error);
        }
        drop(mind);
        let returned = returned();
        let mut mind = self.mind();
        if let Some(returned) = returned {
            mind.take_back(&returned);
        }
        let leased = mind.lease(package);
        if mind.answers_are_lost {
            return Err(unreachable());
        }
        Ok(Cast::new().keys(leased, &mind.clock))
    }

    fn give_back(&self, returned: &[Returned], _: Duration) -> Result<(), KeysError> {
        self.wait();
        let mut mind = self.mind();
        if let Some(error) = mind.fails.clone() {
            return Err(error);
        }
        for returned in returned {
            mind.take_back(returned);
        }
        match mind.answers_are_lost {
            true => Err(unreachable()),
            false => Ok(()),
        }
    }
}

pub(crate) fn unreachable() -> KeysError {
    KeysError::Unreachable {
        why: "test".to_owned(),
    }
}
