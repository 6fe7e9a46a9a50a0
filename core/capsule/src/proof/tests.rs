//! What a proof is made of, where only the crate itself can make it differently.

use bield_envelope::{Seeded, SigningKey, Time};

use super::*;
use crate::{
    Batch, Change, GenerationKey, Kept, KeyRing, Kind, OpenError, Suite, Verifier, VerifierPolicy,
    Writer, WriterKey, record_secret, slice,
};

const NOW: Time = Time::from_millis(1_000_000);

/// A capsule with one replica, and a record of one writer that shows its entry.
struct Shown {
    metadata: Metadata,
    key: WriterKey,
    config: Received,
    opening: Received,
    record: Received,
    keys: KeyRing,
    replica: SigningKey,
}

impl Shown {
    fn new() -> Self {
        let mut entropy = Seeded::new(1);
        let mut drawn = || WriterKey::generate(Suite::Ed25519, &mut entropy);
        let (owner, key) = (drawn(), drawn());
        let metadata = Metadata::new(owner.public(), None, NOW, &mut entropy).unwrap();
        let generation = GenerationKey::generate(1, &mut entropy);
        let replica = SigningKey::from_seed(Secret::generate(&mut entropy));
        let changes = [
            Change::admit(key.public()),
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
            Change::Replica {
                principal: replica.principal(),
                address: String::new(),
            },
        ];
        let (_, config) = Writer::owner(owner, &metadata, &changes, NOW).unwrap();
        let again = WriterKey::from_seed(Suite::Ed25519, Secret::from_bytes(*key.seed().expose()));
        let (mut writer, opening) =
            Writer::open(again.unwrap(), &metadata, config.head(), None, NOW).unwrap();
        let mut batch = Batch::new();
        batch.push(b"shown").unwrap();
        let record = writer.seal(&batch, &generation, &[], NOW, &mut entropy);
        let mut keys = KeyRing::new();
        keys.insert(generation).unwrap();
        Self {
            metadata,
            key,
            config,
            opening,
            record: record.unwrap(),
            keys,
            replica,
        }
    }

    fn proof(&self) -> Proof {
        Proof::new(
            self.metadata.clone(),
            vec![self.config.clone()],
            Some(self.opening.clone()),
            self.record.signed_head(),
            Vec::new(),
        )
    }
}

#[test]
fn an_entry_of_a_record_that_does_not_open_is_shown_and_the_seal_is_listed_as_not_checked() {
    let shown = Shown::new();
    let secret = record_secret(&shown.record, &shown.keys).unwrap();
    let mut proof = shown.proof().show(&shown.record, secret, 0).unwrap();
    // The writer signs a body with another tag: readers cannot open it, the entry's bytes are its.
    let mut body = shown.record.body().to_vec();
    *body.last_mut().unwrap() ^= 1;
    let mut header = shown.record.header().clone();
    header.root = header.suite.root(&body);
    let bad = Received::sign(&shown.key, &header, &body).unwrap();
    let mut verifier = Verifier::new(shown.metadata.clone(), VerifierPolicy::default());
    for record in [&shown.config, &shown.opening] {
        let verified = verifier.verify(record.clone()).unwrap();
        verifier.apply(verified).unwrap();
    }
    let verified = verifier.verify(bad.clone()).unwrap();
    assert_eq!(verified.open(&shown.keys).unwrap_err(), OpenError::Tag);

    assert_eq!(header.kind, Kind::Data);
    proof.head = bad.signed_head();
    let entry = proof.entry.as_mut().unwrap();
    let ends = body.len() - 20..body.len() - 16;
    let ranges = [entry.start as usize..entry.end as usize, ends];
    entry.slice = slice(header.suite, &body, &ranges).unwrap();
    let name = shown.metadata.name();
    let proven = proof.verify(&name, VerifierPolicy::default()).unwrap();
    assert_eq!(proven.entry.unwrap().entry().plain(), Some(&b"shown"[..]));
    assert!(proven.not_checked.contains(&NotChecked::Seal));
}

#[test]
fn of_a_replicas_words_the_best_one_is_kept_whatever_their_order() {
    let shown = Shown::new();
    let (name, head) = (shown.metadata.name(), shown.record.head());
    let say = |head, kept| {
        let word = Acknowledgement::of(name, head, kept, NOW);
        Signed::sign(&shown.replica, word).into_signed()
    };
    let mut forged = say(head, Kept::Synced).as_bytes().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let mut words = vec![
        say(head, Kept::Written),
        say(head, Kept::Synced),
        say(head, Kept::Memory),
        say(shown.opening.head(), Kept::Synced),
        Signed::decode(&forged).unwrap(),
    ];
    for _ in 0..words.len() {
        words.rotate_left(1);
        let proof = shown.proof().acknowledged(words.clone());
        let proven = proof.verify(&name, VerifierPolicy::default()).unwrap();
        assert_eq!((proven.acknowledged.len(), proven.synced()), (1, 1));
    }
}
