//! Object storage: the same promises, and two owners.

use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use super::*;

pub(super) fn open_at(
    store: &Arc<dyn ObjectStore>,
    options: Options,
) -> Result<(ObjectJournal, Records), JournalError> {
    let mut shown = Vec::new();
    let visit = &mut |index, record: &[u8]| {
        assert_eq!(index, options.known + shown.len() as u64);
        shown.push(record.to_vec());
        ControlFlow::Continue(())
    };
    let requests = Requests::to(Arc::clone(store)).unwrap();
    let journal = ObjectJournal::open(&requests, prefix(), CAPSULE, options, visit)?;
    Ok((journal, shown))
}

pub(super) fn prefix() -> Path {
    Path::from("capsules/7")
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn object(first: u64) -> Path {
    prefix().join(format!("{first:020}"))
}

/// Runs one request of a test's own.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn groups_become_objects_and_come_back() {
    let home = tempfile::tempdir().unwrap();
    let files = LocalFileSystem::new_with_prefix(home.path())
        .unwrap()
        .with_fsync(true);
    for store in [memory(), Arc::new(files)] {
        let (mut journal, _) = open_at(&store, LARGE).unwrap();
        let written = records(0..100);
        for (group, first) in written.chunks(20).zip((0..).step_by(20)) {
            let (one, other) = group.split_at(5);
            assert_eq!(journal.append(&borrowed(one)).unwrap(), first);
            journal.append(&borrowed(other)).unwrap();
            assert_eq!((journal.synced(), journal.len()), (first, first + 20));
            assert_eq!(journal.record(first + 19).unwrap(), record(first + 19));
            journal.sync().unwrap();
            assert_eq!(journal.synced(), first + 20);
        }
        journal.append(&[b"never synced"]).unwrap();
        assert_eq!(journal.record(100).unwrap(), b"never synced");
        drop(journal);
        let (journal, shown) = open_at(&store, LARGE).unwrap();
        assert_eq!(shown, written);
        assert_eq!(replayed(&journal), written);
        assert_eq!(
            journal.scrub().unwrap(),
            Scrub {
                intact: 100,
                damage: vec![]
            }
        );
        assert_eq!(journal.record_bytes(99), Some(record(99).len()));
        let (_, shown) = open_at(&store, Options { known: 90, ..LARGE }).unwrap();
        assert_eq!(shown, records(90..100));
        Box::new(journal).remove().unwrap();
        let (_, shown) = open_at(&store, LARGE).unwrap();
        assert!(shown.is_empty());
    }
}

#[test]
fn the_second_owner_to_write_is_fenced_for_good() {
    let store = memory();
    let (mut old, _) = open_at(&store, LARGE).unwrap();
    old.append(&[b"one"]).unwrap();
    old.sync().unwrap();
    let (mut new, shown) = open_at(&store, LARGE).unwrap();
    assert_eq!(shown, [b"one"]);
    new.append(&[b"two"]).unwrap();
    new.sync().unwrap();

    old.append(&[b"other two"]).unwrap();
    assert!(matches!(old.sync(), Err(JournalError::Fenced { index: 1 })));
    assert!(matches!(old.sync(), Err(JournalError::Fenced { index: 1 })));
    assert!(matches!(
        old.append(&[b"more"]),
        Err(JournalError::Fenced { index: 1 })
    ));
    assert_eq!((old.len(), old.synced()), (1, 1));
    let (_, shown) = open_at(&store, LARGE).unwrap();
    assert_eq!(shown, [b"one", b"two"]);
}

#[test]
fn a_long_group_becomes_several_objects() {
    let store = memory();
    let (mut journal, _) = open_at(&store, SMALL).unwrap();
    journal.append(&borrowed(&records(0..40))).unwrap();
    assert!(journal.synced() > 20);
    journal.sync().unwrap();
    assert_eq!(open_at(&store, SMALL).unwrap().1, records(0..40));
}

#[test]
fn changed_and_missing_objects_are_damage() {
    let store = memory();
    let (mut journal, _) = open_at(&store, LARGE).unwrap();
    for n in 0..3 {
        journal.append(&[&record(n)]).unwrap();
        journal.sync().unwrap();
    }
    let whole = now(async { store.get(&object(1)).await.unwrap().bytes().await.unwrap() });
    for at in 0..whole.len() {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 4;
        now(store.put(&object(1), flipped.into())).unwrap();
        let found = journal.scrub().unwrap();
        assert!(
            matches!(found.damage[..], [Damage { segment: 1, .. }, ..]),
            "byte {at}"
        );
        let error = open_at(&store, LARGE).unwrap_err();
        assert!(
            matches!(
                error,
                JournalError::Damaged(Damage { segment: 1, .. }) | JournalError::Foreign { .. }
            ),
            "byte {at}: {error}"
        );
    }
    now(store.delete(&object(1))).unwrap();
    assert!(matches!(
        journal.scrub().unwrap().damage[..],
        [Damage {
            what: Damaged::Gone,
            ..
        }]
    ));
    let error = open_at(&store, LARGE).unwrap_err();
    assert!(matches!(
        error,
        JournalError::Damaged(Damage {
            what: Damaged::Gone,
            index: 1,
            ..
        })
    ));
    let options = Options {
        mode: Mode::Salvage,
        ..LARGE
    };
    let mut seen = Vec::new();
    let visit = &mut |index, _: &[u8]| {
        seen.push(index);
        ControlFlow::Continue(())
    };
    let journal = ObjectJournal::open(
        &Requests::to(store).unwrap(),
        prefix(),
        CAPSULE,
        options,
        visit,
    )
    .unwrap();
    assert!(journal.record(1).is_err());
    assert_eq!(seen, [0, 2]);
}

#[test]
fn a_journal_works_inside_another_runtime() {
    now(async {
        let store = memory();
        let (mut journal, _) = open_at(&store, LARGE).unwrap();
        journal.append(&[b"a"]).unwrap();
        journal.sync().unwrap();
    });
}
