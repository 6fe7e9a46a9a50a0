//! Bodies that open, and those that must not.

use bield_envelope::{Secret, Seeded, Time};
use proptest::prelude::*;

use super::*;
use crate::{Change, Clock, Head, Metadata, Writer, WriterKey};

const NOW: Time = Time::from_millis(1_000_000);

/// A capsule with one writer and one generation.
pub(crate) struct Fixture {
    pub(crate) metadata: Metadata,
    pub(crate) owner: Writer,
    pub(crate) config: Head,
    pub(crate) writer: Writer,
    pub(crate) keys: KeyRing,
    pub(crate) entropy: Seeded,
}

impl Fixture {
    pub(crate) fn new(suite: Suite) -> Self {
        let mut entropy = Seeded::new(u64::from(suite.number()));
        let owner = WriterKey::generate(suite, &mut entropy);
        let metadata = Metadata::new(owner.public(), None, NOW, &mut entropy).unwrap();
        let (owner, config) = Writer::owner(owner, &metadata, &[Change::Quota(1)], NOW).unwrap();
        let config = config.head();
        let key = WriterKey::generate(suite, &mut entropy);
        let (writer, _) = Writer::open(key, &metadata, config, None, NOW).unwrap();
        let mut keys = KeyRing::new();
        let generation = GenerationKey::generate(1, &mut entropy);
        keys.insert(generation).unwrap();
        Self {
            metadata,
            owner,
            config,
            writer,
            keys,
            entropy,
        }
    }

    fn seal(&mut self, batch: &Batch) -> Received {
        self.seal_after(batch, &[])
    }

    fn seal_after(&mut self, batch: &Batch, parents: &[Head]) -> Received {
        let key = self.keys.generation(1).unwrap();
        self.writer
            .seal(batch, key, parents, NOW, &mut self.entropy)
            .unwrap()
    }
}

fn batch(payloads: &[&[u8]]) -> Batch {
    let mut batch = Batch::new();
    for payload in payloads {
        batch.push(payload).unwrap();
    }
    batch
}

/// A record signed over a body that a dishonest key holder sealed.
fn sealed_by_hand(fixture: &Fixture, plaintext: &[u8], count: u32) -> (Received, RecordSecret) {
    let suite = fixture.metadata.suite();
    let key = WriterKey::from_seed(suite, Secret::from_bytes([7; 32])).unwrap();
    let mut header = Header {
        suite,
        kind: Kind::Data,
        capsule: fixture.metadata.name(),
        writer: key.id(),
        seq: 1,
        epoch: 0,
        clock: Clock::at(NOW),
        config: 0,
        generation: 1,
        count,
        body_bytes: (plaintext.len() + TAG_BYTES) as u32,
        prev: suite.root(b"prev"),
        salt: [1; 16],
        commitment: [0; 32],
        root: ZERO,
        parents: Vec::new(),
        skips: Vec::new(),
    };
    let generation = fixture.keys.generation(1).unwrap();
    let secret = RecordSecret::derive(suite, generation.secret(), &header.encode());
    let opening = secret.opening(suite);
    let (body_key, commitment) = halves(&opening);
    header.commitment = *commitment;
    let mut body = plaintext.to_vec();
    let tag = aead(body_key)
        .seal_in_place_separate_tag(
            zero_nonce(),
            Aad::from(&header.encode()[..ROOT_AT]),
            &mut body,
        )
        .unwrap();
    body.extend_from_slice(tag.as_ref());
    header.root = suite.root(&body);
    (Received::sign(&key, &header, &body).unwrap(), secret)
}

#[test]
fn what_was_pushed_is_what_opens_with_or_without_parents_and_skips() {
    for suite in Suite::ALL {
        let mut fixture = Fixture::new(suite);
        let parents = [fixture.config];
        let payloads = [&b"one"[..], b"", &[3; 5000]];
        for seq in 1..20 {
            let parents = if seq % 3 == 0 { &parents[..] } else { &[] };
            let record = fixture.seal_after(&batch(&payloads), parents);
            let record = Received::decode(record.into_bytes()).unwrap();
            assert_eq!(record.header().seq, seq);
            let entries = open_with(&record, &fixture.keys).unwrap();
            let opened: Vec<_> = entries.iter().map(|entry| entry.plain().unwrap()).collect();
            assert_eq!(opened, payloads);
            assert!(entries.get(3).is_none() && entries.range(3).is_none());
            assert_eq!(entries.range(1), Some(4..5));
        }
    }
}

#[test]
fn one_generator_twice_repeats_a_record_only_for_the_same_plaintext() {
    let seal = |suite, payload: &[u8]| {
        let mut fixture = Fixture::new(suite);
        fixture.seal(&batch(&[payload]))
    };
    for suite in Suite::ALL {
        let (one, other) = (seal(suite, b"attack"), seal(suite, b"defend"));
        assert_ne!(one.header().salt, other.header().salt);
        assert_ne!(one.header().commitment, other.header().commitment);
        let again = seal(suite, b"attack");
        assert_eq!(one.header(), again.header(), "all but a random signature");
        if suite == Suite::Ed25519 {
            assert_eq!(one.as_bytes(), again.as_bytes());
        }
    }
}

#[test]
fn one_generator_twice_repeats_no_key_for_other_parents() {
    // Same place, same plaintext, other associated data: one key would give AES-GCM's hash key away.
    for suite in Suite::ALL {
        let seal = |hash| {
            let mut fixture = Fixture::new(suite);
            let parent = Head {
                hash: suite.root(hash),
                ..fixture.config
            };
            fixture.seal_after(&batch(&[b"same"]), &[parent])
        };
        let (one, other) = (seal(b"1"), seal(b"2"));
        assert_ne!(one.header().salt, other.header().salt);
        assert_ne!(one.header().commitment, other.header().commitment);
        assert_ne!(one.body()[..4], other.body()[..4]);
    }
}

#[test]
fn a_moved_boundary_between_entries_is_another_plaintext() {
    let seal = |payloads: &[&[u8]]| Fixture::new(Suite::Ed25519).seal(&batch(payloads));
    let (one, other) = (seal(&[b"a\0b", b"c"]), seal(&[b"a", b"b\0c"]));
    assert_ne!(one.header().salt, other.header().salt);
}

#[test]
fn without_its_key_a_record_still_verifies_and_does_not_open() {
    for suite in Suite::ALL {
        let mut fixture = Fixture::new(suite);
        let record = fixture.seal(&batch(&[b"secret"]));
        assert!(fixture.keys.drop_generation(1));
        assert_eq!(
            open_with(&record, &fixture.keys).unwrap_err(),
            OpenError::NoKey { generation: 1 }
        );
        let other = GenerationKey::generate(1, &mut fixture.entropy);
        fixture.keys.insert(other).unwrap();
        assert_eq!(
            open_with(&record, &fixture.keys).unwrap_err(),
            OpenError::Commitment
        );
        assert_eq!(
            record_secret(&record, &fixture.keys).err(),
            Some(OpenError::Commitment)
        );
        let record = Received::decode(record.into_bytes()).unwrap();
        assert!(record.verify_signature(fixture.writer.public()).is_ok());
    }
}

#[test]
fn a_record_secret_opens_its_record_and_no_other() {
    for suite in Suite::ALL {
        let mut fixture = Fixture::new(suite);
        let one = fixture.seal(&batch(&[b"one"]));
        let two = fixture.seal(&batch(&[b"one"]));
        let secret = record_secret(&one, &fixture.keys).unwrap();
        let given = RecordSecret::from_bytes(*secret.expose());
        assert_eq!(
            open(&one, &given).unwrap().get(0).unwrap().plain(),
            Some(&b"one"[..])
        );
        assert_eq!(open(&two, &given).unwrap_err(), OpenError::Commitment);
    }
}

#[test]
fn an_erased_entry_leaves_the_record_provable() {
    for suite in Suite::ALL {
        let mut fixture = Fixture::new(suite);
        let name = fixture.metadata.name();
        let mut batch = batch(&[b"plain"]);
        let key = batch
            .push_erasable(suite, &name, b"personal", &mut fixture.entropy)
            .unwrap();
        let other = batch
            .push_erasable(suite, &name, b"another", &mut fixture.entropy)
            .unwrap();
        let record = fixture.seal(&batch);
        let place = EntryPlace {
            writer: fixture.writer.id(),
            seq: 1,
            index: 1,
        };
        fixture.keys.keep_entry(place, key).unwrap();
        let entries = open_with(&record, &fixture.keys).unwrap();
        let Some(Entry::Erasable(entry)) = entries.get(1) else {
            panic!("entry 1 is erasable");
        };
        assert_eq!(entry.place(), place);
        assert_eq!(**entry.open(&fixture.keys).unwrap(), *b"personal");
        assert_eq!(entry.open_with(&other), Err(OpenError::Commitment));
        assert!(fixture.keys.drop_entry(&place));
        assert_eq!(
            entry.open(&fixture.keys),
            Err(OpenError::NoEntryKey { place })
        );
        assert_eq!(entries.get(0).unwrap().plain(), Some(&b"plain"[..]));
        assert!(record.verify_signature(fixture.writer.public()).is_ok());
    }
}

#[test]
fn an_altered_erasable_entry_does_not_open() {
    let mut fixture = Fixture::new(Suite::Ed25519);
    let name = fixture.metadata.name();
    let mut batch = Batch::new();
    let key = batch
        .push_erasable(Suite::Ed25519, &name, b"personal", &mut fixture.entropy)
        .unwrap();
    let sealed = &batch.entries()[1..];
    for at in 0..sealed.len() {
        let mut sealed = sealed.to_vec();
        sealed[at] ^= 1;
        let entry = Erasable {
            sealed: &sealed,
            suite: Suite::Ed25519,
            capsule: name,
            place: EntryPlace {
                writer: fixture.writer.id(),
                seq: 1,
                index: 0,
            },
        };
        let expected = if at < 32 {
            OpenError::Commitment
        } else {
            OpenError::Tag
        };
        assert_eq!(entry.open_with(&key), Err(expected), "byte {at}");
    }
}

#[test]
fn a_header_or_body_altered_under_the_right_key_does_not_open() {
    // A writer that turns against its readers signs what it likes: only the seal is left.
    for suite in Suite::ALL {
        let mut fixture = Fixture::new(suite);
        let record = fixture.seal(&batch(&[b"entry"]));
        let secret = record_secret(&record, &fixture.keys).unwrap();
        let key = WriterKey::from_seed(suite, Secret::from_bytes([7; 32])).unwrap();
        let mut header = record.header().clone();
        header.parents = vec![fixture.config];
        let moved = Received::sign(&key, &header, record.body()).unwrap();
        assert_eq!(open(&moved, &secret).unwrap_err(), OpenError::Tag);
        for at in 0..record.body().len() {
            let mut body = record.body().to_vec();
            body[at] ^= 1;
            let mut header = record.header().clone();
            header.root = suite.root(&body);
            let altered = Received::sign(&key, &header, &body).unwrap();
            assert_eq!(open(&altered, &secret).unwrap_err(), OpenError::Tag);
        }
    }
}

#[test]
fn a_layout_that_lies_is_refused_before_any_entry_is_seen() {
    let fixture = Fixture::new(Suite::Ed25519);
    let end = |ends: &[u32]| ends.iter().flat_map(|end| end.to_be_bytes()).collect();
    let cases: [(&[u8], Vec<u8>); 9] = [
        (b"\0a\0b", end(&[4, 2])),
        (b"\0a\0b", end(&[2, 5])),
        (b"\0a\0b", end(&[2, 3])),
        (b"\0a\0b", end(&[2, u32::MAX])),
        (b"\0a\0b", end(&[0, 4])),
        (b"\0a\0b", end(&[4, 4])),
        (b"\0a\x02b", end(&[2, 4])),
        (b"\0a\x01b", end(&[2, 4])),
        (b"\0aaaaaa", vec![0; 3]),
    ];
    for (n, (entries, ends)) in cases.iter().enumerate() {
        let plaintext = [entries, &ends[..]].concat();
        let (record, secret) = sealed_by_hand(&fixture, &plaintext, 2);
        assert!(
            matches!(open(&record, &secret), Err(OpenError::Layout(_))),
            "case {n}"
        );
    }
    let good = [&b"\0a\0b"[..], &end(&[2, 4])].concat();
    let (record, secret) = sealed_by_hand(&fixture, &good, 2);
    assert_eq!(open(&record, &secret).unwrap().len(), 2);
}

#[test]
fn only_data_records_open() {
    let mut fixture = Fixture::new(Suite::Ed25519);
    let close = fixture.writer.close(NOW).unwrap();
    assert_eq!(
        open_with(&close, &fixture.keys).unwrap_err(),
        OpenError::NotData(Kind::Close)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_batches_survive_sealing_and_opening(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..60),
        suite in proptest::sample::select(Suite::ALL.to_vec()),
    ) {
        let mut fixture = Fixture::new(suite);
        let mut batch = Batch::new();
        for payload in &payloads {
            batch.push(payload).unwrap();
        }
        let record = fixture.seal(&batch);
        let record = Received::decode(record.into_bytes()).unwrap();
        prop_assert!(record.verify_signature(fixture.writer.public()).is_ok());
        let entries = open_with(&record, &fixture.keys).unwrap();
        prop_assert_eq!(entries.len(), payloads.len());
        for (entry, payload) in entries.iter().zip(&payloads) {
            prop_assert_eq!(entry.plain(), Some(&payload[..]));
        }
    }

    #[test]
    fn random_plaintexts_under_the_right_key_never_panic(
        entries in proptest::collection::vec(any::<u8>(), 15..90),
        ends in proptest::collection::vec(0u32..80, 1..4),
    ) {
        let fixture = Fixture::new(Suite::Ed25519);
        let mut plaintext = entries;
        plaintext.extend(ends.iter().flat_map(|end| end.to_be_bytes()));
        let (record, secret) = sealed_by_hand(&fixture, &plaintext, ends.len() as u32);
        if let Ok(entries) = open(&record, &secret) {
            prop_assert_eq!(entries.iter().count(), ends.len());
        }
    }
}
