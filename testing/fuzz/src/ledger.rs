//! The key service's log on a host that gives back anything.

use std::sync::LazyLock;

use bield_capsule::ledger_file::{FileEnd, FileReader, Item, LogAudit, encode_frame, log_name};
use bield_envelope::{Seeded, Time};
use bield_ledger::{Contents, Ledger, Loaded, MemoryFiles};

use crate::cast;

/// One log file: what is read is what was encoded, and the audit takes only honest records.
pub fn ledger_log_file(data: &[u8]) -> bool {
    let mut reader = FileReader::new();
    let mut encoded = Vec::new();
    for piece in data.chunks(PIECE_BYTES) {
        reader.push(piece);
        loop {
            match reader.next_item() {
                Item::Wants => break,
                Item::Head(head) => encoded = head.encode(),
                Item::Record {
                    index,
                    offset,
                    record,
                } => {
                    assert_eq!(offset, encoded.len() as u64);
                    encode_frame(index, &record, &mut encoded);
                }
            }
        }
    }
    assert!(data.starts_with(&encoded), "read is not what stands there");
    let clean = match reader.finish() {
        FileEnd::Clean { bytes } => {
            assert_eq!(bytes, data.len() as u64);
            true
        }
        FileEnd::Torn { bytes } => {
            assert_eq!(bytes, encoded.len() as u64);
            false
        }
        _ => false,
    };
    let mut audit = LogAudit::new();
    let begun = audit.begin(&log_name(0, 0)).is_ok();
    let records = &DISK.records;
    let audited = begun
        && data.chunks(PIECE_BYTES).all(|piece| {
            let each = &mut |index: u64, applied: &bield_capsule::Applied| {
                let honest = records.get(index as usize).map(Vec::as_slice);
                assert_eq!(Some(applied.record().as_bytes()), honest);
            };
            audit.push(piece, each).is_ok()
        })
        && audit.end().is_ok();
    clean && audited
}

/// A start from files of which one is anything: what loads is a beginning of what was committed.
pub fn ledger_files(data: &[u8]) -> bool {
    let Some((number, content)) = data.split_first() else {
        return false;
    };
    let mut contents = DISK.contents.clone();
    let Some(file) = contents.values_mut().nth(usize::from(*number)) else {
        return false;
    };
    *file = content.to_vec();
    let disk = Box::new(MemoryFiles::with(contents));
    let Ok(Loaded::Found(mut found)) = Ledger::load(disk, cast::secret(1)) else {
        return false;
    };
    let mut state = found
        .snapshot
        .take()
        .map_or_else(Vec::new, |state| state.to_vec());
    let replayed = found.replay(&mut |committed| {
        state.extend(committed.entries.iter().flat_map(|entry| entry.to_vec()));
        Ok(())
    });
    let Ok(opened) = replayed else {
        return false;
    };
    assert!(DISK.state.starts_with(&state), "an entry nobody committed");
    let head = opened.ledger.head();
    assert!(DISK.heads.contains(&head), "a head the log never had");
    if let Some(prepared) = opened.prepared {
        let honest = DISK.prepared.as_slice();
        assert_eq!(prepared.record.as_bytes(), honest);
    }
    true
}

/// What an honest service left on its disk.
struct Disk {
    contents: Contents,
    /// All entries, one after the other: also what a snapshot of the state is.
    state: Vec<u8>,
    heads: Vec<bield_tlog::TreeHead>,
    records: Vec<Vec<u8>>,
    prepared: Vec<u8>,
}

static DISK: LazyLock<Disk> = LazyLock::new(|| {
    let (disk, mut entropy) = (MemoryFiles::new(), Seeded::new(70));
    let (now, seal, root) = (Time::from_secs(9), cast::secret(1), cast::secret(2));
    let files = Box::new(disk.clone());
    let mut ledger = Ledger::create(files, seal, root, now, &mut entropy).expect("an empty disk");
    let (mut state, mut heads) = (Vec::new(), vec![ledger.head()]);
    for number in 0_u8..6 {
        let record = ledger
            .seal(&[&[number; 5]], now, &mut entropy)
            .expect("an entry");
        ledger.commit(&record).expect("memory stores");
        state.extend([number; 5]);
        heads.push(ledger.head());
        if number % 2 == 1 {
            ledger
                .snapshot(&state, &mut entropy)
                .expect("memory stores");
        }
    }
    let prepared = ledger
        .seal(&[b"next"], now, &mut entropy)
        .expect("an entry");
    ledger.prepare(3, Some(&prepared)).expect("memory stores");
    let records = ledger.records(0, usize::MAX).expect("they are there");
    Disk {
        contents: disk.contents(),
        state,
        heads,
        records: records
            .into_iter()
            .map(bield_capsule::Received::into_bytes)
            .collect(),
        prepared: prepared.into_bytes(),
    }
});

/// Files are read in pieces of this many bytes.
const PIECE_BYTES: usize = 4096;

pub(crate) mod seeds {
    use super::DISK;

    pub(crate) fn ledger_log_file() -> Vec<Vec<u8>> {
        let mut files = DISK.contents.iter();
        let first = files.find(|(name, _)| name.starts_with("log-"));
        first.map(|(_, bytes)| bytes.clone()).into_iter().collect()
    }

    pub(crate) fn ledger_files() -> Vec<Vec<u8>> {
        let files = (0_u8..).zip(DISK.contents.values());
        files
            .map(|(number, bytes)| [&[number], &bytes[..]].concat())
            .collect()
    }
}
