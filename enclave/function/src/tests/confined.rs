//! What is left to a program that serves is enough for functions: they are compiled, loaded, called and stopped.

use std::process::{Command, exit};
use std::time::Duration;
use std::{env, thread};

use bield_envelope::Secret;
use bield_evidence::{Evidence, Measurement, TeeKind};
use bield_platform::{Code, Tee, TeeError, confine};

use super::cast::{Maps, Things, ask, echo, guest, host, load, request, shown};
use crate::{Limits, Stopped};

struct NoTee;

impl Tee for NoTee {
    fn kind(&self) -> TeeKind {
        TeeKind::Sgx
    }

    fn measurement(&self) -> &Measurement {
        unreachable!("nobody asks")
    }

    fn evidence(&self, _: &[u8; 64]) -> Result<Evidence, TeeError> {
        Err(TeeError::Unexpected)
    }

    fn seal_key(&self, _: &str) -> Result<Secret, TeeError> {
        Err(TeeError::Unexpected)
    }
}

#[test]
fn a_confined_program_runs_functions() {
    let program = env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("tests::confined::confined_program")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("says done"), "{:?}\n{said}", output.status);
}

/// Not a test by itself.
#[test]
#[ignore = "the program that the other test starts"]
fn confined_program() {
    // The guests are text until here; a host is there before its program serves.
    let (echo, spins) = (echo(), guest("", "", "(loop $l (br $l)) unreachable"));
    let traps = guest("", "", "(i32.load (i32.const -8))");
    let host = host();
    assert!(confine(&NoTee, Code::Compiled).is_complete());
    let things = Things::default();
    let echo = load(&host, &echo);
    let spins = load(&host, &spins);
    let limits = Limits {
        deadline: Duration::from_millis(50),
        ..Limits::default()
    };
    thread::scope(|scope| {
        let calls: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| assert_eq!(shown(&ask(&echo, &things, "/", b"hello")), "hello"))
            })
            .collect();
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
    let stopped = spins.call(request("/", b""), Box::new(Maps::new(&things)), &limits);
    assert_eq!(stopped.err(), Some(Stopped::Deadline(limits.deadline)));
    let trapped = ask(&load(&host, &traps), &things, "/", b"");
    assert!(matches!(trapped, Err(Stopped::Trapped(_))));
    println!("\nsays done");
    // The test harness may do what a program does not.
    exit(0);
}
