//! Files that somebody changed: each way has its sentence.

use bield_capsule::ledger_file::Flaw;

use super::*;
use crate::{NotNext, SnapshotFlaw};

fn log(contents: &Contents, number: usize) -> String {
    names(contents, "log-")[number].clone()
}

#[test]
fn a_flipped_byte_anywhere_in_the_log_is_told_or_costs_only_what_nobody_can_prove() {
    let service = service(5); // log-0 … 5, snapshot at 5, log-5 … 7
    let whole = service.disk.contents();
    for name in names(&whole, "log-") {
        let last = name == log(&whole, 1);
        for at in 0..whole[&name].len() {
            let mut contents = whole.clone();
            contents.get_mut(&name).unwrap()[at] ^= 1;
            let disk = MemoryFiles::with(contents.clone());
            match load(&disk) {
                Ok(loaded) if last => {
                    // The newest frame looks torn: as if its record had not been written.
                    assert!(loaded.state.len() >= 4, "{name} at {at}");
                    assert_eq!(loaded.state, service.state[..loaded.state.len()]);
                    assert!(!loaded.ledger.contains(service.ledger.head()) || at == usize::MAX);
                }
                Ok(mut loaded) => {
                    // Before the snapshot nothing is read but heads: an audit finds it.
                    assert_eq!(loaded.state, service.state);
                    let records = loaded.ledger.records(0, usize::MAX);
                    let audit = records.is_err() || audited(&contents).is_err();
                    assert!(audit, "{name} at {at}");
                }
                Err(LoadError::Altered { .. } | LoadError::OtherLog { .. }) => {}
                Err(error) => panic!("{name} at {at}: {error}"),
            }
        }
    }
}

/// All log files through the auditor that has no key; gives the number of records.
fn audited(contents: &Contents) -> Result<u64, bield_capsule::ledger_file::LogFault> {
    let mut audit = bield_capsule::ledger_file::LogAudit::new();
    let mut tree = bield_tlog::Tree::new();
    for name in names(contents, "log-") {
        audit.begin(&name)?;
        for piece in contents[&name].chunks(700) {
            audit.push(piece, &mut |_, applied| {
                tree.append(applied.record().hash().as_bytes());
            })?;
        }
        audit.end()?;
    }
    let records = audit.epochs().iter().map(|epoch| epoch.records).sum();
    assert_eq!(tree.size(), records);
    Ok(records)
}

#[test]
fn the_auditor_needs_no_key_and_makes_the_same_tree() {
    let service = service(8);
    assert_eq!(audited(&service.disk.contents()), Ok(10));
}

#[test]
fn damage_before_the_end_says_which_record() {
    let mut service = service(0);
    let name = log(&service.disk.contents(), 0);
    let mut starts = Vec::new();
    for number in 0_u8..6 {
        starts.push(service.disk.contents()[&name].len());
        service.put(&[&[number; 10]]).unwrap();
    }
    for (number, start) in (2..).zip(&starts[..5]) {
        for (offset, flaw) in [(3, Flaw::Head), (25, Flaw::Record), (340, Flaw::Record)] {
            let mut contents = service.disk.contents();
            contents.get_mut(&name).unwrap()[start + offset] ^= 4;
            let expected = LoadError::Altered {
                epoch: 0,
                index: number,
                name: name.clone(),
                offset: *start as u64,
                flaw,
            };
            assert_eq!(refused(&contents), expected);
        }
        // One frame taken out.
        let mut contents = service.disk.contents();
        let next = starts[number as usize - 1];
        contents.get_mut(&name).unwrap().drain(start..&next);
        assert!(matches!(
            refused(&contents),
            LoadError::Altered { index, flaw: Flaw::Index { found }, .. }
                if index == number && found == number + 1
        ));
    }
}

#[test]
fn a_truncated_log_says_how_many_records_are_gone() {
    let service = service(6); // snapshots at 5 and 8; files from 0, 5, 8
    let whole = service.disk.contents();
    // The newest file is gone.
    let mut contents = whole.clone();
    contents.remove(&log(&whole, 2));
    assert!(matches!(
        refused(&contents),
        LoadError::Missing { index: 8, .. }
    ));
    // And the snapshot does not open either.
    let snapshot = names(&whole, "snapshot-")[1].clone();
    let mut cut = contents.clone();
    cut.insert(snapshot, Vec::new());
    assert!(matches!(refused(&cut), LoadError::Missing { index: 8, .. }));
    // The file before it as well.
    contents.remove(&log(&whole, 1));
    assert_eq!(
        refused(&contents),
        LoadError::Truncated {
            log: 5,
            snapshot: 8
        }
    );
    // An older copy of the log with newer snapshots.
    let old = super::service(4).disk.contents();
    let mut contents = old.clone();
    for name in names(&whole, "snapshot-") {
        contents.insert(name.clone(), whole[&name].clone());
    }
    assert_eq!(
        refused(&contents),
        LoadError::Truncated {
            log: 6,
            snapshot: 8
        }
    );
    // A file in the middle is gone, or cut.
    let mut contents = whole.clone();
    contents.remove(&log(&whole, 1));
    assert!(matches!(
        refused(&contents),
        LoadError::Gap {
            expected: 5,
            found: Some(8),
            ..
        }
    ));
    let mut contents = whole.clone();
    let file = contents.get_mut(&log(&whole, 0)).unwrap();
    let found = file.len() as u64 - 1;
    file.truncate(found as usize);
    assert_eq!(
        refused(&contents),
        LoadError::Length {
            name: log(&whole, 0),
            expected: found + 1,
            found
        }
    );
    // All of it.
    let mut contents = whole.clone();
    contents.retain(|name, _| !name.starts_with("log-"));
    assert_eq!(refused(&contents), LoadError::NoLog { epoch: 0 });
}

#[test]
fn an_altered_snapshot_gives_way_to_the_one_before_and_then_to_the_whole_log() {
    let service = service(7); // snapshots at 5 and 8
    let whole = service.disk.contents();
    let snapshots = names(&whole, "snapshot-");
    let newest = whole[&snapshots[1]].len();
    for at in (0..newest).step_by(3).chain([newest - 1]) {
        let mut contents = whole.clone();
        contents.get_mut(&snapshots[1]).unwrap()[at] ^= 1;
        let found = find(&MemoryFiles::with(contents)).unwrap();
        let report = found.report().clone();
        let flaw = report.passed_over[0].1;
        // A length in clear that grew makes the file look unfinished.
        assert!(flaw == SnapshotFlaw::Altered || (81..85).contains(&at));
        assert_eq!((report.snapshot, report.passed_over[0].0), (Some(5), 8));
        let (opened, state) = open(found).unwrap();
        assert_eq!(state, service.state);
        assert_eq!(opened.ledger.head(), service.ledger.head());
    }
    let mut contents = whole.clone();
    for (name, cut) in snapshots.iter().zip([100, 0]) {
        contents.get_mut(name).unwrap().truncate(cut);
    }
    let found = find(&MemoryFiles::with(contents)).unwrap();
    let report = found.report().clone();
    assert_eq!(
        report.passed_over,
        [(8, SnapshotFlaw::Incomplete), (5, SnapshotFlaw::Incomplete)]
    );
    let (opened, state) = open(found).unwrap();
    assert_eq!((opened.report.snapshot, opened.report.replayed), (None, 7));
    assert_eq!(state, service.state);
}

#[test]
fn files_of_another_service_are_told_apart() {
    let (one, whole) = (service(4), service(4).disk.contents());
    let mut entropy = Seeded::new(99);
    let disk = MemoryFiles::new();
    let other = Secret::from_bytes([3; 32]);
    drop(Ledger::create(Box::new(disk.clone()), seal(), other, at(0), &mut entropy).unwrap());
    // The root file of one, the log of the other.
    let mut contents = whole.clone();
    contents.insert("root".into(), disk.contents()["root"].clone());
    assert!(matches!(refused(&contents), LoadError::OtherLog { .. }));
    let mut contents = disk.contents();
    contents.insert("root".into(), whole["root"].clone());
    assert!(matches!(refused(&contents), LoadError::OtherLog { .. }));
    // A file of another service with the same root secret: another capsule.
    let disk = MemoryFiles::new();
    let again = Ledger::create(Box::new(disk.clone()), seal(), root(), at(0), &mut entropy);
    assert_ne!(again.unwrap().capsule(), one.ledger.capsule());
    let mut contents = whole.clone();
    let name = names(&whole, "log-")[0].clone();
    contents.insert(name.clone(), disk.contents()[&name].clone());
    let error = refused(&contents);
    assert!(matches!(error, LoadError::Length { .. }), "{error}");
}

#[test]
fn a_record_by_another_key_is_refused() {
    use bield_capsule::ledger_file::{FileReader, Item, encode_frame};
    let mut service = service(2);
    let name = log(&service.disk.contents(), 0);
    let good = service.disk.contents()[&name].len();
    let record = service
        .ledger
        .seal(&[b"forge me"], at(2), &mut service.entropy)
        .unwrap();
    // The writer's signature replaced by another one; the frame around it is right.
    let mut bytes = record.as_bytes().to_vec();
    let signature_at = record.header_bytes().len();
    bytes[signature_at + 5] ^= 1;
    let forged = bield_capsule::Received::decode(bytes.clone()).unwrap();
    let mut frame = Vec::new();
    encode_frame(4, &bytes, &mut frame);
    service
        .disk
        .alter(&name, |file| file.extend_from_slice(&frame));
    assert!(matches!(
        refused(&service.disk.contents()),
        LoadError::Broken {
            index: 4,
            why: NotNext::Refused(_),
            ..
        }
    ));
    service.disk.alter(&name, |file| file.truncate(good));
    // Nor is it taken from a peer.
    assert!(matches!(
        service.ledger.commit(&forged),
        Err(LedgerError::Reserved { .. } | LedgerError::Refused(_))
    ));
    let mut peer = load(&MemoryFiles::with(service.disk.contents())).unwrap();
    assert!(matches!(
        peer.ledger.commit(&forged),
        Err(LedgerError::Refused(_))
    ));
    assert!(peer.ledger.catch_up(vec![forged]).is_err());
    assert!(peer.ledger.catch_up(vec![record]).is_ok());
    // A record that stands twice.
    let mut reader = FileReader::new();
    reader.push(&service.disk.contents()[&name]);
    let mut last = Vec::new();
    loop {
        match reader.next_item() {
            Item::Record { record, .. } => last = record,
            Item::Head(_) => {}
            Item::Wants => break,
        }
    }
    let mut frame = Vec::new();
    encode_frame(4, &last, &mut frame);
    service
        .disk
        .alter(&name, |file| file.extend_from_slice(&frame));
    assert!(matches!(
        refused(&service.disk.contents()),
        LoadError::Broken { index: 4, .. }
    ));
}

#[test]
fn a_state_machine_that_refuses_an_entry_ends_the_start() {
    let service = service(1);
    let found = find(&service.disk).unwrap();
    let refused = found.replay(&mut |_| Err("no such operation".into()));
    assert!(matches!(
        refused.map(|_| ()),
        Err(LoadError::NotApplied {
            epoch: 0,
            index: 2,
            ..
        })
    ));
}
