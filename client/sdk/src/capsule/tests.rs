//! The client among replicas that are dead, slow, forgetful, or lie.

mod fake;

use std::time::{Duration, Instant};

use bield_capsule::{Durability, Suite};
use tempfile::TempDir;

use super::*;
use crate::Home;
use fake::{Fake, Mode};

/// Three replicas, a home, a capsule that needs two of them.
struct Stage {
    directory: TempDir,
    fakes: Vec<Fake>,
    capsule: CapsuleHome,
}

const TWO: Durability = Durability::Replicated(2);

fn options(fakes: &[Fake]) -> CreateOptions {
    CreateOptions {
        label: Some("test".to_owned()),
        suite: Suite::Ed25519,
        replicas: fakes.iter().map(|fake| fake.url.clone()).collect(),
        quorum: Some(2),
        certifiers: Vec::new(),
        witnesses: Vec::new(),
        witness_quorum: 0,
    }
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fakes: Vec<_> = (1..=3).map(Fake::start).collect();
        let home = Home::at(directory.path().join("home"));
        let log = Log::create(&home, &options(&fakes)).unwrap();
        let capsule = log.home().clone();
        Self {
            directory,
            fakes,
            capsule,
        }
    }

    fn open(&self) -> Log {
        Log::open(self.capsule.clone()).unwrap()
    }

    fn try_append(&self, entry: &str) -> Result<Finished, LogError> {
        let mut log = self.open();
        let appender = log.appender(quick())?;
        appender.append(entry.as_bytes()).unwrap();
        let finished = appender.finish(TWO)?;
        Ok(finished)
    }

    fn append(&self, entry: &str) -> Finished {
        self.try_append(entry).unwrap()
    }

    fn read(&self) -> Result<Vec<String>, LogError> {
        let log = self.open();
        let mut found = Vec::new();
        for applied in log.read(ReadOptions::default()) {
            let applied = applied?;
            if applied.record().header().count > 0 {
                let entries = log.read_entries(&applied)?;
                found.extend(
                    entries
                        .iter()
                        .map(|entry| String::from_utf8(entry.plain().unwrap().to_vec()).unwrap()),
                );
            }
        }
        Ok(found)
    }
}

fn quick() -> AppenderOptions {
    AppenderOptions {
        patience: Duration::from_millis(300),
        ..AppenderOptions::default()
    }
}

#[test]
fn what_was_appended_is_read_and_a_receipt_proves_who_keeps_it() {
    let stage = Stage::new();
    let finished = stage.append("one");
    stage.append("two");
    assert_eq!(stage.read().unwrap(), ["one", "two"]);
    let log = stage.open();
    let (receipt, proven) = log.receipt(&finished.newest.unwrap()).unwrap();
    assert!(proven.synced() >= 2);
    let file = stage.directory.path().join("receipt");
    std::fs::write(&file, receipt.encode()).unwrap();
    let options = AuditOptions {
        name: Some(log.metadata().name()),
        ..AuditOptions::default()
    };
    let audits = audit(&file, &options, &mut |_| {}).unwrap();
    assert!(audits[0].passed(), "{audits:?}");
}

#[test]
fn a_dead_replica_holds_nothing_up_and_is_named() {
    let stage = Stage::new();
    stage.fakes[1].set(Mode::Dead);
    let finished = stage.append("one");
    let dead = &finished.sinks[1];
    assert!(
        finished.sinks.iter().any(|sink| {
            sink.name == stage.fakes[1].url && matches!(sink.health, Health::Down(_))
        }),
        "{dead:?}"
    );
    assert_eq!(stage.read().unwrap(), ["one"]);
}

#[test]
fn a_slow_replica_does_not_delay_the_quorum() {
    let stage = Stage::new();
    let mut log = stage.open();
    let appender = log.appender(quick()).unwrap();
    stage.fakes[2].set(Mode::Slow(3000));
    let began = Instant::now();
    for n in 0..50 {
        let ticket = appender.append(format!("{n}").as_bytes()).unwrap();
        appender.wait(ticket, TWO).unwrap();
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn forged_and_invented_acknowledgements_make_nothing_durable_and_name_the_liar() {
    for mode in [Mode::Forges, Mode::Invents] {
        let stage = Stage::new();
        stage.fakes[0].set(mode);
        stage.append("two honest replicas are enough");
        stage.fakes[1].set(mode);
        let error = stage.try_append("one is not").unwrap_err();
        assert_eq!(error.kind(), crate::Kind::Unreachable);
        let text = error.to_string();
        assert!(text.contains("does not verify"), "{text}");
        assert!(text.contains(&stage.fakes[1].url), "{text}");
    }
}

#[test]
fn a_replayed_answer_is_a_lie_and_does_not_count() {
    let stage = Stage::new();
    stage.append("one");
    for fake in &stage.fakes[..2] {
        fake.set(Mode::Replays);
    }
    drop(stage.open());
    let log = stage.open();
    assert!(!log.is_fresh());
    assert_eq!(
        log.silent().iter().filter(|error| error.is_lie()).count(),
        2
    );
    assert!(matches!(
        stage.try_append("two"),
        Err(LogError::TooFewAnswers {
            got: 1,
            need: 2,
            ..
        })
    ));
}

#[test]
fn an_altered_record_costs_a_question_to_another_replica() {
    let stage = Stage::new();
    stage.append("one");
    for fake in &stage.fakes[..2] {
        fake.set(Mode::Alters);
    }
    assert_eq!(stage.read().unwrap(), ["one"]);
    stage.fakes[2].set(Mode::Alters);
    let error = stage.read().unwrap_err();
    assert!(matches!(error, LogError::Withheld { .. }), "{error}");
    assert!(
        error.to_string().contains("signature does not verify"),
        "{error}"
    );
}

#[test]
fn records_that_are_named_but_not_given_out_are_an_error_not_silence() {
    let stage = Stage::new();
    stage.append("one");
    stage.fakes[0].set(Mode::Withholds);
    assert_eq!(stage.read().unwrap(), ["one"]);
    for fake in &stage.fakes {
        fake.set(Mode::Withholds);
    }
    assert!(matches!(stage.read(), Err(LogError::Withheld { .. })));
    // Going on from an older record could fork the chain.
    assert!(stage.try_append("two").is_err());
}

#[test]
fn a_rollback_of_all_replicas_is_noticed_before_anything_is_written() {
    let stage = Stage::new();
    stage.append("one");
    stage.append("two");
    for fake in &stage.fakes {
        fake.roll_back(1);
    }
    let before = stage.fakes[0].records();
    let error = stage.try_append("three").unwrap_err();
    assert!(matches!(error, LogError::RolledBack { .. }), "{error}");
    assert_eq!(stage.fakes[0].records(), before);
}

#[test]
fn less_than_a_reader_saw_of_another_writer_is_a_rollback() {
    let stage = Stage::new();
    stage.append("one");
    let other = Home::at(stage.directory.path().join("reader"));
    let urls: Vec<_> = stage.fakes.iter().map(|fake| fake.url.clone()).collect();
    let log = Log::adopt(&other, &stage.capsule.name(), &urls, false).unwrap();
    let mut reader = log.read(ReadOptions::default());
    assert!(reader.by_ref().all(|read| read.is_ok()));
    reader.remember().unwrap();
    stage.fakes[0].roll_back(1);
    let reopened = Log::open(log.home().clone()).unwrap();
    assert_eq!(reopened.losses(), [], "others still have it");
    for fake in &stage.fakes[1..] {
        fake.roll_back(1);
    }
    let reopened = Log::open(log.home().clone()).unwrap();
    assert!(matches!(
        reopened.need_whole(),
        Err(LogError::RolledBack { seen: 1, .. })
    ));
    assert!(reopened.export(&mut Vec::new(), &mut |_, _| {}).is_err());
}

#[test]
fn an_address_of_this_machine_that_nobody_typed_is_asked_only_when_allowed() {
    let stage = Stage::new();
    let urls = [stage.fakes[0].url.clone()];
    let home = |name| Home::at(stage.directory.path().join(name));
    let name = stage.capsule.name();
    let log = Log::adopt(&home("strict"), &name, &urls, false).unwrap();
    assert!(!log.is_fresh());
    assert!(matches!(
        log.silent(),
        [ReplicaError::NotAsked { .. }, ReplicaError::NotAsked { .. }]
    ));
    let log = Log::adopt(&home("open"), &name, &urls, true).unwrap();
    assert_eq!(log.answers().len(), 3);
    let again = Log::open(log.home().clone()).unwrap();
    assert_eq!(again.answers().len(), 3, "they are known from then on");
}

#[test]
fn a_replica_that_hangs_does_not_hold_up_an_opening() {
    let stage = Stage::new();
    stage.append("one");
    stage.fakes[2].set(Mode::Slow(10_000));
    let began = Instant::now();
    let log = stage.open();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(log.is_fresh());
    assert!(matches!(log.silent(), [ReplicaError::Late { .. }]));
}

#[test]
fn a_quorum_that_hangs_longer_than_the_patience_is_down_and_named() {
    let stage = Stage::new();
    let mut log = stage.open();
    let appender = log.appender(quick()).unwrap();
    for fake in &stage.fakes[1..] {
        fake.set(Mode::Slow(10_000));
    }
    let began = Instant::now();
    let ticket = appender.append(b"one").unwrap();
    let error = appender.wait(ticket, TWO).unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(error.contains("has not answered for"), "{error}");
    assert!(error.contains(&stage.fakes[1].url), "{error}");
}

#[test]
fn a_replica_that_lost_records_is_given_them_again() {
    let stage = Stage::new();
    for entry in ["one", "two", "three"] {
        stage.append(entry);
    }
    stage.fakes[1].set(Mode::Forgets);
    stage.append("four");
    assert_eq!(stage.fakes[1].records(), stage.fakes[0].records());
}

#[test]
fn a_writer_that_was_cut_off_sends_the_same_bytes_again_before_it_seals() {
    let stage = Stage::new();
    let mut log = stage.open();
    let appender = log.appender(quick()).unwrap();
    let ticket = appender.append(b"one").unwrap();
    appender.wait(ticket, TWO).unwrap();
    drop(appender);
    stage.fakes[2].set(Mode::Dead);
    stage.append("two");
    assert_eq!(stage.read().unwrap(), ["one", "two"]);
}

#[test]
fn a_refused_append_that_only_a_liar_saw_never_makes_a_second_record_for_its_place() {
    let stage = Stage::new();
    stage.append("zero");
    // The liar takes the record and says nothing; the others are away.
    stage.fakes[0].set(Mode::Mute);
    for fake in &stage.fakes[1..] {
        fake.set(Mode::Refuses);
    }
    assert!(stage.try_append("one").is_err());
    let liar = stage.fakes[0].newest();
    assert_eq!(liar.len(), 1);
    // Now it hides what it has.
    stage.fakes[0].roll_back(1);
    for fake in &stage.fakes {
        fake.set(Mode::Honest);
    }
    stage.append("two");
    assert_eq!(stage.read().unwrap(), ["zero", "one", "two"]);
    for fake in &stage.fakes[1..] {
        assert!(fake.has(&liar[0]), "the same bytes, and no others");
    }
}

#[test]
fn a_config_record_without_a_quorum_is_sent_again_and_never_replaced() {
    let stage = Stage::new();
    let mut log = stage.open();
    for fake in &stage.fakes[1..] {
        fake.set(Mode::Refuses);
    }
    let quota = [bield_capsule::Change::Quota(1 << 30)];
    let error = log.configure(&quota).unwrap_err();
    assert!(
        matches!(
            error,
            LogError::Unconfirmed {
                got: 1,
                need: 2,
                ..
            }
        ),
        "{error}"
    );
    stage.fakes[0].roll_back_owner(1);
    for fake in &stage.fakes {
        fake.set(Mode::Honest);
    }
    assert_eq!(stage.open().configure(&quota).unwrap().seq, 1);
    let other = [bield_capsule::Change::Quota(1 << 31)];
    assert_eq!(stage.open().configure(&other).unwrap().seq, 2);
}

#[test]
fn a_capsule_that_too_few_replicas_store_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::at(directory.path().join("home"));
    let fakes: Vec<_> = (1..=3).map(Fake::start).collect();
    let mut options = options(&fakes);
    options.replicas.push("http://127.0.0.1:1".to_owned());
    assert!(
        Log::create(&home, &options).is_err(),
        "nobody introduces itself there"
    );
    options.replicas.pop();
    for fake in &fakes[1..] {
        fake.set(Mode::Forges);
    }
    let error = Log::create(&home, &options).err().unwrap();
    assert!(
        matches!(
            error,
            LogError::NotStored {
                got: 1,
                need: 2,
                ..
            }
        ),
        "{error}"
    );
    assert!(CapsuleHome::list(&home).unwrap().is_empty());
    assert_eq!(
        std::fs::read_dir(home.path().join("capsules"))
            .unwrap()
            .count(),
        0
    );
    options.replicas = vec![fakes[0].url.clone(), format!("{}/", fakes[0].url)];
    let twice = Log::create(&home, &options).err().unwrap();
    assert!(twice.to_string().contains("one replica"), "{twice}");
}

#[test]
fn a_rotated_key_seals_what_follows_and_an_erased_one_opens_nothing() {
    let stage = Stage::new();
    stage.append("one");
    let mut log = stage.open();
    assert_eq!(log.rotate().unwrap(), 2);
    stage.append("two");
    assert_eq!(stage.read().unwrap(), ["one", "two"]);
    log.configure(&[bield_capsule::Change::Erase(1)]).unwrap();
    assert!(log.home().erase_generation(1).unwrap());
    let error = stage.read().unwrap_err();
    assert!(
        matches!(error, LogError::Erased { generation: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_configuration_older_than_the_one_seen_is_refused() {
    let stage = Stage::new();
    let mut head = stage.open().config().head().unwrap();
    head.seq += 1;
    stage.capsule.see([head]).unwrap();
    let error = Log::open(stage.capsule.clone()).err().unwrap();
    assert!(matches!(error, LogError::RolledBack { .. }), "{error}");
}

#[test]
fn a_level_that_can_never_be_reached_is_refused_at_once() {
    let stage = Stage::new();
    let mut log = stage.open();
    let appender = log.appender(AppenderOptions::default()).unwrap();
    let ticket = appender.append(b"one").unwrap();
    assert!(appender.wait(ticket, Durability::Replicated(4)).is_err());
    assert!(appender.wait(ticket, TWO).is_ok());
}

#[test]
fn a_journal_in_this_process_makes_local_sync_and_verifies_offline() {
    let stage = Stage::new();
    let log = stage.open();
    let path = stage.directory.path().join("journal.capsule");
    let key = stage.capsule.writer_key().unwrap();
    let config = log.config().head().unwrap();
    let now = crate::now();
    let (writer, open) =
        bield_capsule::Writer::open(key, log.metadata(), config, None, now).unwrap();
    let before = log.config_records().iter();
    let journal = JournalSink::create(&path, log.metadata(), before, true).unwrap();
    let options = AppenderOptions {
        local: Some(0),
        ..AppenderOptions::default()
    };
    let generation = log::key_of(log.ring(), 1).unwrap();
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(journal)];
    let appender = Appender::start(writer, generation, vec![open], sinks, options).unwrap();
    for n in 0..1000u32 {
        let ticket = appender.append(&n.to_be_bytes()).unwrap();
        if n % 100 == 0 {
            appender.wait(ticket, Durability::LocalSync).unwrap();
        }
    }
    appender.finish(Durability::LocalSync).unwrap();
    let options = AuditOptions {
        name: Some(log.metadata().name()),
        keys: Some(log.ring()),
        ..AuditOptions::default()
    };
    let audits = audit(&path, &options, &mut |_| {}).unwrap();
    assert!(audits[0].passed(), "{audits:?}");
    let contents = audits[0]
        .checks
        .iter()
        .find(|check| check.name == "contents")
        .unwrap();
    assert!(contents.have.contains("1000 entries"), "{}", contents.have);
}

#[test]
fn an_export_whose_bytes_change_anywhere_does_not_verify() {
    let stage = Stage::new();
    for entry in ["one", "two", "three"] {
        stage.append(entry);
    }
    let log = stage.open();
    let mut file = Vec::new();
    let exported = log.export(&mut file, &mut |_, _| {}).unwrap();
    assert!(exported.completeness.fresh.is_ok());
    assert_eq!(file.len() as u64, exported.bytes);
    let path = stage.directory.path().join("export");
    let options = AuditOptions {
        name: Some(log.metadata().name()),
        ..AuditOptions::default()
    };
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        audit(&path, &options, &mut |_| {})
    };
    let whole = check(&file).unwrap();
    assert!(whole[0].passed() && whole[0].records == exported.records);
    for at in (0..file.len()).step_by(37) {
        let mut altered = file.clone();
        altered[at] ^= 1;
        assert!(
            check(&altered).is_ok_and(|found| !found[0].passed()) || at < 4,
            "{at}"
        );
    }
}
