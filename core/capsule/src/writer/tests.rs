//! What a writer makes, and what it refuses to make.

use bield_envelope::{Secret, Seeded};

use super::*;
use crate::body::tests::Fixture;

const NOW: Time = Time::from_millis(1_000_000);

fn batch() -> Batch {
    let mut batch = Batch::new();
    batch.push(b"entry").unwrap();
    batch
}

fn generation(number: u32) -> GenerationKey {
    GenerationKey::from_secret(number, Secret::from_bytes([5; 32]))
}

/// Everything a receiver can check from a record and its predecessor.
fn follows(record: &Received, before: &Received) {
    let (header, last) = (record.header(), before.header());
    assert_eq!(
        Received::decode(record.as_bytes().to_vec()).as_ref(),
        Ok(record)
    );
    assert_eq!((header.seq, header.prev), (last.seq + 1, before.hash()));
    assert!(header.clock > last.clock && header.epoch >= last.epoch);
    assert!(header.config >= last.config);
}

#[test]
fn a_chain_is_linked_signed_and_points_back() {
    for suite in Suite::ALL {
        let mut fixture = Fixture::new(suite);
        let mut entropy = Seeded::new(8);
        let key = WriterKey::generate(suite, &mut entropy);
        let (mut writer, open) =
            Writer::open(key, &fixture.metadata, fixture.config, None, NOW).unwrap();
        let mut records = vec![open];
        for n in 0..40 {
            let record = match n % 10 {
                9 => writer.join(vec![fixture.config], n / 10 + 1, NOW),
                _ => writer.seal(&batch(), &generation(1), &[], NOW, &mut entropy),
            }
            .unwrap();
            if n == 20 {
                let config = fixture.owner.configure(&[Change::Quota(1)], NOW).unwrap();
                writer.adopt_config(config.head()).unwrap();
            }
            records.push(record);
        }
        records.push(writer.close(NOW).unwrap());
        for (at, record) in records.iter().enumerate() {
            assert!(record.verify_signature(writer.public()).is_ok());
            if let Some(before) = at.checked_sub(1) {
                follows(record, &records[before]);
            }
            for (j, skip) in record.header().skips.iter().enumerate() {
                assert_eq!(*skip, records[at - (2 << j)].hash());
            }
        }
        assert_eq!(writer.head(), records.last().map(Received::head));
        assert_eq!(records[41].header().config, 1);
        assert_eq!(writer.epoch(), 4);
    }
}

#[test]
fn the_owners_chain_names_itself() {
    let mut fixture = Fixture::new(Suite::Ed25519);
    assert_eq!(fixture.owner.id(), fixture.metadata.owner_id());
    for seq in 1..5 {
        let record = fixture.owner.configure(&[Change::Quota(1)], NOW).unwrap();
        assert_eq!((record.header().seq, record.header().config), (seq, seq));
        assert_eq!(fixture.owner.config(), Some(record.head()));
    }
    let owner = &mut fixture.owner;
    let empty = owner.configure(&[], NOW);
    assert!(matches!(empty, Err(WriteError::Config(_))));
    let many = vec![Change::Quota(1); crate::CHANGES_MAX + 1];
    assert!(matches!(
        owner.configure(&many, NOW),
        Err(WriteError::Config(_))
    ));
    assert_eq!(owner.close(NOW), Err(WriteError::Role));
    let head = owner.head().unwrap();
    assert_eq!(owner.adopt_config(head), Err(WriteError::Role));
    let sealed = owner.seal(&batch(), &generation(1), &[], NOW, &mut Seeded::new(1));
    assert_eq!(sealed, Err(WriteError::Role));
    assert_eq!(
        fixture.writer.configure(&[Change::Quota(1)], NOW),
        Err(WriteError::Role)
    );
}

#[test]
fn nothing_follows_a_close() {
    let mut writer = Fixture::new(Suite::Ed25519).writer;
    writer.close(NOW).unwrap();
    assert!(writer.is_closed());
    let head = writer.head();
    let sealed = writer.seal(&batch(), &generation(1), &[], NOW, &mut Seeded::new(1));
    assert_eq!(sealed, Err(WriteError::Closed));
    assert_eq!(writer.join(Vec::new(), 1, NOW), Err(WriteError::Closed));
    assert_eq!(writer.close(NOW), Err(WriteError::Closed));
    assert_eq!(writer.head(), head);
}

#[test]
fn a_refused_call_leaves_the_chain_as_it_was() {
    let mut fixture = Fixture::new(Suite::Ed25519);
    let (writer, config) = (&mut fixture.writer, fixture.config);
    let mut entropy = Seeded::new(1);
    let head = writer.head();
    let mut own = config;
    own.writer = writer.id();
    let mut seal = |batch: &Batch, number, parents: &[Head]| {
        writer.seal(batch, &generation(number), parents, NOW, &mut entropy)
    };
    assert_eq!(seal(&Batch::new(), 1, &[]), Err(WriteError::Empty));
    assert_eq!(seal(&batch(), 0, &[]), Err(WriteError::Generation));
    for parents in [&[own][..], &[config, config]] {
        assert!(matches!(
            seal(&batch(), 1, parents),
            Err(WriteError::Record(_))
        ));
    }
    let many = vec![config; PARENTS_MAX + 1];
    let found = many.len();
    assert_eq!(seal(&batch(), 1, &many), Err(WriteError::Parents { found }));
    let empty = writer.join(Vec::new(), 1, NOW);
    assert!(matches!(empty, Err(WriteError::Record(_))));
    assert_eq!((writer.head(), writer.epoch()), (head, 0));
    writer.join(vec![config], 7, NOW).unwrap();
    assert_eq!(
        writer.join(vec![config], 6, NOW),
        Err(WriteError::Epoch {
            current: 7,
            found: 6
        })
    );
}

#[test]
fn parents_are_named_in_the_one_order() {
    let mut fixture = Fixture::new(Suite::Ed25519);
    let parent = |byte| Head {
        writer: WriterId::from_bytes([byte; 32]),
        ..fixture.config
    };
    let parents = vec![parent(9), parent(1), parent(5)];
    let record = fixture.writer.join(parents, 1, NOW).unwrap();
    assert_eq!(record.header().parents, [parent(1), parent(5), parent(9)]);
}

#[test]
fn a_configuration_never_goes_back_nor_changes() {
    let mut fixture = Fixture::new(Suite::Ed25519);
    let old = fixture.config;
    let new = fixture
        .owner
        .configure(&[Change::Quota(1)], NOW)
        .unwrap()
        .head();
    let writer = &mut fixture.writer;
    writer.adopt_config(new).unwrap();
    writer.adopt_config(new).unwrap();
    assert_eq!(
        writer.adopt_config(old),
        Err(WriteError::ConfigBackwards {
            adopted: 1,
            found: 0
        })
    );
    let forked = Head {
        hash: old.hash,
        ..new
    };
    assert_eq!(
        writer.adopt_config(forked),
        Err(WriteError::ConfigForked { seq: 1 })
    );
    let own = writer.head().unwrap();
    assert_eq!(writer.adopt_config(own), Err(WriteError::OtherChain(own)));
    assert_eq!(writer.config(), Some(new));
}

#[test]
fn a_clock_that_stands_still_or_jumps_back_still_orders_records() {
    let mut fixture = Fixture::new(Suite::Ed25519);
    let mut last = Clock::default();
    for now in [5_000_000, 5_000_000, 1, 0, 6_000_000] {
        let record = fixture.writer.seal(
            &batch(),
            &generation(1),
            &[],
            Time::from_millis(now),
            &mut fixture.entropy,
        );
        let clock = record.unwrap().header().clock;
        assert!(clock > last && clock.time().as_millis() >= now);
        last = clock;
    }
}

#[test]
fn only_the_right_key_begins_a_chain() {
    let fixture = Fixture::new(Suite::Ed25519);
    let mut entropy = Seeded::new(9);
    let (metadata, config) = (&fixture.metadata, fixture.config);
    let other_suite = WriterKey::generate(Suite::P256, &mut entropy);
    assert_eq!(
        Writer::open(other_suite, metadata, config, None, NOW).err(),
        Some(WriteError::Suite {
            expected: Suite::Ed25519,
            found: Suite::P256
        })
    );
    let mut key = || WriterKey::generate(Suite::Ed25519, &mut entropy);
    let not_owner = Writer::owner(key(), metadata, &[Change::Quota(1)], NOW).err();
    assert_eq!(not_owner, Some(WriteError::Role));
    let head = fixture.writer.head().unwrap();
    let not_config = Writer::open(key(), metadata, head, None, NOW).err();
    assert_eq!(not_config, Some(WriteError::OtherChain(head)));
    let bad_certificate = Writer::open(key(), metadata, config, Some(b"no"), NOW).err();
    assert!(matches!(bad_certificate, Some(WriteError::Opening(_))));
}

/// A chain of `len` records, with what a verifier would have learnt of it.
fn chain(len: u64) -> (Fixture, Secret, Vec<Received>, SkipLevels) {
    let fixture = Fixture::new(Suite::Ed25519);
    let mut entropy = Seeded::new(11);
    let key = WriterKey::generate(Suite::Ed25519, &mut entropy);
    let seed = Secret::from_bytes(*key.seed().expose());
    let (mut writer, open) =
        Writer::open(key, &fixture.metadata, fixture.config, None, NOW).unwrap();
    let mut records = vec![open];
    for _ in 1..len {
        let record = writer.seal(&batch(), &generation(1), &[], NOW, &mut entropy);
        records.push(record.unwrap());
    }
    let mut levels = SkipLevels::new();
    for record in &records {
        levels.push(record.header().seq, record.hash());
    }
    (fixture, seed, records, levels)
}

#[test]
fn a_restarted_writer_continues_where_its_chain_stands() {
    let (fixture, seed, records, levels) = chain(16);
    let key = WriterKey::from_seed(Suite::Ed25519, seed).unwrap();
    let tip = records.last().unwrap();
    let mut writer = Writer::resume(
        key,
        &fixture.metadata,
        &tip.signed_head(),
        fixture.config,
        levels,
    )
    .unwrap();
    let record = writer
        .seal(
            &batch(),
            &generation(1),
            &[],
            Time::from_millis(0),
            &mut Seeded::new(1),
        )
        .unwrap();
    follows(&record, tip);
    let back: Vec<_> = [14, 12, 8, 0].map(|seq| records[seq].hash()).to_vec();
    assert_eq!(record.header().skips, back);
}

#[test]
fn a_restarted_owner_continues_its_own_chain() {
    let mut entropy = Seeded::new(12);
    let owner = WriterKey::generate(Suite::P256, &mut entropy);
    let seed = Secret::from_bytes(*owner.seed().expose());
    let metadata = Metadata::new(owner.public(), None, NOW, &mut entropy).unwrap();
    let (_, first) = Writer::owner(owner, &metadata, &[Change::Quota(1)], NOW).unwrap();
    let mut levels = SkipLevels::new();
    levels.push(0, first.hash());
    let key = WriterKey::from_seed(Suite::P256, seed).unwrap();
    let tip = first.signed_head();
    let config = Config::new(&metadata);
    let folded = config.after(first.hash(), &[Change::Quota(1)]).unwrap();
    let key_again = WriterKey::from_seed(Suite::P256, Secret::from_bytes(*key.seed().expose()));
    assert_eq!(
        Writer::resume_owner(key_again.unwrap(), &metadata, &tip, &config, levels.clone()).err(),
        Some(WriteError::OtherChain(tip.head())),
        "what was folded must end with the tip"
    );
    let mut writer = Writer::resume_owner(key, &metadata, &tip, &folded, levels).unwrap();
    assert_eq!(writer.folded.as_ref().unwrap().quota(), Some(1));
    let second = writer.configure(&[Change::Quota(2)], NOW).unwrap();
    follows(&second, &first);
}

#[test]
fn an_owner_signs_nothing_that_contradicts_its_configuration() {
    let mut fixture = Fixture::new(Suite::Ed25519);
    let before = fixture.owner.head();
    let admit = Change::admit(WriterKey::generate(Suite::Ed25519, &mut Seeded::new(3)).public());
    for changes in [vec![Change::Erase(9)], vec![admit.clone(), admit.clone()]] {
        assert!(matches!(
            fixture.owner.configure(&changes, NOW),
            Err(WriteError::Config(ConfigError::Contradiction { .. }))
        ));
        assert_eq!(fixture.owner.head(), before, "the place is still free");
    }
    // What came before a refused change of the same record is not remembered either.
    let admitted = fixture.owner.configure(std::slice::from_ref(&admit), NOW);
    assert_eq!(admitted.unwrap().header().seq, 1);
    assert!(fixture.owner.configure(&[admit], NOW).is_err());

    let owner = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(4));
    let metadata = Metadata::new(owner.public(), None, NOW, &mut Seeded::new(5)).unwrap();
    let first = Writer::owner(owner, &metadata, &[Change::Erase(1)], NOW);
    assert!(matches!(first.err(), Some(WriteError::Config(_))));
}

#[test]
fn the_owners_chain_is_not_continued_like_another() {
    let (mut fixture, seed, records, levels) = chain(2);
    let metadata = &fixture.metadata;
    let key = WriterKey::from_seed(Suite::Ed25519, seed).unwrap();
    let config = Config::new(metadata);
    let tip = records[1].signed_head();
    assert_eq!(
        Writer::resume_owner(key, metadata, &tip, &config, levels.clone()).err(),
        Some(WriteError::Role)
    );
    let owner = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(1));
    assert_eq!(owner.id(), metadata.owner_id(), "the fixture's owner");
    let tip = fixture.owner.configure(&[Change::Quota(3)], NOW).unwrap();
    assert_eq!(
        Writer::resume(
            owner,
            &fixture.metadata,
            &tip.signed_head(),
            tip.head(),
            levels
        )
        .err(),
        Some(WriteError::Role)
    );
}

#[test]
fn a_tip_that_is_not_the_chains_newest_is_no_place_to_continue() {
    let (mut fixture, seed, records, levels) = chain(4);
    let key = || WriterKey::from_seed(Suite::Ed25519, Secret::from_bytes(*seed.expose())).unwrap();
    let resume = |tip: &SignedHead, config, levels: &SkipLevels| {
        Writer::resume(key(), &fixture.metadata, tip, config, levels.clone()).err()
    };
    let config = fixture.config;
    let tip = records[3].signed_head();
    assert_eq!(
        resume(&records[2].signed_head(), config, &levels),
        Some(WriteError::Unverified)
    );
    let mut forged = tip.as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let forged = SignedHead::decode(&forged).unwrap();
    assert_eq!(
        resume(&forged, config, &levels),
        Some(WriteError::Unverified)
    );
    let head = tip.head();
    assert_eq!(
        resume(&tip, head, &levels),
        Some(WriteError::OtherChain(head))
    );
    let other = fixture.writer.close(NOW).unwrap();
    assert_eq!(
        Writer::resume(
            key(),
            &fixture.metadata,
            &other.signed_head(),
            config,
            levels
        )
        .err(),
        Some(WriteError::OtherChain(other.head()))
    );
}

#[test]
fn a_closed_chain_is_not_resumed() {
    let (fixture, seed, _, levels) = chain(1);
    let key = || WriterKey::from_seed(Suite::Ed25519, Secret::from_bytes(*seed.expose())).unwrap();
    let (mut writer, open) =
        Writer::open(key(), &fixture.metadata, fixture.config, None, NOW).unwrap();
    assert_eq!(Some(open.hash()), levels.newest());
    let close = writer.close(NOW).unwrap();
    let mut levels = levels;
    levels.push(1, close.hash());
    assert_eq!(
        Writer::resume(
            key(),
            &fixture.metadata,
            &close.signed_head(),
            fixture.config,
            levels
        )
        .err(),
        Some(WriteError::Closed)
    );
}
