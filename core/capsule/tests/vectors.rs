//! Frozen bytes of `spec/06-capsule.md`: what a second implementation must produce, open and refuse.
//!
//! `BIELD_FREEZE_VECTORS=1` writes the file instead of comparing with it. Everything is made again
//! from seeds and compared byte by byte, but for the record signatures of suites 2 and 3, which are
//! verified where they stand in the file.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod broken;
mod cast;
mod proofs;
mod segments;

use std::ops::Range;
use std::path::Path;

use bield_capsule::{
    Entry, ExportReader, ForkProof, Header, Kind, Metadata, Proof, Proven, Received, Suite,
    Verifier, open_slice, slice, verify_consistency,
};
use bield_envelope::{Principal, Signed, Statement, wire};
use cast::{CODE, Cast, NONCE, POLICY, Told, at, generation};
use serde_json::{Value, json};

const FILE: &str = "06-capsule.json";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "whoever freezes vectors says so in the environment"
)]
fn the_vectors_are_what_this_crate_makes() {
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        let suites = Suite::ALL.map(|suite| vectors(&Cast::new(suite, None)));
        freeze(&json!({
            "about": "spec/06-capsule.md. Byte strings are hex, times are milliseconds since 1970, \
                      seeds are for tests. Record signatures of suites 2 and 3 are random.",
            "suites": suites,
            "broken": broken::broken(),
            "segments": segments::segments(),
        }));
    }
    let frozen = frozen();
    for (suite, frozen) in Suite::ALL.iter().zip(frozen["suites"].as_array().unwrap()) {
        assert_eq!(
            frozen,
            &vectors(&cast(*suite)),
            "{FILE} is frozen: a change here is a new version"
        );
    }
    assert_eq!(frozen["broken"], json!(broken::broken()));
    assert_eq!(frozen["segments"], json!(segments::segments()));
}

#[test]
fn records_of_suite_1_verify_and_no_flipped_byte_does() {
    records_verify_and_no_flipped_byte_does(Suite::Ed25519);
}

#[test]
fn records_of_suite_2_verify_and_no_flipped_byte_does() {
    records_verify_and_no_flipped_byte_does(Suite::P256);
}

#[test]
fn records_of_suite_3_verify_and_no_flipped_byte_does() {
    records_verify_and_no_flipped_byte_does(Suite::MlDsa44);
}

/// Flips one bit in every byte of every record, each judged where the record belongs.
fn records_verify_and_no_flipped_byte_does(suite: Suite) {
    let cast = cast(suite);
    let mut verifier = Verifier::new(cast.metadata.clone(), POLICY);
    for Told { what, record } in &cast.told {
        let accepts = |bytes: &[u8]| {
            Received::decode(bytes.to_vec()).is_ok_and(|record| verifier.verify(record).is_ok())
        };
        flips(what, record.as_bytes(), accepts);
        let verified = verifier.verify(record.clone()).unwrap();
        verifier.apply(verified).unwrap();
    }
    // Bob's second story is a conflict, and after the revocation it is not even looked at.
    assert!(verifier.verify(cast.forked.clone()).is_err());
    let fork = verifier.mark_forked(&cast.fork()).unwrap();
    assert_eq!((fork.writer, fork.seq), (cast.bob.id(), 2));
    let heads: Vec<_> = verifier.heads().collect();
    let alice = cast.chain(&cast.alice).last().unwrap().head();
    let mut counted = [alice, cast.chain(&cast.bob)[1].head()];
    counted.sort_unstable();
    assert_eq!(heads, counted, "what the owner left of bob's chain counts");
}

#[test]
fn proofs_of_suite_1_verify_and_no_flipped_byte_does() {
    proofs_verify_and_no_flipped_byte_does(Suite::Ed25519);
}

#[test]
fn proofs_of_suite_2_verify_and_no_flipped_byte_does() {
    proofs_verify_and_no_flipped_byte_does(Suite::P256);
}

#[test]
fn proofs_of_suite_3_verify_and_no_flipped_byte_does() {
    proofs_verify_and_no_flipped_byte_does(Suite::MlDsa44);
}

fn proofs_verify_and_no_flipped_byte_does(suite: Suite) {
    let name = cast(suite).name();
    for proof in vectors_of(suite)["proofs"].as_array().unwrap() {
        let good = bytes(&proof["proof"]);
        every_nth_flip("proof", &good, 5, |bytes| {
            Proof::decode(bytes).is_ok_and(|proof| proof.verify(&name, POLICY).is_ok())
        });
        let proven = Proof::decode(&good).unwrap().verify(&name, POLICY).unwrap();
        assert_eq!(proven.target.seq, proof["seq"].as_u64().unwrap());
        assert_eq!(shown(&proven), proof["entry"]);
    }
}

#[test]
fn every_flipped_byte_of_the_other_vectors_is_refused() {
    for suite in Suite::ALL {
        let (cast, frozen) = (cast(suite), vectors_of(suite));
        let name = cast.name();
        flips("metadata", &bytes(&frozen["metadata"]), |bytes| {
            Metadata::decode_named(bytes, &name).is_ok()
        });
        flips("fork", &bytes(&frozen["fork"]), |bytes| {
            ForkProof::decode(bytes).is_ok_and(|proof| proof.verify(&name).is_ok())
        });
        let principals = cast.principals();
        let certifier = cast.certifier.principal();
        let signed = bytes(&frozen["certificate"]["signed"]);
        statement_flips(cast.certificate.clone(), &signed, &certifier);
        for (n, word) in cast.acknowledgements().into_iter().enumerate() {
            let signed = bytes(&frozen["acknowledgements"][n]["signed"]);
            let signer = word.claimed_signer();
            assert!(principals.contains(&signer));
            statement_flips(word, &signed, &signer);
        }
        let signed = bytes(&frozen["heads"]["signed"]);
        statement_flips(cast.heads(), &signed, &principals[0]);
    }
}

#[test]
fn every_flipped_byte_of_a_path_is_refused() {
    for suite in Suite::ALL {
        let cast = cast(suite);
        let chain = cast.chain(&cast.alice);
        let good: Vec<_> = cast.path(3).iter().map(Header::encode).collect();
        let (newest, oldest) = (chain[chain.len() - 1].header(), chain[3].head());
        for at in 0..good.len() {
            flips("path", &good[at], |bytes| {
                let mut path = good.clone();
                path[at] = bytes.to_vec();
                let decode = |bytes: &Vec<u8>| {
                    let (header, used) = Header::decode_prefix(bytes).ok()?;
                    (used == bytes.len()).then_some(header)
                };
                let path: Option<Vec<_>> = path.iter().map(decode).collect();
                path.is_some_and(|path| verify_consistency(newest, &path, &oldest).is_ok())
            });
        }
    }
}

#[test]
fn slices_show_what_was_asked_and_no_flipped_byte_does() {
    for suite in [Suite::Ed25519, Suite::P256] {
        for vector in vectors_of(suite)["slices"].as_array().unwrap() {
            let body = body(vector["body_bytes"].as_u64().unwrap() as usize);
            let ranges = ranges(&vector["ranges"]);
            let root = suite.root(&body);
            flips("slice", &bytes(&vector["slice"]), |bytes| {
                open_slice(suite, &root, body.len(), &ranges, bytes).is_ok()
            });
            let proof = bytes(&vector["slice"]);
            let shown = open_slice(suite, &root, body.len(), &ranges, &proof).unwrap();
            for (range, shown) in ranges.iter().zip(shown) {
                assert_eq!(body[range.clone()], shown);
            }
        }
    }
}

#[test]
fn an_export_is_read_and_verified_record_by_record() {
    let cast = cast(Suite::Ed25519);
    let file = cast.export();
    let whole = |file: &[u8]| {
        let mut reader = ExportReader::new(file).ok()?;
        if reader.metadata().name() != cast.name() {
            return None;
        }
        let mut verifier = Verifier::new(reader.metadata().clone(), POLICY);
        reader.try_fold(0, |count, read| {
            let verified = verifier.verify(read.ok()?.record).ok()?;
            verifier.apply(verified).ok().map(|_| count + 1)
        })
    };
    // Bob's second story, which the owner cut off, is told and is not in the file.
    assert_eq!(whole(&file), Some(cast.told.len() - 1));
    for at in 0..file.len() {
        // Records were flipped by themselves; here it is the frame around them that counts.
        if at < 300 || at % 11 == 0 {
            let mut bad = file.clone();
            bad[at] ^= 1 << (at % 8);
            assert_eq!(whole(&bad), None, "byte {at}");
        }
    }
}

fn vectors(cast: &Cast) -> Value {
    let suite = cast.suite;
    let proofs: &[(u64, Option<u32>)] = match suite {
        Suite::Ed25519 => &[(3, Some(1)), (9, Some(1))],
        Suite::P256 => &[(3, Some(1)), (9, Some(1))],
        Suite::MlDsa44 => &[(2, Some(1))],
    };
    let alice = cast.chain(&cast.alice);
    let mut made = json!({
        "suite": suite.number(),
        "keys": keys(cast),
        "metadata": hex(cast.metadata.as_bytes()),
        "name": cast.name().to_string(),
        "certificate": {
            "code": hex(&CODE),
            "simulated": true,
            "not_before": at(0).as_millis(),
            "not_after": at(1000).as_millis(),
            "signed": hex(cast.certificate.as_bytes()),
        },
        "records": cast.told.iter().map(|told| record(cast, told.what, &told.record)).collect::<Vec<_>>(),
        "path": {
            "from": alice[alice.len() - 1].hash().to_string(),
            "to": alice[3].hash().to_string(),
            "headers": cast.path(3).iter().map(|header| hex(&header.encode())).collect::<Vec<_>>(),
        },
        "proofs": proofs.iter().map(|(seq, entry)| proof(cast, *seq, *entry)).collect::<Vec<_>>(),
        "fork": hex(&cast.fork().encode()),
        "acknowledgements": cast.acknowledgements().iter().map(|word| json!({
            "signer": hex(word.claimed_signer().as_bytes()),
            "signed": hex(word.as_bytes()),
        })).collect::<Vec<_>>(),
        "heads": {
            "nonce": hex(&NONCE),
            "signer": hex(cast.principals()[0].as_bytes()),
            "signed": hex(cast.heads().as_bytes()),
        },
    });
    if suite != Suite::MlDsa44 {
        made["slices"] = slices(suite).into();
    }
    made
}

fn keys(cast: &Cast) -> Value {
    let writers = [
        ("owner", &cast.owner),
        ("alice", &cast.alice),
        ("bob", &cast.bob),
    ];
    let generations = [1, 2].map(|number| {
        json!({
            "number": number,
            "key": hex(generation(number).secret().expose()),
            "commitment": generation(number).commitment(&cast.metadata).to_string(),
        })
    });
    let mut made = json!({
        "certifier": {
            "seed": hex(cast.certifier.seed().expose()),
            "public": hex(cast.certifier.principal().as_bytes()),
        },
        "replicas": cast.replicas.iter().map(|replica| json!({
            "seed": hex(replica.seed().expose()),
            "public": hex(replica.principal().as_bytes()),
        })).collect::<Vec<_>>(),
        "generations": generations,
        "entry": hex(cast.entry_key.expose()),
    });
    for (who, key) in writers {
        made[who] = json!({
            "seed": hex(key.seed().expose()),
            "public": hex(key.public().as_bytes()),
            "id": key.id().to_string(),
        });
    }
    made
}

fn record(cast: &Cast, what: &str, record: &Received) -> Value {
    let header = record.header();
    let mut made = json!({
        "what": what,
        "writer": header.writer.to_string(),
        "seq": header.seq,
        "hash": record.hash().to_string(),
        "header": hex(record.header_bytes()),
        "signature": hex(record.signature()),
        "body": hex(record.body()),
    });
    if header.kind == Kind::Data {
        made["secret"] = hex(cast.secret(record).expose()).into();
        let entries = cast.entries(record).into_iter();
        made["entries"] = entries
            .map(|(form, payload)| json!({"form": form, "payload": hex(&payload)}))
            .collect::<Vec<_>>()
            .into();
    }
    made
}

fn proof(cast: &Cast, seq: u64, entry: Option<u32>) -> Value {
    let proof = cast.proof(seq, entry);
    let proven = proof.verify(&cast.name(), POLICY).unwrap();
    json!({
        "seq": seq,
        "index": entry,
        "entry": shown(&proven),
        "proof": hex(&proof.encode()),
    })
}

/// Payload of a plain entry, form byte and sealed payload of an erasable one.
fn shown(proven: &Proven) -> Value {
    match proven.entry.as_ref().map(bield_capsule::ProvenEntry::entry) {
        None => Value::Null,
        Some(Entry::Plain(payload)) => json!({"form": 0, "payload": hex(payload)}),
        Some(Entry::Erasable(_)) => json!({"form": 1}),
    }
}

#[expect(clippy::single_range_in_vec_init, reason = "one range is one question")]
fn slices(suite: Suite) -> Vec<Value> {
    let questions: [(usize, Vec<Range<usize>>); 6] = [
        (0, vec![]),
        (1, vec![0..1]),
        (1024, vec![3..5]),
        (1025, vec![1020..1025]),
        (9000, vec![0..10, 8990..9000]),
        (20_000, vec![13_000..13_001]),
    ];
    let made = questions.into_iter().map(|(len, ranges)| {
        let body = body(len);
        let ends = |range: &Range<usize>| [range.start, range.end];
        json!({
            "body": "byte i is (7 i + i / 256) mod 256",
            "body_bytes": len,
            "root": suite.root(&body).to_string(),
            "ranges": ranges.iter().map(ends).collect::<Vec<_>>(),
            "slice": hex(&slice(suite, &body, &ranges).unwrap()),
        })
    });
    made.collect()
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|i| (7 * i + i / 256) as u8).collect()
}

fn ranges(value: &Value) -> Vec<Range<usize>> {
    let end = |value: &Value| value.as_u64().unwrap() as usize;
    let ranges = value.as_array().unwrap().iter();
    ranges.map(|range| end(&range[0])..end(&range[1])).collect()
}

/// One bit in every byte, every cut at a few places, and a byte too many.
fn flips(what: &str, good: &[u8], accepts: impl Fn(&[u8]) -> bool) {
    every_nth_flip(what, good, 1, accepts);
}

/// As [`flips`], in every `n`-th byte: of what takes a millisecond to refuse, and is made of parts that are
/// flipped in every byte elsewhere.
fn every_nth_flip(what: &str, good: &[u8], n: usize, accepts: impl Fn(&[u8]) -> bool) {
    assert!(accepts(good), "{what}");
    for at in (0..good.len()).step_by(n) {
        let mut bad = good.to_vec();
        bad[at] ^= 1 << (at % 8);
        assert!(!accepts(&bad), "{what}: byte {at}");
    }
    for cut in [0, good.len() / 2, good.len().saturating_sub(1)] {
        assert!(cut == good.len() || !accepts(&good[..cut]), "{what} cut");
    }
    assert!(!accepts(&[good, &[0]].concat()), "{what} with a byte more");
}

fn statement_flips<T: Statement>(made: Signed<T>, signed: &[u8], signer: &Principal) {
    assert_eq!(made.as_bytes(), signed);
    flips(T::DOMAIN, signed, |bytes| {
        Signed::<T>::decode(bytes).is_ok_and(|signed| signed.verify(signer).is_ok())
    });
    let statement = made.verify(signer).unwrap();
    assert!(wire::encode(&*statement).len() <= T::BYTES_MAX);
}

/// The cast with the signatures that are in the file, where they cannot be made again.
fn cast(suite: Suite) -> Cast {
    if suite == Suite::Ed25519 {
        return Cast::new(suite, None);
    }
    let vectors = vectors_of(suite);
    let records = vectors["records"].as_array().unwrap().iter();
    let mut signatures: Vec<_> = records
        .clone()
        .map(|record| bytes(&record["signature"]))
        .collect();
    // Of the two heads in the fork proof one is told of, the other is not.
    let fork = ForkProof::decode(&bytes(&vectors["fork"])).unwrap();
    let told = |hash: String| records.clone().any(|record| record["hash"] == hash);
    let other = fork.heads().into_iter();
    let other = other.filter(|head| !told(head.head().hash.to_string()));
    signatures.extend(other.map(|head| {
        let bytes = head.as_bytes();
        bytes[bytes.len() - suite.signature_bytes()..].to_vec()
    }));
    Cast::new(suite, Some(&signatures))
}

fn vectors_of(suite: Suite) -> Value {
    frozen()["suites"][usize::from(suite.number()) - 1].take()
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads and writes its vectors"
)]
fn frozen() -> Value {
    serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads and writes its vectors"
)]
fn freeze(made: &Value) {
    // Half the indentation: the file is large.
    let pretty = serde_json::to_string_pretty(made).unwrap() + "\n";
    let lines = pretty.lines().map(|line| {
        let text = line.trim_start();
        format!("{}{text}\n", " ".repeat((line.len() - text.len()) / 2))
    });
    let text: String = lines.collect();
    std::fs::write(path(), text).unwrap();
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../spec/vectors")
        .join(FILE)
}
