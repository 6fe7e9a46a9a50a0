//! Records, openings, config records and bodies (`spec/06 §3` to `§6`).

use bield_capsule::{
    Change, Clock, Head, Header, Kind, Last, Opening, PublicKey, Received, Suite,
    WriterCertificate, WriterId, WriterKey, encode_changes,
};
use bield_envelope::{Digest, Principal, Secret, SigningKey};

use super::make::{ALICE, BOB, Line, OWNER, SUITE, altered, cbor, patched, said, say, signed};
use super::{Bad, Group, Of};
use crate::cast::{CODE, Cast, WITNESS, at};

const CAROL: u8 = 0x14;
const DAVE: u8 = 0x15;
const CERTIFIER: u8 = 0x21;
const OTHER: Digest = Digest::from_bytes([0xee; 32]);

pub(super) fn groups(cast: &Cast) -> Vec<Group> {
    let mut groups = data(cast);
    groups.extend(kinds(cast));
    groups.extend(openings(cast));
    groups.extend(certifiers(cast));
    groups.extend(configs(cast));
    groups.extend(revocations(cast));
    groups.push(bodies(cast));
    groups
}

fn told(cast: &Cast, n: usize) -> &Received {
    &cast.told[n].record
}

pub(super) fn line(cast: &Cast, seed: u8, told: usize) -> Line {
    let records = cast.told[..told].iter().map(|told| &told.record);
    let of = key(seed).id();
    let records: Vec<_> = records
        .filter(|record| record.header().writer == of)
        .collect();
    Line::of(seed, &records)
}

fn key(seed: u8) -> WriterKey {
    WriterKey::from_seed(SUITE, Secret::from_bytes([seed; 32])).unwrap()
}

fn principal(seed: u8) -> Principal {
    SigningKey::from_seed(Secret::from_bytes([seed; 32])).principal()
}

/// Alice's second data record: one skip pointer, no parents.
fn data(cast: &Cast) -> Vec<Group> {
    let record = told(cast, 4);
    let with = |alter: fn(&mut Header)| altered(ALICE, record, alter);
    let patch = |at, bytes: &[u8]| patched(ALICE, record, at, bytes);
    let parent = |seed, seq| Head {
        writer: key(seed).id(),
        seq,
        hash: OTHER,
    };
    let parents = |parents: Vec<Head>| altered(ALICE, record, |header| header.parents = parents);
    let mut two = vec![parent(CAROL, 0), parent(DAVE, 0)];
    two.sort();
    two.reverse();
    let (chain, open) = (line(cast, ALICE, 4), told(cast, 1));
    let quota = encode_changes(&[Change::Quota(1)]);
    let bytes = record.as_bytes();
    let mut other_body = bytes.to_vec();
    *other_body.last_mut().unwrap() ^= 1;
    let fields = vec![
        ("magic", "§3", patch(0, b"bldR")),
        ("version", "§3", patch(4, &[2])),
        ("suite unknown", "§3", patch(5, &[4])),
        ("suite of another capsule", "§3", patch(5, &[2])),
        ("kind unknown", "§3", patch(6, &[6])),
        ("skip pointer missing", "§3", with(|h| h.skips.clear())),
        (
            "skip pointer too many",
            "§3",
            with(|h| h.skips.push(h.prev)),
        ),
        ("skip pointer wrong", "§3", with(|h| h.skips[0] = OTHER)),
        ("capsule", "§3", patch(8, &[0])),
        (
            "writer without a chain",
            "§3",
            altered(DAVE, record, |h| h.writer = key(DAVE).id()),
        ),
        (
            "seq ahead",
            "§3",
            with(|h| {
                h.seq = 3;
                h.skips.clear();
            }),
        ),
        ("prev wrong", "§3", with(|h| h.prev = OTHER)),
        (
            "prev zero",
            "§3",
            with(|h| h.prev = Digest::from_bytes([0; 32])),
        ),
        (
            "clock backwards",
            "§3",
            with(|h| h.clock = Clock::at(at(3))),
        ),
        ("config not here", "§5", with(|h| h.config = 1)),
        (
            "data in clear",
            "§3",
            with(|h| (h.generation, h.salt, h.commitment) = (0, [0; 16], [0; 32])),
        ),
        (
            "generation not the newest",
            "§5",
            with(|h| h.generation = 2),
        ),
        ("no entries", "§3", with(|h| h.count = 0)),
        (
            "body too short for its entries",
            "§3",
            with(|h| h.count = 13),
        ),
        ("body length less", "§3", with(|h| h.body_bytes -= 1)),
        ("body length more", "§3", with(|h| h.body_bytes += 1)),
        ("reserved bytes", "§3", patch(118, &[0, 1])),
        ("root wrong", "§3", with(|h| h.root = OTHER)),
        ("body altered", "§3", other_body),
        ("parents descend", "§3", parents(two)),
        (
            "parent twice",
            "§3",
            parents(vec![parent(DAVE, 0), parent(DAVE, 1)]),
        ),
        (
            "parent is its own writer",
            "§3",
            parents(vec![parent(ALICE, 1)]),
        ),
        ("signed by another", "§3", altered(BOB, record, |_| ())),
        ("byte too many", "§3", [bytes, &[0]].concat()),
        ("cut off", "§3", bytes[..bytes.len() - 1].to_vec()),
        (
            "kind of the owner's",
            "§3",
            chain.make(Kind::Config, &quota, |h| h.count = 1),
        ),
        (
            "second open",
            "§3",
            chain.make(Kind::Open, open.body(), |h| {
                h.parents = open.header().parents.clone()
            }),
        ),
        ("here already", "§12", told(cast, 3).as_bytes().to_vec()),
    ];
    // In epoch 1, and after config 2; no skip pointer is needed at seq 7.
    let later = told(cast, 12);
    let later_with = |alter: fn(&mut Header)| altered(ALICE, later, alter);
    let backwards = vec![
        ("epoch backwards", "§3", later_with(|h| h.epoch = 0)),
        (
            "config backwards",
            "§3",
            later_with(|h| (h.config, h.generation) = (1, 1)),
        ),
    ];
    vec![
        Group::new(Of::Record, 4, bytes.to_vec(), fields),
        Group::new(Of::Record, 12, later.as_bytes().to_vec(), backwards),
    ]
}

/// Join, close, what follows a close, and a second record for one place.
fn kinds(cast: &Cast) -> Vec<Group> {
    let (join, close) = (told(cast, 10), told(cast, 15));
    let alice = line(cast, ALICE, 15);
    let joins = vec![
        (
            "join without parents",
            "§3",
            altered(ALICE, join, |h| h.parents.clear()),
        ),
        (
            "join with entries",
            "§3",
            altered(ALICE, join, |h| h.count = 1),
        ),
        (
            "join under a generation",
            "§3",
            altered(ALICE, join, |h| h.generation = 2),
        ),
        (
            "join with a salt",
            "§3",
            altered(ALICE, join, |h| h.salt[0] = 1),
        ),
        (
            "join with a commitment",
            "§3",
            altered(ALICE, join, |h| h.commitment[0] = 1),
        ),
        (
            "join with a root",
            "§3",
            altered(ALICE, join, |h| h.root = OTHER),
        ),
        ("join with a body", "§3", {
            let mut header = join.header().clone();
            (header.body_bytes, header.root) = (1, SUITE.root(b"x"));
            signed(ALICE, &header.encode(), b"x")
        }),
    ];
    let parent = join.header().parents[0];
    let closes = vec![
        (
            "close with a parent",
            "§3",
            altered(ALICE, close, |h| h.parents.push(parent)),
        ),
        (
            "close with a body",
            "§3",
            alice.make(Kind::Close, b"x", |_| ()),
        ),
    ];
    let bob = line(cast, BOB, 16);
    let after = line(cast, ALICE, 16).make(Kind::Close, &[], |_| ());
    let second = cast.forked.as_bytes().to_vec();
    let next = line(cast, BOB, 17).make(Kind::Close, &[], |_| ());
    vec![
        Group::new(Of::Record, 10, join.as_bytes().to_vec(), joins),
        Group::new(Of::Record, 15, close.as_bytes().to_vec(), closes),
        Group::new(
            Of::Record,
            16,
            bob.make(Kind::Close, &[], |_| ()),
            vec![("after a close", "§3", after)],
        ),
        Group::new(
            Of::Record,
            17,
            next,
            vec![("a second story", "§10", second)],
        ),
    ]
}

fn certificate(cast: &Cast, seed: u8) -> WriterCertificate {
    WriterCertificate {
        capsule: cast.name(),
        writer: key(seed).id(),
        code: Some(CODE.to_vec()),
        simulated: true,
        not_before: at(0),
        not_after: at(1000),
    }
}

/// The open record of the holder of `seed` with this body, under config 0.
fn opened(cast: &Cast, seed: u8, body: &[u8], alter: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = told(cast, 1).header().clone();
    header.writer = key(seed).id();
    (header.body_bytes, header.root) = (body.len() as u32, SUITE.root(body));
    alter(&mut header);
    signed(seed, &header.encode(), body)
}

fn openings(cast: &Cast) -> Vec<Group> {
    let record = told(cast, 1);
    let with = |alter: fn(&mut Header)| altered(ALICE, record, alter);
    let body = |body: Vec<u8>| opened(cast, ALICE, &body, |_| ());
    let public = key(ALICE).public().clone();
    let signed_by = |signer: u8, alter: fn(&mut WriterCertificate)| {
        let mut said = certificate(cast, ALICE);
        alter(&mut said);
        body(Opening::encode(&public, Some(&say(signer, &said))))
    };
    let granted = |alter| signed_by(CERTIFIER, alter);
    let mut flipped = say(CERTIFIER, &certificate(cast, ALICE));
    *flipped.last_mut().unwrap() ^= 1;
    let key_only = |key: &[u8]| cbor(|e| e.map(1)?.u8(0)?.bytes(key)?.ok());
    let bad: Vec<Bad> = vec![
        ("parent is not config", "§3", with(|h| h.config = 1)),
        (
            "parent is another config record",
            "§3",
            with(|h| h.parents[0].hash = OTHER),
        ),
        (
            "parent is not the owner's",
            "§3",
            with(|h| h.parents[0].writer = key(BOB).id()),
        ),
        ("open without a parent", "§3", with(|h| h.parents.clear())),
        (
            "open with two parents",
            "§3",
            with(|h| {
                h.parents.push(Head {
                    writer: WriterId::from_bytes([0xff; 32]),
                    seq: 0,
                    hash: OTHER,
                });
            }),
        ),
        ("open with a count", "§3", with(|h| h.count = 1)),
        ("open with a predecessor", "§3", with(|h| h.prev = OTHER)),
        (
            "another's key",
            "§6",
            body(Opening::encode(key(DAVE).public(), None)),
        ),
        ("key of another size", "§6", body(key_only(&[4; 31]))),
        (
            "opening without a key",
            "§6",
            body(cbor(|e| e.map(0)?.ok())),
        ),
        (
            "opening with an unknown key",
            "§6",
            body(cbor(|e| {
                e.map(2)?
                    .u8(0)?
                    .bytes(public.as_bytes())?
                    .u8(2)?
                    .u8(0)?
                    .ok()
            })),
        ),
        (
            "opening is not the shortest CBOR",
            "§6",
            body({
                let mut long = vec![0xb8, 1];
                long.extend_from_slice(&key_only(public.as_bytes())[1..]);
                long
            }),
        ),
        ("no certificate", "§5", body(Opening::encode(&public, None))),
        ("certificate by a stranger", "§5", signed_by(DAVE, |_| ())),
        (
            "certificate for another capsule",
            "§6",
            granted(|c| {
                c.capsule = bield_capsule::CapsuleName::from_bytes([1; 32]);
            }),
        ),
        (
            "certificate for another writer",
            "§6",
            granted(|c| c.writer = key(DAVE).id()),
        ),
        (
            "certificate before its time",
            "§6",
            granted(|c| c.not_before = at(3)),
        ),
        (
            "certificate after its time",
            "§6",
            granted(|c| c.not_after = at(2)),
        ),
        (
            "certificate of no time",
            "§6",
            granted(|c| c.not_after = c.not_before),
        ),
        (
            "code too long",
            "§6",
            granted(|c| c.code = Some(vec![1; 129])),
        ),
        (
            "certificate altered",
            "§6",
            body(Opening::encode(&public, Some(&flipped))),
        ),
        ("certificate of another domain", "§6", {
            let payload = bield_envelope::wire::encode(&certificate(cast, ALICE));
            let signed = said::<bield_capsule::Acknowledgement>(CERTIFIER, &payload);
            body(Opening::encode(&public, Some(&signed)))
        }),
    ];
    let mut hardware = certificate(cast, ALICE);
    hardware.simulated = false;
    let hardware = body(Opening::encode(&public, Some(&say(CERTIFIER, &hardware))));
    let simulated = record.as_bytes().to_vec();
    let mut strict = Group::new(
        Of::Record,
        1,
        hardware,
        vec![("simulated", "§6", simulated)],
    );
    strict.simulated = false;
    // Bob's key is admitted: nothing in his certificate binds him, but it must be his.
    let granted = |seed, simulated| {
        let mut said = certificate(cast, seed);
        (said.simulated, said.not_before, said.not_after) = (simulated, at(500), at(501));
        opened(
            cast,
            BOB,
            &Opening::encode(key(BOB).public(), Some(&say(DAVE, &said))),
            |_| (),
        )
    };
    let another = granted(ALICE, false);
    let mut by_key = Group::new(
        Of::Record,
        1,
        granted(BOB, true),
        vec![(
            "another's certificate beside an admitted key",
            "§6",
            another,
        )],
    );
    by_key.simulated = false;
    vec![
        Group::new(Of::Record, 1, record.as_bytes().to_vec(), bad),
        strict,
        by_key,
    ]
}

/// What `codes` and `uncertify` let open, and what not.
fn certifiers(cast: &Cast) -> Vec<Group> {
    let open = |seed, code: Option<&[u8]>| {
        let mut said = certificate(cast, seed);
        said.code = code.map(<[u8]>::to_vec);
        opened(
            cast,
            seed,
            &Opening::encode(key(seed).public(), Some(&say(CERTIFIER, &said))),
            |_| (),
        )
    };
    let other = [&CODE[..35], &[0xc1]].concat();
    let owner = line(cast, OWNER, 9);
    let uncertify = encode_changes(&[Change::Uncertify {
        principal: principal(CERTIFIER),
        keep: vec![key(CAROL).id()],
    }]);
    let uncertify = owner.config(1, &uncertify);
    let again = |changes: &[Change]| {
        let mut owner = line(cast, OWNER, 9);
        let head = Received::decode(uncertify.clone()).unwrap();
        owner.hashes.push(head.hash());
        owner.config(changes.len() as u32, &encode_changes(changes))
    };
    let certifier = principal(CERTIFIER);
    vec![
        Group::new(
            Of::Record,
            9,
            open(CAROL, Some(&CODE)),
            vec![
                ("code that does not count", "§5", open(CAROL, Some(&other))),
                ("no code where codes count", "§5", open(CAROL, None)),
            ],
        ),
        Group::new(
            Of::Record,
            9,
            open(CAROL, Some(&CODE)),
            vec![
                (
                    "certifier that counts no more",
                    "§5",
                    open(DAVE, Some(&CODE)),
                ),
                ("codes bind who is kept", "§5", open(CAROL, Some(&other))),
            ],
        )
        .before(vec![uncertify.clone()]),
        Group::new(
            Of::Record,
            9,
            again(&[Change::Certify(principal(DAVE))]),
            vec![
                (
                    "certify who was uncertified",
                    "§5",
                    again(&[Change::Certify(certifier)]),
                ),
                (
                    "codes for who was uncertified",
                    "§5",
                    again(&[Change::Codes {
                        principal: certifier,
                        codes: vec![CODE.to_vec()],
                    }]),
                ),
            ],
        )
        .before(vec![uncertify]),
    ]
}

fn configs(cast: &Cast) -> Vec<Group> {
    let good = told(cast, 17);
    let owner = line(cast, OWNER, 17);
    let one = |change: Change| owner.config(1, &encode_changes(&[change]));
    let raw = |count, body: &str| owner.config(count, &hex::decode(body).unwrap());
    let replica = |seed, address: String| Change::Replica {
        principal: principal(seed),
        address,
    };
    let codes = |codes: &[&[u8]]| Change::Codes {
        principal: principal(CERTIFIER),
        codes: codes.iter().map(|code| code.to_vec()).collect(),
    };
    let keep = |keep: Vec<WriterId>| Change::Uncertify {
        principal: principal(CERTIFIER),
        keep,
    };
    let generation = |number| Change::Generation {
        number,
        commitment: OTHER,
    };
    let witness = |text: &str| one(Change::Witness(text.to_owned()));
    let revoke = |writer| Change::Revoke { writer, last: None };
    let public: &PublicKey = cast.owner.public();
    let (low, high) = (WriterId::from_bytes([1; 32]), WriterId::from_bytes([2; 32]));
    // Of name w2, whose hash is another's.
    let other = WITNESS.replace("/w1", "/w2");
    let quota = encode_changes(&[Change::Quota(1)]);
    let bad: Vec<Bad> = vec![
        ("no changes", "§5", raw(1, "80")),
        (
            "257 changes",
            "§5",
            owner.config(257, &encode_changes(&vec![Change::Quota(1); 257])),
        ),
        (
            "count is not that of the changes",
            "§3",
            owner.config(2, &quota),
        ),
        ("unknown change", "§5", raw(1, "81820d8101")),
        ("change without its field", "§5", raw(1, "81820b80")),
        ("change with a field too many", "§5", raw(1, "81820b820101")),
        (
            "null left out",
            "§5",
            raw(
                1,
                &format!("81820381{}", "5820".to_owned() + &"07".repeat(32)),
            ),
        ),
        ("number is not the shortest", "§5", raw(1, "81820b811801")),
        ("byte behind the changes", "§5", raw(1, "81820b810100")),
        (
            "config is not its own seq",
            "§3",
            owner.make(Kind::Config, &quota, |h| (h.count, h.config) = (1, 2)),
        ),
        (
            "config with a parent",
            "§3",
            owner.make(Kind::Config, &quota, |h| {
                (h.count, h.parents) = (
                    1,
                    vec![Head {
                        writer: low,
                        seq: 0,
                        hash: OTHER,
                    }],
                );
            }),
        ),
        (
            "join in the owner's chain",
            "§3",
            owner.make(Kind::Join, &[], |h| {
                h.parents = vec![Head {
                    writer: low,
                    seq: 0,
                    hash: OTHER,
                }];
            }),
        ),
        (
            "certify who is",
            "§5",
            one(Change::Certify(principal(CERTIFIER))),
        ),
        (
            "uncertify who is not",
            "§5",
            one(Change::Uncertify {
                principal: principal(DAVE),
                keep: vec![],
            }),
        ),
        ("keep descends", "§5", one(keep(vec![high, low]))),
        ("keep twice", "§5", one(keep(vec![low, low]))),
        (
            "codes for who is not certified",
            "§5",
            one(Change::Codes {
                principal: principal(DAVE),
                codes: vec![CODE.to_vec()],
            }),
        ),
        ("codes: none", "§5", one(codes(&[]))),
        ("codes descend", "§5", one(codes(&[&[2], &[1]]))),
        ("codes: one too long", "§5", one(codes(&[&[1; 129]]))),
        ("admit who is", "§5", one(Change::admit(key(BOB).public()))),
        ("admit the owner", "§5", one(Change::admit(public))),
        ("admit no key", "§5", one(Change::Admit(vec![1; 31]))),
        ("revoke the owner", "§5", one(revoke(key(OWNER).id()))),
        ("generation skipped", "§5", one(generation(4))),
        ("generation again", "§5", one(generation(2))),
        ("erase what is not", "§5", one(Change::Erase(3))),
        ("erase generation 0", "§5", one(Change::Erase(0))),
        (
            "replica that is one",
            "§5",
            one(replica(0x31, String::new())),
        ),
        (
            "address too long",
            "§5",
            one(replica(DAVE, "a".repeat(257))),
        ),
        (
            "unreplica that is none",
            "§5",
            one(Change::Unreplica(principal(DAVE))),
        ),
        (
            "quorum of none",
            "§5",
            one(Change::Quorum {
                replicas: 0,
                witnesses: 0,
            }),
        ),
        (
            "witness whose name is one",
            "§5",
            witness(OTHER_OF_THE_NAME),
        ),
        ("witness with another's hash", "§5", witness(&other)),
        (
            "witness in capitals",
            "§5",
            witness(&TWO.replace("93ce2b5e", "93CE2B5E")),
        ),
        ("witness of 31 bytes", "§5", witness(KEY_OF_31)),
        ("witness that is a log", "§5", witness(LOG_KEY)),
        (
            "unwitness that is none",
            "§5",
            one(Change::Unwitness("w".into())),
        ),
    ];
    let lawful: Vec<Change> = vec![
        Change::Certify(principal(DAVE)),
        codes(&[&[1], &[2; 128]]),
        keep(vec![low, high]),
        Change::admit(key(DAVE).public()),
        revoke(low),
    ];
    let more = [
        generation(3),
        Change::Erase(3),
        replica(DAVE, String::new()),
        Change::Witness(TWO.to_owned()),
        Change::Unwitness("witness.example/w1".to_owned()),
        Change::Quorum {
            replicas: 255,
            witnesses: 255,
        },
    ];
    let lawful = [&lawful[..], &more].concat();
    let body = encode_changes(&lawful);
    vec![
        Group::new(Of::Record, 17, good.as_bytes().to_vec(), bad),
        // The lawful changes that are nearest to the refused ones.
        Group::new(
            Of::Record,
            17,
            owner.config(lawful.len() as u32, &body),
            vec![("a change after its like", "§5", {
                let twice = [&lawful[..], &[Change::Erase(3)]].concat();
                owner.config(twice.len() as u32, &encode_changes(&twice))
            })],
        ),
    ]
}

/// Seed 0x42…42, once under the name of the cast's witness and once under its own.
const OTHER_OF_THE_NAME: &str =
    "witness.example/w1+f1ed8c47+BCFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgdsS";
const TWO: &str = "witness.example/w2+93ce2b5e+BCFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgdsS";
/// The type byte and 31 bytes, with their hash.
const KEY_OF_31: &str = "witness.example/w2+f1eba4bf+BCFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgds=";
/// Type 1: the key of a log, not of a witness.
const LOG_KEY: &str = "witness.example/w2+ee7494ef+ASFS+NGbeR0kRTJC4V8uq2y3z/p7al7TAJeWDgaYgdsS";

/// After bob is cut at 1.
fn revocations(cast: &Cast) -> Vec<Group> {
    let bob = key(BOB).id();
    let owner = line(cast, OWNER, 18);
    let one = |change: Change| owner.config(1, &encode_changes(&[change]));
    let revoke = |seq: u64| {
        let hash = told(cast, 2).hash();
        let last = Some(Last { seq, hash });
        one(Change::Revoke { writer: bob, last })
    };
    let cut = told(cast, 17).as_bytes().to_vec();
    let without = line(cast, ALICE, 15);
    vec![
        Group::new(
            Of::Record,
            18,
            revoke(0),
            vec![
                ("revoke again, as strictly", "§5", revoke(1)),
                ("revoke again, less strictly", "§5", revoke(2)),
                (
                    "admit who is revoked",
                    "§5",
                    one(Change::admit(key(BOB).public())),
                ),
                ("erase again", "§5", one(Change::Erase(1))),
                (
                    "unreplica again",
                    "§5",
                    one(Change::Unreplica(principal(0x33))),
                ),
            ],
        ),
        // Bob's record names config 0, from before the cut, and arrives after it.
        Group::new(
            Of::Record,
            15,
            without.make(Kind::Close, &[], |_| ()),
            vec![(
                "beyond a revocation",
                "§5",
                told(cast, 16).as_bytes().to_vec(),
            )],
        )
        .before(vec![cut]),
    ]
}

/// Bodies whose records verify.
fn bodies(cast: &Cast) -> Group {
    let alice = line(cast, ALICE, 11);
    let sealed = |count, plaintext: &[u8]| alice.sealed(2, count, plaintext);
    let layout = |entries: &[u8], ends: &[u32]| {
        let ends = ends.iter().flat_map(|end| end.to_be_bytes());
        let plaintext: Vec<u8> = entries.iter().copied().chain(ends).collect();
        sealed(2, &plaintext)
    };
    let reseal = |alter: fn(&mut Header, &mut Vec<u8>)| {
        let (mut header, mut body) = alice.seal(2, 1, b"\0one\0\0\0\x04");
        alter(&mut header, &mut body);
        header.root = Suite::Ed25519.root(&body);
        signed(ALICE, &header.encode(), &body)
    };
    let bad = vec![
        ("ends decrease", "§4", layout(b"\0a\0b", &[5, 4])),
        (
            "bytes behind the last entry",
            "§4",
            layout(b"\0a\0b", &[2, 3]),
        ),
        (
            "last end beyond the entries",
            "§4",
            layout(b"\0a\0b", &[2, 5]),
        ),
        ("entry without a form", "§4", layout(b"\0a\0b", &[4, 4])),
        ("form unknown", "§4", layout(b"\0a\x02b", &[2, 4])),
        (
            "erasable entry too short",
            "§4",
            layout(&[&b"\0a\x01"[..], &[0; 47]].concat(), &[2, 50]),
        ),
        (
            "commitment of another key",
            "§4",
            reseal(|header, _| header.commitment[0] ^= 1),
        ),
        (
            "tag altered",
            "§4",
            reseal(|_, body| *body.last_mut().unwrap() ^= 1),
        ),
        (
            "salt of another record",
            "§4",
            reseal(|header, _| header.salt[0] ^= 1),
        ),
    ];
    let good = layout(&[&b"\0a\x01"[..], &[0; 48]].concat(), &[2, 51]);
    Group::new(Of::Body, 11, good, bad)
}
