//! Frozen bytes: `spec/vectors/05-package.json` is what spec/05 says, and this crate still does.

#![expect(
    clippy::disallowed_methods,
    reason = "tests read and freeze the vectors"
)]
#![expect(clippy::unwrap_used, reason = "tests may stop where they stand")]

#[path = "support/function.rs"]
mod function;
#[path = "support/open.rs"]
mod opening;
mod support;

use std::io::Cursor;
use std::path::PathBuf;

use bield_envelope::{Secret, Seeded, wire};
use bield_package::{ManifestDraft, PackageKey, pack};
use function::{COMPONENT, function};
use opening::{open, open_head};
use serde_json::{Value, json};
use support::{key, model, owner, packed};

#[test]
fn the_frozen_package_is_made_and_opened_byte_for_byte() {
    let made = vectors();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors/05-package.json");
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some_and(|value| value == "1") {
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        std::fs::write(&path, text).unwrap();
    }
    let frozen: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        made, frozen,
        "bytes changed: that needs a new format version"
    );
}

#[test]
fn every_flipped_bit_of_the_frozen_packages_is_refused() {
    let vectors = vectors();
    let seed = hex::decode(vectors["package_key"].as_str().unwrap()).unwrap();
    let key = || PackageKey::from_seed(Secret::from_bytes(seed.clone().try_into().unwrap()));
    for (packed, content) in [
        (&vectors["package"], &vectors["model"]),
        (
            &vectors["function"]["package"],
            &vectors["function"]["component"],
        ),
    ] {
        let file = hex::decode(packed.as_str().unwrap()).unwrap();
        assert_eq!(
            hex::encode(open(&file, &key()).unwrap()),
            content.as_str().unwrap()
        );
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut bad = file.clone();
                bad[at] ^= 1 << bit;
                assert!(open(&bad, &key()).is_err(), "byte {at} bit {bit}");
            }
        }
    }
}

/// One package of three chunks with every value that a second implementation passes through.
fn vectors() -> Value {
    const MODEL_BYTES: usize = 2 * 256 + 88;
    let (file, summary) = packed(MODEL_BYTES, "1.0.0", 256, 3);
    let package = open_head(&file, &key()).unwrap();
    let header = package.header();
    let id = header.id;
    let manifest = wire::encode(package.manifest());
    let section = |label| hex::encode(key().seed().derive(label, &[id.as_bytes()]).expose());
    let first = package.chunk(0).unwrap().sealed.start as usize;
    let manifest_at = first - header.manifest_bytes as usize;
    let chunks: Vec<Value> = (0..package.chunk_count())
        .map(|index| {
            let place = package.chunk(index).unwrap();
            json!({
                "index": index,
                "aad": hex::encode(aad(1, &id, 3, index, header.version.as_str())),
                "sealed": hex::encode(&file[place.sealed.start as usize..place.sealed.end as usize]),
            })
        })
        .collect();
    json!({
        "spec": "05-package",
        "owner_seed": hex::encode(owner().seed().expose()),
        "package_key": hex::encode(key().seed().expose()),
        "model": hex::encode(model(MODEL_BYTES)),
        "content_digest": summary.content.to_string(),
        "manifest": hex::encode(&manifest),
        "package_id": id.to_string(),
        "manifest_key": section("bield package v1 manifest"),
        "manifest_aad": hex::encode(aad(0, &id, 1, 0, header.version.as_str())),
        "sealed_manifest": hex::encode(&file[manifest_at..first]),
        "sealed_manifest_digest": header.manifest.to_string(),
        "header": hex::encode(wire::encode(header)),
        "signed_header": hex::encode(&file[14..manifest_at]),
        "package_digest": summary.digest.to_string(),
        "model_key": section("bield package v1 model"),
        "chunks": chunks,
        "package": hex::encode(&file),
        "function": function_vectors(),
    })
}

/// A function's package.
fn function_vectors() -> Value {
    let (name, version) = ("cart".parse().unwrap(), "1.0.0".parse().unwrap());
    let mut file = Vec::new();
    let summary = pack(
        &mut Cursor::new(COMPONENT),
        ManifestDraft::function(name, version, function()),
        &owner(),
        &key(),
        &mut Seeded::new(4),
        &mut file,
        &mut |_, _| {},
    );
    let package = open_head(&file, &key()).unwrap();
    json!({
        "component": hex::encode(COMPONENT),
        "component_sha256": hex::encode(function().component),
        "manifest": hex::encode(wire::encode(package.manifest())),
        "package_digest": summary.unwrap().digest.to_string(),
        "package": hex::encode(&file),
    })
}

/// The AAD as spec/05 §4 writes it, made here a second time.
fn aad(section: u8, id: &bield_envelope::Digest, count: u32, index: u32, version: &str) -> Vec<u8> {
    let mut bytes = vec![section];
    bytes.extend(id.as_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend(index.to_be_bytes());
    bytes.push(u8::from(index + 1 == count));
    bytes.extend(version.as_bytes());
    bytes
}
