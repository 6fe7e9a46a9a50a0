//! Random orders of a few principals against a model in plain maps: who may open what is always the model's.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bield_envelope::{Digest, Time};
use bield_grant::{CodeSelector, Grant, UserSelector};
use bield_protocol::service::{GrantId, LeasedKeys, Operation};
use proptest::prelude::*;

use crate::service::cast::{
    MINUTE, NOON, Scene, code, grant, group, key, principal, signed_code, succession,
};

#[derive(Debug, Clone)]
enum Step {
    Register(u8),
    Put(u8, u8),
    Delete(u8, u8, u8),
    Grant {
        by: u8,
        owner: u8,
        name: u8,
        id: u8,
        code: u8,
        signed: bool,
        minutes: u64,
        quota: Option<u64>,
    },
    Revoke(u8, u8),
    Group(u8, u64),
    Succeed(u8),
    Wait(u64),
    Lease {
        owner: u8,
        name: u8,
        code: u8,
        returns: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 1..4u8;
    prop_oneof![
        1 => who.clone().prop_map(Step::Register),
        1 => (who.clone(), 0..2u8).prop_map(|(by, name)| Step::Put(by, name)),
        1 => (who.clone(), 1..4u8, 0..2u8).prop_map(|(by, of, name)| Step::Delete(by, of, name)),
        8 => (
            who.clone(),
            1..4u8,
            0..2u8,
            0..4u8,
            5..8u8,
            any::<bool>(),
            1..40u64,
            prop::option::of(1..5u64)
        )
            .prop_map(
                |(by, owner, name, id, code, signed, minutes, quota)| Step::Grant {
                    by,
                    owner,
                    name,
                    id,
                    code,
                    signed,
                    minutes,
                    quota
                }
            ),
        2 => (who.clone(), 0..4u8).prop_map(|(by, id)| Step::Revoke(by, id)),
        1 => (who.clone(), 0..4u64).prop_map(|(by, revision)| Step::Group(by, revision)),
        1 => who.clone().prop_map(Step::Succeed),
        2 => (1..15u64).prop_map(Step::Wait),
        10 => (who, 0..2u8, 5..8u8, any::<bool>()).prop_map(|(owner, name, code, returns)| Step::Lease {
            owner,
            name,
            code,
            returns
        }),
    ]
}

/// What an owner granted, as a person would write it down.
#[derive(Clone)]
struct Word {
    owner: u8,
    package: Digest,
    id: u8,
    code: u8,
    signed: bool,
    until: Time,
    left: Option<u64>,
    digest: Digest,
}

#[derive(Default)]
struct Model {
    registered: BTreeSet<u8>,
    /// The key a person uses now.
    keys: BTreeMap<u8, u8>,
    packages: BTreeMap<(u8, u8), Digest>,
    words: Vec<Word>,
    /// Until when an id is spent, and for which package.
    revoked: BTreeMap<(u8, u8), (Time, Digest)>,
    held: Vec<LeasedKeys>,
}

impl Model {
    fn key(&self, person: u8) -> bield_envelope::SigningKey {
        key(self.keys.get(&person).copied().unwrap_or(person))
    }

    fn may_open(&self, package: Digest, code: u8, now: Time) -> bool {
        self.words.iter().any(|word| {
            let fits = match word.signed {
                true => code >= word.code,
                false => code == word.code,
            };
            word.package == package && fits && now < word.until
        })
    }

    fn step(&mut self, scene: &mut Scene, step: &Step) {
        let now = scene.now;
        match *step {
            Step::Register(by) => {
                scene.order(&self.key(by), Operation::Register).unwrap();
                self.registered.insert(by);
            }
            Step::Put(by, name) => {
                // A package is found by the key that packed it, whoever uses it now.
                let put = scene.put(&self.key(by), ["a", "b"][name as usize], "1.0.0");
                assert_eq!(put.is_ok(), self.registered.contains(&by));
                if let Ok(package) = put {
                    self.packages.entry((by, name)).or_insert(package);
                    if self.packages[&(by, name)] != package {
                        // Packed again by a successor: another package. Forget it again, to keep to two names.
                        scene
                            .order(&self.key(by), Operation::DeletePackage(package))
                            .unwrap();
                    }
                }
            }
            Step::Delete(by, of, name) => {
                let Some(package) = self.packages.get(&(of, name)).copied() else {
                    return;
                };
                let deleted = scene.order(&self.key(by), Operation::DeletePackage(package));
                assert_eq!(deleted.is_ok(), by == of && self.registered.contains(&by));
                if deleted.is_ok() {
                    self.packages.remove(&(of, name));
                    // Its ids stay spent until the grants under them would have ended.
                    for word in self.words.iter().filter(|word| word.package == package) {
                        let spent = self.revoked.entry((word.owner, word.id));
                        let spent = spent.or_insert((word.until, package));
                        spent.0 = spent.0.max(word.until);
                    }
                    self.words.retain(|word| word.package != package);
                    self.held.retain(|held| held.lease.package != package);
                }
            }
            Step::Grant {
                by,
                owner,
                name,
                id,
                code: number,
                signed,
                minutes,
                quota,
            } => {
                let Some(package) = self.packages.get(&(owner, name)).copied() else {
                    return;
                };
                let spent = self.revoked.get(&(by, id)).map(|(until, _)| *until);
                if spent.is_some_and(|until| until <= now) {
                    return; // the service may have forgotten it, and need not have
                }
                let until = now.plus(MINUTE * u32::try_from(minutes).unwrap());
                let says = Grant {
                    code: match signed {
                        true => signed_code(u32::from(number)),
                        false => CodeSelector::Measurement(code(number)),
                    },
                    user: UserSelector::Principal(principal(2)),
                    not_before: NOON.minus(MINUTE),
                    not_after: until,
                    requests: quota,
                    ..grant(id, package)
                };
                let granted = scene.grant(&self.key(by), says);
                let taken = self
                    .words
                    .iter()
                    .any(|word| word.owner == by && word.id == id && word.package != package);
                let gone = spent.is_some();
                let allowed = self.registered.contains(&by) && by == owner && !taken && !gone;
                assert_eq!(granted.is_ok(), allowed, "{step:?}: {:?}", granted.err());
                if let Ok(granted) = granted
                    && !self
                        .words
                        .iter()
                        .any(|word| word.digest == granted.digest())
                {
                    self.words.push(Word {
                        owner: by,
                        package,
                        id,
                        code: number,
                        signed,
                        until,
                        left: quota,
                        digest: granted.digest(),
                    });
                }
            }
            Step::Revoke(by, id) => {
                if self
                    .revoked
                    .get(&(by, id))
                    .is_some_and(|(until, _)| *until <= now)
                {
                    return;
                }
                let ids = vec![GrantId([id; 16])];
                let revoked = scene.order(&self.key(by), Operation::Revoke(ids));
                let mine = |word: &Word| word.owner == by && word.id == id;
                let known = self.words.iter().any(mine) || self.revoked.contains_key(&(by, id));
                assert_eq!(
                    revoked.is_ok(),
                    known && self.registered.contains(&by),
                    "{step:?}"
                );
                let ended = self.words.iter().filter(|word| mine(word));
                if let Some(last) = ended.map(|word| (word.until, word.package)).max() {
                    self.revoked.insert((by, id), last);
                    self.words.retain(|word| !mine(word));
                }
            }
            Step::Group(by, revision) => {
                let signed = group(&self.key(by), "readers", revision, &[2]);
                drop(scene.order(&self.key(by), Operation::PutGroup(signed)));
            }
            Step::Succeed(by) => {
                let from = self.keys.get(&by).copied().unwrap_or(by);
                let to = if from < 10 { from * 10 } else { from + 1 };
                let order = Operation::Succeed(succession(&key(from), &key(to), now));
                let done = scene.order(&key(from), order);
                if done.is_ok() {
                    assert!(self.registered.contains(&by));
                    self.keys.insert(by, to);
                    let old = scene.order(&key(from), Operation::Register).map(drop);
                    assert_eq!(old, Err("succeeded".into()));
                }
            }
            Step::Wait(minutes) => scene.now = now.plus(Duration::from_secs(60 * minutes)),
            Step::Lease {
                owner,
                name,
                code,
                returns,
            } => {
                let Some(package) = self.packages.get(&(owner, name)).copied() else {
                    return;
                };
                self.lease(scene, package, code, returns);
            }
        }
    }

    fn lease(&mut self, scene: &mut Scene, package: Digest, code: u8, returns: bool) {
        let now = scene.now;
        let of_same = |held: &LeasedKeys| {
            held.lease.package == package
                && held.lease.code.measurement == self::code(code)
                && now < held.lease.not_after
        };
        let held = self.held.iter().position(of_same).filter(|_| returns);
        let returned = held.map(|at| self.held.remove(at));
        let returned = returned.map(|held| bield_protocol::service::Returned {
            lease: held.lease.id,
            unused: held.allotments,
        });
        for unused in returned.iter().flat_map(|returned| &returned.unused) {
            for word in self
                .words
                .iter_mut()
                .filter(|word| word.digest == unused.grant)
            {
                word.left = word.left.map(|left| left + unused.requests);
            }
        }
        let leased = scene.lease_returning(code, package, returned);
        assert_eq!(
            leased.is_ok(),
            self.may_open(package, code, now),
            "{:?}",
            leased.err()
        );
        let Ok(leased) = leased else { return };
        for allotment in &leased.allotments {
            let word = self
                .words
                .iter_mut()
                .find(|word| word.digest == allotment.grant)
                .unwrap();
            word.left = word
                .left
                .map(|left| left.checked_sub(allotment.requests).unwrap());
        }
        self.held.push(leased);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn who_may_open_what_is_always_the_models(steps in prop::collection::vec(step(), 1..100)) {
        let mut scene = Scene::new();
        let mut model = Model::default();
        let settled = [Step::Register(1), Step::Register(2), Step::Put(1, 0), Step::Put(2, 1)];
        for step in settled.iter().chain(&steps) {
            model.step(&mut scene, step);
        }
        scene.is_repeated();
    }
}
