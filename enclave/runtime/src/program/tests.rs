//! The program behind its door, with a played host: Unix sockets, and the other end of the rings.

use std::collections::HashMap;
use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Instant;

use bield_engine::Rten;
use bield_protocol::inference;
use bield_ring::{Consumer, Kind, Producer, Sender as Requests, Shared, Spin};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::*;
use crate::testing::{Shelf, Stage};

struct Host {
    _directory: tempfile::TempDir,
    path: PathBuf,
    stage: Stage,
    watch: UnixStream,
    requests: Requests<Shared>,
    next: AtomicU64,
    answers: Mutex<Answers>,
    _calls: UnixStream,
    ended: thread::JoinHandle<DoorError>,
}

impl Host {
    /// A program that lets two calls in.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let door = Door::new(UnixListener::bind(&path).unwrap());
        let stage = Stage::new(Shelf::stocked());
        let runtime = stage.runtime(Rten::new(1), 64 << 20);
        let facts = Facts {
            measurement: runtime.code.to_string(),
            simulated: true,
            hardening: Vec::new(),
            missing: Vec::new(),
        };
        let program = Program::new(runtime, Arc::new(Offers::new()), (1, 1), facts).unwrap();
        let ended = thread::spawn(move || {
            let Err(error) = program.serve(&door);
            program.stop();
            error
        });
        let watch = visit(&path, Visit::Watch);
        let (file, [to_program, from_program]) = bield_ring::create().unwrap();
        let calls = UnixStream::connect(&path).unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&files));
        let byte = [Visit::Calls.byte()];
        rustix::net::sendmsg(
            &calls,
            &[IoSlice::new(&byte)],
            &mut control,
            SendFlags::empty(),
        )
        .unwrap();
        Self {
            requests: Requests::new(Producer::new(to_program, Spin::measured())),
            next: AtomicU64::new(0),
            answers: Mutex::new(Answers {
                ring: Consumer::new(from_program, Spin::measured()),
                parts: HashMap::new(),
                whole: HashMap::new(),
            }),
            _calls: calls,
            _directory: directory,
            path,
            stage,
            watch,
            ended,
        }
    }

    /// Sends a request; its number.
    fn start_call(&self, bytes: &[u8]) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let deadline = Instant::now() + WAIT;
        self.requests.send(id, bytes, deadline, || false).unwrap();
        id
    }

    fn call(&self, bytes: &[u8]) -> Reply {
        self.finish(self.start_call(bytes))
    }

    /// Waits for the answer to the call of this number.
    fn finish(&self, id: u64) -> Reply {
        let deadline = Instant::now() + WAIT;
        let mut answers = lock(&self.answers);
        loop {
            if let Some(bytes) = answers.whole.remove(&id) {
                return Reply::decode(&bytes).unwrap();
            }
            answers.hear();
            assert!(Instant::now() < deadline, "no answer to call {id}");
        }
    }

    fn status(&self) -> Status {
        let mut bytes = Vec::new();
        visit(&self.path, Visit::Status)
            .read_to_end(&mut bytes)
            .unwrap();
        Status::decode(&bytes).unwrap()
    }

    fn good_call_works(&self, id: u8) {
        let (sealed, opener) = self.stage.cast.request(self.stage.package, id);
        let Reply::Sealed(_, answer) = self.call(&sealed) else {
            panic!("unsealed")
        };
        let reply = inference::Reply::decode(&opener.open(&answer).unwrap()).unwrap();
        assert!(matches!(reply, inference::Reply::Answered(_)), "{reply:?}");
    }
}

/// How long a call may take before a test fails.
const WAIT: Duration = Duration::from_secs(60);

/// The host's end of the ring that answers come through.
struct Answers {
    ring: Consumer<Shared>,
    parts: HashMap<u64, Vec<u8>>,
    whole: HashMap<u64, Vec<u8>>,
}

impl Answers {
    fn hear(&mut self) {
        if !self.ring.wait(Duration::from_millis(100)).unwrap() {
            return;
        }
        let frame = self.ring.peek().unwrap().unwrap();
        let id = frame.head().id;
        let kind = Kind::from_number(frame.head().kind);
        match kind {
            Some(Kind::Whole | Kind::Part | Kind::Last) => {
                frame.take(self.parts.entry(id).or_default());
            }
            _ => frame.skip(),
        }
        if matches!(kind, Some(Kind::Whole | Kind::Last)) {
            let answer = self.parts.remove(&id).unwrap_or_default();
            self.whole.insert(id, answer);
        }
    }
}

fn visit(path: &PathBuf, kind: Visit) -> UnixStream {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.write_all(&[kind.byte()]).unwrap();
    socket
}

#[test]
fn a_call_through_the_door_is_answered_and_counted() {
    let host = Host::new();
    host.good_call_works(1);
    let status = host.status();
    assert_eq!((status.served, status.refused, status.in_flight), (1, 0, 0));
    assert_eq!((status.resident, status.simulated), (1, true));
    assert_eq!(status.program, "bield-runtime");
    assert_eq!(status.state, "serving");
    let metric = |name: &str| status.metrics.iter().find(|metric| metric.name == name);
    for name in ["leases", "leases_total", "starts_cold_total"] {
        assert_eq!(metric(name).unwrap().value, 1, "{name}");
    }
}

#[test]
fn nonsense_costs_its_own_answer_only() {
    let host = Host::new();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 100_000]] {
        let Reply::Unsealed(_, refusal) = host.call(bytes) else {
            panic!("sealed")
        };
        assert_eq!(refusal.code, "malformed");
    }
    let begun = host.next.fetch_add(1, Ordering::Relaxed);
    // A part of nothing, and the end of what never began.
    let deadline = Instant::now() + WAIT;
    let part = host
        .requests
        .send_part(begun, b"part", false, deadline, || false);
    part.unwrap();
    host.requests.cancel(begun);
    host.good_call_works(1);
    assert!(host.status().refused >= 3);
}

#[test]
fn an_oversized_request_is_told_so() {
    let host = Host::new();
    let Reply::Unsealed(_, refusal) = host.call(&vec![0; SEALED_REQUEST_BYTES_MAX + 1]) else {
        panic!("sealed")
    };
    assert_eq!(refusal.code, "malformed");
    assert!(refusal.message.contains("more than"), "{refusal:?}");
    host.good_call_works(1);
}

#[test]
fn a_full_runtime_says_busy_and_serves_those_inside() {
    let host = Host::new();
    let hold = Arc::clone(&host.stage.service.mind().hold);
    let held = lock(&hold);
    let (first, opens_first) = host.stage.cast.request(host.stage.package, 1);
    let (second, opens_second) = host.stage.cast.request(host.stage.package, 2);
    let (first, second) = (host.start_call(&first), host.start_call(&second));
    while host.status().in_flight < 2 {
        thread::yield_now();
    }
    let (third, _) = host.stage.cast.request(host.stage.package, 3);
    // Longer than the ring, so that somebody must read it.
    let third = [third, vec![0; 4 << 20]].concat();
    let Reply::Unsealed(_, refusal) = host.call(&third) else {
        panic!("sealed")
    };
    assert_eq!(refusal.code, "busy");
    assert!(refusal.retry_after_ms.is_some());
    drop(held);
    for (call, opener) in [(first, opens_first), (second, opens_second)] {
        let Reply::Sealed(_, answer) = host.finish(call) else {
            panic!("unsealed")
        };
        assert!(opener.open(&answer).is_ok());
    }
    host.good_call_works(4);
}

#[test]
fn visits_of_other_kinds_are_closed() {
    let host = Host::new();
    for kind in [Visit::Session, Visit::Storage] {
        let mut bytes = Vec::new();
        visit(&host.path, kind).read_to_end(&mut bytes).unwrap();
        assert!(bytes.is_empty());
    }
    host.good_call_works(1);
}

#[test]
fn the_program_ends_when_its_launcher_is_gone() {
    let host = Host::new();
    host.good_call_works(1);
    drop(host.watch);
    assert!(matches!(host.ended.join().unwrap(), DoorError::HostGone));
}

#[test]
fn a_program_that_stops_finishes_its_calls_and_returns_what_is_left_of_quotas() {
    let host = Host::new();
    let package = host.stage.package;
    let grant = host
        .stage
        .cast
        .granted(package, |grant| grant.requests = Some(5));
    let digest = grant.digest();
    let hold = {
        let mut mind = host.stage.service.mind();
        mind.quotas.insert(digest, 5);
        mind.grants = Some(vec![grant]);
        Arc::clone(&mind.hold)
    };
    let held = lock(&hold);
    let (sealed, opener) = host.stage.cast.request(package, 1);
    let call = host.start_call(&sealed);
    while host.status().in_flight < 1 {
        thread::yield_now();
    }
    host.watch.shutdown(Shutdown::Both).unwrap();
    drop(held);
    let Reply::Sealed(_, answer) = host.finish(call) else {
        panic!("unsealed")
    };
    assert!(opener.open(&answer).is_ok());
    assert!(matches!(host.ended.join().unwrap(), DoorError::HostGone));
    assert_eq!(host.stage.service.mind().quotas[&digest], 4, "one was used");
}
