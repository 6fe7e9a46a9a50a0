//! workerd, Cloudflare's runtime, with the function of `examples/counter` in it: from npm, as `cargo xtask bench` fetched it.
//!
//! ```text
//! main.js ─▶ function.js ─▶ bield/handler.js, bield/kv.js        the files that the component is built from
//!                                └─▶ wasi:keyvalue/…, bield:function/log     maps of this bench
//! ```

use std::cell::Cell;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use ureq::Agent;

use super::sealed::sum;
use crate::runtime::load::Client;

/// A running one, which ends when it is dropped.
pub(super) struct Workerd {
    child: Child,
    url: String,
    clients: AtomicUsize,
    folder: TempDir,
}

impl Workerd {
    /// Starts one; the seconds from then to its first answer.
    pub(super) fn start(folder: &Path) -> Result<(Self, f64)> {
        let program = program()?;
        let folder = tempfile::tempdir_in(folder)?;
        fs::write(
            folder.path().join("config.capnp"),
            configuration(folder.path())?,
        )?;
        let begun = Instant::now();
        let mut child = Command::new(program)
            .args(["serve", "--control-fd=1", "config.capnp"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let said = child.stdout.take().context("its standard output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let mut workerd = Self {
            child,
            url: String::new(),
            clients: AtomicUsize::new(0),
            folder,
        };
        let listens: serde_json::Value = serde_json::from_str(&line)
            .with_context(|| format!("workerd does not listen: {}", workerd.log()))?;
        let port = listens["port"].as_u64().with_context(|| line.clone())?;
        workerd.url = format!("http://127.0.0.1:{port}/add");
        add(&agent(), &workerd.url, "first")
            .with_context(|| format!("workerd: {}", workerd.log()))?;
        Ok((workerd, begun.elapsed().as_secs_f64()))
    }

    /// A client that adds to a counter of its own, and checks each sum.
    pub(super) fn client(&self) -> Result<Client<'_>> {
        let agent = agent();
        let key = format!("clicks-{}", self.clients.fetch_add(1, Ordering::Relaxed));
        let last = Cell::new(0);
        Ok(Box::new(move || {
            let sum = add(&agent, &self.url, &key)?;
            ensure!(sum == last.replace(sum) + 1, "it counts wrong");
            Ok(())
        }))
    }

    /// What it calls itself.
    pub(super) fn version() -> Result<String> {
        let output = Command::new(program()?).arg("--version").output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        // It keeps nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Result<PathBuf> {
    let program = std::env::var_os("BIELD_WORKERD").map(PathBuf::from);
    program.context("workerd was not fetched (npm and its registry are needed once)")
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .proxy(None);
    config.build().new_agent()
}

fn add(agent: &Agent, url: &str, key: &str) -> Result<u64> {
    let body = format!("{{\"name\":\"{key}\",\"by\":1}}");
    let mut answer = agent
        .post(url)
        .content_type("application/json")
        .send(body)?;
    sum(&answer.body_mut().read_to_vec()?)
}

/// Writes the modules, and tells which they are.
fn configuration(folder: &Path) -> Result<String> {
    let mut listed = String::new();
    for (at, (name, text)) in MODULES.into_iter().enumerate() {
        let file = format!("module-{at}.js");
        fs::write(folder.join(&file), text)?;
        listed.push_str(&format!(
            "    (name = \"{name}\", esModule = embed \"{file}\"),\n"
        ));
    }
    Ok(format!(
        "using Workerd = import \"/workerd/workerd.capnp\";\n\
         const config :Workerd.Config = (\n  services = [(name = \"main\", worker = .counter)],\n  \
         sockets = [(name = \"http\", address = \"127.0.0.1:0\", http = (), service = \"main\")],\n);\n\
         const counter :Workerd.Worker = (\n  modules = [\n{listed}  ],\n  compatibilityDate = \"2026-01-01\",\n);\n"
    ))
}

/// By the names under which they import each other, which workerd reads as paths from the importing module; the first is
/// the worker.
const MODULES: [(&str, &str); 9] = [
    ("main.js", include_str!("workerd/main.js")),
    (
        "function.js",
        include_str!("../../../../examples/counter/src/function.js"),
    ),
    (
        "bield/handler.js",
        include_str!("../../../../client/cli/templates/javascript/src/bield/handler.js"),
    ),
    (
        "bield/kv.js",
        include_str!("../../../../client/cli/templates/javascript/src/bield/kv.js"),
    ),
    (
        "bield/text.js",
        include_str!("../../../../client/cli/templates/javascript/src/bield/text.js"),
    ),
    (
        "bield/bield:function/log@0.1.0",
        include_str!("workerd/log.js"),
    ),
    (
        "bield/wasi:keyvalue/store@0.2.0-draft2",
        include_str!("workerd/store.js"),
    ),
    (
        "bield/wasi:keyvalue/atomics@0.2.0-draft2",
        include_str!("workerd/atomics.js"),
    ),
    (
        "bield/wasi:keyvalue/batch@0.2.0-draft2",
        include_str!("workerd/batch.js"),
    ),
];
