//! Writes every target's seeds as files, for libFuzzer to start from: `seeds CORPUS`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bield_fuzz::TARGETS;

fn main() -> Result<()> {
    let corpus = std::env::args_os().nth(1);
    let corpus = PathBuf::from(corpus.context("usage: seeds CORPUS (a folder to make)")?);
    for target in TARGETS {
        let folder = corpus.join(target.name);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    println!("{} targets under {}", TARGETS.len(), corpus.display());
    Ok(())
}
