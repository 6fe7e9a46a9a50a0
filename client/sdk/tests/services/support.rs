//! The cast: a key service and a gateway with a runtime behind it, on real sockets, honest unless told
//! to lie in one place.

mod function;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bield_envelope::{
    AudienceKey, Digest, SealedRequest, Secret, Seeded, Signed, SigningKey, Time,
};
use bield_evidence::{HardeningStatement, Measurement, Protection, TeeKind, canonical_dcap};
use bield_grant::{CodeIdentity, CodeSelector, audience};
use bield_protocol::inference::{Answer, Output, Reply, Request};
use bield_protocol::refusal::{Refusal, Retry};
use bield_protocol::service::{self, Inspection, KeyConfiguration, PackageReference, PlayedLog};
use bield_receipt::{Receipt, StateSpan, WorkerCertificate, output_commitment};
use bield_sdk::{ElementType, Home, Randomness, Tensor, TensorSpec, Trust, now};
use bield_session::{Expect, Identity, Role, SessionKey, accept, provider};
use bield_software_tee::{CollateralOptions, Kind, Options, Platform, SgxReport};

pub(crate) use function::{CAPSULE, Deed, state};

pub(crate) const KEYS_CODE: [u8; 32] = [0x11; 32];
pub(crate) const RUNTIME_CODE: [u8; 32] = [0x22; 32];
const HOUR: Duration = Duration::from_secs(3600);

/// One untruth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// The key service names a key of other code.
    OtherCode,
    /// … of another package.
    OtherPackage,
    /// … of an audience that does not follow from package and code.
    OtherAudience,
    /// … under another anchor of receipts.
    OtherService,
    /// … that has ended.
    Ended,
    /// … that lasts longer than a day.
    EndsTooLate,
    /// The key service refuses.
    RefusesKey,
    /// The gateway is busy twice before it serves.
    BusyTwice,
    /// The gateway is always busy.
    AlwaysBusy,
    /// The gateway answers with another request's answer.
    OtherAnswer,
    /// The gateway flips a byte of the answer.
    AlteredAnswer,
    /// The runtime refuses under seal.
    RefusesCall,
    /// The receipt is about other output.
    OtherOutput,
    /// The receipt is signed by a key that nobody certified.
    UncertifiedWorker,
    /// The key service acknowledges changes and does not log them.
    Forgets,
    /// The key service says of itself that it was recovered elsewhere.
    SetBack,
    /// The key service has no name yet: it waits for its members.
    Forming,
    /// … or for shares.
    Recovering,
    /// The key service hangs up when it is given an order.
    HangsUp,
    /// The package is a function.
    Function(Deed),
}

/// What the stand-ins saw.
#[derive(Default)]
pub(crate) struct Seen {
    /// Bodies that reached the gateway.
    pub(crate) bodies: Vec<Vec<u8>>,
    /// Commands that reached the key service: signer, binding matches, sequence.
    pub(crate) commands: Vec<(bield_envelope::Principal, bool, u64)>,
}

/// A running pair of stand-ins.
pub(crate) struct World {
    pub(crate) trust_text: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) package: Digest,
    /// A home of its own: what it has seen of this service.
    pub(crate) home: Home,
    log: Arc<Mutex<PlayedLog>>,
    follower: u16,
    machine: Arc<Platform>,
    _directory: tempfile::TempDir,
}

impl World {
    pub(crate) fn with(lie: Lie) -> Self {
        let machine =
            Arc::new(Platform::generate(Options::seeded([7; 32], now().minus(24 * HOUR))).unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let package = Digest::of("test package", &[]);
        let log = Arc::new(Mutex::new(PlayedLog::new("keys.example/log", 5)));
        let directory = tempfile::tempdir().unwrap();
        let cast = Arc::new(Cast {
            lie,
            package,
            service: SigningKey::from_seed(Secret::from_bytes([1; 32])),
            worker: SigningKey::from_seed(Secret::from_bytes([2; 32])),
            audience: AudienceKey::generate(&mut Seeded::new(3)),
            owner: SigningKey::from_seed(Secret::from_bytes([4; 32])),
            seen: Arc::clone(&seen),
            log: Arc::clone(&log),
        });
        let keys = key_service(Arc::clone(&cast), Arc::clone(&machine), true);
        let follower = key_service(Arc::clone(&cast), Arc::clone(&machine), false);
        let gateway = gateway(cast);
        let trust_text = format!(
            "gateway = \"http://127.0.0.1:{gateway}\"\nkey_service = \"127.0.0.1:{keys}\"\n\
             code = [\"{runtime}\"]\n[service]\nprofile = \"dev\"\nallow_simulated = true\n\
             simulated_roots = [\"{root}\"]\nmeasurements = [\"{code}\"]\n",
            runtime = runtime_code(),
            code = measurement(KEYS_CODE),
            root = hex::encode(machine.root_der()),
        );
        Self {
            trust_text,
            seen,
            package,
            home: Home::at(directory.path().join("home")),
            log,
            follower,
            machine,
            _directory: directory,
        }
    }

    /// Where a member listens that is not the leader.
    pub(crate) fn follower(&self) -> String {
        format!("127.0.0.1:{}", self.follower)
    }

    /// Puts the service's log back to so many records, or on to them.
    pub(crate) fn set_log(&self, size: u64) {
        *self.log.lock().unwrap() = PlayedLog::new("keys.example/log", size);
    }

    /// Has holders of shares recover the service from so many records, of its own log or of another branch.
    pub(crate) fn recover_log(&self, found: u64, branch: bool) {
        let common = if branch { 0 } else { found };
        let before = PlayedLog::forked("keys.example/log", found, common);
        *self.log.lock().unwrap() = PlayedLog::new("keys.example/next", 3).recovered_from(before);
    }

    /// Starts an instance with a log of its own beside the service; `same` says whether it bears its name.
    pub(crate) fn beside(&self, name: &str, size: u64, same: bool) -> String {
        self.beside_that(Lie::None, name, size, same)
    }

    /// As [`beside`](Self::beside), with a lie.
    pub(crate) fn beside_that(&self, lie: Lie, name: &str, size: u64, same: bool) -> String {
        let seed = if same { 1 } else { 8 };
        let cast = Cast {
            lie,
            package: self.package,
            service: SigningKey::from_seed(Secret::from_bytes([seed; 32])),
            worker: SigningKey::from_seed(Secret::from_bytes([2; 32])),
            audience: AudienceKey::generate(&mut Seeded::new(3)),
            owner: SigningKey::from_seed(Secret::from_bytes([4; 32])),
            seen: Arc::clone(&self.seen),
            log: Arc::new(Mutex::new(PlayedLog::new(name, size))),
        };
        let port = key_service(Arc::new(cast), Arc::clone(&self.machine), true);
        format!("127.0.0.1:{port}")
    }

    /// The same trust with the key service at these addresses.
    pub(crate) fn trust_at(&self, addresses: &[&str]) -> Trust {
        let list: Vec<_> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
        let one = format!("key_service = \"{}\"", self.trust().key_service());
        let several = format!("key_service = [{}]", list.join(", "));
        Trust::parse(&self.trust_text.replace(&one, &several)).unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::parse(&self.trust_text).unwrap()
    }

    pub(crate) fn reference(&self) -> PackageReference {
        PackageReference::Digest(self.package)
    }

    pub(crate) fn bodies(&self) -> usize {
        self.seen.lock().unwrap().bodies.len()
    }
}

pub(crate) fn measurement(bytes: [u8; 32]) -> Measurement {
    Measurement::new(TeeKind::Sgx, &bytes).unwrap()
}

pub(crate) fn runtime_code() -> Measurement {
    measurement(RUNTIME_CODE)
}

pub(crate) fn input(values: &[f32]) -> Tensor {
    Tensor::from_f32("x", &[values.len() as u64], values).unwrap()
}

struct Cast {
    lie: Lie,
    package: Digest,
    service: SigningKey,
    worker: SigningKey,
    audience: AudienceKey,
    owner: SigningKey,
    seen: Arc<Mutex<Seen>>,
    log: Arc<Mutex<PlayedLog>>,
}

/// Serves attested sessions, or refuses everything as a follower does; returns its port.
fn key_service(cast: Arc<Cast>, machine: Arc<Platform>, leads: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let attest = Box::new(move |report_data: &[u8; 64]| {
        let report = SgxReport {
            measurement: KEYS_CODE,
            report_data: *report_data,
            ..SgxReport::default()
        };
        let collateral = machine
            .collateral(Kind::Sgx, &CollateralOptions::at(now()))
            .unwrap();
        Ok(canonical_dcap(&machine.sgx_quote(&report), &collateral).unwrap())
    });
    let named = !matches!(cast.lie, Lie::Forming | Lie::Recovering);
    let identity = Identity::issue(
        provider(),
        SessionKey::generate(&mut Randomness),
        Role::KeyService,
        named.then(|| cast.service.principal()),
        TeeKind::Sgx,
        hardening(),
        now(),
        HOUR,
        attest,
    )
    .unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let accepted = accept(
                stream.unwrap(),
                &identity,
                &[Expect::Client],
                now(),
                &mut Randomness,
            );
            let Ok(mut session) = accepted else { continue };
            while let Ok(message) = session.receive() {
                let request = service::Request::decode(&message).unwrap();
                let order = matches!(request, service::Request::Command(_));
                if cast.lie == Lie::HangsUp && order {
                    break;
                }
                let reply = if leads {
                    cast.answer(request, session.binding())
                } else {
                    let refusal =
                        Refusal::new("not-leader", "ask another member", Retry::After(200));
                    service::Reply::Refused(refusal)
                };
                session.send(&reply.encode()).unwrap();
            }
        }
    });
    port
}

/// Serves HTTP, one request a connection; returns its port.
fn gateway(cast: Arc<Cast>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let body = body_of(&stream);
            let (status, head, answer) = cast.serve(&body);
            let length = answer.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{head}\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    port
}

fn body_of(stream: &TcpStream) -> Vec<u8> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    body
}

impl Cast {
    fn answer(&self, request: service::Request, binding: [u8; 32]) -> service::Reply {
        match request {
            service::Request::KeyConfiguration(_, code) => self.key_configuration(code),
            service::Request::Command(command) | service::Request::PutPackage(command, _) => {
                let command = command.verify_claimed().unwrap();
                let seen = (
                    command.signer(),
                    command.session == binding,
                    command.sequence,
                );
                self.seen.lock().unwrap().commands.push(seen);
                let mut log = self.log.lock().unwrap();
                if self.lie == Lie::Forgets {
                    return service::Reply::Done(log.size() + 1);
                }
                log.grow(1);
                service::Reply::Done(log.size())
            }
            service::Request::Freshness(Some(_)) if self.lie == Lie::SetBack => {
                let refusal = Refusal::new("rolled-back", "it went on", Retry::AfterChange);
                service::Reply::Refused(refusal)
            }
            service::Request::Freshness(kept) => {
                let log = self.log.lock().unwrap();
                let answer = match kept {
                    Some(kept) => log.answer_to(&kept),
                    None => Some(log.answer()),
                };
                let foreign = || Refusal::new("foreign-checkpoint", "not mine", Retry::AfterChange);
                answer.map_or_else(
                    || service::Reply::Refused(foreign()),
                    service::Reply::Freshness,
                )
            }
            _ => service::Reply::Inspection(Inspection {
                principals: 1,
                packages: 2,
                grants: 3,
                service: self.service.principal(),
                state: match self.lie {
                    Lie::Forming => "forming",
                    Lie::Recovering => "recovering",
                    _ => "serving",
                }
                .to_owned(),
                size: 5,
                log: String::new(),
                witnesses: (0, 0),
                members: 1,
                shares: None,
                lease_secs: 600,
                trouble: None,
            }),
        }
    }

    fn key_configuration(&self, code: CodeSelector) -> service::Reply {
        let code = match code {
            CodeSelector::Measurement(code) => code,
            CodeSelector::Signed(_) => runtime_code(),
        };
        if self.lie == Lie::RefusesKey {
            let refusal = Refusal::new("code-not-granted", "ask the owner", Retry::AfterChange);
            return service::Reply::Refused(refusal);
        }
        let spec = |name| TensorSpec::new(name, ElementType::F32, vec![None]).unwrap();
        let mut named = KeyConfiguration {
            audience: audience(self.package, &code),
            generation: 0,
            package: self.package,
            code: CodeIdentity::measured(code),
            key: self.audience.public().clone(),
            not_after: now().plus(HOUR),
            owner: self.owner.principal(),
            name: "doubler".to_owned(),
            version: "1".to_owned(),
            inputs: vec![spec("x")],
            outputs: vec![spec("y")],
            service: self.service.principal(),
        };
        match self.lie {
            Lie::OtherCode => named.code.measurement = measurement([9; 32]),
            Lie::OtherPackage => {
                named.package = Digest::of("other package", &[]);
                named.audience = audience(named.package, &named.code.measurement);
            }
            Lie::OtherAudience => named.audience = Digest::of("other audience", &[]),
            Lie::OtherService => named.service = self.owner.principal(),
            Lie::EndsTooLate => named.not_after = now().plus(24 * HOUR + Duration::from_secs(60)),
            Lie::Ended => named.not_after = now().minus(Duration::from_secs(1)),
            Lie::Function(_) => {
                named.inputs.clear();
                named.outputs.clear();
            }
            _ => {}
        }
        service::Reply::KeyConfiguration(named)
    }

    /// Status line, headers, body.
    fn serve(&self, body: &[u8]) -> (&'static str, String, Vec<u8>) {
        let before = {
            let mut seen = self.seen.lock().unwrap();
            seen.bodies.push(body.to_vec());
            seen.bodies.len() - 1
        };
        let busy = self.lie == Lie::AlwaysBusy || self.lie == Lie::BusyTwice && before < 2;
        if busy {
            let refusal =
                r#"{"error":{"code":"busy","message":"come back","retry":{"after_ms":5}}}"#;
            return (
                "503 Service Unavailable",
                "retry-after: 1\r\n".to_owned(),
                refusal.into(),
            );
        }
        let mut sealed = self.run(body);
        if self.lie == Lie::AlteredAnswer {
            *sealed.last_mut().unwrap() ^= 1;
        }
        let first = self.seen.lock().unwrap().bodies[0].clone();
        if self.lie == Lie::OtherAnswer && before > 0 {
            sealed = self.run(&first);
        }
        (
            "200 OK",
            "bield-feedback: {\"start\":\"hot\"}\r\n".to_owned(),
            sealed,
        )
    }

    /// What a runtime does: open, double every number, bind, seal.
    fn run(&self, body: &[u8]) -> Vec<u8> {
        let request = SealedRequest::parse(body).unwrap();
        let (opened, sealer) = self.audience.open(&request).unwrap();
        if self.lie == Lie::RefusesCall {
            let refusal = Refusal::new("user-not-granted", "ask the owner", Retry::AfterChange);
            return sealer.seal(&Reply::Refused(refusal).encode(), &mut Randomness);
        }
        if let Lie::Function(deed) = self.lie {
            let calls = self.seen.lock().unwrap().bodies.len() as u64 - 1;
            let (output, state) = function::run(deed, opened.body(), calls);
            let reply = self.answered(opened.digest(), output, state);
            return sealer.seal(&reply.encode(), &mut Randomness);
        }
        let inputs = Request::decode(opened.body()).unwrap().inputs;
        let doubled: Vec<f32> = inputs[0]
            .to_f32()
            .unwrap()
            .iter()
            .map(|x| x * 2.0)
            .collect();
        let tensor = Tensor::from_f32("y", inputs[0].shape(), &doubled).unwrap();
        let output = Output {
            tensors: vec![tensor],
        }
        .encode();
        let reply = self.answered(opened.digest(), output, None);
        sealer.seal(&reply.encode(), &mut Randomness)
    }

    fn answered(&self, request: Digest, output: Vec<u8>, state: Option<StateSpan>) -> Reply {
        let salt = [5; 32];
        let committed: &[u8] = if self.lie == Lie::OtherOutput {
            b"other"
        } else {
            &output
        };
        let receipt = Receipt {
            request,
            package: self.package,
            code: runtime_code(),
            grant: Digest::of("test grant", &[]),
            output: output_commitment(&salt, committed),
            at: now(),
            state,
            simulated: true,
        };
        let worker = match self.lie {
            Lie::UncertifiedWorker => &self.owner,
            _ => &self.worker,
        };
        Reply::Answered(Answer {
            output,
            salt,
            receipt: Signed::sign(worker, receipt).into_signed(),
            certificate: Signed::sign(&self.service, self.certificate()).into_signed(),
        })
    }

    fn certificate(&self) -> WorkerCertificate {
        let from: Time = now().minus(Duration::from_secs(60));
        WorkerCertificate {
            worker: self.worker.principal(),
            code: runtime_code(),
            simulated: true,
            not_before: from,
            not_after: from.plus(HOUR),
            service: self.service.principal(),
            service_evidence: None,
            hardening: hardening(),
        }
    }
}

/// What the processes of this cast say to have given up.
pub(crate) fn hardening() -> HardeningStatement {
    HardeningStatement::new([Protection::ListedSystemCalls], [Protection::LockedMemory])
}
