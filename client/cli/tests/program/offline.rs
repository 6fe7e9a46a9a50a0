//! What needs nobody: homes, trust files, packages, measurements; and nobody there.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use bield_fixtures::converted;

use crate::stage::{Run, Stage, closed_port, trust};

impl Stage {
    fn pack(&self, more: &[&str]) -> Run {
        self.write("tiny.onnx", bield_fixtures::tiny_model());
        let mut arguments = vec![
            "--json",
            "pack",
            "tiny.onnx",
            "--name",
            "tiny",
            "--version",
            "1",
            "-o",
            "tiny.bield",
        ];
        arguments.extend(more);
        self.run(&arguments)
    }
}

#[test]
fn init_makes_an_identity_once_and_prints_its_principal() {
    let stage = Stage::new();
    let made = stage.run(&["init"]);
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.out.starts_with("ed25519:"), "{}", made.out);
    assert!(made.err.contains("bield init --trust"), "{}", made.err);
    let again = stage.run(&["--json", "init"]).json();
    assert_eq!(again["principal"], made.out.trim());
    assert_eq!(again["made"], false);
    assert_eq!(stage.run(&["id"]).out, made.out);
    let key = stage.path("home/identity.key");
    assert_eq!(key.metadata().unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_what_to_do() {
    let stage = Stage::new();
    stage.run(&["init"]);
    let key = stage.path("home/identity.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = stage.run(&["id"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("chmod 600"), "{}", refused.err);
    assert!(refused.out.is_empty());
}

#[test]
fn a_trust_file_is_checked_before_anything_is_made_and_never_replaced_silently() {
    let stage = Stage::new();
    stage.write("bad.toml", "gateway = 1");
    let bad = stage.run(&["init", "--trust", "bad.toml"]);
    assert_eq!(bad.code, 2);
    assert!(!stage.path("home/identity.key").exists());
    stage.write("one.toml", trust(1, &[2]));
    stage.write("two.toml", trust(1, &[3]));
    assert_eq!(stage.run(&["init", "--trust", "one.toml"]).code, 0);
    let refused = stage.run(&["init", "--trust", "two.toml"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("trust.toml exists"), "{}", refused.err);
    assert_eq!(
        stage
            .run(&["init", "--trust", "two.toml", "--replace-trust"])
            .code,
        0
    );
    assert_eq!(
        fs::read_to_string(stage.path("home/trust.toml")).unwrap(),
        trust(1, &[3])
    );
}

#[test]
fn failures_are_sentences_or_json_with_the_documented_exit_code() {
    let stage = Stage::new();
    let plain = stage.run(&["id"]);
    assert_eq!(plain.code, 2);
    assert!(plain.err.contains("bield init"), "{}", plain.err);
    let json = stage.run(&["--json", "id"]);
    assert_eq!(json.code, 2);
    assert_eq!(json.json()["error"]["kind"], "local");
    assert_eq!(stage.run(&["no-such-command"]).code, 2);
    assert_eq!(
        stage
            .run(&["measure", "missing", "--config", "missing"])
            .code,
        2
    );
}

#[test]
fn nobody_there_is_told_apart_from_a_refusal() {
    let stage = Stage::with_trust(&[closed_port()]);
    for arguments in [&["verify"][..], &["status"], &["--json", "verify"]] {
        let run = stage.run(arguments);
        assert_eq!(run.code, 3, "{arguments:?}: {}{}", run.out, run.err);
    }
    let status = stage.run(&["--json", "status"]).json();
    for part in ["gateway", "key_service"] {
        assert_eq!(status[part]["error"]["kind"], "unreachable", "{status}");
    }
}

#[test]
fn somebody_there_who_is_no_key_service_does_not_verify() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::{Read as _, Write as _};
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let stage = Stage::with_trust(&[port]);
    let run = stage.run(&["--json", "verify"]);
    assert_eq!(run.code, 1, "{}{}", run.out, run.err);
    let found = run.json();
    assert_eq!(found["passed"], false);
    assert_eq!(found["counts"]["failed"], 1);
    assert!(found["counts"]["not_checked"].as_u64().unwrap() >= 4);
    let text = stage.run(&["verify"]);
    assert!(
        text.out.contains("FAILED") && text.out.contains("NOT CHECKED"),
        "{}",
        text.out
    );
}

#[test]
fn measure_computes_the_published_digests() {
    let stage = Stage::new();
    stage.write("program", b"a program");
    stage.write("configuration", b"threads = 2\n");
    let found = stage
        .run(&["--json", "measure", "program", "--config", "configuration"])
        .json();
    // Computed from spec/02's rules with the Python package `blake3`.
    assert_eq!(found["program_digest"], PROGRAM_DIGEST);
    assert_eq!(found["configuration_digest"], CONFIGURATION_DIGEST);
    assert_eq!(found["measurement"], MEASUREMENT);
    let text = stage.run(&["measure", "program", "--config", "configuration"]);
    assert_eq!(text.out.trim(), MEASUREMENT);
}

#[test]
fn a_model_is_packed_checked_offline_and_its_key_is_kept() {
    let stage = Stage::with_trust(&[closed_port()]);
    let packed = stage.pack(&[]);
    assert_eq!(packed.code, 0, "{}{}", packed.out, packed.err);
    let packed = packed.json();
    let key = stage.path(packed["key"].as_str().unwrap());
    assert_eq!(key.metadata().unwrap().mode() & 0o777, 0o600);
    assert!(!packed["inputs"].as_array().unwrap().is_empty());

    let verified = stage.run(&["--json", "verify", "--package", "tiny.bield"]);
    assert_eq!(verified.code, 0, "{}", verified.out);
    assert_eq!(verified.json()["counts"]["passed"], 5);
    assert_eq!(verified.json()["package"], packed["package"]);

    fs::remove_file(key).unwrap();
    let without = stage.run(&["--json", "verify", "--package", "tiny.bield"]);
    assert_eq!(without.code, 0);
    assert_eq!(without.json()["counts"]["not_checked"], 3);
    // Nobody is asked before everything that is needed is at hand.
    let code = format!("sgx:{}", "ab".repeat(32));
    let grant = stage.run(&["grant", "tiny.bield", "--user", "me", "--code", &code]);
    assert_eq!(grant.code, 2);
    assert!(grant.err.contains("no key for package"), "{}", grant.err);
}

#[test]
fn a_tampered_package_is_refused_with_the_chunk_named() {
    let stage = Stage::with_trust(&[closed_port()]);
    assert_eq!(stage.pack(&[]).code, 0);
    let path = stage.path("tiny.bield");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = stage.run(&["verify", "--package", "tiny.bield"]);
    assert_eq!(refused.code, 1);
    assert!(refused.out.contains("chunk 0 of 1"), "{}", refused.out);
    fs::write(&path, b"bieldpkg").unwrap();
    assert_eq!(stage.run(&["verify", "--package", "tiny.bield"]).code, 1);
    assert_eq!(stage.run(&["push", "tiny.bield"]).code, 1);
}

#[test]
fn a_rten_file_is_packed_with_the_types_of_the_very_onnx_it_was_made_from() {
    let stage = Stage::new();
    stage.run(&["init"]);
    stage.write("mixed.rten", converted::MIXED_RTEN);
    stage.write("mixed.onnx", converted::MIXED_ONNX);
    stage.write("tiny.onnx", bield_fixtures::tiny_model());
    let pack = |model: &str, more: &[&str]| {
        let usual = [
            "--name",
            "mixed",
            "--version",
            "1",
            "--force",
            "-o",
            "m.bield",
        ];
        stage.run(&[&["--json", "pack", model][..], &usual, more].concat())
    };
    let alone = pack("mixed.rten", &[]);
    assert_eq!(alone.code, 2);
    assert!(
        alone.out.contains("i32, i64 or bool") && alone.out.contains("--onnx"),
        "{}",
        alone.out
    );
    let other = pack("mixed.rten", &["--onnx", "tiny.onnx"]);
    assert_eq!(other.code, 2);
    assert!(other.out.contains("its SHA-256 differs"), "{}", other.out);
    let needless = pack("tiny.onnx", &["--onnx", "tiny.onnx"]);
    assert!(
        needless.out.contains("for .rten files only"),
        "{}",
        needless.out
    );
    stage.write("padded.rten", converted::PADDED_RTEN);
    stage.write("padded.onnx", converted::PADDED_ONNX);
    let wrong = pack("padded.rten", &["--onnx", "padded.onnx"]);
    assert!(
        wrong.out.contains("which rten computes wrongly"),
        "{}",
        wrong.out
    );
    assert!(!stage.path("m.bield").exists());

    let packed = pack("mixed.rten", &["--onnx", "mixed.onnx"]).json();
    assert_eq!(packed["format"], ".rten");
    assert_eq!(packed["inputs"][1], "numbers: i64[?]");
    assert_eq!(packed["outputs"][2], "inverse: bool[?]");
}

#[test]
fn an_ort_file_and_a_rten_file_without_integers_say_everything_themselves() {
    let stage = Stage::new();
    stage.run(&["init"]);
    stage.write("types.ort", converted::TYPES_ORT);
    stage.write("tiny.rten", bield_fixtures::tiny_rten());
    for (model, format, input) in [
        ("types.ort", ".ort", "f16: f16[?]"),
        ("tiny.rten", ".rten", "input: f32[?, 4]"),
    ] {
        let usual = [
            "--name",
            "whole",
            "--version",
            "1",
            "--force",
            "-o",
            "w.bield",
        ];
        let packed = stage
            .run(&[&["--json", "pack", model][..], &usual].concat())
            .json();
        assert_eq!(packed["format"], format);
        let inputs = packed["inputs"].as_array().unwrap();
        assert!(inputs.iter().any(|spec| spec == input), "{packed}");
    }
}

#[test]
fn packing_replaces_nothing_unless_told_and_leaves_nothing_unfinished() {
    let stage = Stage::with_trust(&[closed_port()]);
    assert_eq!(stage.pack(&[]).code, 0);
    let before = fs::read(stage.path("tiny.bield")).unwrap();
    let refused = stage.pack(&[]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("--force")
    );
    assert_eq!(fs::read(stage.path("tiny.bield")).unwrap(), before);
    assert_eq!(stage.pack(&["--force"]).code, 0);
    assert_ne!(fs::read(stage.path("tiny.bield")).unwrap(), before);
    stage.write("golden.json", r#"{"inputs": {}, "expected": {}}"#);
    assert_eq!(stage.pack(&["--force", "--golden", "golden.json"]).code, 2);
    let names = fs::read_dir(stage.0.path()).unwrap();
    let names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        !names.iter().any(|name| name.ends_with("unfinished")),
        "{names:?}"
    );
    // Both keys are there: neither package is lost.
    assert_eq!(
        fs::read_dir(stage.path("home/packages")).unwrap().count(),
        4
    );
}

const CART: &str = r#"
[function]
name = "cart"
version = "0.1.0"
source = "function.wasm"
build = "cp made function.wasm"

[[bucket]]
name = "shop"
consistency = "linearizable"
durability = "local-sync"
"#;

#[test]
fn a_function_is_packed_by_its_description_and_keeps_its_state() {
    let stage = Stage::new();
    stage.run(&["init"]);
    fs::create_dir(stage.path("cart")).unwrap();
    stage.write("cart/bield.toml", CART);
    let service = format!("ed25519:{}", "01".repeat(32));
    let pack = |file: &str, more: &[&str]| {
        let usual = ["--json", "pack", "cart", "--service", &service, "-o", file];
        stage.run(&[&usual[..], more].concat())
    };
    let unbuilt = pack("a.bield", &[]);
    assert_eq!(unbuilt.code, 2);
    assert!(
        unbuilt.out.contains("cp made function.wasm"),
        "{}",
        unbuilt.out
    );
    stage.write("cart/made", b"\0asm\x0d\0\x01\0one");
    let first = pack("a.bield", &["--build"]).json();
    assert_eq!(first["buckets"][0]["consistency"], "linearizable");
    stage.write("cart/made", b"\0asm\x0d\0\x01\0two");
    let second = pack("b.bield", &["--build"]).json();
    assert_ne!(first["component"], second["component"]);
    assert_eq!(first["state"], second["state"]);
    assert_eq!(first["state"].as_str().unwrap().len(), 64);
    let verified = stage.run(&["--json", "verify", "--package", "b.bield"]);
    assert_eq!(verified.code, 0, "{}", verified.out);
    assert!(verified.out.contains("component"), "{}", verified.out);
    let misspelt = CART.replace("durability", "durabillity");
    stage.write("cart/bield.toml", misspelt);
    let refused = pack("c.bield", &[]);
    assert_eq!(refused.code, 2);
    assert!(refused.out.contains("line 11"), "{}", refused.out);
}

#[test]
fn code_that_is_no_component_is_refused_in_its_own_sentence() {
    let stage = Stage::new();
    stage.run(&["init"]);
    fs::create_dir(stage.path("cart")).unwrap();
    stage.write("cart/bield.toml", CART);
    let service = format!("ed25519:{}", "01".repeat(32));
    for (code, sentence) in [
        (&b"\0asm\x01\0\0\0"[..], "core module, not a component"),
        (b"\x7fELF\x02\x01\x01", "never accepted"),
        (b"hello", "does not begin as one"),
    ] {
        stage.write("cart/function.wasm", code);
        let refused = stage.run(&["pack", "cart", "--service", &service, "-o", "x.bield"]);
        assert_eq!(refused.code, 2);
        assert!(refused.err.contains(sentence), "{}", refused.err);
        assert!(!stage.path("x.bield").exists() && !stage.path("home/functions").exists());
    }
    stage.write("f.wasm", b"\0asm\x0d\0\x01\0");
    let alone = [
        "pack",
        "f.wasm",
        "--name",
        "f",
        "--version",
        "1",
        "-o",
        "x.bield",
    ];
    let refused = stage.run(&alone);
    assert!(refused.err.contains("bield.toml"), "{}", refused.err);
}

#[test]
fn what_is_no_model_is_refused_with_its_name() {
    let stage = Stage::new();
    stage.run(&["init"]);
    stage.write("model.onnx", b"not a model");
    let refused = stage.run(&[
        "pack",
        "model.onnx",
        "--name",
        "x",
        "--version",
        "1",
        "-o",
        "x.bield",
    ]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("model.onnx"), "{}", refused.err);
    assert!(!stage.path("x.bield").exists());
}

#[test]
fn inputs_and_names_are_checked_before_anybody_is_asked() {
    let stage = Stage::with_trust(&[closed_port()]);
    stage.write(
        "inputs.json",
        r#"{"inputs": {"x": {"element": "u8", "shape": [1], "data": [999]}}}"#,
    );
    let owner = format!("ed25519:{}", "01".repeat(32));
    let bad = stage.run(&[
        "call",
        "magika",
        "--owner",
        &owner,
        "--input",
        "inputs.json",
    ]);
    assert_eq!(bad.code, 2);
    assert!(bad.err.contains("x: value 0"), "{}", bad.err);
    assert!(
        !bad.err.contains("999"),
        "contents never appear: {}",
        bad.err
    );
    let nameless = stage.run(&["call", "magika", "--input", "inputs.json"]);
    assert_eq!(nameless.code, 2);
    assert!(nameless.err.contains("whose package"), "{}", nameless.err);
    assert_eq!(
        stage.run(&["call", "../x", "--input", "inputs.json"]).code,
        2
    );
    stage.write(
        "inputs.json",
        r#"{"inputs": {"x": {"element": "u8", "shape": [1], "data": [9]}}}"#,
    );
    let nobody = stage.run(&[
        "call",
        "magika",
        "--owner",
        &owner,
        "--input",
        "inputs.json",
    ]);
    assert_eq!(nobody.code, 3, "{}", nobody.err);
}

#[test]
fn a_receipt_needs_somebody_to_believe() {
    let stage = Stage::new();
    stage.write("broken.receipt", b"nonsense");
    assert_eq!(stage.run(&["receipt", "broken.receipt"]).code, 1);
    assert_eq!(stage.run(&["receipt", "missing.receipt"]).code, 2);
}

#[test]
fn a_port_in_use_and_missing_programs_are_sentences() {
    // Alone in a directory, so that no sibling programs are found; linked, because a copy that another
    // test's fork still holds open cannot be started.
    let stage = Stage(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let alone = stage.path("alone");
    fs::create_dir(&alone).unwrap();
    let program = alone.join("bield");
    fs::hard_link(env!("CARGO_BIN_EXE_bield"), &program).unwrap();
    let output = Command::new(&program).arg("dev").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("cargo build --release"), "{err}");

    for name in [
        "bield-software-tee",
        "bield-gateway",
        "bield-keys",
        "bield-runtime",
    ] {
        fs::write(alone.join(name), b"").unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let output = Command::new(&program)
        .args(["dev", "--listen", &address])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        err.contains("is in use") && err.contains("--listen"),
        "{err}"
    );
}

const PROGRAM_DIGEST: &str = "e39e1f28a6212a6f9aa6c9b7ecf4472c64ffe01862ee999e14eb365d40108ec6";
const CONFIGURATION_DIGEST: &str =
    "67a2a95337ba4b368c9c85e44d192933017fdfe35bb0eae5d4768bb446d9519c";
const MEASUREMENT: &str = "sgx:0608a09b86535442e3edabffc7cd19965044106ca1aea64f96233a211eb4d0d1";
