//! Owners', users' and operators' commands around the key service, as far as nobody has to be there.

use std::fs;

use bield_capsule::ledger_file::{FileHead, Previous, encode_frame, log_name};
use bield_capsule::{Batch, Change, GenerationKey, Metadata, Received, Suite, Writer, WriterKey};
use bield_envelope::{Secret, Seeded, Time};
use bield_protocol::service::PlayedLog;
use bield_tlog::{Checkpoint, LogKey, Origin, Tree};
use serde_json::Value;

use crate::stage::{Stage, closed_port, sgx};

const NOON: Time = Time::from_secs(1_800_000_000);

/// A home that trusts a gateway and a key service where nobody listens.
fn stage() -> Stage {
    Stage::with_trust(&[closed_port(), closed_port()])
}

#[test]
fn nobody_there_is_said_of_every_member_and_is_worth_another_try() {
    let stage = stage();
    let code = sgx("ab");
    for arguments in [
        &["grants"][..],
        &["list", "packages"],
        &["list", "to-me"],
        &["list", "me"],
        &["group", "list"],
        &["group", "put", "lab", "--member", "me"],
        &["group", "delete", "lab", "--yes"],
        &[
            "grant",
            "--package",
            "magika@^3",
            "--group",
            "lab",
            "--code",
            &code,
        ],
        &["revoke", "--user", "me", "--yes"],
        &["delete", "package", "magika", "--yes"],
        &["rotate", "audience", "magika"],
        &["rotate", "identity", "--yes"],
        &["rotate", "service", "--yes"],
        &["register"],
        &["unregister", "--yes"],
        &["audit"],
        &["recover", "take"],
        &["recover", "make", "--holder", "me", "--threshold", "1"],
        &["recover", "status"],
        &["admit-code", &code],
        &["withdraw-code", &code],
    ] {
        let run = stage.run(arguments);
        assert_eq!(run.code, 3, "{arguments:?}: {}{}", run.out, run.err);
        let told = run.err.matches("is unreachable").count();
        assert_eq!(told, 2, "{arguments:?}: {}", run.err);
    }
    // Nothing was begun that would have to be ended.
    assert!(!stage.path("home/identity.next.key").exists());
}

#[test]
fn what_cannot_be_meant_is_said_before_anybody_is_asked() {
    let stage = stage();
    let code = sgx("ab");
    let signer = &code;
    let cases: [(&[&str], &str); 15] = [
        (&["grant", "--package", "magika", "--code", &code], "--user"),
        (&["grant", "--package", "magika", "--user", "me"], "--code"),
        (&["grant", "--user", "me", "--code", &code], "--package"),
        (
            &[
                "grant",
                "a.bield",
                "--package",
                "b",
                "--user",
                "me",
                "--code",
                &code,
            ],
            "cannot be used with",
        ),
        (
            &[
                "grant",
                "--package",
                "Magika",
                "--user",
                "me",
                "--code",
                &code,
            ],
            "selected",
        ),
        (
            &[
                "grant",
                "--package",
                "m",
                "--user",
                "me",
                "--signer",
                signer,
            ],
            "--min-svn",
        ),
        (
            &[
                "grant",
                "--package",
                "m",
                "--user",
                "me",
                "--signer",
                "sgx:ab",
                "--min-svn",
                "1",
            ],
            "32 bytes",
        ),
        (
            &["grant", "--package", "m", "--user", "bob", "--code", &code],
            "or `me`",
        ),
        (
            &[
                "grant",
                "--package",
                "m",
                "--user",
                "me",
                "--code",
                &code,
                "--until",
                "2020-01-01",
            ],
            "is past",
        ),
        (
            &[
                "grant",
                "--package",
                "m",
                "--user",
                "me",
                "--code",
                &code,
                "--requests",
                "0",
            ],
            "--requests",
        ),
        (&["revoke", "xyz"], "32 hex digits"),
        (&["revoke"], "required"),
        (
            &["recover", "make", "--holder", "me", "--threshold", "2"],
            "never come together",
        ),
        (&["recover", "give"], "no share"),
        (&["rotate", "identity"], "--yes"),
    ];
    for (arguments, sentence) in cases {
        let run = stage.run(arguments);
        assert_eq!(run.code, 2, "{arguments:?}: {}", run.err);
        assert!(run.err.contains(sentence), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn doctor_tells_what_is_wrong_here_from_who_is_not_there() {
    let stage = stage();
    let run = stage.run(&["--json", "doctor"]);
    assert_eq!(run.code, 3, "{}{}", run.out, run.err);
    let found = run.json();
    let outcome = |name: &str| -> Vec<String> {
        let checks = found["checks"].as_array().unwrap().iter();
        checks
            .filter(|check| check["name"] == name)
            .map(|check| check["outcome"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(outcome("identity"), ["passed"]);
    assert_eq!(outcome("trust file"), ["passed"]);
    assert_eq!(outcome("kept head"), ["not_checked"]);
    assert_eq!(outcome("gateway"), ["failed"]);
    assert_eq!(outcome("member"), ["failed", "failed"]);
    assert_eq!(outcome("serving"), ["failed"]);
    let text = stage.run(&["doctor"]);
    assert!(
        text.out
            .contains("no member leads: none of 2 addresses serves"),
        "{}",
        text.out
    );

    stage.secret("home/logs/current", "nonsense");
    let run = stage.run(&["doctor"]);
    assert_eq!(run.code, 2, "{}{}", run.out, run.err);
    assert!(run.out.contains("is damaged"), "{}", run.out);
}

/// A key service's log as its host has it.
struct Log {
    key: LogKey,
    tree: Tree,
    records: Vec<Received>,
    metadata: Metadata,
}

impl Log {
    /// `records` data records after the first two; `seed` draws its keys.
    fn new(seed: u64, label: Option<&str>, records: usize) -> Self {
        let mut entropy = Seeded::new(seed);
        let suite = Suite::Ed25519;
        let owner = WriterKey::generate(suite, &mut entropy);
        let metadata = Metadata::new(owner.public(), label, NOON, &mut entropy).unwrap();
        let key = WriterKey::generate(suite, &mut entropy);
        let generation = GenerationKey::generate(1, &mut entropy);
        let changes = [
            Change::admit(key.public()),
            Change::Generation {
                number: 1,
                commitment: generation.commitment(&metadata),
            },
        ];
        let (owner, config) = Writer::owner(owner, &metadata, &changes, NOON).unwrap();
        let (mut writer, open) =
            Writer::open(key, &metadata, owner.head().unwrap(), None, NOON).unwrap();
        let mut all = vec![config, open];
        for number in 0..records {
            let mut batch = Batch::new();
            batch.push(format!("entry {number}").as_bytes()).unwrap();
            all.push(
                writer
                    .seal(&batch, &generation, &[], NOON, &mut entropy)
                    .unwrap(),
            );
        }
        let mut tree = Tree::new();
        for record in &all {
            tree.append(record.hash().as_bytes());
        }
        let name = format!("bield/keys/{}/{}", metadata.name(), "cd".repeat(32));
        Self {
            key: LogKey::new(name.parse().unwrap(), &Secret::from_bytes([1; 32])),
            tree,
            records: all,
            metadata,
        }
    }

    /// The file that begins with record `first`.
    fn file(&self, epoch: u32, previous: Option<Previous>, first: usize, end: usize) -> Vec<u8> {
        let head = FileHead {
            epoch,
            first: first as u64,
            before: None,
            previous,
            metadata: self.metadata.clone(),
        };
        let mut bytes = head.encode();
        for (index, record) in (first..).zip(&self.records[first..end]) {
            encode_frame(index as u64, record.as_bytes(), &mut bytes);
        }
        bytes
    }

    /// What a home keeps that has seen so many records.
    fn seen(&self, stage: &Stage, size: u64) {
        let origin = Origin::from(self.key.verifier().name());
        let segment = origin.path_segment();
        let root = self.tree.root_at(size).unwrap();
        let note = Checkpoint::new(origin, size, root).sign(&self.key);
        let text = format!(
            "bield key service head v1\nservice ed25519:{}\nlog {}\n\n{note}",
            "01".repeat(32),
            self.key.verifier()
        );
        stage.secret(&format!("home/logs/{segment}.head"), text);
        stage.secret("home/logs/current", format!("{segment}\n"));
    }
}

fn outcome(found: &Value, name: &str) -> String {
    let mut checks = found["checks"].as_array().unwrap().iter();
    let check = checks.find(|check| check["name"] == name);
    check.map_or_else(String::new, |check| {
        check["outcome"].as_str().unwrap().to_owned()
    })
}

#[test]
fn a_log_is_verified_without_a_key_and_against_what_was_seen() {
    let stage = stage();
    let log = Log::new(1, None, 6);
    fs::create_dir(stage.path("log")).unwrap();
    let write = |first: u64, bytes: &[u8]| {
        fs::write(stage.path("log").join(log_name(0, first)), bytes).unwrap();
    };
    write(0, &log.file(0, None, 0, 5));
    write(5, &log.file(0, None, 5, 8));
    stage.write("log/root", b"not a log file");
    let verified = stage.run(&["--json", "audit", "--log", "log"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
    let found = verified.json();
    assert_eq!(found["epochs"][0]["size"], 8);
    assert_eq!(found["epochs"][0]["root"], log.tree.root().to_string());
    assert_eq!(outcome(&found, "seen"), "not_checked");

    log.seen(&stage, 7);
    let text = stage.run(&["audit", "--log", "log"]);
    assert!(
        text.out.contains("7 records seen, 1 more here"),
        "{}",
        text.out
    );

    // Records that were seen are gone: a log that was cut is whole in itself.
    fs::remove_file(stage.path("log").join(log_name(0, 5))).unwrap();
    let cut = stage.run(&["--json", "audit", "--log", "log"]);
    assert_eq!(cut.code, 1, "{}", cut.out);
    assert_eq!(outcome(&cut.json(), "records"), "passed");
    assert_eq!(outcome(&cut.json(), "seen"), "failed");

    // A hole is found without having seen anything.
    write(6, &log.file(0, None, 6, 8));
    let hole = stage.run(&["audit", "--log", "log"]);
    assert_eq!(hole.code, 1);
    assert!(hole.out.contains("missing"), "{}", hole.out);
    fs::remove_file(stage.path("log").join(log_name(0, 6))).unwrap();

    let whole = log.file(0, None, 0, 8);
    write(0, &whole);
    assert_eq!(stage.run(&["audit", "--log", "log"]).code, 0);
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    write(0, &altered);
    let damaged = stage.run(&["audit", "--log", "log"]);
    assert_eq!(damaged.code, 1);
    assert!(damaged.out.contains("damaged"), "{}", damaged.out);
    // The last append was never acknowledged: open, and no failure; it was seen by nobody.
    write(0, &whole[..whole.len() - 1]);
    let torn = stage.run(&["--json", "audit", "--log", "log"]);
    assert_eq!(torn.code, 0, "{}", torn.out);
    assert_eq!(outcome(&torn.json(), "end"), "not_checked");

    fs::remove_file(stage.path("log").join(log_name(0, 0))).unwrap();
    let empty = stage.run(&["audit", "--log", "log"]);
    assert_eq!(empty.code, 2);
    assert!(empty.err.contains("--storage"), "{}", empty.err);
}

#[test]
fn another_history_of_a_log_that_was_seen_is_a_fork() {
    let stage = stage();
    let log = Log::new(1, None, 6);
    log.seen(&stage, 8);
    let name = log_name(0, 0);
    stage.write(&name, log.file(0, None, 0, 8));
    let same = stage.run(&["--json", "audit", "--log", &name]);
    assert_eq!(outcome(&same.json(), "seen"), "passed");
    // What was seen is of another tree.
    let mut seen = Log::new(1, None, 6);
    seen.tree = Tree::new();
    (0..8_u64).for_each(|entry| {
        seen.tree.append(&entry.to_be_bytes());
    });
    seen.seen(&stage, 8);
    let fork = stage.run(&["audit", "--log", &name]);
    assert_eq!(fork.code, 1);
    assert!(fork.out.contains("FORKED"), "{}", fork.out);
}

#[test]
fn a_recovered_log_is_verified_across_its_epochs() {
    let stage = stage();
    let before = Log::new(1, None, 6);
    let previous = |size: u64| Previous {
        capsule: before.metadata.name(),
        size,
        root: *before.tree.root_at(7).unwrap().as_bytes(),
    };
    fs::create_dir(stage.path("log")).unwrap();
    let write = |epoch, bytes: Vec<u8>| {
        fs::write(stage.path("log").join(log_name(epoch, 0)), bytes).unwrap();
    };
    write(0, before.file(0, None, 0, 8));
    let after = Log::new(2, Some(&previous(7).label()), 2);
    write(1, after.file(1, Some(previous(7)), 0, 4));
    let run = stage.run(&["--json", "audit", "--log", "log"]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let found = run.json();
    assert_eq!(outcome(&found, "recovery"), "passed");
    assert_eq!(found["epochs"][1]["size"], 4);
    // It says another size than the root is of.
    let lying = Log::new(2, Some(&previous(6).label()), 2);
    write(1, lying.file(1, Some(previous(6)), 0, 4));
    let run = stage.run(&["--json", "audit", "--log", "log"]);
    assert_eq!(run.code, 1);
    assert_eq!(outcome(&run.json(), "recovery"), "failed");
}

#[test]
fn a_file_that_is_no_share_is_called_none() {
    let stage = stage();
    for bytes in [&b"nonsense"[..], &[b'x'; 4096]] {
        stage.secret("no.share", bytes);
        let run = stage.run(&["recover", "give", "--share", "no.share"]);
        assert_eq!(run.code, 2, "{}", run.err);
        assert!(run.err.contains("holds no recovery share"), "{}", run.err);
        assert!(!run.err.contains("set back"), "{}", run.err);
    }
}

#[test]
fn who_is_not_there_is_named_once() {
    let stage = stage();
    let run = stage.run(&["status"]);
    assert_eq!(run.code, 3);
    for line in run.out.lines() {
        assert!(line.matches("gateway http").count() < 2, "{line}");
    }
}

#[test]
fn what_would_change_is_said_before_yes_is_asked_for() {
    let stage = stage();
    let run = stage.run(&["rotate", "identity"]);
    assert_eq!(run.code, 2);
    assert!(
        run.err.contains('?') && run.err.contains("repeat with --yes"),
        "{}",
        run.err
    );
}

#[test]
fn replaced_trust_says_which_log_is_forgotten_and_kept_trust_nothing() {
    let stage = stage();
    let log = PlayedLog::new("a.example/log", 1).head();
    let segment = log.origin().path_segment();
    let service = stage.run(&["id"]).out;
    let head = format!(
        "bield key service head v1\nservice {}\nlog {}\n\n{}",
        service.trim(),
        log.log(),
        log.checkpoint()
    );
    stage.secret(&format!("home/logs/{segment}.head"), head);
    stage.secret("home/logs/current", format!("{segment}\n"));
    let text = fs::read_to_string(stage.path("trust.toml")).unwrap();
    let replace = |text: String| {
        stage.write("other.toml", text);
        let run = stage.run(&["init", "--trust", "other.toml", "--replace-trust"]);
        assert_eq!(run.code, 0, "{}", run.err);
        run.err
    };
    let moved = text.replacen("127.0.0.1", "127.0.0.2", 1);
    assert!(!replace(moved).contains("forgotten"));
    let other = replace(text.replace(&sgx("ab"), &sgx("cd")));
    assert!(other.contains("forgotten: that ed25519:"), "{other}");
    assert!(other.contains("log of 1 record is kept"), "{other}");
}
