//! One set of records, two orders of delivery: what counts in the end is the same, and no honest writer is
//! stopped by what others wrote.

use std::collections::{BTreeMap, VecDeque};

use bield_envelope::Digest;
use proptest::prelude::*;

use super::author::{Author, Stage};
use crate::{Change, ForkProof, Head, Last, Received, Verifier, WriterId};

const HONEST: usize = 2;
const LIAR: usize = 2;
const FORKER: usize = 3;

/// What is written next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Data(usize),
    /// A join of whatever its author has been shown: heads of the others, of either side of a fork.
    Join(usize, bool),
    /// The liar names a record that nobody wrote.
    Invent(u64),
    /// The liar or the forker is revoked after so many of its records.
    Revoke(usize, usize),
    /// A change that touches nobody.
    Quota,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..4).prop_map(Step::Data),
        4 => (0usize..3, any::<bool>()).prop_map(|(who, side)| Step::Join(who, side)),
        1 => (0u64..9).prop_map(Step::Invent),
        1 => (2usize..4, 0usize..6).prop_map(|(who, last)| Step::Revoke(who, last)),
        1 => Just(Step::Quota),
    ];
    proptest::collection::vec(step, 1..40)
}

/// What can be delivered: chains, each in order, and proofs of forks.
struct Story {
    stage: Stage,
    writers: Vec<WriterId>,
    lanes: Vec<Vec<Received>>,
    proof: Option<ForkProof>,
}

fn story(steps: &[Step]) -> Story {
    let mut stage = Stage::new(crate::Suite::Ed25519, &[]);
    let mut authors: Vec<Author> = (1..=4).map(|seed| stage.author(seed)).collect();
    // The configuration so far is in the stage; what follows is delivered in any order.
    let admit: Vec<Change> = authors
        .iter()
        .map(|author| Change::admit(author.key().public()))
        .collect();
    let mut config = vec![stage.owner.configure(&admit)];
    let first = stage.owner.head();
    let mut lanes: Vec<Vec<Received>> = authors
        .iter_mut()
        .map(|author| vec![author.open(first, None)])
        .collect();
    let mut twin = authors[FORKER].clone();
    let mut other = lanes[FORKER].clone();
    let mut revoked: BTreeMap<usize, u64> = BTreeMap::new();
    for step in steps {
        match *step {
            Step::Data(FORKER) => {
                lanes[FORKER].push(authors[FORKER].data());
                other.push(twin.data_of(&[9; 40]));
            }
            Step::Data(who) => lanes[who].push(authors[who].data()),
            Step::Join(who, side) => {
                let mut seen: Vec<Head> = (0..FORKER)
                    .filter(|of| *of != who)
                    .map(|of| authors[of].head())
                    .collect();
                seen.push(if side {
                    twin.head()
                } else {
                    authors[FORKER].head()
                });
                lanes[who].push(authors[who].join(&seen));
            }
            Step::Invent(seq) => {
                let invented = |of: usize| Head {
                    writer: authors[of].id(),
                    seq,
                    hash: Digest::from_bytes([9; 32]),
                };
                let parents = [invented(0), invented(1), invented(FORKER)];
                let join = authors[LIAR].join(&parents);
                lanes[LIAR].push(join);
            }
            Step::Revoke(who, last) => {
                let at = &lanes[who][last.min(lanes[who].len() - 1)];
                let seq = at.head().seq;
                if revoked.get(&who).is_none_or(|before| seq < *before) {
                    revoked.insert(who, seq);
                    config.push(stage.owner.configure(&[Change::Revoke {
                        writer: authors[who].id(),
                        last: Some(Last::from(at.head())),
                    }]));
                }
            }
            Step::Quota => config.push(stage.owner.configure(&[Change::Quota(1)])),
        }
    }
    let proof = (other.len() > 1).then(|| {
        let key = authors[FORKER].key();
        let heads = [&lanes[FORKER][1], &other[1]].map(Received::signed_head);
        let [a, b] = heads;
        ForkProof::new(stage.verifier.metadata(), key.public(), a, b).unwrap()
    });
    lanes.push(other);
    lanes.push(config);
    Story {
        writers: authors.iter().map(Author::id).collect(),
        stage,
        lanes,
        proof,
    }
}

/// Delivers everything, choosing lanes by `order`; what is to be sent again later is.
fn deliver(story: &Story, order: &[usize]) -> Verifier {
    let mut verifier = story.stage.verifier.clone();
    let mut lanes: Vec<VecDeque<Received>> = story
        .lanes
        .iter()
        .map(|lane| lane.iter().cloned().collect())
        .collect();
    let mut proof = story.proof.as_ref();
    let mut attempt = |which: usize, lanes: &mut Vec<VecDeque<Received>>| {
        let Some(lane) = lanes.get_mut(which) else {
            if let Some(proof) = proof.take() {
                verifier.mark_forked(proof).unwrap();
                return true;
            }
            return false;
        };
        let Some(record) = lane.front().cloned() else {
            return false;
        };
        let taken = verifier
            .verify(record)
            .and_then(|verified| verifier.apply(verified));
        match taken {
            Err(refused) if refused.retry() => return false,
            Err(refused) => {
                let honest = which < HONEST || which == story.lanes.len() - 1;
                assert!(!honest, "an honest record is refused: {refused}");
            }
            Ok(_) => {}
        }
        lane.pop_front();
        true
    };
    for which in order {
        attempt(which % (story.lanes.len() + 1), &mut lanes);
    }
    // Whoever was not here yet, and whoever has to wait, until nothing moves.
    while (0..=story.lanes.len()).any(|which| attempt(which, &mut lanes)) {}
    verifier
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_two_orders_of_delivery_end_in_the_same_state_for_writers_that_did_not_fork(
        steps in steps(),
        one in proptest::collection::vec(any::<usize>(), 0..120),
        other in proptest::collection::vec(any::<usize>(), 0..120),
    ) {
        let story = story(&steps);
        let ends = [&one, &other].map(|order| deliver(&story, order));
        let [first, second] = &ends;
        prop_assert_eq!(first.config().head(), second.config().head());
        for (who, writer) in story.writers.iter().enumerate().take(FORKER) {
            let head = |verifier: &Verifier| {
                verifier.stated_after(None).find(|head| head.writer == *writer)
            };
            prop_assert_eq!(head(first), head(second));
            if who < HONEST {
                let last = story.lanes[who].last().map(Received::head);
                prop_assert_eq!(head(first), last, "an honest writer is complete");
            }
        }
    }
}
