//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, bail};

/// The programs of a deployment; `bield` is the one that people run.
pub const SERVERS: [&str; 4] = [
    "bield-software-tee",
    "bield-gateway",
    "bield-keys",
    "bield-runtime",
];

/// Puts programs into `directory`, where no build replaces them while they are measured and run.
///
/// # Errors
/// See [`program`]; or the directory cannot be written.
pub fn gather(names: &[&str], directory: &Path) -> anyhow::Result<()> {
    for name in names {
        let (from, to) = (program(name)?, directory.join(name));
        fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop))?;
    }
    Ok(())
}

/// The built program `name`: in `BIELD_PROGRAMS` if that is set, else where cargo put it beside the tests.
///
/// # Errors
/// It is not there; says how to build it.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let directory = match env::var_os("BIELD_PROGRAMS") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let test = env::current_exe().context("where this test is")?;
            // target/debug/deps/test-0123 → target/debug
            let above = test.parent().and_then(|deps| deps.parent());
            above
                .context("this test is not in a target directory")?
                .into()
        }
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!(
            "{} is missing: `cargo xtask test` builds the programs before these tests; by hand, \
             `cargo build -p {name}` does, or set BIELD_PROGRAMS to the directory that holds them",
            path.display()
        );
    }
    Ok(path)
}
