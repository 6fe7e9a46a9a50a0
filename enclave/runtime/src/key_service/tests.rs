//! Attested sessions with a played key service, on quotes of a made-up machine.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;

use bield_door::{Door, Visit};
use bield_envelope::{Secret, Seeded, SigningKey, Time};
use bield_evidence::{
    Evidence, HardeningStatement, Policy, Reference, Roots, TeeKind, canonical_dcap,
};
use bield_platform::TeeError;
use bield_protocol::refusal::Retry;
use bield_protocol::service::{Freshness, PlayedLog};
use bield_session::{Freshness as Evidenced, accept};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};

use super::*;
use crate::testing::{Cast, PlayedClock, code, package};

mod failing;
mod states;

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
    client: Arc<KeyService>,
    offers: Arc<Offers>,
    /// The played key service's log.
    log: Mutex<PlayedLog>,
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
            Evidenced::Fresh,
        );
        let worker = cast.worker.principal();
        let clock = Arc::new(PlayedClock::new());
        let hardening = HardeningStatement::default();
        let not_fresh = Arc::default();
        let client = KeyService::new(
            Arc::clone(&offers),
            machine,
            expect,
            worker,
            clock,
            hardening,
            not_fresh,
        );
        let client = Arc::new(client.unwrap());
        Self {
            cast,
            client,
            offers,
            log: Mutex::new(PlayedLog::new("bield/keys/1", 5)),
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

    /// Fetches keys from a host whose pipes do this, one after the other; tells which numbers were dialled.
    fn fetch_through(
        &self,
        carries: impl Fn(usize, UnixStream) + Sync,
    ) -> (Vec<u8>, Result<Keys, KeysError>) {
        let numbers = Mutex::new(Vec::new());
        let keys = thread::scope(|scope| {
            for dial in 0..failover::DIALS_MAX as usize {
                let mut pipe = self.offer();
                let (numbers, carries) = (&numbers, &carries);
                scope.spawn(move || {
                    let mut number = [0];
                    if pipe.read_exact(&mut number).is_ok() {
                        lock(numbers).push(number[0]);
                        carries(dial, pipe);
                    }
                });
            }
            let keys = self.client.fetch(package(1), &|| None);
            while self.offers.take(Visit::KeyService, Duration::ZERO).is_ok() {}
            keys
        });
        (numbers.into_inner().unwrap(), keys)
    }

    /// Fetches keys from key services that answer with `answers`, whichever is dialled.
    fn fetch(&self, answers: impl FnMut(Request) -> Reply + Send) -> Result<Keys, KeysError> {
        let answers = Mutex::new(answers);
        self.fetch_through(|_, pipe| serve(pipe, self.service(), |request| lock(&answers)(request)))
            .1
    }

    fn service(&self) -> Principal {
        self.cast.service.principal()
    }

    fn answer(&self, request: &Request) -> Reply {
        match request {
            Request::Freshness(kept) => Reply::Freshness(self.freshness(kept.as_deref())),
            Request::Certify(worker) => {
                assert_eq!(*worker, self.cast.worker.principal());
                Reply::Certificate(self.cast.certificate().as_signed().clone())
            }
            Request::Lease(request) => Reply::Lease(self.cast.leased(request.package, MINUTE)),
            Request::Return(_) => Reply::Done(1),
            _ => panic!("not asked for with keys"),
        }
    }

    /// The newest head of the log, grown by a record each time as a lease makes it grow.
    fn freshness(&self, kept: Option<&str>) -> Freshness {
        let mut log = lock(&self.log);
        log.grow(1);
        kept.map_or_else(|| log.answer(), |kept| log.answer_to(kept).unwrap())
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
        HardeningStatement::default(),
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
        Evidenced::Fresh,
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
fn keys_come_over_an_attested_session_after_the_log_and_the_certificate_with_the_first() {
    let stage = Stage::expecting(code(2));
    let mut asked = Vec::new();
    for _ in 0..2 {
        let keys = stage.fetch(|request| {
            asked.push(match request {
                Request::Freshness(None) => "first",
                Request::Freshness(Some(_)) => "fresh",
                Request::Certify(_) => "certify",
                _ => "lease",
            });
            stage.answer(&request)
        });
        let keys = keys.unwrap();
        assert_eq!(keys.lease.package, package(1));
        assert_eq!(keys.certificate.signer(), stage.service());
    }
    assert_eq!(asked, ["first", "certify", "lease", "fresh", "lease"]);
}

#[test]
fn what_was_not_used_goes_with_the_question_for_more() {
    let stage = Stage::expecting(code(2));
    let unused = Returned {
        lease: 7,
        unused: Vec::new(),
    };
    let returned = Mutex::new(None);
    thread::scope(|scope| {
        let mut pipe = stage.offer();
        scope.spawn(|| {
            pipe.read_exact(&mut [0]).unwrap();
            serve(pipe, stage.service(), |request| {
                if let Request::Lease(request) = &request {
                    *lock(&returned) = request.returned.clone();
                }
                stage.answer(&request)
            });
        });
        stage
            .client
            .fetch(package(1), &|| Some(unused.clone()))
            .unwrap();
    });
    assert_eq!(*lock(&returned), Some(unused));
}

#[test]
fn allotments_are_given_back_in_one_session_and_a_no_to_one_keeps_no_other() {
    let stage = Stage::expecting(code(2));
    let returned = |lease| Returned {
        lease,
        unused: Vec::new(),
    };
    let arrived = Mutex::new(Vec::new());
    thread::scope(|scope| {
        let mut pipe = stage.offer();
        scope.spawn(|| {
            pipe.read_exact(&mut [0]).unwrap();
            serve(pipe, stage.service(), |request| match &request {
                Request::Return(returned) if returned.lease == 1 => refuses("unknown-lease"),
                Request::Return(returned) => {
                    lock(&arrived).push(returned.lease);
                    Reply::Done(1)
                }
                _ => stage.answer(&request),
            });
        });
        let all = [returned(1), returned(2), returned(3)];
        stage.client.give_back(&all, MINUTE).unwrap();
    });
    assert_eq!(*lock(&arrived), [2, 3]);
}

fn refuses(code: &str) -> Reply {
    Reply::Refused(Refusal::new(code, "names of others", Retry::After(5000)))
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
        Request::Lease(_) => refuses("grant-not-yet-valid"),
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
fn a_service_that_does_not_serve_is_told_from_one_that_refuses() {
    let stage = Stage::expecting(code(2));
    for (code, _) in NOT_SERVING {
        let refused = stage.fetch(|request| match request {
            Request::Lease(_) => refuses(code),
            other => stage.answer(&other),
        });
        let refused = refused.err().unwrap();
        assert!(refused.is_outage(), "{code}: {refused}");
        let refused = refused.unsealed();
        assert!(refused.retry_after_ms.is_some());
        assert!(!refused.message.contains("others"), "{refused:?}");
    }
}

#[test]
fn an_answer_to_another_question_gives_no_keys() {
    let stage = Stage::expecting(code(2));
    let refused = stage.fetch(|_| Reply::Done(1)).err();
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
