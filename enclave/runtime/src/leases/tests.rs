//! The cache of leases, with a played key service and played clocks.

use std::thread;

use bield_evidence::Measurement;
use bield_protocol::service::LeasedKeys;

use super::*;
use crate::cold::{REFUSED_FOR, TOKEN_EVERY, TOKENS};
use crate::keys::Asked;
use crate::testing::{Cast, PlayedClock, Service, code, package, unreachable};

mod allotments;

/// Threads that may wait for keys.
const PLACES: usize = 9;
const LENGTH: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);

struct Scene {
    clock: Arc<PlayedClock>,
    service: Service,
    leases: Leases,
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(PlayedClock::new());
        let service = Service::new(Arc::clone(&clock));
        service.mind().lasts = LENGTH;
        let leases = service.leases(PLACES);
        Self {
            clock,
            service,
            leases,
        }
    }

    /// Keys that a request was admitted by.
    fn used(&self, number: u8) -> Arc<Keys> {
        let keys = self.leases.get(package(number)).unwrap();
        keys.note_use();
        keys
    }

    fn fetches(&self) -> u32 {
        self.service.mind().fetches
    }

    fn fail(&self, error: Option<KeysError>) {
        self.service.mind().fails = error;
    }

    /// Lets time pass second by second, with a pass after each.
    fn live(&self, time: Duration) {
        for _ in 0..time.as_secs() {
            self.clock.pass(SECOND);
            self.leases.tend();
        }
    }
}

#[test]
fn one_fetch_serves_all_who_ask_at_once_and_after() {
    let scene = Scene::new();
    let hold = Arc::clone(&scene.service.mind().hold);
    let held = lock(&hold);
    thread::scope(|scope| {
        for _ in 0..PLACES - 1 {
            scope.spawn(|| scene.leases.get(package(1)).unwrap());
        }
        drop(held);
    });
    scene.leases.get(package(1)).unwrap();
    assert_eq!(scene.fetches(), 1);
}

#[test]
fn an_ended_lease_is_fetched_again() {
    let scene = Scene::new();
    scene.leases.get(package(1)).unwrap();
    scene.clock.pass(LENGTH);
    assert!(scene.leases.cached(package(1)).is_none());
    scene.leases.get(package(1)).unwrap();
    assert_eq!(scene.fetches(), 2);
}

#[test]
fn a_clock_that_is_set_back_does_not_lengthen_a_lease() {
    let scene = Scene::new();
    let keys = scene.leases.get(package(1)).unwrap();
    scene.clock.pass(LENGTH - SECOND);
    scene.clock.set_host(Time::from_secs(1));
    assert!(keys.is_current());
    scene.clock.pass(SECOND);
    assert!(!keys.is_current());
    assert!(scene.leases.cached(package(1)).is_none());
}

#[test]
fn a_used_lease_is_renewed_between_60_and_80_percent_and_an_unused_one_is_not() {
    let scene = Scene::new();
    let used = scene.used(1);
    scene.leases.get(package(2)).unwrap();
    scene.live(LENGTH * 6 / 10 - SECOND);
    assert_eq!(scene.fetches(), 2);
    scene.live(LENGTH * 2 / 10 + SECOND);
    assert_eq!(scene.fetches(), 3);
    let renewed = scene.leases.cached(package(1)).unwrap();
    assert!(!Arc::ptr_eq(&used, &renewed));
    // Not used since: neither is renewed again.
    scene.live(LENGTH * 2);
    assert_eq!(scene.fetches(), 3);
    let counts = scene.leases.counts();
    assert_eq!((counts.held, counts.fetched, counts.renewed), (0, 3, 1));
}

#[test]
fn a_lease_that_is_used_late_is_renewed_late() {
    let scene = Scene::new();
    let keys = scene.leases.get(package(1)).unwrap();
    scene.live(LENGTH * 95 / 100);
    assert_eq!(scene.fetches(), 1);
    keys.note_use();
    scene.live(SECOND);
    assert_eq!(scene.fetches(), 2);
}

#[test]
fn keys_that_ended_or_were_refused_are_wiped_and_not_only_hidden() {
    let scene = Scene::new();
    let lapsed = Arc::downgrade(&scene.leases.get(package(1)).unwrap());
    scene.live(LENGTH);
    assert!(lapsed.upgrade().is_none());
    let refused = Arc::downgrade(&scene.used(2));
    scene.fail(Some(KeysError::NotGranted));
    scene.live(LENGTH * 8 / 10);
    assert!(refused.upgrade().is_none());
}

#[test]
fn nobody_with_current_keys_waits_for_a_renewal() {
    let scene = Scene::new();
    let keys = scene.used(1);
    scene.clock.pass(LENGTH * 8 / 10);
    let hold = Arc::clone(&scene.service.mind().hold);
    let held = lock(&hold);
    thread::scope(|scope| {
        let renews = scope.spawn(|| scene.leases.tend());
        // The renewal hangs until the key service answers, and the lease goes on.
        let same = (0..100).all(|_| {
            thread::yield_now();
            Arc::ptr_eq(&keys, &scene.leases.get(package(1)).unwrap())
        });
        let hangs = !renews.is_finished();
        drop(held);
        assert!(same && hangs);
    });
    assert_eq!(scene.fetches(), 2);
}

#[test]
fn an_outage_is_lived_through_within_the_lease_and_named_at_its_end() {
    let scene = Scene::new();
    let keys = scene.used(1);
    scene.fail(Some(unreachable()));
    scene.live(LENGTH - SECOND);
    assert!(Arc::ptr_eq(&keys, &scene.leases.get(package(1)).unwrap()));
    // Tried again and again, and not in every pass: 120 s at least, 8 s at most between two.
    let tries = scene.fetches() - 1;
    assert!((15..=60).contains(&tries), "{tries}");

    scene.live(SECOND);
    let ended = scene.leases.get(package(1)).err().unwrap().unsealed();
    assert_eq!(ended.code, "no-lease");
    assert!(ended.retry_after_ms.is_some());
    assert!(ended.message.contains("lease"), "{ended:?}");
    scene.fail(None);
    assert!(scene.leases.get(package(1)).is_ok());
}

#[test]
fn a_renewal_that_failed_succeeds_when_the_key_service_is_back() {
    let scene = Scene::new();
    scene.used(1);
    scene.fail(Some(KeysError::NotServing("test")));
    scene.live(LENGTH * 85 / 100);
    scene.fail(None);
    scene.live(renewal::BACKOFF_MAX);
    let counts = scene.leases.counts();
    assert_eq!((counts.held, counts.renewed), (1, 1));
    assert!(counts.failed > 0);
}

#[test]
fn renewals_wait_together_while_the_key_service_cannot_be_asked() {
    let scene = Scene::new();
    for number in 0..10 {
        scene.leases.get(package(number)).unwrap().note_use();
    }
    scene.fail(Some(unreachable()));
    scene.clock.pass(LENGTH * 8 / 10);
    scene.leases.tend();
    scene.leases.tend();
    assert_eq!(scene.fetches(), 11, "one question found out");
    scene.fail(None);
    scene.clock.pass(SECOND);
    scene.leases.tend();
    assert_eq!(scene.leases.counts().renewed, 10);
}

#[test]
fn one_package_whose_renewal_fails_keeps_no_other_from_its_own() {
    let scene = Scene::new();
    scene.used(1);
    scene.clock.pass(SECOND);
    scene.used(2);
    scene.clock.pass(LENGTH * 8 / 10);
    scene.fail(Some(KeysError::Contradiction("test")));
    scene.leases.tend();
    assert_eq!(scene.fetches(), 4, "both were tried");
    scene.fail(None);
    scene.clock.pass(SECOND);
    scene.leases.tend();
    assert_eq!(scene.leases.counts().renewed, 2);
}

#[test]
fn a_revocation_counts_at_renewal_and_at_the_end_of_the_lease_at_the_latest() {
    let scene = Scene::new();
    scene.used(1);
    scene.fail(Some(KeysError::NotGranted));
    scene.clock.pass(LENGTH * 8 / 10);
    assert_eq!(scene.leases.tend(), [package(1)]);
    assert!(
        scene.leases.cached(package(1)).is_none(),
        "at once on renewal"
    );
    assert!(scene.leases.get(package(1)).is_err());

    // The host keeps the runtime from hearing of it.
    let scene = Scene::new();
    let keys = scene.used(1);
    scene.fail(Some(unreachable()));
    scene.live(LENGTH - SECOND);
    assert!(keys.is_current());
    scene.clock.pass(SECOND);
    assert!(!keys.is_current() && scene.leases.cached(package(1)).is_none());
    assert!(scene.leases.get(package(1)).is_err());
}

#[test]
fn renewals_ahead_of_time_are_rationed() {
    let scene = Scene::new();
    let mut keys = scene.leases.get(package(1)).unwrap();
    for _ in 0..RENEWALS_AT_ONCE {
        keys = scene.leases.renew(package(1), &keys).unwrap();
    }
    let refused = scene.leases.renew(package(1), &keys).err();
    assert_eq!(refused, Some(KeysError::TooSoon));
    assert_eq!(scene.fetches(), 1 + RENEWALS_AT_ONCE);
    scene.clock.pass(RENEWAL_EVERY);
    assert!(scene.leases.renew(package(1), &keys).is_ok());
}

#[test]
fn renewals_that_fail_cost_as_much_as_others() {
    let scene = Scene::new();
    let keys = scene.leases.get(package(1)).unwrap();
    scene.fail(Some(unreachable()));
    let outcomes: Vec<_> = (0..10)
        .map(|_| scene.leases.renew(package(1), &keys).err().unwrap())
        .collect();
    let too_soon = outcomes.iter().filter(|e| **e == KeysError::TooSoon);
    assert_eq!(too_soon.count(), 10 - RENEWALS_AT_ONCE as usize);
}

#[test]
fn whoever_asks_with_old_keys_gets_the_newer_ones_without_a_fetch() {
    let scene = Scene::new();
    let old = scene.leases.get(package(1)).unwrap();
    let newer = scene.leases.renew(package(1), &old).unwrap();
    let again = scene.leases.renew(package(1), &old).unwrap();
    assert!(Arc::ptr_eq(&newer, &again));
    assert_eq!(scene.fetches(), 2);
}

#[test]
fn a_refused_renewal_forgets_the_lease_and_an_outage_does_not() {
    let scene = Scene::new();
    let keys = scene.leases.get(package(1)).unwrap();
    scene.fail(Some(unreachable()));
    assert!(scene.leases.renew(package(1), &keys).is_err());
    assert!(scene.leases.cached(package(1)).is_some());
    scene.fail(Some(KeysError::NotGranted));
    assert!(scene.leases.renew(package(1), &keys).is_err());
    assert!(scene.leases.cached(package(1)).is_none());
}

/// F2 of SeSeMI: a failed fetch left a placeholder that later requests waited for.
#[test]
fn f2_a_failed_fetch_leaves_nothing_behind_and_is_tried_again() {
    let scene = Scene::new();
    scene.fail(Some(unreachable()));
    let refused = scene.leases.get(package(1)).err().unwrap().unsealed();
    assert_eq!(refused.code, "key-service-unreachable");
    assert!(refused.retry_after_ms.is_some());
    scene.fail(None);
    assert!(scene.leases.get(package(1)).is_ok());
}

/// F2 of SeSeMI: a denied user who asked twice locked out everyone.
#[test]
fn f2_a_denied_package_asked_for_again_and_again_locks_nobody_out() {
    let scene = Scene::new();
    scene.fail(Some(KeysError::NotGranted));
    assert_eq!(
        scene.leases.get(package(1)).err(),
        Some(KeysError::NotGranted)
    );
    assert_eq!(
        scene.leases.get(package(1)).err(),
        Some(KeysError::NotGrantedYet)
    );
    scene.fail(None);
    assert!(scene.leases.get(package(2)).is_ok());
    let again = scene.leases.get(package(1)).err().unwrap();
    assert_eq!(again, KeysError::NotGrantedYet);
    let wait = again.unsealed().retry_after_ms.unwrap();
    scene.clock.pass(Duration::from_millis(wait));
    assert!(scene.leases.get(package(1)).is_ok(), "a late grant works");
}

/// F2 of SeSeMI: waiting for one package's keys kept all others waiting.
#[test]
fn f2_a_fetch_that_hangs_holds_up_no_other_package() {
    let scene = Scene::new();
    scene.used(2);
    let hold = Arc::clone(&scene.service.mind().hold);
    let held = lock(&hold);
    thread::scope(|scope| {
        // As many strangers as may wait; whether they have begun to, nothing depends on it.
        for number in 100..100 + PLACES as u8 {
            scope.spawn({
                let leases = &scene.leases;
                move || leases.get(package(number)).is_ok()
            });
        }
        assert!(scene.leases.get(package(2)).is_ok());
        drop(held);
    });
    assert!(scene.leases.get(package(3)).is_ok());
}

#[test]
fn a_flood_of_made_up_packages_is_rationed_and_starves_no_known_one() {
    let scene = Scene::new();
    scene.leases.get(package(200)).unwrap();
    scene.clock.pass(LENGTH);
    scene.leases.tend();
    scene.fail(Some(KeysError::NotGranted));
    let asked = || {
        let outcomes: Vec<_> = (0..100)
            .map(|n| scene.leases.get(package(n)).err())
            .collect();
        let refused = outcomes
            .iter()
            .filter(|e| **e == Some(KeysError::NotGranted));
        assert!(outcomes.contains(&Some(KeysError::Busy)));
        refused.count() as u32
    };
    assert_eq!(asked(), TOKENS);
    scene.clock.pass(REFUSED_FOR);
    assert_eq!(
        u128::from(asked()),
        REFUSED_FOR.as_nanos() / TOKEN_EVERY.as_nanos()
    );
    let busy = KeysError::Busy.unsealed();
    assert_eq!(busy.code, "busy");
    assert!(busy.retry_after_ms.is_some());
    // Its lease has ended, so its keys are fetched again, with no token.
    scene.fail(None);
    assert!(scene.leases.get(package(200)).is_ok());
}

#[test]
fn threads_that_wait_for_keys_leave_one_for_those_who_have_them() {
    let scene = Scene::new();
    scene.leases.get(package(200)).unwrap();
    let strangers: Vec<_> = (1..PLACES)
        .map(|_| scene.leases.cold.enter(false).unwrap())
        .collect();
    assert_eq!(scene.leases.get(package(1)).err(), Some(KeysError::Busy));
    scene.clock.pass(LENGTH);
    let keys = scene.leases.get(package(200)).unwrap();
    let _last = scene.leases.cold.enter(true).unwrap();
    let waits = scene.leases.renew(package(200), &keys).err();
    assert_eq!(waits, Some(KeysError::Busy));
    assert!(scene.leases.cached(package(200)).is_some());
    drop(strangers);
    assert!(scene.leases.get(package(1)).is_ok());
}

#[test]
fn keys_for_another_package_or_other_code_or_beside_a_forged_statement_are_refused() {
    let cast = Cast::new();
    let clock = Arc::new(PlayedClock::new());
    let refused = |asked, code: Measurement, change: fn(&mut LeasedKeys)| {
        let mut leased = cast.leased(package(1), LENGTH);
        change(&mut leased);
        let asked = Asked {
            package: asked,
            code: &code,
            at: clock.running(),
            clock: Arc::<PlayedClock>::clone(&clock),
        };
        Keys::new(leased, cast.certificate(), asked).err()
    };
    let contradiction = |error| matches!(error, Some(KeysError::Contradiction(_)));
    assert_eq!(refused(package(1), code(1), |_| ()), None);
    assert!(contradiction(refused(package(2), code(1), |_| ())));
    assert!(contradiction(refused(package(1), code(2), |_| ())));
    let keyless: fn(&mut LeasedKeys) = |leased| leased.audience_keys.clear();
    assert!(contradiction(refused(package(1), code(1), keyless)));
    let real: fn(&mut LeasedKeys) = |leased| leased.lease.simulated = false;
    assert!(contradiction(refused(package(1), code(1), real)));
    let forged: fn(&mut LeasedKeys) = |leased| {
        let mut bytes = leased.grants[0].as_bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        leased.grants = vec![bield_envelope::Signed::decode(&bytes).unwrap()];
    };
    assert!(contradiction(refused(package(1), code(1), forged)));
}

#[test]
fn the_cache_is_bounded_and_the_lease_that_ends_first_makes_room() {
    let scene = Scene::new();
    let first = Digest::of("test", &[]);
    scene
        .leases
        .keep(first, &scene.leases.get(package(1)).unwrap());
    scene.clock.pass(SECOND);
    let later =
        Arc::new(Cast::new().keys(Cast::new().leased(package(1), LENGTH * 2), &scene.clock));
    for number in 0..LEASES_MAX as u64 {
        scene
            .leases
            .keep(Digest::of("test", &[&number.to_be_bytes()]), &later);
    }
    assert_eq!(scene.leases.counts().held, LEASES_MAX as u64);
    assert!(scene.leases.cached(first).is_none());
}
