//! `spec/vectors/01-envelope.json`: frozen bytes that a second implementation must reproduce.
//!
//! `BIELD_FREEZE_VECTORS=1` writes the file; otherwise it must be exactly what this code produces.

#![expect(
    clippy::disallowed_methods,
    reason = "tests read and freeze the vectors"
)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use bield_envelope::{
    AudienceKey, Digest, RequestHeader, SealedRequest, Secret, Seeded, Signed, SigningKey,
    Statement, Time, seal_request, stream::StreamKey, wire,
};
use minicbor::{Decode, Encode};
use serde_json::{Value, json};

#[derive(Encode, Decode)]
#[cbor(map)]
struct Note {
    #[n(0)]
    text: String,
}

impl Statement for Note {
    const DOMAIN: &'static str = "bield vector note v1";
    const BYTES_MAX: usize = 256;
}

fn produce() -> Value {
    let secret = Secret::from_bytes([0x11; 32]);
    let derived = secret.derive("label", &[b"one", b"two"]);
    let digest = Digest::of("bield vector v1", &[b"one", b"", b"two"]);

    let user = SigningKey::from_seed(Secret::from_bytes([0x22; 32]));
    let note = Signed::sign(
        &user,
        Note {
            text: "shelter".into(),
        },
    );

    let mut chunk = Vec::new();
    StreamKey::new(&secret, *b"prefix-").seal(3, true, b"aad", b"plaintext", &mut chunk);

    let audience = AudienceKey::from_seed(Secret::from_bytes([0x33; 32]));
    let header = RequestHeader {
        audience: Digest::of("bield vector audience", &[]),
        key: audience.public().id(),
        package: Digest::of("bield vector package", &[]),
        id: [0x44; 16],
        created: Time::from_millis(1_795_000_000_123),
    };
    let mut entropy = Seeded::new(1);
    let body = b"what is this?";
    let (request, opener) =
        seal_request(audience.public(), &header, &user, body, &mut entropy).unwrap();
    let (opened, sealer) = audience
        .open(&SealedRequest::parse(&request).unwrap())
        .unwrap();
    assert_eq!(opened.body(), body);
    let response = sealer.seal(b"a shelter", &mut Seeded::new(2));
    assert_eq!(*opener.open(&response).unwrap(), *b"a shelter");

    json!({
        "derive": {
            "secret": hex::encode(secret.expose()), "label": "label", "context": ["6f6e65", "74776f"],
            "derived": hex::encode(derived.expose()),
        },
        "digest": {
            "domain": "bield vector v1", "parts": ["6f6e65", "", "74776f"],
            "digest": digest.to_string(),
        },
        "statement": {
            "seed": hex::encode(user.seed().expose()),
            "signer": user.principal().to_string(),
            "domain": Note::DOMAIN,
            "payload": hex::encode(wire::encode(&Note { text: "shelter".into() })),
            "cose_sign1": hex::encode(note.as_bytes()),
            "digest": note.digest().to_string(),
        },
        "stream": {
            "key": hex::encode(secret.expose()), "prefix": hex::encode(b"prefix-"),
            "index": 3, "last": true, "aad": hex::encode(b"aad"),
            "plaintext": hex::encode(b"plaintext"), "sealed": hex::encode(&chunk),
        },
        "request": {
            "audience_private_key": hex::encode(audience.seed().expose()),
            "audience_public_key": hex::encode(audience.public().as_bytes()),
            "audience_key_id": audience.public().id().to_string(),
            "header": hex::encode(wire::encode(&header)),
            "sender_seed": hex::encode(user.seed().expose()),
            "body": hex::encode(body),
            "sealed": hex::encode(&request),
            "digest": opened.digest().to_string(),
        },
        "response": {
            "body": hex::encode(b"a shelter"),
            "sealed": hex::encode(&response),
        },
    })
}

#[test]
fn the_frozen_vectors_hold() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../spec/vectors/01-envelope.json"
    );
    let produced = produce();
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        std::fs::write(path, format!("{produced:#}\n")).unwrap();
    }
    let frozen: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(
        produced, frozen,
        "the format changed: give it a new version instead"
    );
}

#[test]
fn the_frozen_request_and_answer_open_and_no_flipped_byte_does() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../spec/vectors/01-envelope.json"
    );
    let frozen: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let bytes =
        |object: &str, field: &str| hex::decode(frozen[object][field].as_str().unwrap()).unwrap();
    let seed = bytes("request", "audience_private_key").try_into().unwrap();
    let audience = AudienceKey::from_seed(Secret::from_bytes(seed));
    let sealed = bytes("request", "sealed");
    let (opened, _) = audience
        .open(&SealedRequest::parse(&sealed).unwrap())
        .unwrap();
    assert_eq!(opened.body(), bytes("request", "body"));
    for at in 0..sealed.len() {
        let mut bad = sealed.clone();
        bad[at] ^= 0x80;
        let opened = SealedRequest::parse(&bad).and_then(|parsed| audience.open(&parsed));
        assert!(opened.is_err(), "byte {at}");
    }
    let statement = bytes("statement", "cose_sign1");
    let signer = frozen["statement"]["signer"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        Signed::<Note>::decode(&statement)
            .unwrap()
            .verify(&signer)
            .is_ok()
    );
}
