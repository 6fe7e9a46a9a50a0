//! The toolchain for functions in C: zig and wasm-tools, as the template pins them. 450 MB, half a minute the first time.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Variables;
use crate::clients::environment;
use crate::programs::root;

/// What `bield new --lang c` gives people.
const PINNED: &str = "client/cli/templates/c/requirements.txt";

/// Installs it; the variables by which tests find it.
pub(super) fn prepare(place: &Path) -> Result<Variables> {
    let python = environment(&place.join("c"), &root().join(PINNED)).context(
        "installing what builds functions in C: Python 3.9 or newer, pip and PyPI are needed once",
    )?;
    let tools = python.parent().context("programs stand in a folder")?;
    Ok(vec![
        ("BIELD_C_TOOLS", tools.to_owned()),
        ("BIELD_ZIG", tools.join("python-zig")),
    ])
}
