//! Frozen bytes of `spec/07-levels.md`: what a second implementation must produce, open and refuse.
//!
//! `BIELD_FREEZE_VECTORS=1` writes the file instead of comparing with it.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cast;

use std::ops::Bound;
use std::path::PathBuf;

use bield_levels::{Blobs, Cell, Content, Levels, Manifest, Memory, OwnedCell, RunId, Version};
use cast::{CACHE_BYTES, Cast, at, capsule, cell, deleted, keys, put, range};
use serde_json::{Value, json};

const FILE: &str = "07-levels.json";

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "whoever freezes vectors says so in the environment, and reads them from a file"
)]
fn the_vectors_are_what_this_crate_makes() {
    let made = vectors();
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        std::fs::write(path(), text).unwrap();
    }
    let what = "is frozen: a change here is a new version";
    assert_eq!(frozen(), made, "{FILE} {what}");
}

/// From the file alone: keys, manifests and runs in, the told cells out.
#[test]
fn the_frozen_bytes_open() {
    let frozen = frozen();
    let blobs = std::sync::Arc::new(Memory::default());
    for run in frozen["runs"].as_array().unwrap() {
        let bytes = hex(&run["bytes"]);
        assert_eq!(run["name"], json!(RunId::of(&bytes).to_string()));
        blobs.put(&RunId::of(&bytes), &bytes).unwrap();
    }
    let mut before: Option<Manifest> = None;
    for manifest in frozen["manifests"].as_array().unwrap() {
        let bytes = hex(&manifest["bytes"]);
        let decoded = Manifest::decode(&bytes, &capsule(1)).unwrap();
        assert_eq!(manifest["digest"], json!(decoded.digest().to_string()));
        if let Some(before) = &before {
            decoded.follows(before).unwrap();
        }
        let levels = Levels::open(decoded.clone(), &keys(&[1]), blobs.clone(), CACHE_BYTES);
        let levels = levels.unwrap();
        for run in decoded.runs() {
            levels.check(&run.id).unwrap();
        }
        let scan = levels.scan(Bound::Unbounded, Bound::Unbounded).unwrap();
        let cells: Vec<Value> = scan.map(|cell| told(&cell.unwrap().as_cell())).collect();
        assert_eq!(manifest["cells"], json!(cells));
        before = Some(decoded);
    }
}

fn vectors() -> Value {
    let mut cast = Cast::new();
    let mut manifests = Vec::new();
    let (first, second) = flushes();
    cast.flush(&mut owned(&first), &[]);
    manifests.push(state(&cast));
    cast.flush(&mut owned(&second), &[range("key 03", "key 06", 2500)]);
    manifests.push(state(&cast));
    cast.compact(2600);
    manifests.push(state(&cast));
    let kept = cast.blobs.kept().clone();
    let runs = kept
        .iter()
        .map(|(name, bytes)| json!({ "name": name.to_string(), "bytes": ::hex::encode(bytes) }));
    json!({
        "about": "spec/07-levels.md. Byte strings are hex, times are milliseconds since 1970, clocks are 64 \
                  bits. `flushes` went in; each manifest has the cells that a scan of its levels gives, \
                  deletions and expired values as they are.",
        "capsule": ::hex::encode(capsule(1).as_bytes()),
        "generation": { "number": 1, "secret": ::hex::encode([1; 32]) },
        "flushes": [
            { "cells": first, "range_deletes": [] },
            { "cells": second, "range_deletes": [{
                "from": ::hex::encode("key 03"), "to": ::hex::encode("key 06"),
                "clock": cast::version(2500).clock.bits(), "writer": ::hex::encode([7; 32]),
            }] },
        ],
        "runs": runs.collect::<Vec<_>>(),
        "manifests": manifests,
    })
}

/// Two flushes: values, empty ones, ones that expire, deletions, two writers, a long key.
fn flushes() -> (Vec<Value>, Vec<Value>) {
    let long = "k".repeat(300);
    let expiring = Content::Value {
        bytes: b"for a while",
        expires: Some(at(2550)),
    };
    let mut first: Vec<OwnedCell> = (0..8)
        .map(|n| {
            put(
                &format!("key {n:02}"),
                1000 + n,
                &"value ".repeat(n as usize),
            )
        })
        .collect();
    first.push(put(&long, 1500, "of a long key"));
    first.push(cell("expires", 1600, expiring));
    let mut other = put("other", 1700, "of another writer");
    other.version = Version {
        writer: bield_capsule::WriterId::from_bytes([8; 32]),
        ..other.version
    };
    first.push(other);
    let second = vec![
        deleted("key 00", 2000),
        put("key 01", 2001, ""),
        put("new", 2002, "new"),
    ];
    let shown = |cells: Vec<OwnedCell>| {
        let mut cells = cells;
        cells.sort_by(|a, b| a.key.cmp(&b.key));
        cells.iter().map(|cell| told(&cell.as_cell())).collect()
    };
    (shown(first), shown(second))
}

fn state(cast: &Cast) -> Value {
    let manifest = cast.levels.manifest();
    let scan = cast
        .levels
        .scan(Bound::Unbounded, Bound::Unbounded)
        .unwrap();
    let cells: Vec<Value> = scan.map(|cell| told(&cell.unwrap().as_cell())).collect();
    json!({
        "bytes": ::hex::encode(manifest.encode()),
        "digest": manifest.digest().to_string(),
        "cells": cells,
    })
}

fn told(cell: &Cell<'_>) -> Value {
    let mut told = json!({
        "key": ::hex::encode(cell.key),
        "clock": cell.version.clock.bits(),
        "writer": ::hex::encode(cell.version.writer.as_bytes()),
    });
    if let Content::Value { bytes, expires } = cell.content {
        told["value"] = json!(::hex::encode(bytes));
        if let Some(expires) = expires {
            told["expires"] = json!(expires.as_millis());
        }
    }
    told
}

fn owned(cells: &[Value]) -> Vec<OwnedCell> {
    let cells = cells.iter().map(|told| {
        let (key, value) = (hex(&told["key"]), told.get("value").map(hex));
        let writer: [u8; 32] = hex(&told["writer"]).try_into().unwrap();
        let content = match &value {
            Some(bytes) => Content::Value {
                bytes,
                expires: told.get("expires").map(|at| cast::at(at.as_u64().unwrap())),
            },
            None => Content::Deleted,
        };
        let version = Version {
            clock: bield_capsule::Clock::from_bits(told["clock"].as_u64().unwrap()),
            writer: bield_capsule::WriterId::from_bytes(writer),
        };
        Cell {
            key: &key,
            version,
            content,
        }
        .to_owned()
    });
    cells.collect()
}

fn hex(value: &Value) -> Vec<u8> {
    ::hex::decode(value.as_str().unwrap()).unwrap()
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../spec/vectors/{FILE}"))
}

#[expect(clippy::disallowed_methods, reason = "vectors are in a file")]
fn frozen() -> Value {
    serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap()
}
