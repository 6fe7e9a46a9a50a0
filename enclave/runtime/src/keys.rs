//! Leased keys: what the key service gave for one package, and until when.
//!
//! ```text
//! LeasedKeys (wire) ─check─▶ Keys ── open(SealedRequest) ──▶ Opened<Request>
//!                              ├──── leased(now) ──────────▶ what admission asks
//!                              └──── unused() ─────────────▶ what is returned with the next lease
//! ```
//!
//! Always true: keys are for the package that was asked and for this program's own code; every grant, group and
//! succession beside them carries its signer's signature (whose word counts, admission decides); an audience key
//! opens nothing from its end on, and no key does once lease or certificate has ended. Silent; wiped on drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bield_envelope::{
    AudienceKey, Digest, EnvelopeError, Opened, Request, ResponseSealer, SealedRequest, Signed,
    Statement, Time, Verified,
};
use bield_evidence::Measurement;
use bield_grant::{
    Grant, Groups, Isolation, Lease, Leased, Meter, Successions, VerifiedSuccession,
};
use bield_package::PackageKey;
use bield_protocol::service::{LeasedAudienceKey, LeasedKeys, Returned};
use bield_receipt::WorkerCertificate;

use crate::clock::Clock;
use crate::leases::KeysError;

/// The keys of one package, with all that their lease says.
pub(crate) struct Keys {
    pub(crate) lease: Lease,
    pub(crate) package: PackageKey,
    /// Vouches for the signing key of this start; fetched not later than the lease.
    pub(crate) certificate: Arc<Verified<WorkerCertificate>>,
    audience: Vec<Opener>,
    grants: Vec<Verified<Grant>>,
    groups: Groups,
    successions: Successions,
    meter: Meter,
    clock: Arc<dyn Clock>,
    issued: Time,
    /// When they were asked for, by the running clock.
    asked: Duration,
    used: AtomicBool,
}

/// One key of the audience.
struct Opener {
    key: AudienceKey,
    id: Digest,
    not_after: Option<Time>,
}

/// What a source of keys knows beside what came.
pub(crate) struct Asked<'a> {
    pub(crate) package: Digest,
    /// This program.
    pub(crate) code: &'a Measurement,
    /// The running clock before the question left: not later than the key service's clock at its answer.
    pub(crate) at: Duration,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Keys {
    /// Takes keys off the wire.
    ///
    /// # Errors
    /// [`KeysError::Contradiction`] when they are not what was asked for, or a statement beside them does not verify.
    pub(crate) fn new(
        leased: LeasedKeys,
        certificate: Arc<Verified<WorkerCertificate>>,
        asked: Asked<'_>,
    ) -> Result<Self, KeysError> {
        let lease = leased.lease;
        if lease.package != asked.package {
            return Err(KeysError::Contradiction("a lease for another package"));
        }
        if lease.code.measurement != *asked.code || lease.simulated != certificate.simulated {
            return Err(KeysError::Contradiction("a lease for other code"));
        }
        let successions: Vec<VerifiedSuccession> = leased
            .successions
            .into_iter()
            .map(|succeeded| succeeded.verify())
            .collect::<Result<_, _>>()
            .map_err(|_| KeysError::Contradiction("a succession that does not verify"))?;
        let audience: Vec<_> = leased.audience_keys.into_iter().map(Opener::new).collect();
        if audience.is_empty() {
            return Err(KeysError::Contradiction(
                "a lease without a key to open with",
            ));
        }
        Ok(Self {
            package: PackageKey::from_seed(leased.package_key),
            audience,
            certificate,
            lease,
            grants: verified(leased.grants)?,
            groups: verified(leased.groups)?.into_iter().collect(),
            successions: successions.iter().collect(),
            meter: Meter::new(leased.allotments),
            clock: asked.clock,
            issued: leased.issued,
            asked: asked.at,
            used: AtomicBool::new(false),
        })
    }

    /// The host's clock, but never behind what the key service's showed when it issued the lease and the time
    /// passed since: a host that sets its clock back does not lengthen a lease.
    pub(crate) fn now(&self) -> Time {
        let passed = self.clock.running().saturating_sub(self.asked);
        self.clock.host().max(self.issued.plus(passed))
    }

    /// Opens a request that is sealed to one of the audience's keys.
    ///
    /// # Errors
    /// [`EnvelopeError::OtherKey`] also for a key that has ended.
    pub(crate) fn open(
        &self,
        request: &SealedRequest<'_>,
    ) -> Result<(Opened<Request>, ResponseSealer), EnvelopeError> {
        let (now, wanted) = (self.now(), request.header().key);
        let named = self.audience.iter().find(|opener| opener.id == wanted);
        match named {
            Some(opener) if opener.opens(now) => opener.key.open(request),
            _ => Err(EnvelopeError::OtherKey {
                expected: self.audience[0].id,
                found: wanted,
            }),
        }
    }

    /// The ids of the audience keys that open requests at `now`.
    pub(crate) fn audience_ids(&self, now: Time) -> Vec<Digest> {
        let open = self.audience.iter().filter(|opener| opener.opens(now));
        open.map(|opener| opener.id).collect()
    }

    /// What admission asks of a lease; `audience` names the keys that may be used now.
    pub(crate) fn leased<'a>(&'a self, audience: &'a [Digest]) -> Leased<'a> {
        Leased {
            lease: &self.lease,
            keys: audience,
            grants: &self.grants,
            groups: &self.groups,
            successions: &self.successions,
            meter: &self.meter,
        }
    }

    /// Whether any grant asks for more than `shared`: then memory is wiped before it is known whose request it is.
    pub(crate) fn asks_for_wiping(&self) -> bool {
        let mut grants = self.grants.iter();
        grants.any(|grant| grant.isolation != Isolation::Shared)
    }

    /// Whether the grant of this digest came with the lease: one that was revoked does not.
    pub(crate) fn has_grant(&self, grant: Digest) -> bool {
        self.grants.iter().any(|held| held.digest() == grant)
    }

    /// Notes that a request was admitted under this lease: it is worth renewing.
    pub(crate) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn is_current(&self) -> bool {
        self.now() < self.ends()
    }

    pub(crate) fn ends(&self) -> Time {
        self.lease.not_after.min(self.certificate.not_after)
    }

    /// How long they still hold.
    pub(crate) fn left(&self) -> Duration {
        self.ends().since(self.now())
    }

    /// Takes what was not used of the lease's allotments, to return it: under these keys, no metered grant admits
    /// anybody afterwards. `None` when nothing is left.
    pub(crate) fn unused(&self) -> Option<Returned> {
        let unused = self.meter.unused();
        (!unused.is_empty()).then_some(Returned {
            lease: self.lease.id,
            unused,
        })
    }
}

impl Opener {
    fn new(leased: LeasedAudienceKey) -> Self {
        let key = AudienceKey::from_seed(leased.seed);
        Self {
            id: key.public().id(),
            key,
            not_after: leased.not_after,
        }
    }

    fn opens(&self, now: Time) -> bool {
        self.not_after.is_none_or(|end| now < end)
    }
}

fn verified<T: Statement>(signed: Vec<Signed<T>>) -> Result<Vec<Verified<T>>, KeysError> {
    signed
        .into_iter()
        .map(Signed::verify_claimed)
        .collect::<Result<_, _>>()
        .map_err(|_| KeysError::Contradiction("a statement that its signer did not sign"))
}
