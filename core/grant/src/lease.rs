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

/// Longest life of a lease: the time until a revocation is certain to have effect, against one
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
/// beyond the last grant (`spec/04 §8`).
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
mod tests {
    use bield_envelope::Signed;
    use proptest::prelude::*;

    use super::*;
    use crate::cast::{HOUR, MINUTE, NOON, code, granted, owner, package, user};

    fn lease_at_noon(grants: &[Verified<Grant>], revoked: &Revocations) -> Result<Lease, Refused> {
        let code = code(1);
        let owner = owner(1).principal();
        let wanted = Wanted {
            package: package(1),
            owner,
            code: &code,
            user: None,
            now: NOON,
        };
        lease(&wanted, true, grants, revoked)
    }

    #[test]
    fn any_valid_grant_for_this_package_and_code_is_enough() {
        let lease = lease_at_noon(
            &[granted(|grant| grant.user = user(9))],
            &Revocations::new(),
        );
        let lease = lease.unwrap();
        assert_eq!(lease.code, code(1));
        assert_eq!(lease.audience(), audience(package(1), &code(1)));
        assert!(lease.simulated);
    }

    #[test]
    fn a_lease_ends_with_its_last_grant_and_never_later_than_the_limit() {
        let none = Revocations::new();
        let until = |minutes| granted(move |grant| grant.not_after = NOON.plus(MINUTE * minutes));
        let short = lease_at_noon(&[until(2), until(3), until(1)], &none).unwrap();
        assert_eq!(short.not_after, NOON.plus(MINUTE * 3));
        let long = lease_at_noon(&[until(2), until(300)], &none).unwrap();
        assert_eq!(long.not_after, NOON.plus(LEASE_TIME_MAX));
    }

    #[test]
    fn code_that_is_not_granted_is_refused_and_told_what_is() {
        let grants = [
            granted(|grant| grant.code = code(2)),
            granted(|grant| grant.code = code(3)),
        ];
        let refused = lease_at_noon(&grants, &Revocations::new()).unwrap_err();
        assert_eq!(refused.code(), "code-not-granted");
        for granted in [code(2), code(3)] {
            assert!(
                refused.to_string().contains(&granted.to_string()),
                "{refused}"
            );
        }
    }

    #[test]
    fn only_grants_that_decide_or_explain_travel_with_the_lease() {
        let grants = [
            granted(|_| ()),
            granted(|grant| grant.not_before = NOON.plus(MINUTE)),
            granted(|grant| grant.not_before = NOON.plus(LEASE_TIME_MAX)),
            granted(|grant| grant.not_after = NOON),
            granted(|grant| grant.not_after = NOON.minus(ENDED_TOLD)),
            granted(|grant| grant.code = code(2)),
            granted(|grant| grant.package = package(2)),
            granted(|grant| grant.id = [8; 16]),
            Signed::sign(&owner(2), crate::cast::grant()),
        ];
        let mut revoked = Revocations::new();
        revoked.revoke(owner(1).principal(), [8; 16]).unwrap();
        let lease = lease_at_noon(&grants, &revoked).unwrap();
        let relevant: Vec<_> = lease
            .relevant(&grants, &revoked, NOON)
            .map(Verified::digest)
            .collect();
        let expected: Vec<_> = grants[..4].iter().map(Verified::digest).collect();
        assert_eq!(relevant, expected);
    }

    proptest! {
        #[test]
        fn a_lease_is_given_exactly_when_one_grant_allows_it(
            words in prop::collection::vec(
                (1..3u8, 1..3u8, 1..3u8, 1..3u8, 0..3u32, 2..4u32), 0..5),
            revoked_id in 1..4u8,
        ) {
            let grants: Vec<_> = words.iter().map(|&(by, id, of, inside, from, until)| {
                Signed::sign(&owner(by), Grant {
                    id: [id; 16],
                    package: package(of),
                    code: code(inside),
                    not_before: NOON.minus(HOUR).plus(HOUR * from),
                    not_after: NOON.minus(HOUR * 2).plus(HOUR * until),
                    ..crate::cast::grant()
                })
            }).collect();
            let mut revoked = Revocations::new();
            revoked.revoke(owner(1).principal(), [revoked_id; 16]).unwrap();
            let expected = words.iter().any(|&(by, id, of, inside, from, until)| {
                // Noon is one hour after the first beginning and two after the first end.
                (by, of, inside) == (1, 1, 1) && id != revoked_id && from <= 1 && until > 2
            });
            prop_assert_eq!(lease_at_noon(&grants, &revoked).is_ok(), expected);
        }
    }
}
