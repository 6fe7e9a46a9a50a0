//! Starts a gateway and speaks HTTP to it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bield_envelope::{AudienceKey, Digest, RequestHeader, Seeded, SigningKey, Time, seal_request};

pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// A running gateway in a directory of its own.
pub(crate) struct Gateway {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) process: Child,
    pub(crate) http: String,
    pub(crate) keys: String,
    pub(crate) members: Option<String>,
    agent: ureq::Agent,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Gateway {
    /// Starts it with the runtime's configuration and further arguments; returns once it listens.
    pub(crate) fn start(runtime_configuration: &str, more: &[&str]) -> Gateway {
        let directory = tempfile::tempdir().unwrap();
        let mut process = command(directory.path(), runtime_configuration, more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        let http = loop {
            let line = lines.next().unwrap().unwrap();
            match line.strip_prefix("listening ") {
                Some(http) => break http.to_owned(),
                None => said.push(line),
            }
        };
        let named = |name: &str| {
            let line = said.iter().find_map(|line| line.strip_prefix(name));
            line.map(str::to_owned)
        };
        let (keys, members) = (named("keys ").unwrap(), named("members "));
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(WAIT));
        Gateway {
            directory,
            process,
            http,
            keys,
            members,
            agent: config.build().into(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        answer(self.agent.get(format!("{}{path}", self.http)).call())
    }

    pub(crate) fn get_with(&self, path: &str, header: (&str, &str)) -> Answer {
        let request = self.agent.get(format!("{}{path}", self.http));
        answer(request.header(header.0, header.1).call())
    }

    pub(crate) fn post_with(&self, path: &str, header: (&str, &str), body: &[u8]) -> Answer {
        let request = self.agent.post(format!("{}{path}", self.http));
        answer(request.header(header.0, header.1).send(body))
    }

    pub(crate) fn put_with(&self, path: &str, header: (&str, &str), body: &[u8]) -> Answer {
        let request = self.agent.put(format!("{}{path}", self.http));
        answer(request.header(header.0, header.1).send(body))
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        answer(self.agent.post(format!("{}{path}", self.http)).send(body))
    }

    /// The answer's body, to be read as it comes.
    pub(crate) fn post_and_read(&self, path: &str, body: &[u8]) -> impl std::io::Read + use<> {
        let answer = self.agent.post(format!("{}{path}", self.http)).send(body);
        let answer = answer.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        answer.into_body().into_reader()
    }

    pub(crate) fn put(&self, path: &str, body: &[u8]) -> Answer {
        answer(self.agent.put(format!("{}{path}", self.http)).send(body))
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        self.get("/v1/status").json()
    }

    pub(crate) fn packages(&self) -> PathBuf {
        self.directory.path().join("packages")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        signal_process(self.process.id(), signal);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn retry_after(&self) -> Option<&str> {
        self.headers
            .get("retry-after")
            .map(|value| value.to_str().unwrap())
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

/// The gateway's command line in `directory`, not started yet.
pub(crate) fn command(directory: &Path, runtime_configuration: &str, more: &[&str]) -> Command {
    let echo = {
        let test = std::env::current_exe().unwrap();
        test.parent()
            .unwrap()
            .parent()
            .unwrap()
            .join("examples/echo-runtime")
    };
    std::fs::write(directory.join("keys.toml"), "").unwrap();
    std::fs::write(directory.join("runtime.toml"), runtime_configuration).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bield-gateway"));
    command.env("TMPDIR", directory);
    command.args([
        "--keys-program".as_ref(),
        echo.as_os_str(),
        "--runtime-program".as_ref(),
        echo.as_os_str(),
    ]);
    command.args([
        "--tee",
        "software:/nonexistent",
        "--keys-config",
        "keys.toml",
    ]);
    command.args(["--storage", "storage"]);
    if !more.contains(&"--workers=0") {
        command.args(["--packages", "packages"]);
        if !more.iter().any(|flag| flag.starts_with("--worker-address")) {
            command.args(["--runtime-config", "runtime.toml"]);
        }
    }
    if !more.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
        .args(["--keys-listen", "127.0.0.1:0"])
        .args(more)
        .current_dir(directory);
    command
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
