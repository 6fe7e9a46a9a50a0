//! Power is lost at every operation and byte of a scripted run.

use super::*;
use crate::Fault;

/// Runs the script until something fails; gives what was acknowledged, and what was under way.
fn script(disk: &MemoryFiles) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut told: Vec<Vec<u8>> = Vec::new();
    let Ok(mut service) = Service::new(disk.clone()) else {
        return (told, Vec::new());
    };
    for number in 0_u8..5 {
        let entries: Vec<Vec<u8>> = (0..=number % 2).map(|entry| vec![number, entry]).collect();
        let slices: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        if service.put(&slices).is_err() {
            return (told, entries);
        }
        told.extend(entries);
        if number != 0 && service.snapshot().is_err() {
            return (told, Vec::new());
        }
    }
    (told, Vec::new())
}

/// What a new process finds; nothing when nothing was begun.
fn found(disk: &MemoryFiles) -> Option<Service> {
    match Ledger::load(Box::new(disk.clone()), seal()).unwrap() {
        Loaded::Found(_) => Some(load(disk).unwrap_or_else(|error| panic!("{error}"))),
        Loaded::Empty(..) => None,
        Loaded::Sealed(_) => panic!("a crash took the root"),
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_applied() {
    let whole = MemoryFiles::new();
    let (told, _) = script(&whole);
    assert_eq!(told.len(), 7);
    let mut crashes = 0;
    for write in 0..whole.writes() {
        let crash = |bytes| {
            let disk = MemoryFiles::new();
            disk.fail(Fault::Crash { write, bytes });
            let story = script(&disk);
            assert!(disk.crashed());
            (disk.contents(), story)
        };
        let (before, (told, under_way)) = crash(0);
        let (after, _) = crash(u64::MAX);
        for contents in between(&before, &after) {
            crashes += 1;
            goes_on(contents, &told, &under_way, crashes % 16 == 0);
        }
    }
    assert!(crashes > 1000, "{crashes}");
}

/// Every disk that a crash leaves in the middle of one write.
fn between(before: &Contents, after: &Contents) -> Vec<Contents> {
    let mut disks = vec![before.clone(), after.clone()];
    for (name, bytes) in after.iter().filter(|(name, _)| *name != "root") {
        let start = before.get(name).map_or(0, Vec::len);
        let near = |at: &usize| at - start < 30 || bytes.len() - at < 30 || at.is_multiple_of(7);
        for at in (start..bytes.len()).filter(near) {
            let mut contents = before.clone();
            contents.insert(name.clone(), bytes[..at].to_vec());
            disks.push(contents);
        }
    }
    disks
}

fn goes_on(contents: Contents, told: &[Vec<u8>], under_way: &[Vec<u8>], further: bool) {
    let disk = MemoryFiles::with(contents);
    let service = found(&disk);
    let state = service
        .as_ref()
        .map_or_else(Vec::new, |service| service.state.clone());
    let with: Vec<_> = told.iter().chain(under_way).cloned().collect();
    assert!(state == told || state == with, "{state:?} after {told:?}");
    if !further {
        return;
    }
    let mut service = match service {
        Some(service) => service,
        None => Service::new(disk.clone()).unwrap(),
    };
    service.put(&[b"on"]).unwrap();
    service.snapshot().unwrap();
    service.put(&[b"and on"]).unwrap();
    assert_eq!(service.restart().state.len(), state.len() + 2);
}

#[test]
fn a_write_whose_outcome_is_unknown_is_tried_again_and_counts_once() {
    let writes = service(2).disk.writes();
    for (fault, stored) in [
        (Fault::Refuse { write: writes }, false),
        (Fault::LoseAnswer { write: writes }, true),
    ] {
        let mut service = service(2);
        service.disk.fail(fault);
        let record = service
            .ledger
            .seal(&[b"maybe"], at(3), &mut service.entropy)
            .unwrap();
        assert!(matches!(
            service.ledger.commit(&record),
            Err(LedgerError::NotDurable(_))
        ));
        // Meanwhile: it is not in the tree, and nothing takes its place.
        assert_eq!(service.ledger.size(), 4);
        let other = service.ledger.seal(&[b"x"], at(3), &mut service.entropy);
        assert!(matches!(other, Err(LedgerError::Uncommitted { .. })));
        assert!(service.snapshot().is_err());
        // A crash here: the record counts exactly when the host had stored it.
        let crashed = load(&MemoryFiles::with(service.disk.contents())).unwrap();
        assert_eq!(crashed.state.len(), if stored { 3 } else { 2 });
        let entries = service.ledger.commit(&record).unwrap();
        assert_eq!(*entries[0], b"maybe");
        let service = service.restart();
        assert_eq!((service.state.len(), service.ledger.size()), (3, 5));
    }
}

#[test]
fn a_snapshot_that_failed_costs_nothing_but_itself() {
    let at_snapshot = service(4).disk.writes();
    for write in at_snapshot..at_snapshot + 2 {
        let mut service = service(4);
        service.disk.fail(Fault::Refuse { write });
        let failed = service.snapshot().is_err();
        service.put(&[b"goes on"]).unwrap();
        if failed {
            service.snapshot().unwrap();
        }
        service.put(&[b"and on"]).unwrap();
        let service = service.restart();
        assert_eq!(service.state.len(), 6);
        let snapshots = names(&service.disk.contents(), "snapshot-");
        assert!(snapshots.len() <= 3, "{snapshots:?}");
    }
}

#[test]
fn the_two_newest_snapshots_stay() {
    let service = service(12);
    let snapshots = names(&service.disk.contents(), "snapshot-");
    assert_eq!(snapshots.len(), 2);
    assert!(snapshots[1].ends_with("14"));
}

#[test]
fn a_long_snapshot_that_breaks_off_gives_way_to_the_one_before() {
    let state = vec![vec![7; 5 << 20]];
    for (write, bytes) in [(0, 40), (1, 0), (1, 2 << 20), (2, 5), (2, 2 << 20), (3, 0)] {
        let mut service = service(4);
        let write = service.disk.writes() + write;
        service.disk.fail(Fault::Crash { write, bytes });
        let written = service
            .ledger
            .snapshot(&encode(&state), &mut service.entropy);
        assert_eq!(written.is_err(), service.disk.crashed());
        service.disk.restart();
        let (opened, found) = open(find(&service.disk).unwrap()).unwrap();
        assert_eq!(found, service.state);
        assert_eq!(opened.report.snapshot, Some(5));
    }
}
