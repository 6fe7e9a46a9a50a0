//! Stories of single requests, and the property that admission equals a plain oracle.

use bield_envelope::{AudienceKey, SealedRequest, Seeded, Signed, seal_request};
use proptest::prelude::*;

use bield_evidence::Mover;

use super::*;
use crate::cast::{
    HOUR, MINUTE, NOON, granted, granted_by, lease, measured, measurement, one, owner, package,
    succeeded, successions, team, team_of, user, user_key,
};
use crate::{Allotment, Outside, PackageSelector, Retry, audience};

fn key() -> Digest {
    Digest::of("test key", &[])
}

fn header() -> RequestHeader {
    RequestHeader {
        audience: lease().audience(),
        key: key(),
        package: package(1),
        id: [3; 16],
        created: NOON,
    }
}

/// All that a runtime holds beside its lease.
#[derive(Default)]
struct Held {
    grants: Vec<Verified<Grant>>,
    groups: Groups,
    successions: Successions,
    meter: Meter,
}

impl Held {
    fn grants(grants: &[Verified<Grant>]) -> Self {
        Self {
            grants: grants.to_vec(),
            ..Self::default()
        }
    }

    /// What becomes of this request of `sender` at `now`, before an empty guard.
    fn decide_for(
        &self,
        header: &RequestHeader,
        sender: Principal,
        now: Time,
    ) -> Result<Digest, Refused> {
        self.decide_before(&mut ReplayGuard::new(9), header, sender, now)
    }

    fn decide_before(
        &self,
        guard: &mut ReplayGuard,
        header: &RequestHeader,
        sender: Principal,
        now: Time,
    ) -> Result<Digest, Refused> {
        let (lease, keys) = (lease(), [key()]);
        check(header, sender, self.leased(&lease, &keys), guard, now).map(Verified::digest)
    }

    fn decide_by(&self, sender: u8) -> Result<Digest, Refused> {
        self.decide_for(&header(), user(sender), NOON)
    }

    fn leased<'a>(&'a self, lease: &'a Lease, keys: &'a [Digest]) -> Leased<'a> {
        Leased {
            lease,
            keys,
            grants: &self.grants,
            groups: &self.groups,
            successions: &self.successions,
            meter: &self.meter,
        }
    }
}

/// What becomes of user 1's request at noon under these grants.
fn decide(grants: &[Verified<Grant>]) -> Result<Digest, Refused> {
    Held::grants(grants).decide_by(1)
}

fn refusal_of(change: impl FnOnce(&mut RequestHeader)) -> Refused {
    let mut header = header();
    change(&mut header);
    Held::grants(&[granted(|_| ())])
        .decide_for(&header, user(1), NOON)
        .unwrap_err()
}

#[test]
fn a_sealed_request_under_a_valid_grant_is_admitted_once() {
    let mut entropy = Seeded::new(1);
    let audience = AudienceKey::generate(&mut entropy);
    let header = RequestHeader {
        key: audience.public().id(),
        ..header()
    };
    let (sealed, _) = seal_request(
        audience.public(),
        &header,
        &user_key(1),
        b"secret",
        &mut entropy,
    )
    .unwrap();
    let open = || {
        audience
            .open(&SealedRequest::parse(&sealed).unwrap())
            .unwrap()
            .0
    };
    let (lease, held) = (lease(), Held::grants(&[granted(|_| ())]));
    let keys = [key(), header.key];
    let leased = held.leased(&lease, &keys);
    let mut guard = ReplayGuard::new(9);

    let admitted = admit(open(), leased, &mut guard, NOON).unwrap();
    assert_eq!(admitted.grant, held.grants[0].digest());
    assert_eq!(admitted.isolation, Isolation::Shared);
    assert_eq!(admitted.code, measurement(1));
    assert_eq!(admitted.owner, owner(1).principal());
    assert_eq!(admitted.request.body(), b"secret");
    assert!(!format!("{admitted:?}").contains("secret"));

    let again = admit(open(), leased, &mut guard, NOON).unwrap_err();
    assert_eq!(again, Refused::Replayed { id: header.id });
}

#[test]
fn a_request_without_any_grant_is_refused() {
    let refused = decide(&[]).unwrap_err();
    assert_eq!(refused.code(), "code-not-granted");
    assert!(
        refused.to_string().contains("granted: nothing"),
        "{refused}"
    );
}

#[test]
fn a_grant_signed_by_somebody_else_counts_for_nothing_and_is_not_listed() {
    let forged = Signed::sign(&owner(2), crate::cast::grant());
    let refused = decide(&[forged]).unwrap_err();
    assert_eq!(refused.code(), "code-not-granted");
    assert!(
        refused.to_string().contains("granted: nothing"),
        "{refused}"
    );
    let self_signed = Signed::sign(&user_key(1), crate::cast::grant());
    assert!(decide(&[self_signed]).is_err());
}

#[test]
fn a_grant_for_another_user_does_not_help_and_says_who_is_granted() {
    let refused = decide(&[granted(|grant| grant.user = one(2))]).unwrap_err();
    assert_eq!(refused.code(), "user-not-granted");
    assert!(
        refused.to_string().contains(&user(2).to_string()),
        "{refused}"
    );
}

#[test]
fn a_grant_for_other_code_does_not_help_and_says_which_is_granted() {
    let refused = decide(&[granted(|grant| grant.code = measured(2))]).unwrap_err();
    let expected = format!(
        "code {} is not granted for package {}; granted: {}. \
         The package's owner can grant this code",
        crate::cast::code(1),
        package(1),
        measured(2)
    );
    assert_eq!(refused.to_string(), expected);
    assert_eq!(refused.mover(), Mover::Owner);
    assert_eq!(refused.retry(), Retry::No);
}

#[test]
fn a_grant_for_another_package_does_not_help() {
    let refused = decide(&[granted(|grant| {
        grant.package = PackageSelector::Digest(package(2))
    })])
    .unwrap_err();
    assert_eq!(refused.code(), "code-not-granted");
    assert!(
        !refused.to_string().contains(&package(2).to_string()),
        "{refused}"
    );
}

#[test]
fn a_grant_holds_from_its_first_moment_and_not_at_its_last() {
    let from_now = granted(|grant| grant.not_before = NOON);
    assert!(decide(&[from_now]).is_ok());
    let one = Duration::from_millis(1);
    let not_yet = decide(&[granted(|grant| grant.not_before = NOON.plus(one))]).unwrap_err();
    assert_eq!(
        not_yet,
        Refused::NotYetValid {
            from: NOON.plus(one),
            now: NOON
        }
    );
    assert_eq!(not_yet.retry(), Retry::After(one));
    let ended = decide(&[granted(|grant| grant.not_after = NOON)]).unwrap_err();
    assert_eq!(
        ended,
        Refused::Expired {
            until: NOON,
            now: NOON
        }
    );
    let backwards = granted(|grant| {
        grant.not_before = NOON.plus(HOUR);
        grant.not_after = NOON.minus(HOUR);
    });
    assert!(
        decide(&[backwards]).is_err(),
        "an interval of nothing holds never"
    );
}

#[test]
fn the_strictest_of_several_grants_decides_whatever_their_order() {
    let mut grants = [
        granted(|grant| grant.not_after = NOON.plus(HOUR * 9)),
        granted(|grant| grant.isolation = Isolation::Dedicated),
        granted(|grant| grant.isolation = Isolation::Wiped),
    ];
    let strictest = grants[1].digest();
    assert_eq!(decide(&grants), Ok(strictest));
    grants.reverse();
    assert_eq!(decide(&grants), Ok(strictest));
}

#[test]
fn a_request_sealed_for_something_else_is_refused() {
    let other = Digest::of("other", &[]);
    let refused = refusal_of(|header| header.package = other);
    assert_eq!(
        refused,
        Refused::OtherPackage {
            found: other,
            leased: package(1)
        }
    );
    let refused = refusal_of(|header| header.audience = audience(package(1), &measurement(2)));
    assert_eq!(refused.code(), "other-audience");
    let refused = refusal_of(|header| header.key = other);
    assert_eq!(
        refused,
        Refused::OtherKey {
            found: other,
            leased: core::iter::once(key()).collect()
        }
    );
    assert_eq!(refused.retry(), Retry::Anew);
}

#[test]
fn a_request_outside_its_window_is_refused() {
    let one = Duration::from_millis(1);
    let held = Held::grants(&[granted(|_| ())]);
    let at = |created| {
        let header = RequestHeader {
            created,
            ..header()
        };
        held.decide_for(&header, user(1), NOON)
    };
    assert!(at(NOON.minus(REQUEST_AGE_MAX)).is_ok());
    assert_eq!(
        at(NOON.minus(REQUEST_AGE_MAX + one)).unwrap_err().code(),
        "stale"
    );
    assert!(at(NOON.plus(CLOCK_SKEW_MAX)).is_ok());
    assert_eq!(
        at(NOON.plus(CLOCK_SKEW_MAX + one)).unwrap_err().code(),
        "early"
    );
    assert_eq!(at(Time::from_millis(u64::MAX)).unwrap_err().code(), "early");
    assert_eq!(at(Time::from_millis(0)).unwrap_err().code(), "stale");
}

#[test]
fn nothing_is_served_after_the_lease() {
    let end = lease().not_after;
    let header = RequestHeader {
        created: end,
        ..header()
    };
    let held = Held::grants(&[granted(|_| ())]);
    let refused = held.decide_for(&header, user(1), end).unwrap_err();
    assert_eq!(
        refused,
        Refused::LeaseEnded {
            until: end,
            now: end
        }
    );
}

#[test]
fn a_refused_request_takes_no_room_in_the_guard() {
    let mut guard = ReplayGuard::new(1);
    let refused = Held::default().decide_before(&mut guard, &header(), user(1), NOON);
    assert!(refused.is_err());
    let held = Held::grants(&[granted(|_| ())]);
    let admitted = held.decide_before(&mut guard, &header(), user(1), NOON);
    assert!(admitted.is_ok());
}

#[test]
fn members_of_a_group_are_granted_by_its_newest_revision() {
    let mut held = Held::grants(&[granted(|grant| grant.user = team())]);
    let refused = held.decide_by(1).unwrap_err();
    assert_eq!(refused.code(), "user-not-granted");
    assert!(
        refused.to_string().contains("granted: group:team"),
        "{refused}"
    );

    held.groups.add(team_of(&owner(1), 1, &[1, 2]));
    assert!(held.decide_by(1).is_ok() && held.decide_by(2).is_ok());
    assert!(held.decide_by(3).is_err());

    held.groups.add(team_of(&owner(1), 2, &[2, 3]));
    assert!(held.decide_by(1).is_err(), "left with revision 2");
    assert!(held.decide_by(3).is_ok());
    held.groups.add(team_of(&owner(1), 1, &[1, 2]));
    assert!(
        held.decide_by(1).is_err(),
        "an old revision changes nothing"
    );
}

#[test]
fn a_group_of_another_owner_admits_nobody() {
    let mut held = Held::grants(&[granted(|grant| grant.user = team())]);
    held.groups.add(team_of(&owner(2), 9, &[1]));
    held.groups.add(team_of(&user_key(1), 9, &[1]));
    assert_eq!(held.decide_by(1).unwrap_err().code(), "user-not-granted");
}

#[test]
fn a_group_signed_twice_differently_admits_nobody() {
    let mut held = Held::grants(&[granted(|grant| grant.user = team())]);
    held.groups.add(team_of(&owner(1), 1, &[1]));
    held.groups.add(team_of(&owner(1), 1, &[1, 2]));
    assert!(held.decide_by(1).is_err());
    held.groups.add(team_of(&owner(1), 2, &[1]));
    assert!(held.decide_by(1).is_ok(), "the next revision settles it");
}

#[test]
fn a_successor_is_served_in_the_old_ones_place() {
    let mut held = Held::grants(&[
        granted(|_| ()),
        granted(|grant| grant.isolation = Isolation::Dedicated).clone(),
    ]);
    let strict = held.grants[1].digest();
    assert!(held.decide_by(5).is_err());
    held.successions = successions(&[(&user_key(1), &user_key(4)), (&user_key(4), &user_key(5))]);
    assert_eq!(held.decide_by(5), Ok(strict), "and kept apart as strictly");
    for old in [1, 4] {
        let refused = held.decide_by(old).unwrap_err();
        assert_eq!(refused, Refused::Succeeded { sender: user(old) });
        assert_eq!(refused.outside().code, "not-granted");
    }
}

#[test]
fn a_successor_belongs_to_the_old_ones_groups_and_may_be_granted_by_its_own_name() {
    let mut held = Held::grants(&[granted(|grant| grant.user = team())]);
    held.groups.add(team_of(&owner(1), 1, &[1]));
    held.successions = successions(&[(&user_key(1), &user_key(5))]);
    assert!(held.decide_by(5).is_ok());
    held.grants = vec![granted(|grant| grant.user = one(5))];
    assert!(held.decide_by(5).is_ok());
}

#[test]
fn a_succession_holds_from_its_first_moment() {
    let mut held = Held::grants(&[granted(|_| ())]);
    let begins = |at| {
        let succession = succeeded(&user_key(1), &user_key(5), at);
        Successions::from_iter([&succession])
    };
    held.successions = begins(NOON.plus(Duration::from_millis(1)));
    assert!(held.decide_by(1).is_ok() && held.decide_by(5).is_err());
    held.successions = begins(NOON);
    assert!(held.decide_by(1).is_err() && held.decide_by(5).is_ok());
}

#[test]
fn after_a_fork_nobody_is_served_in_the_old_ones_place() {
    let mut held = Held::grants(&[granted(|_| ())]);
    held.successions = successions(&[(&user_key(1), &user_key(5)), (&user_key(1), &user_key(6))]);
    for sender in [1, 5, 6] {
        assert!(held.decide_by(sender).is_err(), "user {sender}");
    }
}

#[test]
fn grants_and_groups_of_the_owners_successor_count() {
    let heir = owner(8);
    let mut held = Held::grants(&[granted_by(&heir, |grant| grant.user = team())]);
    held.groups.add(team_of(&owner(1), 3, &[1]));
    assert!(held.decide_by(1).is_err());
    held.successions = successions(&[(&owner(1), &heir)]);
    assert!(held.decide_by(1).is_ok());
    held.groups.add(team_of(&heir, 4, &[2]));
    assert!(held.decide_by(1).is_err() && held.decide_by(2).is_ok());
}

fn allotted(grant: &Verified<Grant>, requests: u64) -> Allotment {
    Allotment {
        grant: grant.digest(),
        requests,
    }
}

#[test]
fn a_metered_grant_serves_what_was_set_aside_and_no_more() {
    let mut held = Held::grants(&[granted(|grant| grant.requests = Some(100))]);
    let grant = held.grants[0].digest();
    assert_eq!(
        held.decide_by(1),
        Err(Refused::QuotaUsed { grant }),
        "nothing was"
    );
    held.meter = Meter::new([allotted(&held.grants[0], 2)]);
    assert_eq!(
        [held.decide_by(1), held.decide_by(1)],
        [Ok(grant), Ok(grant)]
    );
    let refused = held.decide_by(1).unwrap_err();
    assert_eq!(refused, Refused::QuotaUsed { grant });
    assert_eq!(refused.outside().to_string(), "refused: not-granted");
}

#[test]
fn a_request_that_the_guard_refuses_is_not_counted() {
    let mut held = Held::grants(&[granted(|grant| grant.requests = Some(100))]);
    held.meter = Meter::new([allotted(&held.grants[0], 5)]);
    let mut guard = ReplayGuard::new(9);
    for _ in 0..9 {
        let _ = held.decide_before(&mut guard, &header(), user(1), NOON);
    }
    assert_eq!(held.meter.unused(), [allotted(&held.grants[0], 4)]);
}

#[test]
fn when_a_quota_is_used_up_an_equally_strict_grant_serves_and_a_looser_one_never() {
    let metered = granted(|grant| {
        grant.isolation = Isolation::Wiped;
        grant.requests = Some(1);
        grant.not_after = NOON.plus(HOUR * 9);
    });
    let equal = granted(|grant| grant.isolation = Isolation::Wiped);
    let looser = granted(|_| ());
    let mut held = Held::grants(&[looser, metered.clone()]);
    held.meter = Meter::new([allotted(&metered, 1)]);
    assert_eq!(held.decide_by(1), Ok(metered.digest()));
    let grant = metered.digest();
    assert_eq!(held.decide_by(1), Err(Refused::QuotaUsed { grant }));
    held.grants.push(equal.clone());
    assert_eq!(held.decide_by(1), Ok(equal.digest()));
}

#[test]
fn the_outside_cannot_tell_the_owners_reasons_apart() {
    let metered = granted(|grant| grant.requests = Some(1));
    let reasons = [
        decide(&[]).unwrap_err(),
        decide(&[granted(|grant| grant.user = one(2))]).unwrap_err(),
        decide(&[granted(|grant| grant.code = measured(2))]).unwrap_err(),
        decide(&[granted(|grant| grant.not_after = NOON)]).unwrap_err(),
        decide(&[granted(|grant| grant.not_before = NOON.plus(MINUTE))]).unwrap_err(),
        decide(&[metered]).unwrap_err(),
        Refused::Succeeded { sender: user(1) },
        Refused::Revoked { grant: package(1) },
    ];
    for reason in reasons {
        assert_eq!(
            reason.outside(),
            Outside {
                code: "not-granted",
                retry: Retry::No
            }
        );
        assert_eq!(reason.outside().to_string(), "refused: not-granted");
    }
}

#[test]
fn a_long_listing_counts_what_it_does_not_show() {
    let grants: Vec<_> = (2..30)
        .map(|n| granted(|grant| grant.user = one(n)))
        .collect();
    let refused = decide(&grants).unwrap_err().to_string();
    assert!(refused.contains("and 20 more"), "{refused}");
    assert_eq!(refused.matches("ed25519:").count(), crate::LISTED_MAX + 1);
}

mod oracle;

#[test]
fn a_use_on_behalf_of_a_user_needs_the_users_own_grant_and_is_metered() {
    let held = Held::grants(&[granted(|_| ())]);
    let (lease, keys) = (lease(), [key()]);
    let leased = held.leased(&lease, &keys);
    let used = admit_use(user(1), leased, NOON).unwrap();
    assert_eq!(used.grant, held.grants[0].digest());
    assert_eq!((used.package, used.user), (package(1), user(1)));
    let stranger = admit_use(user(2), leased, NOON).unwrap_err();
    assert_eq!(
        stranger.code(),
        Held::grants(&held.grants).decide_by(2).unwrap_err().code()
    );
    let ended = admit_use(user(1), leased, lease.not_after).unwrap_err();
    assert_eq!(ended.code(), "lease-ended");

    let metered = granted(|grant| grant.requests = Some(5));
    let mut held = Held::grants(&[metered]);
    held.meter = Meter::new([allotted(&held.grants[0], 2)]);
    let leased = held.leased(&lease, &keys);
    for _ in 0..2 {
        assert!(admit_use(user(1), leased, NOON).is_ok());
    }
    let refused = admit_use(user(1), leased, NOON).unwrap_err();
    assert_eq!(refused.code(), "quota-used");
}
