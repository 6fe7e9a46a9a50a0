//! Clients of other people that npm brings, pinned by their lock files in `testing/end-to-end/clients`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// Installs the client `name` beside the tests, unless it is there.
///
/// # Errors
/// npm is missing, or cannot install it; says what to do.
pub fn npm_client(name: &str) -> anyhow::Result<PathBuf> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name);
    let lock = fs::read(from.join("package-lock.json"))?;
    let test = std::env::current_exe().context("where this test is")?;
    let built = test.parent().and_then(Path::parent);
    let clients = built
        .context("this test is not in a target directory")?
        .join("clients");
    let place = clients.join(name);
    if fs::read(place.join("package-lock.json")).is_ok_and(|installed| installed == lock) {
        return Ok(place);
    }
    // Beside its place, and put there when it is whole: others may be at it.
    let draft = clients.join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&draft)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(from.join(file), draft.join(file))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
    let installed = npm.current_dir(&draft).output().context(
        "npm does not start; this test uses the real client from npm: install Node and npm (apt-get install nodejs npm)",
    )?;
    let said = String::from_utf8_lossy(&installed.stderr).into_owned();
    ensure!(
        installed.status.success(),
        "npm ci of the client {name} failed; it needs the npm registry once: {said}"
    );
    // An older one that is in the way goes; one that another test has just put there is as good.
    if fs::rename(&draft, &place).is_err() {
        if fs::read(place.join("package-lock.json")).is_ok_and(|installed| installed == lock) {
            fs::remove_dir_all(&draft)?;
        } else {
            let old = clients.join(format!("{name}-{}-old", std::process::id()));
            fs::rename(&place, &old)?;
            fs::rename(&draft, &place)?;
            fs::remove_dir_all(&old)?;
        }
    }
    Ok(place)
}

/// Runs `script` of the client `name` with Node: one JSON object in, one out.
///
/// # Errors
/// Node is missing, or the script failed; says what it said.
pub fn node(name: &str, script: &str, input: &Value) -> anyhow::Result<Value> {
    let client = npm_client(name)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name)
        .join(script);
    let mut node = Command::new("node");
    node.arg(script).arg(client);
    for proxy in ["PROXY", "HTTP_PROXY", "HTTPS_PROXY"] {
        node.env_remove(proxy).env_remove(proxy.to_lowercase());
    }
    let node = node
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut node = node.context(
        "node does not start; this test uses the real client from npm: install Node (apt-get install nodejs)",
    )?;
    let mut stdin = node.stdin.take().context("its standard input")?;
    stdin.write_all(input.to_string().as_bytes())?;
    drop(stdin);
    let ended = node.wait_with_output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.success(), "the client failed: {said}");
    serde_json::from_slice(&ended.stdout).with_context(|| format!("no JSON: {said}"))
}
