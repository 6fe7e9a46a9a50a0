//! A snapshot is written apart from the log, which goes on meanwhile.

use super::*;
use crate::{Fault, FilesError, SnapshotFlaw, SnapshotJob};

/// A service with a snapshot at size 5, and one at size 8 begun: of a state that takes two writes.
fn begun(disk: MemoryFiles) -> Result<(Service, SnapshotJob), LedgerError> {
    let mut service = Service::new(disk)?;
    for number in 0..3_u8 {
        service.put(&[&[number]])?;
    }
    service.snapshot()?;
    for _ in 0..3 {
        service.put(&[&vec![7; 1_000_000]])?;
    }
    let state = encode(&service.state);
    let job = service
        .ledger
        .begin_snapshot(&state, &mut service.entropy)?;
    Ok((service, job.expect("there is none at this size")))
}

#[test]
fn records_count_while_a_snapshot_is_written_and_follow_it() {
    let (mut service, mut job) = begun(MemoryFiles::new()).unwrap();
    let mut files = service.disk.clone();
    let mut steps = 0_u8;
    let written = loop {
        steps += 1;
        service.put(&[&[b'w', steps]]).unwrap();
        let again = service.ledger.begin_snapshot(b"", &mut service.entropy);
        assert!(matches!(again, Err(LedgerError::SnapshotUnderWay)));
        // Another process would not see it yet.
        let copy = MemoryFiles::with(service.disk.contents());
        assert_eq!(find(&copy).unwrap().report().snapshot, Some(5));
        if let Some(written) = job.step(&mut files).unwrap() {
            break written;
        }
    };
    assert_eq!(steps, 2);
    assert_eq!(written.size(), 8);
    service.ledger.end_snapshot(Some(written)).unwrap();
    assert_eq!(names(&service.disk.contents(), "snapshot-").len(), 2);
    service.put(&[b"after"]).unwrap();
    let state = service.state.clone();
    let (opened, found) = open(find(&service.disk).unwrap()).unwrap();
    assert_eq!(opened.report.snapshot, Some(8));
    assert_eq!(opened.report.replayed, u64::from(steps) + 1);
    assert!(found == state);
}

/// Runs until something fails; gives what was acknowledged since the snapshot began.
fn story(disk: &MemoryFiles) -> Vec<Vec<u8>> {
    let mut told = Vec::new();
    let Ok((mut service, mut job)) = begun(disk.clone()) else {
        return told;
    };
    let mut files = disk.clone();
    let mut written = None;
    while written.is_none() {
        let entry = vec![b'w', told.len() as u8];
        if service.put(&[&entry]).is_err() {
            return told;
        }
        told.push(entry);
        match job.step(&mut files) {
            Ok(step) => written = step,
            Err(_) => return told,
        }
    }
    if service.ledger.end_snapshot(written).is_ok() && service.put(&[b"after"]).is_ok() {
        told.push(b"after".to_vec());
    }
    told
}

#[test]
fn power_lost_at_any_write_leaves_the_old_snapshot_or_the_new_one() {
    let whole = MemoryFiles::new();
    assert_eq!(story(&whole).last().unwrap(), b"after");
    let at_begin = service(3).disk.writes() + 3;
    let (mut old, mut new) = (0, 0);
    for write in at_begin..whole.writes() {
        for bytes in [0, 200, u64::MAX] {
            let disk = MemoryFiles::new();
            disk.fail(Fault::Crash { write, bytes });
            let told = story(&disk);
            assert!(disk.crashed());
            disk.restart();
            let (opened, state) = open(find(&disk).unwrap()).unwrap();
            // At most the one that was under way is there beside what was acknowledged.
            let since = &state[6..];
            assert!(since.starts_with(&told) && since.len() <= told.len() + 1);
            match opened.report.snapshot {
                Some(5) => old += 1,
                Some(8) => new += 1,
                other => panic!("write {write}, byte {bytes}: snapshot {other:?}"),
            }
            let mut broken = opened.report.passed_over.iter();
            assert!(broken.all(|flaw| *flaw == (8, SnapshotFlaw::Incomplete)));
            if bytes != 200 {
                continue;
            }
            // What broke off is gone with the next one.
            let mut service = Service {
                disk,
                ledger: opened.ledger,
                state,
                entropy: Seeded::new(9),
            };
            service.put(&[b"on"]).unwrap();
            service.snapshot().unwrap();
            let left = names(&service.disk.contents(), "snapshot-");
            assert_eq!(left.len(), 2, "write {write}, byte {bytes}: {left:?}");
            let state = service.state.clone();
            assert!(service.restart().state == state);
        }
    }
    assert!(old > 5 && new > 2, "{old}, {new}");
}

#[test]
fn a_snapshot_that_the_host_refuses_gives_its_room_back_and_the_log_goes_on() {
    let (mut service, mut job) = begun(MemoryFiles::new()).unwrap();
    let mut files = service.disk.clone();
    assert!(job.step(&mut files).unwrap().is_none());
    let write = service.disk.writes();
    service.disk.fail(Fault::Refuse { write });
    assert!(matches!(job.step(&mut files), Err(FilesError::Refused)));
    service.put(&[b"goes on"]).unwrap();
    service.ledger.end_snapshot(None).unwrap();
    let left = names(&service.disk.contents(), "snapshot-");
    assert!(left.len() == 1 && left[0].ends_with("05"), "{left:?}");
    service.snapshot().unwrap();
    let state = service.state.clone();
    let (opened, found) = open(find(&service.disk).unwrap()).unwrap();
    assert_eq!(opened.report.snapshot, Some(9));
    assert!(found == state);
}

#[test]
fn a_snapshot_that_is_whole_is_not_written_again() {
    let mut service = service(3);
    let writes = service.disk.writes();
    service.snapshot().unwrap();
    assert_eq!(service.disk.writes(), writes);
}
