//! A whole deployment on the loopback.

mod beside;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bield_envelope::Principal;
use bield_evidence::{
    Measurement, PolicyConfig, Profile, configuration_digest, program_digest, software_measurement,
};
use bield_protocol::configuration::{
    EngineName, KeyServiceConfiguration, OnnxruntimeConfiguration, RuntimeConfiguration,
    WitnessesConfiguration,
};
use bield_sdk::{Home, Randomness, TrustConfig};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::{Answer, Package, Person, Process, SERVERS, Tap, gather, post, tiny_model};

/// The host's onnxruntime, where there is one.
const ONNXRUNTIME: &str = "libonnxruntime.so";
/// How long a program may take to start on a machine that also compiles.
pub(crate) const START_WAIT: Duration = Duration::from_secs(30);

/// Everything started. Dropping it stops everything and removes its files.
pub struct Stack {
    /// The gateway with its key service and its runtime.
    pub gateway: Gateway,
    /// What runs as the key service.
    pub keys_code: Measurement,
    /// What runs as the runtime.
    pub runtime_code: Measurement,
    root: String,
    http_tap: Tap,
    keys_tap: Tap,
    tee: Process,
    host: TempDir,
    people: TempDir,
    programs: TempDir,
}

/// A gateway process and where it listens.
pub struct Gateway {
    /// The process.
    pub process: Process,
    /// `http://127.0.0.1:…`
    pub url: String,
    /// `127.0.0.1:…` of its key service, if it started one.
    pub keys: Option<String>,
}

impl Stack {
    /// Starts a software TEE, a gateway that records all it carries, a key service and one runtime.
    ///
    /// # Errors
    /// A program is missing or does not start; says what it said.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(|_| ())
    }

    /// As [`start`](Self::start), with another configuration of the key service. Its administrator is the
    /// [`person`](Self::person) named `administrator`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(
        configure: impl FnOnce(&mut KeyServiceConfiguration),
    ) -> anyhow::Result<Self> {
        Self::begin(configure, None, |_| ())
    }

    /// As [`start`](Self::start), with a runtime that runs models on the onnxruntime at `library`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with_onnxruntime(library: &Path) -> anyhow::Result<Self> {
        Self::start_runtime_with(Some(library), |_| ())
    }

    /// As [`start`](Self::start), with another configuration of the runtime; where there is a `library`, it prefers that
    /// onnxruntime to rten.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_runtime_with(
        library: Option<&Path>,
        configure: impl FnOnce(&mut RuntimeConfiguration),
    ) -> anyhow::Result<Self> {
        Self::begin(|_| (), library, configure)
    }

    fn begin(
        configure: impl FnOnce(&mut KeyServiceConfiguration),
        onnxruntime: Option<&Path>,
        configure_runtime: impl FnOnce(&mut RuntimeConfiguration),
    ) -> anyhow::Result<Self> {
        let (host, people, programs) = (TempDir::new()?, TempDir::new()?, TempDir::new()?);
        gather(&SERVERS, programs.path())?;
        for directory in ["logs", "packages", "storage", "record", "taps", "run"] {
            fs::create_dir(host.path().join(directory))?;
        }
        let (root, tee) = start_tee(programs.path(), host.path(), "machine")?;

        let mut keys_config = key_service_configuration(&[&root]);
        keys_config.sessions_max = 256;
        keys_config.administrators = vec![named(people.path(), "administrator")?.to_string()];
        configure(&mut keys_config);
        let keys_config = toml::to_string(&keys_config)?;
        let keys_code = measure(&programs.path().join("bield-keys"), &keys_config)?;
        let mut runtime_config: RuntimeConfiguration =
            toml::from_str(&runtime_configuration(&root, &keys_code, 1)?)?;
        if let Some(library) = onnxruntime {
            symlink(library, host.path().join(ONNXRUNTIME))?;
            let library = Sha256::digest(fs::read(library)?);
            runtime_config.threads = 2;
            runtime_config.engines = vec![EngineName::Onnxruntime, EngineName::Rten];
            runtime_config.onnxruntime = Some(OnnxruntimeConfiguration {
                library: format!("sha256:{}", hex::encode(library)),
            });
        }
        configure_runtime(&mut runtime_config);
        let runtime_config = toml::to_string(&runtime_config)?;
        let runtime_code = measure(&programs.path().join("bield-runtime"), &runtime_config)?;
        fs::write(host.path().join("keys.toml"), keys_config)?;
        fs::write(host.path().join("runtime.toml"), runtime_config)?;

        let gateway = start_gateway(host.path(), programs.path())?;
        let taps = host.path().join("taps");
        let stack = Self {
            gateway,
            keys_code,
            runtime_code,
            root,
            http_tap: Tap::open(&taps, "http")?,
            keys_tap: Tap::open(&taps, "keys")?,
            tee,
            host,
            people,
            programs,
        };
        stack.tap_gateway()?;
        Ok(stack)
    }

    /// Everything a host sees: packages, sealed state, logs, what the gateway and the taps recorded.
    pub fn host(&self) -> &Path {
        self.host.path()
    }

    /// Where packages are stored.
    pub fn stored(&self, package: &Package) -> PathBuf {
        self.host()
            .join("packages")
            .join(format!("{}.bield", package.digest))
    }

    /// A new person who trusts this deployment.
    ///
    /// # Errors
    /// The home cannot be made.
    pub fn person(&self, name: &str) -> anyhow::Result<Person> {
        Person::settle(
            self.people.path().join(name),
            &toml::to_string(&self.trust())?,
        )
    }

    /// An owner, a user, and a package that the owner granted to the user; `scene` names it and makes it unique.
    ///
    /// # Errors
    /// Any step on the way.
    pub fn cast(&self, scene: &str) -> anyhow::Result<(Person, Person, Package)> {
        let owner = self.person(&format!("owner-{scene}"))?;
        let user = self.person(&format!("user-{scene}"))?;
        let package = owner.publish(scene, &tiny_model(scene))?;
        owner.grant(&package, &user)?;
        Ok((owner, user, package))
    }

    /// Where the programs are that this deployment runs.
    pub fn programs(&self) -> &Path {
        self.programs.path()
    }

    /// The trust file of somebody who uses this deployment through the taps.
    pub fn trust(&self) -> TrustConfig {
        TrustConfig {
            gateway: self.url(),
            key_service: self.keys_tap.address().to_string().into(),
            code: vec![self.runtime_code.clone()],
            signers: Vec::new(),
            runtimes: None,
            witnesses: None,
            owner: None,
            principal: None,
            service: dev(&[&self.root], Some(&self.keys_code)),
        }
    }

    /// The gateway's URL, through its tap.
    pub fn url(&self) -> String {
        format!("http://{}", self.http_tap.address())
    }

    /// Posts to the gateway through its tap.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn post(&self, body: &[u8]) -> anyhow::Result<Answer> {
        post(&self.url(), body)
    }

    /// Waits until the gateway takes calls.
    ///
    /// # Errors
    /// It does not within 30 s.
    pub fn ready(&self) -> anyhow::Result<()> {
        let gateway = bield_sdk::Gateway::new(&self.url());
        let ready = wait_until(START_WAIT, || gateway.is_ready());
        ensure!(ready, "not ready: {}", self.gateway.process.said());
        Ok(())
    }

    /// Starts the gateway again, after it was stopped.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_gateway_again(&mut self) -> anyhow::Result<()> {
        self.gateway = start_gateway(self.host.path(), self.programs.path())?;
        self.tap_gateway()
    }

    /// The process of the software TEE.
    #[must_use]
    pub fn tee(&self) -> &Process {
        &self.tee
    }

    fn tap_gateway(&self) -> anyhow::Result<()> {
        let keys = self.gateway.keys.as_ref().context("it has a key service")?;
        self.keys_tap.lead_to(keys.parse()?);
        let http = self.gateway.url.trim_start_matches("http://");
        self.http_tap.lead_to(http.parse()?);
        self.ready()
    }
}

impl Gateway {
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        // A log of an earlier start names earlier ports.
        if log.exists() {
            fs::rename(log, log.with_extension("earlier.log"))?;
        }
        let mut process = Process::start(command, log)?;
        let url = process.says("listening ", START_WAIT)?;
        let keys = process.says("keys ", Duration::ZERO).ok();
        Ok(Self { process, url, keys })
    }
}

/// The platform identity of the machine `name`, as its evidence has it.
pub(crate) fn platform(programs: &Path, host: &Path, name: &str) -> anyhow::Result<String> {
    let mut command = Command::new(programs.join("bield-software-tee"));
    command.arg("--state").arg(host.join(name));
    let printed = command.arg("--print-platform").output()?;
    ensure!(printed.status.success(), "bield-software-tee: {printed:?}");
    Ok(String::from_utf8(printed.stdout)?.trim().to_owned())
}

/// Starts the machine `name`: state `host/<name>`, socket `host/<name>.sock`. Returns its root.
pub(crate) fn start_tee(
    programs: &Path,
    host: &Path,
    name: &str,
) -> anyhow::Result<(String, Process)> {
    let command = || {
        let mut command = Command::new(programs.join("bield-software-tee"));
        command.arg("--state").arg(host.join(name));
        command
    };
    let printed = command().arg("--print-root").output()?;
    ensure!(printed.status.success(), "bield-software-tee: {printed:?}");
    let root = String::from_utf8(printed.stdout)?.trim().to_owned();

    let socket = host.join(format!("{name}.sock"));
    let started = &mut command();
    let tee = Process::start(
        started.arg("--socket").arg(&socket),
        &host.join(format!("logs/{name}.log")),
    )?;
    let answers = wait_until(START_WAIT, || UnixStream::connect(&socket).is_ok());
    ensure!(answers, "bield-software-tee: {}", tee.said());
    Ok((root, tee))
}

fn start_gateway(host: &Path, programs: &Path) -> anyhow::Result<Gateway> {
    let mut command = gateway_command(host, programs, &host.join("runtime.toml"));
    command.args(["--keys-listen", "127.0.0.1:0"]);
    command.arg("--keys-config").arg(host.join("keys.toml"));
    command.arg("--storage").arg(host.join("storage"));
    command.arg("--state").arg(host.join("state"));
    Gateway::start(&mut command, &host.join("logs/gateway.log"))
}

fn gateway_command(host: &Path, programs: &Path, runtime_config: &Path) -> Command {
    let mut command = Command::new(programs.join("bield-gateway"));
    // All that the programs can be made to say, so that a scan of the logs means something.
    command.env("RUST_LOG", "trace");
    command.args(["--listen", "127.0.0.1:0", "--drain-secs", "2"]);
    command.arg("--runtime-config").arg(runtime_config);
    command
        .arg("--tee")
        .arg(format!("software:{}", host.join("machine.sock").display()));
    for directory in ["packages", "record"] {
        command
            .arg(format!("--{directory}"))
            .arg(host.join(directory));
    }
    let library = host.join(ONNXRUNTIME);
    if library.exists() {
        command.arg("--onnxruntime").arg(library);
    }
    command.arg("--run-directory").arg(host.join("run"));
    command
}

/// What a key service is told when nothing else is said.
pub(crate) fn key_service_configuration(roots: &[&str]) -> KeyServiceConfiguration {
    KeyServiceConfiguration {
        runtimes: dev(roots, None),
        sessions_max: 4096,
        lease_secs: 600,
        administrators: Vec::new(),
        members: 1,
        peers: None,
        member_platforms: Vec::new(),
        witnesses: WitnessesConfiguration::default(),
        orders_per_minute: 6000,
        recovery: None,
        admits_code: false,
    }
}

/// The identity of a person whom the configuration names, made before there is anything to trust.
pub(crate) fn named(people: &Path, person: &str) -> anyhow::Result<Principal> {
    let home = Home::at(people.join(person));
    Ok(home.create_identity(&mut Randomness)?.principal())
}

fn runtime_configuration(
    root: &str,
    keys_code: &Measurement,
    threads: usize,
) -> anyhow::Result<String> {
    Ok(toml::to_string(&RuntimeConfiguration {
        key_service: dev(&[root], Some(keys_code)),
        threads,
        concurrency: 1,
        queue_max: 64,
        queue_ms_max: 30_000,
        models_mib_max: 256,
        engines: vec![EngineName::Rten],
        tiered: false,
        batching: None,
        onnxruntime: None,
        functions: None,
    })?)
}

/// The policy that accepts these software TEEs, and `code` or whatever is compared later.
pub(crate) fn dev(roots: &[&str], code: Option<&Measurement>) -> PolicyConfig {
    PolicyConfig {
        allow_simulated: true,
        simulated_roots: roots.iter().map(|root| (*root).to_owned()).collect(),
        measurements: code.iter().map(ToString::to_string).collect(),
        ..PolicyConfig::new(Profile::Dev)
    }
}

pub(crate) fn measure(program: &Path, configuration: &str) -> anyhow::Result<Measurement> {
    let program = program_digest(&fs::read(program)?);
    let configuration = configuration_digest(configuration.as_bytes());
    Ok(software_measurement(program, configuration))
}

/// One deployment for all tests of a file that run at a time.
///
/// A `static` is never dropped, and its programs would outlive the tests; so the tests hold it together, and whoever
/// is last stops it.
pub struct Shared<T> {
    running: Mutex<Weak<T>>,
    start: fn() -> anyhow::Result<T>,
}

impl<T> Shared<T> {
    /// None yet; the first test that asks starts it.
    pub const fn new(start: fn() -> anyhow::Result<T>) -> Self {
        let running = Mutex::new(Weak::new());
        Self { running, start }
    }

    /// The one that other tests use now, or a new one.
    ///
    /// # Panics
    /// It does not start: no test can go on.
    pub fn get(&self) -> Arc<T> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.upgrade() {
            return running;
        }
        let started = (self.start)().unwrap_or_else(|error| panic!("{error:#}"));
        let started = Arc::new(started);
        *running = Arc::downgrade(&started);
        started
    }
}

/// Tries every 10 ms until `holds` or `wait` has passed; at least once. Returns whether it held.
pub fn wait_until(wait: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + wait;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
