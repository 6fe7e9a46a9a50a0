//! A deployment under measurement: software TEE, gateway, key service and one runtime, as processes.
//!
//! ```text
//! Setup ─▶ keys.toml, runtime.toml ─▶ bield-software-tee, bield-gateway ─▶ bield-keys, bield-runtime
//!                        └──────────▶ Launch: the same runtime, started by the bench itself
//! ```
//!
//! Always true: the programs are copies that no build replaces meanwhile; nothing is recorded; what is dropped has no
//! processes left. Not here: what is measured.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Cursor};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bield_end_to_end::{Package, Person, Process, SERVERS, children, gather, wait_until};
use bield_evidence::{
    Measurement, PolicyConfig, Profile, configuration_digest, program_digest, software_measurement,
};
use bield_grant::Isolation;
use bield_launcher::{Enclave, Launch};
use bield_package::onnx::Signature;
use bield_package::{ManifestDraft, ModelFormat, PackageHead, PackageKey, pack};
use bield_sdk::{Gateway, Randomness, TrustConfig};
use tempfile::TempDir;

/// How long a program may take to start on a busy machine.
const START_WAIT: Duration = Duration::from_secs(60);

/// What a deployment is configured with.
pub(crate) struct Setup {
    /// Threads of one run.
    pub(crate) threads: usize,
    /// Runs at once.
    pub(crate) concurrency: usize,
    /// Memory for models.
    pub(crate) models_mib_max: u64,
    /// The library of onnxruntime, when models run on it rather than on rten.
    pub(crate) onnxruntime: Option<PathBuf>,
    /// The longest lease.
    pub(crate) lease_secs: u32,
    /// How long a request may wait for others.
    pub(crate) queue_ms_max: u32,
    /// How long the gateway waits for one answer.
    pub(crate) call_ms: u64,
    /// Runtimes at most.
    pub(crate) workers: usize,
    /// More arguments of the gateway.
    pub(crate) gateway: Vec<String>,
    /// Whether the runtime runs functions.
    pub(crate) functions: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            threads: 1,
            concurrency: 1,
            models_mib_max: 4096,
            onnxruntime: None,
            lease_secs: 600,
            queue_ms_max: 30_000,
            call_ms: 120_000,
            workers: 1,
            gateway: Vec::new(),
            functions: false,
        }
    }
}

/// A model as a file, and what it takes and gives.
pub(crate) struct ModelFile {
    pub(crate) path: PathBuf,
    pub(crate) format: ModelFormat,
    pub(crate) signature: Signature,
}

/// Running programs with the owner of all packages in it.
pub(crate) struct Deployment {
    /// Owns the packages, and calls them unless somebody else is said to.
    pub(crate) owner: Person,
    /// The gateway.
    pub(crate) gateway: Process,
    /// `http://127.0.0.1:…`
    pub(crate) url: String,
    trust: String,
    runtime: Launch,
    tee: Process,
    folder: TempDir,
}

impl Deployment {
    /// Starts everything.
    pub(crate) fn start(setup: &Setup) -> Result<Self> {
        let folder = TempDir::new()?;
        let at = |name: &str| folder.path().join(name);
        for name in ["programs", "packages", "storage", "run", "people"] {
            fs::create_dir(at(name))?;
        }
        let programs = at("programs");
        gather(&SERVERS, &programs)?;
        let (root, tee) = start_tee(&programs, folder.path())?;

        let keys = key_service(&root, setup)?;
        let keys_code = measure(&programs.join("bield-keys"), &keys)?;
        let runtime = runtime(&root, &keys_code, setup)?;
        let code = measure(&programs.join("bield-runtime"), &runtime)?;
        fs::write(at("keys.toml"), keys)?;
        fs::write(at("runtime.toml"), &runtime)?;

        let tee_argument = format!("software:{}", at("tee.sock").display());
        let mut command = Command::new(programs.join("bield-gateway"));
        command.args(["--listen", "127.0.0.1:0", "--keys-listen", "127.0.0.1:0"]);
        command.args(["--drain-secs", "2", "--call-ms", &setup.call_ms.to_string()]);
        command.args(["--workers", &setup.workers.to_string()]);
        command.args(&setup.gateway);
        command.arg("--tee").arg(&tee_argument);
        command.arg("--keys-config").arg(at("keys.toml"));
        command.arg("--storage").arg(at("storage"));
        command.arg("--runtime-config").arg(at("runtime.toml"));
        command.arg("--packages").arg(at("packages"));
        command.arg("--run-directory").arg(at("run"));
        if setup.functions {
            fs::create_dir(at("state"))?;
            command.arg("--state").arg(at("state"));
        }
        let mut arguments = vec!["--tee".to_owned(), tee_argument];
        if let Some(library) = &setup.onnxruntime {
            command.arg("--onnxruntime").arg(library);
            arguments.extend(["--onnxruntime".to_owned(), library.display().to_string()]);
        }
        let mut gateway = Process::start(&mut command, &at("gateway.log"))?;
        let url = gateway.says("listening ", START_WAIT)?;
        let key_service = gateway.says("keys ", START_WAIT)?;

        let trust = toml::to_string(&TrustConfig {
            gateway: url.clone(),
            key_service: key_service.clone().into(),
            code: vec![code],
            signers: Vec::new(),
            runtimes: None,
            witnesses: None,
            owner: None,
            principal: None,
            service: dev(&root, Some(&keys_code)),
        })?;
        let owner = Person::settle(at("people").join("owner"), &trust)?;
        let sdk = Gateway::new(&url);
        ensure!(
            wait_until(START_WAIT, || sdk.is_ready()),
            "the gateway does not become ready: {}",
            gateway.said()
        );
        let runtime = Launch {
            program: programs.join("bield-runtime"),
            arguments,
            configuration: runtime.into_bytes(),
            key_services: vec![key_service],
            packages: Some(at("packages")),
            run_directory: Some(at("run")),
            ..Launch::default()
        };
        Ok(Self {
            owner,
            gateway,
            url,
            trust,
            runtime,
            tee,
            folder,
        })
    }

    /// Somebody else who trusts this deployment.
    pub(crate) fn person(&self, name: &str) -> Result<Person> {
        Person::settle(self.folder.path().join("people").join(name), &self.trust)
    }

    /// Packs and registers a model under a new key: to the runtime it is one it never saw. Nobody is granted it.
    pub(crate) fn publish(&self, name: &str, model: &ModelFile) -> Result<Package> {
        let bytes = fs::read(&model.path)?;
        let file = self.folder.path().join(format!("{name}.bield"));
        let key = PackageKey::generate(&mut Randomness);
        let signature = model.signature.clone();
        let draft = ManifestDraft::new(name.parse()?, "1".parse()?, model.format, signature);
        let (inputs, outputs) = (draft.inputs.clone(), draft.outputs.clone());
        let summary = pack(
            &mut Cursor::new(bytes),
            draft,
            &self.owner.key,
            &key,
            &mut Randomness,
            &mut BufWriter::new(File::create(&file)?),
            &mut |_, _| (),
        )?;
        self.owner.home.keep_package_key(summary.digest, &key)?;
        let head = PackageHead::read(&mut BufReader::new(File::open(&file)?))?;
        let mut service = self.owner.service()?;
        service.register(&self.owner.key)?;
        let header = head.signed_header().clone();
        service.put_package(&self.owner.key, header, inputs, outputs, &key)?;
        service.close()?;
        let bytes = fs::metadata(&file)?.len();
        let source = &mut File::open(&file)?;
        Gateway::new(&self.url).put_package(summary.digest, source, bytes, &mut |_, _| ())?;
        Ok(Package {
            digest: summary.digest,
            head_bytes: head.head_bytes(),
            file,
            key,
        })
    }

    /// Grants a package to somebody, in this isolation.
    pub(crate) fn grant(&self, package: &Package, to: &Person, isolation: Isolation) -> Result<()> {
        let mut grant = self.owner.draft(package, to);
        grant.isolation = isolation;
        self.owner.allow(grant)?;
        Ok(())
    }

    /// Publishes a model and grants it to its owner, shared.
    pub(crate) fn publish_own(&self, name: &str, model: &ModelFile) -> Result<Package> {
        let package = self.publish(name, model)?;
        self.grant(&package, &self.owner, Isolation::Shared)?;
        Ok(package)
    }

    /// Starts one more runtime, not through the gateway; returns it and the milliseconds until it was ready.
    pub(crate) fn start_runtime(&self) -> Result<(Enclave, f64)> {
        let started = Instant::now();
        let enclave = Enclave::start(&self.runtime)?;
        Ok((enclave, started.elapsed().as_secs_f64() * 1e3))
    }

    /// The processes of the gateway's runtimes.
    pub(crate) fn runtimes(&self) -> Vec<u32> {
        children(self.gateway.pid(), "bield-runtime")
    }

    /// Resident memory of the gateway's only runtime, in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let runtime = self.gateway.child("bield-runtime")?;
        status(&format!("/proc/{runtime}/status"), "VmRSS:")
    }

    /// The programs that nobody kills, with their processes.
    pub(crate) fn survivors(&self) -> Result<Vec<(&'static str, u32)>> {
        Ok(vec![
            ("bield-gateway", self.gateway.pid()),
            ("bield-keys", self.gateway.child("bield-keys")?),
            ("bield-software-tee", self.tee.pid()),
        ])
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // In good order, so that the gateway stops what it started; what is left is killed.
        let programs = ["bield-runtime", "bield-keys"];
        let left: Vec<_> = programs
            .iter()
            .flat_map(|name| children(self.gateway.pid(), name))
            .collect();
        if self.gateway.stop().is_err() {
            for pid in left {
                let _ = Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .status();
            }
        }
    }
}

/// A line of this process's `/proc/self/status`, in bytes.
pub(crate) fn own_status(field: &str) -> Result<u64> {
    status("/proc/self/status", &format!("{field}:"))
}

/// A line of a `/proc/…/status`, in bytes.
pub(crate) fn status(file: &str, field: &str) -> Result<u64> {
    let status = fs::read_to_string(file).with_context(|| file.to_owned())?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let value = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(value.with_context(|| format!("no {field} in {file}"))? * 1024)
}

fn start_tee(programs: &Path, folder: &Path) -> Result<(String, Process)> {
    let command = || {
        let mut command = Command::new(programs.join("bield-software-tee"));
        command.arg("--state").arg(folder.join("tee"));
        command
    };
    let printed = command().arg("--print-root").output()?;
    ensure!(printed.status.success(), "bield-software-tee: {printed:?}");
    let root = String::from_utf8(printed.stdout)?.trim().to_owned();
    let socket = folder.join("tee.sock");
    let mut started = command();
    let tee = Process::start(
        started.arg("--socket").arg(&socket),
        &folder.join("tee.log"),
    )?;
    let answers = wait_until(START_WAIT, || UnixStream::connect(&socket).is_ok());
    ensure!(answers, "bield-software-tee: {}", tee.said());
    Ok((root, tee))
}

/// As text rather than as the programs' own types, so that what is not said takes its documented value.
fn key_service(root: &str, setup: &Setup) -> Result<String> {
    let mut table = toml::Table::new();
    table.insert("lease_secs".into(), setup.lease_secs.into());
    table.insert("runtimes".into(), toml::Value::try_from(dev(root, None))?);
    Ok(toml::to_string(&table)?)
}

fn runtime(root: &str, keys_code: &Measurement, setup: &Setup) -> Result<String> {
    let number = |value: usize| i64::try_from(value).map(toml::Value::Integer);
    let mut table = toml::Table::new();
    table.insert("threads".into(), number(setup.threads)?);
    table.insert("concurrency".into(), number(setup.concurrency)?);
    table.insert("queue_ms_max".into(), setup.queue_ms_max.into());
    table.insert(
        "models_mib_max".into(),
        i64::try_from(setup.models_mib_max)?.into(),
    );
    if let Some(library) = &setup.onnxruntime {
        let bytes = fs::read(library).with_context(|| library.display().to_string())?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
        let digits: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let engines = vec!["onnxruntime".to_owned(), "rten".to_owned()];
        table.insert("engines".into(), engines.into());
        let named =
            toml::Table::from_iter([("library".to_owned(), format!("sha256:{digits}").into())]);
        table.insert("onnxruntime".into(), named.into());
    }
    if setup.functions {
        table.insert("functions".into(), toml::Table::new().into());
    }
    let policy = toml::Value::try_from(dev(root, Some(keys_code)))?;
    table.insert("key_service".into(), policy);
    Ok(toml::to_string(&table)?)
}

/// The policy that accepts this software TEE, and `code` or whatever is compared later.
fn dev(root: &str, code: Option<&Measurement>) -> PolicyConfig {
    PolicyConfig {
        allow_simulated: true,
        simulated_roots: vec![root.to_owned()],
        measurements: code.iter().map(ToString::to_string).collect(),
        ..PolicyConfig::new(Profile::Dev)
    }
}

fn measure(program: &Path, configuration: &str) -> Result<Measurement> {
    let program = program_digest(&fs::read(program)?);
    let configuration = configuration_digest(configuration.as_bytes());
    Ok(software_measurement(program, configuration))
}
