//! The service without its sockets: commands, durability, who gets keys.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bield_envelope::{Seeded, Signed, Verified};
use bield_evidence::TeeKind;
use bield_grant::{Grant, Isolation};
use bield_package::{ManifestDraft, PackageHead, PackageHeader, PackageKey};
use bield_protocol::service::PackageOffer;

use super::*;
use crate::store::Volatile;

const NOON: Time = Time::from_secs(1_795_000_000);

struct Scene {
    service: Service,
    store: Arc<Volatile>,
    owner: SigningKey,
    user: SigningKey,
    conversation: Conversation<'static>,
}

/// Lets a test keep a hand on the storage it gave away.
struct Shared(Arc<Volatile>);

impl Store for Shared {
    fn load(&self) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, StoreError> {
        self.0.load()
    }

    fn save(&self, state: &[u8]) -> Result<(), StoreError> {
        self.0.save(state)
    }
}

fn scene() -> Scene {
    let mut entropy = Seeded::new(1);
    let store = Arc::new(Volatile::default());
    let service = Service::start(Box::new(Shared(Arc::clone(&store))), &mut entropy).unwrap();
    let (owner, user) = (
        SigningKey::generate(&mut entropy),
        SigningKey::generate(&mut entropy),
    );
    let conversation = Conversation {
        runtime: None,
        binding: [7; 32],
        sequence: 0,
    };
    Scene {
        service,
        store,
        owner,
        user,
        conversation,
    }
}

fn code() -> Measurement {
    Measurement::new(TeeKind::Sgx, &[5; 32]).unwrap()
}

impl Scene {
    fn order(&mut self, by: &SigningKey, operation: Operation) -> Result<(), String> {
        self.order_with(by, operation, None)
    }

    fn order_with(
        &mut self,
        by: &SigningKey,
        operation: Operation,
        key: Option<Secret>,
    ) -> Result<(), String> {
        let (session, sequence) = (self.conversation.binding, self.conversation.sequence);
        let command = Signed::sign(
            by,
            Command {
                session,
                sequence,
                operation,
            },
        )
        .into_signed();
        let request = match key {
            Some(key) => Request::PutPackage(command, key),
            None => Request::Command(command),
        };
        said(self.service.answer(&mut self.conversation, request, NOON))
    }

    fn owner(&self) -> SigningKey {
        SigningKey::from_seed(Secret::from_bytes(*self.owner.seed().expose()))
    }

    fn with_package(&mut self) -> Verified<PackageHeader> {
        let owner = self.owner();
        let header = packed(&owner);
        self.order(&owner, Operation::Register).unwrap();
        self.order_with(&owner, offer(&header, 9), Some(Secret::from_bytes([9; 32])))
            .unwrap();
        header
    }

    fn grant(&self, package: Digest) -> Grant {
        Grant {
            id: [1; 16],
            package,
            user: self.user.principal(),
            code: code(),
            isolation: Isolation::Shared,
            not_before: NOON.minus(Duration::from_secs(60)),
            not_after: NOON.plus(Duration::from_secs(3600)),
        }
    }
}

fn said(reply: Reply) -> Result<(), String> {
    match reply {
        Reply::Refused(refusal) => Err(refusal.code),
        _ => Ok(()),
    }
}

fn packed(owner: &SigningKey) -> Verified<PackageHeader> {
    let mut file = Vec::new();
    let key = PackageKey::from_seed(Secret::from_bytes([9; 32]));
    let model = bield_fixtures::tiny_model();
    let signature = bield_package::onnx::Signature::read(&model).unwrap();
    let name = ("shelter".parse().unwrap(), "1.0".parse().unwrap());
    let draft = ManifestDraft::onnx(name.0, name.1, signature);
    let mut entropy = Seeded::new(3);
    let model = &mut std::io::Cursor::new(model);
    bield_package::pack(
        model,
        draft,
        owner,
        &key,
        &mut entropy,
        &mut file,
        &mut |_, _| (),
    )
    .unwrap();
    let head = PackageHead::read(&mut &file[..]).unwrap();
    head.signed_header()
        .clone()
        .verify(&owner.principal())
        .unwrap()
}

fn offer(header: &Verified<PackageHeader>, key: u8) -> Operation {
    Operation::PutPackage(PackageOffer {
        header: header.as_signed().clone(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        key: key_commitment(&Secret::from_bytes([key; 32])),
    })
}

#[test]
fn an_owner_registers_packs_grants_and_a_user_finds_the_key() {
    let mut scene = scene();
    let header = scene.with_package();
    let package = PackageHeader::package(&header);
    let owner = scene.owner();
    let named = PackageReference::Named(owner.principal(), "shelter".into(), None);
    let ask = |scene: &mut Scene| {
        let request = Request::KeyConfiguration(named.clone(), code());
        scene.service.answer(&mut scene.conversation, request, NOON)
    };
    assert_eq!(said(ask(&mut scene)), Err("code-not-granted".into()));
    let grant = Signed::sign(&owner, scene.grant(package)).into_signed();
    scene.order(&owner, Operation::Grant(grant)).unwrap();
    let Reply::KeyConfiguration(found) = ask(&mut scene) else {
        panic!("no key configuration")
    };
    assert_eq!(
        (found.package, found.audience),
        (package, audience(package, &code()))
    );
    assert_eq!(found.service, scene.service.principal());
}

#[test]
fn a_restarted_service_is_the_same_service() {
    let mut scene = scene();
    let header = scene.with_package();
    let grant = Signed::sign(&scene.owner, scene.grant(PackageHeader::package(&header)));
    let owner = scene.owner();
    scene
        .order(&owner, Operation::Grant(grant.into_signed()))
        .unwrap();
    let again = Service::start(
        Box::new(Shared(Arc::clone(&scene.store))),
        &mut Seeded::new(99),
    )
    .unwrap();
    assert_eq!(again.principal(), scene.service.principal());
    assert_eq!(again.inspect(), scene.service.inspect());
    assert_eq!(again.inspect().grants, 1);
}

#[test]
fn a_change_that_is_not_durable_is_refused_and_undone() {
    let mut scene = scene();
    let header = scene.with_package();
    let owner = scene.owner();
    let before = scene.service.inspect();
    scene.store.broken.store(true, Ordering::SeqCst);
    let grant = Signed::sign(&owner, scene.grant(PackageHeader::package(&header))).into_signed();
    assert_eq!(
        scene.order(&owner, Operation::Grant(grant.clone())),
        Err("not-durable".into())
    );
    let stranger = SigningKey::generate(&mut Seeded::new(5));
    assert_eq!(
        scene.order(&stranger, Operation::Register),
        Err("not-durable".into())
    );
    assert_eq!(scene.service.inspect(), before);
    scene.store.broken.store(false, Ordering::SeqCst);
    assert_eq!(scene.order(&owner, Operation::Grant(grant)), Ok(()));
}

#[test]
fn a_command_counts_once_and_only_in_its_session() {
    let mut scene = scene();
    let owner = scene.owner();
    let command = |session, sequence| {
        let operation = Operation::Register;
        Request::Command(
            Signed::sign(
                &owner,
                Command {
                    session,
                    sequence,
                    operation,
                },
            )
            .into_signed(),
        )
    };
    let mut answer = |request| said(scene.service.answer(&mut scene.conversation, request, NOON));
    assert_eq!(answer(command([8; 32], 0)), Err("replayed".into()));
    assert_eq!(answer(command([7; 32], 1)), Err("replayed".into()));
    assert_eq!(answer(command([7; 32], 0)), Ok(()));
    assert_eq!(answer(command([7; 32], 0)), Err("replayed".into()));
    assert_eq!(answer(command([7; 32], 1)), Ok(()));
}

#[test]
fn nobody_can_speak_for_another_principal() {
    let mut scene = scene();
    let header = scene.with_package();
    let package = PackageHeader::package(&header);
    let thief = SigningKey::generate(&mut Seeded::new(5));
    assert_eq!(
        scene.order(&thief, offer(&header, 9)),
        Err("malformed".into())
    );
    let put = scene.order_with(&thief, offer(&header, 9), Some(Secret::from_bytes([9; 32])));
    assert_eq!(put, Err("invalid-signature".into()));
    scene.order(&thief, Operation::Register).unwrap();
    let grant = Signed::sign(&thief, scene.grant(package)).into_signed();
    assert_eq!(
        scene.order(&thief, Operation::Grant(grant)),
        Err("not-owner".into())
    );
    let owners = Signed::sign(&scene.owner, scene.grant(package)).into_signed();
    assert_eq!(
        scene.order(&thief, Operation::Grant(owners)),
        Err("invalid-signature".into())
    );
}

#[test]
fn a_key_that_is_not_the_committed_one_is_refused() {
    let mut scene = scene();
    let owner = scene.owner();
    let header = packed(&owner);
    scene.order(&owner, Operation::Register).unwrap();
    let put = scene.order_with(&owner, offer(&header, 9), Some(Secret::from_bytes([8; 32])));
    assert_eq!(put, Err("other-key".into()));
    scene
        .order_with(&owner, offer(&header, 9), Some(Secret::from_bytes([9; 32])))
        .unwrap();
    let put = scene.order_with(&owner, offer(&header, 8), Some(Secret::from_bytes([8; 32])));
    assert_eq!(put, Err("package-key-differs".into()));
}

#[test]
fn no_key_leaves_towards_a_peer_that_proved_nothing() {
    let mut scene = scene();
    let package = PackageHeader::package(&scene.with_package());
    let worker = scene.user.principal();
    for request in [Request::Lease(package), Request::Certify(worker)] {
        let reply = scene.service.answer(&mut scene.conversation, request, NOON);
        assert_eq!(said(reply), Err("not-a-runtime".into()));
    }
}

#[test]
fn every_grantee_of_a_package_is_found() {
    // F1 of the authors' release: a second grantee made every lookup run for ever.
    let mut scene = scene();
    let header = scene.with_package();
    let package = PackageHeader::package(&header);
    let owner = scene.owner();
    for id in 0..20 {
        let user = SigningKey::generate(&mut Seeded::new(100 + u64::from(id))).principal();
        let grant = Grant {
            id: [id; 16],
            user,
            ..scene.grant(package)
        };
        scene
            .order(
                &owner,
                Operation::Grant(Signed::sign(&owner, grant).into_signed()),
            )
            .unwrap();
    }
    assert_eq!(scene.service.inspect().grants, 20);
    let state = scene.service.lock();
    assert_eq!(state.package(package).unwrap().grants.len(), 20);
}

#[test]
fn a_state_survives_its_own_bytes_and_no_shorter_or_longer_ones() {
    let mut scene = scene();
    scene.with_package();
    let bytes = scene.service.lock().encode();
    assert_eq!(*State::decode(&bytes).unwrap().encode(), *bytes);
    for length in 0..bytes.len() {
        assert!(State::decode(&bytes[..length]).is_none(), "cut to {length}");
    }
    assert!(State::decode(&[&bytes[..], &[0]].concat()).is_none());
}

#[test]
fn a_full_state_refuses_changes_and_opens_again() {
    let mut scene = scene();
    scene.with_package();
    let bytes = scene.service.lock().encode().len();
    scene.service.state_bytes_max = bytes + 200;
    let mut accepted = 0;
    let full = loop {
        let stranger = SigningKey::generate(&mut Seeded::new(1000 + accepted));
        match scene.order(&stranger, Operation::Register) {
            Ok(()) => accepted += 1,
            Err(code) => break code,
        }
    };
    assert_eq!(full, "full");
    assert!(accepted > 0, "there was room for some");
    let before = scene.service.inspect();
    let again = Service::start(
        Box::new(Shared(Arc::clone(&scene.store))),
        &mut Seeded::new(9),
    );
    assert_eq!(again.unwrap().inspect(), before);
}

#[test]
fn tensor_specs_that_would_fill_the_state_are_refused() {
    use bield_package::tensor::{ElementType, TensorSpec};
    let mut scene = scene();
    let owner = scene.owner();
    let header = packed(&owner);
    scene.order(&owner, Operation::Register).unwrap();
    let spec =
        |at: usize| TensorSpec::new(format!("{at:0>200}"), ElementType::F32, vec![None]).unwrap();
    let Operation::PutPackage(mut large) = offer(&header, 9) else {
        panic!("an offer")
    };
    large.inputs = (0..300).map(spec).collect();
    let put = scene.order_with(
        &owner,
        Operation::PutPackage(large),
        Some(Secret::from_bytes([9; 32])),
    );
    assert_eq!(put, Err("too-many-tensors".into()));
}
