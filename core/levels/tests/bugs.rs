//! What was wrong with the CapsuleDB of the paper's authors (`knowledge/scl.md`, B23 to B27), as tests.

mod cast;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bield_levels::{
    BlobError, Blobs, Cell, Content, Flush, Levels, LevelsError, Limit, Limits, Manifest, Memory,
    OwnedContent, RunId,
};
use cast::{CACHE_BYTES, Cast, all, at, capsule, cell, deleted, forty, put, range, small, text};

/// Theirs hashed a block of 1,110 bytes up to its first zero byte: 3 bytes.
#[test]
fn b23_every_byte_of_a_block_of_zeros_is_authenticated() {
    let mut cast = Cast::new();
    cast.settings = small().with_block_bytes(4096);
    let zeros = [0; 10];
    let content = Content::Value {
        bytes: &zeros,
        expires: None,
    };
    let mut cells: Vec<_> = (0..50)
        .map(|n| cell(&format!("{n:02}"), n, content))
        .collect();
    let run = cast.flush(&mut cells, &[]).remove(0);
    assert!(run.blocks == 1 && run.data_bytes() > 1110);
    for byte in 0..run.data_bytes() as usize {
        cast.blobs.kept().get_mut(&run.id).unwrap()[byte] ^= 0x80;
        let levels = cast.fresh().unwrap();
        for cell in &cells {
            let refused = levels.newest(&cell.key).unwrap_err();
            assert!(
                matches!(refused, LevelsError::Altered { .. }),
                "byte {byte}: {refused}"
            );
        }
        cast.blobs.kept().get_mut(&run.id).unwrap()[byte] ^= 0x80;
    }
}

/// Theirs wrote blocks in clear into the working directory.
#[test]
fn b24_nothing_that_was_written_stands_in_a_run() {
    let mut cast = Cast::new();
    let run = cast.flush(&mut forty(1), &[]).remove(0);
    let kept = cast.blobs.kept()[&run.id].clone();
    let has = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    for what in [&b"key"[..], b"value", b"bldl", &[7; 32]] {
        assert!(!has(&kept, what));
    }
    // The same cells again: other bytes under another name, so a store learns not even that.
    let again = cast.flush(&mut forty(1), &[]).remove(0);
    assert_ne!(run.id, again.id);
    let again = cast.blobs.kept()[&again.id].clone();
    let same = kept.iter().zip(&again).filter(|(a, b)| a == b).count();
    assert!(
        same < kept.len() / 20,
        "{same} of {} bytes are the same",
        kept.len()
    );
}

/// Theirs kept the index in memory and could recover nothing.
#[test]
fn b25_everything_comes_back_from_the_manifest_and_the_store() {
    let mut cast = Cast::new();
    cast.flush(&mut forty(1), &[]);
    cast.flush(&mut forty(100), &[range("key 10", "key 20", 150)]);
    cast.compact(0);
    cast.flush(&mut [put("key 05", 300, "newest")], &[]);
    let bytes = cast.levels.manifest().encode();
    let before = all(&cast.levels).unwrap();
    let (blobs, keys) = (cast.blobs.clone(), cast::keys(&[1]));
    drop(cast);
    let manifest = Manifest::decode(&bytes, &capsule(1)).unwrap();
    let levels = Levels::open(manifest, &keys, blobs, CACHE_BYTES).unwrap();
    let after = all(&levels).unwrap();
    assert_eq!(after.len(), 30);
    let cells = |cells: &[bield_levels::OwnedCell]| {
        let cells = cells.iter().map(|cell| (cell.key.clone(), text(cell)));
        cells.collect::<Vec<_>>()
    };
    assert_eq!(cells(&after), cells(&before));
    assert_eq!(levels.manifest().covered(), [cast::head(3)]);
}

/// Theirs answered with the first, hence the oldest, overlapping block of the first level.
#[test]
fn b26_the_newest_of_overlapping_runs_answers_in_whatever_order_they_came() {
    let orders = [
        [1, 2, 3],
        [1, 3, 2],
        [2, 1, 3],
        [2, 3, 1],
        [3, 1, 2],
        [3, 2, 1],
    ];
    for order in orders {
        let mut cast = Cast::new();
        for clock in order {
            let mut cells = [
                put("other", clock, "other"),
                put("key", clock, &format!("of {clock}")),
            ];
            cast.flush(&mut cells, &[]);
        }
        assert_eq!(cast.levels.manifest().upper()[0].len(), 3);
        assert_eq!(cast.value("key").as_deref(), Some("of 3"), "{order:?}");
        cast.compact(0);
        assert_eq!(cast.value("key").as_deref(), Some("of 3"), "{order:?}");
        // And theirs had no deletes.
        cast.flush(&mut [deleted("key", 4)], &[]);
        assert_eq!(cast.value("key"), None);
    }
}

/// Theirs took the older level's value when two were equally new.
#[test]
fn b27_a_tie_is_decided_by_the_cells_and_not_by_their_levels() {
    for values in [["a", "b"], ["b", "a"]] {
        let mut cast = Cast::new();
        for value in values {
            cast.flush(&mut [put("key", 5, value)], &[]);
        }
        assert_eq!(cast.value("key").as_deref(), Some("b"));
        cast.compact(0);
        assert_eq!(cast.value("key").as_deref(), Some("b"));
    }
}

/// Theirs said "not found" by an empty key.
#[test]
fn b27_an_empty_value_is_there_and_an_empty_key_is_refused() {
    let mut cast = Cast::new();
    cast.flush(&mut [put("key", 1, "")], &[]);
    assert_eq!(cast.value("key").as_deref(), Some(""));
    assert_eq!(cast.value("kez"), None);
    assert!(cast.levels.newest(b"").unwrap().is_none());
    let mut flush = Flush::begin(&cast.levels, Vec::new(), cast.settings).unwrap();
    let refused = flush.push(&put("", 1, "").as_cell(), &mut cast.entropy);
    let limit = Limit::Key;
    let found = 0;
    assert_eq!(refused, Err(LevelsError::Limits(Limits { limit, found })));
}

/// Counts reads.
#[derive(Default)]
struct Counting {
    memory: Memory,
    reads: AtomicUsize,
}

impl Blobs for Counting {
    fn put(&self, name: &RunId, bytes: &[u8]) -> Result<(), BlobError> {
        self.memory.put(name, bytes)
    }

    fn read(&self, name: &RunId, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.memory.read(name, offset, length)
    }

    fn remove(&self, name: &RunId) -> Result<(), BlobError> {
        self.memory.remove(name)
    }

    fn list(&self) -> Result<Vec<RunId>, BlobError> {
        self.memory.list()
    }
}

/// Theirs read a whole block, and searched it from its begin, for every get.
#[test]
fn b27_a_block_is_read_once_and_a_key_that_is_nowhere_costs_no_read() {
    let blobs = Arc::new(Counting::default());
    let manifest = Manifest::begin(capsule(1), std::time::Duration::ZERO);
    let keys = cast::keys(&[1]);
    let levels = Levels::open(manifest, &keys, blobs.clone(), CACHE_BYTES).unwrap();
    let mut entropy = bield_envelope::Seeded::new(1);
    let mut flush = Flush::begin(&levels, Vec::new(), small()).unwrap();
    for cell in forty(1) {
        flush.push(&cell.as_cell(), &mut entropy).unwrap();
    }
    let flushed = Some(flush.finish(&mut entropy).unwrap());
    let changes = bield_levels::Changes {
        flushed,
        ..Default::default()
    };
    let next = levels.manifest().after(changes, at(1)).unwrap();
    let levels = levels.next(next, &keys).unwrap();
    let reads = |work: &dyn Fn()| {
        let before = blobs.reads.load(Ordering::SeqCst);
        work();
        blobs.reads.load(Ordering::SeqCst) - before
    };
    let get = |key: &'static str| move |levels: &Levels| levels.newest(key.as_bytes()).unwrap();
    assert_eq!(
        reads(&|| drop(get("key 05")(&levels))),
        2,
        "the tail and a block"
    );
    assert_eq!(reads(&|| drop(get("key 05")(&levels))), 0);
    assert_eq!(reads(&|| drop(get("key 39")(&levels))), 1, "another block");
    // Out of the run's range, or denied by its filter (but for one key in 256).
    let missing = reads(&|| {
        for n in 0..40 {
            let key = format!("key {n:02}x");
            assert!(levels.newest(key.as_bytes()).unwrap().is_none());
        }
        assert!(levels.newest(b"zzz").unwrap().is_none());
    });
    assert!(missing <= 3, "{missing}");
}

/// Theirs shared its maps between threads without locks.
#[test]
fn b27_readers_and_a_compaction_share_levels() {
    let mut cast = Cast::new();
    cast.flush(&mut forty(1), &[]);
    cast.flush(&mut forty(100), &[]);
    let snapshot = cast.levels.clone();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let snapshot = snapshot.clone();
            scope.spawn(move || {
                for n in (0..40).cycle().take(200) {
                    let key = format!("key {n:02}");
                    let found = snapshot.get(key.as_bytes(), at(1)).unwrap().unwrap();
                    assert_eq!(text(&found), format!("value {n} of 100"));
                }
            });
        }
        cast.compact(0);
    });
    assert_eq!(cast.levels.manifest().runs().count(), 1);
    assert_eq!(cast.value("key 07").as_deref(), Some("value 7 of 100"));
}

/// What is cold is opened from the store; what is large comes whole.
#[test]
fn a_value_longer_than_a_block_has_a_block_of_its_own() {
    let mut cast = Cast::new();
    let long = "x".repeat(300_000);
    let mut cells = [put("a", 1, "1"), put("b", 1, &long), put("c", 1, "3")];
    let run = cast.flush(&mut cells, &[]).remove(0);
    assert_eq!(run.blocks, 3);
    assert_eq!(cast.value("b"), Some(long));
    assert_eq!(cast.value("c").as_deref(), Some("3"));
    let too_long = vec![0; bield_levels::VALUE_BYTES_MAX + 1];
    let content = Content::Value {
        bytes: &too_long,
        expires: None,
    };
    let version = cast::version(1);
    let cell = Cell {
        key: b"k",
        version,
        content,
    };
    assert!(cell.check().is_err());
    assert!(matches!(
        cast.levels.newest(b"c").unwrap().unwrap().content,
        OwnedContent::Value { .. }
    ));
}
