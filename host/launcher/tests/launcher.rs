//! The launcher against a small program that speaks the door's protocol by hand.
#![expect(clippy::unwrap_used, reason = "a failed unwrap here is a failed test")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bield_envelope::Digest;
use bield_launcher::{Enclave, Launch, LaunchError, State, Supervisor, VisitError};
use bield_protocol::call::Reply;
use bield_protocol::status::Status;
use bield_protocol::visit::storage;

const WAIT: Duration = Duration::from_secs(20);

fn echo_enclave() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/echo-enclave")
}

fn launch() -> Launch {
    Launch {
        program: echo_enclave(),
        ..Launch::default()
    }
}

fn answer(enclave: &Enclave, request: &[u8]) -> Vec<u8> {
    match Reply::decode(&enclave.call(request, WAIT).unwrap()).unwrap() {
        Reply::Sealed(_, body) => body,
        other => panic!("unsealed reply {other:?}"),
    }
}

fn with_word(word: &str, rest: &[u8]) -> Vec<u8> {
    [word.as_bytes(), rest].concat()
}

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
fn a_session_is_carried_both_ways_with_its_half_close() {
    let enclave = Enclave::start(&launch()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (network, _) = listener.accept().unwrap();
    std::thread::scope(|scope| {
        let carried = scope.spawn(|| enclave.carry_session(network));
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"hello");
        carried.join().unwrap().unwrap();
    });
}

#[test]
fn the_key_service_is_dialled_only_when_the_program_speaks() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let enclave = Enclave::start(&Launch {
        key_service: Some(address),
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
            assert_eq!(answer(&enclave, b"key:lease"), b"esael");
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
        key_service: Some(closed.to_string()),
        ..launch()
    })
    .unwrap();
    let heard = answer(&enclave, b"key:lease");
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
fn a_stored_blob_survives_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        storage: Some(directory.path().join("keys")),
        ..launch()
    };
    let enclave = Enclave::start(&launch).unwrap();
    assert_eq!(answer(&enclave, b"load:"), storage::NONE.to_be_bytes());
    assert_eq!(answer(&enclave, b"store:first"), [storage::STORED]);
    assert_eq!(answer(&enclave, b"store:second blob"), [storage::STORED]);
    drop(enclave);
    let enclave = Enclave::start(&launch).unwrap();
    assert_eq!(
        answer(&enclave, b"load:"),
        [&11u64.to_be_bytes()[..], b"second blob"].concat()
    );
}

#[test]
fn a_program_may_load_its_state_before_it_is_ready() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        configuration: b"load".to_vec(),
        storage: Some(directory.path().join("keys")),
        ..launch()
    };
    let enclave = Enclave::start(&launch).unwrap();
    assert_eq!(answer(&enclave, b"next"), b"next");
}

#[test]
fn a_blob_that_cannot_be_stored_leaves_the_previous_one() {
    let directory = tempfile::tempdir().unwrap();
    let storage_directory = directory.path().join("keys");
    let launch = Launch {
        storage: Some(storage_directory.clone()),
        ..launch()
    };
    let enclave = Enclave::start(&launch).unwrap();
    assert_eq!(answer(&enclave, b"store:good"), [storage::STORED]);
    // A directory in the temporary file's place: works as a full disk does, for root too.
    std::fs::create_dir(storage_directory.join("state.sealed.new")).unwrap();
    assert_eq!(answer(&enclave, b"store:lost"), [storage::FAILED]);
    assert_eq!(
        answer(&enclave, b"load:"),
        [&4u64.to_be_bytes()[..], b"good"].concat()
    );
}

#[test]
fn a_recording_holds_every_byte_carried() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        configuration: b"configuration-canary".to_vec(),
        storage: Some(directory.path().join("storage")),
        record: Some(directory.path().join("record")),
        ..launch()
    };
    let enclave = Enclave::start(&launch).unwrap();
    answer(&enclave, b"request-canary");
    answer(&enclave, b"store:storage-canary");
    answer(&enclave, b"load:");
    let record = read_all(&directory.path().join("record"));
    for (canary, times) in [
        ("configuration-canary", 1),
        ("request-canary", 2),
        ("storage-canary", 3),
    ] {
        let found = record
            .windows(canary.len())
            .filter(|window| *window == canary.as_bytes())
            .count();
        assert!(found >= times, "{canary}: {found} times");
    }
}

fn read_all(directory: &Path) -> Vec<u8> {
    let files = directory.read_dir().unwrap();
    files
        .flat_map(|file| std::fs::read(file.unwrap().path()).unwrap())
        .collect()
}

fn until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < WAIT, "waited {WAIT:?} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}
