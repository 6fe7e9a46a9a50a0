//! A service that went on from a snapshot is the one that never stopped, byte for byte.

use core::time::Duration;

use bield_envelope::{Digest, Time};
use bield_grant::Grant;
use bield_protocol::service::GrantId;
use proptest::prelude::*;

use crate::service::cast::{HOUR, MINUTE, NOON, Scene, grant, key, limits, root};
use crate::state::{Entry, Order, State};

/// The live state and one that is read from its own snapshot before every step.
struct Twins {
    live: State,
    again: State,
    record: u64,
}

impl Twins {
    fn new(scene: &Scene) -> Self {
        let bytes = scene.desk.state().to_bytes();
        let read = || State::decode(&bytes, root(), limits()).unwrap();
        Self {
            live: read(),
            again: read(),
            record: 1000,
        }
    }

    fn restart(&mut self) {
        self.again = State::decode(&self.again.to_bytes(), root(), limits()).unwrap();
    }

    /// Applies what the live one decides to both.
    fn order(&mut self, by: u8, order: Order, now: Time) {
        let ask = crate::state::Ask::Order {
            by: key(by).principal(),
            order,
        };
        let entries = match self.live.check(&ask, now) {
            Ok(checked) => checked.entries,
            Err(_) => return,
        };
        self.record += 1;
        for entry in entries {
            let read = Entry::decode(&entry.encode()).unwrap();
            self.live.apply(&entry, self.record, now).unwrap();
            self.again.apply(&read, self.record, now).unwrap();
        }
        assert!(
            *self.live.to_bytes() == *self.again.to_bytes(),
            "a restart changed what follows"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn more_grants_than_are_cleared_at_once_end_the_same_after_a_restart(
        ids in prop::collection::hash_set(any::<[u8; 16]>(), 150..220),
        revoked in prop::collection::vec(any::<prop::sample::Index>(), 0..150),
        steps in prop::collection::vec((0..4u8, any::<bool>(), 0..3u64), 4..12),
    ) {
        let (mut scene, first) = Scene::with_package();
        let second = scene.put(&key(1), "kennel", "1.0.0").unwrap();
        let ids: Vec<[u8; 16]> = ids.into_iter().collect();
        // A quarter ends before the others, so that slots are free and taken again.
        let of = |at: usize, id: [u8; 16]| Grant {
            id,
            not_after: NOON.plus(if at.is_multiple_of(4) { MINUTE } else { HOUR }),
            requests: at.is_multiple_of(3).then_some(10),
            ..grant(0, if at.is_multiple_of(2) { first } else { second })
        };
        for (at, id) in ids.iter().enumerate() {
            scene.grant(&key(1), of(at, *id)).unwrap();
        }
        let mut twins = Twins::new(&scene);
        let ends: Vec<GrantId> = revoked.iter().map(|at| GrantId(*at.get(&ids))).collect();
        twins.order(1, Order::Revoke(ends), NOON);
        let mut now = NOON.plus(MINUTE);
        for (step, restarts, waits) in steps {
            if restarts {
                twins.restart();
            }
            now = now.plus(Duration::from_secs(1200 * waits));
            let package = if step % 2 == 0 { first } else { second };
            match step {
                0 => twins.order(1, Order::DeletePackage(package), now),
                1 => twins.order(1, Order::Revoke(vec![GrantId(ids[1]), GrantId(ids[0])]), now),
                _ => twins.order(1, Order::RotateAudience { package, at_once: true }, now),
            }
        }
        twins.restart();
        for _ in 0..8 {
            now = now.plus(HOUR * 24 * 8);
            twins.order(1, Order::RotateAudience { package: second, at_once: true }, now);
        }
        prop_assert_eq!(twins.live.counts().grants, 0);
    }
}

#[test]
fn a_snapshot_between_two_packages_grants_does_not_stop_the_replay() {
    // Two packages' grants end together, more than one entry clears; ids stand against the order of arrival.
    let (mut scene, first) = Scene::with_package();
    let second = scene.put(&key(1), "kennel", "1.0.0").unwrap();
    let mut ids = Vec::new();
    for (package, base) in [(first, 100), (second, 0)] {
        for id in base..base + 100 {
            scene.grant(&key(1), grant(id, package)).unwrap();
            ids.push(GrantId([id; 16]));
        }
    }
    let mut twins = Twins::new(&scene);
    twins.order(1, Order::Revoke(ids), NOON);
    let late = NOON.plus(HOUR);
    let rotate = |package: Digest| Order::RotateAudience {
        package,
        at_once: true,
    };
    twins.order(1, rotate(second), late);
    assert_eq!(twins.live.counts().grants, 136);
    twins.restart();
    twins.order(1, Order::DeletePackage(first), late);
    twins.order(1, rotate(second), late);
    assert_eq!(twins.live.counts().grants, 8);
}
