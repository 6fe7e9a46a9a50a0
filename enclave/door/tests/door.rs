//! The door against a host that behaves, stalls, floods and speaks out of turn.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bield_door::{Door, DoorError, OFFERS_MAX, Offers, Stream, Visit};
use bield_protocol::visit::CONFIGURATION_BYTES_MAX;

struct Host {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Host {
    fn with_door() -> (Host, Door) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door");
        let door = Door::new(UnixListener::bind(&path).unwrap());
        (
            Host {
                _directory: directory,
                path,
            },
            door,
        )
    }

    fn visit(&self, first_bytes: &[u8]) -> UnixStream {
        let mut socket = UnixStream::connect(&self.path).unwrap();
        socket.write_all(first_bytes).unwrap();
        socket
    }
}

fn offered(host: &Host, door: &Door, visit: Visit) -> (UnixStream, Stream) {
    let socket = host.visit(&[visit.byte()]);
    let (kind, stream) = door.accept().unwrap();
    assert!(kind == visit);
    (socket, stream)
}

#[test]
fn a_session_goes_in_and_out() {
    let (host, door) = Host::with_door();
    let mut socket = host.visit(&[Visit::Session.byte()]);
    socket.write_all(b"hello").unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();

    let (visit, mut stream) = door.accept().unwrap();
    assert!(visit == Visit::Session);
    assert_eq!(stream.read_all(1024).unwrap(), b"hello");
    stream.write_all(b"and back").unwrap();
    stream.finish().unwrap();

    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"and back");
}

#[test]
fn the_configuration_comes_first_and_only_once() {
    let (host, door) = Host::with_door();
    let early = host.visit(&[Visit::Session.byte()]);
    let mut configure = host.visit(&[Visit::Configure.byte()]);
    configure.write_all(b"owner = 'x'").unwrap();
    configure.shutdown(std::net::Shutdown::Write).unwrap();

    let (configuration, configuring) = door.configuration().unwrap();
    assert_eq!(configuration, b"owner = 'x'");
    assert_eq!(
        (&early).read(&mut [0]).unwrap(),
        0,
        "a session before the configuration is closed"
    );
    configuring.ready().unwrap();
    let mut answer = String::new();
    configure.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "ok\n");

    let second = host.visit(&[Visit::Configure.byte()]);
    let _status = host.visit(&[Visit::Status.byte()]);
    let (visit, _) = door.accept().unwrap();
    assert!(visit == Visit::Status);
    assert_eq!(
        (&second).read(&mut [0]).unwrap(),
        0,
        "a second configuration is closed"
    );
}

#[test]
fn a_refusal_is_one_bounded_line() {
    let (host, door) = Host::with_door();
    let mut configure = host.visit(&[Visit::Configure.byte()]);
    configure.shutdown(std::net::Shutdown::Write).unwrap();
    let (_, configuring) = door.configuration().unwrap();
    configuring
        .refuse(&format!("no such\nkey {}", "é".repeat(4000)))
        .unwrap();
    let mut answer = String::new();
    configure.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("no such key é") && answer.ends_with("é\n"));
    assert!(answer.len() <= 1025 && answer.matches('\n').count() == 1);
}

#[test]
fn an_oversized_configuration_is_refused() {
    let (host, door) = Host::with_door();
    let mut configure = host.visit(&[Visit::Configure.byte()]);
    let sender = std::thread::spawn(move || {
        let _ = configure.write_all(&vec![b'#'; CONFIGURATION_BYTES_MAX + 1]);
    });
    assert!(matches!(
        door.configuration(),
        Err(DoorError::TooLong {
            max: CONFIGURATION_BYTES_MAX
        })
    ));
    drop(door);
    sender.join().unwrap();
}

#[test]
fn unknown_kinds_are_closed_and_the_next_visit_works() {
    let (host, door) = Host::with_door();
    let strangers: Vec<UnixStream> = (10..=255u8)
        .step_by(31)
        .map(|kind| host.visit(&[kind]))
        .collect();
    let _good = host.visit(&[Visit::Status.byte()]);
    assert!(door.accept().unwrap().0 == Visit::Status);
    for stranger in strangers {
        assert_eq!((&stranger).read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn a_silent_visit_delays_the_next_one_by_a_second_at_most() {
    let (host, door) = Host::with_door();
    let _silent = host.visit(&[]);
    let _good = host.visit(&[Visit::Status.byte()]);
    let began = Instant::now();
    assert!(door.accept().unwrap().0 == Visit::Status);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn more_bytes_than_allowed_are_refused() {
    let (host, door) = Host::with_door();
    let mut socket = host.visit(&[Visit::Session.byte()]);
    socket.write_all(&[7; 100]).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let (_, mut stream) = door.accept().unwrap();
    assert!(matches!(
        stream.read_all(99),
        Err(DoorError::TooLong { max: 99 })
    ));
}

#[test]
fn an_offer_waits_until_it_is_taken() {
    let (host, door) = Host::with_door();
    let offers = Offers::new();
    let (mut socket, stream) = offered(&host, &door, Visit::Package);
    offers.keep(Visit::Package, stream);
    let mut taken = offers.take(Visit::Package, Duration::ZERO).unwrap();
    taken.write_all(b"digest").unwrap();
    let mut heard = [0; 6];
    socket.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"digest");
    let again = offers.take(Visit::Package, Duration::from_millis(1));
    assert!(matches!(
        again,
        Err(DoorError::NoOffer {
            visit: Visit::Package
        })
    ));
}

#[test]
fn an_offer_that_arrives_later_wakes_the_taker() {
    let (host, door) = Host::with_door();
    let offers = Offers::new();
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            offers
                .take(Visit::KeyService, Duration::from_secs(20))
                .is_ok()
        });
        let (_socket, stream) = offered(&host, &door, Visit::KeyService);
        offers.keep(Visit::KeyService, stream);
        assert!(taker.join().unwrap());
    });
}

#[test]
fn closed_and_talkative_offers_are_skipped() {
    let (host, door) = Host::with_door();
    let offers = Offers::new();
    let (closed, stream) = offered(&host, &door, Visit::Storage);
    offers.keep(Visit::Storage, stream);
    let (mut talkative, stream) = offered(&host, &door, Visit::Storage);
    offers.keep(Visit::Storage, stream);
    drop(closed);
    talkative.write_all(b"unasked").unwrap();
    assert!(offers.take(Visit::Storage, Duration::ZERO).is_err());
}

#[test]
fn a_flood_of_offers_is_bounded() {
    let (host, door) = Host::with_door();
    let offers = Offers::new();
    let sockets: Vec<UnixStream> = (0..OFFERS_MAX + 3)
        .map(|_| {
            let (socket, stream) = offered(&host, &door, Visit::Package);
            offers.keep(Visit::Package, stream);
            socket
        })
        .collect();
    let kept: Vec<Stream> =
        std::iter::from_fn(|| offers.take(Visit::Package, Duration::ZERO).ok()).collect();
    assert_eq!(kept.len(), OFFERS_MAX);
    assert_eq!(
        (&sockets[OFFERS_MAX]).read(&mut [0]).unwrap(),
        0,
        "one too many is closed"
    );
}

#[test]
fn a_session_is_never_kept_as_an_offer() {
    let (host, door) = Host::with_door();
    let offers = Offers::new();
    let (socket, stream) = offered(&host, &door, Visit::Session);
    offers.keep(Visit::Session, stream);
    assert_eq!((&socket).read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_closed_watch_ends_the_program() {
    let (host, door) = Host::with_door();
    let watch = host.visit(&[Visit::Watch.byte()]);
    let _status = host.visit(&[Visit::Status.byte()]);
    assert!(door.accept().unwrap().0 == Visit::Status);
    drop(watch);
    assert!(matches!(door.accept(), Err(DoorError::HostGone)));
}

#[test]
fn a_watch_may_come_before_the_configuration() {
    let (host, door) = Host::with_door();
    let _watch = host.visit(&[Visit::Watch.byte()]);
    let configure = host.visit(&[Visit::Configure.byte()]);
    configure.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(door.configuration().unwrap().0.is_empty());
}

#[test]
fn a_program_started_by_hand_is_told_so() {
    let Err(error) = Door::from_stdin() else {
        panic!("a test's standard input is no door")
    };
    assert!(error.to_string().contains("bield-gateway"), "{error}");
}
