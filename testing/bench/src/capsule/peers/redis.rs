//! Redis with an append-only file that is synced before every answer.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::{PIPELINED, Peer, Server, Shape, UNPIPELINED, clients, program};
use crate::bars::Bar;
use crate::capsule::place::free_port;

/// A `redis-server` on the loopback.
pub(crate) struct Redis {
    port: u16,
    version: String,
    _server: Server,
    _data: TempDir,
}

impl Redis {
    /// Starts one; `None` when it is not installed.
    pub(crate) fn start(folder: &Path) -> Result<Option<Self>> {
        let (data, port) = (TempDir::new_in(folder)?, free_port()?);
        let mut command = program("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--save", "", "--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(data.path());
        let Some(server) = Server::start(&mut command, port)? else {
            return Ok(None);
        };
        let said = program("redis-server").arg("--version").output()?;
        let said = String::from_utf8_lossy(&said.stdout);
        let version = said
            .split("v=")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        Ok(Some(Self {
            port,
            version: version.unwrap_or("of an unknown version").to_owned(),
            _server: server,
            _data: data,
        }))
    }

    /// The same load by `redis-benchmark`: how far this client is from the one people know.
    pub(crate) fn cross_check(&self) -> Result<Bar> {
        let span = Duration::from_secs(1);
        let mut ratios = Vec::new();
        for shape in [UNPIPELINED, PIPELINED] {
            let Some(theirs) = self.benchmark(shape)? else {
                return Ok(Bar::missing(
                    "redis: client here ÷ redis-benchmark".to_owned(),
                    "not installed: apt-get install redis-tools",
                ));
            };
            ratios.push((self.puts(100, shape, span)?, theirs));
        }
        let [(ours, theirs), (piped, their_piped)] = ratios[..] else {
            unreachable!("two shapes were measured");
        };
        Ok(Bar::told(
            "redis: client here ÷ redis-benchmark, 100 B, unpipelined".to_owned(),
            ours / theirs,
            "ratio",
            format!(
                "16 connections: {ours:.0} ÷ {theirs:.0} SET/s; 64 in flight on each: {piped:.0} ÷ \
                 {their_piped:.0}"
            ),
        ))
    }

    fn benchmark(&self, shape: Shape) -> Result<Option<f64>> {
        let count = if shape == PIPELINED {
            "200000"
        } else {
            "20000"
        };
        let done = Command::new("redis-benchmark")
            .args([
                "-p",
                &self.port.to_string(),
                "-t",
                "set",
                "-d",
                "100",
                "-n",
                count,
            ])
            .args([
                "-c",
                &shape.connections.to_string(),
                "-P",
                &shape.in_flight.to_string(),
            ])
            .args(["-r", "100000", "--csv"])
            .output();
        let done = match done {
            Ok(done) => done,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("starting redis-benchmark"),
        };
        let said = String::from_utf8_lossy(&done.stdout);
        let line = said.lines().find(|line| line.starts_with("\"SET\""));
        let rate = line.and_then(|line| line.split('"').nth(3));
        Ok(Some(
            rate.context("redis-benchmark said nothing of SET")?
                .parse()?,
        ))
    }
}

impl Peer for Redis {
    fn name(&self) -> String {
        format!("redis {}", self.version)
    }

    fn terms(&self) -> String {
        "appendonly yes, appendfsync always; RESP over std TcpStream, a thread a connection"
            .to_owned()
    }

    fn pipelines(&self) -> bool {
        true
    }

    fn syncs(&self) -> bool {
        true
    }

    fn puts(&self, value: usize, shape: Shape, span: Duration) -> Result<f64> {
        clients(shape.connections, span, |number, go_on| {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_nodelay(true)?;
            let value = "v".repeat(value);
            let (mut commands, mut answers) = (String::new(), vec![0; OK.len() * shape.in_flight]);
            let mut puts = 0;
            while go_on() {
                commands.clear();
                for _ in 0..shape.in_flight {
                    let key = ((number as u64) << 32) | (puts % KEYS);
                    commands += "*3\r\n$3\r\nSET\r\n$16\r\n";
                    commands += &format!("{key:016x}\r\n${}\r\n{value}\r\n", value.len());
                    puts += 1;
                }
                stream.write_all(commands.as_bytes())?;
                stream.read_exact(&mut answers)?;
                ensure!(
                    answers.chunks(OK.len()).all(|answer| answer == OK),
                    "redis refused a put"
                );
            }
            Ok(puts)
        })
    }
}

const OK: &[u8] = b"+OK\r\n";
/// Keys of a connection: what is put again costs the log the same.
const KEYS: u64 = 100_000;
