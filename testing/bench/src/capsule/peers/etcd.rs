//! etcd, one member, which syncs its log before it answers.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use ureq::Agent;

use super::{Peer, Server, Shape, clients, program};
use crate::capsule::place::free_port;

/// An `etcd` on the loopback.
pub(crate) struct Etcd {
    url: String,
    _server: Server,
    _data: TempDir,
}

impl Etcd {
    /// Starts one; `None` when it is not installed.
    pub(crate) fn start(folder: &Path) -> Result<Option<Self>> {
        let (data, port, peer_port) = (TempDir::new_in(folder)?, free_port()?, free_port()?);
        let (url, peer_url) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peer_port}"),
        );
        let mut command = program("etcd");
        command
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
            ])
            .args(["--listen-peer-urls", &peer_url])
            .args(["--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}")])
            .args(["--log-level", "error"])
            .arg("--data-dir")
            .arg(data.path());
        let Some(server) = Server::start(&mut command, port)? else {
            return Ok(None);
        };
        let etcd = Self {
            url,
            _server: server,
            _data: data,
        };
        // It answers before it has elected itself.
        let begin = Instant::now();
        while etcd.put(&agent(), "first", "put").is_err() {
            ensure!(
                begin.elapsed() < Duration::from_secs(10),
                "etcd takes no put"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Some(etcd))
    }

    /// Puts, synced when it returns.
    pub(crate) fn put(&self, agent: &Agent, key: &str, value: &str) -> Result<()> {
        let (key, value) = (STANDARD.encode(key), STANDARD.encode(value));
        let body = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
        let mut answer = agent.post(format!("{}/v3/kv/put", self.url)).send(&body)?;
        let said = answer.body_mut().read_to_string()?;
        ensure!(said.contains("revision"), "etcd refused a put: {said}");
        Ok(())
    }
}

impl Etcd {
    /// Gets the newest value (linearizable), which must be there.
    pub(crate) fn get(&self, agent: &Agent, key: &str) -> Result<()> {
        let body = format!(r#"{{"key":"{}"}}"#, STANDARD.encode(key));
        let mut answer = agent
            .post(format!("{}/v3/kv/range", self.url))
            .send(&body)?;
        let said = answer.body_mut().read_to_string()?;
        ensure!(said.contains("kvs"), "etcd has no such key: {said}");
        Ok(())
    }
}

impl Peer for Etcd {
    fn name(&self) -> String {
        "etcd".to_owned()
    }

    fn terms(&self) -> String {
        "one member, WAL synced; HTTP/JSON gateway over ureq, an agent a connection (gRPC would be \
         faster)"
            .to_owned()
    }

    fn pipelines(&self) -> bool {
        false
    }

    fn syncs(&self) -> bool {
        true
    }

    fn puts(&self, value: usize, shape: Shape, span: Duration) -> Result<f64> {
        clients(shape.connections, span, |number, go_on| {
            let (agent, value) = (agent(), "v".repeat(value));
            let mut puts = 0_u64;
            while go_on() {
                let key = format!("{:016x}", ((number as u64) << 32) | (puts % KEYS));
                self.put(&agent, &key, &value)?;
                puts += 1;
            }
            Ok(puts)
        })
    }
}

/// A client with a connection of its own.
pub(crate) fn agent() -> Agent {
    Agent::new_with_config(Agent::config_builder().proxy(None).build())
}

/// Keys of a connection.
const KEYS: u64 = 100_000;
