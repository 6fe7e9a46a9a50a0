//! Files are read as they come, and every way to be wrong is told from a torn end.

use bield_envelope::{Seeded, Time};

use super::*;
use crate::{
    Applied, Batch, Change, GenerationKey, Kind, Received, Refused, SkipLevels, Suite, Verifier,
    VerifierPolicy, Writer, WriterKey,
};

/// A log of one epoch: head and records.
struct Log {
    head: FileHead,
    records: Vec<Received>,
}

fn log(data: u64, epoch: u32, previous: Option<Previous>) -> Log {
    let mut entropy = Seeded::new(u64::from(epoch) + 1);
    let now = Time::from_millis(9);
    let owner = WriterKey::generate(Suite::Ed25519, &mut entropy);
    let label = previous.map(|previous| previous.label());
    let metadata = Metadata::new(owner.public(), label.as_deref(), now, &mut entropy).unwrap();
    let generation = GenerationKey::generate(1, &mut entropy);
    let key = WriterKey::generate(Suite::Ed25519, &mut entropy);
    let changes = [
        Change::admit(key.public()),
        Change::Generation {
            number: 1,
            commitment: generation.commitment(&metadata),
        },
    ];
    let (_, config) = Writer::owner(owner, &metadata, &changes, now).unwrap();
    let (mut writer, open) = Writer::open(key, &metadata, config.head(), None, now).unwrap();
    let mut records = vec![config, open];
    let mut batch = Batch::new();
    for number in 0..data {
        batch.clear();
        batch.push(&number.to_be_bytes()).unwrap();
        let record = writer.seal(&batch, &generation, &[], now, &mut entropy);
        records.push(record.unwrap());
    }
    let head = FileHead {
        epoch,
        first: 0,
        before: None,
        previous,
        metadata,
    };
    Log { head, records }
}

impl Log {
    /// The file of records `first..end`.
    fn file(&self, first: usize, end: usize) -> (String, Vec<u8>) {
        let head = FileHead {
            first: first as u64,
            ..self.head.clone()
        };
        let mut bytes = head.encode();
        for (index, record) in self.records.iter().enumerate().take(end).skip(first) {
            encode_frame(index as u64, record.as_bytes(), &mut bytes);
        }
        (log_name(head.epoch, head.first), bytes)
    }

    /// Where the frame of a record begins in the file that has all.
    fn offset(&self, index: usize) -> usize {
        self.file(0, index).1.len()
    }

    fn end(&self, root: u8) -> Previous {
        Previous {
            capsule: self.head.metadata.name(),
            size: self.records.len() as u64,
            root: [root; 32],
        }
    }
}

/// Everything in a file that is read in pieces.
fn read(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, FileEnd) {
    let mut reader = FileReader::new();
    let mut records = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.next_item() {
                Item::Wants => break,
                Item::Head(_) => assert!(records.is_empty()),
                Item::Record { record, index, .. } => {
                    assert_eq!(index, records.len() as u64);
                    records.push(record);
                }
            }
        }
    }
    (records, reader.finish())
}

#[test]
fn a_file_is_read_in_pieces_of_any_size() {
    let log = log(4, 0, None);
    let (_, bytes) = log.file(0, 6);
    for piece in [1, 7, 19, 20, 21, 333, 4096] {
        let (records, end) = read(&bytes, piece);
        let same = records.iter().zip(&log.records);
        assert!(
            same.into_iter()
                .all(|(bytes, record)| bytes == record.as_bytes())
        );
        assert_eq!(
            (records.len(), end),
            (
                6,
                FileEnd::Clean {
                    bytes: bytes.len() as u64
                }
            )
        );
    }
}

#[test]
fn a_cut_anywhere_is_a_torn_end() {
    let log = log(2, 0, None);
    let (_, bytes) = log.file(0, 4);
    for cut in 0..bytes.len() {
        let whole = (0..=4).rev().find(|index| log.offset(*index) <= cut);
        let (records, end) = read(&bytes[..cut], 100);
        assert_eq!(records.len(), whole.unwrap_or(0));
        let at = whole.map_or(0, |whole| log.offset(whole)) as u64;
        let clean = whole.is_some() && at == cut as u64;
        let expected = if clean {
            FileEnd::Clean { bytes: at }
        } else {
            FileEnd::Torn { bytes: at }
        };
        assert_eq!(end, expected, "cut to {cut}");
    }
}

#[test]
fn a_flipped_bit_is_damage_where_a_frame_follows_and_torn_where_none_does() {
    let log = log(3, 0, None);
    let (_, bytes) = log.file(0, 5);
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 0x10;
        let hit = (0..5).rev().find(|index| log.offset(*index) <= at);
        let (records, end) = read(&bad, 256);
        assert_eq!(records.len(), hit.unwrap_or(0), "{at}");
        match end {
            FileEnd::Torn { bytes } => {
                // The last frame, or a length field of the head that swallows all: looks unfinished.
                let swallowed = hit.is_none();
                assert!(hit == Some(4) || swallowed, "{at}");
                assert_eq!(bytes, hit.map_or(0, |hit| log.offset(hit)) as u64);
            }
            FileEnd::Damaged { offset, index, .. } => {
                assert!(hit != Some(4));
                assert_eq!(offset, hit.map_or(0, |hit| log.offset(hit)) as u64);
                assert_eq!(index, hit.map(|hit| hit as u64));
            }
            FileEnd::Clean { .. } => panic!("{at} goes unnoticed"),
        }
    }
}

#[test]
fn a_frame_in_another_place_is_damage() {
    let log = log(3, 0, None);
    let (_, bytes) = log.file(0, 5);
    let mut without = bytes.clone();
    without.drain(log.offset(3)..log.offset(4));
    let found = Flaw::Index { found: 4 };
    let expected = FileEnd::Damaged {
        offset: log.offset(3) as u64,
        index: Some(3),
        flaw: found,
    };
    assert_eq!(read(&without, 512).1, expected);
}

#[test]
fn a_length_is_not_believed_before_its_checksum() {
    let log = log(1, 0, None);
    let (_, mut bytes) = log.file(0, 3);
    bytes.extend_from_slice(&[0xff; 40]);
    assert!(matches!(read(&bytes, 64), (records, FileEnd::Torn { .. }) if records.len() == 3));
    let (start, huge) = (b"bldl\x01", [0xff; 4]);
    assert_eq!(
        FileHead::decode(&[&start[..], &huge].concat()),
        Err(FileHeadError::Altered)
    );
}

#[test]
fn a_head_says_which_epoch_it_continues_or_is_none() {
    let first = log(1, 0, None);
    let previous = first.end(7);
    let second = log(1, 1, Some(previous));
    let bytes = second.head.encode();
    let decoded = FileHead::decode(&bytes).unwrap().unwrap();
    assert_eq!(decoded, (second.head.clone(), bytes.len()));
    for cut in 0..bytes.len() {
        assert_eq!(FileHead::decode(&bytes[..cut]), Ok(None));
    }
    let lies = [
        FileHead {
            previous: Some(Previous {
                size: 2,
                ..previous
            }),
            ..second.head.clone()
        },
        FileHead {
            previous: None,
            ..second.head.clone()
        },
        FileHead {
            epoch: 0,
            ..second.head.clone()
        },
        FileHead {
            epoch: 1,
            ..first.head.clone()
        },
    ];
    for lie in lies {
        let refused = FileHead::decode(&lie.encode());
        assert_eq!(refused, Err(FileHeadError::Previous));
    }
}

#[test]
fn names_have_one_spelling() {
    let name = log_name(3, 77);
    assert_eq!(name, "log-0000000003-00000000000000000077");
    assert_eq!(parse_log_name(&name), Some((3, 77)));
    for other in [
        "log-3-77",
        "log-+000000003-00000000000000000077",
        "log-",
        "root",
    ] {
        assert_eq!(parse_log_name(other), None);
    }
    assert_eq!(parse_log_name(&format!("{name}0")), None);
}

fn audit(files: &[(String, Vec<u8>)]) -> Result<(LogAudit, u64), LogFault> {
    let (mut audit, mut seen) = (LogAudit::new(), 0);
    for (name, bytes) in files {
        audit.begin(name)?;
        for piece in bytes.chunks(300) {
            audit.push(piece, &mut |_, applied: &Applied| {
                assert!(applied.signature_checked());
                seen += 1;
            })?;
        }
        audit.end()?;
    }
    Ok((audit, seen))
}

#[test]
fn an_audit_follows_files_and_epochs() {
    let first = log(5, 0, None);
    let second = log(2, 1, Some(first.end(1)));
    let files = [first.file(0, 3), first.file(3, 7), second.file(0, 4)];
    let (audit, seen) = audit(&files).unwrap();
    assert_eq!(seen, 11);
    let [old, new] = audit.epochs() else {
        panic!("two epochs");
    };
    assert_eq!((old.records, new.records), (7, 4));
    assert_eq!(new.previous, Some(first.end(1)));
    assert_eq!(old.head, Some(first.records[6].head()));
    assert!(audit.torn().is_none());
}

#[test]
fn an_audit_names_what_is_wrong() {
    let first = log(5, 0, None);
    let other = log(5, 1, Some(first.end(1)));
    let fault = |files: &[(String, Vec<u8>)]| audit(files).map(|_| ()).unwrap_err();
    let (a, b) = (first.file(0, 3), first.file(3, 7));
    let missing = fault(&[a.clone(), first.file(4, 7)]);
    assert_eq!(
        missing,
        LogFault::Gap {
            epoch: 0,
            expected: 3,
            first: 4
        }
    );
    assert_eq!(
        fault(std::slice::from_ref(&b)),
        LogFault::Beginning { epoch: 0, first: 3 }
    );
    let swapped = (b.0.clone(), first.file(0, 7).1);
    assert!(matches!(
        fault(&[a.clone(), swapped]),
        LogFault::Renamed { .. }
    ));
    assert!(matches!(
        fault(&[("root".into(), Vec::new())]),
        LogFault::Name { .. }
    ));
    // Recovered from more records than there are.
    assert!(matches!(
        fault(&[a.clone(), other.file(0, 4)]),
        LogFault::NotContinued {
            epoch: 1,
            records: 3
        }
    ));
    let mut stranger = log(5, 0, None);
    stranger.head.metadata = other.head.metadata.clone();
    stranger.head.epoch = 0;
    let foreign = stranger.file(3, 7);
    assert!(audit(&[a.clone(), foreign]).is_err());
    // A record with another signature: its frame is right, and it is refused.
    let mut forged = log(5, 0, None);
    let mut bytes = forged.records[4].as_bytes().to_vec();
    let at = forged.records[4].header_bytes().len();
    bytes[at] ^= 1;
    forged.records[4] = Received::decode(bytes).unwrap();
    assert!(matches!(
        fault(&[forged.file(0, 7)]),
        LogFault::Refused { index: 4, why, .. } if *why == Refused::Signature
    ));
    let mut damaged = a;
    let at = first.offset(1) + 30;
    damaged.1[at] ^= 1;
    assert!(matches!(
        fault(&[damaged]),
        LogFault::Damaged {
            index: 1,
            flaw: Flaw::Record,
            ..
        }
    ));
}

fn verifier(log: &Log, records: usize) -> Verifier {
    let mut verifier = Verifier::new(log.head.metadata.clone(), VerifierPolicy::default());
    for record in &log.records[..records] {
        let verified = verifier.verify(record.clone()).unwrap();
        verifier.apply(verified).unwrap();
    }
    verifier
}

#[test]
fn a_verifier_that_skipped_goes_on_as_one_that_did_not() {
    let log = log(40, 0, None);
    for tip in 2..41 {
        let whole = verifier(&log, tip + 1);
        let writer = log.records[1].header().writer;
        let levels = whole.chain(&writer).unwrap().levels();
        let head = log.records[tip].signed_head();
        let mut skipped = verifier(&log, 2);
        let kept = SkipLevels::restore(levels.next(), |seq| levels.hash_at(seq)).unwrap();
        skipped.skip_to(&head, kept).unwrap();
        for record in &log.records[tip + 1..] {
            let verified = skipped.verify(record.clone()).unwrap();
            assert_eq!(verified.record().header().kind, Kind::Data);
            skipped.apply(verified).unwrap();
        }
        assert_eq!(
            skipped.chain(&writer).map(crate::Chain::tip),
            Some(log.records[41].head())
        );
    }
}

#[test]
fn a_verifier_skips_only_to_a_signed_record_of_its_chain() {
    let log = log(9, 0, None);
    let writer = log.records[1].header().writer;
    let whole = verifier(&log, 8);
    let levels = || whole.chain(&writer).unwrap().levels().clone();
    let tip = log.records[7].signed_head();
    let mut here = verifier(&log, 2);
    let other = log.records[6].signed_head();
    assert_eq!(here.skip_to(&other, levels()), Err(Refused::Skips));
    let mut bytes = tip.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    let forged = crate::SignedHead::decode(&bytes).unwrap();
    assert_eq!(here.skip_to(&forged, levels()), Err(Refused::Signature));
    // Not before the chain began, not backwards, not the owner's.
    let mut fresh = verifier(&log, 1);
    assert!(matches!(
        fresh.skip_to(&tip, levels()),
        Err(Refused::Gap { .. })
    ));
    let mut fresh = verifier(&log, 0);
    assert!(matches!(
        fresh.skip_to(&tip, levels()),
        Err(Refused::ConfigGap { .. })
    ));
    let mut ahead = verifier(&log, 11);
    assert!(matches!(
        ahead.skip_to(&tip, levels()),
        Err(Refused::Gap { .. })
    ));
    let config = log.records[0].signed_head();
    assert!(here.skip_to(&config, SkipLevels::new()).is_err());
    let second = self::log(1, 1, Some(log.end(0)));
    let foreign = second.records[2].signed_head();
    assert!(matches!(
        here.skip_to(&foreign, levels()),
        Err(Refused::OtherCapsule { .. })
    ));
    assert_eq!(here.skip_to(&tip, levels()), Ok(()));
}

#[test]
fn a_record_is_recalled_by_its_hash_and_by_no_other() {
    let log = log(3, 0, None);
    let verifier = verifier(&log, 2);
    let record = || log.records[4].clone();
    let recalled = verifier.recall(record(), &log.records[4].hash()).unwrap();
    assert!(!recalled.signature_checked() && recalled.storable().is_none());
    assert!(matches!(
        verifier.recall(record(), &log.records[3].hash()),
        Err(Refused::Conflict { .. })
    ));
    let second = self::log(1, 1, Some(log.end(0)));
    let foreign = second.records[2].clone();
    let hash = foreign.hash();
    assert!(verifier.recall(foreign, &hash).is_err());
}
