//! The runtime's admission: may this opened request be served, here, now?
//!
//! ```text
//!   Opened<Request> ─▶ lease still running? ─▶ sealed for this lease? ─▶ fresh? ─▶ sender succeeded?
//!                                                                                      │
//!   Admitted<GrantedRequest> ◀── seen before? ◀── quota left? ◀── a grant by the owner? ◀──┘
//! ```
//!
//! The envelope has already proven who sent the request and that header and body are what was
//! sealed. The replay guard comes last: only requests that would be served take room in it, and what
//! it refuses is put back into the quota.

use core::fmt;
use core::time::Duration;

use bield_envelope::{Digest, Opened, Principal, Request, RequestHeader, Time, Verified};
use bield_evidence::Measurement;

use crate::admission::Wanted;
use crate::{Admitted, Grant, Groups, Isolation, Lease, Meter, Refused, ReplayGuard, Successions};

/// Longest time from the creation of a request to its admission: long enough for a cold start
/// and a queue, short enough that the replay guard stays small.
pub const REQUEST_AGE_MAX: Duration = Duration::from_secs(5 * 60);

/// How far a caller's clock may be ahead of the runtime's.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// What a runtime holds for one package: its lease, and the owner's word.
#[derive(Clone, Copy)]
pub struct Leased<'a> {
    /// What the key service leased to this runtime.
    pub lease: &'a Lease,
    /// Names the audience keys that requests may be sealed to now.
    pub keys: &'a [Digest],
    /// The owner's grants that came with the lease; none that was revoked when it was given.
    pub grants: &'a [Verified<Grant>],
    /// The owner's groups that came with it.
    pub groups: &'a Groups,
    /// The successions that came with it.
    pub successions: &'a Successions,
    /// What is left of the requests that were set aside for this lease.
    pub meter: &'a Meter,
}

/// A request together with the grant that allows it.
pub struct GrantedRequest {
    /// The request, opened and now allowed to run.
    pub request: Opened<Request>,
    /// The grant that allows it: digest of its signed bytes.
    pub grant: Digest,
    /// How the request must be kept apart from other users'.
    pub isolation: Isolation,
    /// The code that the lease is for, which is the code that serves.
    pub code: Measurement,
    /// Who owns the package.
    pub owner: Principal,
}

/// Admits a request to be served under a lease, once (`spec/04 §8`).
///
/// # Errors
/// [`Refused`] names the first check that failed, whose move it is and whether to try again.
pub fn admit(
    request: Opened<Request>,
    leased: Leased<'_>,
    guard: &mut ReplayGuard,
    now: Time,
) -> Result<Admitted<GrantedRequest>, Refused> {
    let grant = check(request.header(), request.sender(), leased, guard, now)?;
    Ok(Admitted::new(GrantedRequest {
        grant: grant.digest(),
        isolation: grant.isolation,
        code: leased.lease.code.measurement.clone(),
        owner: leased.lease.owner,
        request,
    }))
}

/// A use of a package by a function that the runtime runs for a user, allowed as if the user had asked for it.
#[derive(Debug)]
pub struct GrantedUse {
    /// The package.
    pub package: Digest,
    /// For whom.
    pub user: Principal,
    /// The grant that allows it: digest of its signed bytes.
    pub grant: Digest,
    /// How the user must be kept apart from others.
    pub isolation: Isolation,
}

/// Admits the use of a package on behalf of `user`, whose own request for a function was admitted before (`spec/04 §8`).
/// A metered grant pays for each use.
///
/// # Errors
/// As of [`admit`], but for what concerns a sealed request.
pub fn admit_use(
    user: Principal,
    leased: Leased<'_>,
    now: Time,
) -> Result<Admitted<GrantedUse>, Refused> {
    let grant = allowing(user, leased, now)?;
    Ok(Admitted::new(GrantedUse {
        package: leased.lease.package,
        user,
        grant: grant.digest(),
        isolation: grant.isolation,
    }))
}

/// Shows who asks for what under which grant; the body stays silent.
impl fmt::Debug for GrantedRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GrantedRequest")
            .field("sender", &self.request.sender())
            .field("grant", &self.grant)
            .field("isolation", &self.isolation)
            .field("code", &self.code)
            .finish_non_exhaustive()
    }
}

fn check<'a>(
    header: &RequestHeader,
    sender: Principal,
    leased: Leased<'a>,
    guard: &mut ReplayGuard,
    now: Time,
) -> Result<&'a Verified<Grant>, Refused> {
    let lease = leased.lease;
    lease_runs(lease, now)?;
    if header.package != lease.package {
        return Err(Refused::OtherPackage {
            found: header.package,
            leased: lease.package,
        });
    }
    if header.audience != lease.audience() {
        return Err(Refused::OtherAudience {
            found: header.audience,
            leased: lease.audience(),
        });
    }
    if !leased.keys.contains(&header.key) {
        return Err(Refused::OtherKey {
            found: header.key,
            leased: leased.keys.iter().copied().collect(),
        });
    }
    if header.created > now.plus(CLOCK_SKEW_MAX) {
        return Err(Refused::Early {
            created: header.created,
            now,
        });
    }
    if now > header.created.plus(REQUEST_AGE_MAX) {
        return Err(Refused::Stale {
            created: header.created,
            now,
        });
    }
    let grant = allowing(sender, leased, now)?;
    // Last: only requests that are served take room in the guard.
    guard
        .note(sender, header.id, header.created, now)
        .inspect_err(|_| leased.meter.give_back(&grant.digest()))?;
    Ok(grant)
}

fn lease_runs(lease: &Lease, now: Time) -> Result<(), Refused> {
    if now >= lease.not_after {
        return Err(Refused::LeaseEnded {
            until: lease.not_after,
            now,
        });
    }
    Ok(())
}

/// The grant that serves `sender` while the lease runs; a metered one has paid for it.
fn allowing<'a>(
    sender: Principal,
    leased: Leased<'a>,
    now: Time,
) -> Result<&'a Verified<Grant>, Refused> {
    let lease = leased.lease;
    lease_runs(lease, now)?;
    if leased.successions.is_succeeded(&sender, now) {
        return Err(Refused::Succeeded { sender });
    }
    Wanted::new(lease.facts(), &lease.code, leased.successions, now)
        .by(sender, leased.groups, leased.successions)
        .take(leased.grants, leased.meter)
}

#[cfg(test)]
mod tests;
