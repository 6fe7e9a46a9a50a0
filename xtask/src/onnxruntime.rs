//! `cargo xtask fetch-onnxruntime`: the shared library of onnxruntime, from the wheel that PyPI has.
//!
//! ```text
//! pip download (version and hash pinned) ─▶ wheel ─▶ libonnxruntime.so ─▶ cache: path and digest for a configuration
//! ```
//!
//! Always true: what is in the cache under this name has the digest below. pip brings it, so that a mirror or proxy
//! that is configured for pip serves here too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::programs::succeed;

/// Its version; the wheel's Python does not matter to the library in it.
const VERSION: &str = "1.31.1";

/// Where a library comes from, and what it must be.
struct Wheel {
    machine: &'static str,
    wheel_sha256: &'static str,
    library_sha256: &'static str,
}

const WHEELS: [Wheel; 2] = [
    Wheel {
        machine: "x86_64",
        wheel_sha256: "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        library_sha256: "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3",
    },
    Wheel {
        machine: "aarch64",
        wheel_sha256: "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
        library_sha256: "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467",
    },
];

/// Fetches the library unless the cache has it, and prints where it is and what a configuration says of it.
pub(crate) fn run() -> Result<()> {
    let wheel = wheel()?;
    let path = cached(wheel)?;
    if !path.exists() {
        fetch(wheel, &path)?;
    }
    ensure!(
        digest(&path)? == wheel.library_sha256,
        "{} is another file than it should be; remove it and fetch again",
        path.display()
    );
    println!("{}", path.display());
    println!(
        "engines = [\"onnxruntime\", \"rten\"]\n[onnxruntime]\nlibrary = \"sha256:{}\"",
        wheel.library_sha256
    );
    Ok(())
}

/// The library, if it was fetched.
pub(crate) fn library() -> Option<PathBuf> {
    let path = wheel().and_then(cached).ok()?;
    path.exists().then_some(path)
}

fn wheel() -> Result<&'static Wheel> {
    let machine = std::env::consts::ARCH;
    let wheel = WHEELS.iter().find(|wheel| wheel.machine == machine);
    wheel.with_context(|| format!("no onnxruntime is pinned for {machine}"))
}

fn cached(wheel: &Wheel) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::home_dir().map(|home| home.join(".cache"));
    let cache = cache
        .or_else(home)
        .context("there is no home directory for the cache")?;
    let folder = cache
        .join("bield")
        .join(format!("onnxruntime-{VERSION}-{}", wheel.machine));
    Ok(folder.join("libonnxruntime.so"))
}

fn fetch(wheel: &Wheel, path: &Path) -> Result<()> {
    let folder = path.parent().context("the cache has a folder")?;
    let work = folder.join(format!("unfinished.{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
    let fetched = fetch_into(wheel, &work, path);
    // What is left there is of no use to anybody.
    let _ = fs::remove_dir_all(&work);
    fetched
}

fn fetch_into(wheel: &Wheel, work: &Path, path: &Path) -> Result<()> {
    let requirements = work.join("requirements.txt");
    let line = format!(
        "onnxruntime=={VERSION} --hash=sha256:{}\n",
        wheel.wheel_sha256
    );
    fs::write(&requirements, line)?;
    let platform = format!("manylinux_2_28_{}", wheel.machine);
    let mut pip = python();
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ])
    .args([
        "--require-hashes",
        "--only-binary=:all:",
        "--platform",
        &platform,
    ])
    .args([
        "--implementation",
        "cp",
        "--python-version",
        "3.11",
        "--abi",
        "cp311",
    ])
    .arg("--requirement")
    .arg(&requirements)
    .arg("--dest")
    .arg(work);
    succeed(&mut pip).context("pip, which comes with Python, fetches the wheel of onnxruntime")?;
    let name = format!("onnxruntime-{VERSION}-cp311-cp311-{platform}.whl");
    let mut unpack = python();
    unpack
        .args(["-m", "zipfile", "-e"])
        .arg(work.join(name))
        .arg(work);
    succeed(&mut unpack)?;
    let library = work
        .join("onnxruntime/capi")
        .join(format!("libonnxruntime.so.{VERSION}"));
    fs::rename(&library, path).with_context(|| format!("the wheel has no {}", library.display()))
}

fn digest(path: &Path) -> Result<String> {
    let program =
        "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())";
    let output = python().args(["-c", program]).arg(path).output()?;
    if !output.status.success() {
        bail!("{} cannot be read", path.display());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn python() -> Command {
    Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
}
