//! Frozen bytes of `spec/07-table.md`: entries, what is none, session tokens, and what histories come to.
//!
//! `BIELD_FREEZE_VECTORS=1` writes the file instead of comparing with it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

#[expect(dead_code, reason = "each of the suites uses its part of it")]
mod cast;

use std::path::Path;

use bield_capsule::{Clock, Head, WriterId};
use bield_envelope::Digest;
use bield_table::{
    Action, ApplyError, Change, Condition, Consistency, Followed, Options, PageLimits, Session,
    TableEntry, Version, bucket_range, full_key,
};
use cast::{World, at};
use serde_json::{Value, json};

const FILE: &str = "07-table.json";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "whoever freezes vectors says so in the environment"
)]
fn the_vectors_are_what_this_crate_makes() {
    let made = json!({
        "about": "spec/07-table.md. Byte strings are hex, clocks 64 bits in hex, times milliseconds \
                  since 1970. A history is the entries of one record of each writer after another, in \
                  the order given; shows is what any table comes to that has all of them.",
        "entries": entries().iter().map(|(what, payload)| named(what, payload)).collect::<Vec<_>>(),
        "broken": broken().iter().map(|(what, payload)| named(what, payload)).collect::<Vec<_>>(),
        "session": hex::encode(session().encode().unwrap()),
        "histories": histories(),
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../spec/vectors")
        .join(FILE);
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        write(&path, &made);
    }
    let frozen: Value = serde_json::from_slice(&read(&path)).unwrap();
    assert_eq!(
        frozen, made,
        "{FILE} is frozen: a change here is a new version"
    );
}

#[test]
fn entries_decode_to_what_they_were_and_nothing_near_them_does_to_the_same() {
    for (what, payload) in entries() {
        let entry = TableEntry::decode(&payload).unwrap().unwrap();
        let mut again = Vec::new();
        entry.encode_to(&mut again);
        assert_eq!(again, payload, "{what}");
        for at in 0..payload.len() {
            for changed in flips(&payload, at).chain([payload[..at].to_vec()]) {
                if let Ok(Some(other)) = TableEntry::decode(&changed) {
                    let mut bytes = Vec::new();
                    other.encode_to(&mut bytes);
                    assert!(bytes == changed && other != entry, "{what}");
                }
            }
        }
    }
    for (what, payload) in broken() {
        assert!(TableEntry::decode(&payload).is_err(), "{what}");
    }
}

fn flips(payload: &[u8], at: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..8).map(move |bit| {
        let mut changed = payload.to_vec();
        changed[at] ^= 1 << bit;
        changed
    })
}

fn named(what: &str, payload: &[u8]) -> Value {
    json!({ "what": what, "payload": hex::encode(payload) })
}

fn clock(counter: u64) -> Clock {
    Clock::from_bits(Clock::at(at(0)).bits() + counter)
}

fn encoded(counter: u64, action: Action<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    TableEntry {
        clock: clock(counter),
        action,
    }
    .encode_to(&mut payload);
    payload
}

fn put(counter: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
    encoded(
        counter,
        Action::Change(Change::Put {
            key,
            value,
            expires: None,
        }),
    )
}

fn fenced(counter: u64, token: u64, condition: Condition, value: &[u8]) -> Vec<u8> {
    let change = Change::Put {
        key: &counter_key(),
        value,
        expires: None,
    };
    encoded(
        counter,
        Action::Fenced {
            token,
            condition,
            change,
        },
    )
}

fn lease(counter: u64, token: u64, follows: &[Followed]) -> Vec<u8> {
    let (from, to) = bucket_range("n").unwrap();
    let (mut scratch, mut payload) = (Vec::new(), Vec::new());
    TableEntry::lease(clock(counter), token, (&from, &to), follows, &mut scratch)
        .encode_to(&mut payload);
    payload
}

fn counter_key() -> Vec<u8> {
    full_key("n", b"counter").unwrap()
}

fn entries() -> Vec<(&'static str, Vec<u8>)> {
    let key = full_key("cart", b"apples").unwrap();
    let (from, to) = bucket_range("cart").unwrap();
    let writer = WriterId::from_bytes([0xaa; 32]);
    let version = Version {
        clock: clock(1),
        writer,
    };
    let until = Change::Put {
        key: &key,
        value: b"",
        expires: Some(at(5)),
    };
    vec![
        ("put", put(1, &key, b"3")),
        ("put until", encoded(2, Action::Change(until))),
        (
            "delete",
            encoded(3, Action::Change(Change::Delete { key: &key })),
        ),
        (
            "delete range",
            encoded(
                4,
                Action::DeleteRange {
                    from: &from,
                    to: &to,
                },
            ),
        ),
        ("lease that follows none", lease(5, 7, &[])),
        (
            "lease that follows two",
            lease(
                6,
                9,
                &[followed(7, writer, u64::MAX), followed(2, writer, 3)],
            ),
        ),
        ("acknowledge", encoded(7, Action::Acknowledge { epoch: 12 })),
        (
            "fenced put, unconditional",
            fenced(8, 7, Condition::Unconditional, b"1"),
        ),
        ("fenced put, absent", fenced(9, 7, Condition::Absent, b"1")),
        (
            "fenced put, of a version",
            fenced(10, 7, Condition::Is(version), b"2"),
        ),
    ]
}

const fn followed(token: u64, holder: WriterId, seq: u64) -> Followed {
    Followed { token, holder, seq }
}

fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let key = full_key("cart", b"apples").unwrap();
    let good = put(1, &key, b"3");
    let with = |at: usize, byte: u8| {
        let mut payload = good.clone();
        payload[at] = byte;
        payload
    };
    let writer = WriterId::from_bytes([0xaa; 32]);
    let (from, _) = bucket_range("cart").unwrap();
    let (other, _) = bucket_range("zart").unwrap();
    vec![
        ("empty", Vec::new()),
        ("tag 0", with(0, 0)),
        ("tag 8", with(0, 8)),
        ("no clock", good[..5].to_vec()),
        ("a key longer than what is there", with(10, 0xff)),
        ("a key of the table's own", with(11, 0)),
        ("a bucket longer than its key", with(11, 64)),
        ("a bucket of 65 bytes", put(1, &[65; 80], b"")),
        ("a key of 1025 bytes", put(1, &[1; 1025], b"")),
        (
            "a range of two buckets",
            encoded(
                1,
                Action::DeleteRange {
                    from: &from,
                    to: &other,
                },
            ),
        ),
        (
            "a range that is empty",
            encoded(
                1,
                Action::DeleteRange {
                    from: &from,
                    to: &from,
                },
            ),
        ),
        (
            "a lease that follows a later one",
            lease(1, 7, &[followed(7, writer, 1)]),
        ),
        (
            "a lease that follows out of order",
            lease(1, 7, &[followed(2, writer, 1), followed(3, writer, 1)]),
        ),
        (
            "an acknowledgement with a byte too many",
            [encoded(1, Action::Acknowledge { epoch: 1 }), vec![0]].concat(),
        ),
    ]
}

fn session() -> Session {
    let head = |byte: u8, seq| Head {
        writer: WriterId::from_bytes([byte; 32]),
        seq,
        hash: Digest::from_bytes([byte + 1; 32]),
    };
    Session::new([head(9, 1 << 40), head(3, 0)])
}

/// Name, and payloads of records: by writer 0 or 1.
fn histories() -> Vec<Value> {
    let (a, b) = (full_key("b", b"a").unwrap(), full_key("b", b"b").unwrap());
    let (from, to) = bucket_range("b").unwrap();
    let id = |n: usize| World::new(0, 2, false, &Options::default()).members[n].id;
    let range = encoded(
        5,
        Action::DeleteRange {
            from: &from,
            to: &to,
        },
    );
    vec![
        history(
            "equal clocks: the larger writer id wins",
            &[(0, vec![put(1, &a, b"0")]), (1, vec![put(1, &a, b"1")])],
        ),
        history(
            "a range delete hides what is older, also when it comes later",
            &[
                (0, vec![range]),
                (1, vec![put(4, &a, b"older"), put(6, &b, b"newer")]),
            ],
        ),
        history(
            "a record with one wrong entry counts for nothing",
            &[
                (0, vec![put(1, &a, b"good")]),
                (0, vec![put(2, &b, b"lost"), vec![9]]),
                (0, vec![put(1, &b, b"clock goes back")]),
            ],
        ),
        history(
            "a holder counts as far as the next lease follows it",
            &[
                (
                    0,
                    vec![lease(1, 5, &[]), fenced(2, 5, Condition::Absent, b"1")],
                ),
                (0, vec![fenced(9, 5, Condition::Unconditional, b"101")]),
                (
                    1,
                    vec![
                        lease(4, 6, &[followed(5, id(0), 1)]),
                        fenced(5, 6, Condition::Unconditional, b"11"),
                    ],
                ),
            ],
        ),
        history(
            "without a token nothing counts after a lease",
            &[
                (0, vec![put(1, &counter_key(), b"before")]),
                (1, vec![lease(2, 5, &[])]),
                (0, vec![put(3, &counter_key(), b"after")]),
            ],
        ),
    ]
}

fn history(what: &str, records: &[(usize, Vec<Vec<u8>>)]) -> Value {
    let mut world = World::new(0, 2, false, &Options::default());
    let (one, two) = (world.members[0].id, world.members[1].id);
    for (by, payloads) in records {
        let member = &mut world.members[*by];
        payloads
            .iter()
            .for_each(|payload| member.pending.push(payload).unwrap());
        world.seal(*by, at(100));
    }
    // Whatever the mixture of the chains, and whoever looks.
    let mut shown: Option<Vec<Value>> = None;
    for member in [0, 1, 0, 1] {
        world.members[member].applied = vec![0; 2];
        world.restart_from(member, at(100), |taken| {
            assert!(matches!(taken, Ok(_) | Err(ApplyError::Fault { .. })));
        });
        let mut all = Vec::new();
        for bucket in ["b", "n"] {
            let (from, to) = bucket_range(bucket).unwrap();
            let limits = PageLimits {
                keys: 100,
                bytes: 1 << 20,
            };
            let table = &world.members[member].table;
            let page = table
                .page((&from, &to), None, limits, Consistency::Eventual, at(100))
                .unwrap();
            all.extend(page.entries.iter().map(|(key, found)| {
                let Version { clock, writer } = found.version;
                let clock = hex::encode(clock.bits().to_be_bytes());
                let (key, value) = (hex::encode(key), hex::encode(&*found.value));
                json!([key, value, clock, writer.to_string()])
            }));
        }
        assert!(shown.as_ref().is_none_or(|shown| *shown == all), "{what}");
        shown = Some(all);
    }
    let records = records.iter().map(|(by, payloads)| {
        let payloads: Vec<_> = payloads.iter().map(hex::encode).collect();
        let writer = [one, two][*by].to_string();
        json!({ "writer": writer, "entries": payloads })
    });
    json!({ "what": what, "records": records.collect::<Vec<_>>(), "shows": shown })
}

#[expect(clippy::disallowed_methods, reason = "vectors are files")]
fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "vectors are files")]
fn write(path: &Path, value: &Value) {
    let text = serde_json::to_string_pretty(value).unwrap() + "\n";
    std::fs::write(path, text).unwrap();
}
