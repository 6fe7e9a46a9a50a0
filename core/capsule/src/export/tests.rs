//! Export files: read back, cut, damaged, out of order.

use super::*;
use crate::{Clock, Header, Kind, Suite, WriterKey};
use bield_envelope::{Digest, Seeded, Time};
use proptest::prelude::*;

fn file(records: u64) -> (Metadata, Vec<Received>, Vec<u8>) {
    let suite = Suite::Ed25519;
    let key = WriterKey::generate(suite, &mut Seeded::new(1));
    let mut entropy = Seeded::new(2);
    let metadata =
        Metadata::new(key.public(), Some("x"), Time::from_secs(1), &mut entropy).unwrap();
    let mut file = export_header(&metadata);
    let mut made = Vec::new();
    for n in 0..records {
        let header = Header {
            suite,
            kind: Kind::Close,
            capsule: metadata.name(),
            writer: key.id(),
            seq: 2 * n + 1,
            epoch: 0,
            clock: Clock::from_bits(5),
            config: 0,
            generation: 0,
            count: 0,
            body_bytes: 0,
            prev: Digest::from_bytes([3; 32]),
            salt: [0; 16],
            commitment: [0; 32],
            root: suite.root(&[]),
            parents: Vec::new(),
            skips: Vec::new(),
        };
        let record = Received::sign(&key, &header, &[]).unwrap();
        export_record(&record, &mut file);
        made.push(record);
    }
    (metadata, made, file)
}

#[test]
fn what_was_exported_is_read_with_numbers_and_offsets() {
    let (metadata, records, file) = file(3);
    let reader = ExportReader::new(&file).unwrap();
    assert_eq!(*reader.metadata(), metadata);
    let read: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(read.len(), 3);
    for (n, (read, made)) in read.iter().zip(&records).enumerate() {
        assert_eq!((read.number, &read.record), (n as u64, made));
        let at = read.offset as usize + 4;
        assert!(file[at..].starts_with(made.as_bytes()));
    }
}

#[test]
fn a_config_record_behind_another_record_is_refused() {
    let owner = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(1));
    let (metadata, records, file) = file(1);
    let now = Time::from_secs(2);
    let quota = [crate::Change::Quota(1)];
    let (mut owner, first) = crate::Writer::owner(owner, &metadata, &quota, now).unwrap();
    let second = owner.configure(&quota, now).unwrap();
    let written = |records: &[&Received]| {
        let mut file = export_header(&metadata);
        for record in records {
            export_record(record, &mut file);
        }
        file
    };
    let good = written(&[&first, &second, &records[0]]);
    assert!(ExportReader::new(&good).unwrap().all(|read| read.is_ok()));
    let late = written(&[&first, &records[0], &second]);
    let read: Vec<_> = ExportReader::new(&late).unwrap().collect();
    assert_eq!(read.len(), 3, "the error is told once");
    let offset = (late.len() - second.as_bytes().len() - LENGTH_BYTES) as u64;
    assert_eq!(read[2], Err(ExportError::LateConfig { number: 2, offset }));
    // A file that begins with another record takes none at all; whether one is needed, the verifier says.
    assert!(ExportReader::new(&file).unwrap().all(|read| read.is_ok()));
}

#[test]
fn a_file_cut_anywhere_but_after_a_record_says_where() {
    let (metadata, records, file) = file(2);
    let start = START_BYTES + metadata.as_bytes().len();
    let record = 4 + records[0].as_bytes().len();
    for cut in 0..file.len() {
        let outcome = ExportReader::new(&file[..cut])
            .and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
        match cut.checked_sub(start) {
            None => assert_eq!(outcome, Err(ExportError::CutStart)),
            Some(into) if into % record == 0 => {
                assert_eq!(outcome.unwrap().len(), into / record);
            }
            Some(into) => {
                let number = (into / record) as u64;
                let offset = (start + into / record * record) as u64;
                assert_eq!(outcome, Err(ExportError::Cut { number, offset }));
            }
        }
    }
}

#[test]
fn a_damaged_record_is_named_and_ends_the_reading() {
    let (metadata, records, mut file) = file(3);
    let second = START_BYTES + metadata.as_bytes().len() + 4 + records[0].as_bytes().len();
    file[second + 4] ^= 1;
    let mut reader = ExportReader::new(&file).unwrap();
    assert!(reader.next().unwrap().is_ok());
    let offset = second as u64;
    let error = reader.next().unwrap().unwrap_err();
    assert_eq!(
        error,
        ExportError::Record {
            number: 1,
            offset,
            why: RecordError::Unknown
        }
    );
    assert!(reader.next().is_none());
    file[second..second + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = ExportReader::new(&file).unwrap().nth(1).unwrap();
    assert!(matches!(error, Err(ExportError::TooLong { number: 1, .. })));
}

#[test]
fn other_files_are_no_exports() {
    let (_, _, file) = file(0);
    assert_eq!(ExportReader::new(&file).unwrap().count(), 0);
    for at in 0..5 {
        let mut other = file.clone();
        other[at] ^= 1;
        let error = ExportReader::new(&other).unwrap_err();
        assert_eq!(error, ExportError::NotAnExport);
    }
    let mut huge = file.clone();
    huge[5] = 0xff;
    assert!(ExportReader::new(&huge).is_err());
    let mut export = Export::new();
    assert!(matches!(
        export.put(vec![0; 3]),
        Err(ExportError::Unwanted {
            wanted: 9,
            found: 3
        })
    ));
}

proptest! {
    #[test]
    fn random_files_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..700)) {
        let (_, _, mut file) = file(1);
        file.extend_from_slice(&tail);
        prop_assert!(ExportReader::new(&file).unwrap().count() <= 3);
        let _ = ExportReader::new(&tail).map(Iterator::count);
    }
}
