//! A running `bield proxy`, and questions to it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use bield_end_to_end::{Person, Process, program};
use serde_json::Value;

/// Stops when dropped.
pub(crate) struct Running {
    pub(crate) process: Process,
    /// `http://127.0.0.1:…`
    pub(crate) rest: String,
    /// `127.0.0.1:…`
    pub(crate) grpc: String,
}

impl Running {
    /// Starts it on free ports with `arguments`.
    pub(crate) fn start(user: &Person, arguments: &[&str]) -> anyhow::Result<Self> {
        let home = user.home.path();
        let mut command = Command::new(program("bield")?);
        command.args([
            "--json",
            "proxy",
            "--listen=127.0.0.1:0",
            "--grpc-listen=127.0.0.1:0",
        ]);
        command
            .args(arguments)
            .env("BIELD_HOME", home)
            .current_dir(home);
        let mut process = Process::start(&mut command, &home.join("proxy.log"))?;
        let ready = process.says("{", Duration::from_secs(60))?;
        let ready: Value = serde_json::from_str(&format!("{{{ready}"))?;
        let text = |name: &str| ready[name].as_str().map(str::to_owned);
        Ok(Self {
            rest: text("listening").with_context(|| ready.to_string())?,
            grpc: text("grpc").with_context(|| ready.to_string())?,
            process,
        })
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        read(agent().get(format!("{}{path}", self.rest)).call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = agent().post(format!("{}{path}", self.rest));
        read(request.send(body.to_string().as_bytes()))
    }
}

/// Keeps from a Python client what would lead it elsewhere.
pub(crate) fn python(interpreter: &Path) -> Command {
    let mut command = Command::new(interpreter);
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command
            .env_remove(variable)
            .env_remove(variable.to_lowercase());
    }
    // No byte code beside the sources.
    command.arg("-B");
    command
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None);
    config.build().new_agent()
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> (u16, Value) {
    let mut answer = answer.unwrap();
    let text = answer.body_mut().read_to_string().unwrap();
    (
        answer.status().as_u16(),
        serde_json::from_str(&text).unwrap(),
    )
}
