//! The cast of this crate's tests: an owner, a user, a key service, a worker, and a package with a real model.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bield_engine::{Engine, Rten, record_golden};
use bield_envelope::{
    AudienceKey, Digest, RequestHeader, ResponseOpener, Secret, Seeded, Signed, SigningKey, Time,
    Verified, seal_request,
};
use bield_evidence::{Measurement, TeeKind};
use bield_grant::{Grant, Isolation, Lease, ReplayGuard, audience};
use bield_package::onnx::Signature;
use bield_package::tensor::Tensor;
use bield_package::{ManifestDraft, ModelFormat, PackageHead, PackageKey, TOLERANCE_PPM, pack};
use bield_protocol::inference::Request;
use bield_protocol::service::LeasedKeys;
use bield_receipt::WorkerCertificate;

use crate::call::Runtime;
use crate::flights::lock;
use crate::leases::{KeySource, Keys, KeysError, Leases};
use crate::loading::{Loader, PackageSource};
use crate::models::Models;
use crate::turns::{Gate, Turns};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn code(number: u8) -> Measurement {
    Measurement::new(TeeKind::Sgx, &[number; 32]).unwrap()
}

pub(crate) fn package(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

/// Everyone, with the same keys in every test.
pub(crate) struct Cast {
    pub(crate) owner: SigningKey,
    pub(crate) user: SigningKey,
    pub(crate) service: SigningKey,
    pub(crate) worker: SigningKey,
    /// When requests are sealed; with it, one id makes the same bytes each time.
    sealed_at: Time,
}

impl Cast {
    pub(crate) fn new() -> Self {
        let key = |seed| SigningKey::generate(&mut Seeded::new(seed));
        Self {
            owner: key(1),
            user: key(2),
            service: key(3),
            worker: key(4),
            sealed_at: bield_platform::now(),
        }
    }

    pub(crate) fn package_key(&self) -> PackageKey {
        PackageKey::generate(&mut Seeded::new(5))
    }

    pub(crate) fn grant(&self, package: Digest, isolation: Isolation) -> Verified<Grant> {
        let now = bield_platform::now();
        Signed::sign(
            &self.owner,
            Grant {
                id: [1; 16],
                package,
                user: self.user.principal(),
                code: code(1),
                isolation,
                not_before: now.minus(HOUR),
                not_after: now.plus(HOUR),
            },
        )
    }

    pub(crate) fn certificate(&self) -> Arc<Verified<WorkerCertificate>> {
        let now = bield_platform::now();
        let certificate = WorkerCertificate {
            worker: self.worker.principal(),
            code: code(1),
            simulated: true,
            not_before: now.minus(HOUR / 60),
            not_after: now.plus(HOUR / 2),
            service: self.service.principal(),
            service_evidence: None,
        };
        Arc::new(Signed::sign(&self.service, certificate))
    }

    /// Keys as they come off the wire; the user is granted `shared`.
    pub(crate) fn leased(&self, package: Digest, lasts: Duration) -> LeasedKeys {
        let now = bield_platform::now();
        LeasedKeys {
            lease: Lease {
                package,
                owner: self.owner.principal(),
                code: code(1),
                simulated: true,
                not_after: now.plus(lasts),
            },
            package_key: self.package_key().into_seed(),
            audience_key: Secret::from_bytes([6; 32]),
            grants: vec![self.grant(package, Isolation::Shared).into_signed()],
            issued: now,
        }
    }

    pub(crate) fn keys(&self, package: Digest, lasts: Duration) -> Keys {
        let leased = self.leased(package, lasts);
        Keys::new(leased, self.certificate(), package, &code(1)).unwrap()
    }

    /// A request of the user that the tiny model can answer.
    pub(crate) fn request(&self, package: Digest, id: u8) -> (Vec<u8>, ResponseOpener) {
        let body = Request {
            inputs: inputs(),
            outputs: Vec::new(),
        };
        self.seal(&self.user, package, id, &body.encode())
    }

    pub(crate) fn seal(
        &self,
        sender: &SigningKey,
        package: Digest,
        id: u8,
        body: &[u8],
    ) -> (Vec<u8>, ResponseOpener) {
        let key = AudienceKey::from_seed(Secret::from_bytes([6; 32]));
        let header = RequestHeader {
            audience: audience(package, &code(1)),
            key: key.public().id(),
            package,
            id: [id; 16],
            created: self.sealed_at,
        };
        let mut entropy = Seeded::new(100 + u64::from(id));
        seal_request(key.public(), &header, sender, body, &mut entropy).unwrap()
    }
}

/// Inputs of the tiny model.
pub(crate) fn inputs() -> Vec<Tensor> {
    vec![Tensor::from_f32("input", &[1, 4], &[1.0, 0.0, -1.0, 0.5]).unwrap()]
}

/// A host's shelf with one package on it.
#[derive(Clone)]
pub(crate) struct Shelf {
    pub(crate) package: Digest,
    pub(crate) bytes: Vec<u8>,
}

impl Shelf {
    /// The tiny model in small chunks, with one golden pair.
    pub(crate) fn stocked() -> Self {
        Self::with_golden(|outputs| outputs)
    }

    /// The same, but its owner recorded other outputs than the model gives.
    pub(crate) fn misrecorded() -> Self {
        Self::with_golden(|outputs| {
            let wrong: Vec<f32> = outputs[0]
                .to_f32()
                .unwrap()
                .iter()
                .map(|x| x + 1.0)
                .collect();
            vec![Tensor::from_f32(outputs[0].name(), outputs[0].shape(), &wrong).unwrap()]
        })
    }

    fn with_golden(record: impl FnOnce(Vec<Tensor>) -> Vec<Tensor>) -> Self {
        let bytes = bield_fixtures::tiny_model();
        let engine = Rten::new(1);
        let model = engine.load(bytes.clone(), ModelFormat::Onnx).unwrap();
        let mut golden = record_golden(&*model, inputs(), TOLERANCE_PPM).unwrap();
        golden.outputs = record(golden.outputs);
        let signature = Signature::read(&bytes).unwrap();
        let mut draft =
            ManifestDraft::onnx("tiny".parse().unwrap(), "1".parse().unwrap(), signature);
        draft.golden = vec![golden];
        draft.chunk_bytes = 256;
        let cast = Cast::new();
        let mut sealed = Vec::new();
        let summary = pack(
            &mut io::Cursor::new(bytes),
            draft,
            &cast.owner,
            &cast.package_key(),
            &mut Seeded::new(7),
            &mut sealed,
            &mut |_, _| (),
        )
        .unwrap();
        Self {
            package: summary.digest,
            bytes: sealed,
        }
    }

    fn head(&self) -> PackageHead {
        PackageHead::read(&mut &self.bytes[..]).unwrap()
    }

    pub(crate) fn chunks(&self) -> u32 {
        self.head().header().chunk_count
    }

    pub(crate) fn offset_of_chunk(&self, index: u32) -> usize {
        let opened = self.head().open_manifest(&Cast::new().package_key());
        opened.unwrap().chunk(index).unwrap().sealed.start as usize
    }
}

/// Serves its bytes whatever package is asked for, as a lying host would.
impl PackageSource for Shelf {
    fn fetch(&self, _: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        let bytes = self.bytes.clone();
        Ok((!bytes.is_empty()).then(|| Box::new(io::Cursor::new(bytes)) as Box<dyn Read + Send>))
    }
}

/// A key service that can change its mind.
#[derive(Clone, Default)]
pub(crate) struct Service(Arc<Mutex<Mind>>);

#[derive(Default)]
pub(crate) struct Mind {
    pub(crate) fetches: u32,
    /// Grants instead of the user's ordinary one.
    pub(crate) grants: Option<Vec<Verified<Grant>>>,
    pub(crate) lasts: Option<Duration>,
    pub(crate) fails: Option<KeysError>,
    /// Holds every answer back as long as it is locked.
    pub(crate) hold: Arc<Mutex<()>>,
}

impl Service {
    pub(crate) fn mind(&self) -> MutexGuard<'_, Mind> {
        lock(&self.0)
    }
}

impl KeySource for Service {
    fn fetch(&self, package: Digest) -> Result<Keys, KeysError> {
        let hold = Arc::clone(&self.mind().hold);
        drop(lock(&hold));
        let cast = Cast::new();
        let mut mind = self.mind();
        mind.fetches += 1;
        if let Some(error) = mind.fails.clone() {
            return Err(error);
        }
        let mut leased = cast.leased(package, mind.lasts.unwrap_or(HOUR / 60));
        if let Some(grants) = mind.grants.clone() {
            leased.grants = grants.into_iter().map(Verified::into_signed).collect();
        }
        Keys::new(leased, cast.certificate(), package, &code(1))
    }
}

/// The parts that a test wants to change while the runtime runs.
pub(crate) struct Stage {
    pub(crate) cast: Cast,
    pub(crate) service: Service,
    pub(crate) shelf: Arc<Mutex<Shelf>>,
    pub(crate) package: Digest,
}

impl Stage {
    pub(crate) fn new(shelf: Shelf) -> Self {
        Self {
            cast: Cast::new(),
            service: Service::default(),
            package: shelf.package,
            shelf: Arc::new(Mutex::new(shelf)),
        }
    }

    /// The runtime on this stage, with the real engine and `models` bytes for models.
    pub(crate) fn runtime(&self, engine: impl Engine + 'static, models: u64) -> Runtime {
        Runtime {
            code: code(1),
            leases: Leases::new(Box::new(self.service.clone()), 4),
            models: Arc::new(Models::new(models)),
            loader: Loader {
                packages: Box::new(Arc::clone(&self.shelf)),
                engine: Box::new(engine),
                threads: 2,
            },
            guard: Mutex::new(ReplayGuard::new(1000)),
            turns: Turns::new(1),
            signer: Cast::new().worker,
            gate: Gate::new(2),
        }
    }
}

impl PackageSource for Arc<Mutex<Shelf>> {
    fn fetch(&self, package: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        lock(self).fetch(package)
    }
}
