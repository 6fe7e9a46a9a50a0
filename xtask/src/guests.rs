//! Components of the functions in `examples/` that are written in JavaScript, for tests and for whoever tries them.
//!
//! ```text
//! npm install ─▶ target/guests/npm, oracle  what the template's package.json and the oracle's pin, once
//! examples/NAME: npm run build ─▶ target/guests/NAME.wasm
//! ```
//!
//! Always true: an example is built by the command that its README gives; it is built again only when something it is
//! built from changed, because each build has another digest and what is compiled from it would be compiled again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::programs::{root, succeed, target_directory};

/// The examples.
const EXAMPLES: [&str; 4] = ["cart", "classifier", "counter", "path-search"];

/// Where the tools are pinned: what `bield new` gives people.
const PINNED: &str = "client/cli/templates/javascript/package.json";

/// Where the second host of the tests is, which Node runs.
const ORACLE: &str = "testing/guests/oracle";

/// Builds what is not up to date; says where it is.
pub(crate) fn run() -> Result<()> {
    for (variable, path) in prepare()? {
        println!("{variable}={}", path.display());
    }
    Ok(())
}

/// Builds what is not up to date; the variables by which tests find the components, and the tools.
pub(crate) fn prepare() -> Result<Vec<(&'static str, PathBuf)>> {
    let place = target_directory()?.join("guests");
    let needed = "npm, Node 18 or newer and the registry are needed once";
    let tools = install(&root().join(PINNED), &place.join("npm"))
        .with_context(|| format!("installing what builds functions in JavaScript: {needed}"))?;
    let oracle = root().join(ORACLE);
    let (script, beside) = (oracle.join("host.mjs"), place.join("oracle"));
    install(&oracle.join("package.json"), &beside)
        .with_context(|| format!("installing the second host of functions: {needed}"))?;
    // Node looks for packages beside the script.
    let beside = beside.join("host.mjs");
    fs::copy(script, &beside)?;
    for example in EXAMPLES {
        build(example, &place, &tools).with_context(|| format!("building examples/{example}"))?;
    }
    Ok(vec![
        ("BIELD_GUESTS", place),
        ("BIELD_GUESTS_TOOLS", tools),
        ("BIELD_GUESTS_ORACLE", beside),
    ])
}

/// Installs what a `package.json` asks for; the folder of its programs.
pub(crate) fn install(pinned: &Path, place: &Path) -> Result<PathBuf> {
    let programs = place.join("node_modules/.bin");
    let installed = place.join("installed.json");
    let pinned = fs::read(pinned)?;
    if fs::read(&installed).is_ok_and(|installed| installed == pinned) {
        return Ok(programs);
    }
    fs::create_dir_all(place)?;
    let named = String::from_utf8_lossy(&pinned).replace("{{name}}", "guests");
    fs::write(place.join("package.json"), named)?;
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--no-package-lock",
        "--ignore-scripts",
    ]);
    succeed(npm.current_dir(place))?;
    // Written last: an installation that broke off is begun anew.
    fs::write(installed, pinned)?;
    Ok(programs)
}

fn build(example: &str, place: &Path, tools: &Path) -> Result<()> {
    let folder = root().join("examples").join(example);
    let (built, from) = (
        place.join(format!("{example}.wasm")),
        place.join(format!("{example}.from")),
    );
    let mut sources = fs::read(folder.join("package.json"))?;
    read_all(&folder.join("src"), &mut sources)?;
    read_all(&folder.join("wit"), &mut sources)?;
    if built.exists() && fs::read(&from).is_ok_and(|from| from == sources) {
        return Ok(());
    }
    let mut path = vec![tools.to_owned()];
    path.extend(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    ));
    let mut npm = Command::new("npm");
    npm.args(["run", "--silent", "build"]).current_dir(&folder);
    npm.env("PATH", std::env::join_paths(path)?)
        .stdout(Stdio::null());
    succeed(&mut npm)?;
    fs::copy(folder.join("function.wasm"), &built)?;
    Ok(fs::write(from, sources)?)
}

/// Names and contents of all files below a folder, in order.
fn read_all(folder: &Path, into: &mut Vec<u8>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        into.extend_from_slice(path.as_os_str().as_encoded_bytes());
        if path.is_dir() {
            read_all(&path, into)?;
        } else {
            into.extend(fs::read(&path)?);
        }
    }
    Ok(())
}
