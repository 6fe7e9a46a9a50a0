//! Frozen bytes of `spec/04-grant.md`: what a second implementation must produce and refuse.
//!
//! `BIELD_FREEZE_VECTORS=1` writes the file instead of comparing with it.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use bield_envelope::{
    AudienceKey, Digest, RequestHeader, SealedRequest, Secret, Seeded, Signed, SigningKey, Time,
    Verified, seal_request, wire,
};
use bield_evidence::{Measurement, TeeKind};
use bield_grant::{
    Grant, Isolation, Lease, Leased, REQUEST_AGE_MAX, ReplayGuard, Revocations, admit, audience,
};
use minicbor::Encoder;
use serde_json::{Value, json};

const NOON: Time = Time::from_secs(1_800_000_000);

#[test]
fn the_vectors_are_what_this_crate_makes() {
    let cast = Cast::new();
    let grant = Signed::sign(&cast.owner, cast.grant());
    let made = json!({
        "about": "spec/04-grant.md. Byte strings are hex, times are milliseconds since 1970.",
        "keys": {
            "owner_seed": hex::encode(cast.owner.seed().expose()),
            "owner": hex::encode(cast.owner.principal().as_bytes()),
            "user_seed": hex::encode(cast.user.seed().expose()),
            "user": hex::encode(cast.user.principal().as_bytes()),
        },
        "grant": {
            "id": hex::encode(grant.id),
            "package": hex::encode(grant.package.as_bytes()),
            "user": hex::encode(grant.user.as_bytes()),
            "code": grant.code.to_string(),
            "isolation": grant.isolation.to_string(),
            "not_before": grant.not_before.as_millis(),
            "not_after": grant.not_after.as_millis(),
            "payload": hex::encode(wire::encode(&cast.grant())),
            "sig_structure": hex::encode(sig_structure(&cast.owner, GRANT, &wire::encode(&*grant))),
            "signed": hex::encode(grant.as_bytes()),
            "digest": hex::encode(grant.digest().as_bytes()),
            "audience": hex::encode(grant.audience().as_bytes()),
        },
        "audiences": audiences(),
        "refused": refused(&cast),
        "decisions": decisions(&cast, &grant),
    });
    compare_or_freeze("04-grant.json", &made);
}

#[test]
fn the_frozen_grant_verifies_and_says_what_the_vector_says() {
    let vectors = frozen("04-grant.json");
    let cast = Cast::new();
    let signed = Signed::<Grant>::decode(&bytes(&vectors["grant"]["signed"])).unwrap();
    let grant = signed.verify(&cast.owner.principal()).unwrap();
    assert_eq!(*grant, cast.grant());
    // RFC 9052 §4.4, built here by hand: what the 64 bytes at the end sign.
    let message = bytes(&vectors["grant"]["sig_structure"]);
    let (_, signature) = grant.as_bytes().split_at(grant.as_bytes().len() - 64);
    let key = bytes(&vectors["keys"]["owner"]);
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&message, signature)
        .unwrap();
    let by_hand = cose_sign1(&cast.owner, GRANT, &bytes(&vectors["grant"]["payload"]));
    assert_eq!(grant.as_bytes(), by_hand);
}

#[test]
fn every_flipped_bit_of_the_grant_is_refused() {
    let owner = Cast::new().owner.principal();
    let good = bytes(&frozen("04-grant.json")["grant"]["signed"]);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            assert!(verifies(&bad, &owner).is_none(), "byte {at}, bit {bit}");
        }
        assert!(verifies(&good[..at], &owner).is_none(), "cut to {at} bytes");
    }
    assert!(verifies(&good, &owner).is_some());
}

#[test]
fn every_refused_vector_is_refused() {
    let owner = Cast::new().owner.principal();
    for case in frozen("04-grant.json")["refused"].as_array().unwrap() {
        assert!(
            verifies(&bytes(&case["signed"]), &owner).is_none(),
            "{}",
            case["why"]
        );
    }
}

fn verifies(bytes: &[u8], owner: &bield_envelope::Principal) -> Option<Verified<Grant>> {
    Signed::<Grant>::decode(bytes).ok()?.verify(owner).ok()
}

/// Correctly signed by the owner, and yet not grants.
fn refused(cast: &Cast) -> Value {
    let grant = cast.grant();
    let payload = wire::encode(&grant);
    let isolation_at = payload.len() - 2 * 10 - 1;
    assert_eq!(
        payload[isolation_at], 1,
        "isolation `wiped`, before two times of 1 + 9 bytes"
    );
    let mut unknown = payload.clone();
    unknown[isolation_at] = 3;
    let mut long_form = payload.clone();
    long_form.splice(isolation_at..=isolation_at, [0x18, 0x01]);
    let mut indefinite = payload.clone();
    indefinite[0] = 0xbf;
    indefinite.push(0xff);
    let mut extra_key = payload.clone();
    extra_key[0] = 0xa8;
    extra_key.extend([0x07, 0x00]);
    let missing_key = [&[0xa6], &payload[1..payload.len() - 10]].concat();
    let case = |why: &str, domain: &str, payload: &[u8]| json!({ "why": why, "signed": hex::encode(cose_sign1(&cast.owner, domain, payload)) });
    json!([
        case("isolation 3 is unknown", GRANT, &unknown),
        case(
            "isolation in two bytes where one suffices",
            GRANT,
            &long_form
        ),
        case("map of indefinite length", GRANT, &indefinite),
        case("an unknown key 7", GRANT, &extra_key),
        case("not_after is missing", GRANT, &missing_key),
        case(
            "a byte follows the map",
            GRANT,
            &[&payload[..], &[0]].concat()
        ),
        case(
            "signed as another kind of statement",
            "bield receipt v1",
            &payload
        ),
    ])
}

fn audiences() -> Value {
    let package = digest(b"package");
    [(TeeKind::Sgx, 32), (TeeKind::Tdx, 48), (TeeKind::Snp, 48)]
        .map(|(kind, length)| {
            let code = Measurement::new(kind, &vec![0xab; length]).unwrap();
            json!({
                "package": hex::encode(package.as_bytes()),
                "code": code.to_string(),
                "audience": hex::encode(audience(package, &code).as_bytes()),
            })
        })
        .into()
}

/// One request each, with one thing changed, and what becomes of it.
fn decisions(cast: &Cast, grant: &Verified<Grant>) -> Value {
    let past = NOON.minus(REQUEST_AGE_MAX).as_millis();
    let millis = Time::from_millis;
    let mut story = Story {
        cast,
        grant,
        cases: Vec::new(),
    };
    story.tell("as granted", |_| ());
    story.tell("oldest that is fresh", |request| {
        request.created = millis(past)
    });
    story.tell("too old", |request| request.created = millis(past - 1));
    story.tell("latest that is not early", |request| {
        request.created = millis(NOON.as_millis() + 60_000)
    });
    story.tell("from the future", |request| {
        request.created = millis(NOON.as_millis() + 60_001)
    });
    story.tell("sealed for other code", |request| {
        let other = Measurement::new(TeeKind::Sgx, &[1; 32]).unwrap();
        request.audience = audience(request.package, &other);
    });
    story.tell("for another package", |request| {
        request.package = digest(b"other package")
    });
    json!(story.cases)
}

struct Story<'a> {
    cast: &'a Cast,
    grant: &'a Verified<Grant>,
    cases: Vec<Value>,
}

impl Story<'_> {
    fn tell(&mut self, title: &str, change: impl Fn(&mut RequestHeader)) {
        let mut entropy = Seeded::new(404);
        let key = AudienceKey::generate(&mut entropy);
        let mut header = RequestHeader {
            audience: self.grant.audience(),
            key: key.public().id(),
            package: self.grant.package,
            id: [9; 16],
            created: NOON,
        };
        change(&mut header);
        let (sealed, _) =
            seal_request(key.public(), &header, &self.cast.user, b"", &mut entropy).unwrap();
        let (opened, _) = key.open(&SealedRequest::parse(&sealed).unwrap()).unwrap();
        let lease = Lease {
            package: self.grant.package,
            owner: self.cast.owner.principal(),
            code: self.grant.code.clone(),
            simulated: true,
            not_after: self.grant.not_after,
        };
        let leased = Leased {
            lease: &lease,
            key: header.key,
            grants: core::slice::from_ref(self.grant),
            revoked: &Revocations::new(),
        };
        let decision = admit(opened, leased, &mut ReplayGuard::new(1), NOON);
        self.cases.push(json!({
            "title": title,
            "sender": hex::encode(self.cast.user.principal().as_bytes()),
            "header": hex::encode(wire::encode(&header)),
            "leased_package": hex::encode(lease.package.as_bytes()),
            "leased_audience": hex::encode(lease.audience().as_bytes()),
            "now": NOON.as_millis(),
            "decision": decision.map_or_else(|refused| refused.code(), |_| "admitted"),
        }));
    }
}

struct Cast {
    owner: SigningKey,
    user: SigningKey,
}

impl Cast {
    fn new() -> Self {
        let mut entropy = Seeded::new(4);
        let mut key = || SigningKey::from_seed(Secret::generate(&mut entropy));
        Self {
            owner: key(),
            user: key(),
        }
    }

    fn grant(&self) -> Grant {
        Grant {
            id: core::array::from_fn(|index| u8::try_from(index).unwrap()),
            package: digest(b"package"),
            user: self.user.principal(),
            code: Measurement::new(TeeKind::Sgx, &[0xc0; 32]).unwrap(),
            isolation: Isolation::Wiped,
            not_before: NOON,
            not_after: Time::from_secs(1_802_592_000),
        }
    }
}

const GRANT: &str = "bield grant v1";

fn digest(name: &[u8]) -> Digest {
    Digest::of("bield test vector v1", &[name])
}

/// COSE_Sign1 written by hand from RFC 9052 §4.2, so that the vectors do not rest on the code
/// they check.
fn cose_sign1(signer: &SigningKey, domain: &str, payload: &[u8]) -> Vec<u8> {
    let key = Ed25519KeyPair::from_seed_unchecked(signer.seed().expose()).unwrap();
    let signature = key.sign(&sig_structure(signer, domain, payload));
    let mut e = Encoder::new(vec![0xd2]);
    e.array(4).unwrap();
    e.bytes(&protected(signer)).unwrap().map(0).unwrap();
    e.bytes(payload).unwrap().bytes(signature.as_ref()).unwrap();
    e.into_writer()
}

/// `Sig_structure` of RFC 9052 §4.4.
fn sig_structure(signer: &SigningKey, domain: &str, payload: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    e.array(4).unwrap().str("Signature1").unwrap();
    e.bytes(&protected(signer)).unwrap();
    e.bytes(domain.as_bytes()).unwrap().bytes(payload).unwrap();
    e.into_writer()
}

fn protected(signer: &SigningKey) -> Vec<u8> {
    let header = [0xa2, 0x01, 0x27, 0x04, 0x58, 0x20];
    [&header[..], signer.principal().as_bytes()].concat()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads and writes its vectors"
)]
fn frozen(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test reads and writes its vectors"
)]
fn compare_or_freeze(name: &str, made: &Value) {
    if std::env::var_os("BIELD_FREEZE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(made).unwrap() + "\n";
        std::fs::write(path(name), text).unwrap();
    }
    assert_eq!(
        &frozen(name),
        made,
        "{name} is frozen: a change here is a new version"
    );
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../spec/vectors")
        .join(name)
}
