//! Members without a group: what one made is prepared and committed on all, by hand.

use std::sync::Mutex;

use bield_evidence::{Evidence, PolicyConfig, Profile, TeeKind, canonical_dcap};
use bield_ledger::MemoryFiles;
use bield_platform::TeeError;
use bield_protocol::service::Operation;

use bield_software_tee::{
    CollateralOptions, Kind, Options as SimulatedOptions, Platform, SgxReport,
};

use super::*;
use crate::limits::lock;
use crate::program::tests::{World, code_of, inspect, order_of, principals, take_share};
use crate::service::cast::key;
use crate::testing::{InProcess, Options};
use crate::witnesses::Dial;
use crate::witnesses::tests::{Village, key as witness_key};

const NOW: Time = Time::from_secs(1_800_000_000);

type Disks = Arc<Mutex<Vec<Disk>>>;

/// A record counts when every disk has it.
struct Everybody {
    disks: Disks,
    term: u64,
}

impl Commit for Everybody {
    fn commit(&mut self, _: &Running, record: &Received) -> Result<(), NotYet> {
        let mut disks = lock(&self.disks);
        for disk in disks.iter_mut() {
            disk.prepare(self.term, Some(record)).map_err(again)?;
        }
        for disk in disks.iter_mut() {
            disk.commit(record).map_err(again)?;
        }
        Ok(())
    }
}

fn again(error: ApplyError) -> NotYet {
    NotYet::Again(error.to_string())
}

struct Node {
    process: InProcess,
    files: MemoryFiles,
}

impl Node {
    fn new(options: &Options) -> (Self, Disk) {
        Self::on(MemoryFiles::new(), options)
    }

    fn on(files: MemoryFiles, options: &Options) -> (Self, Disk) {
        let process = InProcess::build(files.clone(), options);
        let service = Arc::clone(process.service());
        let (held, undecided) = Held::load(&service).unwrap();
        let disk = Disk {
            held,
            undecided,
            service,
        };
        (Self { process, files }, disk)
    }

    fn lead(&self, disks: &Disks, term: u64) {
        let service = self.process.service();
        let running = service.running().unwrap();
        let disks = Arc::clone(disks);
        let commit = Box::new(Everybody { disks, term });
        service.start().go(service, &running, commit, None).unwrap();
    }

    fn state(&self) -> Vec<u8> {
        let running = self.process.service().running().unwrap();
        let state = running.state().to_bytes();
        state.to_vec()
    }
}

fn options() -> Options {
    World::new().options
}

/// A leader and two that were given its state.
fn group(options: &Options) -> (Vec<Node>, Disks) {
    let (leader, mut first) = Node::new(options);
    first.begin().unwrap();
    first.prepare(1, None).unwrap();
    let mut nodes = vec![leader];
    let mut disks = Vec::new();
    for _ in 0..2 {
        let (node, mut disk) = Node::new(options);
        assert!(disk.head().unwrap().is_none());
        let mut pieces = first.transfer(None).unwrap();
        disk.install(1, &mut *pieces).unwrap();
        // The group has let it in, which its driver would say.
        let service = node.process.service();
        service.enter(Stage::Following(service.running().unwrap()));
        nodes.push(node);
        disks.push(disk);
    }
    disks.insert(0, first);
    (nodes, Arc::new(Mutex::new(disks)))
}

fn register(node: &Node, number: u8) -> Result<bield_protocol::service::Reply, String> {
    order_of(&node.process, &key(number), Operation::Register)
}

#[test]
fn followers_have_what_the_leader_acknowledged_and_serve_nobody() {
    let (nodes, disks) = group(&options());
    nodes[0].lead(&disks, 1);
    for number in 1..10 {
        register(&nodes[0], number).unwrap();
    }
    assert_eq!(inspect(&nodes[0].process).state, "serving");
    for follower in &nodes[1..] {
        assert_eq!(follower.state(), nodes[0].state());
        assert_eq!(inspect(&follower.process).state, "following");
        assert_eq!(
            inspect(&follower.process).size,
            inspect(&nodes[0].process).size
        );
        assert_eq!(code_of(register(follower, 30)), "not-leader");
    }
    let heads: Vec<_> = lock(&disks)
        .iter_mut()
        .map(|disk| disk.head().unwrap())
        .collect();
    assert!(heads.iter().all(|head| head == &heads[0] && head.is_some()));
}

#[test]
fn a_follower_takes_over_with_everything_and_under_the_same_name() {
    let (mut nodes, disks) = group(&options());
    nodes[0].lead(&disks, 1);
    register(&nodes[0], 1).unwrap();
    let before = inspect(&nodes[0].process);
    let dead = nodes.remove(0);
    dead.process.kill();
    lock(&disks).remove(0);
    for disk in lock(&disks).iter_mut() {
        disk.prepare(2, None).unwrap();
    }
    nodes[0].lead(&disks, 2);
    register(&nodes[0], 2).unwrap();
    let after = inspect(&nodes[0].process);
    assert_eq!(
        (after.principals, after.service, after.log),
        (2, before.service, before.log)
    );
    assert_eq!(nodes[0].state(), nodes[1].state());

    // The dead one comes back with its old disk and is given what it missed.
    let (back, mut disk) = Node::on(dead.files.clone(), &options());
    let have = disk.head().unwrap();
    assert_eq!(have.map(|head| head.size), Some(before.size));
    let mut pieces = lock(&disks)[0].transfer(have.as_ref()).unwrap();
    disk.install(2, &mut *pieces).unwrap();
    assert_eq!(back.state(), nodes[0].state());
    lock(&disks).push(disk);
    register(&nodes[0], 3).unwrap();
    assert_eq!(back.state(), nodes[0].state());
}

#[test]
fn a_record_that_was_prepared_when_all_died_counts_after_they_settle() {
    let (nodes, disks) = group(&options());
    nodes[0].lead(&disks, 1);
    register(&nodes[0], 1).unwrap();
    // The last record reaches the disks sealed, and nobody says that it counts.
    let record = {
        let running = nodes[0].process.service().running().unwrap();
        let entry = Entry::Registered(key(2).principal()).encode();
        let mut ledger = running.ledger();
        let now = ledger.now(running.host_time());
        ledger.seal(&[&entry], now, &mut Randomness).unwrap()
    };
    let size = inspect(&nodes[1].process).size;
    for disk in lock(&disks).iter_mut() {
        disk.prepare(1, Some(&record)).unwrap();
    }
    let files: Vec<_> = nodes.iter().map(|node| node.files.clone()).collect();
    for node in nodes {
        node.process.kill();
    }
    lock(&disks).clear();
    for files in files {
        let (node, mut disk) = Node::on(files, &options());
        assert_eq!(disk.head().unwrap().map(|head| head.size), Some(size + 1));
        disk.settle().unwrap();
        assert_eq!(inspect(&node.process).size, size + 1);
        assert_eq!(inspect(&node.process).principals, 2);
    }
}

#[test]
fn other_code_takes_the_state_over_a_log_that_it_cannot_open_and_has_the_same_from_then_on() {
    let old = Options {
        admits_code: true,
        ..options()
    };
    let new = Options {
        seal: [6; 32],
        lease_secs: 60,
        administrators: Vec::new(),
        recovery: None,
        ..options()
    };
    let (mut nodes, disks) = group(&old);
    nodes[0].lead(&disks, 1);
    register(&nodes[0], 99).unwrap();
    let gone = nodes.remove(2);
    gone.process.kill();
    lock(&disks).remove(2);

    let (node, mut disk) = Node::on(gone.files.clone(), &new);
    assert!(disk.is_sealed() && disk.head().unwrap().is_none());
    let before = gone.files.contents();
    assert!(disk.begin().is_err(), "a new service over another's log");
    assert!(gone.files.contents() == before);
    let (node, mut disk) = {
        node.process.kill();
        Node::on(gone.files.clone(), &new)
    };
    let mut pieces = lock(&disks)[0].transfer(None).unwrap();
    disk.install(1, &mut *pieces).unwrap();
    assert!(!disk.is_sealed());
    lock(&disks).push(disk);

    // Configurations decide what may be ordered of whoever leads, and nothing about what is recorded.
    let code = Measurement::new(TeeKind::Sgx, &[9; 32]).unwrap();
    let shares = Operation::MakeShares {
        holders: principals(&[21, 22]),
        threshold: 2,
    };
    for number in [21, 22] {
        register(&nodes[0], number).unwrap();
    }
    for operation in [Operation::AdmitCode(code), shares] {
        order_of(&nodes[0].process, &key(99), operation).unwrap();
    }
    assert_eq!(node.state(), nodes[0].state());
    assert_eq!(inspect(&node.process).lease_secs, 60);
}

/// A record is prepared on every disk and committed on the leader's.
struct LeaderOnly {
    disks: Disks,
}

impl Commit for LeaderOnly {
    fn commit(&mut self, _: &Running, record: &Received) -> Result<(), NotYet> {
        let mut disks = lock(&self.disks);
        for disk in disks.iter_mut() {
            // Those that miss the record before refuse the next.
            drop(disk.prepare(1, Some(record)));
        }
        disks[0].commit(record).map_err(again)
    }
}

#[test]
fn witnesses_may_have_seen_the_prepared_record_and_nothing_newer() {
    let (nodes, disks) = group(&options());
    let running = |node: &Node| node.process.service().running().unwrap();
    let (leader, follower) = (running(&nodes[0]), running(&nodes[1]));
    let village = Village::of(1, &leader.ledger().verifier().clone());
    let dial: Arc<dyn Dial> = village;
    let witnesses = Witnesses::start(vec![witness_key(0).verifier().clone()], 1, &dial);
    let head = || lock(&disks)[1].head().unwrap().unwrap();
    let committed = head();
    assert_eq!(confirmed(&follower, &witnesses, &committed), Ok(()));

    // The leader's first record is prepared on all, committed on its disk, cosigned; then it dies.
    let service = nodes[0].process.service();
    let disks_of_all = Arc::clone(&disks);
    let commit = Box::new(LeaderOnly {
        disks: disks_of_all,
    });
    service.start().go(service, &leader, commit, None).unwrap();
    assert_eq!(freshness::at_start(&leader, &witnesses), Ok(()));
    assert_eq!(head().size, committed.size + 1);
    assert_eq!(confirmed(&follower, &witnesses, &head()), Ok(()));
    let without = confirmed(&follower, &witnesses, &committed);
    assert!(
        matches!(without, Err(Unconfirmed::SetBack(_))),
        "{without:?}"
    );

    register(&nodes[0], 1).unwrap();
    assert_eq!(freshness::at_start(&leader, &witnesses), Ok(()));
    let behind = confirmed(&follower, &witnesses, &head());
    assert!(matches!(behind, Err(Unconfirmed::SetBack(_))), "{behind:?}");
    let mut foreign = committed;
    foreign.root = [7; 32];
    let other = confirmed(&follower, &witnesses, &foreign);
    assert!(matches!(other, Err(Unconfirmed::Unknown(_))), "{other:?}");
}

/// A machine's TEE.
struct OnMachine(Platform, Measurement);

impl Tee for OnMachine {
    fn kind(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn measurement(&self) -> &Measurement {
        &self.1
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, TeeError> {
        let report = SgxReport {
            report_data: *report_data,
            ..SgxReport::default()
        };
        let collateral = self.0.collateral(Kind::Sgx, &CollateralOptions::at(NOW));
        Ok(canonical_dcap(&self.0.sgx_quote(&report), &collateral.unwrap()).unwrap())
    }

    fn seal_key(&self, _: &str) -> Result<Secret, TeeError> {
        unreachable!("nobody asks")
    }
}

#[test]
fn members_accept_what_they_name_or_administrators_admitted_and_nothing_withdrawn() {
    let code = |number: u8| Measurement::new(TeeKind::Sgx, &[number; 32]).unwrap();
    let [own, named, admitted, other] = [1, 2, 3, 4].map(code);
    let names = [named.clone()];
    let accepts_in = |state: Option<&State>, code: &Measurement| accepts(&own, &names, state, code);
    // Before it has a state: what the measured configuration says, and no more.
    assert!(accepts_in(None, &own) && accepts_in(None, &named));
    assert!(!accepts_in(None, &admitted) && !accepts_in(None, &other));

    let mut world = World::new();
    world.options.admits_code = true;
    world.start().unwrap();
    let order = |operation| world.order(&key(99), operation).unwrap();
    let accepts_now = |code: &Measurement| {
        let running = world.service().service().running().unwrap();
        let state = running.state();
        accepts_in(Some(&state), code)
    };
    order(Operation::Register);
    order(Operation::AdmitCode(admitted.clone()));
    assert!(accepts_now(&named) && accepts_now(&admitted) && !accepts_now(&other));
    for code in [&own, &named, &admitted] {
        order(Operation::WithdrawCode(code.clone()));
    }
    assert!(accepts_now(&own));
    assert!(!accepts_now(&named) && !accepts_now(&admitted));
    order(Operation::AdmitCode(named.clone()));
    assert!(accepts_now(&named));
}

#[test]
fn a_member_starts_on_its_own_machine_only() {
    let created = NOW.minus(Duration::from_secs(24 * 3600));
    let machine = SimulatedOptions::seeded([7; 32], created);
    let machine = Platform::generate(machine).unwrap();
    let mut peers = Peers {
        policy: PolicyConfig {
            allow_simulated: true,
            simulated_roots: vec![hex::encode(machine.root_der())],
            ..PolicyConfig::new(Profile::Dev)
        },
        codes: Vec::new(),
        platforms: vec![vec![1; 16], machine.id().to_vec(), vec![2; 16]],
    };
    let name = hex::encode(machine.id());
    let code = Measurement::new(TeeKind::Sgx, &[0; 32]).unwrap();
    let tee = OnMachine(machine, code);
    assert_eq!(on_its_machine(&tee, &peers, 1, NOW), Ok(()));
    for slot in [0, 2, 3] {
        let refused = on_its_machine(&tee, &peers, slot, NOW).unwrap_err();
        assert!(refused.contains(&name), "{refused}");
    }
    peers.platforms.clear();
    assert_eq!(on_its_machine(&tee, &peers, 0, NOW), Ok(()));
}

#[test]
fn recovery_files_are_on_every_members_disk() {
    let (nodes, disks) = group(&options());
    nodes[0].lead(&disks, 1);
    for number in [99, 21, 22] {
        register(&nodes[0], number).unwrap();
    }
    let order = Operation::MakeShares {
        holders: principals(&[21, 22]),
        threshold: 2,
    };
    order_of(&nodes[0].process, &key(99), order).unwrap();
    assert!(take_share(&nodes[0].process, &key(21)).is_ok());
    for node in &nodes {
        let files = node.files.contents();
        let have = |prefix: &str| files.keys().any(|name| name.starts_with(prefix));
        assert!(have("recovery-") && have("shares-"));
    }
}

#[test]
fn another_record_in_the_place_of_an_own_one_ends_the_instance() {
    let (nodes, disks) = group(&options());
    nodes[0].lead(&disks, 1);
    register(&nodes[0], 1).unwrap();
    let seal = |node: &Node, number: u8| {
        let running = node.process.service().running().unwrap();
        let entry = Entry::Registered(key(number).principal()).encode();
        let mut ledger = running.ledger();
        let now = ledger.now(running.host_time());
        ledger.seal(&[&entry], now, &mut Randomness).unwrap()
    };
    let _own = seal(&nodes[0], 2);
    let other = seal(&nodes[1], 3);
    let outcome = lock(&disks)[0].commit(&other);
    assert!(
        matches!(outcome, Err(ApplyError::Refused(_))),
        "{outcome:?}"
    );
}
