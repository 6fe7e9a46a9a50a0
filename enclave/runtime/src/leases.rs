//! Leased keys: what they are, and the cache of them.
//!
//! ```text
//! get(package) ──▶ cached and current? ──▶ Keys
//!                      └ no ──▶ never had any? ration (`cold`) ──▶ single flight ──▶ KeySource ──▶ Keys
//! renew(package, seen) ── as get, but anything newer than `seen` ──▶ Keys
//! ```
//!
//! Always true: keys are for the package that was asked and for this program's own code; every grant beside
//! them carries the package owner's signature; keys whose lease or certificate has ended are never handed
//! out; a lease that the key service refuses to renew is forgotten at once. Renewals ahead of time are rationed per
//! package ([`RENEWAL_EVERY`], [`RENEWAL_SAVED_MAX`]) and first fetches over all packages, so that users without a grant and strangers
//! cannot turn this runtime against the key service. Why the key service refuses is not even kept: outside, all
//! reasons are `not-granted` (spec/04, section 7). Not here: the session (`key_service`), admission (`bield-grant`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::{AudienceKey, Digest, Time, Verified};
use bield_evidence::Measurement;
use bield_grant::{Grant, Lease, Leased, Revocations};
use bield_package::PackageKey;
use bield_protocol::call::Unsealed;
use bield_protocol::service::LeasedKeys;
use bield_receipt::WorkerCertificate;

use crate::cold::Cold;
use crate::flights::{Flights, lock};

/// Most packages whose keys are kept; the one that ends first makes room.
pub(crate) const LEASES_MAX: usize = 1024;
/// One renewal ahead of time per package and this long, on average.
pub(crate) const RENEWAL_EVERY: Duration = Duration::from_secs(1);
/// Renewals that may follow each other at once: a few grants made in a row work at once.
pub(crate) const RENEWAL_SAVED_MAX: Duration = Duration::from_secs(3);

/// Where keys come from.
pub(crate) trait KeySource: Send + Sync {
    /// Asks for the keys of `package`.
    ///
    /// # Errors
    /// See [`KeysError`].
    fn fetch(&self, package: Digest) -> Result<Keys, KeysError>;
}

/// The keys of one package, with all that their lease says. Silent.
pub(crate) struct Keys {
    pub(crate) lease: Lease,
    pub(crate) package: PackageKey,
    pub(crate) audience: AudienceKey,
    /// Vouches for the signing key of this start; fetched not later than the lease.
    pub(crate) certificate: Arc<Verified<WorkerCertificate>>,
    audience_id: Digest,
    grants: Vec<Verified<Grant>>,
    revoked: Revocations,
    issued: Time,
    received: Instant,
    /// Time not spent on renewals; one costs [`RENEWAL_EVERY`].
    saved: Duration,
}

impl Keys {
    /// Takes keys off the wire.
    ///
    /// # Errors
    /// [`KeysError::Contradiction`] when they are not for `package` and `code`, or a grant is not the owner's.
    pub(crate) fn new(
        leased: LeasedKeys,
        certificate: Arc<Verified<WorkerCertificate>>,
        package: Digest,
        code: &Measurement,
    ) -> Result<Self, KeysError> {
        let lease = leased.lease;
        if lease.package != package {
            return Err(KeysError::Contradiction("a lease for another package"));
        }
        if lease.code != *code || lease.simulated != certificate.simulated {
            return Err(KeysError::Contradiction("a lease for other code"));
        }
        let grants = leased
            .grants
            .into_iter()
            .map(|grant| grant.verify(&lease.owner))
            .collect::<Result<_, _>>()
            .map_err(|_| KeysError::Contradiction("a grant that is not its owner's"))?;
        let audience = AudienceKey::from_seed(leased.audience_key);
        Ok(Self {
            package: PackageKey::from_seed(leased.package_key),
            audience_id: audience.public().id(),
            audience,
            certificate,
            lease,
            grants,
            revoked: Revocations::new(),
            issued: leased.issued,
            received: Instant::now(),
            saved: RENEWAL_SAVED_MAX,
        })
    }

    /// The host's clock, but never behind what the key service's showed when it issued the lease and the time
    /// passed since: a host that sets its clock back does not lengthen a lease.
    pub(crate) fn now(&self) -> Time {
        bield_platform::now().max(self.issued.plus(self.received.elapsed()))
    }

    /// What admission asks of a lease.
    pub(crate) fn leased(&self) -> Leased<'_> {
        Leased {
            lease: &self.lease,
            key: self.audience_id,
            grants: &self.grants,
            revoked: &self.revoked,
        }
    }

    fn is_current(&self) -> bool {
        self.now() < self.ends()
    }

    fn ends(&self) -> Time {
        self.lease.not_after.min(self.certificate.not_after)
    }

    /// What is saved by now towards renewals.
    fn savings(&self) -> Duration {
        (self.saved + self.received.elapsed()).min(RENEWAL_SAVED_MAX)
    }
}

/// The keys of many packages.
pub(crate) struct Leases {
    source: Box<dyn KeySource>,
    cached: Mutex<HashMap<Digest, Arc<Keys>>>,
    flights: Flights<Result<Arc<Keys>, KeysError>>,
    cold: Cold,
}

impl Leases {
    /// Keeps what `source` gives; at most `places` threads wait for packages that never had keys here.
    pub(crate) fn new(source: Box<dyn KeySource>, places: usize) -> Self {
        Self {
            source,
            cached: Mutex::default(),
            flights: Flights::new(),
            cold: Cold::new(places),
        }
    }

    /// Returns current keys that are already here.
    pub(crate) fn cached(&self, package: Digest) -> Option<Arc<Keys>> {
        let keys = lock(&self.cached).get(&package).cloned();
        keys.filter(|keys| keys.is_current())
    }

    /// Returns current keys, fetched if need be.
    ///
    /// # Errors
    /// See [`KeysError`]; shared by all who waited for the same fetch.
    pub(crate) fn get(&self, package: Digest) -> Result<Arc<Keys>, KeysError> {
        // An ended lease still says that the package is real; such refetches must not starve behind strangers.
        let known = lock(&self.cached).contains_key(&package);
        // Held while waiting for another thread's fetch too: either way a thread is taken.
        let _place = (!known).then(|| self.cold.enter()).transpose()?;
        self.flights.join(package, || {
            if let Some(keys) = self.cached(package) {
                return Ok(keys);
            }
            if !known {
                self.cold.spend(package)?;
            }
            self.fetch(package, RENEWAL_SAVED_MAX)
        })
    }

    /// Returns keys newer than `seen`, for a request that those refuse: a grant may be younger than its lease.
    ///
    /// # Errors
    /// [`KeysError::TooSoon`] when the ration is used up, else as [`get`](Self::get).
    pub(crate) fn renew(&self, package: Digest, seen: &Arc<Keys>) -> Result<Arc<Keys>, KeysError> {
        self.flights.join(package, || {
            if let Some(newer) = self.cached(package).filter(|keys| !Arc::ptr_eq(keys, seen)) {
                return Ok(newer);
            }
            let saved = seen
                .savings()
                .checked_sub(RENEWAL_EVERY)
                .ok_or(KeysError::TooSoon)?;
            self.fetch(package, saved)
        })
    }

    fn fetch(&self, package: Digest, saved: Duration) -> Result<Arc<Keys>, KeysError> {
        let fetched = self.source.fetch(package);
        let mut cached = lock(&self.cached);
        match fetched {
            Ok(mut keys) => {
                keys.saved = saved;
                let keys = Arc::new(keys);
                make_room(&mut cached);
                cached.insert(package, Arc::clone(&keys));
                Ok(keys)
            }
            Err(error) => {
                if error == KeysError::NotGranted {
                    cached.remove(&package);
                    self.cold.note(package);
                }
                Err(error)
            }
        }
    }
}

fn make_room(cached: &mut HashMap<Digest, Arc<Keys>>) {
    if cached.len() < LEASES_MAX {
        return;
    }
    cached.retain(|_, keys| keys.is_current());
    while cached.len() >= LEASES_MAX {
        let ends_first = cached.iter().min_by_key(|(_, keys)| keys.ends());
        let Some(package) = ends_first.map(|(package, _)| *package) else {
            return;
        };
        cached.remove(&package);
    }
}

/// Why there are no keys. The sentences are public: they reach callers that proved nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeysError {
    /// No exchange with the key service took place, or it broke off.
    #[error(
        "this runtime does not reach its key service: {why}; try again, and tell the operator if it lasts"
    )]
    Unreachable { why: String },
    /// One end does not accept the other's evidence, or cannot show its own.
    #[error(
        "this runtime and its key service do not accept each other: {why}; the operator must look"
    )]
    NotAccepted { why: String },
    /// The key service said no, until somebody changes something.
    #[error(
        "the key service gives this runtime no keys for the package: not-granted; the package's owner must have registered it and granted this code"
    )]
    NotGranted,
    /// It said so moments ago, and was not asked again.
    #[error(
        "the key service gave this runtime no keys for the package moments ago: not-granted; try again in a second if the package's owner has registered it and granted this code since"
    )]
    NotGrantedYet,
    /// Too many first fetches at once or lately, whoever caused them.
    #[error("this runtime fetches keys for as many new packages as it may; come back shortly")]
    Busy,
    /// The key service's answer contradicts the question.
    #[error("the key service answered with {0}; the operator must look")]
    Contradiction(&'static str),
    /// A renewal ahead of time was asked for too soon after the last.
    #[error("the lease was renewed moments ago; try again in a second")]
    TooSoon,
}

impl KeysError {
    /// The refusal that the host and the caller see.
    pub(crate) fn unsealed(&self) -> Unsealed {
        let (code, retry_after_ms) = match self {
            Self::Unreachable { .. } => ("key-service-unreachable", Some(RETRY_MS)),
            Self::TooSoon | Self::NotGrantedYet => ("no-lease", Some(RETRY_MS)),
            Self::Busy => ("busy", Some(BUSY_RETRY_MS)),
            _ => ("no-lease", None),
        };
        crate::refusals::unsealed(code, self, retry_after_ms)
    }
}

/// A key service restarts within a second or two.
const RETRY_MS: u64 = 1000;
/// A first fetch takes some tens of milliseconds.
const BUSY_RETRY_MS: u64 = 250;

#[cfg(test)]
mod tests;
