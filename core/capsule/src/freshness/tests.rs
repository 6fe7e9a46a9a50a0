//! When replicas' statements make a state fresh.

use bield_envelope::{Secret, SigningKey};

use super::*;
use crate::verifier::tests::author::{Author, START, Stage};
use crate::{Change, NoHistory, Suite};

const NONCE: Nonce = [7; 16];

fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([byte; 32]))
}

fn question() -> Question {
    Question {
        nonce: NONCE,
        now: Time::from_millis(START),
        age_max: Duration::from_secs(10),
    }
}

/// Three replicas, two of which make a quorum: 3 − 2 + 1 = 2 must answer. One author with two records.
fn stage() -> (Stage, Author) {
    let mut changes: Vec<_> = [1, 2, 3]
        .map(|byte| Change::Replica {
            principal: key(byte).principal(),
            address: String::new(),
        })
        .into();
    changes.push(Change::Quorum {
        replicas: 2,
        witnesses: 0,
    });
    let mut stage = Stage::new(Suite::Ed25519, &changes);
    let mut author = stage.admitted(1);
    let record = author.data();
    stage.accept(record);
    (stage, author)
}

fn page(stage: &Stage, heads: &[Head]) -> HeadsStatement {
    let mut heads = heads.to_vec();
    heads.sort();
    HeadsStatement::page(
        stage.verifier.metadata().name(),
        NONCE,
        Time::from_millis(START),
        stage.verifier.config().head(),
        None,
        heads,
    )
}

fn signed(by: u8, page: HeadsStatement) -> Signed<HeadsStatement> {
    Signed::sign(&key(by), page).into_signed()
}

fn held(stage: &Stage) -> HeadsStatement {
    page(
        stage,
        &stage.verifier.stated_after(None).collect::<Vec<_>>(),
    )
}

fn ask(stage: &Stage, said: &[Signed<HeadsStatement>]) -> Result<Freshness, NotFresh> {
    fresh(&stage.verifier, said, &question(), &NoHistory, &[])
}

#[test]
fn a_state_is_fresh_when_enough_distinct_replicas_say_so() {
    let (stage, _) = stage();
    let said = [1, 3].map(|by| signed(by, held(&stage)));
    let fresh = ask(&stage, &said).unwrap();
    let mut replicas = [1, 3].map(|by| key(by).principal());
    replicas.sort();
    assert_eq!(fresh.replicas, replicas);
    assert_eq!(fresh.at, Time::from_millis(START));
    let twice = vec![signed(1, held(&stage)); 5];
    assert!(matches!(
        ask(&stage, &twice),
        Err(NotFresh::TooFew {
            need: 2,
            counted: 1,
            ..
        })
    ));
}

#[test]
fn what_does_not_count_says_why() {
    let (stage, _) = stage();
    let good = held(&stage);
    let at = |millis| HeadsStatement {
        at: Time::from_millis(millis),
        ..good.clone()
    };
    let mut broken = signed(1, good.clone()).as_bytes().to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let mut backwards = good.clone();
    backwards.heads = vec![good.heads[0], good.heads[0]];
    let mut owners = good.clone();
    owners.heads = vec![stage.owner.head()];
    let (old, future) = (START - 10_001, START + 60_001);
    let cases = [
        (Signed::decode(&broken).unwrap(), Uncounted::Signature),
        (signed(4, good.clone()), Uncounted::NotReplica),
        (
            signed(
                1,
                HeadsStatement {
                    capsule: CapsuleName::from_bytes([9; 32]),
                    ..good.clone()
                },
            ),
            Uncounted::OtherCapsule,
        ),
        (
            signed(
                1,
                HeadsStatement {
                    nonce: [8; 16],
                    ..good.clone()
                },
            ),
            Uncounted::OtherNonce,
        ),
        (
            signed(1, at(old)),
            Uncounted::Old {
                at: Time::from_millis(old),
            },
        ),
        (
            signed(1, at(future)),
            Uncounted::Future {
                at: Time::from_millis(future),
            },
        ),
        (signed(1, backwards), Uncounted::Malformed),
        (signed(1, owners), Uncounted::Malformed),
        (
            signed(
                1,
                HeadsStatement {
                    more: true,
                    ..good.clone()
                },
            ),
            Uncounted::Pages,
        ),
        (
            signed(
                1,
                HeadsStatement {
                    after: Some(WriterId::from_bytes([0; 32])),
                    ..good.clone()
                },
            ),
            Uncounted::Pages,
        ),
    ];
    for (said, expected) in cases {
        let claimed = said.claimed_signer();
        let Err(NotFresh::TooFew { uncounted, .. }) = ask(&stage, &[signed(2, good.clone()), said])
        else {
            panic!("{expected}");
        };
        assert_eq!(uncounted, [(claimed, expected)]);
    }
    for millis in [START - 10_000, START + 60_000] {
        let said = [signed(2, good.clone()), signed(1, at(millis))];
        assert!(ask(&stage, &said).is_ok());
    }
}

#[test]
fn a_state_that_lacks_a_record_is_told_which() {
    let (mut stage, mut author) = stage();
    let before = held(&stage);
    let next = author.data();
    let ahead = page(&stage, &[author.head()]);
    let said = [signed(1, before.clone()), signed(2, ahead.clone())];
    let Err(NotFresh::Behind { missing, .. }) = ask(&stage, &said) else {
        panic!("one replica has more");
    };
    assert_eq!(
        missing,
        [Gap {
            have: Some(1),
            need: author.head()
        }]
    );
    // Two others outvote a replica that names what nobody has.
    let outvoted = [said.as_slice(), &[signed(3, before)]].concat();
    assert!(ask(&stage, &outvoted).is_ok());
    stage.accept(next);
    assert!(ask(&stage, &said).is_ok(), "older heads are contained");
}

#[test]
fn a_config_record_that_is_missing_makes_a_state_stale() {
    let (stage, _) = stage();
    let mut owner = stage.owner.clone();
    owner.configure(&[Change::Quota(1)]);
    let ahead = HeadsStatement {
        config: Some(crate::ConfigHead {
            seq: owner.head().seq,
            hash: owner.head().hash,
        }),
        ..held(&stage)
    };
    let said = [1, 2].map(|by| signed(by, ahead.clone()));
    let Err(NotFresh::Behind { missing, .. }) = ask(&stage, &said) else {
        panic!("config is behind");
    };
    assert_eq!(missing[0].need, owner.head());
}

#[test]
fn another_record_at_a_known_position_is_a_conflict() {
    let (stage, author) = stage();
    let theirs = Head {
        hash: Digest::from_bytes([9; 32]),
        ..author.head()
    };
    let said = [signed(1, held(&stage)), signed(2, page(&stage, &[theirs]))];
    let Err(NotFresh::TooFew { uncounted, .. }) = ask(&stage, &said) else {
        panic!("a conflict is no answer");
    };
    let ours = author.head().hash;
    let conflict = Uncounted::Conflict { ours, theirs };
    assert_eq!(uncounted, [(key(2).principal(), conflict)]);
}

#[test]
fn what_was_cut_off_is_not_missed_and_what_stays_is() {
    let (mut stage, mut author) = stage();
    let records = [author.data(), author.data()];
    let writer = author.id();
    let last = Some(records[0].head().into());
    stage.configure(&[Change::Revoke { writer, last }]);
    // The replicas hold 3, which counts no more; 2 does, and is not here yet.
    let said = [1, 2].map(|by| signed(by, page(&stage, &[author.head()])));
    assert!(matches!(ask(&stage, &said), Err(NotFresh::Behind { .. })));
    let [two, _] = records;
    stage.accept(two);
    assert!(ask(&stage, &said).is_ok());
    stage.configure(&[Change::Revoke { writer, last: None }]);
    assert!(ask(&stage, &said).is_ok());
    assert_eq!(stage.verifier.stated_after(None).count(), 0);
}

#[test]
fn a_quorum_that_cannot_be_had_is_never_fresh() {
    let (mut stage, _) = stage();
    stage.configure(&[Change::Quorum {
        replicas: 4,
        witnesses: 0,
    }]);
    let said = [1, 2, 3].map(|by| signed(by, held(&stage)));
    assert_eq!(ask(&stage, &said), Err(NotFresh::NoQuorum));
}

#[test]
fn pages_count_when_they_follow_each_other_to_the_end() {
    let (mut stage, _) = stage();
    stage.admitted(2);
    let all: Vec<Head> = stage.verifier.stated_after(None).collect();
    let first = HeadsStatement {
        more: true,
        ..page(&stage, &all[..1])
    };
    let second = HeadsStatement {
        after: Some(all[0].writer),
        ..page(&stage, &all[1..])
    };
    let whole = [
        signed(1, second.clone()),
        signed(1, first.clone()),
        signed(2, held(&stage)),
    ];
    assert!(ask(&stage, &whole).is_ok());
    let part = [signed(1, first), signed(2, held(&stage))];
    assert!(matches!(
        ask(&stage, &part),
        Err(NotFresh::TooFew { counted: 1, .. })
    ));
}

struct Resume {
    stage: Stage,
    author: Author,
}

impl Resume {
    fn new() -> Self {
        let (stage, author) = stage();
        Self { stage, author }
    }

    fn ask(
        &self,
        remembered: Option<Head>,
        said: &[Signed<HeadsStatement>],
        mut fetch: impl FnMut(&Head) -> Fetched,
    ) -> Result<Option<Head>, NotResumed> {
        self.go_on(Remembered::Newest(remembered), said, |_, head| fetch(head))
    }

    fn go_on(
        &self,
        remembered: Remembered,
        said: &[Signed<HeadsStatement>],
        fetch: impl FnMut(&Principal, &Head) -> Fetched,
    ) -> Result<Option<Head>, NotResumed> {
        let config = self.stage.verifier.config();
        let writer = self.author.id();
        resume_head(&writer, remembered, config, said, &question(), fetch)
    }
}

#[test]
fn a_writer_goes_on_from_the_newest_head_that_a_quorum_may_hold() {
    let mut cast = Resume::new();
    let old = cast.author.head();
    cast.author.data();
    let new = cast.author.head();
    let said = [
        signed(1, page(&cast.stage, &[old])),
        signed(2, page(&cast.stage, &[new])),
    ];
    let right = |_: &Head| Fetched::Right;
    assert_eq!(cast.ask(Some(new), &said, right), Ok(Some(new)));
    // One that is named and not given out takes its replica's answer with it; others are enough.
    let wrong = |head: &Head| {
        if *head == new {
            Fetched::Wrong
        } else {
            Fetched::Right
        }
    };
    let few = cast.ask(Some(old), &said, wrong);
    assert!(matches!(
        few,
        Err(NotResumed::NotFresh(NotFresh::TooFew { counted: 1, .. }))
    ));
    let three = [&said[..], &[signed(3, page(&cast.stage, &[old]))]].concat();
    assert_eq!(cast.ask(Some(old), &three, wrong), Ok(Some(old)));
}

#[test]
fn a_writer_that_may_have_forgotten_its_newest_record_asks_every_replica() {
    let mut cast = Resume::new();
    let old = cast.author.head();
    cast.author.data();
    // Its newest record reached one replica only, which does not answer.
    let new = cast.author.head();
    let two = [1, 2].map(|by| signed(by, page(&cast.stage, &[old])));
    let right = |_: &Principal, _: &Head| Fetched::Right;
    for remembered in [None, Some(old)].map(Remembered::Perhaps) {
        let few = cast.go_on(remembered, &two, right);
        let few = matches!(
            few,
            Err(NotResumed::NotFresh(NotFresh::TooFew { need: 3, .. }))
        );
        assert!(few);
        let three = [&two[..], &[signed(3, page(&cast.stage, &[new]))]].concat();
        assert_eq!(cast.go_on(remembered, &three, right), Ok(Some(new)));
    }
    // Its disk was set back: a replica has more than what it believes to be its newest.
    let newer = [&two[..1], &[signed(3, page(&cast.stage, &[new]))]].concat();
    let few = cast.go_on(Remembered::Newest(Some(old)), &newer, right);
    assert!(matches!(
        few,
        Err(NotResumed::NotFresh(NotFresh::TooFew { need: 3, .. }))
    ));
}

#[test]
fn an_answer_under_another_configuration_stops_a_writer() {
    let cast = Resume::new();
    let old = cast.author.head();
    let mut owner = cast.stage.owner.clone();
    owner.configure(&[Change::Quota(1)]);
    let named = |head: Head| HeadsStatement {
        config: Some(crate::ConfigHead {
            seq: head.seq,
            hash: head.hash,
        }),
        ..page(&cast.stage, &[old])
    };
    let other = Head {
        hash: Digest::from_bytes([9; 32]),
        ..cast.stage.owner.head()
    };
    for config in [owner.head(), other] {
        let said = [
            signed(1, page(&cast.stage, &[old])),
            signed(2, named(config)),
        ];
        let Err(NotResumed::NotFresh(NotFresh::Behind { missing, .. })) =
            cast.ask(Some(old), &said, |_| Fetched::Right)
        else {
            panic!("another configuration");
        };
        assert_eq!(missing[0].need, config);
    }
}

#[test]
fn a_forked_chain_is_left_out_and_listed_and_does_not_stop_the_others() {
    let (mut stage, mut author) = stage();
    let mut twin = author.clone();
    let (ours, theirs) = (author.data(), twin.data_of(&[9; 40]));
    stage.accept(ours.clone());
    let key = author.key();
    let heads = (ours.signed_head(), theirs.signed_head());
    let metadata = stage.verifier.metadata();
    let proof = crate::ForkProof::new(metadata, key.public(), heads.0, heads.1).unwrap();
    author.data();
    let ahead = [1, 2].map(|by| signed(by, page(&stage, &[author.head()])));
    assert!(matches!(ask(&stage, &ahead), Err(NotFresh::Behind { .. })));
    stage.verifier.mark_forked(&proof).unwrap();
    assert_eq!(ask(&stage, &ahead).unwrap().except, [author.id()]);
    // The owner keeps the other side: what is here counts no more, and that is said.
    let last = Some(theirs.head().into());
    let writer = author.id();
    stage.configure(&[Change::Revoke { writer, last }]);
    let said = [1, 2].map(|by| signed(by, page(&stage, &[theirs.head()])));
    assert_eq!(ask(&stage, &said).unwrap().except, [writer]);
    assert_eq!(stage.verifier.heads().count(), 0);
}

#[test]
fn a_cut_is_compared_by_hash_wherever_storage_has_it() {
    let (mut stage, mut author) = stage();
    let mut twin = author.clone();
    // Two sides from 2 on; the state has the first, to 7, and the replicas the second.
    let first: Vec<_> = (0..6).map(|_| author.data()).collect();
    let second: Vec<_> = (0..6).map(|_| twin.data_of(&[9; 40])).collect();
    for record in &first {
        stage.accept(record.clone());
    }
    let (writer, last) = (author.id(), second[1].head());
    stage.configure(&[Change::Revoke {
        writer,
        last: Some(last.into()),
    }]);
    let chain = stage.verifier.chain(&writer).unwrap();
    let cut = chain.unchecked_cut(stage.verifier.config());
    assert_eq!(cut, Some(last.into()), "not known without storage");
    struct Stored(Vec<crate::Received>);
    impl History for Stored {
        fn hash_at(&self, _: &WriterId, seq: u64) -> Option<Digest> {
            let at = |record: &&crate::Received| record.header().seq == seq;
            self.0.iter().find(at).map(crate::Received::hash)
        }
    }
    let said = [1, 2].map(|by| signed(by, page(&stage, &[second[3].head()])));
    let stored = Stored(first.clone());
    let fresh = fresh(&stage.verifier, &said, &question(), &stored, &[]).unwrap();
    assert_eq!(fresh.except, [writer]);
    assert_eq!(stage.verifier.heads().collect::<Vec<_>>(), [last]);
    stage.verifier.compare_cut(first[1].head());
    assert_eq!(stage.verifier.heads().count(), 0, "the other side was cut");
    assert_eq!(stage.verifier.stated_after(None).count(), 0);
}

#[test]
fn a_writer_that_the_caller_refuses_does_not_stop_the_others() {
    let (stage, author) = stage();
    let stranger = Head {
        writer: WriterId::from_bytes([8; 32]),
        ..author.head()
    };
    let said = [1, 2].map(|by| signed(by, page(&stage, &[author.head(), stranger])));
    assert!(matches!(ask(&stage, &said), Err(NotFresh::Behind { .. })));
    let refused = [stranger.writer];
    let fresh = fresh(&stage.verifier, &said, &question(), &NoHistory, &refused).unwrap();
    assert_eq!(fresh.except, refused);
}

#[test]
fn a_writer_that_remembers_more_than_its_replicas_does_not_write() {
    let mut cast = Resume::new();
    let old = cast.author.head();
    cast.author.data();
    let remembered = cast.author.head();
    let said = [1, 2].map(|by| signed(by, page(&cast.stage, &[old])));
    let right = |_: &Head| Fetched::Right;
    assert_eq!(
        cast.ask(Some(remembered), &said, right),
        Err(NotResumed::RolledBack {
            remembered,
            found: Some(old.seq)
        })
    );
    let empty = [1, 2].map(|by| signed(by, page(&cast.stage, &[])));
    assert_eq!(
        cast.ask(Some(remembered), &empty, right),
        Err(NotResumed::RolledBack {
            remembered,
            found: None
        })
    );
    assert_eq!(cast.ask(None, &empty, right), Ok(None));
}

#[test]
fn a_writer_whose_key_wrote_elsewhere_does_not_write() {
    let cast = Resume::new();
    let ours = cast.author.head();
    let theirs = Head {
        hash: Digest::from_bytes([9; 32]),
        ..ours
    };
    let said = [
        signed(1, page(&cast.stage, &[ours])),
        signed(2, page(&cast.stage, &[theirs])),
    ];
    let right = |_: &Head| Fetched::Right;
    let forked = |answer| matches!(answer, Err(NotResumed::Forked { .. }));
    assert!(forked(cast.ask(None, &said, right)));
    let same = [1, 2].map(|by| signed(by, page(&cast.stage, &[theirs])));
    assert!(forked(cast.ask(Some(ours), &same, right)));
}

#[test]
fn a_writer_asks_enough_replicas_about_itself() {
    let cast = Resume::new();
    let right = |_: &Head| Fetched::Right;
    let head = cast.author.head();
    let one = vec![signed(1, page(&cast.stage, &[head])); 3];
    assert!(matches!(
        cast.ask(None, &one, right),
        Err(NotResumed::NotFresh(NotFresh::TooFew { counted: 1, .. }))
    ));
    let elsewhere = HeadsStatement {
        after: Some(cast.author.id()),
        ..page(&cast.stage, &[])
    };
    let silent = [signed(1, page(&cast.stage, &[head])), signed(2, elsewhere)];
    assert!(matches!(
        cast.ask(None, &silent, right),
        Err(NotResumed::NotFresh(NotFresh::TooFew { counted: 1, .. }))
    ));
}
