//! Services that were set back, copied, wiped, recovered or are honest.

use bield_envelope::Secret;
use bield_protocol::service::Recovered;
use bield_tlog::{Checkpoint, LogKey, Tree, WitnessKey};

use super::*;

/// A log whose entries are its name and their numbers, and, from `other_from` on, something else.
struct Service {
    key: LogKey,
    tree: Tree,
}

const ME: Principal = Principal::from_bytes([7; 32]);
const NOON: Time = Time::from_secs(1_800_000_000);

impl Service {
    fn of(name: &str, size: u64) -> Self {
        Self::forked(name, size, u64::MAX)
    }

    fn forked(name: &str, size: u64, other_from: u64) -> Self {
        let mut service = Self {
            key: LogKey::new(name.parse().unwrap(), &Secret::from_bytes([1; 32])),
            tree: Tree::new(),
        };
        for number in 0..size {
            let fork = if number < other_from { "" } else { "other" };
            service
                .tree
                .append(format!("{name} {number} {fork}").as_bytes());
        }
        service
    }

    fn checkpoint(&self) -> VerifiedCheckpoint {
        let origin = Origin::from(self.key.verifier().name());
        Checkpoint::new(origin, self.tree.size(), self.tree.root()).sign(&self.key)
    }

    /// What an honest program answers, as far as its state allows.
    fn answer(&self, kept: Option<&Head>) -> Freshness {
        let proof = kept.and_then(|kept| {
            self.tree
                .consistency_proof(kept.size(), self.tree.size())
                .ok()
        });
        Freshness {
            checkpoint: self.checkpoint().to_string(),
            consistency: hashes(proof.unwrap_or_default()),
            log: self.key.verifier().to_string(),
            recovered: Vec::new(),
        }
    }

    /// A log that goes on from `before` at `size`.
    fn recovered(&self, before: &Self, size: u64, kept: &Head) -> Freshness {
        let proof = before.tree.consistency_proof(kept.size(), size);
        Freshness {
            consistency: hashes(proof.unwrap_or_default()),
            recovered: vec![Recovered {
                origin: before.key.verifier().name().to_string(),
                size,
                root: *before.tree.root_at(size).unwrap().as_bytes(),
                holders: vec![ME],
                at: NOON,
                next: self.key.verifier().name().to_string(),
            }],
            ..self.answer(None)
        }
    }
}

/// The hashes of a proof, as whatever the message holds them in.
fn hashes<H: From<[u8; 32]>>(proof: Vec<Hash>) -> Vec<H> {
    proof.iter().map(|hash| (*hash.as_bytes()).into()).collect()
}

fn judged(kept: Option<&Head>, answer: &Freshness) -> Result<Fresh, NotFresh> {
    judge(kept, answer, ME, None, NOON)
}

fn met(service: &Service) -> Head {
    judged(None, &service.answer(None)).unwrap().head
}

#[test]
fn a_log_that_grew_is_accepted_from_every_size_it_had() {
    let now = Service::of("keys.example/log", 21);
    for size in 1..=21 {
        let kept = met(&Service::of("keys.example/log", size));
        let fresh = judged(Some(&kept), &now.answer(Some(&kept))).unwrap();
        assert_eq!((fresh.seen, fresh.head.size()), (Some(size), 21));
    }
    assert_eq!(judged(None, &now.answer(None)).unwrap().seen, None);
}

#[test]
fn a_service_that_was_set_back_is_refused_with_how_far() {
    let kept = met(&Service::of("keys.example/log", 21));
    let old = Service::of("keys.example/log", 18);
    let refused = judged(Some(&kept), &old.answer(Some(&kept))).unwrap_err();
    assert_eq!(
        refused,
        NotFresh::RolledBack {
            seen: 21,
            shown: 18
        }
    );
    assert!(
        refused.to_string().contains("ROLLED BACK by 3 records"),
        "{refused}"
    );
}

#[test]
fn another_history_is_a_fork_whatever_its_size() {
    let kept = met(&Service::of("keys.example/log", 21));
    for size in [21, 22, 40] {
        let copy = Service::forked("keys.example/log", size, 20);
        let refused = judged(Some(&kept), &copy.answer(Some(&kept))).unwrap_err();
        assert_eq!(
            refused,
            NotFresh::Forked {
                seen: 21,
                shown: size
            }
        );
    }
    // Grown from a place this home never saw differently: no fork for this home.
    let later = Service::forked("keys.example/log", 40, 21);
    assert!(judged(Some(&kept), &later.answer(Some(&kept))).is_ok());
}

#[test]
fn every_missing_or_altered_hash_is_a_fork() {
    let kept = met(&Service::of("keys.example/log", 13));
    let now = Service::of("keys.example/log", 21);
    let honest = now.answer(Some(&kept));
    for place in 0..honest.consistency.len() {
        let mut altered = honest.clone();
        altered.consistency[place][0] ^= 1;
        let mut missing = honest.clone();
        missing.consistency.remove(place);
        for answer in [altered, missing] {
            let refused = judged(Some(&kept), &answer).unwrap_err();
            assert!(matches!(refused, NotFresh::Forked { .. }), "{refused}");
        }
    }
}

#[test]
fn a_new_service_is_not_taken_for_the_known_one() {
    let kept = met(&Service::of("keys.example/log", 21));
    let wiped = Service::of("keys.example/new", 3);
    let new = Principal::from_bytes([8; 32]);
    let refused = judge(Some(&kept), &wiped.answer(None), new, None, NOON).unwrap_err();
    assert!(
        matches!(refused, NotFresh::OtherService { seen: 21, .. }),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains(&format!("--accept-service {new}")),
        "{refused}"
    );
}

#[test]
fn another_log_of_the_known_service_is_no_new_service() {
    let kept = met(&Service::of("keys.example/next", 4));
    for size in [3, 21] {
        let old = Service::of("keys.example/log", size);
        let refused = judged(Some(&kept), &old.answer(None)).unwrap_err();
        assert!(matches!(refused, NotFresh::Left { .. }), "{refused}");
        let sentence = refused.to_string();
        assert!(!sentence.contains("--accept"), "{sentence}");
        assert!(sentence.contains("switch it off"), "{sentence}");
    }
}

#[test]
fn the_pinned_key_of_a_log_stays() {
    let kept = met(&Service::of("keys.example/log", 21));
    let mut other = Service::of("keys.example/log", 22);
    other.key = LogKey::new(
        "keys.example/log".parse().unwrap(),
        &Secret::from_bytes([2; 32]),
    );
    let refused = judged(Some(&kept), &other.answer(Some(&kept))).unwrap_err();
    assert!(matches!(refused, NotFresh::OtherKey { .. }), "{refused}");
}

#[test]
fn an_identity_that_was_rotated_is_proven_by_its_log() {
    let before = Service::of("keys.example/log", 21);
    let kept = met(&before);
    let new = Principal::from_bytes([8; 32]);
    let answer = Service::of("keys.example/log", 22).answer(Some(&kept));
    let fresh = judge(Some(&kept), &answer, new, None, NOON).unwrap();
    assert_eq!(fresh.head.service(), new);
}

#[test]
fn a_checkpoint_that_the_named_key_did_not_sign_is_refused() {
    let service = Service::of("keys.example/log", 5);
    let other = Service::of("keys.example/new", 5);
    let answer = service.answer(None);
    let swapped = Freshness {
        log: other.key.verifier().to_string(),
        ..answer.clone()
    };
    let forged = Freshness {
        checkpoint: answer.checkpoint.replacen("\n5\n", "\n6\n", 1),
        ..answer.clone()
    };
    let broken = Freshness {
        checkpoint: "no note".to_owned(),
        ..answer.clone()
    };
    for wrong in [swapped, forged, broken] {
        let refused = judged(None, &wrong).unwrap_err();
        assert!(matches!(refused, NotFresh::Checkpoint(_)), "{refused}");
    }
    let keyless = Freshness {
        log: "no key".to_owned(),
        ..answer
    };
    assert!(matches!(judged(None, &keyless), Err(NotFresh::Key(_))));
}

#[test]
fn a_recovery_from_at_least_what_was_seen_is_silent() {
    let before = Service::of("keys.example/log", 21);
    let after = Service::of("keys.example/next", 4);
    for size in [1, 13, 21] {
        let kept = met(&Service::of("keys.example/log", size));
        let fresh = judged(Some(&kept), &after.recovered(&before, 21, &kept)).unwrap();
        assert_eq!(
            fresh.recovered_from.unwrap().to_string(),
            "keys.example/log"
        );
        assert_eq!(
            fresh.head.size(),
            4,
            "the new log is counted from its own beginning"
        );
    }
}

#[test]
fn a_recovery_from_less_than_was_seen_is_refused_with_what_is_gone() {
    let before = Service::of("keys.example/log", 21);
    let kept = met(&before);
    let after = Service::of("keys.example/next", 4);
    let refused = judged(Some(&kept), &after.recovered(&before, 19, &kept)).unwrap_err();
    let sentence = refused.to_string();
    assert!(
        matches!(
            refused,
            NotFresh::Recovered {
                seen: 21,
                found: 19,
                ..
            }
        ),
        "{refused}"
    );
    for part in [
        "2 records are gone",
        "--accept-recovery",
        &ME.to_string(),
        "2027-01-15",
    ] {
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn a_recovery_from_another_history_is_told_as_one_and_by_whom() {
    let kept = met(&Service::of("keys.example/log", 13));
    let copy = Service::forked("keys.example/log", 21, 5);
    let after = Service::of("keys.example/next", 4);
    let refused = judged(Some(&kept), &after.recovered(&copy, 21, &kept)).unwrap_err();
    assert_eq!(
        refused,
        NotFresh::RecoveredElsewhere {
            seen: 13,
            found: 21,
            at: NOON,
            holders: vec![ME],
        }
    );
    for part in ["ANOTHER BRANCH", "may be lost", &ME.to_string()] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
}

#[test]
fn recoveries_have_to_connect_the_known_log_with_the_shown_one() {
    let before = Service::of("keys.example/log", 21);
    let kept = met(&before);
    let after = Service::of("keys.example/next", 4);
    let honest = after.recovered(&before, 21, &kept);
    let last = Service::of("keys.example/last", 2);
    // Two in a row are as good as one.
    let mut twice = Freshness {
        checkpoint: last.answer(None).checkpoint,
        log: last.answer(None).log,
        ..honest.clone()
    };
    twice.recovered.push(Recovered {
        origin: "keys.example/next".to_owned(),
        next: "keys.example/last".to_owned(),
        size: 4,
        ..honest.recovered[0].clone()
    });
    assert!(judged(Some(&kept), &twice).is_ok());
    let mut gap = twice.clone();
    gap.recovered.remove(1);
    let mut elsewhere = honest.clone();
    elsewhere.recovered[0].origin = "keys.example/strange".to_owned();
    let mut short = twice;
    short.recovered[1].origin = "keys.example/strange".to_owned();
    for wrong in [gap, elsewhere, short] {
        assert_eq!(
            judged(Some(&kept), &wrong).unwrap_err(),
            NotFresh::Recoveries
        );
    }
}

#[test]
fn as_many_witnesses_as_the_trust_file_wants_must_have_cosigned() {
    let witness =
        |name: &str, byte| WitnessKey::new(name.parse().unwrap(), &Secret::from_bytes([byte; 32]));
    let (a, b) = (witness("a.example/w", 2), witness("b.example/w", 3));
    let quorum = Quorum::new(vec![a.verifier().clone(), b.verifier().clone()], 2).unwrap();
    let service = Service::of("keys.example/log", 5);
    let judged = |cosigners: &[&WitnessKey]| {
        let mut checkpoint = service.checkpoint();
        for cosigner in cosigners {
            checkpoint.add(cosigner.cosign(&checkpoint, NOON)).unwrap();
        }
        let answer = Freshness {
            checkpoint: checkpoint.to_string(),
            ..service.answer(None)
        };
        // Years later: what an idle service said last is as good as then.
        let later = NOON.plus(Duration::from_secs(86_400 * 1000));
        judge(None, &answer, ME, Some(&quorum), later)
    };
    assert_eq!(judged(&[&a, &b]).unwrap().witnesses.len(), 2);
    for too_few in [&[][..], &[&a], &[&b]] {
        let refused = judged(too_few).unwrap_err();
        assert!(matches!(refused, NotFresh::Unwitnessed { .. }), "{refused}");
    }
}
