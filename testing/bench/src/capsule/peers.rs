//! Stores that people use today, on the same disk and loopback, beside ours.
//!
//! ```text
//! [in flight 1 × 1]   [16 × 1]   [16 × 64]      connections × puts in flight on each
//!      peer  ours  peer  ours  peer  ours …     one after the other, medians of ratios
//! ```
//!
//! Peers get 16, 100 or 1000 B values under one of many 16 B keys, and acknowledge what they have
//! synced, as far as they can be told to. They store it in the clear and sign nothing. Clients are
//! written here by hand, over plain sockets: nothing of them may be what is measured.

pub(crate) mod etcd;
mod nats;
mod redis;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bield_capsule::{Durability, Suite};
use bield_sdk::capsule::AppenderOptions;

use super::Effort;
use super::append::short;
use super::load::callers;
use super::place::{Place, Store, stop};
use crate::bars::{Bar, median};

/// Connections, and puts in flight on each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
}

const ONE: Shape = Shape {
    connections: 1,
    in_flight: 1,
};
const UNPIPELINED: Shape = Shape {
    connections: 16,
    in_flight: 1,
};
const PIPELINED: Shape = Shape {
    connections: 16,
    in_flight: 64,
};

/// A running peer.
pub(crate) trait Peer {
    /// What people call it.
    fn name(&self) -> String;

    /// How it keeps what it acknowledges, and what its client here is.
    fn terms(&self) -> String;

    /// Whether one connection may have several puts in flight.
    fn pipelines(&self) -> bool;

    /// Whether a put is on the disk before it is acknowledged.
    fn syncs(&self) -> bool;

    /// Puts a second of a closed loop.
    fn puts(&self, value: usize, shape: Shape, span: Duration) -> Result<f64>;
}

/// All peers against ours.
pub(crate) fn raced(
    programs: &Path,
    folder: &Path,
    effort: &Effort,
    bars: &mut Vec<Bar>,
) -> Result<()> {
    let store = Store::start(programs, folder)?;
    let ours = [
        Ours::new("in process", Place::Disk(folder.to_owned())),
        Ours::new("replica over HTTP", Place::Stores(vec![store])),
    ];
    match redis::Redis::start(folder)? {
        Some(redis) => {
            for value in effort.values() {
                against(&redis, &ours, value, effort, bars)?;
            }
            bars.push(redis.cross_check()?);
        }
        None => bars.push(missing("redis-server", "redis-server")),
    }
    match etcd::Etcd::start(folder)? {
        Some(etcd) => against(&etcd, &ours, 100, effort, bars)?,
        None => bars.push(missing("etcd", "etcd-server")),
    }
    match nats::Nats::start(folder)? {
        Some(nats) => against(&nats, &ours, 100, effort, bars)?,
        None => bars.push(missing("nats-server", "nats-server")),
    }
    Ok(())
}

/// One of our places, measured like a peer.
struct Ours {
    name: &'static str,
    place: Place,
}

impl Ours {
    const fn new(name: &'static str, place: Place) -> Self {
        Self { name, place }
    }

    /// Puts a second, and how many stand in a record. One appender: callers share its chain, its
    /// thread that signs and its connection.
    fn puts(&self, value: usize, shape: Shape, span: Duration) -> Result<(f64, f64)> {
        let started = self
            .place
            .start(Suite::Ed25519, AppenderOptions::default())?;
        // Of a single replica both words say that it has synced.
        let level = match started.level {
            Durability::Replicated(1) => Durability::LocalSync,
            level => level,
        };
        let Shape {
            connections,
            in_flight,
        } = shape;
        let done = callers(
            &started.appender,
            value,
            level,
            connections,
            in_flight,
            span,
        )?;
        Ok((done.rate, done.batch))
    }
}

/// Rows of one peer and one size of value.
fn against(
    peer: &dyn Peer,
    ours: &[Ours],
    value: usize,
    effort: &Effort,
    bars: &mut Vec<Bar>,
) -> Result<()> {
    let span = effort.span(&ours[0].place);
    let shapes = [ONE, UNPIPELINED, PIPELINED];
    let shapes = shapes
        .iter()
        .filter(|shape| peer.pipelines() || shape.in_flight == 1);
    let shapes: Vec<_> = shapes.copied().collect();
    eprintln!("  {}, {value} B", peer.name());
    for ours in ours {
        let mut theirs = vec![Vec::new(); shapes.len()];
        let mut own = vec![Vec::new(); shapes.len() + 1];
        for _ in 0..effort.rounds() {
            for (at, shape) in shapes.iter().enumerate() {
                theirs[at].push(peer.puts(value, *shape, span)?);
                own[at].push(ours.puts(value, *shape, span)?);
            }
            own[shapes.len()].push(ours.puts(value, PIPELINED, span)?);
        }
        for (at, shape) in shapes.iter().enumerate() {
            let name = format!(
                "ours {} ÷ {}, {value} B, {} × {} in flight on both sides",
                ours.name,
                peer.name(),
                shape.connections,
                shape.in_flight
            );
            let (ratio, note) = compared(&own[at], &theirs[at], peer);
            let holds = peer.name().starts_with("redis") && *shape == PIPELINED;
            bars.push(if holds {
                Bar::at_least(name, ratio, 1.0, note)
            } else {
                Bar::told(name, ratio, "ratio", note)
            });
        }
        // A caller of ours need not wait for one put before the next: that is what a client without
        // pipelining does, whichever store is behind it.
        let at = shapes.iter().position(|shape| *shape == UNPIPELINED);
        let at = at.context("every peer is asked without pipelining")?;
        let name = format!(
            "ours {}, 16 callers × 64 in flight ÷ {} unpipelined, 16 connections, {value} B",
            ours.name,
            peer.name()
        );
        let (ratio, note) = compared(&own[shapes.len()], &theirs[at], peer);
        bars.push(if peer.name().starts_with("redis") {
            Bar::at_least(name, ratio, 5.0, note)
        } else {
            Bar::told(name, ratio, "ratio", note)
        });
    }
    Ok(())
}

fn compared(own: &[(f64, f64)], theirs: &[f64], peer: &dyn Peer) -> (f64, String) {
    let ratios = own
        .iter()
        .zip(theirs)
        .map(|((rate, _), theirs)| rate / theirs);
    let ratio = median(ratios.collect());
    let rates = own.iter().map(|(rate, _)| *rate).collect();
    let batches = own.iter().map(|(_, batch)| *batch).collect();
    let note = format!(
        "suite 1 local-sync {}/s, mean batch {:.1}; {} {}/s: {}{}",
        short(median(rates)),
        median(batches),
        peer.name(),
        short(median(theirs.to_vec())),
        peer.terms(),
        if peer.syncs() {
            ""
        } else {
            "; WEAKER: it does not sync before it answers"
        }
    );
    (ratio, note)
}

fn missing(what: &str, package: &str) -> Bar {
    Bar::missing(
        format!("ours ÷ {what}"),
        &format!("not installed: apt-get install {package}"),
    )
}

/// A server of somebody else, which ends with this.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts a program of the search path once it answers at `port`; `None` when there is none.
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Option<Self>> {
        let started = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("starting {command:?}")),
        };
        let mut server = Self { child };
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{command:?} ended with {status}");
            }
            ensure!(
                begin.elapsed() < Duration::from_secs(10),
                "{command:?} does not answer"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(server))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// A program by name: on the search path, or where Debian puts servers.
pub(crate) fn program(name: &str) -> Command {
    let places = ["/usr/sbin", "/usr/local/sbin", "/sbin"];
    let there = places.map(|place| Path::new(place).join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path)
        .map(|place| place.join(name))
        .chain(there)
        .filter(|program| program.is_file());
    Command::new(found.next().unwrap_or_else(|| name.into()))
}

/// Runs `client` on as many threads as there are connections until the span is over; it returns how
/// many puts it had acknowledged. Puts a second.
pub(crate) fn clients(
    connections: usize,
    span: Duration,
    client: impl Fn(usize, &dyn Fn() -> bool) -> Result<u64> + Sync,
) -> Result<f64> {
    let begin = Instant::now();
    let done = std::thread::scope(|scope| {
        let (client, go_on) = (&client, || begin.elapsed() < span);
        let started: Vec<_> = (0..connections)
            .map(|number| scope.spawn(move || client(number, &go_on)))
            .collect();
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => bail!("a client panicked"),
        });
        joined.sum::<Result<u64>>()
    })?;
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}
