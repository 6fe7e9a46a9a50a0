//! Which level acknowledgements reach, whoever signs them and however often.

use bield_envelope::{Secret, SigningKey, Time};
use proptest::prelude::*;

use super::*;
use crate::verifier::tests::author::Stage;
use crate::{Change, Suite, WriterId};

fn key(byte: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([byte; 32]))
}

/// Replicas 1, 2, 3 of which 2 make a quorum.
fn stage() -> Stage {
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
    Stage::new(Suite::Ed25519, &changes)
}

fn head(seq: u64) -> Head {
    Head {
        writer: WriterId::from_bytes([7; 32]),
        seq,
        hash: bield_envelope::Digest::from_bytes([seq as u8; 32]),
    }
}

fn said(stage: &Stage, by: u8, head: Head, kept: Kept) -> Signed<Acknowledgement> {
    let capsule = stage.verifier.metadata().name();
    let said = Acknowledgement::of(capsule, head, kept, Time::from_millis(1));
    Signed::sign(&key(by), said).into_signed()
}

fn reached<'a>(stage: &'a Stage, said: &[Signed<Acknowledgement>]) -> Reached<'a> {
    let local = Some(key(9).principal());
    judge(&head(5), said, stage.verifier.config(), local, |_| false).0
}

#[test]
fn a_replica_that_repeats_itself_counts_once() {
    let stage = stage();
    let one = said(&stage, 1, head(5), Kept::Synced);
    let many = vec![one; 20];
    assert!(reached(&stage, &many).meets(Durability::Replicated(1)));
    assert!(!reached(&stage, &many).meets(Durability::Replicated(2)));
    assert!(!reached(&stage, &many).meets_quorum());
}

#[test]
fn what_does_not_count_says_why() {
    let stage = stage();
    let config = stage.verifier.config();
    let capsule = crate::CapsuleName::from_bytes([1; 32]);
    let elsewhere = Acknowledgement::of(capsule, head(5), Kept::Synced, Time::from_millis(1));
    let good = said(&stage, 1, head(5), Kept::Synced);
    let mut broken = good.as_bytes().to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let other_branch = Head {
        hash: bield_envelope::Digest::from_bytes([0; 32]),
        ..head(5)
    };
    let cases = [
        (Signed::decode(&broken).unwrap(), NotCounted::Signature),
        (
            said(&stage, 4, head(5), Kept::Synced),
            NotCounted::NotReplica,
        ),
        (
            Signed::sign(&key(1), elsewhere).into_signed(),
            NotCounted::OtherCapsule,
        ),
        (
            said(&stage, 1, head(4), Kept::Synced),
            NotCounted::OtherHead,
        ),
        (
            said(&stage, 1, head(6), Kept::Synced),
            NotCounted::OtherHead,
        ),
        (
            said(&stage, 1, other_branch, Kept::Synced),
            NotCounted::OtherHead,
        ),
    ];
    for (said, expected) in cases {
        let (reached, refused) = judge(&head(5), &[said], config, None, |_| false);
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].1, expected);
        assert!(!reached.meets(Durability::Sent));
    }
}

#[test]
fn a_later_head_counts_where_its_chain_is_known_to_contain_the_record() {
    let stage = stage();
    let config = stage.verifier.config();
    let said = [
        said(&stage, 1, head(6), Kept::Synced),
        said(&stage, 2, head(4), Kept::Synced),
    ];
    let (reached, refused) = judge(&head(5), &said, config, None, |later| *later == head(6));
    assert!(reached.meets(Durability::Replicated(1)));
    assert_eq!(refused, [(key(2).principal(), NotCounted::OtherHead)]);
    let (reached, _) = judge(&head(5), &said, config, None, |_| true);
    assert!(!reached.meets(Durability::Replicated(2)), "4 is before 5");
}

#[test]
fn memory_is_not_disk_and_local_is_not_replicated() {
    let stage = stage();
    let kept = |by, kept| reached(&stage, &[said(&stage, by, head(5), kept)]);
    assert!(kept(1, Kept::Memory).meets(Durability::Sent));
    assert!(!kept(1, Kept::Written).meets(Durability::Replicated(1)));
    assert!(!kept(1, Kept::Synced).meets(Durability::LocalSync));
    assert!(!kept(9, Kept::Memory).meets(Durability::Local));
    assert!(kept(9, Kept::Written).meets(Durability::Local));
    assert!(!kept(9, Kept::Written).meets(Durability::LocalSync));
    assert!(kept(9, Kept::Synced).meets(Durability::LocalSync));
    assert!(!kept(9, Kept::Synced).meets(Durability::Replicated(1)));
}

#[test]
fn witnesses_count_for_replicas_that_synced() {
    let stage = stage();
    let two = [1, 2].map(|by| said(&stage, by, head(5), Kept::Synced));
    let mut reached = reached(&stage, &two);
    reached.witness(key(1).principal(), 2);
    reached.witness(key(1).principal(), 1);
    reached.witness(key(3).principal(), 9);
    assert!(reached.meets(Durability::Witnessed(1, 2)));
    assert!(!reached.meets(Durability::Witnessed(1, 3)));
    assert!(!reached.meets(Durability::Witnessed(2, 1)));
    reached.witness(key(2).principal(), 1);
    assert!(reached.meets(Durability::Witnessed(2, 1)));
}

#[test]
fn a_level_has_one_spelling() {
    for text in [
        "memory",
        "sent",
        "local",
        "local-sync",
        "replicated(2)",
        "witnessed(255,1)",
    ] {
        assert_eq!(text.parse::<Durability>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "Memory",
        "replicated",
        "replicated()",
        "replicated(0)",
        "replicated(02)",
        "replicated(+2)",
        "replicated(256)",
        "replicated(1,1)",
        "witnessed(1)",
        "witnessed(1,0)",
        "witnessed(1, 1)",
        "witnessed(1,1",
    ] {
        assert_eq!(
            text.parse::<Durability>(),
            Err(ParseDurabilityError),
            "{text}"
        );
    }
}

#[test]
fn levels_compare_where_one_implies_the_other() {
    use Durability::{Local, LocalSync, Memory, Replicated, Sent, Witnessed};
    assert!(Memory < Sent && Sent < Local && Local < LocalSync);
    assert!(Replicated(1) < Replicated(2) && Replicated(2) < Witnessed(2, 1));
    assert!(Sent < Replicated(1));
    for (a, b) in [
        (LocalSync, Replicated(3)),
        (Replicated(3), Witnessed(2, 1)),
        (Witnessed(1, 2), Witnessed(2, 1)),
    ] {
        assert_eq!(a.partial_cmp(&b), None, "{a} {b}");
    }
}

proptest! {
    #[test]
    fn what_is_reached_is_the_number_of_distinct_replicas(messages in proptest::collection::vec((1u8..6, 0u8..3, 4u64..7), 0..24)) {
        let stage = stage();
        let kept = [Kept::Memory, Kept::Written, Kept::Synced];
        let said: Vec<_> = messages
            .iter()
            .map(|(by, level, seq)| said(&stage, *by, head(*seq), kept[usize::from(*level)]))
            .collect();
        let expected: std::collections::BTreeSet<u8> = messages
            .iter()
            .filter(|(by, level, seq)| *by <= 3 && *level == 2 && *seq == 5)
            .map(|(by, _, _)| *by)
            .collect();
        let reached = reached(&stage, &said);
        for count in 1..5u8 {
            prop_assert_eq!(
                reached.meets(Durability::Replicated(count)),
                usize::from(count) <= expected.len()
            );
        }
    }
}
