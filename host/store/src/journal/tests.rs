//! What a journal promises, against a list of byte strings.

use std::ops::ControlFlow;

use super::*;
use crate::disk::{Disk, Fault, Faulty, Files, Operation, Survival};

mod copies;
mod crash;
mod damage;
mod kill;
mod measure;
mod objects;

const CAPSULE: [u8; 32] = [7; 32];

type Records = Vec<Vec<u8>>;

/// Segments of a few records, so that short scripts roll.
const SMALL: Options = Options {
    mode: Mode::Own,
    acknowledged: 0,
    known: 0,
    segment_bytes: 300,
};

const LARGE: Options = Options {
    segment_bytes: 64 << 20,
    ..SMALL
};

/// Record `n`: every one differs from every other in length or content.
fn record(n: u64) -> Vec<u8> {
    let length = 1 + (n * 37 % 90) as usize;
    n.to_be_bytes()
        .into_iter()
        .cycle()
        .skip(7)
        .take(length)
        .collect()
}

fn records(range: Range<u64>) -> Records {
    range.map(record).collect()
}

fn borrowed(records: &[Vec<u8>]) -> Vec<&[u8]> {
    records.iter().map(Vec::as_slice).collect()
}

/// Opens a journal; returns it with all records that opening showed.
fn open<D: Disk>(disk: D, options: Options) -> Result<(SegmentJournal<D>, Records), JournalError> {
    let mut shown = Vec::new();
    let journal = SegmentJournal::open(disk, CAPSULE, options, &mut |index, record: &[u8]| {
        assert_eq!(index, options.known + shown.len() as u64);
        shown.push(record.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok((journal, shown))
}

fn replayed(journal: &dyn Journal) -> Records {
    let mut all = Vec::new();
    journal
        .replay(&mut |index, record| {
            assert_eq!(index, all.len() as u64);
            all.push(record.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    all
}

#[test]
fn records_come_back_in_order_after_reopening() {
    let home = tempfile::tempdir().unwrap();
    let written = records(0..500);
    for options in [SMALL, LARGE] {
        let path = home.path().join(options.segment_bytes.to_string());
        let (mut journal, _) = open(Files::own(&path).unwrap(), options).unwrap();
        for (group, first) in written.chunks(7).zip((0..).step_by(7)) {
            assert_eq!(journal.append(&borrowed(group)).unwrap(), first);
            assert_eq!(journal.record(first).unwrap(), record(first));
        }
        assert!(journal.synced() < journal.len());
        journal.sync().unwrap();
        assert_eq!(journal.synced(), 500);
        assert_eq!(replayed(&journal), written);
        assert_eq!(
            journal.scrub().unwrap(),
            Scrub {
                intact: 500,
                damage: vec![]
            }
        );
        let bytes = journal.bytes();
        drop(journal);

        let (journal, shown) = open(Files::own(&path).unwrap(), options).unwrap();
        assert_eq!(shown, written);
        assert_eq!(
            (journal.len(), journal.synced(), journal.bytes()),
            (500, 500, bytes)
        );
        assert_eq!(
            journal.recovered(),
            &Recovered {
                records: 500,
                ..Recovered::default()
            }
        );
        for index in 0..500 {
            assert_eq!(journal.record_bytes(index), Some(record(index).len()));
        }
        assert_eq!(journal.record_bytes(500), None);
        Box::new(journal).remove().unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn a_range_is_read_until_the_reader_has_enough() {
    let (mut journal, _) = open(Faulty::default(), SMALL).unwrap();
    journal.append(&borrowed(&records(0..50))).unwrap();
    for (from, until, enough) in [
        (0, 50, 50),
        (3, 41, 50),
        (9, 9, 50),
        (10, 50, 4),
        (49, 50, 1),
    ] {
        let mut got = Vec::new();
        journal
            .read(from..until, &mut |index, record| {
                got.push((index, record.to_vec()));
                if got.len() == enough {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        let wanted: Vec<_> = (from..until).take(enough).map(|n| (n, record(n))).collect();
        assert_eq!(got, wanted);
    }
    let error = journal.record(50).unwrap_err();
    assert!(matches!(error, JournalError::Absent { index: 50, len: 50 }));
}

#[test]
fn a_group_is_one_write_and_one_sync() {
    let disk = Faulty::default();
    let (mut journal, _) = open(disk.clone(), LARGE).unwrap();
    journal.append(&[b"first"]).unwrap();
    journal.sync().unwrap();
    let before = disk.operations().len();
    journal.append(&borrowed(&records(1..100))).unwrap();
    journal.sync().unwrap();
    journal.sync().unwrap();
    let after = &disk.operations()[before..];
    assert!(
        matches!(after, [Operation::Write { .. }, Operation::SyncData]),
        "{after:?}"
    );
}

#[test]
fn a_small_capsule_stays_small_on_disk() {
    let disk = Faulty::default();
    let (mut journal, _) = open(disk.clone(), LARGE).unwrap();
    let mut lengths = Vec::new();
    for _ in 0..200 {
        journal.append(&[&[1; 10_000]]).unwrap();
        let length = disk.contents("00000000000000000000.segment").unwrap().len();
        assert!(length as u64 <= 2 * journal.bytes() + (512 << 10));
        lengths.push(length);
    }
    assert_eq!(lengths[0], 256 << 10);
    lengths.dedup();
    assert!(lengths.len() <= 5, "{lengths:?}");
}

#[test]
fn records_out_of_bounds_are_refused_and_harm_nothing() {
    let (mut journal, _) = open(Faulty::default(), LARGE).unwrap();
    let long = vec![1; FRAME_BYTES_MAX + 1];
    for bad in [&b""[..], &long] {
        let error = journal.append(&[b"good", bad]).unwrap_err();
        assert!(matches!(error, JournalError::Record { position: 1, .. }));
        assert!(journal.is_empty());
    }
    assert_eq!(journal.append(&[]).unwrap(), 0);
    assert_eq!(journal.append(&[&long[1..], b"next"]).unwrap(), 0);
    assert_eq!(journal.record(0).unwrap(), long[1..]);
}

#[test]
fn known_segments_are_opened_from_their_seals() {
    let disk = Faulty::default();
    let (mut journal, _) = open(disk.clone(), SMALL).unwrap();
    journal.append(&borrowed(&records(0..60))).unwrap();
    journal.sync().unwrap();
    drop(journal);

    let read = |disk: &Faulty| -> usize {
        let bytes = |operation: &Operation| match operation {
            Operation::Read { bytes, .. } => *bytes,
            _ => 0,
        };
        disk.operations().iter().map(bytes).sum()
    };
    let all = disk.copy();
    open(all.clone(), SMALL).unwrap();
    let some = disk.copy();
    let (journal, shown) = open(some.clone(), Options { known: 50, ..SMALL }).unwrap();
    assert_eq!(shown, records(50..60));
    assert!(
        read(&some) < read(&all) / 2,
        "{} of {}",
        read(&some),
        read(&all)
    );
    assert_eq!(replayed(&journal), records(0..60));
    assert_eq!(journal.scrub().unwrap().intact, 60);
}

#[test]
fn another_capsules_files_are_refused() {
    let disk = Faulty::default();
    let (mut journal, _) = open(disk.clone(), SMALL).unwrap();
    journal.append(&[b"a"]).unwrap();
    let other = SegmentJournal::open(disk, [8; 32], SMALL, &mut |_, _| unreachable!());
    assert!(matches!(other, Err(JournalError::Foreign { .. })));
}

#[test]
fn a_journal_shorter_than_acknowledged_is_refused_and_left_as_it_is() {
    let disk = Faulty::default();
    let (mut journal, _) = open(disk.clone(), LARGE).unwrap();
    journal.append(&borrowed(&records(0..9))).unwrap();
    journal.sync().unwrap();
    // Rot in the last synced group looks like a torn tail to the file itself.
    let name = "00000000000000000000.segment";
    disk.tamper(name, |bytes| bytes[70] ^= 1);
    let before = disk.contents(name);
    let options = Options {
        acknowledged: 9,
        ..LARGE
    };
    let error = open(disk.clone(), options).unwrap_err();
    assert!(matches!(
        error,
        JournalError::Shortened {
            len: 0,
            acknowledged: 9
        }
    ));
    assert_eq!(disk.contents(name), before);
    // Without that knowledge it is cut, and says so.
    let (journal, shown) = open(disk, LARGE).unwrap();
    assert_eq!(shown, Records::new());
    assert!(journal.recovered().cut_bytes > 0);
}
