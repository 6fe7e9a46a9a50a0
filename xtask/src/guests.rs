//! Components of functions in the languages that people write them in, for tests and for whoever tries them.
//!
//! ```text
//! npm install, pip install ─▶ target/guests/npm, oracle, python, c   what the templates and the oracle pin, once
//! examples/NAME: npm run build ───────────────▶ target/guests/NAME.wasm
//! testing/guests/python: componentize-py ─────▶ target/guests/python.wasm
//! client/cli/templates/rust: cargo ────────────▶ target/guests/rust.wasm, where a Rust for WebAssembly can be had
//! target/guests/compiled                         what tests compiled of these, sealed; emptied when one is built anew
//! ```
//!
//! Always true: an example is built by the command that its README gives; a component is built again only when something it
//! is built from changed, because each build has another digest and what is compiled from it would be compiled again.

mod c;
mod python;
mod rust;

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

/// What tests find something by, and where it is.
pub(crate) type Variables = Vec<(&'static str, PathBuf)>;

/// Builds what is not up to date; says where it is.
pub(crate) fn run() -> Result<()> {
    for (variable, path) in prepare()? {
        println!("{variable}={}", path.display());
    }
    Ok(())
}

/// Builds what is not up to date; the variables by which tests find the components, and the tools.
pub(crate) fn prepare() -> Result<Variables> {
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
    let mut variables = vec![
        ("BIELD_GUESTS", place.clone()),
        ("BIELD_GUESTS_TOOLS", tools),
        ("BIELD_GUESTS_ORACLE", beside),
    ];
    variables.extend(python::prepare(&place)?);
    let c = c::prepare(&place)?;
    let wasm_tools = c.first().map(|(_, folder)| folder.clone());
    variables.extend(c);
    variables.extend(rust::prepare(&place, &wasm_tools.unwrap_or_default())?);
    Ok(variables)
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
    let mut sources = fs::read(folder.join("package.json"))?;
    read_all(&folder.join("src"), &mut sources)?;
    read_all(&folder.join("wit"), &mut sources)?;
    unless_built(example, place, sources, |built| {
        let mut npm = Command::new("npm");
        npm.args(["run", "--silent", "build"]).current_dir(&folder);
        npm.env("PATH", path_from(tools)?).stdout(Stdio::null());
        succeed(&mut npm)?;
        fs::copy(folder.join("function.wasm"), built)?;
        Ok(())
    })
}

/// Builds `NAME.wasm` unless it was built from just these sources.
fn unless_built(
    name: &str,
    place: &Path,
    sources: Vec<u8>,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let (built, from) = (
        place.join(format!("{name}.wasm")),
        place.join(format!("{name}.from")),
    );
    if built.exists() && fs::read(&from).is_ok_and(|from| from == sources) {
        return Ok(());
    }
    make(&built)?;
    let compiled = place.join("compiled");
    if compiled.exists() {
        fs::remove_dir_all(compiled)?;
    }
    // Written last: what broke off is begun anew.
    Ok(fs::write(from, sources)?)
}

/// The path for programs, with a folder before all others.
fn path_from(folder: &Path) -> Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(folders)?)
}

/// Names and contents of all files below a folder, in order; of a file, its contents.
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
