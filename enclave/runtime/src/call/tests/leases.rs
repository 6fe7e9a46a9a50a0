//! What a change at the key service does to requests, and when: at the next renewal, or at the end of the lease.

use std::time::Duration;

use bield_envelope::Principal;
use bield_grant::{Group, GroupName, Succeeded, Succession, UserSelector};

use super::*;
use crate::testing::AUDIENCE;

const LENGTH: Duration = Duration::from_secs(600);

/// One more than the user, with a request each and an id that counts.
struct Play {
    stage: Stage,
    runtime: Runtime,
    other: SigningKey,
    id: u8,
}

impl Play {
    fn new() -> Self {
        let (stage, runtime) = stage();
        stage.service.mind().lasts = LENGTH;
        Self {
            stage,
            runtime,
            other: SigningKey::generate(&mut Seeded::new(99)),
            id: 0,
        }
    }

    /// The code of the refusal under seal, or `served`.
    fn ask(&mut self, by_other: bool) -> String {
        let key = if by_other {
            &self.other
        } else {
            &self.stage.cast.user
        };
        self.id += 1;
        let call = self
            .stage
            .cast
            .seal(key, self.stage.package, self.id, &body());
        said(&self.runtime, call)
    }

    fn user(&mut self) -> String {
        self.ask(false)
    }

    fn other(&mut self) -> String {
        self.ask(true)
    }

    fn pass(&mut self, time: Duration) {
        self.stage.pass(time);
    }

    /// Lets time pass to where a used lease was renewed for sure.
    fn renew(&mut self) {
        let before = self.stage.service.mind().fetches;
        self.pass(LENGTH * 8 / 10);
        self.runtime.tend();
        assert_eq!(self.stage.service.mind().fetches, before + 1);
    }

    fn grant_to(&self, users: &[UserSelector]) {
        let numbers = 1_u8..;
        let granted = |(number, user): (u8, &UserSelector)| {
            self.stage.cast.granted(self.stage.package, |grant| {
                grant.id = [number; 16];
                grant.user = user.clone();
            })
        };
        let grants = numbers.zip(users).map(granted).collect();
        self.stage.service.mind().grants = Some(grants);
    }

    fn principals(&self) -> [Principal; 2] {
        [self.stage.cast.user.principal(), self.other.principal()]
    }
}

fn body() -> bield_envelope::Wiped {
    inference::Request {
        inputs: crate::testing::inputs(),
        outputs: Vec::new(),
    }
    .encode()
}

fn said(runtime: &Runtime, call: (Vec<u8>, ResponseOpener)) -> String {
    match answered(runtime, call).0 {
        inference::Reply::Answered(_) => "served".to_owned(),
        inference::Reply::Refused(refusal) => refusal.code,
        other => panic!("neither: {other:?}"),
    }
}

#[test]
fn one_users_grant_is_revoked_and_counts_at_renewal_while_the_others_stay() {
    let mut play = Play::new();
    let [user, other] = play.principals().map(UserSelector::Principal);
    play.grant_to(&[user.clone(), other]);
    assert_eq!([play.user(), play.other()], ["served"; 2]);
    play.grant_to(&[user]);
    assert_eq!(play.other(), "served", "within the lease");
    play.renew();
    assert_eq!(play.other(), "user-not-granted");
    assert_eq!(play.user(), "served");
}

#[test]
fn a_revocation_that_the_host_holds_up_counts_when_the_lease_ends() {
    let mut play = Play::new();
    assert_eq!(play.user(), "served");
    play.stage.service.mind().fails = Some(unreachable());
    for _ in 1..LENGTH.as_secs() {
        play.pass(Duration::from_secs(1));
        play.runtime.tend();
    }
    assert_eq!(play.user(), "served");
    play.pass(Duration::from_secs(1));
    let (sealed, _) = play.stage.cast.request(play.stage.package, 200);
    let refusal = turned_down(&play.runtime, &sealed);
    assert_eq!(refusal.code, "no-lease");
    assert!(refusal.retry_after_ms.is_some());
}

#[test]
fn a_refused_renewal_ends_keys_and_model_at_once() {
    let mut play = Play::new();
    assert_eq!(play.user(), "served");
    assert_eq!(play.runtime.models.counts().resident, 1);
    play.stage.service.mind().fails = Some(KeysError::NotGranted);
    play.renew();
    assert_eq!(play.runtime.models.counts().resident, 0);
    let (sealed, _) = play.stage.cast.request(play.stage.package, 200);
    assert_eq!(turned_down(&play.runtime, &sealed).code, "no-lease");
}

#[test]
fn a_quota_is_served_to_its_end_and_not_beyond_whoever_asks_again() {
    let mut play = Play::new();
    let grant = play
        .stage
        .cast
        .granted(play.stage.package, |grant| grant.requests = Some(5));
    {
        let mut mind = play.stage.service.mind();
        mind.quotas.insert(grant.digest(), 5);
        mind.grants = Some(vec![grant.clone()]);
    }
    // Allotted 3, then half of the 2 that are left, then the last one: renewed when one is used up.
    for served in 1..=5 {
        assert_eq!(play.user(), "served", "{served}");
    }
    for _ in 0..5 {
        assert_eq!(play.user(), "quota-used");
    }
    play.pass(LENGTH);
    assert_eq!(play.user(), "quota-used");
    assert_eq!(play.stage.service.mind().quotas[&grant.digest()], 0);
}

#[test]
fn what_the_quota_has_left_outlives_a_renewal() {
    let mut play = Play::new();
    let grant = play
        .stage
        .cast
        .granted(play.stage.package, |grant| grant.requests = Some(5));
    {
        let mut mind = play.stage.service.mind();
        mind.quotas.insert(grant.digest(), 5);
        mind.grants = Some(vec![grant]);
    }
    assert_eq!(play.user(), "served");
    play.renew();
    for served in 2..=5 {
        assert_eq!(play.user(), "served", "{served}");
    }
    assert_eq!(play.user(), "quota-used");
}

#[test]
fn a_group_admits_its_members_of_the_newest_revision_that_came_with_the_lease() {
    let mut play = Play::new();
    let name: GroupName = "team".parse().unwrap();
    play.grant_to(&[UserSelector::Group(name.clone())]);
    let group = |revision, members: &[Principal]| {
        let group = Group::new(name.clone(), revision, members.to_vec()).unwrap();
        Signed::sign(&play.stage.cast.owner, group)
    };
    let [user, other] = play.principals();
    let (both, one) = (group(1, &[user, other]), group(2, &[user]));
    play.stage.service.mind().groups = vec![both.clone()];
    assert_eq!([play.user(), play.other()], ["served"; 2]);
    play.stage.service.mind().groups = vec![one, both];
    play.renew();
    assert_eq!(play.other(), "user-not-granted");
    assert_eq!(play.user(), "served");
    play.stage.service.mind().groups = Vec::new();
    play.renew();
    assert_eq!(play.user(), "user-not-granted", "a group that is gone");
}

#[test]
fn a_successor_is_served_and_the_one_before_it_is_not_any_more() {
    let mut play = Play::new();
    assert_eq!([play.user(), play.other()], ["served", "user-not-granted"]);
    let [from, to] = play.principals();
    let at = play.stage.sealed_at();
    let sign = |key| Signed::sign(key, Succession { from, to, at }).into_signed();
    play.stage.service.mind().successions = vec![Succeeded {
        by_old: sign(&play.stage.cast.user),
        by_new: sign(&play.other),
    }];
    // Not heard of yet; the successor's request has it heard, the ration allowing.
    assert_eq!(play.other(), "served");
    assert_eq!(play.user(), "sender-succeeded");
}

#[test]
fn a_rotated_key_opens_until_its_end_and_not_at_all_when_rotated_at_once() {
    let mut play = Play::new();
    let new = AUDIENCE + 1;
    assert_eq!(play.user(), "served");
    let seal = |play: &mut Play, key| {
        play.id += 1;
        let stage = &play.stage;
        let (package, user) = (stage.package, &stage.cast.user);
        stage.cast.seal_to(key, user, package, play.id, &body())
    };

    let end = play.stage.sealed_at().plus(Duration::from_secs(3600));
    play.stage.service.mind().audience = vec![(new, None), (AUDIENCE, Some(end))];
    // A request to a key that the lease does not know has it renewed.
    let call = seal(&mut play, new);
    assert_eq!(said(&play.runtime, call), "served");
    let call = seal(&mut play, AUDIENCE);
    assert_eq!(said(&play.runtime, call), "served");
    play.pass(Duration::from_secs(3600));
    let (sealed, _) = seal(&mut play, AUDIENCE);
    let refusal = turned_down(&play.runtime, &sealed);
    assert_eq!(refusal.code, "not-opened");
    let call = seal(&mut play, new);
    assert_eq!(said(&play.runtime, call), "served");

    let newest = new + 1;
    play.stage.service.mind().audience = vec![(newest, None)];
    play.renew();
    let (sealed, _) = seal(&mut play, new);
    assert_eq!(turned_down(&play.runtime, &sealed).code, "not-opened");
    let call = seal(&mut play, newest);
    assert_eq!(said(&play.runtime, call), "served");
}
