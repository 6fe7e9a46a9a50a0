//! Capsules: what decodes has one encoding, what is applied is what honest writers signed, what
//! proves proves an honest record.

use std::sync::LazyLock;

use bield_capsule::segment::{End, SegmentHeader};
use bield_capsule::{
    Acknowledgement, Batch, CapsuleName, Change, Durability, Entry, ExportReader, ForkProof,
    GenerationKey, Head, HeadsStatement, Kept, KeyRing, Kind, Metadata, Opening, Proof, PublicKey,
    Received, SignedHead, Suite, Verifier, VerifierPolicy, WriterCertificate, WriterId, WriterKey,
    decode_changes, encode_changes, export_header, export_record, open_slice, path, record_secret,
    slice,
};
use bield_capsule::{Header, Headers, Writer};
use bield_envelope::{Digest, Secret, Seeded, Signed, SigningKey};

use crate::{cast, statements};

/// Metadata: canonical, named by its own bytes.
pub fn capsule_metadata(data: &[u8]) -> bool {
    let Ok(metadata) = Metadata::decode(data) else {
        return false;
    };
    assert_eq!(metadata.as_bytes(), data);
    assert_eq!(Metadata::decode_named(data, &metadata.name()), Ok(metadata));
    true
}

/// One record: what the verifier takes is one that was honestly made.
pub fn capsule_record(data: &[u8]) -> bool {
    let Ok(record) = Received::decode(data.to_vec()) else {
        return false;
    };
    assert_eq!(record.as_bytes(), data);
    assert_eq!(record.header().encode(), record.header_bytes());
    assert_eq!(record.header().hash(), record.hash());
    let mut verifier = CAST.verifier();
    for honest in &CAST.records {
        let next = Received::decode(data.to_vec()).expect("it decoded before");
        if let Ok(verified) = verifier.verify(next) {
            cast::assert_honest(
                verified.record().as_bytes(),
                &seeds::capsule_record(),
                "record",
            );
        }
        apply(&mut verifier, honest.clone());
    }
    true
}

/// A header and a signature.
pub fn capsule_signed_head(data: &[u8]) -> bool {
    let Ok(head) = SignedHead::decode(data) else {
        return false;
    };
    assert_eq!(head.as_bytes(), data);
    if head.verify(CAST.writer.public()).is_ok() {
        cast::assert_honest(data, &seeds::capsule_signed_head(), "signed head");
    }
    true
}

/// The body of a config record.
pub fn capsule_changes(data: &[u8]) -> bool {
    // The count stands in the header; any count but the right one is refused.
    let decoded = (1..=16).find_map(|count| decode_changes(data, count).ok());
    decoded.is_some_and(|changes| {
        assert_eq!(encode_changes(&changes), data);
        true
    })
}

/// The body of an open record.
pub fn capsule_opening(data: &[u8]) -> bool {
    let writer = CAST.writer.id();
    let opening = Opening::decode(Suite::Ed25519, &CAST.metadata.name(), &writer, data);
    opening.is_ok_and(|opening| {
        assert_eq!(opening.key().id(), writer);
        let certificate = opening
            .certificate()
            .map(|verified| verified.as_signed().as_bytes());
        assert_eq!(Opening::encode(opening.key(), certificate), data);
        true
    })
}

/// Writers' certificates.
pub fn capsule_certificate(data: &[u8]) -> bool {
    let by = cast::service().principal();
    statements::statement::<WriterCertificate>(data, &by, seeds::capsule_certificate)
}

/// Replicas' acknowledgements.
pub fn capsule_acknowledgement(data: &[u8]) -> bool {
    let by = replica().principal();
    statements::statement::<Acknowledgement>(data, &by, seeds::capsule_acknowledgement)
}

/// Replicas' words about heads.
pub fn capsule_heads(data: &[u8]) -> bool {
    let by = replica().principal();
    statements::statement::<HeadsStatement>(data, &by, seeds::capsule_heads)
}

/// Proof files: what is proven is an honest record and, when one is shown, its entry.
pub fn capsule_proof(data: &[u8]) -> bool {
    let Ok(proof) = Proof::decode(data) else {
        return false;
    };
    assert_eq!(*proof.encode(), data);
    let name = CAST.metadata.name();
    let strict = proof.verify(&name, VerifierPolicy::default());
    assert!(strict.is_err(), "a simulated writer passed the default");
    let Ok(proven) = proof.verify(&name, POLICY) else {
        return false;
    };
    let target = proven.target.hash();
    assert!(CAST.records.iter().any(|record| record.hash() == target));
    if let Some(entry) = &proven.entry {
        match entry.entry() {
            Entry::Plain(payload) => assert!(PAYLOADS.contains(&payload), "an invented entry"),
            _ => panic!("no erasable entry was written"),
        }
    }
    true
}

/// Fork proofs: nobody who did not fork is accused.
pub fn capsule_fork(data: &[u8]) -> bool {
    let Ok(proof) = ForkProof::decode(data) else {
        return false;
    };
    assert_eq!(proof.encode(), data);
    let Ok(fork) = proof.verify(&CAST.metadata.name()) else {
        return false;
    };
    assert_eq!(fork.writer, CAST.writer.id());
    cast::assert_honest(data, &seeds::capsule_fork(), "fork proof");
    true
}

/// Export files: what the verifier applies is a prefix of what each writer wrote.
pub fn capsule_export(data: &[u8]) -> bool {
    let Ok(reader) = ExportReader::new(data) else {
        return false;
    };
    let mut again = export_header(reader.metadata());
    let mut verifier = Verifier::new(reader.metadata().clone(), POLICY);
    let ours = reader.metadata().name() == CAST.metadata.name();
    for exported in reader {
        let Ok(exported) = exported else {
            return false;
        };
        assert_eq!(exported.offset as usize, again.len());
        export_record(&exported.record, &mut again);
        let Ok(verified) = verifier.verify(exported.record) else {
            continue;
        };
        let applied = verifier
            .apply(verified)
            .expect("just verified against this state");
        if ours {
            let bytes = applied.record().as_bytes();
            cast::assert_honest(bytes, &seeds::capsule_record(), "record of an export");
        }
    }
    assert_eq!(again, data);
    true
}

/// Segment files of replicas: frames lie within the file, in order, and one end is told.
pub fn capsule_segment(data: &[u8]) -> bool {
    let Ok(header) = SegmentHeader::parse(data) else {
        return false;
    };
    let mut frames = header.frames(data);
    for (index, frame) in (header.first..).zip(frames.by_ref()) {
        assert_eq!(frame.index, index);
        let at = frame.payload.as_ptr() as usize - data.as_ptr() as usize;
        assert!(at > frame.offset as usize && at + frame.payload.len() <= data.len());
    }
    match frames.end().expect("frames that ended say why") {
        End::Clean { offset } | End::Preallocated { offset } | End::Sealed { offset, .. } => {
            assert!(offset as usize <= data.len());
            true
        }
        _ => false,
    }
}

/// Slices: what opens is what stands in the body.
pub fn capsule_slice(data: &[u8]) -> bool {
    let suites = [Suite::Ed25519, Suite::P256];
    suites.into_iter().any(|suite| {
        let root = suite.root(&body());
        let opened = open_slice(suite, &root, BODY_BYTES, &RANGES, data);
        opened.is_ok_and(|parts| {
            for (part, range) in parts.iter().zip(RANGES) {
                assert_eq!(*part, body()[range]);
            }
            assert_eq!(slice(suite, &body(), &RANGES).as_deref(), Ok(data));
            true
        })
    })
}

/// Key rings as they lie in a file.
pub fn capsule_keyring(data: &[u8]) -> bool {
    KeyRing::decode(data).is_ok_and(|ring| {
        assert_eq!(*ring.encode_secret(), data);
        true
    })
}

/// Names, ids and levels as people type them.
pub fn capsule_text(data: &[u8]) -> bool {
    let Ok(text) = core::str::from_utf8(data) else {
        return false;
    };
    let name = text.parse::<CapsuleName>().is_ok_and(|name| {
        assert_eq!(name.to_string(), text.to_ascii_lowercase());
        true
    });
    let level = text.parse::<Durability>().is_ok_and(|level| {
        assert_eq!(level.to_string().parse(), Ok(level));
        true
    });
    name || level
}

const POLICY: VerifierPolicy = VerifierPolicy {
    allow_simulated: true,
    writers_max: 16,
};
const PAYLOADS: [&[u8]; 3] = [b"first", b"", b"the third of them"];
const BODY_BYTES: usize = 9000;
const RANGES: [core::ops::Range<usize>; 2] = [100..117, 8190..8300];

fn body() -> Vec<u8> {
    (0..BODY_BYTES).map(|at| (at / 7) as u8).collect()
}

fn replica() -> SigningKey {
    SigningKey::generate(&mut Seeded::new(21))
}

fn apply(verifier: &mut Verifier, record: Received) {
    let verified = verifier.verify(record).expect("an honest record");
    verifier.apply(verified).expect("just verified");
}

/// One capsule with one certified writer, and what both honestly wrote.
struct Cast {
    metadata: Metadata,
    writer: WriterKey,
    certificate: Vec<u8>,
    changes: Vec<Change>,
    keys: KeyRing,
    /// Config, open, three data records, a join, a close; in this order.
    records: Vec<Received>,
    /// Another record for the position of the last but one: a fork.
    other: Received,
}

static CAST: LazyLock<Cast> = LazyLock::new(Cast::new);

impl Cast {
    fn new() -> Self {
        let mut entropy = Seeded::new(20);
        let owner = WriterKey::generate(Suite::Ed25519, &mut entropy);
        let metadata = Metadata::new(owner.public(), Some("fuzz"), cast::NOON, &mut entropy)
            .expect("a short label");
        let generation = GenerationKey::generate(1, &mut entropy);
        let writer = WriterKey::generate(Suite::Ed25519, &mut entropy);
        let principal = cast::service().principal();
        let changes = vec![
            Change::Certify(principal),
            Change::Codes {
                principal,
                codes: vec![bield_envelope::wire::encode(&cast::code())],
            },
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
            Change::Replica {
                principal: replica().principal(),
                address: "http://127.0.0.1:1".into(),
            },
            Change::Quorum {
                replicas: 1,
                witnesses: 0,
            },
        ];
        let (_, config) =
            Writer::owner(owner, &metadata, &changes, cast::NOON).expect("honest changes");
        let certificate = WriterCertificate {
            capsule: metadata.name(),
            writer: writer.id(),
            code: Some(bield_envelope::wire::encode(&cast::code())),
            simulated: true,
            not_before: cast::NOON,
            not_after: cast::NOON.plus(cast::HOUR),
        };
        let certificate = Signed::sign(&cast::service(), certificate).into_signed();
        let certificate = certificate.as_bytes().to_vec();
        let twin = || same(&writer);
        let make = |forked: bool| {
            let (mut chain, open) = Writer::open(
                twin(),
                &metadata,
                config.head(),
                Some(&certificate),
                cast::NOON,
            )
            .expect("an honest opening");
            let mut entropy = Seeded::new(22);
            let mut records = vec![config.clone(), open];
            for payload in PAYLOADS {
                let mut batch = Batch::new();
                batch.push(payload).expect("short");
                let record = chain.seal(&batch, &generation, &[], cast::NOON, &mut entropy);
                records.push(record.expect("an honest batch"));
            }
            let seen = Head {
                writer: WriterId::from(cast::digest("another writer")),
                seq: u64::from(forked),
                hash: cast::digest("its head"),
            };
            records.push(
                chain
                    .join(vec![seen], 1, cast::NOON)
                    .expect("an honest join"),
            );
            records.push(chain.close(cast::NOON).expect("an open chain"));
            records
        };
        let (records, mut others) = (make(false), make(true));
        let mut keys = KeyRing::new();
        keys.insert(generation).expect("a first key");
        others.pop();
        Self {
            other: others.pop().expect("a join"),
            metadata,
            writer,
            certificate,
            changes,
            keys,
            records,
        }
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(self.metadata.clone(), POLICY)
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Received> {
        self.records
            .iter()
            .filter(move |record| record.header().kind == kind)
    }
}

fn same(key: &WriterKey) -> WriterKey {
    let seed = Secret::from_bytes(*key.seed().expose());
    WriterKey::from_seed(key.suite(), seed).expect("the seed of a key")
}

/// The writer's chain, for paths.
struct Chain;

impl Headers for Chain {
    fn header(&self, seq: u64) -> Option<Header> {
        let record = CAST.records.get(usize::try_from(seq).ok()? + 1)?;
        Some(record.header().clone())
    }
}

pub(crate) mod seeds {
    use super::*;

    pub(crate) fn capsule_metadata() -> Vec<Vec<u8>> {
        Suite::ALL
            .map(|suite| {
                let key = PublicKey::from_bytes(suite, &vec![4; suite.public_key_bytes()]);
                let mut entropy = Seeded::new(3);
                let key = key.expect("of the right length");
                Metadata::new(&key, None, cast::NOON, &mut entropy)
                    .expect("no label")
                    .as_bytes()
                    .to_vec()
            })
            .into_iter()
            .chain([CAST.metadata.as_bytes().to_vec()])
            .collect()
    }

    pub(crate) fn capsule_record() -> Vec<Vec<u8>> {
        let records = CAST.records.iter().chain([&CAST.other]);
        records.map(|record| record.as_bytes().to_vec()).collect()
    }

    pub(crate) fn capsule_signed_head() -> Vec<Vec<u8>> {
        let records = CAST.records.iter().chain([&CAST.other]);
        records
            .map(|record| record.signed_head().as_bytes().to_vec())
            .collect()
    }

    pub(crate) fn capsule_changes() -> Vec<Vec<u8>> {
        let more = [
            Change::admit(CAST.writer.public()),
            Change::Revoke {
                writer: CAST.writer.id(),
                last: None,
            },
            Change::Revoke {
                writer: CAST.writer.id(),
                last: Some(CAST.records[0].head().into()),
            },
            Change::Erase(1),
            Change::Uncertify {
                principal: cast::service().principal(),
                keep: vec![CAST.writer.id()],
            },
            Change::Unreplica(replica().principal()),
            Change::Witness("w+00000000+AA==".into()),
            Change::Unwitness("w".into()),
            Change::Quota(1 << 30),
        ];
        vec![encode_changes(&CAST.changes), encode_changes(&more)]
    }

    pub(crate) fn capsule_opening() -> Vec<Vec<u8>> {
        let key = CAST.writer.public();
        vec![
            Opening::encode(key, None),
            Opening::encode(key, Some(&CAST.certificate)),
        ]
    }

    pub(crate) fn capsule_certificate() -> Vec<Vec<u8>> {
        vec![CAST.certificate.clone()]
    }

    pub(crate) fn acknowledgement() -> Signed<Acknowledgement> {
        let head = CAST.records[4].head();
        let word = Acknowledgement::of(CAST.metadata.name(), head, Kept::Synced, cast::NOON);
        Signed::sign(&replica(), word).into_signed()
    }

    pub(crate) fn capsule_acknowledgement() -> Vec<Vec<u8>> {
        vec![acknowledgement().as_bytes().to_vec()]
    }

    pub(crate) fn capsule_heads() -> Vec<Vec<u8>> {
        let name = CAST.metadata.name();
        let config = Some(CAST.records[0].head());
        let head = CAST.records[4].head();
        let before = WriterId::from_bytes([0; 32]);
        [
            HeadsStatement::page(name, [1; 16], cast::NOON, None, None, []),
            HeadsStatement::page(name, [2; 16], cast::NOON, config, Some(before), [head]),
        ]
        .map(|page| {
            Signed::sign(&replica(), page)
                .as_signed()
                .as_bytes()
                .to_vec()
        })
        .into()
    }

    pub(crate) fn capsule_proof() -> Vec<Vec<u8>> {
        let record = &CAST.records[4];
        let proof = |to: u64| {
            let head = record.signed_head();
            let way = path(head.header(), to, &Chain).expect("the chain is whole");
            let config = CAST.of_kind(Kind::Config).cloned().collect();
            let opening = CAST.of_kind(Kind::Open).next().cloned();
            Proof::new(CAST.metadata.clone(), config, opening, head, way)
        };
        let secret = record_secret(record, &CAST.keys).expect("the key is in the ring");
        let shown = proof(3)
            .show(record, secret, 0)
            .expect("the record has an entry")
            .acknowledged([acknowledgement()]);
        [proof(3), proof(1), shown]
            .map(|proof| proof.encode().to_vec())
            .into()
    }

    pub(crate) fn capsule_fork() -> Vec<Vec<u8>> {
        let known = CAST.of_kind(Kind::Join).next().expect("a join");
        let heads = (known.signed_head(), CAST.other.signed_head());
        ForkProof::new(&CAST.metadata, CAST.writer.public(), heads.0, heads.1)
            .into_iter()
            .map(|proof| proof.encode())
            .collect()
    }

    pub(crate) fn capsule_export() -> Vec<Vec<u8>> {
        let mut file = export_header(&CAST.metadata);
        for record in &CAST.records {
            export_record(record, &mut file);
        }
        vec![export_header(&CAST.metadata), file]
    }

    pub(crate) fn capsule_segment() -> Vec<Vec<u8>> {
        let header = SegmentHeader {
            capsule: *CAST.metadata.name().as_bytes(),
            segment: 0,
            first: 0,
            salt: *b"saltsalt",
        };
        let mut file = header.encode().to_vec();
        let mut offsets = Vec::new();
        for (ordinal, record) in (0..).zip(&CAST.records) {
            let durable = file.len() as u32;
            offsets.push(durable);
            file.extend_from_slice(&header.frame_head(ordinal, durable, record.as_bytes()));
            file.extend_from_slice(record.as_bytes());
        }
        let set_aside = [&file[..], &[0; 300]].concat();
        let sealed = [&file[..], &header.seal(&offsets, file.len() as u32)].concat();
        vec![header.encode().to_vec(), file, set_aside, sealed]
    }

    pub(crate) fn capsule_slice() -> Vec<Vec<u8>> {
        [Suite::Ed25519, Suite::P256]
            .map(|suite| slice(suite, &body(), &RANGES).expect("ranges of the body"))
            .into()
    }

    pub(crate) fn capsule_keyring() -> Vec<Vec<u8>> {
        vec![
            KeyRing::new().encode_secret().to_vec(),
            CAST.keys.encode_secret().to_vec(),
        ]
    }

    pub(crate) fn capsule_text() -> Vec<Vec<u8>> {
        let name = CAST.metadata.name().to_string().into_bytes();
        let digest = Digest::from_bytes([0xab; 32]).to_string().into_bytes();
        let levels = ["memory", "local-sync", "replicated(2)", "witnessed(2,1)"];
        levels
            .map(|level| level.as_bytes().to_vec())
            .into_iter()
            .chain([name, digest])
            .collect()
    }
}
