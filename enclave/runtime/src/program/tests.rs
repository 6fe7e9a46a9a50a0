//! The program behind its door, with a played host on Unix sockets.

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use bield_engine::Rten;
use bield_protocol::inference;

use super::*;
use crate::testing::{Shelf, Stage};

struct Host {
    _directory: tempfile::TempDir,
    path: PathBuf,
    stage: Stage,
    watch: UnixStream,
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
        Self {
            _directory: directory,
            path,
            stage,
            watch,
            ended,
        }
    }

    fn start_call(&self, bytes: &[u8]) -> UnixStream {
        let mut socket = visit(&self.path, Visit::Call);
        // A program that turns a call away may stop reading.
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(Shutdown::Write);
        socket
    }

    fn call(&self, bytes: &[u8]) -> Reply {
        finish(self.start_call(bytes))
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

fn visit(path: &PathBuf, kind: Visit) -> UnixStream {
    let mut socket = UnixStream::connect(path).unwrap();
    socket.write_all(&[kind.byte()]).unwrap();
    socket
}

fn finish(mut socket: UnixStream) -> Reply {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    Reply::decode(&bytes).unwrap()
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
    drop(visit(&host.path, Visit::Call));
    host.good_call_works(1);
    assert!(host.status().refused >= 3);
}

#[test]
fn an_oversized_request_is_told_so() {
    let host = Host::new();
    let mut socket = visit(&host.path, Visit::Call);
    let block = vec![0; 1 << 20];
    for _ in 0..=(SEALED_REQUEST_BYTES_MAX >> 20) + 1 {
        if socket.write_all(&block).is_err() {
            break;
        }
    }
    let _ = socket.shutdown(Shutdown::Write);
    let Reply::Unsealed(_, refusal) = finish(socket) else {
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
    // Long enough that it does not fit into the socket, so that somebody must read it.
    let third = [third, vec![0; 4 << 20]].concat();
    let Reply::Unsealed(_, refusal) = host.call(&third) else {
        panic!("sealed")
    };
    assert_eq!(refusal.code, "busy");
    assert!(refusal.retry_after_ms.is_some());
    drop(held);
    for (socket, opener) in [(first, opens_first), (second, opens_second)] {
        let Reply::Sealed(_, answer) = finish(socket) else {
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
    drop(host.watch);
    drop(held);
    let Reply::Sealed(_, answer) = finish(call) else {
        panic!("unsealed")
    };
    assert!(opener.open(&answer).is_ok());
    assert!(matches!(host.ended.join().unwrap(), DoorError::HostGone));
    assert_eq!(host.stage.service.mind().quotas[&digest], 4, "one was used");
}
