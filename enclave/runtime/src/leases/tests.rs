//! The cache of leases, with a played key service.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::cold::{TOKEN_EVERY, TOKENS};
use crate::testing::{Cast, code, package};

/// Threads that may wait for first fetches.
const PLACES: usize = 8;

/// Counts fetches; refuses when told to.
#[derive(Default)]
struct Source {
    fetches: AtomicU32,
    fails: Mutex<Option<KeysError>>,
    lasts: Option<Duration>,
}

impl KeySource for Arc<Source> {
    fn fetch(&self, package: Digest) -> Result<Keys, KeysError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(20));
        if let Some(error) = lock(&self.fails).clone() {
            return Err(error);
        }
        let lasts = self.lasts.unwrap_or(Duration::from_secs(60));
        Ok(Cast::new().keys(package, lasts))
    }
}

fn leases(source: Source) -> (Arc<Source>, Leases) {
    let source = Arc::new(source);
    let leases = Leases::new(Box::new(Arc::clone(&source)), PLACES);
    (source, leases)
}

#[test]
fn one_fetch_serves_all_who_ask_at_once_and_after() {
    let (source, leases) = leases(Source::default());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| leases.get(package(1)).unwrap());
        }
    });
    leases.get(package(1)).unwrap();
    assert_eq!(source.fetches.load(Ordering::SeqCst), 1);
}

#[test]
fn an_ended_lease_is_fetched_again() {
    let (source, leases) = leases(Source {
        lasts: Some(Duration::ZERO),
        ..Source::default()
    });
    leases.get(package(1)).unwrap();
    assert!(leases.cached(package(1)).is_none());
    leases.get(package(1)).unwrap();
    assert_eq!(source.fetches.load(Ordering::SeqCst), 2);
}

#[test]
fn a_clock_that_is_set_back_does_not_lengthen_a_lease() {
    let mut keys = Cast::new().keys(package(1), Duration::from_secs(60));
    let ahead = bield_platform::now().plus(Duration::from_secs(3600));
    keys.issued = ahead;
    keys.lease.not_after = ahead;
    assert!(keys.now() >= ahead);
    assert!(!keys.is_current());
}

#[test]
fn renewals_ahead_of_time_are_rationed() {
    let (source, leases) = leases(Source::default());
    let mut keys = leases.get(package(1)).unwrap();
    for _ in 0..RENEWAL_SAVED_MAX.as_secs() {
        keys = leases.renew(package(1), &keys).unwrap();
    }
    let refused = leases.renew(package(1), &keys).err();
    assert_eq!(refused, Some(KeysError::TooSoon));
    assert_eq!(source.fetches.load(Ordering::SeqCst), 4);
}

#[test]
fn whoever_asks_with_old_keys_gets_the_newer_ones_without_a_fetch() {
    let (source, leases) = leases(Source::default());
    let old = leases.get(package(1)).unwrap();
    let newer = leases.renew(package(1), &old).unwrap();
    assert!(Arc::ptr_eq(
        &newer,
        &leases.renew(package(1), &old).unwrap()
    ));
    assert_eq!(source.fetches.load(Ordering::SeqCst), 2);
}

#[test]
fn a_refused_renewal_forgets_the_lease_and_an_outage_does_not() {
    let (source, leases) = leases(Source::default());
    let keys = leases.get(package(1)).unwrap();
    let why = "test".to_owned();
    *lock(&source.fails) = Some(KeysError::Unreachable { why });
    assert!(leases.renew(package(1), &keys).is_err());
    assert!(leases.cached(package(1)).is_some());
    *lock(&source.fails) = Some(KeysError::NotGranted);
    assert!(leases.renew(package(1), &keys).is_err());
    assert!(leases.cached(package(1)).is_none());
}

#[test]
fn a_failed_fetch_leaves_nothing_behind() {
    let (source, leases) = leases(Source::default());
    let why = "test".to_owned();
    *lock(&source.fails) = Some(KeysError::Unreachable { why });
    let refused = leases.get(package(1)).err().unwrap().unsealed();
    assert_eq!(refused.code, "key-service-unreachable");
    assert!(refused.retry_after_ms.is_some());
    *lock(&source.fails) = None;
    assert!(leases.get(package(1)).is_ok());
}

#[test]
fn a_refusal_is_not_asked_for_again_within_a_moment_and_a_late_grant_works_after_it() {
    let (source, leases) = leases(Source::default());
    *lock(&source.fails) = Some(KeysError::NotGranted);
    assert_eq!(leases.get(package(1)).err(), Some(KeysError::NotGranted));
    *lock(&source.fails) = None;
    let again = leases.get(package(1)).err().unwrap();
    assert_eq!(again, KeysError::NotGrantedYet);
    assert_eq!(source.fetches.load(Ordering::SeqCst), 1);
    let wait = again.unsealed().retry_after_ms.unwrap();
    std::thread::sleep(Duration::from_millis(wait));
    assert!(leases.get(package(1)).is_ok());
}

#[test]
fn a_flood_of_made_up_packages_is_rationed_and_starves_no_known_one() {
    let (source, leases) = leases(Source {
        lasts: Some(Duration::ZERO),
        ..Source::default()
    });
    leases.get(package(200)).unwrap();
    *lock(&source.fails) = Some(KeysError::NotGranted);
    let started = Instant::now();
    let outcomes: Vec<_> = (0..100).map(|n| leases.get(package(n)).err()).collect();
    let earned = started.elapsed().as_millis() / TOKEN_EVERY.as_millis() + 1;
    let asked = source.fetches.load(Ordering::SeqCst) - 1;
    assert!(u128::from(asked) <= u128::from(TOKENS) + earned, "{asked}");
    assert!(outcomes.contains(&Some(KeysError::Busy)));
    let busy = KeysError::Busy.unsealed();
    assert_eq!(busy.code, "busy");
    assert!(busy.retry_after_ms.is_some());
    // Its lease has ended, so its keys are fetched again, with no token.
    *lock(&source.fails) = None;
    assert!(leases.get(package(200)).is_ok());
}

#[test]
fn strangers_who_wait_for_first_fetches_leave_the_others_their_threads() {
    let (_, leases) = leases(Source {
        lasts: Some(Duration::ZERO),
        ..Source::default()
    });
    leases.get(package(200)).unwrap();
    let places: Vec<_> = (0..PLACES).map(|_| leases.cold.enter().unwrap()).collect();
    assert_eq!(leases.get(package(1)).err(), Some(KeysError::Busy));
    assert!(leases.get(package(200)).is_ok());
    drop(places);
    assert!(leases.get(package(1)).is_ok());
}

#[test]
fn keys_for_another_package_or_other_code_are_refused() {
    let cast = Cast::new();
    let leased = |package| cast.leased(package, Duration::from_secs(60));
    let refused =
        |asked, code| Keys::new(leased(package(1)), cast.certificate(), asked, &code).err();
    assert_eq!(refused(package(1), code(1)), None);
    assert!(matches!(
        refused(package(2), code(1)),
        Some(KeysError::Contradiction(_))
    ));
    assert!(matches!(
        refused(package(1), code(2)),
        Some(KeysError::Contradiction(_))
    ));
}

#[test]
fn the_cache_is_bounded() {
    let mut cached = HashMap::new();
    let keys = Arc::new(Cast::new().keys(package(1), Duration::from_secs(60)));
    for number in 0..LEASES_MAX as u64 + 10 {
        make_room(&mut cached);
        cached.insert(
            Digest::of("test", &[&number.to_be_bytes()]),
            Arc::clone(&keys),
        );
    }
    assert_eq!(cached.len(), LEASES_MAX);
}
