//! Random interleavings of everything a host and wrong writers can do, against a model that is nothing
//! but lists of hashes: the verifier accepts exactly what the model says.

use std::collections::BTreeMap;

use bield_envelope::Digest;
use proptest::prelude::*;

use super::author::{Author, Stage, forged};
use crate::{Change, Fork, ForkProof, Kind, Last, Received, Refused, Through, Verifier, WriterId};

/// What happens next; numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    /// A writer writes one more record; nobody has it yet.
    Write(usize),
    /// A writer with a copied key writes another record where the newest one is.
    Fork(usize),
    /// A writer closes its chain.
    Close(usize),
    /// Any record written so far arrives: in order or not, once or again.
    Deliver(usize),
    /// The next record of a writer arrives.
    DeliverNext(usize),
    /// A record arrives with its signature broken.
    Forge(usize),
    /// A right next record arrives with a wrong predecessor, signed by its writer.
    WrongPrev(usize),
    /// A record arrives that another admitted writer signed.
    Impostor(usize),
    /// The owner revokes a writer.
    Revoke(usize, Option<u64>),
    /// A fork proof arrives, when there is one.
    Prove(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..4).prop_map(Step::Write),
        1 => (0usize..4).prop_map(Step::Fork),
        1 => (0usize..4).prop_map(Step::Close),
        5 => any::<usize>().prop_map(Step::Deliver),
        8 => (0usize..4).prop_map(Step::DeliverNext),
        1 => any::<usize>().prop_map(Step::Forge),
        1 => (0usize..4).prop_map(Step::WrongPrev),
        1 => (0usize..4).prop_map(Step::Impostor),
        1 => (0usize..4, proptest::option::of(0u64..6)).prop_map(|(who, last)| Step::Revoke(who, last)),
        1 => (0usize..4).prop_map(Step::Prove),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The model: who has which records, which of them end a chain, how far it counts, where it forked.
#[derive(Default)]
struct Model {
    chains: BTreeMap<WriterId, Vec<Digest>>,
    closed: BTreeMap<WriterId, bool>,
    last: BTreeMap<WriterId, Option<Last>>,
    forked: BTreeMap<WriterId, u64>,
}

impl Model {
    fn accepts(&self, record: &Received) -> bool {
        let header = record.header();
        let chain = self
            .chains
            .get(&header.writer)
            .map_or(&[][..], Vec::as_slice);
        let within = match self.last.get(&header.writer) {
            None => true,
            Some(last) => {
                last.is_some_and(|last| header.seq < last.seq || Last::from(record.head()) == last)
            }
        };
        let named = self.last.get(&header.writer) == Some(&Some(record.head().into()));
        let open = |fork: &u64| header.seq < *fork || named;
        header.seq == chain.len() as u64
            && within
            && self.forked.get(&header.writer).is_none_or(open)
            && !self.closed.get(&header.writer).copied().unwrap_or_default()
            && chain.last().is_none_or(|prev| header.prev == *prev)
    }

    fn take(&mut self, record: &Received) {
        let writer = record.header().writer;
        self.chains.entry(writer).or_default().push(record.hash());
        self.closed
            .insert(writer, record.header().kind == Kind::Close);
    }
}

struct World {
    stage: Stage,
    writers: Vec<Author>,
    /// Everything written, by anyone, on any branch.
    written: Vec<Received>,
    forks: Vec<Option<ForkProof>>,
    model: Model,
}

impl World {
    fn new() -> Self {
        let mut stage = Stage::new(crate::Suite::Ed25519, &[]);
        let mut writers: Vec<Author> = (1..=4).map(|seed| stage.author(seed)).collect();
        let admit: Vec<_> = writers
            .iter()
            .map(|author| Change::admit(author.key().public()))
            .collect();
        stage.configure(&admit);
        let config = stage.owner.head();
        let written = writers
            .iter_mut()
            .map(|author| author.open(config, None))
            .collect();
        Self {
            stage,
            written,
            forks: vec![None; writers.len()],
            writers,
            model: Model::default(),
        }
    }

    /// A record arrives whose signature is its writer's.
    fn deliver(&mut self, record: &Received) {
        let expected = self.model.accepts(record);
        let found = self.stage.take(record.clone());
        assert_eq!(found.is_ok(), expected, "{record:?}: {found:?}");
        match found {
            Ok(_) => self.model.take(record),
            Err(Refused::Known { head }) => {
                let chain = &self.model.chains[&head.writer];
                assert_eq!(chain[head.seq as usize], record.hash());
            }
            Err(Refused::Conflict {
                writer, seq, found, ..
            }) => {
                assert_ne!(self.model.chains[&writer][seq as usize], found);
            }
            Err(Refused::Gap { writer, have, got }) => {
                let len = self.model.chains.get(&writer).map_or(0, Vec::len) as u64;
                assert_eq!(have, len.checked_sub(1));
                assert!(got > len || have.is_none());
            }
            Err(Refused::Forked { writer, .. }) => {
                assert!(self.model.forked.contains_key(&writer));
            }
            Err(_) => {}
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Write(who) => {
                let record = self.writers[who].data();
                self.written.push(record);
            }
            Step::Close(who) => {
                let record = self.writers[who].close();
                self.written.push(record);
            }
            Step::Fork(who) => self.fork(who),
            Step::Deliver(which) => {
                let record = self.written[which % self.written.len()].clone();
                self.deliver(&record);
            }
            Step::DeliverNext(who) => {
                let writer = self.writers[who].id();
                let next = self.model.chains.get(&writer).map_or(0, Vec::len) as u64;
                let at = |record: &&Received| {
                    record.header().writer == writer && record.header().seq == next
                };
                if let Some(record) = self.written.iter().find(at).cloned() {
                    self.deliver(&record);
                }
            }
            Step::Forge(which) => {
                let record = forged(&self.written[which % self.written.len()]);
                let refused = self.stage.take(record.clone()).expect_err("forged");
                // Only what is known, or refused whoever signed it, may be refused for another reason.
                assert!(!self.model.accepts(&record) || refused == Refused::Signature);
                assert_ne!(
                    refused.slug(),
                    "conflict",
                    "nobody but the writer makes a fork"
                );
            }
            Step::WrongPrev(who) => {
                let mut header = self.writers[who].header(Kind::Data, &[7; 40]);
                header.prev = Digest::from_bytes([9; 32]);
                let record = Received::sign(&self.writers[who].key(), &header, &[7; 40]).unwrap();
                assert!(self.stage.take(record).is_err());
            }
            Step::Impostor(who) => {
                let header = self.writers[who].header(Kind::Data, &[7; 40]);
                let other = self.writers[(who + 1) % 4].key();
                let record = Received::sign(&other, &header, &[7; 40]).unwrap();
                assert!(self.stage.take(record).is_err());
            }
            Step::Revoke(who, last) => {
                let writer = self.writers[who].id();
                let before = self.model.last.get(&writer).copied();
                let seq = |last: Option<Last>| last.map(|last| last.seq);
                // Of the records at that position, on any branch, the oldest.
                let at = |record: &&Received| {
                    record.header().writer == writer && Some(record.header().seq) == last
                };
                let named = self.written.iter().find(at);
                let named = named.map(|record| record.head().into());
                if last.is_some() != named.is_some() {
                    return;
                }
                let last = named;
                if before.is_none_or(|before| seq(last) < seq(before)) {
                    self.stage.configure(&[Change::Revoke { writer, last }]);
                    self.model.last.insert(writer, last);
                }
            }
            Step::Prove(who) => {
                let writer = self.writers[who].id();
                if let Some(proof) = &self.forks[who] {
                    let Fork { seq, .. } = self.stage.verifier.mark_forked(proof).unwrap();
                    let lowest = self.model.forked.entry(writer).or_insert(seq);
                    *lowest = seq.min(*lowest);
                }
            }
        }
        self.compare();
    }

    /// Writes two records for one position; the writer goes on from one, its copy from the other.
    fn fork(&mut self, who: usize) {
        let mut copy = self.writers[who].clone();
        let ours = self.writers[who].data();
        let theirs = copy.data_of(&[9; 40]);
        let proof = ForkProof::new(
            self.stage.verifier.metadata(),
            copy.key().public(),
            ours.signed_head(),
            theirs.signed_head(),
        );
        self.forks[who] = Some(proof.unwrap());
        self.written.extend([ours, theirs]);
        self.written.push(copy.data());
    }

    fn compare(&self) {
        let verifier: &Verifier = &self.stage.verifier;
        for author in &self.writers {
            let writer = author.id();
            let chain = self.model.chains.get(&writer);
            let tip = verifier.chain(&writer).map(|chain| chain.tip());
            let expected = chain.map(|chain| (chain.len() as u64 - 1, *chain.last().unwrap()));
            assert_eq!(tip.map(|tip| (tip.seq, tip.hash)), expected);
            let through = verifier.config().through(&writer);
            let expected = match self.model.last.get(&writer) {
                None => Through::Everything,
                Some(None) => Through::Nothing,
                Some(Some(last)) => Through::Last(last.seq),
            };
            assert_eq!(through, expected);
            let stated = verifier
                .stated_after(None)
                .find(|head| head.writer == writer);
            let at_cut = match (self.model.last.get(&writer), chain) {
                (Some(Some(last)), Some(chain)) => {
                    chain.get(last.seq as usize).map(|hash| (*last, *hash))
                }
                _ => None,
            };
            match (expected, at_cut) {
                (Through::Nothing, _) => assert_eq!(stated, None),
                // Where storage would have to say which record it is, the owner's word is taken.
                (_, Some((last, hash))) => {
                    let stated = stated.map(Last::from);
                    assert!(stated.is_none_or(|stated| stated == last));
                    assert!(stated.is_some() || hash != last.hash);
                }
                (_, None) => assert_eq!(stated, tip),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_verifier_accepts_exactly_what_the_model_accepts(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
    }
}
