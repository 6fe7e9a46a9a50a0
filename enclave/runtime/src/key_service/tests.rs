//! Attested sessions with a played key service, on quotes of a made-up machine.

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;
use std::thread;

use bield_door::Door;
use bield_envelope::{Secret, Seeded, SigningKey, Time};
use bield_evidence::{Evidence, Policy, Reference, Roots, TeeKind, canonical_dcap};
use bield_platform::TeeError;
use bield_protocol::refusal::{Refusal, Retry};
use bield_session::{Freshness, accept};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};

use super::*;
use crate::testing::{Cast, code, package};

const MINUTE: Duration = Duration::from_secs(60);

/// Code on a made-up machine.
struct Machine {
    platform: Platform,
    code: Measurement,
}

impl Machine {
    fn running(code: Measurement) -> Arc<Self> {
        // One machine for all: its certificates show when it was made.
        static MADE: OnceLock<Time> = OnceLock::new();
        let made = MADE.get_or_init(|| bield_platform::now().minus(MINUTE * 60 * 24));
        let platform = Platform::generate(Options::seeded([1; 32], *made)).unwrap();
        Arc::new(Self { platform, code })
    }

    fn roots(&self) -> Roots {
        Roots::none().with_simulated_dcap(self.platform.root_der().to_vec())
    }
}

impl Tee for Machine {
    fn kind(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn measurement(&self) -> &Measurement {
        &self.code
    }

    fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, TeeError> {
        let report = SgxReport {
            measurement: self.code.as_bytes().try_into().unwrap(),
            report_data: *report_data,
            ..SgxReport::default()
        };
        let at = CollateralOptions::at(bield_platform::now());
        let collateral = self.platform.collateral(Kind::Sgx, &at).unwrap();
        Ok(canonical_dcap(&self.platform.sgx_quote(&report), &collateral).unwrap())
    }

    fn seal_key(&self, _: &str) -> Result<Secret, TeeError> {
        Err(TeeError::Unexpected)
    }
}

/// The runtime is code 1, the key service code 2.
struct Stage {
    cast: Cast,
    client: KeyService,
    offers: Arc<Offers>,
}

fn policy(code: Measurement) -> Policy {
    Policy::dev(Reference::Listed(vec![code]))
}

impl Stage {
    fn expecting(key_service: Measurement) -> Self {
        let cast = Cast::new();
        let offers = Arc::new(Offers::new());
        let machine = Machine::running(code(1));
        let expect = Expect::attested(
            Role::KeyService,
            machine.roots(),
            policy(key_service),
            None,
            Freshness::Fresh,
        );
        let worker = cast.worker.principal();
        let client = KeyService::new(Arc::clone(&offers), machine, expect, worker).unwrap();
        Self {
            cast,
            client,
            offers,
        }
    }

    /// Offers one pipe, as the host does.
    fn offer(&self) -> UnixStream {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let door = Door::new(UnixListener::bind(&path).unwrap());
        let mut host = UnixStream::connect(&path).unwrap();
        host.write_all(&[Visit::KeyService.byte()]).unwrap();
        let (visit, stream) = door.accept().unwrap();
        self.offers.keep(visit, stream);
        host
    }

    /// Fetches keys from a key service that answers with `answers`.
    fn fetch(&self, answers: impl FnMut(Request) -> Reply + Send) -> Result<Keys, KeysError> {
        let pipe = self.offer();
        let service = self.cast.service.principal();
        thread::scope(|scope| {
            scope.spawn(move || serve(pipe, service, answers));
            self.client.fetch(package(1))
        })
    }

    fn answer(&self, request: &Request) -> Reply {
        match request {
            Request::Certify(worker) => {
                assert_eq!(*worker, self.cast.worker.principal());
                Reply::Certificate(self.cast.certificate().as_signed().clone())
            }
            Request::Lease(package) => Reply::Lease(self.cast.leased(*package, MINUTE)),
            _ => panic!("not asked for by a runtime"),
        }
    }
}

/// Serves one session until the runtime closes it.
fn serve(pipe: UnixStream, service: Principal, mut answers: impl FnMut(Request) -> Reply) {
    let machine = Machine::running(code(2));
    let (roots, quoting) = (machine.roots(), Arc::clone(&machine));
    let identity = Identity::issue(
        provider(),
        SessionKey::generate(&mut Seeded::new(1)),
        Role::KeyService,
        Some(service),
        TeeKind::Sgx,
        bield_platform::now(),
        MINUTE,
        Box::new(move |data| quoting.evidence(data).map_err(|error| error.to_string())),
    )
    .unwrap();
    let runtime = Expect::attested(
        Role::Runtime,
        roots,
        policy(code(1)),
        None,
        Freshness::Fresh,
    );
    let now: Time = bield_platform::now();
    let Ok(mut session) = accept(pipe, &identity, &[runtime], now, &mut Randomness) else {
        return;
    };
    while let Ok(message) = session.receive() {
        let reply = answers(Request::decode(&message).unwrap());
        if session.send(&reply.encode()).is_err() {
            return;
        }
    }
}

#[test]
fn keys_come_over_an_attested_session_and_the_certificate_with_the_first() {
    let stage = Stage::expecting(code(2));
    let mut asked = Vec::new();
    for _ in 0..2 {
        let keys = stage.fetch(|request| {
            asked.push(matches!(request, Request::Certify(_)));
            stage.answer(&request)
        });
        let keys = keys.unwrap();
        assert_eq!(keys.lease.package, package(1));
        assert_eq!(keys.certificate.signer(), stage.cast.service.principal());
    }
    assert_eq!(asked, [true, false, false], "certify and lease, then lease");
}

#[test]
fn a_key_service_of_other_code_gets_no_question() {
    let stage = Stage::expecting(code(3));
    let refused = stage.fetch(|_| panic!("asked"));
    assert!(matches!(refused, Err(KeysError::NotAccepted { .. })));
}

#[test]
fn a_refusal_says_that_nothing_is_granted_and_not_why_or_until_when() {
    let stage = Stage::expecting(code(2));
    let refused = stage.fetch(|request| match request {
        Request::Lease(_) => Reply::Refused(Refusal::new(
            "grant-not-yet-valid",
            "names of others",
            Retry::After(5000),
        )),
        other => stage.answer(&other),
    });
    let refused = refused.err().unwrap().unsealed();
    assert_eq!(
        (refused.code.as_str(), refused.retry_after_ms),
        ("no-lease", None)
    );
    let message = refused.message;
    assert!(message.contains(": not-granted;"), "{message}");
    for inside in ["valid", "others", "5000"] {
        assert!(!message.contains(inside), "{message}");
    }
}

#[test]
fn an_answer_to_another_question_gives_no_keys() {
    let stage = Stage::expecting(code(2));
    let refused = stage.fetch(|_| Reply::Done).err();
    assert!(
        matches!(refused, Some(KeysError::Contradiction(_))),
        "{refused:?}"
    );
    let refused = stage.fetch(|request| match request {
        Request::Lease(_) => Reply::Lease(stage.cast.leased(package(7), MINUTE)),
        other => stage.answer(&other),
    });
    assert!(matches!(refused, Err(KeysError::Contradiction(_))));
}

#[test]
fn a_pipe_that_breaks_may_be_tried_again() {
    let stage = Stage::expecting(code(2));
    drop(stage.offer());
    let pipe = stage.offer();
    let refused = thread::scope(|scope| {
        scope.spawn(move || drop(pipe));
        stage.client.fetch(package(1)).err().unwrap()
    });
    assert!(
        matches!(refused, KeysError::Unreachable { .. }),
        "{refused}"
    );
    assert!(refused.unsealed().retry_after_ms.is_some());
}

#[test]
fn a_certificate_counts_only_for_our_key_our_code_and_by_the_service_we_spoke_to() {
    let cast = Cast::new();
    let (service, worker) = (cast.service.principal(), cast.worker.principal());
    let stranger = SigningKey::generate(&mut Seeded::new(9)).principal();
    let check = |service, worker, code| {
        let signed = cast.certificate().as_signed().clone();
        check_certificate(signed, service, worker, &code).is_ok()
    };
    assert!(check(service, worker, code(1)));
    assert!(!check(stranger, worker, code(1)));
    assert!(!check(service, stranger, code(1)));
    assert!(!check(service, worker, code(2)));
}
