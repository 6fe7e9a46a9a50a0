//! The system under measurement: `bield dev` and an owner who is also the user.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bield_end_to_end::{Package, Person, Process, wait_until};
use bield_package::onnx::Signature;
use bield_package::{ManifestDraft, PackageHead, PackageKey, pack};
use bield_sdk::{Answered, Gateway, Randomness, Target, Tensor};
use tempfile::TempDir;

use crate::plain::milliseconds;

/// A running system with one person in it.
pub(crate) struct Sealed {
    pub(crate) person: Person,
    dev: Process,
    folder: TempDir,
}

impl Sealed {
    /// Starts the programs in `programs`, the runtime with `threads`.
    pub(crate) fn start(programs: &Path, threads: usize) -> Result<Self> {
        let folder = TempDir::new()?;
        let (listen, keys) = (free_port()?, free_port()?);
        let mut command = Command::new(programs.join("bield"));
        command.args(["dev", "--listen", &listen, "--keys-listen", &keys]);
        command
            .arg("--runtime-config-extra")
            .arg(format!("threads={threads}"));
        command.arg("--dir").arg(folder.path().join("dev"));
        let mut dev = Process::start(&mut command, &folder.path().join("dev.log"))?;
        dev.says("ready", START_WAIT)?;
        let trust = std::fs::read_to_string(folder.path().join("dev/trust.toml"))?;
        let person = Person::settle(folder.path().join("person"), &trust)?;
        let gateway = Gateway::new(person.trust.gateway());
        ensure!(
            wait_until(START_WAIT, || gateway.is_ready()),
            "the gateway does not become ready"
        );
        Ok(Self {
            person,
            dev,
            folder,
        })
    }

    /// Packs, registers and grants a model under a new key: to the runtime it is one it never saw.
    pub(crate) fn publish(&self, name: &str, onnx: &Path) -> Result<Package> {
        let model = std::fs::read(onnx)?;
        let file = self.folder.path().join(format!("{name}.bield"));
        let key = PackageKey::generate(&mut Randomness);
        let draft = ManifestDraft::onnx(name.parse()?, "1".parse()?, Signature::read(&model)?);
        let summary = pack(
            &mut BufReader::new(File::open(onnx)?),
            draft,
            &self.person.key,
            &key,
            &mut Randomness,
            &mut BufWriter::new(File::create(&file)?),
            &mut |_, _| (),
        )?;
        self.person.home.keep_package_key(summary.digest, &key)?;
        let head_bytes = PackageHead::read(&mut BufReader::new(File::open(&file)?))?.head_bytes();
        let package = Package {
            digest: summary.digest,
            file,
            key,
            head_bytes,
        };
        self.person.register(&package, &model)?;
        self.person.grant(&package, &self.person)?;
        Ok(package)
    }

    /// Calls once; returns the answer and the milliseconds the user waited.
    pub(crate) fn call(&self, target: &Target, input: &Tensor) -> Result<(Answered, f64)> {
        let inputs = vec![input.clone()];
        let started = Instant::now();
        let answered = target.call(&self.person.key, inputs, Vec::new(), &mut Randomness)?;
        Ok((answered, milliseconds(started)))
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        // In good order, so that `bield dev` stops what it started.
        let told = Command::new("kill")
            .arg("-INT")
            .arg(self.dev.pid().to_string())
            .status();
        drop(told.map(|_| self.dev.ends(STOP_WAIT)));
    }
}

fn free_port() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

const START_WAIT: Duration = Duration::from_secs(60);
const STOP_WAIT: Duration = Duration::from_secs(10);
