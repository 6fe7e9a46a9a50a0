//! The door: round trips and rates of its rings between two processes on two cores, next to what an operating system has
//! for the same, on the same cores in the same run; and whole calls through launcher and door.
//!
//! ```text
//!  this process, core 0                      door-peer, core 1
//!  message ─ ring │ pipe │ socket │ TCP ─▶ sends it back, or streams
//! ```
//!
//! Windows of all ways alternate, so that a disturbance meets all of them. The middle window counts.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bield_door::{Calls, Door, Inside, Limits, Visit};
use bield_launcher::{Enclave, Launch};
use bield_ring::{Consumer, PARK_MAX, Producer, Shared, Spin};
use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::bars::{self, Bar, median};
use crate::capsule::machine;

/// What a Unix socket's round trip is to be over the ring's, at 64 bytes.
const SOCKET_OVER_RING: f64 = 44.0;
const SIZES: [usize; 3] = [64, 1024, 16 << 10];
/// Round trips in one window.
const ROUND_TRIPS: u32 = 20;
/// Round trips before each window, which wake what slept while others were measured.
const WARM: u32 = 5;
/// Messages in one window of a stream.
const STREAMED: u32 = 1000;
const WAIT: Duration = Duration::from_secs(20);

/// A way between two processes.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Way {
    /// The door's ring as it is used: spins for two wake-ups, then sleeps.
    Ring,
    /// The same ring, which never spins.
    Asleep,
    Unix,
    Pipe,
    Tcp,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Way::Ring => "ring",
            Way::Asleep => "ring that never spins",
            Way::Unix => "Unix socket",
            Way::Pipe => "pipe",
            Way::Tcp => "TCP loopback",
        }
    }

    fn spin(self) -> Spin {
        match self {
            Way::Asleep => Spin::fixed(Duration::ZERO),
            _ => Spin::measured(),
        }
    }
}

/// What a peer does.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Task {
    /// Sends back each message.
    Echo,
    /// Sends messages as fast as it can.
    Stream,
    /// Takes part in calls: `launcher` and `door`.
    Program,
    /// Answers visits of one call each, as calls came before there were rings.
    Visits,
}

/// This process's end.
enum End {
    Ring(Producer<Shared>, Consumer<Shared>),
    Files { to: File, from: File },
}

impl End {
    fn ring([out, into]: [Shared; 2], way: Way) -> End {
        End::Ring(
            Producer::new(out, way.spin()),
            Consumer::new(into, way.spin()),
        )
    }

    fn send(&mut self, message: &[u8]) -> Result<()> {
        match self {
            End::Ring(producer, _) => {
                while producer.try_push(1, 0, message).is_err() {
                    producer.wait_room(message.len(), PARK_MAX)?;
                }
                producer.publish();
                Ok(())
            }
            End::Files { to, .. } => Ok(to.write_all(message)?),
        }
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> Result<()> {
        match self {
            End::Ring(_, consumer) => {
                buffer.clear();
                loop {
                    if let Some(frame) = consumer.peek()? {
                        frame.take(buffer);
                        return Ok(());
                    }
                    consumer.wait(PARK_MAX)?;
                }
            }
            End::Files { from, .. } => Ok(from.read_exact(buffer)?),
        }
    }
}

/// The other process, and the way to it.
struct Peer {
    child: Child,
    end: End,
}

impl Peer {
    fn start(way: Way, task: Task, size: usize) -> Result<Peer> {
        let (input, output, end) = match way {
            Way::Ring | Way::Asleep => {
                let (file, rings) = bield_ring::create()?;
                (Stdio::from(file), Stdio::null(), End::ring(rings, way))
            }
            Way::Unix => {
                let (here, there) = UnixStream::pair()?;
                (
                    OwnedFd::from(there).into(),
                    Stdio::null(),
                    both(here.into())?,
                )
            }
            Way::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let here = TcpStream::connect(listener.local_addr()?)?;
                let there = listener.accept()?.0;
                for stream in [&here, &there] {
                    stream.set_nodelay(true)?;
                }
                (
                    OwnedFd::from(there).into(),
                    Stdio::null(),
                    both(here.into())?,
                )
            }
            Way::Pipe => {
                let ((input, to), (from, output)) = (std::io::pipe()?, std::io::pipe()?);
                let end = End::Files {
                    to: OwnedFd::from(to).into(),
                    from: OwnedFd::from(from).into(),
                };
                (input.into(), output.into(), end)
            }
        };
        let child = peer(way, task, size)
            .stdin(input)
            .stdout(output)
            .spawn()
            .context("starting the other process")?;
        Ok(Peer { child, end })
    }

    /// Nanoseconds of one round trip, from a window of them.
    fn window(&mut self, message: &[u8], buffer: &mut Vec<u8>) -> Result<f64> {
        let mut trips = |count: u32| {
            let begin = Instant::now();
            for _ in 0..count {
                self.end.send(message)?;
                self.end.receive(buffer)?;
            }
            anyhow::Ok(begin.elapsed())
        };
        trips(WARM)?;
        let took = trips(ROUND_TRIPS)?;
        ensure!(buffer == message, "another message came back");
        Ok(took.as_secs_f64() * 1e9 / f64::from(ROUND_TRIPS))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn both(file: OwnedFd) -> Result<End> {
    Ok(End::Files {
        to: file.try_clone()?.into(),
        from: file.into(),
    })
}

fn peer(way: Way, task: Task, size: usize) -> Command {
    let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value().map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let mut command =
        Command::new(std::env::current_exe().unwrap_or_else(|_| "bield-bench".into()));
    command
        .arg("door-peer")
        .arg(name(&|| way.to_possible_value()))
        .arg(name(&|| task.to_possible_value()))
        .arg(size.to_string());
    command
}

/// The other process.
pub(crate) fn serve(way: Way, task: Task, size: usize) -> Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    match task {
        Task::Program => return program(),
        Task::Visits => return visits(&UnixListener::from(input)),
        Task::Echo | Task::Stream => {}
    }
    let mut end = match way {
        Way::Ring | Way::Asleep => {
            let [into, out] = bield_ring::open(input)?;
            End::ring([out, into], way)
        }
        Way::Pipe => End::Files {
            to: std::io::stdout().as_fd().try_clone_to_owned()?.into(),
            from: input.into(),
        },
        Way::Unix | Way::Tcp => both(input)?,
    };
    // Not before: a process that may use one core only does not spin.
    pin(1)?;
    let mut message = vec![7; size];
    loop {
        if matches!(task, Task::Echo) {
            end.receive(&mut message)?;
        }
        end.send(&message)?;
    }
}

/// An enclave program that answers each call with its own bytes.
fn program() -> Result<()> {
    let door = Door::from_stdin()?;
    door.configuration()?.1.ready()?;
    loop {
        if let (Visit::Calls, stream) = door.accept()? {
            let limits = Limits {
                request_bytes_max: 1 << 20,
                bytes_max: 16 << 20,
            };
            let mut calls = Calls::open(stream, limits, &Inside::default())?;
            std::thread::spawn(move || {
                while let Ok(call) = calls.next_call() {
                    let _ = call.caller.reply(&call.bytes.unwrap_or_default());
                }
            });
        }
    }
}

/// One connection a call: a byte that says so, the request, its end, the answer, its end.
fn visits(listener: &UnixListener) -> Result<()> {
    for visit in listener.incoming() {
        let mut visit = visit?;
        let mut bytes = Vec::new();
        visit.read_exact(&mut [0])?;
        visit.read_to_end(&mut bytes)?;
        visit.write_all(&bytes)?;
    }
    Ok(())
}

fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("moving to core {core}"))
}

/// Runs all parts and reports.
pub(crate) fn run(programs: &Path, quick: bool) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(
        cores >= 2,
        "two processes on two cores need two cores; this machine has one"
    );
    let mut bars = Vec::new();
    let load = machine();
    // First: its threads go where the system puts them.
    calls(quick, &mut bars)?;
    pin(0)?;
    for size in SIZES {
        round_trips(size, quick, &mut bars)?;
    }
    for size in SIZES {
        rates(size, quick, &mut bars)?;
    }
    literature(&mut bars);
    bars.push(Bar::told(
        "cores".into(),
        cores as f64,
        "",
        load.replace("at the end", "at the begin"),
    ));
    bars::report("door", programs, &bars)
}

fn round_trips(size: usize, quick: bool, bars: &mut Vec<Bar>) -> Result<()> {
    let ways = [Way::Ring, Way::Asleep, Way::Unix, Way::Pipe, Way::Tcp];
    let mut peers = ways
        .iter()
        .map(|way| Ok((*way, Peer::start(*way, Task::Echo, size)?, Vec::new())))
        .collect::<Result<Vec<_>>>()?;
    let (message, mut buffer) = (vec![7; size], vec![0; size]);
    for _ in 0..if quick { 20 } else { 400 } {
        for (_, peer, windows) in &mut peers {
            windows.push(peer.window(&message, &mut buffer)?);
        }
    }
    let medians: Vec<(Way, f64)> = peers
        .into_iter()
        .map(|(way, _, windows)| (way, median(windows)))
        .collect();
    let ring = medians[0].1;
    for (way, nanos) in &medians {
        let name = format!("{size} B round trip: {}", way.name());
        bars.push(Bar::told(
            name,
            nanos / 1000.0,
            "µs",
            "two processes, two cores".into(),
        ));
    }
    for (way, nanos) in &medians[2..] {
        let name = format!("{size} B round trip: {} ÷ ring", way.name());
        let note = format!("{:.2} µs ÷ {:.2} µs", nanos / 1000.0, ring / 1000.0);
        bars.push(match (way, size) {
            (Way::Unix, 64) => Bar::at_least(name, nanos / ring, SOCKET_OVER_RING, note),
            _ => Bar::told(name, nanos / ring, "ratio", note),
        });
    }
    Ok(())
}

fn rates(size: usize, quick: bool, bars: &mut Vec<Bar>) -> Result<()> {
    let ways = [Way::Ring, Way::Unix, Way::Pipe, Way::Tcp];
    let mut windows: [Vec<f64>; 4] = Default::default();
    // A peer for each turn: one that waits meanwhile would begin with what it had buffered.
    for _ in 0..if quick { 1 } else { 5 } {
        for (way, windows) in ways.into_iter().zip(&mut windows) {
            let mut peer = Peer::start(way, Task::Stream, size)?;
            let mut buffer = vec![0; size];
            let until = Instant::now() + Duration::from_millis(if quick { 100 } else { 200 });
            while Instant::now() < until {
                let begin = Instant::now();
                for _ in 0..STREAMED {
                    peer.end.receive(&mut buffer)?;
                }
                windows.push(f64::from(STREAMED) / begin.elapsed().as_secs_f64());
            }
        }
    }
    let rates = windows.map(median);
    for (way, rate) in ways.into_iter().zip(rates) {
        let name = format!("{size} B one way: {}", way.name());
        let note = format!("{:.0} MB/s", rate * size as f64 / 1e6);
        bars.push(Bar::told(name, rate, "messages/s", note));
    }
    for (way, rate) in ways.into_iter().zip(rates).skip(1) {
        let name = format!("{size} B one way: ring ÷ {}", way.name());
        let note = "messages a second".to_owned();
        bars.push(Bar::told(name, rates[0] / rate, "ratio", note));
    }
    Ok(())
}

/// Whole calls, with the threads that read and wait, against a connection for each call.
fn calls(quick: bool, bars: &mut Vec<Bar>) -> Result<()> {
    let launch = Launch {
        program: std::env::current_exe()?,
        arguments: ["door-peer", "ring", "program", "0"]
            .map(str::to_owned)
            .to_vec(),
        ..Launch::default()
    };
    let enclave = Enclave::start(&launch)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("door");
    let listener = UnixListener::bind(&path)?;
    let mut visited = peer(Way::Unix, Task::Visits, 0)
        .stdin(OwnedFd::from(listener))
        .spawn()?;
    let mut measured = || -> Result<()> {
        for size in SIZES {
            let message = vec![7; size];
            let (mut rings, mut visits) = (Vec::new(), Vec::new());
            for _ in 0..if quick { 50 } else { 2000 } {
                let begin = Instant::now();
                let answer = enclave.call(&message, WAIT)?;
                rings.push(begin.elapsed().as_secs_f64() * 1e6);
                ensure!(answer == message, "another answer came back");
                let begin = Instant::now();
                let mut visit = UnixStream::connect(&path)?;
                visit.write_all(&[1])?;
                visit.write_all(&message)?;
                visit.shutdown(Shutdown::Write)?;
                let mut answer = Vec::new();
                visit.read_to_end(&mut answer)?;
                visits.push(begin.elapsed().as_secs_f64() * 1e6);
            }
            let (ring, visit) = (median(rings), median(visits));
            bars.push(Bar::told(
                format!("{size} B call through launcher and door: visit ÷ ring"),
                visit / ring,
                "ratio",
                format!("a connection for each call {visit:.0} µs, rings {ring:.0} µs; the program sleeps before each"),
            ));
        }
        let message = [7; 64];
        let mut rings = Vec::new();
        for _ in 0..if quick { 200 } else { 8000 } {
            let begin = Instant::now();
            enclave.call(&message, WAIT)?;
            rings.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        bars.push(Bar::told(
            "64 B call through launcher and door, one after another".to_owned(),
            median(rings),
            "µs",
            "rings; both ends still spin".to_owned(),
        ));
        Ok(())
    };
    let done = measured();
    visited.kill()?;
    visited.wait()?;
    done
}

/// What others published; not measured here, and on other machines.
fn literature(bars: &mut Vec<Bar>) {
    let note = "LITERATURE, not measured: HotCalls (ISCA 2017), abstract";
    for (name, value) in [
        ("SGX SDK call, least", 8_200.0),
        ("SGX SDK call, most", 17_000.0),
        ("system call", 150.0),
    ] {
        bars.push(Bar::told(name.to_owned(), value, "cycles", note.to_owned()));
    }
    for (name, value) in [
        ("SGX SDK call ÷ HotCall, least", 13.0),
        ("SGX SDK call ÷ HotCall, most", 27.0),
    ] {
        bars.push(Bar::told(name.to_owned(), value, "ratio", note.to_owned()));
    }
}
