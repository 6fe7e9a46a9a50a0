//! Client and server in one process, and peers that misbehave.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bield_envelope::{Digest, wire};
use bield_evidence::{Endorsements, Roots, TeeKind, verify};
use bield_platform::software::{
    self, Answer, CONTEXT_BYTES_MAX, Hello, QUESTION_BYTES_MAX, Question, Refusal, SoftwareTee,
};
use bield_platform::{Tee as _, TeeError, now};
use bield_software_tee::{Platform, Running, Server, SoftwareTeeError, measure};
use tempfile::TempDir;

const CONFIGURATION: Digest = Digest::from_bytes([9; 32]);

struct Setup {
    dir: TempDir,
    platform: Arc<Platform>,
    _running: Running,
}

impl Setup {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let platform = Arc::new(Platform::load_or_create(&dir.path().join("state")).unwrap());
        let server = Server::bind(&dir.path().join("s"), Arc::clone(&platform)).unwrap();
        Self {
            dir,
            platform,
            _running: server.spawn(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn connect(&self, configuration: Digest) -> SoftwareTee {
        software::connect(&self.socket(), configuration).unwrap()
    }

    fn raw(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }

    /// A connection that has said hello.
    fn greeted(&self) -> UnixStream {
        let stream = self.raw();
        let hello = Question::Hello(Hello {
            configuration: CONFIGURATION,
            ticket: None,
        });
        software::write(&stream, &wire::encode(&hello)).unwrap();
        assert!(matches!(answer(&stream), Some(Answer::Welcome(_))));
        stream
    }

    #[track_caller]
    fn still_serves(&self) {
        self.connect(CONFIGURATION).evidence(&[1; 64]).unwrap();
    }
}

fn answer(stream: &UnixStream) -> Option<Answer> {
    let bytes = software::read(stream, software::ANSWER_BYTES_MAX, Duration::from_secs(20)).ok()?;
    Some(wire::decode(&bytes, software::ANSWER_BYTES_MAX).unwrap())
}

#[track_caller]
fn is_refused(stream: &UnixStream, expected: Refusal) {
    match answer(stream) {
        Some(Answer::Refused(refusal)) => assert_eq!(refusal, expected),
        _ => panic!("served"),
    }
}

#[test]
fn evidence_about_this_program_verifies_under_the_machines_root_only() {
    let setup = Setup::new();
    let tee = setup.connect(CONFIGURATION);
    let evidence = tee.evidence(&[7; 64]).unwrap();
    assert_eq!(evidence.kind, tee.kind());
    assert!(matches!(evidence.endorsements, Endorsements::Dcap(_)));

    let roots = Roots::none().with_simulated_dcap(setup.platform.root_der().to_vec());
    let claims = verify(&evidence, &roots, now()).unwrap();
    assert_eq!(claims.kind, TeeKind::Sgx);
    assert_eq!(claims.report_data, [7; 64]);
    assert_eq!(claims.measurement, *tee.measurement());
    assert!(claims.simulated && !claims.debug);
    assert!(verify(&evidence, &Roots::vendor(), now()).is_err());

    let own = std::env::current_exe().unwrap();
    assert_eq!(*tee.measurement(), measure(&own, CONFIGURATION).unwrap());
}

#[test]
fn another_configuration_is_another_measurement() {
    let setup = Setup::new();
    let (one, other) = (
        setup.connect(CONFIGURATION),
        setup.connect(Digest::from_bytes([8; 32])),
    );
    assert_ne!(one.measurement(), other.measurement());
}

#[test]
fn seal_keys_differ_by_measurement_and_context_and_stay() {
    let setup = Setup::new();
    let key = |configuration, context: &str| {
        let key = setup.connect(configuration).seal_key(context).unwrap();
        *key.expose()
    };
    let base = key(CONFIGURATION, "state");
    assert_eq!(base, key(CONFIGURATION, "state"));
    assert_ne!(base, key(CONFIGURATION, "other"));
    assert_ne!(base, key(Digest::from_bytes([8; 32]), "state"));

    let measurement = setup.connect(CONFIGURATION).measurement().clone();
    let reloaded = Platform::load_or_create(&setup.dir.path().join("state")).unwrap();
    assert_eq!(base, *reloaded.seal_key(&measurement, "state").expose());
    let other = Platform::generate(bield_software_tee::Options::default()).unwrap();
    assert_ne!(base, *other.seal_key(&measurement, "state").expose());
}

#[test]
fn a_context_that_is_too_long_is_refused_at_both_ends() {
    let setup = Setup::new();
    let tee = setup.connect(CONFIGURATION);
    let long = "x".repeat(CONTEXT_BYTES_MAX + 1);
    assert!(matches!(
        tee.seal_key(&long),
        Err(TeeError::ContextTooLong { .. })
    ));
    assert!(tee.seal_key(&long[1..]).is_ok());

    let stream = setup.greeted();
    software::write(&stream, &wire::encode(&Question::SealKey(long))).unwrap();
    is_refused(&stream, Refusal::ContextTooLong);
}

#[test]
fn garbage_is_refused_and_the_next_client_is_served() {
    let setup = Setup::new();
    for garbage in [
        &b""[..],
        b"\x00",
        b"\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xa0; 1000],
    ] {
        let stream = setup.raw();
        software::write(&stream, garbage).unwrap();
        is_refused(&stream, Refusal::Malformed);
        let greeted = setup.greeted();
        software::write(&greeted, garbage).unwrap();
        is_refused(&greeted, Refusal::Malformed);
    }
    setup.still_serves();
}

#[test]
fn an_oversized_frame_closes_its_connection_unread() {
    let setup = Setup::new();
    for length in [QUESTION_BYTES_MAX as u32 + 1, u32::MAX] {
        let mut stream = setup.raw();
        stream.write_all(&length.to_be_bytes()).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    setup.still_serves();
}

#[test]
fn half_closed_and_vanishing_clients_harm_nobody() {
    let setup = Setup::new();
    // Half-closed after a complete question: it is still answered.
    let stream = setup.greeted();
    software::write(&stream, &wire::encode(&Question::Quote([1; 64].into()))).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(answer(&stream), Some(Answer::Quoted(_))));
    assert!(answer(&stream).is_none());

    // Half-closed inside a frame.
    let mut stream = setup.raw();
    stream.write_all(&[0, 0, 0, 40, 1]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);

    // Gone before the answer.
    let stream = setup.greeted();
    software::write(&stream, &wire::encode(&Question::Quote([1; 64].into()))).unwrap();
    drop(stream);
    setup.still_serves();
}

#[test]
fn questions_out_of_order_are_refused() {
    let setup = Setup::new();
    let stream = setup.raw();
    software::write(&stream, &wire::encode(&Question::Quote([1; 64].into()))).unwrap();
    is_refused(&stream, Refusal::OutOfOrder);

    let stream = setup.greeted();
    let hello = Question::Hello(Hello {
        configuration: Digest::from_bytes([8; 32]),
        ticket: None,
    });
    software::write(&stream, &wire::encode(&hello)).unwrap();
    is_refused(&stream, Refusal::OutOfOrder);
}

#[test]
fn a_full_server_says_so_and_serves_again_when_there_is_room() {
    let setup = Setup::new();
    let crowd: Vec<UnixStream> = (0..64).map(|_| setup.greeted()).collect();
    let refused = software::connect(&setup.socket(), CONFIGURATION).map(drop);
    assert!(
        matches!(refused, Err(TeeError::Refused(Refusal::Busy))),
        "{refused:?}"
    );
    drop(crowd);
    let served = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        software::connect(&setup.socket(), CONFIGURATION).is_ok()
    });
    assert!(served);
}

#[test]
fn many_threads_share_one_client() {
    let setup = Setup::new();
    let tee = setup.connect(CONFIGURATION);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let tee = &tee;
            let roots = Roots::none().with_simulated_dcap(setup.platform.root_der().to_vec());
            scope.spawn(move || {
                let evidence = tee.evidence(&[worker; 64]).unwrap();
                let claims = verify(&evidence, &roots, now()).unwrap();
                assert_eq!(claims.report_data, [worker; 64]);
            });
        }
    });
}

#[test]
fn the_socket_is_its_users_alone() {
    let setup = Setup::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&setup.socket()), 0o600);
    assert_eq!(mode(&setup.dir.path().join("state")), 0o700);
    assert_eq!(mode(&setup.dir.path().join("state/machine")), 0o600);
}

#[test]
fn a_socket_in_use_is_not_taken_and_a_dead_one_is_replaced() {
    let setup = Setup::new();
    let bind = |path: &Path| Server::bind(path, Arc::clone(&setup.platform)).map(drop);
    let in_use = bind(&setup.socket());
    assert!(matches!(in_use, Err(SoftwareTeeError::SocketInUse { .. })));
    setup.still_serves();

    let dead = setup.dir.path().join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    bind(&dead).unwrap();

    let file = setup.dir.path().join("file");
    std::fs::write(&file, "keep me").unwrap();
    assert!(matches!(
        bind(&file),
        Err(SoftwareTeeError::NotASocket { .. })
    ));
    assert_eq!(std::fs::read(&file).unwrap(), b"keep me");

    let long = setup.dir.path().join("x".repeat(108));
    assert!(matches!(
        bind(&long),
        Err(SoftwareTeeError::SocketPathTooLong { .. })
    ));
}

#[test]
fn a_machine_others_can_read_or_that_is_none_is_refused() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("machine");
    let first = Platform::load_or_create(dir.path()).unwrap();
    let second = Platform::load_or_create(dir.path()).unwrap();
    assert_eq!(first.root_der(), second.root_der());

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Platform::load_or_create(dir.path()).map(drop);
    assert!(matches!(
        refused,
        Err(SoftwareTeeError::ReadableByOthers { .. })
    ));

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    for bytes in [&b""[..], &[0; 4096]] {
        std::fs::write(&file, bytes).unwrap();
        let refused = Platform::load_or_create(dir.path()).map(drop);
        assert!(matches!(refused, Err(SoftwareTeeError::NotAMachine { .. })));
    }
}

#[test]
fn machines_made_at_once_in_one_directory_are_one_machine() {
    let dir = TempDir::new().unwrap();
    let roots: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Platform::load_or_create(dir.path())))
            .collect();
        makers
            .into_iter()
            .map(|maker| maker.join().unwrap().unwrap().root_der().to_vec())
            .collect()
    });
    assert!(roots.iter().all(|root| *root == roots[0]));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1);
}
