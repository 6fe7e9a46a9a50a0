//! Members without a group: what one made is prepared and committed on all, by hand.

use std::sync::Mutex;

use bield_ledger::MemoryFiles;
use bield_protocol::service::Operation;

use super::*;
use crate::limits::lock;
use crate::program::tests::{World, code_of, inspect, order_of, principals, take_share};
use crate::service::cast::key;
use crate::testing::{InProcess, Options};

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
