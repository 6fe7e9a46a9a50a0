//! What is acknowledged stays; what cannot be stored is not acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_capsule::Received;
use bield_ledger::{Fault, FilesError, Loaded};

use super::*;
use crate::sequencer::{Commit, NotYet, Running, Solo};

#[test]
fn what_was_acknowledged_is_there_after_a_kill_and_after_a_graceful_end() {
    let (mut world, package) = World::with_grant();
    assert!(world.lease(5, package).is_ok());
    let before = world.size();
    world.restart();
    assert_eq!(world.size(), before + 1, "one record more: started");
    assert!(world.lease(5, package).is_ok());
    world.revoke().unwrap();
    world.end();
    world.start().unwrap();
    assert_eq!(code_of(world.lease(5, package)), "grant-revoked");
}

#[test]
fn a_lease_number_is_never_given_twice_across_restarts() {
    let (mut world, package) = World::with_grant();
    let first = world.lease(5, package).unwrap().lease.id;
    world.restart();
    assert!(world.lease(5, package).unwrap().lease.id > first);
}

#[test]
fn a_clock_that_is_set_back_revives_nothing() {
    let (mut world, package) = World::with_grant();
    world.clock.fetch_add(2 * 3600 * 1000, Ordering::SeqCst);
    assert!(world.lease(5, package).is_err(), "the grant has ended");
    world.order(&key(2), Operation::Register).unwrap();
    world.clock.store(NOON.as_millis(), Ordering::SeqCst);
    assert!(world.lease(5, package).is_err());
    world.restart();
    assert!(world.lease(5, package).is_err(), "nor after a restart");
}

#[test]
fn a_crash_at_every_write_loses_nothing_that_was_acknowledged() {
    for write in 0..30 {
        let mut world = World::started();
        let begun = world.disk.writes();
        world.disk.fail(Fault::Crash {
            write: begun + write,
            bytes: write * 37 % 300,
        });
        let mut acknowledged = 0;
        for number in 1..=12 {
            match world.order(&key(number), Operation::Register) {
                Ok(_) => acknowledged = number,
                Err(_) => break,
            }
        }
        world.kill();
        world.start().unwrap();
        let counted = u8::try_from(inspect(world.service()).principals).unwrap();
        assert!(
            (acknowledged..=acknowledged + 1).contains(&counted),
            "crash at write {write}: {acknowledged} acknowledged, {counted} there"
        );
    }
}

#[test]
fn a_write_that_fails_is_told_at_once_and_made_good_later() {
    for fault in [
        |write| Fault::Refuse { write },
        |write| Fault::LoseAnswer { write },
    ] {
        let mut world = World::started();
        let size = world.size();
        world.disk.fail(fault(world.disk.writes()));
        let told = world.order(&key(1), Operation::Register);
        assert_eq!(code_of(told), "not-durable");
        // The same record is stored by the next attempt; only then is another one made.
        while world.size() == size {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(world.size(), size + 1);
        world.order(&key(1), Operation::Register).unwrap();
        assert_eq!(world.size(), size + 1, "it is known already");
        world.restart();
        assert_eq!(inspect(world.service()).principals, 1);
    }
}

/// Files whose writes fail while `broken`, or wait while `slow`.
#[derive(Clone)]
struct Moody {
    files: MemoryFiles,
    broken: Arc<AtomicBool>,
    slow: Arc<Mutex<()>>,
}

impl Moody {
    fn new() -> Self {
        Self {
            files: MemoryFiles::new(),
            broken: Arc::default(),
            slow: Arc::default(),
        }
    }

    fn may_write(&self) -> Result<(), FilesError> {
        drop(self.slow.lock().unwrap());
        if self.broken.load(Ordering::SeqCst) {
            return Err(FilesError::Refused);
        }
        Ok(())
    }
}

impl Files for Moody {
    fn list(&mut self) -> Result<Vec<(String, u64)>, FilesError> {
        self.files.list()
    }

    fn read(&mut self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, FilesError> {
        self.files.read(name, offset, length)
    }

    fn append(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), FilesError> {
        self.may_write()?;
        self.files.append(name, offset, bytes)
    }

    fn replace(&mut self, name: &str, bytes: &[u8]) -> Result<(), FilesError> {
        self.may_write()?;
        self.files.replace(name, bytes)
    }

    fn remove(&mut self, name: &str) -> Result<(), FilesError> {
        self.may_write()?;
        self.files.remove(name)
    }
}

#[test]
fn while_the_disk_is_full_nothing_is_given_away_and_who_asks_is_told_why() {
    let files = Moody::new();
    let mut world = World::new();
    world.service = Some(world.start_on(files.clone()).unwrap());
    let package = world.put_and_grant();
    files.broken.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(code_of(world.lease(5, package)), "not-durable");
    assert_eq!(code_of(world.lease(5, package)), "not-durable");
    assert_eq!(code_of(world.revoke()), "not-durable");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "callers are told promptly"
    );
    assert!(inspect(world.service()).trouble.is_some());
    let kept = freshness(world.service(), None).unwrap().checkpoint;
    files.broken.store(false, Ordering::SeqCst);
    let mut tries = 0;
    while let Err(refusal) = world.lease(5, package) {
        assert_eq!(code_of::<()>(Err(refusal)), "not-durable");
        tries += 1;
        assert!(tries < 10_000);
    }
    assert!(freshness(world.service(), Some(&kept)).is_ok());
    assert_eq!(inspect(world.service()).trouble, None);
}

/// One order whose record is being written, and `more` that wait behind it; then `meanwhile`, then the disk is
/// quick again. How many were acknowledged.
fn queued(service: &InProcess, files: &Moody, more: u8, meanwhile: impl FnOnce()) -> u64 {
    let slow = files.slow.lock().unwrap();
    let running = service.service().running().unwrap();
    let (told, hears) = sync_channel(64);
    std::thread::scope(|scope| {
        let order = |number: u8| {
            let told = told.clone();
            scope.spawn(move || {
                let done = order_of(service, &key(number), Operation::Register).is_ok();
                told.send(done).unwrap();
            });
        };
        order(1);
        while running.state().counts().principals == 0 {
            std::thread::yield_now();
        }
        (2..2 + more).for_each(order);
        while running.waiting() < usize::from(more) {
            std::thread::yield_now();
        }
        meanwhile();
        drop(slow);
    });
    drop(told);
    hears.iter().filter(|done| *done).count() as u64
}

#[test]
fn a_graceful_end_finishes_what_is_queued() {
    let files = Moody::new();
    let world = World::new();
    let service = world.start_on(files.clone()).unwrap();
    let acknowledged = queued(&service, &files, 19, || service.service().close());
    assert_eq!(acknowledged, 20);
    assert_eq!(
        code_of(order_of(&service, &key(50), Operation::Register)),
        "ending"
    );
    service.end();
    let again = world.start_on(files.files.clone()).unwrap();
    assert_eq!(inspect(&again).principals, 20);
}

#[test]
fn orders_that_wait_share_a_record() {
    let files = Moody::new();
    let world = World::new();
    let service = world.start_on(files.clone()).unwrap();
    let before = inspect(&service).size;
    assert_eq!(queued(&service, &files, 31, || {}), 32);
    assert_eq!(inspect(&service).principals, 32);
    assert_eq!(inspect(&service).size - before, 2);
}

#[test]
fn one_that_floods_does_not_use_up_what_another_may_order() {
    let mut world = World::new();
    world.options.orders_per_minute = 60;
    world.start().unwrap();
    let flood = key(1);
    let refused = (0..200).filter(|_| {
        let outcome = world.order(&flood, Operation::Register);
        code_of(outcome) == "too-many-orders"
    });
    assert!(refused.count() >= 100);
    assert!(world.order(&key(2), Operation::Register).is_ok());
}

#[test]
fn leases_are_charged_to_the_owner_of_the_package_and_cost_no_order() {
    let mut world = World::new();
    world.options.orders_per_minute = 60;
    world.start().unwrap();
    let package = world.put_and_grant();
    let until_refused = |package| {
        (0..200)
            .map(|_| code_of(world.lease(5, package)))
            .find(|code| code == "too-many-orders")
    };
    assert!(until_refused(package).is_some());
    let nobodys = [1, 2].map(|number| Digest::from_bytes([number; 32]));
    assert!(until_refused(nobodys[0]).is_some());
    // All packages that there are not share one allowance, and other code has none of its own.
    assert_eq!(code_of(world.lease(5, nobodys[1])), "too-many-orders");
    assert_eq!(code_of(world.lease(6, package)), "too-many-orders");
    assert!(world.revoke().is_ok(), "the owner's own orders are apart");
}

#[test]
fn pages_of_an_audit_have_an_allowance_of_their_own() {
    let world = World::started();
    world.order(&key(1), Operation::Register).unwrap();
    let audit = || world.order(&key(1), Operation::Audit { from: 0 });
    let refused = (0..200).find(|_| code_of(audit()) == "too-many-orders");
    assert!(refused.is_some_and(|pages| pages >= 20), "{refused:?}");
    assert!(world.order(&key(1), Operation::Register).is_ok());
}

#[test]
fn a_key_is_not_told_before_the_record_that_made_it_counts() {
    let files = Moody::new();
    let mut world = World::new();
    world.service = Some(world.start_on(files.clone()).unwrap());
    let package = world.put_and_grant();
    let key_of = || {
        let code = bield_grant::CodeSelector::Measurement(cast::code(5));
        let package = bield_protocol::service::PackageReference::Digest(package);
        let request = Request::KeyConfiguration(package, code);
        done(world.service().answer(&mut session(), request))
    };
    assert!(key_of().is_ok());
    files.broken.store(true, Ordering::SeqCst);
    let rotate = Operation::RotateAudience {
        package,
        at_once: true,
    };
    let rotated = world.order(&key(1), rotate);
    assert_eq!(code_of(rotated), "not-durable");
    assert_eq!(code_of(key_of()), "not-durable");
    files.broken.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(60);
    while key_of().is_err() {
        assert!(Instant::now() < deadline);
    }
}

/// Commits as a service of one does, until it panics.
struct Faulty(Arc<AtomicBool>);

impl Commit for Faulty {
    fn commit(&mut self, running: &Running, record: &Received) -> Result<(), NotYet> {
        assert!(!self.0.load(Ordering::SeqCst), "on purpose");
        Solo.commit(running, record)
    }
}

#[test]
fn a_fault_of_the_sequencer_ends_the_service_and_is_not_passed_over() {
    let world = World::new();
    world.start_on(world.disk.clone()).unwrap().end();
    let process = InProcess::build(world.disk.clone(), &world.options);
    let service = process.service();
    let Ok(Loaded::Found(found)) = service.start().load() else {
        panic!("a log was there");
    };
    let (state, opened) = service.start().replay(found).unwrap();
    let running = service.start().running(state, opened.ledger);
    let fault = Arc::new(AtomicBool::new(false));
    let commit = Box::new(Faulty(Arc::clone(&fault)));
    service.start().go(service, &running, commit, None).unwrap();
    order_of(&process, &key(1), Operation::Register).unwrap();
    let size = inspect(&process).size;
    fault.store(true, Ordering::SeqCst);
    assert!(order_of(&process, &key(2), Operation::Register).is_err());
    service.start().finish();
    assert_eq!(
        code_of(order_of(&process, &key(3), Operation::Register)),
        "stopped"
    );
    assert_eq!(inspect(&process).state, "stopped");
    assert!(process.ended().is_some());
    assert_eq!(inspect(&process).size, size, "nothing more counts");
    drop(process);
    let again = world.start_on(world.disk.clone()).unwrap();
    assert_eq!(inspect(&again).principals, 1);
}
