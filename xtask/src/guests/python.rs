//! The function in Python of the tests: `testing/guests/python` with the template's `bield/` beside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Variables, path_from, read_all, unless_built};
use crate::clients::environment;
use crate::programs::{root, succeed};

/// What `bield new --lang python` gives people.
const TEMPLATE: &str = "client/cli/templates/python";

/// What the tests call.
const GUEST: &str = "testing/guests/python";

/// The interfaces.
const WIT: &str = "enclave/function/wit";

/// Installs what the template pins and builds the component; takes half a minute the first time.
pub(super) fn prepare(place: &Path) -> Result<Variables> {
    let template = root().join(TEMPLATE);
    let pinned = template.join("requirements.txt");
    let python = environment(&place.join("python"), &pinned).context(
        "installing what builds functions in Python: Python 3.10 or newer, pip and PyPI are needed once",
    )?;
    let tools = python.parent().context("programs stand in a folder")?;
    let (guest, wit) = (root().join(GUEST), root().join(WIT));
    let mut sources = fs::read(&pinned)?;
    for folder in [&template.join("src/bield"), &guest, &wit] {
        read_all(folder, &mut sources)?;
    }
    unless_built("python", place, sources, |built| {
        // A folder of its own, because Python keeps what it compiled beside what it read.
        let work = place.join(format!("python.{}", std::process::id()));
        let made = build(
            &work,
            &template.join("src/bield"),
            &guest,
            &wit,
            tools,
            built,
        );
        // What is left there is of no use to anybody.
        let _ = fs::remove_dir_all(&work);
        made
    })
    .context("building testing/guests/python")?;
    Ok(vec![("BIELD_GUESTS_PYTHON", tools.to_owned())])
}

fn build(
    work: &Path,
    bield: &Path,
    guest: &Path,
    wit: &Path,
    tools: &Path,
    built: &Path,
) -> Result<()> {
    let beside = work.join("bield");
    fs::create_dir_all(&beside)?;
    for entry in fs::read_dir(bield)? {
        let from = entry?.path();
        if let Some(name) = from.file_name().filter(|_| from.is_file()) {
            fs::copy(&from, beside.join(name))?;
        }
    }
    fs::copy(guest.join("app.py"), work.join("app.py"))?;
    // As build.sh of the template has it.
    let mut build = Command::new("componentize-py");
    build.env("PATH", path_from(tools)?).arg("--quiet");
    build
        .arg("--wit-path")
        .arg(wit)
        .args(["--world", "function"]);
    build.arg("componentize").arg("--python-path").arg(work);
    succeed(build.arg("--output").arg(built).arg("app"))
}
