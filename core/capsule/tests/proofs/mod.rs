//! What proof files show, and what they cannot be made to show (`spec/06 §7`).

use bield_capsule::{
    Acknowledgement, AcknowledgementError, Authority, Batch, CapsuleName, Kept, Kind,
    MetadataError, NotChecked, OpenError, PathError, Proof, ProofError, Received, Suite,
    VerifierPolicy, Writer, WriterKey,
};
use bield_envelope::{Secret, Seeded, Signed, SigningKey};

use crate::cast::{CODE, Cast, POLICY, at, generation};

fn cast() -> Cast {
    Cast::new(Suite::Ed25519, None)
}

fn refused(cast: &Cast, proof: &Proof) -> ProofError {
    proof.verify(&cast.name(), POLICY).unwrap_err()
}

fn cloned(records: &[&Received]) -> Vec<Received> {
    records.iter().copied().cloned().collect()
}

/// A proof of the last of `chain`, which begins with the open record.
fn proof_of(cast: &Cast, chain: &[&Received]) -> Proof {
    let (opening, head) = (chain[0].clone(), chain[chain.len() - 1].signed_head());
    let config = cloned(&cast.chain(&cast.owner));
    Proof::new(
        cast.metadata.clone(),
        config,
        Some(opening),
        head,
        Vec::new(),
    )
}

#[test]
fn a_proof_says_what_it_shows_and_what_not() {
    let cast = cast();
    let proven = cast.proof(2, Some(2)).verify(&cast.name(), POLICY).unwrap();
    assert_eq!(proven.head, cast.chain(&cast.alice)[10].head());
    assert_eq!(proven.target_hash, cast.chain(&cast.alice)[2].hash());
    assert_eq!(proven.config, cast.chain(&cast.owner)[3].head());
    assert!(matches!(
        &proven.authority,
        Authority::Certified { by, code: Some(code), simulated: true, .. }
            if *by == cast.certifier.principal() && **code == CODE
    ));
    let kept: Vec<_> = proven.acknowledged.iter().map(|said| said.kept).collect();
    assert!(kept.contains(&Kept::Synced) && kept.contains(&Kept::Written));
    assert_eq!((proven.synced(), proven.quorum.replicas), (1, 2));
    let entry = proven.entry.as_ref().unwrap();
    assert_eq!(entry.place().index, 2);
    assert_eq!(entry.entry().plain(), Some(&[7; 40][..]));
    use NotChecked::{Arrival, Between, Body, Forks, Freshness, OtherEntries, Parents, Seal};
    let always = [Freshness, Forks, Arrival, Between];
    assert_eq!(
        proven.not_checked,
        [&always[..], &[OtherEntries, Seal]].concat()
    );
    let inclusion = cast.proof(3, None).verify(&cast.name(), POLICY).unwrap();
    assert_eq!(
        inclusion.not_checked,
        [&always[..], &[Parents, Body]].concat()
    );
}

#[test]
fn an_erasable_entry_is_shown_sealed_and_opens_with_its_own_key() {
    let cast = cast();
    let proven = cast.proof(3, Some(1)).verify(&cast.name(), POLICY).unwrap();
    assert!(proven.not_checked.contains(&NotChecked::ErasableContent));
    let bield_capsule::Entry::Erasable(sealed) = proven.entry.as_ref().unwrap().entry() else {
        panic!("the entry is erasable");
    };
    let payload = sealed.open_with(&cast.entry_key).unwrap();
    assert_eq!(payload.as_slice(), b"may be erased");
    let other = sealed.open_with(&Secret::from_bytes([1; 32]));
    assert_eq!(other.unwrap_err(), OpenError::Commitment);
}

#[test]
fn a_change_of_configuration_is_proven_from_the_owner_alone() {
    let cast = cast();
    let config = cast.chain(&cast.owner);
    let (head, target) = (config[3], config[2].header().clone());
    let proof = |config: &[&Received]| {
        Proof::new(
            cast.metadata.clone(),
            cloned(config),
            None,
            head.signed_head(),
            vec![target.clone()],
        )
    };
    let proven = proof(&config).verify(&cast.name(), POLICY).unwrap();
    assert_eq!(proven.authority, Authority::Owner);
    assert_eq!((proven.target.kind, proven.target.seq), (Kind::Config, 2));
    let short = refused(&cast, &proof(&config[..3]));
    assert!(matches!(short, ProofError::Rule(_)));
}

#[test]
fn a_head_beyond_a_revocation_proves_nothing() {
    let cast = cast();
    let bob = cast.chain(&cast.bob);
    let proven = proof_of(&cast, &bob[..2]).verify(&cast.name(), POLICY);
    assert_eq!(proven.unwrap().authority, Authority::Admitted);
    let beyond = refused(&cast, &proof_of(&cast, &bob));
    assert!(matches!(beyond, ProofError::Revoked));
}

#[test]
fn another_capsule_or_a_simulated_certificate_is_refused_unless_policy_says_so() {
    let cast = cast();
    let proof = cast.proof(2, Some(2));
    let other = proof.verify(&CapsuleName::from_bytes([0; 32]), POLICY);
    assert!(matches!(
        other.unwrap_err(),
        ProofError::Metadata(MetadataError::OtherName { .. })
    ));
    let strict = proof.verify(&cast.name(), VerifierPolicy::default());
    assert!(matches!(strict.unwrap_err(), ProofError::Opening(_)));
}

#[test]
fn parts_that_do_not_fit_each_other_are_refused() {
    let cast = cast();
    let (owner, alice, bob) = (
        cast.chain(&cast.owner),
        cast.chain(&cast.alice),
        cast.chain(&cast.bob),
    );
    let proof = |config: &[&Received], opening: Option<&Received>, path| {
        let head = alice[10].signed_head();
        let opening = opening.cloned();
        Proof::new(cast.metadata.clone(), cloned(config), opening, head, path)
    };
    let rule = |proof: Proof| matches!(refused(&cast, &proof), ProofError::Rule(_));
    // The head names config record 2.
    assert!(rule(proof(&owner[..2], Some(alice[0]), Vec::new())));
    assert!(rule(proof(&owner, None, Vec::new())));
    assert!(rule(proof(&owner, Some(bob[0]), Vec::new())));
    assert!(rule(proof(&owner, Some(alice[1]), Vec::new())));
    let gap = proof(&[owner[1]], Some(alice[0]), Vec::new());
    assert!(matches!(
        refused(&cast, &gap),
        ProofError::Config { number: 0, .. }
    ));
    let config = [&owner[..], &[alice[0]]].concat();
    assert!(rule(proof(&config, Some(alice[0]), Vec::new())));
    let jump = vec![alice[7].header().clone()];
    assert!(matches!(
        refused(&cast, &proof(&owner, Some(alice[0]), jump)),
        ProofError::Path(PathError::Broken { at: 0 })
    ));
}

#[test]
fn a_record_outside_of_its_certificates_window_or_generation_is_refused() {
    let cast = cast();
    let seal = |number, config: usize, now| {
        let key = WriterKey::from_seed(cast.suite, Secret::from_bytes([0x12; 32])).unwrap();
        let config = cast.chain(&cast.owner)[config].head();
        let signed = cast.certificate.as_bytes();
        let (mut writer, open) =
            Writer::open(key, &cast.metadata, config, Some(signed), at(2)).unwrap();
        let mut batch = Batch::new();
        batch.push(b"late").unwrap();
        let mut entropy = Seeded::new(9);
        let generation = generation(number);
        let record = writer.seal(&batch, &generation, &[], at(now), &mut entropy);
        refused_or_not(&cast, &[&open, &record.unwrap()])
    };
    assert!(seal(1, 0, 999).is_ok());
    assert!(matches!(seal(1, 0, 1000), Err(ProofError::Window)));
    assert!(matches!(seal(1, 2, 999), Err(ProofError::Rule(_))));
    assert!(seal(2, 2, 999).is_ok());
}

fn refused_or_not(cast: &Cast, chain: &[&Received]) -> Result<(), ProofError> {
    let proven = proof_of(cast, chain).verify(&cast.name(), POLICY);
    proven.map(drop)
}

#[test]
fn acknowledgements_count_once_for_this_head_and_by_configured_replicas() {
    let cast = cast();
    let alice = cast.chain(&cast.alice);
    let with = |signer: &SigningKey, seq: usize, name| {
        let head = alice[seq].head();
        let word = Acknowledgement::of(name, head, Kept::Synced, at(20));
        let proof = cast.proof(2, None);
        let proof = proof.acknowledged([Signed::sign(signer, word).into_signed()]);
        proof.verify(&cast.name(), POLICY)
    };
    let why = |proven: Result<bield_capsule::Proven, ProofError>| match proven.unwrap_err() {
        ProofError::Acknowledgement { why, .. } => why,
        other => panic!("{other}"),
    };
    // Of two words of a replica one is dropped when the proof is made.
    let again = with(&cast.replicas[0], 10, cast.name()).unwrap();
    assert_eq!(again.acknowledged.len(), 2);
    let of_another_head = with(&cast.replicas[0], 9, cast.name()).unwrap();
    assert_eq!(of_another_head.acknowledged, again.acknowledged);
    let stranger = SigningKey::from_seed(Secret::from_bytes([0x99; 32]));
    let removed = &cast.replicas[2];
    for signer in [&stranger, removed] {
        let refused = why(with(signer, 10, cast.name()));
        assert_eq!(refused, AcknowledgementError::NotReplica);
    }
    let (earlier, name) = (
        with(removed, 9, cast.name()),
        CapsuleName::from_bytes([0; 32]),
    );
    assert_eq!(why(earlier), AcknowledgementError::OtherHead);
    assert_eq!(
        why(with(removed, 10, name)),
        AcknowledgementError::OtherHead
    );
}

#[test]
fn a_record_is_shown_with_its_own_secret_only() {
    let cast = cast();
    let alice = cast.chain(&cast.alice);
    let show = |record: &Received, secret: &Received, index| {
        let proof = cast.proof(2, None);
        proof.show(record, cast.secret(secret), index).unwrap_err()
    };
    assert!(matches!(
        show(alice[2], alice[3], 0),
        ProofError::Open(OpenError::Commitment)
    ));
    assert!(matches!(show(alice[3], alice[3], 0), ProofError::Rule(_)));
    assert!(matches!(show(alice[2], alice[2], 3), ProofError::Rule(_)));
}

#[test]
fn every_entry_of_every_record_can_be_shown_in_every_suite() {
    for suite in Suite::ALL {
        let cast = Cast::new(suite, None);
        for record in cast.chain(&cast.alice) {
            let seq = record.header().seq;
            for index in 0..record.header().count {
                let proof = Proof::decode(&cast.proof(seq, Some(index)).encode()).unwrap();
                let proven = proof.verify(&cast.name(), POLICY).unwrap();
                let (form, payload) = &cast.entries(record)[index as usize];
                match proven.entry.unwrap().entry() {
                    bield_capsule::Entry::Plain(shown) => {
                        assert_eq!((*form, shown), (0, payload.as_slice()));
                    }
                    bield_capsule::Entry::Erasable(sealed) => {
                        assert_eq!(*form, 1);
                        assert_eq!(*sealed.open_with(&cast.entry_key).unwrap(), *payload);
                    }
                }
            }
        }
    }
}
