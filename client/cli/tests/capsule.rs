//! `bield capsule` against real stores, as people type it.
//!
//! The stores are the program `bield-store` beside `bield`: `cargo xtask test` builds both first.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bield_capsule::segment::{FRAME_HEAD_BYTES, SegmentHeader};
use serde_json::Value;

/// What one run of the program gave.
struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|_| panic!("no JSON: {}{}", self.out, self.err))
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }
}

/// A running store; killed when dropped.
struct Store {
    child: Child,
    url: String,
    data: PathBuf,
}

impl Store {
    fn start(data: PathBuf) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_bield")).with_file_name("bield-store");
        assert!(
            program.is_file(),
            "{} is missing: `cargo xtask test` builds it, or `cargo build -p bield-store`",
            program.display()
        );
        let mut child = Command::new(program)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--owners",
                "any",
                "--until-stdin-ends",
                "--data",
            ])
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let url = line.split(' ').nth(1).unwrap().to_owned();
        Self { child, url, data }
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Homes and stores in a directory of their own.
struct Stage {
    directory: tempfile::TempDir,
    stores: Vec<Store>,
}

impl Stage {
    /// So many stores, and a capsule `notes` at them.
    fn new(stores: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = |n| directory.path().join(format!("store-{n}"));
        let stores: Vec<_> = (1..=stores).map(|n| Store::start(place(n))).collect();
        let stage = Self { directory, stores };
        let mut arguments = vec!["create", "notes"];
        for store in &stage.stores {
            arguments.extend(["--replica", &store.url]);
        }
        stage.run(&arguments).ok();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_as("home", arguments, "")
    }

    fn append(&self, input: &str, more: &[&str]) -> Run {
        let arguments: Vec<_> = ["append", "notes", "-"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        self.run_as("home", &arguments, input)
    }

    fn run_as(&self, home: &str, arguments: &[&str], input: &str) -> Run {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bield"))
            .args(["--json", "capsule"])
            .args(arguments)
            .current_dir(self.directory.path())
            .env("BIELD_HOME", self.path(home))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses at once reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Run {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// All payloads, unreadable ones as "-".
    fn read(&self, more: &[&str]) -> Vec<String> {
        let arguments: Vec<_> = ["read", "notes"].iter().chain(more).copied().collect();
        let found = self.run(&arguments).ok().json();
        assert_eq!(found["completeness"]["fresh"], true, "{found}");
        let entries = found["entries"].as_array().unwrap();
        entries
            .iter()
            .map(|entry| entry["text"].as_str().unwrap_or("-").to_owned())
            .collect()
    }

    fn segment(&self, store: usize) -> PathBuf {
        let capsule = fs::read_dir(self.stores[store].data.join("capsules"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        capsule.join("00000000000000000000.segment")
    }
}

#[test]
fn entries_are_appended_read_exported_and_verified_offline() {
    let stage = Stage::new(1);
    let one = stage.append("all of it\nis one", &[]).ok().json();
    assert_eq!(one["entries"], 1);
    assert_eq!(one["durability"], "replicated(1)");
    let receipt = ["--lines", "--receipt", "three.receipt"];
    let three = stage.append("a\nb\n\nc", &receipt).ok().json();
    assert_eq!(
        (&three["entries"], &three["records"]),
        (&4.into(), &1.into())
    );
    assert_eq!(stage.read(&[]), ["all of it\nis one", "a", "b", "", "c"]);
    assert_eq!(
        stage.read(&["--writer", "me", "--from", "2"]),
        ["a", "b", "", "c"]
    );

    let exported = stage
        .run(&["export", "notes", "-o", "notes.capsule"])
        .ok()
        .json();
    assert_eq!(exported["records"], 4);
    assert_eq!(
        stage.run(&["export", "notes", "-o", "notes.capsule"]).code,
        2
    );
    let targets = [
        "verify",
        "notes.capsule",
        "three.receipt",
        "store-1",
        "--name",
        "notes",
        "--keys",
    ];
    let verified = stage.run(&targets).ok().json();
    assert_eq!(verified["passed"], true);
    let contents = &verified["targets"][0]["checks"];
    assert!(contents.to_string().contains("5 entries"), "{contents}");
}

#[test]
fn an_entry_is_proven_to_somebody_without_a_home() {
    let stage = Stage::new(1);
    for n in 0..5 {
        stage
            .append(&format!("public {n}\nprivate {n}"), &["--lines"])
            .ok();
    }
    let proof = stage
        .run(&["prove", "notes", "me/2/0", "-o", "entry.proof"])
        .ok()
        .json();
    let name = proof["capsule"].as_str().unwrap();
    let verify = ["verify", "entry.proof", "--name", name];
    let seen = stage.run_as("nobody", &verify, "").ok().json();
    assert_eq!(seen["targets"][0]["entry"]["text"], "public 1");
    assert_eq!(seen["targets"][0]["heads"][0]["seq"], 5);
    let mut bytes = fs::read(stage.path("entry.proof")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(stage.path("entry.proof"), bytes).unwrap();
    assert_eq!(stage.run_as("nobody", &verify, "").code, 1);
    let other = "ab".repeat(32);
    assert_eq!(
        stage
            .run_as("nobody", &["verify", "entry.proof", "--name", &other], "")
            .code,
        1
    );
}

#[test]
fn a_killed_replica_is_named_and_two_of_three_go_on() {
    let mut stage = Stage::new(3);
    stage.append("before", &[]).ok();
    stage.stores[1].stop();
    let appended = stage.append("after", &[]).ok().json();
    assert_eq!(appended["durability"], "replicated(2)");
    assert_eq!(
        appended["replicas"].to_string().matches("\"down\"").count(),
        1,
        "{appended}"
    );
    let three = stage.append(
        "not to three",
        &["--durability", "replicated(3)", "--wait", "1"],
    );
    assert_eq!(three.code, 3, "{}", three.out);
    let url = stage.stores[1].url.clone();
    assert!(
        three.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains(&url)
    );
    let heads = stage.run(&["heads", "notes"]).ok().json();
    assert_eq!(
        (&heads["fresh"], &heads["answered"]),
        (&true.into(), &2.into())
    );
    assert_eq!(stage.read(&[])[..2], ["before", "after"]);
    stage.stores[0].stop();
    let alone = stage.run(&["heads", "notes"]).ok().json();
    assert_eq!(alone["fresh"], false);
    assert_eq!(stage.append("alone", &["--wait", "1"]).code, 3);
}

#[test]
fn the_first_bad_record_of_a_tampered_folder_is_named() {
    let mut stage = Stage::new(2);
    for n in 0..6 {
        stage
            .append(
                &format!("entry {n}, long enough to be hit {}", "x".repeat(200)),
                &[],
            )
            .ok();
    }
    let good = stage.run(&["verify", "store-1"]).ok().json();
    assert_eq!(good["targets"][0]["records"], 8);
    stage.stores[0].stop();
    let segment = stage.segment(0);
    let mut bytes = fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let run = stage.run(&["verify", "store-1"]);
    assert_eq!(run.code, 1);
    let bad = &run.json()["targets"][0]["bad"];
    let found = stage.run(&["verify", "store-2"]).ok().json();
    let writer = &found["targets"][0]["heads"][1]["writer"];
    let (seq, number) = (
        bad["seq"].as_u64().unwrap(),
        bad["number"].as_u64().unwrap(),
    );
    // Config record and open record come first.
    assert_eq!((seq + 1, &bad["writer"]), (number, writer), "{bad}");
    let offset = usize::try_from(bad["offset"].as_u64().unwrap()).unwrap();
    assert!(offset <= end / 2 && end / 2 - offset < 700, "{bad}");
    assert_eq!(stage.run(&["fsck", "store-1"]).code, 1);
    stage.run(&["fsck", "store-2"]).ok();
    // Nothing is lost: the other replica has it.
    assert_eq!(stage.read(&[]).len(), 6);
}

#[test]
fn mending_the_checksum_of_an_altered_record_gains_nothing() {
    let mut stage = Stage::new(1);
    for n in 0..4 {
        stage.append(&format!("entry {n}"), &[]).ok();
    }
    stage.stores[0].stop();
    let segment = stage.segment(0);
    let good = fs::read(&segment).unwrap();
    let header = SegmentHeader::parse(&good).unwrap();
    // The third data record: after config and open record come two others.
    let frame = header.frames(&good).nth(4).unwrap();
    let at = frame.offset as usize;
    let signature = bield_capsule::Header::decode_prefix(frame.payload)
        .unwrap()
        .1;
    for flip in [100, signature, frame.payload.len() - 1] {
        let mut payload = frame.payload.to_vec();
        payload[flip] ^= 1;
        let durable = u32::from_be_bytes(good[at + 8..at + 12].try_into().unwrap());
        let head = header.frame_head(4, durable, &payload);
        let mut bytes = good.clone();
        bytes[at..at + FRAME_HEAD_BYTES].copy_from_slice(&head);
        bytes[at + FRAME_HEAD_BYTES..][..payload.len()].copy_from_slice(&payload);
        assert!(SegmentHeader::parse(&bytes).unwrap().frames(&bytes).count() >= 6);
        fs::write(&segment, &bytes).unwrap();
        let run = stage.run(&["verify", "store-1", "--name", "notes"]);
        assert_eq!(run.code, 1, "{flip}");
        let bad = &run.json()["targets"][0]["bad"];
        assert_eq!(
            (&bad["number"], &bad["offset"], &bad["seq"]),
            (&4.into(), &at.into(), &3.into()),
            "{bad}"
        );
    }
}

#[test]
fn another_home_is_admitted_writes_and_is_revoked() {
    let stage = Stage::new(2);
    let name = stage.run(&["list"]).ok().json()["capsules"][0]["capsule"].clone();
    let name = name.as_str().unwrap();
    let url = stage.stores[0].url.clone();
    let friend = |arguments: &[&str], input| stage.run_as("friend", arguments, input);
    friend(&["open", name, "--replica", &url, "--allow-private"], "").ok();
    let key = friend(&["writer", "notes"], "").ok().json();
    assert_eq!(
        friend(&["append", "notes"], "early").code,
        2,
        "no key to seal with"
    );
    let keys = |home: &str| stage.path(home).join("capsules").join(name).join("keys");
    fs::copy(keys("home"), keys("friend")).unwrap();
    assert_eq!(
        friend(&["append", "notes"], "early").code,
        1,
        "not admitted"
    );
    assert_eq!(friend(&["rotate", "notes"], "").code, 2, "not the owner");
    stage
        .run(&["admit", "notes", key["public_key"].as_str().unwrap()])
        .ok();
    stage.append("mine", &[]).ok();
    friend(&["append", "notes"], "theirs").ok();
    assert_eq!(stage.read(&[]), ["mine", "theirs"]);
    let writer = key["writer"].as_str().unwrap();
    let revoked = stage.run(&["revoke", "notes", &writer[..8]]).ok().json();
    assert_eq!(revoked["last"], 1);
    assert_eq!(friend(&["append", "notes"], "late").code, 1);
    assert_eq!(stage.read(&[]), ["mine", "theirs"]);
}

#[test]
fn what_is_erased_is_gone_for_good_and_stays_provable() {
    let stage = Stage::new(1);
    stage
        .append("keep\nforget", &["--lines", "--erasable"])
        .ok();
    let refused = stage.run(&["erase", "notes", "--entry", "me/1/1"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("--yes")
    );
    stage
        .run(&["erase", "notes", "--entry", "me/1/1", "--yes"])
        .ok();
    assert_eq!(stage.read(&[]), ["keep", "-"]);
    let erased = stage
        .run(&["erase", "notes", "--generation", "1", "--yes"])
        .ok()
        .json();
    assert_eq!(erased["new_generation"], 2);
    stage.append("new", &[]).ok();
    assert_eq!(stage.read(&[]), ["-", "new"]);
    stage.run(&["export", "notes", "-o", "x.capsule"]).ok();
    stage
        .run(&["verify", "x.capsule", "--name", "notes", "--keys"])
        .ok();
}

#[test]
fn of_a_level_that_is_not_reached_it_is_said_how_far_the_entries_came() {
    let stage = Stage::new(2);
    let level = ["--lines", "--durability", "replicated(3)", "--wait", "1"];
    let refused = stage.append("a\nb", &level);
    assert_eq!(refused.code, 3, "{}{}", refused.out, refused.err);
    let found = refused.json();
    assert_eq!(
        (&found["entries"], &found["reached"]),
        (&2.into(), &0.into())
    );
    assert_eq!(
        (&found["signed"], &found["at_quorum"]),
        (&2.into(), &2.into())
    );
    assert_eq!(stage.read(&[]), ["a", "b"], "nothing has to be sent again");
}

#[test]
fn a_home_that_was_set_back_signs_nothing_and_swapped_keys_are_named() {
    let stage = Stage::new(1);
    let copy = Command::new("cp")
        .args(["-r", "home", "copy"])
        .current_dir(stage.directory.path())
        .status()
        .unwrap();
    assert!(copy.success());
    stage.append("a", &[]).ok();
    let refused = stage.run_as("copy", &["append", "notes"], "b");
    assert_eq!(refused.code, 1, "{}{}", refused.out, refused.err);
    assert!(refused.out.contains("writer --new"), "{}", refused.out);
    let capsules = fs::read_dir(stage.path("copy").join("capsules"));
    let capsule = capsules.unwrap().next().unwrap().unwrap().path();
    let key = |name: &str| capsule.join(name);
    fs::rename(key("owner.key"), key("x.key")).unwrap();
    fs::rename(key("writer.key"), key("owner.key")).unwrap();
    fs::rename(key("x.key"), key("writer.key")).unwrap();
    for arguments in [["append", "notes"], ["rotate", "notes"]] {
        let refused = stage.run_as("copy", &arguments, "c");
        assert_eq!(refused.code, 2, "{}{}", refused.out, refused.err);
        assert!(refused.out.contains("swapped"), "{}", refused.out);
    }
}

#[test]
fn an_export_without_its_configuration_does_not_verify() {
    let stage = Stage::new(1);
    stage.run(&["export", "notes", "-o", "x.capsule"]).ok();
    let bytes = fs::read(stage.path("x.capsule")).unwrap();
    // The header alone: metadata, and no record.
    let metadata = fs::read_dir(stage.stores[0].data.join("capsules"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("metadata");
    let metadata = fs::read(metadata).unwrap();
    let at = bytes
        .windows(metadata.len())
        .position(|window| window == metadata)
        .unwrap();
    fs::write(stage.path("x.capsule"), &bytes[..at + metadata.len()]).unwrap();
    let found = stage.run(&["verify", "x.capsule", "--name", "notes"]);
    assert_eq!(found.code, 1, "{}{}", found.out, found.err);
}

#[test]
fn an_import_fills_an_empty_store() {
    let stage = Stage::new(1);
    stage.append("a\nb", &["--lines"]).ok();
    stage.run(&["export", "notes", "-o", "x.capsule"]).ok();
    let other = Store::start(stage.path("store-9"));
    let taken = stage
        .run(&["import", "x.capsule", "--replica", &other.url])
        .ok()
        .json();
    assert_eq!(taken["replicas"][0]["records"], 3);
    let found = stage
        .run(&["verify", "store-9", "--name", "notes"])
        .ok()
        .json();
    assert_eq!(found["targets"][0]["records"], 3);
    let mut bytes = fs::read(stage.path("x.capsule")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(stage.path("x.capsule"), bytes).unwrap();
    assert_ne!(
        stage
            .run(&["import", "x.capsule", "--replica", &other.url])
            .code,
        0
    );
}

#[test]
fn failures_say_whose_move_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let stage = Stage {
        directory,
        stores: Vec::new(),
    };
    assert_eq!(stage.run(&["read", "nothing"]).code, 2);
    assert_eq!(
        stage
            .run(&["create", "x", "--replica", "http://127.0.0.1:1"])
            .code,
        3
    );
    assert_eq!(stage.run(&["verify", "missing"]).code, 2);
    fs::write(stage.path("noise"), "noise").unwrap();
    assert_eq!(stage.run(&["verify", "noise"]).code, 2);
    assert_eq!(stage.run(&["create", "x"]).code, 2);
    let help = Command::new(env!("CARGO_BIN_EXE_bield"))
        .args(["store", "--help"])
        .output()
        .unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("--owners"), "the store's own help: {help}");
}
