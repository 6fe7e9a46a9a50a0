//! The program around the service: door, TEE, sessions, limits.
//!
//! One thread accepts, one thread a session up to the configured number; a session beyond it is
//! closed at once, to be tried again. A session ends after [`SESSION_MESSAGES_MAX`] messages or when
//! it is silent for [`SILENCE_MAX`].

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bield_door::{Door, DoorError, Offers, Stream};
use bield_evidence::{PolicyConfig, configuration_digest};
use bield_platform::{Hardening, Randomness, Tee, now, software};
use bield_protocol::configuration::KeyServiceConfiguration;
use bield_protocol::service::Request;
use bield_protocol::status::Status;
use bield_protocol::visit::Visit;
use bield_session::{Expect, Freshness, Identity, Role, SessionError, SessionKey};

use crate::service::{Conversation, Service};
use crate::store::Sealed;

/// Why the program does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// The door.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// Anything between configuration and readiness, in a sentence for the operator.
    #[error("{0}")]
    Start(String),
}

/// Serves until the host goes away.
///
/// # Errors
/// No door, no TEE, a configuration that does not hold, or a state that does not open.
pub fn run(tee: &str) -> Result<(), ProgramError> {
    let door = Door::from_stdin()?;
    let offers = Arc::new(Offers::new());
    let (configuration, configuring) = door.configuration()?;
    let environment = match Environment::prepare(tee, &configuration) {
        Ok(environment) => environment,
        Err(sentence) => {
            // The launcher may be gone; the sentence is also this program's last line.
            drop(configuring.refuse(&sentence));
            return Err(ProgramError::Start(sentence));
        }
    };
    let program = Arc::new(environment);
    // The state comes from the host's storage, whose offers arrive through the accept loop.
    start_in_background(&program, &offers, configuring);
    loop {
        match door.accept() {
            Ok((visit @ Visit::Storage, stream)) => offers.keep(visit, stream),
            Ok((Visit::Session, stream)) => Environment::serve(&program, stream),
            Ok((Visit::Status, stream)) => program.tell_status(stream),
            Ok(_) => {}
            Err(DoorError::HostGone) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Loads the state while the door is open already; ends the program when that fails.
fn start_in_background(
    program: &Arc<Environment>,
    offers: &Arc<Offers>,
    configuring: bield_door::Configuring,
) {
    let (program, offers) = (Arc::clone(program), Arc::clone(offers));
    std::thread::spawn(move || {
        let told = match program.start_service(offers) {
            Ok(()) => configuring.ready(),
            Err(sentence) => {
                drop(configuring.refuse(&sentence));
                eprintln!("bield-keys: {sentence}");
                std::process::exit(1);
            }
        };
        if told.is_err() {
            std::process::exit(1);
        }
    });
}

/// Everything sessions share.
struct Environment {
    tee: Arc<dyn Tee>,
    simulated: bool,
    runtimes: PolicyConfig,
    sessions_max: u64,
    hardening: Hardening,
    service: Mutex<Option<Arc<Service>>>,
    /// With the moment it was made; not by the wall clock, which the host may set back.
    identity: Mutex<Option<(Instant, Arc<Identity>)>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    in_flight: AtomicU64,
    served: AtomicU64,
    refused: AtomicU64,
}

impl Environment {
    fn prepare(tee: &str, configuration: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(configuration)
            .map_err(|_| "the configuration is not UTF-8 text".to_owned())?;
        let parsed = KeyServiceConfiguration::parse(text).map_err(|error| error.to_string())?;
        // Refuse a policy that cannot work now, not at the first runtime.
        let runtimes = parsed.runtimes;
        runtimes
            .clone()
            .into_deferred_policy()
            .map_err(|error| error.to_string())?;
        runtimes.roots().map_err(|error| error.to_string())?;
        let socket = tee
            .strip_prefix("software:")
            .ok_or_else(|| format!("TEE `{tee}` is not supported; use software:SOCKET"))?;
        let tee = software::connect(Path::new(socket), configuration_digest(configuration))
            .map_err(|error| error.to_string())?;
        Ok(Self {
            tee: Arc::new(tee),
            simulated: true, // `software:` is the only kind this version takes
            runtimes,
            sessions_max: parsed.sessions_max as u64,
            hardening: bield_platform::harden(),
            service: Mutex::default(),
            identity: Mutex::default(),
            counters: Counters::default(),
        })
    }

    fn start_service(&self, offers: Arc<Offers>) -> Result<(), String> {
        let key = self
            .tee
            .seal_key("bield-keys state v1")
            .map_err(|error| error.to_string())?;
        let store = Sealed {
            offers,
            key,
            entropy: || Randomness,
        };
        let service = Service::start(Box::new(store), &mut Randomness);
        let service = service.map_err(|error| error.to_string())?;
        *self.service.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(service));
        self.identity().map(drop).map_err(|error| error.to_string())
    }

    fn service(&self) -> Option<Arc<Service>> {
        self.service
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The attested identity, made anew when its evidence grows old.
    fn identity(&self) -> Result<Arc<Identity>, SessionError> {
        let service = self.service().ok_or(SessionError::Closed)?;
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, identity)) = &*identity
            && made.elapsed() < IDENTITY_AGE_MAX
        {
            return Ok(Arc::clone(identity));
        }
        let tee = Arc::clone(&self.tee);
        let made = Arc::new(Identity::issue(
            bield_session::provider(),
            SessionKey::generate(&mut Randomness),
            Role::KeyService,
            Some(service.principal()),
            self.tee.kind(),
            now(),
            IDENTITY_LIFETIME,
            Box::new(move |data| tee.evidence(data).map_err(|error| error.to_string())),
        )?);
        *identity = Some((Instant::now(), Arc::clone(&made)));
        Ok(made)
    }

    /// Serves one session on a thread of its own, if there is room.
    fn serve(program: &Arc<Self>, stream: Stream) {
        if program.counters.in_flight.fetch_add(1, Ordering::SeqCst) >= program.sessions_max {
            program.counters.in_flight.fetch_sub(1, Ordering::SeqCst);
            program.counters.refused.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let program = Arc::clone(program);
        let started = {
            let program = Arc::clone(&program);
            std::thread::Builder::new()
                .name("session".into())
                .spawn(move || {
                    let served = InFlight(&program.counters);
                    let outcome = program.converse(stream);
                    let counter = if outcome.is_ok() {
                        &program.counters.served
                    } else {
                        &program.counters.refused
                    };
                    counter.fetch_add(1, Ordering::SeqCst);
                    drop(served);
                })
        };
        if started.is_err() {
            program.counters.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn converse(&self, stream: Stream) -> Result<(), SessionError> {
        let service = self.service().ok_or(SessionError::Closed)?;
        stream
            .limit_waits(SILENCE_MAX)
            .map_err(SessionError::Stream)?;
        let expect = [Expect::Client, self.expect_runtime()?];
        let identity = self.identity()?;
        let mut session =
            bield_session::accept(stream, &identity, &expect, now(), &mut Randomness)?;
        let binding = session.binding();
        let mut sequence = 0;
        for _ in 0..SESSION_MESSAGES_MAX {
            let message = match session.receive() {
                Ok(message) => message,
                Err(SessionError::Closed) => return Ok(()),
                Err(error) => return Err(error),
            };
            let runtime = session.peer().appraised.as_ref();
            let mut with = Conversation {
                runtime,
                binding,
                sequence,
            };
            let reply = match Request::decode(&message) {
                Ok(request) => service.answer(&mut with, request, now()),
                Err(error) => malformed(&error),
            };
            sequence = with.sequence;
            session.send(&reply.encode())?;
        }
        session.close();
        Ok(())
    }

    fn expect_runtime(&self) -> Result<Expect, SessionError> {
        let refuse = |error: &dyn core::fmt::Display| SessionError::Attest(error.to_string());
        let policy = self
            .runtimes
            .clone()
            .into_deferred_policy()
            .map_err(|error| refuse(&error))?;
        let roots = self.runtimes.roots().map_err(|error| refuse(&error))?;
        Ok(Expect::attested(
            Role::Runtime,
            roots,
            policy,
            None,
            Freshness::Fresh,
        ))
    }

    fn tell_status(&self, mut stream: Stream) {
        use std::io::Write as _;
        let status = Status {
            program: "bield-keys".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            measurement: self.tee.measurement().to_string(),
            simulated: self.simulated,
            hardening: self
                .hardening
                .applied
                .iter()
                .map(ToString::to_string)
                .collect(),
            missing: self
                .hardening
                .failed
                .iter()
                .map(|failed| failed.protection.to_string())
                .collect(),
            in_flight: self.counters.in_flight.load(Ordering::SeqCst),
            served: self.counters.served.load(Ordering::SeqCst),
            refused: self.counters.refused.load(Ordering::SeqCst),
            resident: 0,
        };
        // A host that asks and leaves loses only its answer.
        drop(stream.write_all(&status.encode()));
    }
}

fn malformed(error: &dyn core::fmt::Display) -> bield_protocol::service::Reply {
    use bield_protocol::refusal::{Refusal, Retry};
    bield_protocol::service::Reply::Refused(Refusal::new("malformed", error, Retry::Never))
}

/// Counts a session out when it ends, however it ends.
struct InFlight<'a>(&'a Counters);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The most messages of one session: an owner's script with thousands of grants fits.
const SESSION_MESSAGES_MAX: usize = 100_000;
/// How long a session may be silent. Runtimes open a new one per lease.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Evidence is made anew after this, well within the ten minutes that clients accept.
const IDENTITY_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Validity of a session certificate.
const IDENTITY_LIFETIME: Duration = Duration::from_secs(60 * 60);
