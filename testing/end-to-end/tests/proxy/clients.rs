//! People's tools unchanged: tritonclient, kserve and openai from PyPI through `bield proxy`, with real models.
//!
//! Each script of `clients/python` compares what it gets with onnxruntime and says what was secret; here is looked
//! whether the host ever had it. `cargo xtask test` prepares the clients, the models and a tokenizer.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use bield_end_to_end::{Canary, Person, Shared, Stack, scan};
use bield_sdk::Randomness;
use rand_core::Rng as _;
use serde_json::{Value, json};

use crate::running::{Running, python};

static SERVED: Shared<Served> = Shared::new(Served::start);

/// What every request must show.
const TOKEN: &str = "shown-by-the-clients-of-a-test";

/// A deployment with both models, and a user whose proxy serves them.
struct Served {
    stack: Stack,
    user: Person,
    proxy: Running,
    magika: String,
}

impl Served {
    fn start() -> anyhow::Result<Self> {
        let stack = Stack::start_runtime_with(None, |config| config.models_mib_max = 1024)?;
        let (owner, user) = (stack.person("owner")?, stack.person("user")?);
        let magika = publish(&owner, &user, "magika", "BIELD_MODEL_MAGIKA")?;
        let minilm = publish(&owner, &user, "minilm", "BIELD_MODEL_MINILM")?;
        let token = user.home.path().join("token");
        fs::write(&token, TOKEN)?;
        fs::set_permissions(&token, Permissions::from_mode(0o600))?;
        let arguments = [
            format!("--model=magika={magika}"),
            format!("--model=minilm={minilm}"),
            format!(
                "--tokenizer=minilm={}",
                prepared("BIELD_TOKENIZER_MINILM").display()
            ),
            format!("--token-file={}", token.display()),
        ];
        let proxy = Running::start(&user, &arguments.each_ref().map(String::as_str))?;
        Ok(Self {
            stack,
            user,
            proxy,
            magika,
        })
    }

    /// Runs a client and looks for its secrets in everything the host has.
    fn runs(&self, script: &str) {
        let mut secret = [0; 48];
        Randomness.fill_bytes(&mut secret);
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python");
        let mut python = python(&prepared("BIELD_CLIENTS_PYTHON"));
        let told = json!({
            "rest": self.proxy.rest, "grpc": self.proxy.grpc, "token": TOKEN,
            "secret": hex::encode(secret),
            "magika": prepared("BIELD_MODEL_MAGIKA"), "minilm": prepared("BIELD_MODEL_MINILM"),
            "tokenizer": prepared("BIELD_TOKENIZER_MINILM"),
        });
        let mut running = python
            .arg(directory.join(script))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        running
            .stdin
            .take()
            .unwrap()
            .write_all(told.to_string().as_bytes())
            .unwrap();
        let ran = running.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(
            ran.status.success(),
            "{script}: {said}\n{}",
            self.proxy.process.said()
        );
        let told: Value = serde_json::from_slice(&ran.stdout).unwrap();

        let secrets = told["secrets"].as_object().unwrap().iter();
        let bytes = |text: &Value| hex::decode(text.as_str().unwrap()).unwrap();
        let canaries: Vec<_> = secrets
            .map(|(name, text)| Canary::new(name, &bytes(text)))
            .collect();
        assert!(canaries.len() > 3, "{script}: {told}");
        let findings = scan(self.stack.host(), &canaries).unwrap();
        assert!(findings.is_empty(), "{script}: {findings:#?}");
        // The search reaches what passed on the way: the package's digest is public.
        let digest = Canary::new("the digest", &hex::decode(&self.magika).unwrap());
        let found = scan(&self.stack.host().join("taps"), &[digest]).unwrap();
        assert!(!found.is_empty(), "{script}");

        let receipts = told["receipts"].as_array().unwrap();
        assert!(!receipts.is_empty(), "{script}");
        for receipt in receipts {
            let shown = self
                .user
                .does(&["receipt", receipt.as_str().unwrap()])
                .unwrap();
            assert_eq!(shown["passed"], json!(true));
            assert_eq!(&shown["receipt"]["request"], receipt);
        }
    }
}

/// A file that `cargo xtask test` prepared.
fn prepared(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable).map(PathBuf::from);
    path.unwrap_or_else(|| {
        panic!("{variable} is not set: run `cargo xtask test`, which prepares the clients of these tests and says where")
    })
}

/// Packs, uploads and grants a real model as its owner types it; returns the package's digest.
fn publish(owner: &Person, user: &Person, name: &str, model: &str) -> anyhow::Result<String> {
    let (model, file) = (prepared(model), format!("{name}.bield"));
    let model = model.to_str().context("a path")?;
    let packed = owner.does(&[
        "pack",
        model,
        "--name",
        name,
        "--version",
        "3.1",
        "-o",
        &file,
    ])?;
    owner.does(&["push", &file])?;
    let (user, code) = (
        user.principal().to_string(),
        owner.trust.code()[0].to_string(),
    );
    owner.does(&["grant", &file, "--user", &user, "--code", &code])?;
    Ok(packed["package"].as_str().context("a digest")?.to_owned())
}

#[test]
fn tritonclient_over_http_gets_real_answers_and_the_host_sees_ciphertext() {
    SERVED.get().runs("triton_http.py");
}

#[test]
fn tritonclient_over_grpc_gets_real_answers_and_the_host_sees_ciphertext() {
    SERVED.get().runs("triton_grpc.py");
}

#[test]
fn kserve_gets_real_answers_and_the_host_sees_ciphertext() {
    SERVED.get().runs("kserve_client.py");
}

#[test]
fn openai_gets_embeddings_of_real_sentences_and_the_host_sees_ciphertext() {
    SERVED.get().runs("openai_client.py");
}
