//! Messages and sessions: who may say what.

use bield_envelope::{Secret, Signed};
use bield_evidence::TeeKind;
use bield_grant::CodeSelector;
use bield_package::tensor::{ElementType, TensorSpec};
use bield_protocol::service::{
    Command, LeaseRequest, Operation, PackageOffer, Reply, Request, Returned, Share,
};
use zeroize::Zeroizing;

use super::cast::{Scene, code, grant, header, key, offer, principal};
use super::{Turn, turn};

#[test]
fn a_command_counts_once_and_only_in_its_session_and_place() {
    let mut scene = Scene::new();
    let command = |session, sequence| {
        let operation = Operation::Register;
        let command = Command {
            session,
            sequence,
            operation,
        };
        Request::Command(Signed::sign(&key(1), command).into_signed())
    };
    let refused = |scene: &mut Scene, request| scene.answer(request).map(drop).unwrap_err();
    assert_eq!(refused(&mut scene, command([8; 32], 0)), "other-session");
    assert_eq!(refused(&mut scene, command([7; 32], 1)), "out-of-order");
    scene.answer(command([7; 32], 0)).unwrap();
    assert_eq!(refused(&mut scene, command([7; 32], 0)), "out-of-order");
    scene.answer(command([7; 32], 1)).unwrap();
}

#[test]
fn a_refused_command_uses_its_number_up() {
    let mut scene = Scene::new();
    let thief = key(3);
    let refused = scene.order(&thief, Operation::RotateIdentity).map(drop);
    assert_eq!(refused, Err("not-registered".into()));
    assert_eq!(scene.session.sequence, 1);
}

#[test]
fn an_altered_command_is_nobodys() {
    let mut scene = Scene::new();
    let bytes = scene.sign(&key(1), Operation::Register).as_bytes().to_vec();
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let Ok(command) = Signed::<Command>::decode(&bad) else {
            continue;
        };
        let refused = scene.answer(Request::Command(command)).map(drop);
        assert_eq!(refused, Err("invalid-signature".into()), "byte {at}");
    }
    assert_eq!(scene.session.sequence, 0);
}

#[test]
fn nobody_can_speak_for_another_principal() {
    let (mut scene, package) = Scene::with_package();
    let (owner, thief) = (key(1), key(3));
    scene.order(&thief, Operation::Register).unwrap();
    let stolen = header(&owner, "loot", "1.0.0");
    assert_eq!(
        scene.put_header(&thief, &stolen, 9),
        Err("invalid-signature".into())
    );
    let forged = scene.grant(&thief, grant(1, package)).map(drop);
    assert_eq!(forged, Err("not-owner".into()));
    let owners = Signed::sign(&owner, grant(1, package)).into_signed();
    let refused = scene.order(&thief, Operation::Grant(owners)).map(drop);
    assert_eq!(refused, Err("invalid-signature".into()));
    for operation in [
        Operation::DeletePackage(package),
        Operation::RotateAudience {
            package,
            at_once: true,
        },
    ] {
        assert_eq!(
            scene.order(&thief, operation).map(drop),
            Err("not-owner".into())
        );
    }
}

#[test]
fn a_secret_beside_a_command_is_the_one_it_commits_to() {
    let mut scene = Scene::new();
    let owner = key(1);
    scene.order(&owner, Operation::Register).unwrap();
    let header = header(&owner, "shelter", "1.0.0");
    let command = scene.sign(&owner, offer(&header, 9));
    let put = scene.answer(Request::PutPackage(command, Secret::from_bytes([8; 32])));
    assert_eq!(put.map(drop), Err("other-key".into()));
    let put = scene.order(&owner, offer(&header, 9)).map(drop);
    assert_eq!(put, Err("malformed".into()));
    let command = scene.sign(&owner, Operation::Register);
    let put = scene.answer(Request::PutPackage(command, Secret::from_bytes([9; 32])));
    assert_eq!(put.map(drop), Err("malformed".into()));

    let share = Share {
        generation: 1,
        number: 1,
        threshold: 2,
        bytes: Zeroizing::new(vec![1; 33]),
    };
    let give = |share: &Share| Operation::GiveShare {
        share: share.commitment(),
        rehearse: true,
    };
    let right = scene.sign(&owner, give(&share));
    let turned = turn(&mut scene.session, Request::GiveShare(right, share.clone()));
    assert!(matches!(turned, Ok(Turn::GiveShare { rehearse: true, .. })));
    let mut other = share.clone();
    other.bytes[7] ^= 1;
    let wrong = scene.sign(&owner, give(&share));
    let refused = scene.answer(Request::GiveShare(wrong, other)).map(drop);
    assert_eq!(refused, Err("other-share".into()));
}

#[test]
fn no_key_leaves_towards_a_peer_that_proved_nothing() {
    let (mut scene, package) = Scene::with_package();
    scene.grant(&key(1), grant(1, package)).unwrap();
    let returned = Returned {
        lease: 0,
        unused: Vec::new(),
    };
    for request in [
        Request::Lease(LeaseRequest {
            package,
            returned: None,
        }),
        Request::Return(returned),
        Request::Certify(principal(2)),
    ] {
        let refused = scene.answer(request).map(drop);
        assert_eq!(refused, Err("not-a-runtime".into()));
    }
}

#[test]
fn a_runtimes_certificate_names_its_code_and_this_service() {
    let mut scene = Scene::new();
    let reply = scene
        .as_runtime(5, Request::Certify(principal(50)))
        .unwrap();
    let Reply::Certificate(certificate) = reply else {
        panic!("no certificate")
    };
    let service = scene.desk.state().service();
    let certificate = certificate.verify(&service).unwrap();
    assert_eq!(
        (certificate.worker, certificate.service),
        (principal(50), service)
    );
    assert_eq!(certificate.code, code(5));
    assert!(certificate.simulated);
}

#[test]
fn tensor_specs_that_would_fill_the_state_are_refused() {
    let mut scene = Scene::new();
    let owner = key(1);
    scene.order(&owner, Operation::Register).unwrap();
    let spec =
        |at: usize| TensorSpec::new(format!("{at:0>200}"), ElementType::F32, vec![None]).unwrap();
    let header = header(&owner, "shelter", "1.0.0");
    let Operation::PutPackage(small) = offer(&header, 9) else {
        panic!("an offer")
    };
    let large = PackageOffer {
        inputs: (0..300).map(spec).collect(),
        ..small
    };
    let command = scene.sign(&owner, Operation::PutPackage(large));
    let put = scene.answer(Request::PutPackage(command, Secret::from_bytes([9; 32])));
    assert_eq!(put.map(drop), Err("too-many-tensors".into()));
}

#[test]
fn unknown_values_do_not_decode() {
    // An operation, a request and a selector of a later version: none of them is taken for another.
    for bytes in [
        &[0x82, 0x18, 0x63, 0x80][..],
        &[0x82, 0x02, 0x80],
        &[0x82, 0x05, 0x81, 0x00],
    ] {
        assert!(Request::decode(bytes).is_err(), "{bytes:02x?}");
    }
    let unknown_kind = [0x82, 0x00, 0x82, 0x09, 0x41, 0x00];
    assert!(bield_envelope::wire::decode::<CodeSelector>(&unknown_kind, 64).is_err());
    assert!(bield_evidence::Measurement::new(TeeKind::Sgx, &[1; 31]).is_err());
}
