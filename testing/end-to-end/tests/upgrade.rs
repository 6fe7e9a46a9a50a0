//! From one code of the key service to the next: a group one member at a time under a load of orders, a single instance
//! by recovery shares.
//!
//! The new code is the same program with another configuration, which is measured: it names the old code. What was
//! acknowledged is noted, and must be listed at the end.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bield_end_to_end::{Instance, Package, Person, Plan, Site, files, tiny_model, wait_until};
use bield_envelope::Signed;
use bield_evidence::Measurement;
use bield_protocol::configuration::KeyServiceConfiguration;
use bield_protocol::service::GrantId;

const MEMBERS: usize = 3;
/// A start, an election, or a transfer on a machine that also compiles.
const SOON: Duration = Duration::from_secs(60);
/// Several looks of a member that is let in nowhere; one that is follows within two.
const PATIENCE: Duration = Duration::from_secs(5);

/// A configuration and what it measures to.
struct Code {
    config: PathBuf,
    measurement: Measurement,
}

/// Three members of the old code that serve.
struct Group {
    site: Site,
    members: Vec<Option<Instance>>,
    old: Code,
    administrator: Person,
    owner: Person,
    package: Package,
}

impl Group {
    fn new() -> Self {
        let plan = Plan {
            machines: MEMBERS,
            members: 3,
            ..Plan::default()
        };
        let site = Site::new(plan, |config| {
            config.orders_per_minute = 100_000;
            config.admits_code = true;
        });
        let site = site.unwrap();
        let old = Code {
            config: site.host().join("keys.toml"),
            measurement: site.keys_code.clone(),
        };
        let start = |slot| Some(site.start_member(slot, &format!("old-{slot}")).unwrap());
        let members: Vec<_> = (0..MEMBERS).map(start).collect();
        for member in members.iter().flatten() {
            takes_part(member);
        }
        let person = |name| site.person(name).unwrap();
        let (administrator, owner) = (person("administrator"), person("owner"));
        let package = offer(&owner, "upgraded");
        let mut service = administrator.service().unwrap();
        service.register(&administrator.key).unwrap();
        service.close().unwrap();
        Self {
            site,
            members,
            old,
            administrator,
            owner,
            package,
        }
    }

    /// Other code, which accepts these beside itself.
    fn code(&self, configure: impl FnOnce(&mut KeyServiceConfiguration), beside: &[&Code]) -> Code {
        let config = self.site.configure_other(|config| {
            configure(config);
            let peers = config.peers.as_mut().unwrap();
            peers.measurements = beside.iter().map(|c| c.measurement.to_string()).collect();
        });
        let config = config.unwrap();
        let measurement = self.site.code_of(&config).unwrap();
        Code {
            config,
            measurement,
        }
    }

    fn administrate(&self, order: &str, code: &Code) {
        let code = code.measurement.to_string();
        self.administrator.does(&[order, &code]).unwrap();
    }

    fn power_off(&mut self, slot: usize) {
        self.members[slot].take().unwrap().power_off().unwrap();
    }

    fn start(&mut self, slot: usize, code: &Code, storage: &str) {
        let started = self.site.start_member_of(&code.config, slot, storage);
        self.members[slot] = Some(started.unwrap());
    }

    fn follows(&self, slot: usize) {
        takes_part(self.members[slot].as_ref().unwrap());
    }

    /// The others go on, and leave this one where it is.
    fn is_left(&self, slot: usize) {
        let member = self.members[slot].as_ref().unwrap();
        member.becomes("forming", SOON).unwrap();
        order(&self.owner, &self.package, |noted| noted == 5);
        assert!(
            !wait_until(PATIENCE, || part(member)),
            "it was let in: {}",
            member.process.said()
        );
    }
}

/// A test that fails tells what the members said.
impl Drop for Group {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for member in self.members.iter().flatten() {
                let storage = member.storage.display();
                eprintln!("--- {storage}: {}", member.process.said());
            }
        }
    }
}

fn part(member: &Instance) -> bool {
    ["serving", "following"].contains(&member.state().as_str())
}

fn takes_part(member: &Instance) {
    let part = wait_until(SOON, || part(member));
    assert!(part, "{}", member.process.said());
}

fn offer(owner: &Person, name: &str) -> Package {
    let model = tiny_model(name);
    let package = owner.pack(name, &model).unwrap();
    let mut offered = Ok(());
    wait_until(SOON, || {
        offered = owner.offer(&package, &model);
        offered.is_ok()
    });
    offered.unwrap();
    package
}

/// Orders grants until `enough` were acknowledged, and returns those. A session may end while members change; none may
/// show less than an earlier one.
fn order(
    owner: &Person,
    package: &Package,
    mut enough: impl FnMut(usize) -> bool,
) -> BTreeSet<GrantId> {
    let mut noted = BTreeSet::new();
    let mut deadline = Instant::now() + SOON;
    while !enough(noted.len()) {
        let session = owner.service().and_then(|mut service| {
            while !enough(noted.len()) {
                let grant = Signed::sign(&owner.key, owner.draft(package, owner));
                service.grant(&owner.key, &grant)?;
                noted.insert(GrantId(grant.id));
                deadline = Instant::now() + SOON;
            }
            service.close()
        });
        if let Err(error) = session {
            let code = error.code().unwrap_or_default();
            assert!(!["rolled-back", "forked"].contains(&code), "{error}");
            assert!(Instant::now() < deadline, "no order counts: {error}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    noted
}

fn grants(owner: &Person) -> BTreeSet<GrantId> {
    let mut listed = Vec::new();
    let answered = wait_until(SOON, || {
        let service = owner.service();
        let grants = service.and_then(|mut service| service.grants(&owner.key, None, None));
        grants.map(|grants| listed = grants).is_ok()
    });
    assert!(answered, "nobody lists grants");
    listed.iter().map(|listed| listed.id()).collect()
}

#[test]
fn a_group_moves_to_new_code_member_by_member_and_the_old_code_is_withdrawn() {
    let mut group = Group::new();
    let new = group.code(|config| config.lease_secs = 300, &[&group.old]);
    let (old_code, new_code) = (group.old.measurement.clone(), new.measurement.clone());
    let mut loader = group.site.person("loader").unwrap();
    let retrust = |group: &mut Group, loader: &mut Person, codes: &[&Measurement]| {
        for person in [loader, &mut group.owner, &mut group.administrator] {
            Site::retrust(person, codes).unwrap();
        }
    };
    retrust(&mut group, &mut loader, &[&old_code, &new_code]);
    let package = offer(&loader, "load");
    let service = loader.service().unwrap().principal();
    group.administrate("admit-code", &new);

    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let noted = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            order(&loader, &package, |noted| {
                count.store(noted, Ordering::SeqCst);
                stop.load(Ordering::SeqCst)
            })
        });
        let grows = || {
            let from = count.load(Ordering::SeqCst);
            wait_until(SOON, || count.load(Ordering::SeqCst) >= from + 10)
        };
        let mut grew = vec![grows()];
        // On new disks, and once over what the old code left there and only it can open.
        for (slot, storage) in [(2, "new-2"), (1, "old-1"), (0, "new-0")] {
            group.power_off(slot);
            group.start(slot, &new, storage);
            let follows = wait_until(SOON, || part(group.members[slot].as_ref().unwrap()));
            grew.push(follows && grows());
        }
        stop.store(true, Ordering::SeqCst);
        let noted = load.join().unwrap();
        assert!(grew.iter().all(|grew| *grew), "{grew:?}");
        noted
    });
    assert!(noted.is_subset(&grants(&loader)), "grants are lost");

    // Nobody needs to trust the old code any more, and it is the same service.
    retrust(&mut group, &mut loader, &[&new_code]);
    assert!(noted.is_subset(&grants(&loader)));
    assert_eq!(loader.service().unwrap().principal(), service);
    let doctor = group.owner.does(&["doctor"]).unwrap();
    assert!(doctor.to_string().contains("300 s"), "{doctor:#}");

    // Until it is withdrawn the old code may come back over its old disk.
    group.power_off(0);
    let old = Code {
        config: group.old.config.clone(),
        measurement: old_code,
    };
    group.start(0, &old, "old-0");
    group.follows(0);
    order(&group.owner, &group.package, |noted| noted == 3);
    group.administrate("withdraw-code", &old);
    group.power_off(0);
    group.start(0, &old, "old-0");
    group.is_left(0);
    group.power_off(0);
    group.start(0, &new, "new-0");
    group.follows(0);
    assert!(noted.is_subset(&grants(&loader)));
}

#[test]
fn new_code_gets_nothing_before_it_is_admitted_and_takes_nothing_from_code_that_it_does_not_name() {
    let mut group = Group::new();
    let names = group.code(|config| config.lease_secs = 300, &[&group.old]);
    let does_not = group.code(|config| config.lease_secs = 60, &[]);
    group.power_off(2);
    for (code, storage) in [(&names, "not-admitted"), (&does_not, "names-nobody")] {
        if storage == "names-nobody" {
            group.administrate("admit-code", code);
        }
        group.start(2, code, storage);
        group.is_left(2);
        let held = files(&group.site.storage(storage)).unwrap_or_default();
        // The gateway's own.
        let given = held.iter().filter(|file| !file.ends_with(".lock"));
        assert_eq!(given.count(), 0, "it was given something: {held:?}");
        // Its operator is told which side has to do something.
        let why = match storage {
            "not-admitted" => "when an administrator has admitted it",
            _ => "nor named by its configuration",
        };
        let said = group.members[2].as_ref().unwrap().process.said();
        assert!(said.contains(why), "{said}");
        group.power_off(2);
    }
    // It was for nothing else: the first, once admitted, is let in.
    group.start(2, &names, "not-admitted");
    group.is_left(2);
    group.administrate("admit-code", &names);
    group.follows(2);
}

#[test]
fn a_single_instance_moves_to_new_code_by_shares_given_to_it() {
    let plan = Plan {
        holders: (3, 2),
        ..Plan::default()
    };
    let site = Site::new(plan, |_| ()).unwrap();
    let instance = site.start("state").unwrap();
    let mut owner = site.person("owner").unwrap();
    let package = offer(&owner, "alone");
    let noted = order(&owner, &package, |noted| noted == 5);
    let service = owner.service().unwrap().principal();
    let administrator = site.person("administrator").unwrap();
    let mut holders: Vec<_> = (0..3)
        .map(|holder| site.person(&format!("holder-{holder}")).unwrap())
        .collect();
    let mut make = vec!["recover".to_owned(), "make".into(), "--yes".into()];
    make.extend(["--threshold".into(), "2".into()]);
    for holder in &holders {
        make.extend(["--holder".into(), holder.principal().to_string()]);
    }
    administrator.does(&make).unwrap();
    for holder in &holders {
        holder.does(&["recover", "take"]).unwrap();
    }
    instance.stop().unwrap();

    let config = site.configure_other(|config| config.lease_secs = 300);
    let config = config.unwrap();
    let (old, new) = (site.keys_code.clone(), site.code_of(&config).unwrap());
    assert_ne!(old, new);
    let instance = site.start_of(&config, 0, "state").unwrap();
    site.lead_to(&instance).unwrap();
    assert_eq!(instance.state(), "recovering");
    // A share goes to no code that its holder does not trust.
    let give = ["recover", "give"];
    assert_ne!(holders[0].bield(&give).unwrap().code, 0);
    for (number, holder) in holders.iter_mut().take(2).enumerate() {
        Site::retrust(holder, &[&old, &new]).unwrap();
        let given = holder.does(&give).unwrap();
        assert_eq!(given["opened"], number == 1, "{given}");
    }
    instance.becomes("serving", SOON).unwrap();

    for codes in [vec![&old, &new], vec![&new]] {
        Site::retrust(&mut owner, &codes).unwrap();
        assert_eq!(grants(&owner), noted);
        assert_eq!(owner.service().unwrap().principal(), service);
    }
    order(&owner, &package, |noted| noted == 2);
    // It opens its own log from now on.
    instance.power_off().unwrap();
    let instance = site.start_of(&config, 0, "state").unwrap();
    site.lead_to(&instance).unwrap();
    assert_eq!(grants(&owner).len(), noted.len() + 2);
}
