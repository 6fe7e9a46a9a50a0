//! Whose receipts a home believes, after its trust has changed.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey};
use bield_receipt::{Receipt, ReceiptBundle, WorkerCertificate};
use bield_sdk::{Home, KnownService, now};
use serde_json::Value;

/// A home, and a receipt that claims hardware, as any key service can have one signed.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        fs::write(stage.path("a.receipt"), bundle().encode()).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn home(&self) -> Home {
        Home::at(self.path("home"))
    }

    /// Exit code, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_bield"))
            .args(arguments)
            .current_dir(self.0.path())
            .env("BIELD_HOME", "home")
            .output()
            .unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    }

    fn remember(&self, code: &str, simulated: bool) {
        let service = KnownService {
            principal: service().principal(),
            measurement: code.to_owned(),
            simulated,
        };
        self.home().remember_service(&service).unwrap();
    }
}

fn service() -> SigningKey {
    SigningKey::from_seed(Secret::from_bytes([1; 32]))
}

fn sgx(byte: &str) -> String {
    format!("sgx:{}", byte.repeat(32))
}

fn bundle() -> ReceiptBundle {
    let worker = SigningKey::from_seed(Secret::from_bytes([2; 32]));
    let (code, at) = (sgx("ab").parse().unwrap(), now());
    let certificate = WorkerCertificate {
        worker: worker.principal(),
        code,
        simulated: false,
        not_before: at.minus(Duration::from_secs(60)),
        not_after: at.plus(Duration::from_secs(600)),
        service: service().principal(),
        service_evidence: None,
    };
    let receipt = Receipt {
        request: Digest::of("test", &[]),
        package: Digest::of("test", &[]),
        code: sgx("ab").parse().unwrap(),
        grant: Digest::of("test", &[]),
        output: Digest::of("test", &[]),
        at,
        head: None,
        simulated: false,
    };
    ReceiptBundle {
        receipt: Signed::sign(&worker, receipt).into_signed(),
        certificate: Signed::sign(&service(), certificate).into_signed(),
        service_evidence: None,
    }
}

fn cloud() -> String {
    format!(
        "gateway = \"http://h\"\nkey_service = \"h:1\"\ncode = [\"{}\"]\n[service]\n\
         profile = \"cloud\"\nmeasurements = [\"{}\"]\n",
        sgx("ab"),
        sgx("cd")
    )
}

fn dev() -> String {
    cloud().replace("\"cloud\"", "\"dev\"\nallow_simulated = true")
}

#[test]
fn a_service_that_trust_accepts_anchors_a_receipt() {
    let stage = Stage::new();
    stage.home().create_trust(&cloud()).unwrap();
    stage.remember(&sgx("cd"), false);
    let (exit, out, err) = stage.run(&["receipt", "a.receipt"]);
    assert_eq!(exit, 0, "{out}{err}");
    assert!(out.contains("protected by hardware TEE"), "{out}");
}

#[test]
fn services_that_trust_does_not_accept_anchor_nothing() {
    for (code, simulated) in [("cd", true), ("ce", false), ("ce", true)] {
        let stage = Stage::new();
        stage.home().create_trust(&cloud()).unwrap();
        stage.remember(&sgx(code), simulated);
        let (exit, out, err) = stage.run(&["receipt", "a.receipt"]);
        assert_eq!(exit, 2, "{out}{err}");
        assert!(err.contains("that trust.toml accepts"), "{err}");
        assert!(!out.contains("hardware"), "{out}");
    }
}

#[test]
fn the_services_of_replaced_trust_are_forgotten() {
    let stage = Stage::new();
    stage.home().create_trust(&dev()).unwrap();
    stage.remember(&sgx("cd"), true);
    assert_eq!(stage.run(&["receipt", "a.receipt"]).0, 0);
    fs::write(stage.path("cloud.toml"), cloud()).unwrap();
    let replaced = stage.run(&["init", "--trust", "cloud.toml", "--replace-trust"]);
    assert_eq!(replaced.0, 0, "{}", replaced.2);
    assert!(stage.home().known_services().unwrap().is_empty());
    assert_eq!(stage.run(&["receipt", "a.receipt"]).0, 2);
}

#[test]
fn a_software_key_service_never_vouches_for_hardware() {
    let stage = Stage::new();
    stage.home().create_trust(&dev()).unwrap();
    stage.remember(&sgx("cd"), true);
    let (exit, out, _) = stage.run(&["receipt", "a.receipt"]);
    assert_eq!(exit, 0);
    assert!(
        out.contains("protected by software TEE: no hardware"),
        "{out}"
    );
    let (_, out, _) = stage.run(&["--json", "receipt", "a.receipt"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["service_simulated"], true);

    // Named by hand, where software is not accepted.
    fs::write(stage.path("home/trust.toml"), cloud()).unwrap();
    let named = service().principal().to_string();
    let (exit, out, err) = stage.run(&["receipt", "a.receipt", "--service", &named]);
    assert_eq!(exit, 1, "{out}");
    assert!(err.contains("--allow-simulated"), "{err}");
}

#[test]
fn without_trust_a_receipt_needs_a_named_service_and_its_code_is_not_checked() {
    let stage = Stage::new();
    stage.remember(&sgx("cd"), false);
    let (exit, out, err) = stage.run(&["receipt", "a.receipt"]);
    assert_eq!((exit, out.as_str()), (2, ""));
    assert!(
        err.contains("no trust.toml") && err.contains("--service"),
        "{err}"
    );
    let named = service().principal().to_string();
    let (exit, out, err) = stage.run(&["receipt", "a.receipt", "--service", &named]);
    assert_eq!(exit, 0, "{out}{err}");
    assert!(
        out.contains("NOT CHECKED whether its code is accepted"),
        "{out}"
    );
    let stranger = Principal::from_bytes([9; 32]).to_string();
    assert_eq!(
        stage
            .run(&["receipt", "a.receipt", "--service", &stranger])
            .0,
        1
    );
}

#[test]
fn services_in_an_old_format_anchor_nothing() {
    let stage = Stage::new();
    stage.home().create_trust(&cloud()).unwrap();
    let path = stage.path("home/services");
    let line = format!("{} {}\n", service().principal(), sgx("cd"));
    fs::write(&path, line).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let (exit, _, err) = stage.run(&["receipt", "a.receipt"]);
    assert_eq!(exit, 2);
    assert!(err.contains("bield verify"), "{err}");
}

#[test]
fn init_says_which_home_it_uses_and_refuses_one_that_others_can_change() {
    let stage = Stage::new();
    let (exit, out, err) = stage.run(&["init"]);
    assert_eq!(exit, 0, "{err}");
    let home = fs::canonicalize(stage.path("home")).unwrap();
    let home = home.to_str().unwrap();
    assert!(err.contains(&format!("home: {home}")), "{err}");
    assert!(!out.contains(home), "{out}");
    let (_, out, _) = stage.run(&["--json", "init"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["home"], home);

    fs::set_permissions(home, fs::Permissions::from_mode(0o775)).unwrap();
    for arguments in [&["init"][..], &["id"], &["verify"]] {
        let (exit, out, err) = stage.run(arguments);
        assert_eq!((exit, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains("chmod go-w"), "{err}");
    }
    fs::set_permissions(home, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(stage.path("home/trust.toml"), cloud()).unwrap();
    let trust = stage.path("home/trust.toml");
    fs::set_permissions(trust, fs::Permissions::from_mode(0o666)).unwrap();
    let (exit, out, err) = stage.run(&["init"]);
    assert_eq!((exit, out.as_str()), (2, ""));
    assert!(err.contains("trust.toml is believed"), "{err}");
}
