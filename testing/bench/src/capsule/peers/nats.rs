//! NATS JetStream: a stream in a file, every publication acknowledged.
//!
//! Since 2.10 it can sync before every acknowledgement (`sync_interval: always`); older ones, such as
//! Debian 12's 2.9, write and sync every two minutes. Both are measured, the latter is marked.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::{Peer, Server, Shape, clients, program};
use crate::capsule::place::free_port;

/// A `nats-server` on the loopback.
pub(crate) struct Nats {
    port: u16,
    version: String,
    syncs: bool,
    _server: Server,
    _data: TempDir,
}

impl Nats {
    /// Starts one; `None` when it is not installed.
    pub(crate) fn start(folder: &Path) -> Result<Option<Self>> {
        let Ok(said) = program("nats-server").arg("--version").output() else {
            return Ok(None);
        };
        let said = String::from_utf8_lossy(&said.stdout);
        let version = said
            .trim()
            .rsplit('v')
            .next()
            .unwrap_or_default()
            .to_owned();
        let minor = version
            .split('.')
            .nth(1)
            .and_then(|minor| minor.parse().ok());
        let syncs = minor.is_some_and(|minor: u32| minor >= 10);
        let (data, port) = (TempDir::new_in(folder)?, free_port()?);
        let configuration = data.path().join("nats.conf");
        let store = data.path().join("jetstream");
        fs::write(
            &configuration,
            format!(
                "listen: 127.0.0.1:{port}\njetstream {{ store_dir: {store:?}{} }}\n",
                if syncs { ", sync_interval: always" } else { "" }
            ),
        )?;
        let mut command = program("nats-server");
        command.arg("--config").arg(configuration);
        let Some(server) = Server::start(&mut command, port)? else {
            return Ok(None);
        };
        let nats = Self {
            port,
            version,
            syncs,
            _server: server,
            _data: data,
        };
        let mut connection = Connection::open(port, "_INBOX.setup")?;
        let stream = br#"{"name":"puts","subjects":["puts.*"],"storage":"file","num_replicas":1}"#;
        connection.publish("$JS.API.STREAM.CREATE.puts", stream)?;
        connection.flush()?;
        let said = connection.answer()?;
        ensure!(
            !said.contains("\"error\""),
            "nats-server makes no stream: {said}"
        );
        Ok(Some(nats))
    }
}

impl Peer for Nats {
    fn name(&self) -> String {
        format!("NATS JetStream {}", self.version)
    }

    fn terms(&self) -> String {
        format!(
            "file storage, {}; NATS protocol over std TcpStream, a thread a connection",
            if self.syncs {
                "sync_interval always"
            } else {
                "no sync before 2.10"
            }
        )
    }

    fn pipelines(&self) -> bool {
        true
    }

    fn syncs(&self) -> bool {
        self.syncs
    }

    fn puts(&self, value: usize, shape: Shape, span: Duration) -> Result<f64> {
        clients(shape.connections, span, |number, go_on| {
            let mut connection = Connection::open(self.port, &format!("_INBOX.{number}"))?;
            let subject = format!("puts.{number:016x}");
            let value = vec![b'v'; value];
            let mut puts = 0;
            while go_on() {
                for _ in 0..shape.in_flight {
                    connection.publish(&subject, &value)?;
                }
                connection.flush()?;
                for _ in 0..shape.in_flight {
                    let said = connection.answer()?;
                    ensure!(
                        said.contains("\"seq\""),
                        "nats-server refused a put: {said}"
                    );
                    puts += 1;
                }
            }
            Ok(puts)
        })
    }
}

/// One connection, whose answers come to one inbox.
struct Connection {
    reader: BufReader<TcpStream>,
    inbox: String,
    out: Vec<u8>,
}

impl Connection {
    fn open(port: u16, inbox: &str) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            reader: BufReader::new(stream),
            inbox: inbox.to_owned(),
            out: Vec::new(),
        };
        let said = connection.line()?;
        ensure!(said.starts_with("INFO "), "no NATS server: {said}");
        write!(
            connection.out,
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":false}}\r\nSUB {inbox} 1\r\n"
        )?;
        connection.flush()?;
        Ok(connection)
    }

    fn publish(&mut self, subject: &str, payload: &[u8]) -> Result<()> {
        write!(
            self.out,
            "PUB {subject} {} {}\r\n",
            self.inbox,
            payload.len()
        )?;
        self.out.extend_from_slice(payload);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.reader.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// The next message to the inbox.
    fn answer(&mut self) -> Result<String> {
        loop {
            let line = self.line()?;
            match line.split(' ').next() {
                Some("MSG") => {
                    let length = line.rsplit(' ').next().context("MSG has a length")?;
                    let mut payload = vec![0; length.parse::<usize>()? + 2];
                    self.reader.read_exact(&mut payload)?;
                    return Ok(String::from_utf8_lossy(&payload).trim().to_owned());
                }
                Some("PING") => {
                    self.out.extend_from_slice(b"PONG\r\n");
                    self.flush()?;
                }
                Some("+OK" | "PONG" | "INFO") => {}
                _ => bail!("nats-server said {line}"),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line)?;
        ensure!(read > 0, "nats-server closed the connection");
        Ok(line.trim_end().to_owned())
    }
}
