//! Heads of played logs: ones that go on, ones that were set back, forked or recovered.

use bield_envelope::{Secret, Time};
use bield_tlog::{Checkpoint, LogKey, Tree};

use super::*;

/// A log that a test grows.
pub(in crate::key_service) struct Log {
    key: LogKey,
    tree: Tree,
}

impl Log {
    pub(in crate::key_service) fn new(name: &str, records: u64) -> Self {
        let key = LogKey::new(name.parse().unwrap(), &Secret::from_bytes([7; 32]));
        let mut log = Self {
            key,
            tree: Tree::new(),
        };
        log.grow(records);
        log
    }

    pub(in crate::key_service) fn grow(&mut self, records: u64) {
        for _ in 0..records {
            self.tree.append(&self.tree.size().to_be_bytes());
        }
    }

    /// One that is another from its third record on.
    pub(in crate::key_service) fn forked(name: &str, records: u64) -> Self {
        let mut log = Self::new(name, 2);
        log.tree.append(b"another record");
        log.grow(records - 3);
        log
    }

    /// The size in a checkpoint.
    pub(in crate::key_service) fn size_of(note: &str) -> u64 {
        let signed = SignedCheckpoint::parse(note.as_bytes()).unwrap();
        signed.claimed().size()
    }

    /// Takes the log out of its place.
    pub(in crate::key_service) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new("bield/keys/none", 0))
    }

    /// What its service answers to somebody who kept the head of `from` records.
    pub(in crate::key_service) fn answer(&self, from: Option<u64>) -> Freshness {
        let (size, root) = (self.tree.size(), self.tree.root());
        let origin = Origin::from(self.key.verifier().name());
        let proof = match from {
            Some(from) if from < size => self.tree.consistency_proof(from, size).unwrap(),
            _ => Vec::new(),
        };
        Freshness {
            checkpoint: Checkpoint::new(origin, size, root)
                .sign(&self.key)
                .to_string(),
            consistency: wire(&proof),
            log: self.key.verifier().to_string(),
            recovered: Vec::new(),
        }
    }

    /// "I was left at my present size, and `next` goes on."
    fn left_for(&self, next: &Self) -> Recovered {
        Recovered {
            origin: self.key.verifier().name().to_string(),
            size: self.tree.size(),
            root: *self.tree.root().as_bytes(),
            holders: Vec::new(),
            at: Time::from_secs(1),
            next: next.key.verifier().name().to_string(),
        }
    }
}

fn wire<T: From<[u8; 32]>>(proof: &[Hash]) -> Vec<T> {
    proof.iter().map(|hash| (*hash.as_bytes()).into()).collect()
}

fn known(log: &Log) -> Known {
    Known::first(&log.answer(None)).unwrap()
}

#[test]
fn a_log_that_goes_on_is_followed_and_one_that_stands_still_too() {
    let mut log = Log::new("bield/keys/1", 5);
    let mut kept = known(&log);
    assert_eq!(kept, kept.follow(&log.answer(Some(5))).unwrap());
    for grown in [1, 2, 17] {
        let before = log.tree.size();
        log.grow(grown);
        let next = kept.follow(&log.answer(Some(before))).unwrap();
        assert_eq!(next.head.size, before + grown);
        kept = next;
    }
}

#[test]
fn a_log_that_was_set_back_is_refused_and_the_records_are_counted() {
    let kept = known(&Log::new("bield/keys/1", 9));
    let restored = Log::new("bield/keys/1", 5);
    let refused = kept.follow(&restored.answer(None));
    assert_eq!(refused.err(), Some(NotFresh::SetBack(4)));
}

#[test]
fn a_forked_log_is_refused_at_every_size() {
    let kept = known(&Log::new("bield/keys/1", 5));
    for records in [5, 6, 100] {
        let fork = Log::forked("bield/keys/1", records);
        let refused = kept.follow(&fork.answer(Some(5)));
        assert_eq!(refused.err(), Some(NotFresh::Forked), "{records}");
    }
}

#[test]
fn a_missing_or_superfluous_proof_is_refused() {
    let mut log = Log::new("bield/keys/1", 5);
    let kept = known(&log);
    let mut still = log.answer(None);
    still.consistency = wire(&[Hash::from_bytes([1; 32])]);
    assert_eq!(kept.follow(&still).err(), Some(NotFresh::Forked));
    log.grow(3);
    let unproved = log.answer(None);
    assert_eq!(kept.follow(&unproved).err(), Some(NotFresh::Forked));
}

#[test]
fn a_checkpoint_by_another_key_or_of_another_log_is_refused() {
    let log = Log::new("bield/keys/1", 5);
    let mut stranger = Log::new("bield/keys/1", 5);
    stranger.key = LogKey::new(
        "bield/keys/1".parse().unwrap(),
        &Secret::from_bytes([8; 32]),
    );
    let mut answer = log.answer(None);
    answer.checkpoint = stranger.answer(None).checkpoint;
    assert_eq!(Known::first(&answer).err(), Some(NotFresh::Unsigned));
    answer.checkpoint = Log::new("bield/keys/2", 5).answer(None).checkpoint;
    assert_eq!(Known::first(&answer).err(), Some(NotFresh::Unsigned));
    // Its own key, under the name that is known.
    let refused = known(&log).follow(&stranger.answer(None));
    assert_eq!(refused.err(), Some(NotFresh::OtherService));
    for checkpoint in [String::new(), "x".repeat(CHECKPOINT_BYTES_MAX + 1)] {
        let answer = Freshness {
            checkpoint,
            ..log.answer(None)
        };
        assert_eq!(Known::first(&answer).err(), Some(NotFresh::Malformed));
    }
}

#[test]
fn a_service_with_another_log_is_refused_however_long_it_is() {
    let kept = known(&Log::new("bield/keys/1", 5));
    for records in [1, 5, 50] {
        let other = Log::new("bield/keys/2", records);
        let refused = kept.follow(&other.answer(None));
        assert_eq!(refused.err(), Some(NotFresh::OtherService));
    }
}

#[test]
fn a_recovered_log_is_followed_when_nothing_that_was_seen_is_gone() {
    let mut first = Log::new("bield/keys/1", 5);
    let kept = known(&first);
    first.grow(2);
    let (second, third) = (Log::new("bield/keys/2", 4), Log::new("bield/keys/3", 1));
    let recovered = vec![first.left_for(&second), second.left_for(&third)];
    let answer = Freshness {
        recovered: recovered.clone(),
        consistency: first.answer(Some(5)).consistency,
        ..third.answer(None)
    };
    let next = kept.follow(&answer).unwrap();
    assert_eq!(next.head.size, 1);

    // A link is missing, or leads elsewhere.
    for recovered in [vec![], recovered[..1].to_vec(), recovered[1..].to_vec()] {
        let answer = Freshness {
            recovered,
            ..answer.clone()
        };
        let refused = kept.follow(&answer);
        assert_eq!(refused.err(), Some(NotFresh::OtherService));
    }
    // Seven records were seen; five were found.
    let seen = known(&first);
    let short = Log::new("bield/keys/1", 5);
    let answer = Freshness {
        recovered: vec![short.left_for(&second)],
        ..second.answer(None)
    };
    let refused = seen.follow(&answer);
    assert_eq!(refused.err(), Some(NotFresh::SetBack(2)));
}
