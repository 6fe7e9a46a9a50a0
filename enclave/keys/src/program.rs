//! The program around the service: door, TEE, sessions, start and end.
//!
//! ```text
//! launcher ──configuration──▶ checked ──▶ TEE ──▶ log, witnesses ──▶ "ok" ──▶ sessions … ──▶ the launcher goes:
//!                                                                             queue emptied, last snapshot, exit 0
//! ```
//!
//! Always true: the launcher hears "ok" when somebody can be answered (a service that waits for shares, for
//! witnesses or for its group answers `Inspect`), or one sentence why not; a service that can never serve
//! again from this state stays and says so to everybody who asks, until it is stopped; a fault ends the
//! program.

mod attested;
mod key_service;
mod member;
mod settings;
mod start;

use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bield_door::{Configuring, Door, DoorError, Offers, Stream};
use bield_evidence::configuration_digest;
use bield_ledger::HostFiles;
use bield_platform::{Code, Hardening, confine, harden, lock_memory, now, software};
use bield_protocol::status::Status;
use bield_protocol::visit::Visit;
use bield_session::{Expect, Identity, Session, SessionError};

use crate::files::SharedFiles;
use crate::metrics::Metrics;
use crate::sequencer::Trouble;
use crate::sessions::{House, MemberStream, Sessions};
use crate::witnesses::{Dial, Pipe};
use attested::Attested;
pub use key_service::KeyService;
use member::Membership;
use settings::{Peers, Settings};
pub(crate) use start::Start;

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

/// Serves until the host goes away. `member` is this instance's place in its group, from 0, as the host says:
/// it only tells members apart.
///
/// # Errors
/// No door, no TEE, a configuration that does not hold, or a state that does not open.
pub fn run(tee: &str, member: u8) -> Result<(), ProgramError> {
    bield_platform::refuse_environment(&[])
        .map_err(|error| ProgramError::Start(error.to_string()))?;
    let door = Door::from_stdin()?;
    let (configuration, configuring) = door.configuration()?;
    let offers = Arc::new(Offers::new());
    let environment = match Environment::prepare(tee, member, &configuration, &offers) {
        Ok(environment) => environment,
        Err(sentence) => {
            // The launcher may be gone; the sentence is also this program's last line.
            drop(configuring.refuse(&sentence));
            return Err(ProgramError::Start(sentence));
        }
    };
    let house: Arc<dyn House> = Arc::clone(&environment) as _;
    let sessions = Sessions::new(
        house,
        environment.sessions_max,
        Arc::clone(&environment.metrics),
    );
    // The state comes from the host's storage, whose offers arrive through the accept loop.
    start_in_background(&environment, configuring);
    let outcome = loop {
        match door.accept() {
            Ok((visit @ (Visit::Storage | Visit::Witness | Visit::Member), stream)) => {
                offers.keep(visit, stream);
            }
            Ok((Visit::Session, stream)) => sessions.serve(stream),
            Ok((Visit::Status, stream)) => environment.tell_status(stream, &sessions),
            Ok(_) => {}
            Err(DoorError::HostGone) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    environment.end();
    sessions.end();
    outcome
}

/// Brings the service up while the door is open already, and tells the launcher; ends the program when that
/// fails, now or later.
fn start_in_background(environment: &Arc<Environment>, configuring: Configuring) {
    let (up, is_up) = sync_channel(1);
    let environment = Arc::clone(environment);
    let bring_up = move || drop(up.send(environment.bring_up()));
    let tell = move || {
        // One that waits for its witnesses can be asked how it is, and that is worth knowing.
        let first = is_up.recv_timeout(READY_WAIT);
        let told = match &first {
            Ok(Err(sentence)) => configuring.refuse(sentence),
            _ => configuring.ready(),
        };
        let last = match first {
            Err(RecvTimeoutError::Timeout) => {
                is_up.recv().unwrap_or_else(|_| Err(FAULT.to_owned()))
            }
            Err(RecvTimeoutError::Disconnected) => Err(FAULT.to_owned()),
            Ok(first) => first,
        };
        if let Err(sentence) = &last {
            eprintln!("bield-keys: {sentence}");
        }
        if last.is_err() || told.is_err() {
            std::process::exit(1);
        }
    };
    let threads = std::thread::Builder::new()
        .spawn(bring_up)
        .and_then(|_| std::thread::Builder::new().spawn(tell));
    if let Err(error) = threads {
        eprintln!("bield-keys: no thread to start on: {error}");
        std::process::exit(1);
    }
}

/// Everything sessions share.
struct Environment {
    attested: Arc<Attested>,
    offers: Arc<Offers>,
    /// What other members must show, when there are any.
    peers: Option<Peers>,
    membership: OnceLock<Arc<Membership>>,
    simulated: bool,
    hardening: Hardening,
    sessions_max: usize,
    service: Arc<KeyService>,
    metrics: Arc<Metrics>,
}

impl Environment {
    fn prepare(
        tee: &str,
        member: u8,
        configuration: &[u8],
        offers: &Arc<Offers>,
    ) -> Result<Arc<Self>, String> {
        let settings = Settings::read(configuration)?;
        if member >= settings.members {
            return Err(format!(
                "this is member {member} of {}; members count from 0",
                settings.members
            ));
        }
        let socket = tee
            .strip_prefix("software:")
            .ok_or_else(|| format!("TEE `{tee}` is not supported; use software:SOCKET"))?;
        let tee = software::connect(Path::new(socket), configuration_digest(configuration))
            .map_err(|error| error.to_string())?;
        // Connected, so measured; and not a secret here yet.
        let hardening = harden().and(lock_memory());
        let tee: Arc<dyn bield_platform::Tee> = Arc::new(tee);
        let seal = tee
            .seal_key(SEAL_CONTEXT)
            .map_err(|error| error.to_string())?;
        let metrics = Arc::new(Metrics::default());
        metrics.member.set(member.into());
        let start = Start {
            files: SharedFiles::new(HostFiles::new(Arc::clone(offers))),
            seal,
            limits: settings.limits,
            members: settings.members,
            member,
            witnesses: settings.witnesses,
            needed: settings.needed,
            dial: Arc::new(HostPipes(Arc::clone(offers))),
            clock: Arc::new(now),
            metrics: Arc::clone(&metrics),
            fate: Arc::new(last_word),
            thread: Mutex::default(),
        };
        // Nothing is opened from here on; the files are the host's, through the door.
        let hardening = hardening.and(confine(&*tee, Code::Fixed));
        Ok(Arc::new(Self {
            attested: Arc::new(Attested::new(
                tee,
                settings.runtimes,
                hardening.stated(),
                Arc::clone(&metrics),
            )),
            offers: Arc::clone(offers),
            peers: settings.peers.filter(|_| settings.members > 1),
            membership: OnceLock::new(),
            simulated: true, // `software:` is the only kind this version takes
            hardening,
            sessions_max: settings.sessions_max,
            service: KeyService::new(start, settings.orders_per_minute, Arc::clone(&metrics)),
            metrics,
        }))
    }

    fn bring_up(&self) -> Result<(), String> {
        match self.peers.clone() {
            None => self.service.start().solo(&self.service)?,
            Some(peers) => {
                let (attested, offers) = (&self.attested, &self.offers);
                let member = Membership::start(&self.service, attested, offers, peers)?;
                drop(self.membership.set(member));
            }
        }
        let identity = self.attested.identity(self.service.principal());
        identity.map(drop).map_err(|error| error.to_string())
    }

    /// Finishes what was begun; the host may be gone, then what it does not store was not acknowledged.
    fn end(&self) {
        self.service.close();
        self.service.start().finish();
        if let Some(member) = self.membership.get() {
            member.cluster().stop();
        }
    }

    fn tell_status(&self, mut stream: Stream, sessions: &Sessions) {
        let metrics = &self.metrics;
        metrics.sessions.set(sessions.len() as u64);
        let running = self.service.running();
        metrics
            .waiting
            .set(running.map_or(0, |running| running.waiting() as u64));
        let status = Status {
            program: "bield-keys".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            measurement: self.attested.tee().measurement().to_string(),
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
                .map(ToString::to_string)
                .collect(),
            in_flight: sessions.len() as u64,
            served: metrics.orders.get() + metrics.leases.get() + metrics.states.get(),
            refused: metrics.orders_refused.get()
                + metrics.leases_refused.get()
                + metrics.states_refused.get(),
            resident: 0,
            state: self.service.state_word().into(),
            metrics: metrics.list(),
        };
        // A host that asks and leaves loses only its answer.
        drop(stream.write_all(&status.encode()));
    }
}

impl House for Environment {
    fn identity(&self) -> Result<Arc<Identity>, SessionError> {
        self.attested.identity(self.service.principal())
    }

    fn expect(&self) -> Result<Vec<Expect>, SessionError> {
        let mut expect = self.attested.expect()?;
        if let Some(member) = self.membership.get() {
            expect.push(member.expect()?);
        }
        Ok(expect)
    }

    fn serve_member(&self, session: Session<MemberStream<'_>>) {
        if let Some(member) = self.membership.get() {
            member.cluster().serve(session);
        }
    }

    fn service(&self) -> &Arc<KeyService> {
        &self.service
    }
}

/// Pipes that the host offers.
struct HostPipes(Arc<Offers>);

impl Dial for HostPipes {
    fn dial(&self, witness: u8) -> Result<Box<dyn Pipe>, String> {
        let mut pipe = self
            .0
            .take(Visit::Witness, PIPE_WAIT)
            .map_err(|_| "the host offers no pipe to it".to_owned())?;
        let named = pipe.write_all(&[witness]);
        named.map_err(|error| error.to_string())?;
        Ok(Box::new(pipe))
    }
}

/// What the operator sees when the service ends. One that was set back goes on to say so to its callers;
/// one whose fault may pass is started again by its host.
fn last_word(trouble: &Trouble) {
    eprintln!("bield-keys: {}", trouble.sentence);
    if trouble.passing {
        std::process::exit(1);
    }
}

/// What is said when a thread of the start is gone.
const FAULT: &str = "it found a fault in itself while starting";
/// How long the launcher waits for more than an instance that can be asked how it is.
const READY_WAIT: Duration = Duration::from_secs(20);
/// Names the key that the root file is sealed with.
const SEAL_CONTEXT: &str = "bield-keys root v2";
/// How long a round with a witness waits for the host to offer a pipe.
const PIPE_WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
pub(crate) mod tests;
