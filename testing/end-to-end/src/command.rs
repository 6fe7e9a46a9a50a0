//! What people type, with the home of somebody who also uses the SDK.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::{Person, program};

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code.
    pub code: i32,
    /// What it printed as JSON.
    pub value: Value,
}

impl Ran {
    /// The failure's sentence; empty when there is none.
    pub fn message(&self) -> &str {
        self.value["error"]["message"].as_str().unwrap_or_default()
    }

    /// The checks of this name: outcome and what was found.
    pub fn checks(&self, name: &str) -> Vec<(String, String)> {
        let checks = self.value["checks"].as_array().into_iter().flatten();
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        checks
            .filter(|check| check["name"] == name)
            .map(|check| (text(check, "outcome"), text(check, "have")))
            .collect()
    }
}

impl Person {
    /// Runs `bield --json` with this person's home.
    ///
    /// # Errors
    /// The program is missing, or printed no JSON.
    pub fn bield<A: AsRef<std::ffi::OsStr>>(&self, arguments: &[A]) -> anyhow::Result<Ran> {
        bield(self.home.path(), arguments)
    }

    /// Runs a command that succeeds.
    ///
    /// # Errors
    /// It does not.
    pub fn does<A: AsRef<std::ffi::OsStr>>(&self, arguments: &[A]) -> anyhow::Result<Value> {
        let ran = self.bield(arguments)?;
        anyhow::ensure!(ran.code == 0, "exit code {}: {:#}", ran.code, ran.value);
        Ok(ran.value)
    }
}

fn bield<A: AsRef<std::ffi::OsStr>>(home: &Path, arguments: &[A]) -> anyhow::Result<Ran> {
    let output = Command::new(program("bield")?)
        .arg("--json")
        .args(arguments)
        .current_dir(home)
        .env("BIELD_HOME", home)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&said).map_err(|_| {
        anyhow::anyhow!("no JSON: {said}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    let code = output.status.code().unwrap_or(-1);
    Ok(Ran { code, value })
}
