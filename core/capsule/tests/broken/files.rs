//! Metadata, proofs, forks, what replicas say, exports (`spec/06 §2, §7` to `§10`, `§12`).

use bield_capsule::{
    Acknowledgement, Change, Clock, Header, HeadsStatement, Kept, Kind, Received, SignedHead,
    encode_changes,
};
use bield_envelope::{Digest, wire};

use super::make::{
    ALICE, BOB, OWNER, Parts, SUITE, Shown, altered, cbor, export, fork, said, say, signed,
};
use super::records::line;
use super::{Bad, Group, Of};
use crate::cast::{Cast, at};

const OTHER: Digest = Digest::from_bytes([0xee; 32]);
const REPLICAS: [u8; 2] = [0x31, 0x32];
const STRANGER: u8 = 0x77;

pub(super) fn groups(cast: &Cast) -> Vec<Group> {
    let mut groups = vec![metadata(cast)];
    groups.extend(proofs(cast));
    groups.extend(paths(cast));
    groups.push(forks(cast));
    groups.push(acknowledgements(cast));
    groups.push(heads(cast));
    groups.extend(exports(cast));
    groups
}

fn told(cast: &Cast, n: usize) -> &Received {
    &cast.told[n].record
}

fn metadata(cast: &Cast) -> Group {
    let public = cast.owner.public().as_bytes();
    let with = |version: u8, suite: u8, owner: &[u8], nonce: &[u8], label: &str| {
        cbor(|e| {
            e.map(6)?
                .u8(0)?
                .u8(version)?
                .u8(1)?
                .u8(suite)?
                .u8(2)?
                .bytes(owner)?;
            e.u8(3)?
                .u64(1)?
                .u8(4)?
                .bytes(nonce)?
                .u8(5)?
                .str(label)?
                .ok()
        })
    };
    let mut unknown = with(1, 1, public, &[0; 16], "a");
    unknown[0] += 1;
    unknown.extend_from_slice(&[6, 0]);
    let mut twice = with(1, 1, public, &[0; 16], "a");
    twice[0] += 1;
    twice.extend_from_slice(&[5, 0x61, b'a']);
    let bad = vec![
        ("metadata: version", "§2", with(2, 1, public, &[0; 16], "a")),
        ("metadata: suite", "§2", with(1, 4, public, &[0; 16], "a")),
        (
            "metadata: suite of another key",
            "§2",
            with(1, 2, public, &[0; 16], "a"),
        ),
        (
            "metadata: owner",
            "§2",
            with(1, 1, &public[1..], &[0; 16], "a"),
        ),
        ("metadata: nonce", "§2", with(1, 1, public, &[0; 15], "a")),
        (
            "metadata: label too long",
            "§2",
            with(1, 1, public, &[0; 16], &"a".repeat(65)),
        ),
        ("metadata: unknown key", "§2", unknown),
        ("metadata: key twice", "§2", twice),
    ];
    Group::file(
        Of::Metadata,
        with(1, 1, public, &[0; 16], &"a".repeat(64)),
        bad,
    )
}

fn head_of(record: &[u8]) -> Vec<u8> {
    Received::decode(record.to_vec())
        .unwrap()
        .signed_head()
        .as_bytes()
        .to_vec()
}

fn word(cast: &Cast, seed: u8, head: bield_capsule::Head) -> Vec<u8> {
    say(
        seed,
        &Acknowledgement::of(cast.name(), head, Kept::Synced, at(20)),
    )
}

/// Bob's first data record, its entry, and two replicas' words.
fn parts(cast: &Cast) -> Parts {
    let record = told(cast, 5);
    let mut words = REPLICAS.map(|seed| (principal(seed), word(cast, seed, record.head())));
    words.sort();
    Parts {
        metadata: cast.metadata.as_bytes().to_vec(),
        config: vec![told(cast, 0).as_bytes().to_vec()],
        opening: Some(told(cast, 2).as_bytes().to_vec()),
        head: record.signed_head().as_bytes().to_vec(),
        path: Vec::new(),
        entry: Some((
            0,
            *cast.secret(record).expose(),
            record.body().to_vec(),
            0,
            9,
        )),
        words: words.map(|(_, word)| word).to_vec(),
    }
}

fn principal(seed: u8) -> bield_envelope::Principal {
    let seed = bield_envelope::Secret::from_bytes([seed; 32]);
    bield_envelope::SigningKey::from_seed(seed).principal()
}

fn proofs(cast: &Cast) -> Vec<Group> {
    let good = parts(cast);
    let with = |alter: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        alter(&mut parts);
        if parts.words == good.words {
            parts.words.clear(); // they are in the good one
        }
        parts.encode()
    };
    let entry = |alter: fn(&mut Shown)| with(&|parts| alter(parts.entry.as_mut().unwrap()));
    let bob = told(cast, 2).as_bytes().to_vec();
    let cut = line(cast, OWNER, 1).config(
        1,
        &encode_changes(&[Change::Revoke {
            writer: cast.bob.id(),
            last: Some(told(cast, 2).head().into()),
        }]),
    );
    let mut flipped = good.head.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let other_head = told(cast, 2).head();
    let bad: Vec<Bad> = vec![
        (
            "proof without config records",
            "§5",
            with(&|p| p.config.clear()),
        ),
        (
            "proof with config records from 1",
            "§3",
            with(&|p| p.config = vec![cut.clone()]),
        ),
        (
            "proof with another record among config",
            "§7",
            with(&|p| p.config.push(bob.clone())),
        ),
        (
            "proof without the opening",
            "§7",
            with(&|p| p.opening = None),
        ),
        (
            "proof with another's opening",
            "§7",
            with(&|p| p.opening = Some(told(cast, 1).as_bytes().to_vec())),
        ),
        (
            "proof whose opening is another kind",
            "§3",
            with(&|p| p.opening = Some(told(cast, 5).as_bytes().to_vec())),
        ),
        (
            "head's signature",
            "§3",
            with(&|p| p.head = flipped.clone()),
        ),
        (
            "head with a body",
            "§7",
            with(&|p| p.head = told(cast, 5).as_bytes().to_vec()),
        ),
        (
            "head beyond a revocation",
            "§5",
            with(&|p| p.config.push(cut.clone())),
        ),
        ("entry with another secret", "§7", entry(|e| e.1[0] ^= 1)),
        ("entry that is not there", "§7", entry(|e| e.0 = 1)),
        ("entry that starts later", "§7", entry(|e| e.3 = 1)),
        ("entry that ends earlier", "§7", entry(|e| e.4 = 8)),
        ("entry beyond the entries", "§7", entry(|e| e.4 = 10)),
        ("empty entry", "§7", entry(|e| e.4 = 0)),
        ("slice altered", "§7", entry(|e| e.2[0] ^= 1)),
        ("slice with a byte too many", "§7", entry(|e| e.2.push(0))),
        (
            "acknowledgements descend",
            "§7",
            with(&|p| p.words.reverse()),
        ),
        (
            "acknowledgement twice",
            "§7",
            with(&|p| p.words[1] = p.words[0].clone()),
        ),
        (
            "acknowledgement by a stranger",
            "§7",
            with(&|p| p.words = vec![word(cast, STRANGER, told(cast, 5).head())]),
        ),
        (
            "acknowledgement of another head",
            "§8",
            with(&|p| p.words = vec![word(cast, 0x31, other_head)]),
        ),
    ];
    vec![Group::file(Of::Proof, good.encode().to_vec(), bad)]
}

/// What headers of one chain owe each other.
fn paths(cast: &Cast) -> Vec<Group> {
    let bare = Parts {
        entry: None,
        words: Vec::new(),
        ..parts(cast)
    };
    let bob = line(cast, BOB, 16);
    let step = told(cast, 5).header_bytes().to_vec();
    let proof = |head: &[u8], path: &[&[u8]], config: &[&[u8]]| {
        Parts {
            head: head_of(head),
            path: path.iter().map(|header| header.to_vec()).collect(),
            config: config.iter().map(|record| record.to_vec()).collect(),
            ..bare.clone()
        }
        .encode()
    };
    let first = told(cast, 0).as_bytes();
    let second = line(cast, OWNER, 1).config(1, &encode_changes(&[Change::Quota(1)]));
    let close = |alter: fn(&mut Header)| bob.make(Kind::Close, &[], alter);
    // A record between, which says more than the head above it.
    let between = |kind, alter: fn(&mut Header)| {
        let parent = told(cast, 0).head();
        let middle = bob.make(kind, &[], |header| {
            if kind == Kind::Join {
                header.parents = vec![parent];
            }
            alter(header);
        });
        let middle = Received::decode(middle).unwrap();
        let mut line = line(cast, BOB, 16);
        line.hashes.push(middle.hash());
        let head = line.make(Kind::Close, &[], |_| ());
        proof(&head, &[middle.header_bytes()], &[first, &second])
    };
    let only_open = line(cast, BOB, 5);
    let below = |alter: fn(&mut Header)| {
        proof(
            &only_open.make(Kind::Close, &[], alter),
            &[],
            &[first, &second],
        )
    };
    let (other, _) = only_open.seal(2, 1, b"\0\0\0\0\x01");
    let other = signed(BOB, &other.encode(), &[]);
    let other = Parts {
        head: other,
        ..bare.clone()
    };
    let not_the_opening = {
        let another = altered(BOB, told(cast, 2), |header| header.epoch = 0x10);
        let another = Received::decode(another).unwrap();
        let mut line = line(cast, BOB, 5);
        line.hashes = vec![another.hash()];
        let head = line.make(Kind::Close, &[], |header| header.epoch = 0x10);
        proof(&head, &[another.header_bytes()], &[first])
    };
    let alice = |millis: u64| {
        let record = line(cast, ALICE, 4).make(Kind::Close, &[], |header| {
            header.clock = Clock::at(bield_envelope::Time::from_millis(millis));
        });
        Parts {
            opening: Some(told(cast, 1).as_bytes().to_vec()),
            head: head_of(&record),
            ..bare.clone()
        }
        .encode()
    };
    let end = at(1000).as_millis();
    let altered_step = altered(BOB, told(cast, 5), |header| header.epoch = 0);
    let mut wrong = altered_step[..step.len()].to_vec();
    wrong[199] ^= 1;
    let good = proof(&close(|_| ()), &[&step], &[first]);
    let bad: Vec<Bad> = vec![
        (
            "path: not the header that is named",
            "§7",
            proof(&close(|_| ()), &[&wrong], &[first]),
        ),
        (
            "path: another's header",
            "§7",
            proof(&close(|_| ()), &[told(cast, 3).header_bytes()], &[first]),
        ),
        (
            "path: clock increases",
            "§3",
            proof(&close(|h| h.clock = Clock::at(at(5))), &[&step], &[first]),
        ),
        (
            "path: epoch increases",
            "§3",
            between(Kind::Join, |h| h.epoch = 1),
        ),
        (
            "path: config increases",
            "§3",
            between(Kind::Join, |h| h.config = 1),
        ),
        ("path: close within", "§3", between(Kind::Close, |_| ())),
        (
            "head names config that is not there",
            "§5",
            proof(&close(|h| h.config = 1), &[&step], &[first]),
        ),
        (
            "head's clock below the opening's",
            "§3",
            below(|h| h.clock = Clock::at(at(2))),
        ),
        ("head under another generation", "§5", other.encode()),
        ("target at 0 is not the opening", "§7", not_the_opening),
    ];
    vec![
        Group::file(Of::Proof, good, bad),
        Group::file(
            Of::Proof,
            alice(end - 1),
            vec![("head outside of its certificate", "§6", alice(end))],
        ),
    ]
}

fn forks(cast: &Cast) -> Group {
    let (metadata, key) = (cast.metadata.as_bytes(), cast.bob.public().as_bytes());
    let one = told(cast, 16);
    let mut both = [one.signed_head(), cast.forked.signed_head()];
    both.sort_by_key(|head| head.head().hash);
    let [first, second] = both.each_ref().map(SignedHead::as_bytes);
    let ordered = |mut heads: [Vec<u8>; 2]| {
        let hash = |head: &[u8]| SUITE.hash("bield capsule header v1", &[&head[..head.len() - 64]]);
        heads.sort_by_key(|head| hash(head));
        fork(metadata, key, &heads[0], &heads[1])
    };
    let mut flipped = second.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    // A header that breaks a rule by itself, well signed, beside one that does not.
    let header = |alter: &dyn Fn(&mut Header)| {
        let mut header = one.header().clone();
        alter(&mut header);
        ordered([
            one.signed_head().as_bytes().to_vec(),
            signed(BOB, &header.encode(), &[]),
        ])
    };
    let earlier = told(cast, 5).signed_head().as_bytes().to_vec();
    let bad = vec![
        (
            "fork: larger hash first",
            "§10",
            fork(metadata, key, second, first),
        ),
        (
            "fork: one head twice",
            "§10",
            fork(metadata, key, first, first),
        ),
        (
            "fork: of different places",
            "§10",
            ordered([first.to_vec(), earlier]),
        ),
        (
            "fork: another's key",
            "§10",
            fork(metadata, cast.alice.public().as_bytes(), first, second),
        ),
        (
            "fork: not signed",
            "§3",
            fork(metadata, key, first, &flipped),
        ),
        (
            "fork: too many entries",
            "§3",
            header(&|h| (h.count, h.body_bytes) = (65_536, 1 << 20)),
        ),
        (
            "fork: body too long",
            "§3",
            header(&|h| h.body_bytes = (1 << 20) + 1),
        ),
        ("fork: too many parents", "§3", {
            let mut header = one.header_bytes().to_vec();
            header[116..118].copy_from_slice(&1025u16.to_be_bytes());
            ordered([first.to_vec(), signed(BOB, &header, &[])])
        }),
        (
            "fork: close with a root",
            "§3",
            header(&|h| {
                (h.kind, h.generation, h.count, h.body_bytes) = (Kind::Close, 0, 0, 0);
                (h.salt, h.commitment) = ([0; 16], [0; 32]);
            }),
        ),
        (
            "fork: config in another's chain",
            "§3",
            header(&|h| {
                (h.kind, h.generation, h.config, h.body_bytes) = (Kind::Config, 0, h.seq, 9);
                (h.salt, h.commitment) = ([0; 16], [0; 32]);
            }),
        ),
        (
            "fork: another capsule",
            "§3",
            header(&|h| {
                h.capsule = bield_capsule::CapsuleName::from_bytes([1; 32]);
            }),
        ),
    ];
    let good = header(&|h| (h.count, h.body_bytes) = (65_535, 1 << 20));
    Group::file(Of::Fork, good, bad)
}

fn acknowledgements(cast: &Cast) -> Group {
    let head = told(cast, 5).head();
    let good = Acknowledgement::of(cast.name(), head, Kept::Synced, at(20));
    let payload = wire::encode(&good);
    let raw = |payload: &[u8]| said::<Acknowledgement>(0x31, payload);
    // … 4: kept, 5: time, which takes nine bytes.
    let mut kept = payload.clone();
    kept[payload.len() - 11] = 3;
    let mut unknown = [&payload[..], &[6, 0]].concat();
    unknown[0] += 1;
    let mut missing = payload[..payload.len() - 10].to_vec();
    missing[0] -= 1;
    let signed = say(0x31, &good);
    let mut flipped = signed.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let bad = vec![
        ("acknowledgement: kept 3", "§8", raw(&kept)),
        ("acknowledgement: unknown key", "§8", raw(&unknown)),
        ("acknowledgement: no time", "§8", raw(&missing)),
        (
            "acknowledgement: another domain",
            "§8",
            said::<HeadsStatement>(0x31, &payload),
        ),
        ("acknowledgement: altered", "§8", flipped),
        (
            "acknowledgement: byte too many",
            "§8",
            [&signed[..], &[0]].concat(),
        ),
    ];
    Group::file(Of::Acknowledgement, signed, bad)
}

/// What one replica says of the state after the whole story; one answer is enough there.
fn heads(cast: &Cast) -> Group {
    let said = (*cast.heads().verify_claimed().unwrap()).clone();
    let with = |alter: &dyn Fn(&mut HeadsStatement)| {
        let mut statement = said.clone();
        alter(&mut statement);
        say(0x31, &statement)
    };
    let alice = said
        .heads
        .iter()
        .position(|head| head.writer == cast.alice.id())
        .unwrap();
    let owner = told(cast, 17).head();
    let (last, least) = (
        said.heads[1].writer,
        bield_capsule::WriterId::from_bytes([0; 32]),
    );
    let bad = vec![
        ("heads: another nonce", "§9", with(&|s| s.nonce = [0; 16])),
        (
            "heads: another capsule",
            "§9",
            with(&|s| s.capsule = bield_capsule::CapsuleName::from_bytes([1; 32])),
        ),
        ("heads: descending", "§9", with(&|s| s.heads.reverse())),
        (
            "heads: a writer twice",
            "§9",
            with(&|s| s.heads[1] = s.heads[0]),
        ),
        (
            "heads: not after the page's start",
            "§9",
            with(&|s| s.after = Some(last)),
        ),
        (
            "heads: first page with a start",
            "§9",
            with(&|s| s.after = Some(least)),
        ),
        (
            "heads: empty with more",
            "§9",
            with(&|s| (s.heads, s.more) = (Vec::new(), true)),
        ),
        (
            "heads: more that does not come",
            "§9",
            with(&|s| s.more = true),
        ),
        (
            "heads: the owner among them",
            "§9",
            with(&|s| {
                s.heads.push(owner);
                s.heads.sort();
            }),
        ),
        (
            "heads: a record that is not here",
            "§9",
            with(&|s| s.heads[alice].seq += 1),
        ),
        (
            "heads: another hash",
            "§9",
            with(&|s| s.heads[alice].hash = OTHER),
        ),
        (
            "heads: config that is not here",
            "§9",
            with(&|s| s.config.as_mut().unwrap().seq += 1),
        ),
        ("heads: by a stranger", "§9", say(STRANGER, &said)),
        ("heads: by a former replica", "§9", say(0x33, &said)),
        (
            "heads: another domain",
            "§9",
            super::make::said::<Acknowledgement>(0x31, &wire::encode(&said)),
        ),
    ];
    Group::new(Of::Heads, 18, say(0x31, &said), bad)
}

fn exports(cast: &Cast) -> Vec<Group> {
    let record = |n: usize| told(cast, n).as_bytes();
    let file = |records: &[&[u8]]| export(&cast.metadata, records);
    let good = file(&[record(0)]);
    let patch = |at: usize, byte: u8| {
        let mut file = good.clone();
        file[at] = byte;
        file
    };
    let start = 9 + cast.metadata.as_bytes().len();
    let cut = line(cast, OWNER, 1).config(
        1,
        &encode_changes(&[Change::Revoke {
            writer: cast.bob.id(),
            last: Some(told(cast, 2).head().into()),
        }]),
    );
    let bad = vec![
        ("export: magic", "§12", patch(0, b'B')),
        ("export: version", "§12", patch(4, 2)),
        ("export: metadata length", "§12", patch(8, good[8] - 1)),
        (
            "export: record length",
            "§12",
            patch(start + 3, good[start + 3] + 1),
        ),
        ("export: length beyond any record", "§12", patch(start, 1)),
        ("export: cut off", "§12", good[..good.len() - 1].to_vec()),
        ("export: cut in a length", "§12", good[..start + 2].to_vec()),
        (
            "export: a record twice",
            "§12",
            file(&[record(0), record(2), record(2)]),
        ),
        (
            "export: before its config record",
            "§5",
            file(&[record(2), record(0)]),
        ),
        (
            "export: before its predecessor",
            "§3",
            file(&[record(0), record(5), record(2)]),
        ),
    ];
    vec![
        Group::file(Of::Export, good.clone(), bad),
        Group::file(
            Of::Export,
            file(&[record(0), &cut, record(2)]),
            vec![
                (
                    "export: beyond a revocation",
                    "§5",
                    file(&[record(0), &cut, record(2), record(5)]),
                ),
                (
                    "export: a config record behind another record",
                    "§12",
                    file(&[record(0), record(2), &cut]),
                ),
            ],
        ),
    ]
}
