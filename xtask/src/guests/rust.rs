//! What `bield new --lang rust` writes, as a component: `target/guests/rust.wasm`, where a Rust for WebAssembly can be had.
//!
//! ```text
//! rustup's wasm32-wasip2 ─────────▶ sh build.sh, as the template's README says
//! rustup's wasm32-unknown-unknown ─┐
//! Debian's rustc-web, unpacked ────┴▶ cargo build ─▶ wasm-tools component new     the same component, without WASI
//! ```
//!
//! Always true: where none is there, the reason is said and no component of an earlier time is left behind. Debian's is 137 MB to
//! fetch and 0.8 GB unpacked, with a standard library that is built for the target; it is taken away again, and fetched
//! again when the template changed. Nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Variables, read_all, unless_built};
use crate::programs::{cargo, root, succeed};

/// What people get.
const TEMPLATE: &str = "client/cli/templates/rust";

/// The interfaces.
const WIT: &str = "enclave/function/wit";

/// What of Debian is needed; the newest versions are of one release.
const PACKAGES: [&str; 4] = [
    "rustc-web",
    "libstd-rust-web-dev",
    "rust-web-src",
    "libllvm22",
];

/// Builds it if it can be; the variable by which tests find it. `wasm_tools` is the folder of that program.
pub(super) fn prepare(place: &Path, wasm_tools: &Path) -> Result<Variables> {
    let (template, wit) = (root().join(TEMPLATE), root().join(WIT));
    let mut sources = Vec::new();
    for folder in [&template, &wit] {
        read_all(folder, &mut sources)?;
    }
    let made = unless_built("rust", place, sources, |built| {
        let work = place.join(format!("rust.{}", std::process::id()));
        let made = build(&work, &template, &wit, wasm_tools, built);
        // What is left there is of no use to anybody.
        let _ = fs::remove_dir_all(&work);
        made
    });
    let built = place.join("rust.wasm");
    if let Err(why) = made {
        let _ = fs::remove_file(built);
        eprintln!(
            "guests: no component of the template in Rust, its tests will say NOT RUN: {why:#}"
        );
        return Ok(Vec::new());
    }
    Ok(vec![("BIELD_GUESTS_RUST", built)])
}

fn build(work: &Path, template: &Path, wit: &Path, wasm_tools: &Path, built: &Path) -> Result<()> {
    let folder = work.join("function");
    copy(template, &folder)?;
    fs::rename(folder.join("cargo.toml"), folder.join("Cargo.toml"))?;
    copy(wit, &folder.join("wit"))?;
    if has_library("wasm32-wasip2")? {
        succeed(Command::new("sh").arg("build.sh").current_dir(&folder))?;
        fs::copy(folder.join("function.wasm"), built)?;
        return Ok(());
    }
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--quiet", "--target", TARGET]);
    cargo.arg("--target-dir").arg(work.join("target"));
    if !has_library(TARGET)? {
        use_debian(&work.join("debian"), &mut cargo)
            .context("neither has rustup's toolchain a target for it, nor Debian its rustc-web")?;
    }
    succeed(cargo.current_dir(&folder))?;
    let module = work
        .join("target")
        .join(TARGET)
        .join("release/function.wasm");
    let mut tools = Command::new(wasm_tools.join("wasm-tools"));
    tools.args(["component", "new"]).arg(module);
    succeed(tools.arg("--output").arg(built))
}

/// What Debian's compiler and its sources make without a C library.
const TARGET: &str = "wasm32-unknown-unknown";

/// Whether the toolchain in use has the standard library of a target.
fn has_library(target: &str) -> Result<bool> {
    let found = sysroot()?.join("lib/rustlib").join(target).join("lib");
    Ok(found.is_dir())
}

/// Fetches and unpacks Debian's compiler; has `cargo` use it, and build the target's standard library from its source.
fn use_debian(place: &Path, cargo: &mut Command) -> Result<()> {
    let release = release()?;
    let library = format!("libstd-rust-web-{release}");
    fs::create_dir_all(place)?;
    let mut apt = Command::new("apt-get");
    apt.args(["download", "-qq"]).args(PACKAGES).arg(library);
    succeed(apt.current_dir(place))?;
    let unpacked = place.join("unpacked");
    for entry in fs::read_dir(place)? {
        let package = entry?.path();
        if package.extension().is_some_and(|ending| ending == "deb") {
            let mut dpkg = Command::new("dpkg-deb");
            succeed(dpkg.arg("--extract").arg(&package).arg(&unpacked))?;
            fs::remove_file(package)?;
        }
    }
    let compiler = unpacked.join("usr/bin/rustc");
    let source = unpacked.join("usr/lib/rustlib/src/rust/library/std");
    ensure!(source.is_dir(), "rust-web-src has no library/std");
    // rustup's toolchains have a linker for WebAssembly, Debian's has it in a package with much else.
    let host = host()?;
    let linker = sysroot()?
        .join("lib/rustlib")
        .join(host)
        .join("bin/rust-lld");
    cargo
        .env("RUSTC", compiler)
        .env("LD_LIBRARY_PATH", unpacked.join("usr/lib/x86_64-linux-gnu"))
        // Building a standard library is an unstable option of cargo, which a released compiler has so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        .arg("-Zbuild-std=std,panic_abort");
    Ok(())
}

/// Which Rust Debian's package is of: `1.96`.
fn release() -> Result<String> {
    let shown = said(Command::new("apt-cache").args(["show", "--no-all-versions", PACKAGES[0]]))?;
    let version = shown
        .lines()
        .find_map(|line| line.strip_prefix("Version: "));
    let mut parts = version.context("no version of rustc-web")?.split('.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => Ok(format!("{major}.{minor}")),
        _ => bail!("the version of rustc-web is {version:?}"),
    }
}

fn sysroot() -> Result<PathBuf> {
    let sysroot = said(
        Command::new("rustc")
            .args(["--print", "sysroot"])
            .current_dir(root()),
    )?;
    Ok(sysroot.trim().into())
}

fn host() -> Result<String> {
    let version = said(Command::new("rustc").arg("-vV").current_dir(root()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say its host")?.to_owned())
}

/// What a command prints.
fn said(command: &mut Command) -> Result<String> {
    let ran = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(
        ran.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&ran.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy(&path, &to)?,
            false => drop(fs::copy(&path, to)?),
        }
    }
    Ok(())
}
