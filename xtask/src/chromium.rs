//! The browser that the status page's test starts: the one on the path, or Debian's, installed where this may do so.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::programs::succeed;

/// What Chromium is called by its packagers.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Installs Debian's, unless there is one.
///
/// # Errors
/// There is none and it cannot be installed: says how to.
pub(crate) fn install() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    let how = "the status page is tested in Chromium, which is not here: as root, apt-get install chromium";
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        succeed(apt.stdout(Stdio::null()))
    };
    apt(&["update", "--quiet"]).context(how)?;
    apt(&["install", "--yes", "--no-install-recommends", "chromium"]).context(how)
}

fn is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_at = |name| std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    NAMES.into_iter().any(is_at)
}
