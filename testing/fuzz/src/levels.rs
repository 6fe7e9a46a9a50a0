//! Sorted levels: what a store answers for a run, what a faulty writer may have sealed, what a record carries as manifest.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bield_capsule::{CapsuleName, Clock, GenerationKey, KeyRing, WriterId};
use bield_envelope::{Secret, Seeded, Time};
use bield_levels::{
    Blobs as _, Cell, Changes, Content, Flush, KEY_BYTES_MAX, Levels, Manifest, Memory, OwnedCell,
    RANGE_DELETES_MAX, RETIRED_MAX, RUN_BYTES_MAX, RUNS_MAX, RangeDelete, RunId, Settings,
    UPPER_MAX, Version,
};

use crate::vectors;

/// A manifest: one encoding, within its bounds, and never its own successor.
pub fn levels_manifest(data: &[u8]) -> bool {
    let Ok(manifest) = Manifest::decode(data, &capsule()) else {
        return false;
    };
    assert_eq!(manifest.encode(), data);
    assert!(manifest.capsule() == capsule());
    assert!(manifest.follows(&manifest).is_err());
    assert!(manifest.runs().count() <= RUNS_MAX && manifest.upper().len() <= UPPER_MAX);
    assert!(manifest.range_deletes().count() <= RANGE_DELETES_MAX);
    assert!(manifest.retired().len() <= RETIRED_MAX);
    for run in manifest.runs() {
        assert!(run.bytes <= RUN_BYTES_MAX && (1..run.bytes).contains(&run.data_bytes()));
        assert!(run.may_have(&run.summary.first) && run.may_have(&run.summary.last));
        assert!(run.summary.newest <= manifest.newest());
    }
    let _ = manifest.due(Time::from_millis(u64::MAX)).count();
    let names: Vec<RunId> = manifest.runs().map(|run| run.id).collect();
    assert!(manifest.unknown(&names).is_empty());
    true
}

/// What a store answers for a sealed run that an honest manifest names: the cells that were written, or an error.
pub fn levels_run(data: &[u8]) -> bool {
    let honest = &*SEALED;
    let blobs = Arc::new(Memory::default());
    let id = honest.run;
    blobs.put(&id, data).expect("memory keeps");
    let manifest = Manifest::decode(&honest.manifest, &capsule()).expect("honest");
    let levels = Levels::open(manifest, &keys(), blobs, CACHE_BYTES).expect("the key is there");

    let mut all = true;
    for (key, cell) in &honest.cells {
        match levels.newest(key) {
            Ok(found) => assert!(found.is_some_and(|found| found.as_cell() == cell.as_cell())),
            Err(_) => all = false,
        }
    }
    for absent in [&b"absent"[..], b"key 5", b"zzz", &[0]] {
        if let Ok(found) = levels.newest(absent) {
            assert!(found.is_none(), "a key that nobody wrote");
        }
    }
    let mut cells = honest.cells.values();
    let scanned = scan(&levels, |cell| {
        assert!(cells.next().is_some_and(|honest| honest.as_cell() == *cell));
    });
    assert!(
        !scanned || cells.next().is_none(),
        "the scan ended too early"
    );

    let whole = levels.check(&id).is_ok();
    assert_eq!(whole, data == honest.bytes, "a run has its bytes' name");
    assert!(!whole || (all && scanned));
    whole
}

/// What a faulty writer, whose bytes open, may have put into runs: errors, and cells in order; nothing else happens.
///
/// Input: length of a manifest (u32, big-endian) ‖ manifest ‖ the bytes of each of its runs, without encryption.
pub fn levels_plaintext(data: &[u8]) -> bool {
    let Some((length, rest)) = data.split_first_chunk() else {
        return false;
    };
    let Some((manifest, run)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else {
        return false;
    };
    let Ok(manifest) = Manifest::decode(manifest, &capsule()) else {
        return false;
    };
    let names: Vec<RunId> = manifest.runs().map(|run| run.id).collect();
    if names.len() > PLAINTEXT_RUNS_MAX || manifest.bytes() > PLAINTEXT_BYTES_MAX {
        return false;
    }
    let blobs = Arc::new(Memory::default());
    for name in &names {
        blobs.put(name, run).expect("memory keeps");
    }
    let edges: Vec<Vec<u8>> = manifest
        .runs()
        .flat_map(|run| [run.summary.first.clone(), run.summary.last.clone()])
        .collect();
    let Ok(levels) = Levels::open_plain(manifest, &keys(), blobs, CACHE_BYTES) else {
        return false;
    };
    let known = SEALED.cells.keys().chain(&edges);
    for key in known {
        if let Ok(Some(found)) = levels.newest(key) {
            assert_eq!(&found.key, key, "another key's cell");
        }
    }
    let mut before: Option<Vec<u8>> = None;
    let mut count = 0;
    let scanned = scan(&levels, |cell| {
        assert!(before.as_deref().is_none_or(|before| before < cell.key));
        assert!((1..=KEY_BYTES_MAX).contains(&cell.key.len()));
        before = Some(cell.key.to_vec());
        count += 1;
    });
    assert!(count <= names.len() * run.len(), "more cells than bytes");
    scanned
}

/// Looks at every winner; whether it got to the end.
fn scan(levels: &Levels, mut see: impl FnMut(&Cell<'_>)) -> bool {
    let Ok(mut scan) = levels.scan(Bound::Unbounded, Bound::Unbounded) else {
        return false;
    };
    loop {
        match scan.next_cell() {
            Ok(Some(cell)) => see(&cell),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// One flush into one run.
struct Honest {
    manifest: Vec<u8>,
    run: RunId,
    bytes: Vec<u8>,
    cells: BTreeMap<Vec<u8>, OwnedCell>,
}

static SEALED: LazyLock<Honest> = LazyLock::new(|| honest(Levels::open));
static PLAIN: LazyLock<Honest> = LazyLock::new(|| honest(Levels::open_plain));

type Open = fn(
    Manifest,
    &KeyRing,
    Arc<dyn bield_levels::Blobs>,
    u64,
) -> Result<Levels, bield_levels::LevelsError>;

fn honest(open: Open) -> Honest {
    let blobs = Arc::new(Memory::default());
    let begun = Manifest::begin(capsule(), Duration::from_secs(60));
    let levels = open(begun, &keys(), blobs.clone(), CACHE_BYTES).expect("no run, no key");
    let ranges = vec![RangeDelete {
        from: b"gone".to_vec(),
        to: b"gone!".to_vec(),
        version: version(90),
    }];
    let settings = Settings::default().with_block_bytes(128);
    let mut flush = Flush::begin(&levels, ranges, settings).expect("a key");
    let mut entropy = Seeded::new(9);
    let mut cells = BTreeMap::new();
    for number in 0..40u64 {
        let key = format!("key {number:02}").into_bytes();
        let value = vec![number as u8; (number as usize * 7) % 60];
        let content = match number % 5 {
            0 => Content::Deleted,
            1 => Content::Value {
                bytes: &value,
                expires: Some(Time::from_millis(5000 + number)),
            },
            _ => Content::Value {
                bytes: &value,
                expires: None,
            },
        };
        let cell = Cell {
            key: &key,
            version: version(number + 1),
            content,
        };
        flush.push(&cell, &mut entropy).expect("in order");
        cells.insert(key.clone(), cell.to_owned());
    }
    let flushed = flush.finish(&mut entropy).expect("memory keeps");
    let run = flushed.runs()[0].id;
    let changes = Changes {
        flushed: Some(flushed),
        ..Changes::default()
    };
    let next = levels.manifest().after(changes, Time::from_millis(1000));
    let bytes = blobs.kept()[&run].clone();
    Honest {
        manifest: next.expect("changes that fit").encode(),
        run,
        bytes,
        cells,
    }
}

fn capsule() -> CapsuleName {
    CapsuleName::from_bytes([1; 32])
}

fn keys() -> KeyRing {
    let mut ring = KeyRing::new();
    let key = GenerationKey::from_secret(1, Secret::from_bytes([1; 32]));
    ring.insert(key).expect("a number once");
    ring
}

fn version(millis: u64) -> Version {
    Version {
        clock: Clock::at(Time::from_millis(millis)),
        writer: WriterId::from_bytes([7; 32]),
    }
}

/// Room for all of an honest run.
const CACHE_BYTES: u64 = 1 << 20;
/// What a round may cost: runs that all are the same bytes, read whole.
const PLAINTEXT_RUNS_MAX: usize = 4;
/// See [`PLAINTEXT_RUNS_MAX`].
const PLAINTEXT_BYTES_MAX: u64 = 4 << 20;

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn levels_manifest() -> Vec<Vec<u8>> {
        let frozen = (0..9)
            .map_while(|number| vectors::bytes("07-levels", &format!("/manifests/{number}/bytes")));
        let first = Manifest::begin(capsule(), Duration::from_secs(60)).encode();
        [first, SEALED.manifest.clone()]
            .into_iter()
            .chain(frozen)
            .collect()
    }

    pub(crate) fn levels_run() -> Vec<Vec<u8>> {
        vec![SEALED.bytes.clone()]
    }

    pub(crate) fn levels_plaintext() -> Vec<Vec<u8>> {
        let Honest {
            manifest, bytes, ..
        } = &*PLAIN;
        let length = u32::try_from(manifest.len()).expect("short");
        vec![[&length.to_be_bytes()[..], manifest, bytes].concat()]
    }
}
