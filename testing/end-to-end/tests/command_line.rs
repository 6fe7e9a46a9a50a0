//! What people type: `bield` against a deployment that `bield dev` started.

#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test is a failed test"
)]

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bield_end_to_end::{SERVERS, Shared, gather, tiny_model, wait_until};
use bield_sdk::Gateway;
use serde_json::{Value, json};
use tempfile::TempDir;

static DEV: Shared<Dev> = Shared::new(Dev::start);

/// A running `bield dev`; stops it when dropped, and when this test dies.
struct Dev {
    directory: TempDir,
    ready: Value,
    child: Child,
    /// `bield dev --until-stdin-ends` runs as long as this is open.
    stdin: Option<ChildStdin>,
}

impl Dev {
    fn start() -> anyhow::Result<Self> {
        let directory = TempDir::new()?;
        gather(&SERVERS, directory.path())?;
        gather(&["bield"], directory.path())?;
        let (http, keys) = free_addresses()?;
        let said = directory.path().join("dev.json");
        let mut child = Command::new(directory.path().join("bield"))
            .args(["--json", "dev", "--until-stdin-ends", "--dir", "dev"])
            .args([
                "--listen",
                &http.to_string(),
                "--keys-listen",
                &keys.to_string(),
            ])
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(fs::File::create(&said)?)
            .stderr(fs::File::create(directory.path().join("dev.log"))?)
            .spawn()?;
        let stdin = child.stdin.take();
        let mut dev = Self {
            directory,
            ready: Value::Null,
            child,
            stdin,
        };
        wait_until(Duration::from_secs(60), || {
            let text = fs::read_to_string(&said).unwrap_or_default();
            dev.ready = serde_json::from_str(&text).unwrap_or_default();
            dev.ready["ready"] == true || matches!(dev.child.try_wait(), Ok(Some(_)))
        });
        if dev.ready["ready"] != true {
            bail!("bield dev: {}", dev.log());
        }
        Ok(dev)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("dev.log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn code(&self, program: &str) -> &str {
        self.ready["measurements"][program].as_str().unwrap()
    }

    /// Runs `bield --json` with a home of `who`; returns the exit code and what it printed.
    fn run(&self, who: &str, arguments: &[&str]) -> (i32, Value) {
        let output = Command::new(self.path("bield"))
            .arg("--json")
            .args(arguments)
            .current_dir(self.directory.path())
            .env("BIELD_HOME", self.path(who))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let value = serde_json::from_str(&said);
        let value = value.unwrap_or_else(|_| panic!("{arguments:?}: {said} {output:?}"));
        (output.status.code().unwrap(), value)
    }

    /// Runs a command that succeeds and prints several values, each on a line.
    fn lines(&self, who: &str, arguments: &[&str]) -> Vec<Value> {
        let output = Command::new(self.path("bield"))
            .arg("--json")
            .args(arguments)
            .current_dir(self.directory.path())
            .env("BIELD_HOME", self.path(who))
            .output()
            .unwrap();
        assert!(output.status.success(), "bield {arguments:?}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let values = said.lines().map(serde_json::from_str);
        values.collect::<Result<_, _>>().unwrap()
    }

    /// Runs a command that succeeds.
    fn done(&self, who: &str, arguments: &[&str]) -> Value {
        let (code, value) = self.run(who, arguments);
        assert_eq!(code, 0, "bield {arguments:?}: {value:#}");
        value
    }

    /// A home that trusts this deployment; returns its principal.
    fn person(&self, who: &str) -> String {
        let trust = self.ready["trust"].as_str().unwrap();
        let made = self.done(who, &["init", "--trust", trust]);
        made["principal"].as_str().unwrap().to_owned()
    }

    /// Packs and uploads a model of `owner`'s; returns the file's name and the digest.
    fn publish(&self, owner: &str, name: &str) -> (String, String) {
        let (model, file) = (format!("{name}.onnx"), format!("{name}.bield"));
        fs::write(self.path(&model), tiny_model(name)).unwrap();
        let packed = self.done(
            owner,
            &[
                "pack",
                &model,
                "--name",
                name,
                "--version",
                "1",
                "-o",
                &file,
            ],
        );
        let digest = packed["package"].as_str().unwrap().to_owned();
        assert_eq!(self.done(owner, &["push", &file])["uploaded"], true);
        assert_eq!(self.done(owner, &["push", &file])["uploaded"], false);
        (file, digest)
    }

    fn inputs(&self, shape: [u64; 2]) -> String {
        let count = shape[0] * shape[1];
        let data: Vec<f64> = (0..count).map(|n| n as f64 / 10.0).collect();
        let inputs = json!({"inputs": {"input": {"element": "f32", "shape": shape, "data": data}}});
        let name = format!("inputs-{count}.json");
        fs::write(self.path(&name), inputs.to_string()).unwrap();
        name
    }

    /// Ends its input and waits; returns the exit code.
    fn stop(&mut self) -> anyhow::Result<i32> {
        drop(self.stdin.take());
        let mut ended = None;
        wait_until(Duration::from_secs(20), || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        ended
            .and_then(|status| status.code())
            .context("it did not stop")
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.stop();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two addresses that were free a moment ago.
fn free_addresses() -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let listeners = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    Ok((listeners[0].local_addr()?, listeners[1].local_addr()?))
}

fn outcomes(value: &Value) -> Vec<&str> {
    let checks = value["checks"].as_array().unwrap();
    checks
        .iter()
        .map(|check| check["outcome"].as_str().unwrap())
        .collect()
}

#[test]
fn a_model_goes_from_pack_to_a_receipt_that_verifies_offline() {
    let dev = DEV.get();
    let (owner, user) = (dev.person("ada"), dev.person("bob"));
    let (file, digest) = dev.publish("ada", "journey");
    let code = dev.code("runtime");
    let granted = dev.done("ada", &["grant", &file, "--user", &user, "--code", code]);
    assert_eq!(granted["grants"][0]["user"], user);
    assert_eq!(granted["simulated"], true);

    let inputs = dev.inputs([2, 4]);
    let call = [
        "call",
        "journey@1",
        "--owner",
        &owner,
        "--input",
        &inputs,
        "--receipt",
        "a.receipt",
    ];
    let answered = dev.done("bob", &call);
    assert_eq!(answered["package"], digest);
    assert_eq!(answered["outputs"]["probs"]["shape"], json!([2, 3]));
    assert_eq!(answered["receipt"]["verified"], true);
    assert_eq!(answered["receipt"]["code"], code);
    assert_eq!(answered["receipt"]["grant"], granted["grants"][0]["digest"]);
    assert_eq!(answered["receipt"]["simulated"], true);

    let streamed = dev.lines("bob", &[&call[..6], &["--stream"]].concat());
    let [early, all] = &streamed[..] else {
        panic!("not an output and the answer: {streamed:?}")
    };
    assert_eq!(early["unproven"], answered["outputs"]);
    assert_eq!(all["outputs"], answered["outputs"]);
    assert_eq!(all["receipt"]["verified"], true);

    let receipt = dev.done("bob", &["receipt", "a.receipt", "--package", &digest]);
    assert_eq!(receipt["passed"], true);
    assert_eq!(
        receipt["receipt"]["request"],
        answered["receipt"]["request"]
    );
    // Another package, or a flipped byte: refused.
    let other = "00".repeat(32);
    let (exit, refused) = dev.run("bob", &["receipt", "a.receipt", "--package", &other]);
    assert_eq!((exit, &refused["passed"]), (1, &json!(false)));
    let mut bytes = fs::read(dev.path("a.receipt")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(dev.path("b.receipt"), bytes).unwrap();
    assert_eq!(dev.run("bob", &["verify", "b.receipt"]).0, 1);

    let package = dev.done("ada", &["verify", "--package", &file]);
    assert!(
        outcomes(&package)
            .iter()
            .all(|outcome| *outcome == "passed"),
        "{package:#}"
    );
}

#[test]
fn verify_lists_each_check_as_passed_failed_or_not_checked() {
    let dev = DEV.get();
    dev.person("carol");
    let verified = dev.done("carol", &["verify"]);
    assert_eq!(verified["passed"], true);
    assert_eq!(verified["simulated"], true);
    assert_eq!(verified["measurement"], dev.code("keys"));
    let outcomes = outcomes(&verified);
    assert!(outcomes.len() >= 10, "{verified:#}");
    let known = ["passed", "failed", "not_checked"];
    assert!(
        outcomes.iter().all(|outcome| known.contains(outcome)),
        "{outcomes:?}"
    );
    assert!(outcomes.contains(&"not_checked") && !outcomes.contains(&"failed"));
    for check in verified["checks"].as_array().unwrap() {
        for key in ["name", "have", "need", "mover"] {
            assert!(
                check[key].as_str().is_some_and(|text| !text.is_empty()),
                "{check}"
            );
        }
    }

    // The same service under a trust file that says nothing of simulation.
    let text = fs::read_to_string(dev.path("dev/trust.toml")).unwrap();
    let strict: String = text
        .lines()
        .filter(|line| !line.starts_with("allow_simulated") && !line.starts_with("simulated_roots"))
        .map(|line| line.replace("\"dev\"", "\"strict\"") + "\n")
        .collect();
    fs::write(dev.path("strict.toml"), strict).unwrap();
    dev.done("strict", &["init", "--trust", "strict.toml"]);
    let (exit, refused) = dev.run("strict", &["verify"]);
    assert_eq!((exit, &refused["error"]["kind"]), (1, &json!("refused")));
    assert!(
        refused["counts"]["failed"].as_u64().unwrap() > 0,
        "{refused:#}"
    );
}

#[test]
fn measure_computes_what_status_and_evidence_report() {
    let dev = DEV.get();
    dev.person("dora");
    let measure = |program: &str, config: &str| {
        dev.done("dora", &["measure", program, "--config", config])["measurement"].clone()
    };
    let status = dev.done("dora", &["status"]);
    let keys = measure("bield-keys", "dev/keys.toml");
    let runtime = measure("bield-runtime", "dev/runtime.toml");
    assert_eq!(keys, dev.code("keys"));
    assert_eq!(runtime, dev.code("runtime"));
    assert_eq!(status["key_service"]["measurement"], keys, "{status:#}");
    let gateway = &status["gateway"];
    assert_eq!(
        gateway["workers"][0]["report"]["measurement"], runtime,
        "{status:#}"
    );
    assert_eq!(gateway["key_service"]["report"]["measurement"], keys);
}

#[test]
fn refusals_local_trouble_and_silence_have_exit_codes_of_their_own() {
    let dev = DEV.get();
    let (owner, _) = (dev.person("eve"), dev.person("mallory"));
    let (file, digest) = dev.publish("eve", "exits");
    dev.done(
        "eve",
        &[
            "grant",
            &file,
            "--user",
            "me",
            "--code",
            dev.code("runtime"),
        ],
    );
    let inputs = dev.inputs([1, 4]);

    let call = ["call", &digest, "--input", &inputs];
    let (exit, refused) = dev.run("mallory", &call);
    assert_eq!((exit, &refused["error"]["kind"]), (1, &json!("refused")));
    let said = refused["error"]["message"].as_str().unwrap();
    assert!(said.contains("user-not-granted"), "{said}");
    dev.done("eve", &call);

    let (exit, unknown) = dev.run(
        "eve",
        &["call", "nothing", "--owner", &owner, "--input", &inputs],
    );
    assert_eq!(exit, 1, "{unknown:#}");
    let wrong = dev.inputs([1, 5]);
    let (exit, local) = dev.run("eve", &["call", &digest, "--input", &wrong]);
    assert_eq!((exit, &local["error"]["kind"]), (2, &json!("local")));
    let (exit, _) = dev.run("eve", &["call", &digest, "--input", "missing.json"]);
    assert_eq!(exit, 2);

    // Whoever trusts a deployment that is not there.
    let (nobody, _) = free_addresses().unwrap();
    let trust = fs::read_to_string(dev.path("dev/trust.toml")).unwrap();
    let keys = dev.ready["key_service"].as_str().unwrap();
    fs::write(
        dev.path("away.toml"),
        trust.replace(keys, &nobody.to_string()),
    )
    .unwrap();
    dev.done("frank", &["init", "--trust", "away.toml"]);
    let (exit, away) = dev.run("frank", &["verify"]);
    assert_eq!((exit, &away["error"]["kind"]), (3, &json!("unreachable")));
}

#[test]
fn dev_stops_everything_it_started_and_keeps_what_it_was_given() {
    let mut dev = Dev::start().unwrap();
    dev.person("grace");
    let (file, digest) = dev.publish("grace", "lasting");
    let code = dev.code("runtime").to_owned();
    dev.done("grace", &["grant", &file, "--user", "me", "--code", &code]);

    // A second one on the same ports is told so, and harms nothing.
    let http = dev.ready["gateway"].as_str().unwrap().to_owned();
    let address = http.trim_start_matches("http://");
    let (exit, taken) = dev.run("grace", &["dev", "--dir", "second", "--listen", address]);
    assert_eq!(exit, 2);
    let said = taken["error"]["message"].as_str().unwrap();
    assert!(
        said.contains("in use") && said.contains("--listen"),
        "{said}"
    );
    assert!(Gateway::new(&http).is_ready());

    assert_eq!(dev.stop().unwrap(), 0, "{}", dev.log());
    assert!(!Gateway::new(&http).is_ready());
    assert_eq!(running_from(dev.directory.path()), Vec::<PathBuf>::new());
    assert!(dev.path(&format!("dev/packages/{digest}.bield")).is_file());
    assert!(dev.path("dev/storage").read_dir().unwrap().next().is_some());
}

/// Programs of `directory` that still run.
fn running_from(directory: &Path) -> Vec<PathBuf> {
    let mut running = Vec::new();
    wait_until(Duration::from_secs(5), || {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let programs =
            processes.filter_map(|process| fs::read_link(process.path().join("exe")).ok());
        running = programs
            .filter(|program| program.starts_with(directory))
            .collect();
        running.is_empty()
    });
    running
}
