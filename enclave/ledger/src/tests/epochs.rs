//! Recovery: the root secret comes back by hand, and the log goes on in a new capsule.

use super::*;
use crate::{Files as _, Sealed, Unavailable};

fn sealed(disk: &MemoryFiles, seal: Secret) -> Sealed {
    match Ledger::load(Box::new(disk.clone()), seal).unwrap() {
        Loaded::Sealed(sealed) => sealed,
        Loaded::Empty(..) | Loaded::Found(_) => panic!("it should wait for its root"),
    }
}

/// The service goes on at another machine, whose seal key is `seal`.
fn recover(disk: &MemoryFiles, seal: Secret) -> Result<Service, LedgerError> {
    let found = sealed(disk, seal).open_with_root(root()).unwrap();
    let (opened, state) = open(found).unwrap();
    let mut entropy = Seeded::new(50);
    let ledger = opened
        .ledger
        .begin_epoch(&encode(&state), at(100), &mut entropy)?;
    let mut service = Service {
        disk: disk.clone(),
        ledger,
        state,
        entropy,
    };
    service.put(&[b"recovered"])?;
    Ok(service)
}

fn reload(disk: &MemoryFiles, seal: Secret) -> Service {
    let Loaded::Found(found) = Ledger::load(Box::new(disk.clone()), seal).unwrap() else {
        panic!("it loads");
    };
    let (opened, state) = open(found).unwrap_or_else(|error| panic!("{error}"));
    Service {
        disk: disk.clone(),
        ledger: opened.ledger,
        state,
        entropy: Seeded::new(51),
    }
}

#[test]
fn a_recovery_file_opens_with_its_key_and_gives_the_root() {
    let mut service = service(4);
    let key = |byte| Secret::from_bytes([byte; 32]);
    let ledger = &mut service.ledger;
    ledger
        .write_recovery(3, &key(7), &mut service.entropy)
        .unwrap();
    assert!(ledger.check_recovery(3, &key(7)).unwrap());
    assert!(!ledger.check_recovery(3, &key(8)).unwrap());
    assert!(!ledger.check_recovery(4, &key(7)).unwrap());
    let mut sealed = sealed(&service.disk, key(99));
    assert_eq!(sealed.why, Unavailable::Foreign);
    assert_eq!(sealed.recovery_generations(), [3]);
    assert!(sealed.open_recovery(3, &key(8)).is_err());
    let back = sealed.open_recovery(3, &key(7)).unwrap();
    assert_eq!(back.expose(), root().expose());
    let (opened, state) = open(sealed.open_with_root(back).unwrap()).unwrap();
    assert_eq!(state, service.state);
    let mut ledger = opened.ledger;
    let refused = ledger.seal(&[b"x"], at(1), &mut service.entropy);
    assert!(matches!(refused, Err(LedgerError::Recovering)));
    service.ledger.remove_recovery(3).unwrap();
    assert!(names(&service.disk.contents(), "recovery-").is_empty());
}

#[test]
fn a_wrong_root_opens_nothing() {
    let service = service(4);
    let found = sealed(&service.disk, Secret::from_bytes([99; 32]))
        .open_with_root(Secret::from_bytes([98; 32]));
    assert!(matches!(found.map(|_| ()), Err(LoadError::WrongRoot)));
}

#[test]
fn a_recovered_log_goes_on_and_answers_for_the_old_one() {
    for records in [0, 1, 4, 7] {
        let old = service(records + 1);
        let (then, last) = (old.ledger.head(), old.state.clone());
        let origin = old.ledger.origin().clone();
        let early = bield_tlog::TreeHead {
            size: 3,
            root: old.ledger.chain.tree().root_at(3).unwrap(),
        };
        let new_seal = || Secret::from_bytes([10; 32]);
        let mut now = recover(&old.disk, new_seal()).unwrap();
        assert_eq!(now.ledger.epoch(), 1);
        assert_ne!(now.ledger.origin(), &origin);
        now.put(&[b"a", b"b"]).unwrap();
        now.snapshot().unwrap();
        now.put(&[b"c"]).unwrap();
        let mut now = reload(&old.disk, new_seal());
        let [past] = now.ledger.past() else {
            panic!("one epoch before");
        };
        assert_eq!((past.origin(), past.head()), (&origin, then));
        assert!(past.contains(then) && past.contains(early));
        let proof = past.consistency_to(3, past.head().size).unwrap();
        bield_tlog::verify_consistency(3, &early.root, then.size, &then.root, &proof).unwrap();
        assert!(past.consistency_to(then.size + 1, then.size).is_err());
        let mut state = last.clone();
        state.extend([&b"recovered"[..], b"a", b"b", b"c"].map(<[u8]>::to_vec));
        assert_eq!(now.state, state);
        // The old records can be read as well.
        let read = now.ledger.read_epoch(0, 0, usize::MAX).unwrap();
        let read: Vec<_> = read
            .iter()
            .map(|record| record.entries[0].to_vec())
            .collect();
        assert_eq!(read, last);
        assert!(now.ledger.read_epoch(2, 0, 1).is_err());
        // Without any snapshot both epochs are replayed.
        let mut contents = old.disk.contents();
        contents.retain(|name, _| !name.starts_with("snapshot-"));
        let disk = MemoryFiles::with(contents);
        let replayed = reload(&disk, new_seal());
        assert_eq!(replayed.state, state);
        assert_eq!(replayed.ledger.past()[0].head(), then);
        // And once more.
        let third = recover(&disk, Secret::from_bytes([11; 32])).unwrap();
        assert_eq!((third.ledger.epoch(), third.ledger.past().len()), (2, 2));
        let third = reload(&disk, Secret::from_bytes([11; 32]));
        assert_eq!(third.state.len(), state.len() + 1);
    }
}

#[test]
fn an_epoch_that_was_begun_and_broke_off_is_begun_again() {
    let whole = service(4).disk.contents();
    let probe = MemoryFiles::with(whole.clone());
    recover(&probe, Secret::from_bytes([10; 32])).unwrap();
    for write in 0..probe.writes() {
        for bytes in [0, 1, 40, 300, 600, u64::MAX] {
            let disk = MemoryFiles::with(whole.clone());
            disk.fail(crate::Fault::Crash { write, bytes });
            let failed = recover(&disk, Secret::from_bytes([10; 32]));
            assert!(failed.is_err() && disk.crashed());
            disk.restart();
            let seal = || Secret::from_bytes([10; 32]);
            let loaded = Ledger::load(Box::new(disk.clone()), seal()).unwrap();
            let begun = matches!(loaded, Loaded::Found(_));
            let service = match begun {
                true => reload(&disk, seal()),
                false => recover(&disk, seal()).unwrap(),
            };
            assert_eq!(service.ledger.epoch(), 1);
            assert!(service.state.len() >= 4);
            assert_eq!(service.ledger.past().len(), 1);
        }
    }
}

#[test]
fn the_auditor_follows_the_epochs() {
    let old = service(4);
    let end = old.ledger.head();
    let mut now = recover(&old.disk, Secret::from_bytes([10; 32])).unwrap();
    now.put(&[b"more"]).unwrap();
    let contents = old.disk.contents();
    let mut audit = bield_capsule::ledger_file::LogAudit::new();
    for name in names(&contents, "log-") {
        audit.begin(&name).unwrap();
        audit.push(&contents[&name], &mut |_, _| {}).unwrap();
        audit.end().unwrap();
    }
    let [first, second] = audit.epochs() else {
        panic!("two epochs");
    };
    assert_eq!((first.records, second.records), (6, 4));
    let previous = second.previous.unwrap();
    assert_eq!(
        (previous.size, previous.root),
        (end.size, *end.root.as_bytes())
    );
    assert_eq!(previous.capsule, first.metadata.name());
}

#[test]
fn a_root_file_from_before_a_recovery_does_not_open_the_old_epoch_beside_the_new_one() {
    let service = service(4);
    let disk = service.disk.clone();
    let before = disk.clone().read("root", 0, 1 << 16).unwrap();
    drop(service);
    drop(recover(&disk, Secret::from_bytes([99; 32])).unwrap());
    disk.clone().replace("root", &before).unwrap();
    match Ledger::load(Box::new(disk.clone()), seal()) {
        Err(LoadError::OldRoot { root: 0, log: 1 }) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the old epoch goes on"),
    }
}

#[test]
fn a_checkpoint_of_a_later_epoch_is_known_by_the_root_secret_alone() {
    let service = service(4);
    let disk = service.disk.clone();
    let own = service.ledger.checkpoint(None);
    drop(service);
    let recovered = recover(&disk, Secret::from_bytes([99; 32])).unwrap();
    let later = recovered.ledger.checkpoint(None).to_string();
    let later = bield_tlog::SignedCheckpoint::parse(later.as_bytes()).unwrap();
    let own = bield_tlog::SignedCheckpoint::parse(own.to_string().as_bytes()).unwrap();
    assert_eq!(crate::signed_in(&root(), 1..=16, &later), Some(1));
    assert_eq!(crate::signed_in(&root(), 2..=16, &later), None);
    assert_eq!(crate::signed_in(&root(), 1..=16, &own), None);
    let other = Secret::from_bytes([3; 32]);
    assert_eq!(crate::signed_in(&other, 1..=16, &later), None);
}
