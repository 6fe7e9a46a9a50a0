//! A capsule writer from the first byte: a quote of the software TEE, appraised, certified by the key
//! service, admitted by the capsule's own configuration.

use bield_capsule::WriterCertificate;
use bield_capsule::WriterId;
use bield_capsule::{
    Batch, CertificateError, Change, GenerationKey, KeyRing, Metadata, Refused, Suite, Verifier,
    VerifierPolicy, Writer, WriterKey,
};
use bield_envelope::{Secret, Seeded, Signed, wire};
use bield_evidence::{Measurement, TeeKind};
use bield_protocol::service::{Reply, Request};
use bield_receipt::CERTIFICATE_TIME_MAX;

use super::cast::{self, NOON};
use super::{Conversation, Desk};

const CODE: [u8; 32] = [5; 32];

#[test]
fn a_key_made_in_appraised_code_may_write_where_the_owner_counts_that_code() {
    let mut scene = Scene::new(&[CODE, [6; 32]]);
    let mut verifier = scene.verifier(true);
    let certificate = scene.certificate(scene.writer().id());
    let (mut writer, opening) = scene.open(&certificate);
    apply(&mut verifier, opening);

    let mut batch = Batch::new();
    batch.push(b"counted").unwrap();
    let record = writer
        .seal(&batch, &scene.generation, &[], NOON, &mut Seeded::new(8))
        .unwrap();
    let applied = apply(&mut verifier, record);
    let mut keys = KeyRing::new();
    keys.insert(GenerationKey::from_secret(
        1,
        Secret::from_bytes(*scene.generation.secret().expose()),
    ))
    .unwrap();
    assert_eq!(applied.open(&keys).unwrap().len(), 1);

    // The certificate ends; so does what it admits.
    let late = NOON.plus(CERTIFICATE_TIME_MAX);
    let record = writer
        .seal(&batch, &scene.generation, &[], late, &mut Seeded::new(9))
        .unwrap();
    assert!(matches!(
        verifier.verify(record),
        Err(Refused::Certificate {
            reason: CertificateError::Clock,
            ..
        })
    ));
}

#[test]
fn by_default_a_software_tee_writes_nowhere() {
    let mut scene = Scene::new(&[CODE]);
    let certificate = scene.certificate(scene.writer().id());
    let (_, opening) = scene.open(&certificate);
    assert!(matches!(
        scene.verifier(false).verify(opening),
        Err(Refused::Simulated { .. })
    ));
}

#[test]
fn code_that_the_owner_does_not_count_writes_nowhere() {
    let mut scene = Scene::new(&[[9; 32]]);
    let certificate = scene.certificate(scene.writer().id());
    let (_, opening) = scene.open(&certificate);
    let refused = scene.verifier(true).verify(opening).unwrap_err();
    assert!(
        matches!(
            refused,
            Refused::NotAdmitted {
                reason: CertificateError::Code,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn a_peer_that_proved_nothing_gets_no_writer_certificate() {
    let mut scene = Scene::new(&[CODE]);
    let mut stranger = Conversation {
        runtime: None,
        binding: [7; 32],
        sequence: 0,
    };
    let request = Request::CertifyWriter(scene.metadata.name(), scene.writer().id());
    match scene.desk.answer(&mut stranger, request, NOON) {
        Reply::Refused(refusal) => assert_eq!(refusal.code, "not-a-runtime"),
        _ => panic!("a certificate for nobody"),
    }
}

struct Scene {
    desk: Desk,
    metadata: Metadata,
    config: bield_capsule::Received,
    generation: GenerationKey,
}

impl Scene {
    /// A key service, a capsule that counts its certificates for `codes`, and a runtime.
    fn new(codes: &[[u8; 32]]) -> Self {
        let mut entropy = Seeded::new(1);
        let desk = Desk::new(cast::root(), cast::limits());
        let owner = WriterKey::generate(Suite::Ed25519, &mut entropy);
        let metadata = Metadata::new(owner.public(), None, NOON, &mut entropy).unwrap();
        let generation = GenerationKey::generate(1, &mut entropy);
        let mut codes: Vec<_> = codes
            .iter()
            .map(|code| wire::encode(&measured(code)))
            .collect();
        codes.sort();
        let principal = desk.state().service();
        let changes = [
            Change::Certify(principal),
            Change::Codes { principal, codes },
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
        ];
        let (_, config) = Writer::owner(owner, &metadata, &changes, NOON).unwrap();
        Self {
            desk,
            metadata,
            config,
            generation,
        }
    }

    fn writer(&self) -> WriterKey {
        WriterKey::from_seed(Suite::Ed25519, Secret::from_bytes([4; 32])).unwrap()
    }

    fn certificate(&mut self, writer: WriterId) -> Signed<WriterCertificate> {
        let mut conversation = Conversation {
            runtime: Some(cast::appraised(5)),
            binding: [7; 32],
            sequence: 0,
        };
        let request = Request::CertifyWriter(self.metadata.name(), writer);
        match self.desk.answer(&mut conversation, request, NOON) {
            Reply::WriterCertificate(certificate) => certificate,
            _ => panic!("no certificate"),
        }
    }

    fn open(&self, certificate: &Signed<WriterCertificate>) -> (Writer, bield_capsule::Received) {
        let config = self.config.head();
        let certificate = Some(certificate.as_bytes());
        Writer::open(self.writer(), &self.metadata, config, certificate, NOON).unwrap()
    }

    fn verifier(&self, allow_simulated: bool) -> Verifier {
        let policy = VerifierPolicy {
            allow_simulated,
            ..VerifierPolicy::default()
        };
        let mut verifier = Verifier::new(self.metadata.clone(), policy);
        apply(&mut verifier, self.config.clone());
        verifier
    }
}

fn apply(verifier: &mut Verifier, record: bield_capsule::Received) -> bield_capsule::Applied {
    let verified = verifier.verify(record).unwrap();
    verifier.apply(verified).unwrap()
}

fn measured(code: &[u8; 32]) -> Measurement {
    Measurement::new(TeeKind::Sgx, code).unwrap()
}
