//! Stories of single requests, and the property that admission equals a plain oracle.

use bield_envelope::{AudienceKey, SealedRequest, Seeded, Signed, seal_request};
use proptest::prelude::*;

use bield_evidence::Mover;

use super::*;
use crate::cast::{HOUR, MINUTE, NOON, code, granted, lease, owner, package, user, user_key};
use crate::{Outside, Retry, audience};

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

/// What becomes of user 1's request at noon under these grants.
fn decide(grants: &[Verified<Grant>]) -> Result<Digest, Refused> {
    decide_for(&header(), grants, &Revocations::new(), NOON)
}

fn decide_for(
    header: &RequestHeader,
    grants: &[Verified<Grant>],
    revoked: &Revocations,
    now: Time,
) -> Result<Digest, Refused> {
    let lease = lease();
    let leased = Leased {
        lease: &lease,
        key: key(),
        grants,
        revoked,
    };
    check(header, user(1), leased, &mut ReplayGuard::new(9), now).map(Verified::digest)
}

fn refusal_of(change: impl FnOnce(&mut RequestHeader)) -> Refused {
    let mut header = header();
    change(&mut header);
    decide_for(&header, &[granted(|_| ())], &Revocations::new(), NOON).unwrap_err()
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
    let (lease, grants) = (lease(), [granted(|_| ())]);
    let revoked = Revocations::new();
    let leased = Leased {
        lease: &lease,
        key: header.key,
        grants: &grants,
        revoked: &revoked,
    };
    let mut guard = ReplayGuard::new(9);

    let admitted = admit(open(), leased, &mut guard, NOON).unwrap();
    assert_eq!(admitted.grant, grants[0].digest());
    assert_eq!(admitted.isolation, Isolation::Shared);
    assert_eq!(admitted.code, code(1));
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
    let refused = decide(&[granted(|grant| grant.user = user(2))]).unwrap_err();
    assert_eq!(refused.code(), "user-not-granted");
    assert!(
        refused.to_string().contains(&user(2).to_string()),
        "{refused}"
    );
}

#[test]
fn a_grant_for_other_code_does_not_help_and_says_which_is_granted() {
    let refused = decide(&[granted(|grant| grant.code = code(2))]).unwrap_err();
    let expected = format!(
        "code {} is not granted for package {}; granted: {}. \
         The package's owner can grant this code",
        code(1),
        package(1),
        code(2)
    );
    assert_eq!(refused.to_string(), expected);
    assert_eq!(refused.mover(), Mover::Owner);
    assert_eq!(refused.retry(), Retry::No);
}

#[test]
fn a_grant_for_another_package_does_not_help() {
    let refused = decide(&[granted(|grant| grant.package = package(2))]).unwrap_err();
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
fn a_revoked_grant_is_refused_and_so_is_its_renewal_under_the_same_id() {
    let grants = [
        granted(|_| ()),
        granted(|grant| grant.not_after = NOON.plus(HOUR * 9)),
    ];
    let mut revoked = Revocations::new();
    revoked.revoke(owner(2).principal(), [7; 16]).unwrap();
    assert!(
        decide_for(&header(), &grants, &revoked, NOON).is_ok(),
        "another owner's word"
    );
    revoked.revoke(owner(1).principal(), [7; 16]).unwrap();
    let refused = decide_for(&header(), &grants, &revoked, NOON).unwrap_err();
    assert_eq!(refused.code(), "grant-revoked");
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
    let refused = refusal_of(|header| header.audience = audience(package(1), &code(2)));
    assert_eq!(refused.code(), "other-audience");
    let refused = refusal_of(|header| header.key = other);
    assert_eq!(
        refused,
        Refused::OtherKey {
            found: other,
            leased: key()
        }
    );
    assert_eq!(refused.retry(), Retry::Anew);
}

#[test]
fn a_request_outside_its_window_is_refused() {
    let one = Duration::from_millis(1);
    let grants = [granted(|_| ())];
    let at = |created| {
        let header = RequestHeader {
            created,
            ..header()
        };
        decide_for(&header, &grants, &Revocations::new(), NOON)
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
    let refused = decide_for(&header, &[granted(|_| ())], &Revocations::new(), end).unwrap_err();
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
    let lease = lease();
    let revoked = Revocations::new();
    let mut guard = ReplayGuard::new(1);
    let leased = Leased {
        lease: &lease,
        key: key(),
        grants: &[],
        revoked: &revoked,
    };
    assert!(check(&header(), user(1), leased, &mut guard, NOON).is_err());
    let grants = [granted(|_| ())];
    let leased = Leased {
        grants: &grants,
        ..leased
    };
    assert!(check(&header(), user(1), leased, &mut guard, NOON).is_ok());
}

#[test]
fn the_outside_cannot_tell_the_owners_reasons_apart() {
    let mut revoked = Revocations::new();
    revoked.revoke(owner(1).principal(), [7; 16]).unwrap();
    let reasons = [
        decide(&[]).unwrap_err(),
        decide(&[granted(|grant| grant.user = user(2))]).unwrap_err(),
        decide(&[granted(|grant| grant.code = code(2))]).unwrap_err(),
        decide(&[granted(|grant| grant.not_after = NOON)]).unwrap_err(),
        decide(&[granted(|grant| grant.not_before = NOON.plus(MINUTE))]).unwrap_err(),
        decide_for(&header(), &[granted(|_| ())], &revoked, NOON).unwrap_err(),
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
        .map(|n| granted(|grant| grant.user = user(n)))
        .collect();
    let refused = decide(&grants).unwrap_err().to_string();
    assert!(refused.contains("and 20 more"), "{refused}");
    assert_eq!(refused.matches("ed25519:").count(), crate::LISTED_MAX + 1);
}

/// One grant of the property: small universes, so that near misses are common.
#[derive(Clone, Debug)]
struct Word {
    owner: u8,
    id: u8,
    package: u8,
    user: u8,
    code: u8,
    from: u64,
    until: u64,
}

/// One request of the property. Times are minutes after the story begins.
#[derive(Clone, Debug)]
struct Ask {
    user: u8,
    id: u8,
    package: u8,
    code: u8,
    right_key: bool,
    created: u64,
    now: u64,
}

const BEGIN: Time = NOON;
const LEASE_MINUTES: u64 = 14;
const GUARD_MAX: usize = 3;

fn minute(number: u64) -> Time {
    BEGIN.plus(MINUTE * u32::try_from(number).unwrap())
}

fn words() -> impl Strategy<Value = Vec<Word>> {
    let word = (
        mostly_one(),
        1..4u8,
        mostly_one(),
        1..3u8,
        mostly_one(),
        0..9u64,
        6..18u64,
    )
        .prop_map(|(owner, id, package, user, code, from, until)| Word {
            owner,
            id,
            package,
            user,
            code,
            from,
            until,
        });
    prop::collection::vec(word, 0..5)
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let ask = (
        1..3u8,
        1..4u8,
        mostly_one(),
        mostly_one(),
        prop::bool::weighted(0.9),
        0..8u64,
        0..16u64,
    )
        .prop_map(|(user, id, package, code, right_key, age, now)| Ask {
            user,
            id,
            package,
            code,
            right_key,
            // Two minutes into the future up to five into the past, and a little beyond each.
            created: (now + 2).saturating_sub(age),
            now,
        });
    prop::collection::vec(ask, 1..12)
}

fn mostly_one() -> impl Strategy<Value = u8> {
    prop_oneof![6 => Just(1u8), 1 => Just(2u8)]
}

/// The rules once more, as plainly as they can be said, over small numbers.
#[derive(Default)]
struct Oracle {
    admitted: Vec<(u8, u8, u64)>,
    latest: u64,
}

impl Oracle {
    fn admits(&mut self, ask: &Ask, words: &[Word], revoked: &[(u8, u8)]) -> bool {
        let allowed = words.iter().any(|word| {
            word.owner == 1
                && word.package == 1
                && word.code == 1
                && word.user == ask.user
                && (word.from..word.until).contains(&ask.now)
                && !revoked.contains(&(word.owner, word.id))
        });
        let right_place = ask.package == 1 && ask.code == 1 && ask.right_key;
        let fresh = ask.created <= ask.now + 1 && ask.now <= ask.created + 5;
        if !(allowed && right_place && fresh && ask.now < LEASE_MINUTES) {
            return false;
        }
        self.latest = self.latest.max(ask.now);
        let remembered = |created: u64| created + 5 >= self.latest;
        let seen = self
            .admitted
            .iter()
            .any(|&(user, id, created)| (user, id) == (ask.user, ask.id) && remembered(created));
        let held = self
            .admitted
            .iter()
            .filter(|entry| remembered(entry.2))
            .count();
        let admits = remembered(ask.created) && !seen && held < GUARD_MAX;
        if admits {
            self.admitted.push((ask.user, ask.id, ask.created));
        }
        admits
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn admission_accepts_exactly_what_the_oracle_accepts(
        words in words(),
        asks in asks(),
        revocations in prop::collection::vec((1..3u8, 1..4u8), 0..2),
    ) {
        let grants: Vec<_> = words.iter().map(|word| Signed::sign(&owner(word.owner), Grant {
            id: [word.id; 16],
            package: package(word.package),
            user: user(word.user),
            code: code(word.code),
            isolation: Isolation::Wiped,
            not_before: minute(word.from),
            not_after: minute(word.until),
        })).collect();
        let mut revoked = Revocations::new();
        for &(by, id) in &revocations {
            revoked.revoke(owner(by).principal(), [id; 16]).unwrap();
        }
        let lease = Lease { not_after: minute(LEASE_MINUTES), ..lease() };
        let leased = Leased { lease: &lease, key: key(), grants: &grants, revoked: &revoked };
        let (mut guard, mut oracle) = (ReplayGuard::new(GUARD_MAX), Oracle::default());
        for ask in &asks {
            let header = RequestHeader {
                audience: audience(package(1), &code(ask.code)),
                key: if ask.right_key { key() } else { Digest::of("other key", &[]) },
                package: package(ask.package),
                id: [ask.id; 16],
                created: minute(ask.created),
            };
            let admitted = check(&header, user(ask.user), leased, &mut guard, minute(ask.now));
            let expected = oracle.admits(ask, &words, &revocations);
            prop_assert_eq!(admitted.is_ok(), expected, "{:?}: {:?}", ask, admitted.err());
        }
    }
}
