//! A guest's own code: SHA-256 in C, as a function and as a program that the machine's compiler made of the same source.
//!
//! Always true: both give the same digest. The function's time is what a request with all rounds takes longer than one with
//! none.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Effort;
use super::cast::Cast;
use super::table::Table;
use crate::bars::{Bar, median, ratio};

/// Rounds of two blocks: some 3 ms.
const ROUNDS: u32 = 5000;
/// Times in a row, of which the shortest counts: what disturbs only adds.
const TIMES: usize = 5;
/// Most that a guest's integer code may take, as issue 7 has it.
const RATIO_MAX: f64 = 1.6;

pub(super) fn measured(cast: &Cast, effort: Effort, bars: &mut Vec<Bar>) -> Result<()> {
    let native = build(&cast.folder)?;
    let table = Table::open(&cast.folder, &["none"])?;
    let (mut guests, mut natives) = (Vec::new(), Vec::new());
    // The first round warms up.
    for round in 0..=effort.rounds() {
        let (digest, guest) = guest(cast, &table, ROUNDS)?;
        let (_, rest) = self::guest(cast, &table, 0)?;
        let (expected, program) = run(&native.program)?;
        ensure!(digest == expected, "guest and program digest differently");
        if round > 0 {
            guests.push(guest - rest);
            natives.push(program);
        }
    }
    let note = format!(
        "SHA-256 in C, {} KiB: {:.2} ms in an instance, {:.2} ms native ({}, -O3)",
        ROUNDS * 2 * 64 / 1024,
        median(guests.clone()) / 1e3,
        median(natives.clone()) / 1e3,
        native.compiler,
    );
    bars.push(Bar::at_most(
        "kernel: integer code ÷ native".to_owned(),
        ratio(&guests, &natives),
        RATIO_MAX,
        note,
    ));
    Ok(())
}

/// The digest, and the shortest time in microseconds.
fn guest(cast: &Cast, table: &Table, rounds: u32) -> Result<(String, f64)> {
    let mut shortest = f64::INFINITY;
    let mut digest = String::new();
    for _ in 0..TIMES {
        let (world, left) = table.begin()?;
        let (answer, took) = cast.kernel.ask("/", &rounds.to_le_bytes(), world)?;
        left.finish()?;
        shortest = shortest.min(took);
        digest = answer.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    Ok((digest, shortest))
}

fn run(program: &Path) -> Result<(String, f64)> {
    let output = Command::new(program)
        .args([ROUNDS.to_string(), TIMES.to_string()])
        .output()?;
    ensure!(output.status.success(), "the native kernel: {output:?}");
    let said = String::from_utf8(output.stdout)?;
    let mut digest = "";
    let mut shortest = f64::INFINITY;
    for line in said.lines() {
        let (made, nanos) = line.split_once(' ').context("a digest and its time")?;
        digest = made;
        shortest = shortest.min(nanos.parse::<f64>()? / 1e3);
    }
    Ok((digest.to_owned(), shortest))
}

struct Native {
    program: PathBuf,
    compiler: String,
}

/// Compiles the program, as `CC` or `cc` does it.
fn build(folder: &Path) -> Result<Native> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let said = Command::new(&compiler).arg("--version").output();
    let said = said.with_context(|| format!("{} is needed", compiler.display()))?;
    let version = String::from_utf8_lossy(&said.stdout);
    let program = folder.join("kernel");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests/c/kernel.c");
    let mut build = Command::new(&compiler);
    build.args(["-O3", "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-o"]);
    let status = build.arg(&program).arg(source).status()?;
    ensure!(status.success(), "{build:?}: {status}");
    Ok(Native {
        program,
        compiler: version.lines().next().unwrap_or_default().to_owned(),
    })
}
