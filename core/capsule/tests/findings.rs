//! The bugs that were found in earlier implementations of the same ideas, each as a test that it cannot
//! come back. The numbers are those of our reading notes.
//!
//! | finding | what went wrong there | where it is tested here |
//! |---|---|---|
//! | B1 | one constant key for all, writers name themselves | here |
//! | B2 | a record that fails verification is processed | here |
//! | B3 | sibling keys follow from one key | here: keys are drawn, none is derived from another writer's |
//! | B4 | key service hands out constants, ignores evidence | key service: `core/grant`, `enclave/*` |
//! | B5 | the hash does not cover prev | here |
//! | B6 | fields concatenated without separators | here |
//! | B7 | separators inside of values | here |
//! | B8 | AEAD without associated data | here |
//! | B9 | ties in last-writer-wins | not about the log: `core/table` |
//! | B10 | gaps are never repaired, forks pass | here (forks: B31) |
//! | B11, B12 | epochs never start; one silent member stops them | not about the log: the coordinator |
//! | B13 | threads share a chain head and fork it | here |
//! | B14 | acknowledgements ignored | here |
//! | B15, B16 | remote reads deadlock; locks without leases | not about the log: functions and `core/table` |
//! | B17 | host pointers inside of the enclave | not about the log: `enclave/door` takes bytes only |
//! | B18 | a full ring drops silently | `src/queue.rs` |
//! | B19, B20 | no transport security; results in clear | `core/session`, `core/envelope` |
//! | B21, B22 | script errors abort; sockets leak | not about the log: `enclave/engine`, `host/*` |
//! | B23 | a binary hashed up to its first zero | here |
//! | B24 | blocks in plaintext files | here: what is stored does not contain what was put |
//! | B25 | nothing recovers after a restart | `host/store`; here: a verifier restored from records |
//! | B26, B27 | oldest version wins; an empty value is "not found" | here: an empty entry is an entry; rest `core/table` |
//! | B28 | verification computes, then returns true | here |
//! | B29 | constant MAC keys, "stored anyway" | here |
//! | B30 | acknowledgements counted, not replicas | here |
//! | B31 | the header hash omits the body | here |
//! | B32 | panics on bad input | here; fuzz targets in `testing/fuzz` |
//! | B33 | no tests, constants in headers | this folder; limits and keys are arguments |

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in the cast is a failed test"
)]

use bield_capsule::{
    Acknowledgement, Batch, CapsuleName, Change, Durability, GenerationKey, Head, Header, Kept,
    KeyRing, Metadata, OpenError, Received, Refused, Suite, Verifier, VerifierPolicy, Writer,
    WriterKey, judge,
};
use bield_envelope::{Secret, Seeded, Signed, SigningKey, Time};

const NOW: Time = Time::from_secs(1_800_000_000);

/// A capsule with one writer, admitted by key, and a verifier that has both opening records.
struct Cast {
    metadata: Metadata,
    owner: Writer,
    writer: Writer,
    generation: GenerationKey,
    keys: KeyRing,
    verifier: Verifier,
    entropy: Seeded,
}

impl Cast {
    fn new(suite: Suite) -> Self {
        let mut entropy = Seeded::new(31);
        let owner = WriterKey::generate(suite, &mut entropy);
        let metadata = Metadata::new(owner.public(), None, NOW, &mut entropy).unwrap();
        let key = WriterKey::generate(suite, &mut entropy);
        let generation = GenerationKey::generate(1, &mut entropy);
        let changes = [
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
            Change::admit(key.public()),
        ];
        let (owner, config) = Writer::owner(owner, &metadata, &changes, NOW).unwrap();
        let (writer, open) =
            Writer::open(key, &metadata, owner.head().unwrap(), None, NOW).unwrap();
        let mut keys = KeyRing::new();
        let secret = Secret::from_bytes(*generation.secret().expose());
        keys.insert(GenerationKey::from_secret(1, secret)).unwrap();
        let mut cast = Self {
            verifier: Verifier::new(metadata.clone(), VerifierPolicy::default()),
            metadata,
            owner,
            writer,
            generation,
            keys,
            entropy,
        };
        cast.take(config).unwrap();
        cast.take(open).unwrap();
        cast
    }

    fn put(&mut self, payloads: &[&[u8]]) -> Received {
        let mut batch = Batch::new();
        for payload in payloads {
            batch.push(payload).unwrap();
        }
        self.writer
            .seal(&batch, &self.generation, &[], NOW, &mut self.entropy)
            .unwrap()
    }

    fn take(&mut self, record: Received) -> Result<(), Refused> {
        let verified = self.verifier.verify(record)?;
        self.verifier.apply(verified).map(drop)
    }

    fn payloads(&self, record: &Received) -> Vec<Vec<u8>> {
        let verified = self.verifier.verify(record.clone()).unwrap();
        let entries = verified.open(&self.keys).unwrap();
        entries
            .iter()
            .map(|entry| entry.plain().unwrap().to_vec())
            .collect()
    }
}

/// `record` with one byte altered at `at`; `None` when what remains is no record at all.
fn flipped(record: &Received, at: usize) -> Option<Received> {
    let mut bytes = record.as_bytes().to_vec();
    bytes[at] ^= 1;
    Received::decode(bytes).ok()
}

/// The header of `record` altered and put back, with its old signature and body.
fn reheaded(record: &Received, alter: impl FnOnce(&mut Header)) -> Received {
    let mut header = record.header().clone();
    alter(&mut header);
    let rest = &record.as_bytes()[record.header_bytes().len()..];
    Received::decode([&header.encode(), rest].concat()).unwrap()
}

#[test]
fn b01_every_writer_has_its_own_key_and_nobody_names_itself() {
    let mut cast = Cast::new(Suite::Ed25519);
    let stranger = WriterKey::generate(Suite::Ed25519, &mut cast.entropy);
    assert_ne!(stranger.id(), cast.writer.id());
    let record = cast.put(&[b"a"]);
    // A record that claims another writer is that writer's to sign.
    let claimed = reheaded(&record, |header| header.writer = stranger.id());
    assert!(cast.verifier.verify(claimed).is_err());
    let (_, open) = Writer::open(
        stranger,
        &cast.metadata,
        cast.owner.head().unwrap(),
        None,
        NOW,
    )
    .unwrap();
    let refused = cast.verifier.verify(open).unwrap_err();
    assert!(matches!(refused, Refused::NotAdmitted { .. }), "{refused}");
}

#[test]
fn b02_a_record_that_fails_verification_is_not_processed() {
    let mut cast = Cast::new(Suite::Ed25519);
    let record = cast.put(&[b"a"]);
    let before: Vec<Head> = cast.verifier.heads().collect();
    let mut accepted = 0;
    for at in 0..record.as_bytes().len() {
        // There is no way from a `Received` to its entries but through `Verified`.
        if let Some(altered) = flipped(&record, at) {
            accepted += usize::from(cast.take(altered).is_ok());
        }
    }
    assert_eq!(accepted, 0);
    assert_eq!(cast.verifier.heads().collect::<Vec<_>>(), before);
    assert_eq!(cast.take(record), Ok(()));
}

#[test]
fn b03_one_writers_key_says_nothing_about_anothers() {
    // Keys come from randomness alone: there is no parent key that two writers share.
    let mut entropy = Seeded::new(1);
    let [a, b] = [(); 2].map(|()| WriterKey::generate(Suite::Ed25519, &mut entropy));
    assert_ne!(a.seed().expose(), b.seed().expose());
    let again = WriterKey::from_seed(Suite::P256, Secret::from_bytes(*a.seed().expose())).unwrap();
    assert_ne!(again.id(), a.id(), "one seed in two suites is two writers");
}

#[test]
fn b05_the_hash_covers_prev() {
    for suite in Suite::ALL {
        let mut cast = Cast::new(suite);
        let record = cast.put(&[b"a"]);
        let other = reheaded(&record, |header| {
            header.prev = bield_envelope::Digest::from_bytes([9; 32]);
        });
        assert_ne!(other.hash(), record.hash());
        assert_eq!(cast.take(other), Err(Refused::Prev));
    }
}

#[test]
fn b06_no_two_headers_have_one_encoding() {
    let mut cast = Cast::new(Suite::Ed25519);
    let record = cast.put(&[b"a"]);
    // Digits that move from one number into the next: fields have fixed widths.
    let shifted = |epoch, clock| {
        reheaded(&record, |header| {
            header.epoch = epoch;
            header.clock = bield_capsule::Clock::from_bits(clock);
        })
        .hash()
    };
    assert_ne!(shifted(1, 234), shifted(12, 34));
    for at in 0..record.header_bytes().len() {
        if let Some(other) = flipped(&record, at) {
            assert_ne!(other.hash(), record.hash(), "byte {at}");
        }
    }
}

#[test]
fn b07_no_payload_ends_an_entry_or_begins_another() {
    let mut cast = Cast::new(Suite::Ed25519);
    let hostile: [&[u8]; 6] = [
        b"@@@",
        b"a@@@1@@@key@@@value",
        b"",
        b"\0",
        &[0, 0, 0, 1, 0, 0, 0, 2],
        &[0xff; 300],
    ];
    let record = cast.put(&hostile);
    assert_eq!(cast.payloads(&record), hostile);
}

#[test]
fn b08_a_body_opens_at_its_own_place_only() {
    let mut cast = Cast::new(Suite::Ed25519);
    let record = cast.put(&[b"a"]);
    let keys = KeyRing::decode(&cast.keys.encode_secret()).unwrap();
    // The host's copy, moved: `bield_capsule::record_secret` binds key and place.
    for alter in [
        (|header| header.seq = 2) as fn(&mut Header),
        |header| header.epoch = 1,
        |header| header.clock = bield_capsule::Clock::from_bits(1),
        |header| header.config = 7,
        |header| header.capsule = CapsuleName::from_bytes([1; 32]),
        |header| header.writer = bield_capsule::WriterId::from_bytes([1; 32]),
        |header| header.salt[0] ^= 1,
    ] {
        let moved = {
            let mut header = record.header().clone();
            alter(&mut header);
            header.skips = vec![record.hash(); bield_capsule::skips_at(header.seq)];
            let rest = &record.as_bytes()[record.header_bytes().len()..];
            Received::decode([&header.encode(), rest].concat()).unwrap()
        };
        let secret = bield_capsule::record_secret(&moved, &keys);
        assert_eq!(secret.err(), Some(OpenError::Commitment));
    }
    assert!(bield_capsule::record_secret(&record, &keys).is_ok());
}

#[test]
fn b10_a_gap_is_named_and_can_be_filled() {
    let mut cast = Cast::new(Suite::Ed25519);
    let records = [cast.put(&[b"a"]), cast.put(&[b"b"])];
    let gap = cast.take(records[1].clone()).unwrap_err();
    assert!(
        matches!(
            gap,
            Refused::Gap {
                have: Some(0),
                got: 2,
                ..
            }
        ) && gap.retry()
    );
    for record in records {
        cast.take(record).unwrap();
    }
}

#[test]
fn b13_a_chain_has_one_writer_at_a_time() {
    // `Writer` has no `Clone` and seals through `&mut self`: two threads need a lock or two chains.
    // This line is ambiguous, and does not compile, for a type that is `Clone`.
    <Writer as NotClone<_>>::holds();
    // What one writer makes is a chain, whatever the order of kinds.
    let mut cast = Cast::new(Suite::Ed25519);
    let parent = cast.owner.head().unwrap();
    let records = [
        cast.put(&[b"a"]),
        cast.writer.join(vec![parent], 1, NOW).unwrap(),
        cast.put(&[b"b"]),
        cast.writer.close(NOW).unwrap(),
    ];
    for record in records {
        cast.take(record).unwrap();
    }
    assert!(cast.writer.close(NOW).is_err(), "closed once");
}

trait NotClone<Ambiguous> {
    fn holds() {}
}
impl<T> NotClone<()> for T {}
impl<T: Clone> NotClone<u8> for T {}

#[test]
fn b14_b30_replicas_are_counted_and_messages_are_not() {
    let mut cast = Cast::new(Suite::Ed25519);
    let replicas = [1, 2].map(|byte| SigningKey::from_seed(Secret::from_bytes([byte; 32])));
    let mut changes: Vec<Change> = replicas
        .iter()
        .map(|replica| Change::Replica {
            principal: replica.principal(),
            address: String::new(),
        })
        .collect();
    changes.push(Change::Quorum {
        replicas: 2,
        witnesses: 0,
    });
    let config = cast.owner.configure(&changes, NOW).unwrap();
    cast.take(config).unwrap();
    let head = cast.put(&[b"a"]).head();
    let say = |replica: &SigningKey, kept| {
        let said = Acknowledgement::of(cast.metadata.name(), head, kept, NOW);
        Signed::sign(replica, said).into_signed()
    };
    let meets = |said: &[Signed<Acknowledgement>]| {
        let (reached, _) = judge(&head, said, cast.verifier.config(), None, |_| false);
        (
            reached.meets(Durability::Replicated(1)),
            reached.meets_quorum(),
        )
    };
    let [one, two] = [&replicas[0], &replicas[1]];
    assert_eq!(meets(&[]), (false, false), "nothing is durable unasked");
    assert_eq!(meets(&vec![say(one, Kept::Synced); 9]), (true, false));
    let unsynced = [say(one, Kept::Synced), say(two, Kept::Written)];
    assert_eq!(meets(&unsynced), (true, false));
    let both = [say(one, Kept::Synced), say(two, Kept::Synced)];
    assert_eq!(meets(&both), (true, true));
}

#[test]
fn b23_every_byte_of_a_body_is_covered_zeros_included() {
    for suite in Suite::ALL {
        let mut cast = Cast::new(suite);
        let record = cast.put(&[&[0; 5000], b"\0\0", b""]);
        let body = record.as_bytes().len() - record.body().len();
        for at in (body..record.as_bytes().len()).step_by(37) {
            assert!(flipped(&record, at).is_none(), "{suite:?} byte {at}");
        }
    }
}

#[test]
fn b24_what_is_stored_does_not_contain_what_was_put() {
    let mut cast = Cast::new(Suite::Ed25519);
    let secret = b"a sentence that a host must never see";
    let stored = cast.put(&[secret]).into_bytes();
    assert!(!stored.windows(12).any(|window| secret.starts_with(window)));
}

#[test]
fn b25_a_verifier_is_rebuilt_from_records() {
    let mut cast = Cast::new(Suite::Ed25519);
    let (mut writer_records, key) = (Vec::new(), cast.writer.id());
    for n in 0..9u8 {
        let record = cast.put(&[&[n]]);
        writer_records.push(record.clone());
        cast.take(record).unwrap();
    }
    let mut again = Cast::new(Suite::Ed25519); // the same seed: the same two opening records
    assert_eq!(again.metadata, cast.metadata);
    for record in writer_records {
        again.verifier.restore_own(record).unwrap();
    }
    assert_eq!(
        again.verifier.chain(&key).map(|chain| chain.tip()),
        cast.verifier.chain(&key).map(|chain| chain.tip())
    );
}

#[test]
fn b27_an_empty_entry_is_an_entry() {
    let mut cast = Cast::new(Suite::Ed25519);
    let record = cast.put(&[b"", b"a", b""]);
    assert_eq!(cast.payloads(&record), [&b""[..], b"a", b""]);
}

#[test]
fn b28_a_wrong_signature_is_an_error_in_every_suite() {
    for suite in Suite::ALL {
        let mut cast = Cast::new(suite);
        let record = cast.put(&[b"a"]);
        let signature = record.header_bytes().len();
        for at in (signature..signature + suite.signature_bytes()).step_by(19) {
            let altered = flipped(&record, at).unwrap();
            assert_eq!(
                cast.take(altered),
                Err(Refused::Signature),
                "{suite:?} {at}"
            );
        }
        // Across processes: nothing but bytes and the capsule's name is shared.
        let metadata =
            Metadata::decode_named(cast.metadata.as_bytes(), &cast.metadata.name()).unwrap();
        assert_eq!(metadata.owner_id(), cast.owner.id());
        assert_eq!(cast.take(record), Ok(()));
    }
}

#[test]
fn b29_the_hash_is_recomputed_and_nothing_is_stored_anyway() {
    let mut cast = Cast::new(Suite::Ed25519);
    let record = cast.put(&[b"a"]);
    let again = Received::decode(record.as_bytes().to_vec()).unwrap();
    assert_eq!(again.hash(), again.header().hash());
    let body = record.as_bytes().len() - 1;
    assert!(
        flipped(&record, body).is_none(),
        "the body has no such root"
    );
    let two = [cast.put(&[b"b"]), cast.put(&[b"b"])];
    assert_ne!(
        two[0].body(),
        two[1].body(),
        "no constant key, no constant nonce"
    );
}

#[test]
fn b31_the_signature_covers_the_body_and_a_fork_reuses_no_key_stream() {
    let mut cast = Cast::new(Suite::Ed25519);
    let mut copy = Cast::new(Suite::Ed25519); // a virtual machine set back, random generator and all
    let (ours, theirs) = (cast.put(&[b"aaaaaaaa"]), copy.put(&[b"bbbbbbbb"]));
    assert_eq!(ours.header().seq, theirs.header().seq);
    assert_ne!(ours.header().root, theirs.header().root);
    assert_ne!(ours.hash(), theirs.hash());
    assert_ne!(ours.header().salt, theirs.header().salt);
    let xor = |a: &[u8], b: &[u8]| -> Vec<u8> { a.iter().zip(b).map(|(a, b)| a ^ b).collect() };
    let difference = xor(&ours.body()[1..9], &theirs.body()[1..9]);
    assert_ne!(
        difference,
        xor(b"aaaaaaaa", b"bbbbbbbb"),
        "one key stream twice"
    );
    cast.take(ours).unwrap();
    let refused = cast.take(theirs).unwrap_err();
    assert!(
        matches!(refused, Refused::Conflict { seq: 1, .. }),
        "{refused}"
    );
}

#[test]
fn b32_no_prefix_and_no_garbage_panics() {
    let mut cast = Cast::new(Suite::Ed25519);
    let record = cast.put(&[b"a"]);
    for cut in 0..record.as_bytes().len() {
        assert!(Received::decode(record.as_bytes()[..cut].to_vec()).is_err());
    }
    for at in 0..record.header_bytes().len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = record.as_bytes().to_vec();
            bytes[at] = value;
            if let Ok(record) = Received::decode(bytes) {
                let _ = cast.verifier.verify(record);
            }
        }
    }
    let verified = cast.verifier.verify(record).unwrap();
    assert_eq!(
        verified.open(&KeyRing::new()).err(),
        Some(OpenError::NoKey { generation: 1 })
    );
}
