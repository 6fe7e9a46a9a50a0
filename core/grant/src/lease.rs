//! The key service's admission: may this appraised runtime hold these keys?
//!
//! The code is taken from the evidence and from nowhere else, so a runtime cannot name a
//! measurement that it does not have. This is also the place where an appraisal whose reference
//! was [`Deferred`](bield_evidence::Reference) is completed: the reference values are the owner's
//! grants.

use core::time::Duration;

use bield_envelope::{Digest, Principal, Time, Verified};
use bield_evidence::Appraised;
use bield_package::{PackageName, PackageVersion};
use minicbor::{Decode, Encode};

use crate::admission::Wanted;
use crate::{
    Admitted, CodeIdentity, Grant, PackageFacts, Refused, Revocations, Successions, audience,
};

/// Longest life of a lease, whatever a key service chooses: the time until a revocation is certain to have effect, against one
/// attested round trip to the key service per lease.
pub const LEASE_TIME_MAX: Duration = Duration::from_secs(10 * 60);

/// How long a grant that ended still travels with leases, so that its user hears when it ended rather
/// than that there is none.
pub const ENDED_TOLD: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a runtime is trusted with, for a while: the keys of one package inside one code.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lease {
    /// The package whose keys are leased.
    #[n(0)]
    pub package: Digest,
    /// Who owns the package: only grants by this principal, or its line, count.
    #[n(1)]
    pub owner: Principal,
    /// The owner's name for the package.
    #[n(2)]
    pub name: PackageName,
    /// The owner's version of it.
    #[n(3)]
    pub version: PackageVersion,
    /// The code that was measured, from the runtime's evidence.
    #[n(4)]
    pub code: CodeIdentity,
    /// The evidence came from a software TEE: there is no hardware protection.
    #[n(5)]
    pub simulated: bool,
    /// First moment at which the lease no longer holds.
    #[n(6)]
    pub not_after: Time,
    /// Which lease it is, of all that the key service ever gave.
    #[n(7)]
    pub id: u64,
}

/// What the key service says about a lease before it is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// A number that no other lease has.
    pub id: u64,
    /// The time of the decision.
    pub now: Time,
    /// How long it may last; cut to [`LEASE_TIME_MAX`].
    pub time: Duration,
}

impl Lease {
    /// Names the audience whose private key is leased.
    #[must_use]
    pub fn audience(&self) -> Digest {
        audience(self.package, &self.code.measurement)
    }

    /// The package, as grants are compared with it.
    #[must_use]
    pub const fn facts(&self) -> PackageFacts<'_> {
        PackageFacts {
            digest: self.package,
            owner: self.owner,
            name: &self.name,
            version: &self.version,
        }
    }

    /// Selects the grants that decide during this lease, or explain a refusal: by the owner, for this
    /// package and code, not revoked. Among them are those that have not begun, and those that ended
    /// at most [`ENDED_TOLD`] ago: they allow nothing, but let admission say so.
    pub fn relevant<'g>(
        &self,
        grants: impl IntoIterator<Item = &'g Verified<Grant>>,
        successions: &Successions,
        revoked: &Revocations,
        now: Time,
    ) -> impl Iterator<Item = &'g Verified<Grant>> {
        let wanted = Wanted::new(self.facts(), &self.code, successions, now);
        grants.into_iter().filter(move |grant| {
            wanted.covered_by(grant)
                && now < grant.not_after.plus(ENDED_TOLD)
                && !revoked.contains(grant)
        })
    }
}

/// Admits an appraised runtime to the keys of a package, for at most the time of the terms and not
/// beyond the last grant (`spec/04 §9`).
///
/// `grants` are walked twice or thrice; they need not be more than those that name this package
/// ([`PackageSelector::names`](crate::PackageSelector::names)).
///
/// # Errors
/// [`Refused`] says which code would have been granted, whose move it is and whether to try again.
pub fn admit_lease<'g, G>(
    appraised: &Appraised,
    package: PackageFacts<'_>,
    grants: G,
    successions: &Successions,
    revoked: &Revocations,
    terms: LeaseTerms,
) -> Result<Admitted<Lease>, Refused>
where
    G: IntoIterator<Item = &'g Verified<Grant>>,
    G::IntoIter: Clone,
{
    let code = CodeIdentity::of(appraised.claims());
    let wanted = Wanted::new(package, &code, successions, terms.now);
    let not_after = end(&wanted, grants.into_iter(), revoked, terms)?;
    Ok(Admitted::new(Lease {
        package: package.digest,
        owner: package.owner,
        name: package.name.clone(),
        version: package.version.clone(),
        simulated: appraised.simulated(),
        not_after,
        id: terms.id,
        code,
    }))
}

/// Tells whether a runtime of this code would be leased the package's keys now: what a key service
/// asks before it names code to a user who wants to seal a request.
///
/// # Errors
/// As [`admit_lease`].
pub fn code_is_granted<'g, G>(
    package: PackageFacts<'_>,
    code: &CodeIdentity,
    grants: G,
    successions: &Successions,
    revoked: &Revocations,
    now: Time,
) -> Result<(), Refused>
where
    G: IntoIterator<Item = &'g Verified<Grant>>,
    G::IntoIter: Clone,
{
    let wanted = Wanted::new(package, code, successions, now);
    wanted.find(grants.into_iter(), revoked).map(|_| ())
}

/// When a lease on these terms ends, if a grant allows it.
fn end<'g>(
    wanted: &Wanted<'_>,
    grants: impl Iterator<Item = &'g Verified<Grant>> + Clone,
    revoked: &Revocations,
    terms: LeaseTerms,
) -> Result<Time, Refused> {
    let decides = wanted.find(grants.clone(), revoked)?;
    let last_grant_ends = grants
        .filter(|grant| wanted.allowed_by(grant, revoked))
        .map(|grant| grant.not_after)
        .fold(decides.not_after, Time::max);
    Ok(last_grant_ends.min(terms.now.plus(terms.time.min(LEASE_TIME_MAX))))
}

#[cfg(test)]
mod tests;
