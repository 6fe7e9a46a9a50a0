//! Which grants a deployment needs, and which of them are there.
//!
//! In: a version, users, code. Out: what a grant names, whether one does, a new one. Always true: a grant is never wider than
//! `bield deploy --help` says: all semantic versions of the function's name, or this package alone.

use bield_envelope::{Digest, Principal, Signed, SigningKey, Time, Verified};
use bield_grant::{
    CodeSelector, Grant, Isolation, PackageFacts, PackageSelector, UserSelector, VersionRange,
};
use bield_package::{PackageName, PackageVersion};
use bield_sdk::now;

use crate::commands::grant::{CLOCK_BEHIND, random_id};

/// What a grant names: all versions, where a range can mean this one too.
pub(super) fn selector(
    package: Digest,
    name: &PackageName,
    version: &PackageVersion,
) -> PackageSelector {
    let all = PackageSelector::Named(name.clone(), VersionRange::any());
    let facts = PackageFacts {
        digest: package,
        owner: Principal::from_bytes([0; 32]),
        name,
        version,
    };
    match all.names(&facts) {
        true => all,
        false => PackageSelector::Digest(package),
    }
}

/// Whether a grant that is there does for this user and code, for at least half as long.
pub(super) fn holds(
    grant: &Grant,
    selector: &PackageSelector,
    user: &UserSelector,
    code: &CodeSelector,
    now: Time,
    until: Time,
) -> bool {
    let half = until.since(now) / 2;
    grant.package == *selector
        && grant.user == *user
        && grant.code == *code
        && grant.isolation == Isolation::Shared
        && grant.requests.is_none()
        && grant.not_before <= now
        && grant.not_after >= now.plus(half)
}

/// Signs a grant that holds from now on.
pub(super) fn sign(
    owner: &SigningKey,
    selector: &PackageSelector,
    user: &UserSelector,
    code: &CodeSelector,
    not_after: Time,
) -> Verified<Grant> {
    let grant = Grant {
        id: random_id(),
        package: selector.clone(),
        user: user.clone(),
        code: code.clone(),
        isolation: Isolation::Shared,
        // A runtime's clock may be a little behind this one.
        not_before: now().minus(CLOCK_BEHIND),
        not_after,
        requests: None,
    };
    Signed::sign(owner, grant)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bield_envelope::Secret;

    use super::*;

    #[test]
    fn a_grant_is_for_all_versions_where_a_range_can_say_so() {
        let package = Digest::of("test", &[]);
        let name: PackageName = "cart".parse().unwrap();
        let named = |version: &str| {
            let version = version.parse().unwrap();
            selector(package, &name, &version).to_string()
        };
        assert_eq!(named("0.1.0"), "cart@*");
        for version in ["1.0.0-rc1", "0.1.0-dev.3", "2024-06", "1"] {
            assert_eq!(named(version), package.to_string(), "{version}");
        }
    }

    #[test]
    fn a_grant_does_when_it_says_the_same_for_long_enough() {
        let owner = SigningKey::from_seed(Secret::from_bytes([1; 32]));
        let user = UserSelector::Principal(owner.principal());
        let other = UserSelector::Principal(Principal::from_bytes([7; 32]));
        let code: CodeSelector = format!("sgx:{}", "ab".repeat(32)).parse().unwrap();
        let package = PackageSelector::Digest(Digest::of("test", &[]));
        let day = Duration::from_secs(86_400);
        let now = now();
        let grant = sign(&owner, &package, &user, &code, now.plus(day));
        let does = |grant: &Grant, user: &UserSelector, until| {
            holds(grant, &package, user, &code, now, until)
        };
        assert!(does(&grant, &user, now.plus(day)) && does(&grant, &user, now.plus(day * 2)));
        assert!(!does(&grant, &user, now.plus(day * 3)), "too short");
        assert!(!does(&grant, &other, now.plus(day)));
        let metered = Grant {
            requests: Some(9),
            ..(*grant).clone()
        };
        assert!(!does(&metered, &user, now.plus(day)));
        let later = Grant {
            not_before: now.plus(day),
            ..(*grant).clone()
        };
        assert!(!does(&later, &user, now.plus(day)));
    }
}
