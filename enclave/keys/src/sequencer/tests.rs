//! Orders beside a snapshot that a thread writes: the host stores it when the test says so.

use std::sync::mpsc::{Receiver, Sender, channel};

use bield_envelope::{Digest, Secret};
use bield_ledger::{Files, FilesError, Ledger, LoadReport, Loaded, MemoryFiles};
use bield_protocol::service::Operation;

use super::*;
use crate::program::tests::{World, freshness, inspect};
use crate::service::cast::{key, principal};
use crate::state::State;
use crate::testing::InProcess;

/// Writes snapshots one word after the other: `true` stores, `false` refuses.
struct Gate {
    disk: MemoryFiles,
    reached: Sender<()>,
    word: Receiver<bool>,
}

impl Files for Gate {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        self.disk.list()
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        self.disk.read(name, offset, length)
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        if name.starts_with("snapshot-") {
            // A test that is over lets everything pass.
            let _ = self.reached.send(());
            if let Ok(false) = self.word.recv() {
                return Err(FilesError::Refused);
            }
        }
        self.disk.append(name, offset, bytes)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        self.disk.replace(name, bytes)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        self.disk.remove(name)
    }
}

/// A service whose log is written straight and whose snapshots wait at a gate, where one has arrived.
struct Writing {
    world: World,
    package: Digest,
    running: Arc<Running>,
    reached: Receiver<()>,
    word: Sender<bool>,
}

impl Writing {
    fn begun() -> Self {
        let (arrives, reached) = channel();
        let (word, told) = channel();
        let mut world = World::new();
        let gate = Gate {
            disk: world.disk.clone(),
            reached: arrives,
            word: told,
        };
        let process = InProcess::build(gate, &world.options);
        let start = process.service().start();
        let (root, seal) = (
            || Secret::from_bytes([3; 32]),
            Secret::from_bytes(world.options.seal),
        );
        let files = Box::new(world.disk.clone());
        let now = (world.options.clock)();
        let ledger = Ledger::create(files, seal, root(), now, &mut Randomness).unwrap();
        let state = State::new(root(), start.limits.clone());
        let running = start.running(state, ledger);
        let commit = Box::new(Solo);
        start.go(process.service(), &running, commit, None).unwrap();
        world.service = Some(process);
        let package = world.put_and_grant();
        running.snapshot_apart();
        reached.recv().unwrap();
        Self {
            world,
            package,
            running,
            reached,
            word,
        }
    }

    /// An owner orders, a runtime takes a lease, and somebody asks what counts.
    fn is_served(&self, owner: u8) {
        let size = self.world.size();
        self.world.order(&key(owner), Operation::Register).unwrap();
        self.world.lease(5, self.package).unwrap();
        assert_eq!(self.world.size(), size + 2);
        assert!(self.running.state().is_registered(principal(owner)));
        freshness(self.world.service(), None).unwrap();
    }

    /// What a new process makes of the files.
    fn report(&self) -> LoadReport {
        let seal = Secret::from_bytes(self.world.options.seal);
        let files = Box::new(MemoryFiles::with(self.world.disk.contents()));
        match Ledger::load(files, seal).unwrap() {
            Loaded::Found(found) => found.report().clone(),
            _ => panic!("no log"),
        }
    }

    /// After a restart everything is there.
    fn has_all_when_it_starts_again(mut self, owners: &[u8]) {
        self.world.disk.restart();
        self.world.start().unwrap();
        assert_eq!(
            inspect(self.world.service()).principals,
            1 + owners.len() as u64
        );
        self.world.lease(5, self.package).unwrap();
    }
}

#[test]
fn orders_and_leases_are_answered_while_a_snapshot_is_written() {
    let mut writing = Writing::begun();
    for owner in [7, 8, 9] {
        writing.is_served(owner);
    }
    assert!(!writing.running.ledger().wants_snapshot());
    assert_eq!(writing.running.metrics.snapshots.get(), 0);
    assert_eq!(writing.report().snapshot, None);
    writing.word.send(true).unwrap();
    writing.running.finish_snapshot();
    assert_eq!(writing.running.metrics.snapshots.get(), 1);
    writing.is_served(10);
    writing.world.kill();
    assert_eq!(
        writing.report().snapshot,
        Some(6),
        "as it was when it began"
    );
    writing.has_all_when_it_starts_again(&[7, 8, 9, 10]);
}

#[test]
fn a_full_disk_costs_the_snapshot_and_no_order() {
    let mut writing = Writing::begun();
    writing.is_served(7);
    writing.word.send(false).unwrap();
    writing.running.finish_snapshot();
    assert_eq!(writing.running.metrics.snapshots.get(), 0);
    let names = writing.world.disk.contents();
    assert!(names.keys().all(|name| !name.starts_with("snapshot-")));
    assert!(writing.running.outage_now().is_none());
    writing.is_served(8);
    // Room again, and somebody who needs one.
    writing.word.send(true).unwrap();
    assert!(writing.running.snapshot());
    writing.reached.recv().unwrap();
    assert!(writing.report().snapshot.is_some());
    writing.world.kill();
    writing.has_all_when_it_starts_again(&[7, 8]);
}

#[test]
fn a_service_that_ends_in_good_order_waits_for_its_snapshot() {
    let mut writing = Writing::begun();
    writing.is_served(7);
    let service = writing.world.service.take().unwrap();
    let ending = std::thread::spawn(move || service.end());
    writing.word.send(true).unwrap();
    ending.join().unwrap();
    let report = writing.report();
    assert_eq!((report.snapshot, report.passed_over.len()), (Some(6), 0));
    writing.has_all_when_it_starts_again(&[7]);
}
