//! Every refusal has its status, its slug and leaves what is held alone.

use std::sync::Arc;

use base64::Engine as _;
use bield_capsule::{Change, Head, Received, Suite, WriterCertificate, WriterKey};
use bield_envelope::{Digest, Seeded, Signed, SigningKey};
use bield_store::admission::{Owners, Quotas};

use crate::support::*;

/// A node that holds a chain of `count` records.
fn holding(count: usize) -> (Node, Capsule, bield_capsule::Writer, Vec<Received>) {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (writer, records) = capsule.chain(11, count);
    node.client.fill(&capsule, &records);
    (node, capsule, writer, records)
}

#[test]
fn a_gap_is_refused_with_what_is_held_and_the_records_before_it_stay() {
    let (node, mut capsule, mut writer, records) = holding(2);
    let next: Vec<_> = (0..4).map(|n| capsule.data(&mut writer, &[n])).collect();
    let name = capsule.name();
    let answer = node
        .client
        .append(&name, &[next[0].clone(), next[2].clone()]);
    assert_eq!(answer.refusal(), (409, "gap".into()));
    let said = answer.json();
    assert_eq!(
        (said["retry"].as_bool(), said["accepted"].as_u64()),
        (Some(true), Some(1))
    );
    assert_eq!(said["have"], records.len());
    let signed = said["acknowledgements"].as_str().unwrap();
    let signed = base64::engine::general_purpose::STANDARD
        .decode(signed)
        .unwrap();
    assert_eq!(acknowledgements(&signed)[0].head(), next[0].head());
    assert_eq!(
        node.client.records(&name, &writer.id()).len(),
        records.len() + 1
    );
}

#[test]
fn a_forged_signature_is_refused_wherever_it_is_changed() {
    let (node, mut capsule, mut writer, records) = holding(1);
    let record = capsule.data(&mut writer, b"true");
    let start = record.header_bytes().len();
    for at in (start..start + 64).step_by(7) {
        let mut bytes = record.as_bytes().to_vec();
        bytes[at] ^= 1;
        let forged = Received::decode(bytes).unwrap();
        let answer = node.client.append(&capsule.name(), &[forged]);
        assert_eq!(answer.refusal(), (422, "signature".into()));
    }
    assert_eq!(node.client.records(&capsule.name(), &writer.id()), records);
    assert_eq!(node.client.append(&capsule.name(), &[record]).status, 200);
}

#[test]
fn a_changed_body_is_refused_before_anything_else_is_looked_at() {
    let (node, mut capsule, mut writer, _) = holding(1);
    let record = capsule.data(&mut writer, b"true");
    let mut body = framed(&[record]);
    *body.last_mut().unwrap() ^= 1;
    let answer = node
        .client
        .post(&format!("/v1/capsules/{}/records", capsule.name()), &body);
    assert_eq!(answer.refusal(), (422, "bad-record".into()));
}

#[test]
fn a_record_that_names_another_predecessor_is_refused() {
    let (node, mut capsule, mut writer, records) = holding(2);
    // The twin forgets the newest record and writes two others: only the second one is sent.
    let mut twin = capsule.twin(11, &records[..2]);
    let _ = capsule.data(&mut twin, b"other");
    let after = capsule.data(&mut twin, b"after other");
    let answer = node.client.append(&capsule.name(), &[after]);
    assert_eq!(answer.refusal(), (409, "prev".into()));
    let good = capsule.data(&mut writer, b"goes on");
    assert_eq!(node.client.append(&capsule.name(), &[good]).status, 200);
}

#[test]
fn a_writer_nobody_admitted_is_refused() {
    let (node, mut capsule, ..) = holding(1);
    let stranger = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(77));
    let (_, open) = capsule.open(stranger, None);
    let answer = node.client.append(&capsule.name(), &[open]);
    assert_eq!(answer.refusal(), (403, "not-admitted".into()));
}

#[test]
fn a_revoked_writer_is_refused_from_its_cut_on() {
    let (node, mut capsule, mut writer, records) = holding(2);
    let late = capsule.data(&mut writer, b"late");
    let writer_id = writer.id();
    let revoke = capsule.configure(&[Change::Revoke {
        writer: writer_id,
        last: Some(records[1].head().into()),
    }]);
    let name = capsule.name();
    assert_eq!(node.client.append(&name, &[revoke]).status, 200);
    let answer = node.client.append(&name, &[late]);
    assert_eq!(answer.refusal(), (403, "revoked".into()));
    assert_eq!(answer.json()["last"], 1);
    // What counts of it is named as its head; what was cut is not.
    assert_eq!(
        node.client.head_of(&name, &writer_id),
        Some(records[1].head())
    );
}

#[test]
fn a_certificate_that_has_ended_admits_nobody_now() {
    let certifier = SigningKey::generate(&mut Seeded::new(5));
    let mut capsule = Capsule::new(10, &[Change::Certify(certifier.principal())]);
    let node = Setup::new(1).start();
    node.client.fill(&capsule, &[]);
    let certified = |capsule: &Capsule, seed: u64, from: u64, to: u64| {
        let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(seed));
        let hour = |hours: u64| {
            bield_envelope::Time::from_millis(
                now().as_millis() - 10 * 3_600_000 + hours * 3_600_000,
            )
        };
        let certificate = WriterCertificate {
            capsule: capsule.name(),
            writer: key.id(),
            code: None,
            simulated: false,
            not_before: hour(from),
            not_after: hour(to),
        };
        (
            key,
            Signed::sign(&certifier, certificate).as_bytes().to_vec(),
            hour(from),
        )
    };
    // Its clock lies inside of its window, as a thief would set it; its arrival does not.
    let (key, certificate, then) = certified(&capsule, 6, 1, 2);
    let config = capsule.owner.head().unwrap();
    let (_, old) =
        bield_capsule::Writer::open(key, &capsule.metadata, config, Some(&certificate), then)
            .unwrap();
    let answer = node.client.append(&capsule.name(), &[old]);
    assert_eq!(answer.refusal(), (403, "certificate".into()));
    let (key, certificate, _) = certified(&capsule, 7, 1, 20);
    let (_, good) = capsule.open(key, Some(&certificate));
    assert_eq!(node.client.append(&capsule.name(), &[good]).status, 200);
}

#[test]
fn records_wait_for_the_configuration_they_name() {
    let node = Setup::new(1).start();
    let mut capsule = Capsule::new(10, &[]);
    let (_, records) = capsule.chain(11, 1);
    node.client.create(&capsule);
    let answer = node.client.append(&capsule.name(), &records);
    assert_eq!(answer.refusal(), (409, "config-gap".into()));
    assert_eq!(answer.json()["need"], 1);
    node.client.fill(&capsule, &records);
}

#[test]
fn a_record_of_another_capsule_is_refused() {
    let (node, _, _, _) = holding(1);
    let mut other = Capsule::new(20, &[]);
    let (_, records) = other.chain(21, 1);
    let first = Capsule::new(10, &[]);
    // Another metadata nonce, another name: the first capsule here is found by listing.
    drop(first);
    let list = node.client.get("/v1/capsules").json();
    let name = list["capsules"][0]["name"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let answer = node.client.append(&name, &records);
    assert_eq!(answer.refusal(), (422, "other-capsule".into()));
}

#[test]
fn two_records_for_one_place_freeze_the_writer_and_are_proof() {
    let (node, mut capsule, mut writer, records) = holding(3);
    let mut twin = capsule.twin(11, &records[..3]);
    let other = capsule.data(&mut twin, b"another story");
    let name = capsule.name();
    let answer = node.client.append(&name, &[other]);
    assert_eq!(answer.refusal(), (409, "forked".into()));
    let proofs = node.client.forks(&name);
    let proof = bield_capsule::ForkProof::decode(&proofs[0]).unwrap();
    let fork = proof.verify(&name).unwrap();
    assert_eq!((fork.writer, fork.seq), (writer.id(), 3));
    let next = capsule.data(&mut writer, b"as if nothing had happened");
    assert_eq!(
        node.client.append(&name, &[next]).refusal(),
        (409, "forked".into())
    );

    // It stays frozen after a restart, and a second store learns it from the proof alone.
    let (directory, _) = node.stop();
    let setup = Setup {
        directory,
        ..Setup::new(1)
    };
    let again = setup.start();
    assert_eq!(again.client.forks(&name), proofs);
    let next = capsule.data(&mut writer, b"again");
    assert_eq!(again.client.append(&name, &[next]).status, 409);
    let second = Setup::new(2).start();
    second.client.fill(&capsule, &records);
    let told = second
        .client
        .post(&format!("/v1/capsules/{name}/forks"), &proofs[0]);
    assert_eq!(told.status, 201, "{}", told.text());
    assert_eq!(second.client.forks(&name), proofs);
}

#[test]
fn a_fork_proof_about_a_stranger_or_of_nothing_is_refused() {
    let (node, capsule, _, records) = holding(1);
    let name = capsule.name();
    let path = format!("/v1/capsules/{name}/forks");
    assert_eq!(
        node.client.post(&path, b"nothing").refusal(),
        (422, "no-fork".into())
    );
    let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(99));
    let sign = |nonce: u8| {
        let config = Head {
            writer: capsule.owner.id(),
            seq: 0,
            hash: Digest::from_bytes([nonce; 32]),
        };
        let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(99));
        let (_, open) =
            bield_capsule::Writer::open(key, &capsule.metadata, config, None, now()).unwrap();
        open.signed_head()
    };
    let proof =
        bield_capsule::ForkProof::new(&capsule.metadata, key.public(), sign(1), sign(2)).unwrap();
    assert_eq!(
        node.client.post(&path, &proof.encode()).refusal(),
        (409, "unknown-writer".into())
    );
    assert!(node.client.forks(&name).is_empty() && !records.is_empty());
}

#[test]
fn only_listed_owners_create_capsules_and_only_so_many() {
    let (mut ours, theirs) = (Capsule::new(10, &[]), Capsule::new(20, &[]));
    let setup = Setup {
        owners: Owners::Listed([ours.owner.id()].into()),
        quotas: Quotas {
            capsules_max: 1,
            ..Quotas::default()
        },
        ..Setup::new(1)
    };
    let node = setup.start();
    let answer = node.client.create(&theirs);
    assert_eq!(answer.refusal(), (403, "owner-not-admitted".into()));
    assert_eq!(node.client.create(&ours).status, 201);
    let key = WriterKey::generate(Suite::Ed25519, &mut Seeded::new(10));
    let second =
        bield_capsule::Metadata::new(key.public(), None, now(), &mut ours.entropy).unwrap();
    let answer = node.client.put(
        &format!("/v1/capsules/{}", second.name()),
        second.as_bytes(),
    );
    assert_eq!(answer.refusal(), (409, "capsules-quota".into()));
    assert_eq!(
        node.client.create(&ours).status,
        200,
        "one that is here is no new one"
    );
}

#[test]
fn a_capsule_grows_to_its_quota_and_no_further() {
    let quota = 3000;
    let mut capsule = Capsule::new(10, &[Change::Quota(quota)]);
    let node = Setup::new(1).start();
    let (_, records) = capsule.chain(11, 20);
    node.client.fill(&capsule, &[]);
    let answer = node.client.append(&capsule.name(), &records);
    assert_eq!(answer.refusal(), (413, "quota".into()));
    let accepted = answer.json()["accepted"].as_u64().unwrap() as usize;
    let held: usize = capsule
        .config
        .iter()
        .chain(&records[..accepted])
        .map(|r| r.as_bytes().len())
        .sum();
    assert!(
        accepted > 0
            && held as u64 <= quota
            && held + records[accepted].as_bytes().len() > quota as usize
    );
}

#[test]
fn requests_beyond_a_limit_are_refused_in_words() {
    let node = Setup::new(1).start();
    let capsule = Capsule::new(10, &[]);
    let name = capsule.name();
    let long = vec![0; (8 << 20) + 1];
    let records = format!("/v1/capsules/{name}/records");
    assert_eq!(
        node.client.post(&records, &long).refusal(),
        (413, "too-long".into())
    );
    assert_eq!(
        node.client.post(&records, &[0, 0, 0, 9, 1]).refusal(),
        (404, "no-capsule".into())
    );
    node.client.create(&capsule);
    assert_eq!(
        node.client.post(&records, &[0, 0, 0, 9, 1]).refusal(),
        (422, "bad-frame".into())
    );
    for (path, status) in [
        (format!("/v1/capsules/{name}/heads"), 400),
        (format!("/v1/capsules/{name}/heads?nonce=12"), 400),
        (
            format!("/v1/capsules/{name}/heads?nonse={}", "00".repeat(16)),
            400,
        ),
        (format!("/v1/capsules/{name}/records/xyz"), 400),
        (
            format!("/v1/capsules/{name}/records/{}", "00".repeat(32)),
            404,
        ),
        (
            format!(
                "/v1/capsules/{}/heads?nonce={}",
                "00".repeat(32),
                "00".repeat(16)
            ),
            404,
        ),
        (format!("/v1/capsules/{name}/log/tile/0/000"), 404),
        (format!("/v1/capsules/{name}/log/tile/none"), 400),
    ] {
        let answer = node.client.get(&path);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.json()["message"].as_str().unwrap().len() > 20);
    }
    let other = format!("/v1/capsules/{}", "11".repeat(32));
    assert_eq!(
        node.client
            .put(&other, capsule.metadata.as_bytes())
            .refusal(),
        (422, "bad-metadata".into())
    );
    assert!(
        node.client
            .get("/metrics")
            .text()
            .contains("bield_store_refusals_total{kind=\"bad-frame\"} 1")
    );
    let _ = Arc::clone(&node.directory);
}
