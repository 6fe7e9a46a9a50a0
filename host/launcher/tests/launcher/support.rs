//! Starts the stand-in and speaks to it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bield_launcher::{Enclave, Launch};
use bield_protocol::call::Reply;

pub(crate) const WAIT: Duration = Duration::from_secs(20);

fn echo_enclave() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/echo-enclave")
}

pub(crate) fn launch() -> Launch {
    Launch {
        program: echo_enclave(),
        ..Launch::default()
    }
}

pub(crate) fn answer(enclave: &Enclave, request: &[u8]) -> Vec<u8> {
    match Reply::decode(&enclave.call(request, WAIT).unwrap()).unwrap() {
        Reply::Sealed(_, body) => body,
        other => panic!("unsealed reply {other:?}"),
    }
}

pub(crate) fn with_word(word: &str, rest: &[u8]) -> Vec<u8> {
    [word.as_bytes(), rest].concat()
}

pub(crate) fn until(condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < WAIT, "waited {WAIT:?} in vain");
        std::thread::sleep(Duration::from_millis(10));
    }
}
