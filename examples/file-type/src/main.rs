//! `file-type FILE`: asks a sealed model what kind of file this is.
//!
//! The file's bytes leave this process only sealed, to code that the trust file names; the answer is
//! shown only with a receipt that was verified. Exit codes: 0 answered, 1 refused or not verified.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bield_sdk::{Home, KeyService, Randomness, Reference, Tensor, now};
use clap::Parser;
use file_type::{FEATURES, best, features, labels};

/// Asks a sealed model what kind of file this is.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The file.
    file: PathBuf,
    /// Identity and trust file of the asking user.
    #[arg(long, env = "BIELD_HOME", default_value = ".bield")]
    home: PathBuf,
    /// The package: its digest, `name` or `name@version`.
    #[arg(long, default_value = "magika")]
    package: Reference,
    /// The label list: the folder `src` of the package that ships the model.
    #[arg(long)]
    labels: PathBuf,
    /// Where to keep the receipt.
    #[arg(long)]
    receipt: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let source = |name: &str| {
        let path = arguments.labels.join(name);
        std::fs::read_to_string(&path)
            .with_context(|| format!("reading labels from {}", path.display()))
    };
    let labels = labels(&source("model.rs")?, &source("content.rs")?)
        .context("that folder does not hold the model's label list")?;
    let file = std::fs::read(&arguments.file)
        .with_context(|| format!("reading {}", arguments.file.display()))?;

    let home = Home::at(&arguments.home);
    let (user, trust) = (home.identity()?, home.trust()?);
    // Remembered in the home, so that `bield receipt` believes it later, offline.
    let mut service = KeyService::connect(&home, &trust, now(), &mut Randomness)?;
    let package = arguments.package.of(trust.owner())?;
    let code = trust
        .code()
        .first()
        .context("the trust file names no code")?;
    let target = service.target(&package, code, now())?;

    let input = Tensor::from_i32("bytes", &[1, FEATURES as u64], &features(&file))?;
    let answered = target.call(&user, vec![input], Vec::new(), &mut Randomness)?;
    let scores = answered
        .tensors
        .first()
        .and_then(Tensor::to_f32)
        .context("an answer without scores")?;
    let (label, score) = best(&labels, &scores).context("more scores than labels")?;

    println!(
        "{}: {} ({}), score {score:.3}",
        arguments.file.display(),
        label.name,
        label.description
    );
    println!("{}", answered.receipt);
    if let Some(path) = &arguments.receipt {
        bield_sdk::write_atomically(path, &answered.bundle.encode())?;
    }
    Ok(())
}
