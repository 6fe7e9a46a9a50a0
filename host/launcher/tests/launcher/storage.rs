//! A program's files, kept by the launcher.

use std::path::Path;

use bield_launcher::{Enclave, Launch, LaunchError, State, Supervisor};
use bield_protocol::visit::storage::{Answer, Name, Operation, Status as Outcome, encode_list};

use crate::support::{WAIT, answer, launch, until, with_word};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn append<'a>(file: &str, offset: u64, bytes: &'a [u8]) -> Operation<'a> {
    Operation::Append {
        name: name(file),
        offset,
        bytes: bytes.into(),
    }
}

fn read(file: &str) -> Operation<'static> {
    Operation::Read {
        name: name(file),
        offset: 0,
        length: 4096,
    }
}

/// Has the program ask these operations through one visit; how each ended.
fn stored(enclave: &Enclave, operations: &[Operation<'_>]) -> Vec<(Outcome, Vec<u8>)> {
    let mut wire = Vec::new();
    for operation in operations {
        operation.write_to(&mut wire).unwrap();
    }
    let heard = answer(enclave, &with_word("storage:", &wire));
    assert!(
        !heard.starts_with(b"failed: "),
        "{}",
        String::from_utf8_lossy(&heard)
    );
    let mut heard = &heard[..];
    let answers = operations.iter().map(|operation| {
        let answer = Answer::read_from(operation, &mut heard).unwrap();
        (answer.status, answer.bytes)
    });
    answers.collect()
}

fn ok(bytes: &[u8]) -> (Outcome, Vec<u8>) {
    (Outcome::Ok, bytes.to_vec())
}

#[test]
fn files_are_kept_through_one_visit_and_survive_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        storage: Some(directory.path().join("keys")),
        ..launch()
    };
    let replace = Operation::Replace {
        name: name("root"),
        bytes: b"sealed"[..].into(),
    };
    let enclave = Enclave::start(&launch).unwrap();
    let heard = stored(
        &enclave,
        &[
            Operation::List,
            append("log-0", 0, b"first"),
            append("log-0", 5, b" torn"),
            append("log-0", 5, b", second"),
            replace,
            read("log-0"),
            read("none"),
        ],
    );
    let nothing = ok(b"");
    assert_eq!(heard[..5], vec![nothing.clone(); 5]);
    assert_eq!(heard[5..], [ok(b"first, second"), nothing.clone()]);
    drop(enclave);

    let enclave = Enclave::start(&launch).unwrap();
    let heard = stored(
        &enclave,
        &[
            read("root"),
            Operation::Remove { name: name("root") },
            Operation::List,
        ],
    );
    let list = ok(&encode_list(&[(name("log-0"), 13)]));
    assert_eq!(heard, [ok(b"sealed"), nothing, list]);
}

#[test]
fn what_the_disk_refuses_ends_no_visit_and_what_is_malformed_does() {
    let directory = tempfile::tempdir().unwrap();
    let storage = directory.path().join("keys");
    let enclave = Enclave::start(&Launch {
        storage: Some(storage.clone()),
        ..launch()
    })
    .unwrap();
    std::fs::create_dir(storage.join("blocked")).unwrap();
    let heard = stored(
        &enclave,
        &[append("blocked", 0, b"x"), append("log", 0, b"y")],
    );
    assert_eq!(heard, [(Outcome::Refused, Vec::new()), ok(b"")]);

    let bad = b"\x02\0\0\0\0";
    for malformed in [
        &b"\x06\x09../escape"[..],
        b"\x06\x05a/../",
        b"\x05\x01a\xff\xff\xff\xff",
        b"\x04\x03log\0\0\0\0\0\0\0\x02\0\0\0\x01z",
        b"\x00",
    ] {
        let heard = answer(&enclave, &with_word("storage:", malformed));
        assert_eq!(heard, bad, "{malformed:x?}");
    }
    assert_eq!(stored(&enclave, &[read("log")]), [ok(b"y")]);
    let entries = |path: &Path| path.read_dir().unwrap().count();
    assert_eq!(entries(directory.path()), 1, "nothing outside");
}

#[test]
fn a_program_may_look_at_its_files_before_it_is_ready() {
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
fn two_launchers_on_one_storage_are_refused_with_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch {
        storage: Some(directory.path().join("keys")),
        ..launch()
    };
    let first = Enclave::start(&launch).unwrap();
    let Err(refused @ LaunchError::StorageInUse { .. }) = Enclave::start(&launch) else {
        panic!("must be refused")
    };
    let sentence = refused.to_string();
    assert!(
        sentence.contains("in use by another process") && sentence.contains("--storage"),
        "{sentence}"
    );
    assert_eq!(answer(&first, b"next"), b"next");
}

#[test]
fn a_restarted_program_finds_its_storage_free() {
    let directory = tempfile::tempdir().unwrap();
    let supervisor = Supervisor::start(Launch {
        storage: Some(directory.path().join("keys")),
        ..launch()
    })
    .unwrap();
    let enclave = supervisor.enclave().unwrap();
    assert_eq!(stored(&enclave, &[append("log", 0, b"kept")]), [ok(b"")]);
    enclave.kill();
    let _ = enclave.wait(Some(WAIT)).unwrap();
    drop(enclave);
    until(|| supervisor.starts() == 2);
    let enclave = supervisor.enclave().unwrap();
    assert_eq!(stored(&enclave, &[read("log")]), [ok(b"kept")]);
}

#[test]
fn a_program_that_is_told_to_end_may_store_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    let storage = directory.path().join("keys");
    let supervisor = Supervisor::start(Launch {
        configuration: b"last-words".to_vec(),
        storage: Some(storage.clone()),
        ..launch()
    })
    .unwrap();
    let enclave = supervisor.enclave().unwrap();
    supervisor.finish(WAIT);
    assert_eq!(std::fs::read(storage.join("last-words")).unwrap(), b"bye");
    let exit = enclave.wait(Some(WAIT)).unwrap();
    assert_eq!(exit.code(), Some(0), "it ended by itself");
    assert_eq!(
        (supervisor.state(), supervisor.starts()),
        (State::Stopped, 1)
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
    stored(
        &enclave,
        &[append("log", 0, b"storage-canary"), read("log")],
    );
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
