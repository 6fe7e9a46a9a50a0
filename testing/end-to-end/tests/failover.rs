//! Three members on three machines: one is killed, cut off, set back, or replaced, under a load of orders.
//!
//! Who orders notes what was acknowledged. At the end everything noted must be listed; an order that was answered by an
//! error may have counted or not. Every session on the way is one of the SDK, which refuses a service that shows less
//! than it acknowledged before.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bield_end_to_end::{Instance, Package, Person, Plan, Site, tiny_model, wait_until};
use bield_envelope::Signed;
use bield_protocol::service::GrantId;
use bield_sdk::ServiceError;

const MEMBERS: usize = 3;
/// A start, an election, or a transfer on a machine that also compiles.
const SOON: Duration = Duration::from_secs(60);

/// A group that serves, and somebody with a package.
struct Group {
    site: Site,
    members: Vec<Option<Instance>>,
    owner: Person,
    package: Package,
    /// Grants that were acknowledged, by anybody at any time.
    noted: BTreeSet<GrantId>,
}

impl Group {
    fn new() -> Self {
        let plan = Plan {
            machines: MEMBERS,
            members: 3,
            ..Plan::default()
        };
        let site = Site::new(plan, |config| config.orders_per_minute = 100_000).unwrap();
        let start = |slot| Some(site.start_member(slot, &storage(slot)).unwrap());
        let members: Vec<_> = (0..MEMBERS).map(start).collect();
        wait_for_leader(&members, None);
        let owner = site.person("owner").unwrap();
        let model = tiny_model("group");
        let package = owner.pack("group", &model).unwrap();
        owner.offer(&package, &model).unwrap();
        let mut group = Self {
            site,
            members,
            owner,
            package,
            noted: BTreeSet::new(),
        };
        group.all_follow();
        group.orders(3);
        group
    }

    fn leader(&self) -> usize {
        wait_for_leader(&self.members, None)
    }

    fn member(&self, slot: usize) -> &Instance {
        self.members[slot].as_ref().unwrap()
    }

    fn start(&mut self, slot: usize) {
        let started = self.site.start_member(slot, &storage(slot)).unwrap();
        self.members[slot] = Some(started);
    }

    fn power_off(&mut self, slot: usize) {
        self.members[slot].take().unwrap().power_off().unwrap();
    }

    /// Every member that runs leads or follows.
    fn all_follow(&self) {
        for member in self.members.iter().flatten() {
            let takes_part = || ["serving", "following"].contains(&member.state().as_str());
            assert!(wait_until(SOON, takes_part), "{}", member.process.said());
        }
    }

    /// Has the owner order until so many grants were acknowledged.
    fn orders(&mut self, grants: usize) {
        let noted = order(
            &self.owner,
            &self.package,
            &AtomicBool::new(false),
            |noted| noted == grants,
        );
        self.noted.extend(noted);
    }

    /// All that was ever acknowledged is there.
    fn nothing_is_lost(&self) {
        let mut listed = Err(None);
        wait_until(SOON, || {
            let service = self.owner.service();
            listed = service
                .and_then(|mut service| service.grants(&self.owner.key, None, None))
                .map_err(|error| Some(lasting(error)));
            listed.is_ok()
        });
        let listed: BTreeSet<_> = listed.unwrap().iter().map(|listed| listed.id()).collect();
        let lost: Vec<_> = self.noted.difference(&listed).collect();
        assert!(
            lost.is_empty(),
            "{} of {} are lost",
            lost.len(),
            self.noted.len()
        );
    }
}

/// A test that fails tells what the members said.
impl Drop for Group {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in self.members.iter().flatten() {
                eprintln!(
                    "--- {}: {}",
                    member.storage.display(),
                    member.process.said()
                );
            }
        }
    }
}

fn storage(slot: usize) -> String {
    format!("member-{slot}")
}

/// Waits until one of the members, other than `but`, serves.
fn wait_for_leader(members: &[Option<Instance>], but: Option<usize>) -> usize {
    let mut leader = None;
    let found = wait_until(SOON, || {
        leader = (0..members.len()).find(|slot| {
            let member = members[*slot].as_ref();
            Some(*slot) != but && member.is_some_and(|member| member.state() == "serving")
        });
        leader.is_some()
    });
    let said = || {
        let members = members.iter().flatten();
        members
            .map(|member| member.process.said())
            .collect::<Vec<_>>()
            .join("\n---\n")
    };
    assert!(found, "{}", said());
    leader.unwrap()
}

/// An error that a client may meet while members change; one that says that something was lost fails the test.
fn lasting(error: ServiceError) -> ServiceError {
    assert!(!matches!(error, ServiceError::NotFresh { .. }), "{error}");
    let code = error.code().unwrap_or_default();
    assert!(!["rolled-back", "forked"].contains(&code), "{error}");
    error
}

/// Orders grants, each in a session that goes on as long as it holds, until told to stop or `enough` were acknowledged.
/// Returns those.
fn order(
    owner: &Person,
    package: &Package,
    stop: &AtomicBool,
    mut enough: impl FnMut(usize) -> bool,
) -> BTreeSet<GrantId> {
    let mut noted = BTreeSet::new();
    let mut deadline = Instant::now() + SOON;
    while !stop.load(Ordering::SeqCst) && !enough(noted.len()) {
        let session = owner.service().and_then(|mut service| {
            while !stop.load(Ordering::SeqCst) && !enough(noted.len()) {
                let grant = Signed::sign(&owner.key, owner.draft(package, owner));
                service.grant(&owner.key, &grant)?;
                noted.insert(GrantId(grant.id));
                deadline = Instant::now() + SOON;
            }
            service.close()
        });
        if let Err(error) = session {
            let error = lasting(error);
            assert!(Instant::now() < deadline, "no order counts: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    noted
}

#[test]
fn the_leader_is_killed_under_load_and_nothing_acknowledged_is_lost() {
    let mut group = Group::new();
    let leader = group.leader();
    let owners: Vec<_> = (0..3)
        .map(|number| {
            let owner = group.site.person(&format!("loader-{number}")).unwrap();
            let name = format!("load-{number}");
            let model = tiny_model(&name);
            let package = owner.pack(&name, &model).unwrap();
            owner.offer(&package, &model).unwrap();
            (owner, package)
        })
        .collect();
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let killed = group.members[leader].take().unwrap();
    let noted: Vec<_> = std::thread::scope(|scope| {
        let load = |(owner, package)| {
            let (stop, count) = (&stop, &count);
            scope.spawn(move || {
                let mut before = 0;
                order(owner, package, stop, |noted| {
                    count.fetch_add(noted - before, Ordering::SeqCst);
                    before = noted;
                    false
                })
            })
        };
        let owners = owners.iter().map(|(owner, package)| (owner, package));
        let threads: Vec<_> = owners.map(load).collect();
        let grows_by = |grants: usize| {
            let from = count.load(Ordering::SeqCst);
            wait_until(SOON, || count.load(Ordering::SeqCst) >= from + grants)
        };
        let before = grows_by(30);
        let powered_off = killed.power_off();
        let after = grows_by(30);
        stop.store(true, Ordering::SeqCst);
        let noted: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        powered_off.unwrap();
        assert!(before, "no load");
        assert!(
            after,
            "it does not go on: {}",
            group
                .members
                .iter()
                .flatten()
                .map(|member| member.process.said())
                .collect::<String>()
        );
        noted
    });
    for ((owner, _), noted) in owners.iter().zip(&noted) {
        let mut service = owner.service().unwrap();
        let listed = service.grants(&owner.key, None, None).unwrap();
        let listed: BTreeSet<_> = listed.iter().map(|listed| listed.id()).collect();
        let lost: Vec<_> = noted.difference(&listed).collect();
        assert!(
            lost.is_empty(),
            "{} of {} are lost",
            lost.len(),
            noted.len()
        );
    }
    assert_ne!(wait_for_leader(&group.members, Some(leader)), leader);

    // The killed one comes back over what its disk holds, and follows.
    group.start(leader);
    group.member(leader).becomes("following", SOON).unwrap();
    group.orders(5);
    // With it, the group stands the loss of another one.
    let next = wait_for_leader(&group.members, None);
    group.power_off(next);
    group.orders(5);
    group.nothing_is_lost();
}

#[test]
fn a_member_whose_disk_was_set_back_or_emptied_catches_up_and_loses_nothing_for_all() {
    let mut group = Group::new();
    let follower = (0..MEMBERS).find(|slot| *slot != group.leader()).unwrap();
    group.power_off(follower);
    group.site.copy(&storage(follower), "old").unwrap();
    group.start(follower);
    group.member(follower).becomes("following", SOON).unwrap();
    group.orders(10);

    for copy in [Some("old"), None] {
        group.power_off(follower);
        match copy {
            Some(copy) => group.site.copy(copy, &storage(follower)).unwrap(),
            None => std::fs::remove_dir_all(group.site.storage(&storage(follower))).unwrap(),
        }
        group.start(follower);
        group.member(follower).becomes("following", SOON).unwrap();
        // It counts: with the leader gone, the majority is it and the other one.
        let leader = wait_for_leader(&group.members, None);
        group.power_off(leader);
        group.orders(5);
        group.nothing_is_lost();
        group.start(leader);
        group.member(leader).becomes("following", SOON).unwrap();
    }
}

#[test]
fn a_leader_that_is_cut_off_acknowledges_nothing_and_the_others_go_on() {
    let mut group = Group::new();
    let leader = group.leader();
    let at_leader = group.site.person_at("at-leader", leader).unwrap();
    at_leader
        .service()
        .unwrap()
        .register(&at_leader.key)
        .unwrap();

    group.site.cut_off(leader, true);
    // People still reach it. It may not know yet that it leads nobody; it acknowledges nothing all the same.
    let order = at_leader.service().and_then(|mut service| {
        service.unregister(&at_leader.key)?;
        service.close()
    });
    assert!(
        order.is_err(),
        "a leader without followers acknowledged an order"
    );
    let next = wait_for_leader(&group.members, Some(leader));
    assert_ne!(next, leader);
    group.orders(5);

    group.site.cut_off(leader, false);
    group.member(leader).becomes("following", SOON).unwrap();
    group.orders(2);
    group.nothing_is_lost();
}

#[test]
fn all_members_are_killed_and_the_state_is_whole() {
    let mut group = Group::new();
    group.orders(10);
    let service = group.owner.service().unwrap().principal();
    for slot in 0..MEMBERS {
        group.power_off(slot);
    }
    for slot in 0..MEMBERS {
        group.start(slot);
    }
    group.leader();
    group.nothing_is_lost();
    assert_eq!(group.owner.service().unwrap().principal(), service);
    group.orders(3);

    // One with nothing on its disk is no member of a new service: it takes what the others have.
    for slot in 0..MEMBERS {
        group.power_off(slot);
    }
    std::fs::remove_dir_all(group.site.storage(&storage(0))).unwrap();
    for slot in 0..MEMBERS {
        group.start(slot);
    }
    group.leader();
    group.nothing_is_lost();
    assert_eq!(group.owner.service().unwrap().principal(), service);
}

#[test]
fn a_member_of_other_code_gets_no_state() {
    let mut group = Group::new();
    let slot = (0..MEMBERS).find(|slot| *slot != group.leader()).unwrap();
    group.power_off(slot);
    let other = group
        .site
        .configure_other(|config| config.lease_secs = 60)
        .unwrap();
    let foreign = group.site.start_member_of(&other, slot, "foreign").unwrap();
    group.orders(20);
    group.nothing_is_lost();
    assert!(!["following", "serving"].contains(&foreign.state().as_str()));
    let files = bield_end_to_end::files(&foreign.storage).unwrap_or_default();
    // The gateway's own.
    let given = files.iter().filter(|file| !file.ends_with(".lock"));
    assert_eq!(given.count(), 0, "it was given something: {files:?}");
    foreign.power_off().unwrap();

    group.start(slot);
    group.member(slot).becomes("following", SOON).unwrap();
    // Doctor tells a person with all addresses which member does what.
    let doctor = group.owner.bield(&["doctor"]).unwrap();
    assert_eq!(doctor.code, 0, "{doctor:?}");
    let follow = doctor
        .checks("member")
        .into_iter()
        .filter(|(_, have)| have.contains("follows another"));
    assert_eq!(follow.count(), MEMBERS - 1, "{doctor:?}");
}
