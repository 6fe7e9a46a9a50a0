//! Building the programs and finding them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Every program that a running system has, with the package that builds it.
const PROGRAMS: [(&str, &str); 9] = [
    ("bield-cli", "bield"),
    ("bield-gateway", "bield-gateway"),
    ("bield-keys", "bield-keys"),
    ("bield-runtime", "bield-runtime"),
    ("bield-software-tee", "bield-software-tee"),
    ("bield-store", "bield-store"),
    ("bield-store", "bield-witness"),
    ("bield-worker", "bield-worker"),
    ("file-type", "file-type"),
];

/// Which engines the runtime has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engines {
    /// Those that it has when nothing is said.
    Usual,
    /// onnxruntime as well.
    All,
}

/// The packages that build them.
pub(crate) fn packages() -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().map(|(package, _)| package)
}

/// Builds all programs and returns the folder they are in.
pub(crate) fn build(release: bool, engines: Engines) -> Result<PathBuf> {
    let mut build = cargo();
    build.arg("build");
    for package in packages() {
        build.args(["--package", package]);
    }
    build.arg("--bins");
    if engines == Engines::All {
        build.args(["--features", "bield-runtime/engine-ort"]);
    }
    if release {
        build.arg("--release");
    }
    succeed(&mut build)?;
    Ok(target_directory()?.join(if release { "release" } else { "debug" }))
}

/// The cargo that runs this, in the repository's root.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // What the outer cargo says of this program would look like a change to build scripts.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_CRATE_",
            "CARGO_BIN_",
        ]
        .iter()
        .any(|prefix| text.starts_with(prefix))
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> Result<PathBuf> {
    let mut metadata = cargo_metadata::MetadataCommand::new();
    metadata.manifest_path(root().join("Cargo.toml")).no_deps();
    Ok(metadata
        .exec()
        .context("reading cargo metadata")?
        .target_directory
        .into())
}

/// Runs a command and fails when it does.
pub(crate) fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
