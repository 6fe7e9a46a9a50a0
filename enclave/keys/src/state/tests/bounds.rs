//! What one principal can use up, and what a lease leaves out when not everything fits.

use core::time::Duration;

use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey};
use bield_grant::{Allotment, CodeIdentity, GROUP_MEMBERS_MAX, Grant, Group, UserSelector};
use bield_protocol::service::{
    GROUPS_PER_LEASE_MAX, GrantId, LeaseRequest, LeasedKeys, Listing, ListingPage, Operation, Reply,
};

use crate::service::cast::{
    HOUR, MINUTE, NOON, Scene, appraised, code, grant, group, key, limits, principal, root,
    succession,
};
use crate::state::leases::SUCCESSIONS_PER_LEASE_MAX;
use crate::state::{
    ALLOTMENTS_EACH_MAX, Answer, Ask, Entry, GRANTS_EACH_MAX, LEASES_EACH_MAX, MEMBERS_EACH_MAX,
    Order, State,
};

/// The state of a scene, to fill without signing each step.
fn alone(scene: &Scene) -> State {
    State::decode(&scene.desk.state().to_bytes(), root(), limits()).unwrap()
}

fn again(state: &State) -> State {
    State::decode(&state.to_bytes(), root(), limits()).unwrap()
}

fn lease(state: &State, package: Digest) -> Result<LeasedKeys, String> {
    let request = LeaseRequest {
        package,
        returned: None,
    };
    let appraised = appraised(5);
    let checked = state.check(&Ask::Lease { appraised, request }, NOON);
    match checked.map_err(|refusal| refusal.code)?.answer {
        Answer::Reply(reply) => match *reply {
            Reply::Lease(leased) => Ok(leased),
            _ => panic!("no lease"),
        },
        Answer::Done => panic!("no lease"),
    }
}

fn order(state: &State, by: u8, order: Order) -> Result<(), String> {
    let by = principal(by);
    let checked = state.check(&Ask::Order { by, order }, NOON);
    checked.map(drop).map_err(|refusal| refusal.code)
}

fn leased(package: Digest, lease: usize, allotments: &[Allotment]) -> Entry {
    Entry::Leased {
        package,
        code: CodeIdentity::measured(code(5)),
        simulated: true,
        until: NOON.plus(Duration::from_secs(600)),
        lease: lease as u64,
        allotments: allotments.to_vec(),
    }
}

/// Owner 1 and owner 3, each with a package that is granted to code 5.
fn two_owners() -> (Scene, Digest, Digest) {
    let (mut scene, package) = Scene::with_package();
    scene.order(&key(3), Operation::Register).unwrap();
    let other = scene.put(&key(3), "kennel", "1.0.0").unwrap();
    scene.grant(&key(1), grant(1, package)).unwrap();
    scene.grant(&key(3), grant(2, other)).unwrap();
    (scene, package, other)
}

#[test]
fn one_owners_leases_do_not_use_up_anothers() {
    let (scene, package, other) = two_owners();
    let mut state = alone(&scene);
    for number in 0..LEASES_EACH_MAX {
        let entry = leased(package, number, &[]);
        state.apply(&entry, 100 + number as u64, NOON).unwrap();
    }
    for state in [&again(&state), &state] {
        assert_eq!(lease(state, package).map(drop), Err("busy".into()));
        assert_eq!(lease(state, other).map(drop), Ok(()));
    }
    let rotate = Entry::AudienceRotated {
        by: principal(1),
        package,
        generation: 1,
        before_until: None,
    };
    let later = NOON.plus(Duration::from_secs(600));
    state.apply(&rotate, 100_000, later).unwrap();
    assert_eq!(lease(&state, package).map(drop), Ok(()), "as they end");
}

#[test]
fn one_owners_quotas_do_not_use_up_the_memory_of_all() {
    let (mut scene, package, other) = two_owners();
    let quotas = 50;
    let mut allotments = Vec::new();
    for id in 0..quotas {
        let metered = Grant {
            requests: Some(1_000_000),
            ..grant(100 + id, package)
        };
        let grant = scene.grant(&key(1), metered).unwrap().digest();
        allotments.push(Allotment { grant, requests: 1 });
    }
    allotments.sort_unstable_by_key(|allotment| allotment.grant);
    let mut state = alone(&scene);
    for number in 0..ALLOTMENTS_EACH_MAX / usize::from(quotas) {
        let entry = leased(package, number, &allotments);
        state.apply(&entry, 100 + number as u64, NOON).unwrap();
    }
    for state in [&again(&state), &state] {
        assert_eq!(lease(state, package).map(drop), Err("full".into()));
        assert_eq!(lease(state, other).map(drop), Ok(()));
    }
}

#[test]
fn members_of_one_owners_groups_are_bounded() {
    let (scene, ..) = two_owners();
    let mut state = alone(&scene);
    let members: Vec<Principal> = (0..GROUP_MEMBERS_MAX).map(user).collect();
    let of = |number: usize| {
        let name = format!("group-{number}").parse().unwrap();
        Group::new(name, 1, members.clone()).unwrap()
    };
    for number in 0..MEMBERS_EACH_MAX / GROUP_MEMBERS_MAX {
        let signed = Signed::sign(&key(1), of(number)).into_signed();
        let entry = Entry::GroupPut(signed);
        state.apply(&entry, 100 + number as u64, NOON).unwrap();
    }
    let put = |by: u8| Order::PutGroup(Signed::sign(&key(by), of(200)));
    assert_eq!(order(&state, 1, put(1)), Err("full".into()));
    assert_eq!(order(&state, 3, put(3)), Ok(()));
}

#[test]
fn grants_of_one_owner_are_bounded() {
    let (scene, package, other) = two_owners();
    let mut state = alone(&scene);
    let marker = [0xab; 16];
    let says = Grant {
        id: marker,
        ..grant(0, package)
    };
    let template = Signed::sign(&key(1), says).as_bytes().to_vec();
    let at = template.windows(16).position(|window| window == marker);
    let at = at.unwrap();
    for number in 1..GRANTS_EACH_MAX as u64 {
        let mut bytes = template.clone();
        bytes[at..at + 8].copy_from_slice(&number.to_be_bytes());
        let entry = Entry::Granted(Signed::decode(&bytes).unwrap());
        state.apply(&entry, 100 + number, NOON).unwrap();
    }
    let put = |by: u8, package| Order::Grant(Signed::sign(&key(by), grant(9, package)));
    assert_eq!(order(&state, 1, put(1, package)), Err("full".into()));
    assert_eq!(order(&state, 3, put(3, other)), Ok(()));
}

/// One of many keys.
fn many(number: usize) -> SigningKey {
    let mut seed = [0xee; 32];
    seed[..8].copy_from_slice(&number.to_be_bytes());
    SigningKey::from_seed(Secret::from_bytes(seed))
}

fn user(number: usize) -> Principal {
    many(number).principal()
}

#[test]
fn a_lease_leaves_out_whom_it_cannot_tell_the_successions_of() {
    const LINE: usize = 16;
    let users = SUCCESSIONS_PER_LEASE_MAX / LINE + 1;
    let (mut scene, package, _) = two_owners();
    for number in 0..users {
        let id = u8::try_from(100 + number).unwrap();
        let says = Grant {
            user: UserSelector::Principal(user(number * 100)),
            ..grant(id, package)
        };
        scene.grant(&key(1), says).unwrap();
    }
    let mut state = alone(&scene);
    let mut record = 1000;
    let mut apply = |state: &mut State, entry: Entry| {
        record += 1;
        state.apply(&entry, record, NOON).unwrap();
    };
    for number in 0..users {
        apply(&mut state, Entry::Registered(user(number * 100)));
        for step in 0..LINE {
            let (from, to) = (many(number * 100 + step), many(number * 100 + step + 1));
            let succeeded = succession(&from, &to, NOON);
            apply(&mut state, Entry::Succeeded(succeeded));
        }
    }
    let leased = lease(&state, package).unwrap();
    assert_eq!(leased.successions.len(), (users - 1) * LINE);
    // All but one of these, and the one for user 2, who succeeded nobody.
    assert_eq!(leased.grants.len(), users);
    let told = |user: &Principal| {
        let from = |succeeded: &bield_grant::Succeeded| {
            let succeeded = succeeded.clone().verify().unwrap();
            succeeded.from() == *user
        };
        leased.successions.iter().any(from)
    };
    for grant in &leased.grants {
        let grant = grant.clone().verify(&principal(1)).unwrap();
        let UserSelector::Principal(user) = &grant.user else {
            panic!("a group")
        };
        assert!(told(user) || *user == principal(2));
    }
}

#[test]
fn groups_of_grants_that_live_come_before_those_of_ended_ones() {
    let (mut scene, package, _) = two_owners();
    let owner = key(1);
    let to = |id: u8, name: &str| Grant {
        user: UserSelector::Group(name.parse().unwrap()),
        ..grant(id, package)
    };
    for id in 0..GROUPS_PER_LEASE_MAX as u8 {
        let name = format!("ended-{id}");
        let put = Operation::PutGroup(group(&owner, &name, 1, &[2]));
        scene.order(&owner, put).unwrap();
        let short = Grant {
            not_after: NOON.plus(MINUTE),
            ..to(100 + id, &name)
        };
        scene.grant(&owner, short).unwrap();
    }
    scene.now = NOON.plus(MINUTE);
    let put = Operation::PutGroup(group(&owner, "living", 1, &[4]));
    scene.order(&owner, put).unwrap();
    scene.grant(&owner, to(50, "living")).unwrap();
    let leased = scene.lease(5, package).unwrap();
    assert_eq!(leased.groups.len(), GROUPS_PER_LEASE_MAX);
    let first = leased.groups[0].clone().verify(&principal(1)).unwrap();
    assert_eq!(first.name().as_str(), "living");
}

#[test]
fn whom_a_group_names_is_found_after_a_restart_and_through_revisions() {
    let (mut scene, package, _) = two_owners();
    let owner = key(1);
    scene.order(&key(4), Operation::Register).unwrap();
    let says = Grant {
        user: UserSelector::Group("readers".parse().unwrap()),
        not_after: NOON.plus(HOUR),
        ..grant(7, package)
    };
    scene.grant(&owner, says).unwrap();
    let found = |state: &State| {
        let to_me = Listing::ToMe { after: None };
        match state.list(principal(4), &to_me, NOON) {
            Ok(ListingPage::Grants(rows, false)) => rows.len(),
            other => panic!("{other:?}"),
        }
    };
    for (revision, members) in [(1, &[4, 5][..]), (2, &[4]), (3, &[5]), (4, &[5, 4])] {
        let put = Operation::PutGroup(group(&owner, "readers", revision, members));
        scene.order(&owner, put).unwrap();
        let expected = usize::from(members.contains(&4));
        assert_eq!(found(scene.desk.state()), expected, "{revision}");
        assert_eq!(found(&alone(&scene)), expected, "{revision}");
    }
    let revoke = Operation::Revoke(vec![GrantId([7; 16])]);
    scene.order(&owner, revoke).unwrap();
    assert_eq!(found(scene.desk.state()), 0);
}

#[test]
fn two_holders_of_shares_never_become_one() {
    let mut scene = Scene::new();
    for number in [1, 2, 9] {
        scene.order(&key(number), Operation::Register).unwrap();
    }
    let mut succeed = |from: u8, to: u8| {
        let order = Operation::Succeed(succession(&key(from), &key(to), NOON));
        scene.changes(&key(from), order)
    };
    assert_eq!(succeed(1, 2), Err("successor-holds".into()));
    assert_eq!(succeed(1, 11), Ok(true));
    assert_eq!(succeed(2, 11), Err("succession-refused".into()));
    assert_eq!(succeed(9, 2), Ok(true), "who holds nothing");
}
