//! The frozen bytes of spec/03, made again from seeds and compared.
//!
//! `BIELD_FREEZE_VECTORS=1 cargo test -p bield-session --test vectors` writes the file anew. ECDSA
//! signatures are randomised, so the certificate is an input: frozen once, read every time.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

mod support;

use bield_envelope::Seeded;
use bield_evidence::{
    Endorsements, HardeningDemand, HardeningStatement, Protection, TeeKind, claims_report_data,
};
use bield_session::{
    BINDING_EXPORTER_LABEL, Bind, Binding, GATE_EXPORTER_LABEL, GateMessage, Hello,
    PeerCertificate, Proof, RefusalCode, RefusalNotice, Role, SessionClaims, SessionKey, Side,
    provider, signed_bytes,
};
use serde_json::{Value, json};
use support::*;

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads its vectors; core itself does no I/O"
)]
#[test]
fn the_frozen_vectors_come_out_again() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../spec/vectors/03-session.json"
    );
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made(&new_certificate())).unwrap();
        std::fs::write(path, text + "\n").unwrap();
    }
    let frozen: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let certificate = hex::decode(frozen["certificate"]["der"].as_str().unwrap()).unwrap();
    assert_eq!(made(&certificate), frozen);
}

#[test]
fn every_changed_byte_of_a_vector_gives_another_h_or_does_not_decode() {
    let key = SessionKey::generate(&mut Seeded::new(SEED));
    let [connector, acceptor] = hellos().map(|hello| GateMessage::Hello(hello).encode());
    let right = binding(&key, &connector, &acceptor, &hardening()).digest();
    for (own, at) in (0..connector.len())
        .map(|at| (true, at))
        .chain((0..acceptor.len()).map(|at| (false, at)))
    {
        let (mut one, mut two) = (connector.clone(), acceptor.clone());
        let changed = if own { &mut one } else { &mut two };
        changed[at] ^= 0x01;
        assert_ne!(binding(&key, &one, &two, &hardening()).digest(), right);
    }
    for message in messages() {
        let bytes = message.encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x20;
            // Decodes to something else or not at all: never to the same message.
            let again = GateMessage::decode(&changed).map(|message| message.encode());
            assert_ne!(again.ok().as_ref(), Some(&bytes), "byte {at}");
        }
    }
}

fn made(certificate: &[u8]) -> Value {
    let key = SessionKey::generate(&mut Seeded::new(SEED));
    let claims = claims(&key);
    let buffer = claims.encode();
    let read = PeerCertificate::parse(certificate, &provider()).unwrap();
    assert_eq!((read.claims(), read.spki()), (&claims, key.spki()));

    let [connector, acceptor] = hellos().map(|hello| GateMessage::Hello(hello).encode());
    let h = binding(&key, &connector, &acceptor, &hardening()).digest();
    let [hello, answer, bind, accept, refusal] = messages().map(|m| hex::encode(m.encode()));
    json!({
        "format": "bield session v2, see spec/03-session.md",
        "key": { "scalar": hex::encode(raw::scalar(SEED)), "spki": hex::encode(key.spki()) },
        "claims": {
            "role": "key-service",
            "service": hex::encode(SERVICE.as_bytes()),
            "issued_at_ms": NOW.as_millis(),
            "kind": "sgx",
            "hardening": hex::encode(hardening().encode()),
            "claims_buffer": hex::encode(&buffer),
            "report_data": hex::encode(claims_report_data(&buffer)),
        },
        "certificate": { "quote": hex::encode(QUOTE), "der": hex::encode(certificate) },
        "exporter_labels": [GATE_EXPORTER_LABEL, BINDING_EXPORTER_LABEL],
        "binding": {
            "side": "acceptor",
            "prover": "key-service",
            "verifier": "runtime",
            "exporter": hex::encode(EXPORTER),
            "connector_hello": hex::encode(&connector),
            "acceptor_hello": hex::encode(&acceptor),
            "prover_key": hex::encode(key.spki()),
            "verifier_key": hex::encode(verifier_key()),
            "service": hex::encode(SERVICE.as_bytes()),
            "h": hex::encode(h),
            "signed_bytes": hex::encode(signed_bytes(&h)),
        },
        "messages": {
            "hello_connector": hello,
            "hello_acceptor": answer,
            "bind": bind,
            "accept": accept,
            "refusal": refusal,
        },
        "frames": { "gate_accept": frame(1, &GateMessage::Accept.encode()), "data_ab": frame(2, b"ab") },
    })
}

/// kind u8 ‖ length u32 big endian ‖ payload.
fn frame(kind: u8, payload: &[u8]) -> String {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    hex::encode([&[kind][..], &length, payload].concat())
}

fn claims(key: &SessionKey) -> SessionClaims {
    SessionClaims::new(
        key.spki(),
        Role::KeyService,
        Some(SERVICE),
        NOW,
        TeeKind::Sgx,
        hardening(),
    )
}

fn new_certificate() -> Vec<u8> {
    let key = SessionKey::generate(&mut Seeded::new(SEED));
    let until = NOW.plus(std::time::Duration::from_secs(24 * 3600));
    bield_session::certificate_der(&key, QUOTE, &claims(&key).encode(), NOW, until).unwrap()
}

fn hellos() -> [Hello; 2] {
    [
        Hello {
            nonce: [0xc0; 32],
            role: Role::Runtime,
            want: Some(Proof::Cached),
        },
        Hello {
            nonce: [0xac; 32],
            role: Role::KeyService,
            want: Some(Proof::Fresh),
        },
    ]
}

fn messages() -> [GateMessage; 5] {
    let [connector, acceptor] = hellos();
    [
        GateMessage::Hello(connector),
        GateMessage::Hello(acceptor),
        GateMessage::Bind(Bind {
            signature: vec![0x30; 70],
            quote: Some(QUOTE.to_vec()),
            endorsements: Endorsements::Dcap(b"{}".to_vec()),
        }),
        GateMessage::Accept,
        GateMessage::Refusal(RefusalNotice::new(
            RefusalCode::Policy,
            "measurement, tcb-status",
        )),
    ]
}

fn hardening() -> HardeningStatement {
    HardeningStatement::new(HardeningDemand::GUEST, [Protection::LockedMemory])
}

fn binding<'a>(
    key: &'a SessionKey,
    connector: &'a [u8],
    acceptor: &'a [u8],
    hardening: &'a HardeningStatement,
) -> Binding<'a> {
    Binding {
        side: Side::Acceptor,
        prover: Role::KeyService,
        verifier: Role::Runtime,
        exporter: &EXPORTER,
        connector_hello: connector,
        acceptor_hello: acceptor,
        prover_key: key.spki(),
        verifier_key: verifier_key(),
        service: Some(&SERVICE),
        hardening,
    }
}

const fn verifier_key() -> &'static [u8] {
    &[0x7e; 91]
}

const SEED: u64 = 3;
const EXPORTER: [u8; 32] = [0xe0; 32];
const QUOTE: &[u8] = b"not a quote: session vectors end where spec/02 begins";
