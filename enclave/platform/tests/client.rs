//! The client against a software TEE that misbehaves.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::io::Write as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bield_envelope::{Digest, Secret, wire};
use bield_evidence::{Endorsements, Evidence, Measurement, TeeKind};
use bield_platform::software::{
    self, Answer, FrameError, QUESTION_BYTES_MAX, Question, Refusal, Ticket, Welcome,
};
use bield_platform::{Tee as _, TeeError};
use tempfile::TempDir;

const CONFIGURATION: Digest = Digest::from_bytes([9; 32]);
const WAIT: Duration = Duration::from_secs(20);

/// Runs `script`, a list of connections, each a list of answers; a connection ends with its list.
fn fake(script: Vec<Vec<Answer>>) -> (TempDir, PathBuf, JoinHandle<usize>) {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let mut tickets = 0;
        for answers in script {
            let (stream, _) = listener.accept().unwrap();
            for answer in answers {
                tickets += usize::from(presents_ticket(&stream));
                software::write(&stream, &wire::encode(&answer)).unwrap();
            }
        }
        tickets
    });
    (dir, socket, server)
}

/// Reads one question.
fn presents_ticket(stream: &UnixStream) -> bool {
    let bytes = software::read(stream, QUESTION_BYTES_MAX, WAIT).unwrap();
    match wire::decode(&bytes, QUESTION_BYTES_MAX).unwrap() {
        Question::Hello(hello) => hello.ticket.is_some(),
        _ => false,
    }
}

fn welcome(measured: u8) -> Answer {
    Answer::Welcome(Welcome {
        measurement: Measurement::new(TeeKind::Sgx, &[measured; 32]).unwrap(),
        ticket: Ticket {
            program: Digest::from_bytes([1; 32]),
            proof: [2; 32].into(),
        },
    })
}

fn quoted() -> Answer {
    Answer::Quoted(Evidence {
        kind: TeeKind::Sgx,
        quote: vec![1, 2, 3],
        claims_buffer: Vec::new(),
        endorsements: Endorsements::None,
    })
}

#[test]
fn a_broken_connection_is_opened_again_with_the_ticket() {
    let (_dir, socket, server) = fake(vec![vec![welcome(7)], vec![welcome(7), quoted()]]);
    let tee = software::connect(&socket, CONFIGURATION).unwrap();
    assert_eq!(tee.evidence(&[0; 64]).unwrap().quote, [1, 2, 3]);
    drop(tee);
    assert_eq!(server.join().unwrap(), 1);
}

#[test]
fn a_connection_is_opened_again_only_once_for_each_call() {
    let script = vec![
        vec![welcome(7)],
        vec![welcome(7)],
        vec![welcome(7), quoted()],
    ];
    let (_dir, socket, server) = fake(script);
    let tee = software::connect(&socket, CONFIGURATION).unwrap();
    let broken = tee.evidence(&[0; 64]);
    assert!(
        matches!(broken, Err(TeeError::Exchange(FrameError::Closed))),
        "{broken:?}"
    );
    assert!(tee.evidence(&[0; 64]).is_ok());
    server.join().unwrap();
}

#[test]
fn a_program_measured_differently_on_reconnecting_is_told() {
    let (_dir, socket, server) = fake(vec![vec![welcome(7)], vec![welcome(8)]]);
    let tee = software::connect(&socket, CONFIGURATION).unwrap();
    assert!(matches!(
        tee.evidence(&[0; 64]),
        Err(TeeError::MeasurementChanged)
    ));
    server.join().unwrap();
}

#[test]
fn an_answer_to_another_question_is_not_taken() {
    let key = Answer::Key(Secret::from_bytes([5; 32]));
    let (_dir, socket, server) = fake(vec![vec![welcome(7), key, quoted()]]);
    let tee = software::connect(&socket, CONFIGURATION).unwrap();
    assert!(matches!(tee.evidence(&[0; 64]), Err(TeeError::Unexpected)));
    assert!(matches!(
        tee.seal_key("state").map(drop),
        Err(TeeError::Unexpected)
    ));
    server.join().unwrap();
}

#[test]
fn a_refusal_arrives_with_its_reason() {
    let (_dir, socket, server) = fake(vec![vec![Answer::Refused(Refusal::Busy)]]);
    let refused = software::connect(&socket, CONFIGURATION).map(drop);
    assert!(matches!(refused, Err(TeeError::Refused(Refusal::Busy))));
    server.join().unwrap();
}

#[test]
fn garbage_and_oversized_answers_are_refused() {
    let mut oversized = u32::MAX.to_be_bytes().to_vec();
    oversized.push(0);
    for (bytes, is_expected) in [
        (vec![0, 0, 0, 2, 1, 2], is_answer as fn(&TeeError) -> bool),
        (oversized, is_too_long),
    ] {
        let dir = TempDir::new().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            presents_ticket(&stream);
            stream.write_all(&bytes).unwrap();
        });
        let refused = software::connect(&socket, CONFIGURATION)
            .map(drop)
            .unwrap_err();
        assert!(is_expected(&refused), "{refused:?}");
        server.join().unwrap();
    }
}

fn is_answer(error: &TeeError) -> bool {
    matches!(error, TeeError::Answer(_))
}

fn is_too_long(error: &TeeError) -> bool {
    matches!(error, TeeError::Exchange(FrameError::TooLong { .. }))
}
