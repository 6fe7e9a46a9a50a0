//! Power cuts, failing operations and full disks, at every operation and every byte.

use proptest::prelude::*;

use super::*;

/// What a script had done when it ended.
#[derive(Debug, Default)]
struct Done {
    appended: Records,
    synced: usize,
}

impl Done {
    fn append(&mut self, journal: &mut impl Journal, count: u64) -> Result<(), JournalError> {
        let from = self.appended.len() as u64;
        let group = records(from..from + count);
        // Even a group that failed may be found later.
        self.appended.extend(group.iter().cloned());
        let first = journal.append(&borrowed(&group))?;
        assert_eq!(first, from);
        Ok(())
    }

    fn sync(&mut self, journal: &mut impl Journal) -> Result<(), JournalError> {
        journal.sync()?;
        self.synced = self.appended.len();
        Ok(())
    }

    /// Everything synced is there, and what is there is a prefix of what was appended.
    fn check(&self, found: &[Vec<u8>]) {
        assert!(
            found.len() >= self.synced,
            "{} of {} synced",
            found.len(),
            self.synced
        );
        assert!(self.appended.starts_with(found));
    }
}

/// Opens, appends, syncs, rolls over several segments, reopens.
fn script(disk: &Faulty, done: &mut Done) -> Result<(), JournalError> {
    let (mut journal, _) = open(disk.clone(), SMALL)?;
    done.append(&mut journal, 1)?;
    done.sync(&mut journal)?;
    done.append(&mut journal, 2)?;
    done.append(&mut journal, 1)?;
    done.sync(&mut journal)?;
    done.append(&mut journal, 9)?;
    done.sync(&mut journal)?;
    drop(journal);
    let (mut journal, found) = open(disk.clone(), SMALL)?;
    done.check(&found);
    done.append(&mut journal, 3)?;
    done.sync(&mut journal)?;
    done.append(&mut journal, 1)?;
    let mut read = 0;
    journal.replay(&mut |index, bytes| {
        assert_eq!(bytes, done.appended[index as usize]);
        read += 1;
        ControlFlow::Continue(())
    })?;
    assert_eq!(read, done.appended.len());
    Ok(())
}

fn operations_of_script() -> usize {
    let disk = Faulty::default();
    script(&disk, &mut Done::default()).unwrap();
    disk.operations().len()
}

/// Opens what a crash left, checks it, goes on, and checks again.
fn survive(disk: &Faulty, done: &Done) {
    let (mut journal, found) = open(disk.clone(), SMALL).unwrap();
    done.check(&found);
    assert_eq!(replayed(&journal), found);
    assert_eq!(
        journal.scrub().unwrap(),
        Scrub {
            intact: found.len() as u64,
            damage: vec![]
        }
    );
    let mut after = Done {
        synced: found.len(),
        appended: found,
    };
    after.append(&mut journal, 2).unwrap();
    after.sync(&mut journal).unwrap();
    drop(journal);
    let disk = disk.restart(Survival::Nothing);
    let (_, found) = open(disk, SMALL).unwrap();
    assert_eq!(found, after.appended);
}

fn survivals(disk: &Faulty) -> Vec<Survival> {
    let mut survivals = vec![Survival::Process, Survival::Everything, Survival::Nothing];
    survivals.extend((0..30).map(Survival::Seed));
    if let Some(Operation::Write { bytes, .. }) = disk.operations().iter().rev().nth(1) {
        survivals.extend((0..*bytes).map(Survival::TornLast));
    }
    survivals
}

#[test]
fn a_crash_at_any_operation_and_any_byte_loses_nothing_synced() {
    let operations = operations_of_script();
    assert!(
        operations > 60,
        "the script rolls and reopens: {operations}"
    );
    for at in 0..operations {
        let disk = Faulty::default();
        disk.plan(at, Fault::Crash);
        let mut done = Done::default();
        script(&disk, &mut done).unwrap_err();
        for survival in survivals(&disk) {
            survive(&disk.copy().restart(survival), &done);
        }
    }
}

#[test]
fn a_crash_during_recovery_loses_nothing_synced() {
    let operations = operations_of_script();
    for at in 0..operations {
        let disk = Faulty::default();
        disk.plan(at, Fault::Crash);
        let mut done = Done::default();
        script(&disk, &mut done).unwrap_err();
        for seed in 0..4 {
            for again in 0.. {
                let disk = disk.copy().restart(Survival::Seed(seed));
                let before = disk.operations().len();
                disk.plan(before + again, Fault::Crash);
                if open(disk.clone(), SMALL).is_ok() {
                    break;
                }
                survive(&disk.restart(Survival::Seed(seed + 100)), &done);
            }
        }
    }
}

#[test]
fn an_error_at_any_operation_surfaces_and_loses_nothing_synced() {
    for at in 0..operations_of_script() {
        let disk = Faulty::default();
        disk.plan(at, Fault::Io);
        let mut done = Done::default();
        let error = script(&disk, &mut done).unwrap_err();
        assert!(
            matches!(error, JournalError::Failing { .. }),
            "{at}: {error}"
        );
        for survival in survivals(&disk) {
            survive(&disk.copy().restart(survival), &done);
        }
    }
}

#[test]
fn a_full_disk_surfaces_and_loses_nothing_synced() {
    let mut refused = 0;
    for at in 0..operations_of_script() {
        let disk = Faulty::default();
        disk.plan(at, Fault::NoSpace);
        let mut done = Done::default();
        match script(&disk, &mut done) {
            Ok(()) => continue,
            Err(JournalError::NoSpace | JournalError::Failing { .. }) => refused += 1,
            Err(error) => panic!("{at}: {error}"),
        }
        for survival in survivals(&disk) {
            survive(&disk.copy().restart(survival), &done);
        }
    }
    assert!(refused > 10);
}

#[test]
fn without_a_file_to_open_the_same_journal_goes_on_once_there_is_one() {
    let mut went_on = 0;
    for at in 0..60 {
        let disk = Faulty::default();
        let (mut journal, _) = open(disk.clone(), SMALL).unwrap();
        disk.plan(at, Fault::NoFiles);
        for n in 0..12 {
            let mut done = journal.append(&[&record(n)]);
            if matches!(done, Err(JournalError::NoSpace)) {
                assert_eq!(journal.len(), n);
                went_on += 1;
                done = journal.append(&[&record(n)]);
            }
            assert!(done.is_ok(), "{at}: {done:?}");
        }
        journal.sync().unwrap();
    }
    assert!(went_on > 0, "no file was lacking");
}

#[test]
fn after_a_full_disk_the_same_journal_goes_on() {
    let mut went_on = 0;
    for at in 0..40 {
        let disk = Faulty::default();
        disk.plan(at, Fault::NoSpace);
        let (mut journal, _) = open(disk.clone(), SMALL).unwrap();
        let mut written = Records::new();
        for n in 0..12 {
            let mut done = journal.append(&[&record(n)]);
            if matches!(done, Err(JournalError::NoSpace)) {
                assert_eq!(journal.len(), n);
                went_on += 1;
                done = journal.append(&[&record(n)]);
            }
            if done.is_err() {
                break;
            }
            written.push(record(n));
        }
        if journal.sync().is_ok() {
            assert_eq!(written.len(), 12);
            assert_eq!(
                open(disk.restart(Survival::Nothing), SMALL).unwrap().1,
                written
            );
        }
    }
    assert!(went_on > 4, "{went_on}");
}

#[test]
fn short_reads_and_writes_go_unnoticed() {
    for at in 0..operations_of_script() {
        let disk = Faulty::default();
        disk.plan(at, Fault::Short(at % 5));
        let mut done = Done::default();
        let mut ended = script(&disk, &mut done);
        assert!(ended.is_ok(), "{at}: {ended:?}");
        // All at once: every operation of the disk is short.
        let disk = Faulty::default();
        (0..10_000).for_each(|at| disk.plan(at, Fault::Short(7)));
        ended = script(&disk, &mut Done::default());
        assert!(ended.is_ok() && at < 10_000);
        survive(&disk.restart(Survival::Process), &done);
    }
}

#[test]
fn after_a_failed_sync_the_journal_refuses_everything_until_reopened() {
    let disk = Faulty::default();
    let (mut journal, _) = open(disk.clone(), LARGE).unwrap();
    journal.append(&[b"kept"]).unwrap();
    journal.sync().unwrap();
    journal.append(&[b"lost"]).unwrap();
    disk.plan(disk.operations().len(), Fault::Io);
    let error = journal.sync().unwrap_err();
    assert!(matches!(
        error,
        JournalError::Failing {
            doing: "syncing",
            ..
        }
    ));
    disk.plan_nothing();
    assert!(matches!(journal.sync(), Err(JournalError::Stopped)));
    assert!(matches!(
        journal.append(&[b"more"]),
        Err(JournalError::Stopped)
    ));
    assert_eq!((journal.len(), journal.synced()), (2, 1));
    // The system still shows the record from memory, but the device never got it.
    let (_, found) = open(disk.clone(), LARGE).unwrap();
    assert_eq!(found, [b"kept"]);
    let (_, found) = open(disk.restart(Survival::Nothing), LARGE).unwrap();
    assert_eq!(found, [b"kept"]);
}

#[test]
fn an_intact_record_behind_a_cut_never_returns() {
    // One group of equal records: the first is torn, the second arrived.
    let disk = Faulty::default();
    let (mut journal, _) = open(disk.clone(), LARGE).unwrap();
    journal.append(&[b"aaaa", b"bbbb", b"cccc"]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    disk.tamper("00000000000000000000.segment", |bytes| {
        bytes[65 + 24 + 20] ^= 1
    });
    let (mut journal, found) = open(disk.clone(), LARGE).unwrap();
    assert_eq!(found, [b"aaaa"]);
    assert_eq!(journal.recovered().cut_bytes, 48);
    journal.append(&[b"dddd"]).unwrap();
    journal.sync().unwrap();
    let (_, found) = open(disk.restart(Survival::Nothing), LARGE).unwrap();
    assert_eq!(found, [b"aaaa", b"dddd"]);
}

#[test]
fn a_cut_lasts_before_anything_is_written_behind_it() {
    for seed in 0..300 {
        let disk = Faulty::default();
        let (mut journal, _) = open(disk.clone(), SMALL).unwrap();
        journal.append(&[b"aaaa", b"bbbb", b"cccc"]).unwrap();
        journal.sync().unwrap();
        drop(journal);
        disk.tamper("00000000000000000000.segment", |bytes| {
            bytes[65 + 24 + 20] ^= 1
        });
        let (mut journal, _) = open(disk.clone(), SMALL).unwrap();
        journal.append(&[b"dddd"]).unwrap();
        let (_, found) = open(disk.restart(Survival::Seed(seed)), SMALL).unwrap();
        let appended: [&[u8]; 2] = [b"aaaa", b"dddd"];
        assert!(
            appended[..found.len().min(2)] == borrowed(&found),
            "{found:?}"
        );
    }
}

#[test]
fn a_removal_cut_short_is_completed() {
    let full = Faulty::default();
    let mut done = Done::default();
    script(&full, &mut done).unwrap();
    let full = full.restart(Survival::Everything);
    let mut outcomes = [0, 0];
    for at in 0.. {
        let disk = full.copy();
        let (journal, all) = open(disk.clone(), SMALL).unwrap();
        disk.plan(disk.operations().len() + at, Fault::Crash);
        if Box::new(journal).remove().is_ok() {
            break;
        }
        for seed in 0..20 {
            let (_, found) = open(disk.copy().restart(Survival::Seed(seed)), SMALL).unwrap();
            assert!(found.is_empty() || found == all, "{at}");
            outcomes[usize::from(found.is_empty())] += 1;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 10), "{outcomes:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Append(u64),
    Sync,
    Reopen,
    Crash(Survival),
    /// This many operations later, this goes wrong.
    Plan(usize, Fault),
}

fn step() -> impl Strategy<Value = Step> {
    let survival = prop_oneof![
        Just(Survival::Process),
        Just(Survival::Everything),
        Just(Survival::Nothing),
        (0..200_usize).prop_map(Survival::TornLast),
        any::<u64>().prop_map(Survival::Seed),
    ];
    let fault = prop_oneof![
        Just(Fault::Io),
        Just(Fault::NoSpace),
        Just(Fault::Crash),
        (0..50_usize).prop_map(Fault::Short)
    ];
    prop_oneof![
        8 => (1..8_u64).prop_map(Step::Append),
        4 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        2 => survival.prop_map(Step::Crash),
        1 => (0..12_usize, fault).prop_map(|(later, fault)| Step::Plan(later, fault)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_sequence_keeps_what_was_synced_and_alters_nothing(
        steps in proptest::collection::vec(step(), 1..40),
        segment_bytes in 100..2000_u32,
    ) {
        let options = Options { segment_bytes, ..SMALL };
        let mut disk = Faulty::default();
        let (mut journal, _) = open(disk.clone(), options).unwrap();
        let mut done = Done::default();
        for step in steps {
            let ended = match step {
                Step::Append(count) => done.append(&mut journal, count),
                Step::Sync => done.sync(&mut journal),
                Step::Reopen => {
                    disk.plan_nothing();
                    Err(JournalError::Stopped)
                }
                Step::Crash(survival) => {
                    disk = disk.restart(survival);
                    Err(JournalError::Stopped)
                }
                Step::Plan(later, fault) => {
                    disk.plan(disk.operations().len() + later, fault);
                    Ok(())
                }
            };
            match ended {
                Ok(()) => continue,
                // Nothing was written: the owner may go on, or, as here, start over.
                Err(_) => disk = disk.restart(Survival::Process),
            }
            let (opened, found) = open(disk.clone(), options).unwrap();
            done.check(&found);
            prop_assert_eq!(replayed(&opened), found.clone());
            journal = opened;
            done = Done { synced: 0, appended: found };
            // What opening showed lasts: it is synced before it is shown.
            done.synced = done.appended.len();
        }
    }
}
