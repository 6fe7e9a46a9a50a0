//! Starts a worker and speaks HTTP to it.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bield_envelope::{AudienceKey, Digest, RequestHeader, Seeded, SigningKey, Time, seal_request};
use serde_json::Value;

pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// A running worker in a directory of its own.
pub(crate) struct Worker {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) process: Child,
    pub(crate) http: String,
    metrics: String,
    out: Lines,
    err: Lines,
    agent: ureq::Agent,
}

type Lines = Arc<Mutex<Vec<String>>>;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Worker {
    /// Starts it with the runtime's configuration and further arguments; returns once it is ready.
    pub(crate) fn start(runtime_configuration: &str, more: &[&str]) -> Self {
        Self::start_in(
            runtime_configuration,
            more,
            &[("BIELD_LISTEN", "127.0.0.1:0")],
        )
    }

    /// As [`start`](Self::start), with this environment.
    pub(crate) fn start_in(
        runtime_configuration: &str,
        more: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command(directory.path(), runtime_configuration);
        let process = command
            .args(more)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = process.spawn().unwrap();
        let out = follow(process.stdout.take().unwrap());
        let err = follow(process.stderr.take().unwrap());
        let said = |word: &str| {
            let lines = out.lock().unwrap();
            let rest = lines.iter().find_map(|line| line.strip_prefix(word));
            rest.map(str::to_owned)
        };
        until(|| said("listening ").is_some() || process.try_wait().unwrap().is_some());
        let http = said("listening ").expect("it is ready");
        let metrics = said("metrics ").expect("a port of its own");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(WAIT));
        Self {
            directory,
            process,
            http,
            metrics,
            out,
            err,
            agent: config.build().into(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("{}{path}", self.http)).call())
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        answer(self.agent.post(format!("{}{path}", self.http)).send(body))
    }

    pub(crate) fn post_with(&self, path: &str, header: (&str, &str), body: &[u8]) -> Answer {
        let request = self.agent.post(format!("{}{path}", self.http));
        answer(request.header(header.0, header.1).send(body))
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.post(path, body.to_string().as_bytes())
    }

    /// The answer's body, to be read as it comes.
    pub(crate) fn post_and_read(&self, path: &str, body: &[u8]) -> impl Read + use<> {
        let answer = self.agent.post(format!("{}{path}", self.http)).send(body);
        let answer = answer.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        answer.into_body().into_reader()
    }

    pub(crate) fn metrics(&self) -> String {
        let answer = answer(self.agent.get(format!("{}/metrics", self.metrics)).call());
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).unwrap()
    }

    /// Waits until this many requests are at the runtime.
    pub(crate) fn has_in_flight(&self, count: u32) {
        let line = format!("bield_worker_in_flight {count}\n");
        until(|| self.metrics().contains(&line));
    }

    /// Puts the package there that a stand-in `in-parts` waits for before it says the last of its answers.
    pub(crate) fn lets_go(&self) {
        self.put_package(&Digest::from_bytes([7; 32]));
    }

    pub(crate) fn put_package(&self, digest: &Digest) {
        let packages = self.directory.path().join("packages");
        std::fs::write(packages.join(format!("{digest}.bield")), b"here").unwrap();
    }

    /// How often a line stands on standard output and on standard error.
    pub(crate) fn said(&self, line: &str) -> [usize; 2] {
        self.lines_that(|said| said == line)
    }

    /// In how many lines of both these words stand.
    pub(crate) fn said_with(&self, words: &str) -> [usize; 2] {
        self.lines_that(|said| said.contains(words))
    }

    fn lines_that(&self, are: impl Fn(&str) -> bool) -> [usize; 2] {
        [&self.out, &self.err].map(|lines| {
            let lines = lines.lock().unwrap();
            lines.iter().filter(|said| are(said)).count()
        })
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        signal_process(self.process.id(), signal);
    }

    /// The process of its runtime.
    pub(crate) fn runtime(&self) -> Option<u32> {
        let pid = self.process.id();
        // Each thread lists the children it started.
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.flatten().find_map(|task| {
            let children = std::fs::read_to_string(task.path().join("children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let (parts, mut body) = result.unwrap().into_parts();
    let mut bytes = Vec::new();
    body.as_reader().read_to_end(&mut bytes).unwrap();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body: bytes,
    }
}

/// The worker's command line in `directory`, not started yet.
pub(crate) fn command(directory: &std::path::Path, runtime_configuration: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().unwrap().parent().unwrap().into();
    std::fs::write(directory.join("runtime.toml"), runtime_configuration).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bield-worker"));
    command
        .env("TMPDIR", directory)
        .env_remove("BIELD_ONNXRUNTIME");
    command.arg("--runtime-program");
    command.arg(built.join("examples/echo-worker"));
    command.args(["--tee", "software:/nonexistent"]);
    command.args(["--key-service", "127.0.0.1:1"]);
    command.args(["--runtime-config", "runtime.toml", "--packages", "packages"]);
    command.args(["--metrics-listen", "127.0.0.1:0"]);
    command.current_dir(directory);
    command
}

fn follow(from: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let into = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            into.lock().unwrap().push(line);
        }
    });
    lines
}

/// A genuine sealed request for a package named by `package`.
pub(crate) fn sealed_request(package: u8, body: &[u8]) -> Vec<u8> {
    let mut entropy = Seeded::new(u64::from(package));
    let audience = AudienceKey::generate(&mut entropy);
    let header = RequestHeader {
        audience: Digest::from_bytes([1; 32]),
        key: audience.public().id(),
        package: Digest::from_bytes([package; 32]),
        id: [package; 16],
        created: Time::from_secs(1_800_000_000),
    };
    let sender = SigningKey::generate(&mut entropy);
    seal_request(audience.public(), &header, &sender, body, &mut entropy)
        .unwrap()
        .0
}

pub(crate) fn signal_process(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < WAIT, "waited {WAIT:?} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}
