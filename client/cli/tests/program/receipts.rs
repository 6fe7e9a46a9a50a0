//! Whose receipts a home believes, after its trust has changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bield_envelope::{Digest, Principal, Secret, Signed, SigningKey};
use bield_evidence::HardeningStatement;
use bield_receipt::{Receipt, ReceiptBundle, WorkerCertificate};
use bield_sdk::{Home, KnownService, now};

use crate::stage::{Run, Stage, sgx};

/// A home, and a receipt that claims hardware, as any key service can have one signed.
fn stage() -> Stage {
    let stage = Stage::new();
    stage.write("a.receipt", bundle().encode());
    stage
}

impl Stage {
    fn home(&self) -> Home {
        Home::at(self.path("home"))
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
        hardening: HardeningStatement::default(),
    };
    let receipt = Receipt {
        request: Digest::of("test", &[]),
        package: Digest::of("test", &[]),
        code: sgx("ab").parse().unwrap(),
        grant: Digest::of("test", &[]),
        output: Digest::of("test", &[]),
        at,
        state: None,
        simulated: false,
    };
    ReceiptBundle::new(
        Signed::sign(&worker, receipt).into_signed(),
        Signed::sign(&service(), certificate).into_signed(),
        None,
    )
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
    let stage = stage();
    stage.home().create_trust(&cloud()).unwrap();
    stage.remember(&sgx("cd"), false);
    let Run { code, out, err } = stage.run(&["receipt", "a.receipt"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("protected by hardware TEE"), "{out}");
}

#[test]
fn services_that_trust_does_not_accept_anchor_nothing() {
    for (code, simulated) in [("cd", true), ("ce", false), ("ce", true)] {
        let stage = stage();
        stage.home().create_trust(&cloud()).unwrap();
        stage.remember(&sgx(code), simulated);
        let Run { code, out, err } = stage.run(&["receipt", "a.receipt"]);
        assert_eq!(code, 2, "{out}{err}");
        assert!(err.contains("that trust.toml accepts"), "{err}");
        assert!(!out.contains("hardware"), "{out}");
    }
}

#[test]
fn the_services_of_replaced_trust_are_forgotten() {
    let stage = stage();
    stage.home().create_trust(&dev()).unwrap();
    stage.remember(&sgx("cd"), true);
    assert_eq!(stage.run(&["receipt", "a.receipt"]).code, 0);
    stage.write("cloud.toml", cloud());
    let replaced = stage.run(&["init", "--trust", "cloud.toml", "--replace-trust"]);
    assert_eq!(replaced.code, 0, "{}", replaced.err);
    assert!(stage.home().known_services().unwrap().is_empty());
    assert_eq!(stage.run(&["receipt", "a.receipt"]).code, 2);
}

#[test]
fn a_software_key_service_never_vouches_for_hardware() {
    let stage = stage();
    stage.home().create_trust(&dev()).unwrap();
    stage.remember(&sgx("cd"), true);
    let Run { code, out, .. } = stage.run(&["receipt", "a.receipt"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("protected by software TEE: no hardware"),
        "{out}"
    );
    let found = stage.run(&["--json", "receipt", "a.receipt"]).json();
    assert_eq!(found["service_simulated"], true);

    // Named by hand, where software is not accepted.
    stage.write("home/trust.toml", cloud());
    let named = service().principal().to_string();
    let Run { code, out, err } = stage.run(&["receipt", "a.receipt", "--service", &named]);
    assert_eq!(code, 1, "{out}");
    assert!(err.contains("--allow-simulated"), "{err}");
}

#[test]
fn without_trust_a_receipt_needs_a_named_service_and_its_code_is_not_checked() {
    let stage = stage();
    stage.remember(&sgx("cd"), false);
    let Run { code, out, err } = stage.run(&["receipt", "a.receipt"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("no trust.toml") && err.contains("--service"),
        "{err}"
    );
    let named = service().principal().to_string();
    let Run { code, out, err } = stage.run(&["receipt", "a.receipt", "--service", &named]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("NOT CHECKED whether its code is accepted"),
        "{out}"
    );
    let stranger = Principal::from_bytes([9; 32]).to_string();
    assert_eq!(
        stage
            .run(&["receipt", "a.receipt", "--service", &stranger])
            .code,
        1
    );
}

#[test]
fn services_in_an_old_format_anchor_nothing() {
    let stage = stage();
    stage.home().create_trust(&cloud()).unwrap();
    let line = format!("{} {}\n", service().principal(), sgx("cd"));
    stage.secret("home/services", line);
    let Run { code, err, .. } = stage.run(&["receipt", "a.receipt"]);
    assert_eq!(code, 2);
    assert!(err.contains("bield verify"), "{err}");
}

#[test]
fn init_says_which_home_it_uses_and_refuses_one_that_others_can_change() {
    let stage = stage();
    let Run { code, out, err } = stage.run(&["init"]);
    assert_eq!(code, 0, "{err}");
    let home = fs::canonicalize(stage.path("home")).unwrap();
    let home = home.to_str().unwrap();
    assert!(err.contains(&format!("home: {home}")), "{err}");
    assert!(!out.contains(home), "{out}");
    let found = stage.run(&["--json", "init"]).json();
    assert_eq!(found["home"], home);

    fs::set_permissions(home, fs::Permissions::from_mode(0o775)).unwrap();
    for arguments in [&["init"][..], &["id"], &["verify"]] {
        let Run { code, out, err } = stage.run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains("chmod go-w"), "{err}");
    }
    fs::set_permissions(home, fs::Permissions::from_mode(0o700)).unwrap();
    stage.write("home/trust.toml", cloud());
    let trust = stage.path("home/trust.toml");
    fs::set_permissions(trust, fs::Permissions::from_mode(0o666)).unwrap();
    let Run { code, out, err } = stage.run(&["init"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("trust.toml is believed"), "{err}");
}
