//! The launcher against a small program that speaks the door's protocol by hand.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

mod storage;
mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bield_envelope::Digest;
use bield_launcher::{
    CONFIGURATION_WAIT, Enclave, Launch, LaunchError, Session, State, Supervisor, VisitError,
};
use bield_protocol::call::Reply;
use bield_protocol::status::Status;

use crate::support::{WAIT, answer, launch, until, with_word};

#[test]
fn a_call_and_a_status_come_back() {
    let enclave = Enclave::start(&launch()).unwrap();
    assert_eq!(answer(&enclave, b"sealed bytes"), b"sealed bytes");
    let large = vec![7; 8 << 20];
    assert_eq!(answer(&enclave, &large), large);
    let status = Status::decode(&enclave.status(WAIT).unwrap()).unwrap();
    assert_eq!(status.program, "echo-enclave");
    assert!(enclave.is_running() && enclave.pid() > 1);
}

#[test]
fn the_door_lies_in_a_private_directory_that_goes_away() {
    let run = tempfile::tempdir().unwrap();
    let launch = Launch {
        run_directory: Some(run.path().to_owned()),
        ..launch()
    };
    let enclave = Enclave::start(&launch).unwrap();
    let entries: Vec<_> = run
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        entries[0].metadata().unwrap().permissions().mode() & 0o777,
        0o700
    );
    drop(enclave);
    assert_eq!(run.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_refusal_is_passed_on_in_the_programs_own_words() {
    let launch = Launch {
        configuration: b"refuse:unknown key 'x'".to_vec(),
        ..launch()
    };
    let Err(LaunchError::Refused { why, .. }) = Enclave::start(&launch) else {
        panic!("must be refused")
    };
    assert_eq!(why, "unknown key 'x'");
}

#[test]
fn a_program_that_ends_unconfigured_is_reported() {
    let launch = Launch {
        configuration: b"silent".to_vec(),
        ..launch()
    };
    assert!(matches!(
        Enclave::start(&launch),
        Err(LaunchError::NotConfigured { .. })
    ));
}

#[test]
fn a_program_that_ended_leaves_its_last_words() {
    let supervisor = Supervisor::start(launch()).unwrap();
    assert_eq!(supervisor.last_words(), None);
    let words = b"die:said before\nthe log has a gap\n";
    let _ = supervisor.enclave().unwrap().call(words, WAIT);
    until(|| supervisor.starts() == 2);
    assert_eq!(
        supervisor.last_words().as_deref(),
        Some("the log has a gap")
    );
    assert_eq!(supervisor.enclave().unwrap().last_words(), None);
    supervisor.stop();
}

#[test]
fn a_missing_program_is_named() {
    let launch = Launch {
        program: "/nonexistent/bield-keys".into(),
        ..Launch::default()
    };
    let Err(error) = Enclave::start(&launch) else {
        panic!("must not start")
    };
    assert!(
        error.to_string().contains("/nonexistent/bield-keys"),
        "{error}"
    );
}

#[test]
fn a_run_directory_too_deep_for_a_socket_is_explained() {
    let run = tempfile::tempdir().unwrap();
    let deep = run.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let launch = Launch {
        run_directory: Some(deep.clone()),
        ..launch()
    };
    assert!(matches!(
        Enclave::start(&launch),
        Err(LaunchError::PathTooLong { .. })
    ));
    assert_eq!(
        deep.read_dir().unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn a_program_that_hangs_costs_one_deadline() {
    let enclave = Enclave::start(&launch()).unwrap();
    let hung = enclave.call(b"hang:", Duration::from_millis(100));
    assert!(matches!(hung, Err(VisitError::TimedOut { .. })));
    assert_eq!(answer(&enclave, b"next"), b"next");
}

#[test]
fn a_program_that_dies_in_a_call_is_lost_and_restarted() {
    let supervisor = Supervisor::start(launch()).unwrap();
    let enclave = supervisor.enclave().unwrap();
    assert!(matches!(
        enclave.call(b"die:", WAIT),
        Err(VisitError::Lost(_)) | Ok(_)
    ));
    let _ = enclave.wait(Some(WAIT)).unwrap();
    assert!(matches!(
        enclave.call(b"next", WAIT),
        Err(VisitError::Lost(_))
    ));
    until(|| supervisor.starts() == 2);
    assert_eq!(answer(&supervisor.enclave().unwrap(), b"again"), b"again");
    assert_eq!(supervisor.state(), State::Running);
}

#[test]
fn a_stopped_program_stays_down() {
    let supervisor = Supervisor::start(launch()).unwrap();
    let enclave = supervisor.enclave().unwrap();
    supervisor.stop();
    assert!(!enclave.is_running());
    assert!(supervisor.enclave().is_none());
    assert_eq!(
        (supervisor.state(), supervisor.starts()),
        (State::Stopped, 1)
    );
}

#[test]
fn a_program_that_is_stopped_while_it_is_started_again_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let once = directory.path().join("once");
    let supervisor = Supervisor::start(Launch {
        configuration: format!("once={}", once.display()).into_bytes(),
        ..launch()
    })
    .unwrap();
    let _ = supervisor.enclave().unwrap().call(b"die:", WAIT);
    until(|| std::fs::read(&once).unwrap() == b"again");
    let began = std::time::Instant::now();
    supervisor.stop();
    assert!(began.elapsed() < CONFIGURATION_WAIT / 2);
    assert_eq!(
        (supervisor.state(), supervisor.starts()),
        (State::Stopped, 1)
    );
}

#[test]
fn a_session_reaches_the_program_and_its_end_is_seen() {
    let enclave = Enclave::start(&launch()).unwrap();
    let Session { mut socket, tape } = enclave.session().unwrap();
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket.write_all(b"hello").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut heard = Vec::new();
    socket.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, b"hello");
    // Nothing is recorded here, which is no error.
    tape.to_program(b"hello").unwrap();
}

#[test]
fn the_key_service_is_dialled_only_when_the_program_speaks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let enclave = Enclave::start(&Launch {
        key_services: vec![address],
        ..launch()
    })
    .unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(
        listener.accept().is_err(),
        "nobody dials before the program's first byte"
    );
    listener.set_nonblocking(false).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // More rounds than places: each is offered again after use.
            for _ in 0..6 {
                let (mut session, _) = listener.accept().unwrap();
                let mut heard = Vec::new();
                session.read_to_end(&mut heard).unwrap();
                heard.reverse();
                session.write_all(&heard).unwrap();
            }
        });
        for _ in 0..6 {
            assert_eq!(answer(&enclave, b"key:0lease"), b"esael");
        }
    });
}

#[test]
fn an_unreachable_key_service_closes_the_pipe_and_the_next_try_works() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let enclave = Enclave::start(&Launch {
        key_services: vec![closed.to_string()],
        ..launch()
    })
    .unwrap();
    let heard = answer(&enclave, b"key:0lease");
    assert!(heard.is_empty() || heard.starts_with(b"failed: "));
    assert_eq!(answer(&enclave, b"next"), b"next");
}

#[test]
fn packages_are_served_by_digest_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let packages = directory.path().join("packages");
    let enclave = Enclave::start(&Launch {
        packages: Some(packages.clone()),
        ..launch()
    })
    .unwrap();
    let digest = Digest::from_bytes([0x5a; 32]);
    let ask = |digest: &Digest| answer(&enclave, &with_word("package:", digest.as_bytes()));
    assert_eq!(ask(&digest), 0u64.to_be_bytes());

    let content = vec![3; 3 << 20];
    std::fs::write(packages.join(format!("{digest}.bield")), &content).unwrap();
    let served = ask(&digest);
    assert_eq!(served[..8], (content.len() as u64).to_be_bytes());
    assert_eq!(served[8..], content);

    let linked = Digest::from_bytes([0x5b; 32]);
    std::fs::write(directory.path().join("secret"), b"host file").unwrap();
    std::os::unix::fs::symlink("../secret", packages.join(format!("{linked}.bield"))).unwrap();
    assert_eq!(ask(&linked), 0u64.to_be_bytes(), "links are not followed");
}

#[test]
fn each_peer_is_dialled_by_its_number_and_no_other_address_is() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = [0, 1].map(|n| listeners[n].local_addr().unwrap().to_string());
    let enclave = Enclave::start(&Launch {
        key_services: vec![first.clone(), second.clone()],
        members: vec![first.clone(), String::new(), second.clone()],
        witnesses: vec![second, first],
        ..launch()
    })
    .unwrap();
    std::thread::scope(|scope| {
        for (name, listener) in ["first", "second"].iter().zip(&listeners) {
            scope.spawn(move || {
                for _ in 0..4 {
                    let (mut session, _) = listener.accept().unwrap();
                    let mut heard = Vec::new();
                    session.read_to_end(&mut heard).unwrap();
                    session
                        .write_all(&[name.as_bytes(), b" ", &heard].concat())
                        .unwrap();
                }
            });
        }
        for (asked, heard) in [
            ("key:0x", "first x"),
            ("key:1x", "second x"),
            ("key:2x", "first x"),
            ("key:3x", "second x"),
            ("member:0x", "first x"),
            ("member:2x", "second x"),
            ("witness:0GET / HTTP/1.1", "second GET / HTTP/1.1"),
            ("witness:1x", "first x"),
        ] {
            let answer = answer(&enclave, asked.as_bytes());
            assert_eq!(String::from_utf8_lossy(&answer), heard, "{asked}");
        }
        for nobody in ["member:1x", "member:3x", "witness:2x"] {
            let answer = answer(&enclave, nobody.as_bytes());
            assert!(
                answer.is_empty() || answer.starts_with(b"failed: "),
                "{nobody}"
            );
        }
    });
}

#[test]
fn many_calls_are_on_their_way_at_once() {
    let enclave = Enclave::start(&Launch {
        configuration: b"delay=100".to_vec(),
        ..launch()
    })
    .unwrap();
    std::thread::scope(|scope| {
        for number in 0..32u32 {
            let enclave = &enclave;
            scope.spawn(move || {
                // Some longer than the ring.
                let request = number.to_be_bytes().repeat(1 + 10_000 * number as usize);
                assert!(answer(enclave, &request) == request, "call {number}");
            });
        }
    });
}

#[test]
fn a_part_of_an_answer_comes_before_the_next_is_made() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let enclave = Enclave::start(&Launch {
        key_services: vec![listener.local_addr().unwrap().to_string()],
        ..launch()
    })
    .unwrap();
    let mut answering = enclave.begin_call(b"stream:0rest", WAIT).unwrap();
    let first = answering.next_part().unwrap().unwrap();
    let Reply::Streamed(_, first) = Reply::decode(&first).unwrap() else {
        panic!("not in parts")
    };
    assert_eq!(first, b"first ");
    // Only now: the program waits for it before it goes on.
    let (mut session, _) = listener.accept().unwrap();
    // Others are served meanwhile.
    assert_eq!(answer(&enclave, b"next"), b"next");
    session.write_all(b"last").unwrap();
    drop(session);
    assert_eq!(answering.next_part().unwrap().unwrap(), b"last");
    assert_eq!(answering.next_part().unwrap(), None);
}

#[test]
fn a_long_answer_in_parts_is_handed_out_and_told_as_taken_piece_by_piece() {
    let enclave = Enclave::start(&launch()).unwrap();
    let mut answering = enclave.begin_call(b"parts:", WAIT).unwrap();
    let (mut pieces, mut bytes) = (0, Vec::new());
    while let Some(piece) = answering.next_part().unwrap() {
        assert!(piece.len() <= 128 << 10, "{} bytes at once", piece.len());
        pieces += 1;
        bytes.extend(piece);
    }
    let Reply::Streamed(_, body) = Reply::decode(&bytes).unwrap() else {
        panic!("not in parts")
    };
    assert!(body == vec![7; 600_000] && pieces >= 5, "{pieces} pieces");
}

#[test]
fn whoever_stops_an_answer_wakes_who_waits_and_tells_the_program_once() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let enclave = Enclave::start(&Launch {
        key_services: vec![silent.local_addr().unwrap().to_string()],
        ..launch()
    })
    .unwrap();
    let hour = Duration::from_secs(3600);
    let mut answering = enclave.begin_call(b"stream:0rest", hour).unwrap();
    assert!(answering.next_part().unwrap().is_some());
    let stop = answering.stop();
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || answering.next_part());
        stop.stop();
        assert!(matches!(waits.join().unwrap(), Err(VisitError::Lost(_))));
    });
    stop.stop();
    assert_eq!(answer(&enclave, b"cancels:"), b"1");
    let mut whole = enclave.begin_call(b"next", WAIT).unwrap();
    let stop = whole.stop();
    assert!(whole.next_part().unwrap().is_some() && whole.is_over());
    stop.stop();
    assert_eq!(answer(&enclave, b"cancels:"), b"1", "it had come");
}

#[test]
fn an_answer_whose_program_dies_midway_has_no_end() {
    let enclave = Enclave::start(&launch()).unwrap();
    let mut answering = enclave.begin_call(b"cut:", WAIT).unwrap();
    assert!(answering.next_part().unwrap().is_some());
    assert!(matches!(answering.next_part(), Err(VisitError::Lost(_))));
    assert!(matches!(
        enclave.call(b"cut:", WAIT),
        Err(VisitError::Lost(_))
    ));
}

#[test]
fn a_program_that_is_killed_loses_its_calls_at_once() {
    let enclave = Enclave::start(&launch()).unwrap();
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| enclave.call(b"hang:", WAIT)))
            .collect();
        // One answered call after them: they are inside.
        answer(&enclave, b"next");
        enclave.kill();
        for call in calls {
            assert!(matches!(call.join().unwrap(), Err(VisitError::Lost(_))));
        }
    });
    assert!(began.elapsed() < WAIT, "they waited for their deadline");
}

#[test]
fn a_program_that_says_there_is_no_answer_costs_no_deadline() {
    let enclave = Enclave::start(&launch()).unwrap();
    assert!(matches!(
        enclave.call(b"nothing:", WAIT),
        Err(VisitError::Lost(_))
    ));
    assert_eq!(answer(&enclave, b"next"), b"next");
}

#[test]
fn a_program_that_breaks_the_rules_of_the_ring_is_killed_and_started_again() {
    let supervisor = Supervisor::start(launch()).unwrap();
    let enclave = supervisor.enclave().unwrap();
    assert_eq!(answer(&enclave, b"honest"), b"honest");
    let _ = enclave.call(b"lie:", WAIT);
    until(|| supervisor.starts() == 2);
    assert_eq!(answer(&supervisor.enclave().unwrap(), b"again"), b"again");
}
