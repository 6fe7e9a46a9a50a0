//! The program itself: killed under load, stopped, started twice.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bield_capsule::{Head, Kept, Received};

use crate::support::*;

/// A running `bield-store`.
pub(crate) struct Program {
    pub(crate) process: Child,
    pub(crate) url: String,
    pub(crate) rest: String,
}

pub(crate) fn start(program: &str, arguments: &[&str]) -> Program {
    let mut process = Command::new(program)
        .args(arguments)
        .env("RUST_LOG", "warn")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let mut words = line.trim_end().splitn(3, ' ');
    assert_eq!(words.next(), Some("listening"), "{line}");
    let (url, rest) = (
        words.next().unwrap().to_owned(),
        words.next().unwrap().to_owned(),
    );
    Program { process, url, rest }
}

fn store(data: &Path, more: &[&str]) -> Program {
    let mut arguments = vec![
        "--data",
        data.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--owners",
        "any",
    ];
    arguments.extend_from_slice(more);
    start(env!("CARGO_BIN_EXE_bield-store"), &arguments)
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_store_killed_under_load_still_has_everything_it_acknowledged_as_synced() {
    let directory = tempfile::tempdir().unwrap();
    let mut capsule = Capsule::new(10, &[]);
    let writers: Vec<_> = (0..3).map(|n| capsule.chain(11 + n, 400)).collect();
    for life in 0..3 {
        let mut program = store(directory.path(), &[]);
        let client = Client::new(&program.url);
        client.fill(&capsule, &[]);
        let acknowledged: Arc<Mutex<Vec<Head>>> = Arc::default();
        let over = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = writers
            .iter()
            .map(|(_, records)| {
                let (client, records, name) = (client.clone(), records.clone(), capsule.name());
                let (acknowledged, over) = (Arc::clone(&acknowledged), Arc::clone(&over));
                std::thread::spawn(move || {
                    let path = format!("/v1/capsules/{name}/records?kept=synced");
                    for record in &records {
                        let Ok(answer) =
                            client.try_post(&path, &framed(std::slice::from_ref(record)))
                        else {
                            break;
                        };
                        assert_eq!(answer.status, 200, "{}", answer.text());
                        for said in acknowledgements(&answer.body) {
                            assert_eq!(said.kept, Kept::Synced);
                            acknowledged.lock().unwrap().push(said.head());
                        }
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                })
            })
            .collect();
        let want = (life + 1) * 60;
        eventually("load", || acknowledged.lock().unwrap().len() > want);
        program.process.kill().unwrap();
        program.process.wait().unwrap();
        over.store(true, Ordering::Relaxed);
        for sender in senders {
            sender.join().unwrap();
        }

        let program = store(directory.path(), &[]);
        let client = Client::new(&program.url);
        let acknowledged = acknowledged.lock().unwrap();
        for (writer, records) in &writers {
            let held = client.records(&capsule.name(), &writer.id());
            assert_eq!(
                held[..],
                records[..held.len()],
                "what is there is a prefix of what was sent"
            );
            let newest = acknowledged
                .iter()
                .filter(|head| head.writer == writer.id())
                .map(|head| head.seq)
                .max();
            assert!(
                newest.is_none_or(|newest| held.len() as u64 > newest),
                "{newest:?} of {}",
                held.len()
            );
        }
    }
}

#[test]
fn a_store_told_to_stop_finishes_syncs_and_says_so_with_its_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = store(directory.path(), &[]);
    assert!(program.rest.starts_with("ed25519:"));
    let client = Client::new(&program.url);
    let mut capsule = Capsule::new(10, &[]);
    let (writer, records) = capsule.chain(11, 50);
    client.create(&capsule);
    for records in [&capsule.config[..], &records[..]] {
        assert_eq!(
            client
                .append_kept(&capsule.name(), records, "memory")
                .status,
            200
        );
    }
    // A subscription must not hold the program.
    let url = format!("{}/v1/capsules/{}/subscribe", program.url, capsule.name());
    let _stream = ureq::get(&url).config().proxy(None).build().call().unwrap();
    let pid = rustix::process::Pid::from_child(&program.process);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(program.process.wait().unwrap().success());
    let identity = program.rest.clone();
    let again = store(directory.path(), &[]);
    assert_eq!(again.rest, identity, "the identity stays");
    assert_eq!(
        Client::new(&again.url).records(&capsule.name(), &writer.id()),
        records
    );
}

#[test]
fn two_programs_on_one_directory_do_not_both_serve_its_capsules() {
    let directory = tempfile::tempdir().unwrap();
    let first = store(directory.path(), &[]);
    let capsule = Capsule::new(10, &[]);
    Client::new(&first.url).fill(&capsule, &[]);
    let data = directory.path().to_str().unwrap();
    let arguments = ["--data", data, "--listen", "127.0.0.1:0", "--owners", "any"];
    let output = Command::new(env!("CARGO_BIN_EXE_bield-store"))
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("in use"));
    assert_eq!(Client::new(&first.url).create(&capsule).status, 200);
}

#[test]
fn capsules_in_an_object_store_outlive_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let objects = directory.path().join("objects");
    let more = ["--object-store", objects.to_str().unwrap()];
    let data = directory.path().join("data");
    let mut capsule = Capsule::new(10, &[]);
    let (writer, records) = capsule.chain(11, 10);
    {
        let mut program = store(&data, &more);
        let client = Client::new(&program.url);
        client.fill(&capsule, &records[..9]);
        let answer = client.append_kept(&capsule.name(), &records[9..], "written");
        let kept = acknowledgements(&answer.body)[0].kept;
        assert!(
            kept != Kept::Written,
            "an object that is not there yet is not written"
        );
        program.process.kill().unwrap();
    }
    let program = store(&data, &more);
    let held = Client::new(&program.url).records(&capsule.name(), &writer.id());
    assert!(held.len() >= 9 && held[..] == records[..held.len()]);
}

#[test]
fn arguments_that_cannot_work_end_the_program_with_a_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    for (arguments, says) in [
        (vec!["--data", data], "--owners"),
        (vec!["--data", data, "--owners", "/nonexistent"], "owner"),
        (
            vec!["--data", "/proc/no", "--owners", "any"],
            "cannot be used",
        ),
        (
            vec!["--data", data, "--owners", "any", "--peer", "nowhere"],
            "http://",
        ),
        (
            vec![
                "--data",
                data,
                "--owners",
                "any",
                "--object-store",
                "gs://x",
            ],
            "--object-store",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_bield-store"))
            .args(&arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

/// Sends until something is refused; a full disk must not lose what was acknowledged before.
#[test]
fn a_small_file_system_fills_up_refuses_and_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // The store's own limit on all bytes stands in for a partition of that size.
    let program = store(directory.path(), &["--total-mib-max", "1"]);
    let client = Client::new(&program.url);
    let mut capsule = Capsule::new(10, &[]);
    let (mut writer, mut records) = capsule.chain(11, 0);
    client.fill(&capsule, &records);
    let refused = loop {
        let record = capsule.data(&mut writer, &vec![7; 100_000]);
        let answer = client.append(&capsule.name(), std::slice::from_ref(&record));
        if answer.status != 200 {
            break answer;
        }
        records.push(record);
        assert!(records.len() < 20);
    };
    assert_eq!(refused.refusal(), (507, "store-full".into()));
    let held: Vec<Received> = client.records(&capsule.name(), &writer.id());
    assert_eq!(held, records);
    let _ = Duration::ZERO;
}
