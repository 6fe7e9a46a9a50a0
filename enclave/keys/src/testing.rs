//! The whole service in one process, without a TEE, a door or sessions: what tests and benches drive.
//!
//! What a session would say of its peer is an argument here ([`Conversation`]), so
//! whoever uses this decides who is a runtime. Everything behind that is the program's own: sequencer, log,
//! freshness, recovery.

use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bield_envelope::{Principal, Secret, Time};
use bield_ledger::Files;
use bield_protocol::service::{Reply, Request};
use bield_tlog::WitnessVerifier;

use crate::KeyService;
use crate::files::SharedFiles;
use crate::metrics::Metrics;
use crate::program::Start;
use crate::sequencer::Trouble;
use crate::service::Conversation;
use crate::state::{Limits, RecoveryLimits};
use crate::witnesses::{Dial, Pipe};

/// How a service in this process is configured.
#[derive(Clone)]
pub struct Options {
    /// The TEE's seal key: another one is another machine.
    pub seal: [u8; 32],
    /// The longest lease, in seconds.
    pub lease_secs: u32,
    /// Who may order what concerns the service as a whole.
    pub administrators: Vec<Principal>,
    /// Who may hold recovery shares.
    pub recovery: Option<RecoveryLimits>,
    /// Whether administrators may let other code of the key service join.
    pub admits_code: bool,
    /// Orders of one principal in a minute.
    pub orders_per_minute: u32,
    /// The host's clock.
    pub clock: Arc<dyn Fn() -> Time + Send + Sync>,
    pub(crate) witnesses: (Vec<WitnessVerifier>, usize, Arc<dyn Dial>),
}

impl Options {
    /// One member, no witnesses, allowances that a test does not use up.
    #[must_use]
    pub fn new(clock: impl Fn() -> Time + Send + Sync + 'static) -> Self {
        Self {
            seal: [5; 32],
            lease_secs: 600,
            administrators: Vec::new(),
            recovery: None,
            admits_code: false,
            orders_per_minute: u32::MAX,
            clock: Arc::new(clock),
            witnesses: (Vec::new(), 0, Arc::new(Nobody)),
        }
    }

    /// The same with witnesses, all of whom must cosign, each at its TCP address.
    #[must_use]
    pub fn with_witnesses(self, witnesses: Vec<(WitnessVerifier, String)>) -> Self {
        let needed = witnesses.len();
        let (keys, addresses) = witnesses.into_iter().unzip();
        Self {
            witnesses: (keys, needed, Arc::new(Direct(addresses))),
            ..self
        }
    }
}

/// A running service.
pub struct InProcess {
    service: Arc<KeyService>,
    ended: Arc<Mutex<Option<String>>>,
}

impl InProcess {
    /// Starts a service on `files`: a new one when they are empty.
    ///
    /// # Errors
    /// The sentence with which the program would refuse to start.
    pub fn start(files: impl Files + 'static, options: &Options) -> Result<Self, String> {
        let built = Self::build(files, options);
        built.service.start().solo(&built.service)?;
        Ok(built)
    }

    /// Everything but its log.
    pub(crate) fn build(files: impl Files + 'static, options: &Options) -> Self {
        let ended = Arc::new(Mutex::new(None));
        let metrics = Arc::new(Metrics::default());
        let told = Arc::clone(&ended);
        let (witnesses, needed, dial) = options.witnesses.clone();
        let start = Start {
            files: SharedFiles::new(files),
            seal: Secret::from_bytes(options.seal),
            limits: Limits {
                lease_secs: options.lease_secs,
                administrators: options.administrators.clone(),
                recovery: options.recovery.clone(),
                admits_code: options.admits_code,
            },
            members: 1,
            member: 0,
            witnesses,
            needed,
            dial,
            clock: Arc::clone(&options.clock),
            metrics: Arc::clone(&metrics),
            fate: Arc::new(move |trouble| {
                *told.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(trouble.sentence.clone());
            }),
            thread: Mutex::default(),
        };
        let service = KeyService::new(start, options.orders_per_minute, metrics);
        Self { service, ended }
    }

    /// Answers one message; any number of threads may ask at once.
    pub fn answer(&self, with: &mut Conversation, request: Request) -> Reply {
        self.service.answer(with, request)
    }

    /// The service itself.
    #[must_use]
    pub fn service(&self) -> &Arc<KeyService> {
        &self.service
    }

    /// Has it write a snapshot now, as it does by itself after many records; tells whether it did.
    #[must_use]
    pub fn snapshot(&self) -> bool {
        self.service
            .running()
            .is_some_and(|running| running.snapshot())
    }

    /// Why it ended by itself, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        self.ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends it as when the host goes away in good order: what is queued is served, and a snapshot taken.
    pub fn end(self) {
        self.service.close();
        self.service.start().finish();
    }

    /// Ends it as `kill -9` does, between two records: what is queued is lost.
    pub fn kill(self) {
        if let Some(running) = self.service.running() {
            running.stop(Trouble::passing(&"the process was killed"));
        }
        self.service.start().finish();
    }
}

/// No witness.
struct Nobody;

impl Dial for Nobody {
    fn dial(&self, _: u8) -> Result<Box<dyn Pipe>, String> {
        Err("there are no witnesses".to_owned())
    }
}

/// Witnesses at these addresses, without a host between.
struct Direct(Vec<String>);

impl Dial for Direct {
    fn dial(&self, witness: u8) -> Result<Box<dyn Pipe>, String> {
        let address = self.0.get(usize::from(witness));
        let address = address.ok_or("there is no such witness")?;
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        Ok(Box::new(stream))
    }
}

impl Pipe for TcpStream {
    fn limit_waits(&self, wait: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(wait))?;
        self.set_write_timeout(Some(wait))
    }
}
