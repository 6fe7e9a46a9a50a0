//! What leases were allotted and did not use: returned once, spent never twice.

use super::*;

impl Scene {
    /// A metered grant with `quota` requests left at the key service.
    fn meter(&self, quota: u64) -> Digest {
        let cast = Cast::new();
        let grant = cast.granted(package(1), |grant| grant.requests = Some(quota));
        let mut mind = self.service.mind();
        mind.quotas.insert(grant.digest(), quota);
        let name = grant.digest();
        mind.grants = Some(vec![grant]);
        name
    }

    fn left(&self, grant: &Digest) -> u64 {
        self.service.mind().quotas[grant]
    }
}

#[test]
fn what_a_lease_did_not_use_is_returned_with_the_next() {
    let scene = Scene::new();
    let grant = scene.meter(100);
    scene.used(1);
    assert_eq!(scene.left(&grant), 50);
    scene.live(LENGTH * 8 / 10);
    // 50 came back; of 100 the next lease got half again.
    assert_eq!(scene.leases.counts().renewed, 1);
    assert_eq!(scene.left(&grant), 50);
    let keys = scene.leases.cached(package(1)).unwrap();
    assert_eq!(unused(&keys), 50);
}

fn unused(keys: &Keys) -> u64 {
    let returned = keys.unused().map(|returned| returned.unused);
    returned
        .iter()
        .flatten()
        .map(|allotment| allotment.requests)
        .sum()
}

#[test]
fn an_allotment_whose_return_may_have_arrived_is_not_spent_and_is_sent_again() {
    let scene = Scene::new();
    let grant = scene.meter(100);
    let keys = scene.used(1);
    scene.clock.pass(LENGTH * 8 / 10);
    scene.service.mind().answers_are_lost = true;
    scene.leases.tend();
    assert!(
        scene.leases.cached(package(1)).is_some(),
        "the lease goes on"
    );
    assert_eq!(
        unused(&keys),
        0,
        "and admits nothing that may count elsewhere"
    );
    // Half of what came back was allotted to the lost lease and is lost with it; nothing counts twice.
    assert_eq!(scene.left(&grant), 50);
    scene.service.mind().answers_are_lost = false;
    scene.live(SECOND);
    assert_eq!(scene.leases.counts().renewed, 1);
    assert_eq!(scene.left(&grant), 25);
    assert_eq!(unused(&scene.leases.cached(package(1)).unwrap()), 25);
}

#[test]
fn a_question_that_never_left_takes_no_allotment_along() {
    let scene = Scene::new();
    scene.meter(100);
    let keys = scene.used(1);
    scene.fail(Some(unreachable()));
    scene.live(LENGTH * 9 / 10);
    assert_eq!(unused(&keys), 50);
}

#[test]
fn an_idle_lease_returns_its_allotments_before_it_ends() {
    let scene = Scene::new();
    let grant = scene.meter(100);
    scene.leases.get(package(1)).unwrap();
    scene.live(LENGTH * 89 / 100);
    assert_eq!(scene.left(&grant), 50);
    scene.live(LENGTH * 2 / 100);
    assert_eq!(scene.left(&grant), 100);
    assert!(scene.leases.cached(package(1)).is_some());
    assert_eq!(scene.fetches(), 1, "without another lease");
}

#[test]
fn allotments_of_a_lease_that_ended_in_an_outage_are_returned_after_it() {
    let scene = Scene::new();
    let grant = scene.meter(100);
    scene.leases.get(package(1)).unwrap();
    scene.fail(Some(unreachable()));
    scene.live(LENGTH * 2);
    assert_eq!((scene.left(&grant), scene.leases.counts().held), (50, 0));
    scene.fail(None);
    scene.live(renewal::BACKOFF_MAX);
    assert_eq!(scene.left(&grant), 100);
}

#[test]
fn a_program_that_stops_returns_everything_it_can() {
    let scene = Scene::new();
    let grant = scene.meter(100);
    let keys = scene.used(1);
    scene.leases.give_back(SECOND);
    assert_eq!((scene.left(&grant), unused(&keys)), (100, 0));
    scene.fail(Some(unreachable()));
    scene.leases.give_back(SECOND);
}
