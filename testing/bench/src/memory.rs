//! Peak memory while a package is opened, in a process that does nothing else, less the one chunk
//! that is always in flight.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use bield_package::{CHUNK_BYTES, PackageHead, PackageKey};
use bield_sdk::Home;

/// Opens the package and prints `(peak bytes - one chunk) ÷ model bytes`.
pub(crate) fn open(package: &Path, home: &Path) -> Result<()> {
    let head = PackageHead::read(&mut BufReader::new(File::open(package)?))?;
    let key: PackageKey = Home::at(home).package_key(head.digest())?;
    let mut source = BufReader::new(File::open(package)?);
    let before = status("VmRSS")?;
    let opened = PackageHead::read(&mut source)?.open_manifest(&key)?;
    let bytes = usize::try_from(opened.model_bytes())?;
    let mut region = vec![0; bytes];
    opened.open_model(&mut source, &mut region, &mut |_, _| ())?;
    let peak = status("VmHWM")?;
    ensure!(region.iter().any(|byte| *byte != 0), "the model is empty");
    let grown = peak.saturating_sub(before + u64::from(CHUNK_BYTES));
    println!("{}", grown as f64 / bytes as f64);
    Ok(())
}

/// As [`open`], in a process of its own.
pub(crate) fn opening(package: &Path, home: &Path) -> Result<f64> {
    let mut child = Command::new(std::env::current_exe()?);
    let done = child.arg("open").arg(package).arg(home).output()?;
    ensure!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8(done.stdout)?.trim().parse()?)
}

/// A line of /proc/self/status, in bytes.
pub(crate) fn status(field: &str) -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .context("no such field")?;
    let kibibytes: u64 = line
        .split_whitespace()
        .nth(1)
        .context("no value")?
        .parse()?;
    Ok(kibibytes * 1024)
}
