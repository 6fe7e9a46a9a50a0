//! Rot: every byte of every file, and what is left when something is gone.

use super::*;

/// Two sealed segments and an open one, in groups of two.
fn three_segments() -> (Faulty, SegmentJournal<Faulty>, Records) {
    let disk = Faulty::default();
    let (mut journal, _) = open(disk.clone(), SMALL).unwrap();
    let mut written = Records::new();
    while journal.segments() < 3 || !written.len().is_multiple_of(4) {
        let from = written.len() as u64;
        let group = records(from..from + 2);
        journal.append(&borrowed(&group)).unwrap();
        journal.sync().unwrap();
        written.extend(group);
    }
    (disk, journal, written)
}

fn name(number: u64) -> String {
    format!("{number:020}.segment")
}

#[test]
fn every_flipped_byte_is_found_by_scrub_and_never_read() {
    let (disk, journal, written) = three_segments();
    assert_eq!(
        journal.scrub().unwrap(),
        Scrub {
            intact: written.len() as u64,
            damage: vec![]
        }
    );
    for number in 0..3 {
        let name = name(number);
        let bytes = disk.contents(&name).unwrap().len();
        for at in 0..bytes {
            disk.tamper(&name, |bytes| bytes[at] ^= 0x20);
            let found = journal.scrub().unwrap();
            assert!(!found.damage.is_empty(), "segment {number} byte {at}");
            assert!(found.damage.iter().all(|damage| damage.segment == number));

            let mut seen = Records::new();
            let read = journal.replay(&mut |_, record| {
                seen.push(record.to_vec());
                ControlFlow::Continue(())
            });
            assert!(written.starts_with(&seen));
            assert_eq!(read.is_ok(), seen.len() == written.len());

            let copy = disk.copy();
            match open(copy.clone(), SMALL) {
                Ok((journal, seen)) => {
                    // Only the last segment has a tail that may be torn.
                    assert_eq!(number, 2, "byte {at}");
                    assert!(written.starts_with(&seen));
                    assert!(
                        seen.len() < written.len() || journal.recovered().cut_bytes > 0,
                        "byte {at}"
                    );
                }
                Err(JournalError::Damaged(damage)) => assert_eq!(damage.segment, number),
                Err(error) => panic!("segment {number} byte {at}: {error}"),
            }
            disk.tamper(&name, |bytes| bytes[at] ^= 0x20);
        }
    }
}

#[test]
fn damage_in_the_middle_is_refused_with_its_place_and_changes_nothing() {
    let (disk, journal, _) = three_segments();
    drop(journal);
    let before = disk.contents(&name(0)).unwrap();
    disk.tamper(&name(0), |bytes| bytes[90] ^= 1);
    let error = open(disk.clone(), SMALL).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("segment 0 is damaged at byte"), "{text}");
    assert!(
        text.contains("copy this capsule from another replica"),
        "{text}"
    );
    disk.tamper(&name(0), |bytes| bytes[90] ^= 1);
    assert_eq!(disk.contents(&name(0)).unwrap(), before);
    open(disk, SMALL).unwrap();
}

#[test]
fn salvage_reads_around_damage_and_writes_nothing() {
    let (disk, journal, written) = three_segments();
    drop(journal);
    disk.tamper(&name(0), |bytes| bytes[90] ^= 1);
    disk.tamper(&name(1), |bytes| bytes[3] ^= 1);
    let options = Options {
        mode: Mode::Salvage,
        ..SMALL
    };
    let mut seen = Vec::new();
    let mut journal = SegmentJournal::open(disk.clone(), CAPSULE, options, &mut |index, record| {
        seen.push((index, record.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    let places: Vec<_> = journal
        .recovered()
        .damage
        .iter()
        .map(|damage| (damage.segment, damage.what))
        .collect();
    assert!(
        matches!(
            places[..],
            [(0, Damaged::Frame(_)), (1, Damaged::Header), ..]
        ),
        "{places:?}"
    );
    assert!(seen.len() > 3);
    for (index, record) in &seen {
        assert_eq!(record, &written[*index as usize]);
        assert_eq!(journal.record(*index).unwrap(), *record);
    }
    for index in 0..written.len() as u64 {
        let shown = seen.iter().any(|(there, _)| *there == index);
        assert_eq!(journal.record(index).is_ok(), shown, "{index}");
    }
    assert!(matches!(
        journal.append(&[b"x"]),
        Err(JournalError::ReadOnly)
    ));
    assert!(matches!(journal.sync(), Err(JournalError::ReadOnly)));
    assert!(matches!(
        Box::new(journal).remove(),
        Err(JournalError::ReadOnly)
    ));
    let wrote = |operation: &Operation| {
        !matches!(
            operation,
            Operation::List | Operation::Open(_) | Operation::Size | Operation::Read { .. }
        )
    };
    let copy = disk.copy();
    let all = &mut |_, _: &[u8]| ControlFlow::Continue(());
    SegmentJournal::open(copy.clone(), CAPSULE, options, all).unwrap();
    assert!(!copy.operations().iter().any(wrote));
}

#[test]
fn a_missing_segment_is_damage() {
    for gone in 0..2 {
        let (disk, journal, written) = three_segments();
        disk.remove(&name(gone)).unwrap();
        let found = journal.scrub().unwrap();
        assert!(matches!(
            found.damage[..],
            [Damage {
                what: Damaged::Gone,
                ..
            }]
        ));
        let error = open(disk.clone(), SMALL).unwrap_err();
        assert!(
            matches!(&error, JournalError::Damaged(damage) if damage.segment == gone && damage.what == Damaged::Gone)
        );
        let acknowledged = written.len() as u64;
        disk.remove(&name(2)).unwrap();
        let options = Options {
            acknowledged,
            ..SMALL
        };
        assert!(open(disk, options).is_err());
    }
}

#[test]
fn a_sealed_segment_without_its_seal_is_damage_when_another_follows() {
    let (disk, journal, _) = three_segments();
    drop(journal);
    let bytes = disk.contents(&name(0)).unwrap();
    let seal = u32::from_be_bytes(*bytes.last_chunk().unwrap());
    disk.tamper(&name(0), |bytes| bytes.truncate(seal as usize));
    let error = open(disk, SMALL).unwrap_err();
    assert!(matches!(
        error,
        JournalError::Damaged(Damage {
            what: Damaged::Cut,
            segment: 0,
            ..
        })
    ));
}
