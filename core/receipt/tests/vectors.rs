//! Frozen bytes of `spec/08-receipt.md`: what a second implementation must produce and refuse.
//!
//! `BIELD_FREEZE_VECTORS=1` writes the file instead of comparing with it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod cast;

use std::path::Path;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use bield_envelope::{Principal, Signed, wire};
use bield_receipt::{
    BUNDLE_BYTES_MAX, Receipt, ReceiptBundle, StateHeads, WorkerCertificate, output_commitment,
    service_evidence_digest, verify,
};
use cast::{CAPSULE, Cast, OUTPUT, SALT, SERVICE_EVIDENCE, after, before};
use minicbor::Encoder;
use serde_json::{Value, json};

const FILE: &str = "08-receipt.json";

#[test]
fn the_vectors_are_what_this_crate_makes() {
    let cast = Cast::new();
    let (certificate, receipt) = (cast.certificate(), cast.receipt());
    let signed_certificate = Signed::sign(&cast.service, certificate.clone());
    let signed_receipt = Signed::sign(&cast.worker, receipt.clone());
    let service = cast.service.principal();
    let worker = cast.worker.principal();
    let made = json!({
        "about": "spec/08-receipt.md. Byte strings are hex, times are milliseconds since 1970.",
        "keys": {
            "service_seed": hex::encode(cast.service.seed().expose()),
            "service": hex::encode(service.as_bytes()),
            "worker_seed": hex::encode(cast.worker.seed().expose()),
            "worker": hex::encode(worker.as_bytes()),
        },
        "certificate": {
            "code": certificate.code.to_string(),
            "simulated": certificate.simulated,
            "not_before": certificate.not_before.as_millis(),
            "not_after": certificate.not_after.as_millis(),
            "service_evidence": hex::encode(service_evidence_digest(SERVICE_EVIDENCE).as_bytes()),
            "hardening": hex::encode(certificate.hardening.encode()),
            "payload": hex::encode(wire::encode(&certificate)),
            "sig_structure": hex::encode(sig_structure(
                service, "bield worker certificate v2", &wire::encode(&certificate))),
            "signed": hex::encode(signed_certificate.as_bytes()),
        },
        "output": {
            "salt": hex::encode(SALT),
            "output": hex::encode(OUTPUT),
            "commitment": hex::encode(output_commitment(&SALT, OUTPUT).as_bytes()),
        },
        "receipt": {
            "request": hex::encode(receipt.request.as_bytes()),
            "package": hex::encode(receipt.package.as_bytes()),
            "code": receipt.code.to_string(),
            "grant": hex::encode(receipt.grant.as_bytes()),
            "at": receipt.at.as_millis(),
            "state": Value::Null,
            "simulated": receipt.simulated,
            "payload": hex::encode(wire::encode(&receipt)),
            "sig_structure": hex::encode(sig_structure(
                worker, "bield receipt v1", &wire::encode(&receipt))),
            "signed": hex::encode(signed_receipt.as_bytes()),
        },
        "state": state_vectors(&cast),
        "bundle": hex::encode(cast.bundle().encode()),
        "service_evidence": hex::encode(SERVICE_EVIDENCE),
        "bundle_with_service_evidence": hex::encode(cast.bundle_with_evidence().encode()),
    });
    compare_or_freeze(&made);
}

/// Heads before and after, the receipt that names them, and the bundle that carries the later ones.
fn state_vectors(cast: &Cast) -> Value {
    let heads = |heads: StateHeads| {
        json!({
            "token": hex::encode(heads.encode()),
            "digest": hex::encode(heads.digest().as_bytes()),
        })
    };
    let receipt = cast.receipt_on_state();
    json!({
        "capsule": hex::encode(CAPSULE.as_bytes()),
        "before": heads(before()),
        "after": heads(after()),
        "receipt": {
            "payload": hex::encode(wire::encode(&receipt)),
            "signed": hex::encode(Signed::sign(&cast.worker, receipt).as_bytes()),
        },
        "bundle": hex::encode(cast.bundle_on_state().encode()),
    })
}

#[test]
fn the_frozen_signatures_verify_without_our_code() {
    let vectors = frozen();
    for (what, signer) in [("certificate", "service"), ("receipt", "worker")] {
        let signed = bytes(&vectors[what]["signed"]);
        let (_, signature) = signed.split_at(signed.len() - 64);
        UnparsedPublicKey::new(&ED25519, bytes(&vectors["keys"][signer]))
            .verify(&bytes(&vectors[what]["sig_structure"]), signature)
            .unwrap();
    }
}

#[test]
fn the_frozen_bundles_verify() {
    let vectors = frozen();
    for name in BUNDLES {
        assert!(believed(&bytes(vectors.pointer(name).unwrap())), "{name}");
    }
}

#[test]
fn every_flipped_bit_of_a_bundle_is_refused() {
    let vectors = frozen();
    for name in BUNDLES {
        let good = bytes(vectors.pointer(name).unwrap());
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(!believed(&bad), "{name}: byte {at}, bit {bit}");
            }
            assert!(!believed(&good[..at]), "{name} cut to {at} bytes");
        }
    }
}

#[test]
fn every_flipped_bit_of_certificate_and_receipt_is_refused() {
    let vectors = frozen();
    let cast = Cast::new();
    flips(&bytes(&vectors["certificate"]["signed"]), |bytes| {
        let signed = Signed::<WorkerCertificate>::decode(bytes).ok();
        signed
            .and_then(|signed| signed.verify(&cast.service.principal()).ok())
            .is_some()
    });
    flips(&bytes(&vectors["receipt"]["signed"]), |bytes| {
        let signed = Signed::<Receipt>::decode(bytes).ok();
        signed
            .and_then(|signed| signed.verify(&cast.worker.principal()).ok())
            .is_some()
    });
}

#[test]
fn a_bundle_longer_than_the_limit_is_refused_before_it_is_read() {
    let error = ReceiptBundle::decode(&vec![0; BUNDLE_BYTES_MAX + 1]).unwrap_err();
    assert!(matches!(error, wire::WireError::TooLong { .. }));
}

const BUNDLES: [&str; 3] = ["/bundle", "/bundle_with_service_evidence", "/state/bundle"];

fn flips(good: &[u8], accepts: impl Fn(&[u8]) -> bool) {
    assert!(accepts(good));
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << bit;
            assert!(!accepts(&bad), "byte {at}, bit {bit}");
        }
    }
}

fn believed(bundle: &[u8]) -> bool {
    let cast = Cast::new();
    ReceiptBundle::decode(bundle)
        .is_ok_and(|bundle| verify(&bundle, &cast.anchor(), cast.expected(), cast.now()).is_ok())
}

/// `Sig_structure` of RFC 9052 §4.4, by hand.
fn sig_structure(signer: Principal, domain: &str, payload: &[u8]) -> Vec<u8> {
    let header = [0xa2, 0x01, 0x27, 0x04, 0x58, 0x20];
    let mut e = Encoder::new(Vec::new());
    e.array(4).unwrap().str("Signature1").unwrap();
    e.bytes(&[&header[..], signer.as_bytes()].concat()).unwrap();
    e.bytes(domain.as_bytes()).unwrap().bytes(payload).unwrap();
    e.into_writer()
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
fn compare_or_freeze(made: &Value) {
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        std::fs::write(path(), serde_json::to_string_pretty(made).unwrap() + "\n").unwrap();
    }
    assert_eq!(
        &frozen(),
        made,
        "{FILE} is frozen: a change here is a new version"
    );
}

fn path() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../spec/vectors")
        .join(FILE)
}
