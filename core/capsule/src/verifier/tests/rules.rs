//! One story per rule.

use bield_envelope::{Digest, Time};

use super::author::{Author, START, Stage, certified, certifier, forged};
use crate::{
    CLOCK_AHEAD_MAX, CapsuleName, CertificateError, Change, Clock, ConfigError, Context,
    Contradiction, ForkProof, Head, Header, History, Kind, NoHistory, OpeningError, Received,
    Refused, Suite, Through, Verifier, VerifierPolicy, WriterId,
};

/// The next data record of `author`, with its header altered before it is signed.
fn altered(author: &Author, alter: impl FnOnce(&mut Header)) -> Received {
    let body = [7; 40];
    let mut header = author.header(Kind::Data, &body);
    alter(&mut header);
    author.clone().write(&header, &body)
}

#[test]
fn right_records_are_accepted_in_every_suite_and_the_state_follows() {
    for suite in Suite::ALL {
        let mut stage = Stage::new(suite, &[]);
        let mut author = stage.admitted(1);
        let mut other = stage.admitted(2);
        for _ in 0..20 {
            let record = author.data();
            stage.accept(record);
        }
        let join = other.join(&[author.head()]);
        stage.accept(join);
        let close = other.close();
        stage.accept(close);
        let mut heads = vec![author.head(), other.head()];
        heads.sort();
        assert_eq!(stage.verifier.heads().collect::<Vec<_>>(), heads);
        assert_eq!(stage.verifier.config().head(), Some(stage.owner.head()));
        assert!(stage.verifier.chain(&other.id()).unwrap().closed());
        assert_eq!(stage.verifier.missing().count(), 0);
    }
}

#[test]
fn a_record_of_another_capsule_or_suite_is_refused() {
    let (stage, author) = Stage::with_author();
    let found = CapsuleName::from_bytes([9; 32]);
    let record = altered(&author, |header| header.capsule = found);
    assert_eq!(stage.refusal(&record), Refused::OtherCapsule { found });
    let mut foreign = Author::new(Suite::P256, stage.verifier.metadata().name(), 1);
    let record = foreign.open(stage.owner.head(), None);
    assert_eq!(stage.refusal(&record), Refused::OtherSuite);
}

#[test]
fn only_the_owner_configures_and_it_does_nothing_else() {
    let (stage, author) = Stage::with_author();
    let quota = crate::encode_changes(&[Change::Quota(1)]);
    let mut header = author.header(Kind::Config, &quota);
    header.count = 1;
    let record = author.clone().write(&header, &quota);
    assert_eq!(stage.refusal(&record), Refused::OwnerKind);
    let record = stage.owner.clone().data();
    assert_eq!(stage.refusal(&record), Refused::OwnerKind);
}

#[test]
fn a_gap_says_what_is_there_and_is_accepted_once_it_is_filled() {
    let (mut stage, mut author) = Stage::with_author();
    let records = [author.data(), author.data()];
    let gap = stage.refusal(&records[1]);
    let writer = author.id();
    assert_eq!(
        gap,
        Refused::Gap {
            writer,
            have: Some(0),
            got: 2
        }
    );
    assert!(gap.retry());
    for record in records {
        stage.accept(record);
    }
    let stranger = stage.author(9);
    let mut header = stranger.header(Kind::Data, &[7; 40]);
    header.seq = 1;
    header.prev = Digest::from_bytes([1; 32]);
    let stranger = Received::sign(&stranger.key(), &header, &[7; 40]).unwrap();
    assert!(matches!(
        stage.refusal(&stranger),
        Refused::Gap {
            have: None,
            got: 1,
            ..
        }
    ));
}

#[test]
fn a_record_waits_for_the_config_it_was_written_under() {
    let (mut stage, mut author) = Stage::with_author();
    let config = stage.owner.configure(&[Change::Quota(5)]);
    author.config = stage.owner.head().seq;
    let record = author.data();
    let gap = stage.refusal(&record);
    assert_eq!(
        gap,
        Refused::ConfigGap {
            have: Some(1),
            need: 2
        }
    );
    assert!(gap.retry());
    stage.accept(config);
    stage.accept(record);
}

#[test]
fn a_record_that_breaks_its_chain_is_refused() {
    let (mut stage, mut author) = Stage::with_author();
    author.millis += 500;
    author.config = 1;
    let body = [7; 40];
    let mut header = author.header(Kind::Data, &body);
    header.epoch = 3;
    let record = author.write(&header, &body);
    stage.accept(record);
    let epoch = |header: &mut Header| header.epoch = 3;
    let wrong = Digest::from_bytes([1; 32]);
    let cases: [(&str, Received); 5] = [
        (
            "prev",
            altered(&author, |header| {
                epoch(header);
                header.prev = wrong;
            }),
        ),
        (
            "skips",
            altered(&author, |header| {
                epoch(header);
                header.skips[0] = wrong;
            }),
        ),
        (
            "clock",
            altered(&author, |header| {
                epoch(header);
                header.clock = Clock::from_bits(header.clock.bits() - 1);
            }),
        ),
        ("epoch", altered(&author, |header| header.epoch = 2)),
        (
            "config-backwards",
            altered(&author, |header| {
                epoch(header);
                header.config = 0;
            }),
        ),
    ];
    for (slug, record) in cases {
        let refused = stage.refusal(&record);
        assert_eq!(refused.slug(), slug, "{refused}");
        assert!(!refused.retry());
    }
    stage.accept(altered(&author, epoch));
}

#[test]
fn a_forged_signature_is_refused_for_every_kind() {
    let (mut stage, mut author) = Stage::with_author();
    let config = stage.owner.clone().configure(&[Change::Quota(1)]);
    let mut stranger = stage.author(2);
    stage.configure(&[Change::admit(stranger.key().public())]);
    let config_again = stage.owner.clone().configure(&[Change::Quota(1)]);
    assert_eq!(stage.refusal(&config).slug(), "conflict");
    let open = stranger.open(stage.owner.head(), None);
    for record in [config_again, open, author.data()] {
        assert_eq!(stage.refusal(&forged(&record)), Refused::Signature);
        stage.accept(record);
    }
    for record in [author.join(&[stranger.head()]), author.close()] {
        assert_eq!(stage.refusal(&forged(&record)), Refused::Signature);
        stage.accept(record);
    }
}

#[test]
fn a_signature_by_another_admitted_writer_is_refused() {
    let (mut stage, author) = Stage::with_author();
    let other = stage.admitted(2);
    let header = author.header(Kind::Data, &[7; 40]);
    let record = Received::sign(&other.key(), &header, &[7; 40]).unwrap();
    assert_eq!(stage.refusal(&record), Refused::Signature);
}

#[test]
fn nothing_follows_a_close() {
    let (mut stage, mut author) = Stage::with_author();
    let close = author.close();
    stage.accept(close);
    let writer = author.id();
    assert_eq!(stage.refusal(&author.data()), Refused::Closed { writer });
}

#[test]
fn data_is_sealed_under_the_newest_generation_as_of_its_config() {
    let (mut stage, mut author) = Stage::with_author();
    stage.configure(&[Change::Generation {
        number: 2,
        commitment: Digest::from_bytes([2; 32]),
    }]);
    let old = author.data();
    stage.accept(old);
    author.config = stage.owner.head().seq;
    assert_eq!(
        stage.refusal(&altered(&author, |_| {})),
        Refused::Generation {
            expected: 2,
            found: 1
        }
    );
    stage.accept(altered(&author, |header| header.generation = 2));
}

#[test]
fn a_writer_that_nobody_admits_is_refused() {
    let stage = Stage::new(Suite::Ed25519, &[]);
    let mut author = stage.author(1);
    let writer = author.id();
    let bare = author.clone().open(stage.owner.head(), None);
    let reason = CertificateError::Absent;
    assert!(stage.refusal(&bare).retry(), "after newer configuration");
    assert_eq!(
        stage.refusal(&bare),
        Refused::NotAdmitted { writer, reason }
    );
    let certificate = certified(50, author.certificate());
    let open = author.open(stage.owner.head(), Some(&certificate));
    let reason = CertificateError::Signer;
    assert_eq!(
        stage.refusal(&open),
        Refused::NotAdmitted { writer, reason }
    );
}

#[test]
fn a_certificate_admits_its_writer_within_its_window() {
    let by = certifier(50).principal();
    let mut stage = Stage::new(Suite::Ed25519, &[Change::Certify(by)]);
    let mut author = stage.author(1);
    let writer = author.id();
    let certificate = certified(50, author.certificate());
    let mut early = author.clone();
    early.millis = START - 1;
    let reason = CertificateError::Clock;
    assert_eq!(
        stage.refusal(&early.open(stage.owner.head(), Some(&certificate))),
        Refused::Certificate { writer, reason }
    );
    let open = author.open(stage.owner.head(), Some(&certificate));
    stage.accept(open);
    author.millis = START + 999;
    let data = author.data();
    stage.accept(data);
    author.millis = START + 1000;
    assert_eq!(
        stage.refusal(&author.data()),
        Refused::Certificate { writer, reason }
    );
}

#[test]
fn a_record_that_arrives_after_its_certificate_ended_is_refused_after_a_grace() {
    let by = certifier(50).principal();
    let stage = Stage::new(Suite::Ed25519, &[Change::Certify(by)]);
    let mut author = stage.author(1);
    let writer = author.id();
    let certificate = certified(50, author.certificate());
    let open = author.open(stage.owner.head(), Some(&certificate));
    let arriving = |millis| {
        let context = Context {
            arrived: Some(Time::from_millis(millis)),
            ..Context::default()
        };
        stage.verifier.verify_in(open.clone(), &context).map(drop)
    };
    let reason = CertificateError::Arrival;
    let refused = Err(Refused::Certificate { writer, reason });
    assert_eq!(arriving(START - 60_000), Ok(()));
    assert_eq!(arriving(START - 60_001), refused);
    assert_eq!(arriving(START + 60_999), Ok(()));
    assert_eq!(arriving(START + 61_000), refused);
}

#[test]
fn a_simulated_certificate_needs_a_policy_that_says_so() {
    let by = certifier(50).principal();
    let mut stage = Stage::new(Suite::Ed25519, &[Change::Certify(by)]);
    let mut author = stage.author(1);
    let mut certificate = author.certificate();
    certificate.simulated = true;
    let open = author.open(stage.owner.head(), Some(&certified(50, certificate)));
    let writer = author.id();
    assert_eq!(stage.refusal(&open), Refused::Simulated { writer });
    let allowing = VerifierPolicy {
        allow_simulated: true,
        ..VerifierPolicy::default()
    };
    let mut verifier = Verifier::new(stage.verifier.metadata().clone(), allowing);
    let config = Stage::new(Suite::Ed25519, &[Change::Certify(by)])
        .owner
        .head();
    assert_eq!(config, stage.owner.head());
    let mut owner = Author::new(Suite::Ed25519, verifier.metadata().name(), 200);
    let config = owner.configure(&[
        Change::Generation {
            number: 1,
            commitment: Digest::from_bytes([1; 32]),
        },
        Change::Certify(by),
    ]);
    let verified = verifier.verify(config).unwrap();
    verifier.apply(verified).unwrap();
    let verified = verifier.verify(open).unwrap();
    // What another verifier allowed is judged again before it is applied.
    let writer = author.id();
    let refused = stage.verifier.apply(verified).unwrap_err();
    assert_eq!(refused, Refused::Simulated { writer });
}

#[test]
fn the_owner_may_say_which_code_counts() {
    let by = certifier(50).principal();
    let codes = |codes: &[u8]| Change::Codes {
        principal: by,
        codes: codes.iter().map(|code| vec![*code]).collect(),
    };
    let mut stage = Stage::new(Suite::Ed25519, &[Change::Certify(by), codes(&[1, 3])]);
    let open = |stage: &Stage, seed, code: Option<u8>| {
        let mut author = stage.author(seed);
        let mut certificate = author.certificate();
        certificate.code = code.map(|code| vec![code]);
        let open = author.open(stage.owner.head(), Some(&certified(50, certificate)));
        (author, open)
    };
    for code in [None, Some(2)] {
        let (author, open) = open(&stage, 1, code);
        let writer = author.id();
        let reason = CertificateError::Code;
        assert_eq!(
            stage.refusal(&open),
            Refused::NotAdmitted { writer, reason }
        );
    }
    let (author, record) = open(&stage, 1, Some(3));
    stage.accept(record);
    assert_eq!(stage.verifier.heads().collect::<Vec<_>>(), [author.head()]);
    stage.configure(&[codes(&[1])]);
    assert_eq!(stage.verifier.heads().count(), 0, "its code counts no more");
    stage.configure(&[codes(&[3])]);
    assert_eq!(stage.verifier.heads().count(), 1, "the last change counts");
}

#[test]
fn after_uncertify_only_the_kept_writers_stay() {
    let by = certifier(50).principal();
    let mut stage = Stage::new(Suite::Ed25519, &[Change::Certify(by)]);
    let mut authors: Vec<Author> = [1, 2].map(|seed| stage.author(seed)).into();
    for author in &mut authors {
        let certificate = certified(50, author.certificate());
        let open = author.open(stage.owner.head(), Some(&certificate));
        stage.accept(open);
    }
    stage.configure(&[Change::Uncertify {
        principal: by,
        keep: vec![authors[0].id()],
    }]);
    assert_eq!(
        stage.verifier.heads().collect::<Vec<_>>(),
        [authors[0].head()]
    );
    assert_eq!(
        stage.verifier.chains().count(),
        2,
        "what was applied is there"
    );
    let kept = authors[0].data();
    stage.accept(kept);
    let writer = authors[1].id();
    let reason = CertificateError::Signer;
    assert_eq!(
        stage.refusal(&authors[1].data()),
        Refused::NotAdmitted { writer, reason }
    );
    let mut late = stage.author(3);
    let certificate = certified(50, late.certificate());
    let open = late.open(stage.owner.head(), Some(&certificate));
    assert_eq!(stage.refusal(&open).slug(), "not-admitted");
}

#[test]
fn a_revoked_writer_writes_nothing_before_its_revocation_either() {
    let (mut stage, mut author) = Stage::with_author();
    let writer = author.id();
    let records: Vec<Received> = (0..3).map(|_| author.data()).collect();
    for record in &records {
        stage.accept(record.clone());
    }
    stage.configure(&[Change::Revoke {
        writer,
        last: Some(records[1].head().into()),
    }]);
    // Its record names the config before the revocation; that does not help.
    let last = Some(2);
    assert_eq!(
        stage.refusal(&author.data()),
        Refused::Revoked { writer, last }
    );
    let heads: Vec<Head> = stage.verifier.heads().collect();
    assert_eq!(heads, [records[1].head()], "record 3 counts no more");
    let chain = stage.verifier.chain(&writer).unwrap();
    assert_eq!(chain.through(stage.verifier.config()), Through::Last(2));
    stage.configure(&[Change::Revoke { writer, last: None }]);
    let chain = stage.verifier.chain(&writer).unwrap();
    assert_eq!(chain.through(stage.verifier.config()), Through::Nothing);
}

#[test]
fn a_revocation_between_verify_and_apply_wins() {
    let (mut stage, mut author) = Stage::with_author();
    let writer = author.id();
    let verified = stage.verifier.verify(author.data()).unwrap();
    stage.configure(&[Change::Revoke { writer, last: None }]);
    let refused = stage.verifier.apply(verified).unwrap_err();
    assert_eq!(refused, Refused::Revoked { writer, last: None });
}

#[test]
fn a_chain_may_grow_up_to_where_it_is_revoked() {
    let (mut stage, mut author) = Stage::with_author();
    let writer = author.id();
    let mut twin = author.clone();
    let record = author.data();
    stage.configure(&[Change::Revoke {
        writer,
        last: Some(record.head().into()),
    }]);
    let last = record.head().into();
    let other = stage.refusal(&twin.data_of(&[9; 40]));
    assert_eq!(other, Refused::OtherLast { writer, last });
    stage.accept(record);
    assert_eq!(stage.verifier.heads().collect::<Vec<_>>(), [author.head()]);
    assert_eq!(stage.refusal(&author.data()).slug(), "revoked");
}

#[test]
fn an_opening_must_be_the_keys_own_and_name_the_config_chain() {
    let mut stage = Stage::new(Suite::Ed25519, &[]);
    let author = stage.author(1);
    let other = stage.admitted(2);
    stage.configure(&[Change::admit(author.key().public())]);
    let config = stage.owner.head();
    let open = |parent: Head, body: &[u8]| {
        let mut author = author.clone();
        author.config = parent.seq;
        let mut header = author.header(Kind::Open, body);
        header.parents = vec![parent];
        author.write(&header, body)
    };
    let right = crate::Opening::encode(author.key().public(), None);
    let theirs = crate::Opening::encode(other.key().public(), None);
    assert_eq!(
        stage.refusal(&open(config, &theirs)),
        Refused::Opening(OpeningError::OtherKey)
    );
    assert_eq!(
        stage.refusal(&open(config, &right[1..])),
        Refused::Opening(OpeningError::Encoding)
    );
    let elsewhere = other.head();
    assert_eq!(stage.refusal(&open(elsewhere, &right)), Refused::OpenParent);
    let parent = Head {
        hash: Digest::from_bytes([9; 32]),
        ..config
    };
    assert_eq!(
        stage.refusal(&open(parent, &right)),
        Refused::OtherConfig {
            parent,
            known: config.hash
        }
    );
    stage.accept(open(config, &right));
}

#[test]
fn a_wrong_config_record_changes_nothing() {
    let mut stage = Stage::new(Suite::Ed25519, &[]);
    let before = stage.owner.clone();
    let record = stage.owner.configure(&[
        Change::Quota(7),
        Change::Unreplica(certifier(3).principal()),
    ]);
    let refused = stage.refusal(&record);
    assert!(
        matches!(
            refused,
            Refused::Config(ConfigError::Contradiction { index: 1, .. })
        ),
        "{refused}"
    );
    assert_eq!(stage.verifier.config().quota(), None);
    stage.owner = before;
    stage.configure(&[Change::Quota(8)]);
    assert_eq!(stage.verifier.config().quota(), Some(8));
}

#[test]
fn one_position_twice_is_known_a_conflict_or_a_matter_of_storage() {
    let (mut stage, mut author) = Stage::with_author();
    let mut twin = author.clone();
    let record = author.data();
    let second = twin.data_of(&[9; 40]);
    stage.accept(record.clone());
    let head = author.head();
    let writer = author.id();
    assert_eq!(stage.refusal(&record), Refused::Known { head });
    let conflict = Refused::Conflict {
        writer,
        seq: 1,
        known: record.hash(),
        found: second.hash(),
    };
    assert_eq!(stage.refusal(&second), conflict);
    assert_eq!(stage.refusal(&forged(&second)), Refused::Signature);
    let next = author.data();
    stage.accept(next);
    assert_eq!(stage.refusal(&record), Refused::Earlier { writer, seq: 1 });
    struct Stored(Head);
    impl History for Stored {
        fn hash_at(&self, writer: &WriterId, seq: u64) -> Option<Digest> {
            (*writer == self.0.writer && seq == self.0.seq).then_some(self.0.hash)
        }
    }
    let context = Context {
        history: &Stored(head),
        ..Context::default()
    };
    let refusal = |record: &Received| {
        let verified = stage.verifier.verify_in(record.clone(), &context);
        verified.map(drop)
    };
    assert_eq!(refusal(&record), Err(Refused::Known { head }));
    assert_eq!(refusal(&second), Err(conflict));
}

#[test]
fn from_a_fork_on_nothing_is_accepted_but_what_the_owner_names() {
    let (mut stage, mut author) = Stage::with_author();
    let writer = author.id();
    for _ in 0..2 {
        let record = author.data();
        stage.accept(record);
    }
    // Somebody else saw the chain fork at 4; the state here ends at 2.
    let three = author.data();
    let mut twin = author.clone();
    let (four, other) = (author.data(), twin.data_of(&[9; 40]));
    let proof = ForkProof::new(
        stage.verifier.metadata(),
        author.key().public(),
        four.signed_head(),
        other.signed_head(),
    )
    .unwrap();
    assert_eq!(stage.verifier.mark_forked(&proof).unwrap().seq, 4);
    assert_eq!(stage.verifier.heads().count(), 0, "no join names it");
    stage.accept(three.clone());
    assert_eq!(stage.refusal(&four), Refused::Forked { writer, seq: 4 });
    let cut = |stage: &mut Stage, at: &Received| {
        let last = Some(at.head().into());
        stage.configure(&[Change::Revoke { writer, last }]);
    };
    // Either side, or none of them.
    let mut side = Stage {
        owner: stage.owner.clone(),
        verifier: stage.verifier.clone(),
    };
    cut(&mut side, &other);
    assert_eq!(side.refusal(&four).slug(), "other-last");
    side.accept(other.clone());
    assert_eq!(side.verifier.heads().collect::<Vec<_>>(), [other.head()]);
    cut(&mut stage, &three);
    assert_eq!(stage.refusal(&four).slug(), "revoked");
    assert_eq!(stage.verifier.heads().collect::<Vec<_>>(), [three.head()]);
}

#[test]
fn a_fork_is_remembered_before_its_chain_comes() {
    let (mut stage, author) = Stage::with_author();
    let mut late = stage.author(9);
    stage.configure(&[Change::admit(late.key().public())]);
    let open = late.open(stage.owner.head(), None);
    let mut twin = late.clone();
    let (one, other) = (late.data(), twin.data_of(&[9; 40]));
    let proof = ForkProof::new(
        stage.verifier.metadata(),
        late.key().public(),
        one.signed_head(),
        other.signed_head(),
    )
    .unwrap();
    stage.verifier.mark_forked(&proof).unwrap();
    stage.accept(open);
    let writer = late.id();
    assert_eq!(stage.refusal(&one), Refused::Forked { writer, seq: 1 });
    assert_eq!(stage.verifier.heads().collect::<Vec<_>>(), [author.head()]);
}

#[test]
fn a_parent_that_contradicts_what_is_here_is_a_fact_and_refuses_nobody() {
    let (mut stage, mut author) = Stage::with_author();
    let mut forker = stage.admitted(2);
    let mut twin = forker.clone();
    let seen_here = forker.data();
    stage.accept(seen_here);
    twin.data_of(&[9; 40]);
    let join = author.join(&[twin.head()]);
    stage.accept(join);
    let found: Vec<_> = stage.verifier.contradictions(&NoHistory).collect();
    let expected = Contradiction {
        by: author.id(),
        parent: twin.head(),
        known: forker.head().hash,
    };
    assert_eq!(found, [expected]);
    stage.configure(&[Change::Revoke {
        writer: forker.id(),
        last: None,
    }]);
    assert_eq!(stage.verifier.contradictions(&NoHistory).count(), 0);
}

#[test]
fn a_config_parent_is_compared_as_far_as_the_record_had_verified() {
    let (stage, author) = Stage::with_author();
    let wrong = |seq| Head {
        writer: stage.owner.id(),
        seq,
        hash: Digest::from_bytes([9; 32]),
    };
    let known = stage.verifier.config().hash_at(1).unwrap();
    let mut behind = author.clone();
    behind.config = 1;
    let parent = wrong(1);
    let refused = Refused::OtherConfig { parent, known };
    assert_eq!(stage.refusal(&behind.join(&[parent])), refused);
    // Before it had verified config 1 it may have been told anything about it.
    let mut early = author.clone();
    early.config = 0;
    let mut header = early.header(Kind::Join, &[]);
    header.parents = vec![wrong(1)];
    let refused = stage.refusal(&early.write(&header, &[]));
    assert_eq!(refused.slug(), "config-backwards");
    assert_eq!(stage.verifier.contradictions(&NoHistory).count(), 0);
}

#[test]
fn what_a_writer_invents_is_missed_only_as_long_as_it_counts() {
    let (mut stage, mut liar) = Stage::with_author();
    let (mut honest, mut other) = (stage.admitted(2), stage.admitted(3));
    let invented = Head {
        seq: u64::MAX,
        ..honest.head()
    };
    for n in 0..70u64 {
        let stranger = |i: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n * 1000 + i).to_be_bytes());
            Head {
                writer: WriterId::from_bytes(id),
                ..invented
            }
        };
        let named: Vec<Head> = (0..1000).map(stranger).chain([invented]).collect();
        let join = liar.join(&named);
        stage.accept(join);
    }
    honest.data();
    let join = other.join(&[honest.head()]);
    stage.accept(join);
    let missing: Vec<_> = stage.verifier.missing().map(|gap| gap.need).collect();
    assert!(missing.contains(&honest.head()), "whatever else is named");
    assert_eq!(missing.len(), 1002, "the newest join of each");
    stage.configure(&[Change::Revoke {
        writer: liar.id(),
        last: None,
    }]);
    let missing: Vec<_> = stage.verifier.missing().map(|gap| gap.need).collect();
    assert_eq!(missing, [honest.head()]);
}

#[test]
fn chains_that_count_for_nothing_take_no_place() {
    let by = certifier(50).principal();
    let mut stage = Stage::new(Suite::Ed25519, &[Change::Certify(by)]);
    stage.verifier.policy.writers_max = 2;
    for seed in [10, 11] {
        let mut rogue = stage.author(seed);
        let certificate = certified(50, rogue.certificate());
        let open = rogue.open(stage.owner.head(), Some(&certificate));
        stage.accept(open);
    }
    let mut good = stage.author(1);
    stage.configure(&[Change::admit(good.key().public())]);
    let open = good.open(stage.owner.head(), None);
    assert_eq!(stage.refusal(&open), Refused::Writers { max: 2 });
    stage.configure(&[Change::Uncertify {
        principal: by,
        keep: vec![],
    }]);
    stage.accept(open);
}

#[test]
fn a_clock_a_day_ahead_is_refused_from_the_writer_itself() {
    let (stage, author) = Stage::with_author();
    let day = CLOCK_AHEAD_MAX.as_millis() as u64;
    let arriving = |millis: u64, arrived: Option<u64>| {
        let record = altered(&author, |header| {
            header.clock = Clock::at(Time::from_millis(millis));
        });
        let context = Context {
            arrived: arrived.map(Time::from_millis),
            ..Context::default()
        };
        stage.verifier.verify_in(record, &context).map(drop)
    };
    assert_eq!(arriving(START + day, Some(START)), Ok(()));
    let refused = arriving(START + day + 1, Some(START)).unwrap_err();
    assert_eq!(refused.slug(), "clock-ahead");
    assert_eq!(arriving(START + day + 1, None), Ok(()), "from a replica");
}

#[test]
fn a_forged_config_record_makes_nobody_fold_it() {
    let mut stage = Stage::new(Suite::Ed25519, &[]);
    // Wrong in itself as well: that is not even looked at.
    let record = stage.owner.configure(&[Change::Erase(9)]);
    assert_eq!(stage.refusal(&forged(&record)), Refused::Signature);
    assert_eq!(stage.refusal(&record).slug(), "config");
}

#[test]
fn a_config_record_verified_before_another_came_first_is_judged_again() {
    let mut stage = Stage::new(Suite::Ed25519, &[]);
    let mut behind = stage.verifier.clone();
    let records = [1, 2].map(|quota| stage.owner.configure(&[Change::Quota(quota)]));
    for record in &records {
        stage.accept(record.clone());
    }
    let verified = behind.verify(records[0].clone()).unwrap();
    assert_eq!(stage.verifier.apply(verified).unwrap_err().slug(), "known");
    for verified in behind.verify_run(records.to_vec()).unwrap() {
        behind.apply(verified).unwrap();
    }
    assert_eq!(behind.config().quota(), Some(2));
    assert_eq!(behind.config().head(), stage.verifier.config().head());
}

#[test]
fn parents_that_are_not_here_are_missed_until_they_come() {
    let (mut stage, mut author) = Stage::with_author();
    let mut other = stage.author(2);
    stage.configure(&[Change::admit(other.key().public())]);
    let records = [other.open(stage.owner.head(), None), other.data()];
    let join = author.join(&[other.head()]);
    stage.accept(join);
    let missing: Vec<_> = stage.verifier.missing().collect();
    assert_eq!(missing.len(), 1);
    assert_eq!((missing[0].have, missing[0].need), (None, other.head()));
    let [open, data] = records;
    stage.accept(open);
    assert_eq!(stage.verifier.missing().next().unwrap().have, Some(0));
    stage.accept(data);
    assert_eq!(stage.verifier.missing().count(), 0);
}

#[test]
fn policy_limits_the_number_of_writers() {
    let (mut stage, mut first) = Stage::with_author();
    let policy = VerifierPolicy {
        writers_max: 1,
        ..VerifierPolicy::default()
    };
    stage.verifier.policy = policy;
    let mut second = stage.author(2);
    stage.configure(&[Change::admit(second.key().public())]);
    let open = second.open(stage.owner.head(), None);
    assert_eq!(stage.refusal(&open), Refused::Writers { max: 1 });
    let record = first.data();
    stage.accept(record);
}

#[test]
fn own_storage_is_taken_back_without_signatures_but_not_without_rules() {
    let (stage, mut author) = Stage::with_author();
    let mut again = stage.verifier.clone();
    let record = author.data();
    let applied = again.restore_own(forged(&record)).unwrap();
    assert_eq!(applied.record().hash(), record.hash());
    assert!(applied.storable().is_none(), "nobody checked it now");
    let skipped = [author.data(), author.data()];
    let refused = again.restore_own(skipped[1].clone()).unwrap_err();
    assert_eq!(refused.slug(), "gap");
}

#[test]
fn a_proof_with_another_head_than_the_owner_named_proves_nothing() {
    let stage = Stage::new(Suite::Ed25519, &[]);
    let metadata = stage.verifier.metadata().clone();
    let (mut owner, mut author) = (stage.author(200), stage.author(1));
    let first = owner.configure(&[
        Change::Generation {
            number: 1,
            commitment: Digest::from_bytes([1; 32]),
        },
        Change::admit(author.key().public()),
    ]);
    let open = author.open(owner.head(), None);
    let mut twin = author.clone();
    let (one, other) = (author.data(), twin.data_of(&[9; 40]));
    let cut = owner.configure(&[Change::Revoke {
        writer: author.id(),
        last: Some(one.head().into()),
    }]);
    let prove = |head: &Received| {
        let config = vec![first.clone(), cut.clone()];
        let (open, head) = (Some(open.clone()), head.signed_head());
        let proof = crate::Proof::new(metadata.clone(), config, open, head, Vec::new());
        proof.verify(&metadata.name(), VerifierPolicy::default())
    };
    assert!(prove(&one).is_ok());
    assert!(matches!(prove(&other), Err(crate::ProofError::Revoked)));
}
