//! Memory: while a package is opened, of one more session, and after a model made room for another.
//!
//! Resident memory of processes, as the kernel counts it.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use bield_package::{CHUNK_BYTES, PackageHead, PackageKey};
use bield_sdk::{Home, Randomness};

use super::Bench;
use super::load::{Client, closed};
use crate::bars::Bar;
use crate::deployment::{Deployment, own_status};

/// Peak memory while opening, in models.
const OPENING: f64 = 1.05;
/// What one more session may keep, in MB: an engine's second run at a time, when both have ended.
const SESSION_MB: f64 = 25.0;
/// Calls before the first look, and how long each look at the peak lasts.
const CALLS: usize = 20;
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks while runs go on: less than a run of any network takes.
const PAUSE: Duration = Duration::from_millis(2);
/// How far an unloaded model may leave the process from where it was, in MB.
const UNLOAD_MB: f64 = 15.0;
/// How often a model makes room for its twin and back.
const TURNS: usize = 3;

/// Measures all three.
pub(crate) fn measured(bench: &Bench<'_>, bars: &mut Vec<Bar>) -> Result<()> {
    let name = bench.name();
    session(bench, bars)?;
    let tight = Deployment::start(&bench.tight()?)?;
    let twins = [
        tight.publish_own("one", &bench.file)?,
        tight.publish_own("other", &bench.file)?,
    ];
    let opening = opening(&twins[0].file, tight.owner.home.path())?;
    bars.push(Bar::at_most(
        format!("{name}: peak memory opening, less one chunk ÷ model"),
        opening,
        OPENING,
        format!(
            "a process that only opens the package of {}",
            bench.file.format
        ),
    ));

    let targets = [
        tight.owner.target(&twins[0])?,
        tight.owner.target(&twins[1])?,
    ];
    let mut after = Vec::new();
    for turn in 0..=2 * TURNS {
        bench.call(&tight.owner, &targets[turn % 2])?;
        after.push(megabytes(&tight)?);
    }
    let firsts: Vec<f64> = after.iter().copied().step_by(2).collect();
    let back = firsts[1..].iter().map(|one| (one - firsts[0]).abs());
    let note = format!(
        "{:.0} MB with a model, then {TURNS} times its twin in a budget for one and it again, the worst",
        firsts[0]
    );
    let off = Bar::at_most(
        format!("{name}: after unloading, off from before"),
        back.fold(0.0, f64::max),
        UNLOAD_MB,
        note,
    );
    bars.push(off.of("MB"));
    bars.push(Bar::told(
        format!("{name}: after unloading, the last time over the first"),
        firsts[TURNS] - firsts[1],
        "MB",
        "what was not there before the first run and stays is not in this; what leaks is".into(),
    ));
    Ok(())
}

/// What a second run at a time takes: while both run, and for good.
fn session(bench: &Bench<'_>, bars: &mut Vec<Bar>) -> Result<()> {
    let name = bench.name();
    let roomy = Deployment::start(&bench.roomy())?;
    let package = roomy.publish_own("session", &bench.file)?;
    let target = roomy.owner.target(&package)?;
    for _ in 0..CALLS {
        bench.call(&roomy.owner, &target)?;
    }
    let client = || -> Result<Client<'_>> {
        let target = roomy.owner.target(&package)?;
        let (key, inputs) = (&roomy.owner.key, bench.subject.inputs.clone());
        Ok(Box::new(move || {
            target.call(key, inputs.clone(), Vec::new(), &mut Randomness)?;
            Ok(())
        }))
    };
    let (alone, one) = peak(&roomy, || closed(1, LOOK, &client))?;
    let (both, two) = peak(&roomy, || closed(2, LOOK, &client))?;
    let stays = Bar::at_most(
        format!("{name}: per extra session, what stays of it"),
        two - one,
        SESSION_MB,
        format!(
            "{one:.0} MB at rest after single calls, {two:.0} after two at a time; weights are shared; the bar is on this"
        ),
    );
    bars.push(stays.of("MB"));
    bars.push(Bar::told(
        format!("{name}: per extra session, while both run"),
        both - alone,
        "MB",
        format!("peak {alone:.0} MB while one runs, {both:.0} while two do; requests and answers included"),
    ));
    Ok(())
}

/// The most that the runtime has resident while `work` goes on, and what it has afterwards, in MB.
fn peak<T>(deployment: &Deployment, work: impl FnOnce() -> Result<T>) -> Result<(f64, f64)> {
    let done = AtomicBool::new(false);
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<f64> {
            let mut most = 0.0_f64;
            while !done.load(Ordering::Relaxed) {
                most = most.max(megabytes(deployment)?);
                thread::sleep(PAUSE);
            }
            Ok(most)
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let most = watch.join().map_err(|_| anyhow!("the watch panicked"))?;
        worked.and(most)
    })?;
    Ok((most, megabytes(deployment)?))
}

fn megabytes(deployment: &Deployment) -> Result<f64> {
    Ok(deployment.resident()? as f64 / 1e6)
}

/// Opens the package and prints `(peak bytes - one chunk) ÷ model bytes`.
pub(crate) fn open(package: &Path, home: &Path) -> Result<()> {
    let head = PackageHead::read(&mut BufReader::new(File::open(package)?))?;
    let key: PackageKey = Home::at(home).package_key(head.digest())?;
    let mut source = BufReader::new(File::open(package)?);
    let before = own_status("VmRSS")?;
    let opened = PackageHead::read(&mut source)?.open_manifest(&key)?;
    let bytes = usize::try_from(opened.model_bytes())?;
    let mut region = vec![0; bytes];
    opened.open_model(&mut source, &mut region, &mut |_, _| ())?;
    let peak = own_status("VmHWM")?;
    ensure!(region.iter().any(|byte| *byte != 0), "the model is empty");
    let grown = peak.saturating_sub(before + u64::from(CHUNK_BYTES));
    println!("{}", grown as f64 / bytes as f64);
    Ok(())
}

/// As [`open`], in a process of its own.
fn opening(package: &Path, home: &Path) -> Result<f64> {
    let mut child = Command::new(std::env::current_exe()?);
    let done = child.arg("open").arg(package).arg(home).output()?;
    ensure!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(String::from_utf8(done.stdout)?.trim().parse()?)
}
