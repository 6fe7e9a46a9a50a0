//! The cast of this crate's tests: an owner, a user, a key service, a worker, and a package with a real model.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bield_engine::{Engine, Rten, record_golden};
use bield_envelope::{
    AudienceKey, Digest, RequestHeader, ResponseOpener, Secret, Seeded, Signed, SigningKey, Time,
    Verified, seal_request,
};
use bield_evidence::{HardeningStatement, Measurement, TeeKind};
use bield_grant::{
    CodeIdentity, CodeSelector, Grant, Isolation, Lease, PackageSelector, ReplayGuard,
    UserSelector, audience,
};
use bield_package::onnx::Signature;
use bield_package::tensor::Tensor;
use bield_package::{
    GoldenPair, ManifestDraft, ModelFormat, PackageHead, PackageKey, TOLERANCE_PPM, pack,
};
use bield_protocol::call::Reply;
use bield_protocol::inference::Request;
use bield_protocol::service::{LeasedAudienceKey, LeasedKeys};
use bield_receipt::WorkerCertificate;

use crate::call::{Answer, OUTPUT_BYTES_MAX, Runtime};
use crate::clock::Clock;
use crate::flights::lock;
use crate::handing::{Asker, Gone};
use crate::keys::{Asked, Keys};
use crate::loading::{Loader, PackageSource, Unfit};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::turns::{Gate, Turns};
use crate::unsent::Unsent;

mod service;

pub(crate) use service::{Service, unreachable};

const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn code(number: u8) -> Measurement {
    Measurement::new(TeeKind::Sgx, &[number; 32]).unwrap()
}

pub(crate) fn package(number: u8) -> Digest {
    Digest::from_bytes([number; 32])
}

/// Clocks that stand still until a test moves them.
pub(crate) struct PlayedClock(Mutex<(Duration, Time)>);

impl PlayedClock {
    pub(crate) fn new() -> Self {
        Self(Mutex::new((HOUR, bield_platform::now())))
    }

    /// Lets time pass on both.
    pub(crate) fn pass(&self, time: Duration) {
        let mut clocks = lock(&self.0);
        clocks.0 += time;
        clocks.1 = clocks.1.plus(time);
    }

    /// Has the host lie.
    pub(crate) fn set_host(&self, time: Time) {
        lock(&self.0).1 = time;
    }
}

impl Clock for PlayedClock {
    fn running(&self) -> Duration {
        lock(&self.0).0
    }

    fn host(&self) -> Time {
        lock(&self.0).1
    }
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

    /// The user may use the package in code 1.
    pub(crate) fn grant(&self, package: Digest, isolation: Isolation) -> Verified<Grant> {
        self.granted(package, |grant| grant.isolation = isolation)
    }

    /// The same with something changed, signed by the owner.
    pub(crate) fn granted(
        &self,
        package: Digest,
        change: impl FnOnce(&mut Grant),
    ) -> Verified<Grant> {
        let now = bield_platform::now();
        let mut grant = Grant {
            id: [1; 16],
            package: PackageSelector::Digest(package),
            user: UserSelector::Principal(self.user.principal()),
            code: CodeSelector::Measurement(code(1)),
            isolation: Isolation::Shared,
            not_before: now.minus(HOUR),
            not_after: now.plus(HOUR * 24),
            requests: None,
        };
        change(&mut grant);
        Signed::sign(&self.owner, grant)
    }

    pub(crate) fn certificate(&self) -> Arc<Verified<WorkerCertificate>> {
        self.certificate_of(bield_platform::now())
    }

    fn certificate_of(&self, now: Time) -> Arc<Verified<WorkerCertificate>> {
        let certificate = WorkerCertificate {
            worker: self.worker.principal(),
            code: code(1),
            simulated: true,
            not_before: now.minus(HOUR / 60),
            not_after: now.plus(HOUR / 2),
            service: self.service.principal(),
            service_evidence: None,
            hardening: HardeningStatement::default(),
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
                name: "tiny".parse().unwrap(),
                version: "1".parse().unwrap(),
                code: CodeIdentity::measured(code(1)),
                simulated: true,
                not_after: now.plus(lasts),
                id: 1,
            },
            package_key: self.package_key().into_seed(),
            audience_keys: vec![LeasedAudienceKey {
                seed: audience_seed(AUDIENCE),
                not_after: None,
            }],
            grants: vec![self.grant(package, Isolation::Shared).into_signed()],
            issued: now,
            groups: Vec::new(),
            successions: Vec::new(),
            allotments: Vec::new(),
        }
    }

    /// The same, taken off the wire just now.
    pub(crate) fn keys(&self, leased: LeasedKeys, clock: &Arc<PlayedClock>) -> Keys {
        let asked = Asked {
            package: leased.lease.package,
            code: &code(1),
            at: clock.running(),
            clock: Arc::<PlayedClock>::clone(clock),
        };
        Keys::new(leased, self.certificate_of(clock.host()), asked).unwrap()
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
        self.seal_to(AUDIENCE, sender, package, id, body)
    }

    /// Seals to the audience key of this number.
    pub(crate) fn seal_to(
        &self,
        audience_key: u8,
        sender: &SigningKey,
        package: Digest,
        id: u8,
        body: &[u8],
    ) -> (Vec<u8>, ResponseOpener) {
        let key = AudienceKey::from_seed(audience_seed(audience_key));
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

/// The audience key that is leased unless a test says otherwise.
pub(crate) const AUDIENCE: u8 = 6;

pub(crate) fn audience_seed(number: u8) -> Secret {
    Secret::from_bytes([number; 32])
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
        Self::packed(bytes, vec![golden])
    }

    /// Any ONNX model, called `tiny` as well.
    pub(crate) fn packed(bytes: Vec<u8>, golden: Vec<GoldenPair>) -> Self {
        let signature = Signature::read(&bytes).unwrap();
        let mut draft =
            ManifestDraft::onnx("tiny".parse().unwrap(), "1".parse().unwrap(), signature);
        draft.golden = golden;
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

/// The parts that a test wants to change while the runtime runs.
pub(crate) struct Stage {
    pub(crate) cast: Cast,
    pub(crate) service: Service,
    pub(crate) clock: Arc<PlayedClock>,
    pub(crate) shelf: Arc<Mutex<Shelf>>,
    pub(crate) package: Digest,
}

impl Stage {
    pub(crate) fn new(shelf: Shelf) -> Self {
        let clock = Arc::new(PlayedClock::new());
        let mut cast = Cast::new();
        cast.sealed_at = clock.host();
        Self {
            cast,
            service: Service::new(Arc::clone(&clock)),
            clock,
            package: shelf.package,
            shelf: Arc::new(Mutex::new(shelf)),
        }
    }

    /// Lets time pass for everybody.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.clock.pass(time);
        self.cast.sealed_at = self.clock.host();
    }

    /// What everybody's clock shows.
    pub(crate) fn sealed_at(&self) -> Time {
        self.cast.sealed_at
    }

    /// The runtime on this stage, with the real engine and `models` bytes for models.
    pub(crate) fn runtime(&self, engine: impl Engine + 'static, models: u64) -> Runtime {
        Runtime {
            code: code(1),
            leases: Arc::new(self.service.leases(4)),
            models: Arc::new(Models::new(models)),
            loader: Arc::new(Loader {
                packages: Box::new(Arc::clone(&self.shelf)),
                engine: Box::new(engine),
                threads: 2,
                unfit: Unfit::default(),
                trial: None,
            }),
            tiers: None,
            functions: None,
            batching: None,
            guard: Mutex::new(ReplayGuard::new(1000)),
            turns: Arc::new(Turns::new(1)),
            tenancy: Arc::default(),
            queue_wait: Duration::from_secs(60),
            signer: Cast::new().worker,
            gate: Gate::new(2),
            unsent: Unsent::new(8 * OUTPUT_BYTES_MAX),
            metrics: Metrics::default(),
        }
    }
}

/// Somebody who wants whole answers, and is gone when it says so.
struct Plain<'a>(&'a dyn Fn() -> bool);

impl Asker for Plain<'_> {
    fn is_gone(&self) -> bool {
        (self.0)()
    }

    fn takes_more(&self) -> bool {
        true
    }

    fn wait_until_taken(&self, _: Duration) -> Result<(), Gone> {
        Ok(())
    }

    fn part(&self, _: &[u8]) -> Result<(), Gone> {
        panic!("nobody asked for parts")
    }
}

impl Runtime {
    /// The answer to a request that does not ask for parts.
    pub(crate) fn answer(&self, sealed: &[u8], is_gone: &dyn Fn() -> bool) -> Reply {
        match self.answer_to(sealed, &Plain(is_gone)) {
            Answer::Whole(reply) => reply,
            Answer::Rest(_) => panic!("nobody asked for parts"),
        }
    }
}

impl PackageSource for Arc<Mutex<Shelf>> {
    fn fetch(&self, package: Digest) -> io::Result<Option<Box<dyn Read + Send>>> {
        lock(self).fetch(package)
    }
}
