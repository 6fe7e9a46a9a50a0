//! A witness among logs that grow, fork, go back and mistype.

use bield_envelope::Secret;
use proptest::prelude::*;

use super::*;
use crate::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::note::LogKey;
use crate::tree::Tree;

const NOON: Time = Time::from_secs(1_800_000_000);

fn log_key(number: u8) -> LogKey {
    let name = format!("example.com/log{number}").parse().unwrap();
    LogKey::new(name, &Secret::from_bytes([number; 32]))
}

fn origin() -> Origin {
    "example.com/log1".parse().unwrap()
}

/// A witness that follows log 1 and remembers `latest`.
fn witness(latest: Option<TreeHead>) -> Witness {
    let key = WitnessKey::new("witness".parse().unwrap(), &Secret::from_bytes([100; 32]));
    let mut witness = Witness::new(key);
    let keys = vec![log_key(1).verifier().clone()];
    witness.follow(origin(), keys, latest).unwrap();
    witness
}

fn tree_of(size: u64) -> Tree {
    let mut tree = Tree::new();
    for index in 0..size {
        tree.append(&index.to_be_bytes());
    }
    tree
}

fn head_at(tree: &Tree, size: u64) -> TreeHead {
    let root = tree.root_at(size).unwrap();
    TreeHead { size, root }
}

fn signed(size: u64, root: Hash) -> VerifiedCheckpoint {
    Checkpoint::new(origin(), size, root).sign(&log_key(1))
}

fn body(tree: &Tree, old: u64, new: u64) -> String {
    let proof = tree.consistency_proof(old, new).unwrap();
    let checkpoint = signed(new, tree.root_at(new).unwrap());
    AddCheckpoint::new(old, proof, &checkpoint)
        .unwrap()
        .to_string()
}

fn refusal(witness: &mut Witness, body: &str) -> Refusal {
    let before = witness.latest(&origin());
    let refusal = witness
        .decide(body.as_bytes(), NOON)
        .err()
        .expect("refused");
    assert_eq!(witness.latest(&origin()), before);
    refusal
}

#[test]
fn a_log_that_grows_is_cosigned_at_every_step() {
    let (tree, mut witness) = (tree_of(70), witness(None));
    let verifier = witness.verifier().clone();
    let mut old = 0;
    for new in [0, 0, 1, 1, 2, 3, 8, 13, 64, 65, 70, 70] {
        let cosign = witness
            .decide(body(&tree, old, new).as_bytes(), NOON)
            .unwrap();
        assert_eq!(cosign.head(), head_at(&tree, new));
        assert_eq!(cosign.origin(), &origin());
        let kept = cosign.note().to_string();
        let line = cosign.persisted();

        // What the log gets back verifies.
        let mut checkpoint = signed(new, tree.root_at(new).unwrap());
        let trusted = [verifier.clone()];
        let seen = checkpoint
            .add_cosignatures(&line.to_string(), &trusted)
            .unwrap();
        assert_eq!(seen[0].at, NOON);
        // What was kept is the same, and starts a witness again.
        assert_eq!(kept, checkpoint.to_string());
        let kept = SignedCheckpoint::parse(kept.as_bytes()).unwrap();
        assert_eq!(kept.claimed().head(), head_at(&tree, new));
        assert_eq!(witness.latest(&origin()), Some(head_at(&tree, new)));
        old = new;
    }
}

#[test]
fn every_pair_of_sizes_is_cosigned_from_the_remembered_one_only() {
    let tree = tree_of(20);
    for old in 0..=20 {
        for new in old..=20 {
            for remembered in 0..=20 {
                let mut witness = witness(Some(head_at(&tree, remembered)));
                let body = body(&tree, old, new);
                let verdict = witness.decide(body.as_bytes(), NOON).map(Cosign::persisted);
                if remembered == old {
                    assert!(verdict.is_ok());
                } else {
                    assert_eq!(verdict, Err(Refusal::Conflict { size: remembered }));
                }
            }
        }
    }
}

#[test]
fn nothing_is_remembered_until_it_is_kept() {
    let (tree, mut witness) = (tree_of(9), witness(None));
    drop(witness.decide(body(&tree, 0, 5).as_bytes(), NOON).unwrap());
    assert_eq!(witness.latest(&origin()), None);
    let _ = witness
        .decide(body(&tree, 0, 3).as_bytes(), NOON)
        .unwrap()
        .persisted();
    assert_eq!(witness.latest(&origin()), Some(head_at(&tree, 3)));
}

#[test]
fn a_fork_is_refused() {
    let tree = tree_of(9);
    let mut other = tree_of(4);
    (4..9).for_each(|_| {
        let _ = other.append(b"another story");
    });
    let mut witness = witness(Some(head_at(&tree, 6)));
    // Another tree of the same size, of a larger one, and a good proof under another root.
    for body in [body(&other, 6, 6), body(&other, 6, 9)] {
        assert_eq!(refusal(&mut witness, &body), Refusal::BadProof);
    }
    // Equal size, other root: 422 since July 2026, for a 409 would name the very size that was given.
    let same_size = refusal(&mut witness, &body(&other, 6, 6));
    assert_eq!(same_size.status(), 422);
    assert_ne!(same_size.media_type(), SIZE_MEDIA_TYPE);
    let proof = tree.consistency_proof(6, 9).unwrap();
    let mixed = AddCheckpoint::new(6, proof, &signed(9, other.root())).unwrap();
    assert_eq!(refusal(&mut witness, &mixed.to_string()), Refusal::BadProof);
    assert_eq!(Refusal::BadProof.status(), 422);
}

#[test]
fn proofs_that_are_not_needed_or_missing_are_refused() {
    let tree = tree_of(9);
    let extra = vec![Hash::EMPTY_ROOT];
    for (old, new, proof) in [
        (0, 9, extra.clone()),
        (6, 6, extra.clone()),
        (6, 9, Vec::new()),
        (8, 9, Vec::new()),
        (0, 0, extra),
    ] {
        let mut witness = witness(Some(head_at(&tree, old)));
        let checkpoint = signed(new, tree.root_at(new).unwrap());
        let body = AddCheckpoint::new(old, proof, &checkpoint).unwrap();
        assert_eq!(refusal(&mut witness, &body.to_string()), Refusal::BadProof);
    }
    // An empty tree has one root.
    let odd = AddCheckpoint::new(0, Vec::new(), &signed(0, tree.root())).unwrap();
    assert_eq!(
        refusal(&mut witness(None), &odd.to_string()),
        Refusal::BadProof
    );
}

#[test]
fn a_log_that_goes_back_is_refused() {
    let tree = tree_of(9);
    let mut witness = witness(Some(head_at(&tree, 6)));
    let conflict = refusal(&mut witness, &body(&tree, 3, 4));
    assert_eq!(conflict, Refusal::Conflict { size: 6 });
    assert_eq!(conflict.status(), 409);
    assert_eq!(conflict.body(), "6\n");
    assert_eq!(conflict.media_type(), "text/x.tlog.size");
    // A client without memory asks from zero to learn the size.
    assert_eq!(
        refusal(&mut witness, &body(&tree, 0, 9)),
        Refusal::Conflict { size: 6 }
    );

    let checkpoint = signed(4, tree.root_at(4).unwrap());
    let back = AddCheckpoint::new(6, Vec::new(), &checkpoint)
        .unwrap()
        .to_string();
    let refused = refusal(&mut witness, &back);
    assert!(matches!(
        refused,
        Refusal::BadRequest(RequestError::OldAboveNew { old: 6, new: 4 })
    ));
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.media_type(), "text/plain; charset=utf-8");
}

#[test]
fn a_stranger_is_refused_by_name_or_by_signature() {
    let (tree, mut witness) = (tree_of(1), witness(None));
    let root = tree.root();
    let theirs = Checkpoint::new("example.com/log2".parse().unwrap(), 1, root);
    let theirs = AddCheckpoint::new(0, Vec::new(), &theirs.sign(&log_key(2))).unwrap();
    let refused = refusal(&mut witness, &theirs.to_string());
    assert!(matches!(refused, Refusal::UnknownOrigin { .. }));
    assert_eq!(refused.status(), 404);

    let ours = Checkpoint::new(origin(), 1, root);
    let unsigned = AddCheckpoint::new(0, Vec::new(), &ours.clone().sign(&log_key(2))).unwrap();
    let refused = refusal(&mut witness, &unsigned.to_string());
    assert_eq!(refused, Refusal::BadSignature(NoteError::Unsigned));
    assert_eq!(refused.status(), 403);

    // A good line and a forged one in the same name.
    let good = AddCheckpoint::new(0, Vec::new(), &ours.sign(&log_key(1))).unwrap();
    let other = Checkpoint::new(origin(), 2, root).sign(&log_key(1));
    let forged = format!("{good}{}", other.note().signatures()[0]);
    let refused = refusal(&mut witness, &forged);
    assert!(matches!(
        refused,
        Refusal::BadSignature(NoteError::Forged { .. })
    ));
    assert_eq!(refused.status(), 403);
}

#[test]
fn lines_of_strangers_are_ignored_and_not_kept() {
    let (tree, mut witness) = (tree_of(1), witness(None));
    let stranger = Checkpoint::new(origin(), 2, tree.root()).sign(&log_key(3));
    let body = format!("{}{}", body(&tree, 0, 1), stranger.note().signatures()[0]);
    let cosign = witness.decide(body.as_bytes(), NOON).unwrap();
    let names: Vec<_> = cosign
        .note()
        .note()
        .signatures()
        .iter()
        .map(|line| line.name().as_str())
        .collect();
    assert_eq!(names, ["example.com/log1", "witness"]);
}

#[test]
fn a_checkpoint_is_checked_before_its_size_is_told() {
    // A stranger must not learn how far a log is, nor cost the witness a proof.
    let tree = tree_of(9);
    let mut witness = witness(Some(head_at(&tree, 6)));
    let checkpoint = Checkpoint::new(origin(), 9, tree.root()).sign(&log_key(2));
    let body = AddCheckpoint::new(3, Vec::new(), &checkpoint).unwrap();
    assert_eq!(refusal(&mut witness, &body.to_string()).status(), 403);
}

#[test]
fn a_witness_without_a_clock_does_not_cosign() {
    let (tree, mut witness) = (tree_of(1), witness(None));
    let verdict = witness.decide(body(&tree, 0, 1).as_bytes(), Time::from_millis(999));
    assert_eq!(verdict.map(Cosign::persisted), Err(Refusal::ClockUnset));
}

#[test]
fn a_request_with_one_bit_changed_is_refused() {
    let tree = tree_of(11);
    let good = body(&tree, 6, 11).into_bytes();
    let mut witness = witness(Some(head_at(&tree, 6)));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(witness.decide(&bad, NOON).is_err(), "bit {bit}");
    }
    for end in 0..good.len() {
        assert!(witness.decide(&good[..end], NOON).is_err(), "cut at {end}");
    }
    assert!(witness.decide(&good, NOON).is_ok());
}

/// tlog-witness, "add-checkpoint", the example.
#[test]
fn the_example_of_the_specification_is_read() {
    let body = "old 20852014\nPlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\n\
        example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        — example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcy\
        v2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        — example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V\
        6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
    let request = AddCheckpoint::parse(body.as_bytes()).unwrap();
    assert_eq!((request.old(), request.proof().len()), (20_852_014, 4));
    assert_eq!(request.checkpoint().claimed().size(), 20_852_163);
    assert_eq!(request.to_string(), body);
    assert_eq!(refusal(&mut witness(None), body).status(), 404);
}

#[test]
fn malformed_requests_are_refused() {
    let note = signed(1, tree_of(1).root()).to_string();
    let hash = Hash::EMPTY_ROOT;
    for bad in [
        String::new(),
        "old 0\n".into(),
        "old 0\n\n".into(),
        format!("old 0\n{note}"),
        format!("\n{note}"),
        format!("old\n\n{note}"),
        format!("old \n\n{note}"),
        format!("old 00\n\n{note}"),
        format!("old 01\n\n{note}"),
        format!("old -0\n\n{note}"),
        format!("old  0\n\n{note}"),
        format!("old 0 \n\n{note}"),
        format!("old 0\r\n\r\n{note}"),
        format!("Old 0\n\n{note}"),
        format!(" old 0\n\n{note}"),
        format!("old 18446744073709551616\n\n{note}"),
        format!("old 0\n{hash} \n\n{note}"),
        format!("old 0\n{hash}{hash}\n\n{note}"),
        format!("old 0\nAAAA\n\n{note}"),
        format!("old 0\n{}\n{note}", format!("{hash}\n").repeat(64)),
        format!("old 0\n\n\n{note}"),
        format!("old 0\n\n{note}\n"),
        format!("old 0\n\n{}", note.replace("\n1\n", "\n01\n")),
    ] {
        let refused = refusal(&mut witness(None), &bad);
        assert!(matches!(refused, Refusal::BadRequest(_)), "{bad:?}");
        assert_eq!(refused.status(), 400);
    }
    let longest = format!("old 0\n{}\n{note}", format!("{hash}\n").repeat(63));
    assert_eq!(refusal(&mut witness(None), &longest), Refusal::BadProof);
    let huge = vec![b'a'; ADD_CHECKPOINT_BYTES_MAX + 1];
    assert!(matches!(
        AddCheckpoint::parse(&huge),
        Err(RequestError::TooLong { .. })
    ));
    let checkpoint = signed(1, tree_of(1).root());
    assert_eq!(
        AddCheckpoint::new(0, vec![hash; 64], &checkpoint),
        Err(RequestError::ProofTooLong)
    );
}

#[test]
fn a_log_is_followed_once_and_with_a_key() {
    let mut witness = witness(None);
    let keys = vec![log_key(1).verifier().clone()];
    let again = witness.follow(origin(), keys, Some(head_at(&tree_of(3), 3)));
    assert!(matches!(again, Err(FollowError::Followed { .. })));
    assert_eq!(witness.latest(&origin()), None);
    let bare = witness.follow("other".parse().unwrap(), Vec::new(), None);
    assert!(matches!(bare, Err(FollowError::NoKey { .. })));
}

proptest! {
    /// Whatever a log asks for, the trees cosigned are one growing tree.
    #[test]
    fn cosigned_trees_are_prefixes_of_each_other(
        asks in proptest::collection::vec((0..2usize, 0..24u64, 0..24u64), 1..40),
    ) {
        let mut fork = tree_of(5);
        (5..24).for_each(|_| { let _ = fork.append(b"fork"); });
        let trees = [tree_of(24), fork];
        let mut witness = witness(None);
        let mut cosigned: Vec<TreeHead> = Vec::new();
        for (tree, old, new) in asks {
            let (old, new) = (old.min(new), old.max(new));
            let Ok(cosign) = witness.decide(body(&trees[tree], old, new).as_bytes(), NOON) else {
                continue;
            };
            let head = cosign.head();
            let _ = cosign.persisted();
            cosigned.push(head);
        }
        let of_one_tree = |tree: &Tree| {
            cosigned.iter().all(|head| tree.root_at(head.size) == Ok(head.root))
        };
        prop_assert!(trees.iter().any(of_one_tree));
        prop_assert!(cosigned.is_sorted_by_key(|head| head.size));
    }

    #[test]
    fn no_body_makes_a_witness_panic(bytes: Vec<u8>, old in any::<u64>(), text in ".{0,80}") {
        let mut witness = witness(None);
        prop_assert!(witness.decide(&bytes, NOON).is_err());
        let body = format!("old {old}\n{text}\n\n{}", signed(old, Hash::EMPTY_ROOT));
        let _ = witness.decide(body.as_bytes(), NOON).map(Cosign::persisted);
    }
}
