//! Stories of leases, and the property that one grant suffices and nothing less does.

use bield_envelope::{Signed, SigningKey};
use proptest::prelude::*;

use super::*;
use crate::cast::{
    HOUR, MINUTE, NOON, code, granted, granted_by, measured, measurement, named, one, owner,
    package, signed_by, successions, team,
};
use crate::{CodeSelector, Isolation, PackageSelector};

const TERMS: LeaseTerms = LeaseTerms {
    id: 5,
    now: NOON,
    time: LEASE_TIME_MAX,
};

/// When a lease of package 1 in code 1, asked for at noon, ends.
fn lease_at_noon(grants: &[Verified<Grant>], revoked: &Revocations) -> Result<Time, Refused> {
    lease_among(grants, &Successions::new(), revoked, TERMS)
}

fn lease_among(
    grants: &[Verified<Grant>],
    successions: &Successions,
    revoked: &Revocations,
    terms: LeaseTerms,
) -> Result<Time, Refused> {
    let (lease, code) = (crate::cast::lease(), code(1));
    let wanted = Wanted::new(lease.facts(), &code, successions, terms.now);
    end(&wanted, grants.iter(), revoked, terms)
}

/// Whether this one grant is enough.
fn leased_under(change: impl FnOnce(&mut Grant)) -> Result<Time, Refused> {
    lease_at_noon(&[granted(change)], &Revocations::new())
}

#[test]
fn any_valid_grant_for_this_package_and_code_is_enough() {
    assert!(leased_under(|grant| grant.user = one(9)).is_ok());
    assert!(
        leased_under(|grant| grant.user = team()).is_ok(),
        "whoever is in it"
    );
    assert!(
        leased_under(|grant| grant.requests = Some(0)).is_ok(),
        "what a quota is for"
    );
}

#[test]
fn a_lease_ends_with_its_last_grant_and_never_later_than_the_terms() {
    let none = Revocations::new();
    let until = |minutes| granted(move |grant| grant.not_after = NOON.plus(MINUTE * minutes));
    let short = lease_at_noon(&[until(2), until(3), until(1)], &none);
    assert_eq!(short, Ok(NOON.plus(MINUTE * 3)));
    let long = [until(2), until(300)];
    assert_eq!(lease_at_noon(&long, &none), Ok(NOON.plus(LEASE_TIME_MAX)));
    let timed = |time| {
        lease_among(
            &long,
            &Successions::new(),
            &none,
            LeaseTerms { time, ..TERMS },
        )
    };
    assert_eq!(timed(MINUTE), Ok(NOON.plus(MINUTE)));
    assert_eq!(timed(HOUR), Ok(NOON.plus(LEASE_TIME_MAX)));
    assert_eq!(timed(Duration::MAX), Ok(NOON.plus(LEASE_TIME_MAX)));
}

#[test]
fn code_that_is_not_granted_is_refused_and_told_what_is() {
    let grants = [
        granted(|grant| grant.code = measured(2)),
        granted(|grant| grant.code = signed_by(2, None, 0)),
    ];
    let refused = lease_at_noon(&grants, &Revocations::new()).unwrap_err();
    assert_eq!(refused.code(), "code-not-granted");
    for granted in grants {
        let listed = granted.code.to_string();
        assert!(refused.to_string().contains(&listed), "{refused}");
    }
    let asked = format!(
        "{} (signer {}, product 1, svn 1)",
        measurement(1),
        "01".repeat(32)
    );
    assert!(refused.to_string().contains(&asked), "{refused}");
}

#[test]
fn a_signer_admits_its_product_from_a_security_version_on() {
    let allows = |code: CodeSelector| leased_under(|grant| grant.code = code).is_ok();
    assert!(allows(signed_by(1, None, 0)));
    assert!(allows(signed_by(1, Some(1), 1)));
    assert!(!allows(signed_by(1, Some(1), 2)), "older than allowed");
    assert!(!allows(signed_by(1, Some(2), 0)), "another product");
    assert!(!allows(signed_by(2, None, 0)), "another signer");
}

#[test]
fn a_name_admits_the_versions_in_its_range() {
    let allows = |package: PackageSelector| leased_under(|grant| grant.package = package).is_ok();
    for range in ["*", "^1", "1.*", ">=1.0.0, <2.0.0", "=1.0.0", "~1.0"] {
        assert!(allows(named(range)), "{range}");
    }
    for range in ["^2", "<1.0.0", "=1.0", "=1", "=1.0.0-rc1"] {
        assert!(!allows(named(range)), "{range}");
    }
    let other = PackageSelector::Named("magika2".parse().unwrap(), "*".parse().unwrap());
    assert!(!allows(other));
}

#[test]
fn the_same_name_of_another_owner_is_another_package() {
    let stranger = granted_by(&owner(2), |grant| grant.package = named("*"));
    let refused = lease_at_noon(&[stranger], &Revocations::new()).unwrap_err();
    assert_eq!(refused.code(), "code-not-granted");
    assert!(
        refused.to_string().contains("granted: nothing"),
        "{refused}"
    );
}

#[test]
fn the_line_of_the_owner_speaks_for_the_owner() {
    let (before, owner_, after) = (owner(7), owner(1), owner(8));
    let line = successions(&[(&before, &owner_), (&owner_, &after)]);
    let under = |signer: &SigningKey, line: &Successions| {
        lease_among(
            &[granted_by(signer, |_| ())],
            line,
            &Revocations::new(),
            TERMS,
        )
        .is_ok()
    };
    for signer in [&before, &owner_, &after] {
        assert!(under(signer, &line));
    }
    assert!(!under(&owner(9), &line));
    let forked = successions(&[(&owner_, &after), (&owner_, &owner(9))]);
    assert!(under(&owner_, &forked), "its own word stands");
    assert!(!under(&after, &forked) && !under(&owner(9), &forked));
}

#[test]
fn a_revoked_grant_leases_nothing() {
    let mut revoked = Revocations::new();
    revoked.revoke(owner(2).principal(), [7; 16], NOON.plus(HOUR));
    assert!(
        lease_at_noon(&[granted(|_| ())], &revoked).is_ok(),
        "another's word"
    );
    revoked.revoke(owner(1).principal(), [7; 16], NOON.plus(HOUR));
    let renewed = [
        granted(|_| ()),
        granted(|grant| grant.not_after = NOON.plus(HOUR * 9)),
    ];
    let refused = lease_at_noon(&renewed, &revoked).unwrap_err();
    let named = renewed.iter().map(Verified::digest).min().unwrap();
    assert_eq!(refused, Refused::Revoked { grant: named });
}

#[test]
fn only_grants_that_decide_or_explain_travel_with_the_lease() {
    let grants = [
        granted(|_| ()),
        granted(|grant| grant.not_before = NOON.plus(MINUTE)),
        granted(|grant| grant.not_before = NOON.plus(LEASE_TIME_MAX)),
        granted(|grant| grant.not_after = NOON),
        granted(|grant| grant.package = named("^1")),
        granted(|grant| grant.code = signed_by(1, None, 1)),
        granted_by(&owner(8), |grant| grant.user = one(2)),
        granted(|grant| grant.not_after = NOON.minus(ENDED_TOLD)),
        granted(|grant| grant.code = measured(2)),
        granted(|grant| grant.code = signed_by(1, None, 2)),
        granted(|grant| grant.package = PackageSelector::Digest(package(2))),
        granted(|grant| grant.package = named("^2")),
        granted(|grant| grant.id = [8; 16]),
        granted_by(&owner(2), |_| ()),
    ];
    let mut revoked = Revocations::new();
    revoked.revoke(owner(1).principal(), [8; 16], NOON.plus(HOUR));
    let line = successions(&[(&owner(1), &owner(8))]);
    let relevant: Vec<_> = crate::cast::lease()
        .relevant(&grants, &line, &revoked, NOON)
        .map(Verified::digest)
        .collect();
    let expected: Vec<_> = grants[..7].iter().map(Verified::digest).collect();
    assert_eq!(relevant, expected);
}

#[test]
fn code_is_named_to_users_exactly_when_it_would_be_leased_to() {
    let (lease, none) = (crate::cast::lease(), Revocations::new());
    let grants = [granted(|grant| grant.code = signed_by(1, None, 2))];
    let asked = |number| {
        let no_lines = Successions::new();
        code_is_granted(
            lease.facts(),
            &code(number),
            &grants,
            &no_lines,
            &none,
            NOON,
        )
    };
    assert_eq!(
        asked(1).map_err(|refused| refused.code()),
        Err("code-not-granted")
    );
    assert_eq!(asked(2), Ok(()));
}

proptest! {
    #[test]
    fn a_lease_is_given_exactly_when_one_grant_allows_it(
        words in prop::collection::vec(
            (1..3u8, 1..4u8, 1..4usize, 0..5usize, 0..3u32, 2..4u32), 0..5),
        revoked_id in 1..4u8,
    ) {
        let packages = [
            PackageSelector::Digest(package(2)), PackageSelector::Digest(package(1)), named("^1"),
            named("^2"),
        ];
        let codes = [measured(2), measured(1), signed_by(1, Some(1), 1), signed_by(1, None, 2),
            signed_by(2, None, 0)];
        let grants: Vec<_> = words.iter().map(|&(by, id, of, inside, from, until)| {
            Signed::sign(&owner(by), Grant {
                id: [id; 16],
                package: packages[of].clone(),
                code: codes[inside].clone(),
                isolation: Isolation::Wiped,
                not_before: NOON.minus(HOUR).plus(HOUR * from),
                not_after: NOON.minus(HOUR * 2).plus(HOUR * until),
                ..crate::cast::grant()
            })
        }).collect();
        let mut revoked = Revocations::new();
        revoked.revoke(owner(1).principal(), [revoked_id; 16], NOON);
        let expected = words.iter().any(|&(by, id, of, inside, from, until)| {
            // Noon is one hour after the first beginning and two after the first end.
            by == 1 && (1..3).contains(&of) && (1..3).contains(&inside)
                && id != revoked_id && from <= 1 && until > 2
        });
        prop_assert_eq!(lease_at_noon(&grants, &revoked).is_ok(), expected);
    }
}
